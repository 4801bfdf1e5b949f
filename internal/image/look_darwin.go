package image

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func lookAt(f *os.File) (look, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return look{}, fmt.Errorf("cannot look at image file %s: %w", f.Name(), err)
	}
	dev := uint64(uint32(st.Dev)) //nolint:gosec // a device number is only compared; its sign means nothing
	return look{Dev: dev, Ino: st.Ino, Size: st.Size, Mtime: st.Mtim.Nano(), Ctime: st.Ctim.Nano()}, nil
}
