package policy

import "strings"

// Step is what one rule had to say about a request.
type Step struct {
	// Policy is the Name of the rule's Network.
	Policy string
	// Rule names the rule.
	Rule string
	// Outcome says what became of it: "allows", "refuses: …", or what of the rule
	// the request does not fit.
	Outcome string
	// Decided is set for the rule that decided in its Network.
	Decided bool
}

// Explain returns what each rule that was asked about q had to say, in order. Where
// no step of a Network is Decided, no rule of it matched.
func (e *Engine) Explain(q Request) []Step {
	s := newSubject(q)
	var steps []Step
	for i := range e.layers {
		l := &e.layers[i]
		for j := range l.rules {
			r := &l.rules[j]
			missed := r.misses(&s)
			steps = append(steps, Step{Policy: l.name, Rule: r.text, Outcome: r.outcome(&s, missed), Decided: missed == matches})
			if missed == matches {
				break
			}
		}
	}
	return steps
}

func (r *rule) outcome(s *subject, missed aspect) string {
	switch missed {
	case aspectHost:
		return "another host: " + r.host.String()
	case aspectPort:
		return "other ports: " + strings.Join(portTexts(r.ports), ", ")
	case aspectScheme:
		return "another scheme: " + strings.Join(r.schemes, ", ")
	case aspectMethod:
		return "other methods: " + strings.Join(r.methods, ", ")
	case aspectPath:
		if !s.plainPath() {
			return "the path is written in an unusual way"
		}
		return "other paths: " + strings.Join(r.paths, ", ")
	case aspectCondition:
		return "its condition does not hold" + r.conditionError(s.Request)
	case matches:
	}
	if r.deny != "" {
		return "refuses: " + r.deny
	}
	return "allows"
}

// conditionError says why a condition could not be evaluated, if it could not.
func (r *rule) conditionError(q Request) (text string) {
	defer func() {
		if recover() != nil {
			text = ": it panicked"
		}
	}()
	if _, err := r.when.Holds(q); err != nil {
		return ": " + err.Error()
	}
	return ""
}
