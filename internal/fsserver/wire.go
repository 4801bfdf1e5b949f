package fsserver

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"gondolin/vfs"
)

// opcode is enum fuse_opcode of linux/fuse.h.
type opcode uint32

const (
	opLookup       opcode = 1
	opForget       opcode = 2
	opGetattr      opcode = 3
	opSetattr      opcode = 4
	opReadlink     opcode = 5
	opSymlink      opcode = 6
	opMknod        opcode = 8
	opMkdir        opcode = 9
	opUnlink       opcode = 10
	opRmdir        opcode = 11
	opRename       opcode = 12
	opLink         opcode = 13
	opOpen         opcode = 14
	opRead         opcode = 15
	opWrite        opcode = 16
	opStatfs       opcode = 17
	opRelease      opcode = 18
	opFsync        opcode = 20
	opInit         opcode = 26
	opOpendir      opcode = 27
	opReaddir      opcode = 28
	opReleasedir   opcode = 29
	opFsyncdir     opcode = 30
	opCreate       opcode = 35
	opInterrupt    opcode = 36
	opDestroy      opcode = 38
	opIoctl        opcode = 39
	opBatchForget  opcode = 42
	opFallocate    opcode = 43
	opReaddirplus  opcode = 44
	opRename2      opcode = 45
	opLseek        opcode = 46
	opCopyRange    opcode = 47
	opNotifyReply  opcode = 41
	maxForgetCount        = (maxMessage - headerSize - 8) / 16
)

// Sizes of structs in bytes (linux/fuse.h).
const (
	headerSize      = 40 // fuse_in_header
	replyHeaderSize = 16 // fuse_out_header
	initOutSize     = 64 // fuse_init_out
	direntSize      = 24 // fuse_dirent without its name
	entryOutSize    = 128
	rootID          = 1
)

// INIT flags (linux/fuse.h).
const (
	initAsyncRead       = 1 << 0
	initAtomicTrunc     = 1 << 3
	initBigWrites       = 1 << 5
	initAutoInvalData   = 1 << 12
	initReaddirplus     = 1 << 13
	initReaddirplusAuto = 1 << 14
	initAsyncDIO        = 1 << 15
	initParallelDirops  = 1 << 18
	initMaxPages        = 1 << 22
	initCacheSymlinks   = 1 << 23
	initWanted          = initAsyncRead | initAtomicTrunc | initBigWrites | initAutoInvalData | initReaddirplus |
		initReaddirplusAuto | initAsyncDIO | initParallelDirops | initMaxPages | initCacheSymlinks
	// initRequired are without alternative: a guest without them is older than the protocol minor it claims.
	initRequired = initBigWrites | initAtomicTrunc | initMaxPages
)

// Flags of SETATTR, OPEN and others (linux/fuse.h, asm-generic/fcntl.h).
const (
	attrMode     = 1 << 0
	attrUID      = 1 << 1
	attrGID      = 1 << 2
	attrSize     = 1 << 3
	attrAtime    = 1 << 4
	attrMtime    = 1 << 5
	attrFH       = 1 << 6
	attrAtimeNow = 1 << 7
	attrMtimeNow = 1 << 8

	getattrFH      = 1 << 0
	openKeepCache  = 1 << 1
	writeFromCache = 1 << 0

	seekData = 3 // linux/fs.h
	seekHole = 4

	accessMode = 0o3
	openWrite  = 0o1
	openRDWR   = 0o2
	openExcl   = 0o200
	openTrunc  = 0o1000
	openAppend = 0o2000
)

// header is struct fuse_in_header.
type header struct {
	length   uint32
	op       opcode
	unique   uint64
	node     uint64
	uid, gid uint32
}

// parseHeader checks what framing depends on.
func parseHeader(b []byte) (header, error) {
	if len(b) < headerSize {
		return header{}, fmt.Errorf("cannot parse FUSE header: %d bytes", len(b))
	}
	le := binary.LittleEndian
	h := header{
		length: le.Uint32(b), op: opcode(le.Uint32(b[4:])), unique: le.Uint64(b[8:]), node: le.Uint64(b[16:]),
		uid: le.Uint32(b[24:]), gid: le.Uint32(b[28:]),
	}
	if h.length < headerSize || h.length > maxMessage {
		return header{}, fmt.Errorf("cannot accept FUSE message of %d bytes (opcode %d)", h.length, h.op)
	}
	if ext := le.Uint16(b[36:]); ext != 0 { // extensions were not negotiated
		return header{}, fmt.Errorf("cannot accept FUSE message with %d bytes of extensions (opcode %d)", int(ext)*8, h.op)
	}
	return h, nil
}

