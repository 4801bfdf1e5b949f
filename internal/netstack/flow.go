package netstack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

var (
	errTooManyFlows = errors.New("cannot accept a connection: too many are open")
	errGatewayPort  = errors.New("cannot accept a connection: the gateway serves names only")
)

// tcpConn adds Reset to a gVisor connection.
type tcpConn struct {
	*gonet.TCPConn
	endpoint tcpip.Endpoint
	queue    *waiter.Queue
}

var _ Conn = tcpConn{}

func (c tcpConn) Reset() { c.endpoint.Abort() }

// settle closes the connection and waits, at most lingerMax, until the guest has
// taken what was sent and closed its end too: data it does not take occupies
// buffers, so until then the connection counts as open.
func (c tcpConn) settle() {
	gone, notify := waiter.NewChannelEntry(waiter.EventHUp)
	c.queue.EventRegister(&gone)
	defer c.queue.EventUnregister(&gone)
	_ = c.Close() // it has no failure
	if c.endpoint.Readiness(waiter.EventHUp) != 0 {
		return
	}
	timer := time.NewTimer(lingerMax)
	defer timer.Stop()
	select {
	case <-notify:
	case <-timer.C:
		c.Reset()
	}
}

// contain turns a panic of the handler into the end of its connection: nothing
// above this goroutine would, and it would end the host's program.
func (s *Stack) contain(flow Flow) {
	if p := recover(); p != nil { //nolint:revive // contain is the deferred function
		s.logger.Error("a connection's handler panicked", "name", flow.Name, "address", flow.Addr, "panic", p)
	}
}

// accept handles one SYN, in a goroutine of gVisor's, until the connection has
// settled.
func (s *Stack) accept(req *tcp.ForwarderRequest) {
	ctx, err := s.beginFlow()
	if err != nil {
		req.Complete(true)
		s.logger.Debug("connection refused", "error", err)
		return
	}
	defer s.endFlow()

	flow := s.describe(req)
	if err := s.admitFlow(flow); err != nil {
		req.Complete(true)
		s.logger.Debug("connection refused", "name", flow.Name, "address", flow.Addr, "error", err)
		return
	}
	conn, err := handshake(req)
	if err != nil {
		s.logger.Debug("connection failed", "name", flow.Name, "address", flow.Addr, "error", err)
		return
	}
	stop := context.AfterFunc(ctx, conn.Reset)
	defer stop()
	defer conn.settle()
	defer s.contain(flow)
	if flow.Addr == DNS {
		s.serveTCP(conn)
		return
	}
	s.handler.Serve(ctx, conn, flow)
}

// beginFlow counts a flow in, if the stack is live and not full.
func (s *Stack) beginFlow() (context.Context, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serve == nil {
		return nil, errLinkEnded
	}
	if s.flows >= maxFlows {
		return nil, errTooManyFlows
	}
	s.flows++
	s.handled.Add(1)
	return s.serve, nil
}

func (s *Stack) endFlow() {
	s.mu.Lock()
	s.flows--
	s.mu.Unlock()
	s.handled.Done()
}

// describe reads the flow off a SYN. "Local" is what the guest dialled.
func (s *Stack) describe(req *tcp.ForwarderRequest) Flow {
	id := req.ID()
	flow := Flow{
		Addr:  netip.AddrPortFrom(netip.AddrFrom4(id.LocalAddress.As4()), id.LocalPort),
		Guest: netip.AddrPortFrom(netip.AddrFrom4(id.RemoteAddress.As4()), id.RemotePort),
	}
	flow.Name = s.names.name(flow.Addr.Addr())
	return flow
}

func (s *Stack) admitFlow(flow Flow) error {
	if flow.Addr == DNS {
		return nil
	}
	if flow.Addr.Addr() == Gateway {
		return errGatewayPort
	}
	return s.handler.Admit(flow)
}

// handshake completes the three-way handshake, which takes as long as the
// guest does, bounded by synRetries.
func handshake(req *tcp.ForwarderRequest) (tcpConn, error) {
	var queue waiter.Queue
	endpoint, terr := req.CreateEndpoint(&queue)
	if terr != nil {
		req.Complete(true)
		return tcpConn{}, fmt.Errorf("cannot complete the handshake: %s", terr)
	}
	req.Complete(false)
	timeout := tcpip.TCPUserTimeoutOption(retryTimeout)
	if terr := endpoint.SetSockOpt(&timeout); terr != nil {
		endpoint.Close()
		return tcpConn{}, fmt.Errorf("cannot bound retransmission: %s", terr)
	}
	endpoint.SocketOptions().SetDelayOption(false) // no Nagle: answers go out at once
	keepIdle, keepInterval := tcpip.KeepaliveIdleOption(time.Minute), tcpip.KeepaliveIntervalOption(15*time.Second)
	_ = endpoint.SetSockOpt(&keepIdle) // these two have no failure
	_ = endpoint.SetSockOpt(&keepInterval)
	endpoint.SocketOptions().SetKeepAlive(true)
	return tcpConn{TCPConn: gonet.NewTCPConn(&queue, endpoint), endpoint: endpoint, queue: &queue}, nil
}
