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
	"sealift/crypto/cksum"
	"sealift/session"
	"sealift/storage"
	"sealift/storage/audit"
	"sealift/storage/storagetest"
)

// cluster are several servers with one registry and one bucket, in a world.
type cluster struct {
	w      *world
	bucket *storagetest.Bucket
	all    []*session.Service // those that run
	ever   []*session.Service // and those that were killed
	files  map[*session.Service]*storagetest.BucketFiles
	dead   map[*session.Service]bool
	next   func() int // which of all gets the next connection
	swept  int        // contents that sweeps have removed
	// verified is the content of each version that was verified, by place.
	verified map[string][][]byte
}

// newCluster is a world with two servers. A transfer is kept from 1000 bytes on.
func newCluster(t testing.TB) (*world, *cluster) {
	k := &cluster{
		bucket: storagetest.NewBucket(), files: make(map[*session.Service]*storagetest.BucketFiles),
		dead: make(map[*session.Service]bool), next: func() int { return 0 }, verified: make(map[string][][]byte),
	}
	w := newWorld(t, session.Config{})
	k.w, w.cluster = w, k
	w.reg.onVerified = func(op *storage.VerifyFile) {
		b, ok := k.bucket.Content(storage.Uploaded{Place: storage.Place{ID: op.ID, Path: op.Path}, Key: op.Incoming})
		if !ok {
			t.Errorf("%s: %s was verified, and is not there", op.Path, op.Incoming)
		}
		k.verified[place(op.ID, op.Path)] = append(k.verified[place(op.ID, op.Path)], b)
	}
	k.all = []*session.Service{k.server(), k.server()}
	w.svc = k.all[0]
	return w, k
}

// server starts a server.
func (k *cluster) server() *session.Service {
	name := fmt.Sprint("server ", len(k.files))
	files := k.bucket.Server(storagetest.LeaseFrom(k.w.reg.Registry, name, 5*time.Minute))
	svc := session.NewService(session.Config{
		Files: files, Log: zap.NewNop(), Shared: true, Server: name, Boot: name, KeepFrom: 1000, CheckpointEvery: 2000,
	})
	if lending {
		svc.LendFrom(1)
	}
	k.files[svc], k.ever = files, append(k.ever, svc)
	return svc
}

func (k *cluster) pick() *session.Service { return k.all[k.next()] }

// dial connects to one of the servers.
func (k *cluster) dial(n int) *conn {
	was := k.next
	defer func() { k.next = was }()
	k.next = func() int { return n }
	return k.w.dial()
}

// relogin is world.relogin at one of the servers.
func (k *cluster) relogin(n int, p *peer) *conn {
	was := k.next
	defer func() { k.next = was }()
	k.next = func() int { return n }
	return k.w.relogin(p)
}

// kill ends a server at once, and starts another one in its place. What its sessions have under way comes
// to its end, since a test has no other way to be rid of them, but reaches neither store nor client.
func (k *cluster) kill(n int) {
	old := k.all[n]
	k.dead[old] = true
	k.files[old].Kill()
	for _, c := range k.w.conns {
		if c.svc == old {
			c.close()
		}
	}
	k.all[n] = k.server()
	k.w.svc = k.all[0]
}

// sweep sweeps the bucket by way of the first server.
func (k *cluster) sweep() {
	k.w.t.Helper()
	swept, err := audit.Sweep(context.Background(), k.w.reg.Registry, k.files[k.all[0]], audit.SweepOptions{})
	if err != nil || swept.Failed > 0 && k.bucket.Step == nil {
		k.w.t.Errorf("Sweep: %+v, %v", swept, err)
	}
	k.swept += swept.Removed
}

// clean checks that all that is on record is there, and that, once the leases have run out and
// a sweep has gone through it, the bucket has nothing else.
func (k *cluster) clean() {
	w := k.w
	w.t.Helper()
	k.sound()
	w.now = w.now.Add(3 * time.Hour)
	k.sweep()
	k.sound()
	for _, up := range k.bucket.Uploads() {
		op := &storage.FindUpload{Upload: up}
		w.must(op)
		if !op.Found {
			w.t.Errorf("%+v is left over", up)
		}
	}
	if err := w.reg.EachLease(context.Background(), func(l storage.Lease) error { return fmt.Errorf("%+v", l) }); err != nil {
		w.t.Errorf("a lease is left over: %v", err)
	}
}

