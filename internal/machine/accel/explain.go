package accel

import (
	"fmt"
	"strings"
	"time"
)

// Report is what is known about each accelerator that may work here.
type Report struct {
	Platform Platform
	Override Accel // empty if the caller does not insist
	Findings []Finding
}

// Finding is what is known about one accelerator.
type Finding struct {
	Accel  Accel
	Device string   // why its device cannot be used; empty if it can
	Known  *Verdict // the remembered verdict; nil if there is none that is still believed
}

// Explain reports without booting anything. To test again, call Forget and then Choose.
func Explain(cfg Config) Report {
	c := cfg.withDefaults()
	r := Report{Platform: c.Platform, Override: c.Override}
	for _, a := range Candidates(c.Platform) {
		f := Finding{Accel: a}
		if a != TCG {
			if err := c.open(a); err != nil {
				f.Device = oneLine(err)
			}
			if v, ok := c.recall(a); ok && c.Dir != "" {
				f.Known = &v
			}
		}
		r.Findings = append(r.Findings, f)
	}
	return r
}

// String returns the report as lines for a person.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "host %s/%s, guest %s\n", r.Platform.HostOS, r.Platform.HostArch, r.Platform.GuestArch)
	if r.Override != "" {
		fmt.Fprintf(&b, "%s: insisted on, not tested\n", r.Override)
	}
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "%s: %s\n", f.Accel, f.text())
	}
	return b.String()
}

func (f Finding) text() string {
	switch {
	case f.Accel == TCG:
		return "emulation, works everywhere, several times slower"
	case f.Device != "":
		return f.Device
	case f.Known == nil:
		return "its device opens; no boot with it is remembered"
	case f.Known.Works:
		return fmt.Sprintf("works: a boot took %v on %s", f.Known.Boot.Round(time.Millisecond), f.Known.At.Format(time.RFC3339))
	}
	return fmt.Sprintf("does not work, tried on %s: %s", f.Known.At.Format(time.RFC3339), f.Known.Why)
}
