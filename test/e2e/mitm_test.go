//go:build unix

package e2e

import (
	"bytes"
	"crypto/rsa"
	"encoding/binary"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"sealift/codec"
	"sealift/crypto/aescbc"
	"sealift/crypto/cksum"
	"sealift/crypto/keys"
	"sealift/internal/testpeer"
)

// A man in the middle, and what section 6 of the protocol's documents says that he can
// do: each of these tests shows it on plain v3, and then that he cannot over TLS. The
// table in docs/SECURITY.md names them.

// man relays a client's connections, and keeps what he saw.
type man struct {
	relay testpeer.Relay
	// messages are what he does to a plain connection: he may change a request or a
	// reply. Not called over TLS, unless he ends that himself.
	request, reply func(code codec.Code, m []byte) []byte
	// bytes is what he does to bytes that he cannot read.
	bytes func(at int, b []byte)

	mu       sync.Mutex
	up, down []byte // as it came to him
	codes    []codec.Code
}

// standBetween has the man listen, for connections to the server.
func (m *man) standBetween(t *testing.T, d *daemon) *man {
	t.Helper()
	m.relay.Hook = func() (up, down func([]byte) []byte) {
		at := 0
		requests := m.messages(codec.RequestHeaderSize, func() func(codec.Code, []byte) []byte { return m.request })
		replies := m.messages(codec.ResponseHeaderSize, func() func(codec.Code, []byte) []byte { return m.reply })
		up = func(b []byte) []byte {
			m.keep(&m.up, b)
			if m.bytes != nil {
				m.bytes(at, b)
				at += len(b)
				return b
			}
			return requests(b)
		}
		down = func(b []byte) []byte {
			m.keep(&m.down, b)
			return replies(b)
		}
		return up, down
	}
	if err := m.relay.Start(d.addr); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.relay.Close)
	return m
}

func (m *man) keep(all *[]byte, b []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	*all = append(*all, b...)
}

// saw is what came to him.
func (m *man) saw() (up, down []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.up), slices.Clone(m.down)
}

// messages cuts a stream into messages, and gives each to change. Without one the bytes
// go on as they come.
func (m *man) messages(header int, change func() func(codec.Code, []byte) []byte) func([]byte) []byte {
	var kept []byte
	return func(b []byte) (out []byte) {
		f := change()
		if f == nil {
			return b
		}
		kept = append(kept, b...)
		for len(kept) >= header {
			size := header + int(binary.LittleEndian.Uint32(kept[header-4:]))
			if len(kept) < size {
				break
			}
			code := codec.Code(binary.LittleEndian.Uint16(kept[header-6:]))
			m.mu.Lock()
			m.codes = append(m.codes, code)
			m.mu.Unlock()
			out = append(out, f(code, slices.Clone(kept[:size]))...)
			kept = kept[size:]
		}
		return out
	}
}

// requestsIn are the messages of a plain stream of requests.
func requestsIn(stream []byte) (all [][]byte) {
	for len(stream) >= codec.RequestHeaderSize {
		n := codec.RequestHeaderSize + int(binary.LittleEndian.Uint32(stream[codec.RequestHeaderSize-4:]))
		all, stream = append(all, stream[:n]), stream[n:]
	}
	return all
}

// contentsIn are the contents of the 1028 in a plain stream of requests.
func contentsIn(stream []byte) (all [][]byte) {
	for _, m := range requestsIn(stream) {
		if code := binary.LittleEndian.Uint16(m[17:]); codec.Code(code) == codec.CodeSendFile {
			all = append(all, m[codec.RequestHeaderSize+codec.SendFileFieldsSize:])
		}
	}
	return all
}

// dataIn are the records with application data in one direction of TLS (RFC 8446, 5.1).
func dataIn(stream []byte) (all [][]byte) {
	for len(stream) >= 5 {
		n := 5 + int(binary.BigEndian.Uint16(stream[3:]))
		if n > len(stream) {
			break
		}
		if stream[0] == 23 {
			all = append(all, stream[5:n])
		}
		stream = stream[n:]
	}
	return all
}

// victim is somebody who sends files with sealift.
type victim struct {
	t   *testing.T
	d   *daemon
	dir string
}

