package jail

import (
	"errors"
	"fmt"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// setLimits limits process pid, which runs as user.
func setLimits(pid int, config Config, user *identity) (string, error) {
	names, err := limit(pid, config, user)
	if user == nil || !errors.Is(err, unix.EPERM) {
		return names, err
	}
	// Root without CAP_SYS_RESOURCE, as in most containers, may do it as that user.
	result := make(chan error)
	go asUser(user, func() error { names, err = limit(pid, config, user); return err }, result)
	err = <-result
	return names, err
}

// asUser runs f on a thread that becomes user, and ends with this goroutine.
func asUser(user *identity, f func() error, result chan<- error) {
	runtime.LockOSThread()
	if onMainThread() {
		relay := make(chan error)
		go asUser(user, f, relay)
		result <- <-relay
		runtime.UnlockOSThread()
		return
	}
	id := uintptr(user.id)
	// The raw calls, since the wrappers change every thread of the process.
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, id, id, id); errno != 0 {
		result <- fmt.Errorf("cannot become group %d: %w", user.id, errno)
		return
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, id, id, id); errno != 0 {
		result <- fmt.Errorf("cannot become user %d: %w", user.id, errno)
		return
	}
	result <- f()
}

func limit(pid int, config Config, user *identity) (string, error) {
	type bound struct {
		name     string
		resource int
		value    uint64
	}
	list := []bound{
		{"core dumps", unix.RLIMIT_CORE, 0}, // they would hold the guest's memory
		{"file size", unix.RLIMIT_FSIZE, uint64(max(0, config.FileSize))},
		{"locked memory", unix.RLIMIT_MEMLOCK, 0},
		{"message queues", unix.RLIMIT_MSGQUEUE, 0},
	}
	if config.OpenFiles > 0 {
		list = append(list, bound{"descriptors", unix.RLIMIT_NOFILE, uint64(config.OpenFiles)})
	}
	if user != nil && user.own && config.Threads > 0 { // it counts a user's threads, of all their programs
		list = append(list, bound{"threads", unix.RLIMIT_NPROC, uint64(config.Threads)})
	}
	names := make([]string, len(list))
	for i, l := range list {
		if err := unix.Prlimit(pid, l.resource, &unix.Rlimit{Cur: l.value, Max: l.value}, nil); err != nil {
			return "", fmt.Errorf("cannot limit %s: %w", l.name, err)
		}
		names[i] = l.name
	}
	return strings.Join(names, ", "), nil
}
