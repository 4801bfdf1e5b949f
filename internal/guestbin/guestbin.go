// Package guestbin carries the guest agent in the host program, so that a start needs no file besides the image. The
// Makefile puts the agent's binaries into assets before it builds the host program; a source tree has none.
package guestbin

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
)

//go:embed assets
var assets embed.FS

// Open returns the agent's binary for the architecture arch, amd64 or arm64. The caller must not change it.
func Open(arch string) ([]byte, error) {
	if arch != "amd64" && arch != "arm64" {
		return nil, fmt.Errorf("cannot find a guest agent for architecture %q: there is one for amd64 and one for arm64", arch)
	}
	data, err := assets.ReadFile("assets/gondolin-guest-" + arch)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(data) == 0 {
		return nil, fmt.Errorf("cannot find the guest agent for %s: this program was built without it; run make build", arch)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the guest agent for %s: %w", arch, err)
	}
	return data, nil
}