// decoder reads a request's body; the first field that is not there makes it bad, and zeros follow.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if n > len(d.b) {
		d.bad = true
		d.b = nil
		return make([]byte, 8)[:min(n, 8)]
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) u32() uint32 { return binary.LittleEndian.Uint32(d.take(4)) }
func (d *decoder) u64() uint64 { return binary.LittleEndian.Uint64(d.take(8)) }

func (d *decoder) skip(n int) {
	if n > len(d.b) {
		d.bad = true
		n = len(d.b)
	}
	d.b = d.b[n:]
}

// text reads a string that ends in NUL.
func (d *decoder) text() string {
	i := bytes.IndexByte(d.b, 0)
	if i < 0 {
		d.bad = true
		return ""
	}
	s := string(d.b[:i])
	d.b = d.b[i+1:]
	return s
}

// err is EINVAL if anything was missing.
func (d *decoder) err() error {
	if d.bad {
		return vfs.EINVAL
	}
	return nil
}

// fileOffset converts an offset or size from the wire.
func fileOffset(v uint64) (int64, error) {
	if v > vfs.MaxFileSize {
		return 0, vfs.EFBIG
	}
	return int64(v), nil
}

// wireTime converts a time from the wire; seconds are signed.
func wireTime(sec uint64, nsec uint32) (time.Time, error) {
	if nsec >= 1e9 {
		return time.Time{}, vfs.EINVAL
	}
	return time.Unix(int64(sec), int64(nsec)), nil //nolint:gosec // G115: the wire carries the bits of a signed number.
}

// encoder appends little-endian fields.
type encoder struct{ b []byte }

func (e *encoder) u16(v uint16) { e.b = binary.LittleEndian.AppendUint16(e.b, v) }
func (e *encoder) u32(v uint32) { e.b = binary.LittleEndian.AppendUint32(e.b, v) }
func (e *encoder) u64(v uint64) { e.b = binary.LittleEndian.AppendUint64(e.b, v) }

// attr appends struct fuse_attr.
func (e *encoder) attr(ino uint64, a *vfs.Attr) {
	e.u64(ino)
	e.u64(uint64(max(0, a.Size)))
	e.u64(uint64(max(0, a.Blocks)))
	for _, t := range []time.Time{a.Atime, a.Mtime, a.Ctime} {
		e.u64(uint64(t.Unix())) //nolint:gosec // G115: the wire carries the bits of a signed number.
	}
	for _, t := range []time.Time{a.Atime, a.Mtime, a.Ctime} {
		e.u32(uint32(t.Nanosecond())) //nolint:gosec // G115: below 1e9.
	}
	e.u32(uint32(a.Mode))
	e.u32(a.Nlink)
	e.u32(a.UID)
	e.u32(a.GID)
	e.u32(a.Rdev)
	e.u32(4096) // blksize: what stat shows as the preferred size of I/O
	e.u32(0)
}

// entry appends struct fuse_entry_out.
func (e *encoder) entry(node, ino uint64, a *vfs.Attr, c vfs.Cache) {
	e.u64(node)
	e.u64(0) // generation: node ids are never used twice
	e.seconds(c.Entry)
	e.seconds(c.Attr)
	e.nanoseconds(c.Entry)
	e.nanoseconds(c.Attr)
	e.attr(ino, a)
}

// noEntry appends a fuse_entry_out without a node: in LOOKUP a name that does not exist, for as long as ttl says.
func (e *encoder) noEntry(ttl time.Duration) {
	start := len(e.b)
	e.u64(0)
	e.u64(0)
	e.seconds(ttl)
	e.u64(0)
	e.nanoseconds(ttl)
	e.b = append(e.b, make([]byte, entryOutSize-(len(e.b)-start))...)
}

