package accel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"gondolin/internal/lockfile"
)

// Key is everything that may change whether an accelerator works. All of it is
// hashed into one name; a difference anywhere means a new trial.
type Key struct {
	Kernel string // the host kernel's release, as uname -r prints it
	Boot   string // an id of this boot of the host: firmware settings and modules change with it
	Binary string // QEMU's path
	Size   int64  // QEMU's size in bytes
	MTime  int64  // QEMU's modification time, Unix nanoseconds
	Image  string // the image's digest
	Shape  string // the machine: type, CPU model, anything else that matters
}

// KeyFor fills in what the host and the QEMU binary contribute.
func KeyFor(binary, image, shape string) (Key, error) {
	info, err := os.Stat(binary)
	if err != nil {
		return Key{}, fmt.Errorf("cannot identify QEMU: %w", err)
	}
	release, boot := hostIdentity()
	return Key{
		Kernel: release, Boot: boot, Binary: binary,
		Size: info.Size(), MTime: info.ModTime().UnixNano(),
		Image: image, Shape: shape,
	}, nil
}

// BootID identifies this boot of the host; it is empty if that cannot be found out.
func BootID() string {
	_, boot := hostIdentity()
	return boot
}

func (k Key) digest(a Accel) string {
	h := sha256.New()
	// JSON quotes each field, so that no two keys run together into the same text.
	_ = json.NewEncoder(h).Encode(struct { // a struct of strings and integers always encodes
		Key   Key
		Accel Accel
	}{k, a})
	return hex.EncodeToString(h.Sum(nil))
}

const (
	cacheName    = "accel.json"
	lockName     = "accel.lock"
	cacheVersion = 1
)

type cacheFile struct {
	Version  int                `json:"version"`
	Verdicts map[string]Verdict `json:"verdicts"`
}

// load returns what is remembered; a file that is missing, too large, garbage or
// of another version counts as empty, because all of it can be found out again.
func load(dir string) map[string]Verdict {
	empty := map[string]Verdict{}
	f, err := os.OpenFile(filepath.Join(dir, cacheName), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return empty
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return empty
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxCacheBytes+1))
	if err != nil || len(raw) > maxCacheBytes {
		return empty
	}
	return decode(raw)
}

func decode(raw []byte) map[string]Verdict {
	var file cacheFile
	err := json.Unmarshal(raw, &file)
	if err != nil || file.Version != cacheVersion || file.Verdicts == nil || len(file.Verdicts) > maxVerdicts {
		return map[string]Verdict{}
	}
	return file.Verdicts
}

// remember adds one verdict. The caller holds the lock.
func remember(dir, digest string, v Verdict) error {
	verdicts := load(dir)
	verdicts[digest] = v
	return save(dir, verdicts)
}

// save replaces the file in one step, dropping the oldest verdicts beyond the limit.
func save(dir string, verdicts map[string]Verdict) error {
	oldest := slices.SortedFunc(maps.Keys(verdicts), func(a, b string) int {
		return verdicts[a].At.Compare(verdicts[b].At)
	})
	for _, digest := range oldest[:max(0, len(oldest)-maxVerdicts)] {
		delete(verdicts, digest)
	}
	raw, err := json.MarshalIndent(cacheFile{cacheVersion, verdicts}, "", "\t")
	if err != nil {
		return fmt.Errorf("cannot encode verdicts: %w", err)
	}
	tmp, err := os.CreateTemp(dir, cacheName+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("cannot save verdicts: %w", err)
	}
	_, err = tmp.Write(raw)
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), filepath.Join(dir, cacheName))
	}
	if err != nil {
		_ = os.Remove(tmp.Name()) // already failing
		return fmt.Errorf("cannot save verdicts: %w", err)
	}
	return nil
}

// lock takes the lock of dir, which it creates.
func lock(ctx context.Context, dir string) (*lockfile.Lock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot create %q: %w", dir, err)
	}
	return lockfile.Wait(ctx, filepath.Join(dir, lockName), nil)
}

// oneLine makes one line without control characters of an error whose text may
// come from a guest's console.
func oneLine(err error) string {
	text := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return ' '
		}
		return r
	}, err.Error())
	return cut(strings.Join(strings.Fields(text), " "))
}

func cut(text string) string {
	if len(text) <= maxWhy {
		return text
	}
	end := maxWhy
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}
