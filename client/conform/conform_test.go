package conform_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"sealift/client"
	"sealift/client/conform"
	"sealift/codec"
	"sealift/crypto/cksum"
)

// patient is more than any reply takes.
const patient = 20 * time.Second

// run tries all rules and returns the names of those that fail, and of those
// that could not be tried.
func run(t *testing.T, addr string, timeout time.Duration) (r *conform.Report, failed, notTried string) {
	t.Helper()
	r, err := conform.Run(t.Context(), conform.Options{Server: addr, Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	var f, n []string
	for _, res := range r.Results {
		switch res.Status {
		case conform.Fail:
			f = append(f, res.Rule)
		case conform.NotTried:
			n = append(n, res.Rule)
		}
	}
	return r, strings.Join(f, " "), strings.Join(n, " ")
}

func TestTheServerPasses(t *testing.T) {
	r, failed, notTried := run(t, startServer(t), patient)
	if failed != "" || notTried != "" {
		t.Errorf("failed: %s; not tried: %s", failed, notTried)
		for _, res := range r.Results {
			if res.Status != conform.Pass {
				t.Logf("%s: %s\n%v", res.Rule, res.Problem, res.Log)
			}
		}
	}
	for _, d := range r.Dialects {
		if !d.Taken {
			t.Errorf("dialect %s %d: %s", d.Dialect, d.PacketSize, d.Problem)
		}
	}
	if r.Use != "spec" {
		t.Errorf("use %q", r.Use)
	}
}

// The rules quote sections of a document that says what they say.
func TestSectionsExist(t *testing.T) {
	doc, err := os.ReadFile("../../docs/PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, rule := range conform.Rules() {
		heading := regexp.MustCompile(`(?m)^###? ` + regexp.QuoteMeta(rule.Section) + `\.? `)
		if !heading.Match(doc) {
			t.Errorf("%s: docs/PROTOCOL.md has no section %s", rule.Name, rule.Section)
		}
		if names[rule.Name] {
			t.Errorf("two rules are called %s", rule.Name)
		}
		names[rule.Name] = true
	}
}

func setSize(r []byte, n uint32) []byte {
	binary.LittleEndian.PutUint32(r[3:], n)
	return r
}

// onReply is a fault in the replies of one code.
func onReply(code codec.Code, alter func(r []byte) []byte) fault {
	return fault{reply: func(_ *proxied, r []byte) []byte {
		if replyCode(r) == code {
			return alter(r)
		}
		return r
	}}
}

// onRequest is a fault with the requests of one code.
func onRequest(code codec.Code, f func(c *proxied, m []byte) (pass []byte, replies [][]byte, end bool)) fault {
	return fault{request: func(c *proxied, m []byte) ([]byte, [][]byte, bool) {
		if requestCode(m) == code {
			return f(c, m)
		}
		return m, nil, false
	}}
}

func instead(reply []byte) (pass []byte, replies [][]byte, end bool) {
	return nil, [][]byte{reply}, false
}

// Offsets in bytes: of the id in a reply, the payload of a request, the packet
// number and total of a 1028, its name.
const (
	replyID  = 7
	payload  = 23
	packetNo = payload + 8
	total    = payload + 10
	fileName = payload + 12
)

// firstBytes are the first bytes of what the rules send.
func firstBytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i + i>>8*31)
	}
	return b
}

// A server that does not know 1032 says so in one way or another, and breaks no rule.
func TestContinueIsNotOffered(t *testing.T) {
	server := startServer(t)
	for how, f := range map[string]func(*proxied, []byte) ([]byte, [][]byte, bool){
		"a 1607":    func(*proxied, []byte) ([]byte, [][]byte, bool) { return instead(generalError) },
		"the end":   func(*proxied, []byte) ([]byte, [][]byte, bool) { return nil, nil, true },
		"no answer": func(*proxied, []byte) ([]byte, [][]byte, bool) { return nil, nil, false },
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			r, err := conform.Run(t.Context(), conform.Options{Server: startProxy(t, server, onRequest(1032, f)), Timeout: 8 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			if !r.Passed() {
				t.Errorf("%d failed, %d not tried", r.Count(conform.Fail), r.Count(conform.NotTried))
			}
			for _, res := range r.Results {
				if about := strings.HasPrefix(res.Section, "15."); about != (res.Status == conform.NotOffered) {
					t.Errorf("%s: %s: %s", res.Rule, res.Status, res.Problem)
				}
			}
			if r.Tried() >= len(r.Results) {
				t.Error("all rules were tried")
			}
		})
	}
}

