package checkpoint

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/klauspost/compress/zstd"
)

// An archive is one file that holds a checkpoint: a tar file, compressed with
// Zstandard (RFC 8878), with the manifest first and then the other files.

const (
	// maxMemory bounds the memory in an archive, in bytes: no machine has more.
	maxMemory = 1 << 40
	// maxWindow bounds what reading an archive takes of this process's memory, in bytes.
	maxWindow = 64 << 20
)

// archived are the files of an archive in their order, and their bounds in bytes.
var archived = []struct {
	name  string
	limit int64
}{{manifestName, maxManifest}, {Devices, MaxFile}, {Files, MaxFile}, {RAM, maxMemory}}

// Export writes the checkpoint as an archive.
func (c *Checkpoint) Export(w io.Writer) error {
	z, err := zstd.NewWriter(w)
	if err != nil {
		return err
	}
	t := tar.NewWriter(z)
	for _, file := range archived {
		err := c.export(t, file.name)
		if errors.Is(err, fs.ErrNotExist) && file.name == Files {
			continue
		}
		if err != nil {
			return errors.Join(fmt.Errorf("cannot export the checkpoint %s: %w", c.dir, err), z.Close())
		}
	}
	return errors.Join(t.Close(), z.Close())
}

func (c *Checkpoint) export(t *tar.Writer, name string) error {
	f, err := os.Open(c.Path(name))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	header := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o600, Size: info.Size(), ModTime: c.manifest.Created}
	if err := t.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.Copy(t, f)
	return err
}

// Import makes the checkpoint final of the archive r, after checking that every file is
// what was exported. When it fails nothing is left.
func Import(r io.Reader, final string) (*Checkpoint, error) {
	draft, err := Begin(final)
	if err != nil {
		return nil, err
	}
	m, err := draft.unpack(r)
	if err == nil {
		err = (&Checkpoint{dir: draft.dir, manifest: m}).verify()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot import the checkpoint: %w", err), draft.Discard())
	}
	return draft.Commit(m.About, Lasting)
}

// unpack writes the archive's files, and no others, into the draft.
func (d *Draft) unpack(r io.Reader) (*manifest, error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderMaxMemory(maxWindow), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	t := tar.NewReader(z)
	next := 0 // in archived
	for {
		header, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("it is not an archive of a checkpoint, or was truncated: %w", err)
		}
		for next < len(archived) && archived[next].name != header.Name {
			next++
		}
		if next == len(archived) || header.Typeflag != tar.TypeReg {
			return nil, fmt.Errorf("it is not an archive of a checkpoint: it holds %q where that does not belong", header.Name)
		}
		if header.Size > archived[next].limit {
			return nil, fmt.Errorf("its file %s has %d bytes, more than %d", header.Name, header.Size, archived[next].limit)
		}
		if err := writeSparse(d.Path(header.Name), t, header.Size); err != nil {
			return nil, err
		}
		next++
	}
	m, err := readManifest(d.Path(manifestName))
	if err != nil {
		return nil, err
	}
	if !json.Valid(m.About) || m.Content == "" {
		return nil, errors.New("its manifest is damaged")
	}
	return m, os.Remove(d.Path(manifestName)) // Commit writes one of its own
}

// writeSparse writes size bytes to a new file, and leaves out blocks of zeros.
func writeSparse(path string, r io.Reader, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(copySparse(f, r, size), f.Close())
}

func copySparse(f *os.File, r io.Reader, size int64) error {
	if err := f.Truncate(size); err != nil {
		return err
	}
	buf, zeros := make([]byte, block), make([]byte, block)
	for at := int64(0); at < size; at += block {
		part := buf[:min(block, size-at)]
		if _, err := io.ReadFull(r, part); err != nil {
			return fmt.Errorf("it was truncated: %w", err)
		}
		if bytes.Equal(part, zeros[:len(part)]) {
			continue
		}
		if _, err := f.WriteAt(part, at); err != nil {
			return err
		}
	}
	return nil
}

// List returns the names of what may be checkpoints in dir, in order.
func List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot list checkpoints: %w", err)
	}
	sweep(dir)
	var names []string
	for _, e := range entries {
		if e.IsDir() && e.Name()[0] != '.' {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
