package gondolin

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"gondolin/internal/control"
)

// connect starts the copying between the process and Stdin, Stdout and Stderr.
func (c *Cmd) connect() {
	outputs := []struct {
		from *control.Output
		to   io.Writer
	}{{c.process.Stdout, c.Stdout}, {c.process.Stderr, c.Stderr}}
	c.copied, c.input = make(chan error, len(outputs)), make(chan error, 1)
	for _, o := range outputs {
		if o.from == nil {
			c.copied <- nil
			continue
		}
		go c.copyOutput(o.to, o.from)
	}
	if c.process.Stdin != nil {
		go c.copyInput()
	}
}

func (c *Cmd) copyOutput(to io.Writer, from *control.Output) {
	if to == nil {
		to = io.Discard
	}
	// By Write only: a ReadFrom may touch what the caller reads after Wait, though
	// the Read in it ended without data.
	_, err := io.Copy(struct{ io.Writer }{to}, from)
	if pipe, ok := to.(closing); ok {
		err = pipe.end(err)
	}
	from.Close() // a writer that failed ends the output, as a broken pipe does
	c.copied <- err
}

// copyInput ends with Stdin, or with the process: what Stdin's Read then still
// returns is lost.
func (c *Cmd) copyInput() {
	defer c.process.Stdin.Close()
	if c.Stdin == nil {
		return
	}
	from := &source{Reader: c.Stdin}
	_, _ = io.Copy(c.process.Stdin, from)
	if from.err != nil {
		c.input <- from.err // before the command can see the end of its input
	}
	if c.stdinPipe != nil {
		c.stdinPipe.Close() // who writes to a pipe nobody reads any more gets an error
	}
}

// source keeps the error of a reader apart from that of the writer it is copied to.
type source struct {
	io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = fmt.Errorf("cannot read Stdin: %w", err)
	}
	return n, err
}

// StdinPipe returns a pipe that becomes the command's Stdin. Close it to end the input.
func (c *Cmd) StdinPipe() (io.WriteCloser, error) {
	if c.Stdin != nil || c.process != nil {
		return nil, errors.New("cannot make a pipe: Stdin is set or the command was started")
	}
	r, w := io.Pipe()
	c.Stdin, c.stdinPipe = r, r
	c.pipes = append(c.pipes, r)
	return w, nil
}

// StdoutPipe returns a pipe with the command's stdout. Read it to the end, or
// close it, before Wait.
func (c *Cmd) StdoutPipe() (io.ReadCloser, error) { return c.outputPipe(&c.Stdout, "Stdout") }

// StderrPipe returns a pipe with the command's stderr. Read it to the end, or
// close it, before Wait.
func (c *Cmd) StderrPipe() (io.ReadCloser, error) { return c.outputPipe(&c.Stderr, "Stderr") }

func (c *Cmd) outputPipe(to *io.Writer, name string) (io.ReadCloser, error) {
	if *to != nil || c.process != nil {
		return nil, fmt.Errorf("cannot make a pipe: %s is set or the command was started", name)
	}
	r, w := io.Pipe()
	*to = closing{w}
	c.pipes = append(c.pipes, w)
	return r, nil
}

// closing is the writing end of an output pipe, closed at the end of the output.
type closing struct{ *io.PipeWriter }

// end passes on the end of the output, or why it ended early. A reader that has
// left has seen what it wanted: that is no error.
func (c closing) end(err error) error {
	if errors.Is(err, io.ErrClosedPipe) {
		err = nil
	}
	_ = c.CloseWithError(err) // never fails
	return err
}

// errTooMuch is the end of output that is longer than a collector takes.
var errTooMuch = fmt.Errorf("cannot collect more than %d MiB of output", MaxOutput>>20)

// collector holds the first limit bytes written to it.
type collector struct {
	held     bytes.Buffer
	limit    int
	overflow bool
}

// Write fails once the limit is reached.
func (c *collector) Write(p []byte) (int, error) {
	if room := c.limit - c.held.Len(); len(p) > room {
		c.overflow = true
		n, _ := c.held.Write(p[:room]) // never fails
		return n, errTooMuch
	}
	return c.held.Write(p)
}

// explain puts the overflow before what became of the command because of it.
func (c *collector) explain(err error) error {
	if !c.overflow || errors.Is(err, errTooMuch) {
		return err
	}
	return fmt.Errorf("%w: %w", errTooMuch, err)
}

// tail keeps the last limit bytes written to it.
type tail struct {
	bytes []byte
	limit int
}

func (t *tail) Write(p []byte) (int, error) {
	t.bytes = append(t.bytes, p...)
	if over := len(t.bytes) - t.limit; over > 0 {
		t.bytes = append(t.bytes[:0], t.bytes[over:]...)
	}
	return len(p), nil
}
