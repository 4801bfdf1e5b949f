package session_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gondolin/internal/session"
	"gondolin/internal/testenv"
)

const (
	first  = "0123456789ab"
	second = "0123ffffffff"
)

// open returns a registry in a directory of its own.
func open(t *testing.T) (*session.Registry, string) {
	t.Helper()
	testenv.CheckLeaks(t)
	dir := filepath.Join(t.TempDir(), "sessions")
	r, err := session.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return r, dir
}

// serve runs a session until the test, or the function it returns, ends it.
func serve(t *testing.T, r *session.Registry, id, name string, routes map[string]http.Handler) (stop func()) {
	t.Helper()
	s, err := r.Listen(id)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	if routes == nil {
		routes = map[string]http.Handler{}
	}
	routes[session.InfoPath] = session.JSON(func(context.Context, session.Empty) (session.Info, error) {
		return session.Info{ID: "lies", Name: name, State: session.Running}, nil
	})
	go func() { served <- s.Serve(ctx, routes, slog.New(slog.DiscardHandler)) }()
	stop = func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		served <- nil
	}
	t.Cleanup(stop)
	if err := s.Publish(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	return stop
}

func TestList(t *testing.T) {
	r, dir := open(t)
	stop := serve(t, r, first, "one", nil)
	serve(t, r, second, "", nil)
	list, err := r.List(t.Context())
	if err != nil || len(list) != 2 {
		t.Fatalf("list %v, %v", list, err)
	}
	for _, info := range list {
		if info.ID != first && info.ID != second {
			t.Errorf("a session chose its ID: %v", info)
		}
	}
	stop()
	if list, err = r.List(t.Context()); err != nil || len(list) != 1 || list[0].ID != second {
		t.Fatalf("after one ended: %v, %v", list, err)
	}
	if entries, _ := filepath.Glob(filepath.Join(dir, "*.sock")); len(entries) != 1 {
		t.Errorf("sockets left: %v", entries)
	}
}

func TestFind(t *testing.T) {
	r, _ := open(t)
	serve(t, r, first, "one", nil)
	serve(t, r, second, "0123", nil)
	for name, want := range map[string]string{"one": first, first: first, "01234": first, "0123": second, "0123f": second} {
		c, info, err := r.Find(t.Context(), name)
		if err != nil || info.ID != want {
			t.Errorf("Find(%q) = %v, %v; want %s", name, info.ID, err, want)
			continue
		}
		c.Close()
	}
	for name, text := range map[string]string{"": "no such session", "two": "no such session", "012": "begin with it"} {
		if _, _, err := r.Find(t.Context(), name); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("Find(%q): %v, want %q", name, err, text)
		}
	}
}

func TestNamesAreUnique(t *testing.T) {
	r, _ := open(t)
	serve(t, r, first, "one", nil)
	s, err := r.Listen(second)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Publish(t.Context(), "one"); err == nil || !strings.Contains(err.Error(), first) {
		t.Fatalf("a second session of the name: %v", err)
	}
	if err := s.Publish(t.Context(), "two"); err != nil {
		t.Fatal(err)
	}
}

