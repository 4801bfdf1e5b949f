package jail

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// identity is a user for a program that root starts. A nil one changes nothing.
type identity struct {
	id          uint32   // user and group
	shared      uint32   // the group of files that all such programs may open for writing
	groups      []uint32 // of devices, and shared
	own         bool     // nobody else has the id
	noSetGroups bool     // a user namespace in which groups cannot be set
}

// chooseUser returns whom the program runs as. The error says why it stays who the
// host program is.
func chooseUser(config Config) (*identity, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("it runs as user %d like the program that starts it", os.Geteuid())
	}
	if err := others(config.Program); err != nil {
		return nil, err
	}
	u := &identity{}
	switch {
	case mapped(firstUser, users+1):
		var b [4]byte
		_, _ = rand.Read(b[:]) // never fails
		u.shared = firstUser
		u.id = firstUser + 1 + binary.LittleEndian.Uint32(b[:])%(users-1)
		u.own = true
	case mapped(nobody, 1):
		u.id, u.shared = nobody, nobody
	default:
		return nil, errors.New("this user namespace has no other user")
	}
	u.groups = []uint32{u.shared}
	for _, d := range config.Devices {
		group, err := deviceGroup(d)
		if err != nil {
			return nil, err
		}
		u.groups = append(u.groups, group...)
	}
	if text, err := readSmall("/proc/self/setgroups"); err == nil && strings.HasPrefix(text, "deny") {
		u.noSetGroups = true
	}
	if !has(unix.CAP_SETUID) || !has(unix.CAP_SETGID) {
		return nil, errors.New("this process may not change users (CAP_SETUID, CAP_SETGID)")
	}
	return u, nil
}

// others checks that a user without any rights can execute the program at path.
func others(path string) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil //nolint:nilerr // starting it says it better
	}
	info, err := os.Stat(real)
	if err == nil && info.Mode().Perm()&0o005 != 0o005 {
		return fmt.Errorf("other users may not execute %s", real)
	}
	for dir := filepath.Dir(real); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err == nil && info.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("other users may not enter %s", dir)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// deviceGroup returns the group in which a user may open the device; none if all may.
func deviceGroup(path string) ([]uint32, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, nil //nolint:nilerr // opening it says it better
	}
	switch {
	case st.Mode&0o006 == 0o006:
		return nil, nil
	case st.Mode&0o060 == 0o060 && st.Gid != 0:
		return []uint32{st.Gid}, nil
	}
	return nil, fmt.Errorf("only root may open %s; give it a group, such as kvm", path)
}

// mapped says whether n user ids and group ids from first on exist in this user namespace.
func mapped(first, n uint64) bool {
	for _, file := range []string{"/proc/self/uid_map", "/proc/self/gid_map"} {
		text, err := readSmall(file)
		if err != nil || !covers(text, first, n) {
			return false
		}
	}
	return true
}

// covers reads the format of user_namespaces(7). A range made of several lines is not seen as one.
func covers(text string, first, n uint64) bool {
	for line := range strings.Lines(text) {
		var inside, outside, length uint64
		if _, err := fmt.Sscan(line, &inside, &outside, &length); err != nil {
			return false
		}
		if first >= inside && n <= length && first-inside <= length-n {
			return true
		}
	}
	return false
}

// String names the user.
func (u *identity) String() string {
	switch {
	case u == nil:
		return ""
	case u.own:
		return fmt.Sprintf("an own one, %d", u.id)
	}
	return fmt.Sprintf("nobody, %d", u.id)
}

// become has the child change its user before it executes anything.
func (u *identity) become(attr *syscall.SysProcAttr) {
	if u == nil {
		return
	}
	attr.Credential = &syscall.Credential{Uid: u.id, Gid: u.id, Groups: u.groups, NoSetGroups: u.noSetGroups}
}

// open lets the user open f through /proc/self/fd, for which the path to f does not
// matter, only f's own mode does. What may be written is given to the shared group; what is
// only read is copied into memory, so that nothing on disk changes for it.
func (u *identity) open(f *os.File, access Access) (*os.File, error) {
	if u == nil {
		return f, nil
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if access == Read {
		if info.Mode().Perm()&0o004 != 0 {
			return f, nil
		}
		return sealedCopy(f, info.Size())
	}
	if info.Mode().Perm()&0o006 == 0o006 {
		return f, nil
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if ok && st.Gid == u.shared && info.Mode().Perm()&0o060 == 0o060 {
		return f, nil
	}
	if err := f.Chown(-1, int(u.shared)); err != nil {
		return nil, err
	}
	return f, f.Chmod(info.Mode().Perm() | 0o060)
}

// sealedCopy returns a file in memory with the content of f, which nobody can change, and closes f.
func sealedCopy(f *os.File, size int64) (*os.File, error) {
	if size > maxCopy {
		return nil, fmt.Errorf("it has %d bytes, more than %d", size, maxCopy)
	}
	fd, err := unix.MemfdCreate("gondolin", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("cannot make a file in memory: %w", err)
	}
	m := os.NewFile(uintptr(fd), f.Name())
	if err := fill(m, io.NewSectionReader(f, 0, size)); err != nil {
		m.Close()
		return nil, err
	}
	f.Close()
	return m, nil
}

func fill(m *os.File, r io.Reader) error {
	if _, err := io.Copy(m, r); err != nil {
		return err
	}
	if err := m.Chmod(0o444); err != nil {
		return err
	}
	const seals = unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(m.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return fmt.Errorf("cannot seal a file in memory: %w", err)
	}
	return nil
}
