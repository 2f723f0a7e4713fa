package session_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"sealift/codec"
	"sealift/session"
	"sealift/storage"
)

// logged gives the world a log, and returns what is written to it.
func (w *world) logged() *observer.ObservedLogs { return w.loggedFrom(zapcore.WarnLevel) }

// loggedFrom is logged with another least level.
func (w *world) loggedFrom(level zapcore.Level) *observer.ObservedLogs {
	core, logs := observer.New(level)
	w.svc.Log = zap.New(core)
	return logs
}

// floods are packets that get 1607 again and again, each of them a kind.
var floods = map[string]struct {
	cfg session.Config
	// dial connects, and returns the flood of n packets.
	dial func(w *world, n int) (c *conn, flood [][]byte)
}{
	"Orig File Size is not that of the content": {dial: ready(func(p *peer, _ int) []byte {
		return edit(p.packets(single, "f", random(1, 100), 0)[0], 4, 99, 0)
	})},
	"sizes that contradict each other": {dial: ready(func(p *peer, _ int) []byte {
		return edit(p.packets(single, "f", random(1, 100), 0)[0], 4, 11, 0)
	})},
	"the first packet of a file with a wrong size": {dial: ready(func(p *peer, _ int) []byte {
		return edit(p.packets(spec, "f", random(1, 5000), 1000)[0], 0, 1, 0)
	})},
	"a number past Total Packets": {dial: ready(func(p *peer, _ int) []byte {
		return edit(p.packets(spec, "f", random(1, 5000), 1000)[0], 8, 11, 0, 10, 0)
	})},
	"numbers past Total Packets, ascending": {dial: ready(func(p *peer, i int) []byte {
		return edit(p.packets(spec, "f", random(1, 5000), 1000)[0], 8, byte(11+i), byte((11+i)>>8), 10, 0)
	})},
	"packet 2 of 1": {dial: ready(func(p *peer, _ int) []byte {
		return edit(p.packets(single, "f", random(1, 100), 0)[0], 8, 2, 0)
	})},
	"no total": {dial: ready(func(p *peer, _ int) []byte {
		return edit(p.packets(spec, "f", random(1, 5000), 1000)[0], 10, 0, 0)
	})},
	"a name that is none": {dial: ready(func(p *peer, _ int) []byte {
		return edit(p.packets(single, "f", random(1, 100), 0)[0], 12, 7, 0)
	})},
	"a path of which nothing is left": {dial: ready(func(p *peer, _ int) []byte {
		return p.packets(single, `a\..`, random(1, 100), 0)[0]
	})},
	"another client's id": {dial: ready(func(p *peer, _ int) []byte {
		q := *p
		q.id[4]++
		return q.packets(single, "f", random(1, 100), 0)[0]
	})},
	"too large": {cfg: session.Config{Limits: session.Limits{MaxFileSize: 50}}, dial: ready(func(p *peer, _ int) []byte {
		return p.packets(single, "f", random(1, 100), 0)[0]
	})},
	"a client that is not known": {dial: func(w *world, n int) (*conn, [][]byte) {
		p := &peer{id: codec.ClientID{9}}
		return w.dial(), slices.Repeat(p.packets(single, "f", random(1, 100), 0), n)
	}},
	"a client without an AES key": {dial: func(w *world, n int) (*conn, [][]byte) {
		p, c := &peer{name: "bob"}, w.dial()
		c.ask(p.register())
		p.id = codec.ClientID(c.raw[0][codec.ResponseHeaderSize:])
		return c, slices.Repeat(p.packets(single, "f", random(1, 100), 0), n)
	}},
}

// edit changes fields of a 1028, from that place in its payload on.
func edit(packet []byte, at int, b ...byte) []byte {
	copy(packet[codec.RequestHeaderSize+at:], b)
	return packet
}

func ready(packet func(p *peer, i int) []byte) func(w *world, n int) (*conn, [][]byte) {
	return func(w *world, n int) (*conn, [][]byte) {
		p, c := w.known("alice"), w.dial()
		c.ask(p.reconnect())
		p.key = [32]byte(w.client(p.id).AESKey)
		var flood [][]byte
		for i := range n {
			flood = append(flood, packet(p, i))
		}
		return c, flood
	}
}

