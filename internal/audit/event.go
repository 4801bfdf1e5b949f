package audit

import "time"

// Version is that of the schema.
const Version = 1

const (
	// maxText bounds each string of an event in bytes: usual events are below
	// 1 KiB, and the longest names of hosts and paths anyone reads fit.
	maxText = 1024

	// maxSecrets bounds the secret names listed in one event.
	maxSecrets = 16

	// maxArgs and maxArgBytes bound the arguments listed in one event, and all
	// their bytes; what is cut off is said in their place.
	maxArgs     = 64
	maxArgBytes = 8 << 10

	// maxPhases bounds the timings listed in one event.
	maxPhases = 32

	// MaxLine bounds a line in bytes with its line break. All strings at their
	// bounds and escaped in the longest way stay below it.
	MaxLine = 256 << 10
)

// Kind says what an event is about.
type Kind string

// The kinds of events, and their fields besides time, vm, decision, rule and reason.
const (
	// DNS is a name query and its answer: name, type, address. reason is the
	// response code; deny is any but NOERROR.
	DNS Kind = "dns"
	// Connection is the guest's when it was refused or reset (name, address,
	// port), or the host's, dialled or not (host, address, port).
	Connection Kind = "connection"
	// Request is an HTTP request that was decided, recorded before anything of
	// it leaves: request, scheme, method, host, port, path. A refusal is
	// complete: it has the status too.
	Request Kind = "request"
	// Response is the end of a request that was allowed: the fields of Request,
	// and status, sent, received, duration_ms. reason is set if it failed.
	Response Kind = "response"
	// Exec is a command: phase start (exec, args, dir, user) or end (exec, pid,
	// exit or signal, duration_ms).
	Exec Kind = "exec"
	// Secret is the use of secrets, by name: secrets, request, host, port.
	Secret Kind = "secret"
	// Policy is a policy that came into force (allow), or was refused (deny):
	// phase start or change, policy, source.
	Policy Kind = "policy"
	// Lifecycle is a step in the VM's life: phase, phases, reason.
	Lifecycle Kind = "lifecycle"
	// FileAccess is an access to a mount that asked for it: mount, op, path,
	// and to for what has two paths.
	FileAccess Kind = "file"
	// LogRecord is about the log itself: phase open, rotate or close, previous.
	LogRecord Kind = "log"
)

// Decision is what became of it. Events about what merely happened have none.
type Decision string

// The decisions.
const (
	Allow Decision = "allow"
	Deny  Decision = "deny"
)

// Event is one line. Empty fields are left out.
type Event struct {
	Version  int       `json:"v"`            // of the schema; set by Record
	Time     time.Time `json:"time"`         // UTC; zero: now
	VM       string    `json:"vm,omitempty"` // which VM, if the log knows several
	Kind     Kind      `json:"kind"`
	Phase    string    `json:"phase,omitempty"` // which step of its kind
	Decision Decision  `json:"decision,omitempty"`
	Code     string    `json:"code,omitempty"`   // why it was refused, for programs
	Rule     string    `json:"rule,omitempty"`   // the rule that allowed or refused it
	Reason   string    `json:"reason,omitempty"` // why it was refused, or failed

	Name    string `json:"name,omitempty"` // DNS name
	Type    string `json:"type,omitempty"` // DNS query type
	Address string `json:"address,omitempty"`
	Port    int    `json:"port,omitempty"`

	Request  uint64   `json:"request,omitempty"` // number of the request in its VM, from 1
	Scheme   string   `json:"scheme,omitempty"`
	Method   string   `json:"method,omitempty"`
	Host     string   `json:"host,omitempty"`
	Path     string   `json:"path,omitempty"` // of a request without its query; of a file in its mount
	Status   int      `json:"status,omitempty"`
	Sent     int64    `json:"sent,omitempty"`     // body bytes from the guest
	Received int64    `json:"received,omitempty"` // body bytes to the guest
	Secrets  []string `json:"secrets,omitempty"`  // names of the secrets that were sent

	Exec   uint64   `json:"exec,omitempty"` // number of the command in its VM, from 1
	Args   []string `json:"args,omitempty"`
	Dir    string   `json:"dir,omitempty"`
	User   string   `json:"user,omitempty"`
	PID    int      `json:"pid,omitempty"` // in the guest
	Exit   *int     `json:"exit,omitempty"`
	Signal int      `json:"signal,omitempty"` // Linux numbering

	Mount string `json:"mount,omitempty"` // path of the mount in the guest
	Op    string `json:"op,omitempty"`    // open, create, remove, rename, …
	To    string `json:"to,omitempty"`    // the second path of op

	Policy string `json:"policy,omitempty"` // digest of the policy's text
	Source string `json:"source,omitempty"` // where the policy is from

	Phases     map[string]float64 `json:"phases,omitempty"` // milliseconds each took
	DurationMS int64              `json:"duration_ms,omitempty"`

	Previous string `json:"previous,omitempty"` // the hash a file's chain goes on from

	Seq  uint64 `json:"seq,omitempty"`  // set by the sink
	Hash string `json:"hash,omitempty"` // set by the sink
}
