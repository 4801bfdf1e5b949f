package netstack

import "time"

const (
	// maxFlows bounds the guest's connections, until they hold no data. A package manager opens
	// some tens; each costs the host up to its buffers and a few goroutines.
	maxFlows = 1024

	// maxHalfOpen bounds connections in the handshake. The guest is one hop
	// away and answers in milliseconds; beyond it SYNs are dropped and sent again.
	maxHalfOpen = 256

	// synRetries bounds how long a half-open connection lives: 1+2+4+8 s.
	synRetries = 3

	// maxNames bounds the names a guest can have addresses for, 8 MiB at
	// their longest. Beyond it a new name gets SERVFAIL, never a shared address.
	maxNames = 16384

	// nameTTL in seconds is how long the guest may cache an answer. The
	// address of a name never changes, so it only sets how often it asks.
	nameTTL = 60

	// maxUDPAnswer in bytes is what fits unfragmented everywhere (the DNS flag
	// day 2020 value); answers here are far shorter.
	maxUDPAnswer = 1232

	// dnsIdle is how long a DNS connection over TCP may be silent (RFC 7766
	// section 6.2.3 asks for a few seconds).
	dnsIdle = 10 * time.Second

	// maxDNSConns bounds concurrent DNS connections over TCP.
	maxDNSConns = 32

	// bufferMin, bufferDefault and bufferMax are the TCP buffers of one
	// connection in bytes, each way. The round trip is below a millisecond, so
	// 1 MiB is more than a gigabyte per second.
	bufferMin     = 4 << 10
	bufferDefault = 256 << 10
	bufferMax     = 1 << 20

	// timeWait is short: no old segment can arrive late on a cable. Connections
	// in it hold no data and no longer count as open; this is their only bound.
	timeWait = time.Second

	// lingerMax is how long data may wait for a guest that does not take it
	// after the host closed the connection.
	lingerMax = 30 * time.Second

	// abortInterval is how often connections are aborted until all have ended.
	abortInterval = 5 * time.Millisecond

	// retryTimeout is how long unacknowledged data is sent again before the
	// connection is given up. A paused sandbox outlives it, since its
	// connections are gone either way at the far end.
	retryTimeout = 5 * time.Minute
)