const (
	victimsName = "Michael Jackson"
	victimsFile = "diagnosis.txt"
)

// newVictim is one with a file, and with a server that serves both plain and TLS.
func newVictim(t *testing.T, content []byte) *victim {
	v := &victim{t, serve(t, "--tls", "allow"), t.TempDir()}
	put(t, v.path(victimsFile), content)
	return v
}

func (v *victim) path(name string) string { return filepath.Join(v.dir, name) }

func (v *victim) me() meInfo { v.t.Helper(); return readMe(v.t, v.path("me.info")) }

// plain sends the files, or the file, by way of addr.
func (v *victim) plain(addr string, files ...string) result {
	v.t.Helper()
	return v.send([]string{"SEALIFT_TLS=", "SEALIFT_TLS_TRUST_FIRST="}, addr, nil, files)
}

// overTLS is plain for a victim who knows the server's key.
func (v *victim) overTLS(addr string, files ...string) result {
	v.t.Helper()
	return v.send([]string{"SEALIFT_TLS_TRUST_FIRST="}, addr, []string{"--tls", "--tls-fingerprint", v.d.fingerprint()}, files)
}

func (v *victim) send(env []string, addr string, flags, files []string) result {
	v.t.Helper()
	if len(files) == 0 {
		files = []string{victimsFile}
	}
	args := slices.Concat([]string{"send", "--server", addr, "--name", victimsName}, flags, files)
	return runEnv(v.t, v.dir, env, sealift, args...)
}

// fingerprint is the server's key.
func (d *daemon) fingerprint() string {
	d.t.Helper()
	return strings.TrimSpace(run(d.t, d.dir, sealiftd, "fingerprint", "--dir", d.dir).succeeded(d.t).stdout)
}

// The IV is zero: he sees that two files begin alike, and how far.
func TestFilesThatBeginAlike(t *testing.T) {
	const alike = 4096
	content := randomBytes(6000, 1)
	other := append(slices.Clone(content[:alike]), randomBytes(6000-alike, 2)...)
	v := newVictim(t, content)
	put(t, v.path("other"), other)

	m := new(man).standBetween(t, v.d)
	v.plain(m.relay.Addr(), victimsFile, "other").succeeded(t)
	up, _ := m.saw()
	seen := contentsIn(up)
	if len(seen) != 2 || !bytes.Equal(seen[0][:alike], seen[1][:alike]) || bytes.Equal(seen[0][alike:][:16], seen[1][alike:][:16]) {
		t.Errorf("he does not see in %d contents that their first %d bytes are alike", len(seen), alike)
	}

	m = new(man).standBetween(t, v.d)
	v.overTLS(m.relay.Addr(), victimsFile, "other").succeeded(t)
	up, _ = m.saw()
	n, blocks := 0, make(map[string]bool)
	for _, r := range dataIn(up) {
		n += len(r)
		for i := range max(0, len(r)-15) {
			if block := string(r[i : i+16]); blocks[block] {
				t.Fatal("he sees 16 bytes twice")
			} else {
				blocks[block] = true
			}
		}
	}
	if n < len(content)+len(other) {
		t.Errorf("he saw %d bytes", n)
	}
}

// swap is how he reads what is sent on a connection that he can read the messages of:
// his own public key goes to the server, and what that wraps the AES key with is his.
type swap struct {
	own     *testpeer.Pair
	theirs  *rsa.PublicKey
	key     [keys.AESKeySize]byte
	content []byte // that he has read
	change  func(content []byte)
	err     error
}

func (s *swap) request(code codec.Code, m []byte) []byte {
	switch code {
	case codec.CodePublicKey:
		der := m[len(m)-keys.PublicKeySize:]
		s.theirs, s.err = keys.ParsePublic(der)
		copy(der, s.own.Public[:])
	case codec.CodeSendFile:
		body := m[codec.RequestHeaderSize+codec.SendFileFieldsSize:]
		plain := make([]byte, len(body))
		n, err := aescbc.NewDecrypter(&s.key).Final(plain, body)
		if err != nil {
			s.err = err
			return m
		}
		s.content = slices.Clone(plain[:n])
		if s.change != nil {
			s.change(plain[:n])
			aescbc.NewEncrypter(&s.key).Final(body, plain[:n])
		}
	}
	return m
}

