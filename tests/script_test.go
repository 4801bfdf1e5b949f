// Package tests runs the whole product: scripts over the real command.
package tests

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"gondolin/internal/cli"
	"gondolin/internal/paths"
	"gondolin/internal/session"
	"gondolin/internal/vmtest"
)

// beGondolin makes this test's binary the command.
const beGondolin = "GONDOLIN_TEST_BE_GONDOLIN"

func TestMain(m *testing.M) {
	if os.Getenv(beGondolin) != "" {
		gondolin()
	}
	testscript.Main(m, map[string]func(){"gondolin": gondolin})
}

func gondolin() {
	os.Exit(cli.Main(os.Args, cli.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, os.LookupEnv))
}

// TestScript runs testdata/script. Besides testscript's own commands there is
//
//	apiserver NAME
//
// which starts an HTTPS server on loopback that answers with the Authorization
// header it got, puts its port into $PORT and its certificate for NAME into ca.pem, and
//
//	started NAME
//
// which waits until there is a session of that name.
func TestScript(t *testing.T) {
	vmtest.Needs(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		Setup:               setup,
		RequireExplicitExec: true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"apiserver": apiServer, "started": started},
	})
}

// setup shows the scripts this user's images and what is known of accelerators.
func setup(env *testscript.Env) error {
	env.Setenv("XDG_RUNTIME_DIR", filepath.Join(env.WorkDir, "run")) // each script sees its own sessions only
	if home := os.Getenv("GONDOLIN_HOME"); home != "" {
		env.Setenv("GONDOLIN_HOME", home)
		return nil
	}
	home := os.Getenv("HOME")
	env.Setenv("XDG_DATA_HOME", cmp.Or(os.Getenv("XDG_DATA_HOME"), filepath.Join(home, ".local", "share")))
	env.Setenv("XDG_CACHE_HOME", cmp.Or(os.Getenv("XDG_CACHE_HOME"), filepath.Join(home, ".cache")))
	return nil
}

// startedTimeout is a boot under emulation on a busy machine, with room.
const startedTimeout = 2 * time.Minute

func started(ts *testscript.TestScript, neg bool, args []string) { //nolint:revive // testscript's signature
	if neg || len(args) != 1 {
		ts.Fatalf("usage: started NAME")
	}
	dirs, err := paths.FromEnv(ts.Getenv, runtime.GOOS)
	ts.Check(err)
	registry, err := session.Open(dirs.Sessions())
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), startedTimeout)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		client, _, err := registry.Find(ctx, args[0])
		if err == nil {
			client.Close()
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			ts.Fatalf("no session %s: %v", args[0], err)
		}
	}
}

func apiServer(ts *testscript.TestScript, neg bool, args []string) { //nolint:revive // testscript's signature
	if neg || len(args) != 1 {
		ts.Fatalf("usage: apiserver NAME")
	}
	cert, certPEM, err := certificate(args[0])
	ts.Check(err)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%d bytes of authorization\n", len(r.Header.Get("Authorization")))
		_ = os.WriteFile(ts.MkAbs("seen"), []byte(r.Header.Get("Authorization")+"\n"), 0o600)
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	s.StartTLS()
	ts.Defer(s.Close)
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	ts.Check(err)
	ts.Setenv("PORT", port)
	ts.Check(os.WriteFile(ts.MkAbs("ca.pem"), certPEM, 0o600))
}

func certificate(name string) (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, certPEM, nil
}
