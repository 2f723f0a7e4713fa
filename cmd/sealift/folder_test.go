//go:build unix

package main_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sealift/internal/fakeserver"
)

func symlink(t *testing.T, to, dir, name string) {
	t.Helper()
	if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func TestSendFolders(t *testing.T) {
	s, dir := fakeserver.New(t), t.TempDir()
	put(t, dir, "docs/a", "1")
	put(t, dir, "docs/sub/b", "2")
	put(t, dir, "docs/sub/.hidden", "3")
	put(t, dir, "more/c d", "4")
	put(t, dir, "single", "5")
	put(t, dir, "elsewhere/e", "6")
	symlink(t, "../elsewhere", dir, "docs/link")
	symlink(t, "../single", dir, "docs/filelink")
	symlink(t, "nowhere", dir, "docs/dangling")
	symlink(t, "..", dir, "docs/sub/loop")
	if err := syscall.Mkfifo(filepath.Join(dir, "docs/pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	all := []string{"a=1", "sub/b=2", "sub/.hidden=3", "c d=4", "single=5"}
	got := send(t, s, dir, "-r", "docs", "more/", "single").succeededWith(t, "passed over docs/")
	for _, line := range []string{"docs/link: a symbolic link", "docs/filelink: a symbolic link", "docs/dangling: a symbolic link", "docs/pipe: a pipe", "docs/sub/loop: a symbolic link"} {
		if !strings.Contains(got.stderr, "passed over "+line) {
			t.Errorf("%q is missing in %q", line, got.stderr)
		}
	}
	heard(t, s, all...)

	got = send(t, s, dir, "-r", "-L", "docs").failed(t, "1 of 6 files is not stored")
	for _, line := range []string{"not stored: docs/dangling: no such file", "passed over docs/sub/loop: a link to a folder that it lies in"} {
		if !strings.Contains(got.stderr, line) {
			t.Errorf("%q is missing in %q", line, got.stderr)
		}
	}
	heard(t, s, append(all, "link/e=6", "filelink=5")...)
	send(t, s, dir, "docs").failed(t, "docs is a folder, not a regular file. -r sends what is in a folder")
	send(t, s, dir, "-r", "docs", "--as", "x").misused(t, "--as is the name of a file")
}

func TestExclude(t *testing.T) {
	s, dir := fakeserver.New(t), t.TempDir()
	for _, f := range []string{"a.txt", "a.tmp", "build/x", "src/build/y", "src/b.tmp", "src/c", "log/d", "e/log"} {
		put(t, dir, "tree/"+f, "")
	}
	send(t, s, dir, "-r", "tree", "--exclude", "*.tmp", "--exclude", "/build", "--exclude", "log/").succeeded(t)
	heard(t, s, "a.txt=", "src/build/y=", "src/c=", "e/log=")
	send(t, s, dir, "-r", "tree", "--exclude", "[").misused(t, `--exclude: pattern "["`)
	send(t, s, dir, "tree/a.txt", "--exclude", "x").misused(t, "-r")
	send(t, s, dir, "-r", "tree", "--exclude", "*").failed(t, "there is no file to send in tree")
	if err := os.Mkdir(filepath.Join(dir, "empty"), 0o700); err != nil {
		t.Fatal(err)
	}
	send(t, s, dir, "-r", "empty").failed(t, "there is no file to send in empty")
	send(t, s, dir, "-r", "empty", "tree/src").succeededWith(t, "passed over empty: there is no file in it")
	send(t, s, dir, "-r", "nowhere").failed(t, "no such file")
}

// What cannot have its name on the server is told before anything is sent, and
// the rest goes.
func TestFoldersWithNamesThatCannotBeSent(t *testing.T) {
	s, dir := fakeserver.New(t), t.TempDir()
	deep := strings.Repeat("d/", 17) + "deep"
	long := strings.Repeat(strings.Repeat("l", 84)+"/", 3) + "long"
	for _, f := range []string{"ok", deep, long, `a\b`, strings.TrimPrefix(deep, "d/"), "new\nline"} {
		put(t, dir, "tree/"+f, "")
	}
	got := send(t, s, dir, "-r", "tree").failed(t, "4 of 6 files are not stored")
	for _, why := range []string{"17 folders, at most 16", "254", `servers may store it as "a/b"`, `"tree/new\nline"`} {
		if !strings.Contains(got.stderr, why) {
			t.Errorf("%q is missing in %q", why, got.stderr)
		}
	}
	heard(t, s, "ok=", strings.TrimPrefix(deep, "d/")+"=")
	s = fakeserver.New(t)
	send(t, s, dir, "-r", "--fail-fast", "tree").failed(t, "are not stored")
	silent(t, s)
}

func TestStandardInput(t *testing.T) {
	s, dir := fakeserver.New(t), t.TempDir()
	content, temp := strings.Repeat("0123456789", 100_000), t.TempDir()
	pipe := func(stdin string, args ...string) result {
		t.Helper()
		cmd := command(t, dir, append([]string{"send", "--server", s.Addr, "--name", "n"}, args...)...)
		cmd.Stdin = strings.NewReader(stdin)
		cmd.Env = append(cmd.Env, "TMPDIR="+temp)
		return finish(t, cmd)
	}
	got := pipe(content, "--as", "docs/piped", "-").succeeded(t)
	if !strings.Contains(got.stdout, "stored - as docs/piped: 1000000 bytes") {
		t.Errorf("stdout %q", got.stdout)
	}
	pipe("", "-", "--as", "empty").succeeded(t)
	heard(t, s, "docs/piped="+content, "empty=")
	pipe("x", "-").misused(t, "--as NAME")
	pipe("x", "-", "-", "--as", "x").misused(t, "--as")
	put(t, dir, "-", "dash")
	pipe("x", "./-").succeeded(t)
	heard(t, s, "docs/piped="+content, "empty=", "-=dash")
	if left, _ := filepath.Glob(filepath.Join(temp, "*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// A temporary file that has no room is an error that says so.
func TestStandardInputWithoutRoom(t *testing.T) {
	s, dir := fakeserver.New(t), t.TempDir()
	cmd := command(t, dir, "send", "--server", s.Addr, "--name", "n", "-", "--as", "x")
	cmd.Env = append(cmd.Env, "TMPDIR="+filepath.Join(dir, "nowhere"))
	cmd.Stdin = strings.NewReader("x")
	finish(t, cmd).failed(t, "TMPDIR names another folder")
	silent(t, s)
}
