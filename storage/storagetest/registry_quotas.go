package storagetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"sealift/codec"
	"sealift/storage"
)

// byClient is an operation that a client asks for.
var byClient = storage.Outcome{By: storage.OverChannel(nil)}

func offer(f storage.File, all storage.Quota) *storage.PutFile {
	return &storage.PutFile{Outcome: byClient, File: f, Quota: all}
}

func confirm(f storage.File) *storage.VerifyFile {
	return &storage.VerifyFile{Outcome: byClient, ID: f.ID, Path: f.Path, Incoming: f.Incoming}
}

func setQuota(n int, bytes, files int64) *storage.SetQuota {
	return &storage.SetQuota{Outcome: serverOwn(), ID: clientID(n), Bytes: &bytes, Files: &files}
}

// wantUsage checks what client n has by its count, and that the files add up to that.
func wantUsage(t testing.TB, r storage.Registry, n int, want storage.Usage) {
	t.Helper()
	get := &storage.GetUsage{Outcome: serverOwn(), ID: clientID(n), Recount: true}
	apply(t, r, get)
	if !get.Counted || get.Used != want || get.Actual != want {
		t.Errorf("client %d has %+v (counted: %v), and its files are %+v, want %+v", n, get.Used, get.Counted, get.Actual, want)
	}
}

func wantUncounted(t testing.TB, r storage.Registry, n int) {
	t.Helper()
	get := &storage.GetUsage{Outcome: serverOwn(), ID: clientID(n)}
	apply(t, r, get)
	if get.Counted || get.Used != (storage.Usage{}) {
		t.Errorf("client %d is counted, %+v, and has no quota", n, get.Used)
	}
}

// A file in the place of one of the same size needs no room for both, and two that wait
// may not exceed the quota together.
func testQuota(t *testing.T, r storage.Registry) {
	apply(t, r, addClient(1, "anna"), addClient(2, "ben"), setQuota(1, 100, 3))
	refused := func(f storage.File) {
		t.Helper()
		op := offer(f, storage.Quota{})
		tryApply(t, r, op)
		wantErr(t, op, storage.ErrQuota)
		if q := (*storage.QuotaError)(nil); !errors.As(op.Err, &q) || !q.Quota.Bounds() {
			t.Errorf("the error does not say by what: %v", op.Err)
		}
	}
	a := upload(1, "a", "k1", 60)
	apply(t, r, offer(a, storage.Quota{}), confirm(a))
	wantUsage(t, r, 1, storage.Usage{Bytes: 60, Files: 1})
	a2 := upload(1, "a", "k2", 60)
	apply(t, r, offer(a2, storage.Quota{}))
	wantUsage(t, r, 1, storage.Usage{Bytes: 60, Files: 1})
	refused(upload(1, "b", "k3", 41))
	b := upload(1, "b", "k3", 40)
	apply(t, r, offer(b, storage.Quota{}))
	wantUsage(t, r, 1, storage.Usage{Bytes: 100, Files: 2})
	refused(upload(1, "c", "k4", 1)) // a2 and b wait, and are as good as verified
	apply(t, r, confirm(a2))
	refused(upload(1, "a", "k5", 61))
	wantUsage(t, r, 1, storage.Usage{Bytes: 100, Files: 2})
	empty := upload(1, "c", "k6", 0)
	apply(t, r, offer(empty, storage.Quota{}))
	refused(upload(1, "d", "k7", 0)) // by the number of files
	small := upload(1, "a", "k8", 10)
	apply(t, r, offer(small, storage.Quota{}))
	wantUsage(t, r, 1, storage.Usage{Bytes: 100, Files: 3}) // until its verdict, which may not come
	refused(upload(1, "b", "k9", 41))
	apply(t, r, confirm(small))
	wantUsage(t, r, 1, storage.Usage{Bytes: 50, Files: 3})
	apply(t, r, &storage.DropFile{Outcome: byClient, ID: b.ID, Path: b.Path, Incoming: b.Incoming})
	wantUsage(t, r, 1, storage.Usage{Bytes: 10, Files: 2})
	part := &storage.PutPartial{Outcome: byClient, Partial: storage.Partial{
		ID: clientID(1), FileName: "p", Path: "p", Incoming: "k10", Total: 100, Length: 99, Changed: at(2), Generation: 1,
	}}
	apply(t, r, part)
	wantUsage(t, r, 1, storage.Usage{Bytes: 10, Files: 2}) // which a partial file adds nothing to
	refused(upload(1, "p", "k10", 100))
	get := &storage.GetFile{Outcome: serverOwn(), ID: clientID(1), Path: "p", WithPartial: true}
	apply(t, r, get)
	if get.Partial == nil {
		t.Error("the partial file went, and the whole one was refused")
	}
	other := upload(2, "a", "k1", 1<<40)
	apply(t, r, offer(other, storage.Quota{}), confirm(other))
	wantUncounted(t, r, 2)
	missing := offer(upload(3, "a", "k1", 1), storage.Quota{Bytes: 1})
	tryApply(t, r, missing, setQuota(3, 1, 1), &storage.GetUsage{Outcome: serverOwn(), ID: clientID(3)})
	wantErr(t, missing, storage.ErrNoClient)
}

