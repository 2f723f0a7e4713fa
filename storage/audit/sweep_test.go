package audit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sealift/crypto/cksum"
	"sealift/storage"
	"sealift/storage/audit"
	"sealift/storage/memory"
	"sealift/storage/storagetest"
)

// shared is a bucket and a registry that servers share.
type shared struct {
	t      *testing.T
	reg    *memory.Registry
	bucket *storagetest.Bucket
	*storagetest.BucketFiles
	now time.Time
}

func newShared(t *testing.T) *shared {
	s := &shared{t: t, now: now, bucket: storagetest.NewBucket()}
	s.reg = memory.NewAt(func() time.Time { return s.now })
	s.BucketFiles = s.bucket.Server(storagetest.LeaseFrom(s.reg, "a", 5*time.Minute))
	s.apply(&storage.AddClient{ID: alice, Name: "alice"})
	return s
}

func (s *shared) apply(ops ...storage.Operation) {
	s.t.Helper()
	if err := s.reg.Apply(s.t.Context(), ops); err != nil {
		s.t.Fatal(err)
	}
	for _, op := range ops {
		if err := op.Result().Err; err != nil {
			s.t.Fatalf("%T: %v", op, err)
		}
	}
}

// upload brings content in for a path, complete or flushed so far.
func (s *shared) upload(path, content string, whole bool) storage.Uploaded {
	s.t.Helper()
	in, err := s.Create(s.t.Context(), storage.Place{ID: alice, Path: path}, storage.Announced{})
	if err != nil {
		s.t.Fatal(err)
	}
	up := storage.Uploaded{Place: storage.Place{ID: alice, Path: path}, Key: in.Key()}
	if _, err = in.Write(s.t.Context(), []byte(content)); err == nil {
		if whole {
			err = in.Complete(s.t.Context())
		} else {
			err = errors.Join(s.Flush(s.t.Context(), up, int64(len(content))), in.Close(s.t.Context()))
		}
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return up
}

// record records the content of up as a file that waits.
func (s *shared) record(up storage.Uploaded, content string) *storage.PutFile {
	return &storage.PutFile{Leased: true, File: storage.File{
		ID: up.ID, FileName: up.Path, Path: up.Path, Incoming: up.Key, Size: int64(len(content)), Cksum: cksum.Checksum([]byte(content)), Received: s.now,
	}}
}

// sweep sweeps, and checks which paths lose content.
func (s *shared) sweep(files audit.Contents, want ...string) audit.Swept {
	s.t.Helper()
	var got []string
	swept, err := audit.Sweep(s.t.Context(), s.reg, files, audit.SweepOptions{Log: func(f audit.Finding) {
		got = append(got, fmt.Sprint(f.File.Path, f.Event == audit.Failed))
	}})
	for i := range want {
		want[i] += "false"
	}
	slices.Sort(got)
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) || swept.Removed != len(want) {
		s.t.Errorf("Sweep: %+v, %v, of %q, want %q", swept, err, got, want)
	}
	return swept
}

