package qemu

// readTSC returns the time-stamp counter (RDTSC, Intel SDM volume 2).
func readTSC() uint64

const hasTSC = true
