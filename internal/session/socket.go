package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
)

// maxPath is the longest path every system takes in a socket's address: macOS's
// sun_path has 104 bytes with the final NUL, Linux's 108 (unix(7)).
const maxPath = 103

// address calls use with a path of the socket at path that fits an address. On
// Linux a longer one is reached through a descriptor of its directory.
func address(path string, use func(string) error) error {
	if len(path) <= maxPath {
		return use(path)
	}
	if runtime.GOOS != "linux" {
		return fmt.Errorf("cannot use socket %s: its path is longer than %d bytes; set GONDOLIN_HOME to a shorter one", path, maxPath)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return use(filepath.Join("/proc/self/fd", strconv.Itoa(int(dir.Fd())), filepath.Base(path)))
}

func listen(path string) (l *net.UnixListener, err error) {
	err = address(path, func(name string) (err error) {
		l, err = net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot listen for other processes: %w", err)
	}
	l.SetUnlinkOnClose(false) // its name changes
	return l, nil
}

func dial(ctx context.Context, path string) (conn net.Conn, err error) {
	err = address(path, func(name string) (err error) {
		conn, err = new(net.Dialer).DialContext(ctx, "unix", name)
		return err
	})
	return conn, err
}

// ownListener accepts connections of this process's user, and of root, only.
type ownListener struct{ *net.UnixListener }

// Accept implements net.Listener. A peer that may not speak is closed without a word.
func (l ownListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if checkPeer(conn) == nil {
			return conn, nil
		}
		_ = conn.Close() // it was not wanted
	}
}

// errPeer is a peer of another user.
var errPeer = errors.New("the peer belongs to another user")

func checkPeer(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var uid uint32
	var perr error
	if err := raw.Control(func(fd uintptr) { uid, perr = peerUser(int(fd)) }); err != nil {
		return err
	}
	switch {
	case perr != nil:
		return perr
	case uid != 0 && int64(uid) != int64(os.Geteuid()):
		return errPeer
	}
	return nil
}
