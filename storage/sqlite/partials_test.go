package sqlite

import (
	"path/filepath"
	"slices"
	"testing"

	"sealift/storage"
)

func wantPartials(t testing.TB, r *Registry, want ...storage.Partial) {
	t.Helper()
	var got []storage.Partial
	err := r.Partials(t.Context(), func(p storage.Partial) error { got = append(got, p); return nil })
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, partial files %+v,\nwant %+v", err, got, want)
	}
}

// While no partial file is on record, a PutFile runs no statement about them, however they
// went; and as soon as there is one, it does.
func TestPutFileWithoutPartialsAsksNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "defensive.db")
	r := open(t, path)
	apply(t, r, add(1, "anna"))
	id := add(1, "").ID
	p := storage.Partial{ID: id, FileName: "p", Path: "p", Incoming: "k1", Total: 9, Generation: 1, Changed: moment}
	f := storage.File{ID: id, FileName: "p", Path: "p", Incoming: "k1", Size: 9, Received: moment}
	put := func(op storage.PutFile, asks bool) {
		t.Helper()
		c := <-r.writer
		kept := c.prepared[selectPartial]
		if !asks {
			c.prepared[selectPartial] = c.prepared[begin] // fails within a transaction
		}
		r.writer <- c
		apply(t, r, &op)
		if c = <-r.writer; asks != (op.Partial != nil) {
			t.Errorf("it took away %+v", op.Partial)
		}
		c.prepared[selectPartial] = kept
		r.writer <- c
	}
	record := func() { apply(t, r, &storage.PutPartial{Partial: p}) }
	next := func() { // keys are new
		p.Incoming += "+"
		f.Incoming = p.Incoming
	}
	put(storage.PutFile{File: f}, false)
	next()
	record()
	put(storage.PutFile{File: f, Generation: 1}, true)
	put(storage.PutFile{File: f}, false)
	next()
	record()
	apply(t, r, &storage.DropPartial{ID: id, Path: "p", Incoming: p.Incoming})
	put(storage.PutFile{File: f}, false)

	next()
	record()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = open(t, path)
	put(storage.PutFile{File: f}, true)
	next()
	record()
	// Another process takes it away, and then this one hears of it.
	beside, err := Open(t.Context(), path, Options{Beside: true})
	if err != nil {
		t.Fatal(err)
	}
	defer beside.Close()
	apply(t, beside, &storage.DropPartial{ID: id, Path: "p", Incoming: p.Incoming})
	if _, err := r.Changed(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(storage.PutFile{File: f}, false)
	// A process beside a server does not know what that does.
	next()
	record()
	whole := &storage.PutFile{File: f}
	apply(t, beside, whole)
	if whole.Partial == nil {
		t.Error("a process beside the server left the partial file on record")
	}
}

// What a batch was to change of the partial files, and did not, is not believed.
func TestPartialsAfterABatchThatFailed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "defensive.db")
	r := open(t, path)
	id := add(1, "").ID
	p := storage.Partial{ID: id, FileName: "p", Path: "p", Incoming: "k1", Total: 9, Generation: 1, Changed: moment}
	apply(t, r, add(1, "anna"), &storage.PutPartial{Partial: p})
	c := <-r.writer
	c.prepared[commit] = c.prepared[begin] // fails within a transaction
	r.writer <- c
	if err := r.Apply(t.Context(), []storage.Operation{&storage.DropPartial{ID: id, Path: "p", Incoming: "k1"}}); err == nil {
		t.Fatal("a batch without a commit succeeded")
	}
	put := &storage.PutFile{File: storage.File{ID: id, FileName: "p", Path: "p", Incoming: "k2", Received: moment}}
	apply(t, r, put)
	if put.Partial == nil || *put.Partial != p {
		t.Errorf("it took away %+v, want the partial file that is still on record", put.Partial)
	}
}
