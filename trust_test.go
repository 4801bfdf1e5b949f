package gondolin

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os/exec"
	"strings"
	"testing"
	"time"

	"gondolin/internal/testenv"
)

func TestSubjectHashIsOpenSSLs(t *testing.T) {
	openssl := testenv.NeedsTool(t, "openssl")
	for _, name := range []pkix.Name{
		{CommonName: "gondolin CA"},
		{CommonName: "  Two  Words ", Organization: []string{"Org"}, Country: []string{"CH"}},
		{CommonName: "a_b*c@d"}, // not a PrintableString
	} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: name, NotAfter: time.Now().Add(time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		cmd := exec.CommandContext(t.Context(), openssl, "x509", "-noout", "-hash")
		cmd.Stdin = strings.NewReader(string(cert))
		want, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		got, err := certificate(cert)
		if err != nil {
			t.Fatal(err)
		}
		if got.Hash != strings.TrimSpace(string(want)) {
			t.Errorf("%v: %s, openssl says %s", name, got.Hash, want)
		}
	}
}
