package fsserver

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"gondolin/vfs"
)

// Config describes a server.
type Config struct {
	// Mounts are served as directories "0", "1", … of the FUSE root, by index.
	Mounts []vfs.FS
	// Logger receives what the guest's errno does not say. If nil, nothing is logged.
	Logger *slog.Logger
	// Limits bounds what the guest can make the host hold; zero fields take defaults.
	Limits Limits
}

// Server serves one guest over one connection.
type Server struct {
	log     *slog.Logger
	limits  Limits
	mounts  []*mount
	table   *table
	handles *handles
	bytes   *semaphore.Weighted
	slots   *semaphore.Weighted
	workers sync.WaitGroup
	panics  atomic.Int64
	started atomic.Bool

	settings atomic.Pointer[Settings] // nil before INIT

	writeMu  sync.Mutex // serialises replies; guards writeErr
	conn     io.ReadWriteCloser
	writeErr error
}

// New returns a server; it starts nothing.
func New(cfg Config) *Server {
	l := cfg.Limits.withDefaults()
	s := &Server{
		log: cfg.Logger, limits: l, handles: newHandles(l),
		bytes: semaphore.NewWeighted(l.RequestBytes), slots: semaphore.NewWeighted(int64(l.Requests)),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	for i, f := range cfg.Mounts {
		m := &mount{index: i, fs: f, cache: vfs.SharedCache(), lists: make(chan struct{}, maxListings)}
		if c, ok := f.(vfs.Cacher); ok {
			m.cache = c.Cache()
		}
		s.mounts = append(s.mounts, m)
	}
	s.table = newTable(s.mounts, l.Nodes)
	return s
}

// Settings returns what INIT agreed on; false before INIT.
func (s *Server) Settings() (Settings, bool) {
	p := s.settings.Load()
	if p == nil {
		return Settings{}, false
	}
	return *p, true
}

// Run serves conn until it ends (nil), breaks or misbehaves, or ctx is done. It closes conn, waits for running
// requests and closes all files. A server runs once.
func (s *Server) Run(ctx context.Context, conn io.ReadWriteCloser) error {
	if s.started.Swap(true) {
		conn.Close()
		return errors.New("cannot run a file server twice")
	}
	s.conn = conn
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	err := s.readAll(ctx, bufio.NewReaderSize(conn, 64<<10))
	conn.Close()
	s.workers.Wait()
	s.closeAll()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case s.writeErr != nil:
		return fmt.Errorf("cannot reply to guest: %w", s.writeErr)
	case errors.Is(err, io.EOF):
		return nil
	}
	return err
}

// request is one message from the guest.
type request struct {
	header
	in  *buffer
	dec decoder // of the body
	out encoder // the reply, with room for its header

	outBuf  *buffer
	noReply bool
}

// readAll reads messages and hands them to goroutines. Only it takes from the semaphores, so it cannot deadlock:
// what it waits for is given back by requests that need nothing more.
func (s *Server) readAll(ctx context.Context, r *bufio.Reader) error {
	var head [headerSize]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return readError(err)
		}
		h, err := parseHeader(head[:])
		if err != nil {
			return err
		}
		if s.settings.Load() == nil && h.op != opInit {
			return fmt.Errorf("cannot accept FUSE opcode %d before INIT", h.op)
		}
		if h.op == opRest {
			if err := s.answerRest(h); err != nil {
				return err
			}
			continue
		}
		// The reply is charged in full before the body says how long it will be.
		cost := bufferCost(int(h.length)) + replyCost(h.op)
		if err := s.acquire(ctx, cost); err != nil {
			return err
		}
		req := &request{header: h, in: newBuffer(int(h.length))}
		body := req.in.data[:h.length-headerSize]
		if _, err := io.ReadFull(r, body); err != nil {
			req.in.free()
			s.giveBack(cost)
			return readError(err)
		}
		req.dec.b = body
		if h.op == opInit {
			err := s.handleInit(req)
			s.giveBack(cost)
			if err != nil {
				return err
			}
			continue
		}
		s.workers.Add(1)
		go s.work(req, cost)
	}
}

// readError keeps the end of the stream between messages apart from one inside a message.
func readError(err error) error {
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	return fmt.Errorf("cannot read FUSE message: %w", err)
}

