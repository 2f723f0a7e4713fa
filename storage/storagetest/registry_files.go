package storagetest

import (
	"fmt"
	"reflect"
	"testing"

	"sealift/session"
)

// upload is a file of client n that has just been received.
func upload(n int, path, incoming string, size int64) session.File {
	return session.File{
		ID: clientID(n), FileName: `C:\` + path, Path: path, Incoming: incoming,
		Size: size, Cksum: 0xfedc_ba98, Received: at(1),
	}
}

// verified is f once it is verified.
func verified(f session.File) session.File {
	f.Verified, f.Incoming = true, ""
	return f
}

// wantFiles checks what GetFile says of path, and that Files says the same.
func wantFiles(t testing.TB, r session.Registry, n int, path string, verified, unverified *session.File) {
	t.Helper()
	get := &session.GetFile{ID: clientID(n), Path: path}
	tryApply(t, r, get)
	if verified == nil && unverified == nil {
		wantErr(t, get, session.ErrNoFile)
	} else {
		wantErr(t, get, nil)
	}
	if !reflect.DeepEqual(get.Verified, verified) || !reflect.DeepEqual(get.Unverified, unverified) {
		t.Errorf("GetFile: verified %+v, unverified %+v,\nwant %+v, %+v",
			get.Verified, get.Unverified, verified, unverified)
	}
	var want, got []session.File
	for _, f := range []*session.File{verified, unverified} {
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

func testUploadToVerified(t *testing.T, r session.Registry) {
	apply(t, r, addClient(1, "anna"), addClient(2, "ben"))
	f := upload(1, "docs/a file's name.txt", "k1", 4_000_000_000_000)
	wantFiles(t, r, 1, f.Path, nil, nil)
	put := &session.PutFile{File: f}
	apply(t, r, put)
	if put.Replaced != "" || put.ReplacedSize != 0 {
		t.Errorf("replaced %q, want nothing", put.Replaced)
	}
	wantFiles(t, r, 1, f.Path, nil, &f)
	wantFiles(t, r, 2, f.Path, nil, nil)
	apply(t, r, &session.VerifyFile{ID: f.ID, Path: f.Path, Incoming: "k1"})
	v := verified(f)
	wantFiles(t, r, 1, f.Path, &v, nil)

	again := &session.VerifyFile{ID: f.ID, Path: f.Path, Incoming: "k1"}
	tryApply(t, r, again)
	wantErr(t, again, session.ErrNoFile)
	wantFiles(t, r, 1, f.Path, &v, nil)
}

func testNewUploadReplacesOldWhenVerified(t *testing.T, r session.Registry) {
	apply(t, r, addClient(1, "anna"))
	for i := range 3 {
		f := upload(1, "a", fmt.Sprint("k", i), int64(i))
		f.Cksum, f.FileName, f.Received = uint32(i), fmt.Sprint("a", i), at(i)
		before := &session.GetFile{ID: clientID(1), Path: "a"}
		tryApply(t, r, before)
		apply(t, r, &session.PutFile{File: f})
		wantFiles(t, r, 1, "a", before.Verified, &f)
		apply(t, r, &session.VerifyFile{ID: f.ID, Path: "a", Incoming: f.Incoming})
		v := verified(f)
		wantFiles(t, r, 1, "a", &v, nil)
	}
}

func testStaleKeyIsRefused(t *testing.T, r session.Registry) {
	apply(t, r, addClient(1, "anna"), &session.PutFile{File: upload(1, "a", "k1", 1)})
	newer := upload(1, "a", "k2", 2)
	put := &session.PutFile{File: newer}
	apply(t, r, put)
	if put.Replaced != "k1" || put.ReplacedSize != 1 {
		t.Errorf("replaced %q of %d bytes, want k1 of 1", put.Replaced, put.ReplacedSize)
	}
	verify := &session.VerifyFile{ID: clientID(1), Path: "a", Incoming: "k1"}
	drop := &session.DropFile{ID: clientID(1), Path: "a", Incoming: "k1"}
	empty := &session.DropFile{ID: clientID(1), Path: "a"}
	tryApply(t, r, verify, drop, empty)
	wantErr(t, verify, session.ErrNoFile)
	wantErr(t, drop, session.ErrNoFile)
	wantErr(t, empty, session.ErrNoFile)
	wantFiles(t, r, 1, "a", nil, &newer)
}

func testDropAndForget(t *testing.T, r session.Registry) {
	older, newer := upload(1, "a", "k1", 1), upload(1, "a", "k2", 2)
	apply(t, r, addClient(1, "anna"), &session.PutFile{File: older},
		&session.VerifyFile{ID: clientID(1), Path: "a", Incoming: "k1"}, &session.PutFile{File: newer})
	v := verified(older)
	wantFiles(t, r, 1, "a", &v, &newer)

	apply(t, r, &session.DropFile{ID: clientID(1), Path: "a", Incoming: "k2"})
	wantFiles(t, r, 1, "a", &v, nil)
	apply(t, r, &session.PutFile{File: newer}, &session.ForgetFile{ID: clientID(1), Path: "a"})
	wantFiles(t, r, 1, "a", nil, &newer)

	again := &session.ForgetFile{ID: clientID(1), Path: "a"}
	other := &session.DropFile{ID: clientID(2), Path: "a", Incoming: "k2"}
	tryApply(t, r, again, other)
	wantErr(t, again, session.ErrNoFile)
	wantErr(t, other, session.ErrNoFile)
	apply(t, r, &session.DropFile{ID: clientID(1), Path: "a", Incoming: "k2"})
	wantFiles(t, r, 1, "a", nil, nil)
}

func testFilesNeedAClient(t *testing.T, r session.Registry) {
	put := &session.PutFile{File: upload(1, "a", "k1", 1)}
	tryApply(t, r, put)
	wantErr(t, put, session.ErrNoClient)
	wantFiles(t, r, 1, "a", nil, nil)
}
