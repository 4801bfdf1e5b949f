package policy

import (
	"errors"
	"strings"
)

func checkPathPattern(p string) error {
	if !strings.HasPrefix(p, "/") {
		return errors.New("does not begin with /")
	}
	if strings.ContainsAny(p, "?#") {
		return errors.New("has a query or fragment: rules match the path alone")
	}
	for segment := range strings.SplitSeq(p[1:], "/") {
		if segment != "*" && strings.Contains(segment, "*") {
			return errors.New(`has a "*" that is not a whole segment`)
		}
	}
	if !plainPath(p) {
		return errors.New("has a dot segment, an empty segment, or an encoded /, . or \\")
	}
	return nil
}

// comparison is how segments of a path are compared.
type comparison func(pattern, segment string) bool

func exactly(pattern, segment string) bool { return pattern == segment }

// loosely compares what servers may take for the same: without case, and with
// characters that need no encoding (RFC 3986 section 2.3) decoded.
func loosely(pattern, segment string) bool {
	for pattern != "" && segment != "" {
		p, np := looseByte(pattern)
		s, ns := looseByte(segment)
		if p != s {
			return false
		}
		pattern, segment = pattern[np:], segment[ns:]
	}
	return pattern == segment
}

// looseByte returns the first byte of s, decoded and in lower case, and how many
// bytes stand for it.
func looseByte(s string) (c byte, n int) {
	if s[0] == '%' && len(s) > 2 {
		high, low := unhex(s[1]), unhex(s[2])
		if c := high<<4 | low; high < 16 && low < 16 && unreserved(c) {
			return lowerByte(c), 3
		}
	}
	return lowerByte(s[0]), 1
}

// unhex returns the value of a hexadecimal digit, or 16.
func unhex(c byte) byte {
	switch c = lowerByte(c); {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	}
	return 16
}

func lowerByte(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

func unreserved(c byte) bool {
	return nameByte(lowerByte(c)) || c == '.' || c == '~'
}

// matchPath compares a plain path, as it is on the wire, with a pattern.
func matchPath(pattern, path string, equal comparison) bool {
	for {
		if pattern == "/*" {
			return true
		}
		p, patternRest := cutSegment(pattern)
		s, pathRest := cutSegment(path)
		if p == "*" {
			if s == "" {
				return false
			}
		} else if !equal(p, s) {
			return false
		}
		if patternRest == "" || pathRest == "" {
			return patternRest == pathRest
		}
		pattern, path = patternRest, pathRest
	}
}

// cutSegment returns the first segment of a path, and the rest with its slash.
func cutSegment(path string) (segment, rest string) {
	path = path[1:]
	if i := strings.IndexByte(path, '/'); i >= 0 {
		return path[:i], path[i:]
	}
	return path, ""
}

// plainPath reports whether every server reads the path the same way.
func plainPath(path string) bool {
	if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "\\\x00;") {
		return false
	}
	for i := 0; i < len(path); i++ {
		if path[i] == '%' && oddEncoding(path[i:]) {
			return false
		}
	}
	for rest := path; rest != ""; {
		var segment string
		segment, rest = cutSegment(rest)
		if segment == "." || segment == ".." || segment == "" && rest != "" {
			return false
		}
	}
	return true
}

// oddEncoding reports whether s begins with an encoding of a character that
// structures paths, of % itself, or one that begins overlong UTF-8 (RFC 3629
// section 3), in which lenient decoders find the others again.
func oddEncoding(s string) bool {
	if len(s) < 3 {
		return true
	}
	high, low := unhex(s[1]), unhex(s[2])
	if high > 15 || low > 15 {
		return true
	}
	switch high<<4 | low {
	case '.', '/', '\\', 0, '%', ';', 0xc0, 0xc1:
		return true
	}
	return false
}
