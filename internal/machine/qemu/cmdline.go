package qemu

import (
	"fmt"
	"strings"

	"gondolin/internal/machine/accel"
)

// Not on the command line, on purpose: mitigations=off and nokaslr, which would
// buy milliseconds with the guest kernel's defences against the code that runs in
// it, of which the agent's are the first to fall; and audit=0, lpj=, and
// rcupdate.rcu_expedited=1, which measured nothing.

// kernelCmdline returns the kernel's command line for a valid Machine
// (Documentation/admin-guide/kernel-parameters.txt).
func kernelCmdline(m Machine) (string, error) {
	params := []string{
		"console=" + consoleDevice(m.Arch),
		"quiet",               // a boot's messages through an emulated UART cost 0.2 s
		"panic=-1",            // a panic reboots at once, which -no-reboot turns into an end
		"random.trust_cpu=on", // the generator is seeded before the first process
		"cryptomgr.notests=1", // self-tests of ciphers cost 0.2 s a boot under emulation
	}
	if m.Arch == AMD64 {
		params = append(params,
			"reboot=t",       // by triple fault: no keyboard controller and no firmware to ask
			"no_timer_check", // whose verdict is wrong when the host is busy; then it panics
		)
	}
	if m.Arch == AMD64 && m.Accel == accel.TCG && m.TSCKHz != 0 {
		params = append(params,
			fmt.Sprintf("tsc_early_khz=%d", m.TSCKHz),
			"tsc=reliable", // a busy host must not make the kernel's watchdog drop its only good clock
		)
	}
	for _, p := range m.Cmdline {
		if err := checkParam(p); err != nil {
			return "", err
		}
		params = append(params, p)
	}
	line := strings.Join(params, " ")
	if len(line) > maxCmdline {
		return "", badField("Cmdline", "makes the kernel command line %d bytes, more than %d", len(line), maxCmdline)
	}
	return line, nil
}

// checkParam lets one parameter be one parameter: printable ASCII without spaces,
// which would start another, and without quotes, which would join two.
func checkParam(p string) error {
	for _, c := range []byte(p) {
		if c <= ' ' || c >= 0x7f || c == '"' || c == '\'' {
			return badField("Cmdline", "has %q; printable ASCII without spaces and quotes is allowed", p)
		}
	}
	if p == "" {
		return badField("Cmdline", "has an empty parameter")
	}
	if p == "--" {
		return badField("Cmdline", `has "--", which ends the kernel's parameters`)
	}
	return nil
}

func consoleDevice(arch Arch) string {
	if arch == ARM64 {
		return "ttyAMA0"
	}
	return "ttyS0"
}
