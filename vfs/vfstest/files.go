package vfstest

import (
	"bytes"
	"io"
	"strings"
	"sync"

	"gondolin/vfs"
)

func testCreate(e *env) {
	f, err := e.fs.Open("f", vfs.Write|vfs.CreateFile, vfs.Create{Perm: 0o640})
	e.ok(err)
	e.writeAt(f, "hello", 0)
	e.check(e.content(f) == "hello", "content through the creating handle differs")
	e.ok(f.Sync())
	e.ok(f.Close())
	e.holds("f", "hello")
	a := e.stat("f")
	e.check(a.Mode == vfs.ModeRegular|0o640, "mode %o", a.Mode)
	e.check(a.Size == 5 && a.Nlink == 1, "size %d, nlink %d", a.Size, a.Nlink)
	// Creating what exists keeps content and mode.
	f, err = e.fs.Open("f", vfs.Write|vfs.CreateFile, vfs.Create{Perm: 0o600})
	e.ok(err)
	e.ok(f.Close())
	e.holds("f", "hello")
	e.check(e.stat("f").Mode == vfs.ModeRegular|0o640, "mode changed to %o", e.stat("f").Mode)
}

func testExclusive(e *env) {
	e.ok(e.openErr("lock", vfs.Write|vfs.CreateFile|vfs.Excl))
	e.want(e.openErr("lock", vfs.Write|vfs.CreateFile|vfs.Excl), vfs.EEXIST)
	e.mkdir("d")
	e.want(e.openErr("d", vfs.Write|vfs.CreateFile|vfs.Excl), vfs.EEXIST)
	if err := e.symlink("nowhere", "l"); err == nil {
		e.want(e.openErr("l", vfs.Write|vfs.CreateFile|vfs.Excl), vfs.EEXIST)
		e.missing("nowhere")
	}
}

func testOpenMissing(e *env) {
	e.want(e.openErr("nope", 0), vfs.ENOENT)
	e.want(e.openErr("nope", vfs.Write), vfs.ENOENT)
	e.want(e.openErr("no/such/dir", vfs.Write|vfs.CreateFile), vfs.ENOENT)
	_, err := e.fs.Lstat("no/such")
	e.want(err, vfs.ENOENT)
}

func testOpenDirectory(e *env) {
	e.mkdir("d")
	e.want(e.openErr("d", vfs.Write), vfs.EISDIR)
}

func testTruncateFlag(e *env) {
	e.put("f", "some content")
	f := e.open("f", vfs.Write|vfs.Trunc)
	e.ok(f.Close())
	e.holds("f", "")
	e.check(e.stat("f").Size == 0, "size %d", e.stat("f").Size)
}

func testAppend(e *env) {
	e.put("f", "a")
	f, g := e.open("f", vfs.Write), e.open("f", vfs.Write)
	defer f.Close()
	defer g.Close()
	for range 50 {
		e.appendTo(f, "b")
		e.appendTo(g, "c")
	}
	e.holds("f", "a"+strings.Repeat("bc", 50))
}

func testReadWriteAt(e *env) {
	f := e.open("f", vfs.Write|vfs.CreateFile)
	defer f.Close()
	e.writeAt(f, "0123456789", 0)
	e.writeAt(f, "AB", 4)
	e.writeAt(f, "", 100)
	e.check(e.content(f) == "0123AB6789", "content %q", e.content(f))
	buf := make([]byte, 4)
	n, err := f.ReadAt(buf, 3)
	e.check(n == 4 && err == nil && string(buf) == "3AB6", "read %d %q %v", n, buf, err)
	n, err = f.ReadAt(buf, 8)
	e.check(n == 2 && err == io.EOF, "short read: %d %v", n, err) //nolint:errorlint // io.ReaderAt returns EOF itself
	e.atEnd(f, 10)
	e.atEnd(f, 1000)
	a, err := f.Stat()
	e.ok(err)
	e.check(a.Size == 10, "size %d", a.Size)
}

func testLargeWrite(e *env) {
	f := e.open("f", vfs.Write|vfs.CreateFile)
	defer f.Close()
	data := make([]byte, 3<<20+4321)
	for i := range data {
		data[i] = byte(i>>12 ^ i) //nolint:gosec // any byte will do
	}
	n, err := f.WriteAt(data, 777)
	e.ok(err)
	e.check(n == len(data), "wrote %d of %d", n, len(data))
	got := []byte(e.get("f"))
	e.check(len(got) == 777+len(data) && bytes.Equal(got[777:], data), "content differs (%d bytes)", len(got))
	e.check(bytes.Equal(got[:777], make([]byte, 777)), "the gap is not zero")
}

