package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"gondolin/internal/fingerprint"
)

// fingerprints maps absolute paths to how the files looked when their digests were right. A file that still looks so is
// not hashed again.
type fingerprints map[string]fingerprint.Fingerprint

// verify checks the files of m in dir against its digests.
func (s *Store) verify(ctx context.Context, digest, dir string, m *Manifest) error {
	seen := s.readLooks(digest)
	fresh := make(fingerprints)
	changed := false
	for _, f := range m.files() {
		path := filepath.Join(dir, f.Name)
		now, hashed, err := checkFile(ctx, path, f, seen[path])
		if err != nil {
			return err
		}
		fresh[path] = now
		changed = changed || hashed
	}
	if changed {
		return s.writeLooks(digest, fresh)
	}
	return nil
}

// checkFile opens path without following a link and compares it with want, by how it looks if that equals known,
// else by hashing it. hashed tells which.
func checkFile(ctx context.Context, path string, want File, known fingerprint.Fingerprint) (now fingerprint.Fingerprint, hashed bool, err error) {
	f, err := openRegular(path)
	if err != nil {
		return fingerprint.Fingerprint{}, false, err
	}
	defer f.Close()
	before, err := fingerprint.Of(f)
	if err != nil {
		return fingerprint.Fingerprint{}, false, err
	}
	if before.Size != want.Size {
		return fingerprint.Fingerprint{}, false, fmt.Errorf("cannot use image file %s: it has %d bytes, its manifest says %d", path, before.Size, want.Size)
	}
	if before == known {
		return before, false, nil
	}
	sum, err := hashFile(ctx, f)
	if err != nil {
		return fingerprint.Fingerprint{}, false, fmt.Errorf("cannot check image file %s: %w", path, err)
	}
	if sum != want.SHA256 {
		return fingerprint.Fingerprint{}, false, fmt.Errorf("cannot use image file %s: its sha256 is %s, its manifest says %s", path, sum, want.SHA256)
	}
	after, err := fingerprint.Of(f)
	if err != nil {
		return fingerprint.Fingerprint{}, false, err
	}
	if after != before {
		return fingerprint.Fingerprint{}, false, fmt.Errorf("cannot use image file %s: it changed while it was checked", path)
	}
	return after, true, nil
}

func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		if errors.Is(err, unix.ELOOP) {
			return nil, fmt.Errorf("cannot use image file %s: it is a symbolic link", path)
		}
		return nil, fmt.Errorf("cannot use image file: %w", err)
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("cannot use image file %s: not a regular file", path)
	}
	return f, nil
}

func hashFile(ctx context.Context, r io.Reader) (string, error) {
	hash := sha256.New()
	for {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		_, err := io.CopyN(hash, r, hashChunk)
		if errors.Is(err, io.EOF) {
			return hex.EncodeToString(hash.Sum(nil)), nil
		}
		if err != nil {
			return "", err
		}
	}
}

// readLooks returns what is remembered about an image's files; nothing, when the record is missing or unreadable,
// only costs a hash.
func (s *Store) readLooks(digest string) fingerprints {
	f, err := os.Open(s.looksPath(digest))
	if err != nil {
		return nil
	}
	defer f.Close()
	var l fingerprints
	if json.NewDecoder(io.LimitReader(f, maxVerifiedBytes)).Decode(&l) != nil {
		return nil
	}
	return l
}

func (s *Store) writeLooks(digest string, l fingerprints) error {
	data, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("cannot remember image check: %w", err)
	}
	err = writeAtomic(s.looksPath(digest), data)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) || errors.Is(err, unix.ENOSPC) {
		return nil // the image is good; the next start hashes again
	}
	return err
}

func (s *Store) looksPath(digest string) string {
	return filepath.Join(s.dir, "verified", strings.TrimPrefix(digest, digestPrefix))
}

// writeAtomic makes path hold data, or leaves it as it was.
func writeAtomic(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	defer func() {
		f.Close()
		if err != nil {
			_ = os.Remove(f.Name())
			err = fmt.Errorf("cannot write %s: %w", path, err)
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
