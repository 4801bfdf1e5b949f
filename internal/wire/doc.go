// Package wire is the control protocol between host and guest: its bytes,
// limits and meaning. It does no I/O of its own beyond the reader or writer it
// is handed and owns no goroutine; package rpc supplies the streams.
//
// # 1. Transport
//
// The protocol runs over the virtio-serial port named [PortControl], inside a
// stream multiplexer (yamux). Between two frames may stand a mark of 17 bytes:
//
//	"gondolin session\n"  from the host: a session begins; the guest drops the one it was in
//	"gondolin holding\n"  from the host: nothing follows before the next mark. The guest
//	                      answers with the same mark, after which it sends nothing either
//	"gondolin proceed\n"  from the host: both go on
//
// When the host has read the answer to its hold, no byte is under way. Only the host opens streams. A stream carries
// messages of this package, except where a message says that raw bytes follow.
//
// # 2. Message
//
//	offset  size  field
//	0       4     length n of what follows, big endian, 1 <= n <= limit
//	4       1     kind (section 3)
//	5       n-1   body: one CBOR (RFC 8949) map with small integer keys
//
// The limit is [MaxToGuest] towards the guest and [MaxToHost] towards the host.
// Bodies use definite lengths, no tags, at most [maxNesting] levels, at most
// [maxElements] elements in an array or pairs in a map, and no key twice.
//
// Fatal for the stream, which the reader then closes: a length of 0 or over the
// limit, an unknown kind, a kind sent in the wrong direction, a malformed
// body, bytes after the body's map, and an unknown key. Nothing is ignored:
// host and guest are built together and [Version] is compared first.
//
// # 3. Kinds
//
//	kind  name       direction      stream
//	0x01  Setup      host -> guest  setup, first
//	0x02  Exec       host -> guest  exec, first
//	0x03  Attach     host -> guest  data, first; raw bytes follow both ways
//	0x04  Signal     host -> guest  exec, after Exec
//	0x05  Resize     host -> guest  exec, after Exec
//	0x06  Terminate  host -> guest  exec, after Exec
//	0x07  Quiesce    host -> guest  quiesce, only; the host then half-closes
//	0x08  Clock      host -> guest  clock, only; the host then half-closes
//	0x09  Suspend    host -> guest  suspend, first
//	0x0a  Proceed    host -> guest  suspend, after Suspended, ends the stream
//	0x0b  Resume     host -> guest  resume, first of a session
//	0x81  Ready      guest -> host  setup, resume, once, ends the stream
//	0x82  Started    guest -> host  exec, once
//	0x83  Failed     guest -> host  setup, resume, suspend, exec: instead of the answer; clock
//	0x84  Exited     guest -> host  exec, after Started
//	0x85  Drained    guest -> host  exec, after Exited, ends the stream
//	0x86  Quiesced   guest -> host  quiesce, once, ends the stream
//	0x87  Suspended  guest -> host  suspend, once
//
// # 4. Setup
//
// The host's first stream. It makes the booted guest this VM: clock, entropy,
// host name, network, trusted CA, mounts, environment. The guest answers Ready,
// or Failed with a text naming the step. Until then every other stream waits.
//
// Before Setup, a guest may be stopped and copied any number of times. So that no
// byte is under way then, the host opens a stream with Quiesce and half-closes it;
// the guest reads to its end, answers Quiesced and half-closes. When the host has
// read to that end both directions are empty. The host that continues a copy begins
// a new session (section 1).
//
// A clock stream sets the guest's wall clock, whenever the host finds it may be
// wrong. The guest half-closes when it has, or answers Failed.
//
// # 5. Exec
//
// The host opens an exec stream, sends Exec with an id of its choice, and opens
// one data stream for each descriptor in Exec.Streams, beginning with Attach
// {id, descriptor}. The streams may arrive in any order. When all have arrived
// the guest starts the command and answers Started, or Failed.
//
// Data streams are raw bytes after Attach. Towards the guest, descriptor 0: the
// host half-closes at end of input; the guest closes its half when the command
// stopped reading. Towards the host, descriptors 1 and 2: the guest half-closes
// at end of output; the host closes its half when it stopped reading, upon
// which the command sees a broken pipe. Each stream has its own window, so a
// slow reader stops exactly one writer.
//
// Exited is sent when the process is reaped. Output written before that is
// still delivered. When other processes hold the output open the guest gives up
// after Exec.WaitDelay and says so in Drained.Cut. When the host closes an exec
// stream before Exited, the guest kills every process of the command.
//
// # 6. Suspend and resume
//
// A guest that is set up can be copied while it runs. The host opens a stream with
// Suspend. The guest freezes all commands (cgroup v2), sends no further FUSE request,
// waits for the replies to those it has sent, and answers Suspended, or Failed and
// goes on as before. The host then holds the channel (section 1) and stops the machine.
// The guest that was copied goes on when the host has let it run again, lifted
// the hold, and sent Proceed.
//
// Who continues a copy begins a session, whose first stream is Resume: clock, entropy,
// host name, machine id, CA, environment. When all of it is applied the commands go on,
// with nobody attached: their pipes for input end, their output is discarded,
// terminals stay open. The guest answers Ready.
package wire
