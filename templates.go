package gondolin

import (
	"context"
	"os"
	"runtime"
	"time"

	"gondolin/internal/machine/accel"
	"gondolin/internal/paths"
	"gondolin/internal/template"
)

// Template is a booted guest kept as files, of which VMs of the same image and
// shape start as clones. Templates are a cache: they are made when they are
// missing, and do not outlive the host's boot.
type Template struct {
	ID      string // 64 hex digits
	Image   string // the image's reference, or its digest
	Shape   string // "512 MiB, 2 CPUs, tcg"
	Created time.Time
	Size    int64 // bytes on disk
}

func publicTemplate(t *template.Template) Template {
	return Template{ID: t.Key, Image: t.Image, Shape: t.Shape, Created: t.Created, Size: t.Size}
}

// Templates lists the templates in host's directories, the newest first.
func Templates(host Host) ([]Template, error) {
	store, err := templates(host)
	if err != nil {
		return nil, err
	}
	list, err := store.List()
	if err != nil {
		return nil, err
	}
	out := make([]Template, len(list))
	for i, t := range list {
		out[i] = publicTemplate(t)
	}
	return out, nil
}

// RemoveTemplate removes the template whose ID begins with prefix. VMs that are
// clones of it go on.
func RemoveTemplate(ctx context.Context, host Host, prefix string) (Template, error) {
	store, err := templates(host)
	if err != nil {
		return Template{}, err
	}
	t, err := store.Remove(ctx, prefix)
	if err != nil {
		return Template{}, err
	}
	return publicTemplate(t), nil
}

// WarmTemplate makes the template that VMs of config start from, if it is missing,
// and returns it.
func WarmTemplate(ctx context.Context, config Config) (Template, error) {
	p := &plan{config: config.withDefaults()}
	if err := p.config.Validate(); err != nil {
		return Template{}, err
	}
	for _, step := range []func(context.Context) error{p.findDirs, p.findImage, p.planMachine, p.chooseAccelerator} {
		if err := step(ctx); err != nil {
			return Template{}, err
		}
	}
	t, err := p.getTemplate(ctx)
	if err != nil {
		return Template{}, err
	}
	return publicTemplate(t), nil
}

func templates(host Host) (*template.Store, error) {
	dirs, err := host.dirs()
	if err != nil {
		return nil, err
	}
	return template.Open(dirs.Templates(), accel.BootID())
}

// dirs returns where things are kept.
func (h Host) dirs() (paths.Dirs, error) {
	getenv := os.Getenv //nolint:forbidigo // a library without a config file has only the environment
	if h.Dir != "" {
		getenv = func(name string) string {
			if name == "GONDOLIN_HOME" {
				return h.Dir
			}
			return ""
		}
	}
	return paths.FromEnv(getenv, runtime.GOOS)
}
