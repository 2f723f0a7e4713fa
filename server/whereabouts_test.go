package server

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sealift/internal/testservices"
	"sealift/storage"
	"sealift/storage/postgres"
)

// Who has the registry of others, and not their files, is refused, and changes nothing: as a
// server, and as a command that needs the files.
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
	wrong := Stores{Dir: dir, Registry: stores.Registry}
	touched := func(f File, err error) { t.Errorf("%s was touched, %v", f.Path, err) }
	for command, run := range map[string]func() error{
		"forget-missing": func() error {
			return ForgetMissing(t.Context(), wrong, false, func(f File) { touched(f, nil) })
		},
		"file take": func() error {
			return Take(t.Context(), wrong, TakeOptions{To: t.TempDir(), Each: func(f Taken) { touched(f.File, f.Err) }})
		},
		"file delete": func() error {
			return DeleteFiles(t.Context(), wrong, DeleteOptions{Each: touched, Removed: func(int64, int64) {}})
		},
		"client delete": func() error {
			_, err := DeleteClient(t.Context(), wrong, Who{Name: "anna"}, DeleteClientOptions{WithFiles: true, Removed: func(int64, int64) {}})
			return err
		},
		"file expire": func() error {
			return ExpireFiles(t.Context(), wrong, ExpireOptions{KeepFor: 1, Each: func(f File) { touched(f, nil) }})
		},
		"verify": func() error {
			r, err := OpenReadOnly(t.Context(), wrong)
			if err != nil {
				return err
			}
			defer r.Close()
			return r.Verify(t.Context(), touched)
		},
	} {
		if err := run(); !errors.Is(err, errFilesOfOthers) {
			t.Errorf("%s: %v", command, err)
		}
	}
	if got := string(stored(t, s, c, "f")); got != "content" {
		t.Errorf("f has %q", got)
	}
	put(t, c, "g", []byte("more")) // anna is not disabled
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

// A registry that does not say where its files are, since no server has run on it, goes with any.
func TestNobodyHasSaidWhereFilesAre(t *testing.T) {
	at := Stores{Dir: t.TempDir(), Registry: testservices.SharedPostgres(t)}
	reg, err := postgres.Open(t.Context(), at.Registry, postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer reg.Close()
	if err := at.checkTogether(t.Context(), reg); err != nil {
		t.Error(err)
	}
	look, err := postgres.OpenReadOnly(t.Context(), at.Registry, postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer look.Close()
	if err := at.checkTogether(t.Context(), look); err != nil {
		t.Errorf("for reading: %v", err)
	}
	if err := keepTogether(t.Context(), reg, "s3://bucket/p"); err != nil { // nothing was decided
		t.Error(err)
	}
	for name, reg := range map[string]storage.Registry{"to change": reg, "for reading": look} {
		if err := at.checkTogether(t.Context(), reg); !errors.Is(err, errFilesOfOthers) {
			t.Errorf("%s, after a server with a bucket: %v", name, err)
		}
	}
}
