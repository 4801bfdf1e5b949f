// Package fingerprint tells whether a file has changed: perhaps, without reading it, or
// for certain, by its digest.
package fingerprint

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Fingerprint is how a file looks from outside. A file that still looks the same
// has not been written to: its change time cannot be set back by anyone but root,
// and root could change the checker as well. It says nothing across a crash of the
// host, which may lose contents that were never synced.
type Fingerprint struct {
	Dev   uint64 `json:"dev"`
	Ino   uint64 `json:"ino"`
	Size  int64  `json:"size"` // bytes
	Mtime int64  `json:"mtime_ns"`
	Ctime int64  `json:"ctime_ns"`
}

// Of looks at an open file.
func Of(f *os.File) (Fingerprint, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return Fingerprint{}, fmt.Errorf("cannot look at %s: %w", f.Name(), err)
	}
	dev := uint64(st.Dev) //nolint:gosec,unconvert,nolintlint // int32 on macOS; only compared
	return Fingerprint{Dev: dev, Ino: st.Ino, Size: st.Size, Mtime: st.Mtim.Nano(), Ctime: st.Ctim.Nano()}, nil
}

// SHA256 reads the file at path, which must have at most limit bytes, and returns its
// digest in hex.
func SHA256(path string, limit int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(f, limit+1))
	if err != nil {
		return "", err
	}
	if n > limit {
		return "", fmt.Errorf("%s is larger than %d MiB", path, limit>>20)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