// The quota of all clients stands for those that have none of their own, and what they
// have is counted from their next file on.
func testQuotaOfAll(t *testing.T, r storage.Registry) {
	apply(t, r, addClient(1, "anna"), addClient(2, "ben"))
	all := storage.Quota{Bytes: 100, Files: 2}
	for _, n := range []int{1, 2} {
		old, waits := upload(n, "old", "k1", 70), upload(n, "waits", "k2", 20)
		apply(t, r, offer(old, storage.Quota{}), confirm(old), offer(waits, storage.Quota{}))
		wantUncounted(t, r, n)
	}
	apply(t, r, setQuota(2, storage.Unlimited, 4))
	for _, tt := range []struct {
		f    storage.File
		want error
	}{
		{upload(1, "old", "k3", 81), storage.ErrQuota},
		{upload(1, "old", "k3", 80), nil},
		{upload(1, "third", "k4", 0), storage.ErrQuota},
		{upload(2, "old", "k3", 1000), nil},
		{upload(2, "third", "k4", 0), nil},
		{upload(2, "fourth", "k5", 0), nil},
		{upload(2, "fifth", "k6", 0), storage.ErrQuota},
	} {
		op := offer(tt.f, all)
		tryApply(t, r, op)
		wantErr(t, op, tt.want)
	}
	wantUsage(t, r, 1, storage.Usage{Bytes: 100, Files: 2})
	wantUsage(t, r, 2, storage.Usage{Bytes: 1020, Files: 4})
	// Lowered: what is there stays, and may be replaced by less.
	lower := storage.Quota{Bytes: 50, Files: 1}
	more, less := offer(upload(1, "old", "k7", 81), lower), offer(upload(1, "old", "k8", 5), lower)
	tryApply(t, r, more, less)
	wantErr(t, more, storage.ErrQuota)
	wantErr(t, less, nil)
	apply(t, r, confirm(less.File))
	wantUsage(t, r, 1, storage.Usage{Bytes: 25, Files: 2})
	apply(t, r, offer(upload(1, "old", "k9", 1000), storage.Quota{})) // the quota of all is gone
	wantUncounted(t, r, 1)
	own := offer(upload(1, "server", "k10", 1000), lower)
	own.Outcome = serverOwn()
	apply(t, r, own)
}

// A pinned or disabled client's quota is told to nobody else.
func testQuotaIsNotTold(t *testing.T, r storage.Registry) {
	apply(t, r, addClient(1, "anna"), setQuota(1, 1, 1), &storage.PinClient{Outcome: over(1), ID: clientID(1), TLSKey: key(1, 32)})
	big, usage := offer(upload(1, "a", "k1", 2), storage.Quota{}), &storage.GetUsage{Outcome: over(2), ID: clientID(1)}
	tryApply(t, r, big, usage)
	wantErr(t, big, storage.ErrPinned)
	wantErr(t, usage, storage.ErrPinned)
}

