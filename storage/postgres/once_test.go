package postgres

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sealift/codec"
	"sealift/storage"
)

var moment = time.Date(2026, 3, 4, 5, 6, 7, 89_000_000, time.UTC)

func clientID(n int) codec.ClientID { return codec.ClientID{6: 0x40, 8: 0x80, 15: byte(n)} }

func addClient(n int, name string) *storage.AddClient {
	return &storage.AddClient{Outcome: storage.Outcome{At: moment}, ID: clientID(n), Name: name}
}

func file(n int, path, key string) storage.File {
	return storage.File{ID: clientID(n), FileName: path, Path: path, Incoming: key, Size: 7, Cksum: 8, Received: moment}
}

func partial(n int, path, key string) storage.Partial {
	return storage.Partial{ID: clientID(n), FileName: path, Path: path, Incoming: key, Total: 9, Length: 5, Generation: 1, Changed: moment}
}

func apply(t testing.TB, r *Registry, batch ...storage.Operation) {
	t.Helper()
	try(t, r, batch...)
	for i, op := range batch {
		if err := op.Result().Err; err != nil {
			t.Fatalf("operation %d, %T: %v", i, op, err)
		}
	}
}

func try(t testing.TB, r *Registry, batch ...storage.Operation) {
	t.Helper()
	if err := r.Apply(t.Context(), batch); err != nil {
		t.Fatalf("Apply: %v", err)
	}
}

