package wire

import "time"

// Kind is the first byte of a message; see section 3.
type Kind uint8

// Kinds of messages. The high bit is set on those a guest sends.
const (
	KindSetup     Kind = 0x01
	KindExec      Kind = 0x02
	KindAttach    Kind = 0x03
	KindSignal    Kind = 0x04
	KindResize    Kind = 0x05
	KindTerminate Kind = 0x06
	KindQuiesce   Kind = 0x07
	KindClock     Kind = 0x08
	KindSuspend   Kind = 0x09
	KindProceed   Kind = 0x0a
	KindResume    Kind = 0x0b
	KindReady     Kind = 0x81
	KindStarted   Kind = 0x82
	KindFailed    Kind = 0x83
	KindExited    Kind = 0x84
	KindDrained   Kind = 0x85
	KindQuiesced  Kind = 0x86
	KindSuspended Kind = 0x87
)

// Message is one of the structs of this package.
type Message interface {
	kind() Kind
	// check reports a value out of its bounds; it runs on every message read.
	check() error
}

// Setup tells the guest who it is (section 4).
type Setup struct {
	Version  uint32   `cbor:"1,keyasint"`
	Hostname string   `cbor:"2,keyasint"`
	Time     int64    `cbor:"3,keyasint"` // wall clock, ns since the Unix epoch
	Entropy  []byte   `cbor:"4,keyasint"` // mixed into the kernel's pool
	Network  *Network `cbor:"5,keyasint"` // nil: no eth0
	CA       *CA      `cbor:"6,keyasint"` // nil: trust only what the image trusts
	Env      [][]byte `cbor:"7,keyasint"` // "K=V", base environment of every command
	Files    bool     `cbor:"8,keyasint"` // whether the host serves the fs port
	Mounts   []Mount  `cbor:"9,keyasint"` // in the order to mount them
}

// Network is the guest's address on eth0.
type Network struct {
	Address string `cbor:"1,keyasint"` // CIDR, e.g. 192.0.2.3/24
	Gateway string `cbor:"2,keyasint"`
	DNS     string `cbor:"3,keyasint"`
	MTU     int    `cbor:"4,keyasint"` // bytes
}

// CA is a certificate authority the guest shall trust.
type CA struct {
	PEM []byte `cbor:"1,keyasint"`
	// Hash is OpenSSL's X509_NAME_hash of the subject, eight hex digits: the
	// name under which OpenSSL looks it up in a directory of certificates.
	Hash string `cbor:"2,keyasint"`
}

// Mount binds directory Source of the file system served on the fs port to Path.
type Mount struct {
	Path   string `cbor:"1,keyasint"` // absolute, clean
	Source string `cbor:"2,keyasint"` // one path component
}

// Quiesce asks the guest to leave nothing under way (section 4).
type Quiesce struct {
	// Network is what Setup is going to bring; a guest that has it already is set up
	// faster. nil: nothing is known.
	Network *Network `cbor:"1,keyasint"`
}

// Clock sets the guest's wall clock.
type Clock struct {
	Time int64 `cbor:"1,keyasint"` // ns since the Unix epoch
}

// Quiesced says that nothing is.
type Quiesced struct{}

// Suspend asks the guest to have its commands stand still and its files at rest (section 6).
type Suspend struct{}

// Suspended says that they are.
type Suspended struct{}

// Proceed ends it.
type Proceed struct{}

// Resume makes a copy of a suspended guest a VM of its own (section 6).
type Resume struct {
	Hostname string   `cbor:"1,keyasint"`
	Time     int64    `cbor:"2,keyasint"` // wall clock, ns since the Unix epoch
	Entropy  []byte   `cbor:"3,keyasint"` // mixed into the kernel's pool
	CA       *CA      `cbor:"4,keyasint"` // takes the place of the one before
	Env      [][]byte `cbor:"5,keyasint"` // "K=V", base environment of commands from now on
}

// Ready says that Setup, or Resume, is complete.
type Ready struct {
	Version uint32 `cbor:"1,keyasint"`
	Kernel  string `cbor:"2,keyasint"` // uname -r
	Steps   []Step `cbor:"3,keyasint"` // what boot and setup spent their time on
}

// Step is one timed step of the guest's boot.
type Step struct {
	Name  string        `cbor:"1,keyasint"`
	Since time.Duration `cbor:"2,keyasint"` // from the start of the kernel, or of the copy, to the step's end
}

// Descriptors is a set of a command's standard descriptors.
type Descriptors uint8

// The members of [Descriptors].
const (
	Stdin  Descriptors = 1 << 0
	Stdout Descriptors = 1 << 1
	Stderr Descriptors = 1 << 2
)

