package accel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"
)

// Source says where a verdict comes from.
type Source string

// The sources.
const (
	FromOverride Source = "override" // the caller insisted; never probed
	FromPlatform Source = "platform" // nothing but emulation is possible here
	FromDevice   Source = "device"   // the accelerator's device cannot be opened
	FromCache    Source = "cache"    // remembered from an earlier boot
	FromBoot     Source = "boot"     // a trial boot, just now
)

// Verdict is what is known about the accelerator that was tried or insisted on.
type Verdict struct {
	Accel  Accel         `json:"accel"`  // the subject, which is not the choice when Works is false
	Works  bool          `json:"works"`  //
	Why    string        `json:"why"`    // why it does not work, one line; empty if it does
	At     time.Time     `json:"at"`     // when it was found out
	Boot   time.Duration `json:"boot"`   // what the trial boot took, in nanoseconds
	Source Source        `json:"source"` //
}

// Config says what to choose for and how to try it.
type Config struct {
	Platform Platform

	// Override wins over everything and is never probed; empty means choose.
	Override Accel

	// Key is what a verdict holds for.
	Key Key

	// Dir is where verdicts are kept; it is created, mode 0700. Empty means that
	// nothing is remembered.
	Dir string

	// Boot boots the real image with an accelerator, returns nil once the guest has
	// answered, and leaves nothing running. It must return soon after ctx is done.
	// It is required: that a device opens proves nothing.
	Boot func(ctx context.Context, a Accel) error

	// Deadline bounds one Boot; if zero, 15 seconds.
	Deadline time.Duration

	// Log gets the one line that says that emulation is used; nil means nobody.
	Log *slog.Logger

	now  func() time.Time  // if nil, time.Now
	open func(Accel) error // if nil, openDevice
}

func (c Config) withDefaults() Config {
	c.Platform = c.Platform.withDefaults()
	if c.Deadline == 0 {
		c.Deadline = probeDeadline
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.open == nil {
		c.open = openDevice
	}
	return c
}

// Choose returns the accelerator to use and the verdict that led to it. It fails
// only if ctx ends, the override is not an accelerator, or Boot is missing. The verdict may be
// about an accelerator that does not work; then the choice is TCG and one line
// has been logged. Trial boots for one Dir happen one at a time, across processes:
// whoever waited finds the verdict of the first.
func Choose(ctx context.Context, cfg Config) (Accel, Verdict, error) {
	c := cfg.withDefaults()
	if c.Override != "" {
		if _, err := Parse(string(c.Override)); err != nil {
			return "", Verdict{}, err
		}
		return c.Override, Verdict{Accel: c.Override, Works: true, At: c.now(), Source: FromOverride}, nil
	}
	first := Candidates(c.Platform)[0]
	if first == TCG {
		return TCG, Verdict{Accel: TCG, Works: true, At: c.now(), Source: FromPlatform}, nil
	}
	v, err := c.judge(ctx, first)
	if err != nil {
		return "", Verdict{}, fmt.Errorf("cannot choose an accelerator: %w", err)
	}
	if v.Works {
		return first, v, nil
	}
	c.sayFallback(ctx, v)
	return TCG, v, nil
}

// sayFallback says once, when it was just found out, that emulation is used.
func (c Config) sayFallback(ctx context.Context, v Verdict) {
	level := slog.LevelWarn
	if v.Source == FromCache {
		level = slog.LevelInfo
	}
	c.Log.Log(ctx, level, "hardware acceleration does not work here; using slow emulation (gondolin doctor explains)",
		"accel", string(v.Accel), "why", v.Why, "source", string(v.Source))
}

// judge returns the verdict on a: from the device, from memory or from a trial boot.
func (c Config) judge(ctx context.Context, a Accel) (Verdict, error) {
	if err := c.open(a); err != nil {
		return Verdict{Accel: a, Why: oneLine(err), At: c.now(), Source: FromDevice}, nil
	}
	if c.Boot == nil {
		return Verdict{}, errors.New("no way to boot was given")
	}
	if c.Dir == "" {
		return c.try(ctx, a)
	}
	if v, ok := c.recall(a); ok {
		return v, nil
	}
	held, err := lock(ctx, c.Dir)
	if err != nil && ctx.Err() != nil {
		return Verdict{}, err
	}
	if err != nil { // such as a read-only home: prove it each time rather than not at all
		c.Log.Debug("cannot remember which accelerator works", "error", err)
		return c.try(ctx, a)
	}
	defer held.Close()
	if v, ok := c.recall(a); ok {
		return v, nil
	}
	v, err := c.try(ctx, a)
	if err != nil {
		return Verdict{}, err
	}
	if err := remember(c.Dir, c.Key.digest(a), v); err != nil {
		c.Log.Debug("cannot remember which accelerator works", "error", err)
	}
	return v, nil
}

// try boots once. It fails only if ctx ends, which says nothing about a.
func (c Config) try(ctx context.Context, a Accel) (Verdict, error) {
	trial, cancel := context.WithTimeout(ctx, c.Deadline)
	defer cancel()
	start := c.now()
	err := c.Boot(trial, a)
	v := Verdict{Accel: a, Works: err == nil, At: c.now(), Boot: c.now().Sub(start), Source: FromBoot}
	switch {
	case err == nil:
		return v, nil
	case ctx.Err() != nil:
		return Verdict{}, context.Cause(ctx)
	case trial.Err() != nil:
		v.Why = fmt.Sprintf("the trial boot did not answer within %v: %s", c.Deadline, oneLine(err))
	default:
		v.Why = "the trial boot failed: " + oneLine(err)
	}
	v.Why = cut(v.Why)
	return v, nil
}

// recall returns the remembered verdict on a, if it is still believed.
func (c Config) recall(a Accel) (Verdict, bool) {
	v, ok := load(c.Dir)[c.Key.digest(a)]
	if !ok || v.Accel != a {
		return Verdict{}, false
	}
	v.Source, v.Why = FromCache, cut(v.Why)
	age, limit := c.now().Sub(v.At), failsFor
	if v.Works {
		limit = worksFor
	}
	return v, age >= 0 && age < limit
}

// Forget drops the remembered verdict, so that the next Choose tries again.
func Forget(ctx context.Context, cfg Config) error {
	c := cfg.withDefaults()
	if c.Dir == "" {
		return nil
	}
	if _, err := os.Stat(c.Dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	held, err := lock(ctx, c.Dir)
	if err != nil {
		return fmt.Errorf("cannot forget which accelerator works: %w", err)
	}
	defer held.Close()
	verdicts := load(c.Dir)
	for _, a := range Candidates(c.Platform) {
		delete(verdicts, c.Key.digest(a))
	}
	return save(c.Dir, verdicts)
}
