package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"gondolin/internal/paths"
)

// ErrNotFound is returned, wrapped, for a selector that selects nothing.
var ErrNotFound = errors.New("no such image")

// Image is an image whose files have been checked. The paths stay valid until the image is removed.
type Image struct {
	Digest        string   // "sha256:…" of the manifest
	Ref           string   // name:tag it was found by; if empty, it was selected otherwise
	Dir           string   // holds the files below
	Arch          string   // amd64 or arm64
	OS            string   // for people
	KernelVersion string   // as uname -r
	Kernel        string   // path; what QEMU's -kernel takes
	Modules       string   // path of the cpio archive with the modules and their list
	ModulesDigest string   // "sha256:…" of that archive
	Root          string   // path of the root file system
	RootDigest    string   // "sha256:…" of it
	RootFormat    string   // "erofs"
	Cmdline       []string // kernel parameters the image wants besides the machine's
	ModuleOrder   []string // paths in the guest, in load order; the modules archive carries the same list
	Env           []string // NAME=value, the default environment of commands
	Packages      []string // "name version", sorted
}

// Entry is one image as List and Inspect show it. Its files have not been checked.
type Entry struct {
	Digest   string
	Refs     []string  // name:tag, sorted; empty for an image nothing names any more
	Dir      string    //
	Manifest *Manifest // if nil, Problem says why
	Added    time.Time // when it came into the store
	Problem  string    // what is wrong with it, if its manifest is unusable
}

// Store is a directory of images. It may be used by many goroutines and processes at once.
type Store struct {
	dir string
}

// Open opens the store in dir, creating it if need be, and removes what interrupted builds left there.
func Open(dir string) (*Store, error) {
	for _, d := range []string{
		dir, filepath.Join(dir, "objects"), filepath.Join(dir, "refs"),
		filepath.Join(dir, "verified"), filepath.Join(dir, "staging"), filepath.Join(dir, "locks"),
	} {
		if err := paths.Ensure(d); err != nil {
			return nil, fmt.Errorf("cannot open image store: %w", err)
		}
	}
	// Without links, because mounts to be swept are known by their real paths.
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot open image store: %w", err)
	}
	s := &Store{dir: dir}
	if err := s.sweep(); err != nil {
		return nil, fmt.Errorf("cannot open image store: %w", err)
	}
	return s, nil
}

// Dir is the directory of the store.
func (s *Store) Dir() string { return s.dir }

// Resolve finds the image that selector selects for this host's architecture, and checks its files. A selector is the
// path of an image directory, a digest or the beginning of one, or a name or name:tag, tried in this order. A path has
// a slash in it.
func (s *Store) Resolve(ctx context.Context, selector string) (*Image, error) {
	return s.ResolveArch(ctx, selector, runtime.GOARCH)
}

// ResolveArch is Resolve for another architecture.
func (s *Store) ResolveArch(ctx context.Context, selector, arch string) (*Image, error) {
	found, err := s.find(selector, arch)
	if err != nil {
		return nil, err
	}
	m, err := readManifest(&found)
	if err == nil && m.Arch != arch {
		return nil, fmt.Errorf("cannot use image %s: it is for %s, not for %s", selector, m.Arch, arch)
	}
	if err == nil {
		err = s.verify(ctx, found.digest, found.dir, m)
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%w; %s", err, found.nextStep())
	}
	return newImage(found, m), nil
}

func newImage(found place, m *Manifest) *Image {
	return &Image{
		Digest: found.digest, Ref: found.ref, Dir: found.dir, Arch: m.Arch, OS: m.OS, KernelVersion: m.KernelVersion,
		Kernel:  filepath.Join(found.dir, m.Kernel.Name),
		Modules: filepath.Join(found.dir, m.Modules.Name), ModulesDigest: digestPrefix + m.Modules.SHA256,
		Root: filepath.Join(found.dir, m.Root.Name), RootDigest: digestPrefix + m.Root.SHA256, RootFormat: m.RootFormat,
		Cmdline: m.Cmdline, ModuleOrder: m.ModuleOrder, Env: m.Env, Packages: m.Packages,
	}
}

// place is where an image was found, before anything in it has been read.
type place struct {
	digest  string // if empty, not known yet: the image was selected as a directory
	ref     string // if empty, it was not selected by name
	dir     string
	outside bool // selected as a directory
}

// nextStep is what to do about a broken image.
func (p place) nextStep() string {
	if p.outside {
		return "restore that directory or select another image"
	}
	return fmt.Sprintf("run: gondolin image rm %s && gondolin image build", shortDigest(p.digest))
}

// shortDigest is enough of a digest to select by.
func shortDigest(digest string) string {
	hex := strings.TrimPrefix(digest, digestPrefix)
	return hex[:min(12, len(hex))]
}

