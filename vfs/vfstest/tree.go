package vfstest

import (
	"fmt"
	"slices"
	"strings"

	"gondolin/vfs"
)

func testMkdir(e *env) {
	e.ok(e.fs.Mkdir("d", vfs.Create{Perm: 0o750}))
	a := e.stat("d")
	e.check(a.Mode == vfs.ModeDir|0o750, "mode %o", a.Mode)
	e.want(e.fs.Mkdir("d", vfs.Create{Perm: 0o755}), vfs.EEXIST)
	e.want(e.fs.Mkdir("x/y", vfs.Create{Perm: 0o755}), vfs.ENOENT)
	e.put("f", "")
	e.want(e.fs.Mkdir("f", vfs.Create{Perm: 0o755}), vfs.EEXIST)
	e.mkdir("d/e")
	e.mkdir("d/e/f")
	e.put("d/e/f/g", "deep")
	e.holds("d/e/f/g", "deep")
}

func testRmdir(e *env) {
	e.mkdir("d")
	e.put("d/f", "")
	e.want(e.fs.Rmdir("d"), vfs.ENOTEMPTY)
	e.want(e.fs.Rmdir("d/f"), vfs.ENOTDIR)
	e.want(e.fs.Rmdir("nope"), vfs.ENOENT)
	e.ok(e.fs.Unlink("d/f"))
	e.ok(e.fs.Rmdir("d"))
	e.missing("d")
}

func testUnlink(e *env) {
	e.mkdir("d")
	e.want(e.fs.Unlink("d"), vfs.EISDIR)
	e.want(e.fs.Unlink("nope"), vfs.ENOENT)
	e.put("f", "x")
	e.ok(e.fs.Unlink("f"))
	e.missing("f")
	e.put("f", "again")
	e.holds("f", "again")
}

func testRenameFile(e *env) {
	e.put("a", "A")
	e.mkdir("d")
	e.ok(e.rename("a", "d/b"))
	e.missing("a")
	e.holds("d/b", "A")
	e.put("c", "C")
	e.ok(e.rename("c", "d/b")) // over a file
	e.holds("d/b", "C")
	f := e.open("d/b", vfs.Write) // while open
	defer f.Close()
	e.ok(e.rename("d/b", "z"))
	e.writeAt(f, "Z", 0)
	e.holds("z", "Z")
}

func testRenameDirectory(e *env) {
	e.mkdir("d")
	e.put("d/f", "x")
	e.mkdir("empty")
	e.ok(e.rename("d", "empty")) // over an empty directory
	e.missing("d")
	e.holds("empty/f", "x")
	e.mkdir("d2")
	e.want(e.rename("d2", "empty"), vfs.ENOTEMPTY, vfs.EEXIST)
	e.holds("empty/f", "x")
}

func testRenameSubtree(e *env) {
	e.mkdir("a")
	e.mkdir("a/b")
	e.mkdir("a/b/c")
	e.put("a/b/c/f", "deep")
	f := e.open("a/b/c/f", vfs.Write)
	defer f.Close()
	e.mkdir("x")
	e.ok(e.rename("a/b", "x/y"))
	e.holds("x/y/c/f", "deep")
	e.missing("a/b")
	e.put("x/y/c/g", "more")
	e.ok(e.fs.Unlink("x/y/c/f"))
	e.check(e.content(f) == "deep", "open file below a renamed directory: %q", e.content(f))
	e.ok(e.rename("x/y/c", "c"))
	e.holds("c/g", "more")
	e.ok(e.fs.Rmdir("x/y"))
}

func testRenameErrors(e *env) {
	e.mkdir("d")
	e.mkdir("d/e")
	e.put("f", "F")
	e.want(e.rename("d", "d/e/x"), vfs.EINVAL)
	e.want(e.rename("d", "d/x"), vfs.EINVAL)
	e.want(e.rename("f", "d"), vfs.EISDIR)
	e.want(e.rename("d/e", "f"), vfs.ENOTDIR)
	e.want(e.rename("nope", "x"), vfs.ENOENT)
	e.want(e.rename("f", "no/x"), vfs.ENOENT)
	e.want(e.rename("d/e", "d"), vfs.ENOTEMPTY)
	e.ok(e.rename("f", "f"))
	e.ok(e.rename("d", "d"))
	e.holds("f", "F")
}

func testRenameFlags(e *env) {
	e.put("a", "A")
	e.put("b", "B")
	e.want(e.fs.Rename("a", "b", vfs.RenameNoReplace), vfs.EEXIST)
	e.holds("b", "B")
	e.ok(e.fs.Rename("a", "c", vfs.RenameNoReplace))
	e.holds("c", "A")
	e.want(e.fs.Rename("c", "d", 1<<30), vfs.EINVAL)
	if e.opts.NoExchange {
		return
	}
	e.want(e.fs.Rename("c", "d", vfs.RenameExchange), vfs.ENOENT)
	e.ok(e.fs.Rename("c", "b", vfs.RenameExchange))
	e.holds("c", "B")
	e.holds("b", "A")
	e.mkdir("d")
	e.put("d/x", "X")
	e.ok(e.fs.Rename("c", "d", vfs.RenameExchange))
	e.holds("d", "B")
	e.holds("c/x", "X")
	e.want(e.fs.Rename("c", "c/x", vfs.RenameExchange), vfs.EINVAL)
}

