package accel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"gondolin/internal/testenv"
)

func TestCandidates(t *testing.T) {
	for _, tc := range []struct {
		p    Platform
		want []Accel
	}{
		{Platform{"linux", "amd64", "amd64"}, []Accel{KVM, TCG}},
		{Platform{"linux", "arm64", "arm64"}, []Accel{KVM, TCG}},
		{Platform{"darwin", "arm64", "arm64"}, []Accel{HVF, TCG}},
		{Platform{"darwin", "arm64", "amd64"}, []Accel{TCG}},
		{Platform{"linux", "amd64", "arm64"}, []Accel{TCG}},
		{Platform{"plan9", "amd64", "amd64"}, []Accel{TCG}},
	} {
		if diff := cmp.Diff(tc.want, Candidates(tc.p)); diff != "" {
			t.Errorf("%v: %s", tc.p, diff)
		}
	}
}

// trial counts boots and answers them with err.
type trial struct {
	boots atomic.Int32
	err   error
	log   bytes.Buffer
	cfg   Config
}

func newTrial(t *testing.T, err error) *trial {
	t.Helper()
	tr := &trial{err: err}
	tr.cfg = Config{
		Platform: Platform{"linux", "amd64", "amd64"},
		Key:      Key{Kernel: "6.1", Image: "sha256:1"},
		Dir:      filepath.Join(t.TempDir(), "verdicts"),
		Log:      slog.New(slog.NewTextHandler(&tr.log, nil)),
		Boot: func(context.Context, Accel) error {
			tr.boots.Add(1)
			return tr.err
		},
		open: func(Accel) error { return nil },
	}
	return tr
}

func (tr *trial) choose(t *testing.T, want Accel, source Source) Verdict {
	t.Helper()
	a, v, err := Choose(t.Context(), tr.cfg)
	if err != nil || a != want || v.Source != source {
		t.Fatalf("chose %q from %s (%+v), %v; want %s from %s", a, v.Source, v, err, want, source)
	}
	return v
}

func (tr *trial) wantBoots(t *testing.T, want int32) {
	t.Helper()
	if got := tr.boots.Load(); got != want {
		t.Errorf("%d trial boots, want %d", got, want)
	}
}

func TestChooseRemembers(t *testing.T) {
	testenv.CheckLeaks(t)
	tr := newTrial(t, nil)
	tr.choose(t, KVM, FromBoot)
	tr.choose(t, KVM, FromCache)
	tr.wantBoots(t, 1)
	if tr.log.Len() != 0 {
		t.Errorf("success is logged: %s", &tr.log)
	}
	for _, change := range []func(*Key){
		func(k *Key) { k.Kernel = "6.2" },
		func(k *Key) { k.Boot = "other" },
		func(k *Key) { k.Binary = "/other" },
		func(k *Key) { k.Size++ },
		func(k *Key) { k.MTime++ },
		func(k *Key) { k.Image = "sha256:2" },
		func(k *Key) { k.Shape = "q35" },
	} {
		change(&tr.cfg.Key)
		tr.choose(t, KVM, FromBoot)
	}
	tr.wantBoots(t, 8)
	for name, mode := range map[string]os.FileMode{".": 0o700, cacheName: 0o600, lockName: 0o600} {
		info, err := os.Stat(filepath.Join(tr.cfg.Dir, name))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v; want mode %v", name, info, err, mode)
		}
	}
	testenv.CheckEmpty(t, tr.cfg.Dir, cacheName, lockName)
}

func TestChooseFallsBackWithOneLine(t *testing.T) {
	tr := newTrial(t, errors.New("qemu died:\nline two \x1b[31m"))
	v := tr.choose(t, TCG, FromBoot)
	if v.Works || v.Accel != KVM || v.Why != "the trial boot failed: qemu died: line two [31m" {
		t.Errorf("verdict %+v", v)
	}
	if lines := strings.Split(strings.TrimSpace(tr.log.String()), "\n"); len(lines) != 1 || !strings.Contains(lines[0], "qemu died") {
		t.Errorf("log %q; want one line", lines)
	}
	tr.choose(t, TCG, FromCache)
	tr.wantBoots(t, 1)
	if err := Forget(t.Context(), tr.cfg); err != nil {
		t.Fatal(err)
	}
	tr.err = nil
	tr.choose(t, KVM, FromBoot)
}

func TestChooseWithoutTrial(t *testing.T) {
	for _, a := range []Accel{KVM, HVF, TCG} {
		tr := newTrial(t, errors.New("no"))
		tr.cfg.Override = a
		tr.choose(t, a, FromOverride)
		tr.wantBoots(t, 0)
	}
	tr := newTrial(t, nil)
	tr.cfg.open = func(Accel) error { return errors.New("permission denied") }
	if v := tr.choose(t, TCG, FromDevice); v.Why != "permission denied" {
		t.Errorf("verdict %+v", v)
	}
	tr.cfg.Platform.GuestArch = "arm64"
	tr.choose(t, TCG, FromPlatform)
	tr.wantBoots(t, 0)
}

