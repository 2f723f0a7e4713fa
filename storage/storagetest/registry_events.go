package storagetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"sealift/storage"
)

func listEvents(t testing.TB, r storage.Registry) []storage.Event {
	t.Helper()
	var all []storage.Event
	if err := r.ListEvents(t.Context(), func(e storage.Event) error { all = append(all, e); return nil }); err != nil {
		t.Fatalf("ListEvents: %v", err)
	}
	return all
}

func setTargets(t testing.TB, r storage.Registry, targets ...string) {
	t.Helper()
	if err := r.SetTargets(t.Context(), targets); err != nil {
		t.Fatalf("SetTargets: %v", err)
	}
}

// inShort is an event in a few words.
func inShort(e *storage.Event) string {
	s := fmt.Sprint(e.Target, " ", e.Kind)
	if e.Why != "" {
		s += " " + string(e.Why)
	}
	s += " " + e.ClientName
	if e.Path != "" {
		s += fmt.Sprintf(" %s %s %d", e.Path, e.Version, e.Size)
	}
	return s
}

// wantEvents checks which events are on record, and drops them.
func wantEvents(t testing.TB, r storage.Registry, want ...string) {
	t.Helper()
	var got []string
	for _, e := range listEvents(t, r) {
		got = append(got, inShort(&e))
	}
	if !slices.Equal(got, want) {
		t.Errorf("events\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
	apply(t, r, &storage.DropEvents{Outcome: storage.Outcome{By: storage.Server}})
	if left := listEvents(t, r); len(left) > 0 {
		t.Errorf("after all were dropped: %+v", left)
	}
}

func recorded(r storage.Registry) bool {
	select {
	case <-r.Recorded():
		return true
	default:
		return false
	}
}

// Each operation that changes something records its events, once it has succeeded.
func testEventsOfOperations(t *testing.T, r storage.Registry) {
	own := storage.Outcome{By: storage.Server}
	id := clientID(1)
	apply(t, r, addClient(2, "ben"), &storage.PutFile{File: upload(2, "a", "k1", 1)})
	if recorded(r) {
		t.Error("something was recorded for no target")
	}
	wantEvents(t, r)

	setTargets(t, r, "x")
	apply(t, r, addClient(1, "anna"))
	if !recorded(r) {
		t.Error("Recorded does not say that an event was")
	}
	wantEvents(t, r, "x registered anna")
	if recorded(r) {
		t.Error("Recorded says that an event was, and events were dropped")
	}

	apply(t, r, &storage.PutFile{File: upload(1, "a", "k1", 1)}, &storage.PutFile{File: upload(1, "a", "k2", 2)},
		&storage.VerifyFile{ID: id, Path: "a", Incoming: "k2"})
	wantEvents(t, r, "x received anna a k1 1", "x rejected replaced anna a k1 1", "x received anna a k2 2", "x verified anna a k2 2")

	why := func(key string, why storage.Why) *storage.DropFile {
		return &storage.DropFile{ID: id, Path: "a", Incoming: key, Why: why}
	}
	for i, tt := range []struct {
		why  storage.Why
		want string
	}{
		{storage.WhyMismatch, "x rejected mismatch"}, {storage.WhyGivenUp, "x rejected given_up"}, {storage.WhySpoilt, "x rejected spoilt"},
		{storage.WhyNoVerdict, "x expired no_verdict"}, {storage.WhyDeleted, "x removed deleted"},
	} {
		key := fmt.Sprint("d", i)
		apply(t, r, &storage.PutFile{File: upload(1, "a", key, 3)}, &storage.DropEvents{Outcome: own}, why(key, tt.why))
		wantEvents(t, r, tt.want+" anna a "+key+" 3")
	}

	mark := func(missing bool) *storage.MarkFile {
		return &storage.MarkFile{ID: id, Path: "a", Incoming: "k2", Missing: missing}
	}
	apply(t, r, mark(true), mark(true), mark(false), mark(false))
	wantEvents(t, r, "x removed missing anna a k2 2", "x verified found_again anna a k2 2")
	apply(t, r, &storage.TakeFile{ID: id, Path: "a", Incoming: "k2", Taken: at(1)})
	wantEvents(t, r)
	apply(t, r, mark(true), &storage.ForgetFile{ID: id, Path: "a", Incoming: "k2"})
	wantEvents(t, r, "x removed taken anna a k2 2")

	apply(t, r, &storage.PutFile{File: upload(1, "b", "k3", 4)}, &storage.VerifyFile{ID: id, Path: "b", Incoming: "k3"},
		&storage.DropEvents{Outcome: own}, &storage.DeleteFile{ID: id, Path: "b", Incoming: "k3", Verified: true})
	wantEvents(t, r)
	apply(t, r, &storage.ForgetFile{ID: id, Path: "b", Incoming: "k3"})
	wantEvents(t, r, "x removed deleted anna b k3 4")

	apply(t, r, &storage.PutFile{File: upload(1, "c", "k4", 5)}, &storage.DropEvents{Outcome: own},
		&storage.VerifyFile{ID: id, Path: "c", Incoming: "k4", Missing: true})
	wantEvents(t, r, "x rejected not_durable anna c k4 5")
	apply(t, r, &storage.MarkFile{ID: id, Path: "c", Incoming: "k4"})
	wantEvents(t, r, "x verified found_again anna c k4 5")
	apply(t, r, &storage.MarkFile{ID: id, Path: "c", Incoming: "k4", Missing: true}, &storage.ForgetFile{ID: id, Path: "c", Incoming: "k4"},
		&storage.DropEvents{Outcome: own})

	apply(t, r, &storage.RaiseEvent{Outcome: own, Event: storage.Event{Kind: storage.EventQuota, Why: "bytes", Client: id, Path: "d", Size: 7}})
	wantEvents(t, r, "x quota bytes anna d  7")
	apply(t, r, &storage.DropClient{Outcome: own, ID: id})
	wantEvents(t, r, "x removed deleted anna")
	apply(t, r, addClient(3, "carl"), &storage.DropEvents{Outcome: own}, &storage.DropKeyless{Outcome: own, ID: clientID(3), Before: at(1)})
	wantEvents(t, r, "x expired no_key carl")
}

// What an event says of a file is what was on record.
func testEventIsWhole(t *testing.T, r storage.Registry) {
	setTargets(t, r, "x")
	f := upload(1, "docs/ü \u5c65.txt", "k1", 1<<40)
	f.FileName, f.Cksum = `docs\ü `+"\u5c65.txt", 1<<31+5
	before := time.Now().Add(-time.Second)
	apply(t, r, addClient(1, "anna \"\n\U0001f600"), &storage.PutFile{File: f},
		&storage.VerifyFile{ID: f.ID, Path: f.Path, Incoming: "k1"})
	all := listEvents(t, r)
	if len(all) != 3 {
		t.Fatalf("%d events, want 3", len(all))
	}
	ids := make(map[string]bool)
	for i, e := range all {
		if e.ID == "" || ids[e.ID] {
			t.Errorf("event %d has the id %q", i, e.ID)
		}
		ids[e.ID] = true
		if e.Happened.Before(before) || e.Happened.After(time.Now().Add(time.Second)) {
			t.Errorf("event %d happened %v", i, e.Happened)
		}
		want := storage.Event{
			Seq: e.Seq, Target: "x", ID: e.ID, Kind: []storage.EventKind{storage.EventRegistered, storage.EventReceived, storage.EventVerified}[i],
			Happened: e.Happened, Client: f.ID, ClientName: "anna \"\n\U0001f600", Behind: i > 0,
		}
		if i > 0 {
			want = want.About(&f)
		}
		if e != want {
			t.Errorf("event %+v\nwant %+v", e, want)
		}
	}
}

// An operation that is refused, and a batch that fails, record nothing.
func testRefusedRecordsNothing(t *testing.T, r storage.Registry) {
	setTargets(t, r, "x")
	own := storage.Outcome{By: storage.Server}
	apply(t, r, addClient(1, "anna"), &storage.PutFile{File: upload(1, "a", "k1", 1)},
		&storage.DisableClient{Outcome: own, ID: clientID(1), Disabled: true}, &storage.DropEvents{Outcome: own})
	id := clientID(1)
	ops := []storage.Operation{
		addClient(2, "anna"), addClient(1, "ben"),
		&storage.PutFile{File: upload(1, "a", "k2", 1)}, &storage.PutFile{File: upload(1, "b", "k2", 1)}, &storage.PutFile{File: upload(9, "b", "k2", 1)},
		&storage.VerifyFile{ID: id, Path: "a", Incoming: "k1"}, &storage.VerifyFile{Outcome: own, ID: id, Path: "a", Incoming: "other"},
		&storage.DropFile{ID: id, Path: "a", Incoming: "k1"}, &storage.DropFile{Outcome: own, ID: id, Path: "a", Incoming: "other"},
		&storage.MarkFile{ID: id, Path: "a", Incoming: "k1", Missing: true}, &storage.ForgetFile{ID: id, Path: "a", Incoming: "k1"},
		&storage.DropClient{Outcome: own, ID: id}, &storage.DropKeyless{Outcome: own, ID: id, Before: at(9)},
		&storage.RaiseEvent{Outcome: own, Event: storage.Event{Kind: storage.EventQuota, Client: clientID(9)}},
	}
	tryApply(t, r, ops...)
	for i, op := range ops {
		if op.Result().Err == nil {
			t.Errorf("operation %d, %T, was not refused", i, op)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Apply(ctx, []storage.Operation{addClient(5, "eve")}); err == nil {
		t.Error("a batch with an ended context succeeded")
	}
	wantEvents(t, r)
}

func next(t testing.TB, r storage.Registry, target string) (all []string) {
	t.Helper()
	due, err := r.NextEvents(t.Context(), target, 100)
	if err != nil {
		t.Fatalf("NextEvents: %v", err)
	}
	for _, e := range due {
		all = append(all, inShort(&e))
	}
	return all
}

func wantNext(t testing.TB, r storage.Registry, target string, want ...string) {
	t.Helper()
	if got := next(t, r, target); !slices.Equal(got, want) {
		t.Errorf("next for %s: %q, want %q", target, got, want)
	}
}

// Of each client the first event that waits is next, for each target by itself, those that
// are due first in front.
func testEventsInOrder(t *testing.T, r storage.Registry) {
	setTargets(t, r, "x", "y")
	own := storage.Outcome{By: storage.Server}
	apply(t, r, addClient(1, "anna"), addClient(2, "ben"), &storage.PutFile{File: upload(1, "a", "k1", 1)},
		&storage.VerifyFile{ID: clientID(1), Path: "a", Incoming: "k1"})
	first, err := r.NextEvents(t.Context(), "x", 100)
	if err != nil || len(first) != 2 || !first[0].Due.IsZero() {
		t.Fatalf("next: %+v, %v", first, err)
	}
	if one, err := r.NextEvents(t.Context(), "x", 1); err != nil || len(one) != 1 || one[0].Seq != first[0].Seq {
		t.Errorf("of one: %+v, %v", one, err)
	}
	anna := &storage.EventTold{Outcome: own, Event: first[0]}
	apply(t, r, anna)
	wantNext(t, r, "x", "x registered ben", "x received anna a k1 1")
	wantNext(t, r, "y", "y registered anna", "y registered ben")
	again := &storage.EventTold{Outcome: own, Event: first[0]}
	tryApply(t, r, again)
	wantErr(t, again, storage.ErrNoEvent)

	// One that is put off comes after those that are due, and keeps its place before
	// what its client did later.
	apply(t, r, &storage.PostponeEvent{Outcome: own, Seq: first[1].Seq, Due: at(60), Failure: "no answer"})
	wantNext(t, r, "x", "x received anna a k1 1", "x registered ben")
	apply(t, r, &storage.PutFile{File: upload(2, "a", "k1", 1)})
	wantNext(t, r, "x", "x received anna a k1 1", "x registered ben")
	put, err := r.NextEvents(t.Context(), "x", 100)
	if err != nil || put[1].Attempts != 1 || put[1].Failure != "no answer" || !put[1].Due.Equal(at(60)) || put[1].Behind {
		t.Errorf("put off: %+v, %v", put, err)
	}
	retry := &storage.RetryEvents{Outcome: own, Chosen: storage.Chosen{Target: "x"}}
	apply(t, r, retry)
	wantNext(t, r, "x", "x registered ben", "x received anna a k1 1")
	if retry.Retried != 1 {
		t.Errorf("%d were made due, want 1", retry.Retried)
	}
	stale := &storage.PostponeEvent{Outcome: own, Seq: first[0].Seq, Due: at(60)}
	tryApply(t, r, stale)
	wantErr(t, stale, storage.ErrNoEvent)

	if all, err := r.Backlogs(t.Context()); err != nil || len(all) != 2 || all[0].Target != "x" || all[0].Events != 4 || all[1].Events != 5 ||
		!all[0].Oldest.Equal(first[1].Happened) {
		t.Errorf("waiting: %+v, %v", all, err)
	}
	// Of a target that is none any more nothing is lost, and nothing comes.
	setTargets(t, r, "y")
	apply(t, r, addClient(3, "carl"))
	wantNext(t, r, "x", "x registered ben", "x received anna a k1 1")
	wantNext(t, r, "y", "y registered anna", "y registered ben", "y registered carl")
}

// An event that comes from another registry is told as it is, once, and in its order.
func testRestoreEvent(t *testing.T, r storage.Registry) {
	own := storage.Outcome{By: storage.Server}
	at := time.Date(2026, 11, 29, 7, 0, 0, 0, time.UTC)
	event := func(id, path string) *storage.RestoreEvent {
		return &storage.RestoreEvent{Outcome: own, Event: storage.Event{
			Seq: 77, Target: "command", ID: id, Kind: storage.EventVerified, Why: storage.WhyFoundAgain, Happened: at,
			Client: clientID(1), ClientName: "Ada", FileName: "X/" + path, Path: path, Version: "v", Size: 3, Cksum: 4,
			Attempts: 2, Failure: "status 3", Due: at.Add(time.Hour), Behind: true,
		}}
	}
	other := event("e3", "c")
	other.Event.Target = "url"
	apply(t, r, event("e2", "b"), event("e1", "a"), other) // no target is set, and no client is on record
	apply(t, r, event("e2", "b"), event("e1", "a"))
	wantNext(t, r, "command", "command verified found_again Ada b v 3")
	wantNext(t, r, "url", "url verified found_again Ada c v 3")
	all := listEvents(t, r)
	if len(all) != 3 {
		t.Fatalf("%+v", all)
	}
	want := event("e2", "b").Event
	want.Seq, want.Due, want.Behind = all[0].Seq, time.Time{}, false
	if all[0] != want {
		t.Errorf("%+v, want %+v", all[0], want)
	}
	if !all[1].Behind || all[1].ID != "e1" || all[1].Seq <= all[0].Seq {
		t.Errorf("%+v: not behind the one that was restored before it", all[1])
	}
}

func testDropEvents(t *testing.T, r storage.Registry) {
	setTargets(t, r, "x", "y")
	own := storage.Outcome{By: storage.Server}
	apply(t, r, addClient(1, "anna"), addClient(2, "ben"), &storage.PutFile{File: upload(1, "a", "k1", 1)},
		&storage.VerifyFile{ID: clientID(1), Path: "a", Incoming: "k1"})
	all := listEvents(t, r)
	drop := func(want int, op storage.DropEvents) {
		t.Helper()
		op.Outcome = own
		apply(t, r, &op)
		if op.Dropped != want {
			t.Errorf("%d dropped, want %d", op.Dropped, want)
		}
	}
	drop(0, storage.DropEvents{Before: all[0].Happened})
	drop(0, storage.DropEvents{Chosen: storage.Chosen{Target: "z"}})
	drop(0, storage.DropEvents{Chosen: storage.Chosen{Target: "x"}, Keep: 4})
	drop(1, storage.DropEvents{Chosen: storage.Chosen{Target: "x"}, Keep: 3})
	wantNext(t, r, "x", "x registered ben", "x received anna a k1 1")
	drop(2, storage.DropEvents{Chosen: storage.Chosen{EventID: all[len(all)-1].ID}}) // of both targets
	drop(1, storage.DropEvents{Chosen: storage.Chosen{Target: "y", EventID: all[0].ID}})
	wantNext(t, r, "y", "y registered ben", "y received anna a k1 1")
	drop(4, storage.DropEvents{Before: time.Now().Add(time.Hour)})
	apply(t, r, addClient(3, "carl"))
	wantNext(t, r, "x", "x registered carl")
	apply(t, r, &storage.PutFile{File: upload(1, "b", "k2", 1)}) // it is behind none of those that went
	wantNext(t, r, "x", "x registered carl", "x received anna b k2 1")
}

// place names a file by its client's id and its path.
type eventPlace struct{ client, path string }

// Replay goes through the events for a target from the first one on, and returns an error
// unless they make what is on record. None may have been told or dropped.
func Replay(ctx context.Context, r storage.Registry, target string) error {
	verified, waiting := make(map[eventPlace]storage.Event), make(map[eventPlace]storage.Event)
	clients := make(map[string]bool)
	err := r.ListEvents(ctx, func(e storage.Event) error {
		if e.Target != target {
			return nil
		}
		at := eventPlace{e.Client.String(), e.Path}
		isWaiting := waiting[at].Version == e.Version && e.Path != ""
		switch e.Kind {
		case storage.EventRegistered:
			clients[at.client] = true
		case storage.EventReceived:
			waiting[at] = e
		case storage.EventVerified:
			if e.Why != storage.WhyFoundAgain && !isWaiting {
				return fmt.Errorf("%s was not received before", inShort(&e))
			}
			if isWaiting {
				delete(waiting, at)
			}
			verified[at] = e
		case storage.EventRejected, storage.EventExpired, storage.EventRemoved:
			switch {
			case e.Path == "":
				delete(clients, at.client)
			case isWaiting:
				delete(waiting, at)
				if e.Why == storage.WhyNotDurable { // it has taken the place of the one before
					delete(verified, at)
				}
			case verified[at].Version == e.Version && e.Kind == storage.EventRemoved:
				delete(verified, at)
			default:
				return fmt.Errorf("%s, and there is no such version", inShort(&e))
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = r.Files(ctx, func(f storage.File) error {
		at, of := eventPlace{f.ID.String(), f.Path}, waiting
		if f.Verified && f.Missing {
			return nil
		}
		if f.Verified {
			of = verified
		}
		e, ok := of[at]
		if !ok || e.Version != f.Incoming || e.Size != f.Size || e.Cksum != f.Cksum || e.FileName != f.FileName {
			return fmt.Errorf("%+v is on record, and the last event is %+v", f, e)
		}
		delete(of, at)
		return nil
	})
	if err != nil {
		return err
	}
	for _, of := range []map[eventPlace]storage.Event{verified, waiting} {
		for _, e := range of {
			err = errors.Join(err, fmt.Errorf("%s, and it is not on record", inShort(&e)))
		}
	}
	on := make(map[string]bool)
	listing := r.Clients(ctx, func(c storage.Client) error { on[c.ID.String()] = true; return nil })
	if listing == nil && !maps.Equal(on, clients) {
		listing = fmt.Errorf("clients %v are on record, and by the events %v", on, clients)
	}
	return errors.Join(err, listing)
}
