package session_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"gondolin/internal/testenv"
)

// Another user who gets at the socket, which takes a directory left open, is
// hung up on without an answer.
func TestForeignPeer(t *testing.T) {
	testenv.NeedsRoot(t)
	r, dir := open(t)
	serve(t, r, first, "", nil)
	path := filepath.Join(dir, first+".sock")
	for at := dir; at != "/tmp" && at != "/"; at = filepath.Dir(at) {
		if err := os.Chmod(at, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	const request = "POST /info HTTP/1.1\r\nHost: session\r\nContent-Length: 2\r\n\r\n{}"
	for uid, want := range map[int]bool{0: true, 54321: false} {
		answered, err := askAs(uid, path, request)
		if err != nil || answered != want {
			t.Errorf("user %d is answered: %v, want %v (%v)", uid, answered, want, err)
		}
	}
}

// askAs connects as the user uid, which is this thread's alone, and reports
// whether there was an answer.
func askAs(uid int, path, request string) (answered bool, err error) {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its user id
		result <- func() error {
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
				return errno
			}
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
				return err
			}
			if _, err := unix.Write(fd, []byte(request)); err != nil && !errors.Is(err, unix.EPIPE) {
				return err
			}
			n, err := unix.Read(fd, make([]byte, 512))
			answered = n > 0
			if errors.Is(err, unix.ECONNRESET) || errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}()
	}()
	return answered, <-result
}
