// Package fakeserver is a server for tests of what talks to one. It does what
// the protocol says, except where a test wants otherwise, and writes down which
// messages came.
package fakeserver

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"sealift/codec"
	"sealift/crypto/aescbc"
	"sealift/crypto/keys"
)

// Server is the server. Set its fields before the first connection.
type Server struct {
	Addr string // host:port

	// Answer is asked for each message that is due a reply (for a 1028: once
	// the last packet is in). It gets the right reply, which it may change, and
	// returns what to send; nil ends the connection.
	Answer func(m Message, right []byte) []byte
	// Packet is asked for each packet of a 1028, before its content. A reply
	// that is not nil is sent at once, and then nothing more is read.
	Packet func(m Message) []byte
	// ByteWise sends replies one byte at a time.
	ByteWise bool
	// CloseAfterAck ends the connection after each 1604.
	CloseAfterAck bool
	// RegisterAt1606 puts a new id into a 1606, and registers the name under it.
	RegisterAt1606 bool
	// Ack1030 answers a 1030, to which the protocol has no reply, with 1604.
	Ack1030 bool

	// Continues has the server keep the beginning of what is cut, and answer a 1032,
	// which gets 1607 otherwise.
	Continues bool
	// Cut is asked for each packet of a 1028, before its content: whether the
	// connection ends there.
	Cut func(m Message) bool

	over chan struct{} // closed at the end of the test
	wg   sync.WaitGroup

	mu       sync.Mutex
	log      []string
	count    map[codec.Code]int
	clients  map[codec.ClientID]*account
	names    map[string]bool
	given    byte               // ids, also those of clients that are forgotten
	files    map[string][]byte  // stored, by name
	kept     map[string]partial // of files that were cut, by name
	received int64
	live     map[net.Conn]bool
}

type account struct {
	pub []byte
	// Every key it was given: what a dropped connection still holds may be read
	// after the client has come back and has another.
	keys [][keys.AESKeySize]byte
}

// Message is what came, without the content of a file.
type Message struct {
	codec.RequestHeader
	N        int    // how many of this code there have been, this one included; a file counts once
	Name     string // of the user or the file
	Total    uint64 // bytes of the file, in a 1032
	SendFile codec.SendFile
	Body     uint32 // bytes of content
}

// upload is a file on its way, on one connection.
type upload struct {
	plan    codec.Plan
	content []byte // ciphertext, or plaintext in the per-packet scheme
	packets int
}

// New starts a server on a free port of the loopback. It ends with the test,
// and fails it where a client breaks the protocol.
func New(t testing.TB) *Server {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return On(t, ln)
}

// On is New on a listener of the caller's. The server closes it.
func On(t testing.TB, ln net.Listener) *Server {
	s := &Server{
		Addr:  ln.Addr().String(),
		count: map[codec.Code]int{}, clients: map[codec.ClientID]*account{},
		names: map[string]bool{}, files: map[string][]byte{}, kept: map[string]partial{}, live: map[net.Conn]bool{},
		over: make(chan struct{}),
	}
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.live[nc] = true
			s.log = append(s.log, "conn")
			s.mu.Unlock()
			s.wg.Add(1)
			go func() {
				defer s.wg.Done()
				defer nc.Close()
				if err := s.serve(nc); err != nil {
					t.Errorf("fake server: %v", err)
				}
			}()
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		close(s.over)
		s.mu.Lock()
		for nc := range s.live {
			nc.Close()
		}
		s.mu.Unlock()
		s.wg.Wait()
	})
	return s
}

// Over is closed at the end of the test: for an Answer that never comes.
func (s *Server) Over() <-chan struct{} { return s.over }

// Sequence is what has come: "conn" for a connection, else the code of a
// message. A file is one 1028, or 1028(0) if its packets are numbered from 0.
func (s *Server) Sequence() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.log, " ")
}

// Stored returns the content of a file that arrived whole.
func (s *Server) Stored(name string) (content []byte, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	content, ok = s.files[name]
	return content, ok
}

// Names returns the names of the files that arrived whole, in order.
func (s *Server) Names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.files))
}

// ForgetName lets name be registered again.
func (s *Server) ForgetName(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.names, name)
}