// Exec describes a command (section 5).
type Exec struct {
	ID   uint64   `cbor:"1,keyasint"`
	Args [][]byte `cbor:"2,keyasint"` // at least the name
	Env  [][]byte `cbor:"3,keyasint"` // "K=V", over the base environment
	Dir  []byte   `cbor:"4,keyasint"` // empty: the user's home, else "/"
	User string   `cbor:"5,keyasint"` // "", NAME, UID, NAME:GROUP, UID:GID
	// Streams are the descriptors that have a data stream; the others are
	// /dev/null, except that without Stderr, Joined sends 2 where 1 goes.
	Streams Descriptors `cbor:"6,keyasint"`
	Joined  bool        `cbor:"7,keyasint"`
	// TTY gives the command a controlling terminal on all three descriptors;
	// Streams must then be Stdin|Stdout.
	TTY *Size `cbor:"8,keyasint"`
	// WaitDelay bounds how long output may stay open after exit.
	WaitDelay time.Duration `cbor:"9,keyasint"`
}

// Size is a terminal's size in characters.
type Size struct {
	Rows uint16 `cbor:"1,keyasint"`
	Cols uint16 `cbor:"2,keyasint"`
}

// Attach makes its stream a descriptor of the command with the given id.
type Attach struct {
	ID         uint64      `cbor:"1,keyasint"`
	Descriptor Descriptors `cbor:"2,keyasint"` // exactly one
}

// Signal delivers a signal to the command's process group.
type Signal struct {
	Number int `cbor:"1,keyasint"` // Linux numbering
}

// Resize sets the terminal's size.
type Resize struct {
	Size Size `cbor:"1,keyasint"`
}

// Terminate sends SIGTERM to the command's process group and, when the command
// has ended but Grace later at the latest, SIGKILL to every process descended from it.
type Terminate struct {
	Grace time.Duration `cbor:"1,keyasint"`
}

// Started says that the command runs.
type Started struct {
	PID int `cbor:"1,keyasint"`
}

// Reason classifies a failure, so that the host can act on it.
type Reason uint8

// Reasons.
const (
	ReasonOther         Reason = 0
	ReasonNotFound      Reason = 1 // no such program
	ReasonNotExecutable Reason = 2 // found, but cannot be executed
	ReasonDirectory     Reason = 3 // working directory missing or not a directory
	ReasonUser          Reason = 4 // no such user or group
	ReasonTooLarge      Reason = 5 // arguments and environment exceed the kernel's limit
	ReasonVersion       Reason = 6 // protocol versions differ
)

// Failed says why a request could not be carried out. It is an error.
//
//nolint:errname // named as the message it is
type Failed struct {
	Reason Reason `cbor:"1,keyasint"`
	Text   string `cbor:"2,keyasint"` // "cannot …", at most 4 KiB
}

// Exited says how the command ended: Code when Signal is 0.
type Exited struct {
	Code   int `cbor:"1,keyasint"` // 0..255
	Signal int `cbor:"2,keyasint"` // Linux numbering
}

// Drained says that no more output follows. Cut reports that other processes
// still held it open.
type Drained struct {
	Cut bool `cbor:"1,keyasint"`
}

func (*Setup) kind() Kind     { return KindSetup }
func (*Exec) kind() Kind      { return KindExec }
func (*Attach) kind() Kind    { return KindAttach }
func (*Signal) kind() Kind    { return KindSignal }
func (*Resize) kind() Kind    { return KindResize }
func (*Terminate) kind() Kind { return KindTerminate }
func (*Quiesce) kind() Kind   { return KindQuiesce }
func (*Quiesced) kind() Kind  { return KindQuiesced }
func (*Clock) kind() Kind     { return KindClock }
func (*Suspend) kind() Kind   { return KindSuspend }
func (*Suspended) kind() Kind { return KindSuspended }
func (*Proceed) kind() Kind   { return KindProceed }
func (*Resume) kind() Kind    { return KindResume }
func (*Ready) kind() Kind     { return KindReady }
func (*Started) kind() Kind   { return KindStarted }
func (*Failed) kind() Kind    { return KindFailed }
func (*Exited) kind() Kind    { return KindExited }
func (*Drained) kind() Kind   { return KindDrained }

// make returns an empty message of kind k, nil for an unknown one.
func (k Kind) make() Message {
	switch k {
	case KindSetup:
		return new(Setup)
	case KindExec:
		return new(Exec)
	case KindAttach:
		return new(Attach)
	case KindSignal:
		return new(Signal)
	case KindResize:
		return new(Resize)
	case KindTerminate:
		return new(Terminate)
	case KindQuiesce:
		return new(Quiesce)
	case KindClock:
		return new(Clock)
	case KindSuspend:
		return new(Suspend)
	case KindProceed:
		return new(Proceed)
	case KindResume:
		return new(Resume)
	case KindSuspended:
		return new(Suspended)
	case KindQuiesced:
		return new(Quiesced)
	case KindReady:
		return new(Ready)
	case KindStarted:
		return new(Started)
	case KindFailed:
		return new(Failed)
	case KindExited:
		return new(Exited)
	case KindDrained:
		return new(Drained)
	default:
		return nil
	}
}