func (s *swap) reply(code codec.Code, m []byte) []byte {
	switch code {
	case codec.CodeAESKey:
		wrapped := m[len(m)-codec.WrappedKeySize:]
		if s.key, s.err = s.own.Unwrap(wrapped); s.err == nil {
			var again [keys.WrappedKeySize]byte
			again, s.err = keys.Wrap(s.theirs, &s.key)
			copy(wrapped, again[:])
		}
	case codec.CodeFileReceived: // what the victim expects to read
		binary.LittleEndian.PutUint32(m[len(m)-4:], cksum.Checksum(s.content))
	}
	return m
}

// between has the man swap keys. The two ends take turns, so that s needs no lock.
func (s *swap) between(t *testing.T, d *daemon, m *man) *man {
	s.own = testpeer.SharedPair(2)
	m.request, m.reply = s.request, s.reply
	return m.standBetween(t, d)
}

// Nobody is authenticated: he puts his key in the place of the client's, and reads the
// file. Over TLS he is another server, and gets no message.
func TestSwappedKey(t *testing.T) {
	content := randomBytes(5000, 3)
	v := newVictim(t, content)
	s := new(swap)
	m := s.between(t, v.d, new(man))
	v.plain(m.relay.Addr()).succeeded(t)
	if s.err != nil || !bytes.Equal(s.content, content) {
		t.Errorf("he read %d bytes of %d: %v", len(s.content), len(content), s.err)
	}
	v.d.checkVerified(v.me().id, victimsFile, content)

	v = newVictim(t, content)
	v.overTLS(v.d.addr).succeeded(t)
	s = new(swap)
	m = new(man)
	accept, his := testpeer.Terminate()
	m.relay.Near, m.relay.Far = accept, (&testpeer.TLS{AnyServer: true}).Client
	s.between(t, v.d, m)
	got := v.overTLS(m.relay.Addr())
	if got.status == 0 || !strings.Contains(got.stderr, his.String()) || !strings.Contains(got.stderr, v.d.fingerprint()) {
		t.Errorf("status %d, and standard error does not name both keys: %s", got.status, got.stderr)
	}
	if len(m.codes) > 0 || s.content != nil {
		t.Errorf("he got %v", m.codes)
	}
}

// A checksum is no MAC: he changes the file and the checksum, and both sides are
// content. Over TLS what he changes ends the connection.
func TestChangedContent(t *testing.T) {
	content := []byte("Pay 100 to Ada." + strings.Repeat(" ", 3000))
	changed := bytes.Replace(content, []byte("100"), []byte("900"), 1)
	v := newVictim(t, content)
	s := &swap{change: func(b []byte) { copy(b, changed) }}
	m := s.between(t, v.d, new(man))
	v.plain(m.relay.Addr()).succeeded(t)
	v.d.checkVerified(v.me().id, victimsFile, changed)
	if s.err != nil {
		t.Error(s.err)
	}

	v = newVictim(t, content)
	v.overTLS(v.d.addr).succeeded(t) // registers
	content[0]++
	put(t, v.path(victimsFile), content)
	m = new(man)
	size := 0
	m.bytes = func(at int, b []byte) { size = max(size, at+len(b)) }
	v.overTLS(m.standBetween(t, v.d).relay.Addr()).succeeded(t)
	m.relay.Close()
	if size < len(content) {
		t.Fatalf("%d bytes went up", size)
	}
	for i := range 8 {
		content[0]++
		put(t, v.path(victimsFile), content)
		place, done := size-1-i*len(content)/8, false
		m := new(man)
		m.bytes = func(at int, b []byte) {
			if i := place - at; !done && i >= 0 && i < len(b) {
				b[i] ^= 0x10
				done = true
			}
		}
		v.overTLS(m.standBetween(t, v.d).relay.Addr()).succeeded(t) // on another connection
		m.relay.Close()
		if !done {
			t.Errorf("he did not come to byte %d", place)
		}
		v.d.checkVerified(v.me().id, victimsFile, content)
	}
}

