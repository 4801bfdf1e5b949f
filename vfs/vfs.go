package vfs

import (
	"io"
	"io/fs"
	"iter"
	"time"
)

// FS is a file system shown to a guest. See the package comment for paths, links and concurrency.
type FS interface {
	// Lstat returns the attributes of an entry, without following it.
	Lstat(name string) (Attr, error)

	// Open opens a regular file; the caller closes the File. With Create set, a missing file is made as create
	// says; with Excl also set, an existing entry of any kind is EEXIST. Other kinds of entries are refused:
	// EISDIR for a directory, ELOOP for a symbolic link, EPERM for the rest.
	Open(name string, flags OpenFlag, create Create) (File, error)

	// ReadDir yields the entries of a directory in any order, without "." and "..". An error ends the listing.
	ReadDir(name string) iter.Seq2[DirEntry, error]

	// Mkdir makes a directory.
	Mkdir(name string, create Create) error

	// Unlink removes an entry that is not a directory (EISDIR). Open files stay usable until closed.
	Unlink(name string) error

	// Rmdir removes an empty directory (ENOTEMPTY, ENOTDIR; EBUSY for the root).
	Rmdir(name string) error

	// Rename has the semantics of rename(2), and of renameat2(2) for the flags.
	Rename(oldName, newName string, flags RenameFlag) error

	// SetAttr changes the attributes that set selects. If it fails some of them may have been changed.
	SetAttr(name string, set SetAttr) error
}

// File is an open regular file. It stays usable after its name is gone. Methods may be called concurrently,
// except Close, which the caller calls once, last.
type File interface {
	// ReadAt reads at an offset.
	io.ReaderAt

	// WriteAt writes at an offset; a gap before it reads as zeros.
	io.WriterAt

	// Stat returns the attributes; Nlink is 0 once the last name is gone.
	Stat() (Attr, error)

	// SetAttr changes the attributes that set selects, size included.
	SetAttr(set SetAttr) error

	// Sync makes the content durable where the provider has a notion of that.
	Sync() error

	// Close releases the handle.
	io.Closer
}

// Create is what a new entry starts with. Providers that cannot keep owners ignore UID and GID; what the entry
// then looks like is what Lstat says.
type Create struct {
	// Perm holds permission bits, umask already applied; type bits are ignored.
	Perm Mode
	// UID and GID are the ids of the guest process that creates the entry.
	UID, GID uint32
}

// OpenFlag says how a file is opened. The zero value opens for reading.
type OpenFlag uint32

// Open flags. Read access is always included.
const (
	// Write opens for writing too.
	Write OpenFlag = 1 << iota
	// CreateFile makes the file if it is missing.
	CreateFile
	// Excl, with CreateFile, fails with EEXIST if any entry has the name.
	Excl
	// Trunc empties the file; it needs Write.
	Trunc
)

// Changes reports whether opening with these flags can change the file system.
func (f OpenFlag) Changes() bool { return f&(Write|CreateFile|Trunc) != 0 }

// RenameFlag holds the flags of renameat2(2), with Linux's values.
type RenameFlag uint32

// Rename flags (linux/fs.h). Other bits are EINVAL.
const (
	// RenameNoReplace fails with EEXIST if the new name exists.
	RenameNoReplace RenameFlag = 1
	// RenameExchange swaps two existing entries.
	RenameExchange RenameFlag = 2
)

// Attr holds the attributes of an entry.
type Attr struct {
	// Mode is the type and the permission bits.
	Mode Mode
	// Size is in bytes; for a symbolic link, the length of its target.
	Size int64
	// Blocks is the storage used, in units of 512 bytes.
	Blocks int64
	// Nlink counts the names of the entry; providers that cannot know say 1.
	Nlink uint32
	// UID and GID are the owner as the guest sees it.
	UID, GID uint32
	// Dev and Ino identify the entry within the provider as long as it exists: equal for hard links, unchanged by
	// rename. Ino 0 means that the provider has no identity to offer.
	Dev, Ino uint64
	// Rdev is the device number of a device node, in Linux's encoding for FUSE.
	Rdev uint32
	// Atime, Mtime and Ctime have nanosecond resolution.
	Atime, Mtime, Ctime time.Time
}

// DirEntry is one entry of a listing.
type DirEntry struct {
	// Name is a single path element.
	Name string
	// Type holds the type bits of the mode, or 0 if unknown.
	Type Mode
	// Dev and Ino are those of [Attr], or 0 if unknown.
	Dev, Ino uint64
}

// SetMask selects fields of a [SetAttr].
type SetMask uint32

// Fields of a SetAttr.
const (
	SetMode SetMask = 1 << iota
	SetUID
	SetGID
	SetSize
	SetAtime
	SetMtime
)

