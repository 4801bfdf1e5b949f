// Package jail starts a program so that it can reach almost nothing of the host.
// It is made for QEMU, which is assumed to be attackable by its guest.
//
// A Config says what the program needs. New looks at what the host offers, Start
// runs the program inside, and a Report says which layers are active and why others
// are not. Layers, on Linux:
//
//   - no_new_privs (prctl(2)): set-uid programs and file capabilities give nothing.
//   - capabilities: none, and none to be had.
//   - user: a program started by root runs as a user id of its own, picked at random
//     from a range that nothing else uses, with no groups but those of its devices.
//   - landlock: it opens its own libraries and data, and the files handed to it, and
//     nothing else; it executes only itself; no TCP, no abstract sockets and no
//     signals outwards, where the kernel knows these.
//   - seccomp: no new sockets, no tracing, no signals to others, no mounts, no
//     namespaces, no change of modes and owners, no io_uring, … QEMU adds a filter of its own.
//   - limits: descriptors, file sizes, core dumps, and threads where it has its own user.
//   - cgroup: memory, processes and processor time, where a group may be made.
//
// None of this survives by trust in the program: all of it is set from outside,
// before its first instruction, but limits and version 1 cgroups, which are set
// before it is told of anything. A QEMU has no guest running by then.
//
// # The thread
//
// Everything but the user, the limits and the cgroup belongs to a thread and is
// inherited by what it forks. So the program is forked by a thread that first
// locks itself in. Its goroutine stays locked to it (runtime.LockOSThread) and lives
// as long as the program, because the parent-death signal hangs on that thread; then
// the thread ends with the goroutine. The runtime starts no thread from a locked one: it
// has a template thread do it (newm in runtime/proc.go), so nothing else of the host
// program gets locked in. The main thread, which cannot end, is never used.
//
// That thread is in the same Landlock domain as the program, which therefore may
// trace and signal it as far as Landlock is concerned. Hence seccomp refuses both.
//
// # Side effects
//
// When root's program gets a user of its own, the kernel marks the host program as not
// dumpable (PR_SET_DUMPABLE in prctl(2)), since the child changes users while it still
// shares the host program's memory. It is left so: a core dump would hold secrets.
//
// # What it does not hide
//
// stat(2), access(2) and readlink(2) are not subject to Landlock: the program can
// find out which files exist. Modes, owners, times and attributes it cannot change.
package jail