// Metadata are in the clear: he reads who sends what. Over TLS he does not.
func TestMetadata(t *testing.T) {
	content := randomBytes(3000, 4)
	v := newVictim(t, content)
	metadata := func() map[string][]byte {
		id := v.me().id
		return map[string][]byte{
			"the user's name": []byte(victimsName), "the file's name": []byte(victimsFile), "the id": id[:],
			"the size":     binary.LittleEndian.AppendUint32(nil, uint32(len(content))),
			"the checksum": binary.LittleEndian.AppendUint32(nil, cksum.Checksum(content)),
		}
	}
	m := new(man).standBetween(t, v.d)
	v.plain(m.relay.Addr()).succeeded(t)
	up, down := m.saw()
	for what, b := range metadata() {
		if !bytes.Contains(up, b) && !bytes.Contains(down, b) {
			t.Errorf("he does not see %s on a plain connection", what)
		}
	}

	v = newVictim(t, content)
	m = new(man).standBetween(t, v.d)
	v.overTLS(m.relay.Addr()).succeeded(t)
	up, down = m.saw()
	if len(up) < len(content) || len(down) < 500 {
		t.Errorf("he saw %d bytes up and %d down", len(up), len(down))
	}
	for what, b := range metadata() {
		if bytes.Contains(up, b) || bytes.Contains(down, b) {
			t.Errorf("he sees %s over TLS", what)
		}
	}
}

// There is no forward secrecy: with the key of a me.info that he gets later he reads
// what he recorded. Over TLS no key that anybody keeps is of use: those of the
// connection were agreed on anew, by Diffie and Hellman's method and ML-KEM.
func TestRecordedTraffic(t *testing.T) {
	content := randomBytes(3000, 5)
	v := newVictim(t, content)
	// found are the AES keys that the key opens anywhere in what came down.
	found := func(down []byte) (all [][keys.AESKeySize]byte) {
		key := v.me().key
		for i := range max(0, len(down)-keys.WrappedKeySize+1) {
			if k, err := keys.Unwrap(key, down[i:i+keys.WrappedKeySize]); err == nil {
				all = append(all, k)
			}
		}
		return all
	}
	m := new(man).standBetween(t, v.d)
	v.plain(m.relay.Addr()).succeeded(t)
	up, down := m.saw()
	aesKeys, seen := found(down), contentsIn(up)
	if len(aesKeys) != 1 || len(seen) != 1 {
		t.Fatalf("he finds %d keys and %d contents", len(aesKeys), len(seen))
	}
	plain := make([]byte, len(seen[0]))
	if n, err := aescbc.NewDecrypter(&aesKeys[0]).Final(plain, seen[0]); err != nil || !bytes.Equal(plain[:n], content) {
		t.Errorf("he reads %d bytes: %v", n, err)
	}

	v = newVictim(t, content)
	m = new(man).standBetween(t, v.d)
	v.overTLS(m.relay.Addr()).succeeded(t)
	up, down = m.saw()
	if n := len(found(down)) + len(found(up)); n > 0 {
		t.Errorf("he finds %d keys", n)
	}
	hello := serverHello(t, down)
	if version := hello[43]; !bytes.Equal(version, []byte{3, 4}) {
		t.Errorf("the version is %x, not that of TLS 1.3", version)
	}
	if share := hello[51]; len(share) < 2 || binary.BigEndian.Uint16(share) != 0x11ec {
		t.Errorf("the key exchange is %.4x…, not X25519MLKEM768", share)
	}
	if _, resumed := hello[41]; resumed {
		t.Error("the connection has keys of one before it")
	}
}

// serverHello returns the extensions of the ServerHello with which the stream begins,
// by number (RFC 8446, 4.1.3 and 4.2).
func serverHello(t *testing.T, stream []byte) map[uint16][]byte {
	t.Helper()
	if len(stream) < 9 || stream[0] != 22 || stream[5] != 2 {
		t.Fatalf("there is no ServerHello in %d bytes", len(stream))
	}
	b := stream[9+2+32:] // version, random
	b = b[1+int(b[0])+2+1:]
	b = b[2:][:binary.BigEndian.Uint16(b)]
	all := make(map[uint16][]byte)
	for len(b) >= 4 {
		n := 4 + int(binary.BigEndian.Uint16(b[2:]))
		all[binary.BigEndian.Uint16(b)], b = b[4:n], b[n:]
	}
	return all
}

