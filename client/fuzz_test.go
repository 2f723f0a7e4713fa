package client

import (
	"bufio"
	"bytes"
	"errors"
	"testing"

	"sealift/codec"
)

// Whatever a server sends, reading it ends, in replies whose payload has the
// size that their code implies, or in an error that says so.
func FuzzReadReply(f *testing.F) {
	f.Add(codec.IDReply{Code: codec.CodeRegistered}.Append(nil))
	f.Add(codec.EmptyReply{Code: codec.CodeError}.Append(nil))
	f.Add(codec.FileReceived{FileName: []byte("f")}.Append(nil))
	f.Add([]byte("\x03\x46\x06\xff\x00\x00\x00"))
	f.Add([]byte("\x03\x44\x06\x00\x00\x00\x00"))
	f.Add(append([]byte("\x03\x44\x06\x00\x00\x00\x00"), codec.EmptyReply{Code: codec.CodeError}.Append(nil)...))
	f.Add([]byte("\x03\x40\x06\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bytes.NewReader(b)
		r := bufio.NewReader(in)
		for {
			left := in.Len() + r.Buffered()
			rep, err := readReply(r, nil)
			if err != nil {
				if !errors.Is(err, ErrConnection) {
					t.Fatalf("%v is not taken for a lost connection", err)
				}
				return
			}
			want, ok := codec.ResponsePayloadSize(rep.code)
			if rep.odd != "" && (rep.code == codec.CodeReconnectRejected || rep.code == codec.CodeAck && rep.payload == nil) {
				want = 0
			}
			if !ok || len(rep.payload) != int(want) || in.Len()+r.Buffered() >= left {
				t.Fatalf("%v with %d bytes, %d of %d left", rep.code, len(rep.payload), in.Len()+r.Buffered(), left)
			}
		}
	})
}
