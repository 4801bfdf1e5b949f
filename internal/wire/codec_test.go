package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// samples holds one message of every kind with every field set.
var samples = []Message{
	&Setup{
		Version: Version, Hostname: "box", Time: 1, Entropy: []byte{1, 2},
		Network: &Network{Address: "192.0.2.3/24", Gateway: "192.0.2.1", DNS: "192.0.2.1", MTU: 1500},
		CA:      &CA{PEM: []byte("pem"), Hash: "00112233"}, Env: [][]byte{[]byte("A=\xff")}, Files: true,
		Mounts: []Mount{{Path: "/work", Source: "0"}},
	},
	&Exec{
		ID: 7, Args: [][]byte{[]byte("a"), {}}, Env: [][]byte{[]byte("K=V")}, Dir: []byte("/"), User: "u:g",
		Streams: Stdin | Stdout, Joined: true, TTY: &Size{Rows: 24, Cols: 80}, WaitDelay: time.Second,
	},
	&Attach{ID: 7, Descriptor: Stderr},
	&Signal{Number: 15},
	&Resize{Size: Size{Rows: 1, Cols: 2}},
	&Terminate{Grace: time.Second},
	&Quiesce{},
	&Quiesced{},
	&Clock{Time: 5},
	&Suspend{},
	&Suspended{},
	&Proceed{},
	&Resume{
		Hostname: "box", Time: 1, Entropy: []byte{1, 2},
		CA: &CA{PEM: []byte("pem"), Hash: "00112233"}, Env: [][]byte{[]byte("A=\xff")},
	},
	&Ready{Version: Version, Kernel: "6.1", Steps: []Step{{Name: "modules", Since: 5}}},
	&Started{PID: 2},
	&Failed{Reason: ReasonNotFound, Text: "cannot run x"},
	&Exited{Code: 3, Signal: 9},
	&Drained{Cut: true},
}

// Section 2: what is written is what is read, however the bytes arrive.
func TestRoundTrip(t *testing.T) {
	for _, want := range samples {
		var buf bytes.Buffer
		if err := Write(&buf, want); err != nil {
			t.Fatal(err)
		}
		got, err := Read(iotest.OneByteReader(&buf), want.kind().direction())
		if err != nil {
			t.Fatalf("%T: %v", want, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%T (-sent +received):\n%s", want, diff)
		}
	}
}

// Section 2: what is fatal.
func TestReadRefuses(t *testing.T) {
	frame := func(kind Kind, body string) string {
		return string(binary.BigEndian.AppendUint32(nil, uint32(len(body)+1))) + string([]byte{byte(kind)}) + body
	}
	for name, in := range map[string]string{
		"length 0":          "\x00\x00\x00\x00\x84",
		"length over limit": "\x00\x01\x00\x01\x84",
		"length 4 GiB":      "\xff\xff\xff\xff\x84",
		"unknown kind":      frame(0xee, "\xa0"),
		"wrong direction":   frame(KindSignal, "\xa1\x01\x0f"),
		"no body":           frame(KindExited, ""),
		"not a map":         frame(KindExited, "\x01"),
		"bytes after":       frame(KindDrained, "\xa0\xa0"),
		"unknown key":       frame(KindDrained, "\xa1\x18\x63\x01"),
		"key twice":         frame(KindExited, "\xa2\x01\x01\x01\x02"),
		"indefinite map":    frame(KindDrained, "\xbf\xff"),
		"tag":               frame(KindDrained, "\xc1\xa0"),
		"huge array":        frame(KindReady, "\xa1\x03\x9b\x7f\xff\xff\xff\xff\xff\xff\xff"),
		"deep":              frame(KindReady, "\xa1\x03"+strings.Repeat("\x81", 40)+"\x00"),
		"exit code range":   frame(KindExited, "\xa1\x01\x19\x01\x00"),
		"pid 0":             frame(KindStarted, "\xa0"),
		"text not UTF-8":    frame(KindFailed, "\xa1\x02\x61\xff"),
	} {
		if m, err := Read(strings.NewReader(in), ToHost); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: got %v, %v", name, m, err)
		}
	}
}

func TestReadEnds(t *testing.T) {
	if _, err := Read(strings.NewReader(""), ToHost); !errors.Is(err, io.EOF) {
		t.Errorf("empty: %v", err)
	}
	for _, in := range []string{"\x00", "\x00\x00\x00\x05", "\x00\x00\x00\x05\x84\xa1"} {
		if _, err := Read(strings.NewReader(in), ToHost); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q: %v", in, err)
		}
	}
}

// A length that no bytes follow must not buy memory: ten thousand of the
// largest would be 40 GB.
func TestReadAllocatesByArrival(t *testing.T) {
	head := append(binary.BigEndian.AppendUint32(nil, MaxToGuest), byte(KindExec))
	got := testing.AllocsPerRun(10, func() {
		if _, err := readBody(bytes.NewReader(head), MaxToGuest); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error(err)
		}
	})
	if got > 10 {
		t.Errorf("%v allocations for a body that never came", got)
	}
}

func TestWriteRefuses(t *testing.T) {
	for name, m := range map[string]Message{
		"NUL in argv":    &Exec{Args: [][]byte{[]byte("a\x00b")}},
		"NUL in env":     &Exec{Args: [][]byte{[]byte("a")}, Env: [][]byte{[]byte("A=\x00")}},
		"no command":     &Exec{},
		"signal 0":       &Signal{},
		"two fds":        &Attach{Descriptor: Stdin | Stdout},
		"too large":      &Exec{Args: [][]byte{make([]byte, 1), bytes.Repeat([]byte("x"), MaxToGuest)}},
		"relative mount": &Setup{Mounts: []Mount{{Path: "a", Source: "0"}}},
		"source escapes": &Setup{Mounts: []Mount{{Path: "/a", Source: ".."}}},
		"terminal":       &Exec{Args: [][]byte{[]byte("a")}, TTY: &Size{}, Streams: Stdout},
	} {
		var buf bytes.Buffer
		if err := Write(&buf, m); err == nil || buf.Len() > 0 {
			t.Errorf("%s: error %v, %d bytes sent", name, err, buf.Len())
		}
	}
}

func TestFailureFits(t *testing.T) {
	for _, text := range []string{strings.Repeat("x", 2*maxText), strings.Repeat("ü", maxText), strings.Repeat("a\xff", maxText)} {
		if err := Write(io.Discard, Failure(ReasonOther, text)); err != nil {
			t.Error(err)
		}
	}
}

func FuzzReadToHost(f *testing.F)  { fuzzRead(f, ToHost) }
func FuzzReadToGuest(f *testing.F) { fuzzRead(f, ToGuest) }

// fuzzRead checks that whatever is accepted can be written again and reads the same.
func fuzzRead(f *testing.F, d Direction) {
	for _, m := range samples {
		var buf bytes.Buffer
		if err := Write(&buf, m); err != nil {
			f.Fatal(err)
		}
		f.Add(buf.Bytes())
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := Read(bytes.NewReader(in), d)
		if err != nil {
			return
		}
		var buf bytes.Buffer
		if err := Write(&buf, m); err != nil {
			t.Fatalf("accepted %#v, yet: %v", m, err)
		}
		again, err := Read(&buf, d)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m, again); diff != "" {
			t.Errorf("(-first +second):\n%s", diff)
		}
	})
}
