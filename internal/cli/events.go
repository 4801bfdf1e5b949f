package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"gondolin/internal/audit"
)

// eventFilter chooses events.
type eventFilter struct {
	denied bool
	kinds  []string
	vm     string
}

func (f *eventFilter) register(flags *pflag.FlagSet) {
	flags.BoolVar(&f.denied, "denied", false, "show only what was refused")
	flags.StringArrayVar(&f.kinds, "kind", nil, "show only events of this `KIND`, such as request or exec (repeatable)")
	flags.StringVar(&f.vm, "vm", "", "show only events of the VM with this `ID`")
}

func (f *eventFilter) matches(e audit.Event) bool {
	return (!f.denied || e.Decision == audit.Deny) &&
		(len(f.kinds) == 0 || slices.Contains(f.kinds, string(e.Kind))) &&
		(f.vm == "" || strings.HasPrefix(e.VM, f.vm))
}

// describe writes an event as a line for people, without escapes.
func describe(e audit.Event) string {
	mark := " "
	if e.Decision == audit.Deny {
		mark = "!"
	}
	parts := []string{e.Time.Local().Format("15:04:05.000"), mark, fmt.Sprintf("%-10s", e.Kind)}
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	switch e.Kind {
	case audit.DNS:
		add("%s %s %s", e.Type, e.Name, e.Address)
	case audit.Connection:
		add("%s%s %s port %d", e.Host, e.Name, e.Address, e.Port)
	case audit.Request:
		add("#%d %s %s://%s:%d%s", e.Request, e.Method, e.Scheme, e.Host, e.Port, e.Path)
	case audit.Response:
		add("#%d %d %s://%s:%d%s  %s up, %s down, %d ms", e.Request, e.Status, e.Scheme, e.Host, e.Port, e.Path,
			formatBytes(e.Sent), formatBytes(e.Received), e.DurationMS)
	case audit.Exec:
		describeExec(e, add)
	case audit.Secret:
		add("%s to %s:%d, request #%d", strings.Join(e.Secrets, ","), e.Host, e.Port, e.Request)
	case audit.FileAccess:
		add("%s %s %s %s", e.Op, e.Mount, e.Path, e.To)
	case audit.Policy:
		add("%s %.12s %s", e.Phase, e.Policy, e.Source)
	default:
		add("%s %s", e.Phase, e.Source)
	}
	if e.Rule != "" {
		add("[%s]", e.Rule)
	}
	if e.Reason != "" && e.Reason != "NOERROR" {
		add("(%s)", e.Reason)
	}
	return strings.TrimRight(clean(strings.Join(parts, " ")), " ")
}

// formatBytes writes small counts exactly.
func formatBytes(n int64) string {
	if n < 10<<10 {
		return fmt.Sprintf("%d B", n)
	}
	return formatSize(n)
}

func describeExec(e audit.Event, add func(string, ...any)) {
	if e.Phase == "start" {
		quoted := make([]string, len(e.Args))
		for i, arg := range e.Args {
			quoted[i] = arg
			if arg == "" || strings.ContainsAny(arg, " \t\n'\"\\$&|;<>()*?") {
				quoted[i] = strconv.Quote(arg)
			}
		}
		add("#%d %s", e.Exec, strings.Join(quoted, " "))
		return
	}
	switch {
	case e.Signal != 0:
		add("#%d signal %d, %d ms", e.Exec, e.Signal, e.DurationMS)
	case e.Exit != nil:
		add("#%d exit %d, %d ms", e.Exec, *e.Exit, e.DurationMS)
	default:
		add("#%d ended, %d ms", e.Exec, e.DurationMS)
	}
}

// followMode says whether reading goes on at the end.
type followMode int

const (
	followNot followMode = iota
	followUntilStopped
)

// followPoll is how often a log is looked at for more: fast enough for eyes.
const followPoll = 200 * time.Millisecond

// readEvents gives the events of a log, the oldest first, to use. Following, it
// begins with the current file and goes on into the next when that is set aside.
func readEvents(ctx context.Context, name string, mode followMode, use func(audit.Event) error) error {
	names := []string{name}
	if mode == followNot {
		var err error
		if names, err = audit.Files(name); err != nil {
			return err
		}
	}
	for _, name := range names {
		if err := readFile(ctx, name, mode, use); err != nil {
			return err
		}
	}
	return nil
}

func readFile(ctx context.Context, name string, mode followMode, use func(audit.Event) error) error {
	for {
		f, err := os.Open(name)
		if err != nil {
			return fmt.Errorf("cannot read the audit: %w", err)
		}
		r := &eventReader{name: name, in: bufio.NewReaderSize(f, audit.MaxLine)}
		err = r.follow(ctx, f, mode, use)
		f.Close()
		if err != nil || mode == followNot {
			return err
		}
	}
}

// eventReader reads the events of one file.
type eventReader struct {
	name string
	in   *bufio.Reader
	line int
	part []byte // of a line that has no end yet
}

// follow reads to the end; following, until another file has the name.
func (r *eventReader) follow(ctx context.Context, f *os.File, mode followMode, use func(audit.Event) error) error {
	for {
		replaced := mode == followUntilStopped && !stillNamed(f, r.name) // asked first: what comes later is in the next
		if err := r.drain(use); err != nil || mode == followNot || replaced {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(followPoll):
		}
	}
}

func stillNamed(f *os.File, name string) bool {
	opened, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(name)
	return err != nil || os.SameFile(opened, named) // between two files there is none
}

// drain reads the whole lines there are.
func (r *eventReader) drain(use func(audit.Event) error) error {
	for {
		chunk, err := r.in.ReadSlice('\n')
		r.part = append(r.part, chunk...)
		if len(r.part) > audit.MaxLine || errors.Is(err, bufio.ErrBufferFull) {
			return fmt.Errorf("cannot read %s line %d: it is longer than any event", clean(r.name), r.line+1)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot read the audit: %w", err)
		}
		r.line++
		e, err := audit.Decode(r.part[:len(r.part)-1])
		if err != nil {
			return fmt.Errorf("cannot read %s line %d: %w", clean(r.name), r.line, err)
		}
		r.part = r.part[:0]
		if err := use(e); err != nil {
			return err
		}
	}
}
