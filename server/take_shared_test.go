package server

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/internal/testservices"
	"sealift/storage"
	"sealift/storage/s3"
)

// sharedDepot is a depot in stores that servers share, which do not run.
func sharedDepot(t *testing.T) *depot {
	t.Helper()
	d := &depot{t: t, dir: t.TempDir(), shared: &Stores{Registry: testservices.SharedPostgres(t), Files: bucket(t)}}
	s := &migration{at: *d.shared}
	reg, err := s.openPostgres(t.Context()) // makes the tables
	if err != nil {
		t.Fatal(err)
	}
	d.apply(reg, &storage.AddClient{ID: anna, Name: "anna"}, &storage.AddClient{ID: otto, Name: "otto"})
	if err := reg.Close(); err != nil {
		t.Fatal(err)
	}
	return d
}

// uploadShared does what a server does with an upload, and then with its verdict.
func (d *depot) uploadShared(id codec.ClientID, path, content string, verify bool) {
	d.t.Helper()
	ctx := d.t.Context()
	reg, err := openSharedToChange(ctx, d.shared.Registry)
	if err != nil {
		d.t.Fatal(err)
	}
	defer reg.Close()
	store, err := s3.Open(ctx, d.shared.Files, s3.Options{Scratch: d.dir})
	if err != nil {
		d.t.Fatal(err)
	}
	defer store.Close()
	f := File{
		ID: id, FileName: path, Path: path, Size: int64(len(content)), Cksum: cksum.Checksum([]byte(content)), Received: time.Now(),
	}
	in, err := store.Create(ctx, f.Place(), storage.Announced{})
	if err == nil {
		f.Incoming = in.Key()
		d.apply(reg, &storage.LeaseUpload{Upload: f.Uploaded(), For: time.Minute})
		_, err = in.Write(ctx, []byte(content))
		err = errors.Join(err, in.Complete(ctx))
	}
	if err != nil {
		d.t.Fatal(err)
	}
	d.apply(reg, &storage.PutFile{File: f, Leased: true})
	if !verify {
		return
	}
	if err := store.Commit(ctx, &f); err != nil {
		d.t.Fatal(err)
	}
	op := &storage.VerifyFile{ID: id, Path: path, Incoming: f.Incoming, Versions: true}
	d.apply(reg, op)
	if op.Replaced != nil {
		if err := store.Remove(ctx, op.Replaced.Stored()); err != nil {
			d.t.Fatal(err)
		}
	}
}

// A Take from stores that servers share, killed at any step and run again, into the same folder
// or after one into another, hands out each version of a file once.
func TestTakeFromABucketKilled(t *testing.T) {
	d := sharedDepot(t)
	for s := range steps {
		for _, elsewhere := range []bool{false, true} {
			for _, newer := range []bool{false, true} {
				name := fmt.Sprint(s, elsewhere, newer)
				t.Run(name, func(t *testing.T) {
					d := &depot{t: t, dir: d.dir, shared: d.shared}
					for i := range 2 {
						d.store(anna, fmt.Sprint("folder/", i), fmt.Sprint(name, " content ", i))
					}
					k, other := d.taker(t.TempDir()), d.taker(t.TempDir())
					if !k.killed(s, 1) {
						t.Fatal("it was not killed")
					}
					came := make(map[string]int)
					k.carry(came)
					if elsewhere {
						if err := other.run(); err != nil {
							t.Fatal(err)
						}
					}
					if newer {
						for i := range 2 {
							d.store(anna, fmt.Sprint("folder/", i), fmt.Sprint(name, " newer ", i))
						}
					}
					for range 3 {
						if err := k.run(); err != nil {
							t.Fatal(err)
						}
						k.carry(came)
						other.carry(came)
					}
					if len(k.told) > 0 {
						t.Errorf("there is more: %q", k.told)
					}
					for i := range 2 {
						old := came[fmt.Sprint(name, " content ", i)]
						if old > 1 || old == 0 && (!newer || elsewhere) {
							t.Errorf("file %d came %d times", i, old)
						}
						if now := came[fmt.Sprint(name, " newer ", i)]; newer != (now == 1) {
							t.Errorf("the newer version of file %d came %d times", i, now)
						}
					}
					d.checkLeases()
				})
			}
		}
	}
}

