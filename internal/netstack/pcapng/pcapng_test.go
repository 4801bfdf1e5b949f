package pcapng

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

func TestAnotherReaderReadsIt(t *testing.T) {
	var out, log bytes.Buffer
	begin := time.Now()
	w := NewWriter(&out, slog.New(slog.NewTextHandler(&log, nil)))
	var frames [][]byte
	for n := 14; n < 20; n++ { // every padding
		frame := bytes.Repeat([]byte{byte(n)}, n)
		frames = append(frames, frame)
		if n%2 == 0 {
			w.FromGuest(frame)
		} else {
			w.ToGuest(frame)
		}
	}
	checkFlags(t, out.Bytes(), []uint32{outbound, inbound, outbound, inbound, outbound, inbound})
	r, err := pcapgo.NewNgReader(&out, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	if r.LinkType() != layers.LinkTypeEthernet {
		t.Errorf("link type %v", r.LinkType())
	}
	for i, want := range frames {
		got, info, err := r.ReadPacketData()
		if err != nil || !bytes.Equal(got, want) || info.Length != len(want) {
			t.Fatalf("frame %d: %x, %+v, %v", i, got, info, err)
		}
		if info.Timestamp.Before(begin.Round(0)) || info.Timestamp.After(time.Now().Round(0)) {
			t.Errorf("frame %d: captured at %v, not after %v", i, info.Timestamp, begin)
		}
	}
	if _, _, err := r.ReadPacketData(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last frame: %v", err)
	}
	if log.Len() > 0 {
		t.Error(log.String())
	}
}

// checkFlags walks the blocks; the reader above skips the options of packets.
func checkFlags(t *testing.T, b []byte, want []uint32) {
	t.Helper()
	le := binary.LittleEndian
	for len(b) > 0 {
		size := le.Uint32(b[4:])
		if got := le.Uint32(b[size-4:]); got != size {
			t.Fatalf("a block of %d bytes ends with length %d", size, got)
		}
		if le.Uint32(b) == blockPacket {
			option := b[28+(le.Uint32(b[20:])+3)&^3:]
			if le.Uint16(option) != optionFlags || le.Uint16(option[2:]) != 4 || len(want) == 0 || le.Uint32(option[4:]) != want[0] {
				t.Fatalf("options %x, want flags %v", option[:8], want)
			}
			want = want[1:]
		}
		b = b[size:]
	}
	if len(want) > 0 {
		t.Errorf("%d frames are missing", len(want))
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

func TestFaultyWriterIsLoggedOnce(t *testing.T) {
	for want, fault := range map[string]func([]byte) (int, error){
		"disk is full":    func([]byte) (int, error) { return 0, errors.New("disk is full") },
		"short write":     func(p []byte) (int, error) { return len(p) - 1, nil },
		"writer panicked": func([]byte) (int, error) { panic("x") },
	} {
		var log bytes.Buffer
		calls := 0
		w := NewWriter(writer(func(p []byte) (int, error) { calls++; return fault(p) }), slog.New(slog.NewTextHandler(&log, nil)))
		for range 3 {
			w.FromGuest(make([]byte, 60))
		}
		if calls != 1 || strings.Count(log.String(), "\n") != 1 || !strings.Contains(log.String(), want) {
			t.Errorf("%s: %d calls, log %q", want, calls, log.String())
		}
	}
}

func TestSizeIsBounded(t *testing.T) {
	var log bytes.Buffer
	written := 0
	w := NewWriter(writer(func(p []byte) (int, error) { written += len(p); return len(p), nil }), slog.New(slog.NewTextHandler(&log, nil)))
	frame := make([]byte, 64<<10)
	for range MaxSize/len(frame) + 10 {
		w.ToGuest(frame)
	}
	if written > MaxSize || written < MaxSize-2*len(frame) || strings.Count(log.String(), "limit is reached") != 1 {
		t.Errorf("%d bytes written, log %q", written, log.String())
	}
}

func TestNilWriter(t *testing.T) {
	w := NewWriter(nil, nil)
	w.FromGuest(make([]byte, 60))
	w.ToGuest(make([]byte, 60))
}
