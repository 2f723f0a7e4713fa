package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/storage"
	"sealift/storage/files"
	"sealift/storage/sqlite"
)

// depot is the directory of a server that does not run, and the steps of one by hand.
type depot struct {
	t      testing.TB
	dir    string
	shared *Stores // where its files and records are; nil: in dir
}

var anna, otto = codec.ClientID{0xa0}, codec.ClientID{0x07}

func newDepot(t testing.TB) *depot {
	t.Helper()
	d := &depot{t: t, dir: t.TempDir()}
	d.open(func(reg *sqlite.Registry, _ *files.Store) {
		d.apply(reg, &storage.AddClient{ID: anna, Name: "anna"}, &storage.AddClient{ID: otto, Name: "otto"})
	})
	return d
}

// open opens both stores for a moment.
func (d *depot) open(do func(*sqlite.Registry, *files.Store)) {
	d.t.Helper()
	reg, err := sqlite.Open(d.t.Context(), filepath.Join(d.dir, DatabaseName), sqlite.Options{Beside: true})
	if err != nil {
		d.t.Fatal(err)
	}
	store, err := files.Open(d.dir, files.Options{})
	if err != nil {
		d.t.Fatal(err)
	}
	do(reg, store)
	if err := errors.Join(store.Close(), reg.Close()); err != nil {
		d.t.Fatal(err)
	}
}

func (d *depot) apply(reg storage.Registry, ops ...storage.Operation) {
	d.t.Helper()
	for _, op := range ops {
		if err := applyOwn(d.t.Context(), reg, op); err != nil {
			d.t.Fatalf("%T: %v", op, err)
		}
	}
}

// store has a client upload a file, and verify it.
func (d *depot) store(id codec.ClientID, path, content string) {
	d.t.Helper()
	d.upload(id, path, content, true)
}

func (d *depot) upload(id codec.ClientID, path, content string, verify bool) {
	d.t.Helper()
	if d.shared != nil {
		d.uploadShared(id, path, content, verify)
		return
	}
	d.open(func(reg *sqlite.Registry, store *files.Store) {
		f := File{
			ID: id, FileName: path, Path: path, Size: int64(len(content)),
			Cksum: cksum.Checksum([]byte(content)), Received: time.Now(),
		}
		in, err := store.Create(d.t.Context(), f.Place(), storage.Announced{})
		if err == nil {
			f.Incoming = in.Key()
			_, err = in.Write(d.t.Context(), []byte(content))
			err = errors.Join(err, in.Close(d.t.Context()))
		}
		if err != nil {
			d.t.Fatal(err)
		}
		d.apply(reg, &storage.PutFile{File: f})
		if !verify {
			return
		}
		if err := store.Commit(d.t.Context(), &f); err != nil {
			d.t.Fatal(err)
		}
		d.apply(reg, &storage.VerifyFile{ID: id, Path: path, Incoming: f.Incoming})
	})
}

func (d *depot) stored(id codec.ClientID, path string) string {
	return filepath.Join(d.dir, "files", id.String(), filepath.FromSlash(path))
}

// row returns what the registry has of a verified file, or nil.
func (d *depot) row(id codec.ClientID, path string) (v *File) {
	d.t.Helper()
	d.open(func(reg *sqlite.Registry, _ *files.Store) {
		get, err := getFile(d.t.Context(), reg, &File{ID: id, Path: path})
		if err != nil {
			d.t.Fatal(err)
		}
		v = get.Verified
	})
	return v
}

// taker is a Take, and what it tells.
type taker struct {
	TakeOptions
	d    *depot
	told []string
}

func (d *depot) taker(to string) *taker {
	k := &taker{d: d}
	k.TakeOptions = TakeOptions{Pattern: "**", To: to, Read: func(int64, int64) {}, Each: func(f Taken) {
		if f.Err != nil {
			k.told = append(k.told, fmt.Sprintf("%s: %v", f.Path, f.Err))
		} else {
			k.told = append(k.told, f.Path)
		}
	}}
	return k
}

func (k *taker) run() error {
	k.told = nil
	at := Stores{Dir: k.d.dir}
	if k.d.shared != nil {
		at = *k.d.shared
	}
	return Take(k.d.t.Context(), at, k.TakeOptions)
}

// takes has it take files, which must go well, and tell of want, each a path or a path and
// the beginning of why it was left.
func (k *taker) takes(want ...string) {
	k.d.t.Helper()
	if err := k.run(); err != nil {
		k.d.t.Fatalf("Take: %v", err)
	}
	slices.Sort(k.told)
	ok := len(want) == len(k.told)
	for i := 0; ok && i < len(want); i++ {
		ok = want[i] == k.told[i] || strings.Contains(want[i], ":") && strings.HasPrefix(k.told[i], want[i])
	}
	if !ok {
		k.d.t.Fatalf("Take told of %q, want %q", k.told, want)
	}
}

// killed has it end after the nth time that it did s, as if it was killed. It reports
// whether it came that far.
func (k *taker) killed(s step, n int) (ended bool) {
	k.d.t.Helper()
	type kill struct{}
	k.after = func(did step) {
		if did == s {
			if n--; n == 0 {
				panic(kill{})
			}
		}
	}
	defer func() {
		k.after = nil
		if r := recover(); r != nil {
			if r != (kill{}) {
				panic(r)
			}
			ended = true
		}
	}()
	if err := k.run(); err != nil {
		k.d.t.Fatalf("Take: %v", err)
	}
	return false
}

func (k *taker) at(id codec.ClientID, path string) string {
	return filepath.Join(k.To, id.String(), filepath.FromSlash(path))
}

// filesIn returns the files below a folder with their content, without takingFolder's lock.
func filesIn(t testing.TB, folder string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(folder, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == "lock" {
			return err
		}
		b, err := os.ReadFile(p)
		rel, _ := filepath.Rel(folder, p)
		all[filepath.ToSlash(rel)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (k *taker) wants(want map[string]string) {
	k.d.t.Helper()
	if got := filesIn(k.d.t, k.To); fmt.Sprint(got) != fmt.Sprint(want) {
		k.d.t.Errorf("%s has %q, want %q", k.To, got, want)
	}
}