// TestFloodOfRefusals: thousands of packets of a transfer that is refused get one
// 1607 if they come before the client can have seen it, and a handful at most
// however they come; so does the log. What is asked for next is answered.
func TestFloodOfRefusals(t *testing.T) {
	n := 2000
	if testing.Short() {
		n = 300
	}
	for what, f := range floods {
		for _, memory := range []bool{true, false} {
			for _, alone := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/memory %t/one by one %t", what, memory, alone), func(t *testing.T) {
					w := newWorld(t, f.cfg)
					if !memory {
						w.hold = func(int) bool { return false }
					}
					c, flood := f.dial(w, n)
					logs := w.logged()
					c.replies = nil
					if alone {
						for _, packet := range flood {
							c.send(packet)
							w.rush()
						}
					} else {
						c.send(flood...)
						w.rush()
					}
					most := 1
					if alone {
						most = 4 // the client may have seen the first three
					}
					if len(c.replies) != most || c.replies[0] != "1607" {
						t.Errorf("%d replies, want %d: %q", len(c.replies), most, c.replies[:min(5, len(c.replies))])
					}
					if c.held > 16*8192 {
						t.Errorf("%d bytes are held", c.held)
					}
					for range 3 {
						c.s.Tick()
					}
					if len(c.replies) > most+1 {
						t.Errorf("%d replies when time has gone by", len(c.replies))
					}
					if got := logs.Len(); got > most+2 {
						t.Errorf("%d lines in the log", got)
					}
					last := logs.All()[logs.Len()-1]
					if times := last.ContextMap()["times"]; times != int64(n-most) {
						t.Errorf("the last line counts %v: %v", times, last)
					}
					c.replies = nil
					c.send(codec.Reconnect{Name: []byte("nobody")}.Append(nil, codec.ClientID(flood[0][:16])))
					w.rush()
					if len(c.replies) != 1 {
						t.Errorf("the next request gets %q", c.replies)
					}
					w.hangUp()
				})
			}
		}
	}
}

// TestHonestRetries: a client that waits for the 1607 before it sends again gets
// one each time, the first four at once and the others when the clock ticks; and
// when its file is in order it is served.
func TestHonestRetries(t *testing.T) {
	for what, f := range floods {
		for _, packets := range []int{1, 3} { // of each attempt that is sent before the reply is read
			t.Run(fmt.Sprint(what, "/", packets), func(t *testing.T) {
				w := newWorld(t, f.cfg)
				c, flood := f.dial(w, 12*packets)
				for i := range 12 {
					c.replies = nil
					c.send(flood[i*packets : (i+1)*packets]...)
					w.rush()
					if i > 3 && len(c.replies) == 0 {
						if c.s.Done() {
							t.Error("the session believes to be done, and owes a reply")
						}
						c.s.Tick()
					}
					if len(c.replies) != 1 || c.replies[0] != "1607" {
						t.Fatalf("attempt %d gets %q", i+1, c.replies)
					}
				}
				w.hangUp()
			})
		}
	}
}

// TestRetryAfterAFlood: a file that is in order goes through at once, whatever
// came under its name before, in the same bytes or later.
func TestRetryAfterAFlood(t *testing.T) {
	content := random(1, 5000)
	for _, later := range []bool{true, false} {
		w := newWorld(t, session.Config{})
		logs := w.logged()
		p, c := w.known("alice"), w.dial()
		for range 100 {
			c.send(edit(p.packets(spec, "f", content, 1000)[0], 0, 1, 0))
		}
		if later {
			w.rush()
		}
		c.send(join(p.packets(spec, "f", content, 1000), p.ok("f"))...)
		w.rush()
		if got := strings.Join(c.replies, ", "); got != "1607, "+received("f", content)+", 1604" {
			t.Errorf("got %q", got)
		}
		if logs.FilterMessage("transfer refused repeatedly").Len() != 1 {
			t.Errorf("log: %v", logs.All())
		}
		w.verified(p, "f", content)
		w.hangUp()
	}
}