// sound checks that all that is on record is there.
func (k *cluster) sound() {
	w := k.w
	w.t.Helper()
	for _, f := range w.rows() {
		b, ok := k.bucket.Content(f.Uploaded())
		if !ok || int64(len(b)) != f.Size || cksum.Checksum(b) != f.Cksum {
			w.t.Errorf("%s, %s, verified %v: it is there: %v, %d bytes, recorded %d", f.Path, f.Incoming, f.Verified, ok, len(b), f.Size)
		}
	}
	err := w.reg.Partials(context.Background(), func(p storage.Partial) error {
		b, ok := k.bucket.Prefix(p.Uploaded(), p.Length)
		if h := cksum.Resume(p.State, uint64(p.Length)); !ok || h.Sum32() != cksum.Checksum(b) {
			w.t.Errorf("%s, %s: the first %d bytes are there: %v, and not what is on record", p.Path, p.Incoming, p.Length, ok)
		}
		return nil
	})
	if err != nil {
		w.t.Error(err)
	}
}

// A client uploads through one server, is cut, and gives its verdict through the other. The
// version that was goes when the next one is verified.
func TestVerdictElsewhere(t *testing.T) {
	w, k := newCluster(t)
	p, c := w.login("alice")
	for round, size := range []int{0, 700, 9000, 40_000} {
		content := random(uint64(round), size)
		if got, want := c.ask(p.packets(spec, "f", content, 1024)...), received("f", content); got != want {
			t.Fatalf("%d bytes: %q, want %q", size, got, want)
		}
		c.close()
		k.sweep()
		c = k.relogin(1-round%2, p)
		if got := c.ask(p.ok("f")); got != "1604" {
			t.Fatalf("%d bytes: the verdict elsewhere gets %q", size, got)
		}
		w.verified(p, "f", content)
		if n := len(k.bucket.Uploads()); n != 1 {
			t.Errorf("%d versions are there", n)
		}
		// Its 1604 was lost, and it asks again, both servers.
		for n := range 2 {
			again := k.relogin(n, p)
			if got := again.ask(p.ok("f")); got != "1604" {
				t.Errorf("%d bytes: the verdict again gets %q", size, got)
			}
			again.close()
		}
		c = k.relogin(round%2, p)
	}
	w.hangUp()
	w.counted()
}

// A version that another server has replaced meanwhile is not confirmed.
func TestReplacedElsewhere(t *testing.T) {
	w, k := newCluster(t)
	p, a := w.login("alice")
	older, newer := random(1, 3000), random(2, 4000)
	if got, want := a.ask(p.packets(spec, "f", older, 1024)...), received("f", older); got != want {
		t.Fatal(got)
	}
	q := *p
	b := k.relogin(1, &q)
	if got, want := b.ask(q.packets(spec, "f", newer, 1024)...), received("f", newer); got != want {
		t.Fatal(got)
	}
	if got := a.ask(p.ok("f")); got != "1607" {
		t.Errorf("a verdict about what was replaced gets %q", got)
	}
	if got := b.ask(q.ok("f")); got != "1604" {
		t.Errorf("the verdict about what is there gets %q", got)
	}
	if got := a.ask(p.ok("f")); got != "1607" {
		t.Errorf("a verdict about what was replaced gets %q", got)
	}
	w.verified(p, "f", newer)
	w.hangUp()
}

// A client registers at one server, and reconnects at the other at once.
func TestRegisteredElsewhere(t *testing.T) {
	w, k := newCluster(t)
	priv, pub := pair[0]()
	p := &peer{name: "alice"}
	a := k.dial(0)
	if got := a.ask(p.register()); got != "1600" {
		t.Fatal(got)
	}
	p.id = a.id(t)
	b := k.dial(1)
	if got := b.ask(p.reconnect()); got != "1606" {
		t.Errorf("before there is a key, a 1027 elsewhere gets %q", got)
	}
	if got := a.ask(p.publicKey(pub)); got != "1602" {
		t.Fatal(got)
	}
	b = k.dial(1)
	if got := b.ask(p.reconnect()); got != "1605" {
		t.Fatalf("a 1027 elsewhere gets %q", got)
	}
	p.key = b.aesKey(t, priv)
	if got, want := b.ask(append(p.packets(spec, "f", []byte("content"), 1024), p.ok("f"))...), received("f", []byte("content"))+", 1604"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	w.hangUp()
}

// id is the client id in the reply that came last.
func (c *conn) id(t testing.TB) codec.ClientID {
	t.Helper()
	m, err := codec.ParseIDReply(codec.CodeRegistered, c.raw[len(c.raw)-1][codec.ResponseHeaderSize:])
	if err != nil {
		t.Fatal(err)
	}
	return m.ID
}

