package cli

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"gondolin"
	"gondolin/internal/audit"
	"gondolin/policy"
	"gondolin/policyfile"
)

// applyPolicy puts what the policy files allow into config. Flags only narrow it.
func (a *app) applyPolicy(f *vmFlags, config *gondolin.Config) error {
	if len(f.policies) == 0 {
		return nil
	}
	if len(f.internal) > 0 || len(f.secrets) > 0 {
		return usagef("--policy: flags can only narrow a policy; put what --allow-internal and --host-secret say into the file")
	}
	p, err := policyfile.Load(f.policies...)
	if err != nil {
		return err
	}
	if p.Image != "" && f.image != "" && p.Image != f.image {
		return usagef("--image: the policy has image %s", p.Image)
	}
	n, err := p.Resolve(a.lookup)
	if err != nil {
		return err
	}
	if len(f.allow) > 0 {
		// The layer of the flags says nothing about internal addresses.
		flags := policy.Network{Allow: config.Network.Allow, AllowInternal: []string{"0.0.0.0/0", "::/0"}, Secrets: n.Secrets}
		n.Secrets = nil
		flags.Within = []policy.Network{n}
		n = flags
	}
	config.Network = n
	if p.Image != "" {
		config.Image = p.Image
	}
	if m := p.Limits.Memory; m > 0 && (config.Memory == 0 || m < config.Memory) {
		config.Memory = m
	}
	if c := p.Limits.CPUs; c > 0 && (config.CPUs == 0 || c < config.CPUs) {
		config.CPUs = c
	}
	if t := p.Limits.Timeout; t > 0 && (f.timeout == 0 || t < f.timeout) {
		f.timeout = t
	}
	return nil
}

func (a *app) policyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Check policy files, and try what they allow",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.policyCheck(), a.policyTest(), a.policyReplay())
	return cmd
}

func (a *app) policyCheck() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE…",
		Short: "Check policy files, together as --policy takes them",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("policy check: give one or more policy files")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			p, err := policyfile.Load(args...)
			if err != nil {
				return err
			}
			rules := len(p.Network.Rules)
			for _, w := range p.Network.Within {
				rules += len(w.Rules)
			}
			fmt.Fprintf(a.stdio.Out, "ok: %d rules, %d secrets\n", rules, len(p.Secrets))
			return nil
		},
	}
}

func (a *app) policyTest() *cobra.Command {
	return &cobra.Command{
		Use:   "test FILE… METHOD URL",
		Short: "Say whether a request would be allowed, and what each rule has to say",
		Long: `Say whether a request would be allowed, and what each rule has to say.

Exits with 1 if it would be refused. Names are not resolved: whether a name leads to
an internal address shows only when it is used.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 3 {
				return usagef("policy test: give FILE… METHOD URL")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			files := args[:len(args)-2]
			q, err := parseRequest(args[len(args)-2], args[len(args)-1])
			if err != nil {
				return err
			}
			e, err := loadEngine(files)
			if err != nil {
				return err
			}
			return a.explain(e, q)
		},
	}
}

func (a *app) explain(e *policy.Engine, q policy.Request) error {
	for _, s := range e.Explain(q) {
		mark := " "
		if s.Decided {
			mark = "*"
		}
		line := mark + " " + s.Rule + ": " + s.Outcome
		if s.Policy != "" {
			line = mark + " " + s.Policy + ": " + s.Rule + ": " + s.Outcome
		}
		fmt.Fprintln(a.stdio.Out, clean(line))
	}
	d := e.Request(q)
	if addr, err := netip.ParseAddr(q.Host); err == nil && d.Allowed {
		if at := e.Address(q.Host, addr); !at.Allowed {
			d = at
		}
	}
	if d.Allowed {
		fmt.Fprintln(a.stdio.Out, clean("allowed by "+d.Rule))
		return nil
	}
	fmt.Fprintln(a.stdio.Out, clean("refused ("+string(d.Code)+"): "+d.Reason))
	if d.Fix != "" {
		fmt.Fprintln(a.stdio.Out, clean("fix: "+d.Fix))
	}
	return exitError(exitFailure)
}

// loadEngine compiles files without the values of their secrets.
func loadEngine(files []string) (*policy.Engine, error) {
	p, err := policyfile.Load(files...)
	if err != nil {
		return nil, err
	}
	return policy.Compile(p.Network)
}

// parseRequest reads a request as a user writes it.
func parseRequest(method, text string) (policy.Request, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return policy.Request{}, usagef("policy test: %q is not an http or https URL", text)
	}
	q := policy.Request{Scheme: u.Scheme, Port: 443, Method: strings.ToUpper(method), Path: u.EscapedPath(), Query: u.RawQuery}
	if u.Scheme == "http" {
		q.Port = 80
	}
	if u.Port() != "" {
		if q.Port, err = strconv.Atoi(u.Port()); err != nil {
			return q, usagef("policy test: port %q is not a number", u.Port())
		}
	}
	if q.Path == "" {
		q.Path = "/"
	}
	if q.Host, err = policy.CanonicalHost(u.Hostname()); err != nil {
		return q, usagef("policy test: %w", err)
	}
	return q, nil
}

func (a *app) policyReplay() *cobra.Command {
	return &cobra.Command{
		Use:   "replay FILE… AUDIT",
		Short: "Say which requests of an audit file a policy would have refused",
		Long: `Say which requests that an audit file says were allowed, a policy would have
refused. Exits with 1 if there are any. The audit has no queries, so conditions on
them see none.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usagef("policy replay: give FILE… AUDIT")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := loadEngine(args[:len(args)-1])
			if err != nil {
				return err
			}
			refused, total := 0, 0
			err = readEvents(cmd.Context(), args[len(args)-1], followNot, func(ev audit.Event) error {
				if ev.Kind != audit.Request || ev.Decision != audit.Allow {
					return nil
				}
				total++
				d := e.Request(policy.Request{Scheme: ev.Scheme, Host: ev.Host, Port: ev.Port, Method: ev.Method, Path: ev.Path})
				if d.Allowed {
					return nil
				}
				refused++
				_, err := fmt.Fprintln(a.stdio.Out, clean(fmt.Sprintf("%s %s://%s%s: %s", ev.Method, ev.Scheme, policy.JoinHostPort(ev.Host, ev.Port), ev.Path, d.Reason)))
				return err
			})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.stdio.Out, "%d of %d allowed requests would have been refused\n", refused, total)
			if refused > 0 {
				err = errors.Join(err, exitError(exitFailure))
			}
			return err
		},
	}
}