// The count follows whatever changes what is stored: random operations on few places.
func testQuotaCounts(t *testing.T, r storage.Registry) {
	rnd := rand.New(rand.NewPCG(1, 2))
	apply(t, r, addClient(1, "anna"), setQuota(1, 2000, 4))
	own := serverOwn()
	paths := []string{"a", "b", "d/c", "e", "f"}
	refused := 0
	for i := range 1500 {
		path := paths[rnd.IntN(len(paths))]
		get := &storage.GetFile{Outcome: own, ID: clientID(1), Path: path}
		tryApply(t, r, get)
		v, w := get.Verified, get.Unverified
		var op storage.Operation
		switch rnd.IntN(9) {
		case 0, 1, 2:
			op = offer(upload(1, path, fmt.Sprintf("k%d", i), int64(rnd.IntN(1000))), storage.Quota{})
		case 3, 4:
			if w != nil {
				done := confirm(*w)
				done.Missing = rnd.IntN(5) == 0
				op = done
			}
		case 5:
			if w != nil {
				op = &storage.DropFile{Outcome: byClient, ID: w.ID, Path: path, Incoming: w.Incoming}
			}
		case 6:
			if v != nil {
				op = &storage.MarkFile{Outcome: own, ID: v.ID, Path: path, Incoming: v.Incoming, Missing: !v.Missing}
			}
		case 7:
			if v != nil {
				op = &storage.ForgetFile{Outcome: own, ID: v.ID, Path: path, Incoming: v.Incoming}
			}
		case 8:
			if v != nil {
				op = &storage.TakeFile{Outcome: own, ID: v.ID, Path: path, Incoming: v.Incoming, Taken: at(i)}
				if rnd.IntN(2) == 0 {
					op = &storage.DeleteFile{Outcome: own, ID: v.ID, Path: path, Incoming: v.Incoming, Verified: true}
				}
			}
		}
		if op == nil {
			continue
		}
		before := usageOf(t, r)
		fits := true
		if p, ok := op.(*storage.PutFile); ok {
			more := usageAt(v, w).With(p.File.Size).Sub(usageAt(v, w))
			fits = (more.Bytes == 0 || before.Bytes+more.Bytes <= 2000) && (more.Files == 0 || before.Files+more.Files <= 4)
		}
		tryApply(t, r, op)
		if got := errors.Is(op.Result().Err, storage.ErrQuota); got == fits {
			t.Fatalf("%d: %+v by a client that has %+v: refused %v", i, op, before, got)
		}
		if !fits {
			refused++
		}
		wantUsage(t, r, 1, usageOf(t, r))
		if t.Failed() {
			t.Fatalf("%d: %+v", i, op)
		}
	}
	if refused < 10 {
		t.Errorf("%d files were refused", refused)
	}
}

// usageAt is what a place with these files counts as.
func usageAt(v, w *storage.File) (u storage.Usage) {
	for _, f := range []*storage.File{v, w} {
		if f != nil && !(f.Verified && f.Missing) {
			u = storage.Usage{Bytes: max(u.Bytes, f.Size), Files: 1}
		}
	}
	return u
}

// usageOf is what the files of client 1 add up to.
func usageOf(t testing.TB, r storage.Registry) (u storage.Usage) {
	at := make(map[string][]storage.File)
	for _, f := range files(t, r) {
		if f.ID == clientID(1) {
			at[f.Path] = append(at[f.Path], f)
		}
	}
	for _, fs := range at {
		u = u.Add(usageAt(&fs[0], &fs[len(fs)-1]))
	}
	return u
}

// 64 uploads at once, some to one place, never exceed the quota.
func testQuotaFromManySides(t *testing.T, r storage.Registry) {
	apply(t, r, addClient(1, "anna"))
	all := storage.Quota{Bytes: 1000, Files: 20}
	var g sync.WaitGroup
	var mu sync.Mutex
	let := 0
	for i := range 64 {
		g.Go(func() {
			for j := range 8 {
				f := upload(1, fmt.Sprintf("f%d", (i*8+j)%200), fmt.Sprintf("k%d-%d", i, j), int64(20+i))
				op := offer(f, all)
				done := confirm(f)
				if err := r.Apply(t.Context(), []storage.Operation{op}); err != nil {
					t.Error(err)
					return
				}
				if op.Err != nil && !errors.Is(op.Err, storage.ErrQuota) {
					t.Error(op.Err)
				}
				if op.Err == nil {
					mu.Lock()
					let++
					mu.Unlock()
					if err := r.Apply(t.Context(), []storage.Operation{done}); err != nil {
						t.Error(err)
					}
				}
				get := &storage.GetUsage{Outcome: serverOwn(), ID: clientID(1), Recount: true}
				if err := r.Apply(t.Context(), []storage.Operation{get}); err != nil || get.Err != nil {
					t.Error(err, get.Err)
				}
				if u := get.Actual; u.Bytes > all.Bytes || u.Files > all.Files {
					t.Errorf("the client has %+v", u)
				}
			}
		})
	}
	g.Wait()
	wantUsage(t, r, 1, usageOf(t, r))
	if u := usageOf(t, r); let < 10 || u.Bytes < all.Bytes/2 && u.Files < all.Files/2 {
		t.Errorf("%d files were let in, %+v", let, u)
	}
}

