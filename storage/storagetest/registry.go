// Package storagetest holds the tests that every implementation of
// storage.Registry and storage.Files must pass, and the benchmarks by which
// they are compared.
package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"sealift/codec"
	"sealift/storage"
)

// start is some moment to the millisecond, the precision that every registry
// keeps.
var start = time.Date(2026, 3, 4, 5, 6, 7, 89_000_000, time.UTC)

func at(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }

// clientID is a client id that says its number.
func clientID(n int) codec.ClientID {
	id := codec.ClientID{0: 0xc1, 6: 0x40, 8: 0x80}
	id[14], id[15] = byte(n>>8), byte(n)
	return id
}

func key(b byte, size int) []byte { return bytes.Repeat([]byte{b}, size) }

// TestRegistry runs the tests of a Registry. open returns an empty one, which
// the tests close.
func TestRegistry(t *testing.T, open func(t *testing.T) storage.Registry) {
	tests := []struct {
		name string
		test func(t *testing.T, r storage.Registry)
	}{
		{"AddClient", testAddClient},
		{"NamesAreBytes", testNamesAreBytes},
		{"SetKeys", testSetKeys},
		{"SetAESKey", testSetAESKey},
		{"LastSeen", testLastSeen},
		{"ResultsAreCopies", testResultsAreCopies},
		{"UploadToVerified", testUploadToVerified},
		{"NewUploadReplacesOldWhenVerified", testNewUploadReplacesOldWhenVerified},
		{"StaleKeyIsRefused", testStaleKeyIsRefused},
		{"DropAndForget", testDropAndForget},
		{"Lapsed", testLapsed},
		{"Missing", testMissing},
		{"DropKeyless", testDropKeyless},
		{"FindAlike", testFindAlike},
		{"FilesNeedAClient", testFilesNeedAClient},
		{"RefusalsDoNotStopABatch", testRefusalsDoNotStopABatch},
		{"OperationsOfABatchSeeEachOther", testOperationsOfABatchSeeEachOther},
		{"OneNameTwiceInABatch", testOneNameTwiceInABatch},
		{"OneNameFromManySides", testOneNameFromManySides},
		{"PinClient", testPinClient},
		{"PinFromManySides", testPinFromManySides},
		{"AddedNames", testAddedNames},
		{"DisableClient", testDisableClient},
		{"DropClient", testDropClient},
		{"TakeFile", testTakeFile},
		{"DeleteFile", testDeleteFile},
		{"NewVersionStays", testNewVersionStays},
		{"ForgottenMark", testForgottenMark},
		{"TakenIsNotAlike", testTakenIsNotAlike},
		{"Leaving", testLeaving},
		{"Quota", testQuota},
		{"QuotaOfAll", testQuotaOfAll},
		{"QuotaIsNotTold", testQuotaIsNotTold},
		{"QuotaCounts", testQuotaCounts},
		{"QuotaFromManySides", testQuotaFromManySides},
		{"Retention", testRetention},
		{"PutPartial", testPutPartial},
		{"ContinueFile", testContinueFile},
		{"PartialBecomesWhole", testPartialBecomesWhole},
		{"DropAndDeletePartial", testDropAndDeletePartial},
		{"PartialsAndClients", testPartialsAndClients},
		{"PartialsAreOrdered", testPartialsAreOrdered},
		{"Leases", testLeases},
		{"LeaseAgain", testLeaseAgain},
		{"ReapLeases", testReapLeases},
		{"LeasedFile", testLeasedFile},
		{"LeasedPartial", testLeasedPartial},
		{"From", testFrom},
		{"DropLeasedPartial", testDropLeasedPartial},
		{"Versions", testVersions},
		{"FindUpload", testFindUpload},
		{"EventsOfOperations", testEventsOfOperations},
		{"EventIsWhole", testEventIsWhole},
		{"RefusedRecordsNothing", testRefusedRecordsNothing},
		{"EventsInOrder", testEventsInOrder},
		{"DropEvents", testDropEvents},
		{"EndedContext", testEndedContext},
		{"ListsAreOrdered", testListsAreOrdered},
		{"ListsStop", testListsStop},
		{"Closed", testClosed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := open(t)
			t.Cleanup(func() { _ = r.Close() })
			tt.test(t, r)
		})
	}
	t.Run("Pinned", func(t *testing.T) { testShut(t, open, pinned) })
	t.Run("Disabled", func(t *testing.T) { testShut(t, open, disabled) })
}

