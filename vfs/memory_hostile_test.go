package vfs_test

import (
	"runtime"
	"strconv"
	"strings"
	"testing"

	"gondolin/vfs"
)

// heap returns the bytes that are in use.
func heap() int64 {
	runtime.GC()
	var st runtime.MemStats
	runtime.ReadMemStats(&st)
	return int64(st.HeapAlloc)
}

// TestMemoryPathNotKept makes many short names at a long path: an entry's cost covers its name, and not its path.
func TestMemoryPathNotKept(t *testing.T) {
	m := vfs.NewMemory(vfs.MemoryConfig{})
	dir := "."
	for range 15 {
		dir = strings.TrimPrefix(dir+"/"+strings.Repeat("d", vfs.MaxName), "./")
		if err := m.Mkdir(dir, vfs.Create{}); err != nil {
			t.Fatal(err)
		}
	}
	before := heap()
	const files = 5000
	for i := range files {
		f, err := m.Open(dir+"/"+strconv.Itoa(i), vfs.Write|vfs.CreateFile, vfs.Create{})
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	if each := (heap() - before) / files; each > 1024 {
		t.Errorf("an empty file takes %d bytes", each)
	}
	runtime.KeepAlive(m)
}

// TestMemoryGivesBack fills and empties files and directories: what they once held must not stay allocated.
func TestMemoryGivesBack(t *testing.T) {
	m := vfs.NewMemory(vfs.MemoryConfig{})
	before := heap()
	for i := range 20 {
		dir := strconv.Itoa(i)
		if err := m.Mkdir(dir, vfs.Create{}); err != nil {
			t.Fatal(err)
		}
		f, err := m.Open(dir+"/f", vfs.Write|vfs.CreateFile, vfs.Create{})
		if err != nil {
			t.Fatal(err)
		}
		a, ok := f.(vfs.Allocator)
		if !ok {
			t.Fatal("no Allocate")
		}
		for _, left := range []int64{0, 4096} {
			if err := a.Allocate(0, 32<<20, 0); err != nil {
				t.Fatal(err)
			}
			if err := f.SetAttr(vfs.SetAttr{Mask: vfs.SetSize, Size: left}); err != nil {
				t.Fatal(err)
			}
		}
		f.Close()
		for n := range 4000 {
			if err := m.Link(dir+"/f", dir+"/"+strconv.Itoa(n)); err != nil {
				t.Fatal(err)
			}
		}
		for n := range 4000 {
			if err := m.Unlink(dir + "/" + strconv.Itoa(n)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if kept := heap() - before; kept > 1<<20 {
		t.Errorf("20 files of one page take %d bytes", kept)
	}
	runtime.KeepAlive(m)
}
