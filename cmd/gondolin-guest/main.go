//go:build linux

// Command gondolin-guest is the agent that runs as PID 1 in the VM.
package main

import (
	"context"
	"log/slog"
	"os"

	"gondolin/internal/guest"
)

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{ReplaceAttr: withoutTime}))
	err := guest.Main(context.Background(), log)
	log.Error("guest agent ends", "error", err)
	_ = guest.PowerOff()
	os.Exit(1)
}

// withoutTime leaves the time out: the clock is not set when the first lines are written.
func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}
