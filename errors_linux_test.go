package gondolin

import (
	"syscall"
	"testing"
)

func TestSignalNames(t *testing.T) {
	for n := range 65 {
		if got, want := signalName(n), syscall.Signal(n).String(); got != want {
			t.Errorf("%d: %q, not %q", n, got, want)
		}
	}
}
