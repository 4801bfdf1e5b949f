package fingerprint

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	look := func() Fingerprint {
		t.Helper()
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		fp, err := Of(f)
		if err != nil {
			t.Fatal(err)
		}
		return fp
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(path, []byte("one"), 0o600))
	first := look()
	if look() != first {
		t.Error("an untouched file looks changed")
	}
	when := time.Unix(0, first.Mtime)
	for look() == first { // until the clock that stamps files has ticked
		must(os.WriteFile(path, []byte("two"), 0o600)) // same size
	}
	must(os.Chtimes(path, when, when))
	if look() == first {
		t.Error("a change whose modification time was set back goes unnoticed")
	}
}