// One name at both servers at one moment: one of them gives it away.
func TestOneNameAtTwoServers(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 51))
		w, k := newCluster(t)
		w.shuffle(r)
		p := &peer{name: "alice"}
		conns := []*conn{k.dial(0), k.dial(1), k.dial(0), k.dial(1)}
		for _, c := range conns {
			c.send(p.register())
		}
		w.run()
		given := 0
		for _, c := range conns {
			switch got := strings.Join(c.replies, ", "); got {
			case "1600":
				given++
			case "1601":
			default:
				t.Errorf("seed %d: %q", seed, got)
			}
		}
		if given != 1 {
			t.Errorf("seed %d: %d clients got the name", seed, given)
		}
		w.hangUp()
	}
}

// A 1032 at one server ends the transfer at the other: what that still gets, changes nothing.
func TestContinuedElsewhere(t *testing.T) {
	content, other := random(1, 30_000), random(2, 30_000)
	for _, late := range []string{"sends on", "sends other content", "is cut", "sleeps"} {
		w, k := newCluster(t)
		p, a := w.login("alice")
		packets := p.packets(spec, "f", content, 1024)
		a.send(packets[:9]...)
		w.run()
		row := w.reg.partial(storage.Place{ID: p.id, Path: "f"})
		if row == nil || row.Length < 2000 {
			t.Fatalf("%s: on record is %+v", late, row)
		}
		a.send(packets[9:11]...) // less than a checkpoint
		w.run()

		q := *p
		b := k.relogin(1, &q)
		row = w.reg.partial(row.Place())
		if got, want := b.ask(q.question("f", len(content))), continued("f", content[:row.Length]); got != want {
			t.Fatalf("%s: a 1032 elsewhere gets %q, want %q", late, got, want)
		}
		rest := q.packets(spec, "f", content[row.Length:], 1024)
		b.send(rest[:5]...)
		w.run()
		switch late {
		case "sends on":
			if got := a.ask(packets[11:]...); got != "1607" {
				t.Errorf("%s: the transfer that was taken gets %q", late, got)
			}
		case "sends other content":
			if got := a.ask(p.packets(spec, "f", other, 1024)[11:]...); got != "1607" {
				t.Errorf("%s: the transfer that was taken gets %q", late, got)
			}
		case "is cut":
			a.close()
			w.run()
		}
		k.sweep()
		if got, want := b.ask(append(rest[5:], q.ok("f"))...), segment("f", len(content)-int(row.Length), content)+", 1604"; got != want {
			t.Errorf("%s: the rest elsewhere gets %q, want %q", late, got, want)
		}
		if late == "sleeps" {
			if got := a.ask(packets[11:]...); got != "1607" {
				t.Errorf("%s: the transfer that was taken gets %q", late, got)
			}
		}
		w.verified(p, "f", content)
		w.hangUp()
		w.verified(p, "f", content)
		w.counted()
	}
}

// Of two connections that go on with a file at two servers, only the one with the last 1032 can finish it,
// also if the other one has recorded nothing since its own.
func TestContinuedTwiceElsewhere(t *testing.T) {
	content := random(1, 20_000)
	for _, recorded := range []bool{false, true} {
		w, k := newCluster(t)
		p, a := w.login("alice")
		w.cutAfter(a, p.packets(spec, "f", content, 1000), 12)
		key := w.reg.partial(storage.Place{ID: p.id, Path: "f"}).Incoming
		q := *p
		goesOn := func(n int, p *peer) (c *conn, rest [][]byte) {
			t.Helper()
			c = k.relogin(n, p)
			length := int(w.reg.partial(storage.Place{ID: p.id, Path: "f"}).Length)
			if got, want := c.ask(p.question("f", len(content))), continued("f", content[:length]); got != want {
				t.Fatalf("%q, want %q", got, want)
			}
			return c, p.packets(spec, "f", content[length:], 500)
		}
		b, rest := goesOn(1, p)
		sent := 1
		if recorded {
			sent = 6
		}
		b.send(rest[:sent]...)
		w.run()
		if row := w.reg.partial(storage.Place{ID: p.id, Path: "f"}); (row.Incoming != key) != recorded {
			t.Fatalf("on record is %+v, was %s", row, key)
		}
		c, last := goesOn(0, &q)
		if got := b.ask(rest[sent:]...); got != "1607" {
			t.Errorf("the one that lost the file gets %q", got)
		}
		if all := k.bucket.Uploads(); len(all) != 1 {
			t.Errorf("beside what is on record there is more: %+v", all)
		}
		k.sound()
		if got, want := strings.Split(c.ask(append(last, q.ok("f"))...), ", "), "1604"; len(got) != 2 || got[1] != want {
			t.Errorf("the one that has it gets %q", got)
		}
		w.verified(p, "f", content)
		w.hangUp()
	}
}

