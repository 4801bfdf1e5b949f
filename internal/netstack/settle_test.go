package netstack_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"gondolin/internal/netstack"
	"gondolin/internal/netstack/netstacktest"
	"gondolin/internal/testenv"
)

// TestUnreadDataCounts leaves data in the host's buffers and checks that the
// connection counts as open until the guest has taken it.
func TestUnreadDataCounts(t *testing.T) {
	testenv.CheckLeaks(t)
	returned := make(chan struct{})
	s, err := netstack.New(netstack.Config{Handler: handler{serve: func(_ context.Context, c netstack.Conn, _ netstack.Flow) {
		defer close(returned)
		defer c.Close()
		_ = c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		for {
			if _, err := c.Write(make([]byte, 64<<10)); err != nil {
				if timeout, ok := errors.AsType[net.Error](err); !ok || !timeout.Timeout() {
					t.Errorf("write: %v", err)
				}
				return
			}
		}
	}}})
	if err != nil {
		t.Fatal(err)
	}
	g, err := netstacktest.New()
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { _ = s.Run(ctx, near) })
	group.Go(func() { _ = g.Run(ctx, far) })
	defer group.Wait()
	defer cancel()

	conn, err := g.DialContext(t.Context(), "tcp", "slow.test:80")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	<-returned
	time.Sleep(50 * time.Millisecond) // what should not happen has no event
	if n := s.OpenFlows(); n != 1 {
		t.Errorf("%d flows while the host holds unread data", n)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Errorf("read: %v", err)
	}
	_ = conn.Close()
	for deadline := time.Now().Add(10 * time.Second); s.OpenFlows() != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d flows are left", s.OpenFlows())
		}
	}
}

// TestPanicEndsOneConnection: the guest gets the end of its connection, and the
// next one is served.
func TestPanicEndsOneConnection(t *testing.T) {
	g := connect(t, netstack.Config{Handler: handler{serve: func(_ context.Context, _ netstack.Conn, f netstack.Flow) {
		panic("a fault with " + f.Name)
	}}})
	for range 2 {
		conn, err := g.DialContext(t.Context(), "tcp", "fault.test:80")
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("read: %v", err)
		}
		_ = conn.Close()
	}
}
