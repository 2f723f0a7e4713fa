package testpeer

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"

	"sealift/codec"
)

// serves returns a peer whose server sends these bytes, one at a time, and closes.
func serves(t *testing.T, b []byte) *Conn {
	ours, theirs := net.Pipe()
	t.Cleanup(func() { _ = ours.Close() })
	go func() {
		for i := range b {
			_, _ = theirs.Write(b[i : i+1])
		}
		_ = theirs.Close()
	}()
	c := new(Conn)
	c.Use(ours)
	return c
}

// Replies are read whole however they arrive, and an end of the connection between
// two of them is told from one within.
func TestRead(t *testing.T) {
	id := codec.ClientID{7}
	stream := codec.IDReply{Code: codec.CodeAck, ID: id}.Append(nil)
	stream = codec.EmptyReply{Code: codec.CodeError}.Append(stream)
	c := serves(t, stream)
	if code, payload, err := c.Read(); code != codec.CodeAck || !bytes.Equal(payload, id[:]) || err != nil {
		t.Fatal(code, payload, err)
	}
	if _, err := c.Want(codec.CodeAck); !Refused(err, codec.CodeError) || Refused(err, codec.CodeReconnectRejected) {
		t.Fatal(err)
	}
	if _, _, err := c.Read(); err != io.EOF {
		t.Fatal(err)
	}
	for _, n := range []int{3, codec.ResponseHeaderSize, len(stream) - 1} {
		c := serves(t, stream[:n])
		var err error
		for err == nil {
			_, _, err = c.Read()
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut after %d bytes: %v", n, err)
		}
	}
}

// What the server says about a file must agree with what was sent.
func TestReceived(t *testing.T) {
	p := Peer{ID: codec.ClientID{1}, Name: "somebody"}
	f := p.File("f", []byte("content"))
	right := codec.FileReceived{ID: p.ID, ContentSize: 7, FileName: []byte("f"), Cksum: f.Cksum}
	for what, change := range map[string]func(m *codec.FileReceived){
		"":         func(*codec.FileReceived) {},
		"id":       func(m *codec.FileReceived) { m.ID[0]++ },
		"size":     func(m *codec.FileReceived) { m.ContentSize++ },
		"name":     func(m *codec.FileReceived) { m.FileName = []byte("g") },
		"checksum": func(m *codec.FileReceived) { m.Cksum++ },
	} {
		m := right
		change(&m)
		if err := p.CheckReceived(m.Append(nil)[codec.ResponseHeaderSize:], f); (err == nil) != (what == "") {
			t.Errorf("another %s: %v", what, err)
		}
	}
}
