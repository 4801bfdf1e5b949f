package fsserver

// Bounds on what a guest can make the host hold. Config can change those that Limits names.
const (
	// maxWrite is the largest payload of READ and WRITE in bytes: 256 pages of 4 KiB, FUSE_MAX_MAX_PAGES of the kernels
	// before 6.13 and so the largest that all guests accept.
	maxWrite = 1 << 20
	// maxMessage is the longest request in bytes: a WRITE of maxWrite with its headers. It equals the pump's buffer.
	maxMessage = maxWrite + 8192
	// smallMessage separates the two sizes of pooled buffers, in bytes: most requests are names and numbers.
	smallMessage = 8192
	// replySmall is what replies without a requested size are charged, in bytes: the longest is a link's target.
	replySmall = 8192

	// defaultRequests bounds goroutines; max_background below is smaller, the rest are synchronous calls.
	defaultRequests = 128
	// defaultRequestBytes bounds buffers of requests and replies in flight: 16 of the largest pairs, in bytes.
	defaultRequestBytes = 32 << 20
	// minRequestBytes lets at least one request of any size through.
	minRequestBytes = 2*maxMessage + replySmall
	// defaultNodes bounds the node table, and the names in it: room for a large checkout, at about 400 bytes each.
	defaultNodes = 1 << 20
	// defaultHandles stays below common descriptor limits of host processes: a handle of a host file is a descriptor.
	defaultHandles = 4096
	// defaultDirEntries bounds the listings of all open directories together, at about 100 bytes each.
	defaultDirEntries = 1 << 19

	// minShrink is the least number of names for which memory is given back before all of them are gone.
	minShrink = 64

	// maxListings is how many directories of one mount are listed at once. A listing is counted against DirEntries when it
	// is complete, so this bounds what exists before it is counted.
	maxListings = 2

	// maxCopy bounds one COPY_FILE_RANGE in bytes, so that it ends in a moment; Linux asks again for the rest.
	maxCopy = 16 << 20

	// maxBackground is how many asynchronous requests (readahead, writes) the guest's kernel keeps in flight.
	maxBackground = 64
	// congestionThreshold is 3/4 of it, the kernel's own ratio.
	congestionThreshold = 48
	// minMinor is the oldest protocol minor accepted: 7.28 (Linux 4.20) has max_pages, and all structs have today's sizes.
	minMinor = 28
	// ourMinor is the protocol minor of the linux/fuse.h this was written from.
	ourMinor = 38
	// maxPanicLogs bounds how often a provider that panics is logged with its stack.
	maxPanicLogs = 16
)

// Limits bounds what one guest can make the host hold. Zero fields take defaults.
type Limits struct {
	// Requests is how many requests run at once. If zero, 128.
	Requests int
	// RequestBytes bounds the buffers of running requests. If zero, 32 MiB; at least about 2 MiB.
	RequestBytes int64
	// Nodes bounds what the guest's kernel remembers, files as well as names; beyond it lookups fail with ENOMEM. If zero, 1048576.
	Nodes int
	// Handles bounds open files and directories; beyond it opens fail with ENFILE. If zero, 4096.
	Handles int
	// DirEntries bounds the listings of open directories together, and each one alone; beyond it reading fails with
	// ENOMEM. If zero, 524288.
	DirEntries int
}

func (l Limits) withDefaults() Limits {
	if l.Requests <= 0 {
		l.Requests = defaultRequests
	}
	if l.RequestBytes <= 0 {
		l.RequestBytes = defaultRequestBytes
	}
	l.RequestBytes = max(l.RequestBytes, minRequestBytes)
	if l.Nodes <= 0 {
		l.Nodes = defaultNodes
	}
	if l.Handles <= 0 {
		l.Handles = defaultHandles
	}
	if l.DirEntries <= 0 {
		l.DirEntries = defaultDirEntries
	}
	return l
}
