// Package cli is the gondolin command: it reads flags, calls the public
// library, and turns the result into output and an exit code. One file a command.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"gondolin"
)

// Stdio is the process's standard streams.
type Stdio struct {
	In  *os.File
	Out io.Writer
	Err io.Writer
}

// Exit codes besides a command's own.
const (
	exitFailure     = 1   // Gondolin could not do what was asked
	exitUsage       = 2   // the command line is wrong
	exitTimeout     = 124 // --timeout passed, as timeout(1)
	exitInterrupted = 130 // Ctrl-C, or detached
	exitStopped     = 137 // the VM was stopped from outside, as if killed
)

// app is what every command shares.
type app struct {
	stdio  Stdio
	lookup func(string) (string, bool) // the environment
	log    *slog.Logger
}

// exitError is the error by which a command sets the process's exit code when
// there is nothing to say.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// usageError is a wrong command line.
type usageError struct{ error }

// noArgs demands that there are no arguments.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("unknown command or argument %q for %q", args[0], cmd.CommandPath())
	}
	return nil
}

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// Main runs the command line args, the program's name first, and returns the
// process's exit code.
func Main(args []string, stdio Stdio, lookup func(string) (string, bool)) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	// The first Ctrl-C asks; should the end take too long, a second one ends this
	// process, and with it the VM.
	context.AfterFunc(ctx, func() { signal.Reset(os.Interrupt) })
	a := &app{stdio: stdio, lookup: lookup}
	root := a.root()
	root.SetArgs(args[1:])
	err := root.ExecuteContext(ctx)
	var code exitError
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &usage):
		fmt.Fprintf(stdio.Err, "gondolin: %v\nTry 'gondolin help'.\n", err)
		return exitUsage
	}
	fmt.Fprintf(stdio.Err, "gondolin: %v\n", err)
	return exitFailure
}

func (a *app) root() *cobra.Command {
	var verbose bool
	root := &cobra.Command{
		Use:           "gondolin",
		Short:         "Run untrusted code in a micro-VM with programmed network and files",
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		PersistentPreRun: func(*cobra.Command, []string) {
			level := slog.LevelWarn
			if verbose {
				level = slog.LevelDebug
			}
			a.log = newLogger(a.stdio.Err, level)
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetOut(a.stdio.Out)
	root.SetErr(a.stdio.Err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.PersistentFlags().BoolVarP(&verbose, "verbose", "v", false, "say on standard error what is being done")
	root.AddCommand(
		a.execCommand(), a.bashCommand(),
		a.listCommand(), a.pauseCommand(), a.resumeCommand(), a.stopCommand(), a.snapshotCommand(), a.forkCommand(),
		a.imageCommand(), a.templateCommand(),
		a.policyCommand(), a.auditCommand(), a.logsCommand(),
		a.doctorCommand(), a.versionCommand(),
	)
	return root
}

// newLogger writes plain lines.
func newLogger(w io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: plain}))
}

// plain leaves out what a person at a terminal knows.
func plain(groups []string, attr slog.Attr) slog.Attr {
	if len(groups) == 0 && attr.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return attr
}

// getenv is os.Getenv on the environment the command was given.
func (a *app) getenv(name string) string {
	v, _ := a.lookup(name)
	return v
}

// exitOf turns a command's error into this process's exit code, saying what the
// command itself could not.
func (a *app) exitOf(ctx context.Context, err error) error {
	var exit *gondolin.ExitError
	var start *gondolin.StartError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		fmt.Fprintln(a.stdio.Err, "gondolin: the command was stopped: its time was up")
		return exitError(exitTimeout)
	case ctx.Err() != nil:
		return exitError(exitInterrupted)
	case errors.Is(err, gondolin.ErrStopped):
		fmt.Fprintln(a.stdio.Err, "gondolin: the VM was stopped by another process")
		return exitError(exitStopped)
	case errors.As(err, &start):
		fmt.Fprintf(a.stdio.Err, "gondolin: %v\n", start)
		return exitError(start.ExitCode())
	case errors.As(err, &exit):
		return exitError(exit.ExitCode())
	}
	return err
}
