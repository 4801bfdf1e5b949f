package session

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// Client speaks to one session. Its methods may be called from any goroutine.
type Client struct {
	id   string
	http *http.Client
}

func (r *Registry) client(id string) *Client {
	path := r.path(id)
	return &Client{id: id, http: &http.Client{Transport: &http.Transport{
		DialContext:     func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, path) },
		MaxIdleConns:    2,
		IdleConnTimeout: idleTimeout / time.Duration(2),
	}}}
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// RefusedError is a session's own word that it will not, or cannot.
type RefusedError struct {
	Text string
	// Unknown is set when the session does not know the operation: it is of another build.
	Unknown bool
}

// Error implements error.
func (e *RefusedError) Error() string { return e.Text }

// Call asks for the operation at path and reads the answer into out.
func (c *Client) Call(ctx context.Context, path string, in, out any) error {
	raw, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("cannot write the request: %w", err)
	}
	body, err := c.Stream(ctx, path, "application/json", bytes.NewReader(raw))
	if err != nil {
		return err
	}
	defer drained(body)
	if err := json.NewDecoder(io.LimitReader(body, MaxBody)).Decode(out); err != nil {
		return fmt.Errorf("cannot read the answer of session %s: %w", c.id, err)
	}
	return nil
}

// Stream sends body to the operation at path and returns the body of the answer,
// which the caller closes.
func (c *Client) Stream(ctx context.Context, path, contentType string, body io.Reader) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://session"+path, body)
	if err != nil {
		return nil, fmt.Errorf("cannot write the request: %w", err)
	}
	request.Header.Set("Content-Type", contentType)
	resp, err := c.http.Do(request) //nolint:bodyclose // the caller closes it
	if err != nil {
		return nil, c.failure(ctx, err)
	}
	if resp.StatusCode != http.StatusOK {
		defer drained(resp.Body)
		return nil, c.refused(resp)
	}
	return resp.Body, nil
}

func (c *Client) refused(resp *http.Response) error {
	if resp.StatusCode == http.StatusNotFound {
		return &RefusedError{Unknown: true, Text: fmt.Sprintf("session %s does not know how to do this: it runs another build of gondolin", c.id)}
	}
	var r refusal
	if err := json.NewDecoder(io.LimitReader(resp.Body, MaxBody)).Decode(&r); err != nil || r.Error == "" {
		return fmt.Errorf("cannot read the answer of session %s: status %d", c.id, resp.StatusCode)
	}
	return &RefusedError{Text: r.Error}
}

// failure says whose end it was.
func (c *Client) failure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("session %s ended: %w", c.id, net.ErrClosed)
	}
	return fmt.Errorf("cannot reach session %s: %w", c.id, err)
}
