package storagetest

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"sealift/storage"
)

// leaseFor is a lease of client 1's content for a place, of server a.
func leaseFor(key, path string, d time.Duration) *storage.LeaseUpload {
	return &storage.LeaseUpload{Upload: uploaded(key, 1, path), Server: "a", For: d}
}

func leases(t testing.TB, r storage.Registry) map[string]storage.Lease {
	t.Helper()
	all := make(map[string]storage.Lease)
	if err := r.EachLease(t.Context(), func(l storage.Lease) error { all[l.Upload.Key] = l; return nil }); err != nil {
		t.Fatalf("EachLease: %v", err)
	}
	return all
}

// wantLeases checks which keys have a lease.
func wantLeases(t testing.TB, r storage.Registry, want ...string) {
	t.Helper()
	var got []string
	for key := range leases(t, r) {
		got = append(got, key)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("leases of %q, want %q", got, want)
	}
}

// A lease has an end, by the registry's clock, is renewed, and goes.
func testLeases(t *testing.T, r storage.Registry) {
	wantLeases(t, r)
	long := leaseFor("k1", "docs/a's", 100*time.Hour)
	apply(t, r, long, leaseFor("k2", "b", -2*time.Hour)) // no client needs to be on record
	wantLeases(t, r, "k1", "k2")
	all := leases(t, r)
	if got := all["k1"]; got.Upload != long.Upload || got.Server != "a" {
		t.Errorf("got %+v, want %+v", got, long)
	}
	between := all["k1"].Ends.Sub(all["k2"].Ends)
	if between < 101*time.Hour || between > 103*time.Hour {
		t.Errorf("the ends are %v apart, want 102h", between)
	}

	renew := &storage.RenewLeases{Server: "a", Keys: []string{"k2", "none", "k1"}, For: 50 * time.Hour, Lost: []string{"left over"}}
	apply(t, r, renew)
	if !slices.Equal(renew.Lost, []string{"none"}) {
		t.Errorf("lost %q, want the one that there is not", renew.Lost)
	}
	all = leases(t, r)
	if between := all["k1"].Ends.Sub(all["k2"].Ends); between != 0 {
		t.Errorf("renewed, the ends are %v apart", between)
	}

	// Another server takes it over.
	apply(t, r, &storage.LeaseUpload{Upload: long.Upload, Server: "b", For: time.Hour})
	if got := leases(t, r)["k1"]; got.Server != "b" {
		t.Errorf("the lease is %q's, want b's", got.Server)
	}
	renew.Keys = []string{"k1"}
	apply(t, r, renew)
	if !slices.Equal(renew.Lost, []string{"k1"}) {
		t.Errorf("lost %q, want the one that another server has", renew.Lost)
	}
	renew.Keys = nil
	if apply(t, r, renew); len(renew.Lost) > 0 {
		t.Errorf("of none, %q were lost", renew.Lost)
	}

	apply(t, r, &storage.EndLease{Key: "k1"}, &storage.EndLease{Key: "k1"})
	wantLeases(t, r, "k2")
	stop, calls := errors.New("enough"), 0
	if err := r.EachLease(t.Context(), func(storage.Lease) error { calls++; return stop }); err != stop || calls != 1 {
		t.Errorf("EachLease: %v after %d calls, want %v after 1", err, calls, stop)
	}
}

// Content of which nothing is on record does not get a lease again.
func testLeaseAgain(t *testing.T, r storage.Registry) {
	again := func(want error) {
		t.Helper()
		op := leaseFor("k1", "a", time.Hour)
		op.Again = true
		tryApply(t, r, op)
		wantErr(t, op, want)
	}
	again(storage.ErrNoLease)
	wantLeases(t, r)
	apply(t, r, addClient(1, "anna"), leaseFor("k1", "a", -2*time.Hour))
	again(nil)
	reap := &storage.ReapLeases{Ago: time.Hour, Limit: 9}
	apply(t, r, reap)
	wantLeases(t, r, "k1") // it was renewed
	apply(t, r, &storage.EndLease{Key: "k1"})
	again(storage.ErrNoLease)
	tryPartial(t, r, partial(1, "a", "k1", 5), nil, nil)
	again(nil)
	apply(t, r, &storage.PutFile{File: upload(1, "a", "k1", 9), Generation: 1, Leased: true})
	wantLeases(t, r)
	again(nil)
	apply(t, r, &storage.EndLease{Key: "k1"}, &storage.DropFile{ID: clientID(1), Path: "a", Incoming: "k1"})
	again(storage.ErrNoLease)
	wantLeases(t, r)
}

