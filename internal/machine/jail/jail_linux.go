package jail

import (
	"errors"
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
)

// walls is what a Jail holds on Linux.
type walls struct {
	rules      *ruleset  // nil without Landlock
	noLandlock error     // why
	user       *identity // nil if the program runs as the host program's user
	noUser     error     // why
	group      *group    // nil without a cgroup
	noGroup    error     // why
}

// New looks at the host and prepares a jail. The caller closes it.
func New(config Config) (*Jail, error) {
	if config.Frozen && config.FileSize != 0 {
		return nil, errors.New("cannot make a jail: FileSize is set and Frozen as well")
	}
	// Package os looks once whether process descriptors work, and must not conclude from
	// inside a jail that they do not.
	if p, err := os.FindProcess(os.Getpid()); err == nil {
		_ = p.Release()
	}
	j := &Jail{config: config}
	j.host.user, j.host.noUser = chooseUser(config)
	j.host.rules, j.host.noLandlock = newRuleset()
	if j.host.rules != nil {
		if err := j.host.rules.allowProgram(config); err != nil {
			j.host.rules.close()
			return nil, err
		}
	}
	j.host.group, j.host.noGroup = makeGroup(config)
	return j, nil
}

// Close clears up. The program has ended, or was not started.
func (j *Jail) Close() error {
	j.host.rules.close()
	return j.host.group.remove()
}

func onMainThread() bool { return unix.Gettid() == os.Getpid() }

// open lets the program's user and Landlock agree to its opening f.
func (j *Jail) open(f *os.File, access Access) (*os.File, error) {
	f, err := j.host.user.open(f, access)
	if err != nil {
		return nil, err
	}
	return f, j.host.rules.allowFile(f, fileRights(access))
}

// enter locks the calling thread in, for good, and has cmd inherit it.
func (j *Jail) enter(cmd *exec.Cmd) error {
	j.host.user.become(cmd.SysProcAttr)
	r := &j.report
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err) // no kernel in use lacks it
	}
	r.add(layerPrivs, "set-uid programs and file capabilities give nothing", nil)
	r.add(layerCaps, "none", dropCapabilities())
	r.add(layerUser, j.host.user.String(), j.host.noUser)
	err := j.host.noLandlock
	if err == nil {
		err = j.host.rules.enforce()
	}
	r.add(layerLandlock, j.host.rules.String(), err)
	r.add(layerSeccomp, "no sockets, tracing, signals, mounts, namespaces", enforceFilter(j.config))
	return j.strict()
}

// adopt does what needs the program's process id.
func (j *Jail) adopt(pid int) {
	limits, err := setLimits(pid, j.config, j.host.user)
	if errors.Is(err, unix.ESRCH) {
		err = nil // it has ended already, and its end says why
	}
	j.report.add(layerLimits, limits, err)
	err = j.host.noGroup
	if err == nil {
		err = j.host.group.adopt(pid)
	}
	j.report.add(layerCgroup, j.host.group.String(), err)
}

// readSmall reads a file of /proc or of a cgroup.
func readSmall(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b := make([]byte, 0, 4096)
	for len(b) < maxProcFile {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := f.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if n == 0 || err != nil {
			break // the end; these files do not fail half-way
		}
	}
	return string(b), nil
}
