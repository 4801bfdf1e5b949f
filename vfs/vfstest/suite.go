package vfstest

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"

	"gondolin/vfs"
)

// Options says what a provider cannot do by design. The zero value asks for everything.
type Options struct {
	// FixedOwner: chown to another owner is EPERM, and new entries do not take the creator's ids.
	FixedOwner bool
	// NoSpecialBits: setting set-id and sticky bits is EPERM.
	NoSpecialBits bool
	// NoExchange: RenameExchange is not supported.
	NoExchange bool
	// NoLinkTimes: the times of a symbolic link cannot be set.
	NoLinkTimes bool
	// NoXattrs: extended attributes are EOPNOTSUPP.
	NoXattrs bool
	// NoHoles: modes of fallocate but 0 are EOPNOTSUPP.
	NoHoles bool
	// NoTmpFile: files without a name are EOPNOTSUPP.
	NoTmpFile bool
	// ManyEntries is the size of the large directory. If zero, 3000.
	ManyEntries int
}

// Run tests a provider that can be written to. newFS returns an empty file system for each test.
func Run(t *testing.T, newFS func(t *testing.T) vfs.FS, opts Options) {
	t.Helper()
	for _, c := range append(cases, directCases...) {
		t.Run(c.name, func(t *testing.T) { c.run(&env{T: t, fs: newFS(t), opts: opts}) })
	}
}

// testCase is one assertion group.
type testCase struct {
	name string
	run  func(e *env)
}

// cases hold for a provider and for a mounted directory alike.
var cases = []testCase{
	{"Create", testCreate},
	{"CreateExclusive", testExclusive},
	{"OpenMissing", testOpenMissing},
	{"OpenDirectory", testOpenDirectory},
	{"Truncate", testTruncateFlag},
	{"Append", testAppend},
	{"ReadWriteAt", testReadWriteAt},
	{"LargeWrite", testLargeWrite},
	{"Sparse", testSparse},
	{"TruncateSize", testTruncateSize},
	{"HugeTruncate", testHugeTruncate},
	{"UnlinkOpen", testUnlinkOpen},
	{"RenameOverOpen", testRenameOverOpen},
	{"Mkdir", testMkdir},
	{"Rmdir", testRmdir},
	{"Unlink", testUnlink},
	{"RenameFile", testRenameFile},
	{"RenameDirectory", testRenameDirectory},
	{"RenameSubtree", testRenameSubtree},
	{"RenameErrors", testRenameErrors},
	{"RenameFlags", testRenameFlags},
	{"RenameSameInode", testRenameSameInode},
	{"Symlink", testSymlink},
	{"Readlink", testReadlinkErrors},
	{"HardLink", testHardLink},
	{"HardLinkErrors", testHardLinkErrors},
	{"Chmod", testChmod},
	{"Chown", testChown},
	{"Times", testTimes},
	{"TimesOfLink", testTimesOfLink},
	{"TimesAdvance", testTimesAdvance},
	{"ReadDirMany", testReadDirMany},
	{"ReadDirDeleting", testReadDirDeleting},
	{"ReadDirErrors", testReadDirErrors},
	{"NameLength", testNameLength},
	{"OddNames", testOddNames},
	{"NotADirectory", testNotADirectory},
	{"StatFS", testStatFS},
	{"Allocate", testAllocate},
	{"PunchHole", testPunchHole},
	{"ZeroRange", testZeroRange},
	{"SeekExtent", testSeekExtent},
	{"CopyRange", testCopyRange},
	{"TmpFile", testTmpFile},
	{"Mknod", testMknod},
	{"Xattrs", testXattrs},
	{"XattrErrors", testXattrErrors},
}

// directCases make sense only without a kernel in between.
var directCases = []testCase{
	{"BadNames", testBadNames},
	{"Root", testRoot},
	{"LinkInPath", testLinkInPath},
	{"ReadOnlyHandle", testReadOnlyHandle},
	{"LstatIn", testLstatIn},
	{"Concurrent", testConcurrent},
}

// env is a running test.
type env struct {
	*testing.T
	fs   vfs.FS
	opts Options
}

// ok fails the test on an error.
func (e *env) ok(err error) {
	e.Helper()
	if err != nil {
		e.Fatalf("unexpected error: %v (errno %d)", err, vfs.ErrnoOf(err))
	}
}

// want fails the test unless err is one of the given errors.
func (e *env) want(err error, oneOf ...vfs.Errno) {
	e.Helper()
	got := vfs.ErrnoOf(err)
	if slices.Contains(oneOf, got) {
		return
	}
	e.Errorf("got error %v (errno %d), want %v", err, got, oneOf)
}

