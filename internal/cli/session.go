package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"gondolin/internal/paths"
	"gondolin/internal/session"
)

// labelLength is how much of a program's name a list shows.
const labelLength = 40

// labelOf is what a session shows of its command: the program only, since
// arguments may hold what is nobody else's business.
func labelOf(program string) string {
	label := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			return '?'
		}
		return r
	}, path.Base(program))
	if len(label) > labelLength {
		return strings.ToValidUTF8(label[:labelLength], "") + "…"
	}
	return label
}

// sessions opens the registry of running VMs.
func (a *app) sessions() (*session.Registry, error) {
	dirs, err := paths.FromEnv(a.getenv, runtime.GOOS)
	if err != nil {
		return nil, err
	}
	return session.Open(dirs.Sessions())
}

// withSession calls use with a client of the session that name names.
func (a *app) withSession(ctx context.Context, name string, use func(context.Context, *session.Client, session.Info) error) error {
	registry, err := a.sessions()
	if err != nil {
		return err
	}
	client, info, err := registry.Find(ctx, name)
	if err != nil {
		return err
	}
	defer client.Close()
	return use(ctx, client, info)
}

func (a *app) listCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the VMs that run",
		Long: `List the VMs of this user that other processes run with gondolin exec, bash, or a
program that made its VM a session.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			registry, err := a.sessions()
			if err != nil {
				return err
			}
			list, err := registry.List(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				encoder := json.NewEncoder(a.stdio.Out)
				encoder.SetIndent("", "  ")
				return encoder.Encode(list)
			}
			return a.printSessions(list)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	return cmd
}

func (a *app) printSessions(list []session.Info) error {
	w := tabwriter.NewWriter(a.stdio.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SESSION\tNAME\tSTATE\tCOMMAND\tIMAGE\tMEMORY\tCPUS\tSTARTED\tPID")
	for _, s := range list {
		started := "-"
		if !s.Started.IsZero() {
			started = s.Started.Local().Format(time.DateTime)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%d\n", s.ID, orDash(s.Name), s.State, orDash(s.Label), orDash(s.Image),
			formatSize(s.Memory), s.CPUs, started, s.PID)
	}
	return w.Flush()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (a *app) pauseCommand() *cobra.Command {
	return a.plainCommand("pause", session.PausePath, "Stop a VM's processors; its memory stays")
}

func (a *app) resumeCommand() *cobra.Command {
	return a.plainCommand("resume", session.ResumePath, "Let a paused VM run again, with the right time")
}

func (a *app) stopCommand() *cobra.Command {
	return a.plainCommand("stop", session.StopPath, "End a VM at once, as pulling the plug would")
}

// plainCommand makes a command that asks each SESSION for one thing.
func (a *app) plainCommand(verb, operation, short string) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " SESSION…",
		Short: short,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("%s: no SESSION given; 'gondolin list' shows those that run", verb)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range args {
				err := a.withSession(cmd.Context(), name, func(ctx context.Context, c *session.Client, info session.Info) error {
					if err := c.Call(ctx, operation, session.Empty{}, &session.Empty{}); err != nil {
						return fmt.Errorf("cannot %s session %s: %w", verb, info.ID, err)
					}
					fmt.Fprintln(a.stdio.Out, info.ID)
					return nil
				})
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}
