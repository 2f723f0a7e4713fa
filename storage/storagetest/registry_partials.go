package storagetest

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"sealift/storage"
)

// partial is a file of client n of which length bytes are there, of 5 TB.
func partial(n int, path, incoming string, length int64) storage.Partial {
	return storage.Partial{
		ID: clientID(n), FileName: `C:\` + path, Path: path, Incoming: incoming, Total: 5_000_000_000_000,
		Length: length, State: 0xfedc_ba98, Boot: "this boot", Generation: 1, Changed: at(1),
	}
}

func partials(t testing.TB, r storage.Registry) []storage.Partial {
	t.Helper()
	var all []storage.Partial
	if err := r.Partials(t.Context(), func(p storage.Partial) error { all = append(all, p); return nil }); err != nil {
		t.Fatalf("Partials: %v", err)
	}
	return all
}

// wantPartial checks what GetFile says of the partial file of client 1 under path, and that
// Partials says the same.
func wantPartial(t testing.TB, r storage.Registry, path string, want *storage.Partial) {
	t.Helper()
	get := &storage.GetFile{ID: clientID(1), Path: path, WithPartial: true}
	tryApply(t, r, get)
	if want == nil && get.Verified == nil && get.Unverified == nil {
		wantErr(t, get, storage.ErrNoFile)
	} else {
		wantErr(t, get, nil)
	}
	if !reflect.DeepEqual(get.Partial, want) {
		t.Errorf("GetFile: %+v,\nwant %+v", get.Partial, want)
	}
	get.WithPartial = false
	if tryApply(t, r, get); get.Partial != nil {
		t.Errorf("GetFile told of %+v unasked", get.Partial)
	}
	var listed *storage.Partial
	for _, p := range partials(t, r) {
		if p.ID == clientID(1) && p.Path == path {
			listed = &p
		}
	}
	if !reflect.DeepEqual(listed, want) {
		t.Errorf("Partials: %+v,\nwant %+v", listed, want)
	}
}

// tryPartial puts p, and checks how that comes out.
func tryPartial(t testing.TB, r storage.Registry, p storage.Partial, want error, replaced *storage.Partial) {
	t.Helper()
	put := &storage.PutPartial{Partial: p, Replaced: &storage.Partial{Path: "left over"}}
	tryApply(t, r, put)
	wantErr(t, put, want)
	if !reflect.DeepEqual(put.Replaced, replaced) {
		t.Errorf("replaced %+v,\nwant %+v", put.Replaced, replaced)
	}
}

// A partial file grows under its key, and another key replaces it.
func testPutPartial(t *testing.T, r storage.Registry) {
	p := partial(1, "docs/a's", "k1", 0)
	tryPartial(t, r, p, storage.ErrNoClient, nil)
	apply(t, r, addClient(1, "anna"), addClient(2, "ben"))
	wantPartial(t, r, p.Path, nil)
	tryPartial(t, r, p, nil, nil)
	wantPartial(t, r, p.Path, &p)
	p.Length, p.State, p.Boot, p.Changed = 4_999_999_999_999, 0, "", at(2)
	tryPartial(t, r, p, nil, nil)
	wantPartial(t, r, p.Path, &p)

	for _, generation := range []int64{0, 2} {
		stale := p
		stale.Generation, stale.Length = generation, 7
		tryPartial(t, r, stale, storage.ErrSuperseded, nil)
		wantPartial(t, r, p.Path, &p)
	}
	other := partial(1, p.Path, "k2", 9)
	tryPartial(t, r, other, nil, &p)
	wantPartial(t, r, p.Path, &other)
	tryPartial(t, r, p, nil, &other) // the loser goes on, and puts it back
	wantPartial(t, r, p.Path, &p)

	// What is whole is not partial again.
	for _, verify := range []bool{false, true} {
		apply(t, r, &storage.PutFile{File: upload(1, p.Path, "k1", 9)})
		if verify {
			apply(t, r, &storage.VerifyFile{ID: p.ID, Path: p.Path, Incoming: "k1"})
		}
		tryPartial(t, r, p, storage.ErrSuperseded, nil)
		wantPartial(t, r, p.Path, nil)
	}
	tryPartial(t, r, other, nil, nil)
	if get := (&storage.GetFile{ID: p.ID, Path: p.Path, WithPartial: true}); true {
		apply(t, r, get)
		if get.Verified == nil || get.Unverified != nil || get.Partial == nil {
			t.Errorf("beside a verified file: %+v", get)
		}
	}
}

// A 1032 raises the generation: what an earlier one does is refused.
func testContinueFile(t *testing.T, r storage.Registry) {
	apply(t, r, addClient(1, "anna"))
	p := partial(1, "a", "k1", 5)
	next := func(path, incoming string, want error) {
		t.Helper()
		op := &storage.ContinueFile{ID: p.ID, Path: path, Incoming: incoming, Changed: at(3), Partial: partial(1, "left over", "k", 1)}
		tryApply(t, r, op)
		wantErr(t, op, want)
		if want == nil {
			p.Generation++
			p.Changed = at(3)
			if op.Partial != p {
				t.Errorf("got %+v,\nwant %+v", op.Partial, p)
			}
		} else if op.Partial != (storage.Partial{}) {
			t.Errorf("refused, it told of %+v", op.Partial)
		}
	}
	next("a", "k1", storage.ErrNoFile)
	tryPartial(t, r, p, nil, nil)
	old := p
	next("a", "k1", nil)
	next("a", "k1", nil)
	next("a", "k2", storage.ErrNoFile)
	next("A", "k1", storage.ErrNoFile)
	wantPartial(t, r, "a", &p)
	tryPartial(t, r, old, storage.ErrSuperseded, nil)
	record := &storage.PutFile{File: upload(1, "a", "k1", 9), Generation: old.Generation}
	drop := &storage.DropPartial{ID: p.ID, Path: "a", Incoming: "k1", Generation: old.Generation}
	tryApply(t, r, record, drop)
	wantErr(t, record, storage.ErrSuperseded)
	wantErr(t, drop, storage.ErrNoFile)
	wantFiles(t, r, 1, "a", nil, nil)
	wantPartial(t, r, "a", &p)
	p.Length = 6
	tryPartial(t, r, p, nil, nil)
	wantPartial(t, r, "a", &p)
	apply(t, r, &storage.DeletePartial{ID: p.ID, Path: "a", Incoming: "k1"})
	next("a", "k1", storage.ErrNoFile)
}

// A file that is recorded takes the partial one of its place away in the same step.
func testPartialBecomesWhole(t *testing.T, r storage.Registry) {
	apply(t, r, addClient(1, "anna"), addClient(2, "ben"))
	p := partial(1, "a", "k1", 5)
	record := func(f storage.File, generation int64, want error, gone *storage.Partial) {
		t.Helper()
		op := &storage.PutFile{File: f, Generation: generation, Partial: &storage.Partial{Path: "left over"}}
		tryApply(t, r, op)
		wantErr(t, op, want)
		if !reflect.DeepEqual(op.Partial, gone) {
			t.Errorf("it took away %+v,\nwant %+v", op.Partial, gone)
		}
	}
	bystander := partial(1, "b", "k1", 5)
	tryPartial(t, r, p, nil, nil)
	tryPartial(t, r, bystander, nil, nil)
	record(upload(2, "a", "k1", 9), 0, nil, nil)
	record(upload(1, "a", "k1", 9), 2, storage.ErrSuperseded, nil)
	wantPartial(t, r, "a", &p)
	wantFiles(t, r, 1, "a", nil, nil)
	record(upload(1, "a", "k1", 9), 1, nil, &p)
	wantPartial(t, r, "a", nil)
	wantPartial(t, r, "b", &bystander)
	// It was recorded already, perhaps by another connection, and is not recorded twice.
	record(upload(1, "a", "k1", 9), 1, storage.ErrSuperseded, nil)
	apply(t, r, &storage.VerifyFile{ID: p.ID, Path: "a", Incoming: "k1"})
	record(upload(1, "a", "k1", 9), 1, storage.ErrSuperseded, nil)
	v := verified(upload(1, "a", "k1", 9))
	wantFiles(t, r, 1, "a", &v, nil)

	// Another upload of the name, whether it had a row of its own or not.
	q := partial(1, "a", "k2", 5)
	for _, generation := range []int64{0, 1} {
		tryPartial(t, r, q, nil, nil)
		record(upload(1, "a", fmt.Sprint("k3 ", generation), 9), generation, nil, &q)
		wantPartial(t, r, "a", nil)
	}
	record(upload(1, "c", "k4", 9), 1, nil, nil) // its row was replaced, and that one dropped
	tryPartial(t, r, q, nil, nil)
	record(upload(3, "a", "k2", 9), 1, storage.ErrNoClient, nil)
	wantPartial(t, r, "a", &q)
}

func testDropAndDeletePartial(t *testing.T, r storage.Registry) {
	apply(t, r, addClient(1, "anna"))
	p := partial(1, "a", "k1", 5)
	drop := func(incoming string, generation int64, want error) {
		t.Helper()
		op := &storage.DropPartial{ID: p.ID, Path: "a", Incoming: incoming, Generation: generation}
		tryApply(t, r, op)
		wantErr(t, op, want)
	}
	remove := func(incoming string, want error) {
		t.Helper()
		op := &storage.DeletePartial{ID: p.ID, Path: "a", Incoming: incoming}
		tryApply(t, r, op)
		wantErr(t, op, want)
	}
	remove("k1", storage.ErrNoFile)
	drop("k1", 0, storage.ErrNoFile)
	tryPartial(t, r, p, nil, nil)
	remove("k2", storage.ErrNoFile)
	drop("k2", 0, storage.ErrNoFile)
	drop("k1", 2, storage.ErrNoFile)
	wantPartial(t, r, "a", &p)
	remove("k1", nil)
	remove("k1", nil)
	p.Deleted = true
	wantPartial(t, r, "a", &p)
	p.Deleted, p.Length = false, 6
	tryPartial(t, r, p, nil, nil)
	p.Deleted = true // a checkpoint does not bring it back
	wantPartial(t, r, "a", &p)
	fresh := partial(1, "a", "k2", 1)
	tryPartial(t, r, fresh, nil, &p) // another upload does
	wantPartial(t, r, "a", &fresh)
	drop("k2", 1, nil)
	wantPartial(t, r, "a", nil)
	tryPartial(t, r, fresh, nil, nil)
	drop("k2", 0, nil)
	wantPartial(t, r, "a", nil)
}

// A client with a partial file has files.
func testPartialsAndClients(t *testing.T, r storage.Registry) {
	apply(t, r, addClient(1, "anna"), &storage.PutPartial{Partial: partial(1, "a", "k1", 5)})
	drop, keyless := &storage.DropClient{ID: clientID(1)}, &storage.DropKeyless{ID: clientID(1), Before: at(9)}
	tryApply(t, r, drop, keyless)
	wantErr(t, drop, storage.ErrHasFiles)
	wantErr(t, keyless, storage.ErrNoClient)
	alike := &storage.FindAlike{ID: clientID(1), Path: "b", Folds: func(string) string { return "" }}
	tryApply(t, r, alike)
	wantErr(t, alike, storage.ErrNoFile) // it has no place yet
	apply(t, r, &storage.DropPartial{ID: clientID(1), Path: "a", Incoming: "k1"}, drop)
}

func testPartialsAreOrdered(t *testing.T, r storage.Registry) {
	apply(t, r, addClient(1, "anna"), addClient(2, "ben"))
	const n = 700 // more than any implementation reads at once
	var batch []storage.Operation
	var want []string
	for i := range n {
		path := fmt.Sprintf("dir/%04d", n-1-i)
		batch = append(batch, &storage.PutPartial{Partial: partial(1+i%2, path, "k", 1)})
		want = append(want, fmt.Sprint(clientID(1+i%2), path))
	}
	for _, path := range []string{"a/b", "B", "a.b"} {
		batch = append(batch, &storage.PutPartial{Partial: partial(1, path, "k", 1)})
		want = append(want, fmt.Sprint(clientID(1), path))
	}
	apply(t, r, batch...)
	slices.Sort(want)
	var got []string
	for _, p := range partials(t, r) {
		got = append(got, fmt.Sprint(p.ID, p.Path))
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d partial files out of order or missing, want %d", len(got), len(want))
	}
	stop, calls := errors.New("enough"), 0
	if err := r.Partials(t.Context(), func(storage.Partial) error { calls++; return stop }); err != stop || calls != 1 {
		t.Errorf("Partials: %v after %d calls, want %v after 1", err, calls, stop)
	}
}
