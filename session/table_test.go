package session_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/session"
	"sealift/storage"
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

// The whole of each reply without payload, and the headers of the others.
var (
	wire1600 = unhex("03 4006 10000000")
	wire1601 = unhex("03 4106 00000000")
	wire1602 = unhex("03 4206 90000000")
	wire1603 = unhex("03 4306 17010000")
	wire1604 = unhex("03 4406 10000000")
	wire1605 = unhex("03 4506 90000000")
	wire1606 = unhex("03 4606 10000000")
	wire1607 = unhex("03 4706 00000000")
	wire1608 = unhex("03 4806 1b010000")
)

// checkWire checks that reply has that header, and that the client id in it, if
// any, is id.
func checkWire(t *testing.T, reply, header []byte, id codec.ClientID) {
	t.Helper()
	want := header
	if header[3] != 0 {
		want = slices.Concat(header, id[:])
	}
	if len(reply) != 7+int(header[3])+int(header[4])<<8 || !bytes.HasPrefix(reply, want) {
		t.Errorf("reply %x, want %x…", reply, want)
	}
}

const oldFile = "old.txt" // complete, without a verdict

// settings make a connection that is in a state, and the peer at its other
// end, who has an unverified file.
var settings = map[string]func(t *testing.T) (*world, *conn, *peer){
	"fresh": func(t *testing.T) (*world, *conn, *peer) {
		w := newWorld(t, session.Config{})
		p := w.known("alice")
		w.unverified(p, oldFile, []byte("old"))
		return w, w.dial(), p
	},
	"named": func(t *testing.T) (*world, *conn, *peer) {
		w := newWorld(t, session.Config{})
		p, c := &peer{name: "bob"}, w.dial()
		if got := c.ask(p.register()); got != "1600" {
			t.Fatal(got)
		}
		p.id = codec.ClientID(c.raw[0][codec.ResponseHeaderSize:])
		w.unverified(p, oldFile, []byte("old"))
		return w, c, p
	},
	"ready": func(t *testing.T) (*world, *conn, *peer) {
		w := newWorld(t, session.Config{})
		p, c := &peer{name: "bob"}, w.dial()
		c.ask(p.register())
		p.id = codec.ClientID(c.raw[0][codec.ResponseHeaderSize:])
		priv, pub := pair[0]()
		if got := c.ask(p.publicKey(pub)); got != "1602" {
			t.Fatal(got)
		}
		p.key = c.aesKey(t, priv)
		w.unverified(p, oldFile, []byte("old"))
		return w, c, p
	},
}

// unverified stores a file of which the client was told the checksum.
func (w *world) unverified(p *peer, name string, content []byte) {
	w.t.Helper()
	ctx := context.Background()
	in, err := w.files.Create(ctx, storage.Place{ID: p.id, Path: name}, storage.Announce(int64(len(content))))
	if err != nil {
		w.t.Fatal(err)
	}
	_, _ = in.Write(ctx, content)
	_ = in.Close(ctx)
	w.svc.Waiting(p.id, session.Occupies(int64(len(content))))
	path, err := storage.CleanPath(name)
	if err != nil {
		w.t.Fatal(err)
	}
	w.must(&storage.PutFile{File: storage.File{
		ID: p.id, FileName: name, Path: path, Incoming: in.Key(), Size: int64(len(content)), Cksum: cksum.Checksum(content),
	}})
}

