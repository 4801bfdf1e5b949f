package jail

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Documentation/admin-guide/cgroup-v2.rst, and cgroup-v1/ beside it.

// groupPrefix begins the name of every group that is made here; the id of the process
// that made it follows.
const groupPrefix = "gondolin-"

// group is the control group of one program: a directory in version 2's hierarchy,
// or one in each hierarchy of version 1 that is used.
type group struct {
	dirs    []string
	limited []string // for people
}

// makeGroup makes a group with the limits of config, if this process may.
func makeGroup(config Config) (*group, error) {
	if config.Memory == 0 && config.Threads == 0 && config.CPUs == 0 {
		return nil, errors.New("nothing is to be limited")
	}
	mounts, err := readSmall("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	own, err := readSmall("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	name := groupPrefix + strconv.Itoa(os.Getpid()) + "-" + rand.Text()[:10]
	places := findPlaces(mounts, own)
	g := &group{}
	for _, p := range places {
		if err := g.make(p, name, config); err != nil {
			return nil, errors.Join(err, g.remove())
		}
	}
	if len(g.limited) == 0 {
		return nil, errors.Join(errors.New("no group was delegated to this user in which one could be made"), g.remove())
	}
	slices.Sort(g.limited)
	return g, nil
}

// make makes the group in one place, or nothing if that is not possible.
func (g *group) make(p place, name string, config Config) error {
	parent := p.parent()
	if parent == "" {
		return nil
	}
	sweepGroups(parent)
	dir := filepath.Join(parent, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil //nolint:nilerr // the same as not having been allowed to
	}
	g.dirs = append(g.dirs, dir)
	limited := 0
	for _, l := range limitsOf(config, p.version) {
		// Not there: the controller is not on here.
		err := os.WriteFile(filepath.Join(dir, l.file), []byte(l.value), 0)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot limit %s: %w", l.name, err)
		}
		if l.name != "" {
			g.limited = append(g.limited, l.name)
			limited++
		}
	}
	if limited == 0 {
		g.dirs = g.dirs[:len(g.dirs)-1]
		return os.Remove(dir)
	}
	return nil
}

// groupLimit is a line to be written to a file of a group.
type groupLimit struct{ name, file, value string }

func limitsOf(config Config, version int) []groupLimit {
	var list []groupLimit
	// One more than the guest has, for the program's own threads.
	quota := strconv.Itoa((config.CPUs + 1) * cpuPeriod)
	memory, threads := strconv.FormatInt(config.Memory, 10), strconv.Itoa(config.Threads)
	if config.Memory > 0 && version == 2 {
		list = append(list, groupLimit{"memory", "memory.max", memory}, groupLimit{"", "memory.oom.group", "1"})
	}
	if config.Memory > 0 && version == 1 {
		list = append(list, groupLimit{"memory", "memory.limit_in_bytes", memory})
	}
	if config.Threads > 0 {
		list = append(list, groupLimit{"threads", "pids.max", threads})
	}
	if config.CPUs > 0 && version == 2 {
		list = append(list, groupLimit{"processor time", "cpu.max", quota + " " + strconv.Itoa(cpuPeriod)})
	}
	if config.CPUs > 0 && version == 1 {
		list = append(list, groupLimit{"", "cpu.cfs_period_us", strconv.Itoa(cpuPeriod)},
			groupLimit{"processor time", "cpu.cfs_quota_us", quota})
	}
	return list
}

// place is this process's own group in one hierarchy.
type place struct {
	version int    // of cgroups
	root    string // where the hierarchy is mounted
	path    string // the own group, from there
}

// findPlaces reads mountinfo (proc_pid_mountinfo(5)) and cgroup (cgroups(7)) of
// /proc/self. Version 2 comes first.
func findPlaces(mounts, own string) []place {
	var places []place
	for line := range strings.Lines(own) {
		parts := strings.SplitN(strings.TrimRight(line, "\n"), ":", 3)
		if len(parts) != 3 {
			continue
		}
		controllers := strings.Split(parts[1], ",")
		version := 1
		if parts[0] == "0" && parts[1] == "" {
			version = 2
		}
		wanted := slices.ContainsFunc(controllers, func(c string) bool { return c == "memory" || c == "pids" || c == "cpu" })
		if version == 1 && !wanted {
			continue
		}
		root, base := findMount(mounts, version, controllers[0])
		path, inside := strings.CutPrefix(parts[2], strings.TrimSuffix(base, "/"))
		if root == "" || !inside || strings.Contains(path, "..") {
			continue
		}
		places = append(places, place{version: version, root: root, path: filepath.Join("/", path)})
	}
	slices.SortFunc(places, func(a, b place) int {
		return cmp.Or(b.version-a.version, strings.Compare(a.root, b.root))
	})
	return places
}

// findMount returns where a hierarchy is mounted and which of its groups is there.
func findMount(mounts string, version int, controller string) (point, base string) {
	for line := range strings.Lines(mounts) {
		before, after, ok := strings.Cut(line, " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(kind) < 3 || strings.Contains(fields[4], `\`) {
			continue
		}
		first := kind[0] == "cgroup" && slices.Contains(strings.Split(kind[2], ","), controller)
		if version == 2 && kind[0] == "cgroup2" || version == 1 && first {
			return fields[4], fields[3]
		}
	}
	return "", ""
}

// parent returns the directory in which a group may be made, "" if there is none.
//
// Version 1 allows groups beside processes: it is the own group. Version 2 gives
// controllers only to groups whose parent has no processes ("no internal process
// constraint"), but for the root. So it is the own group's parent, and only if that was
// delegated: it belongs to this user, systemd has marked it, or it is the root, as in containers.
func (p place) parent() string {
	own := filepath.Join(p.root, p.path)
	if p.version == 1 {
		if !mine(own) {
			return ""
		}
		return own
	}
	if p.path == "/" {
		own = p.root
		if !mine(own) {
			return ""
		}
		return own
	}
	dir := filepath.Dir(own)
	if !mine(dir) || os.Geteuid() == 0 && filepath.Dir(p.path) != "/" && !delegated(dir) {
		return ""
	}
	return dir
}

// mine says whether this user may make groups in dir and move processes to them.
func mine(dir string) bool {
	return unix.Access(dir, unix.W_OK) == nil && unix.Access(filepath.Join(dir, "cgroup.procs"), unix.W_OK) == nil
}

func delegated(dir string) bool {
	for _, attr := range []string{"user.delegate", "trusted.delegate"} {
		b := make([]byte, 8)
		if n, err := unix.Getxattr(dir, attr, b); err == nil && string(b[:n]) == "1" {
			return true
		}
	}
	return false
}

// sweepGroups removes the groups of processes that have died. Only empty ones can be.
func sweepGroups(parent string) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), groupPrefix)
		text, _, _ := strings.Cut(rest, "-")
		pid, err := strconv.Atoi(text)
		if ok && err == nil && pid > 0 && errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			_ = os.Remove(filepath.Join(parent, e.Name()))
		}
	}
}

// String says what is limited.
func (g *group) String() string {
	if g == nil {
		return ""
	}
	return strings.Join(g.limited, ", ")
}

// adopt moves process pid into the group.
func (g *group) adopt(pid int) error {
	for _, dir := range g.dirs {
		err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("cannot move the program to its group: %w", err)
		}
	}
	return nil
}

// remove removes the group. Its process has been waited for.
func (g *group) remove() error {
	if g == nil {
		return nil
	}
	var errs []error
	for _, dir := range g.dirs {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("cannot remove a control group: %w", err))
		}
	}
	g.dirs = nil
	return errors.Join(errs...)
}