// apply applies operations of which each has to succeed.
func apply(t testing.TB, r storage.Registry, batch ...storage.Operation) {
	t.Helper()
	tryApply(t, r, batch...)
	for i, op := range batch {
		if err := op.Result().Err; err != nil {
			t.Fatalf("operation %d, %T: %v", i, op, err)
		}
	}
}

// tryApply applies operations that may be refused.
func tryApply(t testing.TB, r storage.Registry, batch ...storage.Operation) {
	t.Helper()
	if err := r.Apply(t.Context(), batch); err != nil {
		t.Fatalf("Apply: %v", err)
	}
}

func wantErr(t testing.TB, op storage.Operation, want error) {
	t.Helper()
	if got := op.Result().Err; !errors.Is(got, want) {
		t.Errorf("%T: error %v, want %v", op, got, want)
	}
}

func addClient(n int, name string) *storage.AddClient {
	return &storage.AddClient{Outcome: storage.Outcome{At: at(0)}, ID: clientID(n), Name: name}
}

func getClient(t testing.TB, r storage.Registry, n int) storage.Client {
	t.Helper()
	get := &storage.GetClient{ID: clientID(n)}
	apply(t, r, get)
	return get.Client
}

func testAddClient(t *testing.T, r storage.Registry) {
	apply(t, r, addClient(1, "Michael Jackson"))
	want := storage.Client{ID: clientID(1), Name: "Michael Jackson", LastSeen: at(0)}
	if got := getClient(t, r, 1); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}

	name, id := addClient(2, "Michael Jackson"), addClient(1, "Prince")
	unknown := &storage.GetClient{ID: clientID(2)}
	tryApply(t, r, name, id, unknown)
	wantErr(t, name, storage.ErrNameTaken)
	wantErr(t, id, storage.ErrIDTaken)
	wantErr(t, unknown, storage.ErrNoClient)
	if got := getClient(t, r, 1); !reflect.DeepEqual(got, want) {
		t.Errorf("after refusals: got %+v, want %+v", got, want)
	}
	apply(t, r, addClient(2, "Prince"))
}

func testNamesAreBytes(t *testing.T, r storage.Registry) {
	names := []string{"anna", "Anna", "ANNA", "anna ", " anna", "anna'; DROP TABLE clients; --", "%", `"`, "\u00e9", "e\u0301", "\u00c9", "\u5c65\u6b74", "\U0001f600", "anna\u200d"}
	for i, name := range names {
		apply(t, r, addClient(i, name))
	}
	for i, name := range names {
		if got := getClient(t, r, i).Name; got != name {
			t.Errorf("client %d is called %q, want %q", i, got, name)
		}
	}
}

func testSetKeys(t *testing.T, r storage.Registry) {
	apply(t, r, addClient(1, "anna"))
	set := func(n int, name string, public, aes byte, replace bool) *storage.SetKeys {
		return &storage.SetKeys{
			ID: clientID(n), Name: name, Replace: replace,
			PublicKey: key(public, codec.PublicKeySize), AESKey: key(aes, 32),
		}
	}
	want := func(public, aes byte) {
		t.Helper()
		c := getClient(t, r, 1)
		if !bytes.Equal(c.PublicKey, key(public, codec.PublicKeySize)) || !bytes.Equal(c.AESKey, key(aes, 32)) {
			t.Errorf("keys %x… %x…, want %x… %x…", c.PublicKey[:2], c.AESKey[:2], public, aes)
		}
	}
	apply(t, r, set(1, "anna", 0xaa, 1, false))
	want(0xaa, 1)
	apply(t, r, set(1, "anna", 0xaa, 2, false))
	want(0xaa, 2)

	pinned := set(1, "anna", 0xbb, 3, false)
	name := set(1, "Anna", 0xaa, 3, true)
	unknown := set(2, "anna", 0xaa, 3, true)
	tryApply(t, r, pinned, name, unknown)
	wantErr(t, pinned, storage.ErrKeyPinned)
	wantErr(t, name, storage.ErrWrongName)
	wantErr(t, unknown, storage.ErrNoClient)
	want(0xaa, 2)

	apply(t, r, set(1, "anna", 0xbb, 4, true))
	want(0xbb, 4)
}