// check fails the test unless cond.
func (e *env) check(cond bool, format string, args ...any) { //nolint:revive // the condition is what is checked
	e.Helper()
	if !cond {
		e.Errorf(format, args...)
	}
}

func (e *env) open(name string, flags vfs.OpenFlag) vfs.File {
	e.Helper()
	f, err := e.fs.Open(name, flags, vfs.Create{Perm: 0o644})
	if err != nil {
		e.Fatalf("open %q: %v", name, err)
	}
	return f
}

// put makes or replaces a file.
func (e *env) put(name, content string) {
	e.Helper()
	f := e.open(name, vfs.Write|vfs.CreateFile|vfs.Trunc)
	e.writeAt(f, content, 0)
	e.ok(f.Close())
}

func (e *env) writeAt(f vfs.File, content string, off int64) {
	e.Helper()
	n, err := f.WriteAt([]byte(content), off)
	e.ok(err)
	e.check(n == len(content), "wrote %d of %d bytes", n, len(content))
}

// content reads an open file to its end.
func (e *env) content(f vfs.File) string {
	e.Helper()
	var out bytes.Buffer
	_, err := io.Copy(&out, io.NewSectionReader(f, 0, 1<<40))
	e.ok(err)
	return out.String()
}

func (e *env) get(name string) string {
	e.Helper()
	f := e.open(name, 0)
	defer f.Close()
	return e.content(f)
}

// holds fails the test unless a file has this content.
func (e *env) holds(name, content string) {
	e.Helper()
	if got := e.get(name); got != content {
		e.Errorf("%q holds %q, want %q", name, abbreviate(got), abbreviate(content))
	}
}

func abbreviate(s string) string {
	if len(s) > 60 {
		return s[:60] + "…"
	}
	return s
}

func (e *env) mkdir(name string) {
	e.Helper()
	e.ok(e.fs.Mkdir(name, vfs.Create{Perm: 0o755}))
}

func (e *env) stat(name string) vfs.Attr {
	e.Helper()
	a, err := e.fs.Lstat(name)
	if err != nil {
		e.Fatalf("lstat %q: %v", name, err)
	}
	return a
}

func (e *env) missing(name string) {
	e.Helper()
	_, err := e.fs.Lstat(name)
	e.want(err, vfs.ENOENT)
}

func (e *env) openErr(name string, flags vfs.OpenFlag) error {
	f, err := e.fs.Open(name, flags, vfs.Create{Perm: 0o644})
	if err == nil {
		f.Close()
	}
	return err
}

func (e *env) rename(from, to string) error { return e.fs.Rename(from, to, 0) }

// names lists a directory and fails on names that come twice.
func (e *env) names(dir string) map[string]vfs.DirEntry {
	e.Helper()
	out := map[string]vfs.DirEntry{}
	for d, err := range e.fs.ReadDir(dir) {
		e.ok(err)
		if _, twice := out[d.Name]; twice {
			e.Errorf("%q is listed twice", d.Name)
		}
		out[d.Name] = d
	}
	return out
}

func (e *env) linker() vfs.Linker {
	e.Helper()
	return capability[vfs.Linker](e)
}

func (e *env) symlink(target, name string) error {
	e.Helper()
	return capability[vfs.Symlinker](e).Symlink(target, name, vfs.Create{})
}

func (e *env) readlink(name string) (string, error) {
	e.Helper()
	return capability[vfs.Readlinker](e).Readlink(name)
}

// capability skips the test if the provider does not have an optional interface: it says so by not having it.
func capability[T any](e *env) T {
	e.Helper()
	c, ok := e.fs.(T)
	if !ok {
		e.Skipf("the provider has no %T", (*T)(nil))
	}
	return c
}

// fileCapability is capability for an open file.
func fileCapability[T any](e *env, f vfs.File) T {
	e.Helper()
	c, ok := f.(T)
	if !ok {
		e.Skipf("the provider's files have no %T", (*T)(nil))
	}
	return c
}

// appendTo writes at the end of an open file.
func (e *env) appendTo(f vfs.File, content string) {
	e.Helper()
	a, ok := f.(vfs.Appender)
	if !ok {
		e.Skip("the provider's files have no Append")
	}
	n, err := a.Append([]byte(content))
	e.ok(err)
	e.check(n == len(content), "appended %d of %d bytes", n, len(content))
}

// atEnd fails the test unless reading at off is EOF.
func (e *env) atEnd(f vfs.File, off int64) {
	e.Helper()
	n, err := f.ReadAt(make([]byte, 8), off)
	e.check(n == 0 && errors.Is(err, io.EOF), "read at end: %d bytes, %v", n, err)
}
