package session

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"gondolin/internal/lockfile"
	"gondolin/internal/paths"
)

const (
	suffix = ".sock"
	// hidden begins the name of a socket that is not listened on yet, or not to be found yet.
	hidden = "."
	// hiddenFor is how old a hidden socket must be to be taken for abandoned: longer
	// than any start may take is not needed, since its owner does not miss the name
	// before it publishes, and is then told.
	hiddenFor = 24 * time.Hour
	// askTimeout bounds the wait for one session's description in a list.
	askTimeout = 2 * time.Second
	asksAtOnce = 32
	// maxSessions bounds how many sockets a list looks at.
	maxSessions = 4096
)

// ErrNotFound is wrapped by the error of [Registry.Find] when there is no such session.
var ErrNotFound = errors.New("no such session")

// Registry is a directory of sessions.
type Registry struct{ dir string }

// Open returns the registry in dir, which it creates if there is none.
func Open(dir string) (*Registry, error) {
	if err := paths.Ensure(dir); err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o700); err != nil { //nolint:gosec // a directory
		return nil, fmt.Errorf("cannot close the directory of sessions to others: %w", err)
	}
	return &Registry{dir}, nil
}

func (r *Registry) path(id string) string { return filepath.Join(r.dir, id+suffix) }

// lock keeps two processes from taking one name.
func (r *Registry) lock(ctx context.Context) (*lockfile.Lock, error) {
	return lockfile.Wait(ctx, filepath.Join(r.dir, "names.lock"), nil)
}

// List returns the sessions that are running, the oldest first, and removes what
// dead ones left behind. One that does not answer in time is in the list with the
// state [Unresponsive].
func (r *Registry) List(ctx context.Context) ([]Info, error) {
	ids, err := r.ids()
	if err != nil {
		return nil, err
	}
	found := make([]*Info, len(ids))
	var asking errgroup.Group
	asking.SetLimit(asksAtOnce)
	for i, id := range ids {
		asking.Go(func() error {
			found[i] = r.ask(ctx, id)
			return nil
		})
	}
	_ = asking.Wait() // none fails
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	list := make([]Info, 0, len(found))
	for _, info := range found {
		if info != nil {
			list = append(list, *info)
		}
	}
	slices.SortStableFunc(list, func(a, b Info) int { return a.Started.Compare(b.Started) })
	return list, nil
}

// ids returns the ids of all published sockets, and removes abandoned hidden ones.
func (r *Registry) ids() ([]string, error) {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return nil, fmt.Errorf("cannot list sessions: %w", err)
	}
	var ids []string
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), suffix)
		switch {
		case !ok || e.Type() != fs.ModeSocket:
		case strings.HasPrefix(id, hidden):
			r.sweepHidden(e)
		case validID(id) && len(ids) < maxSessions:
			ids = append(ids, id)
		}
	}
	return ids, nil
}

func (r *Registry) sweepHidden(e fs.DirEntry) {
	if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > hiddenFor {
		_ = os.Remove(filepath.Join(r.dir, e.Name())) // the next list tries again
	}
}

// ask returns a session's description, nil if there is no such session any more.
func (r *Registry) ask(ctx context.Context, id string) *Info {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	c := r.client(id)
	defer c.Close()
	var info Info
	err := c.Call(ctx, InfoPath, Empty{}, &info)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		_ = os.Remove(r.path(id)) // the next list tries again
		return nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, net.ErrClosed):
		return nil
	case err != nil:
		return &Info{ID: id, State: Unresponsive}
	}
	info.ID = id // whatever it says
	return &info
}

// Find returns a client of the session that name names: its name, its ID, or the
// beginning of its ID. The caller closes it.
func (r *Registry) Find(ctx context.Context, name string) (*Client, Info, error) {
	list, err := r.List(ctx)
	if err != nil {
		return nil, Info{}, err
	}
	info, err := pick(list, name)
	if err != nil {
		return nil, Info{}, err
	}
	return r.client(info.ID), info, nil
}

func pick(list []Info, name string) (Info, error) {
	var match []Info
	for _, info := range list {
		if info.Name == name || info.ID == name {
			return info, nil
		}
		if name != "" && strings.HasPrefix(info.ID, name) {
			match = append(match, info)
		}
	}
	switch len(match) {
	case 1:
		return match[0], nil
	case 0:
		return Info{}, fmt.Errorf("cannot find session %q: %w; 'gondolin list' shows those that run", name, ErrNotFound)
	}
	return Info{}, fmt.Errorf("cannot tell which session %q is: the IDs of %d begin with it", name, len(match))
}

var (
	idPattern   = regexp.MustCompile(`^[0-9a-f]{12}$`)
	namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)
)

func validID(id string) bool { return idPattern.MatchString(id) }

// CheckName reports whether a session can have the name.
func CheckName(name string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("cannot use session name %q: give 1 to 63 letters, digits, dots, hyphens and underscores, not beginning with one of the last three", name)
	}
	return nil
}
