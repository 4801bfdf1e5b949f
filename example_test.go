package gondolin_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"gondolin"
	"gondolin/internal/vmtest"
	"gondolin/policy"
	"gondolin/vfs"
)

// upstream leads api.example.com to a server on this machine; see TestExample.
var upstream gondolin.Upstream

// The guest uses an API key that it never sees.
func ExampleStart() {
	ctx := context.Background()
	vm, err := gondolin.Start(ctx, gondolin.Config{
		Network: policy.Network{
			Allow:         []policy.Rule{{Host: "api.example.com"}},
			AllowInternal: []string{"api.example.com"},
			Secrets: map[string]policy.Secret{
				"API_KEY": {Hosts: []string{"api.example.com"}, Value: "sk-live-3f9a61c5d2"},
			},
		},
		Mounts:   map[string]vfs.FS{"/": vfs.Memory()},
		Upstream: upstream,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer vm.Close()
	out, err := vm.Shell(ctx, `curl -sS -H "Authorization: Bearer $API_KEY" https://api.example.com/user`).Output()
	fmt.Printf("%s%v\n", out, err)
}

// TestExample runs the example with a server for it to talk to. An example with
// an Output comment could not skip where no VM can run, nor have a server.
func TestExample(t *testing.T) {
	vmtest.Needs(t)
	api := vmtest.NewAPI(t, nil, "api.example.com")
	upstream = api.Upstream()
	ExampleStart()
	requests := api.Requests()
	if len(requests) != 1 || requests[0].Header.Get("Authorization") != "Bearer sk-live-3f9a61c5d2" {
		t.Errorf("the server saw %d requests", len(requests))
	}
}
