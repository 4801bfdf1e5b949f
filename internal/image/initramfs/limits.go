package initramfs

import "time"

const (
	// maxFileSize is 256 MiB: far above any agent or module, far below what the 32-bit size field could say, and small
	// enough for the smallest guest to unpack.
	maxFileSize = 256 << 20
	// maxName is the kernel's PATH_MAX; longer names are skipped silently by its unpacker.
	maxName = 4095
	// maxComposed is how many composed archives stay in the cache besides recent ones: every agent build adds one.
	maxComposed = 8
	// composedAge is how long an archive stays however many there are: a start or template may be about to read it.
	composedAge = 24 * time.Hour
)