// Each fault is found by the rule that names it, and by no other that has
// nothing to do with it.
func TestFaultsAreFound(t *testing.T) {
	server := startServer(t)
	flip := func(at int) func([]byte) []byte {
		return func(r []byte) []byte {
			r[at] ^= 1
			return r
		}
	}
	for _, tc := range []struct {
		what  string
		fault fault
		fails string
	}{
		{"none", fault{}, ""},
		{"1600 says 255 bytes", onReply(1600, func(r []byte) []byte { return setSize(r, 255) }), "payload-size"},
		{"1604 says 0 bytes", onReply(1604, func(r []byte) []byte { return setSize(r, 0) }), "payload-size"},
		{"takes every version", fault{request: func(_ *proxied, m []byte) ([]byte, [][]byte, bool) {
			m[16] = 3
			return m, nil, false
		}}, "version"},
		{"gives up at an unknown code", onRequest(1099, func(*proxied, []byte) ([]byte, [][]byte, bool) {
			return nil, [][]byte{generalError}, true
		}), "unknown-code"},
		{"goes on after a wrong size", onRequest(1025, func(_ *proxied, m []byte) ([]byte, [][]byte, bool) {
			if len(m) == payload+codec.NameSize {
				return m, nil, false
			}
			return instead(generalError)
		}), "wrong-size"},
		{"ids are no UUIDs of version 4", fault{
			request: func(_ *proxied, m []byte) ([]byte, [][]byte, bool) {
				if requestCode(m) != codec.CodeRegister {
					m[6] ^= 0x30
				}
				return m, nil, false
			},
			reply: func(_ *proxied, r []byte) []byte {
				if len(r) > replyID {
					r[replyID+6] ^= 0x30
				}
				return r
			},
		}, "register-uuid"},
		{"1607 for 1601", onReply(1601, func(r []byte) []byte { return bytes.Clone(generalError) }), "register-taken name-leftovers"},
		{"upper case is lower case", fault{request: func(_ *proxied, m []byte) ([]byte, [][]byte, bool) {
			if c := requestCode(m); c == codec.CodeRegister || c == codec.CodePublicKey || c == codec.CodeReconnect {
				name := m[payload:min(len(m), payload+codec.NameSize)]
				for i, b := range name { // ToLower would make UTF-8 of what is none
					if b >= 'A' && b <= 'Z' {
						name[i] = b | 0x20
					}
				}
			}
			return m, nil, false
		}}, "register-case"},
		{"names of 100 characters at most", onRequest(1025, func(_ *proxied, m []byte) ([]byte, [][]byte, bool) {
			if bytes.IndexByte(m[payload:], 0) > 100 {
				return instead(generalError)
			}
			return m, nil, false
		}), "name-length"},
		{"leftovers are part of the name", onRequest(1025, func(_ *proxied, m []byte) ([]byte, [][]byte, bool) {
			name := m[payload:]
			if end := bytes.IndexByte(name, 0); end >= 0 && end+1 < len(name) && name[end+1] != 0 && bytes.HasPrefix(name, []byte("conform")) {
				name[end] = '-'
			}
			return m, nil, false
		}), "name-leftovers"},
		{"any name will do", onRequest(1025, func(_ *proxied, m []byte) ([]byte, [][]byte, bool) {
			if len(m) < payload+codec.NameSize {
				return m, nil, false
			}
			for i, b := range m[payload:] {
				if b > 0x7e {
					m[payload+i] = '?'
				}
			}
			return m, nil, false
		}), "name-malformed"},
		{"an AES key that does not open", onReply(1602, flip(replyID+16)), "key-exchange"},
		{"the same AES key each time", fault{reply: func(c *proxied, r []byte) []byte {
			if replyCode(r) == codec.CodeAESKey || replyCode(r) == codec.CodeReconnected {
				c.shared.mu.Lock()
				defer c.shared.mu.Unlock()
				id := codec.ClientID(r[replyID:])
				if old := c.shared.wrapped[id]; old != nil {
					copy(r[replyID+16:], old)
				}
				c.shared.wrapped[id] = bytes.Clone(r[replyID+16:])
			}
			return r
		}}, "reconnect transfer-again key-fresh cut-off continue-connection continue-cut continue-owner"}, // what comes after a second key cannot be decrypted
		{"any key will do", onRequest(1026, func(c *proxied, m []byte) ([]byte, [][]byte, bool) {
			if c.requests[0] == codec.CodeRegister && !bytes.Equal(m[payload+255:payload+255+3], []byte{0x30, 0x81, 0x9d}) {
				return instead(codec.KeyReply{Code: codec.CodeAESKey, ID: codec.ClientID(m), WrappedKey: make([]byte, 128)}.Append(nil))
			}
			return m, nil, false
		}), "key-malformed"},
		{"a wrong checksum", onReply(1603, func(r []byte) []byte {
			r[len(r)-1] ^= 1
			return r
		}), "transfer"},
		{"1603 has the size of the ciphertext", onReply(1603, func(r []byte) []byte {
			n := binary.LittleEndian.Uint32(r[replyID+16:])
			binary.LittleEndian.PutUint32(r[replyID+16:], (n/16+1)*16)
			return r
		}), "transfer-size continue-size"},
		{"1604 in reply to a 1030", onRequest(1030, func(c *proxied, m []byte) ([]byte, [][]byte, bool) {
			return m, [][]byte{codec.IDReply{Code: codec.CodeAck, ID: codec.ClientID(m)}.Append(nil)}, false
		}), "mismatch continue-mismatch"},
		{"no second file of a name", onRequest(1028, func(c *proxied, m []byte) ([]byte, [][]byte, bool) {
			if bytes.HasPrefix(m[fileName:], []byte("twice\x00")) && c.requests[0] == codec.CodeReconnect {
				return instead(generalError)
			}
			return m, nil, false
		}), "transfer-again"},
		{"one message per read", onRequest(1029, func(c *proxied, m []byte) ([]byte, [][]byte, bool) {
			if len(c.replies) == 0 || c.replies[len(c.replies)-1] != codec.CodeFileReceived && bytes.HasPrefix(m[payload:], []byte("pipelined")) {
				return instead(generalError)
			}
			return m, nil, false
		}), "pipelined verified-again resume-1029"},
		{"one packet too many is an error", onRequest(1028, func(c *proxied, m []byte) ([]byte, [][]byte, bool) {
			if n := binary.LittleEndian.Uint16(m[packetNo:]); n > binary.LittleEndian.Uint16(m[total:]) && n > 3 {
				return instead(generalError)
			}
			return m, nil, false
		}), "packets-extra"},
		{"a file name is a path", onRequest(1028, func(_ *proxied, m []byte) ([]byte, [][]byte, bool) {
			copy(m[fileName:fileName+255], bytes.ReplaceAll(m[fileName:fileName+255], []byte(".."), []byte("__")))
			return m, nil, false
		}), "name-escape"},
		{"1031 is not known", onRequest(1031, func(*proxied, []byte) ([]byte, [][]byte, bool) { return instead(generalError) }), "abort continue-abort"},
		{"a second 1029 is an error", onRequest(1029, func(c *proxied, m []byte) ([]byte, [][]byte, bool) {
			c.shared.mu.Lock()
			defer c.shared.mu.Unlock()
			key := string(m[:16]) + string(m[payload:])
			if c.shared.verified[key] && bytes.HasPrefix(m[payload:], []byte("verified")) {
				return instead(generalError)
			}
			c.shared.verified[key] = true
			return m, nil, false
		}), "verified-again"},
		{"1604 to everything", onRequest(1029, func(_ *proxied, m []byte) ([]byte, [][]byte, bool) {
			if bytes.HasPrefix(m[payload:], []byte("never")) {
				return instead(codec.IDReply{Code: codec.CodeAck, ID: codec.ClientID(m)}.Append(nil))
			}
			return m, nil, false
		}), "verified-unknown"},
		{"1606 has another id", onReply(1606, flip(replyID)), "reconnect-unknown reconnect-name reconnect-no-key"},
		{"a name may change", onRequest(1027, func(_ *proxied, m []byte) ([]byte, [][]byte, bool) {
			if end := bytes.IndexByte(m[payload:], 0); m[payload+end-1] == 'x' {
				m[payload+end-1] = 0
			}
			return m, nil, false
		}), "reconnect-name"},
		{"a key belongs to a connection", fault{request: func(c *proxied, m []byte) ([]byte, [][]byte, bool) {
			if len(c.requests) == 1 && requestCode(m) >= codec.CodeSendFile && requestCode(m) <= codec.CodeAbort {
				return instead(generalError)
			}
			return m, nil, false
		}}, "verified-again resume-1029 resume-1028"},
		{"the cksum of a part is that of nothing", onReply(1608, func(r []byte) []byte {
			copy(r[len(r)-4:], "\xff\xff\xff\xff")
			return r
		}), "continue-segments continue-connection continue-waiting continue-cut continue-verdict"},
		{"another id in a 1608", onReply(1608, flip(replyID)), "continue-nothing continue-waiting continue-secret continue-cut"},
		{"tells everybody of verified files", fault{
			request: func(c *proxied, m []byte) ([]byte, [][]byte, bool) {
				if requestCode(m) == codec.CodeContinue && bytes.HasPrefix(m[payload:], []byte("secret\x00")) {
					return nil, [][]byte{codec.Continued{ID: codec.ClientID(m), FileName: []byte("secret"), Offset: 1000, Cksum: cksum.Checksum(firstBytes(1000))}.Append(nil)}, false
				}
				return m, nil, false
			},
		}, "continue-secret"},
		{"a part is a whole", onRequest(1029, func(_ *proxied, m []byte) ([]byte, [][]byte, bool) {
			if bytes.HasPrefix(m[payload:], []byte("verdict\x00")) {
				return instead(codec.IDReply{Code: codec.CodeAck, ID: codec.ClientID(m)}.Append(nil))
			}
			return m, nil, false
		}), "continue-verdict"},
		{"1031 leaves the part", onRequest(1031, func(_ *proxied, m []byte) ([]byte, [][]byte, bool) {
			return instead(codec.IDReply{Code: codec.CodeAck, ID: codec.ClientID(m)}.Append(nil))
		}), "abort-removes continue-abort"},
		{"ids are not compared", fault{
			request: func(c *proxied, m []byte) ([]byte, [][]byte, bool) {
				if !c.id.IsZero() {
					copy(m, c.id[:])
				}
				return m, nil, false
			},
			reply: func(c *proxied, r []byte) []byte {
				if replyCode(r) == codec.CodeRegistered {
					c.id = codec.ClientID(r[replyID:])
				}
				return r
			},
		}, "order-other-id continue-order"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			t.Parallel()
			timeout := patient
			if strings.Contains(tc.fails, "wrong-size") { // it waits for an end that does not come
				timeout = 8 * time.Second
			}
			r, failed, _ := run(t, startProxy(t, server, tc.fault), timeout)
			if failed != tc.fails {
				t.Errorf("failed: %q, want %q", failed, tc.fails)
				for _, res := range r.Results {
					if res.Status == conform.Fail {
						t.Logf("%s: %s", res.Rule, res.Problem)
					}
				}
			}
		})
	}
}

