package rpc

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"gondolin/internal/testenv"
	"gondolin/internal/wire"
)

// pair joins a Host to a Serve that runs handle.
func pair(t *testing.T, handle Handler) *Host {
	t.Helper()
	testenv.CheckLeaks(t)
	hc, gc := Pipe()
	h, err := NewHost(hc)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- Serve(t.Context(), gc, handle) }()
	t.Cleanup(func() {
		h.Close()
		<-served
	})
	return h
}

func TestFirstMessageReachesTheHandler(t *testing.T) {
	h := pair(t, func(_ context.Context, first wire.Message, s *Stream) {
		defer s.Abort()
		if m, ok := first.(*wire.Attach); ok {
			_ = wire.Write(s, &wire.Started{PID: int(m.ID)})
		}
	})
	s, err := h.Open(t.Context(), &wire.Attach{ID: 42, Descriptor: wire.Stdin})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Abort()
	m, err := wire.Read(s, wire.ToHost)
	if got, ok := m.(*wire.Started); err != nil || !ok || got.PID != 42 {
		t.Errorf("%v, %v", m, err)
	}
}

func TestHalfClose(t *testing.T) {
	h := pair(t, func(_ context.Context, _ wire.Message, s *Stream) {
		b, _ := io.ReadAll(s)
		_, _ = s.Write([]byte(strings.ToUpper(string(b))))
		s.Close()
	})
	s, err := h.Open(t.Context(), &wire.Attach{Descriptor: wire.Stdin})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if b, err := io.ReadAll(s); err != nil || string(b) != "HELLO" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestOpenAfterClose(t *testing.T) {
	h := pair(t, func(_ context.Context, _ wire.Message, s *Stream) { s.Abort() })
	h.Close()
	if _, err := h.Open(t.Context(), &wire.Drained{}); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	<-h.Done()
}

func TestStreamsAreBounded(t *testing.T) {
	h := pair(t, func(ctx context.Context, _ wire.Message, s *Stream) {
		<-ctx.Done()
		s.Close()
	})
	for range MaxStreams {
		if _, err := h.Open(t.Context(), &wire.Signal{Number: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.Open(t.Context(), &wire.Signal{Number: 1}); err == nil {
		t.Error("one stream more than the bound was opened")
	}
}

// frame is one multiplexer header and its payload.
func frame(kind uint8, flags uint16, id, length uint32, payload string) string {
	b := []byte{0, kind}
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint32(b, id)
	b = binary.BigEndian.AppendUint32(b, length)
	return string(b) + payload
}

// A copy of a guest is continued by another host, which knows nothing of the
// streams the guest had with the first.
func TestNewSessionReplacesTheOld(t *testing.T) {
	testenv.CheckLeaks(t)
	hc, gc := net.Pipe()
	dropped := make(chan error, 1)
	served := make(chan error, 1)
	go func() {
		served <- Serve(context.WithoutCancel(t.Context()), gc, func(_ context.Context, _ wire.Message, s *Stream) {
			defer s.Abort()
			_ = wire.Write(s, &wire.Started{PID: 7})
			_, err := io.ReadAll(s) // until the session is dropped
			dropped <- err
		})
	}()
	first, err := NewHost(vanishing{hc})
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, first)
	_ = hc.SetReadDeadline(past) // the first host is gone, without the guest noticing
	<-first.Done()
	_ = hc.SetReadDeadline(time.Time{})
	second, err := NewHost(hc)
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, second) // on a stream with the id the first one has
	<-dropped
	second.Close()
	<-served
	<-dropped
}

// exchange opens a stream, which stays open, and reads one answer.
func exchange(t *testing.T, h *Host) {
	t.Helper()
	s, err := h.Open(t.Context(), &wire.Signal{Number: 1})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := wire.Read(s, wire.ToHost); err != nil {
		t.Fatalf("%v, %v", m, err)
	}
}

// vanishing leaves the connection open when its host goes.
type vanishing struct{ net.Conn }

func (vanishing) Close() error { return nil }

func TestGuardRefuses(t *testing.T) {
	for name, in := range map[string]string{
		"ping":           frame(2, 1, 0, 7, ""),
		"go away":        frame(3, 0, 0, 0, ""),
		"unknown type":   frame(9, 0, 1, 0, ""),
		"new stream":     frame(typeWindowUpdate, 1, 1, 0, ""),
		"even id":        frame(typeData, 0, 2, 1, "x"),
		"over window":    frame(typeData, 0, 1, window+1, ""),
		"window delta":   frame(typeWindowUpdate, 0, 1, window+1, ""),
		"version":        "\x01" + frame(typeData, 0, 1, 0, "")[1:],
		"after good one": frame(typeData, 0, 1, 3, "abc") + frame(2, 1, 0, 7, ""),
	} {
		conn := struct {
			io.Reader
			io.WriteCloser
		}{iotest.OneByteReader(strings.NewReader(in)), nil}
		if _, err := io.Copy(io.Discard, &guard{ReadWriteCloser: conn}); !errors.Is(err, wire.ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGuardPasses(t *testing.T) {
	in := frame(typeWindowUpdate, flagACK, 1, 0, "") + frame(typeData, flagFIN, 3, 5, "hello") + frame(typeData, 0, 5, 0, "")
	conn := struct {
		io.Reader
		io.WriteCloser
	}{strings.NewReader(in), nil}
	b, err := io.ReadAll(&guard{ReadWriteCloser: conn})
	if err != nil || string(b) != in {
		t.Errorf("%q, %v", b, err)
	}
}

// A guest that breaks the rules ends the channel, and with it everything under way.
func TestHostEndsOnViolation(t *testing.T) {
	testenv.CheckLeaks(t)
	hc, gc := Pipe()
	defer gc.Close()
	go io.Copy(io.Discard, gc)
	h, err := NewHost(hc)
	if err != nil {
		t.Fatal(err)
	}
	s, err := h.Open(t.Context(), &wire.Signal{Number: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := gc.Write([]byte(frame(2, 1, 0, 7, ""))); err != nil {
		t.Fatal(err)
	}
	<-h.Done()
	if _, err := s.Read(make([]byte, 1)); err == nil {
		t.Error("a stream outlived the channel")
	}
}

// FuzzHost feeds what a guest may send to a host with a stream open: it must
// neither panic nor hold more than the stream's window.
func FuzzHost(f *testing.F) {
	f.Add([]byte(frame(typeWindowUpdate, flagACK, 1, 0, "") + frame(typeData, 0, 1, 7, "\x00\x00\x00\x02\x85\xa0")))
	f.Add([]byte(frame(typeData, flagFIN|flagACK, 1, 3, "abc")))
	f.Add([]byte(frame(typeData, flagRST, 1, 0, "")))
	f.Add([]byte(frame(2, 1, 0, 7, "")))
	f.Fuzz(func(t *testing.T, in []byte) {
		hc, gc := net.Pipe()
		h, err := NewHost(hc)
		if err != nil {
			t.Fatal(err)
		}
		go io.Copy(io.Discard, gc)
		s, err := h.Open(t.Context(), &wire.Signal{Number: 1})
		if err != nil {
			t.Fatal(err)
		}
		s.SetReadDeadline(time.Now().Add(10 * time.Second))
		go func() {
			_, _ = gc.Write(in)
			gc.Close()
		}()
		if n, _ := io.Copy(io.Discard, s); n > int64(len(in)) {
			t.Errorf("%d bytes out of %d", n, len(in))
		}
		<-h.Done()
		h.Close()
	})
}

// echo answers each byte that comes with the same byte.
func echo(_ context.Context, _ wire.Message, s *Stream) {
	defer s.Abort()
	_, _ = io.Copy(struct{ io.Writer }{s}, struct{ io.Reader }{s})
}

// A held channel has nothing under way, and what streams carry goes on afterwards
// as if nothing had been.
func TestHold(t *testing.T) {
	hc, gc := net.Pipe()
	testenv.CheckLeaks(t)
	counted := &counter{Conn: hc}
	h, err := NewHost(counted)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- Serve(context.WithoutCancel(t.Context()), gc, echo) }()
	defer func() {
		h.Close()
		<-served
	}()
	s, err := h.Open(t.Context(), &wire.Signal{Number: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Abort()
	const size = 8 << 20
	want := make([]byte, size)
	for i := range want {
		want[i] = byte(i * 7 / 3)
	}
	go func() {
		_, _ = s.Write(want)
		s.Close()
	}()
	got := make([]byte, 0, size)
	buf := make([]byte, 100_000)
	for round := 0; ; round++ {
		n, err := s.Read(buf)
		got = append(got, buf[:n]...)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if round%10 != 0 {
			continue
		}
		if err := h.Hold(t.Context()); err != nil {
			t.Fatal(err)
		}
		before := counted.moved.Load()
		if err := h.Hold(t.Context()); err == nil {
			t.Fatal("held twice")
		}
		if moved := counted.moved.Load() - before; moved > 0 && round > 0 {
			t.Errorf("%d bytes moved in a held channel", moved)
		}
		if err := h.Proceed(); err != nil {
			t.Fatal(err)
		}
	}
	if string(got) != string(want) {
		t.Errorf("%d bytes came back of %d, or others", len(got), size)
	}
}

// counter counts the bytes that pass, in both directions.
type counter struct {
	net.Conn
	moved atomic.Int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.moved.Add(int64(n))
	return n, err
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.moved.Add(int64(n))
	return n, err
}

// A copy of a guest that was held goes on with another host; streams of the first
// end as replaced.
func TestHoldAndReplace(t *testing.T) {
	testenv.CheckLeaks(t)
	hc, gc := net.Pipe()
	replaced := make(chan bool, 2)
	served := make(chan error, 1)
	go func() {
		served <- Serve(context.WithoutCancel(t.Context()), gc, func(_ context.Context, _ wire.Message, s *Stream) {
			defer s.Abort()
			_ = wire.Write(s, &wire.Started{PID: 7})
			for { // output of a command that never ends
				if _, err := s.Write(make([]byte, 1000)); err != nil {
					replaced <- s.Replaced()
					return
				}
			}
		})
	}()
	first, err := NewHost(vanishing{hc})
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, first)
	if err := first.Hold(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = hc.SetReadDeadline(past)
	<-first.Done()
	_ = hc.SetReadDeadline(time.Time{})
	second, err := NewHost(hc)
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, second)
	if !<-replaced {
		t.Error("the first host's stream does not know that it was replaced")
	}
	second.Close()
	<-served
	if <-replaced {
		t.Error("a channel that ended was taken for replaced")
	}
}

func TestHoldIsBounded(t *testing.T) {
	hc, gc := Pipe() // a guest that never answers
	defer gc.Close()
	go io.Copy(io.Discard, gc)
	h, err := NewHost(hc)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := h.Hold(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	h.Close()
	if err := h.Hold(t.Context()); err == nil {
		t.Error("held a channel that is closed")
	}
}
