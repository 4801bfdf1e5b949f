// Package fusepump is the guest's FUSE daemon: it mounts /dev/fuse and copies messages between it and a byte stream,
// verbatim and without looking at more than their lengths. The host on the other end of the stream serves the files.
//
// FUSE messages carry their length (fuse_in_header.len and fuse_out_header.len of linux/fuse.h), so the stream has
// no other framing. /dev/fuse wants each reply in a single write.
package fusepump
