package audit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/storage"
	"sealift/storage/audit"
)

const boot = "this boot"

// keep records a partial file whose content is content, of which the first length bytes are
// certain.
func (w *world) keep(id codec.ClientID, path, content string, length int, changed time.Time) storage.Partial {
	w.t.Helper()
	h := cksum.New()
	h.Write([]byte(content)[:length])
	p := storage.Partial{
		ID: id, FileName: path, Path: path, Incoming: w.receive(content), Total: 1000, Length: int64(length), State: h.State(),
		Boot: boot, Generation: 1, Changed: changed,
	}
	w.apply(&storage.PutPartial{Partial: p})
	return p
}

// wantPartials checks which partial files there are, by path, and that each has its content
// and no content is left of others.
func (w *world) wantPartials(want ...string) {
	w.t.Helper()
	var got []string
	keys := make(map[string]bool)
	err := w.reg.Partials(w.t.Context(), func(p storage.Partial) error {
		got = append(got, p.Path)
		keys[p.Incoming] = true
		return nil
	})
	slices.Sort(got)
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) {
		w.t.Errorf("%v, partial files %q, want %q", err, got, want)
	}
	err = w.EachIncoming(w.t.Context(), func(up storage.Uploaded) error {
		if !keys[up.Key] {
			w.t.Errorf("the content %s is left over", up.Key)
		}
		delete(keys, up.Key)
		return nil
	})
	if err != nil || len(keys) > 0 {
		w.t.Errorf("%v, content %v is gone", err, slices.Collect(maps.Keys(keys)))
	}
}

