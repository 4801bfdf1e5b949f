package testenv

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	// leakPatience is how long things may take to end after the test: a process just killed has to be reaped and a
	// goroutine whose connection closed has to be scheduled, on two busy cores with the race detector.
	leakPatience = 5 * time.Second
	// firstLeakPoll doubles up to maxLeakPoll, so that a clean test ends at once.
	firstLeakPoll = time.Millisecond
	maxLeakPoll   = 100 * time.Millisecond
	// maxStackBytes bounds the dump of all goroutines; a test with more than that has other worries.
	maxStackBytes = 16 << 20
)

// CheckLeaks notes what the process holds now and fails the test when it holds more after the test's other cleanups:
// goroutines everywhere, file descriptors and child processes on Linux. Call it first in a test, and not in parallel
// tests: what their neighbours hold would be blamed on them.
func CheckLeaks(tb testing.TB) {
	tb.Helper()
	checkLeaks(tb, leakPatience)
}

func checkLeaks(tb testing.TB, patience time.Duration) {
	tb.Helper()
	goroutines, held := goroutineStacks(), heldResources()
	tb.Cleanup(func() {
		if tb.Failed() || tb.Skipped() {
			return // what a failed test leaves says nothing more
		}
		tb.Helper()
		found := awaitNone(patience, func() []string {
			return append(newGoroutines(goroutines), newResources(held)...)
		})
		for _, leak := range found {
			tb.Errorf("leaked %s", leak)
		}
	})
}

// CheckEmpty fails the test when dir still has entries at its end, other than those named in allowed.
func CheckEmpty(tb testing.TB, dir string, allowed ...string) {
	tb.Helper()
	checkEmpty(tb, leakPatience, dir, allowed)
}

func checkEmpty(tb testing.TB, patience time.Duration, dir string, allowed []string) {
	tb.Helper()
	tb.Cleanup(func() {
		tb.Helper()
		for _, name := range awaitNone(patience, func() []string { return entries(dir, allowed) }) {
			tb.Errorf("leaked file %s", filepath.Join(dir, name))
		}
	})
}

func entries(dir string, allowed []string) []string {
	list, err := os.ReadDir(dir)
	if err != nil {
		if os.IsNotExist(err) {
			return nil
		}
		return []string{"(" + err.Error() + ")"}
	}
	var names []string
	for _, e := range list {
		if !slices.Contains(allowed, e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names
}

// awaitNone asks find until it finds nothing or patience runs out, and returns what it found last.
func awaitNone(patience time.Duration, find func() []string) []string {
	deadline := time.Now().Add(patience)
	for wait := firstLeakPoll; ; wait = min(2*wait, maxLeakPoll) {
		found := find()
		if len(found) == 0 || time.Now().After(deadline) {
			return found
		}
		<-time.After(wait)
	}
}

// goroutineStacks returns the stack of every goroutine by its header's id, such as "goroutine 12".
func goroutineStacks() map[string]string {
	buf := make([]byte, 1<<18)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) || len(buf) >= maxStackBytes {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	stacks := make(map[string]string)
	for stack := range strings.SplitSeq(string(buf), "\n\n") {
		id, _, ok := strings.Cut(stack, " [")
		if ok {
			stacks[id] = stack
		}
	}
	return stacks
}

// harmless are the goroutines Go's own packages start once and keep: functions as they appear in a stack.
var harmless = []string{
	"os/signal.signal_recv(", "os/signal.loop(", "runtime.ensureSigM",
	"testing.(*T).Run(", "testing.runFuzzing(", "testing.(*M).", "testing.runTests(", "testing.tRunner.func",
	"testing.(*testState).waitParallel(", "testing.(*T).Parallel(",
	"runtime/pprof.", "runtime.runFinalizers", "runtime.runCleanups", "unique.runtime_registerUniqueMapCleanup",
	"internal/synctest.", "testenv.goroutineStacks(",
}

func newGoroutines(before map[string]string) []string {
	var leaks []string
	for id, stack := range goroutineStacks() {
		if _, old := before[id]; old || isHarmless(stack) {
			continue
		}
		leaks = append(leaks, stack)
	}
	slices.Sort(leaks)
	return leaks
}

func isHarmless(stack string) bool {
	return slices.ContainsFunc(harmless, func(name string) bool { return strings.Contains(stack, name) })
}

// resources maps what the process holds, such as "file descriptor 7", to what it is.
type resources map[string]string

func newResources(before resources) []string {
	var leaks []string
	for name, what := range heldResources() {
		if before[name] != what {
			leaks = append(leaks, fmt.Sprintf("%s: %s", name, what))
		}
	}
	slices.Sort(leaks)
	return leaks
}
