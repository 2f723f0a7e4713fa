package storagetest

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"sealift/storage"
)

// upload is a file of client n that has just been received.
func upload(n int, path, incoming string, size int64) storage.File {
	return storage.File{
		ID: clientID(n), FileName: `C:\` + path, Path: path, Incoming: incoming,
		Size: size, Cksum: 0xfedc_ba98, Received: at(1),
	}
}

// verified is f once it is verified.
func verified(f storage.File) storage.File {
	f.Verified, f.Missing, f.Lapsed = true, false, false
	return f
}

// wantFiles checks what GetFile says of path, and that Files says the same.
func wantFiles(t testing.TB, r storage.Registry, n int, path string, verified, unverified *storage.File) {
	t.Helper()
	get := &storage.GetFile{ID: clientID(n), Path: path}
	tryApply(t, r, get)
	if verified == nil && unverified == nil {
		wantErr(t, get, storage.ErrNoFile)
	} else {
		wantErr(t, get, nil)
	}
	if !reflect.DeepEqual(get.Verified, verified) || !reflect.DeepEqual(get.Unverified, unverified) {
		t.Errorf("GetFile: verified %+v, unverified %+v,\nwant %+v, %+v",
			get.Verified, get.Unverified, verified, unverified)
	}
	var want, got []storage.File
	for _, f := range []*storage.File{verified, unverified} {
		if f != nil {
			want = append(want, *f)
		}
	}
	for _, f := range files(t, r) {
		if f.ID == clientID(n) && f.Path == path {
			got = append(got, f)
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("Files: %+v,\nwant %+v", got, want)
	}
}

func testUploadToVerified(t *testing.T, r storage.Registry) {
	apply(t, r, addClient(1, "anna"), addClient(2, "ben"))
	f := upload(1, "docs/a file's name.txt", "k1", 4_000_000_000_000)
	wantFiles(t, r, 1, f.Path, nil, nil)
	put := &storage.PutFile{File: f}
	apply(t, r, put)
	if put.Replaced != nil {
		t.Errorf("replaced %+v, want nothing", put.Replaced)
	}
	wantFiles(t, r, 1, f.Path, nil, &f)
	wantFiles(t, r, 2, f.Path, nil, nil)
	apply(t, r, &storage.VerifyFile{ID: f.ID, Path: f.Path, Incoming: "k1"})
	v := verified(f)
	wantFiles(t, r, 1, f.Path, &v, nil)

	again := &storage.VerifyFile{ID: f.ID, Path: f.Path, Incoming: "k1"}
	tryApply(t, r, again)
	wantErr(t, again, storage.ErrNoFile)
	wantFiles(t, r, 1, f.Path, &v, nil)
}

func testNewUploadReplacesOldWhenVerified(t *testing.T, r storage.Registry) {
	apply(t, r, addClient(1, "anna"))
	for i := range 3 {
		f := upload(1, "a", fmt.Sprint("k", i), int64(i))
		f.Cksum, f.FileName, f.Received = uint32(i), fmt.Sprint("a", i), at(i)
		before := &storage.GetFile{ID: clientID(1), Path: "a"}
		tryApply(t, r, before)
		apply(t, r, &storage.PutFile{File: f})
		wantFiles(t, r, 1, "a", before.Verified, &f)
		apply(t, r, &storage.VerifyFile{ID: f.ID, Path: "a", Incoming: f.Incoming})
		v := verified(f)
		wantFiles(t, r, 1, "a", &v, nil)
	}
}

func testStaleKeyIsRefused(t *testing.T, r storage.Registry) {
	apply(t, r, addClient(1, "anna"), &storage.PutFile{File: upload(1, "a", "k1", 1)})
	newer := upload(1, "a", "k2", 2)
	put := &storage.PutFile{File: newer}
	apply(t, r, put)
	if want := upload(1, "a", "k1", 1); !reflect.DeepEqual(put.Replaced, &want) {
		t.Errorf("replaced %+v, want %+v", put.Replaced, want)
	}
	newer.Lapsed = true // what it replaced may be what a 1029 means
	verify := &storage.VerifyFile{ID: clientID(1), Path: "a", Incoming: "k1"}
	drop := &storage.DropFile{ID: clientID(1), Path: "a", Incoming: "k1"}
	empty := &storage.DropFile{ID: clientID(1), Path: "a"}
	tryApply(t, r, verify, drop, empty)
	wantErr(t, verify, storage.ErrNoFile)
	wantErr(t, drop, storage.ErrNoFile)
	wantErr(t, empty, storage.ErrNoFile)
	wantFiles(t, r, 1, "a", nil, &newer)
}

func testDropAndForget(t *testing.T, r storage.Registry) {
	older, newer := upload(1, "a", "k1", 1), upload(1, "a", "k2", 2)
	apply(t, r, addClient(1, "anna"), &storage.PutFile{File: older},
		&storage.VerifyFile{ID: clientID(1), Path: "a", Incoming: "k1"}, &storage.PutFile{File: newer})
	v := verified(older)
	wantFiles(t, r, 1, "a", &v, &newer)

	drop := &storage.DropFile{ID: clientID(1), Path: "a", Incoming: "k2"}
	apply(t, r, drop)
	v.Lapsed = true
	wantFiles(t, r, 1, "a", &v, nil)
	if !drop.Marked {
		t.Error("DropFile does not say that it marked the verified file")
	}
	forget := &storage.ForgetFile{ID: clientID(1), Path: "a", Incoming: older.Incoming}
	tryApply(t, r, forget)
	wantErr(t, forget, storage.ErrNoFile) // it is not missing
	apply(t, r, &storage.PutFile{File: newer}, &storage.MarkFile{ID: clientID(1), Path: "a", Incoming: older.Incoming, Missing: true})
	v.Missing = true
	wantFiles(t, r, 1, "a", &v, &newer)
	another := &storage.ForgetFile{ID: clientID(1), Path: "a", Incoming: newer.Incoming}
	tryApply(t, r, another)
	wantErr(t, another, storage.ErrNoFile)
	wantFiles(t, r, 1, "a", &v, &newer)
	apply(t, r, forget)
	newer.Lapsed = true // the mark of the one that went
	wantFiles(t, r, 1, "a", nil, &newer)

	again := &storage.ForgetFile{ID: clientID(1), Path: "a", Incoming: older.Incoming}
	other := &storage.DropFile{ID: clientID(2), Path: "a", Incoming: "k2"}
	mark := &storage.MarkFile{ID: clientID(1), Path: "a", Incoming: older.Incoming}
	tryApply(t, r, again, other, mark)
	wantErr(t, again, storage.ErrNoFile)
	wantErr(t, other, storage.ErrNoFile)
	wantErr(t, mark, storage.ErrNoFile)
	apply(t, r, drop)
	wantFiles(t, r, 1, "a", nil, nil)
	if drop.Marked {
		t.Error("DropFile marked a file that there is not")
	}
}

// A version that went without being verified is remembered until one is.
func testLapsed(t *testing.T, r storage.Registry) {
	apply(t, r, addClient(1, "anna"))
	lapsed := func(want bool) {
		t.Helper()
		get := &storage.GetFile{ID: clientID(1), Path: "a"}
		apply(t, r, get)
		if get.Lapsed() != want {
			t.Errorf("Lapsed is %v, want %v", get.Lapsed(), want)
		}
	}
	put := func(key string) {
		t.Helper()
		apply(t, r, &storage.PutFile{File: upload(1, "a", key, 1)})
	}
	verify := func(key string) {
		t.Helper()
		apply(t, r, &storage.VerifyFile{ID: clientID(1), Path: "a", Incoming: key})
	}
	put("k1")
	lapsed(false)
	put("k2") // k1 is gone
	lapsed(true)
	verify("k2")
	lapsed(false)
	put("k3")
	lapsed(false)
	apply(t, r, &storage.DropFile{ID: clientID(1), Path: "a", Incoming: "k3"})
	lapsed(true)
	put("k4")
	lapsed(true)
	verify("k4")
	lapsed(false)
	f := upload(1, "a", "k5", 1)
	f.Lapsed = true // the session knows of one that no row tells
	apply(t, r, &storage.PutFile{File: f})
	lapsed(true)
}

// What is in a place that could not be made durable is recorded as missing, and
// comes back by MarkFile or by another version.
func testMissing(t *testing.T, r storage.Registry) {
	apply(t, r, addClient(1, "anna"))
	f := upload(1, "a", "k1", 1)
	apply(t, r, &storage.PutFile{File: f}, &storage.VerifyFile{ID: f.ID, Path: "a", Incoming: "k1", Missing: true})
	v := verified(f)
	v.Missing = true
	wantFiles(t, r, 1, "a", &v, nil)
	apply(t, r, &storage.MarkFile{ID: f.ID, Path: "a", Incoming: "k1"})
	v.Missing = false
	wantFiles(t, r, 1, "a", &v, nil)
	stale := &storage.MarkFile{ID: f.ID, Path: "a", Incoming: "k0", Missing: true}
	tryApply(t, r, stale)
	wantErr(t, stale, storage.ErrNoFile)
	wantFiles(t, r, 1, "a", &v, nil)
	apply(t, r, &storage.MarkFile{ID: f.ID, Path: "a", Incoming: "k1", Missing: true})
	g := upload(1, "a", "k2", 2)
	apply(t, r, &storage.PutFile{File: g}, &storage.VerifyFile{ID: f.ID, Path: "a", Incoming: "k2"})
	v = verified(g)
	wantFiles(t, r, 1, "a", &v, nil)
}

// A client without a key goes when it was not seen for long, and has no files.
func testDropKeyless(t *testing.T, r storage.Registry) {
	for n, name := range []string{"old", "with a key", "with a file", "new"} {
		add := addClient(n, name)
		if add.At = at(1); name == "new" {
			add.At = at(5)
		}
		apply(t, r, add)
	}
	apply(t, r, &storage.SetKeys{ID: clientID(1), Name: "with a key", PublicKey: key(1, 160), AESKey: key(2, 32)},
		&storage.PutFile{File: upload(2, "a", "k1", 1)})
	for n, want := range []error{nil, storage.ErrNoClient, storage.ErrNoClient, storage.ErrNoClient, storage.ErrNoClient} {
		drop := &storage.DropKeyless{ID: clientID(n), Before: at(5)}
		tryApply(t, r, drop)
		wantErr(t, drop, want)
		get := &storage.GetClient{ID: clientID(n)}
		tryApply(t, r, get)
		if gone := get.Err != nil; gone != (n == 0 || n == 4) {
			t.Errorf("client %d: gone is %v", n, gone)
		}
	}
	apply(t, r, addClient(7, "old")) // the name is free
}

func testFilesNeedAClient(t *testing.T, r storage.Registry) {
	put := &storage.PutFile{File: upload(1, "a", "k1", 1)}
	tryApply(t, r, put)
	wantErr(t, put, storage.ErrNoClient)
	wantFiles(t, r, 1, "a", nil, nil)
}

// FindAlike finds what Folds takes for the path: files that are verified and such
// that wait, of this client, under other paths.
func testFindAlike(t *testing.T, r storage.Registry) {
	apply(t, r, addClient(1, "anna"), addClient(2, "ben"))
	a, b, other := upload(1, "Docs/A", "k1", 1), upload(1, "docs/b", "k2", 1), upload(2, "DOCS/C", "k3", 1)
	apply(t, r, &storage.PutFile{File: a}, &storage.PutFile{File: b}, &storage.PutFile{File: other},
		&storage.VerifyFile{ID: a.ID, Path: a.Path, Incoming: a.Incoming})
	want := func(n int, path, found string) {
		t.Helper()
		op := &storage.FindAlike{ID: clientID(n), Path: path, Folds: strings.ToLower, Found: "left over"}
		tryApply(t, r, op)
		if found == "" {
			wantErr(t, op, storage.ErrNoFile)
		} else {
			wantErr(t, op, nil)
		}
		if op.Found != found {
			t.Errorf("client %d, %q: %q, want %q", n, path, op.Found, found)
		}
	}
	want(1, "docs/a", "Docs/A")
	want(1, "DOCS/B", "docs/b")
	want(1, "Docs/A", "")
	want(1, "docs/b", "")
	want(1, "docs/c", "")
	want(1, "docs", "")
	want(2, "docs/a", "")
	want(2, "docs/c", "DOCS/C")
	want(3, "docs/c", "")
	apply(t, r, &storage.DropFile{ID: b.ID, Path: b.Path, Incoming: b.Incoming})
	want(1, "DOCS/B", "")
	apply(t, r, &storage.PutFile{File: upload(1, "docs/\u00e9 \u5c65", "k4", 1)})
	want(1, "DOCS/\u00c9 \u5c65", "docs/\u00e9 \u5c65")
}
