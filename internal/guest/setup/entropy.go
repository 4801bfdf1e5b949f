//go:build linux

package setup

import (
	"encoding/binary"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctl requests of /dev/urandom (linux/random.h).
const (
	rndAddEntropy = 0x40085203 // _IOW('R', 0x03, int[2])
	rndReseedCRNG = 0x5207     // _IO('R', 0x07)
)

// entropy mixes the host's bytes into the kernel's pool and has the random
// generator start afresh from it, so that VMs made from one snapshot differ.
func (s *setup) entropy() error {
	if len(s.Entropy) == 0 {
		return nil
	}
	f, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	// struct rand_pool_info: entropy_count in bits, buf_size in bytes, then the bytes.
	info := binary.NativeEndian.AppendUint32(nil, uint32(len(s.Entropy)*8)) //nolint:gosec // a few dozen
	info = binary.NativeEndian.AppendUint32(info, uint32(len(s.Entropy)))   //nolint:gosec // a few dozen
	info = append(info, s.Entropy...)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), rndAddEntropy, uintptr(unsafe.Pointer(&info[0]))); errno != 0 {
		return fmt.Errorf("cannot add entropy: %w", errno)
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), rndReseedCRNG, 0); errno != 0 {
		return fmt.Errorf("cannot reseed: %w", errno)
	}
	return nil
}
