package initramfs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gondolin/internal/paths"
)

// formatVersion is part of every key, so that a change in what Agent writes is not hidden by the cache.
const formatVersion = "gondolin initramfs 1"

// Parts is what a boot archive is composed of.
type Parts struct {
	Modules       string // path of the archive Modules wrote
	ModulesDigest string // its digest, which the image store has checked
	Agent         []byte // the guest agent's binary
}

// Compose returns the path of a file in dir that holds the modules archive followed by the agent's, and writes it
// when it is not there yet. The file's name is a digest of the parts and it appears whole or not at all. It stays
// valid for a day at least; old ones are removed when new ones are written.
func Compose(ctx context.Context, dir string, parts Parts) (string, error) {
	if len(parts.Agent) == 0 {
		return "", errors.New("cannot compose boot archive: the guest agent is empty")
	}
	if parts.ModulesDigest == "" {
		return "", errors.New("cannot compose boot archive: no digest of the modules archive")
	}
	if err := paths.Ensure(dir); err != nil {
		return "", err
	}
	path := filepath.Join(dir, parts.key()+".cpio")
	if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
		now := time.Now()
		if err = os.Chtimes(path, now, now); err == nil {
			return path, nil
		}
		if !errors.Is(err, fs.ErrNotExist) { // else another process has just pruned it
			return "", fmt.Errorf("cannot use boot archive: %w", err)
		}
	}
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("cannot compose boot archive: %w", err)
	}
	if err := parts.write(path); err != nil {
		return "", fmt.Errorf("cannot compose boot archive %s: %w", path, err)
	}
	prune(dir, path)
	return path, nil
}

func (p Parts) key() string {
	agent := sha256.Sum256(p.Agent)
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%x\n", formatVersion, p.ModulesDigest, agent))
	return hex.EncodeToString(sum[:])
}

// write makes the file under a name of its own and renames it: two writers at once write the same bytes.
func (p Parts) write(path string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "compose-*.tmp") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		f.Close()
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	if err := p.copyTo(f); err != nil {
		return err
	}
	// Synced, because afterwards only its name is looked at.
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func (p Parts) copyTo(w io.Writer) error {
	modules, err := os.Open(p.Modules)
	if err != nil {
		return err
	}
	defer modules.Close()
	hash := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, hash), io.LimitReader(modules, maxFileSize))
	if err != nil {
		return err
	}
	if got := "sha256:" + hex.EncodeToString(hash.Sum(nil)); got != p.ModulesDigest {
		return fmt.Errorf("modules archive %s has digest %s, not %s", p.Modules, got, p.ModulesDigest)
	}
	if n%align != 0 {
		return fmt.Errorf("modules archive %s has %d bytes, not a multiple of %d", p.Modules, n, align)
	}
	return Agent(w, bytes.NewReader(p.Agent), int64(len(p.Agent)))
}

// prune removes archives nobody has asked for lately, and what interrupted writers left. Failing to is harmless.
func prune(dir, keep string) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	type old struct {
		path string
		used time.Time
	}
	var olds []old
	for _, e := range list {
		path := filepath.Join(dir, e.Name())
		info, err := e.Info()
		if err != nil || path == keep || time.Since(info.ModTime()) < composedAge {
			continue
		}
		switch {
		case strings.HasSuffix(e.Name(), ".tmp"):
			_ = os.Remove(path)
		case strings.HasSuffix(e.Name(), ".cpio"):
			olds = append(olds, old{path, info.ModTime()})
		}
	}
	slices.SortFunc(olds, func(a, b old) int { return b.used.Compare(a.used) })
	for i := maxComposed; i < len(olds); i++ {
		_ = os.Remove(olds[i].path)
	}
}
