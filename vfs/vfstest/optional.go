package vfstest

import (
	"bytes"
	"slices"
	"strings"

	"gondolin/vfs"
)

const keepSize, punch = vfs.AllocKeepSize, vfs.AllocPunchHole | vfs.AllocKeepSize

// allocate opens f and returns it with its Allocator.
func (e *env) allocate() (vfs.File, vfs.Allocator) {
	e.Helper()
	f := e.open("f", vfs.Write|vfs.CreateFile)
	e.Cleanup(func() { f.Close() })
	return f, fileCapability[vfs.Allocator](e, f)
}

func testAllocate(e *env) {
	f, a := e.allocate()
	err := a.Allocate(0, 10000, 0)
	if vfs.ErrnoOf(err) == vfs.EOPNOTSUPP && e.opts.NoHoles {
		return
	}
	e.ok(err)
	st, err := f.Stat()
	e.ok(err)
	e.check(st.Size == 10000 && st.Blocks*512 >= 10000, "size %d, %d blocks", st.Size, st.Blocks)
	e.check(e.content(f) == strings.Repeat("\x00", 10000), "allocated storage is not zero")
	e.writeAt(f, "x", 0)
	e.ok(a.Allocate(0, 100, 0))
	e.check(strings.HasPrefix(e.content(f), "x\x00"), "allocating changed what was written")
	e.want(a.Allocate(0, 0, 0), vfs.EINVAL)
	e.want(a.Allocate(0, 100, 1<<30), vfs.EOPNOTSUPP)
	if e.opts.NoHoles {
		e.want(a.Allocate(20000, 100, keepSize), vfs.EOPNOTSUPP)
		return
	}
	e.ok(a.Allocate(20000, 100, keepSize))
	e.check(e.stat("f").Size == 10000, "size %d", e.stat("f").Size)
}

func testPunchHole(e *env) {
	if e.opts.NoHoles {
		e.put("f", "x")
		_, a := e.allocate()
		e.want(a.Allocate(0, 1, punch), vfs.EOPNOTSUPP)
		return
	}
	const size = 256 << 10
	e.put("f", strings.Repeat("x", size))
	f, a := e.allocate()
	before := e.stat("f").Blocks
	e.want(a.Allocate(0, 100, vfs.AllocPunchHole), vfs.EOPNOTSUPP)
	want := bytes.Repeat([]byte("x"), size)
	for _, r := range [][2]int{{100, 50}, {4000, 200}, {64 << 10, 128 << 10}, {size - 10, 100}, {size + 5, 10}, {8192, 4096}} {
		e.ok(a.Allocate(int64(r[0]), int64(r[1]), punch))
		clear(want[min(r[0], size):min(r[0]+r[1], size)])
		e.check(e.content(f) == string(want), "content differs after punching %d bytes at %d", r[1], r[0])
	}
	after := e.stat("f")
	e.check(after.Size == size, "size %d", after.Size)
	e.check(after.Blocks < before, "a hole of 128 KiB left %d of %d blocks", after.Blocks, before)
	e.writeAt(f, "again", 100<<10)
	copy(want[100<<10:], "again")
	e.check(e.content(f) == string(want), "content differs after writing into a hole")
}

func testZeroRange(e *env) {
	e.put("f", strings.Repeat("x", 10000))
	f, a := e.allocate()
	err := a.Allocate(100, 5000, vfs.AllocZeroRange)
	if vfs.ErrnoOf(err) == vfs.EOPNOTSUPP { // many file systems cannot, tmpfs among them
		return
	}
	e.ok(err)
	want := strings.Repeat("x", 100) + strings.Repeat("\x00", 5000) + strings.Repeat("x", 4900)
	e.check(e.content(f) == want, "content differs")
	e.ok(a.Allocate(9000, 3000, vfs.AllocZeroRange|keepSize))
	want = want[:9000] + strings.Repeat("\x00", 1000)
	e.check(e.content(f) == want, "content differs with the size kept")
	e.ok(a.Allocate(9000, 3000, vfs.AllocZeroRange))
	e.check(e.content(f) == want+strings.Repeat("\x00", 2000), "content differs after extending")
}

