package server

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Who has the registry of others, and not their files, is refused, and changes nothing: as a
// server, and as forget-missing.
func TestRegistryWithOtherFiles(t *testing.T) {
	stores := sharedStores(t)
	s := serveOn(t, stores)
	c, err := dial(t, s, "anna", nil)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(files string) {
		t.Helper()
		o := options(t.TempDir())
		o.Storage.Registry, o.Storage.Files = stores.Registry, files
		other, err := Open(t.Context(), o)
		if err == nil {
			_ = other.Close()
		}
		if !errors.Is(err, errFilesOfOthers) || !strings.Contains(Hint(err), "--files") {
			t.Errorf("with files in %q: %v", files, err)
		}
	}
	refused("")
	refused(strings.Replace(stores.Files, "a/prefix", "another", 1)) // nothing is on record yet that could be missed there
	put(t, c, "f", []byte("content"))
	refused("")
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "files"), 0o700); err != nil {
		t.Fatal(err)
	}
	err = ForgetMissing(t.Context(), Stores{Dir: dir, Registry: stores.Registry}, false, func(f File) { t.Errorf("%s was forgotten", f.Path) })
	if !errors.Is(err, errFilesOfOthers) {
		t.Errorf("forget-missing: %v", err)
	}
	if got := string(stored(t, s, c, "f")); got != "content" {
		t.Errorf("f has %q", got)
	}
	serveOn(t, stores)
}

// The endpoint is no part of where files are: machines may name it differently.
func TestWhereabouts(t *testing.T) {
	for bucket, want := range map[string]string{
		"": inDirectory,
		"s3://bucket/p?endpoint=http://127.0.0.1:9000&region=x": "s3://bucket/p",
		"s3://bucket/p/?endpoint=https://s3.example":            "s3://bucket/p",
		"s3://bucket": "s3://bucket",
	} {
		if got, err := whereabouts(bucket); got != want || err != nil {
			t.Errorf("%q is %q, %v", bucket, got, err)
		}
	}
}