func testRenameSameInode(e *env) {
	e.put("a", "A")
	e.ok(e.linker().Link("a", "b"))
	e.ok(e.rename("a", "b")) // rename(2): two links of one file, nothing happens
	e.holds("a", "A")
	e.holds("b", "A")
}

func testSymlink(e *env) {
	long := strings.Repeat("x/", 2000) + "y"
	for i, target := range []string{"nowhere", "/etc/passwd", "../../..", long, "odd \n\xff name", "."} {
		name := fmt.Sprintf("l%d", i)
		e.ok(e.symlink(target, name))
		got, err := e.readlink(name)
		e.ok(err)
		e.check(got == target, "target %q, want %q", abbreviate(got), abbreviate(target))
		a := e.stat(name)
		e.check(a.Mode.IsSymlink() && a.Size == int64(len(target)), "mode %o, size %d", a.Mode, a.Size)
	}
	e.want(e.symlink("x", "l0"), vfs.EEXIST)
	e.want(e.symlink("", "l9"), vfs.ENOENT, vfs.EINVAL)
	e.ok(e.fs.Unlink("l0"))
	e.missing("l0")
	e.ok(e.rename("l1", "moved"))
	got, err := e.readlink("moved")
	e.check(err == nil && got == "/etc/passwd", "renamed link: %q %v", got, err)
}

func testReadlinkErrors(e *env) {
	e.put("f", "")
	e.mkdir("d")
	_, err := e.readlink("f")
	e.want(err, vfs.EINVAL)
	_, err = e.readlink("d")
	e.want(err, vfs.EINVAL)
	_, err = e.readlink("nope")
	e.want(err, vfs.ENOENT)
}

func testHardLink(e *env) {
	l := e.linker()
	e.put("a", "one")
	e.mkdir("d")
	e.ok(l.Link("a", "d/b"))
	a, b := e.stat("a"), e.stat("d/b")
	e.check(a.Nlink == 2 && b.Nlink == 2, "nlink %d and %d", a.Nlink, b.Nlink)
	e.check(a.Ino == b.Ino && a.Dev == b.Dev && a.Ino != 0, "identities differ: %d %d", a.Ino, b.Ino)
	e.put("d/b", "two!")
	e.holds("a", "two!")
	e.check(e.stat("a").Size == 4, "size %d through the other name", e.stat("a").Size)
	e.ok(e.fs.SetAttr("a", vfs.SetAttr{Mask: vfs.SetMode, Mode: 0o600}))
	e.check(e.stat("d/b").Mode == vfs.ModeRegular|0o600, "mode %o through the other name", e.stat("d/b").Mode)
	e.ok(e.fs.Unlink("a"))
	e.check(e.stat("d/b").Nlink == 1, "nlink %d after unlink", e.stat("d/b").Nlink)
	e.holds("d/b", "two!")
	e.ok(l.Link("d/b", "a"))
	e.ok(e.rename("d/b", "c"))
	e.check(e.stat("c").Nlink == 2, "nlink %d after rename", e.stat("c").Nlink)
}

func testHardLinkErrors(e *env) {
	l := e.linker()
	e.put("a", "")
	e.put("b", "")
	e.mkdir("d")
	e.want(l.Link("a", "b"), vfs.EEXIST)
	e.want(l.Link("nope", "c"), vfs.ENOENT)
	e.want(l.Link("d", "c"), vfs.EPERM)
	e.want(l.Link("a", "no/c"), vfs.ENOENT)
}

func testReadDirMany(e *env) {
	many := e.opts.ManyEntries
	if many == 0 {
		many = 3000
	}
	e.mkdir("d")
	for i := range many {
		e.ok(e.openErr(fmt.Sprintf("d/entry-%05d", i), vfs.Write|vfs.CreateFile|vfs.Excl))
	}
	e.mkdir("d/sub")
	got := e.names("d")
	e.check(len(got) == many+1, "%d entries, want %d", len(got), many+1)
	for i := range many {
		if _, ok := got[fmt.Sprintf("entry-%05d", i)]; !ok {
			e.Fatalf("entry %d is not listed", i)
		}
	}
	sub := got["sub"].Type
	e.check(sub == 0 || sub == vfs.ModeDir, "type of a directory is %o", sub)
}

func testReadDirDeleting(e *env) {
	const many = 1500
	e.mkdir("d")
	for i := range many {
		e.put(fmt.Sprintf("d/f%d", i), "")
	}
	seen := 0
	for d, err := range e.fs.ReadDir("d") { // rm -r: delete what is being listed
		e.ok(err)
		e.ok(e.fs.Unlink("d/" + d.Name))
		seen++
	}
	e.check(seen == many, "saw %d of %d entries while deleting", seen, many)
	e.ok(e.fs.Rmdir("d"))
}

