package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Limits of the protocol. The peers are the user's own processes; the limits are
// there for the ones that are broken.
const (
	// MaxBody is the most bytes of a message.
	MaxBody = 1 << 20

	maxHead     = 16 << 10
	headTimeout = 10 * time.Second
	idleTimeout = time.Minute
)

// Server is one session, seen from its owner.
type Server struct {
	// ID is the session's, and never another's.
	ID string

	registry *Registry
	listener *net.UnixListener
}

// Listen makes the socket of the session id, 12 random hex digits. It is not found
// before [Server.Publish]. The caller closes it.
func (r *Registry) Listen(id string) (*Server, error) {
	if !validID(id) {
		return nil, fmt.Errorf("cannot make a session with the ID %q: not 12 hex digits", id)
	}
	s := &Server{ID: id, registry: r}
	var err error
	if s.listener, err = listen(s.hiddenPath()); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Server) hiddenPath() string { return filepath.Join(s.registry.dir, hidden+s.ID+suffix) }

// Publish lets the session be found, unless another has its name. The name may be empty.
func (s *Server) Publish(ctx context.Context, name string) error {
	lock, err := s.registry.lock(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	if name != "" {
		list, err := s.registry.List(ctx)
		if err != nil {
			return err
		}
		for _, other := range list {
			if other.Name == name {
				return fmt.Errorf("cannot name the session %q: session %s has this name", name, other.ID)
			}
		}
	}
	if err := os.Rename(s.hiddenPath(), s.registry.path(s.ID)); err != nil {
		return fmt.Errorf("cannot publish the session: %w", err)
	}
	return nil
}

// Serve answers with routes, whose keys are paths, until ctx is done, which is no
// error. It ends requests that are under way then, waits for them, and removes the
// socket.
func (s *Server) Serve(ctx context.Context, routes map[string]http.Handler, log *slog.Logger) error {
	defer func() { _ = s.Close() }() // the next list removes what stays
	mux := http.NewServeMux()
	for path, h := range routes {
		mux.Handle("POST "+path, h)
	}
	var requests sync.WaitGroup
	defer requests.Wait()
	counted := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		defer requests.Done()
		mux.ServeHTTP(w, r)
	})
	server := &http.Server{
		Handler: counted, ReadHeaderTimeout: headTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHead,
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	err := server.Serve(ownListener{s.listener})
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("cannot serve other processes: %w", err)
}

// Close ends the session's socket. It is idempotent.
func (s *Server) Close() error {
	err := s.listener.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	for _, path := range []string{s.hiddenPath(), s.registry.path(s.ID)} {
		if rerr := os.Remove(path); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return err
}

// refusal is the body of an answer that is none.
type refusal struct {
	Error string `json:"error"`
}

// JSON makes an operation of a function: one message in, one out. An error becomes
// a refusal. ctx ends when the client goes.
func JSON[In, Out any](serve func(ctx context.Context, in In) (Out, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in In
		decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, MaxBody))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&in); err != nil {
			answer(w, http.StatusBadRequest, refusal{"cannot read the request: " + err.Error()})
			return
		}
		out, err := serve(r.Context(), in)
		if err != nil {
			answer(w, http.StatusConflict, refusal{err.Error()})
			return
		}
		answer(w, http.StatusOK, out)
	})
}

// Then is h, and then, once its answer is on its way, a call of after.
func Then(h http.Handler, after func()) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r)
		_ = http.NewResponseController(w).Flush() // the client may be gone
		after()
	})
}

// Refuse answers a streamed operation that could not begin.
func Refuse(w http.ResponseWriter, err error) { answer(w, http.StatusConflict, refusal{err.Error()}) }

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	raw, err := json.Marshal(body)
	if err != nil {
		status, raw = http.StatusInternalServerError, []byte(`{"error":"cannot write the answer"}`)
	}
	w.WriteHeader(status)
	_, _ = w.Write(raw) // the client may be gone
}

// drained reads what is left of a body, within bounds, so that its connection can be used again.
func drained(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, MaxBody) // closing ends the connection if more is left
	_ = body.Close()
}
