//go:build linux

package soak

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"sealift/codec"
	"sealift/internal/testpeer"
)

// disturbances are what happens beside the uploads before a server is killed.
// Each runs on a goroutine of its own until quiet is closed, and undoes what it
// did to the server's folder. What they ask of the server may fail.
var disturbances = []struct {
	name string
	run  func(d *disturbance)
}{
	{"nothing", func(*disturbance) {}},
	{"verdicts from another connection", (*disturbance).rivalVerdicts},
	{"another version from another connection", (*disturbance).rivalUploads},
	{"content that does not decrypt, under another's id", (*disturbance).oracle},
	{"a log that nobody reads", (*disturbance).deafLog},
	{"connections without end", (*disturbance).knock},
	{"SIGHUP", (*disturbance).hangup},
	{"deep names", (*disturbance).deepNames},
	{"packets out of order", (*disturbance).disorder},
	{"files/ renamed", func(d *disturbance) { d.renamed("files") }},
	{"the database renamed", func(d *disturbance) {
		d.renamed("defensive.db", "defensive.db-wal", "defensive.db-shm")
	}},
	{"an empty files/ in its place", (*disturbance).replaced},
}

// disturbance is one of them under way.
type disturbance struct {
	k      *killing
	server *server
	rng    *rand.Rand
	quiet  chan struct{}
}

// over reports whether the server is about to be killed.
func (d *disturbance) over() bool {
	select {
	case <-d.quiet:
		return true
	default:
		return false
	}
}

// dial is a connection under the id of one of the uploaders, nil if there is
// none yet.
func (d *disturbance) dial() *peer {
	d.k.mu.Lock()
	defer d.k.mu.Unlock()
	if len(d.k.ids) == 0 {
		return nil
	}
	p, err := d.server.dial("")
	if err != nil {
		return nil
	}
	p.ID = d.k.ids[d.rng.IntN(len(d.k.ids))]
	_ = p.Net.SetDeadline(time.Now().Add(5 * time.Second))
	return p
}

// hear waits a second for a reply, of any kind.
func (p *peer) hear() {
	_ = p.Net.SetReadDeadline(time.Now().Add(time.Second))
	_, _ = p.Net.Read(make([]byte, 512))
}

func (d *disturbance) rivalVerdicts() {
	for !d.over() {
		p := d.dial()
		if p == nil {
			return
		}
		code := []codec.Code{codec.CodeCRCOK, codec.CodeCRCBad, codec.CodeAbort}[d.rng.IntN(3)]
		_, _ = p.Net.Write(codec.Verdict{Code: code, FileName: []byte("same")}.Append(nil, p.ID))
		if code != codec.CodeCRCBad {
			p.hear()
		}
		p.close()
	}
}

// rivalUploads sends files that decrypt with nobody's key, to their names, and
// gives up in the middle.
func (d *disturbance) rivalUploads() {
	for !d.over() {
		p := d.dial()
		if p == nil {
			return
		}
		junk := pattern(d.rng.Uint64(), 64)
		_, _ = p.Net.Write(p.forged("same", 60, junk, 32))
		p.close()
	}
}

func (d *disturbance) oracle() {
	for !d.over() {
		p := d.dial()
		if p == nil {
			return
		}
		junk := pattern(d.rng.Uint64(), 32)
		_, _ = p.Net.Write(p.forged("same", 20, junk, 32))
		p.hear()
		p.close()
	}
}

// deafLog keeps the server's standard error from being read while much is
// logged: its pipe fills up.
func (d *disturbance) deafLog() {
	d.server.mu.Lock()
	defer d.server.mu.Unlock()
	for range 600 { // each is a line when it ends
		c, err := net.DialTimeout("tcp", d.server.addr, time.Second)
		if err != nil {
			return
		}
		_ = c.Close()
	}
	<-d.quiet
}

func (d *disturbance) knock() {
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for !d.over() {
				if c, err := net.DialTimeout("tcp", d.server.addr, time.Second); err == nil {
					_ = c.(*net.TCPConn).SetLinger(0)
					_ = c.Close()
				}
			}
		})
	}
	wg.Wait()
}

func (d *disturbance) hangup() {
	_ = d.server.cmd.Process.Signal(syscall.SIGHUP)
}

func (d *disturbance) deepNames() {
	p, err := d.server.dial("")
	if err != nil {
		return
	}
	defer p.close()
	_ = p.Net.SetDeadline(time.Now().Add(5 * time.Second))
	if p.enter(fmt.Sprint("deep ", d.rng.Uint64()), 0) != nil {
		return
	}
	for n := 0; !d.over(); n++ {
		name := strings.Repeat(fmt.Sprint(n, "/"), 1+n%20) + "f"
		if err := p.upload(name, []byte("deep"), 100); err != nil && !hasRefused(err) {
			return
		}
	}
}

// disorder sends the packets of a file in reverse, but for the first.
func (d *disturbance) disorder() {
	p, err := d.server.dial("")
	if err != nil {
		return
	}
	defer p.close()
	_ = p.Net.SetDeadline(time.Now().Add(5 * time.Second))
	if p.enter(fmt.Sprint("disorder ", d.rng.Uint64()), 1) != nil {
		return
	}
	content := pattern(1, 40_000)
	f := p.File("f", content)
	for n := f.Count(testpeer.Spec, 16); n > 1 && !d.over(); n-- {
		if p.Send(packet(f, 16, n)) != nil {
			return
		}
	}
}

// renamed takes things out of the server's folder until the server is killed.
func (d *disturbance) renamed(names ...string) {
	dir := d.server.dir
	for _, name := range names {
		_ = os.Rename(filepath.Join(dir, name), filepath.Join(dir, "aside "+name))
	}
	d.k.putBack = func() {
		for _, name := range names {
			_ = os.Rename(filepath.Join(dir, "aside "+name), filepath.Join(dir, name))
		}
	}
	<-d.quiet
}

// replaced puts an empty folder in the place of files/.
func (d *disturbance) replaced() {
	dir := d.server.dir
	_ = os.Rename(filepath.Join(dir, "files"), filepath.Join(dir, "aside"))
	_ = os.MkdirAll(filepath.Join(dir, "files", ".incoming"), 0o700)
	d.k.putBack = func() {
		_ = os.RemoveAll(filepath.Join(dir, "files"))
		_ = os.Rename(filepath.Join(dir, "aside"), filepath.Join(dir, "files"))
	}
	<-d.quiet
}
