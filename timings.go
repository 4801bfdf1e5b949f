package gondolin

import "time"

// Timing is what one phase of a start took. The phases of one Start follow each other;
// those whose name begins with "guest: " are the guest's own account of the
// phase "guest", of which it says nothing that must be believed.
type Timing struct {
	Phase string
	Took  time.Duration
}

// stopwatch times phases.
type stopwatch struct {
	last    time.Time
	timings []Timing
}

func newStopwatch() *stopwatch { return &stopwatch{last: time.Now()} }

// lap notes that phase ended now.
func (s *stopwatch) lap(phase string) {
	now := time.Now()
	s.timings = append(s.timings, Timing{phase, now.Sub(s.last)})
	s.last = now
}

// milliseconds returns what each phase took.
func milliseconds(timings []Timing) map[string]float64 {
	phases := make(map[string]float64, len(timings))
	for _, t := range timings {
		phases[t.Phase] += float64(t.Took.Microseconds()) / 1000
	}
	return phases
}

// Timings returns what the phases of Start took.
func (vm *VM) Timings() []Timing {
	list := append([]Timing(nil), vm.timings...)
	var before time.Duration
	for _, step := range vm.ready.Steps {
		list = append(list, Timing{"guest: " + step.Name, step.Since - before})
		before = step.Since
	}
	return list
}
