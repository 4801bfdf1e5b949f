package gondolin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// PoolConfig describes a [Pool].
type PoolConfig struct {
	// New returns the config of the next VM. It is called from one goroutine at a time.
	// VMs of one pool should differ only in what must not be shared, such as
	// file systems.
	New func() (Config, error)
	// Size is how many VMs are kept ready. 0: 1.
	Size int
	// IdleAfter is after how long without a Get the pool gives its VMs up, to fill
	// up again at the next. 0: never.
	IdleAfter time.Duration
	// Log receives why a VM could not be made ready. nil: nothing.
	Log *slog.Logger
}

// ErrPoolClosed is returned by [Pool.Get] after [Pool.Close].
var ErrPoolClosed = errors.New("pool closed")

// maxPool bounds Size: more is a mistake on any machine this runs on.
const maxPool = 1024

// retryDelay is how long a pool waits after a VM could not be started, doubled each
// time up to maxRetryDelay.
//
// refillDelay lets the first command in a VM that was handed over go before the
// start of the next VM, which would compete with it for processors.
const (
	refillDelay   = 150 * time.Millisecond
	retryDelay    = 100 * time.Millisecond
	maxRetryDelay = 30 * time.Second
)

// Pool keeps VMs started, so that Get hands one over at once. One goroutine
// starts and replaces them. VMs that have ended are not handed over.
type Pool struct {
	config PoolConfig
	ready  chan *VM      // has room for Size
	wanted chan struct{} // a Get happened
	stop   context.CancelFunc
	done   chan struct{} // closed when the goroutine has ended

	making sync.Mutex // held during New
}

// NewPool starts filling a pool. ctx bounds its life, as Close does.
func NewPool(ctx context.Context, config PoolConfig) (*Pool, error) {
	if config.Size == 0 {
		config.Size = 1
	}
	if config.New == nil || config.Size < 0 || config.Size > maxPool {
		return nil, fmt.Errorf("cannot make a pool of %d VMs: give New, and a size of 1 to %d", config.Size, maxPool)
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	ctx, stop := context.WithCancel(ctx)
	p := &Pool{
		config: config, ready: make(chan *VM, config.Size), wanted: make(chan struct{}, 1),
		stop: stop, done: make(chan struct{}),
	}
	go p.run(ctx)
	return p, nil
}

// Get returns a VM that is ready, or starts one when there is none. The caller
// closes it.
func (p *Pool) Get(ctx context.Context) (*VM, error) {
	for {
		select {
		case <-p.done:
			return nil, ErrPoolClosed
		default:
		}
		select {
		case vm := <-p.ready:
			p.touch()
			if vm.gone() == nil {
				return vm, nil
			}
			vm.Close()
		default:
			p.touch()
			return p.start(ctx)
		}
	}
}

// Ready returns how many VMs are ready now.
func (p *Pool) Ready() int { return len(p.ready) }

// touch tells the goroutine of a Get.
func (p *Pool) touch() {
	select {
	case p.wanted <- struct{}{}:
	default: // it knows already
	}
}

func (p *Pool) start(ctx context.Context) (*VM, error) {
	p.making.Lock()
	config, err := p.config.New()
	p.making.Unlock()
	if err != nil {
		return nil, fmt.Errorf("cannot start a VM for the pool: %w", err)
	}
	return Start(ctx, config)
}

// startWarm starts a VM and runs a command in it, so that what a first command
// makes the guest read and map is there when somebody gets it.
func (p *Pool) startWarm(ctx context.Context) (*VM, error) {
	vm, err := p.start(ctx)
	if err != nil {
		return nil, err
	}
	if err := vm.Command(ctx, "/bin/sh", "-c", "exit 0").Run(); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot warm a VM up: %w", err), vm.Close())
	}
	return vm, nil
}

// Close ends the VMs that nobody has got and waits for that. It is idempotent.
func (p *Pool) Close() error {
	p.stop()
	<-p.done
	return nil
}

// run keeps the pool full until ctx is done, and drains it then.
func (p *Pool) run(ctx context.Context) {
	defer close(p.done)
	defer p.drain()
	defer p.stop()
	delay := retryDelay
	for ctx.Err() == nil {
		if len(p.ready) == cap(p.ready) {
			p.rest(ctx)
			if len(p.ready) > 0 {
				sleep(ctx, refillDelay)
			}
			continue
		}
		vm, err := p.startWarm(ctx)
		if err == nil {
			delay = retryDelay
			p.ready <- vm // never blocks: nobody else sends
			continue
		}
		if ctx.Err() == nil {
			p.config.Log.Warn("cannot fill the pool", "error", err, "again_in", delay)
			sleep(ctx, delay)
			delay = min(2*delay, maxRetryDelay)
		}
	}
}

// rest waits for a Get. After IdleAfter without one it gives the VMs up and
// waits on.
func (p *Pool) rest(ctx context.Context) {
	var idle <-chan time.Time
	if p.config.IdleAfter > 0 {
		t := time.NewTimer(p.config.IdleAfter)
		defer t.Stop()
		idle = t.C
	}
	for {
		select {
		case <-p.wanted:
			return
		case <-ctx.Done():
			return
		case <-idle:
			p.drain()
			idle = nil
		}
	}
}

// drain closes the VMs that are ready.
func (p *Pool) drain() {
	for {
		select {
		case vm := <-p.ready:
			if err := vm.Close(); err != nil {
				p.config.Log.Warn("cannot end a pooled VM", "error", err)
			}
		default:
			return
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
