//go:build unix

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sealift/codec"
)

// says checks what a command prints.
func (r result) says(t *testing.T, want string) {
	t.Helper()
	if r.succeeded(t); r.stdout != want {
		t.Errorf("it prints %q, want %q", r.stdout, want)
	}
}

// A quota that is set beside a running server counts from the next file on, and is kept
// over a kill -9.
func TestClientQuota(t *testing.T) {
	t.Parallel()
	d := serve(t)
	p, other := login(t, d, "anna"), login(t, d, "other")
	p.upload("a", make([]byte, 600))

	d.client("quota", "nobody", "--bytes", "1KiB").failed(t, `no such client: "nobody"`)
	d.client("quota", "anna", "--bytes", "0").failed(t, "want 1 or more, unlimited, or default")
	d.client("quota", "anna", "--files", "-3").failed(t, "want 1 or more, unlimited, or default")
	d.client("quota", "anna").says(t, "anna may have as many bytes as all clients and as many files as all clients, and has 600 B in 1 file\n")
	d.client("quota", "anna", "--bytes", "1000").says(t, "anna may have 1000 B and as many files as all clients, and has 600 B in 1 file\n")
	p.upload("a", make([]byte, 600))
	p.upload("b", make([]byte, 400))
	p.refuses(p.File("c", make([]byte, 1)))
	other.upload("large", make([]byte, 100_000))
	run(t, d.dir, sealiftd, "verify").succeeded(t)

	d.kill()
	d = d.again(p)
	p.rejoin()
	p.refuses(p.File("c", make([]byte, 1)))
	d.client("quota", "anna", "--files", "2", "--bytes", "unlimited").says(t, "anna may have any number of bytes and 2 files, and has 1000 B in 2 files\n")
	p.upload("b", make([]byte, 5000))
	p.refuses(p.File("c", nil))
	d.file("delete", "a").succeeded(t)
	p.upload("c", make([]byte, 1))
	d.client("quota", "anna", "--files", "default", "--bytes", "default").says(t,
		"anna may have as many bytes as all clients and as many files as all clients, and has 4.9 KiB in 2 files\n")
	p.upload("d", make([]byte, 5000))
	run(t, d.dir, sealiftd, "verify").succeeded(t)
}

// 64 uploads at once by one client never have more than its quota stored, and what fits is.
func TestQuotaFromManyConnections(t *testing.T) {
	t.Parallel()
	const quota, size = 1 << 20, 60_000 // 17 files
	d := serve(t, "--quota-bytes", fmt.Sprint(quota))
	first := login(t, d, "anna")
	var g sync.WaitGroup
	for i := range 64 {
		c := connect(t, d, "anna")
		c.Peer = first.Peer
		g.Go(func() {
			for range 2 {
				f := c.File(fmt.Sprintf("f%d", i), make([]byte, size+i))
				if err := c.SendPackets(cut(f, 0)); err != nil {
					t.Error(err)
				}
				code, _, err := c.Read()
				if err != nil || code != codec.CodeFileReceived && code != codec.CodeError {
					t.Errorf("%d, %v", code, err)
				}
				if code == codec.CodeFileReceived && i%3 > 0 {
					if err := c.Confirm(f.Name); err != nil {
						t.Error(err)
					}
				}
				if n := stored(d.dir); n > quota {
					t.Errorf("%d bytes are stored", n)
				}
			}
		})
	}
	g.Wait()
	if n := stored(d.dir); n > quota {
		t.Errorf("%d bytes are stored in the end", n)
	}
	has := make(map[string]int64)
	for _, f := range d.files() { // also those that await their verdict
		has[f.Path] = max(has[f.Path], f.Size)
	}
	n := int64(0)
	for _, size := range has {
		n += size
	}
	if n > quota || n <= quota-size-64 {
		t.Errorf("the client has %d bytes in the end, and one file more would have had room", n)
	}
	run(t, d.dir, sealiftd, "verify").succeeded(t)
}

// stored is how many bytes the files of all clients in dir have.
func stored(dir string) (n int64) {
	_ = filepath.WalkDir(filepath.Join(dir, "files"), func(_ string, e os.DirEntry, err error) error {
		if err == nil && e.IsDir() && strings.HasPrefix(e.Name(), ".") { // what comes in
			return filepath.SkipDir
		}
		if err == nil && !e.IsDir() {
			if info, err := e.Info(); err == nil {
				n += info.Size()
			}
		}
		return nil
	})
	return n
}

// A client whose time is over is disabled, and one with a time for its files loses them;
// a dry run of each changes nothing.
func TestExpire(t *testing.T) {
	t.Parallel()
	d := serve(t)
	p := login(t, d, "anna")
	p.upload("a", []byte("content"))

	if got := d.file("expire", "--keep-for", "1ns", "--dry-run").succeeded(t).stdout; !strings.Contains(got, "/a ") {
		t.Errorf("a dry run prints %q", got)
	}
	if got := d.client("keep-for", "anna", "1s", "--dry-run").succeeded(t).stdout; got != "no file of anna is that old\n" && !strings.Contains(got, "/a ") {
		t.Errorf("a dry run prints %q", got)
	}
	for _, text := range []string{"0s", "1ns", "1.5s"} {
		d.client("keep-for", "anna", text).failed(t, text+`": want a time in whole seconds, such as 720h, or ever, or default`)
	}
	d.client("keep-for", "anna", "ever").says(t, "the files of anna are kept for ever\n")
	d.file("expire", "--keep-for", "1ns").says(t, "no file is that old\n")
	d.client("keep-for", "anna", "default").says(t, "the files of anna are kept as long as those of all clients\n")
	if n := stored(d.dir); n != 7 {
		t.Errorf("%d bytes are stored", n)
	}
	if got := d.file("expire", "--keep-for", "1ns").succeeded(t).stdout; !strings.Contains(got, "/a ") {
		t.Errorf("expire prints %q", got)
	}
	if n := stored(d.dir); n != 0 {
		t.Errorf("%d bytes are stored", n)
	}

	d.client("expire", "anna").failed(t, "want one of --at, --after and --never")
	d.client("expire", "anna", "--at", "soon").failed(t, `--at "soon": want a day`)
	d.client("expire", "anna", "--after", "1ns", "--dry-run").succeeded(t)
	d.client("expire", "anna", "--at", "2099-01-31").succeeded(t)
	d.client("keep-for", "anna", "720h").succeeded(t)
	d.client("quota", "anna", "--bytes", "1000").succeeded(t)
	if got := d.state("anna"); got != "enabled until 2099-01-31 00:00:00" {
		t.Errorf("state %q", got)
	}
	if got := d.client("list", "--json").succeeded(t).stdout; !strings.Contains(got, `"quota_bytes":1000,"keep_for_seconds":2592000,"expires":"2099-01-3`) {
		t.Errorf("list prints %s", got)
	}
	d.client("expire", "anna", "--never").says(t, "anna is served without an end\n")
	if got := d.state("anna"); got != "enabled" {
		t.Errorf("state %q", got)
	}
	d.client("expire", "anna", "--at", time.Now().Format(time.DateOnly)).succeeded(t)
	d.await("client expired")
	p.expectEnd()
	if got := d.state("anna"); got != "disabled" {
		t.Errorf("state %q", got)
	}
	d.client("enable", "anna").succeeded(t)
	p.shutOut(codec.CodeReconnected)
}
