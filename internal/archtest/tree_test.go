package archtest

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// moduleRoot is where go.mod is, seen from this directory.
const moduleRoot = "../.."

const modulePath = "gondolin"

// found is what the source files of a package import.
type found struct {
	inside  []string // packages of the module, relative to it; "." is the root package
	modules []string // other modules, as far as go.mod knows them
	std     []string // packages of the standard library
}

// readTree parses every non-test Go file of the module, whatever its build tags, by package directory.
func readTree(t *testing.T) map[string]found {
	t.Helper()
	required := readRequired(t)
	sets := make(map[string]map[string]bool)
	err := filepath.WalkDir(moduleRoot, func(file string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			return skipDir(file, e)
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		rel, err := filepath.Rel(moduleRoot, filepath.Dir(file))
		if err != nil {
			return err
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(rel)
		if sets[dir] == nil {
			sets[dir] = make(map[string]bool)
		}
		for _, spec := range parsed.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			sets[dir][name] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	tree := make(map[string]found)
	for dir, set := range sets {
		tree[dir] = sortImports(t, set, required)
	}
	if len(tree) < 5 {
		t.Fatalf("found only %d packages below %s", len(tree), moduleRoot)
	}
	return tree
}

func skipDir(file string, e fs.DirEntry) error {
	if file == moduleRoot {
		return nil
	}
	if strings.HasPrefix(e.Name(), ".") || e.Name() == "testdata" || e.Name() == "bin" {
		return fs.SkipDir
	}
	if _, err := os.Stat(filepath.Join(file, "go.mod")); err == nil {
		return fs.SkipDir // a module of its own
	}
	return nil
}

func sortImports(t *testing.T, set map[string]bool, required []string) found {
	t.Helper()
	var f found
	modules := make(map[string]bool)
	for _, name := range slices.Sorted(maps.Keys(set)) {
		switch first, _, _ := strings.Cut(name, "/"); {
		case name == modulePath:
			f.inside = append(f.inside, ".")
		case first == modulePath:
			f.inside = append(f.inside, strings.TrimPrefix(name, modulePath+"/"))
		case !strings.Contains(first, "."):
			f.std = append(f.std, name)
		default:
			modules[moduleOf(t, name, required)] = true
		}
	}
	f.modules = slices.Sorted(maps.Keys(modules))
	return f
}

// moduleOf is the longest module path in go.mod that name is in.
func moduleOf(t *testing.T, name string, required []string) string {
	t.Helper()
	best := ""
	for _, m := range required {
		if (name == m || strings.HasPrefix(name, m+"/")) && len(m) > len(best) {
			best = m
		}
	}
	if best == "" {
		t.Fatalf("no module in go.mod has package %s", name)
	}
	return best
}

func readRequired(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(moduleRoot, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	var required []string
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		if len(fields) >= 2 && strings.HasPrefix(fields[1], "v") {
			required = append(required, fields[0])
		}
	}
	return required
}

// reach returns every package of the module that from imports, directly or not, with the way there.
func reach(tree map[string]found, from string) map[string]string {
	ways := map[string]string{from: from}
	queue := []string{from}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		for _, next := range tree[at].inside {
			if _, seen := ways[next]; !seen {
				ways[next] = ways[at] + " → " + next
				queue = append(queue, next)
			}
		}
	}
	return ways
}

// under reports whether package p is dir or below it.
func under(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

// matchesAny reports whether a standard package is one of banned; a trailing /... bans what is below as well.
func matchesAny(name string, banned []string) bool {
	return slices.ContainsFunc(banned, func(b string) bool {
		if base, ok := strings.CutSuffix(b, "/..."); ok {
			return under(name, base)
		}
		return path.Clean(b) == name
	})
}
