package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"sealift/codec"
	"sealift/crypto/tlskey"
	"sealift/internal/fakeserver"
)

// send runs sealift send in dir as the user n.
func send(t *testing.T, s *fakeserver.Server, dir string, args ...string) result {
	t.Helper()
	args = append([]string{"send", "--server", s.Addr}, args...)
	if _, err := os.Stat(filepath.Join(dir, "me.info")); err != nil {
		args = append(args, "--name", "n")
	}
	return run(t, dir, args...)
}

// heard makes sure that the server has stored these files under these names,
// and no others: name=content.
func heard(t *testing.T, s *fakeserver.Server, want ...string) {
	t.Helper()
	if got := s.Names(); len(got) != len(want) {
		t.Errorf("stored %q, want %q", got, want)
	}
	for _, w := range want {
		name, content, _ := strings.Cut(w, "=")
		if got, ok := s.Stored(name); !ok || string(got) != content {
			t.Errorf("%q holds %q (%t), want %q", name, got, ok, content)
		}
	}
}

// refuse has the server answer each 1028 of a name with 1607.
func refuse(s *fakeserver.Server, name string) {
	s.Answer = func(m fakeserver.Message, right []byte) []byte {
		if m.Code == codec.CodeSendFile && m.Name == name {
			return fakeserver.GeneralError
		}
		return right
	}
}

// silent makes sure that nobody has connected.
func silent(t *testing.T, s *fakeserver.Server) {
	t.Helper()
	if got := s.Sequence(); got != "" {
		t.Errorf("the server heard %q", got)
	}
}

// outcomes reads what --json wrote, by file.
func outcomes(t *testing.T, r result, files int) map[string]map[string]any {
	t.Helper()
	all := map[string]map[string]any{}
	lines := strings.Split(strings.TrimSuffix(r.stdout, "\n"), "\n")
	for _, line := range lines {
		var o map[string]any
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		all[fmt.Sprint(o["file"])] = o
	}
	if len(lines) != files || len(all) != files {
		t.Fatalf("%d lines about %d files, want one each about %d: %s", len(lines), len(all), files, r.stdout)
	}
	return all
}

func TestTwoFilesOfOneName(t *testing.T) {
	s, dir := fakeserver.New(t), t.TempDir()
	put(t, dir, "a/report", "one")
	put(t, dir, "b/report", "two")
	put(t, dir, "c", "three")
	got := send(t, s, dir, "c", "a/report", "b/report").misused(t, `a/report and b/report would both be stored as "report". Send one of them by itself, under another name: --as NAME`)
	if got.stdout != "" || strings.Count(got.stderr, "\n") != 1 {
		t.Errorf("%+v", got)
	}
	send(t, s, dir, "c", "c").misused(t, "c is given twice")
	send(t, s, dir, "-r", "a", "b").misused(t, "would both be stored")
	o := outcomes(t, send(t, s, dir, "--json", "c", "a/report", "b/report").misused(t, "report"), 3)
	if o["c"]["error"] != "not tried" || !strings.Contains(fmt.Sprint(o["a/report"]["error"]), "both") || o["b/report"]["stored"] != false {
		t.Errorf("%v", o)
	}
	silent(t, s)
	send(t, s, dir, "a/report").succeeded(t)
	send(t, s, dir, "b/report", "--as", "b/report").succeeded(t)
	heard(t, s, "report=one", "b/report=two")
}

