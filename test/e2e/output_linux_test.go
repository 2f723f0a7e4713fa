package e2e

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Output that is lost is a failure of every command of sealiftd, and no reason to
// leave work undone that has begun.
func TestOutputThatIsLost(t *testing.T) {
	t.Parallel()
	d := serve(t)
	p := login(t, d, "n")
	for _, name := range []string{"a", "b"} {
		p.upload(name, []byte(name))
	}
	waiting := p.File("w", []byte("w"))
	p.sendPackets(cut(waiting, 0))
	p.expectReceived(waiting)
	p.Close()
	d.stop()
	put(t, d.stored(p.ID, "stray"), []byte("s"))
	if err := os.Remove(d.stored(p.ID, "b")); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()

	// with runs a command with standard output to out, which is closed here then.
	with := func(out *os.File, args ...string) result {
		t.Helper()
		cmd := exec.Command(sealiftd, args...)
		var stderr bytes.Buffer
		cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, environment("TMPDIR="+dir), out, &stderr
		err := cmd.Run()
		_ = out.Close()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return result{"", stderr.String(), cmd.ProcessState.ExitCode()}
	}
	full := func() *os.File {
		f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	gone := func() *os.File {
		r, w := pipe(t)
		_ = r.Close()
		return w
	}
	null := func() *os.File {
		f, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	commands := [][]string{
		{"clients", "--dir", d.dir}, {"clients", "--json", "--dir", d.dir},
		{"files", "--dir", d.dir}, {"files", "--json", "--dir", d.dir},
		{"verify", "--dir", d.dir}, {"verify", "--json", "--dir", d.dir},
		{"forget-missing", "--dry-run", "--dir", d.dir}, {"take-strays", "--dry-run", "--dir", d.dir},
		{"version"}, {"help"}, {"--help"}, {"serve", "--help"}, {"help", "backup"}, {"completion", "bash"}, {"demo"},
	}
	for i, lost := range []func() *os.File{full, gone} {
		why := []string{"no space left on device", "broken pipe"}[i]
		for _, command := range commands {
			with(lost(), command...).failed(t, why)
		}
		// The work is done all the same.
		copied := filepath.Join(dir, "copy "+why)
		with(lost(), "backup", "--dir", d.dir, "--to", copied).failed(t, why)
		checkFile(t, filepath.Join(copied, "files", p.ID.String(), "a"), strings.NewReader("a"))
		if _, err := os.Lstat(copied + ".partial"); err == nil {
			t.Error("a part of a backup is left")
		}
	}
	for _, command := range commands {
		closed := append([]string{"-c", `exec "$0" "$@" >&-`, sealiftd}, command...)
		runEnv(t, dir, []string{"TMPDIR=" + dir}, "/bin/sh", closed...).failed(t, "standard output is closed")
	}
	with(gone(), "take-strays", "--dir", d.dir).failed(t, "broken pipe")
	with(full(), "forget-missing", "--dir", d.dir).failed(t, "no space left")
	var names []string
	for _, f := range d.files() {
		names = append(names, f.FileName)
	}
	if got := strings.Join(names, " "); got != "a stray w" {
		t.Errorf("on record are %q", got)
	}
	for _, command := range commands {
		if command[0] != "demo" {
			with(null(), command...).succeeded(t)
		}
	}
}