// A sweep removes content that nothing on record names, once its lease ran out an hour ago.
func TestSweep(t *testing.T) {
	s := newShared(t)
	verified, waits := s.upload("verified", "1", true), s.upload("waits", "2", true)
	part, dropped := s.upload("part", "3", false), s.upload("dropped", "4", false)
	s.upload("leased", "5", false)
	s.upload("leased, whole", "6", true)
	row := func(up storage.Uploaded) *storage.PutPartial {
		return &storage.PutPartial{Leased: true, Partial: storage.Partial{ID: up.ID, FileName: up.Path, Path: up.Path, Incoming: up.Key, Total: 9, Length: 1, Generation: 1}}
	}
	s.apply(s.record(verified, "1"), &storage.VerifyFile{ID: alice, Path: "verified", Incoming: verified.Key}, s.record(waits, "2"),
		row(part), row(dropped))
	if swept := s.sweep(s, []string{}...); swept.Looked != 6 || swept.Leases != 0 {
		t.Errorf("swept %+v", swept)
	}
	s.apply(&storage.DropPartial{ID: alice, Path: "dropped", Incoming: dropped.Key, Generation: 1, Leased: true})
	s.sweep(s, "dropped")
	s.now = s.now.Add(64 * time.Minute)
	s.sweep(s)
	s.now = s.now.Add(2 * time.Minute)
	if swept := s.sweep(s, "leased", "leased, whole"); swept.Leases != 3 { // that of part, too
		t.Errorf("swept %+v", swept)
	}
	s.sweep(s)
	for up, want := range map[storage.Uploaded]string{verified: "1", waits: "2"} {
		if b, ok := s.bucket.Content(up); !ok || !bytes.Equal(b, []byte(want)) {
			t.Errorf("%s is %q, %v", up.Path, b, ok)
		}
	}
	if _, ok := s.bucket.Prefix(part, 1); !ok {
		t.Error("the partial file is gone")
	}
}

// meanwhile is a bucket in which something happens between a look at it and what follows.
type meanwhile struct {
	*shared
	do func()
}

func (m *meanwhile) EachContent(ctx context.Context, yield func(storage.Uploaded, time.Time) error) error {
	err := m.shared.EachContent(ctx, yield)
	m.do()
	return err
}

// What is recorded while a sweep goes through the bucket stays, and what was seen with a lease
// that ends then.
func TestSweepMeanwhile(t *testing.T) {
	s := newShared(t)
	up := s.upload("recorded", "1", true)
	s.sweep(&meanwhile{s, func() { s.apply(s.record(up, "1")) }})
	s.sweep(s)
	back := &meanwhile{s, func() {
		s.apply(&storage.LeaseUpload{Upload: up, Server: "b", For: time.Minute, Again: true}, &storage.DropFile{ID: alice, Path: up.Path, Incoming: up.Key})
	}}
	s.sweep(back)
	s.sweep(s)
	late := s.record(up, "1")
	s.now = s.now.Add(2 * time.Hour)
	s.sweep(&meanwhile{s, func() {
		_ = s.reg.Apply(t.Context(), []storage.Operation{late})
	}}, "recorded")
	if !errors.Is(late.Err, storage.ErrNoLease) {
		t.Errorf("what is swept is recorded: %v", late.Err)
	}
	if _, ok := s.bucket.Content(up); ok {
		t.Error("it is there")
	}
}

// What cannot be removed stays for the next sweep, and holds up nothing.
func TestSweepFails(t *testing.T) {
	s := newShared(t)
	for i := range 300 { // more than one batch
		s.upload(fmt.Sprint(i), "1", true)
	}
	s.now = s.now.Add(2 * time.Hour)
	broken := errors.New("broken")
	s.bucket.Step = func(_ string, up storage.Uploaded) error {
		if up.Path == "7" || up.Path == "299" {
			return broken
		}
		return nil
	}
	swept, err := audit.Sweep(t.Context(), s.reg, s, audit.SweepOptions{})
	if want := (audit.Swept{Looked: 300, Leases: 300, Removed: 298, Failed: 2}); err != nil || swept != want {
		t.Errorf("%+v, %v, want %+v", swept, err, want)
	}
	s.bucket.Step = nil
	s.sweep(s, "299", "7")
}