// What ran out long enough ago is forgotten, a few at a time.
func testReapLeases(t *testing.T, r storage.Registry) {
	var want []string
	for i := range 700 { // more than any implementation reads at once
		key := fmt.Sprintf("k%03d", i)
		apply(t, r, leaseFor(key, "a", -2*time.Hour))
		want = append(want, key)
	}
	apply(t, r, leaseFor("late", "b", -time.Minute), leaseFor("live", "c", time.Hour))
	wantLeases(t, r, append(want, "late", "live")...)
	var got []string
	for {
		reap := &storage.ReapLeases{Ago: time.Hour, Limit: 300, Reaped: []storage.Lease{{Server: "left over"}}}
		apply(t, r, reap)
		if len(reap.Reaped) == 0 {
			break
		}
		if len(reap.Reaped) > 300 {
			t.Errorf("%d at a time, want 300 at most", len(reap.Reaped))
		}
		for _, l := range reap.Reaped {
			if l.Server != "a" || l.Upload != uploaded(l.Upload.Key, 1, "a") || l.Ends.IsZero() {
				t.Errorf("reaped %+v", l)
			}
			got = append(got, l.Upload.Key)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("reaped %d, want %d", len(got), len(want))
	}
	wantLeases(t, r, "late", "live")
	reap := &storage.ReapLeases{Ago: 0, Limit: 300}
	if apply(t, r, reap); len(reap.Reaped) != 1 || reap.Reaped[0].Upload.Key != "late" {
		t.Errorf("reaped %+v, want the one that has run out", reap.Reaped)
	}
	wantLeases(t, r, "live")
}

// A file is recorded with a lease, or after a partial file of its key, and not without.
func testLeasedFile(t *testing.T, r storage.Registry) {
	put := func(path, key string, generation int64, want error) {
		t.Helper()
		op := &storage.PutFile{File: upload(1, path, key, 9), Generation: generation, Leased: true}
		tryApply(t, r, op)
		wantErr(t, op, want)
	}
	apply(t, r, leaseFor("k1", "a", time.Hour))
	put("a", "k1", 0, storage.ErrNoClient)
	wantLeases(t, r, "k1") // who is refused loses nothing
	apply(t, r, addClient(1, "anna"))
	put("a", "k2", 0, storage.ErrNoLease)
	wantFiles(t, r, 1, "a", nil, nil)
	f := upload(1, "a", "k1", 9)
	put("a", "k1", 0, nil)
	wantFiles(t, r, 1, "a", nil, &f)
	wantLeases(t, r)

	// Without its lease it does not replace what is there; with one it does.
	put("a", "k3", 0, storage.ErrNoLease)
	wantFiles(t, r, 1, "a", nil, &f)
	apply(t, r, leaseFor("k3", "a", -time.Hour)) // run out, and nobody took it away
	op := &storage.PutFile{File: upload(1, "a", "k3", 9), Leased: true}
	apply(t, r, op)
	if !reflect.DeepEqual(op.Replaced, &f) {
		t.Errorf("replaced %+v, want %+v", op.Replaced, f)
	}
	wantLeases(t, r)

	// A quota refuses as ever, and the lease stays.
	apply(t, r, leaseFor("k4", "q", time.Hour))
	over := &storage.PutFile{File: upload(1, "q", "k4", 9), Leased: true, Quota: storage.Quota{Bytes: 10}}
	tryApply(t, r, over)
	wantErr(t, over, storage.ErrQuota)
	wantLeases(t, r, "k4")
	wantFiles(t, r, 1, "q", nil, nil)
	over.Quota = storage.Quota{Bytes: 18}
	apply(t, r, over)
	wantLeases(t, r)

	// In the batch that took the lease away, too.
	reaped := &storage.PutFile{File: upload(1, "b", "k5", 9), Leased: true}
	tryApply(t, r, leaseFor("k5", "b", -time.Hour), &storage.ReapLeases{Ago: time.Minute, Limit: 9}, reaped)
	wantErr(t, reaped, storage.ErrNoLease)

	// Beside a partial file: of its key no lease is needed, of another one it is.
	p := partial(1, "c", "k6", 5)
	tryPartial(t, r, p, nil, nil)
	put("c", "k7", 0, storage.ErrNoLease)
	wantPartial(t, r, "c", &p)
	put("c", "k6", 2, storage.ErrSuperseded)
	wantPartial(t, r, "c", &p)
	apply(t, r, leaseFor("k6", "c", time.Hour), leaseFor("k8", "c", time.Hour))
	put("c", "k6", 1, nil)
	wantPartial(t, r, "c", nil)
	wantLeases(t, r, "k8") // its own went with it
	put("c", "k6", 1, storage.ErrSuperseded)
	q := partial(1, "d", "k6", 5)
	tryPartial(t, r, q, nil, nil)
	apply(t, r, leaseFor("k9", "d", time.Hour))
	put("d", "k9", 1, nil)
	wantPartial(t, r, "d", nil)
	wantLeases(t, r, "k8")
	put("d", "k6", 1, storage.ErrNoLease) // its row went to k9, and it has no lease
}

// A partial file is recorded with a lease, which stays, or after itself.
func testLeasedPartial(t *testing.T, r storage.Registry) {
	put := func(p storage.Partial, want error, replaced *storage.Partial) {
		t.Helper()
		op := &storage.PutPartial{Partial: p, Leased: true}
		tryApply(t, r, op)
		wantErr(t, op, want)
		if !reflect.DeepEqual(op.Replaced, replaced) {
			t.Errorf("replaced %+v, want %+v", op.Replaced, replaced)
		}
	}
	apply(t, r, addClient(1, "anna"), leaseFor("k1", "a", time.Hour))
	p, other := partial(1, "a", "k1", 5), partial(1, "a", "k2", 9)
	put(other, storage.ErrNoLease, nil)
	wantPartial(t, r, "a", nil)
	put(p, nil, nil)
	wantLeases(t, r, "k1")
	put(other, storage.ErrNoLease, nil)
	wantPartial(t, r, "a", &p)

	// The row goes to another one and back, and each has its lease.
	apply(t, r, leaseFor("k2", "a", time.Hour))
	put(other, nil, &p)
	put(p, nil, &other)
	wantLeases(t, r, "k1", "k2")
	apply(t, r, &storage.EndLease{Key: "k1"}, &storage.EndLease{Key: "k2"})
	p.Length = 6
	put(p, nil, nil) // its row is enough
	put(other, storage.ErrNoLease, nil)
	p.Generation = 2
	put(p, storage.ErrSuperseded, nil)
	apply(t, r, &storage.DropPartial{ID: p.ID, Path: "a", Incoming: "k1"})
	p.Generation = 1
	put(p, storage.ErrNoLease, nil)
	wantPartial(t, r, "a", nil)
}

// Content that goes on from that of a partial file has a key of its own, and takes its row.
func testFrom(t *testing.T, r storage.Registry) {
	apply(t, r, addClient(1, "anna"), leaseFor("k1", "a", time.Hour), leaseFor("k2", "a", time.Hour), leaseFor("k3", "a", time.Hour))
	put := func(key, from string, generation int64, want error, replaced *storage.Partial) {
		t.Helper()
		p := partial(1, "a", key, 7)
		p.Generation = generation
		op := &storage.PutPartial{Partial: p, From: from, Leased: true}
		tryApply(t, r, op)
		wantErr(t, op, want)
		if !reflect.DeepEqual(op.Replaced, replaced) {
			t.Errorf("replaced %+v, want %+v", op.Replaced, replaced)
		}
	}
	record := func(key, from string, generation int64, want error, gone *storage.Partial) {
		t.Helper()
		op := &storage.PutFile{File: upload(1, "a", key, 9), From: from, Generation: generation, Leased: true}
		tryApply(t, r, op)
		wantErr(t, op, want)
		if !reflect.DeepEqual(op.Partial, gone) {
			t.Errorf("it took away %+v, want %+v", op.Partial, gone)
		}
	}
	put("k2", "k1", 1, storage.ErrSuperseded, nil)
	record("k2", "k1", 1, storage.ErrSuperseded, nil)
	p := partial(1, "a", "k1", 5)
	apply(t, r, &storage.PutPartial{Partial: p, Leased: true})
	put("k2", "k1", 2, storage.ErrSuperseded, nil)
	put("k2", "k3", 1, storage.ErrSuperseded, nil)
	record("k2", "k1", 2, storage.ErrSuperseded, nil)
	put("k4", "k1", 1, storage.ErrNoLease, nil)
	record("k4", "k1", 1, storage.ErrNoLease, nil)
	wantPartial(t, r, "a", &p)
	wantLeases(t, r, "k1", "k2", "k3")

	apply(t, r, &storage.DeletePartial{ID: p.ID, Path: "a", Incoming: "k1"})
	p.Deleted = true
	put("k2", "k1", 1, nil, &p)
	q := partial(1, "a", "k2", 7)
	q.Deleted = true
	wantPartial(t, r, "a", &q)
	wantLeases(t, r, "k2", "k3")                   // its own stays, as ever
	put("k3", "k1", 1, storage.ErrSuperseded, nil) // somebody was faster
	record("k3", "k1", 1, storage.ErrSuperseded, nil)
	record("k3", "k2", 1, nil, &q)
	wantPartial(t, r, "a", nil)
	wantLeases(t, r)
	f := upload(1, "a", "k3", 9)
	wantFiles(t, r, 1, "a", nil, &f)
	record("k3", "k2", 1, storage.ErrSuperseded, nil)
}

// Whoever drops a partial file can end the lease of its content in the same step: then nobody records it.
func testDropLeasedPartial(t *testing.T, r storage.Registry) {
	apply(t, r, addClient(1, "anna"))
	p := partial(1, "a", "k1", 5)
	drop := func(generation int64, leased bool, want error) {
		t.Helper()
		op := &storage.DropPartial{ID: p.ID, Path: "a", Incoming: "k1", Generation: generation, Leased: leased}
		tryApply(t, r, op)
		wantErr(t, op, want)
	}
	apply(t, r, leaseFor("k1", "a", time.Hour), leaseFor("k2", "a", time.Hour), &storage.PutPartial{Partial: p, Leased: true})
	drop(2, true, storage.ErrNoFile)
	wantLeases(t, r, "k1", "k2")
	drop(1, false, nil)
	wantLeases(t, r, "k1", "k2")
	apply(t, r, &storage.PutPartial{Partial: p, Leased: true})
	drop(0, true, nil)
	wantLeases(t, r, "k2")
	late, file := &storage.PutPartial{Partial: p, Leased: true}, &storage.PutFile{File: upload(1, "a", "k1", 9), Generation: 1, Leased: true}
	tryApply(t, r, late, file)
	wantErr(t, late, storage.ErrNoLease)
	wantErr(t, file, storage.ErrNoLease)
	drop(0, true, storage.ErrNoFile)
	wantLeases(t, r, "k2")
}

// Whoever has a version verified is told of the one that was, if asked for.
func testVersions(t *testing.T, r storage.Registry) {
	apply(t, r, addClient(1, "anna"))
	verify := func(key string, versions bool, want error, replaced *storage.File) {
		t.Helper()
		op := &storage.VerifyFile{ID: clientID(1), Path: "a", Incoming: key, Versions: versions, Replaced: &storage.File{Path: "left over"}}
		tryApply(t, r, op)
		wantErr(t, op, want)
		if !reflect.DeepEqual(op.Replaced, replaced) {
			t.Errorf("replaced %+v,\nwant %+v", op.Replaced, replaced)
		}
	}
	verify("k1", true, storage.ErrNoFile, nil)
	apply(t, r, &storage.PutFile{File: upload(1, "a", "k1", 9)})
	verify("k1", true, nil, nil)
	first := verified(upload(1, "a", "k1", 9))
	verify("k1", true, storage.ErrNoFile, nil)
	apply(t, r, &storage.TakeFile{ID: clientID(1), Path: "a", Incoming: "k1", Taken: at(7)}, &storage.PutFile{File: upload(1, "a", "k2", 8)})
	first.Taken = at(7)
	verify("k1", true, storage.ErrNoFile, nil)
	verify("k2", true, nil, &first)
	second := verified(upload(1, "a", "k2", 8))
	wantFiles(t, r, 1, "a", &second, nil)
	apply(t, r, &storage.PutFile{File: upload(1, "a", "k3", 7)})
	verify("k3", false, nil, nil)

	// Of a client with a quota, who is counted, too.
	quota := int64(1000)
	apply(t, r, &storage.SetQuota{ID: clientID(1), Bytes: &quota}, &storage.PutFile{File: upload(1, "a", "k4", 6)})
	third := verified(upload(1, "a", "k3", 7))
	verify("k4", true, nil, &third)
}

// Nobody finds content on record of which nothing is, and everybody what is.
func testFindUpload(t *testing.T, r storage.Registry) {
	find := func(up storage.Uploaded, want bool) {
		t.Helper()
		op := &storage.FindUpload{Upload: up, Found: !want}
		if !storage.Reads(op) {
			t.Error("a FindUpload reads only")
		}
		apply(t, r, op)
		if op.Found != want {
			t.Errorf("%+v is on record: %v, want %v", up, op.Found, want)
		}
	}
	up := uploaded("k1", 1, "docs/a's")
	find(up, false)
	apply(t, r, addClient(1, "anna"), leaseFor("k1", up.Path, time.Hour))
	find(up, true)
	find(uploaded("k2", 1, up.Path), false)
	apply(t, r, &storage.PutPartial{Partial: partial(1, up.Path, "k1", 5), Leased: true}, &storage.EndLease{Key: "k1"})
	find(up, true)
	apply(t, r, &storage.PutFile{File: upload(1, up.Path, "k1", 9), Generation: 1, Leased: true})
	find(up, true)
	apply(t, r, &storage.VerifyFile{ID: up.ID, Path: up.Path, Incoming: "k1"})
	find(up, true)
	find(uploaded("k1", 2, up.Path), false)
	find(uploaded("k1", 1, "docs/A's"), false)
	apply(t, r, &storage.PutFile{File: upload(1, up.Path, "k2", 9)})
	find(up, true)
	find(uploaded("k2", 1, up.Path), true)
	apply(t, r, &storage.VerifyFile{ID: up.ID, Path: up.Path, Incoming: "k2"})
	find(up, false)
	find(uploaded("k2", 1, up.Path), true)
}
