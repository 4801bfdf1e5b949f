// Package fingerprint tells whether a file may have changed without reading it.
package fingerprint

import (
	"fmt"
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
