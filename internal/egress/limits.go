package egress

import "time"

const (
	// peekSize in bytes is what tells TLS and HTTP apart: a method and the
	// start of its target.
	peekSize = 64

	// peekTimeout is how long a connection may say nothing. Protocols in which
	// the server speaks first end here.
	peekTimeout = 10 * time.Second

	// handshakeTimeout bounds a TLS handshake, with the guest and upstream.
	handshakeTimeout = 15 * time.Second

	// headerTimeout is how long a request head may take.
	headerTimeout = 30 * time.Second

	// idleTimeout is how long a guest connection may wait for its next request;
	// longer than what clients keep connections for (curl: 118 s).
	idleTimeout = 3 * time.Minute

	// maxStreams bounds the requests at once on one HTTP/2 connection of the
	// guest, and streamWindow, in bytes, what the host holds of each one's
	// body; of all on a connection it is 1 MiB, net/http's default.
	maxStreams   = 100
	streamWindow = 512 << 10

	// maxRequests bounds the requests at once of one sandbox, on whatever
	// connections. Each may hold maxRequestHead, so they are few compared with
	// what netstack's connections could carry over HTTP/2.
	maxRequests = 2048

	// maxRequestHead in bytes; net/http adds 4 KiB of slack. Beyond it: 431.
	maxRequestHead = 64 << 10

	// maxResponseHead in bytes is what an upstream may send before its body.
	maxResponseHead = 256 << 10

	// maxUpstreamPerHost bounds connections to one host and port; further
	// requests wait. Far above what browsers and package managers open, since
	// event streams hold one each for hours.
	maxUpstreamPerHost = 256

	// maxIdleUpstream and maxIdlePerHost bound the pool.
	maxIdleUpstream = 128
	maxIdlePerHost  = 16

	// upstreamIdle is how long a pooled connection is kept; servers close at
	// 60 s and more.
	upstreamIdle = 45 * time.Second

	// resolveTimeout and dialTimeout bound reaching a host; dialTimeout is for
	// each address.
	resolveTimeout = 15 * time.Second
	dialTimeout    = 10 * time.Second

	// maxAddresses is how many addresses of a name are tried.
	maxAddresses = 8

	// maxResolved bounds the addresses a name may have at all: checking stops
	// being cheap, and no honest name has more.
	maxResolved = 256

	// continueTimeout is how long to wait for the upstream's 100 Continue
	// before the body is sent all the same (RFC 9110 section 10.1.1).
	continueTimeout = 5 * time.Second

	// maxLeaves bounds the certificates kept, 1 KiB each.
	maxLeaves = 512

	// caLife is longer than sandboxes run; leafLife shorter than what any
	// client objects to, and longer than a connection.
	caLife   = 397 * 24 * time.Hour
	leafLife = 7 * 24 * time.Hour

	// backdate is how far the guest's clock may be behind.
	backdate = 5 * time.Minute

	// maxPlaceholders bounds the secrets put into one request, counting every
	// occurrence: requests carry one or two, and a value may be 256 times as long
	// as the placeholder it replaces.
	maxPlaceholders = 16

	// maxUpstream bounds the connections to servers of one sandbox, those being
	// made included, which go on when the guest no longer waits for them. It is
	// above netstack's bound on the guest's connections and maxIdleUpstream.
	maxUpstream = 1280

	// scrubBuffer in bytes is read from a body at once.
	scrubBuffer = 32 << 10
)
