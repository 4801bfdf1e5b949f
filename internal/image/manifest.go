package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// ManifestVersion is the version this package writes and the only one it reads.
const ManifestVersion = 1

// ManifestName is the manifest's file name in an image's directory.
const ManifestName = "manifest.json"

// RootErofs is the only root file system format so far.
const RootErofs = "erofs"

// Manifest describes an image. Its JSON form is hashed, so the order of fields is part of the format.
type Manifest struct {
	Version       int      `json:"version"`
	Arch          string   `json:"arch"`           // as GOARCH: amd64 or arm64
	OS            string   `json:"os"`             // for people, such as "Debian GNU/Linux 12 (bookworm)"
	KernelVersion string   `json:"kernel_version"` // as uname -r says
	Kernel        File     `json:"kernel"`
	Modules       File     `json:"modules"` // cpio archive with the modules and their list
	Root          File     `json:"root"`
	RootFormat    string   `json:"root_format"`
	Cmdline       []string `json:"cmdline"`      // kernel parameters the image wants besides the machine's
	ModuleOrder   []string `json:"module_order"` // paths in the guest, in load order
	Env           []string `json:"env"`          // NAME=value, the default environment of commands
	Packages      []string `json:"packages"`     // "name version", sorted
}

// File is one file of an image, beside its manifest.
type File struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"` // 64 lower-case hexadecimal digits
	Size   int64  `json:"size"`   // bytes
}

// files returns the image's files with what to call them in errors.
func (m *Manifest) files() []File { return []File{m.Kernel, m.Modules, m.Root} }

// Size is how many bytes the image's files have together.
func (m *Manifest) Size() int64 { return m.Kernel.Size + m.Modules.Size + m.Root.Size }

// ParseManifest reads a manifest from somebody who may mean harm: whatever it returns names only plain files beside
// it and is within limits.
func ParseManifest(r io.Reader) (*Manifest, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxManifestBytes+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read image manifest: %w", err)
	}
	return parseManifest(data)
}

func parseManifest(data []byte) (*Manifest, error) {
	if len(data) > maxManifestBytes {
		return nil, fmt.Errorf("cannot read image manifest: larger than %d bytes", maxManifestBytes)
	}
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, fmt.Errorf("cannot read image manifest: %v", err)
	}
	if head.Version != ManifestVersion {
		return nil, fmt.Errorf("cannot read image manifest: version %d is unknown, this Gondolin reads version %d", head.Version, ManifestVersion)
	}
	var m Manifest
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return nil, fmt.Errorf("cannot read image manifest: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("cannot read image manifest: something follows it")
	}
	if err := m.Validate(); err != nil {
		return nil, fmt.Errorf("cannot read image manifest: %w", err)
	}
	return &m, nil
}

// Validate reports the first thing in m that an image may not have.
func (m *Manifest) Validate() error {
	if m.Version != ManifestVersion {
		return fmt.Errorf("version %d is unknown", m.Version)
	}
	if !ValidArch(m.Arch) {
		return fmt.Errorf("arch %q is neither amd64 nor arm64", m.Arch)
	}
	if m.RootFormat != RootErofs {
		return fmt.Errorf("root format %q is unknown", m.RootFormat)
	}
	var names []string
	for _, f := range m.files() {
		if err := f.validate(); err != nil {
			return err
		}
		names = append(names, f.Name)
	}
	slices.Sort(names)
	if len(slices.Compact(names)) != len(m.files()) {
		return errors.New("two of its files have the same name")
	}
	return m.validateLists()
}

func (m *Manifest) validateLists() error {
	for _, l := range []struct {
		what string
		list []string
		most int
		ok   func(string) bool
	}{
		{"os", []string{m.OS}, 1, isText},
		{"kernel version", []string{m.KernelVersion}, 1, isWord},
		{"command line", m.Cmdline, maxWords, isWord},
		{"module", m.ModuleOrder, maxModules, isCleanPath},
		{"environment", m.Env, maxEnv, isAssignment},
		{"package", m.Packages, maxPackages, isText},
	} {
		if len(l.list) > l.most {
			return fmt.Errorf("more than %d entries in %s list", l.most, l.what)
		}
		for _, s := range l.list {
			if len(s) > maxText || !l.ok(s) {
				return fmt.Errorf("%s entry %.80q is not acceptable", l.what, s)
			}
		}
	}
	return nil
}

func (f File) validate() error {
	if !isFileName(f.Name) || f.Name == ManifestName {
		return fmt.Errorf("file name %.80q is not acceptable", f.Name)
	}
	if !isDigestHex(f.SHA256) {
		return fmt.Errorf("digest %.80q of %s is not a sha256", f.SHA256, f.Name)
	}
	if f.Size <= 0 || f.Size > maxFileBytes {
		return fmt.Errorf("size %d of %s is not between 1 and %d", f.Size, f.Name, int64(maxFileBytes))
	}
	return nil
}

// encode returns the bytes of the manifest and the image's digest.
func (m *Manifest) encode() ([]byte, string, error) {
	if err := m.Validate(); err != nil {
		return nil, "", fmt.Errorf("cannot write image manifest: %w", err)
	}
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, "", fmt.Errorf("cannot write image manifest: %w", err)
	}
	data = append(data, '\n')
	if len(data) > maxManifestBytes {
		return nil, "", fmt.Errorf("cannot write image manifest: larger than %d bytes", maxManifestBytes)
	}
	return data, digestOf(data), nil
}

const digestPrefix = "sha256:"

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return digestPrefix + hex.EncodeToString(sum[:])
}

// ValidArch reports whether arch is one a guest can have.
func ValidArch(arch string) bool { return arch == "amd64" || arch == "arm64" }

func isDigestHex(s string) bool { return len(s) == 2*sha256.Size && isHex(s) }

func isHex(s string) bool { return s != "" && strings.Trim(s, "0123456789abcdef") == "" }

// isFileName accepts a conservative set: letters, digits, dot, dash and underscore, not starting with a dot.
func isFileName(s string) bool {
	if s == "" || len(s) > maxName || s[0] == '.' {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-", r)
	}) < 0
}

// isText accepts what may be shown on a terminal: printable ASCII.
func isText(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}

// isWord accepts what stays one word on a kernel command line, where quotes would join words.
func isWord(s string) bool { return s != "" && isText(s) && !strings.ContainsAny(s, ` "`) }

func isAssignment(s string) bool {
	name, _, ok := strings.Cut(s, "=")
	return ok && name != "" && isText(s) && !strings.Contains(name, " ")
}

func isCleanPath(s string) bool {
	if !isWord(s) || !strings.HasPrefix(s, "/") {
		return false
	}
	for part := range strings.SplitSeq(s[1:], "/") {
		if part == "" || part == "." || part == ".." {
			return false
		}
	}
	return true
}
