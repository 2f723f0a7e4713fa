package fakeserver

import (
	"bytes"
	"net"

	"sealift/codec"
	"sealift/crypto/aescbc"
	"sealift/crypto/cksum"
	"sealift/crypto/keys"
)

// partial is the beginning of a file of total bytes.
type partial struct {
	content []byte
	total   uint64
}

// link is what the server knows of one connection.
type link struct {
	net.Conn
	key    [keys.AESKeySize]byte
	ups    map[string]*upload
	places map[string]place // by name: where the next transfer begins
	asked  map[string]place // what the last 1608 said
	hidden map[string]bool  // dropped with a 1031: a 1032 does not speak of what was verified
}

// place is where a transfer begins: behind the beginning of a file of total bytes.
type place struct {
	before []byte
	total  uint64
}

func newLink(nc net.Conn) *link {
	return &link{Conn: nc, ups: map[string]*upload{}, places: map[string]place{}, asked: map[string]place{}, hidden: map[string]bool{}}
}

// Keep has the server hold the beginning of a file of total bytes, as if its transfer
// had been cut.
func (s *Server) Keep(name string, beginning []byte, total int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept[name] = partial{bytes.Clone(beginning), uint64(total)}
}

// Kept returns what the server holds of a file that was cut.
func (s *Server) Kept(name string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept[name].content
}

// Received is how many bytes of content have come in 1028s.
func (s *Server) Received() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.received
}

// continued answers a 1032. The caller holds mu.
func (s *Server) continued(l *link, m Message) []byte {
	if !s.Continues {
		return GeneralError
	}
	p := place{total: m.Total}
	if kept := s.kept[m.Name]; kept.total == m.Total {
		p.before = kept.content
	} else if whole, ok := s.files[m.Name]; ok && uint64(len(whole)) == m.Total && !l.hidden[m.Name] {
		p.before = whole
	}
	delete(l.places, m.Name)
	if uint64(len(p.before)) < p.total {
		l.places[m.Name] = p
	}
	l.asked[m.Name] = p
	return codec.Continued{
		ID: m.ID, FileName: []byte(m.Name), Offset: uint64(len(p.before)), Cksum: cksum.Checksum(p.before),
	}.Append(nil)
}

// back is for a 1030. The caller holds mu.
func (s *Server) back(l *link, name string) {
	if p, ok := l.asked[name]; ok {
		l.places[name] = p
		s.kept[name] = partial{p.before, p.total}
		delete(s.files, name)
	}
}

// forget is for a 1031. The caller holds mu.
func (s *Server) forget(l *link, name string) {
	delete(s.kept, name)
	delete(l.places, name)
	delete(l.asked, name)
	l.hidden[name] = true
}

// arrived takes a whole transfer, and returns the 1603. The caller holds mu.
func (s *Server) arrived(l *link, m Message, plain []byte) []byte {
	content := plain
	p, continues := l.places[m.Name]
	delete(l.places, m.Name)
	if continues {
		content = append(bytes.Clone(p.before), plain...)
	}
	switch n := uint64(len(content)); {
	case continues && n > p.total:
		return GeneralError
	case continues && n < p.total:
		s.kept[m.Name] = partial{content, p.total}
	default:
		s.files[m.Name] = content
		delete(s.kept, m.Name)
	}
	return codec.FileReceived{
		ID: m.ID, ContentSize: uint32(len(plain)), FileName: []byte(m.Name), Cksum: cksum.Checksum(content),
	}.Append(nil)
}

// keep holds what came of the transfers that the end of a connection cuts.
func (s *Server) keep(l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.Continues {
		return
	}
	for name, u := range l.ups {
		if u.plan.Scheme == codec.PerPacket {
			continue
		}
		p, continues := l.places[name]
		if !continues {
			p.total = uint64(u.plan.OrigSize)
		}
		n := min(len(u.content), int(u.plan.Ciphertext)-aescbc.BlockSize) / aescbc.BlockSize * aescbc.BlockSize
		if n <= 0 {
			continue
		}
		plain := make([]byte, n)
		aescbc.NewDecrypter(&l.key).CryptBlocks(plain, u.content[:n])
		s.kept[name] = partial{append(bytes.Clone(p.before), plain...), p.total}
	}
}
