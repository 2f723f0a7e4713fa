package session_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"sealift/codec"
	"sealift/crypto/cksum"
)

// uploader is a client that knows Continue: it sends one file over one connection after the
// other, goes on where it was, and compares what a 1608 says with its own file.
type uploader struct {
	w       *world
	r       *rand.Rand
	peer    *peer // with the key of the connection
	name    string
	content []byte
	others  [][]byte // what other clients send under the name

	c      *conn
	seen   int    // replies that were looked at
	offset int    // of the last 1608
	sent   int    // bytes in the segment that was sent last
	asked  string // what was sent last
	tries  int
	done   bool
	stuck  bool // it sent a part of a transfer, and waits
	proven bool // a 1603 or 1608 said that the server has the content
}

func (u *uploader) dial() {
	u.c, u.seen, u.stuck, u.proven = u.w.dial(), 0, false, false
	_, pub := pair[0]()
	u.say("1026", u.peer.publicKey(pub))
}

func (u *uploader) say(what string, messages ...[]byte) {
	u.asked = what
	u.c.send(messages...)
}

// ask sends a 1032, unless the client has tried too often.
func (u *uploader) ask() {
	if u.tries++; u.tries > 12 {
		u.done = true
		return
	}
	u.say("1032", u.peer.question(u.name, len(u.content)))
}

// segment sends the next bytes of the file, or a part of what carries them.
func (u *uploader) segment() {
	rest := u.content[u.offset:]
	u.sent = len(rest)
	if u.r.IntN(3) == 0 {
		u.sent = 1 + u.r.IntN(len(rest))
	}
	d := []dialect{spec, zeroBased, packetSize, perPacket, padded}[u.r.IntN(5)]
	packets := u.peer.packets(d, u.name, rest[:u.sent], 64*(1+u.r.IntN(20)))
	u.asked = "1028"
	if u.r.IntN(4) == 0 {
		packets = packets[:u.r.IntN(len(packets))]
		u.asked = "1028, 1028" // a 1607 may be about either
		switch u.r.IntN(3) {
		case 0:
			packets = append(packets, u.peer.verdict(codec.CodeCRCBad, u.name))
			packets = append(packets, u.peer.packets(d, u.name, rest[:u.sent], 700)...)
		case 1: // it begins again
			packets = append(packets, u.peer.packets(d, u.name, rest[:u.sent], 700)...)
		default:
			u.stuck = true
		}
	}
	u.c.send(packets...)
}

// hear does what follows from the replies that have come.
func (u *uploader) hear() {
	for ; u.seen < len(u.c.replies) && !u.done; u.seen++ {
		u.react(u.c.replies[u.seen], u.c.raw[u.seen])
	}
}

func (u *uploader) react(reply string, raw []byte) {
	t := u.w.t
	code := reply[:4]
	switch {
	case code == "1602":
		priv, _ := pair[0]()
		m, err := codec.ParseKeyReply(codec.CodeAESKey, raw[codec.ResponseHeaderSize:])
		if err == nil {
			u.peer.key, err = priv.Unwrap(m.WrappedKey)
		}
		if err != nil {
			t.Fatal(err)
		}
		u.ask()
	case code == "1608":
		u.continued(raw)
	case code == "1603":
		u.stuck = false
		whole := u.content[:u.offset+u.sent]
		if want := segment(u.name, u.sent, whole); reply != want {
			t.Errorf("a segment from %d on gets %q, want %q", u.offset, reply, want)
		}
		switch {
		case u.r.IntN(6) == 0:
			u.c.send(u.peer.verdict(codec.CodeCRCBad, u.name))
			u.segment()
			u.asked = "1030, 1028"
		case len(whole) == len(u.content):
			u.proven = true
			u.say("1029", u.peer.ok(u.name))
		case u.r.IntN(6) == 0: // too soon
			u.say("1029, too soon", u.peer.ok(u.name))
		default:
			u.ask()
		}
	case code == "1604" && u.asked == "1031":
		u.say("1032", u.peer.question(u.name, len(u.content)))
	case code == "1604":
		u.done = true
		if !u.w.hasVerified(u.peer.id, u.name, u.content) || !u.proven {
			t.Errorf("1604 after %s, and what is stored is another file", u.asked)
		}
	case code == "1607":
		switch {
		case u.tries > 6 && u.r.IntN(2) == 0:
			u.done = true
		case u.asked == "1028", u.asked == "1029", u.asked == "1029, too soon":
			u.stuck = false
			u.ask()
		default: // nobody knows whether it is the answer to this
			u.stuck = true
		}
	default:
		t.Errorf("%s gets %q", u.asked, reply)
	}
}

// continued looks at a 1608: what it speaks of must be the beginning of one of the files.
func (u *uploader) continued(raw []byte) {
	m, err := codec.ParseContinued(raw[codec.ResponseHeaderSize:])
	if err != nil {
		u.w.t.Fatal(err)
	}
	is := func(content []byte) bool {
		return m.Offset <= uint64(len(content)) && cksum.Checksum(content[:m.Offset]) == m.Cksum
	}
	u.offset = int(m.Offset)
	switch {
	case is(u.content) && u.offset == len(u.content):
		u.proven = true
		u.say("1029", u.peer.ok(u.name))
	case is(u.content):
		u.segment()
	case slices.ContainsFunc(u.others, is):
		u.say("1031", u.peer.verdict(codec.CodeAbort, u.name))
	default:
		u.w.t.Errorf("a 1608 speaks of %d bytes that nobody has sent", m.Offset)
	}
}

