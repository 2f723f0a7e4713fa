//go:build unix

package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sealift/server"
)

func writeConfig(t *testing.T, dir, text string) string {
	t.Helper()
	path := filepath.Join(dir, "sealift.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// The command line counts before the environment, and that before the file; what is shown
// is a file that gives the same settings.
func TestConfigFile(t *testing.T) {
	dir := t.TempDir()
	path := writeConfig(t, dir, "# of this machine\ndir: /srv/sealift\nmax-file-size: 1073741825\nregister-rate: 3\nidle-timeout: 90s\nfile-mode: 0640\n")
	env := []string{"SEALIFT_CONFIG=" + path, "SEALIFT_REGISTER_RATE=7"}
	r := runEnv(t, dir, env, sealiftd, "config", "show", "--idle-timeout", "2m")
	if r.status != 0 {
		t.Fatalf("%d: %s", r.status, r.stderr)
	}
	for _, want := range []string{
		"dir: /srv/sealift # " + path + ":2\n", "max-file-size: \"1073741825\" # " + path + ":3\n",
		"register-rate: \"7\" # SEALIFT_REGISTER_RATE\n", "idle-timeout: 2m0s # command line\n",
		"file-mode: \"0640\" # " + path + ":6\n", "min-free: 64MiB # default\n",
	} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("no %q in:\n%s", want, r.stdout)
		}
	}
	again := run(t, dir, sealiftd, "config", "show", "--config", writeConfig(t, t.TempDir(), r.stdout))
	if again.status != 0 || values(again.stdout) != values(r.stdout) {
		t.Errorf("what is shown gives other settings: %s\n%s\nand before\n%s", again.stderr, again.stdout, r.stdout)
	}
	if r := runEnv(t, dir, env, sealiftd, "config", "check", "--dir", dir); r.status != 0 || r.stdout != "The settings are good.\n" {
		t.Errorf("check: %d, %s%s", r.status, r.stdout, r.stderr)
	}
}

// values are the lines of a YAML file without their comments.
func values(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		value, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " #")
		b.WriteString(value + "\n")
	}
	return b.String()
}

// A file that is wrong is an error with its line, for check as for serve.
func TestWrongConfigFile(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]string{
		"dir: .\nmax-file-sise: 1GiB\n": `:2: there is no setting "max-file-sise"`,
		"max-file-size: much\n":         `:1: max-file-size "much": "much" is no size in bytes, such as 64MiB`,
		"config: other\n":               `:1: there is no setting "config"`,
		"registry: oracle\n":            `:1: --registry "oracle": want sqlite, memory or postgres://…`,
		"dir: .\nlog-level: loud\n":     `:2: --log-level: unrecognized level: "loud"`,
	} {
		path := writeConfig(t, dir, text)
		if strings.HasPrefix(want, ":") {
			want = path + want
		}
		for _, command := range [][]string{{"config", "check"}, {"config", "show"}, {"serve"}, {}} {
			r := run(t, dir, sealiftd, append(command, "--config", path)...)
			if r.status != 1 || r.stderr != "Fatal error: "+want+"\n" {
				t.Errorf("%q with %v: %d, %s", text, command, r.status, r.stderr)
			}
		}
	}
	if r := run(t, dir, sealiftd, "--config", "absent.yaml"); r.status != 1 || r.stderr != "Fatal error: open absent.yaml: no such file or directory\n" {
		t.Errorf("absent: %d, %s", r.status, r.stderr)
	}
}

// What is wrong with the directory and the files that settings name is found by check, which
// makes none of them.
func TestConfigCheckReadsFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "short"), []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"dir: nowhere\n": ":1: --dir nowhere does not exist\nHint: ",
		"dir: .\ntls-cert: absent.pem\ntls-key: absent.key\n":                                ":2: --tls-cert absent.pem: ",
		"dir: .\ntls: require\ntls-clients: ca\ntls-client-ca: ca.pem\n":                     ":4: --tls-client-ca ca.pem: ",
		"dir: .\nadmin: 127.0.0.1:9256\nadmin-token-file: absent\n":                          ":3: --admin-token-file absent: ",
		"dir: .\nadmin: 127.0.0.1:9256\nadmin-token-file: short\nadmin-host: sealift.test\n": ":3: --admin-token-file short: ",
	} {
		path := writeConfig(t, dir, text)
		if r := run(t, dir, sealiftd, "config", "check", "--config", path); r.status != 1 || !strings.HasPrefix(r.stderr, "Fatal error: "+path+want) {
			t.Errorf("%q: %d, %s", text, r.status, r.stderr)
		}
	}
	run(t, dir, sealiftd, "config", "check", "--dir", ".").succeeded(t)
	if _, err := os.Stat(filepath.Join(dir, "tls")); err == nil {
		t.Error("check has made tls/")
	}
}

// installed is the file of settings that packages install.
const installed = "../../deploy/sealiftd.yaml"

// The file that packages install names every setting in the order of config show, with its
// default, but for the directory; and each line is good when it is no comment any more.
func TestInstalledConfigFile(t *testing.T) {
	dir := t.TempDir()
	text := string(get(t, installed))
	all := regexp.MustCompile(`(?m)^#([a-z])`).ReplaceAllString(text, "$1")
	settings := regexp.MustCompile(`(?m)^[a-z-]+:.*\n`).FindAllString(all, -1)
	r := run(t, dir, sealiftd, "config", "show", "--dir", "/var/lib/sealift").succeeded(t)
	if got := strings.Join(settings, ""); got != values(r.stdout) {
		t.Errorf("the file has:\n%s\nconfig show:\n%s", got, values(r.stdout))
	}
	live := server.Settings()
	live["log-level"] = true
	for _, block := range strings.Split(text, "\n\n") {
		setting := regexp.MustCompile(`(?m)^#?([a-z-]+):[^\n]*\n?\z`).FindStringSubmatch(block)
		if restart := strings.Contains(block, "\n# Needs a restart.\n"); setting != nil && restart == live[setting[1]] {
			t.Errorf("%s may change while the server runs: %v; the file says that it needs a restart: %v", setting[1], live[setting[1]], restart)
		}
	}
	r = run(t, dir, sealiftd, "config", "show", "--config", writeConfig(t, dir, text)).succeeded(t)
	for line := range strings.Lines(r.stdout) {
		if strings.HasPrefix(line, "dir: /var/lib/sealift # ") == strings.HasSuffix(line, " # default\n") {
			t.Errorf("set is %s", line)
		}
	}
	run(t, dir, sealiftd, "config", "check", "--dir", dir, "--config", writeConfig(t, dir, all)).succeeded(t)
}