// checkLeases checks that nothing is left of what was under way.
func (d *depot) checkLeases() {
	d.t.Helper()
	reg, err := openSharedReadOnly(d.t.Context(), d.shared.Registry)
	if err != nil {
		d.t.Fatal(err)
	}
	defer reg.Close()
	if err := reg.EachLease(d.t.Context(), func(l storage.Lease) error {
		d.t.Errorf("there is a lease: %+v", l)
		return nil
	}); err != nil {
		d.t.Fatal(err)
	}
}

// Where nothing of what is on record is in the bucket, it is the wrong one: nothing is forgotten.
func TestForgetMissingInTheWrongBucket(t *testing.T) {
	d := sharedDepot(t)
	d.store(anna, "a", "content")
	wrong := *d.shared
	wrong.Files = strings.Replace(wrong.Files, "?", "-elsewhere?", 1)
	fail := func(f File) { t.Errorf("%s is forgotten", f.Path) }
	if err := ForgetMissing(t.Context(), wrong, false, fail); !errors.Is(err, errFilesElsewhere) {
		t.Errorf("%v", err)
	}
	if err := ForgetMissing(t.Context(), *d.shared, false, fail); err != nil {
		t.Errorf("in the right one: %v", err)
	}
	d.checkVerify(*d.shared, 1)
}

// What another command may have taken that was killed is left to that one.
func TestTakeLeavesWhatIsAnothers(t *testing.T) {
	d := sharedDepot(t)
	d.store(anna, "a", "content")
	d.store(anna, "b", "content")
	k, other := d.taker(t.TempDir()), d.taker(t.TempDir())
	k.Pattern = "a"
	if !k.killed(stepComplete, 1) {
		t.Fatal("it was not killed")
	}
	other.takes("a: a command that was killed has begun to take it to ", "b")
	if !strings.Contains(other.told[0]+other.told[1], k.To) {
		t.Errorf("%q does not say where", other.told)
	}
	k.takes("a")
	other.takes()
	d.checkLeases()
}

// Files are taken from a bucket and deleted there as from a directory, and whoever looks there finds nothing of them.
func TestTakeFromABucket(t *testing.T) {
	d := sharedDepot(t)
	d.store(anna, "a", "one")
	d.store(anna, "docs/b.csv", strings.Repeat("two", 100_000))
	d.store(otto, "a", "four")
	d.upload(otto, "waits", "six", false)
	at := *d.shared
	k := d.taker(t.TempDir())
	k.DryRun = true
	k.takes("a", "a", "docs/b.csv")
	k.DryRun = false
	k.Pattern = "**/*.csv"
	k.takes("docs/b.csv")
	k.takes()
	b, err := os.ReadFile(k.at(anna, "docs/b.csv"))
	if err != nil || string(b) != strings.Repeat("two", 100_000) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	d.checkVerify(at, 2)
	store, err := openBucket(t.Context(), at.Files)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	row := func(path string) File {
		t.Helper()
		var found File
		r, err := OpenReadOnly(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if err := r.Files(t.Context(), func(f File) error {
			if f.Path == path && f.Verified {
				found = f
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return found
	}
	taken := row("docs/b.csv")
	if taken.Taken.IsZero() || !taken.Missing {
		t.Errorf("%+v", taken)
	}
	if _, err := store.Size(t.Context(), taken.Stored()); !errors.Is(err, storage.ErrNotStored) {
		t.Errorf("the object of a file that was taken: %v", err)
	}

	k.Pattern = "**"
	k.takes("a", "a")
	k.takes()
	if err := DeleteFiles(t.Context(), at, DeleteOptions{Pattern: "**", Unverified: true, Each: func(f File, err error) {
		if err != nil {
			t.Errorf("%s: %v", f.Path, err)
		}
	}, Removed: func(int64, int64) {}}); err != nil {
		t.Fatal(err)
	}
	if stored, err := hasContent(t.Context(), store); err != nil || stored {
		t.Errorf("there is something left in the bucket: %v, %v", stored, err)
	}
	if c, err := DeleteClient(t.Context(), at, Who{Name: "anna"}, DeleteClientOptions{Removed: func(int64, int64) {}}); err != nil || c.Name != "anna" {
		t.Errorf("%+v, %v", c, err)
	}
}