func testSetAESKey(t *testing.T, r storage.Registry) {
	apply(t, r, addClient(1, "anna"), addClient(2, "ben"))
	unknown := &storage.SetAESKey{ID: clientID(3), AESKey: key(7, 32)}
	tryApply(t, r, &storage.SetAESKey{ID: clientID(1), AESKey: key(7, 32)}, unknown)
	wantErr(t, unknown, storage.ErrNoClient)
	if got := getClient(t, r, 1); !bytes.Equal(got.AESKey, key(7, 32)) || got.PublicKey != nil {
		t.Errorf("got %+v, want the AES key and no public one", got)
	}
	if got := getClient(t, r, 2); got.AESKey != nil {
		t.Errorf("another client got the key: %+v", got)
	}
	other := &storage.SetAESKey{ID: clientID(1), If: key(6, 32)}
	none := &storage.SetAESKey{ID: clientID(2), If: key(7, 32)}
	tryApply(t, r, other, none)
	wantErr(t, other, storage.ErrNoClient)
	wantErr(t, none, storage.ErrNoClient)
	if got := getClient(t, r, 1); !bytes.Equal(got.AESKey, key(7, 32)) {
		t.Errorf("the key was forgotten, though it is not the one that was meant: %x", got.AESKey)
	}
	apply(t, r, &storage.SetAESKey{ID: clientID(1), If: key(7, 32)})
	if got := getClient(t, r, 1); got.AESKey != nil {
		t.Errorf("the key that was to be forgotten is still there: %x", got.AESKey)
	}
}

func testLastSeen(t *testing.T, r storage.Registry) {
	apply(t, r, addClient(1, "anna"), addClient(2, "ben"))
	f := upload(1, "a", "k1", 10)
	second := 0
	step := func(succeeds bool, op storage.Operation) {
		t.Helper()
		before := getClient(t, r, 1).LastSeen
		second++
		op.Result().At = at(second)
		tryApply(t, r, op)
		if err := op.Result().Err; (err == nil) != succeeds {
			t.Fatalf("%T: %v", op, err)
		}
		want := before
		if succeeds {
			want = at(second)
		}
		if got := getClient(t, r, 1).LastSeen; !got.Equal(want) {
			t.Errorf("%T, success %t: last seen %v, want %v", op, succeeds, got, want)
		}
	}
	step(true, &storage.Seen{ID: clientID(1)})
	step(false, addClient(1, "carl"))
	step(true, &storage.GetClient{ID: clientID(1)})
	step(false, &storage.SetKeys{ID: clientID(1), Name: "ben", PublicKey: key(1, 160), AESKey: key(1, 32)})
	step(true, &storage.SetKeys{ID: clientID(1), Name: "anna", PublicKey: key(1, 160), AESKey: key(1, 32)})
	step(true, &storage.SetAESKey{ID: clientID(1), AESKey: key(1, 32)})
	step(false, &storage.GetFile{ID: clientID(1), Path: "a"})
	step(true, &storage.PutFile{File: f})
	step(true, &storage.GetFile{ID: clientID(1), Path: "a"})
	step(false, &storage.VerifyFile{ID: clientID(1), Path: "a", Incoming: "other"})
	step(true, &storage.VerifyFile{ID: clientID(1), Path: "a", Incoming: "k1"})
	step(false, &storage.ForgetFile{ID: clientID(1), Path: "a", Incoming: "k1"})
	step(true, &storage.MarkFile{ID: clientID(1), Path: "a", Incoming: "k1", Missing: true})
	step(true, &storage.MarkFile{ID: clientID(1), Path: "a", Incoming: "k1"})
	step(true, &storage.TakeFile{ID: clientID(1), Path: "a", Incoming: "k1", Taken: at(1)})
	step(false, &storage.TakeFile{ID: clientID(1), Path: "a", Incoming: "k1", Taken: at(1)})
	step(true, &storage.DeleteFile{ID: clientID(1), Path: "a", Incoming: "k1", Verified: true})
	step(false, &storage.DeleteFile{ID: clientID(1), Path: "a", Incoming: "k1"})
	step(true, &storage.ForgetFile{ID: clientID(1), Path: "a", Incoming: "k1"})
	step(true, &storage.PutFile{File: f})
	step(true, &storage.DropFile{ID: clientID(1), Path: "a", Incoming: "k1"})
	step(false, &storage.DropFile{ID: clientID(1), Path: "a", Incoming: "k1"})
	p := partial(1, "p", "k2", 1)
	step(true, &storage.PutPartial{Partial: p})
	step(true, &storage.ContinueFile{ID: p.ID, Path: "p", Incoming: "k2"})
	step(false, &storage.PutPartial{Partial: p})
	step(true, &storage.DeletePartial{ID: p.ID, Path: "p", Incoming: "k2"})
	step(false, &storage.ContinueFile{ID: p.ID, Path: "p", Incoming: "k2"})
	step(true, &storage.DropPartial{ID: p.ID, Path: "p", Incoming: "k2"})
	step(false, &storage.DropPartial{ID: p.ID, Path: "p", Incoming: "k2"})
	step(true, &storage.DisableClient{ID: clientID(1)})

	unknown := &storage.Seen{Outcome: storage.Outcome{At: at(99)}, ID: clientID(3)}
	tryApply(t, r, unknown)
	wantErr(t, unknown, storage.ErrNoClient)
	if got := getClient(t, r, 2).LastSeen; !got.Equal(at(0)) {
		t.Errorf("another client was last seen %v, want %v", got, at(0))
	}

	// Each of several clients in one batch.
	apply(t, r,
		&storage.Seen{Outcome: storage.Outcome{At: at(97)}, ID: clientID(1)},
		&storage.Seen{Outcome: storage.Outcome{At: at(98)}, ID: clientID(2)})
	for n, want := range map[int]time.Time{1: at(97), 2: at(98)} {
		if got := getClient(t, r, n).LastSeen; !got.Equal(want) {
			t.Errorf("client %d of two in a batch: last seen %v, want %v", n, got, want)
		}
	}

	// Within a batch too: a read tells of what came before it.
	get := &storage.GetClient{Outcome: storage.Outcome{At: at(102)}, ID: clientID(1)}
	apply(t, r,
		&storage.Seen{Outcome: storage.Outcome{At: at(101)}, ID: clientID(1)}, get,
		&storage.Seen{Outcome: storage.Outcome{At: at(103)}, ID: clientID(1)})
	if !get.Client.LastSeen.Equal(at(101)) {
		t.Errorf("in the batch: last seen %v, want %v", get.Client.LastSeen, at(101))
	}
	if got := getClient(t, r, 1).LastSeen; !got.Equal(at(103)) {
		t.Errorf("after the batch: last seen %v, want %v", got, at(103))
	}
}