// After a 1603, a 1030 at a sealed store goes back to what the 1608 said, also by way of the
// other server.
func TestMismatchInAContinuedFile(t *testing.T) {
	content, wrong := random(1, 20_000), random(2, 20_000)
	w, k := newCluster(t)
	p, a := w.login("alice")
	w.cutAfter(a, p.packets(spec, "f", content, 1000), 12)
	b := k.relogin(1, p)
	row := w.reg.partial(storage.Place{ID: p.id, Path: "f"})
	length := int(row.Length)
	if got, want := b.ask(p.question("f", len(content))), continued("f", content[:length]); got != want {
		t.Fatalf("%q, want %q", got, want)
	}
	b.ask(p.packets(spec, "f", wrong[length:], 1000)...)
	if got := b.ask(p.verdict(codec.CodeCRCBad, "f")); got != "" {
		t.Fatalf("a 1030 gets %q", got)
	}
	k.sweep()
	k.sound()
	if got, want := b.ask(p.packets(spec, "f", wrong[length:], 1000)...), segment("f", len(wrong)-length, append(slices.Clone(content[:length]), wrong[length:]...)); got != want {
		t.Fatalf("%q, want %q", got, want)
	}
	if got := b.ask(p.verdict(codec.CodeCRCBad, "f")); got != "" {
		t.Fatalf("a 1030 gets %q", got)
	}
	b.close()
	w.run()
	a = k.relogin(0, p)
	if got, want := a.ask(p.question("f", len(content))), continued("f", content[:length]); got != want {
		t.Fatalf("%q, want %q", got, want)
	}
	if got, want := a.ask(append(p.packets(spec, "f", content[length:], 1000), p.ok("f"))...), segment("f", len(content)-length, content)+", 1604"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	w.verified(p, "f", content)
	w.hangUp()
}

// A 1031 at one server removes what there is of a file that came in at the other.
func TestGivenUpElsewhere(t *testing.T) {
	content := random(1, 20_000)
	w, k := newCluster(t)
	p, a := w.login("alice")
	w.cutAfter(a, p.packets(spec, "f", content, 1000), 12)
	b := k.relogin(1, p)
	if got := b.ask(p.verdict(codec.CodeAbort, "f")); got != "1604" {
		t.Errorf("a 1031 gets %q", got)
	}
	if w.reg.partial(storage.Place{ID: p.id, Path: "f"}) != nil || len(k.bucket.Uploads()) > 0 {
		t.Error("the partial file is there")
	}
	a = k.relogin(0, p)
	if got, want := a.ask(p.packets(spec, "f", content, 1000)...), received("f", content); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := b.ask(p.verdict(codec.CodeAbort, "f")); got != "1604" {
		t.Errorf("a 1031 gets %q", got)
	}
	if got := a.ask(p.ok("f")); got != "1607" {
		t.Errorf("a 1029 after it gets %q", got)
	}
	w.hangUp()
	if len(w.rows()) > 0 {
		t.Errorf("left: %+v", w.rows())
	}
}

// A server that slept past its lease cannot record what it has, and the file comes again.
func TestSleptPastItsLease(t *testing.T) {
	content := random(1, 9000)
	for _, packets := range []int{5, 9} { // the last one comes late, or all came in time
		w, k := newCluster(t)
		p, a := w.login("alice")
		all := p.packets(single, "f", content, 0)
		if packets == 5 {
			all = p.packets(packetSize, "f", content, 1000)
			a.send(all[:packets]...)
			w.run()
			all = all[packets:]
		} else {
			a.send(all...)
			for len(w.applies) == 0 { // its PutFile is about to be asked for
				w.step()
			}
			all = nil
		}
		if len(k.bucket.Uploads()) == 0 {
			t.Fatal("nothing came in")
		}
		if part := w.reg.partial(storage.Place{ID: p.id, Path: "f"}); part != nil {
			w.must(&storage.DropPartial{Outcome: byServer, ID: p.id, Path: "f", Incoming: part.Incoming})
		}
		w.now = w.now.Add(2 * time.Hour)
		k.sweep()
		if n := len(k.bucket.Uploads()); n > 0 {
			t.Errorf("%d contents are left after the lease", n)
		}
		if got := a.ask(all...); got != "1607" {
			t.Errorf("what was swept gets %q", got)
		}
		if len(w.rows()) > 0 {
			t.Errorf("recorded was %+v", w.rows())
		}
		if got, want := a.ask(append(p.packets(spec, "f", content, 1000), p.ok("f"))...), received("f", content)+", 1604"; got != want {
			t.Errorf("sent again it gets %q, want %q", got, want)
		}
		w.verified(p, "f", content)
		w.hangUp()
	}
}

