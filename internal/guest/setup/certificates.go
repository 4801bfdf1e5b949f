//go:build linux

package setup

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
)

// caFile is where the host's CA lies by itself.
const caFile = "/run/gondolin/ca.crt"

// bundles are where distributions keep all trusted certificates in one file:
// Debian and Alpine; Fedora and its kin; openSUSE; OpenSSL's own default.
var bundles = []string{
	"/etc/ssl/certs/ca-certificates.crt",
	"/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/ssl/ca-bundle.pem",
	"/etc/ssl/cert.pem",
}

// hashDirs are where OpenSSL looks certificates up by their subject's hash.
var hashDirs = []string{"/etc/ssl/certs", "/etc/pki/tls/certs"}

// certificates makes the guest trust the host's CA: in every bundle the image
// has (curl, git, Go), by hash (openssl, python), and through the variables
// that programs with certificates of their own read.
func (s *setup) certificates() error {
	if s.CA == nil {
		return nil
	}
	if err := write(caFile, string(s.CA.PEM)); err != nil {
		return err
	}
	if old := s.prepared.ca; old != nil && old.Hash != s.CA.Hash {
		for _, dir := range hashDirs {
			_ = os.Remove(filepath.Join(dir, old.Hash+".0")) // leads to the new one, which has another name
		}
	}
	bundle, err := s.extendBundles()
	if err != nil {
		return err
	}
	for _, dir := range hashDirs {
		if err := s.linkHash(dir); err != nil {
			return err
		}
	}
	s.prepared.ca = s.CA
	s.applied.Env = append([]string{
		"SSL_CERT_FILE=" + bundle,
		"CURL_CA_BUNDLE=" + bundle,
		"REQUESTS_CA_BUNDLE=" + bundle,
		"NODE_EXTRA_CA_CERTS=" + caFile,
	}, s.applied.Env...)
	return nil
}

// extendBundles adds the CA to every bundle there is, or makes the first, and
// returns the path of one.
func (s *setup) extendBundles() (string, error) {
	found := ""
	for _, path := range bundles {
		err := s.appendCA(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		if found == "" {
			found = path
		}
	}
	if found != "" {
		return found, nil
	}
	return bundles[0], write(bundles[0], string(s.CA.PEM))
}

// appendCA adds the CA to the bundle at path, on a line of its own, or puts it in
// the place of the one before.
func (s *setup) appendCA(path string) error {
	if old := s.prepared.ca; old != nil {
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if bytes.Contains(content, old.PEM) {
			return os.WriteFile(path, bytes.ReplaceAll(content, old.PEM, s.CA.PEM), 0o644) //nolint:gosec // keeps its mode
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(append([]byte("\n"), s.CA.PEM...))
	return errors.Join(err, f.Close())
}

// linkHash puts the CA under its hash into dir, if there is such a directory.
func (s *setup) linkHash(dir string) error {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil //nolint:nilerr // this image has no such directory
	}
	err := os.Symlink(caFile, filepath.Join(dir, s.CA.Hash+".0"))
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	return err
}
