//go:build unix

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// fingerprint is what "sealiftd fingerprint" prints.
func fingerprint(t testing.TB, args ...string) string {
	t.Helper()
	return strings.TrimSpace(run(t, t.TempDir(), sealiftd, append([]string{"fingerprint"}, args...)...).succeeded(t).stdout)
}

// logged makes sure that the server has logged message with text.
func (d *daemon) logged(message, text string) {
	d.t.Helper()
	if line := d.await(message); !strings.Contains(line, text) {
		d.t.Errorf("logged %s, want it with %q", line, text)
	}
}

// The fingerprint is printed beside a server and after it, and logged at each start.
// It moves with the directory and with a backup of it.
func TestFingerprint(t *testing.T) {
	t.Parallel()
	empty := t.TempDir()
	got := run(t, empty, sealiftd, "fingerprint").failed(t, "there is no TLS key yet")
	if !strings.Contains(got.stderr, "\nHint: The server makes it at its first start") {
		t.Errorf("without a hint: %s", got.stderr)
	}
	if made, err := os.ReadDir(empty); err != nil || len(made) != 0 {
		t.Errorf("made: %v, %v", made, err)
	}
	d := serve(t)
	known := fingerprint(t, "--dir", d.dir)
	if !strings.HasPrefix(known, "SHA256:") || len(known) != 50 {
		t.Errorf("printed %q", known)
	}
	d.logged(`"TLS key"`, `"fingerprint":"`+known+`"`)
	to := filepath.Join(t.TempDir(), "copy")
	run(t, d.dir, sealiftd, "backup", "--to", to).succeeded(t)
	d.stop()
	again := serveIn(t, d.dir)
	again.logged(`"TLS key"`, known)
	serveIn(t, to).logged(`"TLS key"`, known)
	for what, args := range map[string][]string{
		"after it":       {"--dir", d.dir},
		"of the copy":    {"--dir", to},
		"of the file":    {"--tls-cert", filepath.Join(to, "tls", "cert.pem")},
		"of the key yet": {"--dir", to, "--tls-cert", ""},
	} {
		if got := fingerprint(t, args...); got != known {
			t.Errorf("%s: %q, want %q", what, got, known)
		}
	}
}

// SIGHUP has a server take up the files that were changed, or say what is wrong with
// them.
func TestReloadOfCertificates(t *testing.T) {
	t.Parallel()
	var dirs [2]string
	for i := range dirs {
		d := serve(t)
		d.stop()
		dirs[i] = filepath.Join(d.dir, "tls")
	}
	files := t.TempDir()
	cert, key := filepath.Join(files, "cert.pem"), filepath.Join(files, "key.pem")
	take := func(names ...string) {
		for i, name := range names {
			put(t, filepath.Join(files, []string{"cert.pem", "key.pem"}[i]), get(t, name))
		}
		if err := os.Chmod(key, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pair := func(i int) (string, string) {
		return filepath.Join(dirs[i], "cert.pem"), filepath.Join(dirs[i], "key.pem")
	}
	take(pair(0))
	d := serve(t, "--tls-cert", cert, "--tls-key", key, "--tls", "require")
	d.expected = "the files of TLS cannot be used"
	d.logged(`"TLS key"`, fingerprint(t, "--tls-cert", filepath.Join(dirs[0], "cert.pem")))
	if _, err := os.Stat(filepath.Join(d.dir, "tls")); err == nil {
		t.Error("a key was made beside the one that is given")
	}
	d.signal(syscall.SIGHUP)
	d.await("there is nothing to reload")
	take(filepath.Join(dirs[1], "cert.pem"))
	d.signal(syscall.SIGHUP)
	d.logged(d.expected, "private key does not match public key")
	take(pair(1))
	d.signal(syscall.SIGHUP)
	d.logged("the files of TLS were reloaded", fingerprint(t, "--tls-cert", cert))
}

// What is wrong with the flags and files of TLS keeps the server from starting.
func TestTLSRefusals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put(t, filepath.Join(dir, "rubbish"), []byte("rubbish"))
	for _, tc := range []struct {
		args string
		why  string
	}{
		{"--tls=on", `--tls "on": want allow, require or off`},
		{"--tls-cert=rubbish", "--tls-cert without --tls-key"},
		{"--tls-cert=rubbish --tls-key=rubbish", "certificate"},
		{"--tls=require --tls-clients=ca", "--tls-clients ca without --tls-client-ca"},
		{"--tls=off --tls-client-ca=rubbish", "--tls off with files for TLS"},
	} {
		run(t, dir, sealiftd, strings.Fields("serve --listen 127.0.0.1:0 "+tc.args)...).failed(t, tc.why)
	}
	if made, err := os.ReadDir(dir); err != nil || len(made) != 1 {
		t.Errorf("made: %v, %v", made, err)
	}
	put(t, filepath.Join(dir, "tls", "cert.pem"), []byte("rubbish"))
	got := run(t, dir, sealiftd, "serve", "--listen", "127.0.0.1:0").failed(t, "there is a certificate without its key")
	if !strings.Contains(got.stderr, "\nHint: Clients know the server by its key: put ") {
		t.Errorf("without a hint: %s", got.stderr)
	}
}