func testSeekExtent(e *env) {
	f := e.open("f", vfs.Write|vfs.CreateFile)
	defer f.Close()
	const mib = 1 << 20
	e.writeAt(f, "data", 4*mib)
	e.writeAt(f, strings.Repeat("d", 100<<10), 8*mib)
	e.ok(f.SetAttr(vfs.SetAttr{Mask: vfs.SetSize, Size: 16 * mib}))
	s := fileCapability[vfs.ExtentSeeker](e, f)
	// What is a hole is the provider's choice, but data never lies in one and the end is one.
	at, err := s.SeekExtent(0, vfs.ExtentData)
	e.ok(err)
	e.check(at <= 4*mib, "data at %d", at)
	at, err = s.SeekExtent(8*mib+10, vfs.ExtentData)
	e.check(at == 8*mib+10 && err == nil, "data at %d, %v", at, err)
	at, err = s.SeekExtent(8*mib, vfs.ExtentHole)
	e.check(at >= 8*mib+100<<10 && at <= 16*mib && err == nil, "hole at %d, %v", at, err)
	_, err = s.SeekExtent(16*mib, vfs.ExtentHole)
	e.want(err, vfs.ENXIO)
	_, err = s.SeekExtent(20*mib, vfs.ExtentData)
	e.want(err, vfs.ENXIO)
	e.put("full", "abc")
	g := e.open("full", 0)
	defer g.Close()
	at, err = fileCapability[vfs.ExtentSeeker](e, g).SeekExtent(0, vfs.ExtentHole)
	e.check(at == 3 && err == nil, "the end of a file without holes: %d, %v", at, err)
}

func testCopyRange(e *env) {
	content := strings.Repeat("0123456789", 200_000)
	e.put("from", content)
	from, to := e.open("from", 0), e.open("to", vfs.Write|vfs.CreateFile)
	defer from.Close()
	defer to.Close()
	c := fileCapability[vfs.RangeCopier](e, from)
	copyAll := func(src, dst, length int64) (done int64) {
		e.Helper()
		for done < length {
			n, err := c.CopyRange(to, src+done, dst+done, length-done)
			if errno := vfs.ErrnoOf(err); errno == vfs.EXDEV || errno == vfs.EOPNOTSUPP {
				e.Logf("no copying beneath: %v", err)
				return -1
			}
			e.ok(err)
			if n == 0 {
				break
			}
			done += n
		}
		return done
	}
	if n := copyAll(5, 0, 1_500_000); n != 1_500_000 {
		e.check(n == -1, "copied %d bytes", n)
		return
	}
	e.check(e.content(to) == content[5:1_500_005], "the copy differs")
	e.check(copyAll(int64(len(content))-7, 1_500_000, 100) == 7, "copying over the end of the source")
	e.check(copyAll(int64(len(content)), 0, 100) == 0, "copying at the end of the source")
	e.check(e.content(to) == content[5:1_500_005]+content[len(content)-7:], "the second copy differs")
	_, err := fileCapability[vfs.RangeCopier](e, to).CopyRange(from, 0, 0, 10)
	e.want(err, vfs.EBADF)
}

func testTmpFile(e *env) {
	e.mkdir("d")
	t := capability[vfs.TmpFiler](e)
	f, err := t.TmpFile("d", vfs.Create{Perm: 0o640})
	if e.opts.NoTmpFile {
		e.want(err, vfs.EOPNOTSUPP)
		return
	}
	if vfs.ErrnoOf(err) == vfs.EOPNOTSUPP {
		e.Logf("no files without names beneath")
		return
	}
	e.ok(err)
	e.writeAt(f, "nameless", 0)
	e.check(e.content(f) == "nameless", "content %q", e.content(f))
	a, err := f.Stat()
	e.ok(err)
	e.check(a.Nlink == 0 && a.Mode == vfs.ModeRegular|0o640, "nlink %d, mode %o", a.Nlink, a.Mode)
	e.check(len(e.names("d")) == 0, "listed: %v", e.names("d"))
	l := fileCapability[vfs.FileLinker](e, f)
	e.put("taken", "")
	e.want(l.LinkTo("taken"), vfs.EEXIST)
	e.ok(l.LinkTo("d/named"))
	e.holds("d/named", "nameless")
	e.check(e.stat("d/named").Nlink == 1, "nlink %d", e.stat("d/named").Nlink)
	e.writeAt(f, "N", 0)
	e.ok(f.Close())
	e.holds("d/named", "Nameless")
	_, err = t.TmpFile("nope", vfs.Create{Perm: 0o600})
	e.want(err, vfs.ENOENT)
	_, err = t.TmpFile("taken", vfs.Create{Perm: 0o600})
	e.want(err, vfs.ENOTDIR)
}

func testMknod(e *env) {
	m := capability[vfs.Mknoder](e)
	for name, kind := range map[string]vfs.Mode{"fifo": vfs.ModeFIFO, "socket": vfs.ModeSocket} {
		err := m.Mknod(name, kind, vfs.Create{Perm: 0o626})
		if vfs.ErrnoOf(err) == vfs.EPERM {
			e.Logf("the provider makes no %s", name)
			continue
		}
		e.ok(err)
		e.check(e.stat(name).Mode == kind|0o626, "mode of %s is %o", name, e.stat(name).Mode)
		e.check(e.names(".")[name].Type == kind, "listed as %o", e.names(".")[name].Type)
		e.want(m.Mknod(name, kind, vfs.Create{Perm: 0o600}), vfs.EEXIST)
		e.ok(e.rename(name, name+"2"))
		e.ok(e.fs.Unlink(name + "2"))
		e.missing(name + "2")
	}
}

