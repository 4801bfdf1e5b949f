package initramfs

import (
	"bytes"
	"fmt"
	"io"
	"path"
	"strings"
)

// ModuleList is the archive member that names the modules in load order, one absolute path a line. The guest agent
// reads it as /etc/gondolin/modules.
const ModuleList = "etc/gondolin/modules"

// moduleDir is where modules lie, all in one directory: their names are unique within a kernel.
const moduleDir = "lib/modules"

// Module is one kernel module to archive.
type Module struct {
	Name string // file name, such as "virtio_blk.ko"
	Data []byte // uncompressed
}

// Modules writes an archive of mods and of the list that names them in this order.
func Modules(w io.Writer, mods []Module) error {
	a := NewWriter(w)
	for _, dir := range []string{"etc", "etc/gondolin", "lib", moduleDir} {
		if err := a.Dir(dir, 0o755); err != nil {
			return err
		}
	}
	var list strings.Builder
	for _, m := range mods {
		if path.Base(m.Name) != m.Name || strings.ContainsAny(m.Name, "\n\r") {
			return fmt.Errorf("cannot archive module %q: not a file name", m.Name)
		}
		name := path.Join(moduleDir, m.Name)
		if err := a.File(name, 0o644, int64(len(m.Data)), bytes.NewReader(m.Data)); err != nil {
			return err
		}
		list.WriteString(ModulePath(m.Name) + "\n")
	}
	if err := a.File(ModuleList, 0o644, int64(list.Len()), strings.NewReader(list.String())); err != nil {
		return err
	}
	return a.Close()
}

// ModulePath is the path in the guest of the module with the file name name.
func ModulePath(name string) string { return "/" + path.Join(moduleDir, name) }

// Agent writes an archive with the guest agent, size bytes from binary, as /init, and what it needs before it has
// mounted anything: mount points, and the console the kernel opens as its standard streams.
func Agent(w io.Writer, binary io.Reader, size int64) error {
	a := NewWriter(w)
	for _, dir := range []string{"dev", "proc", "sys", "run", "newroot"} {
		if err := a.Dir(dir, 0o755); err != nil {
			return err
		}
	}
	// Numbers from the kernel's Documentation/admin-guide/devices.txt.
	if err := a.CharDevice("dev/console", 0o600, 5, 1); err != nil {
		return err
	}
	if err := a.CharDevice("dev/null", 0o666, 1, 3); err != nil {
		return err
	}
	if err := a.File("init", 0o755, size, binary); err != nil {
		return err
	}
	return a.Close()
}
