package policyfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"go.yaml.in/yaml/v3"

	"gondolin/policy"
)

const (
	// maxFile bounds a file in bytes: 10000 rules fit.
	maxFile = 4 << 20

	// maxDepth bounds the nesting of a file; its own is 5.
	maxDepth = 16
)

// File is one policy file as it is written.
type File struct {
	// Name is the file's name, or the name it gives itself.
	Name string

	image   value[string]
	limits  Limits
	network *network
	secrets *secrets
}

// Limits are the bounds of a VM. 0: none given.
type Limits struct {
	Memory  int64         // bytes
	CPUs    int           // virtual processors
	Timeout time.Duration // of the command
}

// Secret is a secret by reference. Env or File is set.
type Secret struct {
	Hosts []string
	Env   string // a variable of the host's environment
	File  string // an absolute path
}

// position is a place in a file.
type position struct {
	file         string
	line, column int
}

// Error is a fault in a policy file.
type Error struct {
	File         string
	Line, Column int // from 1; 0: the file as a whole
	Problem      string
}

// Error returns "FILE:LINE:COLUMN: problem", as compilers write it.
func (e *Error) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Problem
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Problem)
}

func (p position) fault(format string, args ...any) error {
	return &Error{File: p.file, Line: p.line, Column: p.column, Problem: fmt.Sprintf(format, args...)}
}

// value is something with its place.
type value[T any] struct {
	at position
	v  T
}

// secrets is a file's secrets section.
type secrets struct {
	at   position
	list map[string]value[Secret]
}

// network is a file's network section.
type network struct {
	at       position
	rules    []value[policy.Rule]
	internal []value[string]
}

// Read reads one file. All faults are reported at once.
func Read(name string) (*File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("cannot read the policy: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("cannot read the policy: %w", err)
	}
	if info.Mode().Perm()&0o002 != 0 && info.Mode().IsRegular() {
		return nil, &Error{File: name, Problem: "every user of the host may write it: take that right away with chmod o-w"}
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read the policy: %w", err)
	}
	return Parse(name, text)
}

// Parse reads the text of one file. name is for errors, and its directory is what
// paths in it are relative to.
func Parse(name string, text []byte) (*File, error) {
	if len(text) > maxFile {
		return nil, &Error{File: name, Problem: fmt.Sprintf("it is longer than %d bytes", maxFile)}
	}
	root, err := parseYAML(name, text)
	if err != nil {
		return nil, err
	}
	path, err := filepath.Abs(name)
	if err != nil {
		return nil, fmt.Errorf("cannot read the policy: %w", err)
	}
	f := &File{Name: name}
	d := &decoder{file: name, dir: filepath.Dir(path)}
	d.policy(root, f)
	if err := errors.Join(d.faults...); err != nil {
		return nil, err
	}
	return f, errors.Join(f.check()...)
}

// parseYAML returns the one document of a text.
func parseYAML(name string, text []byte) (*yaml.Node, error) {
	in := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	err := in.Decode(&doc)
	switch {
	case errors.Is(err, io.EOF) || err == nil && len(doc.Content) != 1:
		return nil, &Error{File: name, Line: 1, Column: 1, Problem: `it is empty; begin with "version: 1"`}
	case err != nil:
		return nil, yamlError(name, err)
	}
	if err := in.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, &Error{File: name, Line: max(more.Line, 1), Column: 1, Problem: "it has a second document: a policy is one"}
	}
	return doc.Content[0], nil
}

// yamlError gives a syntax error its place, which yaml has in its text.
func yamlError(name string, err error) error {
	e := &Error{File: name, Line: 1, Column: 1, Problem: err.Error()}
	var line int
	if n, _ := fmt.Sscanf(err.Error(), "yaml: line %d:", &line); n == 1 {
		e.Line = line
		if _, rest, ok := bytes.Cut([]byte(err.Error()), []byte(": ")); ok {
			if _, rest, ok = bytes.Cut(rest, []byte(": ")); ok {
				e.Problem = string(rest)
			}
		}
	}
	e.Problem = "it is not YAML: " + e.Problem
	return e
}
