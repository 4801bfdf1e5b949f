package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// tools maps the programs a build may need to the Debian packages they are in.
var tools = map[string]string{
	"mmdebstrap": "mmdebstrap",
	"mkfs.erofs": "erofs-utils",
	"apt-get":    "apt",
	"apt-config": "apt",
	"dpkg-deb":   "dpkg",
	"xz":         "xz-utils",
	"zstd":       "zstd",
	"gzip":       "gzip",
}

func findTool(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("cannot find the program %s: install the package %s, or run make deps", name, tools[name])
	}
	return path, nil
}

// command prepares a tool that works in the staging directory, which then lasts as long as the tool does.
func (b *builder) command(ctx context.Context, bin string, args ...string) *exec.Cmd {
	cmd := command(ctx, bin, args...)
	cmd.ExtraFiles = []*os.File{b.staging.Lock()}
	return cmd
}

// command prepares a tool to be run with the environment of tools.
func command(ctx context.Context, bin string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Env = toolEnv()
	return cmd
}

// toolEnv is the environment of the tools: messages in English, no questions, nothing of the user's.
func toolEnv() []string {
	return []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/root",
		"DEBIAN_FRONTEND=noninteractive",
	}
}

// run runs a tool in its own process group, hands each line of its output to onLine, and ends the group when ctx does.
func run(ctx context.Context, cmd *exec.Cmd, onLine func(string)) error {
	out := &output{onLine: onLine}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = processGroup()
	// The kernel takes the end of the thread that started the tool for the end of this process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.WaitDelay = killDelay
	cmd.Cancel = func() error { return signalGroup(cmd.Process, unix.SIGTERM) }
	err := cmd.Run()
	if cmd.Process != nil {
		// Whatever outlived the leader must not go on writing to what is removed next.
		if killErr := signalGroup(cmd.Process, unix.SIGKILL); killErr != nil && !errors.Is(killErr, os.ErrProcessDone) {
			return fmt.Errorf("cannot end what %s left running: %w", cmd.Path, killErr)
		}
	}
	out.flush()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return out.explain(cmd.Path, err)
}

func signalGroup(p *os.Process, sig unix.Signal) error {
	err := unix.Kill(-p.Pid, sig)
	if errors.Is(err, unix.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// errUnreachable and errNoSpace classify what the tools said.
var (
	errUnreachable = errors.New("a package source cannot be reached")
	errNoSpace     = errors.New("no space left on device")
)

// output splits what a tool writes into lines and keeps the last of them.
type output struct {
	onLine func(string) // may be nil

	mu    sync.Mutex // guards the rest: a copy may still be going on when the tool has been given up
	line  []byte
	lines []string
	kept  int // bytes in lines
}

// Write takes output of the tool. It never fails.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	rest := p
	for len(rest) > 0 {
		i := bytes.IndexAny(rest, "\r\n")
		chunk := rest
		if i >= 0 {
			chunk = rest[:i]
		}
		o.line = append(o.line, chunk[:min(len(chunk), maxLine-len(o.line))]...)
		if i < 0 {
			break
		}
		o.endLineLocked()
		rest = rest[i+1:]
	}
	return len(p), nil
}

func (o *output) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.endLineLocked()
}

func (o *output) endLineLocked() {
	line := strings.TrimSpace(strings.ToValidUTF8(string(o.line), "?"))
	o.line = o.line[:0]
	if line == "" {
		return
	}
	o.lines = append(o.lines, line)
	o.kept += len(line)
	for o.kept > outputTail {
		o.kept -= len(o.lines[0])
		o.lines = o.lines[1:]
	}
	if o.onLine != nil {
		o.onLine(line)
	}
}

// explain makes an error of a tool's failure from the line of its output that says most.
func (o *output) explain(tool string, err error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if line := o.lastLocked("No space left on device"); line != "" {
		return fmt.Errorf("%w: %s", errNoSpace, line)
	}
	for _, sign := range []string{
		"Could not resolve", "Temporary failure resolving", "Could not connect", "Unable to connect", "Connection failed",
		"Connection refused", "Network is unreachable", "Connection timed out", "Could not handshake", "Failed to fetch",
	} {
		if line := o.lastLocked(sign); line != "" {
			return fmt.Errorf("%w: %s", errUnreachable, line)
		}
	}
	// apt and mmdebstrap mark errors with "E: "; mmdebstrap's own last one only repeats that something failed.
	for _, line := range o.lines {
		if said, ok := strings.CutPrefix(line, "E: "); ok {
			return fmt.Errorf("%s: %s", tool, said)
		}
	}
	if len(o.lines) > 0 {
		return fmt.Errorf("%s: %w: %s", tool, err, o.lines[len(o.lines)-1])
	}
	return fmt.Errorf("%s: %w", tool, err)
}

func (o *output) lastLocked(sign string) string {
	for _, line := range slices.Backward(o.lines) {
		if strings.Contains(line, sign) {
			return line
		}
	}
	return ""
}