func testRetention(t *testing.T, r storage.Registry) {
	apply(t, r, addClient(1, "anna"), addClient(2, "ben"),
		&storage.SetKeepFor{Outcome: serverOwn(), ID: clientID(1), KeepFor: 36 * time.Hour},
		&storage.SetKeepFor{Outcome: serverOwn(), ID: clientID(2), KeepFor: storage.Unlimited},
		&storage.SetExpires{Outcome: serverOwn(), ID: clientID(1), Expires: at(9)},
		setQuota(2, 5, 0))
	got := clients(t, r)
	slices.SortFunc(got, func(a, b storage.Client) int { return int(a.ID[15]) - int(b.ID[15]) })
	if a, b := got[0], got[1]; a.KeepFor != 36*time.Hour || !a.Expires.Equal(at(9)) || a.Quota != (storage.Quota{}) ||
		b.KeepFor != storage.Unlimited || !b.Expires.IsZero() || b.Quota != (storage.Quota{Bytes: 5}) {
		t.Errorf("the clients are %+v", got)
	}
	apply(t, r, &storage.SetKeepFor{Outcome: serverOwn(), ID: clientID(1)}, &storage.SetExpires{Outcome: serverOwn(), ID: clientID(1)})
	if a := getClient(t, r, 1); a.KeepFor != 0 || !a.Expires.IsZero() {
		t.Errorf("the client is %+v", a)
	}
	for _, n := range []int{1, 2} {
		apply(t, r, &storage.SetExpires{Outcome: serverOwn(), ID: clientID(n), Expires: at(10 * n)})
	}
	for _, x := range []struct {
		now  int
		want []codec.ClientID
	}{{9, nil}, {10, []codec.ClientID{clientID(1)}}, {30, []codec.ClientID{clientID(1), clientID(2)}}} {
		find := &storage.FindExpired{Outcome: storage.Outcome{By: storage.Server}, Now: at(x.now)}
		apply(t, r, find)
		slices.SortFunc(find.IDs, func(a, b codec.ClientID) int { return int(a[15]) - int(b[15]) })
		if !slices.Equal(find.IDs, x.want) {
			t.Errorf("at %d the time of %v is over, want %v", x.now, find.IDs, x.want)
		}
	}
	early := &storage.ExpireClient{Outcome: serverOwn(), ID: clientID(1), Now: at(9)}
	due := &storage.ExpireClient{Outcome: serverOwn(), ID: clientID(1), Now: at(10)}
	again := &storage.ExpireClient{Outcome: serverOwn(), ID: clientID(1), Now: at(11)}
	tryApply(t, r, early, due, again)
	wantErr(t, early, storage.ErrNoClient)
	wantErr(t, due, nil)
	wantErr(t, again, storage.ErrNoClient)
	get := &storage.GetClient{Outcome: serverOwn(), ID: clientID(1)}
	apply(t, r, get)
	if !get.Client.Disabled || !get.Client.Expires.IsZero() {
		t.Errorf("the client is %+v", get.Client)
	}
	none := &storage.SetKeepFor{Outcome: serverOwn(), ID: clientID(3)}
	never := &storage.SetExpires{Outcome: serverOwn(), ID: clientID(3)}
	tryApply(t, r, none, never)
	wantErr(t, none, storage.ErrNoClient)
	wantErr(t, never, storage.ErrNoClient)
}
