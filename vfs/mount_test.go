package vfs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"gondolin/vfs"
)

func want(t *testing.T, what string, err error, errno vfs.Errno) {
	t.Helper()
	if got := vfs.ErrnoOf(err); got != errno {
		t.Errorf("%s: got %v, want errno %d", what, err, errno)
	}
}

func write(t *testing.T, fsys vfs.FS, name, content string) {
	t.Helper()
	f, err := fsys.Open(name, vfs.Write|vfs.CreateFile, vfs.Create{Perm: 0o644})
	if err != nil {
		t.Fatalf("open %q: %v", name, err)
	}
	if _, err := f.WriteAt([]byte(content), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func list(t *testing.T, fsys vfs.FS, dir string) []string {
	t.Helper()
	var out []string
	for e, err := range fsys.ReadDir(dir) {
		if err != nil {
			t.Fatalf("list %q: %v", dir, err)
		}
		out = append(out, e.Name)
	}
	slices.Sort(out)
	return out
}

type treeParts struct{ base, src, deps vfs.FS }

// tree is three file systems in one: "src" covers a file of the base, "src/deps/x" is nested in it.
func tree(t *testing.T) (all vfs.FS, parts treeParts) {
	t.Helper()
	base, src, deps := vfs.Memory(), vfs.Memory(), vfs.Memory()
	write(t, base, "src", "covered")
	write(t, base, "top", "base")
	write(t, src, "main", "src")
	write(t, deps, "lib", "deps")
	all = vfs.Mount(base, map[string]vfs.FS{"src": src, "src/deps/x": deps})
	if err := all.(vfs.Checker).Check(); err != nil {
		t.Fatal(err)
	}
	return all, treeParts{base, src, deps}
}

func TestMountLongestPrefix(t *testing.T) {
	all, parts := tree(t)
	for dir, names := range map[string][]string{
		".": {"src", "top"}, "src": {"deps", "main"}, "src/deps": {"x"}, "src/deps/x": {"lib"},
	} {
		if got := list(t, all, dir); !slices.Equal(got, names) {
			t.Errorf("%q lists %q, want %q", dir, got, names)
		}
		if a, err := all.Lstat(dir); err != nil || !a.Mode.IsDir() {
			t.Errorf("%q: %+v, %v", dir, a, err)
		}
	}
	write(t, all, "src/deps/x/new", "n")
	write(t, all, "src/depsx", "n")
	if _, err := parts.deps.Lstat("new"); err != nil {
		t.Errorf("the nested mount did not get its file: %v", err)
	}
	if _, err := parts.src.Lstat("depsx"); err != nil {
		t.Errorf("a name that only begins like a mount point: %v", err)
	}
	want(t, "below a directory that only leads to a mount", all.Mkdir("src/deps/other", vfs.Create{}), vfs.ENOENT)
}

func TestMountPointsStay(t *testing.T) {
	all, parts := tree(t)
	for _, name := range []string{"src", "src/deps", "src/deps/x"} {
		want(t, "rmdir "+name, all.Rmdir(name), vfs.EBUSY)
		want(t, "unlink "+name, all.Unlink(name), vfs.EISDIR)
		want(t, "mkdir "+name, all.Mkdir(name, vfs.Create{}), vfs.EEXIST)
		want(t, "rename "+name, all.Rename(name, "elsewhere", 0), vfs.EBUSY)
		want(t, "rename over "+name, all.Rename("top", name, 0), vfs.EBUSY)
		want(t, "exchange "+name, all.Rename("top", name, vfs.RenameExchange), vfs.EBUSY)
		want(t, "symlink "+name, all.(vfs.Symlinker).Symlink("top", name, vfs.Create{}), vfs.EEXIST)
		_, err := all.Open(name, vfs.Write|vfs.CreateFile, vfs.Create{})
		want(t, "open "+name, err, vfs.EISDIR)
	}
	want(t, "chmod of what only leads to a mount", all.SetAttr("src/deps", vfs.SetAttr{Mask: vfs.SetMode, Mode: 0o777}), vfs.EROFS)
	if a, err := parts.base.Lstat("src"); err != nil || !a.Mode.IsRegular() {
		t.Errorf("the covered file: %+v, %v", a, err)
	}
}

func TestMountCrossing(t *testing.T) {
	all, _ := tree(t)
	want(t, "rename", all.Rename("top", "src/top", 0), vfs.EXDEV)
	want(t, "rename out of the nested", all.Rename("src/deps/x/lib", "src/lib", 0), vfs.EXDEV)
	want(t, "link", all.(vfs.Linker).Link("top", "src/top"), vfs.EXDEV)
	if err := all.Rename("src/main", "src/moved", 0); err != nil {
		t.Errorf("rename within a mount: %v", err)
	}
	for _, bad := range []string{"src/../top", "src//main", "/src", "src/"} {
		_, err := all.Lstat(bad)
		want(t, bad, err, vfs.EINVAL)
	}
}

// Files of different mounts with the same numbers must not look like hard links of each other.
func TestMountIdentity(t *testing.T) {
	all, parts := tree(t)
	want := func(fsys vfs.FS, name string) vfs.Attr {
		a, err := fsys.Lstat(name)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	type id struct{ dev, ino uint64 }
	seen := map[id]string{}
	for _, name := range []string{".", "top", "src", "src/main", "src/deps/x", "src/deps/x/lib"} {
		a := want(all, name)
		if other, twice := seen[id{a.Dev, a.Ino}]; twice {
			t.Errorf("%q and %q are one file", name, other)
		}
		seen[id{a.Dev, a.Ino}] = name
	}
	if a, b := want(parts.base, "."), want(parts.src, "."); a.Dev != b.Dev || a.Ino != b.Ino {
		t.Error("the roots differ by themselves: the test shows nothing")
	}
	f, err := all.Open("src/main", 0, vfs.Create{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if a, err := f.Stat(); err != nil || a.Dev != want(all, "src/main").Dev {
		t.Errorf("the open file is on device %d, its name says %d (%v)", a.Dev, want(all, "src/main").Dev, err)
	}
}

func TestMountCheck(t *testing.T) {
	for _, bad := range []string{"", ".", "/abs", "a//b", "../x", "a/"} {
		err := vfs.Mount(vfs.Memory(), map[string]vfs.FS{bad: vfs.Memory()}).(vfs.Checker).Check()
		if err == nil || !strings.Contains(err.Error(), "cannot mount at") {
			t.Errorf("mount at %q: %v", bad, err)
		}
	}
	if err := vfs.Mount(vfs.Memory(), map[string]vfs.FS{"a": vfs.Dir("/no/such/directory")}).(vfs.Checker).Check(); err == nil {
		t.Error("a directory that does not exist passed")
	}
	if got := vfs.Mount(vfs.Memory(), map[string]vfs.FS{"a": vfs.Dir(t.TempDir())}).(vfs.Cacher).Cache(); got != vfs.SharedCache() {
		t.Errorf("cache with a shared directory inside: %+v", got)
	}
}

// TestMountForwardsAll fails when the contract gets an optional interface that a mount neither has nor is known to
// leave out.
func TestMountForwardsAll(t *testing.T) {
	all, _ := tree(t)
	f, err := all.Open("top", 0, vfs.Create{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	methods := map[string]bool{}
	for _, v := range []reflect.Type{reflect.TypeOf(all), reflect.TypeOf(f)} {
		for method := range v.Methods() {
			methods[method.Name] = true
		}
	}
	found := optionalMethods(t)
	if len(found) < 9 {
		t.Errorf("found only %v", found)
	}
	for name, method := range found {
		if !methods[method] {
			t.Errorf("vfs.%s: Mount has no %s", name, method)
		}
	}
}

// optionalMethods finds the contract's interfaces of one method: their names, and the method of each.
func optionalMethods(t *testing.T) map[string]string {
	t.Helper()
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, file := range files {
		if !strings.HasSuffix(file.Name(), ".go") || strings.HasSuffix(file.Name(), "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok || !spec.Name.IsExported() {
				return true
			}
			if i, ok := spec.Type.(*ast.InterfaceType); ok && len(i.Methods.List) == 1 && len(i.Methods.List[0].Names) == 1 {
				out[spec.Name.Name] = i.Methods.List[0].Names[0].Name
			}
			return true
		})
	}
	return out
}
