package policyfile

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"gondolin/policy"
	"gondolin/policy/condition"
)

// decoder walks a document and collects its faults. Nothing is ignored.
type decoder struct {
	file   string
	dir    string // what paths are relative to
	faults []error
}

func (d *decoder) at(n *yaml.Node) position { return position{d.file, n.Line, n.Column} }

func (d *decoder) fault(n *yaml.Node, format string, args ...any) {
	d.faults = append(d.faults, d.at(n).fault(format, args...))
}

// field is what a mapping may have: a key and what reads its value.
type field struct {
	key  string
	read func(*yaml.Node)
}

// mapping reads a mapping of known fields.
func (d *decoder) mapping(n *yaml.Node, what string, fields ...field) {
	for _, kv := range d.pairs(n, what) {
		i := slices.IndexFunc(fields, func(f field) bool { return f.key == kv[0].Value })
		if i < 0 {
			d.fault(kv[0], "%s has no field %q; it may have %s", what, kv[0].Value, keysOf(fields))
			continue
		}
		fields[i].read(kv[1])
	}
}

func keysOf(fields []field) string {
	keys := make([]string, len(fields))
	for i, f := range fields {
		keys[i] = f.key
	}
	return strings.Join(keys, ", ")
}

// pairs returns a mapping's keys and values. A key that is there twice is a fault.
func (d *decoder) pairs(n *yaml.Node, what string) (pairs [][2]*yaml.Node) {
	if !d.plain(n) {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		d.fault(n, "%s must be a mapping of fields", what)
		return nil
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if !d.plain(key) || key.Kind != yaml.ScalarNode {
			d.fault(key, "%s has a key that is no text", what)
			continue
		}
		if seen[key.Value] {
			d.fault(key, "%s has %q twice", what, key.Value)
			continue
		}
		seen[key.Value] = true
		pairs = append(pairs, [2]*yaml.Node{key, value})
	}
	return pairs
}

// plain refuses what makes a text mean something that is not where it is read.
func (d *decoder) plain(n *yaml.Node) bool {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		d.fault(n, "anchors and aliases are not supported: write it out")
	case n.Tag == "!!merge":
		d.fault(n, "merges are not supported: write it out")
	case n.Style&yaml.TaggedStyle != 0:
		d.fault(n, "tags are not supported")
	default:
		return true
	}
	return false
}

// text reads a scalar that is text, or was meant to be: 1.2 and true are too.
func (d *decoder) text(n *yaml.Node, what string) string {
	if !d.plain(n) {
		return ""
	}
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" || n.Value == "" {
		d.fault(n, "%s must be text", what)
		return ""
	}
	return n.Value
}

// list reads a list.
func (d *decoder) list(n *yaml.Node, what string) []*yaml.Node {
	if !d.plain(n) {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		d.fault(n, "%s must be a list", what)
		return nil
	}
	return n.Content
}

// texts reads a list of text that has something in it.
func (d *decoder) texts(n *yaml.Node, what string) (texts []string) {
	items := d.list(n, what)
	if n.Kind == yaml.SequenceNode && len(items) == 0 {
		d.fault(n, "%s is empty: leave it out, or name something", what)
	}
	for _, item := range items {
		texts = append(texts, d.text(item, "each of "+what))
	}
	return texts
}

func (d *decoder) integer(n *yaml.Node, what string, low, high int) int {
	text := d.text(n, what)
	v, err := strconv.Atoi(text)
	if text != "" && (n.Tag != "!!int" || err != nil || v < low || v > high) {
		d.fault(n, "%s must be a number from %d to %d", what, low, high)
		return 0
	}
	return v
}

func (d *decoder) size(n *yaml.Node, what string) int64 {
	text := d.text(n, what)
	if text == "" {
		return 0
	}
	size, err := parseSize(text)
	if err != nil {
		d.fault(n, "%s: %v", what, err)
	}
	return size
}

