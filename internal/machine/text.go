package machine

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Sanitize returns text that is safe to show on a terminal and to log: escape
// sequences (ECMA-48) and control characters are removed, except for line feeds
// and tabs; bytes that are not UTF-8 and invisible format characters, which can
// reorder a line, become U+FFFD. A carriage return ends a line.
func Sanitize(raw []byte) string {
	var b strings.Builder
	b.Grow(len(raw))
	for len(raw) > 0 {
		r, n := utf8.DecodeRune(raw)
		switch {
		case r == 0x1b:
			n = escapeLen(raw)
		case r == 0x9b:
			n += csiLen(raw[n:])
		case r == '\r':
			if len(raw) == 1 || raw[1] != '\n' {
				b.WriteByte('\n')
			}
		case r == '\n', r == '\t':
			b.WriteRune(r)
		case unicode.IsControl(r):
		case unicode.Is(unicode.Cf, r), r == '\u2028', r == '\u2029':
			b.WriteRune(utf8.RuneError)
		default:
			b.WriteRune(r)
		}
		raw = raw[n:]
	}
	return b.String()
}

// escapeLen returns the length of the escape sequence raw starts with, ECMA-48
// sections 5.3 to 5.6: ESC [ is a control sequence, ESC ] P X ^ _ a string up to
// BEL or ESC \, anything else intermediate bytes and one final byte.
func escapeLen(raw []byte) int {
	if len(raw) == 1 {
		return 1
	}
	switch raw[1] {
	case '[':
		return 2 + csiLen(raw[2:])
	case ']', 'P', 'X', '^', '_':
		return 2 + stringLen(raw[2:])
	}
	n := 1
	for n < len(raw) && raw[n] >= 0x20 && raw[n] <= 0x2f {
		n++
	}
	if n < len(raw) && raw[n] >= 0x30 && raw[n] <= 0x7e {
		n++
	}
	return n
}

// csiLen returns the length of the parameters, intermediates and final byte of a control sequence.
func csiLen(raw []byte) int {
	n := 0
	for n < len(raw) && raw[n] >= 0x20 && raw[n] <= 0x3f {
		n++
	}
	if n < len(raw) && raw[n] >= 0x40 && raw[n] <= 0x7e {
		n++
	}
	return n
}

// stringLen returns the length of a control string with its terminator. A string
// that does not end on its line is taken to end there, so that it hides no more.
func stringLen(raw []byte) int {
	for n := range raw {
		switch {
		case raw[n] == '\n':
			return n
		case raw[n] == 0x07:
			return n + 1
		case raw[n] == 0x1b && n+1 < len(raw) && raw[n+1] == '\\':
			return n + 2
		}
	}
	return len(raw)
}

// LastLines returns the last count lines of text that are not blank, oldest first,
// without their line ends and each cut to a length that fits an error message.
func LastLines(text string, count int) []string {
	var lines []string
	for len(text) > 0 && len(lines) < count {
		cut := strings.LastIndexByte(text, '\n')
		line := strings.TrimRightFunc(text[cut+1:], unicode.IsSpace)
		text = text[:max(cut, 0)]
		if line == "" {
			continue
		}
		if len(line) > quotedLine {
			line = strings.ToValidUTF8(line[:quotedLine], "") + "…"
		}
		lines = append(lines, line)
	}
	slices.Reverse(lines)
	return lines
}
