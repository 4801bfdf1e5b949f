package audit

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// DefaultMaxFile is at what size in bytes a file is rotated.
	DefaultMaxFile = 64 << 20

	// DefaultMaxTotal bounds the files of one log together, in bytes. It is what
	// a guest can take of the disk by being recorded: some millions of events.
	DefaultMaxTotal = 1 << 30

	// closingBytes is kept free below MaxTotal for the record that closes the log.
	closingBytes = 1 << 10

	// sealBytes is more than sealing adds to a body.
	sealBytes = 128
)

// FileOptions are the bounds of a File. The zero value is usable.
type FileOptions struct {
	// MaxFile is the size in bytes at which a file is set aside, as NAME.000001
	// and so on, and a new one begun. 0: [DefaultMaxFile].
	MaxFile int64
	// MaxTotal bounds all files of the log together, those of earlier runs
	// included, in bytes. An event that does not fit is an error, as on a full
	// disk; nothing is removed. 0: [DefaultMaxTotal].
	MaxTotal int64
	// Sync is how long after it was recorded an event may be lost to a crash of
	// the host's kernel; a crash of this process loses none. 0: until the file is
	// rotated or closed, or the kernel writes it by itself. Negative: no time,
	// each event is on disk when it counts as recorded.
	Sync time.Duration
}

// File is a Sink that writes a chain of lines to a file, which it has to itself.
// A File that exists is continued. The caller closes it.
type File struct {
	name    string
	options FileOptions

	mu     sync.Mutex // guards the fields below
	file   *os.File
	chain  chain
	size   int64 // of file
	total  int64 // of all files
	number int   // of the last file that was set aside
	flush  *time.Timer
	err    error // why nothing more can be written
	closed bool
}

// ErrFull is wrapped by the error of an event that is over MaxTotal.
var ErrFull = errors.New("the audit log is full")

// OpenFile opens the log name, or begins it with mode 0600. Another process that
// has it open is an error, as is a file that is not a log.
func OpenFile(name string, options FileOptions) (*File, error) {
	options.MaxFile = cmp.Or(options.MaxFile, DefaultMaxFile)
	options.MaxTotal = cmp.Or(options.MaxTotal, DefaultMaxTotal)
	if options.MaxFile < MaxLine || options.MaxTotal < MaxLine {
		return nil, fmt.Errorf("cannot write audit log %s: its bounds must be %d bytes or more", name, MaxLine)
	}
	l := &File{name: name, options: options}
	if err := l.open(); err != nil {
		if l.file != nil {
			_ = l.file.Close()
		}
		return nil, fmt.Errorf("cannot write audit log %s: %w", name, err)
	}
	return l, nil
}

// Name returns the name of the current file.
func (l *File) Name() string { return l.name }

// Head returns the hash of the last line. Kept elsewhere, it proves later that
// this line and those before it are still what they are now.
func (l *File) Head() Hash {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.chain.head
}

func (l *File) open() (err error) {
	if l.file, err = openLocked(l.name); err != nil {
		return err
	}
	aside, err := setAside(l.name)
	if err != nil {
		return err
	}
	for _, a := range aside {
		l.total += a.size
		l.number = a.number
	}
	last, err := readTail(l.file)
	if err != nil {
		return err
	}
	l.size = last.size
	l.total += last.size
	if last.seq == 0 && len(aside) > 0 { // no whole line: the chain goes on from the file before
		if last.chain, err = tailOf(aside[len(aside)-1].name); err != nil {
			return err
		}
	}
	l.chain = last.chain
	if l.total > l.options.MaxTotal-closingBytes {
		return fmt.Errorf("%w: its files have %d bytes and the bound is %d: move them away", ErrFull, l.total, l.options.MaxTotal)
	}
	if last.torn { // the writer was killed within a line: its remains stay as they are
		return l.rotateLocked()
	}
	return l.openRecordLocked("open")
}

