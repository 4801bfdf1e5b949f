package jail

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

// Config says what a program needs. It is plain data; zero values mean nothing.
type Config struct {
	// Program is the absolute path of what will be started.
	Program string
	// Devices are the paths of device files that it opens for reading and writing.
	Devices []string
	// OpenFiles is the limit of its descriptors; if zero, the host program's.
	OpenFiles int
	// FileSize is the limit of what it writes to files, as an offset in bytes.
	FileSize int64
	// Frozen forbids it to change files at all, also those it may open for writing.
	// It can map them privately. FileSize must be zero.
	Frozen bool
	// Threads is how many it may have; if zero, not limited.
	Threads int
	// Memory is how much it may use, in bytes, page cache included; if zero, not limited.
	Memory int64
	// CPUs is how many it may keep busy; if zero, not limited.
	CPUs int
	// Strict makes a layer that cannot be had an error, except for what depends on
	// who started the host program: the cgroup, and a user of its own unless that is root.
	Strict bool
}

// Access is how a program opens a file.
type Access int

// The ways.
const (
	Read   Access = iota
	Write         // reads and writes what is there
	Resize        // and changes its size
)

// Layer is one of the walls.
type Layer struct {
	Name   string
	Active bool
	Detail string // what it does here, or why it is missing
}

// Report lists all layers, the active ones and the missing.
type Report []Layer

// String has a line for every layer.
func (r Report) String() string {
	if len(r) == 0 {
		return "none"
	}
	lines := make([]string, len(r))
	for i, l := range r {
		state := "on"
		if !l.Active {
			state = "off"
		}
		lines[i] = fmt.Sprintf("%s: %s, %s", l.Name, state, l.Detail)
	}
	return strings.Join(lines, "\n")
}

// Missing returns the names of the layers that are not active.
func (r Report) Missing() []string {
	var names []string
	for _, l := range r {
		if !l.Active {
			names = append(names, l.Name)
		}
	}
	return names
}

// add notes that a layer is active, or with an error why not.
func (r *Report) add(name, detail string, err error) {
	l := Layer{Name: name, Active: err == nil, Detail: detail}
	if err != nil {
		l.Detail = err.Error()
	}
	*r = append(*r, l)
}

// Jail is for one run of one program: New, Open for each of its files, Start, Wait,
// Close. Only Report may be called from several goroutines, after Start.
type Jail struct {
	config Config
	report Report
	host   walls
	ended  chan error
}

// Open makes f something that the program can open anew, through /proc/self/fd, and
// returns the file to hand over. That is f, or a sealed copy of its content in
// memory where the program's user may not read f itself; then f has been closed.
func (j *Jail) Open(f *os.File, access Access) (*os.File, error) {
	file, err := j.open(f, access)
	if err != nil {
		return nil, fmt.Errorf("cannot let the program open %s: %w", f.Name(), err)
	}
	return file, nil
}

// Start starts cmd, whose Path is the Config's Program and whose SysProcAttr is set,
// and returns when it runs. If it fails, nothing is left but what Close clears up.
func (j *Jail) Start(cmd *exec.Cmd) error {
	j.ended = make(chan error, 1)
	started := make(chan error)
	go j.hold(cmd, started)
	if err := <-started; err != nil {
		return err
	}
	// From here, because the thread that holds the program can do none of this any more.
	j.adopt(cmd.Process.Pid)
	if err := j.strict(); err != nil {
		_ = cmd.Process.Kill() // fails only if it is gone
		_ = j.Wait()           // reports the kill
		return fmt.Errorf("cannot set up the jail: %w", err)
	}
	return nil
}

// hold is the life of the program's thread. The thread is never unlocked, so that it
// ends with this goroutine; see the package's documentation.
func (j *Jail) hold(cmd *exec.Cmd, started chan<- error) {
	runtime.LockOSThread()
	if onMainThread() {
		relay := make(chan error)
		go j.hold(cmd, relay) // on another thread, as long as this one is locked
		started <- <-relay
		runtime.UnlockOSThread()
		return
	}
	err := j.enter(cmd)
	if err != nil {
		err = fmt.Errorf("cannot set up the jail: %w", err)
	} else {
		err = cmd.Start()
	}
	started <- err
	if err == nil {
		j.ended <- cmd.Wait()
	}
}

// strict complains about missing layers if they are asked for.
func (j *Jail) strict() error {
	if !j.config.Strict {
		return nil
	}
	var missing []error
	for _, l := range j.report {
		optional := l.Name == layerCgroup || l.Name == layerUser && os.Geteuid() != 0
		if !l.Active && !optional {
			missing = append(missing, fmt.Errorf("%s: %s", l.Name, l.Detail))
		}
	}
	return errors.Join(missing...)
}

// Wait waits for the end of the program and returns what cmd.Wait does. It may be called once.
func (j *Jail) Wait() error { return <-j.ended }

// Report says which layers are active. It is complete after Start.
func (j *Jail) Report() Report { return j.report }

// The names of the layers.
const (
	layerPrivs    = "no_new_privs"
	layerCaps     = "capabilities"
	layerUser     = "user"
	layerLandlock = "landlock"
	layerSeccomp  = "seccomp"
	layerLimits   = "limits"
	layerCgroup   = "cgroup"
)
