package qemu

import (
	"testing"
	"time"
)

func TestRateKHz(t *testing.T) {
	start := tscSample{at: time.Now(), counter: 1 << 40}
	after := func(d time.Duration, ticks int64) tscSample {
		return tscSample{at: start.at.Add(d), counter: uint64(int64(start.counter) + ticks)}
	}
	for _, tc := range []struct {
		to   tscSample
		want int
	}{
		{after(time.Second, 2_596_120_000), 2_596_100},
		{after(20*time.Millisecond, 51_923_000), 2_596_200}, // 2596150 kHz, rounded
		{after(time.Second, 0), 0},
		{after(time.Second, -5), 0},
		{after(0, 1000), 0},
		{after(-time.Second, 1000), 0},
		{after(time.Second, 1000), 0},
		{after(time.Second, 30_000_000_000), 0},
	} {
		if got := rateKHz(start, tc.to); got != tc.want {
			t.Errorf("%v and %d ticks: got %d, want %d", tc.to.at.Sub(start.at), tc.to.counter-start.counter, got, tc.want)
		}
	}
}

func TestHostTSCIsSteady(t *testing.T) {
	if !hasTSC {
		return // and hostTSCKHz is 0, which Start takes for unknown
	}
	first, second := hostTSCKHz(t.Context()), hostTSCKHz(t.Context())
	if first == 0 || max(first-second, second-first) > first/1000 {
		t.Errorf("measured %d kHz and then %d kHz", first, second)
	}
}
