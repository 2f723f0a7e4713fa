//go:build linux

package soak

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"sealift/codec"
)

// TestGiants has many connections declare packets of 4 GiB, send a little, and
// wait. They must not take memory, room on the disk or anybody's turn.
func TestGiants(t *testing.T) {
	r := newRun(t)
	n := r.size(3_000, 10_000)
	s := r.start(r.TempDir(), "--max-connections", strconv.Itoa(n+10))
	owner := s.join("giant", 0)
	honest := s.join("honest", 1)
	honest.mustUpload("before", pattern(1, 100_000), 1000)
	s.resetPeak()
	before := s.rss()
	began := time.Now()
	body := pattern(2, 20_000)
	peers := make([]*peer, n)
	for i := range peers {
		p, err := s.dial(source(i))
		if err != nil {
			r.Fatalf("connection %d: %v", i, err)
		}
		defer p.close()
		peers[i] = p
	}
	declare := func(i int) {
		// The connections go on where one of the client dropped.
		m := codec.SendFile{
			ContentSize: codec.MaxCiphertext - 1024, OrigSize: codec.MaxCiphertext - 1030, Packet: 1, Total: 1,
			FileName: fmt.Appendf(nil, "giant %d", i),
		}
		b := append(m.Append(nil, owner.ID, codec.MaxCiphertext-1024), body...)
		if err := peers[i].Send(b); err != nil {
			r.Errorf("connection %d: %v", i, err)
		}
	}
	const first = 8 // so that a server that reserves what is declared does not fill the disk
	for i := range first {
		declare(i)
	}
	taken := func(n int) {
		r.until("the content to be taken", func() bool { return r.incoming(s.dir) >= n })
	}
	taken(first)
	if room := r.room(s.dir); room > 1<<30 {
		r.Fatalf("%d bytes of disk are taken for %d packets", room, first)
	}
	var wg sync.WaitGroup
	for k := range 16 {
		wg.Go(func() {
			for i := first + k; i < n; i += 16 {
				declare(i)
			}
		})
	}
	wg.Wait()
	taken(n)
	const file = 5 << 20
	want := honest.mustUpload("meanwhile", pattern(3, file), 60_000)
	grown := s.grown(before, n)
	room := r.room(s.dir)
	r.Logf("%d packets of 4 GiB declared on as many connections, in %.1f s: memory +%d KiB, %d KiB of disk for %d KiB sent",
		n, time.Since(began).Seconds(), grown, (room-file)>>10, n*len(body)>>10)
	if limit := int64(2*n*len(body) + 2*file); room > limit {
		r.Errorf("%d bytes on disk are taken, more than %d", room, limit)
	}
	for _, p := range append(peers, owner, honest) {
		p.close()
	}
	r.calm(s)
	if n := r.incoming(s.dir); n > 0 {
		r.Errorf("%d incoming files are left", n)
	}
	r.checkStore(s.dir, []stored{want})
	s.finish()
}

// room is how many bytes on disk the files of the server take.
func (r *run) room(dir string) (n int64) {
	r.Helper()
	r.eachFile(dir, func(path string) {
		info, err := os.Stat(filepath.Join(dir, "files", path))
		if err != nil {
			return // gone meanwhile
		}
		n += info.Sys().(*syscall.Stat_t).Blocks * 512
	})
	return n
}
