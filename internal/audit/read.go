package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxAside bounds the files of one log: more is not a log of this program.
const maxAside = 1 << 16

// asideFile is a file that was set aside when the log was rotated.
type asideFile struct {
	name   string
	number int
	size   int64
}

func asideName(name string, number int) string { return fmt.Sprintf("%s.%06d", name, number) }

// setAside lists a log's earlier files, the oldest first.
func setAside(name string) ([]asideFile, error) {
	entries, err := os.ReadDir(filepath.Dir(name))
	if err != nil {
		return nil, err
	}
	var files []asideFile
	for _, entry := range entries {
		digits, ok := strings.CutPrefix(entry.Name(), filepath.Base(name)+".")
		number, err := strconv.Atoi(digits)
		if !ok || err != nil || number <= 0 || asideName(filepath.Base(name), number) != entry.Name() {
			continue
		}
		info, err := entry.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		files = append(files, asideFile{asideName(name, number), number, info.Size()})
	}
	if len(files) > maxAside {
		return nil, fmt.Errorf("cannot use the log: it has %d files", len(files))
	}
	slices.SortFunc(files, func(a, b asideFile) int { return a.number - b.number })
	return files, nil
}

// Files lists the files of the log name, the oldest first.
func Files(name string) ([]string, error) {
	aside, err := setAside(name)
	if err != nil {
		return nil, fmt.Errorf("cannot list the files of %s: %w", name, err)
	}
	var names []string
	for _, a := range aside {
		names = append(names, a.name)
	}
	if _, err := os.Stat(name); err == nil || len(names) == 0 {
		names = append(names, name)
	}
	return names, nil
}

// tail is how a file of a log ends.
type tail struct {
	chain
	size int64
	torn bool // the last line has no end
}

// readTail finds out where a chain goes on. A file without a whole line has seq 0.
func readTail(f *os.File) (tail, error) {
	info, err := f.Stat()
	if err != nil {
		return tail{}, err
	}
	t := tail{size: info.Size()}
	end := make([]byte, min(t.size, 2*MaxLine))
	if _, err := f.ReadAt(end, t.size-int64(len(end))); err != nil {
		return t, err
	}
	whole := bytes.LastIndexByte(end, '\n') + 1
	t.torn = whole < len(end)
	if t.torn && len(end)-whole > MaxLine {
		return t, errNoLog
	}
	if whole == 0 {
		return t, nil
	}
	line := end[:whole-1]
	line = line[bytes.LastIndexByte(line, '\n')+1:]
	e, h, err := parse(line)
	if err != nil {
		return t, err
	}
	t.seq, t.head = e.Seq, h
	return t, nil
}

func tailOf(name string) (chain, error) {
	f, err := os.Open(name)
	if err != nil {
		return chain{}, err
	}
	defer f.Close()
	t, err := readTail(f)
	return t.chain, err
}

var errNoLog = errors.New("it holds something else than an audit log of this program")

// parse reads one line without its break.
func parse(line []byte) (e Event, h Hash, err error) {
	_, h, ok := splitLine(line)
	if !ok {
		return e, h, errNoLog
	}
	e, err = Decode(line)
	if err == nil && e.Seq == 0 {
		err = errNoLog
	}
	return e, h, err
}

// Decode reads one line, with or without a chain. What it returns was not
// verified, and is text of a stranger's choice.
func Decode(line []byte) (e Event, err error) {
	if len(line) > MaxLine {
		return e, fmt.Errorf("cannot read an event of %d bytes: the limit is %d", len(line), MaxLine)
	}
	if err := json.Unmarshal(line, &e); err != nil {
		return e, fmt.Errorf("cannot read the event: %w", err)
	}
	switch {
	case e.Version == 0:
		return e, errNoLog
	case e.Version != Version:
		return e, fmt.Errorf("cannot read an event of schema version %d: this program knows %d", e.Version, Version)
	}
	return e, nil
}

// Report is what [Verify] found. Its fields hold as far as its error says.
type Report struct {
	Files  int
	Events uint64
	First  time.Time // of the first event, and the last
	Last   time.Time
	Begin  Hash     // what the first line continues; zero: it is the first of all
	Head   Hash     // of the last line
	Closed bool     // the last line closes the log
	Torn   []string // files that end within a line: their writer was killed
	Known  bool     // the hash that was asked for is that of one of the lines
}

// verifier follows a chain over lines and files.
type verifier struct {
	report Report
	want   Hash
	seq    uint64
	begun  bool
}

// Verify checks the chain of the log name over all its files. If want is not
// zero, one of the lines must have this hash. An error names file and line.
func Verify(name string, want Hash) (Report, error) {
	names, err := Files(name)
	if err != nil {
		return Report{}, err
	}
	v := &verifier{want: want}
	for _, name := range names {
		if err := v.file(name); err != nil {
			return v.report, err
		}
	}
	return v.report, v.end()
}

// VerifyLines checks the chain of the lines of r, as [Verify] does.
func VerifyLines(r io.Reader, want Hash) (Report, error) {
	v := &verifier{want: want}
	if err := v.lines("input", r); err != nil {
		return v.report, err
	}
	return v.report, v.end()
}

func (v *verifier) end() error {
	if v.want != (Hash{}) && !v.report.Known {
		return fmt.Errorf("cannot verify: no line has the hash %s: the log was cut off, or is another one", v.want)
	}
	return nil
}

func (v *verifier) file(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("cannot verify: %w", err)
	}
	defer f.Close()
	return v.lines(name, f)
}

func (v *verifier) lines(name string, r io.Reader) error {
	v.report.Files++
	in := bufio.NewReaderSize(r, MaxLine)
	for number := 1; ; number++ {
		line, err := in.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF) && len(line) == 0:
			return nil
		case errors.Is(err, io.EOF):
			v.report.Torn = append(v.report.Torn, name)
			return nil
		case err == nil:
			err = v.line(line[:len(line)-1], number == 1)
		}
		if err != nil {
			return fmt.Errorf("cannot verify %s line %d: %w", name, number, err)
		}
	}
}

// line checks that one line continues the chain. At the beginning of all, a
// record that says what it continues is believed.
func (v *verifier) line(line []byte, first bool) error {
	hashed, h, ok := splitLine(line)
	if !ok {
		return errNoLog
	}
	e, err := Decode(line)
	if err != nil {
		return err
	}
	opens := first && e.Kind == LogRecord && e.Previous != ""
	switch {
	case !v.begun && opens:
		if v.report.Head, err = ParseHash(e.Previous); err != nil {
			return err
		}
		v.report.Begin, v.seq, v.report.First = v.report.Head, e.Seq-1, e.Time
	case !v.begun:
		v.report.First = e.Time
	case opens && e.Previous != v.report.Head.String():
		return fmt.Errorf("it continues the hash %s, and the last line before has %s: a file is missing or was cut", e.Previous, v.report.Head)
	}
	v.begun = true
	if v.report.Head.next(hashed) != h {
		return errors.New("its hash is wrong: this line was changed, or lines before it were changed, removed or added")
	}
	if e.Seq != v.seq+1 {
		return fmt.Errorf("its number is %d, and %d is next", e.Seq, v.seq+1)
	}
	v.seq, v.report.Head = e.Seq, h
	v.report.Events++
	v.report.Last = e.Time
	v.report.Closed = e.Kind == LogRecord && e.Phase == "close"
	v.report.Known = v.report.Known || h == v.want
	return nil
}
