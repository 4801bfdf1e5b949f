package cli

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"gondolin"
)

func (a *app) templateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "template",
		Short: "Manage the booted guests that VMs are cloned from",
		Long: `The first start of an image on a machine of one shape boots it and keeps the
booted guest as a template; later starts are clones of it. Templates are a cache:
removing one costs the next start a boot.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.templateList(), a.templateRemove(), a.templateWarm())
	return cmd
}

func (a *app) templateList() *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List templates",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			list, err := gondolin.Templates(gondolin.Host{})
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(a.stdio.Out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "TEMPLATE\tIMAGE\tSHAPE\tSIZE\tCREATED")
			for _, t := range list {
				fmt.Fprintf(w, "%.12s\t%s\t%s\t%s\t%s\n", t.ID, t.Image, t.Shape, formatSize(t.Size), t.Created.Local().Format(time.DateTime))
			}
			return w.Flush()
		},
	}
}

func (a *app) templateRemove() *cobra.Command {
	return &cobra.Command{
		Use:   "rm TEMPLATE",
		Short: "Remove a template; VMs cloned from it go on",
		Args:  exactly("template rm", "TEMPLATE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := gondolin.RemoveTemplate(cmd.Context(), gondolin.Host{}, args[0])
			if err != nil {
				return err
			}
			fmt.Fprintf(a.stdio.Out, "removed %.12s\n", t.ID)
			return nil
		},
	}
}

func (a *app) templateWarm() *cobra.Command {
	var flags vmFlags
	cmd := &cobra.Command{
		Use:   "warm [flags]",
		Short: "Make the template that VMs with these flags start from",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, audit, err := a.config(&flags)
			if err != nil {
				return err
			}
			if audit != nil {
				defer audit.Close()
			}
			t, err := gondolin.WarmTemplate(cmd.Context(), config)
			if err != nil {
				return err
			}
			fmt.Fprintf(a.stdio.Out, "%.12s\t%s\t%s\n", t.ID, t.Shape, formatSize(t.Size))
			return nil
		},
	}
	flags.register(cmd.Flags())
	return cmd
}
