package session_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"sealift/codec"
	"sealift/internal/testpeer"
	"sealift/session"
	"sealift/storage"
)

var byServer = storage.Outcome{By: storage.Server}

// disable disables a client behind the back of the sessions, as another process does.
func (w *world) disable(p *peer, disabled bool) {
	w.t.Helper()
	w.must(&storage.DisableClient{Outcome: byServer, ID: p.id, Disabled: disabled})
}

// delete deletes a client and its files, as another process and maintenance do. No
// place may be locked.
func (w *world) delete(p *peer) {
	w.t.Helper()
	for _, f := range w.rows() {
		w.must(&storage.DeleteFile{Outcome: byServer, ID: f.ID, Path: f.Path, Incoming: f.Incoming, Verified: f.Verified})
		w.svc.Exclusive(f.ID, f.Path, func() {
			if f.Verified {
				w.must(&storage.ForgetFile{Outcome: byServer, ID: f.ID, Path: f.Path, Incoming: f.Incoming})
				delete(w.files.stored, place(f.ID, f.Path))
				return
			}
			drop := &storage.DropFile{Outcome: byServer, ID: f.ID, Path: f.Path, Incoming: f.Incoming}
			w.must(drop)
			delete(w.files.incoming, f.Incoming)
			w.svc.Dropped(&f, drop.Marked)
		})
	}
	w.must(&storage.DropClient{Outcome: byServer, ID: p.id})
}

// allClients are those on record.
func (w *world) allClients() (all []storage.Client) {
	_ = w.reg.Clients(context.Background(), func(c storage.Client) error {
		all = append(all, c)
		return nil
	})
	return all
}

// TestDisabledIsRefused: whatever a client that is disabled begins a connection with, it
// gets one 1607, and nothing on record changes. The log says why and about whom. Enabled
// again, it is served.
func TestDisabledIsRefused(t *testing.T) {
	for request, r := range binds {
		for _, ch := range []session.Channel{{}, overTLS(ownKey)} {
			w := newWorld(t, session.Config{})
			p := w.withFiles("alice")
			w.disable(p, true)
			logs, before := w.logged(), w.record()
			c := w.dialOver(ch)
			w.now = w.now.Add(time.Hour)
			if got := c.ask(r.say(p)...); got != "1607" {
				t.Errorf("%s: %q, want 1607", request, got)
			}
			if c.s.State() != "fresh" || c.hangup != "" {
				t.Errorf("%s: the connection is %s, %q", request, c.s.State(), c.hangup)
			}
			told := logs.FilterField(zap.String("reason", "the client is disabled")).FilterField(zap.String("client", p.id.String()))
			if told.Len() != 1 {
				t.Errorf("%s: the log says %v", request, logs.All())
			}
			if n := w.svc.Counts().Refused[session.ReasonDisabled]; n != 1 {
				t.Errorf("%s: %d refusals are counted", request, n)
			}
			if w.hangUp(); w.record() != before {
				t.Errorf("%s: on record is\n%s\nand was\n%s", request, w.record(), before)
			}
			w.disable(p, false)
			if got := w.dial().ask(r.say(p)...); got != r.want {
				t.Errorf("%s, enabled: %q, want %q", request, got, r.want)
			}
			w.hangUp()
		}
	}
}

// TestDeletedIsUnknown: the id of a client that was deleted is one that the server does
// not know.
func TestDeletedIsUnknown(t *testing.T) {
	for request, r := range binds {
		w := newWorld(t, session.Config{})
		p := w.withFiles("alice")
		w.delete(p)
		before := w.record()
		want := "1607"
		if strings.HasPrefix(request, "1027") {
			want = "1606"
		}
		if got := w.dial().ask(r.say(p)...); got != want {
			t.Errorf("%s: %q, want %q", request, got, want)
		}
		if w.hangUp(); w.record() != before {
			t.Errorf("%s: on record is\n%s\nand was\n%s", request, w.record(), before)
		}
	}
}