// attrOut appends struct fuse_attr_out.
func (e *encoder) attrOut(ino uint64, a *vfs.Attr, c vfs.Cache) {
	e.seconds(c.Attr)
	e.nanoseconds(c.Attr)
	e.u32(0)
	e.attr(ino, a)
}

func (e *encoder) seconds(d time.Duration) { e.u64(uint64(max(0, d) / time.Second)) }
func (e *encoder) nanoseconds(d time.Duration) {
	e.u32(uint32(max(0, d) % time.Second))
}

// dirent appends struct fuse_dirent with its name, padded to 8 bytes (FUSE_DIRENT_ALIGN).
func (e *encoder) dirent(ino, off uint64, typ vfs.Mode, name string) {
	e.u64(ino)
	e.u64(off)
	e.u32(uint32(len(name))) //nolint:gosec // G115: a checked name.
	e.u32(uint32(typ.Type() >> 12))
	e.b = append(e.b, name...)
	for range direntLen(name) - direntSize - len(name) {
		e.b = append(e.b, 0)
	}
}

// direntLen is FUSE_DIRENT_SIZE.
func direntLen(name string) int { return (direntSize + len(name) + 7) &^ 7 }

// statfs appends struct fuse_kstatfs.
func (e *encoder) statfs(st vfs.StatFS) {
	if st.BlockSize == 0 {
		st.BlockSize = 4096
	}
	for _, v := range []uint64{st.Blocks, st.Free, st.Avail, st.Files, st.FreeFiles} {
		e.u64(v)
	}
	e.u32(st.BlockSize)
	e.u32(vfs.MaxName)
	e.u32(st.BlockSize)
	e.b = append(e.b, make([]byte, 4+6*4)...)
}

// Settings is what INIT agreed on.
type Settings struct {
	// Major and Minor are the protocol version in use.
	Major, Minor uint32
	// Flags are the INIT flags in use.
	Flags uint32
	// MaxReadahead and MaxWrite are in bytes.
	MaxReadahead, MaxWrite uint32
}

// negotiate answers struct fuse_init_in.
func negotiate(body []byte) (Settings, error) {
	d := decoder{b: body}
	major, minor, readahead, flags := d.u32(), d.u32(), d.u32(), d.u32()
	switch {
	case d.bad:
		return Settings{}, fmt.Errorf("cannot parse FUSE INIT of %d bytes", len(body))
	case major != 7 || minor < minMinor:
		return Settings{}, fmt.Errorf("cannot speak FUSE %d.%d: need 7.%d or later", major, minor, minMinor)
	case flags&initRequired != initRequired:
		return Settings{}, fmt.Errorf("cannot serve a FUSE client with flags %#x: need %#x", flags, initRequired)
	}
	return Settings{
		Major: 7, Minor: min(minor, ourMinor), Flags: flags & initWanted,
		MaxReadahead: min(readahead, maxWrite), MaxWrite: maxWrite,
	}, nil
}

// init appends struct fuse_init_out.
func (e *encoder) init(s Settings) {
	e.u32(s.Major)
	e.u32(s.Minor)
	e.u32(s.MaxReadahead)
	e.u32(s.Flags)
	e.u16(maxBackground)
	e.u16(congestionThreshold)
	e.u32(s.MaxWrite)
	e.u32(1) // time_gran: nanoseconds
	e.u16(maxWrite / 4096)
	e.u16(0)
	e.b = append(e.b, make([]byte, 4*8)...)
}

// visibleIno is the inode number that programs in the guest see. All mounts share one device number there, so the
// provider's number is mixed with mount and device: one to one within each, and by chance only (2^-64 a pair) equal across.
func visibleIno(n *node, a *vfs.Attr) uint64 {
	if a.Ino == 0 || n.mount == nil {
		return mix(n.id ^ math.MaxUint64)
	}
	return mix(a.Ino ^ mix(uint64(n.mount.index)<<32^a.Dev)) //nolint:gosec // G115: an index.
}

// mix is the finalizer of splitmix64, a bijection; 0 is not an inode number, so it becomes 1.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	x ^= x >> 31
	return max(x, 1)
}
