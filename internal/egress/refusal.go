package egress

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"gondolin/policy"
)

// denial is a refusal the guest gets to read.
type denial struct {
	status int
	code   policy.Code // in one word; "" is codeTarget
	reason string
	hint   string // what would allow it; may be empty
	rule   string // that decided or came nearest; may be empty
	policy string // whose it is; may be empty
}

// Codes of refusals that the policy has no part in.
const (
	codeTarget     policy.Code = "target"     // the request does not fit its connection, or cannot be understood
	codeUnrecorded policy.Code = "unrecorded" // the audit log cannot be written
	codeBusy       policy.Code = "busy"       // too many requests at once
	codeFault      policy.Code = "fault"      // a fault of ours
	codeRequest    policy.Code = "request_size"
	codeResponse   policy.Code = "response_size"
)

func (d *denial) Error() string { return d.reason }

func deny(format string, args ...any) *denial {
	return &denial{status: http.StatusForbidden, reason: fmt.Sprintf(format, args...)}
}

// refusal is a denial as the policy has it.
func refusal(d policy.Decision) *denial {
	return &denial{status: http.StatusForbidden, code: d.Code, reason: d.Reason, hint: d.Fix, rule: d.Rule, policy: d.Policy}
}

func unrecorded() *denial {
	return &denial{status: http.StatusServiceUnavailable, code: codeUnrecorded, reason: "the audit log cannot be written"}
}

// asDenial returns the denial that err is, or nil.
func asDenial(err error) *denial {
	d, _ := errors.AsType[*denial](err)
	return d
}

// deniedHeader carries the code, and as parameters rule and policy, in the form of
// RFC 9651.
const deniedHeader = "Gondolin-Denied"

// problem is a refusal for programs: problem details, RFC 9457, with members of
// our own.
type problem struct {
	Title  string      `json:"title"`
	Status int         `json:"status"`
	Detail string      `json:"detail"`
	Code   policy.Code `json:"code"`
	Rule   string      `json:"rule,omitempty"`
	Policy string      `json:"policy,omitempty"`
	Fix    string      `json:"fix,omitempty"`
	// Needs is a rule that would allow the request, where one would.
	Needs *needs `json:"needs,omitempty"`
}

// needs has the names that rules have in policy files.
type needs struct {
	Host    string   `json:"host"`
	Ports   []int    `json:"ports"`
	Schemes []string `json:"schemes"`
	Methods []string `json:"methods"`
	Paths   []string `json:"paths"`
}

// refuse answers with a line of text, or with JSON if the guest prefers it.
func (x *exchange) refuse(w http.ResponseWriter, r *http.Request, d *denial) {
	x.denied = d
	if d.code == "" {
		d.code = codeTarget
	}
	w.Header().Set(deniedHeader, d.header())
	if !wantsJSON(r) {
		text := fmt.Sprintf("gondolin: denied: %s %s://%s%s: %s", cmp.Or(x.query.Method, "a request to"), x.query.Scheme,
			policy.JoinHostPort(x.query.Host, x.query.Port), x.query.Path, d.reason)
		if d.hint != "" {
			text += " (" + d.hint + ")"
		}
		x.answer(w, d.status, text)
		return
	}
	body, err := json.Marshal(x.problem(d))
	if err != nil { // cannot be: strings and numbers
		body = []byte(`{}`)
	}
	x.answerAs(w, d.status, "application/problem+json", string(body))
}

func (x *exchange) problem(d *denial) problem {
	p := problem{
		Title: "denied by gondolin", Status: d.status, Detail: d.reason, Code: d.code, Rule: d.rule, Policy: d.policy, Fix: d.hint,
	}
	switch d.code {
	case policy.CodeNoRule, policy.CodeScheme, policy.CodeMethod, policy.CodePath:
		q := x.query
		p.Needs = &needs{Host: q.Host, Ports: []int{q.Port}, Schemes: []string{q.Scheme}, Methods: []string{q.Method}, Paths: []string{q.Path}}
	default: // no rule by itself would help
	}
	return p
}

func (d *denial) header() string {
	var text strings.Builder
	text.WriteString(string(d.code))
	for _, p := range []struct{ key, value string }{{"rule", d.rule}, {"policy", d.policy}} {
		if p.value != "" {
			text.WriteString(";" + p.key + "=" + quotedASCII(p.value))
		}
	}
	return text.String()
}

// quotedASCII is a string of RFC 9651 section 3.3.3, in which only printable ASCII
// may be.
func quotedASCII(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// wantsJSON reports whether the first type in Accept that says anything is JSON.
// Tools for people send */* or text/html first, API clients JSON.
func wantsJSON(r *http.Request) bool {
	for part := range strings.SplitSeq(strings.Join(r.Header.Values("Accept"), ","), ",") {
		kind, _, _ := strings.Cut(part, ";")
		switch kind = strings.ToLower(strings.TrimSpace(kind)); {
		case kind == "application/json" || strings.HasPrefix(kind, "application/") && strings.HasSuffix(kind, "+json"):
			return true
		case kind != "":
			return false
		}
	}
	return false
}