// TestClosedRegistration: where registration is closed, a name that was added registers,
// once and again after its client went, and no other.
func TestClosedRegistration(t *testing.T) {
	_, pub := pair[0]()
	for _, added := range []bool{false, true} {
		for _, closed := range []bool{false, true} {
			w := newWorld(t, session.Config{Limits: session.Limits{Closed: closed}})
			if added {
				w.must(&storage.AddName{Outcome: byServer, Name: "alice"})
			}
			lets := added || !closed
			logs := w.loggedFrom(zap.InfoLevel)
			p := &peer{name: "alice"}
			want := map[bool]string{false: "1601", true: "1600"}[lets]
			if got := w.dial().ask(p.register()); got != want {
				t.Errorf("added %v, closed %v: a 1025 gets %q, want %q", added, closed, got, want)
			}
			if n := logs.FilterField(zap.String("reason", storage.ErrNotAdded.Error())).Len(); (n == 0) != lets {
				t.Errorf("added %v, closed %v: the log says %v", added, closed, logs.All())
			}
			if got := w.svc.Counts(); got.Registered+got.NotRegistered != 1 || (got.Registered == 1) != lets {
				t.Errorf("added %v, closed %v: counted are %+v", added, closed, got)
			}
			if lets { // its 1600 was lost, and it is forgotten as one without a key
				clients := w.allClients()
				w.must(&storage.DropKeyless{Outcome: byServer, ID: clients[0].ID, Before: w.now.Add(time.Second)})
			}

			p.id = uuid4(codec.ClientID{1, 2, 3})
			want = map[bool]string{false: "1606, 1607", true: "1606, 1602"}[lets]
			if got := w.dial().ask(p.reconnect(), p.publicKey(pub)); got != want {
				t.Errorf("added %v, closed %v: adopting an id gets %q, want %q", added, closed, got, want)
			}
			if n := w.svc.Counts().Refused[session.ReasonClosed]; (n == 0) != lets {
				t.Errorf("added %v, closed %v: %d refusals are counted", added, closed, n)
			}
			if len(w.allClients()) > 0 != lets {
				t.Errorf("added %v, closed %v: on record are %v", added, closed, w.allClients())
			}
			w.svc.Limit(session.Limits{Closed: !closed})
			q := &peer{name: "bob"}
			want = map[bool]string{false: "1601", true: "1600"}[closed]
			if got := w.dial().ask(q.register()); got != want {
				t.Errorf("closed %v, and then not: a 1025 gets %q, want %q", closed, got, want)
			}
			w.hangUp()
		}
	}
}

// TestRecheckSteered ends the connections of clients that were disabled or deleted by
// another process, and no others: not those that are about to register, either.
func TestRecheckSteered(t *testing.T) {
	w := newWorld(t, session.Config{})
	var conns []*conn
	var peers []*peer
	for _, name := range []string{"disabled", "deleted", "other"} {
		p, c := w.known(name), w.dial()
		if got := c.ask(p.reconnect()); got != "1605" {
			t.Fatal(got)
		}
		conns, peers = append(conns, c), append(peers, p)
	}
	nobody, registering, adopting := w.dial(), w.dial(), w.dial()
	strange := &peer{id: uuid4(codec.ClientID{9, 9}), name: "strange"}
	_, pub := pair[1]()
	if got := adopting.ask(strange.reconnect()); got != "1606" {
		t.Fatal(got)
	}
	adopting.replies = nil
	w.disable(peers[0], true)
	w.delete(peers[1])
	registering.send((&peer{name: "new"}).register())
	registering.feed(len(registering.in))
	adopting.send(strange.publicKey(pub))
	adopting.feed(len(adopting.in))
	w.recheck()
	w.recheck() // tells nobody twice
	w.run()
	want := []string{"the client is disabled", "no such client: it was deleted", "", "", "", ""}
	var got []string
	for _, c := range append(conns, nobody, registering, adopting) {
		got = append(got, c.hangup)
	}
	if !slices.Equal(got, want) {
		t.Errorf("ended: %q, want %q", got, want)
	}
	if r := append(registering.replies, adopting.replies...); !slices.Equal(r, []string{"1600", "1602"}) {
		t.Errorf("who registers gets %q", r)
	}
	seen := w.client(peers[0].id).LastSeen
	w.now = w.now.Add(time.Hour)
	w.hangUp()
	if now := w.client(peers[0].id).LastSeen; !now.Equal(seen) {
		t.Errorf("a disabled client was seen at %v", now)
	}
}

