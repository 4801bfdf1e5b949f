package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"gondolin"
)

func (a *app) doctorCommand() *cobra.Command {
	var flags vmFlags
	var retest bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check what this host needs to run VMs",
		Long: `Check, in the order a start needs them, the configuration, the image, QEMU and
the accelerator, and boot a VM. The exit code is 0 only if all of it works. At last it
says which layers of the jail around QEMU are active on this host, and why others
are not; a missing one is no failure.

Whether an accelerator works is found out by booting with it once, and
remembered for this host, kernel, QEMU and image; --retest forgets that.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, audit, err := a.config(&flags)
			if err != nil {
				return err
			}
			if audit != nil {
				defer audit.Close()
			}
			if retest {
				if err := gondolin.Forget(cmd.Context(), config); err != nil {
					return err
				}
			}
			findings, err := gondolin.Diagnose(cmd.Context(), config)
			a.printFindings(findings)
			if err != nil {
				return exitError(exitInterrupted)
			}
			if len(findings) > 0 && !findings[len(findings)-1].Works {
				return exitError(exitFailure)
			}
			return nil
		},
	}
	flags.register(cmd.Flags())
	cmd.Flags().BoolVar(&retest, "retest", false, "forget which accelerator works and try again")
	return cmd
}

func (a *app) printFindings(findings []gondolin.Finding) {
	for _, f := range findings {
		mark := "ok  "
		if !f.Works {
			mark = "FAIL"
		}
		detail := strings.ReplaceAll(f.Detail, "\n", "\n                    ")
		fmt.Fprintf(a.stdio.Out, "%s  %-13s %s\n", mark, f.Name, detail)
	}
}
