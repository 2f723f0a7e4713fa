package s3

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"testing"

	"sealift/internal/testservices"
	"sealift/storage"
)

// leases is what a registry would keep.
type leases struct {
	mu    sync.Mutex
	calls []string
	has   map[string]storage.Uploaded
	err   error
}

func (l *leases) options(t *testing.T) Options {
	l.has = make(map[string]storage.Uploaded)
	return Options{
		PartSize: minPart,
		Lease: func(_ context.Context, up storage.Uploaded) error {
			l.mu.Lock()
			defer l.mu.Unlock()
			if _, ok := l.has[up.Key]; ok {
				t.Error("a key is leased again")
			}
			l.calls = append(l.calls, "lease "+up.Path)
			if l.err == nil {
				l.has[up.Key] = up
			}
			return l.err
		},
		Release: func(_ context.Context, key string) error {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.calls = append(l.calls, "release "+l.has[key].Path)
			delete(l.has, key)
			return nil
		},
	}
}

func (l *leases) want(t *testing.T, when string, want ...string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.calls, want) {
		t.Errorf("%s: %q, want %q", when, l.calls, want)
	}
	l.calls = nil
}

// A lease comes before the first byte, once, and is given back with the content.
func TestLeases(t *testing.T) {
	b := testservices.S3(t)
	var l leases
	p := newProxy(t, b, nil)
	s := openAt(t, b.URLAt(p.URL, newPrefix()), b, l.options(t))
	p.set(func(_ int, r *http.Request) fault {
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			return pass
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.has) == 0 {
			t.Errorf("%s %s without a lease", r.Method, r.URL)
		}
		return pass
	})
	wantLeased := func(when string, n int) {
		t.Helper()
		if keys := s.Leased(); len(keys) != n {
			t.Errorf("%s: %d uploads want their leases renewed, want %d", when, len(keys), n)
		}
	}
	before := p.count()
	create(t, s, "never sent", content(1, 100)).close().discard()
	l.want(t, "never sent")
	if n := p.count() - before; n != 0 {
		t.Errorf("an upload of which nothing was sent costs %d requests:\n%s", n, p.last(before))
	}

	u := create(t, s, "small", content(1, 100))
	wantLeased("before the first byte", 0)
	u.complete(content(1, 100)).committed()
	l.want(t, "small", "lease small")
	wantLeased("completed", 0)
	u.discard().nothingLeft()
	l.want(t, "small, discarded", "release small")

	u = create(t, s, "large", content(1, 2*minPart+1))
	u.parts()
	wantLeased("on its way", 1)
	u.flush(minPart)
	wantLeased("flushed", 1)
	u.close()
	wantLeased("closed", 0)
	next := u.reopen(s, minPart)
	wantLeased("reopened", 1)
	l.want(t, "large", "lease large", "lease large")
	u.discard().nothingLeft()
	wantLeased("what was, discarded", 1)
	next.discard().nothingLeft()
	wantLeased("discarded", 0)
	l.want(t, "large, discarded", "release large", "release large")
}

// Without a lease nothing is sent, and an upload whose lease is lost ends.
func TestNoLease(t *testing.T) {
	b := testservices.S3(t)
	l := leases{err: storage.ErrNoLease}
	p := newProxy(t, b, nil)
	s := openAt(t, b.URLAt(p.URL, newPrefix()), b, l.options(t))
	before := p.count()
	for _, size := range []int{10, 2*minPart + 1} {
		u := create(t, s, "a", nil)
		_, err := u.in.Write(t.Context(), content(1, size))
		if errComplete := u.in.Complete(t.Context()); !errors.Is(errors.Join(err, errComplete), storage.ErrNoLease) {
			t.Errorf("%d bytes: Write: %v, Complete: %v, want ErrNoLease", size, err, errComplete)
		}
	}
	if n := p.count() - before; n != 0 {
		t.Errorf("%d requests without a lease:\n%s", n, p.last(before))
	}

	l.err = nil
	u := create(t, s, "a", content(1, 100)).flush(100)
	other := create(t, s, "b", content(1, 100)).flush(100)
	s.Lost([]string{u.up.Key, newKey()})
	if err := s.Flush(t.Context(), u.up, 100); !errors.Is(err, storage.ErrNoLease) {
		t.Errorf("Flush: %v, want ErrNoLease", err)
	}
	if _, err := u.in.Write(t.Context(), []byte("x")); !errors.Is(err, storage.ErrNoLease) {
		t.Errorf("Write: %v, want ErrNoLease", err)
	}
	if err := u.in.Complete(t.Context()); !errors.Is(err, storage.ErrNoLease) {
		t.Errorf("Complete: %v, want ErrNoLease", err)
	}
	other.complete(content(1, 100)).committed()
	s.Lost([]string{other.up.Key}) // it was completed meanwhile
	other.committed()

	l.err = storage.ErrNoLease
	next := u.reopen(s, 100) // sends nothing yet
	if err := next.in.Complete(t.Context()); !errors.Is(err, storage.ErrNoLease) {
		t.Errorf("Complete after Reopen: %v, want ErrNoLease", err)
	}
	l.err = nil
	whole := create(t, s, "c", content(1, 2*minPart)).complete(nil)
	l.err = storage.ErrNoLease
	if _, err := s.Reopen(t.Context(), whole.up, storage.Announced{}, minPart); !errors.Is(err, storage.ErrNoLease) {
		t.Errorf("Reopen that copies: %v, want ErrNoLease", err)
	}
}

// Discard leaves nothing of an upload, in whatever state it is.
func TestDiscard(t *testing.T) {
	b := testservices.S3(t)
	one, other := servers(t, b)
	data := content(1, 2*minPart+1)
	lost, whole, small := create(t, one, "a", data).flush(minPart+100), create(t, one, "a", data).complete(data), create(t, one, "a", data[:5]).complete(data[:5])
	was := []*upload{lost, whole, small} // which are reopened
	for name, u := range map[string]*upload{
		"open":                     create(t, one, "a", data).parts(),
		"flushed":                  create(t, one, "a", data).flush(10).flush(minPart + 100),
		"closed":                   create(t, one, "a", data).flush(minPart + 100).close(),
		"reopened elsewhere":       lost.reopen(other, minPart+100).write(data),
		"complete":                 create(t, one, "a", data).complete(data),
		"reopened after that":      whole.reopen(other, minPart),
		"small, and complete":      create(t, one, "a", data[:5]).complete(data[:5]),
		"small, and reopened":      small.reopen(one, 3),
		"nothing":                  create(t, one, "a", nil),
		"begun twice by one key":   {t: t, s: one, up: storage.Uploaded{Place: storage.Place{ID: alice, Path: "a"}, Key: newKey()}},
		"discarded by another one": create(t, one, "a", data).flush(minPart + 1),
	} {
		if name == "begun twice by one key" {
			for range 2 {
				if _, err := one.beginMultipart(t.Context(), u.object(), false); err != nil {
					t.Fatal(err)
				}
			}
		}
		if name == "discarded by another one" {
			if err := other.Discard(t.Context(), u.up); err != nil {
				t.Error(err)
			}
			if err := u.in.Complete(t.Context()); !errors.Is(err, storage.ErrSuperseded) && !errors.Is(err, storage.ErrNotStored) {
				t.Errorf("Complete of what was discarded: %v", err)
			}
		}
		u.discard().nothingLeft()
		if t.Failed() {
			t.Fatal(name)
		}
	}
	for _, u := range was {
		u.discard().nothingLeft()
	}
	if left := each(t, one); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
	if used := one.room.used; used != 0 {
		t.Errorf("%d blocks of the scratch file are in use", used)
	}
}
