// Package qemu runs virtual machines as local QEMU processes.
//
// A Machine is a description: plain data that can be logged and compared. Args
// turns it into a command line without looking at the world, and Start makes a
// Process of it, which is a machine.Machine.
//
// QEMU gets no device but virtio ones and a serial console, no listening socket
// and no name in the file system: the streams, the monitor and the console are
// socketpairs whose far ends it inherits, disks (and on Linux the kernel and the
// initramfs) are open files. It runs with an empty environment, in the root
// directory, in its own process group, under its own seccomp filter on Linux, and
// there in the jail of package jail besides.
//
// # When the host program dies
//
// QEMU must not outlive the program that started it, however that ends. On Linux
// the kernel does it: the parent-death signal (PR_SET_PDEATHSIG in prctl(2)). It is
// tied to the thread that forked, so that thread is locked to a goroutine of package
// jail, which lives as long as QEMU and waits for it. Elsewhere there is no such signal and
// QEMU carries on when its monitor's connection closes, so a guard does it: a
// shell that waits for end-of-file on a pipe only the host program holds, and then
// kills QEMU. Between QEMU's start and the guard's learning its pid lie some
// microseconds in which SIGKILL to the host would leave QEMU behind.
package qemu
