package build

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gondolin/internal/image/initramfs"
)

// bootModules is what a guest needs before it has a root file system, or cannot load from it because the root image
// is of another distribution: in the order to load them, each after what it depends on.
var bootModules = []string{
	"virtio_mmio", "virtio_pci", // transports: microvm has the first, q35 and virt the second
	"virtio_blk", "erofs", "overlay", // the root
	"virtio_console", "fuse", // control channel and mounts
	"virtio_net", "virtio_rng", "virtio_balloon",
	"ext4", "af_packet", // built into Debian's kernel, modules elsewhere
}

// optionalModules may be missing altogether: nothing a guest does depends on them.
var optionalModules = []string{"virtio_balloon", "af_packet"}

// kernelModules finds and reads the modules of one kernel.
type kernelModules struct {
	root    string            // lib/modules/<version>
	paths   map[string]string // by module name, with underscores
	builtin map[string]bool   // by module name, with underscores
}

func openModules(root string) (*kernelModules, error) {
	k := &kernelModules{root: root, paths: make(map[string]string), builtin: make(map[string]bool)}
	err := filepath.WalkDir(filepath.Join(root, "kernel"), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name, ok := moduleName(path); ok && e.Type().IsRegular() {
			k.paths[name] = path
		}
		if len(k.paths) > maxModules {
			return fmt.Errorf("more than %d modules", maxModules)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read kernel modules: %w", err)
	}
	data, err := os.ReadFile(filepath.Join(root, "modules.builtin"))
	if err != nil {
		return nil, fmt.Errorf("cannot read kernel modules: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		if name, ok := moduleName(strings.TrimSpace(line)); ok {
			k.builtin[name] = true
		}
	}
	return k, nil
}

// moduleName returns the name the kernel has for the module in path: dashes in file names are underscores.
func moduleName(path string) (string, bool) {
	name := filepath.Base(path)
	for _, ext := range []string{".xz", ".zst", ".gz"} {
		name = strings.TrimSuffix(name, ext)
	}
	name, ok := strings.CutSuffix(name, ".ko")
	return strings.ReplaceAll(name, "-", "_"), ok
}

// closure returns the modules called names with all they depend on, in load order.
func (k *kernelModules) closure(ctx context.Context, names []string) ([]initramfs.Module, error) {
	o := ordering{modules: k, done: make(map[string]bool)}
	for _, name := range names {
		if err := o.add(ctx, name); err != nil {
			return nil, err
		}
	}
	return o.list, nil
}

// ordering collects modules, each after those it needs.
type ordering struct {
	modules *kernelModules
	list    []initramfs.Module
	done    map[string]bool // false while what a module needs is being added
}

func (o *ordering) add(ctx context.Context, name string) error {
	name = strings.ReplaceAll(name, "-", "_")
	path, ok := o.modules.paths[name]
	if !ok {
		if o.modules.builtin[name] || slices.Contains(optionalModules, name) {
			return nil
		}
		return fmt.Errorf("cannot find kernel module %s in %s", name, o.modules.root)
	}
	if done, seen := o.done[name]; seen {
		if !done {
			return fmt.Errorf("cannot order kernel modules: %s depends on itself", name)
		}
		return nil
	}
	o.done[name] = false
	data, err := readModule(ctx, path)
	if err != nil {
		return err
	}
	needs, softs, err := moduleNeeds(data)
	if err != nil {
		return fmt.Errorf("cannot read kernel module %s: %w", path, err)
	}
	softs = slices.DeleteFunc(softs, func(soft string) bool { return o.modules.paths[strings.ReplaceAll(soft, "-", "_")] == "" })
	for _, need := range append(needs, softs...) {
		if err := o.add(ctx, need); err != nil {
			return err
		}
	}
	o.done[name] = true
	o.list = append(o.list, initramfs.Module{Name: name + ".ko", Data: data})
	return nil
}

// moduleNeeds reads the section .modinfo, a list of NUL-terminated key=value strings: see the kernel's
// include/linux/module.h. needs must be loaded before the module; softs are wanted before, if they exist. (A soft
// dependency may be an alias, such as a crypto algorithm; those load on demand, or are built in.)
func moduleNeeds(data []byte) (needs, softs []string, err error) {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, nil, errors.New("no section .modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return nil, nil, err
	}
	for entry := range strings.SplitSeq(string(info), "\x00") {
		key, value, _ := strings.Cut(entry, "=")
		switch key {
		case "depends":
			needs = append(needs, strings.FieldsFunc(value, func(r rune) bool { return r == ',' })...)
		case "softdep":
			pre, _, _ := strings.Cut(value, "post:")
			softs = append(softs, strings.Fields(strings.TrimPrefix(strings.TrimSpace(pre), "pre:"))...)
		}
	}
	return needs, softs, nil
}

// readModule returns a module uncompressed. Debian compresses modules from release 13 on.
func readModule(ctx context.Context, path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read kernel module: %w", err)
	}
	if info.Size() > maxModuleBytes {
		return nil, fmt.Errorf("cannot read kernel module %s: larger than %d bytes", path, maxModuleBytes)
	}
	tool := map[string]string{".xz": "xz", ".zst": "zstd", ".gz": "gzip"}[filepath.Ext(path)]
	if tool == "" {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("cannot read kernel module: %w", err)
		}
		return data, nil
	}
	bin, err := findTool(tool)
	if err != nil {
		return nil, err
	}
	// The package is signed by the distribution, so a bomb is not expected; the check is against a broken one.
	data, err := command(ctx, bin, "-dc", path).Output()
	if err != nil {
		return nil, fmt.Errorf("cannot decompress kernel module %s: %w", path, err)
	}
	if len(data) > maxModuleBytes {
		return nil, fmt.Errorf("cannot read kernel module %s: larger than %d bytes", path, maxModuleBytes)
	}
	return data, nil
}