func (w *world) content(p storage.Partial) string {
	w.t.Helper()
	r, err := w.Open(w.t.Context(), p.Uploaded())
	if err != nil {
		w.t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

// A start keeps partial files, and drops those that are no use.
func TestRecoverPartials(t *testing.T) {
	w := newWorld(t)
	fine := w.keep(alice, "fine", "0123456789", 4, now)
	w.keep(alice, "never synced", "0123456789", 0, now)
	w.keep(alice, "shorter", "0123456789", 10, now)
	gone := w.keep(alice, "gone", "0123456789", 0, now)
	deleted := w.keep(alice, "deleted", "0123456789", 4, now)
	w.apply(&storage.DeletePartial{ID: alice, Path: "deleted", Incoming: deleted.Incoming})
	w.receive("an orphan")
	if err := w.Discard(t.Context(), gone.Uploaded()); err != nil {
		t.Fatal(err)
	}
	w.truncate("shorter", 9)
	w.recover(audit.Report{audit.PartialSpoilt: 2, audit.PartialDeleted: 1, audit.Orphan: 1})
	w.wantPartials("fine", "never synced")
	if got := w.content(fine); got != "0123456789" {
		t.Errorf("the content is %q: what is behind Length may be of use", got)
	}
}

// truncate cuts the content of a partial file behind the store's back.
func (w *world) truncate(path string, size int64) {
	w.t.Helper()
	key := w.partial(path).Incoming
	if err := os.Truncate(w.incomingFile(key), size); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) partial(path string) *storage.Partial {
	w.t.Helper()
	get := &storage.GetFile{ID: alice, Path: path, WithPartial: true}
	w.apply(get)
	return get.Partial
}

// Where rows cannot be understood, no content goes that they may be about.
func TestRecoverPartialsBesideBadRows(t *testing.T) {
	w := newWorld(t)
	w.keep(alice, "fine", "0123456789", 4, now)
	orphan := w.receive("perhaps of a row that is spoilt")
	w.reg = badPartials{w.reg}
	w.recover(audit.Report{audit.BadRows: 1})
	if _, err := w.Size(t.Context(), storage.Uploaded{Key: orphan}); err != nil {
		t.Errorf("content that a spoilt row may be about: %v", err)
	}
}

// What another boot has left counts once it was read, and as far as it was synced.
func TestCheckPartials(t *testing.T) {
	w := newWorld(t)
	o := audit.PartialOptions{Boot: "the next boot", Now: now, Exclusive: func(_ codec.ClientID, _ string, do func()) { do() }}
	var events []string
	o.Log = func(f audit.Finding) { events = append(events, f.File.Path+": "+string(f.Event)) }
	fine := w.keep(alice, "fine", "0123456789", 4, now)
	w.keep(alice, "spoilt", "0123456789", 4, now)
	w.keep(alice, "never synced", "0123456789", 0, now)
	alive := w.keep(alice, "alive", "0123456789", 4, now)
	o.Alive = func(key string) bool { return key == alive.Incoming }
	b := []byte("0x23456789")
	if err := os.WriteFile(w.incomingFile(w.partial("spoilt").Incoming), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := audit.CheckPartials(t.Context(), w.reg, w.Store, o); err != nil {
		t.Fatal(err)
	}
	w.wantPartials("fine", "alive")
	want := []string{"never synced: " + string(audit.PartialSpoilt), "spoilt: " + string(audit.PartialSpoilt)}
	if slices.Sort(events); !slices.Equal(events, want) {
		t.Errorf("found %q, want %q", events, want)
	}
	fine.Boot = o.Boot
	if got := w.partial("fine"); *got != fine {
		t.Errorf("on record %+v, want %+v", got, fine)
	}
	if got := w.content(fine); got != "0123" {
		t.Errorf("the content is %q, want what was synced", got)
	}
	if got := w.partial("alive"); *got != alive {
		t.Errorf("on record %+v, want %+v", got, alive)
	}
}

// Whatever comes for a partial file while it is read, it has the last word.
func TestCheckPartialsBesideAClient(t *testing.T) {
	for name, meanwhile := range map[string]func(w *world, p storage.Partial){
		"a 1032": func(w *world, p storage.Partial) {
			w.apply(&storage.ContinueFile{ID: p.ID, Path: p.Path, Incoming: p.Incoming, Changed: p.Changed})
		},
		"a new upload": func(w *world, p storage.Partial) {
			q := p
			q.Incoming, q.Length = w.receive("another"), 7
			w.apply(&storage.PutPartial{Partial: q})
			w.apply(&storage.Seen{ID: alice})
		},
		"a file": func(w *world, p storage.Partial) { w.put(w.receive("another"), p.Path, "another") },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			p := w.keep(alice, "a", "0123456789", 4, now)
			o := audit.PartialOptions{Boot: "the next boot", Now: now}
			var after storage.GetFile
			o.Exclusive = func(_ codec.ClientID, _ string, do func()) {
				meanwhile(w, p)
				get := &storage.GetFile{ID: alice, Path: "a", WithPartial: true}
				w.apply(get)
				after = *get
				do()
			}
			if err := audit.CheckPartials(t.Context(), w.reg, w.Store, o); err != nil {
				t.Fatal(err)
			}
			get := &storage.GetFile{ID: alice, Path: "a", WithPartial: true}
			w.apply(get)
			if fmt.Sprintf("%+v %+v", get.Partial, get.Unverified) != fmt.Sprintf("%+v %+v", after.Partial, after.Unverified) {
				t.Errorf("on record %+v, %+v,\nwant %+v, %+v", get.Partial, get.Unverified, after.Partial, after.Unverified)
			}
			if got := w.content(p); got != "0123456789" {
				t.Errorf("the content is %q, want it left alone", got)
			}
		})
	}
}

// Too old ones go, then the oldest while there are too many, but none that is alive, and not
// the newest of a client.
func TestSweepPartials(t *testing.T) {
	bob := codec.ClientID{0xb0, 0xb0}
	at := func(n int) time.Time { return now.Add(time.Duration(n) * time.Minute) }
	content := strings.Repeat("x", 100)
	for name, c := range map[string]struct {
		o    audit.PartialOptions
		want []string
		left int64
	}{
		"nothing to do": {audit.PartialOptions{Budget: 500, PerClient: 4, TTL: time.Hour, Now: at(9)}, []string{"a1", "a2", "a3", "a4", "b0"}, 500},
		"no bounds":     {audit.PartialOptions{Now: at(1e6)}, []string{"a1", "a2", "a3", "a4", "b0"}, 500},
		"time":          {audit.PartialOptions{TTL: 6 * time.Minute, Now: at(9)}, []string{"a2", "a3", "a4"}, 300},
		"all are old":   {audit.PartialOptions{TTL: time.Minute, Now: at(1000)}, []string{"a2"}, 100},
		"a number":      {audit.PartialOptions{PerClient: 2, Now: at(9)}, []string{"a2", "a4", "b0"}, 300},
		"a budget":      {audit.PartialOptions{Budget: 499, Now: at(9)}, []string{"a2", "a3", "a4", "b0"}, 400},
		"no room":       {audit.PartialOptions{Budget: 1, Now: at(9)}, []string{"a2", "a4", "b0"}, 300},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.apply(&storage.AddClient{ID: bob, Name: "bob"})
			w.keep(bob, "b0", content, 100, at(0)) // the oldest of all
			var alive string
			for i := 1; i <= 4; i++ {
				p := w.keep(alice, fmt.Sprint("a", i), content, 100, at(i))
				if i == 2 {
					alive = p.Incoming
				}
			}
			c.o.Alive = func(key string) bool { return key == alive }
			left, err := audit.SweepPartials(t.Context(), w.reg, w.Store, c.o)
			if err != nil || left != (audit.Partials{Files: len(c.want), Bytes: c.left}) {
				t.Errorf("%+v, %v", left, err)
			}
			w.wantPartials(c.want...)
		})
	}
}

