package audit

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Sink is where events go: [Lines], a [File], [Slog] or [Channel].
type Sink interface {
	// put takes one event. body is its JSON object without the closing brace.
	put(e *Event, body []byte) error
}

// Lines returns a Sink that writes chained lines to w, in one Write each. After an
// error it writes no more.
func Lines(w io.Writer) Sink { return &lines{w: w} }

type lines struct {
	mu    sync.Mutex // guards the fields below
	w     io.Writer
	chain chain
	err   error
}

func (l *lines) put(_ *Event, body []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		_, l.err = l.w.Write(l.chain.seal(body))
	}
	return l.err
}

// Slog returns a Sink that logs events with level Info, refusals with Warn, as
// the message "audit" with an attribute a field. It has no chain.
func Slog(logger *slog.Logger) Sink { return slogSink{logger} }

type slogSink struct{ logger *slog.Logger }

func (s slogSink) put(e *Event, _ []byte) error {
	level := slog.LevelInfo
	if e.Decision == Deny {
		level = slog.LevelWarn
	}
	s.logger.LogAttrs(context.Background(), level, "audit", e.Attrs()...) //nolint:forbidigo // an event belongs to no call of anyone's
	return nil
}

// errStopped is the error of a channel nobody receives from any more.
var errStopped = errors.New("nobody receives the events any more")

// lastWait is how long after the end an event may still wait to be received.
const lastWait = 2 * time.Second

// Channel returns a Sink that sends a copy of each event to ch, and waits for it
// to be received. Once done is closed it waits no more than 2 s, and then fails. It
// has no chain, and does not close ch.
func Channel(ch chan<- Event, done <-chan struct{}) Sink { return channel{ch, done} }

type channel struct {
	ch   chan<- Event
	done <-chan struct{}
}

func (c channel) put(e *Event, _ []byte) error {
	select {
	case c.ch <- *e:
		return nil
	case <-c.done:
	}
	t := time.NewTimer(lastWait)
	defer t.Stop()
	select {
	case c.ch <- *e:
		return nil
	case <-t.C:
		return errStopped
	}
}

// Attrs returns the fields of e that are not empty, for a structured logger.
func (e *Event) Attrs() []slog.Attr {
	var attrs []slog.Attr
	text := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	number := func(key string, value int64) {
		if value != 0 {
			attrs = append(attrs, slog.Int64(key, value))
		}
	}
	text("kind", string(e.Kind))
	text("vm", e.VM)
	text("phase", e.Phase)
	text("decision", string(e.Decision))
	text("code", e.Code)
	text("rule", e.Rule)
	text("reason", e.Reason)
	text("name", e.Name)
	text("type", e.Type)
	text("address", e.Address)
	number("request", int64(e.Request)) //nolint:gosec // a count
	text("scheme", e.Scheme)
	text("method", e.Method)
	text("host", e.Host)
	number("port", int64(e.Port))
	text("path", e.Path)
	number("status", int64(e.Status))
	number("sent", e.Sent)
	number("received", e.Received)
	if len(e.Secrets) > 0 {
		attrs = append(attrs, slog.Any("secrets", e.Secrets))
	}
	number("exec", int64(e.Exec)) //nolint:gosec // a count
	if len(e.Args) > 0 {
		attrs = append(attrs, slog.Any("args", e.Args))
	}
	text("dir", e.Dir)
	text("user", e.User)
	number("pid", int64(e.PID))
	if e.Exit != nil {
		attrs = append(attrs, slog.Int("exit", *e.Exit))
	}
	number("signal", int64(e.Signal))
	text("mount", e.Mount)
	text("op", e.Op)
	text("to", e.To)
	text("policy", e.Policy)
	text("source", e.Source)
	if len(e.Phases) > 0 {
		attrs = append(attrs, slog.Any("phases", e.Phases))
	}
	number("duration_ms", e.DurationMS)
	return attrs
}

// sortByLength puts the longest first: a replacer takes the first that fits.
func sortByLength(values []string) {
	slices.SortFunc(values, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
}