// state is all that is on record, without what is by chance.
func state(t testing.TB, r *Registry) string {
	t.Helper()
	var b strings.Builder
	note := func(v any) { fmt.Fprintf(&b, "%+v\n", v) }
	for _, err := range []error{
		r.Clients(t.Context(), func(c storage.Client) error { note(c); return nil }),
		r.Files(t.Context(), func(f storage.File) error { note(f); return nil }),
		r.Partials(t.Context(), func(p storage.Partial) error { note(p); return nil }),
		r.Added(t.Context(), func(name string) error { note(name); return nil }),
		r.EachLease(t.Context(), func(l storage.Lease) error { l.Ends = time.Time{}; note(l); return nil }),
		r.ListEvents(t.Context(), func(e storage.Event) error { e.ID, e.Happened = "", time.Time{}; note(e); return nil }),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

var server = storage.Outcome{By: storage.Server}

// prepare makes a state in which each of changes finds something.
func prepare(t testing.TB, r *Registry) {
	t.Helper()
	if err := r.SetTargets(t.Context(), []string{"x"}); err != nil {
		t.Fatal(err)
	}
	up := func(key string) *storage.LeaseUpload {
		return &storage.LeaseUpload{Upload: storage.Uploaded{Place: storage.Place{ID: clientID(1), Path: "l"}, Key: key}, Server: "a", For: -time.Hour}
	}
	bytes := int64(1000)
	apply(t, r, addClient(1, "anna"), addClient(2, "ben"), addClient(3, "carl"), &storage.AddName{Name: "dora"},
		&storage.SetAESKey{ID: clientID(1), AESKey: key(7)}, &storage.SetQuota{ID: clientID(2), Bytes: &bytes},
		&storage.PutFile{File: file(1, "verified", "v1")}, &storage.VerifyFile{ID: clientID(1), Path: "verified", Incoming: "v1"},
		&storage.PutFile{File: file(1, "verified", "v2")}, &storage.PutFile{File: file(1, "waits", "w1")},
		&storage.PutFile{File: file(1, "gone", "g1")}, &storage.VerifyFile{ID: clientID(1), Path: "gone", Incoming: "g1", Missing: true},
		&storage.PutPartial{Partial: partial(1, "part", "p1")}, &storage.PutPartial{Partial: partial(1, "whole", "p2")}, up("l1"), up("l2"),
		&storage.SetExpires{ID: clientID(2), Expires: moment})
}

func key(b byte) []byte { return []byte(strings.Repeat(string(rune(b)), 32)) }

// changes are all operations that change something: those that succeed after prepare, and
// some that are refused.
func changes() map[string]func() storage.Operation {
	id, seen := clientID(1), storage.Outcome{At: moment.Add(time.Second), By: storage.Server}
	bytes := int64(5)
	return map[string]func() storage.Operation{
		"AddClient":      func() storage.Operation { return addClient(9, "eve") },
		"AddClient name": func() storage.Operation { return addClient(9, "anna") },
		"AddClient id":   func() storage.Operation { return addClient(1, "eve") },
		"AddClient only added": func() storage.Operation {
			return &storage.AddClient{Outcome: seen, ID: clientID(9), Name: "eve", OnlyAdded: true}
		},
		"AddName":       func() storage.Operation { return &storage.AddName{Name: "fred"} },
		"AddName taken": func() storage.Operation { return &storage.AddName{Name: "anna"} },
		"DropName":      func() storage.Operation { return &storage.DropName{Name: "dora"} },
		"DropName none": func() storage.Operation { return &storage.DropName{Name: "fred"} },
		"DisableClient": func() storage.Operation { return &storage.DisableClient{Outcome: seen, ID: id, Disabled: true} },
		"DropClient":    func() storage.Operation { return &storage.DropClient{Outcome: server, ID: clientID(3)} },
		"DropClient files": func() storage.Operation {
			return &storage.DropClient{Outcome: server, ID: clientID(1)}
		},
		"DropKeyless": func() storage.Operation {
			return &storage.DropKeyless{Outcome: server, ID: clientID(3), Before: moment.Add(time.Hour)}
		},
		"PinClient": func() storage.Operation { return &storage.PinClient{Outcome: seen, ID: id, TLSKey: key(1)} },
		"SetKeys": func() storage.Operation {
			return &storage.SetKeys{Outcome: seen, ID: id, Name: "anna", PublicKey: key(2), AESKey: key(3)}
		},
		"SetKeys name": func() storage.Operation {
			return &storage.SetKeys{Outcome: seen, ID: id, Name: "ben", PublicKey: key(2), AESKey: key(3)}
		},
		"SetAESKey": func() storage.Operation { return &storage.SetAESKey{Outcome: seen, ID: id, AESKey: key(4), If: key(7)} },
		"GetClient": func() storage.Operation { return &storage.GetClient{Outcome: seen, ID: clientID(2)} },
		"GetFile":   func() storage.Operation { return &storage.GetFile{Outcome: seen, ID: id, Path: "verified"} },
		"GetUsage": func() storage.Operation {
			return &storage.GetUsage{Outcome: seen, ID: clientID(2), Path: "x", Recount: true}
		},
		"Seen":      func() storage.Operation { return &storage.Seen{Outcome: seen, ID: id} },
		"Seen none": func() storage.Operation { return &storage.Seen{Outcome: seen, ID: clientID(9)} },
		"PutFile":   func() storage.Operation { return &storage.PutFile{Outcome: seen, File: file(1, "new", "n1")} },
		"PutFile of a quota": func() storage.Operation {
			return &storage.PutFile{Outcome: storage.Outcome{At: moment}, File: file(2, "new", "n1"), Quota: storage.Quota{Files: 9}}
		},
		"PutFile too large": func() storage.Operation {
			return &storage.PutFile{File: file(1, "new", "n1"), Quota: storage.Quota{Bytes: 3}}
		},
		"PutFile replaces":   func() storage.Operation { return &storage.PutFile{Outcome: seen, File: file(1, "waits", "w2")} },
		"PutFile of a part":  func() storage.Operation { return &storage.PutFile{File: file(1, "whole", "p2"), Generation: 1} },
		"PutFile superseded": func() storage.Operation { return &storage.PutFile{File: file(1, "whole", "p2"), Generation: 2} },
		"PutFile leased":     func() storage.Operation { return &storage.PutFile{File: file(1, "l", "l1"), Leased: true} },
		"PutFile no lease":   func() storage.Operation { return &storage.PutFile{File: file(1, "l", "l3"), Leased: true} },
		"PutPartial":         func() storage.Operation { return &storage.PutPartial{Outcome: seen, Partial: partial(1, "part", "p1")} },
		"PutPartial replaces": func() storage.Operation {
			return &storage.PutPartial{Partial: partial(1, "part", "p9")}
		},
		"ContinueFile": func() storage.Operation {
			return &storage.ContinueFile{Outcome: seen, ID: id, Path: "part", Incoming: "p1", Changed: moment}
		},
		"DropPartial": func() storage.Operation {
			return &storage.DropPartial{Outcome: seen, ID: id, Path: "part", Incoming: "p1"}
		},
		"DeletePartial": func() storage.Operation {
			return &storage.DeletePartial{Outcome: seen, ID: id, Path: "part", Incoming: "p1"}
		},
		"VerifyFile": func() storage.Operation {
			return &storage.VerifyFile{Outcome: seen, ID: id, Path: "waits", Incoming: "w1"}
		},
		"VerifyFile versions": func() storage.Operation {
			return &storage.VerifyFile{ID: id, Path: "verified", Incoming: "v2", Versions: true}
		},
		"VerifyFile none": func() storage.Operation { return &storage.VerifyFile{ID: id, Path: "waits", Incoming: "w9"} },
		"DropFile": func() storage.Operation {
			return &storage.DropFile{Outcome: seen, ID: id, Path: "verified", Incoming: "v2", Why: storage.WhyMismatch}
		},
		"MarkFile": func() storage.Operation {
			return &storage.MarkFile{Outcome: seen, ID: id, Path: "verified", Incoming: "v1", Missing: true}
		},
		"ForgetFile": func() storage.Operation {
			return &storage.ForgetFile{Outcome: seen, ID: id, Path: "gone", Incoming: "g1"}
		},
		"TakeFile": func() storage.Operation {
			return &storage.TakeFile{Outcome: seen, ID: id, Path: "verified", Incoming: "v1", Taken: moment}
		},
		"DeleteFile": func() storage.Operation {
			return &storage.DeleteFile{Outcome: seen, ID: id, Path: "verified", Incoming: "v1", Verified: true, Why: storage.WhyKept}
		},
		"SetQuota":     func() storage.Operation { return &storage.SetQuota{Outcome: seen, ID: id, Bytes: &bytes} },
		"SetKeepFor":   func() storage.Operation { return &storage.SetKeepFor{Outcome: seen, ID: id, KeepFor: time.Hour} },
		"SetExpires":   func() storage.Operation { return &storage.SetExpires{Outcome: seen, ID: id, Expires: moment} },
		"ExpireClient": func() storage.Operation { return &storage.ExpireClient{Outcome: seen, ID: clientID(2), Now: moment} },
		"LeaseUpload": func() storage.Operation {
			return &storage.LeaseUpload{Upload: storage.Uploaded{Place: storage.Place{ID: id, Path: "l"}, Key: "l5"}, Server: "b", For: time.Hour}
		},
		"RenewLeases": func() storage.Operation {
			return &storage.RenewLeases{Server: "a", Keys: []string{"l1", "none"}, For: time.Hour}
		},
		"EndLease":   func() storage.Operation { return &storage.EndLease{Key: "l1"} },
		"ReapLeases": func() storage.Operation { return &storage.ReapLeases{Ago: time.Minute, Limit: 1} },
		"RaiseEvent": func() storage.Operation {
			return &storage.RaiseEvent{Outcome: seen, Event: storage.Event{Kind: storage.EventQuota, Client: id, Path: "q"}}
		},
		"EventTold": func() storage.Operation {
			return &storage.EventTold{Outcome: server, Event: storage.Event{Seq: 1, Target: "x", Client: id}}
		},
		"PostponeEvent": func() storage.Operation {
			return &storage.PostponeEvent{Outcome: server, Seq: 1, Due: moment, Failure: "no\x00 \xff answer"}
		},
		"RetryEvents": func() storage.Operation { return &storage.RetryEvents{Outcome: server} },
		"DropEvents": func() storage.Operation {
			return &storage.DropEvents{Outcome: server, Chosen: storage.Chosen{Target: "x"}, Keep: 1}
		},
	}
}

// same makes two operations comparable: times of leases are by the clock, and what is read in a
// batch that was done before is read anew, after it.
func same(op storage.Operation) storage.Operation {
	switch op := op.(type) {
	case *storage.ReapLeases:
		for i := range op.Reaped {
			op.Reaped[i].Ends = time.Time{}
		}
	case *storage.GetClient:
		op.Client.LastSeen = time.Time{}
	}
	return op
}

// Whatever becomes of the connection after a batch was sent, the batch is done once, and its
// results are as if nothing had happened.
func TestDoneOnce(t *testing.T) {
	faults := map[string]func(p *proxy){
		"the answer is lost":   func(p *proxy) { p.loseAnswers(1) },
		"two answers are lost": func(p *proxy) { p.loseAnswers(2) }, // that of the repetition, too
	}
	for name, op := range changes() {
		t.Run(name, func(t *testing.T) {
			plain := open(t, schema(t))
			prepare(t, plain)
			want := op()
			try(t, plain, want)
			after := state(t, plain)
			for what, fault := range faults {
				t.Run(what, func(t *testing.T) {
					p, url := through(t, schema(t))
					r := open(t, url)
					prepare(t, r)
					before := p.answers.Load()
					fault(p)
					got := op()
					try(t, r, got)
					if n := p.answers.Load() - before; n < 3 {
						t.Errorf("%d answers came: nothing was repeated", n)
					}
					if !reflect.DeepEqual(same(got), same(want)) {
						t.Errorf("got  %+v, %v\nwant %+v, %v", got, got.Result().Err, want, want.Result().Err)
					}
					if now := state(t, r); now != after {
						t.Errorf("the state is\n%s\nwant\n%s", now, after)
					}
				})
			}
		})
	}
}

// The first attempt goes on in the database while the registry, which was cut off, repeats it:
// the repetition waits for its end.
func TestDoneOnceWhileUnderWay(t *testing.T) {
	direct := database(t)
	p, url := through(t, direct)
	r := open(t, url)
	prepare(t, r)
	c, err := pgx.Connect(t.Context(), direct)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	tx, err := c.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "SELECT FROM sealift.clients WHERE name = 'anna' FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	op := &storage.PutFile{File: file(1, "waits", "w2")}
	done := make(chan error, 1)
	go func() { done <- r.Apply(context.Background(), []storage.Operation{op}) }()
	waiting := func(n int) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
			var got int
			if err := tx.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&got); err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(t.Context(), "SELECT pg_stat_clear_snapshot()"); err != nil {
				t.Fatal(err)
			}
			if got == n {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d wait for a lock, want %d", got, n)
			}
		}
	}
	waiting(1) // the batch, for the client's row
	p.cutClients()
	waiting(2) // and its repetition, for the first
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil || op.Err != nil {
		t.Fatal(err, op.Err)
	}
	if op.Replaced == nil || op.Replaced.Incoming != "w1" {
		t.Errorf("replaced %+v, want w1", op.Replaced)
	}
}