// A partial file stays while a transfer has it, on whatever server: its lease says so.
func TestSweepPartialsOfOthers(t *testing.T) {
	s := newShared(t)
	for _, path := range []string{"live", "slept", "newest"} {
		up := s.upload(path, "123", false)
		s.apply(&storage.PutPartial{Leased: true, Partial: storage.Partial{
			ID: alice, FileName: path, Path: path, Incoming: up.Key, Total: 9, Length: 3, Generation: 1, Changed: s.now,
		}})
		if path == "live" {
			s.apply(&storage.LeaseUpload{Upload: up, Server: "b", For: 10 * time.Hour})
		}
	}
	s.now = s.now.Add(3 * time.Hour)
	left, err := audit.SweepPartials(t.Context(), s.reg, s, audit.PartialOptions{TTL: 2 * time.Hour, Now: s.now})
	if err != nil || left.Files != 1 {
		t.Errorf("%+v, %v", left, err)
	}
	if n := len(s.bucket.Uploads()); n != 1 {
		t.Errorf("%d contents are left, want that of the transfer under way", n)
	}
	if err := s.reg.EachLease(t.Context(), func(l storage.Lease) error {
		if l.Upload.Path != "live" {
			return fmt.Errorf("%+v", l)
		}
		return nil
	}); err != nil {
		t.Errorf("a server that slept could still record what was dropped: %v", err)
	}
}

// The clock of a server may be ahead of the registry's, by which leases run out.
func TestSweepPartialsAheadOfTime(t *testing.T) {
	s := newShared(t)
	for _, path := range []string{"live", "newest"} {
		up := s.upload(path, "123", false)
		s.apply(&storage.PutPartial{Leased: true, Partial: storage.Partial{
			ID: alice, FileName: path, Path: path, Incoming: up.Key, Total: 9, Length: 3, Generation: 1, Changed: s.now,
		}})
		s.apply(&storage.LeaseUpload{Upload: up, Server: "b", For: 5 * time.Minute})
	}
	left, err := audit.SweepPartials(t.Context(), s.reg, s, audit.PartialOptions{TTL: time.Minute, PerClient: 1, Now: s.now.Add(30 * time.Minute)})
	if err != nil || left.Files != 2 {
		t.Errorf("%d partial files are left of 2 that come in, %v", left.Files, err)
	}
}

// Verify reads each version under its own key, also while the next one takes its place.
func TestVerifyVersions(t *testing.T) {
	s := newShared(t)
	verify := func(up storage.Uploaded, content string) {
		s.apply(s.record(up, content), &storage.VerifyFile{ID: alice, Path: up.Path, Incoming: up.Key})
	}
	good, older, gone := s.upload("good", "1", true), s.upload("replaced", "2", true), s.upload("gone", "3", true)
	verify(good, "1")
	verify(older, "2")
	verify(gone, "3")
	spoilt := s.upload("spoilt", "4", true)
	verify(spoilt, "5")
	if err := s.Remove(t.Context(), storage.Stored(gone)); err != nil {
		t.Fatal(err)
	}
	newer := s.upload("replaced", "new", true)
	if err := s.Remove(t.Context(), storage.Stored(older)); err != nil { // as the server does that verified the newer
		t.Fatal(err)
	}
	got := make(map[string]error)
	first := true
	err := audit.Verify(t.Context(), s.reg, s, func(f storage.File, err error) {
		got[f.Path] = err
		if first {
			first = false
			verify(newer, "new")
		}
	})
	if err != nil || len(got) != 4 || got["good"] != nil || got["replaced"] != nil || !errors.Is(got["gone"], audit.ErrMissing) || !errors.Is(got["spoilt"], audit.ErrCksum) {
		t.Errorf("%v, %v", got, err)
	}
}

// A file that is marked as missing and is there does not come back by itself in a bucket, and
// verify promises nothing of that kind.
func TestVerifyOfAMarkedFileInABucket(t *testing.T) {
	s := newShared(t)
	up := s.upload("a", "content", true)
	s.apply(s.record(up, "content"), &storage.VerifyFile{ID: alice, Path: "a", Incoming: up.Key, Versions: true},
		&storage.MarkFile{ID: alice, Path: "a", Incoming: up.Key, Missing: true})
	said := ""
	if err := audit.Verify(t.Context(), s.reg, s, func(_ storage.File, err error) { said = fmt.Sprint(err) }); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(said, "it is there now") || strings.Contains(said, "start") {
		t.Errorf("it is said: %s", said)
	}
}
