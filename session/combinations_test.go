package session_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"sealift/codec"
	"sealift/session"
	"sealift/storage"
)

// reading is one way to understand the documents: a choice on each axis.
type reading struct {
	codes      string // 1025, 825, big-endian
	encryption string // whole, each packet
	content    string // what Content Size is the size of: whole, packet, body, plaintext, payload
	orig       string // what Orig File Size is the size of: whole, packet
	numbers    string // from 1, from 0, swapped, swapped from 0, 1 without total, extra
	padding    string // short, zeros
	order      string // in order, reversed, shuffled: of all packets but the first
	name       string
	begin      string // how the connection begins
	check      string // what the client compares in the 1603 beside the checksum
	size       int    // bytes of the file
	packet     int    // bytes of a packet
}

func (r reading) String() string {
	type fields reading
	return fmt.Sprintf("%+v", fields(r))
}

func randomReading(r *rand.Rand) reading {
	one := func(of ...string) string { return of[r.IntN(len(of))] }
	c := reading{
		codes:      one("1025", "1025", "825", "825", "825", "big-endian"),
		encryption: one("whole", "whole", "each packet"),
		content:    one("whole", "whole", "packet", "packet", "body", "plaintext", "payload"),
		orig:       one("whole", "whole", "packet"),
		numbers:    one("from 1", "from 1", "from 0", "swapped", "swapped", "swapped from 0", "no total", "extra"),
		padding:    one("short", "zeros"),
		order:      one("in order", "in order", "reversed", "shuffled"),
		name: one("f", "f", `client.cpp\..\..\x64\debug\a.txt`, "../up", "/abs/f", `C:\dir\f`, "dir/./f", "f\x00leftovers",
			"r\u00e9sum\u00e9/\u5c65.pdf", "b:x",
			"a/..", "..", "caf\xe9", "", strings.Repeat("n", 255)),
		begin:  one("registers", "reconnects", "resumes", "is rejected and registers", "is rejected and sends a 1026"),
		check:  one("nothing", "size"),
		size:   []int{0, 0, 1, 15, 16, 500, 1008, 2500, 10_001}[r.IntN(9)],
		packet: []int{1008, 1024}[r.IntN(2)],
	}
	if c.codes == "big-endian" && c.begin == "resumes" { // it never had a connection to resume
		c.begin = "registers"
	}
	return c
}

// served reports whether docs/PROTOCOL.md says that the reading is served.
func (r reading) served(packets int) bool {
	several := packets > 1
	switch {
	case r.codes == "big-endian":
		return false
	case r.name == "a/.." || r.name == ".." || r.name == "caf\xe9" || r.name == "" || len(r.name) == 255:
		return false
	case r.numbers == "swapped from 0", r.numbers == "no total" && r.size > 0:
		return false
	case r.numbers == "swapped" && r.encryption == "each packet" && several:
		return false
	case r.encryption == "whole" && r.orig == "whole" && r.content == "whole":
		return true
	case r.encryption == "whole" && r.orig == "whole" && r.content == "packet":
		return r.padding == "short" || !several
	case r.encryption == "each packet" && r.orig == "packet" && r.content == "packet":
		return r.padding == "short" || !several
	}
	return false
}

// words are what a reason may say that names the reading.
func (r reading) words() []string {
	words := []string{"read as"} // of what the packets together turned out not to be
	if r.codes == "big-endian" {
		words = append(words, "big-endian")
	}
	if strings.HasPrefix(r.numbers, "swapped") {
		words = append(words, "swapped")
	}
	if r.numbers == "no total" || r.numbers == "swapped from 0" {
		words = append(words, "Total Packets is 0")
	}
	switch {
	case r.name == "a/.." || r.name == "..":
		words = append(words, "not a path")
	case r.name == "caf\xe9":
		words = append(words, "not UTF-8")
	case r.name == "":
		words = append(words, "empty")
	case len(r.name) == 255:
		words = append(words, "null is missing")
	}
	return append(words, "Content Size is the size before encryption", "Content Size is the Payload Size",
		"the only packet is not the whole file", "filled up", "Content Size is not the ciphertext of Orig File Size",
		"Content Size is neither")
}

// header gives a message the codes of the reading.
func (r reading) header(m []byte) []byte {
	switch r.codes {
	case "825":
		return later(m)[0]
	case "big-endian":
		m = slices.Clone(m)
		slices.Reverse(m[17:19])
		slices.Reverse(m[19:23])
	}
	return m
}

