//go:build linux

package setup

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// device is the guest's network interface: the only one the VM has.
const device = "eth0"

// network brings up lo, and eth0 as the host says: its address plan is fixed,
// so there is nothing to negotiate.
func (s *setup) network() error {
	if s.prepared.network != nil && s.Network != nil && *s.prepared.network == *s.Network {
		return nil
	}
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(sock)
	if err := up(sock, "lo"); err != nil {
		return err
	}
	n := s.Network
	if n == nil {
		return nil
	}
	prefix, err := netip.ParsePrefix(n.Address)
	if err != nil || !prefix.Addr().Is4() {
		return fmt.Errorf("address %q is not an IPv4 prefix", n.Address)
	}
	gateway, err := netip.ParseAddr(n.Gateway)
	if err != nil || !gateway.Is4() {
		return fmt.Errorf("gateway %q is not an IPv4 address", n.Gateway)
	}
	if err := address(sock, prefix, n.MTU); err != nil {
		return err
	}
	if err := up(sock, device); err != nil {
		return err
	}
	if err := defaultRoute(gateway); err != nil {
		return err
	}
	return write("/etc/resolv.conf", "nameserver "+n.DNS+"\n")
}

// ifreq runs one interface ioctl (netdevice(7)).
func ifreq(sock int, name string, request uint, set func(*unix.Ifreq) error) error {
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := set(r); err != nil {
		return err
	}
	if err := unix.IoctlIfreq(sock, request, r); err != nil {
		return fmt.Errorf("cannot configure %s: %w", name, err)
	}
	return nil
}

func up(sock int, name string) error {
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(sock, unix.SIOCGIFFLAGS, r); err != nil {
		return fmt.Errorf("cannot read the flags of %s: %w", name, err)
	}
	flags := r.Uint16()
	return ifreq(sock, name, unix.SIOCSIFFLAGS, func(r *unix.Ifreq) error {
		r.SetUint16(flags | unix.IFF_UP)
		return nil
	})
}

func address(sock int, prefix netip.Prefix, mtu int) error {
	addr := prefix.Addr().As4()
	err := ifreq(sock, device, unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr(addr[:]) })
	if err != nil {
		return err
	}
	mask := binary.BigEndian.AppendUint32(nil, ^uint32(0)<<(32-prefix.Bits()))
	err = ifreq(sock, device, unix.SIOCSIFNETMASK, func(r *unix.Ifreq) error { return r.SetInet4Addr(mask) })
	if err != nil || mtu == 0 {
		return err
	}
	return ifreq(sock, device, unix.SIOCSIFMTU, func(r *unix.Ifreq) error {
		r.SetUint32(uint32(mtu)) //nolint:gosec // the kernel checks it
		return nil
	})
}

// rtentry is struct rtentry of linux/route.h on 64-bit machines.
type rtentry struct {
	_                  uintptr
	dst, gateway, mask unix.RawSockaddrInet4
	flags              uint16
	_                  int16
	_                  [4]byte
	_                  uintptr
	_                  uintptr
	metric             int16
	_                  [6]byte
	dev                *byte
	mtu, window        uintptr
	irtt               uint16
	_                  [6]byte
}

// defaultRoute sends everything to gateway (SIOCADDRT, route(7)).
func defaultRoute(gateway netip.Addr) error {
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(sock)
	any4 := unix.RawSockaddrInet4{Family: unix.AF_INET}
	route := rtentry{
		dst: any4, mask: any4, gateway: unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: gateway.As4()},
		flags: unix.RTF_UP | unix.RTF_GATEWAY,
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(sock), unix.SIOCADDRT, uintptr(unsafe.Pointer(&route))); errno != 0 {
		return fmt.Errorf("cannot add the default route: %w", errno)
	}
	return nil
}
