package storagetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sealift/storage"
)

func added(t testing.TB, r storage.Registry) []string {
	t.Helper()
	var all []string
	err := r.Added(t.Context(), func(name string) error {
		all = append(all, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func leaving(t testing.TB, r storage.Registry) []storage.File {
	t.Helper()
	var all []storage.File
	err := r.Leaving(t.Context(), func(f storage.File) error {
		all = append(all, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// wantLeaving checks which files Leaving yields: paths, those that are not verified with
// a star.
func wantLeaving(t testing.TB, r storage.Registry, want ...string) {
	t.Helper()
	var got []string
	for _, f := range leaving(t, r) {
		if !f.Leaves() {
			t.Errorf("%+v is listed, and stays", f)
		}
		name := f.Path
		if !f.Verified {
			name += "*"
		}
		got = append(got, name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("leaving are %q, want %q", got, want)
	}
}

// A name that was added may register where others may not, and again after its record
// went.
func testAddedNames(t *testing.T, r storage.Registry) {
	try := func(n int, name string, want error) {
		t.Helper()
		op := addClient(n, name)
		op.OnlyAdded = true
		tryApply(t, r, op)
		wantErr(t, op, want)
	}
	try(1, "anna", storage.ErrNotAdded)
	if n := len(clients(t, r)); n != 0 {
		t.Errorf("%d clients after a refusal", n)
	}
	unknown := &storage.DropName{Name: "anna"}
	tryApply(t, r, unknown)
	wantErr(t, unknown, storage.ErrNoClient)
	for range 2 { // twice is no error
		apply(t, r, &storage.AddName{Name: "anna"}, &storage.AddName{Name: "Anna"}, &storage.AddName{Name: "\u00e9 '"})
	}
	if got, want := added(t, r), []string{"Anna", "anna", "\u00e9 '"}; !slices.Equal(got, want) {
		t.Errorf("added are %q, want %q", got, want)
	}
	stop := errors.New("stop")
	if err := r.Added(t.Context(), func(string) error { return stop }); err != stop {
		t.Errorf("the list ended with %v, want the error of yield", err)
	}
	try(1, "anna", nil)
	try(2, "anna", storage.ErrNameTaken)
	try(1, "Anna", storage.ErrIDTaken)
	try(2, "anna ", storage.ErrNotAdded)
	apply(t, r, addClient(3, "carl")) // open registration
	taken := &storage.AddName{Name: "carl"}
	tryApply(t, r, taken)
	wantErr(t, taken, storage.ErrNameTaken)
	apply(t, r, &storage.DropKeyless{ID: clientID(1), Before: at(5)})
	try(4, "anna", nil)
	apply(t, r, &storage.DropName{Name: "Anna"})
	try(5, "Anna", storage.ErrNotAdded)
	if got, want := added(t, r), []string{"anna", "\u00e9 '"}; !slices.Equal(got, want) {
		t.Errorf("added are %q, want %q", got, want)
	}
}

func testDisableClient(t *testing.T, r storage.Registry) {
	apply(t, r, addClient(1, "anna"), addClient(2, "ben"))
	isDisabled := func(n int, want bool) {
		t.Helper()
		get := &storage.GetClient{Outcome: storage.Outcome{By: storage.Server}, ID: clientID(n)}
		apply(t, r, get)
		if get.Client.Disabled != want {
			t.Errorf("GetClient: client %d is disabled: %v, want %v", n, get.Client.Disabled, want)
		}
		for _, c := range clients(t, r) {
			if c.ID == clientID(n) && c.Disabled != want {
				t.Errorf("Clients: client %d is disabled: %v, want %v", n, c.Disabled, want)
			}
		}
	}
	isDisabled(1, false)
	for range 2 {
		apply(t, r, &storage.DisableClient{ID: clientID(1), Disabled: true})
		isDisabled(1, true)
		isDisabled(2, false)
	}
	unknown := &storage.DisableClient{ID: clientID(3), Disabled: true}
	keyless := &storage.DropKeyless{ID: clientID(1), Before: at(5)}
	name := addClient(3, "anna")
	pinnedToo := pin(serverOwn(), 1, 1)
	seen := &storage.Seen{Outcome: over(2), ID: clientID(1)}
	tryApply(t, r, unknown, keyless, name, pinnedToo, seen)
	wantErr(t, unknown, storage.ErrNoClient)
	wantErr(t, keyless, storage.ErrNoClient) // it would be served again
	wantErr(t, name, storage.ErrNameTaken)
	wantErr(t, seen, storage.ErrPinned) // is all that others are told
	isDisabled(1, true)
	apply(t, r, &storage.DisableClient{ID: clientID(1)}, &storage.Seen{Outcome: over(1), ID: clientID(1)})
	isDisabled(1, false)
}

func testDropClient(t *testing.T, r storage.Registry) {
	for _, name := range []string{"anna", "ben", "carl"} {
		apply(t, r, &storage.AddName{Name: name})
	}
	apply(t, r, addClient(1, "anna"), addClient(2, "ben"), &storage.DisableClient{ID: clientID(1), Disabled: true},
		&storage.PutFile{Outcome: serverOwn(), File: upload(1, "a", "k1", 1)})
	drop := &storage.DropClient{ID: clientID(1)}
	has := func(want error) {
		t.Helper()
		tryApply(t, r, drop)
		wantErr(t, drop, want)
	}
	own := serverOwn()
	has(storage.ErrHasFiles)
	apply(t, r, &storage.VerifyFile{Outcome: own, ID: clientID(1), Path: "a", Incoming: "k1"})
	has(storage.ErrHasFiles)
	apply(t, r, &storage.TakeFile{ID: clientID(1), Path: "a", Incoming: "k1", Taken: at(2)})
	has(storage.ErrHasFiles) // its content may be there
	apply(t, r, &storage.MarkFile{ID: clientID(1), Path: "a", Incoming: "k1", Missing: true},
		&storage.PutFile{Outcome: own, File: upload(1, "a", "k2", 1)})
	has(storage.ErrHasFiles) // another version waits
	if got := added(t, r); len(got) != 3 {
		t.Errorf("added are %q after a refusal", got)
	}
	wantFilesOf(t, r, 1, 2)
	apply(t, r, &storage.DropFile{Outcome: own, ID: clientID(1), Path: "a", Incoming: "k2"},
		&storage.PutFile{File: upload(2, "a", "k1", 1)})
	has(nil)
	has(storage.ErrNoClient)
	wantFilesOf(t, r, 1, 0)
	wantFilesOf(t, r, 2, 1)
	if got, want := added(t, r), []string{"ben", "carl"}; !slices.Equal(got, want) {
		t.Errorf("added are %q, want %q", got, want)
	}
	gone := &storage.GetClient{Outcome: over(0), ID: clientID(1)}
	tryApply(t, r, gone)
	wantErr(t, gone, storage.ErrNoClient)
	apply(t, r, addClient(3, "anna")) // the name is free
}

func wantFilesOf(t testing.TB, r storage.Registry, n, want int) {
	t.Helper()
	got := 0
	for _, f := range files(t, r) {
		if f.ID == clientID(n) {
			got++
		}
	}
	if got != want {
		t.Errorf("client %d has %d files on record, want %d", n, got, want)
	}
}

// put records a version of a file of client 1, and verifies it.
func put(t testing.TB, r storage.Registry, path, key string) storage.File {
	t.Helper()
	f := upload(1, path, key, 1)
	apply(t, r, &storage.PutFile{File: f}, &storage.VerifyFile{ID: f.ID, Path: path, Incoming: key})
	return verified(f)
}

// A verified file is taken once. Its row stays, and leaves the list when its content is
// gone.
func testTakeFile(t *testing.T, r storage.Registry) {
	apply(t, r, addClient(1, "anna"))
	v := put(t, r, "a", "k1")
	waits := upload(1, "a", "k2", 2)
	apply(t, r, &storage.PutFile{File: waits})
	take := func(path, key string, want error) {
		t.Helper()
		op := &storage.TakeFile{ID: clientID(1), Path: path, Incoming: key, Taken: at(7)}
		tryApply(t, r, op)
		wantErr(t, op, want)
	}
	take("a", "k2", storage.ErrNoFile) // it is not verified
	take("a", "", storage.ErrNoFile)
	take("b", "k1", storage.ErrNoFile)
	apply(t, r, &storage.MarkFile{ID: v.ID, Path: "a", Incoming: "k1", Missing: true})
	take("a", "k1", storage.ErrNoFile) // it is missing
	apply(t, r, &storage.MarkFile{ID: v.ID, Path: "a", Incoming: "k1"})
	wantLeaving(t, r)
	take("a", "k1", nil)
	v.Taken = at(7)
	wantFiles(t, r, 1, "a", &v, &waits)
	wantLeaving(t, r, "a")
	take("a", "k1", storage.ErrNoFile)
	forget := &storage.ForgetFile{ID: v.ID, Path: "a", Incoming: "k1"}
	tryApply(t, r, forget)
	wantErr(t, forget, storage.ErrNoFile)
	apply(t, r, &storage.MarkFile{ID: v.ID, Path: "a", Incoming: "k1", Missing: true})
	v.Missing = true
	wantLeaving(t, r)
	take("a", "k1", storage.ErrNoFile)
	wantFiles(t, r, 1, "a", &v, &waits)
	apply(t, r, forget)
	wantFiles(t, r, 1, "a", nil, &waits)

	deleted := put(t, r, "b", "k3")
	apply(t, r, &storage.DeleteFile{ID: v.ID, Path: "b", Incoming: "k3", Verified: true})
	take("b", "k3", storage.ErrNoFile)
	deleted.Deleted = true
	wantFiles(t, r, 1, "b", &deleted, nil)
}

// A file is deleted by its key, the verified one apart from the one that waits.
func testDeleteFile(t *testing.T, r storage.Registry) {
	apply(t, r, addClient(1, "anna"))
	v := put(t, r, "a", "k1")
	waits := upload(1, "a", "k2", 2)
	apply(t, r, &storage.PutFile{File: waits})
	del := func(key string, verified bool, want error) {
		t.Helper()
		op := &storage.DeleteFile{ID: clientID(1), Path: "a", Incoming: key, Verified: verified}
		tryApply(t, r, op)
		wantErr(t, op, want)
	}
	del("k1", false, storage.ErrNoFile)
	del("k2", true, storage.ErrNoFile)
	wantLeaving(t, r)
	for range 2 {
		del("k2", false, nil)
		waits.Deleted = true
		wantFiles(t, r, 1, "a", &v, &waits)
		wantLeaving(t, r, "a*")
	}
	del("k1", true, nil)
	v.Deleted = true
	wantFiles(t, r, 1, "a", &v, &waits)
	wantLeaving(t, r, "a", "a*")
	apply(t, r, &storage.DropFile{ID: v.ID, Path: "a", Incoming: "k2"})
	v.Lapsed = true
	wantFiles(t, r, 1, "a", &v, nil)
	apply(t, r, &storage.ForgetFile{ID: v.ID, Path: "a", Incoming: "k1"})
	wantFiles(t, r, 1, "a", nil, nil)
	wantLeaving(t, r)

	// A file that is taken already, and one that is missing.
	put(t, r, "a", "k3")
	apply(t, r, &storage.TakeFile{ID: v.ID, Path: "a", Incoming: "k3", Taken: at(1)},
		&storage.MarkFile{ID: v.ID, Path: "a", Incoming: "k3", Missing: true})
	wantLeaving(t, r)
	del("k3", true, nil)
	wantLeaving(t, r, "a")
	apply(t, r, &storage.ForgetFile{ID: v.ID, Path: "a", Incoming: "k3"})
	wantLeaving(t, r)
}

// What another version is to become of is not what became of the one before.
func testNewVersionStays(t *testing.T, r storage.Registry) {
	apply(t, r, addClient(1, "anna"))
	put(t, r, "a", "k1")
	apply(t, r, &storage.TakeFile{ID: clientID(1), Path: "a", Incoming: "k1", Taken: at(3)})
	v := put(t, r, "a", "k2")
	wantFiles(t, r, 1, "a", &v, nil)
	apply(t, r, &storage.DeleteFile{ID: v.ID, Path: "a", Incoming: "k2", Verified: true})
	v = put(t, r, "a", "k3")
	wantFiles(t, r, 1, "a", &v, nil)

	// An upload that was deleted, and its 1029 comes all the same.
	f := upload(1, "a", "k4", 4)
	f.Deleted, f.Taken = true, at(1) // do not count
	apply(t, r, &storage.PutFile{File: f})
	f.Deleted, f.Taken = false, time.Time{}
	wantFiles(t, r, 1, "a", &v, &f)
	apply(t, r, &storage.DeleteFile{ID: v.ID, Path: "a", Incoming: "k4"}, &storage.VerifyFile{ID: v.ID, Path: "a", Incoming: "k4"})
	v = verified(f)
	wantFiles(t, r, 1, "a", &v, nil)
	wantLeaving(t, r)

	// And one that is replaced by another.
	apply(t, r, &storage.PutFile{File: upload(1, "a", "k5", 1)}, &storage.DeleteFile{ID: v.ID, Path: "a", Incoming: "k5"},
		&storage.PutFile{File: upload(1, "a", "k6", 1)})
	f = upload(1, "a", "k6", 1)
	f.Lapsed = true
	wantFiles(t, r, 1, "a", &v, &f)
	wantLeaving(t, r)
}

// A mark that a version has lapsed outlives the verified row that had it, if there is
// one that waits; otherwise whoever forgets the row is told.
func testForgottenMark(t *testing.T, r storage.Registry) {
	apply(t, r, addClient(1, "anna"))
	for _, waits := range []bool{false, true} {
		for _, lapsed := range []bool{false, true} {
			key := fmt.Sprint("v", waits, lapsed)
			put(t, r, "a", key)
			f := upload(1, "a", "k", 1)
			if lapsed {
				apply(t, r, &storage.PutFile{File: f}, &storage.DropFile{ID: f.ID, Path: "a", Incoming: "k"})
			}
			var want *storage.File
			if waits {
				apply(t, r, &storage.PutFile{File: f})
				f.Lapsed = lapsed
				want = &f
			}
			forget := &storage.ForgetFile{ID: f.ID, Path: "a", Incoming: key}
			apply(t, r, &storage.DeleteFile{ID: f.ID, Path: "a", Incoming: key, Verified: true}, forget)
			wantFiles(t, r, 1, "a", nil, want)
			if forget.Lapsed != (lapsed && !waits) {
				t.Errorf("lapsed %v, another waits %v: it says %v", lapsed, waits, forget.Lapsed)
			}
		}
	}
}

// The place of a file that was taken is free once its content is gone.
func testTakenIsNotAlike(t *testing.T, r storage.Registry) {
	apply(t, r, addClient(1, "anna"))
	v := put(t, r, "Docs/A", "k1")
	find := func(want error) {
		t.Helper()
		op := &storage.FindAlike{ID: clientID(1), Path: "docs/a", Folds: strings.ToLower}
		tryApply(t, r, op)
		wantErr(t, op, want)
	}
	apply(t, r, &storage.TakeFile{ID: v.ID, Path: v.Path, Incoming: "k1", Taken: at(1)})
	find(nil)
	apply(t, r, &storage.MarkFile{ID: v.ID, Path: v.Path, Incoming: "k1", Missing: true})
	find(storage.ErrNoFile)
	apply(t, r, &storage.PutFile{File: upload(1, v.Path, "k2", 1)})
	find(nil)
}

// Leaving yields what leaves, of many files, in the order of Files.
func testLeaving(t *testing.T, r storage.Registry) {
	apply(t, r, addClient(1, "anna"), addClient(2, "ben"))
	const count = 700
	var batch []storage.Operation
	var want []string
	for i := range count {
		path := fmt.Sprintf("%04d", i)
		f := upload(1+i/400, path, "k", 1)
		batch = append(batch, &storage.PutFile{File: f})
		switch i % 3 {
		case 0:
			batch = append(batch, &storage.DeleteFile{ID: f.ID, Path: path, Incoming: "k"})
			want = append(want, path+"*")
			continue
		case 1:
			batch = append(batch, &storage.VerifyFile{ID: f.ID, Path: path, Incoming: "k"},
				&storage.TakeFile{ID: f.ID, Path: path, Incoming: "k", Taken: at(i)})
			want = append(want, path)
		}
	}
	apply(t, r, batch...)
	wantLeaving(t, r, want...)
	stop, n := errors.New("stop"), 0
	err := r.Leaving(t.Context(), func(storage.File) error {
		n++
		return stop
	})
	if err != stop || n != 1 {
		t.Errorf("after %d files: %v, want the error of yield after one", n, err)
	}
}