// attacker is a peer of the man's own, at the victim's server, protected by p or plain.
func (v *victim) attacker(p *testpeer.TLS) (*peer, error) {
	v.t.Helper()
	nc, err := net.DialTimeout("tcp", v.d.addr, patience)
	if err != nil {
		v.t.Fatal(err)
	}
	a := &peer{t: v.t, addr: v.d.addr}
	a.Name, a.Pair = victimsName, testpeer.SharedPair(3)
	v.t.Cleanup(func() { _ = nc.Close() })
	return a, a.UseTLS(nc, p)
}

func (v *victim) mustAttack(p *testpeer.TLS, id codec.ClientID) *peer {
	v.t.Helper()
	a, err := v.attacker(p)
	if err != nil {
		v.t.Fatal(err)
	}
	a.ID = id
	return a
}

// spoil sends a file of the victim's name that is put together from recorded content,
// without its first block, and has it verified.
func (p *peer) spoil(recorded []byte, size int) error {
	f := &testpeer.File{ID: p.ID, Name: victimsFile, Content: make([]byte, size-16), Ciphertext: recorded[16:]}
	if err := p.SendPackets(f.Packets(testpeer.Single, 0)); err != nil {
		return err
	}
	if _, err := p.Want(codec.CodeFileReceived); err != nil {
		return err
	}
	return p.Confirm(victimsFile)
}

// An overheard id is all that a 1028 needs: with it, and recorded content, he replaces
// the victim's file by what he has put together. Over TLS he overhears no id, and where
// he knows one from before, only an id that is not pinned is his.
func TestOverheardID(t *testing.T) {
	content := randomBytes(3000, 6)
	v := newVictim(t, content)
	m := new(man).standBetween(t, v.d)
	v.plain(m.relay.Addr()).succeeded(t)
	up, _ := m.saw()
	requests := requestsIn(up)
	id := codec.ClientID(requests[len(requests)-1])
	for _, p := range []*testpeer.TLS{nil, testpeer.SharedTLS()} { // he may use TLS as well
		if err := v.mustAttack(p, id).spoil(contentsIn(up)[0], len(content)); err != nil {
			t.Errorf("he cannot replace the file: %v", err)
		}
		v.d.checkVerified(v.me().id, victimsFile, get(t, v.d.stored(id, victimsFile)))
		if n := len(get(t, v.d.stored(id, victimsFile))); n != len(content)-16 {
			t.Errorf("the file has %d bytes", n)
		}
	}

	// From now on the victim uses TLS: the id is pinned.
	v.overTLS(v.d.addr).succeeded(t)
	v.refuses(id, contentsIn(up)[0], content)

	v = newVictim(t, content)
	m = new(man).standBetween(t, v.d)
	v.overTLS(m.relay.Addr()).succeeded(t)
	id = v.me().id
	up, down := m.saw()
	if bytes.Contains(up, id[:]) || bytes.Contains(down, id[:]) {
		t.Error("he overhears the id")
	}
	v.refuses(id, make([]byte, 3008), content)
}