func testResultsAreCopies(t *testing.T, r storage.Registry) {
	public, aes := key(1, codec.PublicKeySize), key(2, 32)
	apply(t, r, addClient(1, "anna"),
		&storage.SetKeys{ID: clientID(1), Name: "anna", PublicKey: public, AESKey: aes})
	public[0], aes[0] = 0xff, 0xff
	got := getClient(t, r, 1)
	got.PublicKey[1], got.AESKey[1] = 0xff, 0xff
	if got := getClient(t, r, 1); !bytes.Equal(got.PublicKey, key(1, codec.PublicKeySize)) || !bytes.Equal(got.AESKey, key(2, 32)) {
		t.Errorf("the keys on record changed with the caller's: %x %x", got.PublicKey[:2], got.AESKey[:2])
	}
}

func testRefusalsDoNotStopABatch(t *testing.T, r storage.Registry) {
	apply(t, r, addClient(1, "anna"), &storage.PutFile{File: upload(1, "a", "k1", 1)})
	var batch []storage.Operation
	for i := range 20 {
		batch = append(batch,
			addClient(100+i, "anna"),
			&storage.SetKeys{ID: clientID(1), Name: "wrong"},
			addClient(100+i, fmt.Sprint("new", i)),
			&storage.PutFile{File: upload(99, "a", "k", 1)},
			&storage.PutFile{File: upload(100+i, "b", "k", 1)},
			&storage.VerifyFile{ID: clientID(1), Path: "a", Incoming: "no"},
			&storage.DropFile{ID: clientID(100 + i), Path: "c", Incoming: "k"},
			&storage.VerifyFile{ID: clientID(100 + i), Path: "b", Incoming: "k"},
		)
	}
	tryApply(t, r, batch...)
	want := []error{
		storage.ErrNameTaken, storage.ErrWrongName, nil, storage.ErrNoClient, nil,
		storage.ErrNoFile, storage.ErrNoFile, nil,
	}
	for i, op := range batch {
		if got := op.Result().Err; got != want[i%len(want)] {
			t.Errorf("operation %d, %T: %v, want %v", i, op, got, want[i%len(want)])
		}
	}
	if n := len(clients(t, r)); n != 21 {
		t.Errorf("%d clients, want 21", n)
	}
	if n := len(files(t, r)); n != 21 {
		t.Errorf("%d files, want 21", n)
	}
}

