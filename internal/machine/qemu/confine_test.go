package qemu

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gondolin/internal/machine/accel"
	"gondolin/internal/machine/jail"
	"gondolin/internal/testenv"
)

// A real QEMU in a complete jail, as the kernel sees it.
func TestProcessIsJailed(t *testing.T) {
	testenv.NeedsLinux(t)
	testenv.CheckLeaks(t)
	m := tinyMachine(t)
	m.Root.Path = filepath.Join(t.TempDir(), "root")
	if err := os.WriteFile(m.Root.Path, make([]byte, mib), 0o400); err != nil {
		t.Fatal(err)
	}
	p := start(t, m, Options{RequireJail: true})
	await(t, "console output", func() bool { return bytes.Contains(p.Console(), []byte("tiny\n")) })
	wants := map[string][]string{
		"status": {"CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"},
		"limits": {
			"Max core file size        0 ", "Max file size             0 ", "Max locked memory         0 ",
			fmt.Sprintf("Max open files            %d ", baseFiles+filesPerCPU),
		},
	}
	for name, texts := range wants {
		content, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.PID(), name))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range texts {
			if !bytes.Contains(content, []byte(want)) {
				t.Errorf("%s lacks %q:\n%s", name, want, content)
			}
		}
		if name == "status" && os.Geteuid() == 0 && bytes.Contains(content, []byte("Uid:\t0")) {
			t.Errorf("it runs as root:\n%s", content)
		}
	}
	if missing := p.Jail().Missing(); len(missing) > 2 {
		t.Errorf("missing: %v", missing)
	}
}

// What a jail is asked for depends on the machine alone.
func TestJailConfig(t *testing.T) {
	for _, tc := range []struct {
		m    Machine
		want jail.Config
	}{
		{Machine{Binary: "/q", Accel: accel.KVM, CPUs: 2, Memory: 512 * mib}, jail.Config{
			Program: "/q", Devices: []string{"/dev/kvm"}, OpenFiles: 136, Threads: 130, Memory: 768 * mib, CPUs: 2, Frozen: true,
		}},
		{Machine{Binary: "/q", Accel: accel.TCG, CPUs: 1, Memory: 512 * mib, RAM: RAM{Path: "/r", Shared: true}}, jail.Config{
			Program: "/q", OpenFiles: 132, Threads: 129, Memory: 1792 * mib, CPUs: 1, FileSize: 512 * mib,
		}},
		{Machine{Binary: "/q", Accel: accel.TCG, CPUs: 1, Memory: 512 * mib, RAM: RAM{Path: "/r"}, Incoming: "/s"}, jail.Config{
			Program: "/q", OpenFiles: 132, Threads: 129, Memory: 1792 * mib, CPUs: 1, Frozen: true,
		}},
	} {
		if got := fmt.Sprintf("%+v", jailConfig(tc.m, Options{})); got != fmt.Sprintf("%+v", tc.want) {
			t.Errorf("got  %s\nwant %+v", got, tc.want)
		}
	}
}

// A QEMU that the user points to, wherever it is, must find its way in.
func TestJailOfScript(t *testing.T) {
	testenv.CheckLeaks(t)
	m := tinyMachine(t)
	script := filepath.Join(t.TempDir(), "qemu")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho here >&2\nexec /bin/ls\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	m.Binary = script
	p, err := Start(t.Context(), m, Options{})
	if err == nil {
		p.Close()
		t.Fatal("it starts")
	}
	if !strings.Contains(err.Error(), "here") {
		t.Errorf("the script did not run: %v", err)
	}
	testenv.NeedsLinux(t)
	if !strings.Contains(err.Error(), "ermission denied") {
		t.Errorf("the script could execute another program: %v", err)
	}
}
