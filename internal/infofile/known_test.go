package infofile_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"sealift/internal/infofile"
)

func word(key, value string) infofile.Word { return infofile.Word{Key: key, Value: value} }

func wantKnown(t *testing.T, path, server string, want ...infofile.Word) {
	t.Helper()
	got, err := infofile.ReadKnown(path, server)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%s: %v, %v; want %v", server, got, err, want)
	}
}

func TestKnownServers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config", "sealift", infofile.KnownName)
	wantKnown(t, path, "h:1")
	set := func(server string, words ...infofile.Word) {
		t.Helper()
		if err := infofile.WriteKnown(path, server, words...); err != nil {
			t.Fatal(err)
		}
	}
	set("h:1", word("codes", "825"), word("pause", "300µs"))
	set("[::1]:1256", word("codes", "1025"))
	set("h:1", word("pause", ""), word("dialect", "padded"))
	wantKnown(t, path, "H:1", word("codes", "825"), word("dialect", "padded"))
	wantKnown(t, path, "[::1]:1256", word("codes", "1025"))
	wantKnown(t, path, "h:2")
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

// What people, other programs and later versions have written stays.
func TestKnownServersKeepsWhatItDoesNotKnow(t *testing.T) {
	path := filepath.Join(t.TempDir(), infofile.KnownName)
	garbled := "# mine\r\n\nno server at all\nh:1 codes\nh:1 =825\nh:1 codes=9\x00\n\xff\xfe\n"
	before := garbled + "h:1 tls=sha256:abc codes=825 later=x=y\r\nh:1 codes=1025\nother:2 codes=1025"
	if err := os.WriteFile(path, []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	wantKnown(t, path, "h:1", word("tls", "sha256:abc"), word("codes", "825"), word("later", "x=y"))
	if err := infofile.WriteKnown(path, "h:1", word("codes", "1025"), word("dialect", "spec")); err != nil {
		t.Fatal(err)
	}
	if err := infofile.WriteKnown(path, "new:3", word("codes", "825")); err != nil {
		t.Fatal(err)
	}
	want := garbled + "h:1 tls=sha256:abc codes=1025 later=x=y dialect=spec\nh:1 codes=1025\nother:2 codes=1025\nnew:3 codes=825\n"
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}

// Several processes write at once, and no line is lost.
func TestKnownServersFromManyProcesses(t *testing.T) {
	if path := os.Getenv("INFOFILE_TEST_KNOWN"); path != "" {
		for i := range 20 {
			if err := infofile.WriteKnown(path, fmt.Sprintf("h%d:%s", i, os.Getenv("INFOFILE_TEST_PORT")), word("codes", "825")); err != nil {
				t.Error(err)
			}
		}
		return
	}
	path := filepath.Join(t.TempDir(), infofile.KnownName)
	var group sync.WaitGroup
	for port := range 4 {
		group.Go(func() {
			cmd := exec.Command(os.Args[0], "-test.run=^TestKnownServersFromManyProcesses$")
			cmd.Env = append(os.Environ(), "INFOFILE_TEST_KNOWN="+path, fmt.Sprintf("INFOFILE_TEST_PORT=%d", port))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	group.Wait()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "codes=825\n"); n != 80 {
		t.Errorf("%d lines, want 80", n)
	}
}

func TestKnownServersThatCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	blocked := filepath.Join(dir, "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := infofile.WriteKnown(filepath.Join(blocked, "known"), "h:1", word("codes", "825")); err == nil {
		t.Error("a file in a file")
	}
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := infofile.WriteKnown(large, "h:1", word("codes", "825")); err == nil {
		t.Error("an absurd file was taken for one of ours")
	}
	if info, err := os.Stat(large); err != nil || info.Size() != 2<<20 {
		t.Errorf("%v, %v", info, err)
	}
	if runtime.GOOS == "windows" {
		return
	}
	if err := infofile.WriteKnown(os.DevNull, "h:1", word("codes", "825")); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(os.DevNull); err != nil || info.Mode().IsRegular() {
		t.Fatalf("%s is now %v, %v", os.DevNull, info, err)
	}
	// The link of someone who keeps the file elsewhere stays one.
	link, target := filepath.Join(dir, "link"), filepath.Join(dir, "target")
	if err := os.WriteFile(target, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	if err := infofile.WriteKnown(link, "h:1", word("codes", "825")); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is %v, %v", info, err)
	}
	wantKnown(t, target, "h:1", word("codes", "825"))
}