func testOperationsOfABatchSeeEachOther(t *testing.T, r storage.Registry) {
	get, file := &storage.GetClient{ID: clientID(1)}, &storage.GetFile{ID: clientID(1), Path: "a"}
	early := &storage.GetClient{ID: clientID(1)}
	second := &storage.PutFile{File: upload(1, "a", "k2", 2)}
	tryApply(t, r,
		early,
		addClient(1, "anna"),
		&storage.SetKeys{ID: clientID(1), Name: "anna", PublicKey: key(1, 160), AESKey: key(2, 32)},
		get,
		&storage.PutFile{File: upload(1, "a", "k1", 1)},
		second,
		&storage.VerifyFile{ID: clientID(1), Path: "a", Incoming: "k2"},
		file,
		&storage.MarkFile{ID: clientID(1), Path: "a", Incoming: "k2", Missing: true},
		&storage.ForgetFile{ID: clientID(1), Path: "a", Incoming: "k2"},
	)
	wantErr(t, early, storage.ErrNoClient)
	if get.Err != nil || !bytes.Equal(get.Client.AESKey, key(2, 32)) {
		t.Errorf("the key set before: %+v %v", get.Client, get.Err)
	}
	if second.Err != nil || second.Replaced == nil || second.Replaced.Incoming != "k1" {
		t.Errorf("second upload replaced %+v, %v, want k1", second.Replaced, second.Err)
	}
	if file.Err != nil || file.Verified == nil || file.Verified.Size != 2 || file.Unverified != nil {
		t.Errorf("the file verified before: %+v", file)
	}
	if left := files(t, r); len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
}

func testOneNameTwiceInABatch(t *testing.T, r storage.Registry) {
	first, second := addClient(1, "anna"), addClient(2, "anna")
	tryApply(t, r, first, second)
	wantErr(t, first, nil)
	wantErr(t, second, storage.ErrNameTaken)
	if got := clients(t, r); len(got) != 1 || got[0].ID != clientID(1) {
		t.Errorf("clients %+v, want the first", got)
	}
}

// Every goroutine registers the same names, and clients of its own beside.
func testOneNameFromManySides(t *testing.T, r storage.Registry) {
	const sides, names = 8, 50
	var wg sync.WaitGroup
	won := make([][]bool, sides)
	for s := range sides {
		won[s] = make([]bool, names)
		wg.Go(func() {
			for n := range names {
				op := addClient(s*names+n, fmt.Sprint("name ", n))
				own := addClient(10_000+s*names+n, fmt.Sprint("own ", s, " ", n))
				if err := r.Apply(t.Context(), []storage.Operation{op, own}); err != nil || own.Err != nil {
					t.Errorf("side %d: %v, %v", s, err, own.Err)
					return
				}
				won[s][n] = op.Err == nil
			}
		})
	}
	wg.Wait()
	for n := range names {
		winners := 0
		for s := range sides {
			if won[s][n] {
				winners++
				if got := getClient(t, r, s*names+n).Name; got != fmt.Sprint("name ", n) {
					t.Errorf("the winner of name %d is called %q", n, got)
				}
			}
		}
		if winners != 1 {
			t.Errorf("name %d: %d winners, want 1", n, winners)
		}
	}
	if n := len(clients(t, r)); n != names*(sides+1) {
		t.Errorf("%d clients, want %d", n, names*(sides+1))
	}
}

