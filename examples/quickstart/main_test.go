package main

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"gondolin/internal/testenv"
	"gondolin/internal/vmtest"
)

func TestQuickstart(t *testing.T) {
	vmtest.Needs(t)
	testenv.CheckLeaks(t)
	var out bytes.Buffer
	if err := run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	guest, api, _ := strings.Cut(out.String(), "the API received: ")
	if api != "Bearer "+apiKey+"\n" {
		t.Errorf("the API received %q", api)
	}
	if strings.Contains(guest, apiKey) {
		t.Error("the guest saw the key")
	}
	for _, want := range []string{
		`(?m)^GONDOLIN_SECRET_$`, `(?m)^you are the owner of the key$`, `(?m)^gondolin: denied: `, `(?m)^answer$`,
	} {
		if !regexp.MustCompile(want).MatchString(guest) {
			t.Errorf("no match for %s in:\n%s", want, guest)
		}
	}
}
