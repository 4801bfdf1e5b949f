package vfs

import "iter"

// Linker makes hard links. Absent: the guest sees EPERM, as on file systems without hard links.
type Linker interface {
	Link(oldName, newName string) error
}

// Symlinker makes symbolic links; target is stored as given. Absent: the guest sees EPERM.
type Symlinker interface {
	Symlink(target, newName string, create Create) error
}

// Readlinker reads symbolic links (EINVAL for other entries). Absent: the guest sees EINVAL.
type Readlinker interface {
	Readlink(name string) (string, error)
}

// StatFSer reports capacity. Absent: the guest sees a file system of size 0, which df leaves out.
type StatFSer interface {
	StatFS() (StatFS, error)
}

// Checker says whether the provider can be used at all, so that a bad one fails when the VM starts, and not at
// the guest's first access. Absent: the provider is taken to be usable.
type Checker interface {
	Check() error
}

// Cacher says how long the guest may trust what it was told. Absent: [SharedCache].
type Cacher interface {
	Cache() Cache
}

// DirSyncer makes the entries of a directory durable. Absent: fsync of a directory succeeds without effect.
type DirSyncer interface {
	SyncDir(name string) error
}

// Appender is an optional interface of a [File]: Append writes at the end of the file, wherever that is by now.
// Absent: the write goes to the offset that the guest believes to be the end, so appends of a guest and of
// another writer may overlap.
type Appender interface {
	Append(p []byte) (int, error)
}

// Allocator is an optional interface of a [File]: Allocate is fallocate(2). With no flag it reserves storage for a range
// and extends the file to cover it. What a provider cannot do is EOPNOTSUPP. Absent: the guest sees EOPNOTSUPP.
type Allocator interface {
	Allocate(off, length int64, flags AllocFlag) error
}

// ExtentSeeker is an optional interface of a [File]: SeekExtent returns where the next data or hole begins, at off or
// after it, as lseek(2) with SEEK_DATA and SEEK_HOLE; the end of the file counts as a hole. ENXIO: off is not within the
// file, or no data follows. Absent: the guest sees a file without holes.
type ExtentSeeker interface {
	SeekExtent(off int64, kind Extent) (int64, error)
}

// RangeCopier is an optional interface of a [File]: CopyRange copies within the provider, as copy_file_range(2), from
// this file to dst, and returns how much; it may be less than asked for, and 0 at the end of the source. dst belongs to
// the same FS value. EXDEV or EOPNOTSUPP: the server reads and writes instead. Absent: the same.
type RangeCopier interface {
	CopyRange(dst File, srcOff, dstOff, length int64) (int64, error)
}

// FileLinker is an optional interface of a [File] from TmpFile: LinkTo gives the file its first name (linkat(2) with
// AT_EMPTY_PATH). Absent: the guest sees ENOENT, and the file never gets a name.
type FileLinker interface {
	LinkTo(newName string) error
}

// TmpFiler makes a regular file without a name, open for reading and writing, that is gone when it is closed (O_TMPFILE);
// dir is where it would be. Guests with Linux 6.2 or later ask for it. Absent: the guest sees EOPNOTSUPP, upon which
// programs make a file and remove it.
type TmpFiler interface {
	TmpFile(dir string, create Create) (File, error)
}

// Mknoder makes FIFOs and sockets: names by which processes of the guest meet, whose content never passes a provider.
// kind is ModeFIFO or ModeSocket; device nodes are refused before they come to a provider. Absent: the guest sees EPERM.
type Mknoder interface {
	Mknod(name string, kind Mode, create Create) error
}

// DirStater returns the attributes of many entries of one directory at once, in the order of names, stopping when it is
// told to; an entry that is missing is ENOENT for this one. A listing with attributes costs one call then, and not one for each
// entry. Absent: Lstat is called for each.
type DirStater interface {
	LstatIn(dir string, names []string) iter.Seq2[Attr, error]
}

// XattrFS keeps extended attributes (xattr(7)). Names are complete ("user.x"), 1 to [MaxXattrName] bytes without NUL;
// values have up to [MaxXattrValue] bytes. The guest's kernel checks who may use which namespace. Absent: the guest sees
// EOPNOTSUPP.
type XattrFS interface {
	// GetXattr returns a value; ENODATA if there is none, EOPNOTSUPP for a namespace that is not kept.
	GetXattr(name, attr string) ([]byte, error)
	// SetXattr sets a value, which it copies.
	SetXattr(name, attr string, value []byte, flags XattrFlag) error
	// ListXattr returns the names that have values, together at most [MaxXattrList] bytes with a NUL each.
	ListXattr(name string) ([]string, error)
	// RemoveXattr removes a value; ENODATA if there is none.
	RemoveXattr(name, attr string) error
}

// AllocFlag holds the modes of fallocate(2), with Linux's values.
type AllocFlag uint32

// Modes of Allocate (linux/falloc.h). Other bits are EOPNOTSUPP.
const (
	// AllocKeepSize leaves the size of the file as it is.
	AllocKeepSize AllocFlag = 1
	// AllocPunchHole, always with AllocKeepSize, makes the range a hole: it reads as zeros and takes no storage.
	AllocPunchHole AllocFlag = 2
	// AllocZeroRange makes the range read as zeros, extending the file unless AllocKeepSize is set.
	AllocZeroRange AllocFlag = 0x10
)

// Check returns EOPNOTSUPP for combinations of flags that nobody implements, and EINVAL or EFBIG for a range that
// cannot be.
func (f AllocFlag) Check(off, length int64) error {
	switch {
	case f&^(AllocKeepSize|AllocPunchHole|AllocZeroRange) != 0, f&AllocPunchHole != 0 && f != AllocPunchHole|AllocKeepSize:
		return EOPNOTSUPP
	case off < 0 || length <= 0:
		return EINVAL
	case off > MaxFileSize-length:
		return EFBIG
	}
	return nil
}

// Extent is what SeekExtent looks for.
type Extent int

// SeekExtent asks f, or takes it for a file without holes if it is no [ExtentSeeker].
func SeekExtent(f File, off int64, kind Extent) (int64, error) {
	if s, ok := f.(ExtentSeeker); ok {
		return s.SeekExtent(off, kind)
	}
	a, err := f.Stat()
	switch {
	case err != nil:
		return 0, err
	case off < 0 || off >= a.Size:
		return 0, ENXIO
	case kind == ExtentHole:
		return a.Size, nil
	}
	return off, nil
}

// Kinds of extents.
const (
	ExtentData Extent = iota
	ExtentHole
)

// XattrFlag holds the flags of setxattr(2), with Linux's values.
type XattrFlag uint32

// Flags of SetXattr (linux/xattr.h). Other bits are EINVAL.
const (
	// XattrCreate fails with EEXIST if there is a value.
	XattrCreate XattrFlag = 1
	// XattrReplace fails with ENODATA if there is none.
	XattrReplace XattrFlag = 2
)