func testXattrs(e *env) {
	x := capability[vfs.XattrFS](e)
	e.put("f", "")
	e.mkdir("d")
	if e.opts.NoXattrs {
		e.want(x.SetXattr("f", "user.a", []byte("1"), 0), vfs.EOPNOTSUPP)
		_, err := x.GetXattr("f", "user.a")
		e.want(err, vfs.EOPNOTSUPP)
		return
	}
	long := "user." + strings.Repeat("n", vfs.MaxXattrName-5)
	values := map[string]string{"user.a": "value\x00\xff", "user.empty": "", long: "long"}
	for _, name := range []string{"f", "d"} {
		list, err := x.ListXattr(name)
		e.check(err == nil && len(list) == 0, "a new entry has %v, %v", list, err)
		for attr, value := range values {
			e.ok(x.SetXattr(name, attr, []byte(value), 0))
			got, err := x.GetXattr(name, attr)
			e.check(err == nil && string(got) == value, "%s holds %q, %v", abbreviate(attr), got, err)
		}
		list, err = x.ListXattr(name)
		e.ok(err)
		e.check(len(list) == len(values), "listed: %d", len(list))
		for attr := range values {
			e.check(slices.Contains(list, attr), "%s is not listed", abbreviate(attr))
		}
		e.ok(x.SetXattr(name, "user.a", []byte("other"), vfs.XattrReplace))
		got, err := x.GetXattr(name, "user.a")
		e.check(err == nil && string(got) == "other", "replaced: %q, %v", got, err)
		e.ok(x.RemoveXattr(name, "user.a"))
		_, err = x.GetXattr(name, "user.a")
		e.want(err, vfs.ENODATA)
	}
	e.ok(e.rename("f", "g"))
	got, err := x.GetXattr("g", long)
	e.check(err == nil && string(got) == "long", "after rename: %q, %v", got, err)
}

func testXattrErrors(e *env) {
	x := capability[vfs.XattrFS](e)
	e.put("f", "")
	if e.opts.NoXattrs {
		e.want(x.RemoveXattr("f", "user.a"), vfs.EOPNOTSUPP)
		return
	}
	e.want(x.SetXattr("nope", "user.a", nil, 0), vfs.ENOENT)
	e.want(x.SetXattr("f", "user.a", nil, vfs.XattrReplace), vfs.ENODATA)
	e.ok(x.SetXattr("f", "user.a", nil, vfs.XattrCreate))
	e.want(x.SetXattr("f", "user.a", nil, vfs.XattrCreate), vfs.EEXIST)
	e.want(x.SetXattr("f", "user.b", make([]byte, vfs.MaxXattrValue+1), 0), vfs.E2BIG)
	e.want(x.RemoveXattr("f", "user.b"), vfs.ENODATA)
	e.want(x.SetXattr("f", "user."+strings.Repeat("n", vfs.MaxXattrName-4), nil, 0), vfs.ERANGE)
	e.want(x.SetXattr("f", "nonsense.a", nil, 0), vfs.EOPNOTSUPP)
	_, err := x.GetXattr("f", "user.b")
	e.want(err, vfs.ENODATA)
	_, err = x.ListXattr("nope")
	e.want(err, vfs.ENOENT)
}

func testLstatIn(e *env) {
	s := capability[vfs.DirStater](e)
	e.mkdir("d")
	e.put("d/f", "abc")
	e.mkdir("d/s")
	for _, dir := range []string{"d", "."} {
		names := []string{"f", "missing", "s"}
		if dir == "." {
			names = []string{"d", "missing"}
		}
		i := 0
		for a, err := range s.LstatIn(dir, names) {
			path := names[i]
			if dir != "." {
				path = dir + "/" + path
			}
			if names[i] == "missing" {
				e.want(err, vfs.ENOENT)
			} else {
				e.ok(err)
				e.check(a == e.stat(path), "%s is %+v, want %+v", path, a, e.stat(path))
			}
			i++
		}
		e.check(i == len(names), "%d results for %d names", i, len(names))
	}
	for _, err := range s.LstatIn("nope", []string{"f"}) {
		e.want(err, vfs.ENOENT)
	}
	for _, err := range s.LstatIn("d/f", []string{"f"}) {
		e.want(err, vfs.ENOTDIR)
	}
	for _, err := range s.LstatIn("d", []string{"f", "s"}) {
		e.ok(err)
		break // stopping early is fine
	}
}
