package infofile_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"sealift/internal/infofile"
)

func TestTLSKeyPath(t *testing.T) {
	id := strings.Repeat("c1", 16)
	for me, want := range map[string]string{
		"me.info":              "me.key",
		"who":                  "who.key",
		"/a.b/who":             "/a.b/who.key",
		"a.b/me.info":          "a.b/me.key",
		"priv.info":            "priv.info.key",
		".info":                ".info.key",
		"me.info." + id:        "me.key",
		"me.info." + id + ".2": "me.key",
		"x/who." + id:          "x/who.key",
		"who." + id[2:]:        "who." + id[2:] + ".key",
		"who.2":                "who.2.key",
		id:                     id + ".key",
	} {
		if got := infofile.TLSKeyPath(filepath.FromSlash(me)); got != filepath.FromSlash(want) {
			t.Errorf("the key of %s is %s, want %s", me, got, want)
		}
	}
}

// The key is made once, for its owner alone, and what is left of an earlier try goes.
func TestTLSKeyIsMadeOnce(t *testing.T) {
	dir := t.TempDir()
	me, left := filepath.Join(dir, "me.info"), filepath.Join(dir, ".me.key.ABCDEFGH.tmp")
	if err := os.WriteFile(left, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := infofile.LoadTLSKey(t.Context(), me)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, "me.key")); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if again, err := infofile.LoadTLSKey(t.Context(), me+"."+strings.Repeat("c1", 16)); err != nil || !again.Equal(key) {
		t.Errorf("the identity that was replaced has another key: %v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); got != "me.info.lock me.key" {
		t.Errorf("the folder has %s", got)
	}
	// What is no key stays.
	for _, spoilt := range []string{"", "rubbish"} {
		if err := os.WriteFile(filepath.Join(dir, "me.key"), []byte(spoilt), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := infofile.LoadTLSKey(t.Context(), me); !errors.Is(err, infofile.ErrMalformed) {
			t.Errorf("%q: %v", spoilt, err)
		}
		if got, _ := os.ReadFile(filepath.Join(dir, "me.key")); !bytes.Equal(got, []byte(spoilt)) {
			t.Errorf("%q became %q", spoilt, got)
		}
	}
}

// A word changes only where it is what it was believed to be.
func TestChangeKnown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "known_servers")
	tls := func(value string) infofile.Word { return infofile.Word{Key: "tls", Value: value} }
	for _, tc := range []struct {
		word, old, after string
		err              error
	}{
		{"a", "b", "", infofile.ErrOtherWord},
		{"a", "", "h:1 tls=a\n", nil},
		{"b", "", "h:1 tls=a\n", infofile.ErrOtherWord},
		{"a", "", "h:1 tls=a\n", nil},
		{"b", "c", "h:1 tls=a\n", infofile.ErrOtherWord},
		{"b", "a", "h:1 tls=b\n", nil},
	} {
		if err := infofile.ChangeKnown(path, "h:1", tls(tc.word), tc.old); !errors.Is(err, tc.err) {
			t.Errorf("%+v: %v", tc, err)
		}
		if got, _ := os.ReadFile(path); string(got) != tc.after {
			t.Errorf("%+v: %q", tc, got)
		}
	}
	if err := infofile.ChangeKnown(os.DevNull, "h:1", tls("a"), ""); !errors.Is(err, infofile.ErrNotKept) {
		t.Error(err)
	}
}
