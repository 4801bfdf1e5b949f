package egress

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"gondolin/policy"
)

// placeholderPrefix begins every placeholder; 24 random bytes in hex follow.
const placeholderPrefix = "GONDOLIN_SECRET_"

const placeholderRandom = 24

// vault knows which placeholder stands for which secret. Values are behind
// functions, which no formatting verb looks into.
type vault struct {
	engine  *policy.Engine
	env     map[string]string // name of the secret to its placeholder
	entries []vaultEntry
}

type vaultEntry struct {
	name        string
	placeholder string
	value       func() string
}

// newVault takes over the placeholders that the guest has, by name of the secret,
// and makes the others.
func newVault(engine *policy.Engine, known map[string]string) (*vault, error) {
	v := &vault{engine: engine, env: make(map[string]string)}
	for _, name := range engine.SecretNames() {
		placeholder, err := placeholderFor(known[name])
		if err != nil {
			return nil, fmt.Errorf("cannot make a placeholder for secret %s: %w", name, err)
		}
		e := vaultEntry{name: name, placeholder: placeholder}
		e.value = func() string {
			value, _ := engine.SecretValue(name)
			return value
		}
		v.entries = append(v.entries, e)
		v.env[name] = e.placeholder
	}
	return v, nil
}

// placeholderFor returns a placeholder that the guest has, or a new one.
func placeholderFor(known string) (string, error) {
	if known == "" {
		random := make([]byte, placeholderRandom)
		_, err := rand.Read(random)
		return placeholderPrefix + hex.EncodeToString(random), err
	}
	digits, ok := strings.CutPrefix(known, placeholderPrefix)
	if raw, err := hex.DecodeString(digits); !ok || err != nil || len(raw) != placeholderRandom {
		return "", errors.New("the one the guest is said to have is none")
	}
	return known, nil
}

func (v *vault) values() []string {
	values := make([]string, len(v.entries))
	for i, e := range v.entries {
		values[i] = e.value()
	}
	return values
}

// injection is what putting secrets into a request did.
type injection struct {
	used    []string // names of the secrets that went in, sorted
	encoded []string // header values that hold a secret in encoded form
}

// inject replaces the placeholders in the header values of req, which it
// changes, and refuses a request that would carry a secret, as placeholder or as
// value, where it may not go. Replaced text is not searched again.
func (v *vault) inject(req *http.Request, q policy.Request) (injection, *denial) {
	var done injection
	bound := make([]vaultEntry, 0, len(v.entries))
	for _, e := range v.entries {
		d := v.engine.Secret(e.name, q)
		if d.Allowed {
			bound = append(bound, e)
			continue
		}
		if e.foundIn(req) {
			return done, refusal(d)
		}
	}
	if countPlaceholders(req.Header, bound) > maxPlaceholders {
		return done, &denial{status: http.StatusRequestHeaderFieldsTooLarge, reason: fmt.Sprintf("the request holds more than %d placeholders", maxPlaceholders)}
	}
	if len(bound) == 0 {
		return done, nil
	}
	pairs := make([]string, 0, 2*len(bound))
	for _, e := range bound {
		pairs = append(pairs, e.placeholder, e.value())
	}
	replacer := strings.NewReplacer(pairs...)
	for _, values := range req.Header {
		for i, value := range values {
			values[i] = done.replace(value, bound, replacer)
		}
	}
	slices.Sort(done.used)
	done.used = slices.Compact(done.used)
	return done, nil
}

// countPlaceholders counts those that replace would put a value in place of.
func countPlaceholders(h http.Header, bound []vaultEntry) int {
	n := 0
	for _, values := range h {
		for _, text := range values {
			_, plain, _ := decodeBasic(text)
			for _, e := range bound {
				n += strings.Count(text, e.placeholder) + strings.Count(plain, e.placeholder)
			}
		}
	}
	return n
}

// replace returns one header value with its secrets in place.
func (n *injection) replace(value string, bound []vaultEntry, replacer *strings.Replacer) string {
	if scheme, plain, ok := decodeBasic(value); ok {
		if n.note(plain, bound) {
			value = scheme + " " + base64.StdEncoding.EncodeToString([]byte(replacer.Replace(plain)))
			n.encoded = append(n.encoded, value[len(scheme)+1:])
			return value
		}
	}
	if n.note(value, bound) {
		return replacer.Replace(value)
	}
	return value
}

// note records the secrets whose placeholders are in text.
func (n *injection) note(text string, bound []vaultEntry) bool {
	found := false
	for _, e := range bound {
		if strings.Contains(text, e.placeholder) {
			n.used = append(n.used, e.name)
			found = true
		}
	}
	return found
}

// foundIn reports whether the placeholder or the value is anywhere in the head
// of req: headers, decoded Basic credentials, host, path or query, as written or
// decoded.
func (e *vaultEntry) foundIn(req *http.Request) bool {
	value := e.value()
	in := func(text string) bool {
		return strings.Contains(text, e.placeholder) || strings.Contains(text, value)
	}
	query, err := url.QueryUnescape(req.URL.RawQuery)
	if err != nil {
		query = ""
	}
	if in(req.Host) || in(req.URL.Path) || in(req.URL.EscapedPath()) || in(req.URL.RawQuery) || in(query) {
		return true
	}
	for name, values := range req.Header {
		if in(name) || strings.Contains(strings.ToLower(name), strings.ToLower(e.placeholder)) {
			return true
		}
		for _, text := range values {
			if _, plain, ok := decodeBasic(text); in(text) || ok && in(plain) {
				return true
			}
		}
	}
	return false
}

// decodeBasic decodes Basic credentials, RFC 7617, with or without padding.
func decodeBasic(value string) (scheme, plain string, ok bool) {
	scheme, encoded, found := strings.Cut(value, " ")
	if !found || !strings.EqualFold(scheme, "Basic") {
		return "", "", false
	}
	encoded = strings.TrimRight(strings.TrimSpace(encoded), "=")
	decoded, err := base64.RawStdEncoding.DecodeString(encoded)
	if err != nil {
		return "", "", false
	}
	return scheme, string(decoded), true
}