// TestContinuedByMany: up to four connections of a client upload under one name or two, some the same file and
// some another one; each is cut at any time, and goes on with another. Whatever comes in
// between, a 1608 and a 1603 speak of a file that somebody sent, a 1604 is about the one that got it,
// and nothing is left over.
func TestContinuedByMany(t *testing.T) {
	schedules := uint64(1000)
	if testing.Short() {
		schedules = 200
	}
	finished := 0
	for seed := range schedules {
		r := rand.New(rand.NewPCG(seed, 32))
		w := newCutWorld(t)
		w.shuffle(r)
		p := w.known("alice")
		contents := [][]byte{random(1, 9000), random(2, 9000), random(3, 8000)}
		var all []*uploader
		for range 2 + r.IntN(3) {
			own := *p
			all = append(all, &uploader{w: w, r: r, peer: &own, name: []string{"f", "f", "f", "g"}[r.IntN(4)],
				content: contents[r.IntN(3)], others: contents})
		}
		w.upload(r, all, nil)
		for _, u := range all {
			if u.done && u.tries <= 12 {
				finished++
			}
		}
		w.tidy()
		if t.Failed() {
			t.Fatal("seed ", seed)
		}
	}
	if finished < int(schedules) {
		t.Errorf("%d files came through", finished)
	}
}

// upload lets the uploaders work until all are done, or time is over. meanwhile, unless it is nil, is called at each step.
func (w *world) upload(r *rand.Rand, all []*uploader, meanwhile func(step int)) {
	for _, u := range all {
		u.dial()
	}
	for n := range 3000 {
		if meanwhile != nil {
			meanwhile(n)
		}
		if r.IntN(100) == 0 {
			all[r.IntN(len(all))].c.close()
		}
		went := w.step()
		waits := false
		for _, u := range all {
			u.hear()
			if u.done {
				continue
			}
			waits = true
			if u.c.closed || u.c.hangup != "" {
				u.c.close()
				if u.tries++; u.tries > 12 {
					u.done = true
				} else {
					u.dial()
				}
			}
		}
		if !waits || !went && !slices.ContainsFunc(all, func(u *uploader) bool { return len(u.c.in) > 0 && !u.c.closed }) && w.wake(r, all) {
			return
		}
	}
}

// wake has those that wait for nothing go on. It returns true if there are none.
func (w *world) wake(r *rand.Rand, all []*uploader) bool {
	none := true
	for _, u := range all {
		if u.done {
			continue
		}
		none = false
		if u.stuck && r.IntN(2) == 0 {
			u.c.close()
			continue
		}
		u.c.s.Tick()
		u.hear()
	}
	return none
}

// tidy checks that nothing is left over when all has come to its end.
func (w *world) tidy() { w.tidyBut(false) }

// tidyBut is tidy where something may be left over that goes at the next start.
func (w *world) tidyBut(left bool) {
	w.t.Helper()
	w.leaves = left
	w.choose, w.stingy, w.hold = first, nil, nil
	w.portion = func(n int) int { return n }
	w.run()
	w.hangUp()
	w.counted()
}

// TestContinuedInSpiteOfFaults: the same where the stores fail or panic at one call. What a 1608 and a 1603
// speak of stays true.
func TestContinuedInSpiteOfFaults(t *testing.T) {
	schedules := uint64(800)
	if testing.Short() {
		schedules = 400
	}
	hit := 0
	for seed := range schedules {
		r := rand.New(rand.NewPCG(seed, 33))
		w := newCutWorld(t)
		w.shuffle(r)
		p := w.known("alice")
		contents := [][]byte{random(1, 9000), random(2, 9000)}
		var all []*uploader
		for range 1 + r.IntN(3) {
			own := *p
			all = append(all, &uploader{w: w, r: r, peer: &own, name: "f", content: contents[r.IntN(2)], others: contents})
		}
		w.reg.faults.failAt = 1 + r.IntN(80)
		if r.IntN(3) == 0 {
			w.reg.faults.fail = func() error { panic(errInjected) }
		}
		w.upload(r, all, nil)
		if w.reg.faults.hit != "" {
			hit++
		}
		// What cannot be removed, or of which nobody can say whether it may be, goes at the next start.
		panicked := w.reg.faults.fail != nil && w.reg.faults.hit == "Close"
		w.tidyBut(panicked || w.reg.faults.hit == "Discard" || strings.Contains(w.reg.faults.hit, "GetFile"))
		if t.Failed() {
			t.Fatalf("seed %d, and %q failed", seed, w.reg.faults.hit)
		}
	}
	if hit < int(schedules)/2 {
		t.Errorf("a call failed in %d schedules", hit)
	}
}

// TestContinuedSteered: the client is disabled or pinned at any time, and the server notices some time later. From then on
// its connections get nothing more, and nothing is left over.
func TestContinuedSteered(t *testing.T) {
	schedules := uint64(600)
	if testing.Short() {
		schedules = 200
	}
	for seed := range schedules {
		r := rand.New(rand.NewPCG(seed, 34))
		w := newCutWorld(t)
		w.shuffle(r)
		p := w.known("alice")
		contents := [][]byte{random(1, 9000), random(2, 9000)}
		var all []*uploader
		for range 1 + r.IntN(3) {
			own := *p
			all = append(all, &uploader{w: w, r: r, peer: &own, name: "f", content: contents[r.IntN(2)], others: contents})
		}
		at := 20 + r.IntN(200)
		later := at + 1 + r.IntN(20)
		var conns []*conn
		w.upload(r, all, func(step int) {
			switch step {
			case at:
				if seed%2 == 0 {
					w.disable(p, true)
				} else {
					w.pin(p, ownKey)
				}
				conns = slices.Clone(w.conns)
			case later:
				w.recheck()
			}
		})
		w.tidy()
		for i, c := range conns {
			if !c.closed {
				t.Errorf("connection %d is open", i)
			}
		}
		if t.Failed() {
			t.Fatal("seed ", seed)
		}
	}
}
