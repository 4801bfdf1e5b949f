//go:build linux

package execd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"gondolin/internal/wire"
)

// defaultPath is where commands are searched when the environment has no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// plan is a command made concrete: what execve gets.
type plan struct {
	path       string
	args       []string
	env        []string
	dir        string
	credential *syscall.Credential // nil: root
}

func (s *Server) plan(req *wire.Exec) (*plan, error) {
	account, err := lookUser("/etc", req.User)
	if err != nil {
		return nil, wire.Failure(wire.ReasonUser, err.Error())
	}
	p := &plan{args: toStrings(req.Args), env: s.environment(req, account), credential: account.credential()}
	if p.dir, err = directory(string(req.Dir), account); err != nil {
		return nil, err
	}
	p.path, err = search(p.args[0], p.dir, lookup(p.env, "PATH"))
	return p, err
}

func toStrings(list [][]byte) []string {
	out := make([]string, len(list))
	for i, b := range list {
		out[i] = string(b)
	}
	return out
}

// environment layers the account's variables, the VM's and the command's; the
// last value of a name wins.
func (s *Server) environment(req *wire.Exec, account *account) []string {
	s.mu.Lock()
	base := s.env
	s.mu.Unlock()
	all := slices.Concat(
		[]string{"PATH=" + defaultPath, "HOME=" + account.home, "USER=" + account.name, "LOGNAME=" + account.name},
		base, toStrings(req.Env))
	position := make(map[string]int, len(all))
	var env []string
	for _, kv := range all {
		name, _, _ := strings.Cut(kv, "=")
		if i, seen := position[name]; seen {
			env[i] = kv
			continue
		}
		position[name] = len(env)
		env = append(env, kv)
	}
	return env
}

func lookup(env []string, name string) string {
	for _, kv := range env {
		if k, v, _ := strings.Cut(kv, "="); k == name {
			return v
		}
	}
	return ""
}

// directory checks the working directory, so that a missing one is not
// reported as a missing program.
func directory(dir string, account *account) (string, error) {
	if dir == "" {
		if info, err := os.Stat(account.home); err != nil || !info.IsDir() {
			return "/", nil //nolint:nilerr // as login(1) does
		}
		return account.home, nil
	}
	dir = filepath.Join("/", dir)
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", wire.Failure(wire.ReasonDirectory, fmt.Sprintf("cannot run in directory %q: it does not exist in the guest", dir))
	case err != nil:
		return "", wire.Failure(wire.ReasonDirectory, fmt.Sprintf("cannot run in directory %q: %v", dir, errors.Unwrap(err)))
	case !info.IsDir():
		return "", wire.Failure(wire.ReasonDirectory, fmt.Sprintf("cannot run in directory %q: it is not a directory", dir))
	}
	return dir, nil
}

// search finds the program as execvp(3) does: a name with a slash is relative
// to the working directory, any other is looked for in path.
func search(name, dir, path string) (string, error) {
	if strings.Contains(name, "/") {
		return name, executable(name, within(dir, name))
	}
	denied := false
	for _, at := range filepath.SplitList(path) {
		file := within(dir, filepath.Join(at, name))
		err := executable(name, file)
		if err == nil {
			return file, nil
		}
		denied = denied || asFailure(err).Reason == wire.ReasonNotExecutable
	}
	if denied {
		return "", wire.Failure(wire.ReasonNotExecutable, fmt.Sprintf("cannot run %q: found in PATH, but not executable", name))
	}
	return "", wire.Failure(wire.ReasonNotFound, fmt.Sprintf("cannot run %q: no such program in PATH (%s)", name, path))
}

func within(dir, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(dir, name)
}

func executable(name, file string) error {
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR): // PATH may name a file
		return wire.Failure(wire.ReasonNotFound, fmt.Sprintf("cannot run %q: no such file", name))
	case err != nil:
		return wire.Failure(wire.ReasonNotExecutable, fmt.Sprintf("cannot run %q: %v", name, errors.Unwrap(err)))
	case info.IsDir():
		return wire.Failure(wire.ReasonNotExecutable, fmt.Sprintf("cannot run %q: it is a directory", name))
	case info.Mode().Perm()&0o111 == 0:
		return wire.Failure(wire.ReasonNotExecutable, fmt.Sprintf("cannot run %q: not executable", name))
	}
	return nil
}
