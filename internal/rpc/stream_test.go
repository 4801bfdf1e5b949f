package rpc

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"gondolin/internal/testenv"
	"gondolin/internal/wire"
)

// stuck returns a host whose guest does with the port what read does.
func stuck(t *testing.T, read func(io.Reader)) *Host {
	t.Helper()
	testenv.CheckLeaks(t)
	hc, gc := Pipe()
	h, err := NewHost(hc)
	if err != nil {
		t.Fatal(err)
	}
	go read(gc)
	t.Cleanup(func() {
		h.Close()
		gc.Close()
	})
	return h
}

func readNothing(io.Reader) {}

func openNoWindow(port io.Reader) { _, _ = io.Copy(io.Discard, port) }

// A guest that takes nothing from its port, or opens no window for a message
// larger than the first, holds nobody up beyond its context.
func TestOpenEndsWithItsContext(t *testing.T) {
	large := &wire.Exec{Args: [][]byte{make([]byte, 3*window)}}
	for i := range large.Args[0] {
		large.Args[0][i] = 'x'
	}
	for name, test := range map[string]struct {
		read func(io.Reader)
		m    wire.Message
	}{
		"port not read":   {readNothing, &wire.Signal{Number: 1}},
		"window not open": {openNoWindow, large},
	} {
		t.Run(name, func(t *testing.T) {
			h := stuck(t, test.read)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			begin := time.Now()
			if _, err := h.Open(ctx, test.m); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			if took := time.Since(begin); took > writeTimeout/4 {
				t.Errorf("took %v", took)
			}
		})
	}
}

// Abort returns at once and ends what is under way, though the guest takes nothing more.
func TestAbortDoesNotBlock(t *testing.T) {
	h := stuck(t, func(port io.Reader) { _, _ = io.ReadFull(port, make([]byte, 100)) })
	s, err := h.Open(t.Context(), &wire.Signal{Number: 1}) // less than 100 bytes
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 2)
	go func() {
		_, err := s.Read(make([]byte, 1))
		ended <- err
	}()
	go func() {
		_, err := s.Write(make([]byte, 1<<20))
		ended <- err
	}()
	begin := time.Now()
	s.Abort()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	s.Abort()
	if took := time.Since(begin); took > writeTimeout/4 {
		t.Errorf("took %v", took)
	}
}

// Giving a stream up while it is read, at whatever moment the other side sends
// and closes, leaves the channel in working order.
func TestAbortWhileReading(t *testing.T) {
	h := pair(t, func(_ context.Context, _ wire.Message, s *Stream) {
		for range 3 {
			_, _ = s.Write(make([]byte, window/2)) // has the reader open the window
		}
		s.Abort()
	})
	for range 300 {
		s, err := h.Open(t.Context(), &wire.Signal{Number: 1})
		if err != nil {
			t.Fatal(err)
		}
		read := make(chan struct{})
		go func() {
			_, _ = io.Copy(io.Discard, s)
			close(read)
		}()
		if _, err := s.Read(make([]byte, 1000)); err != nil && !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		s.Abort()
		<-read
	}
}