// ForgetClients rejects every client that comes back. Their names stay taken; what was
// kept of their files that were cut goes.
func (s *Server) ForgetClients() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.clients)
	clear(s.kept)
}

// ForgetKeys forgets every client's public key. The clients stay known.
func (s *Server) ForgetKeys() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.clients {
		a.pub = nil
	}
}

// errEnd ends a connection because a hook wants it.
var errEnd = errors.New("end")

func (s *Server) serve(nc net.Conn) error {
	var dec codec.RequestDecoder
	var m Message
	l := newLink(nc)
	defer s.keep(l)
	var body []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := nc.Read(buf)
		for p := buf[:n]; len(p) > 0; {
			ev, took, err := dec.Next(p)
			if err != nil {
				return err
			}
			p = p[took:]
			switch ev.Kind {
			case codec.Message:
				m, err = s.take(ev)
				if err != nil {
					return err
				}
				if m.Code != codec.CodeSendFile {
					err = s.reply(l, m, nil)
				} else if s.Cut != nil && s.Cut(m) {
					return nil
				} else if body = body[:0]; s.Packet != nil {
					if early := s.Packet(m); early != nil {
						_, _ = nc.Write(early)
						<-s.over
						return nil
					}
				}
			case codec.Content:
				body = append(body, ev.Content...)
				if ev.End {
					err = s.addPacket(l, m, body)
				}
			}
			if err == errEnd {
				return nil
			}
			if err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
	}
}

func (s *Server) take(ev codec.Event) (Message, error) {
	m := Message{RequestHeader: ev.Header, Body: ev.ContentSize}
	var name []byte
	var err error
	switch m.Code {
	case codec.CodePublicKey:
		var k codec.PublicKey
		if k, err = codec.ParsePublicKey(ev.Payload); err == nil {
			name = k.Name
			s.mu.Lock()
			if a := s.clients[m.ID]; a != nil {
				a.pub = bytes.Clone(k.Key)
			}
			s.mu.Unlock()
		}
	case codec.CodeSendFile:
		m.SendFile, err = codec.ParseSendFile(ev.Payload)
		name = m.SendFile.FileName
		m.SendFile.FileName = nil
	case codec.CodeContinue:
		var v codec.Continue
		v, err = codec.ParseContinue(ev.Payload)
		name, m.Total = v.FileName, v.TotalSize
	default:
		var v codec.Verdict
		v, err = codec.ParseVerdict(m.Code, ev.Payload)
		name = v.FileName
	}
	m.Name = string(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if first := m.SendFile.Packet <= 1; first {
		// A zero-based transfer has a 0 and a 1; the log has the 0 only.
		if m.Code != codec.CodeSendFile || m.SendFile.Packet == 0 || !strings.HasSuffix(strings.Join(s.log, " "), "1028(0)") {
			s.count[m.Code]++
			entry := fmt.Sprint(uint16(m.Code))
			if m.Code == codec.CodeSendFile && m.SendFile.Packet == 0 {
				entry += "(0)"
			}
			s.log = append(s.log, entry)
		}
	}
	m.N = s.count[m.Code]
	return m, err
}

func (s *Server) addPacket(l *link, m Message, body []byte) error {
	s.mu.Lock()
	s.received += int64(len(body))
	s.mu.Unlock()
	u := l.ups[m.Name]
	if u == nil || m.SendFile.Packet == u.plan.First {
		p, err := codec.Infer(m.SendFile, m.Body)
		if err != nil {
			return err
		}
		u = &upload{plan: p}
		l.ups[m.Name] = u
	} else if err := u.plan.Check(m.SendFile, m.Body); err != nil {
		return err
	}
	if want := int(u.plan.First) + u.packets; int(m.SendFile.Packet) != want {
		return fmt.Errorf("packet %d, want %d", m.SendFile.Packet, want)
	}
	u.packets++
	if u.plan.Scheme == codec.PerPacket {
		plain, err := s.decrypt(m.ID, body, int64(m.SendFile.OrigSize))
		if err != nil {
			return fmt.Errorf("packet %d: %w", m.SendFile.Packet, err)
		}
		u.content = append(u.content, plain...)
	} else {
		u.content = append(u.content, body...)
	}
	if u.packets < int(u.plan.Total) {
		return nil
	}
	delete(l.ups, m.Name)
	plain := u.content
	if u.plan.Scheme != codec.PerPacket {
		if pad := u.content[u.plan.Ciphertext:]; len(bytes.Trim(pad, "\x00")) > 0 {
			return errors.New("what follows the ciphertext is not zero")
		}
		var err error
		if plain, err = s.decrypt(m.ID, u.content[:u.plan.Ciphertext], u.plan.OrigSize); err != nil {
			return err
		}
	}
	return s.reply(l, m, plain)
}

// decrypt returns the plaintext of b, which has size bytes. It tries the client's
// keys, the last first. A wrong one may leave a padding that looks right.
func (s *Server) decrypt(id codec.ClientID, b []byte, size int64) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.clients[id]
	if a == nil {
		return nil, fmt.Errorf("1028 from unknown client %v", id)
	}
	plain, err := make([]byte, len(b)), errors.New("the client has no key")
	for _, key := range slices.Backward(a.keys) {
		var n int
		if n, err = aescbc.NewDecrypter(&key).Final(plain, b); err == nil && int64(n) == size {
			return plain[:n], nil
		}
		if err == nil {
			err = fmt.Errorf("%d bytes of plaintext, %d announced", n, size)
		}
	}
	return nil, err
}