func testReadDirErrors(e *env) {
	e.put("f", "")
	for name, want := range map[string]vfs.Errno{"f": vfs.ENOTDIR, "nope": vfs.ENOENT} {
		var got error
		for _, err := range e.fs.ReadDir(name) {
			got = err
		}
		e.want(got, want)
	}
	e.check(len(e.names(".")) == 1, "root lists %v", e.names("."))
}

func testNameLength(e *env) {
	long := strings.Repeat("n", 255)
	e.put(long, "x")
	e.holds(long, "x")
	if _, ok := e.names(".")[long]; !ok {
		e.Errorf("a name of 255 bytes is not listed")
	}
	e.want(e.openErr(long+"n", vfs.Write|vfs.CreateFile), vfs.ENAMETOOLONG)
	e.want(e.fs.Mkdir(long+"n", vfs.Create{Perm: 0o755}), vfs.ENAMETOOLONG)
	e.want(e.rename(long, long+"n"), vfs.ENAMETOOLONG)
	_, err := e.fs.Lstat(long + "n")
	e.want(err, vfs.ENAMETOOLONG)
	e.ok(e.fs.Unlink(long))
}

// oddNames are legal on Linux.
var oddNames = []string{
	" ", "a b", "trailing ", "dot.", "...", "-rf", "new\nline", "tab\t", "back\\slash", "\x01\x1b[31m", "*?[", "\"'`$",
	"ünïcode", "comma,=",
}

func testOddNames(e *env) {
	names := oddNames
	if e.openErr("\xff\xfe", vfs.Write|vfs.CreateFile) == nil { // file systems of Darwin refuse invalid UTF-8
		names = append(slices.Clip(names), "\xff\xfe", "\xc3")
	}
	for _, n := range names {
		e.put(n, n)
	}
	got := e.names(".")
	for _, n := range names {
		e.holds(n, n)
		if _, ok := got[n]; !ok {
			e.Errorf("%q is not listed", n)
		}
	}
	e.check(len(got) == len(names), "%d entries, want %d", len(got), len(names))
	for _, n := range names {
		e.ok(e.fs.Unlink(n))
	}
}

func testBadNames(e *env) {
	e.mkdir("d")
	for _, n := range []string{"", "..", "/", "/d", "d/", "d//x", "d/..", "d/./x", "../x", "a\x00b", "d/../../x"} {
		_, err := e.fs.Lstat(n)
		e.want(err, vfs.EINVAL)
		e.want(e.openErr(n, vfs.Write|vfs.CreateFile), vfs.EINVAL)
		e.want(e.fs.Mkdir(n, vfs.Create{Perm: 0o755}), vfs.EINVAL)
		e.want(e.rename("d", n), vfs.EINVAL)
		e.want(e.fs.Unlink(n), vfs.EINVAL)
	}
	e.want(e.fs.Mkdir(strings.Repeat("x/", 3000)+"y", vfs.Create{}), vfs.ENAMETOOLONG)
}

func testRoot(e *env) {
	e.check(e.stat(".").Mode.IsDir(), "the root is no directory")
	e.want(e.fs.Rmdir("."), vfs.EBUSY)
	e.want(e.fs.Mkdir(".", vfs.Create{}), vfs.EEXIST)
	e.mkdir("d")
	e.want(e.rename(".", "d/x"), vfs.EBUSY, vfs.EINVAL)
	e.want(e.rename("d", "."), vfs.EBUSY)
	e.want(e.openErr(".", 0), vfs.EISDIR)
}

func testLinkInPath(e *env) {
	e.mkdir("d")
	e.put("d/f", "x")
	e.ok(e.symlink("d", "l"))
	_, err := e.fs.Lstat("l/f")
	e.want(err, vfs.ELOOP, vfs.ENOTDIR)
	e.want(e.openErr("l/f", 0), vfs.ELOOP, vfs.ENOTDIR)
	e.want(e.openErr("l/new", vfs.Write|vfs.CreateFile), vfs.ELOOP, vfs.ENOTDIR)
	e.want(e.openErr("l", vfs.Write|vfs.CreateFile), vfs.ELOOP)
}

func testNotADirectory(e *env) {
	e.put("f", "")
	_, err := e.fs.Lstat("f/x")
	e.want(err, vfs.ENOTDIR)
	e.want(e.openErr("f/x", vfs.Write|vfs.CreateFile), vfs.ENOTDIR)
	e.want(e.fs.Mkdir("f/x", vfs.Create{Perm: 0o755}), vfs.ENOTDIR)
}

func testStatFS(e *env) {
	st, err := capability[vfs.StatFSer](e).StatFS()
	e.ok(err)
	e.check(st.BlockSize >= 512 && st.Blocks > 0 && st.Free <= st.Blocks && st.Avail <= st.Blocks && st.FreeFiles <= st.Files,
		"implausible capacity %+v", st)
}
