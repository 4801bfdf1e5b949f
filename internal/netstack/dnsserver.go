package netstack

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
)

func (s *Stack) listenDNS() (*gonet.UDPConn, error) {
	conn, err := gonet.DialUDP(s.stack, &tcpip.FullAddress{
		NIC: nic, Addr: tcpip.AddrFrom4(Gateway.As4()), Port: DNS.Port(),
	}, nil, ipv4.ProtocolNumber)
	if err != nil {
		return nil, fmt.Errorf("cannot listen for name queries: %w", err)
	}
	return conn, nil
}

// serveUDP answers queries one after another until ctx is done. It closes conn.
func (s *Stack) serveUDP(ctx context.Context, conn *gonet.UDPConn) error {
	defer func() { _ = conn.Close() }() // it has no failure
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, MTU)
	for {
		n, from, err := conn.ReadFrom(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot read name queries: %w", err)
		}
		reply, query, err := s.names.answer(buf[:n])
		if err != nil {
			continue
		}
		s.onDNS(query)
		if _, err := conn.WriteTo(reply, from); err != nil {
			s.logger.Debug("name reply not sent", "error", err)
		}
	}
}

// serveTCP answers queries on one connection, RFC 7766, and closes it.
func (s *Stack) serveTCP(conn Conn) {
	defer conn.Close()
	select {
	case s.dnsConns <- struct{}{}:
		defer func() { <-s.dnsConns }()
	default:
		conn.Reset()
		return
	}
	buf := make([]byte, 1<<16)
	for conn.SetDeadline(time.Now().Add(dnsIdle)) == nil {
		if _, err := io.ReadFull(conn, buf[:2]); err != nil {
			return
		}
		msg := buf[:binary.BigEndian.Uint16(buf)]
		if _, err := io.ReadFull(conn, msg); err != nil {
			return
		}
		reply, query, err := s.names.answer(msg)
		if err != nil {
			conn.Reset()
			return
		}
		s.onDNS(query)
		if _, err := conn.Write(frameTCP(reply)); err != nil {
			return
		}
	}
}