// A socket nobody listens on is what a killed process leaves.
func TestDeadOnesAreSwept(t *testing.T) {
	r, dir := open(t)
	leave := func(name string, age time.Duration) string {
		path := filepath.Join(dir, name)
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		l.Close()
		if err := os.Chtimes(path, time.Time{}, time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	dead, starting := leave(first+".sock", 0), leave("."+second+".sock", 0)
	forgotten := leave("."+first+".sock", 25*time.Hour)
	foreign := filepath.Join(dir, "notes.sock")
	if err := os.WriteFile(foreign, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if list, err := r.List(t.Context()); err != nil || len(list) != 0 {
		t.Fatalf("list %v, %v", list, err)
	}
	for path, want := range map[string]bool{dead: false, forgotten: false, starting: true, foreign: true} {
		if _, err := os.Lstat(path); (err == nil) != want {
			t.Errorf("%s there: %v, want %v", filepath.Base(path), err == nil, want)
		}
	}
}

// One that does not answer costs the list no more than its time.
func TestUnresponsive(t *testing.T) {
	r, dir := open(t)
	serve(t, r, second, "", nil)
	l, err := net.Listen("unix", filepath.Join(dir, first+".sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	list, err := r.List(t.Context())
	if err != nil || len(list) != 2 {
		t.Fatalf("list %v, %v", list, err)
	}
	for _, info := range list {
		if want := map[string]string{first: session.Unresponsive, second: session.Running}[info.ID]; info.State != want {
			t.Errorf("%s is %q, want %q", info.ID, info.State, want)
		}
	}
}

func TestCall(t *testing.T) {
	type message struct {
		Text string `json:"text"`
	}
	r, _ := open(t)
	started, gone := make(chan struct{}), make(chan struct{})
	stop := serve(t, r, first, "", map[string]http.Handler{
		"/echo": session.JSON(func(_ context.Context, in message) (message, error) { return in, nil }),
		"/fail": session.JSON(func(context.Context, session.Empty) (message, error) { return message{}, errors.New("no room") }),
		"/wait": session.JSON(func(ctx context.Context, _ session.Empty) (message, error) {
			close(started)
			<-ctx.Done()
			close(gone)
			return message{}, ctx.Err()
		}),
	})
	c, _, err := r.Find(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var out message
	if err := c.Call(t.Context(), "/echo", message{"hello"}, &out); err != nil || out.Text != "hello" {
		t.Errorf("echo: %q, %v", out.Text, err)
	}
	var refused *session.RefusedError
	if err := c.Call(t.Context(), "/fail", session.Empty{}, &out); !errors.As(err, &refused) || refused.Text != "no room" {
		t.Errorf("fail: %v", err)
	}
	if err := c.Call(t.Context(), "/later", session.Empty{}, &out); !errors.As(err, &refused) || !refused.Unknown {
		t.Errorf("an operation of another build: %v", err)
	}
	if err := c.Call(t.Context(), "/echo", map[string]string{"txet": ""}, &out); !errors.As(err, &refused) {
		t.Errorf("an unknown field: %v", err)
	}
	if err := c.Call(t.Context(), "/echo", message{strings.Repeat("x", session.MaxBody)}, &out); !errors.As(err, &refused) {
		t.Errorf("a message over the limit: %v", err)
	}
	waited := make(chan error, 1)
	go func() { waited <- c.Call(t.Context(), "/wait", session.Empty{}, &out) }()
	<-started
	stop()
	<-gone
	if err := <-waited; err == nil {
		t.Error("a call outlived its session")
	}
}

// A client that leaves ends what it asked for.
func TestCancel(t *testing.T) {
	r, _ := open(t)
	started, gone := make(chan struct{}), make(chan struct{})
	serve(t, r, first, "", map[string]http.Handler{
		"/stream": http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			_ = http.NewResponseController(w).Flush()
			close(started)
			_, _ = io.Copy(io.Discard, q.Body)
			<-q.Context().Done()
			close(gone)
		}),
	})
	c, _, err := r.Find(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	body, err := c.Stream(ctx, "/stream", "application/octet-stream", strings.NewReader("bytes"))
	if err != nil {
		t.Fatal(err)
	}
	<-started
	cancel()
	<-gone
	body.Close()
}

// A path that does not fit a socket's address works all the same.
func TestLongPath(t *testing.T) {
	testenv.CheckLeaks(t)
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 120))
	r, err := session.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(dir) < 104 {
		t.Fatal("the path is short")
	}
	serve(t, r, first, "", nil)
	if list, err := r.List(t.Context()); err != nil || len(list) != 1 {
		t.Fatalf("list %v, %v", list, err)
	}
}

func TestOpenClosesDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sessions")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := session.Open(dir); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := session.Open(dir); err == nil {
		t.Error("a directory others may write to was used")
	}
}

func TestCheckName(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "build-1.x_y": true, "": false, "-a": false, "a b": false, "a/b": false, strings.Repeat("a", 64): false, "é": false,
	} {
		if got := session.CheckName(name) == nil; got != want {
			t.Errorf("CheckName(%q): %v, want %v", name, got, want)
		}
	}
}
