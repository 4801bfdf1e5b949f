package qemu

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gondolin/internal/machine/accel"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// described is a Machine with everything set that has no default.
func described() Machine {
	return Machine{
		HostOS: "linux", Arch: AMD64, Accel: accel.KVM,
		Memory: 512 * mib, CPUs: 2, TSCKHz: 2_596_100,
		Kernel: "/store/vmlinuz", Initrd: "/store/initrd", Root: Disk{Path: "/store/a, b,readonly=off"},
		Cmdline: []string{"gondolin.boot=7"},
	}
}

var allFDs = FDs{Monitor: 3, Console: 4, Control: 5, Files: 6, Network: 7, Kernel: 8, Initrd: 9, Root: 10}

func TestArgsGolden(t *testing.T) {
	withRAM := allFDs
	withRAM.RAM, withRAM.Incoming = 11, 12
	byPath := allFDs
	byPath.Kernel, byPath.Initrd, byPath.Root = 0, 0, 0
	for name, tc := range map[string]struct {
		change func(*Machine)
		fds    FDs
	}{
		"amd64-kvm":      {func(*Machine) {}, allFDs},
		"amd64-tcg":      {func(m *Machine) { m.Accel = accel.TCG }, allFDs},
		"amd64-tcg-q35":  {func(m *Machine) { m.Accel, m.Type = accel.TCG, Q35 }, allFDs},
		"amd64-tcg-rate": {func(m *Machine) { m.Accel, m.TSCKHz = accel.TCG, 0 }, allFDs},
		"amd64-hvf":      {func(m *Machine) { m.Accel, m.HostOS = accel.HVF, "darwin" }, byPath},
		"amd64-tcg-save": {func(m *Machine) { m.Accel, m.RAM = accel.TCG, RAM{Path: "/cache/ram", Shared: true} }, withRAM},
		"amd64-tcg-restore": {func(m *Machine) {
			m.Accel, m.RAM, m.Incoming = accel.TCG, RAM{Path: "/cache/ram"}, "/cache/state"
			m.Kernel, m.Initrd = "", ""
		}, withRAM},
		"arm64-kvm": {func(m *Machine) { m.Arch = ARM64 }, allFDs},
		"arm64-tcg": {func(m *Machine) { m.Arch, m.Accel = ARM64, accel.TCG }, allFDs},
		"arm64-hvf": {func(m *Machine) { m.Arch, m.Accel, m.HostOS = ARM64, accel.HVF, "darwin" }, byPath},
	} {
		t.Run(name, func(t *testing.T) {
			m := described()
			tc.change(&m)
			args, err := Args(m, tc.fds)
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(args, "\n") + "\n"
			golden := filepath.Join("testdata", "golden", name+".txt")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("run with -update if this is meant (-want +got):\n%s", diff)
			}
		})
	}
}

func TestArgsRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		field  string
		change func(*Machine)
	}{
		"no memory":           {"Memory", func(m *Machine) { m.Memory = 0 }},
		"little memory":       {"Memory", func(m *Machine) { m.Memory = minMemory - mib }},
		"negative memory":     {"Memory", func(m *Machine) { m.Memory = -mib }},
		"1 TiB":               {"Memory", func(m *Machine) { m.Memory = maxMemory }},
		"odd memory":          {"Memory", func(m *Machine) { m.Memory++ }},
		"negative CPUs":       {"CPUs", func(m *Machine) { m.CPUs = -1 }},
		"1000 CPUs":           {"CPUs", func(m *Machine) { m.CPUs = 1000 }},
		"9 CPUs on hvf arm64": {"CPUs", func(m *Machine) { m.Arch, m.Accel, m.HostOS, m.CPUs = ARM64, accel.HVF, "darwin", 9 }},
		"no kernel":           {"Kernel", func(m *Machine) { m.Kernel = "" }},
		"incoming, no RAM":    {"Incoming", func(m *Machine) { m.Incoming = "/state" }},
		"incoming, shared":    {"Incoming", func(m *Machine) { m.Incoming, m.RAM = "/state", RAM{Path: "/ram", Shared: true} }},
		"relative RAM":        {"RAM.Path", func(m *Machine) { m.RAM.Path = "ram" }},
		"relative kernel":     {"Kernel", func(m *Machine) { m.Kernel = "vmlinuz" }},
		"NUL in initrd":       {"Initrd", func(m *Machine) { m.Initrd = "/a\x00b" }},
		"newline in root":     {"Root.Path", func(m *Machine) { m.Root.Path = "/a\nb" }},
		"long binary":         {"Binary", func(m *Machine) { m.Binary = "/" + strings.Repeat("a", maxPath) }},
		"qcow2 root":          {"Root.Format", func(m *Machine) { m.Root.Format = "qcow2" }},
		"unknown arch":        {"Arch", func(m *Machine) { m.Arch = "riscv64" }},
		"unknown accel":       {"Accel", func(m *Machine) { m.Accel = "tcg,thread=single" }},
		"hvf on linux":        {"Accel", func(m *Machine) { m.Accel = accel.HVF }},
		"kvm on darwin":       {"Accel", func(m *Machine) { m.HostOS = "darwin" }},
		"other host":          {"HostOS", func(m *Machine) { m.HostOS = "windows" }},
		"microvm on arm64":    {"Type", func(m *Machine) { m.Arch, m.Type = ARM64, MicroVM }},
		"type with options":   {"Type", func(m *Machine) { m.Type = "q35,dumpdtb=/etc/x" }},
		"microvm, no rate":    {"TSCKHz", func(m *Machine) { m.Accel, m.Type, m.TSCKHz = accel.TCG, MicroVM, 0 }},
		"absurd rate":         {"TSCKHz", func(m *Machine) { m.TSCKHz = maxTSCKHz }},
		"CPU with space":      {"CPUModel", func(m *Machine) { m.CPUModel = "max -incoming" }},
		"MAC with option":     {"MAC", func(m *Machine) { m.MAC = "02:00:00:00:00:02,romfile=/etc/x" }},
		"dashed MAC":          {"MAC", func(m *Machine) { m.MAC = "02-00-00-00-00-02" }},
		"EUI-64":              {"MAC", func(m *Machine) { m.MAC = "02:00:00:00:00:02:00:00" }},
		"multicast MAC":       {"MAC", func(m *Machine) { m.MAC = "03:00:00:00:00:02" }},
		"two parameters":      {"Cmdline", func(m *Machine) { m.Cmdline = []string{"a init=/bin/sh"} }},
		"tab":                 {"Cmdline", func(m *Machine) { m.Cmdline = []string{"a\tb"} }},
		"newline":             {"Cmdline", func(m *Machine) { m.Cmdline = []string{"a\nb"} }},
		"quote":               {"Cmdline", func(m *Machine) { m.Cmdline = []string{`a="b`} }},
		"not ASCII":           {"Cmdline", func(m *Machine) { m.Cmdline = []string{"a=\u00a0"} }},
		"empty parameter":     {"Cmdline", func(m *Machine) { m.Cmdline = []string{""} }},
		"end of parameters":   {"Cmdline", func(m *Machine) { m.Cmdline = []string{"--"} }},
		"long command line":   {"Cmdline", func(m *Machine) { m.Cmdline = []string{strings.Repeat("a", maxCmdline)} }},
	} {
		t.Run(name, func(t *testing.T) {
			m := described()
			tc.change(&m)
			args, err := Args(m, allFDs)
			var field *FieldError
			if !errors.As(err, &field) || field.Field != tc.field {
				t.Errorf("got %q, %v; want an error about %s", args, err, tc.field)
			}
			if err != nil && !strings.HasPrefix(err.Error(), "cannot ") {
				t.Errorf("error %q does not start with cannot", err)
			}
		})
	}
}

// A file name must not be able to add an option, wherever it ends up.
func TestArgsEscapesCommas(t *testing.T) {
	m := described()
	fds := allFDs
	fds.Root = 0
	args, err := Args(m, fds)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range args {
		if strings.Contains(strings.ReplaceAll(a, ",,", ""), "readonly=off") && strings.Contains(a, ",readonly=off") &&
			!strings.Contains(a, ",,readonly=off") {
			t.Errorf("argument %q has an option from a file name", a)
		}
	}
	if !strings.Contains(strings.Join(args, " "), "file.filename=/store/a,, b,,readonly=off,") {
		t.Error("the root disk's path is not escaped")
	}
}

func TestQuoteCommand(t *testing.T) {
	got := quoteCommand([]string{"/usr/bin/qemu", "a b", "it's", "", "x\ny", "id=a,fd=3"})
	want := `/usr/bin/qemu 'a b' 'it'\''s' '' "x\ny" id=a,fd=3`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
