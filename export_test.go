package gondolin

import (
	"testing"
	"time"
)

// WaitIdle waits until a pool that was full has given its VMs up.
func WaitIdle(t *testing.T, p *Pool) {
	t.Helper()
	full := false
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		switch n := len(p.ready); {
		case n > 0:
			full = true
		case full:
			return
		}
		<-time.After(5 * time.Millisecond)
	}
	t.Fatal("the pool did not give its VMs up")
}
