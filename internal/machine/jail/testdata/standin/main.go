// Command standin tries, in place of QEMU, what a captured QEMU would try, and
// prints a line for each: the name, and "done" or the error.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"
)

// Descriptors that it is given.
const (
	goFD     = 3 // ends when the attempts may begin
	sharedFD = 4 // a file it may open anew
)

func main() {
	runtime.LockOSThread() // ptrace(2) belongs to a thread
	signal.Ignore(syscall.SIGXFSZ)
	_, _ = io.ReadAll(os.NewFile(goFD, "go"))
	victim, _ := strconv.Atoi(os.Args[2])
	for _, a := range attempts(os.Args[1], victim) {
		result := "done"
		if err := a.try(); err != nil {
			result = err.Error()
		}
		fmt.Printf("%s: %s\n", a.name, result)
	}
}

type attempt struct {
	name string
	try  func() error
}

// attempts works in dir, where the test has put things, and on the process victim.
func attempts(dir string, victim int) []attempt {
	at := func(name string) string { return filepath.Join(dir, name) }
	shared := fmt.Sprintf("/proc/self/fd/%d", sharedFD)
	list := []attempt{
		{"own file", func() error { return mapFile(shared, syscall.MAP_PRIVATE) }},
		{"own library", func() error { return open("/etc/ld.so.cache", os.O_RDONLY) }},
		{"own thread", func() error { return call(syscall.SYS_TGKILL, os.Getpid(), syscall.Gettid(), int(syscall.SIGURG)) }},

		{"read a home", func() error { return open(at("secret"), os.O_RDONLY) }},
		{"read /etc/shadow", func() error { return open("/etc/shadow", os.O_RDONLY) }},
		{"read /etc/passwd", func() error { return open("/etc/passwd", os.O_RDONLY) }},
		{"list /root", func() error { _, err := os.ReadDir("/root"); return err }},
		{"list a home", func() error { _, err := os.ReadDir(dir); return err }},
		{"read /proc/1/environ", func() error { return open("/proc/1/environ", os.O_RDONLY) }},
		{"read own memory", func() error { return open("/proc/self/mem", os.O_RDONLY) }},
		{"create a file", func() error { return open(at("new"), os.O_CREATE|os.O_WRONLY) }},
		{"truncate", func() error { return os.Truncate(at("open"), 0) }},
		{"change a mode", func() error { return os.Chmod(at("open"), 0o666) }},
		{"remove", func() error { return os.Remove(at("victim")) }},
		{"link", func() error { return os.Symlink("x", at("link")) }},
		{"write to the shared file", func() error { return write(shared) }},
		{"map the shared file", func() error { return mapFile(shared, syscall.MAP_SHARED) }},
		{"cut the shared file", func() error { return cut(shared) }},

		{"connect by TCP", func() error { return dial("tcp", os.Args[3]) }},
		{"connect to a socket", func() error { return dial("unix", at("socket")) }},
		{"connect to an abstract socket", func() error { return dial("unix", os.Args[4]) }},
		{"send UDP", func() error { return dial("udp", os.Args[3]) }},
		{"listen", listen},

		{"execute a shell", func() error { return exec.Command("/bin/sh", "-c", "exit 0").Run() }},
		{"make a file in memory", func() error { return call(sysMemfdCreate, text("x"), 0, 0) }},
		{"trace another", func() error { return trace(victim) }},
		{"trace the parent", func() error { return trace(os.Getppid()) }},
		{"read another's memory", func() error { return readMemory(victim) }},
		{"signal another", func() error { return syscall.Kill(victim, syscall.SIGCONT) }},
		{"signal the parent", func() error { return syscall.Kill(os.Getppid(), syscall.SIGCONT) }},
		{"signal another's thread", func() error { return call(syscall.SYS_TGKILL, victim, victim, int(syscall.SIGCONT)) }},
		{"limit another", func() error { return limitOther(victim) }},

		{"mount", func() error { return syscall.Mount("none", dir, "tmpfs", 0, "") }},
		{"make a namespace", func() error { return call(syscall.SYS_UNSHARE, syscall.CLONE_NEWUTS, 0, 0) }},
		{"io_uring", func() error { return call(sysIOUringSetup, 1, text(string(make([]byte, 256))), 0) }},
		{"become root", func() error { return becomeRoot() }},
		{"many files", manyFiles},
	}
	return list
}

// sysIOUringSetup has this number on every architecture.
const sysIOUringSetup = 425

func open(path string, flags int) error {
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

func write(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt([]byte("x"), 0)
	return err
}

func mapFile(path string, how int) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := syscall.Mmap(int(f.Fd()), 0, 4096, syscall.PROT_READ|syscall.PROT_WRITE, how)
	if err != nil {
		return err
	}
	b[0] = 'x'
	return syscall.Munmap(b)
}

func cut(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Truncate(8192)
}

func dial(network, address string) error {
	c, err := net.Dial(network, address)
	if err != nil {
		return err
	}
	defer c.Close()
	if network == "udp" {
		_, err = c.Write([]byte("x"))
	}
	return err
}

func listen() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	return l.Close()
}

func call(nr uintptr, a, b, c int) error {
	if _, _, errno := syscall.Syscall(nr, uintptr(a), uintptr(b), uintptr(c)); errno != 0 {
		return errno
	}
	return nil
}

var kept [][]byte

// text returns the address of a string, which stays.
func text(s string) int {
	b := append([]byte(s), 0)
	kept = append(kept, b)
	return int(uintptr(unsafe.Pointer(&b[0])))
}

func trace(pid int) error {
	if err := syscall.PtraceAttach(pid); err != nil {
		return err
	}
	var status syscall.WaitStatus
	_, _ = syscall.Wait4(pid, &status, syscall.WALL, nil)
	return syscall.PtraceDetach(pid)
}

func readMemory(pid int) error {
	// With nothing to read, only the permission is checked.
	_, _, errno := syscall.Syscall6(sysProcessVMReadv, uintptr(pid), 0, 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func limitOther(pid int) error {
	old := make([]uint64, 2)
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(pid), syscall.RLIMIT_CORE, 0, uintptr(unsafe.Pointer(&old[0])), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func becomeRoot() error {
	const all = ^0
	_, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, 0, 0, uintptr(all&0xffffffff))
	if errno != 0 {
		return errno
	}
	return call(syscall.SYS_CHROOT, text("/"), 0, 0) // root without capabilities is none
}

// manyFiles fails if it cannot have 1000 descriptors.
func manyFiles() error {
	for range 1000 {
		if _, err := syscall.Dup(0); err != nil {
			return err
		}
	}
	return nil
}
