package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"gondolin/internal/audit"
	"gondolin/internal/machine"
)

func (a *app) auditCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Read and check what was recorded",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.auditVerify(), a.auditShow(), a.auditStats())
	return cmd
}

func (a *app) auditVerify() *cobra.Command {
	var head string
	cmd := &cobra.Command{
		Use:   "verify [flags] FILE",
		Short: "Check that no line was changed, removed or added",
		Long: `Check the chain of hashes through FILE and the files set aside before it.

It shows whether lines were changed, removed, added or reordered. That lines are
missing at the end shows only if the log was closed, or with --head, the hash of a
line from later on that was kept elsewhere; and so does a log that was made anew.`,
		Args: oneFile,
		RunE: func(_ *cobra.Command, args []string) error {
			var want audit.Hash
			if head != "" {
				var err error
				if want, err = audit.ParseHash(head); err != nil {
					return usagef("--head: %w", err)
				}
			}
			report, err := audit.Verify(args[0], want)
			if err != nil {
				return err
			}
			return a.printReport(report)
		},
	}
	cmd.Flags().StringVar(&head, "head", "", "`HASH` that one of the lines must have")
	return cmd
}

func (a *app) printReport(r audit.Report) error {
	out := a.stdio.Out
	fmt.Fprintf(out, "%d events in %d files, unbroken\n", r.Events, r.Files)
	if r.Events > 0 {
		fmt.Fprintf(out, "from %s to %s\n", r.First.Format(time.RFC3339), r.Last.Format(time.RFC3339))
	}
	if r.Begin != (audit.Hash{}) {
		fmt.Fprintf(out, "it continues an earlier file that is not here, which ended with %s\n", r.Begin)
	}
	for _, name := range r.Torn {
		fmt.Fprintf(out, "%s ends within a line: its writer was killed\n", clean(name))
	}
	switch {
	case r.Known:
		fmt.Fprintln(out, "the hash given is that of one of its lines")
	case r.Closed:
		fmt.Fprintln(out, "it was closed: no line is missing at the end")
	default:
		fmt.Fprintln(out, "it was not closed: it is being written, its writer was killed, or lines are missing at the end")
	}
	fmt.Fprintf(out, "head %s\n", r.Head)
	return nil
}

func (a *app) auditShow() *cobra.Command {
	var f eventFilter
	cmd := &cobra.Command{
		Use:   "show [flags] FILE",
		Short: "Show the events of an audit file, a line each",
		Args:  oneFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.showEvents(cmd.Context(), args[0], f, followNot)
		},
	}
	f.register(cmd.Flags())
	return cmd
}

func (a *app) logsCommand() *cobra.Command {
	var f eventFilter
	var follow bool
	cmd := &cobra.Command{
		Use:   "logs [flags] FILE",
		Short: "Show what a VM is doing, from its audit file",
		Args:  oneFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			mode := followNot
			if follow {
				mode = followUntilStopped
			}
			return a.showEvents(cmd.Context(), args[0], f, mode)
		},
	}
	f.register(cmd.Flags())
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what is added, until interrupted")
	return cmd
}

func oneFile(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usagef("%s: give one audit file", cmd.CommandPath())
	}
	return nil
}

func (a *app) auditStats() *cobra.Command {
	return &cobra.Command{
		Use:   "stats FILE",
		Short: "Count the events of an audit file by kind, and hosts by requests",
		Args:  oneFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			s := newAuditStats()
			if err := readEvents(cmd.Context(), args[0], followNot, s.add); err != nil {
				return err
			}
			return s.print(a.stdio.Out)
		},
	}
}

// maxHosts bounds the hosts and reasons counted apart: the guest chooses them.
const maxHosts = 10_000

// auditStats counts events.
type auditStats struct {
	kinds   map[string]int
	hosts   map[string]*hostCount
	reasons map[string]int
}

type hostCount struct {
	host           string
	allowed        int
	denied         int
	sent, received int64
}

func newAuditStats() *auditStats {
	return &auditStats{kinds: make(map[string]int), hosts: make(map[string]*hostCount), reasons: make(map[string]int)}
}

func (s *auditStats) add(e audit.Event) error {
	s.kinds[string(e.Kind)+" "+string(e.Decision)]++
	if e.Decision == audit.Deny && len(s.reasons) < maxHosts {
		s.reasons[e.Reason]++
	}
	if e.Host == "" || e.Kind != audit.Request && e.Kind != audit.Response {
		return nil
	}
	h := s.hosts[e.Host]
	if h == nil {
		h = &hostCount{host: e.Host}
		if len(s.hosts) >= maxHosts {
			h = cmp.Or(s.hosts["(others)"], &hostCount{host: "(others)"})
		}
		s.hosts[h.host] = h
	}
	switch {
	case e.Decision == audit.Deny:
		h.denied++
	case e.Kind == audit.Request:
		h.allowed++
	}
	h.sent, h.received = h.sent+e.Sent, h.received+e.Received
	return nil
}

func (s *auditStats) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "EVENTS\tKIND")
	for _, kind := range byCount(s.kinds) {
		fmt.Fprintf(w, "%d\t%s\n", s.kinds[kind], clean(strings.TrimSpace(kind)))
	}
	hosts := make([]*hostCount, 0, len(s.hosts))
	for _, h := range s.hosts {
		hosts = append(hosts, h)
	}
	slices.SortFunc(hosts, func(a, b *hostCount) int {
		return cmp.Or(cmp.Compare(b.allowed+b.denied, a.allowed+a.denied), cmp.Compare(a.host, b.host))
	})
	if len(hosts) > 0 {
		fmt.Fprintln(w, "\nALLOWED\tDENIED\tSENT\tRECEIVED\tHOST")
	}
	for _, h := range hosts {
		fmt.Fprintf(w, "%d\t%d\t%s\t%s\t%s\n", h.allowed, h.denied, formatBytes(h.sent), formatBytes(h.received), clean(h.host))
	}
	if len(s.reasons) > 0 {
		fmt.Fprintln(w, "\nDENIED\tREASON")
	}
	for _, reason := range byCount(s.reasons) {
		fmt.Fprintf(w, "%d\t%s\n", s.reasons[reason], clean(reason))
	}
	return w.Flush()
}

// byCount returns the keys, those with the highest count first.
func byCount(counts map[string]int) []string {
	keys := make([]string, 0, len(counts))
	for k := range counts {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int { return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b)) })
	return keys
}

// clean makes text from a file fit for one line of a terminal.
func clean(s string) string {
	s = machine.Sanitize([]byte(s))
	return strings.NewReplacer("\n", " ", "\t", " ").Replace(s)
}

// showEvents prints the events that f lets through.
func (a *app) showEvents(ctx context.Context, name string, f eventFilter, mode followMode) error {
	err := readEvents(ctx, name, mode, func(e audit.Event) error {
		if !f.matches(e) {
			return nil
		}
		_, err := fmt.Fprintln(a.stdio.Out, describe(e))
		return err
	})
	if errors.Is(err, context.Canceled) {
		return exitError(exitInterrupted)
	}
	return err
}
