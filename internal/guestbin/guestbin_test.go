package guestbin_test

import (
	"bytes"
	"debug/elf"
	"strings"
	"testing"

	"gondolin/internal/guestbin"
)

func TestOpen(t *testing.T) {
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		data, err := guestbin.Open(arch)
		if err != nil {
			if !strings.Contains(err.Error(), "run make build") {
				t.Errorf("%s: %v does not say what to do", arch, err)
			}
			continue
		}
		f, err := elf.NewFile(bytes.NewReader(data))
		if err != nil || f.Machine != machine {
			t.Errorf("%s: not an agent for it: %v", arch, err)
			continue
		}
		// Function names survive stripping: panics print them.
		for _, name := range []string{"net/http.(*", "crypto/tls.(*", "crypto/x509.(*"} {
			if bytes.Contains(data, []byte(name)) {
				t.Errorf("%s: the agent links %s", arch, name)
			}
		}
		for _, p := range f.Progs {
			if p.Type == elf.PT_INTERP {
				t.Errorf("%s: needs a dynamic loader, which no initramfs has", arch)
			}
		}
	}
	if _, err := guestbin.Open("../README"); err == nil {
		t.Error("opened something for a nonsensical architecture")
	}
}
