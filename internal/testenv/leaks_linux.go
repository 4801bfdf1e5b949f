package testenv

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// runtimeFiles are descriptors Go's runtime opens once, at the first use of a file or socket, and keeps.
var runtimeFiles = []string{"anon_inode:[eventpoll]", "anon_inode:[eventfd]"}

func heldResources() resources {
	held := make(resources)
	addFiles(held)
	addChildren(held)
	return held
}

func addFiles(held resources) {
	// The listing's own descriptor is closed by the time its link is read, so it drops out.
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, e := range list {
		target, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name()))
		if err != nil || slices.Contains(runtimeFiles, target) {
			continue
		}
		held["file descriptor "+e.Name()] = target
	}
}

// addChildren finds the processes whose parent is this one; the dead but unreaped are children too.
func addChildren(held resources) {
	list, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	self := strconv.Itoa(os.Getpid())
	for _, e := range list {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue
		}
		// proc_pid_stat(5): pid (comm) state ppid …; comm may hold spaces and brackets, so count from its end.
		head, tail, ok := cutLast(string(stat), ") ")
		fields := strings.Fields(tail)
		if !ok || len(fields) < 2 || fields[1] != self {
			continue
		}
		held["child process "+e.Name()] = fmt.Sprintf("%s)", head)
	}
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
