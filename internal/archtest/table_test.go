package archtest

// entry is what one package may import.
type entry struct {
	imports []string // packages of the module, relative to it; "." is the root package
	modules []string // other modules
}

// ban is a rule with its reason.
type ban struct {
	of         []string // the packages it binds, and those below
	why        string
	only       []string // if not nil, all they may import of the module, besides what is below themselves
	not        []string // what they may not import of the module, their own subpackages apart
	std        []string // standard packages they may not import
	modules    []string // if not nil, all the other modules they may use
	transitive bool     // std and modules bind what they import too
	planned    bool     // the packages do not exist yet
}

// guestBan is what must not be linked into the guest agent.
var guestBan = []string{"net/http/...", "crypto/tls", "crypto/x509/...", "html/template", "text/template", "os/user"}

var bans = []ban{
	{
		of: []string{"internal/guest"}, only: []string{"internal/guest", "internal/wire", "internal/rpc"},
		why: "what runs in the VM meets the host only in the protocol; code shared any other way would be trusted on one side",
	},
	{
		of: []string{"cmd/gondolin-guest"}, std: guestBan, transitive: true,
		modules: []string{"golang.org/x/sys", "github.com/fxamacker/cbor/v2", "github.com/hashicorp/yamux"},
		why:     "the agent is loaded at every cold boot and faces the hostile side: small, and without protocols it does not speak",
	},
	{
		of: []string{"policy", "vfs", "internal/wire", "internal/audit"}, only: []string{"vfs", "policy"},
		why: "leaves: everything may rest on them because they rest on nothing (vfs/vfstest tests vfs, policy/condition adds to policy)",
	},
	{
		of: []string{"policy", "internal/wire"}, std: []string{"os", "os/exec", "net/http/...", "syscall"},
		why: "they decide and encode; doing so is testable and fuzzable only without I/O",
	},
	{
		of:  []string{"internal/egress", "internal/image/build"},
		not: []string{"internal/egress", "internal/ingress", "internal/image/build", "internal/template"},
		why: "features do not know each other, so that one can be changed, or left out, alone",
	},
	{
		of: []string{"internal/netstack"}, not: []string{"policy", "internal/egress", "internal/audit"},
		why: "the network stack moves bytes; what may pass is decided above it",
	},
	{
		of: []string{"internal/testenv"}, only: []string{}, modules: []string{},
		why: "every package's tests use it, the lowest ones' too",
	},
}

