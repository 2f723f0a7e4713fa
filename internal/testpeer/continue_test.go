package testpeer

import (
	"io"
	"net"
	"testing"

	"sealift/codec"
	"sealift/crypto/cksum"
)

// What the server says that it has must be of this file of this client, and a beginning
// of its content.
func TestHolds(t *testing.T) {
	content := []byte("content")
	p := Peer{ID: codec.ClientID{1}, Name: "somebody"}
	right := codec.Continued{ID: p.ID, FileName: []byte("f"), Offset: 3, Cksum: cksum.Checksum(content[:3])}
	for what, change := range map[string]func(m *codec.Continued){
		"":         func(*codec.Continued) {},
		"id":       func(m *codec.Continued) { m.ID[0]++ },
		"name":     func(m *codec.Continued) { m.FileName = []byte("g") },
		"offset":   func(m *codec.Continued) { m.Offset++ },
		"end":      func(m *codec.Continued) { m.Offset = 8 },
		"checksum": func(m *codec.Continued) { m.Cksum++ },
	} {
		m := right
		change(&m)
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			_, _ = io.ReadFull(theirs, make([]byte, len(p.Continue("f", 7))))
			_, _ = theirs.Write(m.Append(nil))
		}()
		c := &Conn{Peer: p}
		c.Use(ours)
		if offset, err := c.Holds("f", content); (err == nil) != (what == "") || err == nil && offset != 3 {
			t.Errorf("another %s: %d, %v", what, offset, err)
		}
		_ = ours.Close()
	}
}