// TestTable sends each request in each state, and looks at the reply and at the
// state after it.
func TestTable(t *testing.T) {
	_, pub := pair[0]()
	_, otherPub := pair[1]()
	content := []byte("hello")
	requests := map[string]func(p *peer) []byte{
		"1025":           func(p *peer) []byte { return (&peer{name: "carol"}).register() },
		"1025 taken":     func(p *peer) []byte { return p.register() },
		"1026":           func(p *peer) []byte { return p.publicKey(pub) },
		"1026 other key": func(p *peer) []byte { return p.publicKey(otherPub) },
		"1026 no key":    func(p *peer) []byte { return p.publicKey(make([]byte, 160)) },
		"1027":           func(p *peer) []byte { return p.reconnect() },
		"1028":           func(p *peer) []byte { return p.packets(spec, "a", content, 16)[0] },
		"1029":           func(p *peer) []byte { return p.ok(oldFile) },
		"1029 no file":   func(p *peer) []byte { return p.ok("nothing") },
		"1030":           func(p *peer) []byte { return p.verdict(codec.CodeCRCBad, oldFile) },
		"1031":           func(p *peer) []byte { return p.verdict(codec.CodeAbort, oldFile) },
		"1031 no file":   func(p *peer) []byte { return p.verdict(codec.CodeAbort, "nothing") },
		"1032":           func(p *peer) []byte { return p.question(oldFile, 3) },
		"1032 no file":   func(p *peer) []byte { return p.question("nothing", 3) },
	}
	withName := func(name string, do func(*peer) []byte) func(p *peer) []byte {
		return func(p *peer) []byte { return do(&peer{id: p.id, name: name, key: p.key}) }
	}
	requests["1026 wrong name"] = withName("mallory", requests["1026"])
	requests["1027 wrong name"] = withName("mallory", requests["1027"])
	for _, code := range []string{"1026", "1027", "1028", "1029", "1030", "1031", "1032"} {
		requests[code+" other id"] = func(p *peer) []byte {
			q := *p
			q.id[7] ^= 1
			return requests[code](&q)
		}
		requests[code+" no id"] = func(p *peer) []byte {
			return requests[code](&peer{name: p.name, key: p.key})
		}
	}

	const (
		none = "" // no reply
		e    = "1607"
	)
	type cell struct{ reply, state string }
	want := map[string]map[string]cell{
		"fresh": {
			"1025": {"1600", "named"}, "1025 taken": {"1601", "fresh"},
			"1026": {"1602", "ready"}, "1026 other key": {e, "fresh"}, "1026 no key": {e, "fresh"}, "1026 wrong name": {e, "fresh"},
			"1026 other id": {e, "fresh"}, "1026 no id": {e, "fresh"},
			"1027": {"1605", "ready"}, "1027 wrong name": {"1606", "fresh"}, "1027 other id": {"1606", "fresh"}, "1027 no id": {"1606", "fresh"},
			"1028": {received("a", content), "ready"}, "1028 other id": {e, "fresh"}, "1028 no id": {e, "fresh"},
			"1029": {"1604", "ready"}, "1029 no file": {e, "ready"}, "1029 other id": {e, "fresh"}, "1029 no id": {e, "fresh"},
			"1030": {none, "ready"}, "1030 other id": {e, "fresh"}, "1030 no id": {e, "fresh"},
			"1031": {"1604", "ready"}, "1031 no file": {"1604", "ready"}, "1031 other id": {e, "fresh"}, "1031 no id": {e, "fresh"},
			"1032": {e, "fresh"}, "1032 no file": {e, "fresh"}, "1032 other id": {e, "fresh"}, "1032 no id": {e, "fresh"},
		},
		"named": {
			"1025": {e, "named"}, "1025 taken": {e, "named"},
			"1026": {"1602", "ready"}, "1026 other key": {"1602", "ready"}, "1026 no key": {e, "named"}, "1026 wrong name": {e, "named"},
			"1026 other id": {e, "named"}, "1026 no id": {e, "named"},
			"1027": {"1606", "fresh"}, "1027 wrong name": {"1606", "fresh"}, "1027 other id": {e, "named"}, "1027 no id": {e, "named"},
			"1028": {e, "named"}, "1028 other id": {e, "named"}, "1028 no id": {e, "named"},
			"1029": {e, "named"}, "1029 no file": {e, "named"}, "1029 other id": {e, "named"}, "1029 no id": {e, "named"},
			"1030": {e, "named"}, "1030 other id": {e, "named"}, "1030 no id": {e, "named"},
			"1031": {e, "named"}, "1031 no file": {e, "named"}, "1031 other id": {e, "named"}, "1031 no id": {e, "named"},
			"1032": {e, "named"}, "1032 no file": {e, "named"}, "1032 other id": {e, "named"}, "1032 no id": {e, "named"},
		},
		"ready": {
			"1025": {e, "ready"}, "1025 taken": {e, "ready"},
			"1026": {"1602", "ready"}, "1026 other key": {e, "ready"}, "1026 no key": {e, "ready"}, "1026 wrong name": {e, "ready"},
			"1026 other id": {e, "ready"}, "1026 no id": {e, "ready"},
			"1027": {"1605", "ready"}, "1027 wrong name": {"1606", "fresh"}, "1027 other id": {e, "ready"}, "1027 no id": {e, "ready"},
			"1028": {received("a", content), "ready"}, "1028 other id": {e, "ready"}, "1028 no id": {e, "ready"},
			"1029": {"1604", "ready"}, "1029 no file": {e, "ready"}, "1029 other id": {e, "ready"}, "1029 no id": {e, "ready"},
			"1030": {none, "ready"}, "1030 other id": {e, "ready"}, "1030 no id": {e, "ready"},
			"1031": {"1604", "ready"}, "1031 no file": {"1604", "ready"}, "1031 other id": {e, "ready"}, "1031 no id": {e, "ready"},
			"1032": {continued(oldFile, []byte("old")), "ready"}, "1032 no file": {continued("nothing", nil), "ready"}, "1032 other id": {e, "ready"}, "1032 no id": {e, "ready"},
		},
	}
	headers := map[string][]byte{
		"1600": wire1600, "1601": wire1601, "1602": wire1602, "1603": wire1603,
		"1604": wire1604, "1605": wire1605, "1606": wire1606, "1607": wire1607,
		"1608": wire1608,
	}
	for state, set := range settings {
		for what, request := range requests {
			t.Run(state+"/"+what, func(t *testing.T) {
				expected, ok := want[state][what]
				if !ok {
					t.Fatal("the table has no such cell")
				}
				w, c, p := set(t)
				if c.s.State() != state {
					t.Fatal("the setting is", c.s.State())
				}
				c.raw = nil
				message := request(p)
				got := c.ask(message)
				if got != expected.reply || c.s.State() != expected.state {
					t.Errorf("reply %q and then %s, want %q and %s", got, c.s.State(), expected.reply, expected.state)
				}
				if c.hangup != "" {
					t.Error("hung up:", c.hangup)
				}
				if expected.reply != none && !t.Failed() {
					id := p.id
					switch expected.reply[:4] {
					case "1600":
						id = codec.ClientID(c.raw[0][7:])
						if id.IsZero() || id == p.id || id[6]>>4 != 4 || id[8]>>6 != 2 {
							t.Errorf("not a new UUID of version 4: %v", id)
						}
					case "1606":
						id = codec.ClientID(message[:16])
					}
					checkWire(t, c.raw[0], headers[expected.reply[:4]], id)
				}
				w.hangUp()
			})
		}
	}
}

