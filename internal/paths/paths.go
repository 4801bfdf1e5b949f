// Package paths decides where Gondolin keeps its files, and refuses places other users could tamper with.
//
// GONDOLIN_HOME, when set, holds everything. Otherwise the XDG variables win on every system, because whoever sets
// them means it; their defaults are XDG's on Linux, and ~/Library/Caches and ~/Library/Application Support on macOS.
package paths

import (
	"errors"
	"fmt"
	"path/filepath"
)

// Dirs is where each kind of file lives. All are absolute; none is created before Ensure.
type Dirs struct {
	Cache   string // may be deleted at any time: composed initramfs files, templates, accelerator verdicts
	Data    string // what a user would miss: images, checkpoints
	State   string // what outlives a run but not the machine: sessions, logs
	Config  string // written by the user
	Runtime string // what does not outlive a boot: locks and sockets
}

// Images is the directory of the image store. Images are data, not cache: a cleaner that empties caches must not take
// a tagged image or a checkpoint's base away.
func (d Dirs) Images() string { return filepath.Join(d.Data, "images") }

// Templates is the directory of booted guests.
func (d Dirs) Templates() string { return filepath.Join(d.Cache, "templates") }

// Sessions is the directory of the sockets of running VMs.
func (d Dirs) Sessions() string { return filepath.Join(d.Runtime, "sessions") }

// Checkpoints is the directory of the VMs that were saved by name.
func (d Dirs) Checkpoints() string { return filepath.Join(d.Data, "checkpoints") }

// Forks is the directory of what a VM's children begin with, while they do.
func (d Dirs) Forks() string { return filepath.Join(d.Cache, "forks") }

// Initramfs is the directory of composed boot archives.
func (d Dirs) Initramfs() string { return filepath.Join(d.Cache, "initramfs") }

// FromEnv derives the directories from the environment that getenv reads, for the operating system goos. It does no
// I/O. Relative XDG values are ignored, as the XDG base directory specification demands; a relative GONDOLIN_HOME is
// an error, because ignoring it would put files where nobody looks for them.
func FromEnv(getenv func(string) string, goos string) (Dirs, error) {
	if home := getenv("GONDOLIN_HOME"); home != "" {
		if !filepath.IsAbs(home) {
			return Dirs{}, fmt.Errorf("cannot use GONDOLIN_HOME %q: not an absolute path", home)
		}
		home = filepath.Clean(home)
		return Dirs{
			Cache:   filepath.Join(home, "cache"),
			Data:    filepath.Join(home, "data"),
			State:   filepath.Join(home, "state"),
			Config:  filepath.Join(home, "config"),
			Runtime: filepath.Join(home, "run"),
		}, nil
	}
	r := resolver{getenv: getenv, home: getenv("HOME")}
	if goos == "darwin" {
		return r.dirs(
			filepath.Join("Library", "Caches"),
			filepath.Join("Library", "Application Support"),
			filepath.Join("Library", "Application Support"),
			filepath.Join("Library", "Application Support"),
		)
	}
	return r.dirs(".cache", filepath.Join(".local", "share"), filepath.Join(".local", "state"), ".config")
}

type resolver struct {
	getenv func(string) string
	home   string
}

func (r resolver) dirs(cache, data, state, config string) (Dirs, error) {
	var d Dirs
	for _, p := range []struct {
		to             *string
		variable, rest string
	}{
		{&d.Cache, "XDG_CACHE_HOME", cache},
		{&d.Data, "XDG_DATA_HOME", data},
		{&d.State, "XDG_STATE_HOME", state},
		{&d.Config, "XDG_CONFIG_HOME", config},
	} {
		if value := r.getenv(p.variable); filepath.IsAbs(value) {
			*p.to = filepath.Join(value, "gondolin")
			continue
		}
		if !filepath.IsAbs(r.home) {
			return Dirs{}, errors.New("cannot find a directory for Gondolin's files: set HOME or GONDOLIN_HOME to an absolute path")
		}
		*p.to = filepath.Join(r.home, p.rest, "gondolin")
	}
	d.Runtime = filepath.Join(d.State, "run")
	if value := r.getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(value) {
		d.Runtime = filepath.Join(value, "gondolin")
	}
	return d, nil
}
