package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"gondolin"
)

func (a *app) execCommand() *cobra.Command {
	var flags vmFlags
	var tty bool
	cmd := &cobra.Command{
		Use:   "exec [flags] -- COMMAND [ARG…]",
		Short: "Run a command in a new VM",
		Long: `Run a command in a new VM and exit with its exit code.

Standard input, output and error stream live. Nothing of the host is reachable
from the guest but what the flags allow.`,
		Example: `  gondolin exec -- uname -a
  gondolin exec --allow-host api.github.com -- curl -sS https://api.github.com/zen
  gondolin exec --mount-hostfs .:/workspace --cwd /workspace -- make test`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("exec: no command given; write it after --")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withVM(cmd.Context(), &flags, args[0], func(ctx context.Context, vm *gondolin.VM) error {
				c := vm.Command(ctx, args[0], args[1:]...)
				if tty {
					return a.interact(c, &flags)
				}
				return a.stream(c, &flags)
			})
		},
	}
	flags.register(cmd.Flags())
	cmd.Flags().BoolVarP(&tty, "tty", "t", false, "give the command a terminal")
	cmd.Flags().SetInterspersed(false) // flags after the command are the command's
	return cmd
}

// withVM starts a VM for the program label, runs use with a context that ends with --timeout, and closes it.
func (a *app) withVM(ctx context.Context, flags *vmFlags, label string, use func(context.Context, *gondolin.VM) error) (err error) {
	env, err := a.parseEnv(flags.env)
	if err != nil {
		return err
	}
	flags.env = env
	config, audit, err := a.config(flags)
	if err != nil {
		return err
	}
	if audit != nil {
		defer func() { err = errors.Join(err, audit.Close()) }()
	}
	config.Session = &gondolin.Session{Name: flags.name, Label: labelOf(label)}
	if flags.resume != "" {
		if flags.resume, err = a.checkpointDir(flags.resume); err != nil {
			return err
		}
	}
	vm, err := flags.start(ctx, config)
	if err != nil {
		if ctx.Err() != nil {
			return exitError(exitInterrupted)
		}
		return err
	}
	defer vm.Close()
	if flags.timings {
		for _, timing := range vm.Timings() {
			fmt.Fprintf(a.stdio.Err, "%8.1f ms  %s\n", float64(timing.Took.Microseconds())/1000, timing.Phase)
		}
	}
	run := ctx
	if flags.timeout > 0 {
		var cancel context.CancelFunc
		run, cancel = context.WithTimeout(ctx, flags.timeout)
		defer cancel()
	}
	return a.exitOf(ctx, use(run, vm))
}

// stream runs c on this process's standard streams.
func (a *app) stream(c *gondolin.Cmd, flags *vmFlags) error {
	c.Env, c.Dir, c.User = flags.env, flags.cwd, flags.user
	c.Stdin, c.Stdout, c.Stderr = a.stdio.In, a.stdio.Out, a.stdio.Err
	return c.Run()
}
