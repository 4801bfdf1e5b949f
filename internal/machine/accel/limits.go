package accel

import "time"

const (
	// probeDeadline is how long the trial boot may take unless the caller says
	// otherwise. With an accelerator that works the agent answers in under a second,
	// on a busy nested host in a few; one that hangs never does.
	probeDeadline = 15 * time.Second

	// worksFor and failsFor are how long a verdict is believed. What works seldom
	// breaks without a new kernel, QEMU or image, each of which has a verdict of its
	// own; what failed may have failed because the host was overloaded.
	worksFor = 30 * 24 * time.Hour
	failsFor = 24 * time.Hour

	// maxVerdicts bounds the cache file: images times QEMU versions in use on a host.
	maxVerdicts = 64

	// maxCacheBytes bounds what is read back; 64 verdicts take about 40 KiB.
	maxCacheBytes = 256 << 10

	// maxWhy bounds the reason kept with a verdict, in bytes. It ends with guest console text.
	maxWhy = 400
)
