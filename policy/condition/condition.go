// Package condition compiles the conditions of rules, written in CEL, the Common
// Expression Language (https://cel.dev): a small language of expressions without
// loops, in which every evaluation ends.
//
// A condition is an expression that yields true or false. It sees these variables,
// as they are in [policy.Request]:
//
//	scheme  "http" or "https"
//	host    canonical host name or address
//	port    number
//	method  request method
//	path    as on the wire, without the query
//	query   as on the wire, without the "?"
//
// and CEL's standard functions and macros, with those on strings of cel-go's
// extension (split, lowerAscii, substring, …):
//
//	method == "GET" || path.endsWith("/git-upload-pack")
//	!query.contains("access_token")
//	path.split("/").size() <= 4
//
// There is no clock and no other input, so a condition always decides the same way.
// An evaluation is bounded in cost; one that goes over it is an error, which a rule
// turns against the request.
//
// The package stands apart from policy because CEL brings a parser and protocol
// buffers along, which programs without conditions need not link.
package condition

import (
	"errors"
	"fmt"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/ext"

	"gondolin/policy"
)

const (
	// maxText bounds a condition in bytes; what is longer belongs into several rules.
	maxText = 4 << 10

	// maxDepth bounds its nesting, for the parser.
	maxDepth = 64

	// maxCost bounds one evaluation, in CEL's units: about one a step, and one for
	// ten bytes of text that is looked at. It takes some milliseconds at most.
	maxCost = 100_000

	// maxNested bounds macros within macros, such as all within exists.
	maxNested = 2

	// stringsVersion fixes the functions on strings, whatever cel-go adds later.
	stringsVersion = 4
)

// environment is made once: it takes milliseconds, and is not changed.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(
		cel.Variable("scheme", cel.StringType),
		cel.Variable("host", cel.StringType),
		cel.Variable("port", cel.IntType),
		cel.Variable("method", cel.StringType),
		cel.Variable("path", cel.StringType),
		cel.Variable("query", cel.StringType),
		ext.Strings(ext.StringsVersion(stringsVersion)),
		cel.ParserExpressionSizeLimit(maxText),
		cel.ParserRecursionLimit(maxDepth),
		cel.ASTValidators(cel.ValidateRegexLiterals(), cel.ValidateComprehensionNestingLimit(maxNested)),
	)
})

// Condition is a compiled condition. It may be used from any goroutine.
type Condition struct {
	text    string
	program cel.Program
}

var _ policy.Condition = (*Condition)(nil)

// Parse compiles a condition. Its error says where in the text the fault is.
func Parse(text string) (*Condition, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("cannot use a condition of %d bytes: the limit is %d", len(text), maxText)
	}
	env, err := environment()
	if err != nil {
		return nil, fmt.Errorf("cannot use conditions: %w", err)
	}
	ast, issues := env.Compile(text)
	if err := issues.Err(); err != nil {
		return nil, fmt.Errorf("cannot use condition %q: %w", text, err)
	}
	if ast.OutputType() != cel.BoolType {
		return nil, fmt.Errorf("cannot use condition %q: it yields %s, not true or false", text, ast.OutputType())
	}
	program, err := env.Program(ast, cel.CostLimit(maxCost), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, fmt.Errorf("cannot use condition %q: %w", text, err)
	}
	return &Condition{text: text, program: program}, nil
}

// String returns the text.
func (c *Condition) String() string { return c.text }

// Holds implements [policy.Condition].
func (c *Condition) Holds(q policy.Request) (bool, error) {
	value, _, err := c.program.Eval(&variables{q})
	if err != nil {
		return false, fmt.Errorf("cannot evaluate condition %q: %w", c.text, err)
	}
	holds, ok := value.Value().(bool)
	if !ok {
		return false, errors.New("cannot evaluate condition: it yields no truth value")
	}
	return holds, nil
}

// variables is a request as cel-go looks its variables up.
type variables struct{ request policy.Request }

// ResolveName implements cel.Activation.
func (v *variables) ResolveName(name string) (any, bool) {
	switch name {
	case "scheme":
		return v.request.Scheme, true
	case "host":
		return v.request.Host, true
	case "port":
		return v.request.Port, true
	case "method":
		return v.request.Method, true
	case "path":
		return v.request.Path, true
	case "query":
		return v.request.Query, true
	}
	return nil, false
}

// Parent implements cel.Activation.
func (v *variables) Parent() cel.Activation { return nil }