// reply sends the right answer to m, or what the test wants instead.
func (s *Server) reply(nc *link, m Message, file []byte) error {
	right, err := s.right(nc, m, file)
	if err != nil {
		return err
	}
	if m.Code == codec.CodeCRCBad && !s.Ack1030 {
		return nil
	}
	if s.Answer != nil {
		right = s.Answer(m, right)
	}
	if right == nil {
		return errEnd
	}
	for len(right) > 0 {
		n := len(right)
		if s.ByteWise {
			n = 1
		}
		if _, err := nc.Write(right[:n]); err != nil {
			return errEnd
		}
		right = right[n:]
	}
	if s.CloseAfterAck && m.Code == codec.CodeCRCOK {
		return errEnd
	}
	return nil
}

func (s *Server) right(l *link, m Message, file []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.clients[m.ID]
	switch m.Code {
	case codec.CodeRegister:
		if s.names[m.Name] {
			return codec.EmptyReply{Code: codec.CodeRegisterFailed}.Append(nil), nil
		}
		return codec.IDReply{Code: codec.CodeRegistered, ID: s.register(m.Name)}.Append(nil), nil
	case codec.CodePublicKey, codec.CodeReconnect:
		code := codec.CodeAESKey
		if m.Code == codec.CodeReconnect {
			code = codec.CodeReconnected
		}
		if a == nil || a.pub == nil {
			id := m.ID
			if s.RegisterAt1606 && m.Code == codec.CodeReconnect {
				id = s.register(m.Name)
			}
			return codec.IDReply{Code: codec.CodeReconnectRejected, ID: id}.Append(nil), nil
		}
		pub, err := keys.ParsePublic(a.pub)
		if err != nil {
			return nil, err
		}
		key, err := keys.NewAESKey()
		if err != nil {
			return nil, err
		}
		a.keys = append(a.keys, key)
		l.key = key
		wrapped, err := keys.Wrap(pub, &key)
		return codec.KeyReply{Code: code, ID: m.ID, WrappedKey: wrapped[:]}.Append(nil), err
	case codec.CodeSendFile:
		return s.arrived(l, m, file), nil
	case codec.CodeContinue:
		return s.continued(l, m), nil
	case codec.CodeCRCBad:
		s.back(l, m.Name)
	case codec.CodeAbort:
		s.forget(l, m.Name)
	}
	return codec.IDReply{Code: codec.CodeAck, ID: m.ID}.Append(nil), nil
}

// register makes a client. The caller holds mu.
func (s *Server) register(name string) codec.ClientID {
	s.given++
	id := codec.ClientID{0: 0xc1, 15: s.given}
	s.names[name], s.clients[id] = true, &account{}
	return id
}

// GeneralError is a 1607, whole.
var GeneralError = codec.EmptyReply{Code: codec.CodeError}.Append(nil)