func testEndedContext(t *testing.T, r storage.Registry) {
	apply(t, r, addClient(1, "anna"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	op := addClient(2, "ben")
	if err := r.Apply(ctx, []storage.Operation{op}); !errors.Is(err, context.Canceled) {
		t.Errorf("Apply: %v, want context.Canceled", err)
	}
	if err := r.Clients(ctx, func(storage.Client) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("Clients: %v, want context.Canceled", err)
	}
	if n := len(clients(t, r)); n != 1 {
		t.Errorf("%d clients, want 1: nothing of the batch may take place", n)
	}
	apply(t, r, op)
}

func testListsAreOrdered(t *testing.T, r storage.Registry) {
	apply(t, r, addClient(2, "zoe"), addClient(1, "Zoe"), addClient(3, "anna"))
	var names []string
	for _, c := range clients(t, r) {
		names = append(names, c.Name)
	}
	if want := []string{"Zoe", "anna", "zoe"}; !slices.Equal(names, want) {
		t.Errorf("clients %q, want %q", names, want)
	}

	// More than any implementation reads at once, in pairs of a verified and an
	// unverified file, so that a border falls between the two of one pair: the
	// first file has no other.
	const n = 700
	batch := []storage.Operation{&storage.PutFile{File: upload(1, "alone", "k", 1)}}
	for i := range n {
		path := fmt.Sprintf("dir/%04d", n-1-i)
		batch = append(batch,
			&storage.PutFile{File: upload(1+i%2, path, fmt.Sprint("old", i), 1)},
			&storage.VerifyFile{ID: clientID(1 + i%2), Path: path, Incoming: fmt.Sprint("old", i)},
			&storage.PutFile{File: upload(1+i%2, path, fmt.Sprint("new", i), 2)},
		)
	}
	batch = append(batch, &storage.PutFile{File: upload(3, "a.b", "p", 1)},
		&storage.PutFile{File: upload(3, "a/b", "q", 1)}, &storage.PutFile{File: upload(3, "B", "r", 1)})
	apply(t, r, batch...)
	var got []string
	for _, f := range files(t, r) {
		got = append(got, fmt.Sprint(f.ID, f.Path, f.Size))
	}
	want := []string{fmt.Sprint(clientID(1), "alone", 1)}
	for client := 1; client <= 2; client++ {
		for i := n - 1; i >= 0; i-- {
			if 1+i%2 == client {
				path := fmt.Sprintf("dir/%04d", n-1-i)
				want = append(want, fmt.Sprint(clientID(client), path, 1), fmt.Sprint(clientID(client), path, 2))
			}
		}
	}
	for _, path := range []string{"B", "a.b", "a/b"} {
		want = append(want, fmt.Sprint(clientID(3), path, 1))
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d files out of order or missing, want %d", len(got), len(want))
	}
}

func testListsStop(t *testing.T, r storage.Registry) {
	apply(t, r, addClient(1, "anna"), addClient(2, "ben"),
		&storage.PutFile{File: upload(1, "a", "k", 1)}, &storage.PutFile{File: upload(1, "b", "k", 1)})
	stop := errors.New("enough")
	calls := 0
	if err := r.Clients(t.Context(), func(storage.Client) error { calls++; return stop }); err != stop || calls != 1 {
		t.Errorf("Clients: %v after %d calls, want %v after 1", err, calls, stop)
	}
	calls = 0
	if err := r.Files(t.Context(), func(storage.File) error { calls++; return stop }); err != stop || calls != 1 {
		t.Errorf("Files: %v after %d calls, want %v after 1", err, calls, stop)
	}
}

func testClosed(t *testing.T, r storage.Registry) {
	apply(t, r, addClient(1, "anna"))
	if err := r.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := r.Apply(t.Context(), []storage.Operation{addClient(2, "ben")}); err == nil {
		t.Error("Apply after Close succeeded")
	}
	if err := r.Files(t.Context(), func(storage.File) error { return nil }); err == nil {
		t.Error("Files after Close succeeded")
	}
	if err := r.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func clients(t testing.TB, r storage.Registry) []storage.Client {
	t.Helper()
	var all []storage.Client
	if err := r.Clients(t.Context(), func(c storage.Client) error { all = append(all, c); return nil }); err != nil {
		t.Fatalf("Clients: %v", err)
	}
	return all
}

func files(t testing.TB, r storage.Registry) []storage.File {
	t.Helper()
	var all []storage.File
	if err := r.Files(t.Context(), func(f storage.File) error { all = append(all, f); return nil }); err != nil {
		t.Fatalf("Files: %v", err)
	}
	return all
}
