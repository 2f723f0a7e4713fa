package session_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sealift/codec"
	"sealift/session"
)

// FuzzSession reads its input as a program: what two clients send, in the
// grammar of messages and outside it, what happens in which order, and what
// fails. Whatever it is, nothing panics or hangs, buffers and memory balance,
// nothing is left in the store that the registry does not know, what counts as
// unverified is what awaits a verdict, and every request gets the reply that is due
// and no other.
func FuzzSession(f *testing.F) {
	for i := range 400 {
		f.Add(random(uint64(i), 50+i*3))
	}
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) > 4096 {
			return
		}
		newMachine(t, program).run()
	})
}

// machine runs a program of FuzzSession.
type machine struct {
	*world
	program []byte
	peers   []*peer
	lines   []*line
}

// line is a connection of a machine, and what went over it.
type line struct {
	*conn
	dec codec.RequestDecoder
	// Requests that came whole: those that must get one reply, and those that
	// may get one.
	must, may int
}

var (
	fuzzNames = []string{"a", "./a", "b", `C:\d\e`, "../a", "c/..", "a/b"}
	fuzzSizes = []int{0, 1, 16, 300, 5000}
)

func newMachine(t *testing.T, program []byte) *machine {
	m := &machine{world: newWorld(t, session.Config{Limits: session.Limits{MaxUploads: 3, MaxFileSize: 6000}}), program: program}
	m.peers = []*peer{m.known("alice"), m.known("bob"), {name: "carol", id: uuid4(codec.ClientID{7})}}
	m.svc.KeepFrom = 300
	m.svc.CheckpointEvery = 400
	m.lines = []*line{{conn: m.dial()}, {conn: m.dial()}}
	m.choose = func(n int) int { return int(m.next()) % n }
	m.portion = func(n int) int { return 1 + (int(m.next())*n)>>8 }
	return m
}

// next takes a byte of the program; past its end there are zeros.
func (m *machine) next() byte {
	if len(m.program) == 0 {
		return 0
	}
	b := m.program[0]
	m.program = m.program[1:]
	return b
}

func pick[T any](m *machine, from []T) T { return from[int(m.next())%len(from)] }

func (m *machine) run() {
	for len(m.program) > 0 {
		switch op := m.next() % 32; op {
		case 0:
			m.stingy = func() bool { return m.next()%3 == 0 }
		case 1:
			m.hold = func(int) bool { return m.next()%2 == 0 }
		case 2:
			m.reg.faults.failAt = m.reg.faults.calls + 1 + int(m.next()%8)
		case 3:
			m.redial(int(m.next()) % 2)
		case 16:
			m.direct = func() bool { return m.next()%2 == 0 }
		case 17:
			m.lend = func() bool { return m.next()%2 == 0 }
		case 4:
			m.now = m.now.Add(time.Second)
		case 5:
			if m.next() == 0 {
				m.lines[0].s.Drain()
			}
		case 6, 7, 8, 9, 10, 11, 12, 13, 14, 15:
			l := pick(m, m.lines)
			if !l.closed && l.hangup == "" {
				l.say(m.message())
			}
		default:
			m.step()
		}
	}
	m.stingy, m.direct, m.lend, m.hold, m.choose = nil, nil, nil, nil, first
	m.reg.faults.failAt = 0
	m.portion = func(n int) int { return n }
	m.world.run()
	for i := range m.lines {
		m.redial(i)
	}
	m.world.run()
	undone := func(call string) bool { return strings.HasPrefix(call, "Discard") }
	if !slices.ContainsFunc(m.reg.faults.hits, undone) {
		m.clean()
	}
	m.counted()
}

// redial closes a connection and opens another in its place.
func (m *machine) redial(i int) {
	l := m.lines[i]
	if !l.closed && l.hangup == "" && len(l.in) == 0 && len(m.jobs)+len(m.dones)+len(m.applies) == 0 {
		if n := len(l.replies); n < l.must || n > l.must+l.may {
			m.t.Errorf("%d replies to %d requests that get one and %d that may: %q", n, l.must, l.may, l.replies)
		}
	}
	l.close()
	m.lines[i] = &line{conn: m.dial()}
}

// say sends bytes and counts the requests in them.
func (l *line) say(b []byte) {
	l.send(b)
	for len(b) > 0 {
		ev, n, err := l.dec.Next(b)
		b = b[n:]
		switch {
		case err != nil:
			l.must++
			if err.(*codec.Error).InStep {
				continue
			}
			return // the session hangs up when it comes to it
		case ev.Kind != codec.Message:
		case ev.Header.Code == codec.CodeSendFile, ev.Header.Code == codec.CodeCRCBad:
			l.may++
		default:
			l.must++
		}
	}
}

// message makes something that a client may send.
func (m *machine) message() []byte {
	p := *pick(m, m.peers)
	if c := m.client(p.id); len(c.AESKey) == len(p.key) {
		copy(p.key[:], c.AESKey)
	}
	name := pick(m, fuzzNames)
	switch m.next() % 16 {
	case 0:
		return p.register()
	case 1:
		_, pub := pair[m.next()%2]()
		return p.publicKey(pub)
	case 2:
		return p.publicKey(make([]byte, codec.PublicKeySize))
	case 3:
		return p.reconnect()
	case 4:
		return p.ok(name)
	case 5:
		return p.verdict(codec.CodeCRCBad, name)
	case 6:
		return p.verdict(codec.CodeAbort, name)
	case 7: // any fields
		f := codec.SendFile{
			ContentSize: uint32(m.next()) * 16, OrigSize: uint32(m.next()), FileName: []byte(name),
			Packet: uint16(m.next()), Total: uint16(m.next()),
		}
		return p.packet(f, make([]byte, m.next()))
	case 8: // any bytes
		n := min(int(m.next()), len(m.program))
		b := append([]byte(nil), m.program[:n]...)
		m.program = m.program[n:]
		return b
	case 9: // any header
		h := codec.RequestHeader{ID: p.id, Version: m.next() % 5, Code: codec.Code(1020 + uint16(m.next()%16)), PayloadSize: uint32(m.next())}
		return append(h.Append(nil), make([]byte, h.PayloadSize)...)
	case 10:
		return p.question(name, pick(m, fuzzSizes)+int(m.next()%17))
	}
	size := pick(m, fuzzSizes) + int(m.next()%17)
	content := random(uint64(size), size)
	packets := p.packets(pick(m, dialects), name, content, max(100, size/5)+int(m.next()%3))
	switch m.next() % 4 {
	case 0: // some packet of it
		return pick(m, packets)
	case 1: // all, rotated
		k := int(m.next()) % len(packets)
		packets = append(packets[k:len(packets):len(packets)], packets[:k]...)
	case 2: // damaged
		b := packets[len(packets)-1]
		b[len(b)-1-int(m.next())%100] ^= 1 << (m.next() % 8)
	}
	if m.next()%2 == 0 {
		packets = append(packets, p.ok(name))
	}
	return slices.Concat(packets...)
}

// TestFuzzReaches: the seeds of FuzzSession come to every reply there is, or
// they would not be worth much.
func TestFuzzReaches(t *testing.T) {
	seen := make(map[string]bool)
	for i := range 400 {
		m := newMachine(t, random(uint64(i), 50+i*3))
		m.run()
		for _, c := range m.conns {
			for _, r := range c.replies {
				seen[r[:4]] = true
			}
		}
	}
	for code := 1600; code <= 1608; code++ {
		if !seen[fmt.Sprint(code)] {
			t.Errorf("no program comes to a %d", code)
		}
	}
}