func (s *Server) acquire(ctx context.Context, cost int64) error {
	if err := s.slots.Acquire(ctx, 1); err != nil {
		return err
	}
	if err := s.bytes.Acquire(ctx, cost); err != nil {
		s.slots.Release(1)
		return err
	}
	return nil
}

func (s *Server) giveBack(cost int64) {
	s.bytes.Release(cost)
	s.slots.Release(1)
}

// replyCost is the most that a reply can take, in bytes.
func replyCost(op opcode) int64 {
	switch op {
	case opRead, opReaddir, opReaddirplus:
		return maxMessage
	case opCopyRange:
		return maxMessage + replySmall // what is copied may pass through a buffer
	default:
		return replySmall
	}
}

// handleInit answers INIT, once.
func (s *Server) handleInit(req *request) error {
	defer req.in.free()
	agreed, err := negotiate(req.dec.b)
	if err != nil {
		return err
	}
	if !s.settings.CompareAndSwap(nil, &agreed) {
		return errors.New("cannot accept a second FUSE INIT")
	}
	req.start(initOutSize)
	defer req.outBuf.free()
	req.out.init(agreed)
	s.reply(req, 0)
	return nil
}

// start gets the reply's buffer, with room for size bytes after the header.
func (r *request) start(size int) {
	r.outBuf = newBuffer(replyHeaderSize + size)
	r.out.b = r.outBuf.data[:replyHeaderSize]
}

// work serves one request.
func (s *Server) work(req *request, cost int64) {
	defer s.workers.Done()
	defer s.giveBack(cost)
	defer req.in.free()
	req.start(req.replySize())
	defer req.outBuf.free()
	errno := s.dispatch(req)
	if !req.noReply {
		s.reply(req, errno)
	}
}

// replySize is how much a reply needs.
func (r *request) replySize() int {
	if replyCost(r.op) != maxMessage {
		return replySmall - replyHeaderSize
	}
	peek := decoder{b: r.dec.b} // fuse_read_in: fh, offset, size
	peek.skip(16)
	return int(min(peek.u32(), maxWrite))
}

// dispatch runs the handler. What a provider panics with, or the error that it returns, costs this request EIO.
func (s *Server) dispatch(req *request) (errno vfs.Errno) {
	defer func() {
		if v := recover(); v != nil {
			s.logPanic(req.op, v)
			errno = vfs.EIO
		}
	}()
	handler, ok := handlers[req.op]
	if !ok {
		return vfs.ENOSYS
	}
	return vfs.ErrnoOf(handler(s, req))
}

func (s *Server) logPanic(op opcode, v any) {
	if s.panics.Add(1) <= maxPanicLogs {
		s.log.Error("file provider panicked", "opcode", uint32(op), "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	}
}

// reply sends struct fuse_out_header and the payload in one write.
func (s *Server) reply(req *request, errno vfs.Errno) {
	if errno != 0 {
		req.out.b = req.out.b[:replyHeaderSize]
	}
	le := binary.LittleEndian
	le.PutUint32(req.out.b, uint32(len(req.out.b))) //nolint:gosec // G115: bounded by maxMessage.
	le.PutUint32(req.out.b[4:], -uint32(errno))
	le.PutUint64(req.out.b[8:], req.unique)
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	if s.writeErr != nil {
		return
	}
	if _, err := s.conn.Write(req.out.b); err != nil {
		s.writeErr = err
		s.conn.Close() // ends readAll
	}
}

// buffer is pooled memory for one message.
type buffer struct{ data []byte }

var (
	smallBuffers = sync.Pool{New: func() any { return &buffer{make([]byte, smallMessage)} }}
	largeBuffers = sync.Pool{New: func() any { return &buffer{make([]byte, maxMessage)} }}
)

// bufferCost is what newBuffer takes, in bytes.
func bufferCost(size int) int64 {
	if size <= smallMessage {
		return smallMessage
	}
	return maxMessage
}

// newBuffer returns a buffer of at least size bytes, at most maxMessage, with arbitrary content.
func newBuffer(size int) *buffer {
	pool := &largeBuffers
	if size <= smallMessage {
		pool = &smallBuffers
	}
	b, ok := pool.Get().(*buffer)
	if !ok {
		return &buffer{make([]byte, maxMessage)}
	}
	return b
}

// free returns the buffer to its pool.
func (b *buffer) free() {
	if len(b.data) == smallMessage {
		smallBuffers.Put(b)
		return
	}
	largeBuffers.Put(b)
}