// A batch locks the rows of all clients that its operations change, before it changes one: else two
// batches could wait for each other.
func TestClientsAreLockedFirst(t *testing.T) {
	none := codec.ClientID{}
	for name, op := range changes() {
		op, want := op(), none
		switch op := op.(type) {
		case *storage.AddClient: // there is no row yet
		case *storage.PutFile:
			want = op.File.ID
		case *storage.PutPartial:
			want = op.Partial.ID
		case *storage.RaiseEvent:
			want = op.Event.Client
		case *storage.EventTold:
			want = op.Event.Client
		default:
			if id := reflect.ValueOf(op).Elem().FieldByName("ID"); id.IsValid() {
				want = id.Interface().(codec.ClientID)
			}
		}
		if got, _ := subject(op); got != want {
			t.Errorf("%s: the row of %v is locked, want that of %v", name, got, want)
		}
	}
}

// The LastSeen of a FindAlike takes another batch. It needs no second writer: all of them may be waiting for one.
func TestOneWriterIsEnough(t *testing.T) {
	r := open(t, schema(t))
	prepare(t, r)
	for range writersAtOnce - 1 {
		w := <-r.writers
		defer func() { r.writers <- w }()
	}
	apply(t, r, &storage.PutFile{File: file(1, "A", "k")})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	find := &storage.FindAlike{Outcome: storage.Outcome{At: moment.Add(time.Hour)}, ID: clientID(1), Path: "a", Folds: strings.ToLower}
	if err := r.Apply(ctx, []storage.Operation{find, &storage.Seen{ID: clientID(1)}}); err != nil || find.Found != "A" {
		t.Errorf("found %q, %v", find.Found, err)
	}
	get := &storage.GetClient{ID: clientID(1)}
	apply(t, r, get)
	if !get.Client.LastSeen.Equal(find.At) {
		t.Errorf("last seen at %v, want %v", get.Client.LastSeen, find.At)
	}
}
