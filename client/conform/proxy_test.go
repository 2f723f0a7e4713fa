package conform_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"

	"go.uber.org/zap"

	"sealift/codec"
	"sealift/server"
)

// startServer runs the real server.
func startServer(t *testing.T) (addr string) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	started, ended := make(chan string, 1), make(chan error, 1)
	go func() {
		ended <- server.Serve(ctx, server.Options{
			Dir: t.TempDir(), Log: zap.NewNop(),
			Network: server.Network{Listen: "127.0.0.1:0"}, Storage: server.Storage{Registry: "memory"},
		}, func(_ context.Context, s *server.Server) { started <- s.Addr().String() })
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case addr = <-started:
	case err := <-ended:
		ended <- nil
		t.Fatal(err)
	}
	return addr
}

// fault is what a proxy makes of a right server. A hook gets whole messages,
// which it may change, and returns what to pass on.
type fault struct {
	// request returns the message for the server (nil: none) and replies that
	// go to the client at once. end closes the connection after those.
	request func(c *proxied, m []byte) (pass []byte, replies [][]byte, end bool)
	// reply returns the reply for the client, or nil to close the connection.
	reply func(c *proxied, r []byte) []byte
}

// proxied is what a proxy knows of one connection. Its lock is held in hooks.
type proxied struct {
	mu       sync.Mutex
	requests []codec.Code // that the client sent, 1028s by packet
	replies  []codec.Code // that the server sent
	id       codec.ClientID
	shared   *shared
}

// shared is what a proxy knows of all connections.
type shared struct {
	mu       sync.Mutex
	verified map[string]bool
	wrapped  map[codec.ClientID][]byte
	names    map[string]bool // of users and files, in requests
	die      func()          // nobody is accepted any more
}

func code(m []byte, at int) codec.Code { return codec.Code(binary.LittleEndian.Uint16(m[at:])) }

func requestCode(m []byte) codec.Code { return code(m, 17) }

// firstEdition is the number that a request of either edition has in the first.
func firstEdition(c codec.Code) codec.Code {
	for first := codec.CodeRegister; first <= codec.CodeAbort; first++ {
		if first.Later() == c {
			return first
		}
	}
	return c
}

func replyCode(r []byte) codec.Code { return code(r, 1) }

var generalError = codec.EmptyReply{Code: codec.CodeError}.Append(nil)

// startProxy runs a proxy in front of a server.
func startProxy(t *testing.T, server string, f fault) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	sh := &shared{verified: map[string]bool{}, wrapped: map[codec.ClientID][]byte{}, names: map[string]bool{}, die: func() { ln.Close() }}
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			down, err := ln.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", server)
			if err != nil {
				t.Error(err)
				down.Close()
				continue
			}
			c := &proxied{shared: sh}
			wg.Add(2)
			go func() {
				defer wg.Done()
				defer up.Close()
				defer down.Close()
				c.requestsOf(down, up, f)
			}()
			go func() {
				defer wg.Done()
				c.repliesOf(up, down, f)
				// The client reads what was passed on before it sees the end.
				down.(*net.TCPConn).CloseWrite()
			}()
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		wg.Wait()
	})
	return ln.Addr().String()
}

func (c *proxied) requestsOf(down, up net.Conn, f fault) {
	for {
		m := make([]byte, codec.RequestHeaderSize)
		if _, err := io.ReadFull(down, m); err != nil {
			return
		}
		size := binary.LittleEndian.Uint32(m[19:])
		first := firstEdition(requestCode(m))
		if want, ok := codec.RequestPayloadSize(first); ok && size != want && first != codec.CodeSendFile && first != codec.CodeContinue {
			size = 0 // the server is not going to wait for it
		}
		m = append(m, make([]byte, size)...)
		n, err := io.ReadFull(down, m[codec.RequestHeaderSize:])
		m = m[:codec.RequestHeaderSize+n]
		if err != nil {
			_, _ = up.Write(m) // cut off: so it is for the server
			return
		}
		c.mu.Lock()
		c.requests = append(c.requests, requestCode(m))
		var replies [][]byte
		end := false
		if f.request != nil {
			m, replies, end = f.request(c, m)
		}
		for _, r := range replies {
			_, _ = down.Write(r)
		}
		c.mu.Unlock()
		if m != nil {
			if _, err := up.Write(m); err != nil {
				return
			}
		}
		if end {
			return
		}
	}
}

func (c *proxied) repliesOf(up, down net.Conn, f fault) {
	for {
		m := make([]byte, codec.ResponseHeaderSize)
		if _, err := io.ReadFull(up, m); err != nil {
			return
		}
		m = append(m, make([]byte, binary.LittleEndian.Uint32(m[3:]))...)
		if _, err := io.ReadFull(up, m[codec.ResponseHeaderSize:]); err != nil {
			return
		}
		c.mu.Lock()
		c.replies = append(c.replies, replyCode(m))
		if f.reply != nil {
			m = f.reply(c, m)
		}
		if m != nil {
			_, _ = down.Write(m)
		}
		c.mu.Unlock()
		if m == nil {
			return
		}
	}
}