// The verdict comes at both servers at one moment, and both say the same.
func TestVerdictAtTwoServers(t *testing.T) {
	content := random(1, 3000)
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 52))
		w, k := newCluster(t)
		p, a := w.login("alice")
		if got, want := a.ask(p.packets(spec, "f", content, 1000)...), received("f", content); got != want {
			t.Fatal(got)
		}
		q := *p
		b := k.relogin(1, &q)
		w.shuffle(r)
		w.lend = nil
		a.replies = nil
		a.send(p.ok("f"))
		b.send(q.ok("f"))
		w.run()
		if strings.Join(a.replies, "")+strings.Join(b.replies, "") != "16041604" {
			t.Fatalf("seed %d: %q and %q", seed, a.replies, b.replies)
		}
		w.verified(p, "f", content)
		w.choose = first
		w.hangUp()
	}
}

// TestSharedByMany is TestContinuedByMany with two servers: a connection goes to either, and beside it the
// bucket is swept at any step, answers of the registry are lost, requests to the bucket fail, and a server is killed. A 1608
// and a 1603 speak of a file that somebody sent, a 1604 is about the one that got it, all that is on record is there,
// and after a sweep nothing else is.
func TestSharedByMany(t *testing.T) {
	schedules := uint64(800)
	if testing.Short() {
		schedules = 200
	}
	finished, killed, lost, failed, swept := 0, 0, 0, 0, 0
	for seed := range schedules {
		r := rand.New(rand.NewPCG(seed, 53))
		w, k := newCluster(t)
		k.next = func() int { return r.IntN(2) }
		w.shuffle(r)
		p := w.known("alice")
		contents := [][]byte{random(1, 9000), random(2, 9000), random(3, 8000)}
		var all []*uploader
		for range 2 + r.IntN(3) {
			own := *p
			all = append(all, &uploader{w: w, r: r, peer: &own, name: []string{"f", "f", "f", "g"}[r.IntN(4)],
				content: contents[r.IntN(3)], others: contents})
		}
		kind := seed % 4
		switch kind {
		case 1:
			w.reg.loses = func() bool {
				loses := r.IntN(40) == 0
				if loses {
					lost++
				}
				return loses
			}
		case 2:
			k.bucket.Step = func(string, storage.Uploaded) error {
				if r.IntN(20) > 0 {
					return nil
				}
				failed++
				return errInjected
			}
		}
		w.upload(r, all, func(step int) {
			if r.IntN(10) == 0 {
				k.sweep()
				k.sound()
			}
			if kind == 3 && r.IntN(150) == 0 {
				k.kill(r.IntN(2))
				killed++
			}
		})
		for _, u := range all {
			if u.done && u.tries <= 12 {
				finished++
			}
		}
		w.reg.loses, k.bucket.Step = nil, nil
		w.tidy()
		swept += k.swept
		if t.Failed() {
			t.Fatal("seed ", seed)
		}
	}
	t.Logf("%d files came through, %d servers were killed, %d answers lost, %d requests failed, %d contents swept", finished, killed, lost, failed, swept)
	if n := int(schedules); finished < n || killed < n/8 || lost < n/8 || failed < n/8 || swept < n/8 {
		t.Errorf("%d files came through, %d servers were killed, %d answers lost, %d requests failed, %d contents swept", finished, killed, lost, failed, swept)
	}
}

// If the registry fails when a 1030 is to be judged, what comes behind it is refused: it is the rest of the file,
// and not a whole one.
func TestMismatchThatCannotBeJudged(t *testing.T) {
	content, wrong := random(1, 20_000), random(2, 20_000)
	w, k := newCluster(t)
	p, a := w.login("alice")
	w.cutAfter(a, p.packets(spec, "f", content, 1000), 12)
	b := k.relogin(1, p)
	length := int(w.reg.partial(storage.Place{ID: p.id, Path: "f"}).Length)
	b.ask(p.question("f", len(content)))
	b.ask(p.packets(spec, "f", wrong[length:], 1000)...)
	w.reg.faults.failOn = "Apply *storage.GetFile"
	if got := b.ask(append([][]byte{p.verdict(codec.CodeCRCBad, "f")}, p.packets(spec, "f", content[length:], 1000)...)...); got != "1607, 1607" {
		t.Errorf("%q, want two 1607", got)
	}
	w.hangUp()
}