// SetAttr is a change of attributes: chmod, chown, truncate and utimensat in one. "Now" is resolved by the caller.
type SetAttr struct {
	// Mask selects the fields that apply.
	Mask SetMask
	// Mode holds permission bits including set-id and sticky; type bits are ignored.
	Mode Mode
	// UID and GID are the new owner.
	UID, GID uint32
	// Size is the new size in bytes; growing leaves a hole.
	Size int64
	// Atime and Mtime are the new times.
	Atime, Mtime time.Time
}

// Has reports whether all fields of mask are selected.
func (s SetAttr) Has(mask SetMask) bool { return s.Mask&mask == mask }

// StatFS is the capacity of a file system, as statfs(2).
type StatFS struct {
	// BlockSize is the unit of the block counts, in bytes.
	BlockSize uint32
	// Blocks, Free and Avail count blocks: all, unused, and usable by the guest.
	Blocks, Free, Avail uint64
	// Files and FreeFiles count inodes.
	Files, FreeFiles uint64
}

// Cache says how long the guest's kernel may keep what it learned, without asking again.
type Cache struct {
	// Attr and Entry are for attributes and for names that exist.
	Attr, Entry time.Duration
	// Negative is for names that do not exist; 0 means asking every time.
	Negative time.Duration
	// KeepPages keeps cached content across opens.
	KeepPages bool
}

// SharedCache is for trees that others change too: one second, and missing names are asked for every time.
func SharedCache() Cache { return Cache{Attr: time.Second, Entry: time.Second} }

// ExclusiveCache is for trees that only this guest changes, or nobody.
func ExclusiveCache() Cache {
	const long = time.Hour // a bound only so that a mistake does not last for ever
	return Cache{Attr: long, Entry: long, Negative: long, KeepPages: true}
}

// Mode is a file's type and permission bits with Linux's values (linux/stat.h).
type Mode uint32

// Types and bits of a Mode.
const (
	ModeType    Mode = 0o170000
	ModeSocket  Mode = 0o140000
	ModeSymlink Mode = 0o120000
	ModeRegular Mode = 0o100000
	ModeBlock   Mode = 0o060000
	ModeDir     Mode = 0o040000
	ModeChar    Mode = 0o020000
	ModeFIFO    Mode = 0o010000

	ModeSetUID  Mode = 0o4000
	ModeSetGID  Mode = 0o2000
	ModeSticky  Mode = 0o1000
	ModePerm    Mode = 0o777
	ModeSpecial Mode = ModeSetUID | ModeSetGID | ModeSticky
	// ModeBits are all bits that chmod can set.
	ModeBits Mode = 0o7777
)

// Type returns the type bits.
func (m Mode) Type() Mode { return m & ModeType }

// IsDir reports whether m is a directory.
func (m Mode) IsDir() bool { return m.Type() == ModeDir }

// IsRegular reports whether m is a regular file.
func (m Mode) IsRegular() bool { return m.Type() == ModeRegular }

// IsSymlink reports whether m is a symbolic link.
func (m Mode) IsSymlink() bool { return m.Type() == ModeSymlink }

// FileMode converts to Go's representation.
func (m Mode) FileMode() fs.FileMode {
	out := fs.FileMode(m & ModePerm)
	for _, bit := range modeTable {
		if bit.linux&ModeType != 0 && m.Type() == bit.linux || bit.linux&ModeType == 0 && m&bit.linux != 0 {
			out |= bit.golang
		}
	}
	return out
}

// ModeFrom converts from Go's representation. What Go calls irregular becomes a FIFO, which the guest's kernel keeps
// to itself: it never asks the host to open one.
func ModeFrom(m fs.FileMode) Mode {
	out := Mode(m.Perm())
	if m.Type() == 0 {
		out |= ModeRegular
	}
	if m&fs.ModeIrregular != 0 {
		out |= ModeFIFO
	}
	for _, bit := range modeTable {
		if m&(fs.ModeType|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky)&bit.golang == bit.golang && exactDevice(m, bit.golang) {
			out |= bit.linux
		}
	}
	return out
}

// exactDevice keeps a character device (ModeDevice|ModeCharDevice) from also counting as a block device.
func exactDevice(m, bit fs.FileMode) bool {
	return bit != fs.ModeDevice || m&fs.ModeCharDevice == 0
}

// modeTable pairs the bits that differ between Linux and Go.
var modeTable = []struct {
	linux  Mode
	golang fs.FileMode
}{
	{ModeSocket, fs.ModeSocket},
	{ModeSymlink, fs.ModeSymlink},
	{ModeBlock, fs.ModeDevice},
	{ModeDir, fs.ModeDir},
	{ModeChar, fs.ModeDevice | fs.ModeCharDevice},
	{ModeFIFO, fs.ModeNamedPipe},
	{ModeSetUID, fs.ModeSetuid},
	{ModeSetGID, fs.ModeSetgid},
	{ModeSticky, fs.ModeSticky},
}
