package build

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// debianKeyring is what Debian's archive is signed with, from the package debian-archive-keyring.
const debianKeyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// source is one line of package sources: one URI and suite.
type source struct {
	uri        string
	suite      string
	components []string
	signedBy   string // keyring paths, comma separated
}

// line is the source in sources.list(5)'s one-line style.
func (s source) line() string {
	return fmt.Sprintf("deb [signed-by=%s] %s %s %s", s.signedBy, s.uri, s.suite, strings.Join(s.components, " "))
}

// host is what a build learns about the machine it runs on.
type host struct {
	etc      string // the directory /etc, or a test's
	id       string // ID of os-release
	codename string // VERSION_CODENAME of os-release
	pretty   string // PRETTY_NAME of os-release
}

func readHost(etc string) (host, error) {
	h := host{etc: etc}
	data, err := os.ReadFile(filepath.Join(etc, "os-release"))
	if err != nil {
		return h, fmt.Errorf("cannot tell the host's distribution: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		value = strings.Trim(value, `"'`)
		switch key {
		case "ID":
			h.id = value
		case "VERSION_CODENAME":
			h.codename = value
		case "PRETTY_NAME":
			h.pretty = value
		}
	}
	if h.id != "debian" || h.codename == "" {
		return h, fmt.Errorf("cannot build a Debian image from the package sources of %s: the host has to be a Debian release",
			cmp.Or(h.pretty, h.id, "this system"))
	}
	return h, nil
}

// sources returns those of the host's configured package sources that belong to the Debian archive and to the release
// the host runs, the release's own suite first.
func (h host) sources() ([]source, error) {
	files, err := h.sourceFiles()
	if err != nil {
		return nil, err
	}
	var found []source
	for _, file := range files {
		parsed, err := parseSourceFile(file)
		if err != nil {
			return nil, err
		}
		for _, s := range parsed {
			if s, ok := h.ofDebian(s); ok && !slices.ContainsFunc(found, func(f source) bool { return f.line() == s.line() }) {
				found = append(found, s)
			}
		}
	}
	slices.SortStableFunc(found, func(a, b source) int {
		return cmp.Compare(strings.Count(a.suite, h.codename+"-"), strings.Count(b.suite, h.codename+"-"))
	})
	if len(found) == 0 || found[0].suite != h.codename {
		return nil, fmt.Errorf("cannot find a package source of Debian %s in %s: add one to %s/apt/sources.list and run apt-get update",
			h.codename, filepath.Join(h.etc, "apt"), h.etc)
	}
	return found, nil
}

func (h host) sourceFiles() ([]string, error) {
	apt := filepath.Join(h.etc, "apt")
	files := []string{filepath.Join(apt, "sources.list")}
	list, err := os.ReadDir(filepath.Join(apt, "sources.list.d"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read package sources: %w", err)
	}
	for _, e := range list {
		if ext := filepath.Ext(e.Name()); ext == ".list" || ext == ".sources" {
			files = append(files, filepath.Join(apt, "sources.list.d", e.Name()))
		}
	}
	return files, nil
}

// ofDebian decides whether s is Debian's and of the host's release. A third party can name its suite like the release,
// so the signature is what counts: a source that says nothing about it is tied to Debian's keyring, and apt will
// refuse it if it is somebody else's. Components besides Debian's own mark it as foreign before that.
func (h host) ofDebian(s source) (source, bool) {
	switch s.suite {
	case h.codename, h.codename + "-updates", h.codename + "-security", h.codename + "/updates":
	default:
		return s, false
	}
	s.components = slices.DeleteFunc(slices.Clone(s.components), func(c string) bool {
		return !slices.Contains([]string{"main", "contrib", "non-free", "non-free-firmware"}, c)
	})
	if !slices.Contains(s.components, "main") {
		return s, false
	}
	if s.signedBy != "" {
		return s, isDebianKeyring(s.signedBy)
	}
	u, err := url.Parse(s.uri)
	if err != nil || !slices.Contains([]string{"debian", "debian-security"}, path.Base(strings.TrimRight(u.Path, "/"))) {
		return s, false
	}
	s.signedBy = debianKeyring
	return s, true
}

func isDebianKeyring(signedBy string) bool {
	for part := range strings.SplitSeq(signedBy, ",") {
		if !strings.HasPrefix(path.Base(part), "debian-archive-") || !path.IsAbs(part) || strings.ContainsAny(part, " \t[]") {
			return false
		}
	}
	return true
}

func parseSourceFile(file string) ([]source, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read package sources: %w", err)
	}
	defer f.Close()
	parse := parseOneLine
	if strings.HasSuffix(file, ".sources") {
		parse = parseDeb822
	}
	found, err := parse(io.LimitReader(f, maxSourceBytes))
	if err != nil {
		return nil, fmt.Errorf("cannot read package sources %s: %w", file, err)
	}
	return found, nil
}

// parseOneLine reads sources.list(5)'s one-line style. Lines it does not understand are left out: apt complains about
// them to whoever wrote them.
func parseOneLine(r io.Reader) ([]source, error) {
	var found []source
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb")
		if !ok || rest == "" || !strings.ContainsAny(rest[:1], " \t[") {
			continue
		}
		rest = strings.TrimSpace(rest)
		var s source
		if strings.HasPrefix(rest, "[") {
			options, after, ok := strings.Cut(rest[1:], "]")
			if !ok {
				continue
			}
			for option := range strings.FieldsSeq(options) {
				if key, value, _ := strings.Cut(option, "="); strings.EqualFold(key, "signed-by") {
					s.signedBy = value
				}
			}
			rest = after
		}
		fields := strings.Fields(rest)
		if len(fields) < 3 {
			continue
		}
		s.uri, s.suite, s.components = fields[0], fields[1], fields[2:]
		found = append(found, s)
	}
	return found, lines.Err()
}

