package goroutine

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/zap"

	"sealift/bench/load"
	"sealift/codec"
	"sealift/session"
	"sealift/storage/files"
	"sealift/storage/memory"
)

// serve runs a server until the test ends, and sees to it that it ends.
func serve(t *testing.T) (addr string) {
	t.Helper()
	store, err := files.Open(t.TempDir(), files.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() {
		served <- Serve(ctx, l, Options{
			Service:  session.NewService(session.Config{Files: store, Log: zap.NewNop()}),
			Registry: memory.New(), Log: zap.NewNop(), Workers: 2, IdleTimeout: time.Minute, EarlyBudget: 1 << 20,
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// More connections than workers, and files of many packets; each upload is
// checked by the load generator.
func TestUploads(t *testing.T) {
	r, err := load.Run(t.Context(), load.Spec{
		Kind: load.Uploads, Server: serve(t), Run: t.Name(), Connections: 8, FileSize: 1<<20 + 5, PerClient: 3,
	}, load.Events{Ready: func() error { return nil }, Started: func() {}, Stopped: func() {}})
	if err != nil || r.Rounds != 24 {
		t.Errorf("%d uploads, %v", r.Rounds, err)
	}
}

// What cannot be a message gets a 1607 that arrives although more was sent, and
// then the end.
func TestHangup(t *testing.T) {
	nc, err := net.Dial("tcp", serve(t))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Write(bytes.Repeat([]byte{0xff}, 100_000)); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(nc)
	if want := (codec.EmptyReply{Code: codec.CodeError}).Append(nil); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the server sent %x, %v; want %x and the end", got, err, want)
	}
}
