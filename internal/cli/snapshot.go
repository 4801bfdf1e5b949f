package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"gondolin/internal/checkpoint"
	"gondolin/internal/paths"
	"gondolin/internal/session"
)

// where says where a checkpoint goes.
type where struct{ name, output string }

func (w *where) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&w.name, "name", "", "name of the checkpoint (default: the session's name or ID, and the time)")
	cmd.Flags().StringVar(&w.output, "output", "", "directory to make and save in, instead of one under a name")
	cmd.MarkFlagsMutuallyExclusive("name", "output")
}

// path returns the absolute directory to make, whose parent exists.
func (w *where) path(a *app, otherwise string) (string, error) {
	if w.output != "" {
		dir, err := filepath.Abs(w.output)
		if err != nil {
			return "", fmt.Errorf("cannot use --output: %w", err)
		}
		return dir, nil
	}
	name := w.name
	if name == "" {
		name = otherwise
	}
	if err := session.CheckName(name); err != nil {
		return "", usagef("--name: %w", err)
	}
	dir, err := a.checkpoints()
	if err != nil {
		return "", err
	}
	if err := paths.Ensure(dir); err != nil {
		return "", err
	}
	return filepath.Join(dir, name), nil
}

// checkpoints is the directory of those that have names.
func (a *app) checkpoints() (string, error) {
	dirs, err := paths.FromEnv(a.getenv, runtime.GOOS)
	return dirs.Checkpoints(), err
}

// checkpointDir returns the directory of a checkpoint given as a name or a path,
// which a name is not if it has a slash or there is such a directory.
func (a *app) checkpointDir(arg string) (string, error) {
	dir, err := a.checkpoints()
	if err != nil {
		return "", err
	}
	named := filepath.Join(dir, arg)
	if _, err := os.Stat(named); err == nil && session.CheckName(arg) == nil {
		return named, nil
	}
	if _, err := os.Stat(arg); errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("cannot find checkpoint %q: no such name, which 'gondolin snapshot ls' shows, and no such directory", arg)
	}
	return arg, nil
}

func (a *app) snapshotCommand() *cobra.Command {
	var to where
	cmd := &cobra.Command{
		Use:   "snapshot SESSION",
		Short: "Save a running VM, which goes on; and manage what was saved",
		Long: `Save a running VM as it is: memory with everything that runs, devices, open files.
'gondolin exec --resume' and 'gondolin bash --resume' continue copies of it.
The content of mounts and the values of secrets are not part of it; the guest's memory
is: whoever can read the checkpoint can read all that the guest knew.`,
		Example: `  gondolin snapshot worker --name before
  gondolin bash --resume before`,
		Args: exactly("snapshot", "SESSION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withSession(cmd.Context(), args[0], func(ctx context.Context, c *session.Client, info session.Info) error {
				return a.snapshot(ctx, c, info, &to)
			})
		},
	}
	to.register(cmd)
	cmd.AddCommand(a.snapshotList(), a.snapshotRemove(), a.snapshotExport(), a.snapshotImport())
	return cmd
}

func (a *app) snapshot(ctx context.Context, c *session.Client, info session.Info, to *where) error {
	called := info.Name
	if called == "" {
		called = info.ID
	}
	const longest = 40 // bytes of the name, which leaves room for the time
	dir, err := to.path(a, called[:min(len(called), longest)]+time.Now().Format("-20060102-150405"))
	if err != nil {
		return err
	}
	var saved session.Saved
	if err := c.Call(ctx, session.CheckpointPath, session.Checkpoint{Dir: dir}, &saved); err != nil {
		return err
	}
	fmt.Fprintf(a.stdio.Out, "%s\t%s, its processors stood still for %.0f ms\n", dir, formatSize(saved.Size), saved.Pause.Seconds()*1000)
	if saved.Nameless > 0 {
		fmt.Fprintf(a.stdio.Err, "gondolin: %d open files on mounts have no name any more; a copy cannot use them\n", saved.Nameless)
	}
	return nil
}

