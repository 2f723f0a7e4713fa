//go:build unix

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"sealift/internal/fakeserver"
)

// sameAddress starts a server on the directory and the address of one that has ended.
func (d *daemon) sameAddress() *daemon {
	d.t.Helper()
	again := launch(d.t, d.dir, nil, "serve", "--dir", d.dir, "--listen", d.addr)
	again.ready()
	return again
}

// sealift on a server that is killed, or stopped, in the middle of a file and
// comes back, again and again: the job is done in the end.
func TestRestartsWhileSending(t *testing.T) {
	t.Parallel()
	content := randomBytes(20<<20, 1)
	for _, args := range [][]string{nil, {"--parallel", "3"}} {
		dir := t.TempDir()
		files := []string{"a", "b", "c"}
		for _, f := range files {
			put(t, filepath.Join(dir, f), content)
		}
		d := launch(t, t.TempDir(), nil, "serve", "--listen", "127.0.0.1:"+freePort(t))
		d.ready()
		addr := d.addr
		var mu sync.Mutex
		kills, killed := 0, make(chan struct{})
		through := proxy(t, func(_ int, client net.Conn) {
			mu.Lock()
			limit, hold := int64(noLimit), killed
			if kills < 3 {
				limit = 5 << 20 // and there it hangs until the server is killed
			}
			mu.Unlock()
			forward(client, addr, limit, hold)
		})
		client := start(t, dir, nil, sealift, append(append([]string{"send", "--server", through, "--name", "n"}, args...), files...)...)
		for range 3 {
			d.awaitUpload()
			d.kill()
			mu.Lock()
			kills++
			close(killed)
			if killed = make(chan struct{}); kills == 3 {
				close(killed)
			}
			mu.Unlock()
			d = d.sameAddress()
		}
		client.wait().succeeded(t)
		id := readMe(t, filepath.Join(dir, "me.info")).id
		for _, f := range files {
			d.checkVerified(id, f, content)
		}
		if clients := d.clients(); len(clients) != 1 {
			t.Errorf("clients %+v", clients)
		}
	}
}

// Connections that end before anything is said, or get a 1607, as from a server
// that drains or is full: sealift send waits, and tells it once. The batch client
// has three retries.
func TestConnectionsThatAreTurnedAway(t *testing.T) {
	t.Parallel()
	for _, says := range [][]byte{nil, fakeserver.GeneralError} {
		d, dir := serve(t), t.TempDir()
		put(t, filepath.Join(dir, "file"), []byte("content"))
		addr := proxy(t, func(n int, client net.Conn) {
			if n > 7 {
				forward(client, d.addr, noLimit, nil)
				return
			}
			_, _ = client.Write(says)
			_ = client.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, client)
		})
		got := run(t, dir, sealift, "send", "--server", addr, "--name", "n", "file").succeeded(t)
		if n := strings.Count(got.stderr, "trying again"); n == 0 || n > 3 {
			t.Errorf("%d lines about it:\n%s", n, got.stderr)
		}
		if strings.Contains(got.stderr, "dialect") {
			t.Errorf("dialects are tried:\n%s", got.stderr)
		}
		d.checkVerified(readMe(t, filepath.Join(dir, "me.info")).id, "file", []byte("content"))

		shut := proxy(t, func(_ int, client net.Conn) {
			_, _ = client.Write(says)
			_ = client.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, client)
		})
		put(t, filepath.Join(dir, "transfer.info"), transferInfo(shut, "n", "file"))
		run(t, dir, sealift).later(t, "tried 4 times")
	}
}

// A line that is cut more often than three times in a file, each time a little
// further on, and with another run under the same id in between, which gets the
// server to give another key.
func TestCutAgainAndAgainBesideAnother(t *testing.T) {
	t.Parallel()
	d, dir := serve(t), t.TempDir()
	content := randomBytes(16<<20, 1) // more than all cuts together let through: a file goes on where it was
	put(t, filepath.Join(dir, "file"), content)
	put(t, filepath.Join(dir, "small"), []byte("content"))
	run(t, dir, sealift, "send", "--server", d.addr, "--name", "n", "small").succeeded(t)
	var connections atomic.Int64
	addr := proxy(t, func(n int, client net.Conn) {
		connections.Add(1)
		limit := int64(noLimit)
		if n <= 6 {
			limit = int64(n) << 19
		}
		forward(client, d.addr, limit, nil)
		if n <= 6 {
			run(t, dir, sealift, "send", "--server", d.addr, "small").succeeded(t)
		}
	})
	d.introduce(dir, addr)
	got := run(t, dir, sealift, "send", "--dialect", "spec", "--server", addr, "file").succeeded(t)
	if connections.Load() != 7 || !strings.Contains(got.stdout, "continued at ") || strings.Contains(got.stderr, "1607") {
		t.Errorf("stdout %s\nstderr %s", got.stdout, got.stderr)
	}
	d.checkVerified(readMe(t, filepath.Join(dir, "me.info")).id, "file", content)
}

// A server that comes back and has lost its clients: the job goes on, under the
// id that it gives now.
func TestServerThatComesBackWithoutItsClients(t *testing.T) {
	t.Parallel()
	first, dir := serve(t), t.TempDir()
	second := first.twin()
	content := randomBytes(4<<20, 1)
	put(t, filepath.Join(dir, "file"), content)
	addr := proxy(t, func(n int, client net.Conn) {
		if n == 1 {
			forward(client, first.addr, 2<<20, nil)
		} else {
			forward(client, second.addr, noLimit, nil)
		}
	})
	first.introduce(dir, addr)
	run(t, dir, sealift, "send", "--server", addr, "--name", "n", "file").succeeded(t)
	me := readMe(t, filepath.Join(dir, "me.info"))
	second.checkVerified(me.id, "file", content)
	old := first.clients()
	if len(old) != 1 || !bytes.Contains(get(t, filepath.Join(dir, "me.info."+old[0].ID)), []byte(fmt.Sprint("n\n", old[0].ID, "\n"))) {
		t.Errorf("at the first server there are %+v", old)
	}
}
