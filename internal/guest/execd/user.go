//go:build linux

package execd

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// account is who a command runs as.
type account struct {
	name, home string
	uid, gid   uint32
	groups     []uint32
}

// lookUser resolves "", NAME, UID, NAME:GROUP and UID:GID against the passwd
// and group files in etc (passwd(5), group(5)), as docker exec does. An unknown
// numeric id is fine; an unknown name is not.
func lookUser(etc, spec string) (*account, error) {
	name, group, hasGroup := strings.Cut(spec, ":")
	if name == "" {
		name = "0"
	}
	a, err := passwd(filepath.Join(etc, "passwd"), name)
	if err != nil {
		return nil, err
	}
	groupFile := filepath.Join(etc, "group")
	if hasGroup {
		a.gid, err = groupID(groupFile, group)
		return a, err
	}
	a.groups, err = memberships(groupFile, a.name)
	return a, err
}

func passwd(file, name string) (*account, error) {
	id, numErr := strconv.ParseUint(name, 10, 32)
	var found *account
	err := records(file, func(f []string) bool {
		if len(f) < 7 || f[0] != name && (numErr != nil || f[2] != name) {
			return true
		}
		uid, uerr := strconv.ParseUint(f[2], 10, 32)
		gid, gerr := strconv.ParseUint(f[3], 10, 32)
		if uerr != nil || gerr != nil {
			return true
		}
		found = &account{name: f[0], home: f[5], uid: uint32(uid), gid: uint32(gid)}
		return false
	})
	switch {
	case err != nil:
		return nil, err
	case found != nil:
		return found, nil
	case numErr != nil:
		return nil, fmt.Errorf("cannot run as user %q: no such user in the guest's %s", name, filepath.Base(file))
	case id == 0:
		return &account{name: "root", home: "/root"}, nil
	}
	return &account{name: name, home: "/", uid: uint32(id)}, nil
}

func groupID(file, name string) (uint32, error) {
	if id, err := strconv.ParseUint(name, 10, 32); err == nil {
		return uint32(id), nil
	}
	id := -1
	err := records(file, func(f []string) bool {
		if len(f) < 3 || f[0] != name {
			return true
		}
		if n, err := strconv.ParseUint(f[2], 10, 32); err == nil {
			id = int(n)
		}
		return false
	})
	if err != nil {
		return 0, err
	}
	if id < 0 {
		return 0, fmt.Errorf("cannot run with group %q: no such group in the guest's group file", name)
	}
	return uint32(id), nil
}

// memberships lists the groups that name user as a member.
func memberships(file, user string) ([]uint32, error) {
	var ids []uint32
	err := records(file, func(f []string) bool {
		if len(f) < 4 || !slices.Contains(strings.Split(f[3], ","), user) {
			return true
		}
		if n, err := strconv.ParseUint(f[2], 10, 32); err == nil {
			ids = append(ids, uint32(n))
		}
		return true
	})
	return ids, err
}

// records calls each with the fields of every line until it returns false. A
// missing file has no records.
func records(file string, each func(fields []string) bool) error {
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read accounts: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if !each(strings.Split(lines.Text(), ":")) {
			return nil
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("cannot read accounts in %s: %w", file, err)
	}
	return nil
}

func (a *account) credential() *syscall.Credential {
	if a.uid == 0 && a.gid == 0 {
		return nil
	}
	return &syscall.Credential{Uid: a.uid, Gid: a.gid, Groups: a.groups}
}
