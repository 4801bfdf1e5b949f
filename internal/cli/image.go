package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"gondolin/internal/image"
	"gondolin/internal/image/build"
	"gondolin/internal/paths"
)

func (a *app) imageCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Build and manage root images",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.imageBuild(), a.imageList(), a.imageInspect(), a.imageRemove())
	return cmd
}

// store opens the image store.
func (a *app) store() (*image.Store, error) {
	dirs, err := paths.FromEnv(a.getenv, runtime.GOOS)
	if err != nil {
		return nil, err
	}
	return image.Open(dirs.Images())
}

func (a *app) imageBuild() *cobra.Command {
	var opts build.Options
	var missing bool
	cmd := &cobra.Command{
		Use:   "build",
		Short: "Build the default image from the host's Debian packages",
		Long: `Build a root image from Debian packages, using the package sources this host is
configured with. It needs mmdebstrap and mkfs.erofs, and about 1.5 GiB of free
space while it runs.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			store, err := a.store()
			if err != nil {
				return err
			}
			if missing {
				img, err := store.Resolve(cmd.Context(), firstRef(opts.Refs))
				if err == nil {
					fmt.Fprintln(a.stdio.Out, img.Digest)
					return nil
				}
				if !errors.Is(err, image.ErrNotFound) {
					return err
				}
			}
			progress := newProgress(a.stdio.Err)
			opts.Progress = progress.report
			digest, err := build.Debian(cmd.Context(), store, opts)
			progress.end()
			if err != nil {
				return err
			}
			fmt.Fprintln(a.stdio.Out, digest)
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&opts.Refs, "tag", nil, "`NAME[:TAG]` of the image (repeatable; default "+image.DefaultRef+" and one of the release)")
	cmd.Flags().StringArrayVar(&opts.Packages, "package", nil, "Debian `PACKAGE` to add to the default ones (repeatable)")
	cmd.Flags().BoolVar(&missing, "if-missing", false, "do nothing if there is an image of that name")
	return cmd
}

func firstRef(refs []string) string {
	if len(refs) > 0 {
		return refs[0]
	}
	return image.DefaultRef
}

func (a *app) imageList() *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List images",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			store, err := a.store()
			if err != nil {
				return err
			}
			entries, err := store.List(cmd.Context())
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(a.stdio.Out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tDIGEST\tARCH\tSIZE\tADDED")
			for _, e := range entries {
				fmt.Fprintln(w, strings.Join(imageRow(e), "\t"))
			}
			return w.Flush()
		},
	}
}

func imageRow(e image.Entry) []string {
	name := strings.Join(e.Refs, ",")
	if name == "" {
		name = "-"
	}
	arch, size := "-", "damaged"
	if e.Manifest != nil {
		arch, size = e.Manifest.Arch, formatSize(e.Manifest.Size())
	}
	return []string{name, shortDigest(e.Digest), arch, size, e.Added.Format(time.DateTime)}
}

func shortDigest(digest string) string {
	_, hex, _ := strings.Cut(digest, ":")
	return hex[:min(12, len(hex))]
}

func formatSize(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

func (a *app) imageInspect() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect IMAGE",
		Short: "Print an image's manifest, after checking its files",
		Args:  exactly("image inspect", "IMAGE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := a.store()
			if err != nil {
				return err
			}
			entry, err := store.Inspect(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if _, err := store.Resolve(cmd.Context(), args[0]); err != nil {
				return err
			}
			out := json.NewEncoder(a.stdio.Out)
			out.SetIndent("", "  ")
			return out.Encode(struct {
				Digest   string          `json:"digest"`
				Refs     []string        `json:"refs"`
				Dir      string          `json:"dir"`
				Manifest *image.Manifest `json:"manifest"`
			}{entry.Digest, entry.Refs, entry.Dir, entry.Manifest})
		},
	}
}

func (a *app) imageRemove() *cobra.Command {
	return &cobra.Command{
		Use:   "rm IMAGE",
		Short: "Remove a name, and with its last name the image",
		Args:  exactly("image rm", "IMAGE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := a.store()
			if err != nil {
				return err
			}
			removed, err := store.Remove(cmd.Context(), args[0])
			for _, line := range removed {
				fmt.Fprintln(a.stdio.Out, line)
			}
			return err
		},
	}
}

// exactly demands one argument.
func exactly(command, name string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usagef("%s: give exactly one %s", command, name)
		}
		return nil
	}
}

// progress shows what a build is doing: one line that changes on a terminal, a
// line for each step elsewhere.
type progress struct {
	w     io.Writer
	live  bool
	width int
	drawn bool
	start time.Time
}

func newProgress(w io.Writer) *progress {
	p := &progress{w: w, start: time.Now(), width: 80}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.live = true
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 20 {
			p.width = width
		}
	}
	return p
}

func (p *progress) report(e build.Event) {
	if !p.live {
		if e.Detail == "" {
			fmt.Fprintf(p.w, "%s%s\n", position(e), e.Step)
		}
		return
	}
	line := fmt.Sprintf("%4.0fs %s%s", time.Since(p.start).Seconds(), position(e), e.Step)
	if e.Detail != "" {
		line += ": " + e.Detail
	}
	if r := []rune(line); len(r) >= p.width {
		line = string(r[:p.width-1])
	}
	fmt.Fprintf(p.w, "\r\x1b[K%s", line)
	p.drawn = true
}

func position(e build.Event) string {
	if e.Steps == 0 {
		return ""
	}
	return fmt.Sprintf("[%d/%d] ", e.Index, e.Steps)
}

func (p *progress) end() {
	if p.drawn {
		fmt.Fprintln(p.w)
	}
}
