package policyfile

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"gondolin/policy"
)

// Policy is what one or more files say together.
type Policy struct {
	Image  string // empty: none named
	Limits Limits
	// Network has the rules. The values of its secrets are not in it: Resolve
	// reads them.
	Network policy.Network
	Secrets map[string]Secret
}

// maxValue bounds a secret's file in bytes.
const maxValue = 16 << 10

// Load reads files, the first being the widest, and returns what they allow
// together.
func Load(names ...string) (*Policy, error) {
	var files []*File
	var faults []error
	for _, name := range names {
		f, err := Read(name)
		faults = append(faults, err)
		files = append(files, f)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return Combine(files...)
}

// Combine returns what files allow together.
func Combine(files ...*File) (*Policy, error) {
	p := &Policy{Secrets: make(map[string]Secret)}
	var faults []error
	var layers []policy.Network
	for i, f := range files {
		if f.network != nil {
			layers = append(layers, f.network.policy())
			if len(files) > 1 {
				layers[len(layers)-1].Name = f.Name
			}
		}
		if f.image.v != "" && p.Image != "" && p.Image != f.image.v {
			faults = append(faults, f.image.at.fault("an earlier file has image %s: all must have the same", p.Image))
		}
		p.Image = cmp.Or(f.image.v, p.Image)
		p.Limits = p.Limits.within(f.limits)
		if f.secrets == nil {
			continue
		}
		if i > 0 {
			faults = append(faults, f.secrets.at.fault("only the first file may have secrets: the others narrow it"))
			continue
		}
		for name, s := range f.secrets.list {
			p.Secrets[name] = s.v
		}
	}
	if len(layers) > 0 { // the last is the narrowest
		last := len(layers) - 1
		p.Network = layers[last]
		p.Network.Within = layers[:last]
	}
	faults = append(faults, p.reachable(files)...)
	return p, errors.Join(faults...)
}

// within returns the smaller of each limit.
func (l Limits) within(m Limits) Limits {
	return Limits{smaller(l.Memory, m.Memory), smaller(l.CPUs, m.CPUs), smaller(l.Timeout, m.Timeout)}
}

// smaller returns the smaller of two limits, of which 0 is none.
func smaller[T int | int64 | time.Duration](a, b T) T {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

func (n *network) policy() (p policy.Network) {
	for _, r := range n.rules {
		p.Rules = append(p.Rules, r.v)
	}
	for _, i := range n.internal {
		p.AllowInternal = append(p.AllowInternal, i.v)
	}
	return p
}

// check finds what of one file cannot be meant, each fault at its place.
func (f *File) check() (faults []error) {
	if f.network == nil {
		return nil
	}
	for _, r := range f.network.rules {
		if _, err := policy.Compile(policy.Network{Rules: []policy.Rule{r.v}}); err != nil {
			faults = append(faults, r.at.fault("%v", err))
		}
	}
	for _, i := range f.network.internal {
		if _, err := policy.Compile(policy.Network{AllowInternal: []string{i.v}}); err != nil {
			faults = append(faults, i.at.fault("%v", err))
		}
	}
	if faults != nil {
		return faults
	}
	findings, err := policy.Check(f.network.policy())
	if err != nil {
		return []error{f.network.at.fault("%v", err)}
	}
	for _, found := range findings {
		faults = append(faults, f.network.rules[found.Rule].at.fault("%s", found.Problem))
	}
	return faults
}

// reachable tries each secret by itself, with a value that stands for its own.
func (p *Policy) reachable(files []*File) (faults []error) {
	if len(files) == 0 || files[0].secrets == nil {
		return nil
	}
	list := files[0].secrets.list
	for _, name := range slices.Sorted(maps.Keys(list)) {
		n := p.Network
		n.Secrets = map[string]policy.Secret{name: {Hosts: list[name].v.Hosts, Value: "stands-for-the-value"}}
		if _, err := policy.Compile(n); err != nil {
			faults = append(faults, list[name].at.fault("%v", err))
		}
	}
	return faults
}

// Resolve returns the network with the values of its secrets, read from where the
// files say. Errors name no value.
func (p *Policy) Resolve(lookup func(string) (string, bool)) (policy.Network, error) {
	n := p.Network
	n.Secrets = make(map[string]policy.Secret)
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(p.Secrets)) {
		value, err := p.Secrets[name].read(lookup)
		if err != nil {
			faults = append(faults, fmt.Errorf("cannot get secret %s: %w", name, err))
		}
		n.Secrets[name] = policy.Secret{Hosts: p.Secrets[name].Hosts, Value: value}
	}
	return n, errors.Join(faults...)
}

func (s Secret) read(lookup func(string) (string, bool)) (string, error) {
	if s.Env != "" {
		value, ok := lookup(s.Env)
		if !ok || value == "" {
			return "", fmt.Errorf("the variable %s is not set", s.Env)
		}
		return value, nil
	}
	f, err := os.Open(s.File)
	if err != nil {
		return "", err
	}
	defer f.Close()
	value, err := io.ReadAll(io.LimitReader(f, maxValue+1))
	if err == nil && len(value) > maxValue {
		err = fmt.Errorf("%s is longer than %d bytes", s.File, maxValue)
	}
	return strings.TrimRight(string(value), "\r\n"), err
}
