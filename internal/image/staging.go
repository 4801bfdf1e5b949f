package image

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"gondolin/internal/fingerprint"
	"gondolin/internal/lockfile"
)

// Staging is a private directory in the store in which an image is made. It is gone after Close, and after the death
// of the process with the next Open.
type Staging struct {
	Dir string // empty at first; anything may be put there

	store *Store
	lock  *lockfile.Lock // held as long as the directory is in use
}

// Stage makes a staging directory. The caller closes it.
func (s *Store) Stage() (*Staging, error) {
	var base string
	var lock *lockfile.Lock
	err := lockfile.ErrHeld
	// A sweeper may hold the fresh lock for an instant; another name is as good.
	for try := 0; try < stageTries && errors.Is(err, lockfile.ErrHeld); try++ {
		base = filepath.Join(s.dir, "staging", rand.Text())
		// The lock comes before the directory: a directory without a held lock is anybody's to sweep.
		lock, err = lockfile.Try(base + ".lock")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot stage an image: %w", err)
	}
	if err := os.Mkdir(base, 0o700); err != nil {
		_ = lock.Remove() // already failing
		return nil, fmt.Errorf("cannot stage an image: %w", err)
	}
	return &Staging{Dir: base, store: s, lock: lock}, nil
}

// Lock returns the file whose lock keeps the directory from being swept. A process that works in the directory inherits
// it, so that the directory stays until that process has ended, should it outlive this one. The caller must not close it.
func (st *Staging) Lock() *os.File { return st.lock.File() }

// Close removes the directory and all that is left in it. Further calls do nothing.
func (st *Staging) Close() error {
	if st.lock == nil {
		return nil
	}
	defer func() { st.lock = nil }()
	defer st.lock.Close()
	return removeStaged(st.Dir)
}

// removeStaged removes a staging directory and then its lock file. What a killed builder has left mounted is unmounted
// first: removing through a mount would reach the host's own files.
func removeStaged(dir string) error {
	if err := unmountBelow(dir); err != nil {
		return fmt.Errorf("cannot remove %s: %w", dir, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("cannot remove unfinished image: %w", err)
	}
	if err := os.Remove(dir + ".lock"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove unfinished image: %w", err)
	}
	return nil
}

// sweep removes staging directories whose makers are gone.
func (s *Store) sweep() error {
	base := filepath.Join(s.dir, "staging")
	list, err := os.ReadDir(base)
	if err != nil {
		return err
	}
	for _, e := range list {
		name := strings.TrimSuffix(e.Name(), ".lock")
		if !isFileName(name) {
			continue // not ours; and of "...lock" the store itself would be what is left
		}
		lock, err := lockfile.Try(filepath.Join(base, name+".lock"))
		if errors.Is(err, lockfile.ErrHeld) {
			continue // its maker, or a process that one has started, is at work
		}
		if err != nil {
			return err
		}
		// What cannot be removed now costs space, which is no reason to refuse good images; the next Open tries again.
		_ = removeStaged(filepath.Join(base, name))
		lock.Close()
	}
	return nil
}

// Add hashes the files that m names in dir, a directory of the staging area, completes m with their digests and
// sizes, and moves dir into the store under the names refs. It returns the image's digest. An image that is already
// there stays as it is, if it is good.
func (st *Staging) Add(ctx context.Context, dir string, m *Manifest, refs ...string) (string, error) {
	for _, f := range []*File{&m.Kernel, &m.Modules, &m.Root} {
		if err := seal(ctx, dir, f); err != nil {
			return "", err
		}
	}
	m.Version = ManifestVersion
	data, digest, err := m.encode()
	if err != nil {
		return "", err
	}
	if err := writeAtomic(filepath.Join(dir, ManifestName), data); err != nil {
		return "", err
	}
	if err := st.store.adopt(ctx, st, dir, digest, m); err != nil {
		return "", err
	}
	for _, ref := range refs {
		if err := st.store.setRef(ref, m.Arch, digest); err != nil {
			return "", err
		}
	}
	return digest, nil
}

// seal makes a file private and durable, and fills in its size and digest.
func seal(ctx context.Context, dir string, f *File) error {
	if !isFileName(f.Name) {
		return fmt.Errorf("cannot add image file %.80q: not a file name", f.Name)
	}
	path := filepath.Join(dir, f.Name)
	file, err := openRegular(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := file.Chmod(0o400); err != nil {
		return fmt.Errorf("cannot add image file: %w", err)
	}
	// Synced, because a later start trusts the look of the file, which may outlive its contents in a power failure.
	if err := file.Sync(); err != nil {
		return fmt.Errorf("cannot add image file: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("cannot add image file: %w", err)
	}
	f.Size = info.Size()
	if f.SHA256, err = hashFile(ctx, file); err != nil {
		return fmt.Errorf("cannot hash image file %s: %w", path, err)
	}
	return nil
}

// adopt moves dir to its place among the objects. A broken image found there is replaced.
func (s *Store) adopt(ctx context.Context, st *Staging, dir, digest string, m *Manifest) error {
	to := s.objectDir(digest)
	err := os.Rename(dir, to)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTEMPTY) {
		if s.verify(ctx, digest, to, m) == nil {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := os.Rename(to, filepath.Join(st.Dir, "replaced")); err != nil {
			return fmt.Errorf("cannot replace broken image: %w", err)
		}
		err = os.Rename(dir, to)
	}
	if err != nil {
		return fmt.Errorf("cannot add image: %w", err)
	}
	return s.rememberAdopted(digest, to, m)
}

// rememberAdopted notes how the files look that seal has just hashed, so that the first start does not hash again.
func (s *Store) rememberAdopted(digest, dir string, m *Manifest) error {
	l := make(fingerprints)
	for _, f := range m.files() {
		path := filepath.Join(dir, f.Name)
		file, err := openRegular(path)
		if err != nil {
			return err
		}
		now, err := fingerprint.Of(file)
		file.Close()
		if err != nil {
			return err
		}
		l[path] = now
	}
	return s.writeLooks(digest, l)
}

// Lock waits until no other process holds the store's lock called name, a file name, and takes it. waiting, which may
// be nil, is called once if it is held. The returned function lets go.
func (s *Store) Lock(ctx context.Context, name string, waiting func()) (unlock func(), err error) {
	if !isFileName(name) {
		return nil, fmt.Errorf("cannot lock %q: not a file name", name)
	}
	l, err := lockfile.Wait(ctx, filepath.Join(s.dir, "locks", name), waiting)
	if err != nil {
		return nil, err
	}
	return func() { l.Close() }, nil
}
