package fusepump

const (
	// maxPayload is the largest READ or WRITE in bytes; the host announces the same number as max_write.
	maxPayload = 1 << 20
	// bufferSize is the longest message in bytes. Linux wants a read buffer of at least max_write and its headers
	// (fuse_dev_do_read: fuse_in_header, fuse_write_in), and 8 KiB (FUSE_MIN_READ_BUFFER).
	bufferSize = maxPayload + 8192

	requestHeader = 40 // struct fuse_in_header
	replyHeader   = 16 // struct fuse_out_header
)