func (s *Store) find(selector, arch string) (place, error) {
	if strings.Contains(selector, "/") || selector == "." || selector == ".." {
		return findDir(selector)
	}
	hex, isDigest := strings.CutPrefix(selector, digestPrefix)
	if isHex(hex) && (isDigest || len(hex) >= minPrefix) {
		found, err := s.findPrefix(selector, hex)
		if err == nil || isDigest || !errors.Is(err, ErrNotFound) {
			return found, err
		}
	}
	if isDigest {
		return place{}, fmt.Errorf("cannot use image %q: not a digest", selector)
	}
	ref, err := ParseRef(selector)
	if err != nil {
		return place{}, err
	}
	digest, err := readRef(s.refPath(ref, arch))
	if errors.Is(err, fs.ErrNotExist) {
		return place{}, fmt.Errorf("cannot find image %s for %s: %w; run: gondolin image build, or see gondolin image ls", ref, arch, ErrNotFound)
	}
	if err != nil {
		return place{}, err
	}
	return place{digest: digest, ref: ref.String(), dir: s.objectDir(digest)}, nil
}

func findDir(selector string) (place, error) {
	dir, err := filepath.Abs(selector)
	if err != nil {
		return place{}, fmt.Errorf("cannot use image directory %s: %w", selector, err)
	}
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return place{}, fmt.Errorf("cannot find image directory %s: %w", dir, ErrNotFound)
	}
	if err != nil {
		return place{}, fmt.Errorf("cannot use image directory: %w", err)
	}
	if !info.IsDir() {
		return place{}, fmt.Errorf("cannot use image %s: not a directory", dir)
	}
	return place{dir: dir, outside: true}, nil
}

func (s *Store) findPrefix(selector, prefix string) (place, error) {
	list, err := os.ReadDir(filepath.Join(s.dir, "objects"))
	if err != nil {
		return place{}, fmt.Errorf("cannot read image store: %w", err)
	}
	var found []string
	for _, e := range list {
		if isDigestHex(e.Name()) && strings.HasPrefix(e.Name(), prefix) {
			found = append(found, digestPrefix+e.Name())
		}
	}
	switch len(found) {
	case 0:
		return place{}, fmt.Errorf("cannot find image %s: %w", selector, ErrNotFound)
	case 1:
		return place{digest: found[0], dir: s.objectDir(found[0])}, nil
	default:
		return place{}, fmt.Errorf("cannot choose an image: %d digests start with %s, give more of it", len(found), selector)
	}
}

// readManifest reads the manifest of the image at p and checks it against the digest p has, or sets that.
func readManifest(p *place) (*Manifest, error) {
	path := filepath.Join(p.dir, ManifestName)
	f, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := readBounded(f, maxManifestBytes)
	if err != nil {
		return nil, fmt.Errorf("cannot read image manifest %s: %w", path, err)
	}
	got := digestOf(data)
	if p.digest == "" {
		p.digest = got
	}
	if got != p.digest {
		return nil, fmt.Errorf("cannot use image file %s: its digest is %s, not %s", path, got, p.digest)
	}
	m, err := parseManifest(data)
	if err != nil {
		return nil, fmt.Errorf("%w (%s)", err, path)
	}
	return m, nil
}

// List returns every image of the store, the newest first, without checking their files.
func (s *Store) List(ctx context.Context) ([]Entry, error) {
	refs, err := s.refs()
	if err != nil {
		return nil, err
	}
	list, err := os.ReadDir(filepath.Join(s.dir, "objects"))
	if err != nil {
		return nil, fmt.Errorf("cannot read image store: %w", err)
	}
	var entries []Entry
	for _, e := range list {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("cannot list images: %w", err)
		}
		if isDigestHex(e.Name()) {
			digest := digestPrefix + e.Name()
			entries = append(entries, s.entry(place{digest: digest, dir: s.objectDir(digest)}, refs))
		}
	}
	slices.SortFunc(entries, func(a, b Entry) int {
		return cmp.Or(b.Added.Compare(a.Added), strings.Compare(a.Digest, b.Digest))
	})
	return entries, nil
}

// Inspect describes the image that selector selects without checking its files.
func (s *Store) Inspect(_ context.Context, selector string) (Entry, error) {
	found, err := s.find(selector, runtime.GOARCH)
	if err != nil {
		return Entry{}, err
	}
	refs, err := s.refs()
	if err != nil {
		return Entry{}, err
	}
	return s.entry(found, refs), nil
}

func (s *Store) entry(p place, refs []refFile) Entry {
	m, err := readManifest(&p)
	e := Entry{Digest: p.digest, Dir: p.dir, Manifest: m}
	if err != nil {
		e.Problem = err.Error()
	}
	for _, r := range refs {
		if r.digest == p.digest && p.digest != "" {
			e.Refs = append(e.Refs, r.ref.String())
		}
	}
	slices.Sort(e.Refs)
	if info, err := os.Stat(p.dir); err == nil {
		e.Added = info.ModTime()
	}
	return e
}

func (s *Store) objectDir(digest string) string {
	return filepath.Join(s.dir, "objects", strings.TrimPrefix(digest, digestPrefix))
}
