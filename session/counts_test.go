package session_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"sealift/codec"
	"sealift/session"
	"sealift/storage"
)

// TestCounts: each thing that a client does is counted once.
func TestCounts(t *testing.T) {
	_, pub := pair[0]()
	content := random(1, 40_000)
	w := newWorld(t, session.Config{})
	var took []time.Duration
	w.svc.Received = func(d time.Duration) { took = append(took, d) }
	var want session.Counts
	step := func(what string, got, reply string, change func(c *session.Counts)) {
		t.Helper()
		if got != reply {
			t.Errorf("%s: %q, want %q", what, got, reply)
		}
		if change(&want); w.svc.Counts() != want {
			t.Errorf("%s: counted are\n%+v, want\n%+v", what, w.svc.Counts(), want)
			want = w.svc.Counts()
		}
	}
	nothing := func(*session.Counts) {}

	c := w.dial()
	p := &peer{name: "alice"}
	step("1025", c.ask(p.register()), "1600", func(c *session.Counts) { c.Registered++ })
	p.id = w.allClients()[0].ID
	step("1025 of the same name", w.dial().ask(p.register()), "1601", func(c *session.Counts) { c.NotRegistered++ })
	step("1026", c.ask(p.publicKey(pub)), "1602", nothing)
	p.key = c.aesKey(t, firstPair())
	stranger := &peer{name: "stranger", id: uuid4(codec.ClientID{7})}
	step("1027 of a stranger", w.dial().ask(stranger.reconnect()), "1606", func(c *session.Counts) { c.Rejected++ })
	step("adopting", w.dial().ask(stranger.reconnect(), stranger.publicKey(pub)), "1606, 1602", func(c *session.Counts) { c.Rejected++; c.Registered++ })
	step("1027", c.ask(p.reconnect()), "1605", func(c *session.Counts) { c.Rejoined++ })
	p.key = c.aesKey(t, firstPair())

	packets := p.packets(spec, "f", content, 10_000)
	step("the first packet", c.ask(packets[0]), "", func(c *session.Counts) { c.Begun++; c.ContentBytes += 10_000 })
	w.now = w.now.Add(3 * time.Second)
	step("the others", c.ask(packets[1:]...), received("f", content), func(c *session.Counts) { c.ContentBytes += 30_016; c.Received++ })
	step("1029", c.ask(p.ok("f")), "1604", func(c *session.Counts) { c.Verified++; c.VerifiedBytes += 40_000 })
	step("1029 again", c.ask(p.ok("f")), "1604", func(c *session.Counts) { c.Again++ })
	step("1029 of nothing", c.ask(p.ok("nothing")), "1607", func(c *session.Counts) { c.Refused[session.ReasonVerdict]++ })
	g := func(c *session.Counts) { c.Begun++; c.ContentBytes += 16; c.Received++ }
	step("another file", c.ask(p.packets(single, "g", nil, 0)...), received("g", nil), g)
	step("1030", c.ask(p.verdict(codec.CodeCRCBad, "g")), "", func(c *session.Counts) { c.Mismatches++ })
	step("once more", c.ask(p.packets(single, "g", nil, 0)...), received("g", nil), g)
	step("1031", c.ask(p.verdict(codec.CodeAbort, "g")), "1604", func(c *session.Counts) { c.GivenUp++ })

	resumed := w.dial()
	step("a 1028 that resumes", resumed.ask(p.packets(single, "h", nil, 0)...), received("h", nil), func(c *session.Counts) { c.Resumed++; g(c) })
	step("a packet that repeats a file", resumed.ask(p.packets(spec, "cut", content, 10_000)[0]), "", func(c *session.Counts) { c.Begun++; c.ContentBytes += 10_000 })
	step("a packet before its turn", resumed.ask(p.packets(spec, "early", content, 10_000)[2]), "", func(c *session.Counts) { c.Begun++ })
	resumed.close()
	step("the connection is cut", "", "", func(c *session.Counts) { c.ContentBytes += 10_000 })
	step("the second packet of a file again", c.ask(packets[1]), "", nothing)
	step("and its first", c.ask(packets[0]), "", func(c *session.Counts) { c.Begun++; c.ContentBytes += 20_000 })
	step("and the others", c.ask(packets[2:]...), received("f", content), func(c *session.Counts) { c.ContentBytes += 20_016; c.Received++ })

	w.reg.faults.failOn = "Apply *storage.PutFile"
	step("the registry fails", c.ask(p.packets(single, "i", nil, 0)...), "1607", func(c *session.Counts) {
		c.Begun++
		c.ContentBytes += 16
		c.Failed[session.StepRegistry]++
	})
	step("a file", c.ask(p.packets(single, "j", content, 0)...), received("j", content), func(c *session.Counts) {
		c.Begun++
		c.ContentBytes += 40_016
		c.Received++
	})
	w.reg.faults.failOn = "Apply *storage.VerifyFile"
	step("the registry fails to record it", c.ask(p.ok("j")), "1607", func(c *session.Counts) { c.Failed[session.StepRegistry]++ })
	step("1029 when it is recorded", c.ask(p.ok("j")), "1604", func(c *session.Counts) { c.Verified++; c.VerifiedBytes += 40_000; c.Again++ })
	step("1030 of nothing", c.ask(p.verdict(codec.CodeCRCBad, "nothing")), "", nothing)
	step("1030 of what is verified", c.ask(p.verdict(codec.CodeCRCBad, "j")), "", nothing)
	step("1031 of nothing", c.ask(p.verdict(codec.CodeAbort, "nothing")), "1604", nothing)
	step("a transfer", c.ask(packets[0]), "", func(c *session.Counts) { c.Begun++; c.ContentBytes += 10_000 })
	step("1031 in the middle of it", c.ask(p.verdict(codec.CodeAbort, "f")), "1604", func(c *session.Counts) { c.GivenUp++ })
	w.reg.faults.failOn = "Apply *storage.GetFile"
	step("the registry fails a 1029", c.ask(p.ok("nothing")), "1607", func(c *session.Counts) { c.Failed[session.StepRegistry]++ })
	w.files.faults.failOn = "Create"
	step("the store fails", c.ask(p.packets(single, "i", nil, 0)...), "1607", func(c *session.Counts) {
		c.Begun++
		c.ContentBytes += 16
		c.Failed[session.StepStorage]++
	})
	w.files.faults.failOn, w.files.faults.fail = "Create", func() error { return storage.ErrFull }
	step("the disk is full", c.ask(p.packets(single, "i", nil, 0)...), "1607", func(c *session.Counts) {
		c.Begun++
		c.ContentBytes += 16
		c.Failed[session.StepDiskFull]++
	})
	w.files.faults.fail = nil
	if !slices.Equal(took, []time.Duration{3 * time.Second, 0, 0, 0, 0, 0}) {
		t.Errorf("the transfers took %v", took)
	}
	w.hangUp()
}

