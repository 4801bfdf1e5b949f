package fusepump

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gondolin/internal/testenv"
)

// fakeDev gives one message or error a read, and one error a write.
type fakeDev struct {
	reads  []any // []byte or error
	writes []error
	got    [][]byte
}

func (d *fakeDev) Read(p []byte) (int, error) {
	if len(d.reads) == 0 {
		return 0, unix.ENODEV
	}
	next := d.reads[0]
	d.reads = d.reads[1:]
	if err, ok := next.(error); ok {
		return 0, &os.PathError{Op: "read", Path: "/dev/fuse", Err: err}
	}
	b, _ := next.([]byte)
	return copy(p, b), nil
}

func (d *fakeDev) Write(p []byte) (int, error) {
	d.got = append(d.got, bytes.Clone(p))
	var err error
	if len(d.writes) > 0 {
		err, d.writes = d.writes[0], d.writes[1:]
	}
	return len(p), err
}

// framed returns a message whose first field is its length.
func framed(size int) []byte {
	b := bytes.Repeat([]byte{byte(size)}, size)
	binary.LittleEndian.PutUint32(b, uint32(size))
	return b
}

func TestPumpRequests(t *testing.T) {
	dev := &fakeDev{reads: []any{framed(40), unix.ENOENT, unix.EINTR, framed(bufferSize), unix.EAGAIN, framed(100)}}
	var port bytes.Buffer
	if err := pumpRequests(dev, &port); !errors.Is(err, unix.ENODEV) {
		t.Errorf("ended with %v", err)
	}
	want := append(append(framed(40), framed(bufferSize)...), framed(100)...)
	if !bytes.Equal(port.Bytes(), want) {
		t.Errorf("forwarded %d bytes, want %d", port.Len(), len(want))
	}
	wrong := framed(50)
	wrong[0]++
	if err := pumpRequests(&fakeDev{reads: []any{wrong}}, io.Discard); err == nil || errors.Is(err, unix.ENODEV) {
		t.Errorf("a wrong length: %v", err)
	}
}

func TestPumpReplies(t *testing.T) {
	stream := append(append(append(framed(16), framed(bufferSize)...), framed(17)...), framed(18)...)
	dev := &fakeDev{writes: []error{nil, unix.ENOENT, unix.EINVAL, nil}}
	err := pumpReplies(bytes.NewReader(stream), dev)
	if !errors.Is(err, io.EOF) {
		t.Errorf("ended with %v", err)
	}
	if len(dev.got) != 4 || len(dev.got[1]) != bufferSize || len(dev.got[3]) != 18 {
		t.Errorf("%d writes", len(dev.got))
	}
	for _, size := range []uint32{0, 15, bufferSize + 1, 1<<32 - 1} {
		bad := binary.LittleEndian.AppendUint32(nil, size)
		bad = append(bad, make([]byte, 64)...)
		dev := &fakeDev{}
		if err := pumpReplies(bytes.NewReader(bad), dev); err == nil || !strings.HasPrefix(err.Error(), "cannot forward") || len(dev.got) != 0 {
			t.Errorf("length %d: %v", size, err)
		}
	}
	if err := pumpReplies(bytes.NewReader(framed(16)), &fakeDev{writes: []error{unix.ENODEV}}); !errors.Is(err, unix.ENODEV) {
		t.Errorf("unmounted: %v", err)
	}
}

// TestMountPollable mounts often: a device that the poller met before it was mounted now and then cannot be read.
func TestMountPollable(t *testing.T) {
	testenv.NeedsRoot(t)
	testenv.NeedsFUSE(t)
	dir := t.TempDir()
	for i := range 200 {
		dev, err := Mount(dir)
		if err != nil {
			t.Fatal(err)
		}
		guest, host := net.Pipe()
		done := make(chan error, 1)
		go func() { done <- Run(dev, guest, new(Gate)) }()
		if err := host.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(host, make([]byte, requestHeader)); err != nil {
			t.Errorf("mount %d: no INIT: %v", i, err)
		}
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
		host.Close()
		if err := <-done; err != nil && strings.Contains(err.Error(), "pollable") {
			t.Errorf("mount %d: %v", i, err)
		}
		guest.Close()
		dev.Close()
	}
}

// TestRunEnds checks with the real device that Run ends, with both directions, when the port or the mount does.
func TestRunEnds(t *testing.T) {
	testenv.NeedsRoot(t)
	testenv.NeedsFUSE(t)
	testenv.CheckLeaks(t)
	dir := t.TempDir()
	dev, err := Mount(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	mounted := true
	defer func() {
		if mounted {
			unix.Unmount(dir, unix.MNT_DETACH)
		}
	}()
	guest, host := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- Run(dev, guest, new(Gate)) }()
	hello := make([]byte, requestHeader)
	if _, err := io.ReadFull(host, hello); err != nil { // the kernel's INIT
		t.Fatal(err)
	}
	host.Close()
	if err := <-done; err == nil {
		t.Error("the port failed, and Run did not say so")
	}
	guest.Close()

	guest, host = net.Pipe() // the device still works
	go func() { done <- Run(dev, guest, new(Gate)) }()
	mounted = false
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("unmounted: %v", err)
	}
	guest.Close()
	host.Close()
	if _, err := Mount(dir + "/missing"); err == nil || !strings.HasPrefix(err.Error(), "cannot mount FUSE") {
		t.Errorf("a missing target: %v", err)
	}
}