// A name that the server would change is not sent as it is.
func TestNamesThatTheServerWouldChange(t *testing.T) {
	s, dir := fakeserver.New(t), t.TempDir()
	put(t, dir, "good", "good")
	for name, stored := range map[string]string{`b:x`: "x", `c:\x`: "x", `a\b`: "a/b", `..\x`: "x", `a\.\b`: "a/b", `\x`: "x"} {
		if os.PathSeparator != '/' {
			continue // no file is called so
		}
		put(t, dir, "odd/"+name, name)
		got := send(t, s, dir, "odd/"+name, "good").failed(t, "1 of 2 files is not stored")
		if want := fmt.Sprintf("servers may store it as %q. --as NAME sends a file under another name", stored); !strings.Contains(got.stderr, want) {
			t.Errorf("%q: %q", name, got.stderr)
		}
		heard(t, s, "good=good")
		send(t, s, dir, "good", "--as", name).failed(t, "servers may store it as")
	}
	for _, name := range []string{"/x", "x/", "./x", "a//b", "a/../b", "..", ".", "/", strings.Repeat("a/", 17) + "x"} {
		send(t, s, dir, "good", "--as", name).failed(t, "file name")
	}
	heard(t, s, "good=good")
	send(t, s, dir, "good", "--as", "a/b c/d").succeeded(t)
	heard(t, s, "good=good", "a/b c/d=good")
	send(t, s, dir, "good", "other", "--as", "x").misused(t, "--as is the name of one file")
}

// One file that cannot be sent keeps nobody else back.
func TestOneMissingFileOfThree(t *testing.T) {
	s, dir := fakeserver.New(t), t.TempDir()
	put(t, dir, "a", "first")
	put(t, dir, "c", "third")
	got := send(t, s, dir, "a", "b", "c").failed(t, "1 of 3 files is not stored")
	if lines := strings.Split(got.stderr, "\n"); len(lines) != 3 || lines[0] != "not stored: b: no such file or directory" {
		t.Errorf("stderr %q", got.stderr)
	}
	heard(t, s, "a=first", "c=third")

	put(t, dir, "d/e", "")
	r := send(t, s, dir, "--json", "d", "c", "b").failed(t, "2 of 3 files are not stored")
	o := outcomes(t, r, 3)
	if o["c"]["stored"] != true || !strings.Contains(fmt.Sprint(o["b"]["error"]), "no such file") || !strings.Contains(fmt.Sprint(o["d"]["error"]), "folder") {
		t.Errorf("%v", o)
	}
	if !strings.Contains(r.stderr, "not stored: d: is a folder, not a regular file. -r sends what is in a folder\n") {
		t.Errorf("stderr %q", r.stderr)
	}
	send(t, s, dir, "b").failed(t, "Fatal error: stat b: no such file or directory")
}

func TestFailFast(t *testing.T) {
	s, dir := fakeserver.New(t), t.TempDir()
	put(t, dir, "a", "first")
	put(t, dir, "c", "third")
	r := send(t, s, dir, "--fail-fast", "--json", "a", "b", "c").failed(t, "3 of 3 files are not stored")
	if o := outcomes(t, r, 3); o["a"]["error"] != "not tried" || o["c"]["error"] != "not tried" || !strings.Contains(fmt.Sprint(o["b"]["error"]), "no such file") {
		t.Errorf("%v", o)
	}
	silent(t, s)
}

// With --fail-fast a file that the server refuses is the last one.
func TestFailFastAtTheServer(t *testing.T) {
	for _, parallel := range []string{"1", "2"} {
		s, dir := fakeserver.New(t), t.TempDir()
		refuse(s, "b")
		for _, f := range []string{"a", "b", "c", "d"} {
			put(t, dir, f, f)
		}
		args := []string{"--dialect", "spec", "--log-level", "error", "--parallel", parallel, "--json", "a", "b", "c", "d"}
		r := send(t, s, dir, append([]string{"--fail-fast"}, args...)...)
		o := outcomes(t, r, 4)
		if r.status != 75 || !strings.Contains(fmt.Sprint(o["b"]["error"]), "1607") {
			t.Errorf("--parallel %s: %+v", parallel, r)
		}
		if parallel == "1" && (o["a"]["stored"] != true || o["c"]["error"] != "not tried" || o["d"]["error"] != "not tried") {
			t.Errorf("%v", o)
		}
		r = send(t, s, dir, args...)
		if o := outcomes(t, r, 4); r.status != 75 || o["a"]["stored"] != true || o["c"]["stored"] != true || o["d"]["stored"] != true || o["b"]["stored"] != false {
			t.Errorf("--parallel %s: %+v", parallel, r)
		}
	}
}