// table is every package and exactly what it imports: add a line when you add an edge, and be ready to say why.
var table = map[string]entry{
	".":                              {imports: []string{"internal/audit", "internal/checkpoint", "internal/control", "internal/egress", "internal/fsserver", "internal/guestbin", "internal/image", "internal/image/initramfs", "internal/machine", "internal/machine/accel", "internal/machine/jail", "internal/machine/qemu", "internal/netstack", "internal/paths", "internal/session", "internal/template", "internal/wire", "policy", "vfs"}, modules: []string{"golang.org/x/sync", "golang.org/x/sys"}},
	"cmd/gondolin":                   {imports: []string{"internal/cli"}},
	"cmd/gondolin-guest":             {imports: []string{"internal/guest"}},
	"internal/archtest":              {},
	"examples/quickstart":            {imports: []string{".", "policy", "vfs"}},
	"bench/lifecycle":                {imports: []string{"."}},
	"internal/audit":                 {modules: []string{"golang.org/x/sys"}},
	"internal/cli":                   {imports: []string{".", "internal/audit", "internal/checkpoint", "internal/image", "internal/image/build", "internal/machine", "internal/paths", "internal/session", "policy", "policyfile", "vfs"}, modules: []string{"github.com/spf13/cobra", "github.com/spf13/pflag", "golang.org/x/term"}},
	"internal/checkpoint":            {imports: []string{"internal/fingerprint", "internal/lockfile"}, modules: []string{"github.com/klauspost/compress", "golang.org/x/sys"}},
	"internal/control":               {imports: []string{"internal/rpc", "internal/wire"}},
	"internal/egress":                {imports: []string{"internal/audit", "internal/netstack", "internal/netstack/pcapng", "policy"}},
	"internal/fingerprint":           {modules: []string{"golang.org/x/sys"}},
	"internal/lockfile":              {modules: []string{"golang.org/x/sys"}},
	"internal/template":              {imports: []string{"internal/fingerprint", "internal/lockfile", "internal/paths"}, modules: []string{"golang.org/x/sys"}},
	"internal/fsserver":              {imports: []string{"vfs"}, modules: []string{"github.com/fxamacker/cbor/v2", "golang.org/x/sync"}},
	"internal/guest":                 {imports: []string{"internal/guest/boot", "internal/guest/execd", "internal/guest/reap", "internal/guest/setup", "internal/rpc", "internal/wire"}, modules: []string{"golang.org/x/sys"}},
	"internal/guest/boot":            {imports: []string{"internal/wire"}, modules: []string{"golang.org/x/sys"}},
	"internal/guest/execd":           {imports: []string{"internal/guest/reap", "internal/rpc", "internal/wire"}, modules: []string{"golang.org/x/sys"}},
	"internal/guest/fusepump":        {modules: []string{"golang.org/x/sys"}},
	"internal/guest/reap":            {},
	"internal/guest/setup":           {imports: []string{"internal/guest/fusepump", "internal/wire"}, modules: []string{"golang.org/x/sys"}},
	"internal/guestbin":              {},
	"internal/image":                 {imports: []string{"internal/fingerprint", "internal/lockfile", "internal/paths"}, modules: []string{"golang.org/x/sys"}},
	"internal/image/build":           {imports: []string{"internal/image", "internal/image/initramfs"}, modules: []string{"golang.org/x/sys"}},
	"internal/image/initramfs":       {imports: []string{"internal/paths"}},
	"internal/machine":               {},
	"internal/machine/accel":         {imports: []string{"internal/lockfile"}, modules: []string{"golang.org/x/sys"}},
	"internal/machine/jail":          {modules: []string{"golang.org/x/sys"}},
	"internal/machine/qemu":          {imports: []string{"internal/machine", "internal/machine/accel", "internal/machine/jail"}},
	"internal/netstack":              {imports: []string{"internal/netstack/ethlink", "internal/netstack/pcapng"}, modules: []string{"golang.org/x/net", "golang.org/x/sync", "gvisor.dev/gvisor"}},
	"internal/netstack/ethlink":      {modules: []string{"golang.org/x/sync", "gvisor.dev/gvisor"}},
	"internal/netstack/netstacktest": {imports: []string{"internal/netstack", "internal/netstack/ethlink"}, modules: []string{"gvisor.dev/gvisor"}},
	"internal/netstack/pcapng":       {},
	"internal/paths":                 {},
	"internal/rpc":                   {imports: []string{"internal/wire"}, modules: []string{"github.com/hashicorp/yamux"}},
	"internal/session":               {imports: []string{"internal/lockfile", "internal/paths"}, modules: []string{"golang.org/x/sync", "golang.org/x/sys"}},
	"internal/testenv":               {},
	"internal/vmtest":                {imports: []string{".", "internal/image", "internal/paths", "internal/testenv"}},
	"internal/wire":                  {modules: []string{"github.com/fxamacker/cbor/v2"}},
	"policyfile":                     {imports: []string{"policy", "policy/condition"}, modules: []string{"go.yaml.in/yaml/v3"}},
	"policy":                         {modules: []string{"golang.org/x/net"}},
	"policy/condition":               {imports: []string{"policy"}, modules: []string{"cel.dev/cel-go"}},
	"vfs":                            {modules: []string{"golang.org/x/sys"}},
	"vfs/vfstest":                    {imports: []string{"vfs"}, modules: []string{"golang.org/x/sys"}},
}