// TestBadMessages sends messages that the codec refuses, in each state. What is
// in step leaves the connection as it was.
func TestBadMessages(t *testing.T) {
	header := func(p *peer, version byte, code uint16, size uint32) []byte {
		return codec.RequestHeader{ID: p.id, Version: version, Code: codec.Code(code), PayloadSize: size}.Append(nil)
	}
	withPayload := func(h []byte, n int) []byte { return append(h, make([]byte, n)...) }
	cases := []struct {
		what   string
		bytes  func(p *peer) []byte
		inStep bool
	}{
		{"version 2", func(p *peer) []byte { return withPayload(header(p, 2, 1025, 255), 255) }, true},
		{"version 2, 1028", func(p *peer) []byte { return withPayload(header(p, 2, 1028, 300), 300) }, true},
		{"version 255 without payload", func(p *peer) []byte { return header(p, 255, 1029, 0) }, true},
		{"code 1032", func(p *peer) []byte { return withPayload(header(p, 3, 1032, 10), 10) }, true},
		{"code 0", func(p *peer) []byte { return header(p, 3, 0, 0) }, true},
		{"code 1600", func(p *peer) []byte { return withPayload(header(p, 3, 1600, 16), 16) }, true},
		{"code 1032 of 4 GiB", func(p *peer) []byte { return withPayload(header(p, 3, 1032, 1<<32-1), 500) }, false},
		{"version 2 of 64 KiB and 1", func(p *peer) []byte { return withPayload(header(p, 2, 1028, 1<<16+1), 500) }, false},
		{"1025 of 254", func(p *peer) []byte { return withPayload(header(p, 3, 1025, 254), 254) }, false},
		{"1026 of 255", func(p *peer) []byte { return withPayload(header(p, 3, 1026, 255), 255) }, false},
		{"1027 of 4 GiB", func(p *peer) []byte { return withPayload(header(p, 3, 1027, 1<<32-1), 1000) }, false},
		{"1028 of 266", func(p *peer) []byte { return withPayload(header(p, 3, 1028, 266), 266) }, false},
		{"1029 of 0", func(p *peer) []byte { return header(p, 3, 1029, 0) }, false},
	}
	for i, code := range []uint16{1025, 1026, 1027, 1028, 1029, 1030, 1031, 1032} {
		size, at := 255, 0
		switch code {
		case 1032:
			size = 263
		case 1026:
			size = 415
		case 1028:
			size, at = 267, 12
		}
		for what, name := range map[string][]byte{
			"empty":     {0},
			"unended":   bytes.Repeat([]byte{'a'}, 255),
			"control":   []byte("a\nb\x00"),
			"not UTF-8": []byte("caf\xe9\x00"),
		} {
			if i > 0 && i < 3 && what == "not UTF-8" {
				continue
			}
			cases = append(cases, struct {
				what   string
				bytes  func(p *peer) []byte
				inStep bool
			}{fmt.Sprint(code, " with a name that is ", what), func(p *peer) []byte {
				b := withPayload(header(p, 3, code, uint32(size)), size)
				copy(b[23+at:], name)
				return b
			}, true})
		}
	}
	for state, set := range settings {
		for _, tc := range cases {
			t.Run(state+"/"+tc.what, func(t *testing.T) {
				w, c, p := set(t)
				c.raw = nil
				got := c.ask(tc.bytes(p))
				if got != "1607" || !bytes.Equal(c.raw[0], wire1607) {
					t.Errorf("reply %q, want one 1607", got)
				}
				if hungUp := c.hangup != ""; hungUp == tc.inStep {
					t.Errorf("hangup %q, and in step is %v", c.hangup, tc.inStep)
				}
				switch s := c.s.State(); {
				case s == state:
				case state == "fresh" && s == "ready" && strings.Contains(tc.what, "name"):
					// The client's id was good, so the connection was its own.
				default:
					t.Error("state is now", s)
				}
				if tc.inStep {
					want := "1605"
					if state == "named" {
						want = "1606" // no key yet
					}
					if got := c.ask(p.reconnect()); got != want {
						t.Errorf("after it the connection answers a 1027 with %q", got)
					}
				}
				w.hangUp()
			})
		}
	}
}