// What keeps who we are is never sent, by whatever path.
func TestSecretsAreNotSent(t *testing.T) {
	s, dir := fakeserver.New(t), t.TempDir()
	put(t, dir, "folder/file", "content")
	send(t, s, dir, "folder/file").succeeded(t)
	me, err := os.ReadFile(filepath.Join(dir, "me.info"))
	if err != nil {
		t.Fatal(err)
	}
	id := strings.Split(string(me), "\n")[1]
	put(t, dir, "me.info."+id, "replaced")
	put(t, dir, "priv.key", "key")
	put(t, dir, "elsewhere/me.info", "rubbish")
	put(t, dir, "backup.txt", string(me))
	if runtime.GOOS == "windows" {
		t.Skip("links need a right there that few users have")
	}
	if err := os.Symlink("me.info", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(dir, "me.info"), filepath.Join(dir, "hard")); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"me.info", "me.info." + id, "priv.key", "elsewhere/me.info", "backup.txt", "link", "hard"} {
		send(t, s, dir, f).failed(t, f+": it is not sent")
		send(t, s, dir, f, "--as", "harmless").failed(t, "it is not sent")
	}
	got := send(t, s, dir, "-r", ".").succeededWith(t, "passed over ")
	for _, f := range []string{"me.info", "me.info." + id, "priv.key", "elsewhere/me.info", "backup.txt", "hard"} {
		if !strings.Contains(got.stderr, "passed over ./"+f+": it is not sent: ") {
			t.Errorf("%s is not named: %q", f, got.stderr)
		}
	}
	heard(t, s, "file=content", "folder/file=content")

	// The key for TLS, in all of these ways.
	key := tlsKey(t)
	put(t, dir, "me.key", key)
	put(t, dir, "elsewhere/me.key", "rubbish")
	put(t, dir, ".me.key.ABCDEFGH.tmp", "half of one")
	put(t, dir, "key.txt", "-- a copy --\n"+key)
	if err := os.Symlink("me.key", filepath.Join(dir, "tls-link")); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"me.key", "elsewhere/me.key", ".me.key.ABCDEFGH.tmp", "key.txt", "tls-link"} {
		send(t, s, dir, f, "--as", "harmless").failed(t, f+": it is not sent")
	}
	put(t, dir, "another.key", tlsKey(t)) // somebody's, and not ours
	send(t, s, dir, "another.key").succeeded(t)

	// An identity under a name of its own, and known_servers.
	if err := os.Rename(filepath.Join(dir, "me.info"), filepath.Join(dir, "who")); err != nil {
		t.Fatal(err)
	}
	put(t, dir, "known", "")
	put(t, dir, "who.key", "")
	for _, f := range []string{"who", "who." + id, "who.lock", "who.key", "known"} {
		if f != "who" && f != "known" {
			put(t, dir, f, "")
		}
		run(t, dir, "send", "--server", s.Addr, "--identity", "who", "--known-servers", "known", f).failed(t, "it is not sent")
	}
}

// tlsKey returns a new TLS key as a file holds it.
func tlsKey(t *testing.T) string {
	t.Helper()
	key, err := tlskey.Generate()
	if err != nil {
		t.Fatal(err)
	}
	text, err := tlskey.EncodeKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Each of several folders may have what is never sent.
func TestSecretsOfTwoFolders(t *testing.T) {
	s, dir := fakeserver.New(t), t.TempDir()
	for _, folder := range []string{"a", "b"} {
		put(t, dir, folder+"/me.info", "rubbish")
		put(t, dir, folder+"/"+folder, folder)
	}
	send(t, s, dir, "-r", "a", "b").succeededWith(t, "passed over ")
	heard(t, s, "a=a", "b=b")
	send(t, s, dir, "a/me.info", "b/me.info").misused(t, "would both be stored")
}

// succeededWith is succeeded where standard error has lines that begin so.
func (r result) succeededWith(t *testing.T, begin string) result {
	t.Helper()
	for line := range strings.Lines(r.stderr) {
		if r.status != 0 || !strings.HasPrefix(line, begin) {
			t.Fatalf("%+v", r)
		}
	}
	return r
}