// oneRead is a connection to a server that gives up if a message does not come
// whole with its first read.
type oneRead struct {
	net.Conn
	begun bool
}

func (c *oneRead) Write(b []byte) (int, error) {
	if !c.begun && len(b) < payload {
		c.Close()
		return len(b), nil
	}
	c.begun = true
	return c.Conn.Write(b)
}

func TestAServerThatWantsWholeMessages(t *testing.T) {
	r, err := conform.Run(t.Context(), conform.Options{
		Server: startServer(t),
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			nc, err := new(net.Dialer).DialContext(ctx, network, address)
			return &oneRead{Conn: nc}, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, res := range r.Results {
		if (res.Status != conform.Pass) != (res.Rule == "any-pieces") {
			t.Errorf("%s: %s %s", res.Rule, res.Status, res.Problem)
		}
	}
}

// A server of another dialect than spec fails the rule about that, and the
// others are tried in its own.
func TestAServerOfOneDialect(t *testing.T) {
	server := startServer(t)
	single := onRequest(1028, func(c *proxied, m []byte) ([]byte, [][]byte, bool) {
		if binary.LittleEndian.Uint16(m[total:]) > 1 {
			return instead(generalError)
		}
		return m, nil, false
	})
	r, failed, notTried := run(t, startProxy(t, server, single), patient)
	if failed != "transfer-spec" || notTried != "packets-reversed packets-repeated packets-anew packets-extra packets-interleaved continue-under-way" {
		t.Errorf("failed: %q, not tried: %q", failed, notTried)
	}
	if r.Use != "single" {
		t.Errorf("use %q: %+v", r.Use, r.Dialects)
	}
	for _, d := range r.Dialects {
		if d.Taken != (d.Dialect == "single") {
			t.Errorf("%s: %v", d.Dialect, d.Taken)
		}
	}

	padded := onRequest(1028, func(c *proxied, m []byte) ([]byte, [][]byte, bool) {
		if len(m) != payload+codec.SendFileFieldsSize+1024 {
			return instead(generalError)
		}
		return m, nil, false
	})
	r, failed, notTried = run(t, startProxy(t, server, padded), patient)
	if failed != "transfer-spec" || notTried != "" {
		t.Errorf("failed: %q, not tried: %q", failed, notTried)
	}
	if r.Use != "padded" || r.UsePacketSize != 1024 {
		t.Errorf("use %q %d", r.Use, r.UsePacketSize)
	}
}

// A server of the later edition is tried in it, without being told.
func TestTheLaterEdition(t *testing.T) {
	later := fault{request: func(_ *proxied, m []byte) ([]byte, [][]byte, bool) {
		if requestCode(m) >= codec.CodeRegister && requestCode(m) <= codec.CodeAbort {
			return instead(generalError)
		}
		return m, nil, false
	}}
	o := conform.Options{Server: startProxy(t, startServer(t), later), Timeout: patient, Codes: client.AutoCodes}
	o.Progress = func(r conform.Result) {
		if r.Status != conform.Pass {
			t.Errorf("%s: %s", r.Rule, r.Problem)
		}
	}
	r, err := conform.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if r.Codes != "825" || r.Use != "spec" {
		t.Errorf("codes %q, use %q", r.Codes, r.Use)
	}
}

// A server of both editions that is in trouble twice at the start is tried in the
// first: what has failed there is found by the rule that names it.
func TestAServerOfBothEditionsInTrouble(t *testing.T) {
	for _, first := range []string{"1607", "the end"} {
		struck := map[codec.Code]bool{}
		f := fault{request: func(c *proxied, m []byte) ([]byte, [][]byte, bool) {
			code := requestCode(m)
			c.shared.mu.Lock()
			defer c.shared.mu.Unlock()
			if (code == codec.CodeRegister || code == codec.CodeReconnect) && !struck[code] {
				struck[code] = true
				if first == "1607" {
					return instead(generalError)
				}
				return nil, nil, true
			}
			return m, nil, false
		}}
		addr := startProxy(t, startServer(t), f)
		r, err := conform.Run(t.Context(), conform.Options{Server: addr, Timeout: patient, Codes: client.AutoCodes})
		if err != nil {
			t.Fatal(err)
		}
		if r.Codes != "1025" {
			t.Errorf("%s: tried with the codes %s", first, r.Codes)
		}
		for _, res := range r.Results {
			if fails := res.Rule == "register"; fails != (res.Status == conform.Fail) {
				t.Errorf("%s: %s: %s %s", first, res.Rule, res.Status, res.Problem)
			}
		}
	}
}

// A server that a message has killed is named so, and not tried any further.
func TestAServerThatDies(t *testing.T) {
	server := startServer(t)
	dies := onRequest(1099, func(c *proxied, m []byte) ([]byte, [][]byte, bool) {
		c.shared.die()
		return nil, nil, true
	})
	r, failed, notTried := run(t, startProxy(t, server, dies), patient)
	if r.GoneSince != "unknown-code" || failed != "unknown-code" {
		t.Errorf("gone since %q, failed: %s", r.GoneSince, failed)
	}
	var after []string
	seen := false
	for _, rule := range conform.Rules() {
		if seen {
			after = append(after, rule.Name)
		}
		seen = seen || rule.Name == "unknown-code"
	}
	if want := strings.Join(after, " "); notTried != want || len(after) == 0 {
		t.Errorf("not tried: %q, want %q", notTried, want)
	}
	for _, res := range r.Results {
		if res.Status == conform.NotTried && res.Problem != "the server is gone since rule unknown-code" {
			t.Errorf("%s: %s", res.Rule, res.Problem)
		}
	}
	if r.Use != "spec" || !r.Dialects[len(r.Dialects)-1].Taken {
		t.Errorf("use %q: the dialects were not tried before", r.Use)
	}
}

// A server may hang instead, and then nobody gets a reply.
func TestAServerThatHangs(t *testing.T) {
	server := startServer(t)
	hung := false
	hangs := fault{request: func(c *proxied, m []byte) ([]byte, [][]byte, bool) {
		c.shared.mu.Lock()
		defer c.shared.mu.Unlock()
		if hung = hung || requestCode(m) == 1099; hung {
			return nil, nil, false
		}
		return m, nil, false
	}}
	r, _, _ := run(t, startProxy(t, server, hangs), 2*time.Second)
	if r.GoneSince == "" || r.Count(conform.NotTried) < 30 || r.Use != "spec" {
		t.Errorf("gone since %q, %d not tried, use %q", r.GoneSince, r.Count(conform.NotTried), r.Use)
	}
}

// Names are such that every server takes them, where they are not what the rule
// is about.
func TestNamesAreLettersAndDigits(t *testing.T) {
	server := startServer(t)
	var names map[string]bool
	watch := fault{request: func(c *proxied, m []byte) ([]byte, [][]byte, bool) {
		c.shared.mu.Lock()
		defer c.shared.mu.Unlock()
		names = c.shared.names
		at := payload
		if requestCode(m) == codec.CodeSendFile {
			at = fileName
		}
		if len(m) > at {
			name, _, _ := bytes.Cut(m[at:], []byte{0})
			names[string(name)] = true
		}
		return m, nil, false
	}}
	run(t, startProxy(t, server, watch), patient)
	odd := 0
	for name := range names {
		if !regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]*$`).MatchString(name) {
			odd++
		}
	}
	// name-malformed has four names, name-escape four.
	if odd > 8 || len(names) < 50 {
		t.Errorf("%d of %d names are odd: %v", odd, len(names), names)
	}
}

// A server that never answers ends in a report, not in a hang.
func TestASilentServer(t *testing.T) {
	server := startServer(t)
	silent := fault{request: func(*proxied, []byte) ([]byte, [][]byte, bool) { return nil, nil, false }}
	r, err := conform.Run(t.Context(), conform.Options{Server: startProxy(t, server, silent), Timeout: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if r.Count(conform.Pass) != 0 || r.Count(conform.NotTried) == 0 || r.Use != "" {
		t.Errorf("passed %d, not tried %d, use %q", r.Count(conform.Pass), r.Count(conform.NotTried), r.Use)
	}
	for _, res := range r.Results {
		if !strings.Contains(res.Problem, "no whole reply within 1ms") {
			t.Errorf("%s: %s", res.Rule, res.Problem)
		}
	}
}

func TestNoServer(t *testing.T) {
	refuse := func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("nobody there") }
	if _, err := conform.Run(t.Context(), conform.Options{Server: "h:1", DialContext: refuse}); err == nil || !strings.Contains(err.Error(), "nobody there") {
		t.Errorf("got %v", err)
	}
	if _, err := conform.Run(t.Context(), conform.Options{Server: "h:x"}); err == nil {
		t.Error("an address without sense")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := conform.Run(ctx, conform.Options{Server: startServer(t)}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A failure shows both sides in hex.
func TestAFailureShowsTheBytes(t *testing.T) {
	server := startServer(t)
	r, _, _ := run(t, startProxy(t, server, onReply(1601, func(r []byte) []byte { return bytes.Clone(generalError) })), patient)
	for _, res := range r.Results {
		if res.Rule != "register-taken" {
			continue
		}
		var sent, received string
		for _, e := range res.Log {
			switch e.Direction {
			case ">":
				sent = e.Hex
			case "<":
				received = e.Hex
			}
		}
		if !regexp.MustCompile(`^00\*16 03 01 04 ff 00 00 00 63 6f 6e 66 6f 72 6d( [0-9a-f]{2}(\*\d+)?)+ 00\*\d+$`).MatchString(sent) {
			t.Errorf("sent %q", sent)
		}
		if received != "03 47 06 00*4" {
			t.Errorf("received %q", received)
		}
		if res.Problem != "a 1607 server error came where a 1601 registration failed was due" {
			t.Errorf("problem %q", res.Problem)
		}
	}
}
