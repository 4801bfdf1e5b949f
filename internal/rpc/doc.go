// Package rpc carries the control protocol of package wire over one byte
// stream: many streams, each with its own flow control, of which only the host
// opens any. It owns every goroutine on the channel.
//
// The multiplexer is yamux. The guest is hostile and yamux was not written for
// that, so a guard stands before it on the host: see guard.go for what the
// guest may not send.
//
// Tests run both halves over [Pipe], with no VM.
package rpc
