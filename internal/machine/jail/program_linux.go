package jail

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// libraryDirs hold shared libraries on the distributions in use. Nothing in them
// is a secret, and only READ_FILE is given: they cannot be listed.
var libraryDirs = []string{
	"/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64",
	"/etc/ld.so.cache", "/etc/ld.so.preload",
}

// dataDirs hold the firmware that QEMU loads. The first ones are beside its own
// prefix, see besides.
var dataDirs = []string{"/usr/share/qemu", "/usr/share/seabios", "/usr/share/ipxe", "/usr/share/qemu-firmware"}

// besides are the directories of a program's own installation, from its directory:
// libraries, modules and firmware, also in QEMU's build tree.
var besides = []string{
	"../lib", "../lib64", "../share/qemu", "../share/seabios", "../share/ipxe", "qemu-bundle", "pc-bios",
}

// stores are directories whose every entry is a package that names its
// dependencies by full path.
var stores = []string{"/nix/store", "/gnu/store"}

// allowProgram adds the rules that any program of config needs: to be executed, to
// find its libraries and data, and its devices.
func (r *ruleset) allowProgram(config Config) error {
	var rules []rule
	seen, err := programRules(config.Program)
	if err != nil {
		return fmt.Errorf("cannot make a jail for %s: %w", config.Program, err)
	}
	rules = append(rules, seen...)
	rules = append(rules, rule{"/dev/null", device}, rule{"/dev/urandom", readFile})
	for _, d := range config.Devices {
		rules = append(rules, rule{d, device})
	}
	for _, rule := range rules {
		if err := r.allowPath(rule.path, rule.rights); err != nil {
			return err
		}
	}
	return nil
}

// rule is a path and what may be done with it and beneath.
type rule struct {
	path   string
	rights uint64
}

// programRules finds out what executing program takes. One that is not there gets no
// rules: starting it says so.
func programRules(program string) ([]rule, error) {
	real, err := filepath.EvalSymlinks(program)
	if err != nil {
		return nil, nil //nolint:nilerr // starting it says it better
	}
	rules := []rule{{real, execFile}}
	dirs := slices.Concat(libraryDirs, dataDirs)
	dirs = append(dirs, configuredLibraries()...)
	for _, bin := range []string{filepath.Dir(real), filepath.Dir(program)} {
		for _, b := range besides {
			dirs = append(dirs, filepath.Join(bin, b))
		}
	}
	if prefix, _, ok := strings.Cut(real, "/Cellar/"); ok { // Homebrew
		dirs = append(dirs, prefix+"/lib", prefix+"/opt", prefix+"/Cellar")
	}
	for _, store := range stores {
		if rest, ok := strings.CutPrefix(real, store+"/"); ok {
			pkg, _, _ := strings.Cut(rest, "/")
			dirs = append(dirs, store)
			rules = append(rules, rule{filepath.Join(store, pkg), execFile}) // a wrapper executes its neighbour
		}
	}
	interpreters, libraries, err := loaders(real)
	if err != nil {
		return nil, err
	}
	for _, i := range interpreters {
		rules = append(rules, rule{i, execFile})
	}
	for _, d := range append(dirs, libraries...) {
		if d != "/" {
			rules = append(rules, rule{d, readFile})
		}
	}
	return rules, nil
}

// loaders returns the dynamic loader of an ELF file, or the interpreter of a script
// and its loader, and the directories where they look for libraries.
func loaders(path string) (interpreters, libraries []string, err error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrPermission) {
		return nil, nil, nil // one may execute what one cannot read
	}
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	head := make([]byte, maxHead)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, nil, err
	}
	line, _, _ := bytes.Cut(head[:n], []byte("\n"))
	if script, ok := bytes.CutPrefix(line, []byte("#!")); ok {
		fields := strings.Fields(string(script))
		if len(fields) == 0 || fields[0] == path {
			return nil, nil, nil
		}
		interpreters, libraries = elfLoader(fields[0])
		return append(interpreters, fields[0]), libraries, nil
	}
	interpreters, libraries = elfLoader(path)
	return interpreters, libraries, nil
}

// elfLoader returns what an ELF file says. For any other file it returns nothing:
// starting it fails, or needs nothing.
func elfLoader(path string) (interpreters, libraries []string) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, nil
	}
	defer func() { _ = f.Close() }() // it was only read
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP || p.Filesz > maxHead {
			continue
		}
		b := make([]byte, p.Filesz)
		if _, err := p.ReadAt(b, 0); err == nil {
			name := string(bytes.TrimRight(b, "\x00"))
			interpreters = append(interpreters, name)
			libraries = append(libraries, filepath.Dir(name))
		}
	}
	for _, tag := range []elf.DynTag{elf.DT_RPATH, elf.DT_RUNPATH} {
		values, err := f.DynString(tag)
		if err != nil {
			continue
		}
		for dir := range strings.SplitSeq(strings.Join(values, ":"), ":") {
			dir = strings.NewReplacer("$ORIGIN", filepath.Dir(path), "${ORIGIN}", filepath.Dir(path)).Replace(dir)
			if filepath.IsAbs(dir) {
				libraries = append(libraries, filepath.Clean(dir))
			}
		}
	}
	return interpreters, libraries
}

// configuredLibraries returns the directories that ld.so.conf(5) adds.
func configuredLibraries() []string {
	files, _ := filepath.Glob("/etc/ld.so.conf.d/*.conf") // fails only on a bad pattern
	var dirs []string
	for _, file := range append(files, "/etc/ld.so.conf") {
		text, err := readSmall(file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(text) {
			if dir := strings.TrimSpace(line); filepath.IsAbs(dir) {
				dirs = append(dirs, filepath.Clean(dir))
			}
		}
	}
	return dirs
}
