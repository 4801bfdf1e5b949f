//go:build linux || darwin

package vfs

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// openFileFlags never block and never follow, whatever the entry turns out to be.
const openFileFlags = unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY

// Open implements FS.
func (d *DirFS) Open(name string, flags OpenFlag, create Create) (File, error) {
	switch {
	case flags&Trunc != 0 && flags&Write == 0:
		return nil, EINVAL
	case flags&CreateFile != 0 && create.Perm&ModeSpecial != 0:
		return nil, EPERM
	}
	at, err := d.at(name)
	if err != nil {
		return nil, err
	}
	defer at.close()
	for range dirCreateTries {
		fd, err := at.open(flags, create.Perm&ModePerm)
		if err == nil {
			return d.newFile(fd, name, flags)
		}
		lost := flags&CreateFile != 0 && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EEXIST) && flags&Excl == 0)
		if !lost {
			return nil, err
		}
	}
	return nil, EBUSY
}

// open looks before it opens, because opening some devices has effects, and newFile looks again after.
func (at dirAt) open(flags OpenFlag, perm Mode) (int, error) {
	st, err := at.stat()
	switch {
	case errors.Is(err, unix.ENOENT) && flags&CreateFile != 0:
		return at.create(perm)
	case err != nil:
		return -1, err
	case flags&CreateFile != 0 && flags&Excl != 0:
		return -1, EEXIST
	}
	if err := openable(Mode(st.Mode)); err != nil {
		return -1, err
	}
	if flags&Write == 0 {
		return openat(at.fd, at.base, openFileFlags|unix.O_RDONLY, 0)
	}
	fd, err := openat(at.fd, at.base, openFileFlags|unix.O_RDWR, 0)
	if errors.Is(err, unix.EACCES) { // a file that this user may write and not read
		return openat(at.fd, at.base, openFileFlags|unix.O_WRONLY, 0)
	}
	return fd, err
}

func (at dirAt) create(perm Mode) (int, error) {
	fd, err := openat(at.fd, at.base, openFileFlags|unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, uint32(perm))
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && Mode(st.Mode)&ModePerm != perm { // the host's umask is not the guest's
		err = unix.Fchmod(fd, uint32(perm))
	}
	if err != nil {
		closeFD(fd)
		return -1, err
	}
	return fd, nil
}

// newFile takes over fd, or closes it if it is not a regular file.
func (d *DirFS) newFile(fd int, name string, flags OpenFlag) (File, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	if err == nil {
		err = openable(Mode(st.Mode))
	}
	// Linux clears these bits when somebody writes, unless root does.
	if setID := Mode(st.Mode) & (ModeSetUID | ModeSetGID); err == nil && flags&Write != 0 && setID != 0 {
		err = unix.Fchmod(fd, uint32(Mode(st.Mode)&ModeBits&^setID))
	}
	if err == nil && flags&Trunc != 0 {
		err = unix.Ftruncate(fd, 0)
	}
	if err == nil {
		err = unix.SetNonblock(fd, false) // it was only for the open; os.File would hand it to the poller
	}
	if err != nil {
		closeFD(fd)
		return nil, err
	}
	return &dirFile{dir: d, file: os.NewFile(uintptr(fd), name), writable: flags&Write != 0}, nil
}
