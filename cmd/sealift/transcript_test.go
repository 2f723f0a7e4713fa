package main_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/zap"

	"sealift/codec"
	"sealift/internal/fakeserver"
	"sealift/server"
)

var update = flag.Bool("update", false, "write testdata/transcript.txt anew")

// recorder forwards connections to a server and keeps what clients send.
type recorder struct {
	addr string

	mu    sync.Mutex
	conns []*bytes.Buffer // one for each connection, in the order of their beginnings
	wg    sync.WaitGroup
}

func record(t *testing.T, server string) *recorder {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{addr: ln.Addr().String()}
	r.wg.Go(func() {
		for {
			down, err := ln.Accept()
			if err != nil {
				return
			}
			sent := new(bytes.Buffer)
			r.mu.Lock()
			r.conns = append(r.conns, sent)
			r.mu.Unlock()
			r.wg.Go(func() {
				defer down.Close()
				up, err := net.Dial("tcp", server)
				if err != nil {
					t.Error(err)
					return
				}
				go func() {
					_, _ = io.Copy(down, up)
					down.Close()
				}()
				_, _ = io.Copy(io.MultiWriter(sent, up), down)
				up.Close()
			})
		}
	})
	t.Cleanup(func() { ln.Close() })
	return r
}

// take returns what came since the last call, once every connection has ended.
// Of each message it has every byte but those that are random: the client's id,
// its public key and the ciphertext.
func (r *recorder) take(t *testing.T, programs ...func()) string {
	t.Helper()
	for _, program := range programs {
		program()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var out strings.Builder
	for i, conn := range r.conns {
		fmt.Fprintf(&out, "connection %d\n", i+1)
		for b := conn.Bytes(); len(b) > 0; {
			if len(b) < codec.RequestHeaderSize {
				t.Fatalf("%d bytes are left", len(b))
			}
			size := int(b[19]) | int(b[20])<<8 | int(b[21])<<16 | int(b[22])<<24
			header, payload := b[:23], b[23:23+size]
			id := "id"
			if codec.ClientID(header).IsZero() {
				id = "00*16"
			}
			fmt.Fprintf(&out, "%s % x | ", id, header[16:])
			switch n := len(payload); {
			case n == codec.NameSize+codec.PublicKeySize:
				fmt.Fprintf(&out, "%s | key\n", nulls(payload[:codec.NameSize]))
			case n > codec.NameSize:
				fmt.Fprintf(&out, "% x %s | %d bytes\n", payload[:12], nulls(payload[12:267]), n-267)
			default:
				fmt.Fprintf(&out, "%s\n", nulls(payload))
			}
			b = b[23+size:]
		}
	}
	r.conns = nil
	return out.String()
}

// nulls writes a name field, what follows the name as a number of nulls if
// that is what it is.
func nulls(field []byte) string {
	name := bytes.TrimRight(field, "\x00")
	return fmt.Sprintf("%q 00*%d", name, len(field)-len(name))
}

// A server that does what the protocol says gets from sealift these messages on
// these connections, and nothing else, whatever sealift can do for others.
func TestTranscripts(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	started, ended := make(chan string, 1), make(chan error, 1)
	go func() {
		ended <- server.Serve(ctx, server.Options{
			Dir: t.TempDir(), Log: zap.NewNop(),
			Network: server.Network{Listen: "127.0.0.1:0"}, Storage: server.Storage{Registry: "memory"},
		}, func(_ context.Context, s *server.Server) { started <- s.Addr().String() })
	}()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	daemonAddr := <-started

	var first string
	for _, server := range []string{daemonAddr, fakeserver.New(t).Addr} {
		r := record(t, server)
		dir := t.TempDir()
		put(t, dir, "empty", "")
		put(t, dir, "small", "content")
		put(t, dir, "large", strings.Repeat("0123456789", 20_001))
		var all strings.Builder
		step := func(what string, args ...string) {
			t.Helper()
			got := r.take(t, func() { run(t, dir, args...).succeeded(t) })
			fmt.Fprintf(&all, "# %s\n%s\n", what, got)
		}
		step("send, first contact", "send", "--server", r.addr, "--name", "Ada", "small")
		step("send, reconnect, three files", "send", "--server", r.addr, "empty", "large", "small")
		step("send, another identity", "send", "--server", r.addr, "--name", "Grace", "--identity", "grace.info", "large")
		step("send, --dialect spec", "send", "--server", r.addr, "--dialect", "spec", "small")
		step("send, --packet-size 50000", "send", "--server", r.addr, "--packet-size", "50000", "large")
		step("send, --dialect padded", "send", "--server", r.addr, "--dialect", "padded", "small")
		put(t, dir, "batch/transfer.info", r.addr+"\nMichael Jackson\n../large\n")
		dir = filepath.Join(dir, "batch")
		step("batch, first contact")
		step("batch, reconnect")

		// An identity that the server has never given, and its 1606.
		me, err := os.ReadFile(filepath.Join(dir, "me.info"))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.SplitN(string(me), "\n", 3)
		put(t, dir, "me.info", "Nobody\n"+strings.Repeat("ab", 16)+"\n"+lines[2])
		got := r.take(t, func() {
			if got := run(t, dir); got.status != 0 {
				t.Fatalf("%+v", got)
			}
		})
		fmt.Fprintf(&all, "# batch, rejected\n%s", got)
		if first == "" {
			first = all.String()
		} else if all.String() != first {
			t.Errorf("sealiftd was sent\n%s\nanother server\n%s", first, all.String())
		}
	}
	path := filepath.Join("testdata", "transcript.txt")
	if *update {
		put(t, "testdata", "transcript.txt", first)
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if first != string(want) {
		t.Errorf("sent\n%s\nwant\n%s", first, want)
	}
}
