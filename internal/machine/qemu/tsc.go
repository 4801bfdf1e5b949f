package qemu

import (
	"context"
	"time"
)

// Under emulation QEMU hands an amd64 guest the host's time-stamp counter as it
// is, so the rate the guest's kernel has to know is the host's.

// tscSample is one reading of both clocks.
type tscSample struct {
	at      time.Time
	counter uint64
}

// tscStart is taken when the program starts, so that by the time a machine starts
// the interval is long enough and nobody waits.
var tscStart = sampleTSC()

// sampleTSC reads the counter between two readings of the clock, a few times, and
// keeps the reading that was least interrupted.
func sampleTSC() tscSample {
	if !hasTSC {
		return tscSample{}
	}
	var best tscSample
	shortest := time.Hour
	for range 8 {
		before := time.Now()
		counter := readTSC()
		if took := time.Since(before); took < shortest {
			shortest, best = took, tscSample{at: before.Add(took / 2), counter: counter}
		}
	}
	return best
}

// hostTSCKHz returns the rate of the host's time-stamp counter, or 0 where there is
// none or ctx ends. It waits until the program is minTSCInterval old.
func hostTSCKHz(ctx context.Context) int {
	if !hasTSC {
		return 0
	}
	timer := time.NewTimer(minTSCInterval - time.Since(tscStart.at))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return 0
	}
	return rateKHz(tscStart, sampleTSC())
}

// rateKHz returns the counter's rate between two samples, or 0 if that makes no
// sense: a counter that ran backwards or stood still is none.
func rateKHz(from, to tscSample) int {
	elapsed := to.at.Sub(from.at)
	if elapsed <= 0 || to.counter <= from.counter {
		return 0
	}
	khz := float64(to.counter-from.counter) / elapsed.Seconds() / 1000
	if khz < 100_000 || khz >= maxTSCKHz-tscStep {
		return 0
	}
	return int(khz/tscStep+0.5) * tscStep
}
