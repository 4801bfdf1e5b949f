// Command lifecycle measures what a VM costs to create, use and end, beside a
// plain boot of the same kernel, image and devices on the same accelerator. All
// variants run in turn within each round; the figures are medians over rounds
// and ratios within the run. It prints a table and writes JSON.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"gondolin"
)

// options of a run.
type options struct {
	rounds, clones, crowd int
	memory                int64
	out                   string
}

func main() {
	var o options
	flag.IntVar(&o.rounds, "rounds", 7, "rounds to take medians of, at least 5")
	flag.IntVar(&o.clones, "clones", 20, "idle clones to measure the memory of")
	flag.IntVar(&o.crowd, "crowd", 50, "VMs to have alive at once")
	flag.Int64Var(&o.memory, "memory", 256<<20, "memory of a guest in bytes")
	flag.StringVar(&o.out, "out", "bench/out/lifecycle.json", "file for the JSON")
	flag.Parse()
	if err := run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, "lifecycle:", err)
		os.Exit(1)
	}
}

// result is one line of the table.
type result struct {
	Name   string  `json:"name"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Versus string  `json:"versus,omitempty"` // the name of another result
	Ratio  float64 `json:"ratio,omitempty"`  // of this to that
	N      int     `json:"n"`
}

type bench struct {
	options
	config  gondolin.Config
	samples map[string][]float64
	order   []string
	results []result
}

func (b *bench) add(name string, d time.Duration) {
	if _, seen := b.samples[name]; !seen {
		b.order = append(b.order, name)
	}
	b.samples[name] = append(b.samples[name], float64(d.Microseconds())/1000)
}

func median(list []float64) float64 {
	s := slices.Sorted(slices.Values(list))
	if len(s)%2 == 1 {
		return s[len(s)/2]
	}
	return (s[len(s)/2-1] + s[len(s)/2]) / 2
}

func run(ctx context.Context, o options) error {
	if o.rounds < 5 {
		return fmt.Errorf("cannot take medians of %d rounds: give 5 or more", o.rounds)
	}
	b := &bench{options: o, samples: make(map[string][]float64)}
	b.config = gondolin.Config{Memory: o.memory, CPUs: 1}
	if _, err := gondolin.WarmTemplate(ctx, b.config); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{b.lifecycle, b.pooled, b.warm} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	b.summarise()
	if err := b.density(ctx); err != nil {
		return err
	}
	return b.report()
}

const (
	cold       = "cold boot to first echo"
	clone      = "clone to first echo"
	created    = "clone created"
	closed     = "close"
	python     = "create, python3 -V, close"
	fromPool   = "pool to first echo"
	handed     = "pool hands over"
	roundTrip  = "exec /bin/true on a warm VM"
	pausing    = "pause"
	resuming   = "resume, clock set"
	memoryEach = "memory of an idle clone (PSS)"
)

// versus says what a result is compared with.
var versus = map[string]string{clone: cold, python: cold, fromPool: cold, created: cold}

// lifecycle measures whole lives, cold and cloned, in turn.
func (b *bench) lifecycle(ctx context.Context) error {
	for range b.rounds {
		for name, config := range map[string]gondolin.Config{cold: b.coldConfig(), clone: b.config} {
			if err := b.life(ctx, name, config); err != nil {
				return err
			}
		}
		begin := time.Now()
		vm, err := gondolin.Start(ctx, b.config)
		if err != nil {
			return err
		}
		if _, err := vm.Command(ctx, "python3", "-V").Output(); err != nil {
			return err
		}
		if err := vm.Close(); err != nil {
			return err
		}
		b.add(python, time.Since(begin))
	}
	return nil
}

func (b *bench) coldConfig() gondolin.Config {
	c := b.config
	c.Cold = true
	return c
}

func (b *bench) life(ctx context.Context, name string, config gondolin.Config) error {
	begin := time.Now()
	vm, err := gondolin.Start(ctx, config)
	if err != nil {
		return err
	}
	started := time.Since(begin)
	if out, err := vm.Command(ctx, "echo", "hello").Output(); err != nil || string(out) != "hello\n" {
		return fmt.Errorf("echo said %q: %w", out, err)
	}
	b.add(name, time.Since(begin))
	if name == clone {
		b.add(created, started)
	}
	begin = time.Now()
	if err := vm.Close(); err != nil {
		return err
	}
	b.add(closed, time.Since(begin))
	return nil
}

// pooled measures what a VM costs that was ready.
func (b *bench) pooled(ctx context.Context) error {
	pool, err := gondolin.NewPool(ctx, gondolin.PoolConfig{Size: 2, New: func() (gondolin.Config, error) { return b.config, nil }})
	if err != nil {
		return err
	}
	defer pool.Close()
	for range b.rounds {
		for pool.Ready() < 2 { // a full pool, with nothing going on beside
			time.Sleep(20 * time.Millisecond)
		}
		begin := time.Now()
		vm, err := pool.Get(ctx)
		if err != nil {
			return err
		}
		b.add(handed, time.Since(begin))
		if _, err := vm.Command(ctx, "echo", "hello").Output(); err != nil {
			return err
		}
		b.add(fromPool, time.Since(begin))
		if err := vm.Close(); err != nil {
			return err
		}
	}
	return nil
}

// warm measures what is done again and again in one VM.
func (b *bench) warm(ctx context.Context) error {
	vm, err := gondolin.Start(ctx, b.config)
	if err != nil {
		return err
	}
	defer vm.Close()
	for i := range 10 * b.rounds {
		begin := time.Now()
		if err := vm.Command(ctx, "/bin/true").Run(); err != nil {
			return err
		}
		if i >= b.rounds { // the first ones warm it
			b.add(roundTrip, time.Since(begin))
		}
	}
	for range b.rounds {
		begin := time.Now()
		if err := vm.Pause(ctx); err != nil {
			return err
		}
		b.add(pausing, time.Since(begin))
		begin = time.Now()
		if err := vm.Resume(ctx); err != nil {
			return err
		}
		b.add(resuming, time.Since(begin))
	}
	return nil
}

func (b *bench) summarise() {
	for _, name := range b.order {
		r := result{Name: name, Value: median(b.samples[name]), Unit: "ms", N: len(b.samples[name])}
		if other := versus[name]; other != "" {
			r.Versus, r.Ratio = other, r.Value/median(b.samples[other])
		}
		b.results = append(b.results, r)
	}
}

// density has many VMs alive at once.
func (b *bench) density(ctx context.Context) error {
	var vms []*gondolin.VM
	defer func() {
		for _, vm := range vms {
			vm.Close()
		}
	}()
	for len(vms) < b.crowd {
		vm, err := gondolin.Start(ctx, b.config)
		if err != nil {
			return fmt.Errorf("VM %d: %w", len(vms)+1, err)
		}
		vms = append(vms, vm)
		if len(vms) == b.clones {
			pss, err := childrenPSS()
			if err != nil {
				return err
			}
			b.results = append(b.results, result{Name: memoryEach, Value: float64(pss) / float64(b.clones) / (1 << 20), Unit: "MiB", N: b.clones})
		}
	}
	answering := 0
	for _, vm := range vms {
		if out, err := vm.Command(ctx, "echo", "here").Output(); err == nil && string(out) == "here\n" {
			answering++
		}
	}
	b.results = append(b.results, result{Name: fmt.Sprintf("VMs alive at once, of %d, that answer", b.crowd), Value: float64(answering), N: b.crowd})
	return nil
}

func (b *bench) report() error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WHAT\tMEDIAN\tRATIO\tOF")
	for _, r := range b.results {
		ratio := ""
		if r.Ratio != 0 {
			ratio = fmt.Sprintf("%.4f", r.Ratio)
		}
		fmt.Fprintf(w, "%s\t%.1f %s\t%s\t%s\n", r.Name, r.Value, r.Unit, ratio, r.Versus)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(b.out), 0o750); err != nil {
		return err
	}
	slices.SortStableFunc(b.results, func(x, y result) int { return cmp.Compare(x.Name, y.Name) })
	raw, err := json.MarshalIndent(b.results, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(b.out, append(raw, '\n'), 0o600)
}
