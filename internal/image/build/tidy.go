package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// unwanted is what a build leaves in the root that no guest needs, or that differs from one build to the next, or that
// says something about the host: its name, its resolver, how its apt reaches the network. Patterns of filepath.Match.
var unwanted = []string{
	"etc/apt/apt.conf.d/99mmdebstrap", "etc/hostname", "etc/resolv.conf", "etc/machine-id", "var/lib/dbus/machine-id",
	"etc/.pwd.lock", "etc/*-", "var/lib/dpkg/*-old", "var/cache/debconf/*-old", "var/cache/ldconfig/aux-cache",
	"var/cache/apt/*.bin", "var/cache/apt/archives/*.deb", "var/lib/apt/lists/*_*", "var/log/*.log", "var/log/*/*",
	"var/log/btmp", "var/log/faillog", "var/log/lastlog", "var/log/tallylog", "var/log/wtmp", "tmp/*", "run/*", "dev/*",
}

// empty is what programs expect to find, whatever is in it.
var empty = map[string]string{
	"etc/hostname": "gondolin\n", "etc/resolv.conf": "", "etc/machine-id": "",
	"etc/hosts": "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n",
}

// tidy removes what does not belong into an image and makes times reproducible.
func (b *builder) tidy(context.Context) error {
	// A Root confines what follows: packages may leave links that point out of the new root file system.
	root, err := os.OpenRoot(b.root)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, pattern := range unwanted {
		names, err := fs.Glob(root.FS(), pattern)
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := root.RemoveAll(name); err != nil {
				return fmt.Errorf("cannot tidy %s: %w", name, err)
			}
		}
	}
	for name, text := range empty {
		if err := root.WriteFile(name, []byte(text), 0o644); err != nil {
			return fmt.Errorf("cannot tidy %s: %w", name, err)
		}
	}
	if err := tidySources(root); err != nil {
		return err
	}
	return b.clampTimes()
}

// tidySources takes passwords out of the package sources the image keeps, and puts them into one file.
func tidySources(root *os.Root) error {
	names, err := fs.Glob(root.FS(), "etc/apt/sources.list.d/*")
	if err != nil {
		return err
	}
	var out strings.Builder
	for _, name := range append(names, sourcesList) {
		data, err := root.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot tidy %s: %w", name, err)
		}
		for line := range strings.Lines(string(data)) {
			out.WriteString(withoutPasswords(line) + "\n")
		}
		if err := root.Remove(name); err != nil {
			return fmt.Errorf("cannot tidy %s: %w", name, err)
		}
	}
	if err := root.WriteFile(sourcesList, []byte(out.String()), 0o644); err != nil {
		return fmt.Errorf("cannot tidy %s: %w", sourcesList, err)
	}
	return nil
}

const sourcesList = "etc/apt/sources.list"

func withoutPasswords(line string) string {
	fields := strings.Fields(line)
	for i, field := range fields {
		if u, err := url.Parse(field); err == nil && u.User != nil {
			u.User = nil
			fields[i] = u.String()
		}
	}
	return strings.Join(fields, " ")
}

// clampTimes makes everything the build itself wrote as old as the newest package.
func (b *builder) clampTimes() error {
	epoch, err := b.epoch()
	if err != nil {
		return err
	}
	epoch = epoch.Truncate(time.Second)
	at := []unix.Timespec{unix.NsecToTimespec(epoch.UnixNano()), unix.NsecToTimespec(epoch.UnixNano())}
	return filepath.WalkDir(b.root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil || !info.ModTime().After(epoch) {
			return err
		}
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, at, unix.AT_SYMLINK_NOFOLLOW)
	})
}