// packets are the 1028s of a file.
func (r reading) packets(p *peer, content []byte) [][]byte {
	whole := p.encrypt(content)
	type part struct{ cipher, plain []byte }
	var parts []part
	if r.encryption == "whole" {
		for i := 0; i < len(whole); i += r.packet {
			parts = append(parts, part{whole[i:min(i+r.packet, len(whole))], content[min(i, len(content)):min(i+r.packet, len(content))]})
		}
	} else {
		for i := 0; i < len(content) || i == 0; i += r.packet {
			plain := content[i:min(i+r.packet, len(content))]
			parts = append(parts, part{p.encrypt(plain), plain})
		}
	}
	full := max(r.packet, len(parts[0].cipher))
	total := len(parts)
	if r.numbers == "extra" && total > 1 { // of a file in one packet it would come before the file
		parts = append(parts, part{parts[total-1].cipher, parts[total-1].plain})
	}
	var all [][]byte
	for i, at := range parts {
		body := at.cipher
		if r.padding == "zeros" {
			body = append(slices.Clone(body), make([]byte, full-len(body))...)
		}
		size := map[string]int{
			"whole": len(whole), "packet": len(at.cipher), "body": len(body), "plaintext": len(content), "payload": len(body) + 267,
		}[r.content]
		orig := len(content)
		if r.orig == "packet" {
			orig = len(at.plain)
		}
		m := codec.SendFile{ContentSize: uint32(size), OrigSize: uint32(orig), Packet: uint16(i + 1), Total: uint16(total)}
		switch r.numbers {
		case "from 0":
			m.Packet--
		case "swapped":
			m.Packet, m.Total = m.Total, m.Packet
		case "swapped from 0":
			m.Packet, m.Total = m.Total, m.Packet-1
		case "no total":
			m.Total = 0
		}
		b := p.packet(m, body)
		copy(b[codec.RequestHeaderSize+12:], append([]byte(r.name), 0))
		copy(b[codec.RequestHeaderSize+12:][:255], r.name)
		all = append(all, b)
	}
	rest := all[1:total]
	switch r.order {
	case "reversed":
		slices.Reverse(rest)
	case "shuffled":
		rand.New(rand.NewPCG(1, 1)).Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	}
	return all
}

// connect brings the connection to where files can be sent. It returns false if
// a 1607 came for an answer.
func (r reading) connect(t *testing.T, c *conn, p *peer) bool {
	priv, pub := pair[0]()
	ask := func(want string, m []byte) bool {
		got := c.ask(r.header(m))
		if got != want && got != "1607" {
			t.Fatalf("%v: got %q, want %q", r, got, want)
		}
		return got == want
	}
	takeKey := func() {
		reply := c.raw[len(c.raw)-1]
		binary.LittleEndian.PutUint16(reply[1:], uint16(codec.CodeAESKey)) // 1605 has the same layout
		p.key = c.aesKey(t, priv)
	}
	register := func() bool {
		p.id, p.name = codec.ClientID{}, "anew"
		if !ask("1600", p.register()) {
			return false
		}
		p.id = codec.ClientID(c.raw[len(c.raw)-1][7:])
		if !ask("1602", p.publicKey(pub)) {
			return false
		}
		takeKey()
		return true
	}
	switch r.begin {
	case "registers":
		return register()
	case "resumes":
		return true
	case "reconnects":
		if !ask("1605", p.reconnect()) {
			return false
		}
		takeKey()
		return true
	}
	p.id = uuid4(p.id)
	p.id[9]++
	p.name = "another"
	if !ask("1606", p.reconnect()) {
		return false
	}
	if r.begin == "is rejected and registers" {
		return register()
	}
	if !ask("1602", p.publicKey(pub)) {
		return false
	}
	takeKey()
	return true
}

// TestCombinationsOfReadings: clients that combine readings of the documents at
// random are served as section 9.3 and 12 of docs/PROTOCOL.md say; all others get
// one 1607, and the log names the reading. None is left without a reply, and no
// file is stored that is not the one sent.
func TestCombinationsOfReadings(t *testing.T) {
	combinations := 3000
	if testing.Short() {
		combinations = 200
	}
	served, refused := 0, 0
	for seed := range uint64(combinations) {
		r := randomReading(rand.New(rand.NewPCG(seed, 1256)))
		w := newWorld(t, session.Config{})
		logs := w.logged()
		p, c := w.known("alice"), w.dial()
		content := random(seed, r.size)
		reasons := func() (all []string) {
			for _, line := range logs.All() {
				if reason, ok := line.ContextMap()["reason"].(string); ok {
					all = append(all, reason)
				}
			}
			return all
		}
		fail := func(format string, args ...any) {
			t.Fatalf("combination %d: %v\n%s\nlog: %q", seed, r, fmt.Sprintf(format, args...), reasons())
		}
		named := func() {
			all := reasons()
			if len(all) != 1 || !slices.ContainsFunc(r.words(), func(word string) bool { return strings.Contains(all[0], word) }) {
				fail("refused, and the log does not name the reading")
			}
			refused++
		}
		if !r.connect(t, c, p) {
			if r.codes != "big-endian" || c.hangup == "" {
				fail("no connection")
			}
			named()
			continue
		}
		packets := r.packets(p, content)
		total := len(packets)
		if r.numbers == "extra" && total > 1 {
			total--
		}
		for i, m := range packets {
			packets[i] = r.header(m)
		}
		got := c.ask(packets...)
		if got == "1607" {
			if r.served(total) {
				fail("it is refused, and the documents promise that it is served")
			}
			named()
			if c.s.Uploads() != 0 {
				fail("the transfer left something")
			}
			continue
		}
		name, _, _ := strings.Cut(r.name, "\x00")
		want := received(name, content)
		if r.codes == "825" {
			want = claims(name, content, claimed(packets[total-1]))
		}
		if got != want {
			fail("it gets %q, want %q", got, want)
		}
		if r.check == "size" && r.codes == "825" && c.raw[len(c.raw)-1][7+16] != packets[total-1][23] {
			fail("the client ends: another Content Size than its own")
		}
		verdict := p.ok(name)
		if got := c.ask(r.header(verdict)); got != "1604" {
			fail("1029 gets %q", got)
		}
		path, err := storage.CleanPath(name)
		if err != nil {
			fail("%v", err)
		}
		w.verified(p, path, content)
		served++
	}
	if served < combinations/10 || refused < combinations/10 {
		t.Errorf("%d served and %d refused of %d: the generator is not worth much", served, refused, combinations)
	}
	t.Logf("%d served, %d refused", served, refused)
}