func (a *app) snapshotList() *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List the checkpoints that have names",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			dir, err := a.checkpoints()
			if err != nil {
				return err
			}
			names, err := checkpoint.List(dir)
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(a.stdio.Out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "CHECKPOINT\tSIZE\tCREATED")
			for _, name := range names {
				c, err := checkpoint.Open(filepath.Join(dir, name))
				if err != nil {
					fmt.Fprintf(w, "%s\t-\tcannot be used: %v\n", name, err)
					continue
				}
				fmt.Fprintf(w, "%s\t%s\t%s\n", name, formatSize(c.Size()), c.Created().Local().Format(time.DateTime))
			}
			return w.Flush()
		},
	}
}

func (a *app) snapshotRemove() *cobra.Command {
	return &cobra.Command{
		Use:   "rm CHECKPOINT",
		Short: "Remove a checkpoint by its name; VMs that continue it go on",
		Args:  exactly("snapshot rm", "CHECKPOINT"),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := session.CheckName(args[0]); err != nil {
				return usagef("snapshot rm: give a name that 'gondolin snapshot ls' shows: %w", err)
			}
			dir, err := a.checkpoints()
			if err != nil {
				return err
			}
			if _, err := os.Stat(filepath.Join(dir, args[0])); err != nil {
				return fmt.Errorf("cannot remove checkpoint %q: there is none of this name", args[0])
			}
			if err := os.RemoveAll(filepath.Join(dir, args[0])); err != nil {
				return fmt.Errorf("cannot remove checkpoint %q: %w", args[0], err)
			}
			fmt.Fprintf(a.stdio.Out, "removed %s\n", args[0])
			return nil
		},
	}
}

func (a *app) snapshotExport() *cobra.Command {
	return &cobra.Command{
		Use:   "export CHECKPOINT FILE",
		Short: "Write a checkpoint as one file, to be kept or carried elsewhere",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usagef("snapshot export: give one CHECKPOINT and one FILE")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			dir, err := a.checkpointDir(args[0])
			if err != nil {
				return err
			}
			c, err := checkpoint.Open(dir)
			if err != nil {
				return err
			}
			return writeWhole(args[1], c)
		},
	}
}

// writeWhole writes the archive of c to a new file, which is whole or not there.
func writeWhole(name string, c *checkpoint.Checkpoint) error {
	if _, err := os.Lstat(name); err == nil {
		return fmt.Errorf("cannot export to %s: it exists", name)
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".gondolin-export-")
	if err != nil {
		return fmt.Errorf("cannot export: %w", err)
	}
	err = errors.Join(c.Export(f), f.Sync(), f.Close())
	if err == nil {
		err = os.Link(f.Name(), name) // which replaces nothing
	}
	return errors.Join(err, os.Remove(f.Name()))
}

func (a *app) snapshotImport() *cobra.Command {
	var to where
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Make a checkpoint of a file that export wrote",
		Args:  exactly("snapshot import", "FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			base, _, _ := strings.Cut(filepath.Base(args[0]), ".")
			dir, err := to.path(a, base)
			if err != nil {
				return err
			}
			f, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("cannot import: %w", err)
			}
			defer f.Close()
			c, err := checkpoint.Import(f, dir)
			if err != nil {
				return err
			}
			fmt.Fprintf(a.stdio.Out, "%s\t%s\n", dir, formatSize(c.Size()))
			return nil
		},
	}
	to.register(cmd)
	return cmd
}

func (a *app) forkCommand() *cobra.Command {
	count := 1
	cmd := &cobra.Command{
		Use:   "fork SESSION",
		Short: "Start copies of a running VM that continue what it is doing",
		Long: `Start copies of a running VM, and print their IDs. The VM goes on. The copies belong to
the process that owns it, because the policy, secrets and files they share do: they end
with it, or by 'gondolin stop'. A copy that outlives it is 'gondolin snapshot' and
'gondolin exec --resume'.`,
		Args: exactly("fork", "SESSION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withSession(cmd.Context(), args[0], func(ctx context.Context, c *session.Client, _ session.Info) error {
				var forked session.Forked
				if err := c.Call(ctx, session.ForkPath, session.Fork{Count: count}, &forked); err != nil {
					return err
				}
				for _, id := range forked.IDs {
					fmt.Fprintln(a.stdio.Out, id)
				}
				return nil
			})
		},
	}
	cmd.Flags().IntVarP(&count, "count", "n", 1, "how many copies")
	return cmd
}