// parseSize reads a number of bytes with an optional binary suffix.
func parseSize(text string) (int64, error) {
	digits, shift := text, 0
	if i := strings.IndexByte("KMGT", text[len(text)-1]); i >= 0 {
		digits, shift = text[:len(text)-1], 10*(i+1)
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n <= 0 || n > (1<<50)>>shift || digits[0] == '+' {
		return 0, fmt.Errorf("%q is no size; give a number of bytes, or one with K, M, G or T", text)
	}
	return n << shift, nil
}

func (d *decoder) duration(n *yaml.Node, what string) time.Duration {
	text := d.text(n, what)
	if text == "" {
		return 0
	}
	v, err := time.ParseDuration(text)
	if err != nil || v <= 0 {
		d.fault(n, "%s must be a time such as 90s, 10m or 2h", what)
		return 0
	}
	return v
}

// path reads a path of the host, relative to the file's directory.
func (d *decoder) path(n *yaml.Node, what string) string {
	text := d.text(n, what)
	if text == "" || filepath.IsAbs(text) {
		return filepath.Clean(text)
	}
	return filepath.Join(d.dir, text)
}

// policy reads a whole file.
func (d *decoder) policy(n *yaml.Node, f *File) {
	if depth(n) > maxDepth {
		d.fault(n, "it is nested more than %d deep", maxDepth)
		return
	}
	version := false
	d.mapping(n, "a policy",
		field{"version", func(n *yaml.Node) { version = true; d.integer(n, "version", 1, 1) }},
		field{"name", func(n *yaml.Node) { f.Name = d.text(n, "name") }},
		field{"image", func(n *yaml.Node) { f.image = value[string]{d.at(n), d.text(n, "image")} }},
		field{"limits", func(n *yaml.Node) { f.limits = d.limits(n) }},
		field{"network", func(n *yaml.Node) { f.network = d.network(n) }},
		field{"secrets", func(n *yaml.Node) { f.secrets = d.secrets(n) }},
	)
	if !version && n.Kind == yaml.MappingNode {
		d.fault(n, `it does not say its version: begin with "version: 1"`)
	}
}

// depth returns how deep a document is nested, as far as it matters.
func depth(n *yaml.Node) int {
	deepest := 0
	type item struct {
		node  *yaml.Node
		level int
	}
	for stack := []item{{n, 1}}; len(stack) > 0; {
		top := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if deepest = max(deepest, top.level); deepest > maxDepth {
			break
		}
		for _, c := range top.node.Content {
			stack = append(stack, item{c, top.level + 1})
		}
	}
	return deepest
}

func (d *decoder) limits(n *yaml.Node) (l Limits) {
	d.mapping(n, "limits",
		field{"memory", func(n *yaml.Node) { l.Memory = d.size(n, "memory") }},
		field{"cpus", func(n *yaml.Node) { l.CPUs = d.integer(n, "cpus", 1, 1024) }},
		field{"timeout", func(n *yaml.Node) { l.Timeout = d.duration(n, "timeout") }},
	)
	return l
}

func (d *decoder) network(n *yaml.Node) *network {
	s := &network{at: d.at(n)}
	d.mapping(n, "network",
		field{"rules", func(n *yaml.Node) {
			for _, item := range d.list(n, "rules") {
				s.rules = append(s.rules, value[policy.Rule]{d.at(item), d.rule(item)})
			}
		}},
		field{"internal", func(n *yaml.Node) {
			for _, item := range d.list(n, "internal") {
				s.internal = append(s.internal, value[string]{d.at(item), d.text(item, "each of internal")})
			}
		}},
	)
	return s
}

func (d *decoder) rule(n *yaml.Node) (r policy.Rule) {
	d.mapping(n, "a rule",
		field{"name", func(n *yaml.Node) { r.Name = d.text(n, "name") }},
		field{"host", func(n *yaml.Node) { r.Host = d.text(n, "host") }},
		field{"ports", func(n *yaml.Node) {
			for _, item := range d.list(n, "ports") {
				r.Ports = append(r.Ports, d.integer(item, "each of ports", 1, 65535))
			}
			if len(r.Ports) == 0 {
				d.fault(n, "ports is empty: leave it out, or name some")
			}
		}},
		field{"schemes", func(n *yaml.Node) { r.Schemes = d.texts(n, "schemes") }},
		field{"methods", func(n *yaml.Node) { r.Methods = d.texts(n, "methods") }},
		field{"paths", func(n *yaml.Node) { r.Paths = d.texts(n, "paths") }},
		field{"when", func(n *yaml.Node) { r.When = d.condition(n) }},
		field{"max_request", func(n *yaml.Node) { r.MaxRequest = d.size(n, "max_request") }},
		field{"max_response", func(n *yaml.Node) { r.MaxResponse = d.size(n, "max_response") }},
		field{"deny", func(n *yaml.Node) { r.Deny = d.text(n, "deny") }},
	)
	if r.Host == "" && n.Kind == yaml.MappingNode {
		d.fault(n, "a rule needs a host")
	}
	return r
}

func (d *decoder) condition(n *yaml.Node) policy.Condition {
	text := d.text(n, "when")
	if text == "" {
		return nil
	}
	c, err := condition.Parse(text)
	if err != nil {
		d.fault(n, "%v", err)
		return nil
	}
	return c
}

func (d *decoder) secret(n *yaml.Node) (s Secret) {
	d.mapping(n, "a secret",
		field{"hosts", func(n *yaml.Node) { s.Hosts = d.texts(n, "hosts") }},
		field{"env", func(n *yaml.Node) { s.Env = d.text(n, "env") }},
		field{"file", func(n *yaml.Node) { s.File = d.path(n, "file") }},
	)
	if n.Kind == yaml.MappingNode && (s.Env == "") == (s.File == "") {
		d.fault(n, "a secret is from one place: give one of env and file")
	}
	return s
}

// secrets reads the secrets by name.
func (d *decoder) secrets(n *yaml.Node) *secrets {
	s := &secrets{at: d.at(n), list: make(map[string]value[Secret])}
	for _, kv := range d.pairs(n, "secrets") {
		s.list[kv[0].Value] = value[Secret]{d.at(kv[0]), d.secret(kv[1])}
	}
	return s
}
