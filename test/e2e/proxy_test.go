//go:build unix

package e2e

import (
	"bytes"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// proxy listens on the loopback and gives each connection to handle, numbered
// from 1, on a goroutine of its own. It returns the address.
func proxy(t *testing.T, handle func(n int, client net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 1; ; n++ {
			client, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer client.Close()
				handle(n, client)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

// forward connects the client with the server at addr until limit bytes have
// gone to the server, or until the client hangs up. Then it waits for hold, if
// that is not nil, and closes both connections.
func forward(client net.Conn, addr string, limit int64, hold <-chan struct{}) {
	server, err := net.Dial("tcp", addr)
	if err != nil {
		return // the client sees its connection close
	}
	defer server.Close()
	go func() { _, _ = io.Copy(client, server) }()
	_, _ = io.CopyN(server, client, limit)
	if hold != nil {
		<-hold
	}
}

const noLimit = 1 << 62

// sealift on a connection that breaks in the middle of the file, three times in
// a row, and on a server that is killed there: it sends the file again, or the rest
// of it, and the file is whole.
func TestSealiftIsCutOff(t *testing.T) {
	t.Parallel()
	content := randomBytes(20<<20, 1)
	const middle = 7 << 20
	for _, killed := range []bool{false, true} {
		d, dir := serve(t), t.TempDir()
		first := d.addr
		put(t, filepath.Join(dir, "file"), content)
		cut := make(chan struct{})
		back := make(chan string, 1) // the address of the server that came back
		addr := proxy(t, func(n int, client net.Conn) {
			switch {
			case killed && n == 1:
				forward(client, first, middle, cut)
			case killed:
				to := <-back
				back <- to
				forward(client, to, noLimit, nil)
			case n <= 3:
				forward(client, first, middle/2, nil) // of what is still to come, if it goes on where it was
			default:
				forward(client, first, noLimit, nil)
			}
		})
		d.introduce(dir, addr)
		client := start(t, dir, nil, sealift, "send", "--server", addr, "--name", "n", "file")
		if killed {
			d.awaitUpload()
			d.kill()
			close(cut)
			d = serveIn(t, d.dir)
			back <- d.addr
		}
		got := client.wait().succeeded(t)
		// Of a server that was killed nothing may be left: it had not recorded the file yet.
		whole := killed && strings.Contains(got.stdout, "sent 2 times")
		if !whole && !strings.Contains(got.stdout, "continued at ") {
			t.Errorf("want the file continued: %s", got.stdout)
		}
		if n := strings.Count(got.stderr, "trying again"); n < 1 || !killed && n != 3 {
			t.Errorf("tried again %d times: %s", n, got.stderr)
		}
		d.checkVerified(readMe(t, filepath.Join(dir, "me.info")).id, "file", content)
	}
}

// A sealift that is killed in the middle of a file, and run again, comes back
// as who it is and sends the file whole.
func TestSealiftIsKilled(t *testing.T) {
	d, dir := serve(t), t.TempDir()
	content := randomBytes(20<<20, 1)
	put(t, filepath.Join(dir, "file"), content)
	over := make(chan struct{})
	addr := proxy(t, func(n int, client net.Conn) {
		if n == 1 {
			forward(client, d.addr, 7<<20, over) // and it hangs there
		} else {
			forward(client, d.addr, noLimit, nil)
		}
	})
	d.introduce(dir, addr)
	put(t, filepath.Join(dir, "transfer.info"), transferInfo(addr, "n", "file"))
	client := start(t, dir, nil, sealift)
	d.awaitUpload()
	if err := client.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if got := client.wait(); got.status != -1 {
		t.Fatalf("sealift was not in the middle of the file: %+v", got)
	}
	close(over)
	before := get(t, filepath.Join(dir, "me.info"))

	run(t, dir, sealift).succeeded(t)
	if !bytes.Equal(before, get(t, filepath.Join(dir, "me.info"))) {
		t.Error("me.info has changed")
	}
	d.checkVerified(readMe(t, filepath.Join(dir, "me.info")).id, "file", content)
	eventually(t, "nothing is left of the first attempt", func() bool {
		return len(d.incoming()) == 0
	})
}
