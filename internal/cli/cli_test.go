package cli

import (
	"bytes"
	"strings"
	"testing"
)

// A wrong command line has an exit code of its own, apart from a failure and
// from a command's.
func TestUsageErrors(t *testing.T) {
	for _, line := range []string{
		"frobnicate", "version now", "doctor now", "image frob", "image ls now", "image rm", "exec",
		"exec --no-such-flag -- true", "exec --timeout -1s -- true", "exec --memory lots -- true",
	} {
		var out, errOut bytes.Buffer
		args := append([]string{"gondolin"}, strings.Fields(line)...)
		code := Main(args, Stdio{Out: &out, Err: &errOut}, func(string) (string, bool) { return "", false })
		if code != exitUsage || errOut.Len() == 0 || out.Len() != 0 {
			t.Errorf("%s: exit code %d, %q, %q", line, code, out.String(), errOut.String())
		}
	}
}