// refuses makes sure that the man can do nothing with the victim's id, over whatever
// connection, and that the victim can.
func (v *victim) refuses(id codec.ClientID, ciphertext, content []byte) {
	v.t.Helper()
	for how, p := range map[string]*testpeer.TLS{"plain": nil, "TLS without a key": {AnyServer: true}, "TLS with his own key": testpeer.SharedTLS()} {
		file := &testpeer.File{ID: id, Name: victimsFile, Content: make([]byte, len(ciphertext)-9), Ciphertext: ciphertext}
		attacker := testpeer.Peer{ID: id, Name: victimsName, Pair: testpeer.SharedPair(3)}
		for what, request := range map[string][]byte{
			"1026": attacker.PublicKey(),
			"1027": attacker.Reconnect(),
			"1028": file.Packet(testpeer.Single, 0, 0).Bytes(),
			"1029": attacker.Verdict(codec.CodeCRCOK, victimsFile),
			"1030": attacker.Verdict(codec.CodeCRCBad, victimsFile),
			"1031": attacker.Verdict(codec.CodeAbort, victimsFile),
		} {
			a := v.mustAttack(p, id)
			if err := a.Send(request); err != nil {
				v.t.Fatal(err)
			}
			if code, _, err := a.Read(); err != nil || code != codec.CodeError {
				v.t.Errorf("%s, %s: %v %v", how, what, code, err)
			}
			_ = a.Close()
		}
	}
	v.d.checkVerified(id, victimsFile, content)
	content[0]++
	put(v.t, v.path(victimsFile), content)
	v.overTLS(v.d.addr).succeeded(v.t)
	if got := v.me().id; got != id {
		v.t.Errorf("the victim is now %v", got)
	}
	v.d.checkVerified(id, victimsFile, content)
}

// He tries to pin a key of his own to an id that he has overheard: by a 1027, and by a
// 1028 that resumes; without a claim, with one that he has signed, and with one that
// the owner has signed for another server or another key. He cannot, the owner is
// served as before, and the owner's key is what is pinned in the end.
func TestPinningAnOverheardID(t *testing.T) {
	content := randomBytes(3000, 7)
	v := newVictim(t, content)
	m := new(man).standBetween(t, v.d)
	v.plain(m.relay.Addr()).succeeded(t)
	up, _ := m.saw()
	me := v.me()
	owner := &testpeer.Pair{Private: me.key}
	claims := map[string]*testpeer.TLS{}
	for _, how := range []string{"none", "his own", "for another server", "for another key"} {
		claims[how] = testpeer.NewTLS()
	}
	other, anothers := claims["none"].Fingerprint(), testpeer.NewTLS().Fingerprint()
	claims["his own"].Claim = testpeer.SharedPair(3).Claimed(me.id)
	claims["for another server"].Claim = owner.ClaimedAs(me.id, &other, nil)
	claims["for another key"].Claim = owner.ClaimedAs(me.id, nil, &anothers)
	for how, p := range claims {
		for what, do := range map[string]func(a *peer) error{
			"1027": func(a *peer) error { return a.Send(a.Reconnect()) },
			"1028": func(a *peer) error {
				f := &testpeer.File{ID: me.id, Name: "his", Content: content, Ciphertext: contentsIn(up)[0]}
				return a.SendPackets(f.Packets(testpeer.Single, 0))
			},
		} {
			a := v.mustAttack(p, me.id)
			if err := do(a); err != nil {
				t.Fatal(err)
			}
			code, _, err := a.Read() // whatever it is
			_ = a.Close()
			if pinned := v.pinned(); pinned != "" {
				t.Fatalf("%s, claim: %s: answered with %v %v, and %s is pinned", what, how, code, err, pinned)
			}
			v.plain(v.d.addr).succeeded(t)
		}
	}
	v.overTLS(v.d.addr).succeeded(t)
	first := v.pinned()
	if first == "" {
		t.Fatal("the owner's key is not pinned")
	}
	for how, p := range claims {
		a := v.mustAttack(p, me.id)
		if _, err := a.Ask(a.Reconnect(), codec.CodeReconnected); !testpeer.Refused(err, codec.CodeError) {
			t.Errorf("claim: %s: %v", how, err)
		}
	}
	if got := v.pinned(); got != first {
		t.Errorf("%s is pinned, in the place of %s", got, first)
	}
	v.overTLS(v.d.addr).succeeded(t)
	if got := v.me(); got.id != me.id {
		t.Errorf("the owner is now %v", got.id)
	}
	v.d.checkVerified(me.id, victimsFile, content)
}

// pinned is the fingerprint that is pinned to the only client, "" for none.
func (v *victim) pinned() string {
	v.t.Helper()
	all := v.d.clients()
	if len(all) != 1 {
		v.t.Fatalf("%d clients: %+v", len(all), all)
	}
	return all[0].TLSKey
}
