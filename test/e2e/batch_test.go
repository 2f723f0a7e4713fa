//go:build unix

package e2e

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sealift/codec"
)

// meInfo is what a me.info holds.
type meInfo struct {
	name string
	id   codec.ClientID
	key  *rsa.PrivateKey
}

// readMe reads a me.info that sealift has written, as strictly as the protocol
// documents describe it.
func readMe(t testing.TB, path string) meInfo {
	t.Helper()
	text := string(get(t, path))
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		t.Fatalf("%s has not three lines: %q", path, text)
	}
	id, err := hex.DecodeString(lines[1])
	if err != nil || len(id) != codec.IDSize || lines[1] != strings.ToLower(lines[1]) {
		t.Fatalf("the id is not 32 hex digits: %q", lines[1])
	}
	der, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil {
		t.Fatalf("the key is not Base64: %v", err)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		t.Fatalf("the key is not PKCS#8: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("%s: mode %v, %v; want 0600", path, info.Mode(), err)
	}
	return meInfo{lines[0], codec.ClientID(id), key.(*rsa.PrivateKey)}
}

// The client of the protocol's documents: transfer.info, me.info, no arguments.
func TestBatch(t *testing.T) {
	for _, tc := range []struct{ what, lineEnd string }{{"LF", "\n"}, {"CRLF", "\r\n"}} {
		t.Run(tc.what, func(t *testing.T) {
			d, dir := serve(t), t.TempDir()
			content := randomBytes(100_003, 5)
			put(t, filepath.Join(dir, "specs/New_product_spec.docx"), content)
			info := strings.ReplaceAll(string(transferInfo(d.addr, "Michael Jackson", "specs/New_product_spec.docx")), "\n", tc.lineEnd)
			put(t, filepath.Join(dir, "transfer.info"), []byte(info))
			run(t, dir, sealift).succeeded(t)

			path := filepath.Join(dir, "me.info")
			me := readMe(t, path)
			if me.name != "Michael Jackson" || me.key.N.BitLen() != 1024 || me.key.E != 17 {
				t.Errorf("%q, a key of %d bits with exponent %d", me.name, me.key.N.BitLen(), me.key.E)
			}
			d.checkVerified(me.id, "New_product_spec.docx", content)

			// From now on it comes back as who it is, whatever name transfer.info has.
			written := get(t, path)
			content = append(content, "and more"...)
			put(t, filepath.Join(dir, "specs/New_product_spec.docx"), content)
			put(t, filepath.Join(dir, "transfer.info"), []byte(strings.Replace(info, "Michael", "Janet", 1)))
			run(t, dir, sealift).succeeded(t)
			d.checkVerified(me.id, "New_product_spec.docx", content)
			if !bytes.Equal(get(t, path), written) {
				t.Error("the second run changed me.info")
			}
			if clients := d.clients(); len(clients) != 1 || clients[0].Name != "Michael Jackson" {
				t.Errorf("clients %+v", clients)
			}
		})
	}
}

// A server that has lost its registry rejects the client, which then registers
// anew under its old name.
func TestBatchOnAServerThatForgot(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "file"), []byte("content"))
	var before meInfo
	for i := range 2 {
		d := serve(t)
		put(t, filepath.Join(dir, "transfer.info"), transferInfo(d.addr, "Michael Jackson", "file"))
		run(t, dir, sealift).succeeded(t)
		me := readMe(t, filepath.Join(dir, "me.info"))
		d.checkVerified(me.id, "file", []byte("content"))
		if i == 1 && (me.id == before.id || me.key.Equal(before.key) || me.name != before.name) {
			t.Errorf("me.info has name %q; want the name of before, with another id and another key", me.name)
		}
		before = me
		d.stop()
	}
}

// Two clients that want one name: the second has to find another, and leaves no
// me.info.
func TestBatchWithATakenName(t *testing.T) {
	d, dir := serve(t), t.TempDir()
	login(t, d, "Michael Jackson")
	put(t, filepath.Join(dir, "file"), []byte("content"))
	put(t, filepath.Join(dir, "transfer.info"), transferInfo(d.addr, "Michael Jackson", "file"))
	run(t, dir, sealift).failed(t, "1601")
	if _, err := os.Stat(filepath.Join(dir, "me.info")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("me.info: %v", err)
	}
}