func testSparse(e *env) {
	f := e.open("f", vfs.Write|vfs.CreateFile)
	defer f.Close()
	const far = 1 << 30
	e.writeAt(f, "end", far)
	e.writeAt(f, "mid", 5<<20)
	a, err := f.Stat()
	e.ok(err)
	e.check(a.Size == far+3, "size %d", a.Size)
	e.check(a.Blocks*512 < 1<<20, "a sparse file of two writes takes %d bytes", a.Blocks*512)
	buf := bytes.Repeat([]byte{1}, 8192)
	n, err := f.ReadAt(buf, 1<<20)
	e.check(n == len(buf) && err == nil && bytes.Equal(buf, make([]byte, len(buf))), "a hole does not read as zeros")
	n, err = f.ReadAt(buf[:3], far)
	e.check(n == 3 && (err == nil || err == io.EOF) && string(buf[:3]) == "end", "far content: %q %v", buf[:3], err) //nolint:errorlint // as io.ReaderAt
}

func testTruncateSize(e *env) {
	e.put("f", strings.Repeat("x", 10000))
	size := func(n int64) { e.Helper(); e.ok(e.fs.SetAttr("f", vfs.SetAttr{Mask: vfs.SetSize, Size: n})) }
	size(5000)
	e.holds("f", strings.Repeat("x", 5000))
	size(9000)
	e.holds("f", strings.Repeat("x", 5000)+strings.Repeat("\x00", 4000))
	size(4096)
	size(4100)
	e.holds("f", strings.Repeat("x", 4096)+strings.Repeat("\x00", 4))
	size(0)
	e.holds("f", "")
	f := e.open("f", vfs.Write)
	defer f.Close()
	e.ok(f.SetAttr(vfs.SetAttr{Mask: vfs.SetSize, Size: 3}))
	e.check(e.content(f) == "\x00\x00\x00", "content %q", e.content(f))
	e.mkdir("d")
	e.want(e.fs.SetAttr("d", vfs.SetAttr{Mask: vfs.SetSize}), vfs.EISDIR)
}

func testHugeTruncate(e *env) {
	e.put("f", "x")
	err := e.fs.SetAttr("f", vfs.SetAttr{Mask: vfs.SetSize, Size: 1 << 40})
	e.ok(err)
	a := e.stat("f")
	e.check(a.Size == 1<<40 && a.Blocks*512 < 1<<20, "1 TiB of nothing: size %d, %d blocks", a.Size, a.Blocks)
	e.ok(e.fs.SetAttr("f", vfs.SetAttr{Mask: vfs.SetSize, Size: 1}))
	e.holds("f", "x")
}

func testUnlinkOpen(e *env) {
	e.put("f", "before")
	f := e.open("f", vfs.Write)
	e.ok(e.fs.Unlink("f"))
	e.missing("f")
	a, err := f.Stat()
	e.ok(err)
	e.check(a.Nlink == 0 && a.Size == 6, "nlink %d, size %d", a.Nlink, a.Size)
	e.writeAt(f, "AFTER!!", 3)
	e.check(e.content(f) == "befAFTER!!", "content %q", e.content(f))
	e.ok(f.SetAttr(vfs.SetAttr{Mask: vfs.SetSize, Size: 2}))
	e.check(e.content(f) == "be", "content after truncate %q", e.content(f))
	e.ok(f.SetAttr(vfs.SetAttr{Mask: vfs.SetMode, Mode: 0o600}))
	e.ok(f.Sync())
	// A new file of that name is another file.
	e.put("f", "new")
	e.check(e.content(f) == "be", "the unlinked file shows %q", e.content(f))
	e.ok(f.Close())
	e.holds("f", "new")
}

func testRenameOverOpen(e *env) {
	e.put("a", "aaa")
	e.put("b", "bbb")
	fa, fb := e.open("a", vfs.Write), e.open("b", vfs.Write)
	defer fa.Close()
	defer fb.Close()
	e.ok(e.rename("a", "b"))
	e.missing("a")
	e.holds("b", "aaa")
	e.check(e.content(fb) == "bbb", "the replaced open file shows %q", e.content(fb))
	e.writeAt(fb, "BBB", 0)
	e.writeAt(fa, "A", 0)
	e.holds("b", "Aaa")
	a, err := fb.Stat()
	e.ok(err)
	e.check(a.Nlink == 0, "nlink %d of a replaced file", a.Nlink)
}

func testReadOnlyHandle(e *env) {
	e.put("f", "x")
	f := e.open("f", 0)
	defer f.Close()
	_, err := f.WriteAt([]byte("y"), 0)
	e.want(err, vfs.EBADF)
	e.want(f.SetAttr(vfs.SetAttr{Mask: vfs.SetSize}), vfs.EINVAL, vfs.EBADF)
	e.holds("f", "x")
	_, err = f.ReadAt(make([]byte, 1), -1)
	e.check(err != nil, "reading at a negative offset succeeded")
}

func testConcurrent(e *env) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			name := string(rune('a' + i)) //nolint:gosec // a letter
			for range 50 {
				e.put(name, name)
				e.names(".")
				if err := e.rename(name, name+"2"); err != nil {
					e.Errorf("rename %q: %v", name, err)
				}
				if err := e.fs.Unlink(name + "2"); err != nil {
					e.Errorf("unlink %q: %v", name, err)
				}
			}
		})
	}
	wg.Wait()
	e.check(len(e.names(".")) == 0, "left over: %v", e.names("."))
}
