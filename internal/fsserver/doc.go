// Package fsserver serves mounts to a guest: it speaks the FUSE kernel protocol (linux/fuse.h, major 7) over a byte
// stream and maps it to [vfs.FS].
//
// The guest pumps messages between its /dev/fuse and the stream verbatim; each carries its own length, so there is
// no other framing. The stream's other end is hostile. A message whose length cannot be right, or that comes
// before INIT, ends the connection; everything else that is wrong with a message is an errno for that message.
//
// The codec is our own, because the guest is Linux on every host: FUSE libraries speak their host's dialect, and macFUSE's
// attributes and SETATTR differ from Linux's.
//
// # Tree
//
// Node 1 is a synthetic directory with one entry per mount, named by index. Nodes map to paths through a table
// that follows renames and unlinks; names with one identity share one node. A mount's paths are stable during an operation:
// operations hold the mount's tree lock shared, renames hold it alone.
package fsserver
