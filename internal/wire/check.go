package wire

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"
)

func (m *Setup) check() error {
	if len(m.Mounts) > MaxMounts {
		return fmt.Errorf("%d mounts exceed %d", len(m.Mounts), MaxMounts)
	}
	for _, mount := range m.Mounts {
		if !strings.HasPrefix(mount.Path, "/") || strings.ContainsRune(mount.Path, 0) {
			return fmt.Errorf("mount path %q is not absolute", mount.Path)
		}
		if mount.Source == "" || strings.ContainsAny(mount.Source, "/\x00") || mount.Source == ".." {
			return fmt.Errorf("mount source %q is not one path component", mount.Source)
		}
	}
	return checkStrings("environment entry", m.Env)
}

func (m *Exec) check() error {
	if len(m.Args) == 0 || len(m.Args[0]) == 0 {
		return errors.New("no command")
	}
	if err := checkStrings("argument", m.Args); err != nil {
		return err
	}
	if err := checkStrings("environment entry", m.Env); err != nil {
		return err
	}
	if bytes.IndexByte(m.Dir, 0) >= 0 {
		return fmt.Errorf("directory %q holds a NUL byte", m.Dir)
	}
	if m.Streams&^(Stdin|Stdout|Stderr) != 0 {
		return fmt.Errorf("unknown descriptors %#x", m.Streams)
	}
	if m.TTY != nil && m.Streams != Stdin|Stdout {
		return errors.New("a terminal has exactly the streams stdin and stdout")
	}
	return checkDelay(m.WaitDelay)
}

func (m *Attach) check() error {
	switch m.Descriptor {
	case Stdin, Stdout, Stderr:
		return nil
	default:
		return fmt.Errorf("descriptor set %#x is not one descriptor", m.Descriptor)
	}
}

func (m *Signal) check() error {
	if m.Number < 1 || m.Number > 64 {
		return fmt.Errorf("signal %d is not in 1..64", m.Number)
	}
	return nil
}

func (m *Resize) check() error    { return nil }
func (m *Quiesce) check() error   { return nil }
func (m *Quiesced) check() error  { return nil }
func (m *Clock) check() error     { return nil }
func (m *Suspend) check() error   { return nil }
func (m *Suspended) check() error { return nil }
func (m *Proceed) check() error   { return nil }
func (m *Resume) check() error    { return checkStrings("environment entry", m.Env) }
func (m *Terminate) check() error { return checkDelay(m.Grace) }

func (m *Ready) check() error {
	if len(m.Kernel) > 255 || len(m.Steps) > 64 {
		return errors.New("kernel name or steps too long")
	}
	for _, s := range m.Steps {
		if len(s.Name) > 64 {
			return errors.New("step name too long")
		}
	}
	return nil
}

func (m *Started) check() error {
	if m.PID < 1 {
		return fmt.Errorf("pid %d is not positive", m.PID)
	}
	return nil
}

func (m *Failed) check() error {
	if len(m.Text) > maxText {
		return errors.New("text too long")
	}
	return nil
}

func (m *Exited) check() error {
	if m.Code < 0 || m.Code > 255 || m.Signal < 0 || m.Signal > 64 {
		return fmt.Errorf("exit code %d, signal %d out of range", m.Code, m.Signal)
	}
	return nil
}

func (m *Drained) check() error { return nil }

// checkStrings checks what execve(2) cannot carry.
func checkStrings(what string, list [][]byte) error {
	if len(list) > MaxArgs {
		return fmt.Errorf("%d %s entries exceed %d", len(list), what, MaxArgs)
	}
	for i, s := range list {
		if bytes.IndexByte(s, 0) >= 0 {
			return fmt.Errorf("%s %d holds a NUL byte", what, i)
		}
	}
	return nil
}

func checkDelay(d time.Duration) error {
	if d < 0 || d > MaxWaitDelay {
		return fmt.Errorf("delay %v is not in 0..%v", d, MaxWaitDelay)
	}
	return nil
}
