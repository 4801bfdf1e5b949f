package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"gondolin/internal/paths"
)

// refFile is one file below refs.
type refFile struct {
	ref    Ref
	arch   string
	digest string
	path   string
}

// Tag gives the image that selector selects the further name ref, taking it from the image that had it before.
func (s *Store) Tag(_ context.Context, selector, ref string) error {
	found, err := s.find(selector, runtime.GOARCH)
	if err != nil {
		return err
	}
	if found.outside {
		return fmt.Errorf("cannot name image %s: it is not in the store", selector)
	}
	m, err := readManifest(&found)
	if err != nil {
		return err
	}
	return s.setRef(ref, m.Arch, found.digest)
}

func (s *Store) setRef(text, arch, digest string) error {
	ref, err := ParseRef(text)
	if err != nil {
		return err
	}
	path := s.refPath(ref, arch)
	if err := paths.Ensure(filepath.Dir(path)); err != nil {
		return fmt.Errorf("cannot name image %s: %w", ref, err)
	}
	return writeAtomic(path, []byte(digest+"\n"))
}

// Remove removes what selector selects: a name, and with the last name the image; or, selected by digest, the image
// and all its names. Guests already running on it keep their open files. It returns a line for each thing removed.
func (s *Store) Remove(_ context.Context, selector string) ([]string, error) {
	found, err := s.find(selector, runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	if found.outside {
		return nil, fmt.Errorf("cannot remove image %s: it is not in the store", selector)
	}
	refs, err := s.refs()
	if err != nil {
		return nil, err
	}
	var removed []string
	others := 0
	for _, r := range refs {
		if r.digest != found.digest {
			continue
		}
		if found.ref != "" && (r.ref.String() != found.ref || r.arch != runtime.GOARCH) {
			others++
			continue
		}
		if err := os.Remove(r.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return removed, fmt.Errorf("cannot remove image name: %w", err)
		}
		// The tag's and name's directories go when they are empty, and stay when they are not.
		_ = os.Remove(filepath.Dir(r.path))
		_ = os.Remove(filepath.Dir(filepath.Dir(r.path)))
		removed = append(removed, r.ref.String())
	}
	if others > 0 {
		return removed, nil
	}
	if err := s.removeObject(found.digest); err != nil {
		return removed, err
	}
	return append(removed, found.digest), nil
}

// removeObject moves the image out of objects first, so that nobody finds half of it.
func (s *Store) removeObject(digest string) (err error) {
	st, err := s.Stage()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	err = os.Rename(s.objectDir(digest), filepath.Join(st.Dir, "removed"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove image: %w", err)
	}
	if err := os.Remove(s.looksPath(digest)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove image: %w", err)
	}
	return nil
}

func (s *Store) refPath(ref Ref, arch string) string {
	return filepath.Join(s.dir, "refs", ref.Name, ref.Tag, arch)
}

// refs lists all names. Files with names that are not references, or that hold no digest, are left out.
func (s *Store) refs() ([]refFile, error) {
	files, err := filepath.Glob(filepath.Join(escapeGlob(s.dir), "refs", "*", "*", "*"))
	if err != nil {
		return nil, fmt.Errorf("cannot read image names: %w", err)
	}
	var refs []refFile
	for _, path := range files {
		arch := filepath.Base(path)
		tag := filepath.Base(filepath.Dir(path))
		name := filepath.Base(filepath.Dir(filepath.Dir(path)))
		ref, err := ParseRef(name + ":" + tag)
		if err != nil || !ValidArch(arch) {
			continue
		}
		digest, err := readRef(path)
		if err != nil {
			continue
		}
		refs = append(refs, refFile{ref, arch, digest, path})
	}
	return refs, nil
}

var globEscaper = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

func escapeGlob(path string) string { return globEscaper.Replace(path) }

func readRef(path string) (string, error) {
	f, err := openRegular(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := readBounded(f, maxRefBytes)
	if err != nil {
		return "", fmt.Errorf("cannot read image name %s: %w", path, err)
	}
	digest := strings.TrimSuffix(string(data), "\n")
	hex, ok := strings.CutPrefix(digest, digestPrefix)
	if !ok || !isDigestHex(hex) {
		return "", fmt.Errorf("cannot read image name %s: it holds no digest; remove it and run: gondolin image build", path)
	}
	return digest, nil
}

func readBounded(r io.Reader, most int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("larger than %d bytes", most)
	}
	return data, nil
}