// A partial file that was deleted goes, with its content, unless that belongs to a transfer
// under way: it may be recorded anew.
func TestSweepDeletedPartials(t *testing.T) {
	w := newWorld(t)
	var keys []string
	for _, path := range []string{"alive", "deleted"} {
		p := w.keep(alice, path, "0123456789", 4, now)
		w.apply(&storage.DeletePartial{ID: alice, Path: path, Incoming: p.Incoming})
		keys = append(keys, p.Incoming)
	}
	w.keep(alice, "stays", "0123456789", 4, now)
	o := audit.PartialOptions{Now: now, Alive: func(key string) bool { return key == keys[0] }}
	if _, err := audit.SweepPartials(t.Context(), w.reg, w.Store, o); err != nil {
		t.Fatal(err)
	}
	for i, want := range []error{nil, storage.ErrNotStored} {
		if _, err := w.Size(t.Context(), storage.Uploaded{Key: keys[i]}); !errors.Is(err, want) {
			t.Errorf("content %d: %v, want %v", i, err, want)
		}
	}
	if w.Discard(t.Context(), storage.Uploaded{Key: keys[0]}) != nil {
		t.Error("no content")
	}
	w.wantPartials("stays")
}

// One that a 1032 was for between the look and the removal stays.
func TestSweepBesideAClient(t *testing.T) {
	w := newWorld(t)
	p := w.keep(alice, "a", "0123456789", 4, now)
	o := audit.PartialOptions{TTL: time.Minute, Now: now.Add(time.Hour)}
	o.Alive = func(string) bool {
		w.apply(&storage.ContinueFile{ID: p.ID, Path: p.Path, Incoming: p.Incoming, Changed: o.Now})
		return false
	}
	if left, err := audit.SweepPartials(t.Context(), w.reg, w.Store, o); err != nil || left.Files != 1 {
		t.Errorf("%+v, %v", left, err)
	}
	w.wantPartials("a")
}

// badPartials has a row that cannot be understood.
type badPartials struct{ storage.Registry }

func (b badPartials) Partials(ctx context.Context, yield func(storage.Partial) error) error {
	return errors.Join(b.Registry.Partials(ctx, yield), storage.ErrBadRows)
}

// Of 10,000 partial files of one client all but the 16 newest go.
func TestSweepOfMany(t *testing.T) {
	w := newWorld(t)
	const n = 10_000
	key := w.receive("x")
	batch := make([]storage.Operation, 0, n)
	for i := range n {
		p := storage.Partial{
			ID: alice, FileName: "a", Path: fmt.Sprint("a", i), Incoming: fmt.Sprint(key, i), Total: 9, Length: 1, Boot: boot,
			Generation: 1, Changed: now.Add(time.Duration(i)),
		}
		batch = append(batch, &storage.PutPartial{Outcome: storage.Outcome{By: storage.Server}, Partial: p})
	}
	if err := w.reg.Apply(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	left, err := audit.SweepPartials(t.Context(), w.reg, w.Store, audit.PartialOptions{PerClient: 16, Now: now})
	if err != nil || left != (audit.Partials{Files: 16, Bytes: 16}) {
		t.Errorf("%+v, %v", left, err)
	}
	for i := range n {
		get := &storage.GetFile{Outcome: storage.Outcome{By: storage.Server}, ID: alice, Path: fmt.Sprint("a", i), WithPartial: true}
		if err := w.reg.Apply(t.Context(), []storage.Operation{get}); err != nil || (get.Partial != nil) != (i >= n-16) {
			t.Fatalf("the partial file %d: %+v, %v", i, get.Partial, err)
		}
	}
}