// openLocked opens a file that is regular and this process's alone.
func openLocked(name string) (*os.File, error) {
	for {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND|syscall.O_NONBLOCK, 0o600)
		if err != nil {
			return nil, err
		}
		opened, err := f.Stat()
		if err == nil && !opened.Mode().IsRegular() {
			err = errors.New("it is not a regular file")
		}
		if err == nil {
			if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
				err = errors.New("another VM is being recorded there: give each a file of its own")
			}
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if named, err := os.Stat(name); err == nil && os.SameFile(named, opened) {
			return f, nil
		}
		_ = f.Close() // it was set aside between open and lock
	}
}

func (l *File) openRecordLocked(phase string) error {
	e := Event{Phase: phase}
	if l.chain.seq > 0 {
		e.Previous = l.chain.head.String()
	}
	return l.recordLocked(e)
}

// recordLocked writes a record of the log's own, which no redaction concerns.
func (l *File) recordLocked(e Event) error {
	e.Version, e.Kind, e.Time = Version, LogRecord, time.Now().UTC()
	body, err := object(&e)
	if err != nil {
		return err
	}
	return l.writeLocked(body)
}

// put implements Sink.
func (l *File) put(_ *Event, body []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch need := int64(len(body) + sealBytes); {
	case l.err != nil:
		return l.err
	case l.closed:
		return errors.New("it is closed")
	case l.total+need > l.options.MaxTotal-closingBytes:
		l.err = fmt.Errorf("%w: %s has reached its bound of %d bytes", ErrFull, l.name, l.options.MaxTotal)
		return l.err
	case l.size+need > l.options.MaxFile:
		if l.err = l.rotateLocked(); l.err != nil {
			return l.err
		}
	}
	if l.err = l.writeLocked(body); l.err == nil {
		l.err = l.syncLocked()
	}
	return l.err
}

// writeLocked appends a line, or leaves the file as it was.
func (l *File) writeLocked(body []byte) error {
	seq, head := l.chain.seq, l.chain.head
	line := l.chain.seal(body)
	if _, err := l.file.Write(line); err != nil {
		l.chain.seq, l.chain.head = seq, head
		return errors.Join(err, l.file.Truncate(l.size))
	}
	l.size += int64(len(line))
	l.total += int64(len(line))
	return nil
}

// syncLocked sees to it that what was written is on disk in time.
func (l *File) syncLocked() error {
	switch {
	case l.options.Sync < 0:
		return l.file.Sync()
	case l.options.Sync > 0 && l.flush == nil:
		l.flush = time.AfterFunc(l.options.Sync, l.flushLate)
	}
	return nil
}

func (l *File) flushLate() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flush = nil
	if l.err == nil && !l.closed {
		l.err = l.file.Sync()
	}
}

// rotateLocked sets the file aside and begins a new one.
func (l *File) rotateLocked() error {
	old := l.file
	if err := old.Sync(); err != nil {
		return err
	}
	next := asideName(l.name, l.number+1)
	if _, err := os.Lstat(next); err == nil {
		return fmt.Errorf("cannot set the file aside: %s exists", next)
	}
	if err := os.Rename(l.name, next); err != nil {
		return err
	}
	l.number++
	f, err := openLocked(l.name)
	if err != nil {
		return err
	}
	l.file, l.size = f, 0
	return errors.Join(old.Close(), syncDir(filepath.Dir(l.name)), l.openRecordLocked("rotate"))
}

// syncDir makes names durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Close writes the record that closes the log, and closes the file. It is
// idempotent. Its error is the first of the file, if any.
func (l *File) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return l.err
	}
	l.closed = true
	if l.flush != nil {
		l.flush.Stop()
	}
	full := errors.Is(l.err, ErrFull)
	if l.err == nil || full {
		err := l.recordLocked(Event{Phase: "close"})
		l.err = cmp.Or(l.err, cmp.Or(err, l.file.Sync()))
	}
	l.err = cmp.Or(l.err, l.file.Close())
	return l.err
}
