package build

import "time"

const (
	// needBytes is what a build takes at its peak, 1.5 GiB: downloaded packages, the unpacked root, and the image of it.
	needBytes = 3 << 29
	// maxSourceBytes bounds each file with package sources; real ones have a few hundred bytes.
	maxSourceBytes = 1 << 20
	// outputTail is how much of the tools' output is kept to explain a failure.
	outputTail = 64 << 10
	// maxLine bounds a line of the tools' output: longer ones are cut.
	maxLine = 4 << 10
	// killDelay is how long a cancelled mmdebstrap has to unmount and clean up before it is killed.
	killDelay = 15 * time.Second
	// maxModuleBytes bounds a kernel module, which is parsed in memory; the largest of the needed ones has 0.5 MB.
	maxModuleBytes = 64 << 20
	// maxModules bounds the modules of a kernel that are looked at: distributions ship about four thousand.
	maxModules = 20000
)
