package client_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"testing"

	"sealift/client"
	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/crypto/keys"
)

// sink is a server that costs as little as possible: it discards content and
// answers with the checksum that it was told.
func sink(b *testing.B, sum uint32) (addr string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan struct{})
	b.Cleanup(func() {
		ln.Close()
		<-done
	})
	go func() {
		defer close(done)
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		var dec codec.RequestDecoder
		var m codec.SendFile
		id := codec.ClientID{1}
		buf := make([]byte, 1<<20)
		for {
			n, err := nc.Read(buf)
			if err != nil {
				return
			}
			for p := buf[:n]; len(p) > 0; {
				ev, took, err := dec.Next(p)
				if err != nil {
					b.Error(err)
					return
				}
				p = p[took:]
				var reply []byte
				switch {
				case ev.Kind == codec.Content && ev.End && m.Packet == m.Total:
					reply = codec.FileReceived{ID: id, ContentSize: m.OrigSize, FileName: []byte("f"), Cksum: sum}.Append(nil)
				case ev.Kind != codec.Message:
				case ev.Header.Code == codec.CodeRegister:
					reply = codec.IDReply{Code: codec.CodeRegistered, ID: id}.Append(nil)
				case ev.Header.Code == codec.CodePublicKey:
					k, _ := codec.ParsePublicKey(ev.Payload)
					pub, err := keys.ParsePublic(k.Key)
					if err != nil {
						b.Error(err)
						return
					}
					wrapped, _ := keys.Wrap(pub, new([keys.AESKeySize]byte))
					reply = codec.KeyReply{Code: codec.CodeAESKey, ID: id, WrappedKey: wrapped[:]}.Append(nil)
				case ev.Header.Code == codec.CodeSendFile:
					m, _ = codec.ParseSendFile(ev.Payload)
				case ev.Header.Code == codec.CodeCRCOK:
					reply = codec.IDReply{Code: codec.CodeAck, ID: id}.Append(nil)
				}
				if _, err := nc.Write(reply); err != nil {
					return
				}
			}
		}
	}()
	return ln.Addr().String()
}

// What sending a file costs the client, the other end doing almost nothing.
func BenchmarkSend(b *testing.B) {
	for _, size := range []int64{1000, 100_000, 256 << 20} {
		for _, packetSize := range []int{0, 1024, 1 << 20} {
			if size/int64(max(packetSize, 65536)) > 60_000 || packetSize == 1024 && size > 60_000*1024 {
				continue
			}
			b.Run(fmt.Sprintf("size=%d/packet=%d", size, packetSize), func(b *testing.B) {
				content := make([]byte, size)
				c, err := client.Dial(b.Context(), client.Options{
					Server: sink(b, cksum.Checksum(content)), Name: "n", PacketSize: packetSize,
				})
				if err != nil {
					b.Fatal(err)
				}
				defer c.Close()
				if _, err := c.Login(b.Context()); err != nil {
					b.Fatal(err)
				}
				b.SetBytes(size)
				b.ReportAllocs()
				for b.Loop() {
					var r io.ReaderAt = bytes.NewReader(content)
					if _, err := c.Send(b.Context(), "f", r, size); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