// parseDeb822 reads sources.list(5)'s deb822 style: stanzas of fields, where a line that starts with a space continues
// the field above it.
func parseDeb822(r io.Reader) ([]source, error) {
	var found []source
	fields := make(map[string]string)
	last := ""
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			found = append(found, fromStanza(fields)...)
			fields, last = make(map[string]string), ""
		case line[0] == ' ' || line[0] == '\t':
			fields[last] += "\n" + strings.TrimSpace(line)
		default:
			key, value, _ := strings.Cut(line, ":")
			last = strings.ToLower(strings.TrimSpace(key))
			fields[last] = strings.TrimSpace(value)
		}
	}
	return append(found, fromStanza(fields)...), lines.Err()
}

func fromStanza(fields map[string]string) []source {
	if !slices.Contains(strings.Fields(fields["types"]), "deb") || strings.EqualFold(fields["enabled"], "no") {
		return nil
	}
	signedBy := strings.Join(strings.Fields(fields["signed-by"]), ",")
	var found []source
	for uri := range strings.FieldsSeq(fields["uris"]) {
		for suite := range strings.FieldsSeq(fields["suites"]) {
			found = append(found, source{uri, suite, strings.Fields(fields["components"]), signedBy})
		}
	}
	return found
}

// aptPrefixes are the settings of the host's apt that say how to reach its sources.
var aptPrefixes = []string{
	"Acquire::http", "Acquire::https", "Acquire::ftp", "Acquire::socks", "Acquire::Retries", "Acquire::ForceIPv",
	"Acquire::Check-Valid-Until", "Acquire::Check-Date", "Acquire::Max-ValidTime", "Acquire::Min-ValidTime",
	"Acquire::By-Hash", "Acquire::PDiffs", "Acquire::Queue-Mode",
}

// aptOptions picks from the output of apt-config dump what a build passes on.
func aptOptions(dump string) []string {
	var options []string
	for line := range strings.Lines(dump) {
		line = strings.TrimSpace(line)
		name, value, ok := strings.Cut(line, " ")
		if !ok || value == `"";` || !strings.HasSuffix(value, `";`) {
			continue
		}
		if slices.ContainsFunc(aptPrefixes, func(p string) bool { return strings.HasPrefix(name, p) }) {
			options = append(options, line)
		}
	}
	return options
}
