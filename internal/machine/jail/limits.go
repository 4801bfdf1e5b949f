package jail

const (
	// firstUser and users are a range of user and group ids that distributions, user
	// managers and containers leave alone: systemd's "Users, Groups, UIDs and GIDs" ends
	// at 0x6fffffff and goes on at 0x7ffe0000. Picked at random, two of 1000 programs
	// share an id with a probability of 0.2 %, and are still apart by Landlock.
	firstUser = 0x70000000
	users     = 0x0ffe0000
	// nobody is the kernel's overflow id, which stands for all that have none.
	nobody = 65534

	// maxCopy bounds a file that is copied into memory: a kernel or an initramfs.
	maxCopy = 512 << 20

	// sharedWindow is the largest shared mapping of a file that a program which may not
	// change files can make, in bytes, if its devices need one: a virtual CPU's of KVM
	// takes three pages of 4 KiB, or of 16.
	sharedWindow = 64 << 10

	// cpuPeriod is the kernel's default for cpu.max and cpu.cfs_period_us, in µs.
	cpuPeriod = 100_000

	// maxProcFile bounds what is read of a file of /proc or of a cgroup, in bytes.
	maxProcFile = 1 << 20
	// maxHead bounds what is read of a script for its first line, in bytes; the kernel
	// looks at 256 (BINPRM_BUF_SIZE).
	maxHead = 256
)