// TestManyNamesRefused: each name gets its own 1607, also when there are more
// names than the session remembers, and when one of them is owed another.
func TestManyNamesRefused(t *testing.T) {
	w := newWorld(t, session.Config{})
	p, c := w.known("alice"), w.dial()
	bad := func(name string) []byte { return edit(p.packets(single, name, random(1, 100), 0)[0], 4, 11, 0) }
	for range 10 {
		c.send(bad("first"))
		w.rush()
	}
	if len(c.replies) != 4 {
		t.Errorf("got %q", c.replies)
	}
	c.replies = nil
	for i := range 40 {
		c.send(bad(fmt.Sprint("f", i)))
	}
	w.rush()
	c.s.Tick()
	if len(c.replies) != 41 { // with the one that was owed
		t.Errorf("40 names get %d replies", len(c.replies))
	}
	w.hangUp()
}

// TestPipelinedAttempts: the packets of an attempt that were on their way get no
// 1607 of their own, also if the file is found to be wrong at its end; the next
// attempt does, and is answered in full.
func TestPipelinedAttempts(t *testing.T) {
	w := newWorld(t, session.Config{})
	w.direct = func() bool { return true }
	p, c := w.known("alice"), w.dial()
	c.ask(p.reconnect())
	p.key = [32]byte(w.client(p.id).AESKey)
	content := random(1, 50_000)
	wrong := p.packets(spec, "f", content, 5000)
	for _, m := range wrong {
		binary.LittleEndian.PutUint32(m[codec.RequestHeaderSize+4:], 50_001)
	}
	if got := c.ask(join(wrong, wrong, wrong)...); got != "1607" {
		t.Errorf("three attempts at once get %q", got)
	}
	if got := c.ask(wrong...); got != "1607" {
		t.Errorf("the next gets %q", got)
	}
	if got := c.ask(join(p.packets(spec, "f", content, 5000), p.ok("f"))...); got != received("f", content)+", 1604" {
		t.Errorf("the right one gets %q", got)
	}
	w.hangUp()
}

// TestRetryOfAResumedTransfer: a connection that was refused because the client
// was not known, and then resumes one, answers what is wrong with its file.
func TestRetryOfAResumedTransfer(t *testing.T) {
	w := newWorld(t, session.Config{})
	p, c := &peer{id: codec.ClientID{9}, name: "late"}, w.dial()
	bad := edit(p.packets(single, "f", random(1, 100), 0)[0], 4, 99, 0)
	if got := c.ask(bad); got != "1607" {
		t.Fatal(got)
	}
	c.replies = nil
	c.send(bad)
	w.rush()
	_, pub := pair[0]()
	w.must(&storage.AddClient{ID: p.id, Name: p.name})
	w.must(&storage.SetKeys{ID: p.id, Name: p.name, PublicKey: pub, AESKey: p.key[:]})
	c.send(bad)
	w.rush()
	if len(c.replies) != 2 || c.s.State() != "ready" {
		t.Errorf("got %q, %s", c.replies, c.s.State())
	}
	w.hangUp()
}

// TestNothingContinuedIsNotLogged: a folder of files that the server has verified may be sent
// again, and again, without a line of the log for each file.
func TestNothingContinuedIsNotLogged(t *testing.T) {
	content := random(1, 5000)
	priv, pub := pair[0]()
	w := newCutWorld(t)
	p, c := w.login("alice")
	c.ask(append(p.packets(spec, "f", content, 1000), p.ok("f"))...)
	w.pin(p, ownKey)
	c = w.dialOver(overTLS(ownKey))
	if got := c.ask(p.publicKey(pub)); got != "1602" {
		t.Fatal(got)
	}
	p.key = c.aesKey(t, priv)
	logs := w.loggedFrom(zapcore.InfoLevel)
	if got, want := c.ask(p.question("f", len(content))), continued("f", content); got != want {
		t.Fatalf("%q, want %q", got, want)
	}
	if logs.Len() != 0 {
		t.Errorf("log: %v", logs.All())
	}
	w.cutAfter(c, p.packets(spec, "f", random(2, 10_000), 1024), 5)
	logs.TakeAll()
	row := w.reg.partial(storage.Place{ID: p.id, Path: "f"})
	c = w.dialOver(overTLS(ownKey))
	if got := c.ask(p.publicKey(pub)); got != "1602" || row == nil {
		t.Fatal(got, row)
	}
	logs.TakeAll()
	if c.ask(p.question("f", 10_000)); logs.FilterMessage("continued").Len() != 1 {
		t.Errorf("log: %v", logs.All())
	}
	w.hangUp()
}