// lateRegistry answers, and something happens before its answer is there.
type lateRegistry struct {
	storage.Registry
	meanwhile func()
}

func (r *lateRegistry) Apply(ctx context.Context, batch []storage.Operation) error {
	err := r.Registry.Apply(ctx, batch)
	r.meanwhile()
	return err
}

// TestRecheckBesideRegistration: a client that registers while its record is looked for
// stays, whether it has a new id or one of a 1606.
func TestRecheckBesideRegistration(t *testing.T) {
	w := newWorld(t, session.Config{})
	registering, adopting := w.dial(), w.dial()
	strange := &peer{id: uuid4(codec.ClientID{9, 9}), name: "strange"}
	if got := adopting.ask(strange.reconnect()); got != "1606" {
		t.Fatal(got)
	}
	adopting.replies = nil
	_, pub := pair[1]()
	registering.send((&peer{name: "new"}).register())
	registering.feed(len(registering.in))
	adopting.send(strange.publicKey(pub))
	adopting.feed(len(adopting.in))
	w.svc.Registry = &lateRegistry{w.reg, w.run}
	if err := w.svc.Recheck(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.run()
	if r := append(registering.replies, adopting.replies...); !slices.Equal(r, []string{"1600", "1602"}) {
		t.Errorf("who registers gets %q", r)
	}
	if registering.hangup != "" || adopting.hangup != "" {
		t.Errorf("ended: %q, %q", registering.hangup, adopting.hangup)
	}
	w.recheck()
	w.run()
	if registering.hangup != "" || adopting.hangup != "" {
		t.Errorf("ended at the next look: %q, %q", registering.hangup, adopting.hangup)
	}
	w.hangUp()
}

// TestAdoptedByTwo: of two connections that adopt one id at once, one gets it and stays, in
// whatever order things happen.
func TestAdoptedByTwo(t *testing.T) {
	_, pub := pair[1]()
	for seed := range uint64(1000) {
		w := newWorld(t, session.Config{})
		w.plain = true
		strange := &peer{id: uuid4(codec.ClientID{9, 9}), name: "strange"}
		conns := []*conn{w.dial(), w.dial()}
		for _, c := range conns {
			if got := c.ask(strange.reconnect()); got != "1606" {
				t.Fatal(got)
			}
			c.replies = nil
		}
		for _, c := range conns {
			c.send(strange.publicKey(pub))
		}
		w.choose = rand.New(rand.NewPCG(seed, 0)).IntN
		w.run()
		served := func(c *conn) bool { return slices.Contains(c.replies, "1602") && c.hangup == "" }
		if !slices.ContainsFunc(conns, served) {
			t.Fatalf("seed %d: nobody is served: %q, %q; ended: %q, %q", seed, conns[0].replies, conns[1].replies, conns[0].hangup, conns[1].hangup)
		}
		w.choose = first
		w.hangUp()
	}
}

// TestBoundToNobody: a connection whose client was deleted, and that nobody told yet,
// changes nothing. It ends after its first 1607; a 1027 gets 1606, and registers anew.
func TestBoundToNobody(t *testing.T) {
	_, pub := pair[0]()
	for what, x := range map[string]struct {
		say  func(p *peer) [][]byte
		want string
		ends bool
	}{
		"1026":       {func(p *peer) [][]byte { return [][]byte{p.publicKey(pub)} }, "1607", true},
		"1027":       {func(p *peer) [][]byte { return [][]byte{p.reconnect()} }, "1606", false},
		"1027, 1026": {func(p *peer) [][]byte { return [][]byte{p.reconnect(), p.publicKey(pub)} }, "1606, 1602", false},
		"1028":       {func(p *peer) [][]byte { return p.packets(single, "f", []byte("new"), 0) }, "1607", true},
		"1029":       {func(p *peer) [][]byte { return [][]byte{p.ok(oldFile)} }, "1607", false},
		"1030":       {func(p *peer) [][]byte { return [][]byte{p.verdict(codec.CodeCRCBad, oldFile)} }, "", false},
		"1031":       {func(p *peer) [][]byte { return [][]byte{p.verdict(codec.CodeAbort, oldFile)} }, "1604", false},
	} {
		for _, received := range []bool{false, true} { // on this connection
			w := newWorld(t, session.Config{})
			p, c := w.login("alice")
			if received {
				if got := c.ask(p.packets(single, oldFile, []byte("old"), 0)...); !strings.HasPrefix(got, "1603") {
					t.Fatal(got)
				}
			} else {
				w.unverified(p, oldFile, []byte("old"))
			}
			w.delete(p)
			if got := c.ask(x.say(p)...); got != x.want {
				t.Errorf("%s gets %q, want %q", what, got, x.want)
			}
			if (c.hangup != "") != x.ends {
				t.Errorf("%s: hung up for %q", what, c.hangup)
			}
			if len(w.rows()) > 0 || len(w.files.stored) > 0 {
				t.Errorf("%s: on record is %v, stored is %v", what, w.rows(), w.files.stored)
			}
			w.recheck()
			w.run()
			if strings.HasPrefix(what, "1027") == (c.hangup != "") {
				t.Errorf("%s: after a look at the registry, hung up for %q", what, c.hangup)
			}
			w.hangUp()
			w.counted()
		}
	}
}

// steered are what an operator may do to a client whose connections are to end.
var steered = map[string]func(w *world, p *peer){
	"disabled":            func(w *world, p *peer) { w.disable(p, true) },
	"disabled and pinned": func(w *world, p *peer) { w.pin(p, ownKey); w.disable(p, true) },
}

// TestSteeringBehindAnyStep: another process disables a client at any step of what a
// connection does under its id, and the server notices at any step after that. From then
// on nothing is changed on record, but that a commit that was under way is recorded. Each
// 1604 is about a file that is verified. When it was noticed, the connection ends.
func TestSteeringBehindAnyStep(t *testing.T) {
	content := random(1, 9000)
	for what, steer := range steered {
		for at := 0; ; at++ {
			over := false
			for later := 0; !over && later < 12; later++ {
				w := newWorld(t, session.Config{})
				w.portion = func(n int) int { return min(n, 3000) }
				p, c := w.known("alice"), w.dial()
				w.unverified(p, oldFile, []byte("old"))
				c.send(p.packets(spec, "f", content, 4000)...)
				c.send(p.ok("f"))
				c.send(p.packets(single, "g", content[:100], 0)...)
				c.send(p.ok("g"), p.ok(oldFile), p.reconnect())
				for range at {
					over = !w.step()
				}
				steer(w, p)
				before := w.onRecord(p)
				for range later {
					w.step()
				}
				w.recheck()
				w.run()
				at := fmt.Sprintf("%s at step %d, noticed %d later", what, at, later)
				w.nothingGranted(p, c, before, at)
				w.hangUp()
				w.counted()
				if t.Failed() {
					return
				}
			}
			if over {
				break
			}
		}
	}
}

// TestDeletedAndTakenOver: a client is deleted at any step of what its connection does,
// and then its id is registered anew from another connection. Nothing of what the old
// connection uploads is recorded for the new client, in whatever order things happen.
func TestDeletedAndTakenOver(t *testing.T) {
	_, pub := pair[1]()
	content := random(1, 3000)
	schedules, takenOver := uint64(2000), 0
	if testing.Short() {
		schedules = 500
	}
	for seed := range schedules {
		r := rand.New(rand.NewPCG(seed, 15))
		w := newWorld(t, session.Config{})
		w.choose = r.IntN
		p, c := w.login("alice")
		for _, name := range []string{"f", "g", "h"} {
			c.send(p.packets(spec, name, content, 1000)...)
			c.send(p.ok(name))
		}
		for range r.IntN(80) {
			w.step()
		}
		for w.svc.Locked() > 0 { // maintenance waits, too
			w.step()
		}
		w.delete(p)
		d := w.dial()
		d.send(p.reconnect(), p.publicKey(pub))
		for range r.IntN(20) {
			w.step()
		}
		if r.IntN(2) == 0 {
			w.recheck()
		}
		w.run()
		if slices.Equal(d.replies, []string{"1606", "1602"}) {
			takenOver++
		} else {
			t.Errorf("seed %d: who takes the id over gets %q", seed, d.replies)
		}
		if d.hangup != "" {
			t.Errorf("seed %d: the new client's connection was hung up: %s", seed, d.hangup)
		}
		if rows := w.rows(); len(rows) > 0 || len(w.files.stored) > 0 {
			t.Errorf("seed %d: on record is %v, stored is %d", seed, rows, len(w.files.stored))
		}
		w.choose = first
		c.ask(p.packets(single, "again", content, 0)...)
		if len(w.rows()) > 0 {
			t.Errorf("seed %d: the old connection records %v", seed, w.rows())
		}
		w.hangUp()
		w.counted()
		if t.Failed() {
			return
		}
	}
	if takenOver == 0 {
		t.Error("nobody took the id over")
	}
}

// TestTakenOverWhileItRejoins: a 1027 that was under way when its client was deleted, and
// the id was registered anew, does not bind its connection to the new client.
func TestTakenOverWhileItRejoins(t *testing.T) {
	priv, pub := pair[1]()
	w := newWorld(t, session.Config{})
	p, old, taker := w.known("alice"), w.dial(), w.dial()
	old.send(p.reconnect())
	for len(w.jobs) == 0 { // until its AES key is to be wrapped
		w.step()
	}
	wrap := w.jobs
	w.jobs = nil
	w.delete(p)
	taker.send(p.reconnect(), p.publicKey(pub))
	w.rush()
	if !slices.Equal(taker.replies, []string{"1606", "1602"}) {
		t.Fatal(taker.replies)
	}
	key := taker.aesKey(t, priv)
	w.jobs = wrap
	w.run()
	if got := strings.Join(old.replies, " "); got != "1607" || old.hangup == "" {
		t.Errorf("the old connection gets %q, hung up for %q", got, old.hangup)
	}
	if string(w.client(p.id).AESKey) != string(key[:]) || taker.hangup != "" {
		t.Errorf("the new client has another AES key on record, or its connection was hung up: %q", taker.hangup)
	}
	w.hangUp()
}

// TestVerdictOnWhatLeft: what a 1029 gets where files were taken or are to be deleted,
// with a receipt for one of the two versions that there may be, or without one.
func TestVerdictOnWhatLeft(t *testing.T) {
	const none, there, taken, missing, deleted = "none", "there", "taken", "taken and removed", "deleted"
	for _, x := range []struct{ receipt, verified, waits, want string }{
		{"", taken, none, "1604"},
		{"V", taken, none, "1604"},
		{"", missing, none, "1604"},
		{"V", missing, none, "1604"},
		{"", deleted, none, "1607"},
		{"V", deleted, none, "1607"},
		{"V", taken, there, "1604"},
		{"V", missing, there, "1604"},
		{"V", deleted, there, "1607"},
		{"", taken, there, "1604"}, // about the one that waits
		{"W", taken, there, "1604"},
		{"", deleted, there, "1604"},
		{"W", deleted, there, "1604"},
		{"", none, deleted, "1607"},
		{"", there, deleted, "1607"},
		{"", taken, deleted, "1607"},
	} {
		w := newWorld(t, session.Config{})
		p, v := w.login("alice")
		if x.verified != none {
			v.ask(p.packets(single, "f", []byte("V"), 0)...)
			if got := v.ask(p.ok("f")); got != "1604" {
				t.Fatal(got)
			}
			row := w.row(p.id, "f", true)
			switch x.verified {
			case taken, missing:
				w.must(&storage.TakeFile{Outcome: byServer, ID: p.id, Path: "f", Incoming: row.Incoming, Taken: w.now})
			case deleted:
				w.must(&storage.DeleteFile{Outcome: byServer, ID: p.id, Path: "f", Incoming: row.Incoming, Verified: true})
			}
			if x.verified == missing {
				w.must(&storage.MarkFile{Outcome: byServer, ID: p.id, Path: "f", Incoming: row.Incoming, Missing: true})
				delete(w.files.stored, place(p.id, "f"))
			}
		}
		other := w.dial()
		if x.waits != none {
			if got := other.ask(p.reconnect()); got != "1605" {
				t.Fatal(got)
			}
			q := *p
			q.key = other.aesKey(t, firstPair())
			other.ask(q.packets(single, "f", []byte("W"), 0)...)
			if x.waits == deleted {
				row := w.row(p.id, "f", false)
				w.must(&storage.DeleteFile{Outcome: byServer, ID: p.id, Path: "f", Incoming: row.Incoming})
			}
		}
		c := map[string]*conn{"": w.dial(), "V": v, "W": other}[x.receipt]
		before := w.svc.Counts()
		got := c.ask(p.ok("f"))
		after := w.svc.Counts()
		if got != x.want {
			t.Errorf("%+v: %q", x, got)
		}
		again, commits := after.Again-before.Again, after.Verified-before.Verified
		if got == "1604" && again+commits != 1 {
			t.Errorf("%+v: a 1604, and %d commits, %d again are counted", x, commits, again)
		}
		if x.want == "1607" && after.Refused[session.ReasonDeleted]-before.Refused[session.ReasonDeleted] != 1 {
			t.Errorf("%+v: refusals are %v", x, after.Refused)
		}
		// An upload of the name is like any other.
		n := w.dial()
		if got := n.ask(p.reconnect()); got != "1605" {
			t.Fatal(got)
		}
		q := *p
		q.key = n.aesKey(t, firstPair())
		if got := n.ask(append(q.packets(single, "f", []byte("new"), 0), q.ok("f"))...); got != received("f", []byte("new"))+", 1604" {
			t.Errorf("%+v: a new upload gets %q", x, got)
		}
		if f := w.row(p.id, "f", true); !f.Taken.IsZero() || f.Deleted || f.Missing {
			t.Errorf("%+v: the new version is %+v", x, f)
		}
		w.hangUp()
	}
}

// TestDeletedWhileJudged: a 1029 that is first keeps its file, though somebody has
// marked it to be deleted.
func TestDeletedWhileJudged(t *testing.T) {
	w := newWorld(t, session.Config{})
	p, c := w.login("alice")
	c.ask(p.packets(single, "f", nil, 0)...)
	row := w.row(p.id, "f", false)
	w.must(&storage.DeleteFile{Outcome: byServer, ID: p.id, Path: "f", Incoming: row.Incoming})
	if got := c.ask(p.ok("f")); got != "1604" {
		t.Fatal(got)
	}
	if f := w.row(p.id, "f", true); f == nil || f.Deleted {
		t.Errorf("on record is %+v", f)
	}
	w.hangUp()
}

// firstPair is the key pair of clients that log in.
func firstPair() *testpeer.Pair { priv, _ := pair[0](); return priv }
