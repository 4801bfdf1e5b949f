package qemu

import "time"

const (
	mib = 1 << 20

	// minMemory is what the Debian kernel needs to unpack itself, an initramfs with
	// the agent, and to run the agent: 96 MiB boots, 128 leaves something to use.
	minMemory = 128 * mib
	// maxMemory is exclusive: the physical address width that every accelerator and
	// host CPU in use can map (40 bits).
	maxMemory = 1 << 40

	// maxCPUs keeps APIC ids within 8 bits, which is what a machine without
	// interrupt remapping can address, and TCG threads within reason.
	maxCPUs = 128
	// maxCPUsGICv2 is the number of interfaces a GICv2 has (ARM IHI 0048B, 1.2.1).
	maxCPUsGICv2 = 8

	// maxPath is Linux's PATH_MAX.
	maxPath = 4096
	// maxCmdline is COMMAND_LINE_SIZE of x86 and arm64 Linux, less its final NUL.
	maxCmdline = 2047

	// startDeadline is how long QEMU may take to answer its monitor: 40 ms when idle,
	// seconds when many start at once on a host that swaps.
	startDeadline = 20 * time.Second
	// closeDeadline is how long Close waits for a killed QEMU to be reaped: 6 ms when
	// idle; unmapping guests of many gigabytes takes longer.
	closeDeadline = 5 * time.Second
	// drainDeadline is how long the last output of a QEMU that is gone is waited for.
	// It is in socket buffers already; only something that inherited the
	// descriptors could hold it up.
	drainDeadline = time.Second

	// consoleBytes is how much of the guest's console is kept: a boot's messages and
	// then some. stderrBytes likewise for QEMU's own complaints.
	consoleBytes = 64 << 10
	stderrBytes  = 16 << 10

	// streamBuffer is asked for as the send buffer of both ends of a stream. Linux
	// caps it at net.core.wmem_max, 208 KiB by default, and macOS starts at 8 KiB,
	// too little for one maximal Ethernet frame burst.
	streamBuffer = 256 << 10

	// maxMonitorMessage bounds one line from the monitor. The largest reply known,
	// query-qmp-schema, is about 200 KiB; those in use are under 4 KiB.
	maxMonitorMessage = 1 << 20
	// maxMonitorText bounds what is shown of an error description from QEMU.
	maxMonitorText = 512
	// maxPending bounds the commands that wait for an answer at once.
	maxPending = 64
	// monitorDeadline bounds one command when ctx does not.
	monitorDeadline = 30 * time.Second

	// migrateDeadline bounds saving or loading a machine: the device state, a few hundred
	// KiB and milliseconds, or all of its memory where that is copied.
	migrateDeadline = 2 * time.Minute

	// copyBandwidth does not limit how fast a machine's memory is sent, in bytes per second.
	copyBandwidth = 1 << 40
	// copyPoll is how often QEMU is asked whether it is done.
	copyPoll = time.Millisecond
	// copyBuffer is what is moved at once.
	copyBuffer = 256 << 10
	// maxState bounds what a machine sends besides its memory, in bytes: the state of its
	// devices, and the number of each page.
	maxState = 1 << 30
	// cancelDeadline bounds giving a copy up.
	cancelDeadline = 5 * time.Second

	// baseFiles and filesPerCPU are the descriptors QEMU may have: 35 with everything
	// in use under emulation; KVM adds one for each virtual CPU and two for each queue.
	baseFiles   = 128
	filesPerCPU = 4
	// baseThreads are the threads it may have besides those of virtual CPUs: 64 workers
	// of the disk's thread pool, RCU, migration, and as many again.
	baseThreads = 128
	// overhead is the memory it may use besides the guest's, in bytes: its own is 60 MiB,
	// and the page cache it fills counts until it is reclaimed.
	overhead = 256 * mib
	// translations is what the emulator may use for translated code, in bytes: it takes an
	// eighth of the host's memory, at most 1 GiB.
	translations = 1024 * mib
	// maxStateBytes bounds the file a device state is saved to; it has a few hundred KiB.
	maxStateBytes = 64 * mib

	// minTSCInterval is over how long the host's time-stamp counter is measured at
	// least: 20 ms gives better than 10 ppm with clock reads of under 200 ns.
	minTSCInterval = 20 * time.Millisecond
	// tscStep rounds the rate, in kHz, so that two processes mostly agree: 100 kHz is
	// 50 ppm at 2 GHz, a tenth of what NTP may slew.
	tscStep = 100
	// maxTSCKHz is exclusive; no clock ticks at 20 GHz.
	maxTSCKHz = 20_000_000
)
