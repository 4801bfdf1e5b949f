package archtest

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestImports compares the table with the source files, in both directions.
func TestImports(t *testing.T) {
	tree := readTree(t)
	for _, pkg := range slices.Sorted(maps.Keys(tree)) {
		want, ok := table[pkg]
		got := tree[pkg]
		if !ok {
			t.Errorf("package %s is not in the table; if it belongs there, add\n%s", pkg, entryText(pkg, got))
			continue
		}
		wrong := compare(t, pkg, "imports", got.inside, want.imports)
		wrong = compare(t, pkg, "uses module", got.modules, want.modules) || wrong
		if wrong {
			t.Logf("what %s imports now:\n%s", pkg, entryText(pkg, got))
		}
	}
	for _, pkg := range slices.Sorted(maps.Keys(table)) {
		if _, ok := tree[pkg]; !ok {
			t.Errorf("the table has package %s, which does not exist", pkg)
		}
	}
}

func compare(t *testing.T, pkg, verb string, got, want []string) (wrong bool) {
	t.Helper()
	for _, name := range got {
		if !slices.Contains(want, name) {
			t.Errorf("%s %s %s, which the table does not allow", pkg, verb, name)
			wrong = true
		}
	}
	for _, name := range want {
		if !slices.Contains(got, name) {
			t.Errorf("the table allows that %s %s %s, but it does not: remove the entry", pkg, verb, name)
			wrong = true
		}
	}
	return wrong
}

func entryText(pkg string, f found) string {
	var fields []string
	if len(f.inside) > 0 {
		fields = append(fields, fmt.Sprintf("imports: []string{%s}", quoted(f.inside)))
	}
	if len(f.modules) > 0 {
		fields = append(fields, fmt.Sprintf("modules: []string{%s}", quoted(f.modules)))
	}
	return fmt.Sprintf("\t%q: {%s},", pkg, strings.Join(fields, ", "))
}

func quoted(list []string) string {
	var q []string
	for _, s := range list {
		q = append(q, fmt.Sprintf("%q", s))
	}
	return strings.Join(q, ", ")
}

// TestBans holds the rules that outlive the table: whoever edits the table cannot allow these.
func TestBans(t *testing.T) {
	tree := readTree(t)
	for _, ban := range bans {
		applied := false
		for _, pkg := range slices.Sorted(maps.Keys(tree)) {
			if !slices.ContainsFunc(ban.of, func(dir string) bool { return under(pkg, dir) }) {
				continue
			}
			applied = true
			checkBan(t, tree, pkg, ban)
		}
		if !applied && !ban.planned {
			t.Errorf("the ban of %v applies to no package", ban.of)
		}
		if applied && ban.planned {
			t.Errorf("the ban of %v is marked planned, but the packages exist: remove the mark", ban.of)
		}
	}
}

func checkBan(t *testing.T, tree map[string]found, pkg string, ban ban) {
	t.Helper()
	for _, name := range tree[pkg].inside {
		allowed := under(name, pkg) || slices.ContainsFunc(ban.only, func(dir string) bool { return under(name, dir) })
		if ban.only != nil && !allowed {
			t.Errorf("%s imports %s: %s", pkg, name, ban.why)
		}
		if slices.ContainsFunc(ban.not, func(dir string) bool { return under(name, dir) && !sameFeature(pkg, name, ban.not) }) {
			t.Errorf("%s imports %s: %s", pkg, name, ban.why)
		}
	}
	for at, way := range reach(tree, pkg) {
		if at != pkg && !ban.transitive {
			continue
		}
		for _, name := range tree[at].std {
			if matchesAny(name, ban.std) {
				t.Errorf("%s → %s: %s", way, name, ban.why)
			}
		}
		for _, name := range tree[at].modules {
			if ban.modules != nil && !slices.Contains(ban.modules, name) {
				t.Errorf("%s → %s: %s", way, name, ban.why)
			}
		}
	}
}

// sameFeature tells that both packages are below the same one of dirs.
func sameFeature(a, b string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool { return under(a, dir) && under(b, dir) })
}

// TestNoCommonPackages refuses names that say nothing: everything ends up importing such a package.
func TestNoCommonPackages(t *testing.T) {
	for pkg := range readTree(t) {
		switch filepath.Base(pkg) {
		case "util", "utils", "common", "types", "helpers", "misc", "shared", "base":
			t.Errorf("package %s has a name that says nothing about it", pkg)
		}
	}
}

// TestArchitectureNamesPackages wants every package's path in ARCHITECTURE.md, in backticks.
func TestArchitectureNamesPackages(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(moduleRoot, "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, pkg := range slices.Sorted(maps.Keys(readTree(t))) {
		if pkg == "." || under(pkg, "examples") {
			continue
		}
		if !strings.Contains(string(data), "`"+pkg+"`") {
			t.Errorf("ARCHITECTURE.md does not name `%s`", pkg)
		}
	}
}

// TestBansBite feeds the checks a tree that breaks them, so that a rule that matches nothing is noticed.
func TestBansBite(t *testing.T) {
	tree := map[string]found{
		"cmd/gondolin-guest":  {inside: []string{"internal/guest"}},
		"internal/guest":      {inside: []string{"internal/guest/deep", "internal/wire"}},
		"internal/guest/deep": {std: []string{"net/http"}},
	}
	ways := reach(tree, "cmd/gondolin-guest")
	if ways["internal/guest/deep"] != "cmd/gondolin-guest → internal/guest → internal/guest/deep" {
		t.Errorf("way to deep: %q", ways["internal/guest/deep"])
	}
	for name, want := range map[string]bool{"net/http": true, "net/http/httptest": true, "net/netip": false, "crypto/tls": true, "crypto/sha256": false} {
		if got := matchesAny(name, guestBan); got != want {
			t.Errorf("banned %s: %v, want %v", name, got, want)
		}
	}
	features := []string{"internal/egress", "internal/ingress"}
	if !sameFeature("internal/egress", "internal/egress/mitm", features) || sameFeature("internal/egress", "internal/ingress", features) {
		t.Error("features are told apart wrongly")
	}
}