// TestReasons: the reasons and steps have names of their own, fit for a label.
func TestReasons(t *testing.T) {
	var names []string
	for r := range session.Reasons {
		names = append(names, r.String())
	}
	for s := range session.Steps {
		names = append(names, "step "+s.String())
	}
	seen := make(map[string]bool)
	for _, name := range names {
		if seen[name] || strings.Trim(strings.TrimPrefix(name, "step "), "abcdefghijklmnopqrstuvwxyz_") != "" || name == "" {
			t.Errorf("%q is no name, or another's, too", name)
		}
		seen[name] = true
	}
}

// TestReasonOfEachRefusal: what is refused for another reason is counted for another.
func TestReasonOfEachRefusal(t *testing.T) {
	_, pub := pair[1]()
	content := random(1, 2000)
	file := func(name string) func(p *peer) [][]byte {
		return func(p *peer) [][]byte { return p.packets(single, name, content, 0) }
	}
	one := func(say func(p *peer) []byte) func(p *peer) [][]byte {
		return func(p *peer) [][]byte { return [][]byte{say(p)} }
	}
	for _, x := range []struct {
		want session.Reason
		cfg  session.Config
		say  func(p *peer) [][]byte // on a connection with an AES key
	}{
		{want: session.ReasonProtocol, say: one(func(p *peer) []byte { return edit(p.ok("f"), -7, 4) })},
		{want: session.ReasonState, say: one((*peer).register)},
		{want: session.ReasonState, say: one(func(p *peer) []byte { q := *p; q.id[5]++; return q.ok("f") })},
		{want: session.ReasonState, say: func(p *peer) [][]byte {
			return [][]byte{p.packets(spec, "f", content, 500)[0], p.ok("f")}
		}},
		{want: session.ReasonName, say: one(func(p *peer) []byte { return p.ok("\x01") })},
		{want: session.ReasonName, say: file("\x01")},
		{want: session.ReasonPath, say: file("..")},
		{want: session.ReasonPath, say: one(func(p *peer) []byte { return p.ok("..") })},
		{want: session.ReasonPath, say: file(strings.Repeat("d/", 17) + "f")},
		{want: session.ReasonPacket, say: one(func(p *peer) []byte { return edit(p.packets(spec, "f", content, 500)[0], 10, 0, 0) })},
		{want: session.ReasonContent, say: func(p *peer) [][]byte { q := *p; q.key[1]++; return q.packets(single, "f", content, 0) }},
		{want: session.ReasonSize, cfg: session.Config{Limits: session.Limits{MaxFileSize: 1999}}, say: file("f")},
		{want: session.ReasonTransfers, cfg: session.Config{Limits: session.Limits{MaxUploads: 1}}, say: func(p *peer) [][]byte {
			return [][]byte{p.packets(spec, "f", content, 500)[0], p.packets(spec, "g", content, 500)[0]}
		}},
		{want: session.ReasonUnverified, cfg: session.Config{Limits: session.Limits{MaxUnverified: 1}}, say: file("f")},
		{want: session.ReasonQuota, cfg: session.Config{Limits: session.Limits{Quota: storage.Quota{Bytes: 1999}}}, say: file("f")},
		{want: session.ReasonOtherName, say: one(func(p *peer) []byte { q := *p; q.name = "bob"; return q.publicKey(pub) })},
		{want: session.ReasonPublicKey, say: one(func(p *peer) []byte { return p.publicKey(pub) })},
		{want: session.ReasonPublicKey, say: one(func(p *peer) []byte { return p.publicKey(make([]byte, codec.PublicKeySize)) })},
		{want: session.ReasonVerdict, say: one(func(p *peer) []byte { return p.ok("f") })},
	} {
		w := newWorld(t, x.cfg)
		p, c := w.login("alice")
		if got := c.ask(x.say(p)...); got != "1607" {
			t.Errorf("%v: %q", x.want, got)
		}
		if n := w.svc.Counts(); n.Refused[x.want] != 1 {
			t.Errorf("want a refusal for %v; refused are %v, failed %v", x.want, n.Refused, n.Failed)
		}
		w.hangUp()
	}

	w := newWorld(t, session.Config{Limits: session.Limits{RegisterRate: 0.05}})
	p, c := w.login("alice")
	count := func(want session.Reason, got string) {
		t.Helper()
		if n := w.svc.Counts(); got != "1607" || n.Refused[want] != 1 {
			t.Errorf("want a refusal for %v, got %q; refused are %v, failed %v", want, got, n.Refused, n.Failed)
		}
	}
	w.dial().ask((&peer{name: "bob"}).register())
	count(session.ReasonRegisterRate, w.dial().ask((&peer{name: "carol"}).register()))
	count(session.ReasonUnknown, w.dial().ask((&peer{name: "dave", id: uuid4(codec.ClientID{4})}).publicKey(pub)))
	w.must(&storage.SetAESKey{ID: p.id})
	count(session.ReasonNoKey, w.dial().ask(p.ok("f")))
	c.ask(append(p.packets(single, "f", nil, 0), p.ok("f"))...)
	delete(w.files.stored, place(p.id, "f"))
	count(session.ReasonMissing, c.ask(p.ok("f")))
	row := w.row(p.id, "f", true)
	w.must(&storage.MarkFile{Outcome: byServer, ID: p.id, Path: "f", Incoming: row.Incoming, Missing: true})
	w.must(&storage.ForgetFile{Outcome: byServer, ID: p.id, Path: "f", Incoming: row.Incoming})
	w.pin(p, ownKey)
	count(session.ReasonPinned, w.dial().ask(p.reconnect()))
	w.svc.Limit(session.Limits{})
	taken := &peer{name: "alice", id: uuid4(codec.ClientID{5})}
	d := w.dial()
	d.ask(taken.reconnect())
	count(session.ReasonTaken, d.ask(taken.publicKey(pub)))
	tls := &peer{name: "erin", id: codec.ClientID{0x16, 3, 1, 0, 0, 1, 0, 0, 0, 3, 3}}
	d = w.dial()
	d.ask(tls.reconnect())
	count(session.ReasonClientID, d.ask(tls.publicKey(pub)))
	faults, err := session.ParseFaults("error=1025:1")
	if err != nil {
		t.Fatal(err)
	}
	w.svc.Faults = faults
	count(session.ReasonFault, w.dial().ask((&peer{name: "frank"}).register()))
	d = w.dial()
	d.s.Drain()
	count(session.ReasonDraining, d.ask((&peer{name: "frank"}).register()))
	w.hangUp()
}
