package machine

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestSanitize(t *testing.T) {
	for raw, want := range map[string]string{
		"plain\ttext\n":              "plain\ttext\n",
		"\x1b[31mred\x1b[0m":         "red",
		"\x1b[?7l\x1b[2Jcleared":     "cleared",
		"\x1b]0;title\x07after":      "after",
		"\x1b]52;c;aGk=\x1b\\after":  "after",
		"\x1b]never ends\nnext":      "\nnext",
		"\x1bPdcs\x1b\\x":            "x",
		"\x1b(Bcharset":              "charset",
		"\x1bcreset":                 "reset",
		"end\x1b":                    "end",
		"end\x1b[":                   "end",
		"\u009b31mc1":                "c1",
		"a\rb\r\nc":                  "a\nb\nc",
		"bell\x07 nul\x00 del\x7f":   "bell nul del",
		"bad \xff utf8":              "bad \ufffd utf8",
		"rtl \u202e override \u200b": "rtl \ufffd override \ufffd",
		"ünïcödé 日本":                 "ünïcödé 日本",
		"\x1b[38;5;1\nm":             "\nm",
		"\x1b[\x1b[31mnested":        "nested",
	} {
		if got := Sanitize([]byte(raw)); got != want {
			t.Errorf("%q: got %q, want %q", raw, got, want)
		}
	}
}

func FuzzSanitize(f *testing.F) {
	for _, s := range []string{"\x1b[31m\x1b]0;x\x07", "\x1b\x1b[", "\xc2\x9b", "\u202e\r\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got := Sanitize(raw)
		if !utf8.ValidString(got) {
			t.Fatalf("%q is not UTF-8", got)
		}
		for _, r := range got {
			if unicode.IsControl(r) && r != '\n' && r != '\t' || unicode.Is(unicode.Cf, r) {
				t.Fatalf("%q has %U", got, r)
			}
		}
		if Sanitize([]byte(got)) != got {
			t.Fatalf("%q changes when sanitized again", got)
		}
		for _, l := range LastLines(got, 3) {
			if strings.Contains(l, "\n") || len(l) > quotedLine+len("…") || !utf8.ValidString(l) {
				t.Fatalf("line %q", l)
			}
		}
	})
}

func TestLastLines(t *testing.T) {
	long := strings.Repeat("é", quotedLine)
	for _, tc := range []struct {
		text  string
		count int
		want  []string
	}{
		{"", 3, nil},
		{"\n\n  \n", 3, nil},
		{"a\n\nb\nc\n", 2, []string{"b", "c"}},
		{"a", 2, []string{"a"}},
		{"\na", 2, []string{"a"}},
		{long, 1, []string{long[:quotedLine] + "…"}},
	} {
		if diff := cmp.Diff(tc.want, LastLines(tc.text, tc.count)); diff != "" {
			t.Errorf("%.20q: %s", tc.text, diff)
		}
	}
}

func TestExitError(t *testing.T) {
	err := &ExitError{Reason: "the guest powered off", Stderr: "one\ntwo\n", Console: strings.Repeat("x\n", 100)}
	want := "machine ended: the guest powered off\nits process said:\n  one\n  two\nits console ended with:" +
		strings.Repeat("\n  x", quotedLines)
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Error(diff)
	}
	if got := (&ExitError{Reason: "r"}).Error(); got != "machine ended: r" {
		t.Errorf("got %q", got)
	}
}
