package policy

import (
	"errors"
	"strings"
)

func checkPathPattern(p string) error {
	plain := strings.TrimSuffix(p, "/*")
	switch {
	case !strings.HasPrefix(p, "/"):
		return errors.New("does not begin with /")
	case strings.ContainsAny(p, "?#"):
		return errors.New("has a query or fragment: rules match the path alone")
	case strings.Contains(plain, "*"):
		return errors.New(`has a "*" other than a final "/*"`)
	case plain != "" && !plainPath(plain):
		return errors.New("has a dot segment, an empty segment, or an encoded /, . or \\")
	}
	return nil
}

// matchPaths compares a path as it is on the wire.
func matchPaths(patterns []string, path string) bool {
	if !plainPath(path) {
		return false
	}
	for _, p := range patterns {
		below, prefix := strings.CutSuffix(p, "*")
		if path == p || prefix && strings.HasPrefix(path, below) {
			return true
		}
	}
	return false
}

// plainPath reports whether every server reads the path the same way.
func plainPath(path string) bool {
	if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "\\\x00;") {
		return false
	}
	lower := strings.ToLower(path)
	// The last two begin overlong UTF-8 (RFC 3629 section 3), in which lenient
	// decoders find the others again.
	for _, bad := range []string{"%2e", "%2f", "%5c", "%00", "%25", "%3b", "%c0", "%c1"} {
		if strings.Contains(lower, bad) {
			return false
		}
	}
	segments := strings.Split(path[1:], "/")
	for i, s := range segments {
		if s == "." || s == ".." || s == "" && i != len(segments)-1 {
			return false
		}
	}
	return true
}