func TestChooseFails(t *testing.T) {
	tr := newTrial(t, nil)
	tr.cfg.Override = "kvm,kernel-irqchip=off"
	if a, _, err := Choose(t.Context(), tr.cfg); err == nil {
		t.Errorf("chose %q", a)
	}
	tr = newTrial(t, nil)
	tr.cfg.Boot = nil
	if a, _, err := Choose(t.Context(), tr.cfg); err == nil {
		t.Errorf("chose %q without proof", a)
	}
	tr = newTrial(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	tr.cfg.Boot = func(ctx context.Context, _ Accel) error { cancel(); return ctx.Err() }
	if a, _, err := Choose(ctx, tr.cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("chose %q, %v; want canceled", a, err)
	}
	tr.cfg.Boot = func(context.Context, Accel) error { return nil }
	tr.choose(t, KVM, FromBoot) // a canceled trial is no verdict
}

func TestTrialHasDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTrial(t, nil)
		tr.cfg.Dir, tr.cfg.Deadline = "", 7*time.Second
		tr.cfg.Boot = func(ctx context.Context, _ Accel) error { <-ctx.Done(); return ctx.Err() }
		v := tr.choose(t, TCG, FromBoot)
		if v.Boot != 7*time.Second || !strings.Contains(v.Why, "did not answer within 7s") {
			t.Errorf("verdict %+v", v)
		}
	})
}

func TestVerdictsExpire(t *testing.T) {
	for _, tc := range []struct {
		err  error
		then Accel
		good time.Duration
	}{{nil, KVM, worksFor}, {errors.New("no"), TCG, failsFor}} {
		tr := newTrial(t, tc.err)
		now := time.Now()
		tr.cfg.now = func() time.Time { return now }
		tr.choose(t, tc.then, FromBoot)
		now = now.Add(tc.good - time.Second)
		tr.choose(t, tc.then, FromCache)
		now = now.Add(time.Second)
		tr.choose(t, tc.then, FromBoot)
		now = now.Add(-time.Hour) // a verdict from the future
		tr.choose(t, tc.then, FromBoot)
	}
}

func TestTrialsHappenOnce(t *testing.T) {
	testenv.CheckLeaks(t)
	tr := newTrial(t, nil)
	release := make(chan struct{})
	tr.cfg.Boot = func(context.Context, Accel) error {
		tr.boots.Add(1)
		<-release
		return nil
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if a, _, err := Choose(t.Context(), tr.cfg); a != KVM || err != nil {
				t.Errorf("chose %q, %v", a, err)
			}
		})
	}
	close(release)
	all.Wait()
	tr.wantBoots(t, 1)
}

func TestUselessCacheIsIgnored(t *testing.T) {
	for name, content := range map[string]string{
		"empty":     "",
		"garbage":   "\x00\xff{",
		"null":      "null",
		"version":   `{"version":2,"verdicts":{}}`,
		"wrong":     `{"version":1,"verdicts":{"a":7}}`,
		"too large": `{"version":1,"verdicts":{}}` + strings.Repeat(" ", maxCacheBytes),
	} {
		t.Run(name, func(t *testing.T) {
			tr := newTrial(t, nil)
			if err := os.MkdirAll(tr.cfg.Dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(tr.cfg.Dir, cacheName), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			tr.choose(t, KVM, FromBoot)
			tr.choose(t, KVM, FromCache)
		})
	}
	tr := newTrial(t, nil)
	tr.cfg.Dir = "/dev/null/no" // nothing can be kept; the trial still decides
	tr.choose(t, KVM, FromBoot)
	tr.choose(t, KVM, FromBoot)
}

func TestCacheIsBounded(t *testing.T) {
	dir, start := t.TempDir(), time.Now()
	for i := range maxVerdicts + 5 {
		v := Verdict{Accel: KVM, At: start.Add(time.Duration(i) * time.Second), Why: strings.Repeat("\x01", maxWhy)}
		if err := remember(dir, fmt.Sprint(i), v); err != nil {
			t.Fatal(err)
		}
	}
	kept := load(dir)
	if _, ok := kept["4"]; len(kept) != maxVerdicts || ok {
		t.Errorf("%d verdicts are kept, the oldest among them: %v", len(kept), ok)
	}
}

func TestExplain(t *testing.T) {
	tr := newTrial(t, errors.New("no luck"))
	want := "host linux/amd64, guest amd64\nkvm: its device opens; no boot with it is remembered\n" +
		"tcg: emulation, works everywhere, several times slower\n"
	if diff := cmp.Diff(want, Explain(tr.cfg).String()); diff != "" {
		t.Error(diff)
	}
	tr.choose(t, TCG, FromBoot)
	tr.cfg.Override = TCG
	if got := Explain(tr.cfg).String(); !strings.Contains(got, "the trial boot failed: no luck") || !strings.Contains(got, "tcg: insisted on") {
		t.Errorf("explains %q", got)
	}
	tr.wantBoots(t, 1)
}

func TestKeyFor(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	k, err := KeyFor(self, "sha256:1", "microvm")
	if err != nil || k.Kernel == "" || k.Boot == "" || k.Size == 0 || k.MTime == 0 {
		t.Errorf("key %+v, %v", k, err)
	}
	if _, err := KeyFor("/nonexistent", "", ""); err == nil {
		t.Error("a missing QEMU has a key")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"version":1,"verdicts":{"a":{"accel":"kvm","works":true,"at":"2026-01-01T00:00:00Z","boot":1}}}`))
	f.Add([]byte(`{"version":1,"verdicts":null}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if got := decode(raw); got == nil || len(got) > maxVerdicts {
			t.Fatalf("decoded %d verdicts, nil: %v", len(got), got == nil)
		}
	})
}
