//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"sealift/codec"
	"sealift/crypto/cksum"
)

// giants has many connections declare packets of 4 GiB, send a little, and
// wait. They must not take memory, room on the disk or anybody's turn.
func giants(r *run) {
	n := r.size(3_000, 10_000)
	s := r.start(r.TempDir(), "--max-connections", strconv.Itoa(n+10))
	owner := s.join("giant", anyKey(0))
	honest := s.join("honest", anyKey(1))
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
		b := append(m.Append(nil, owner.id, codec.MaxCiphertext-1024), body...)
		if err := peers[i].write(b); err != nil {
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
	r.figures("%d packets of 4 GiB declared on as many connections, in %.1f s: memory +%d KiB, %d KiB of disk for %d KiB sent",
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

// disorder has clients send the most packets there can be, the last first or
// shuffled: some at once for whom there is memory, and then more than that.
// Nobody is refused.
func disorder(r *run) {
	s := r.start(r.TempDir())
	warm := s.join("warm", anyKey(0))
	warm.mustUpload("file", pattern(1, 100_000), 1000)
	warm.close()
	s.resetPeak()
	before := s.rss()
	began := time.Now()
	var want []stored
	for round, clients := range []int{3, 9, 3} {
		files := s.disorderly(clients, round)
		r.calm(s) // so that the next ones find the memory given back
		want = append(want, files...)
		r.figures("%d clients send %d packets each, reversed or shuffled: %d files are whole",
			clients, codec.MaxPackets, len(files))
	}
	r.figures("%.1f s; memory +%d KiB", time.Since(began).Seconds(), s.grown(before, 9))
	r.calm(s)
	r.checkStore(s.dir, want)
	s.finish()
}

// disorderly is a round of disorder.
func (s *server) disorderly(clients, round int) (files []stored) {
	s.r.Helper()
	const packets, size = codec.MaxPackets, 80
	content := pattern(s.r.seed, packets*size-5)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range clients {
		p := s.join(fmt.Sprintf("client %d of round %d", i, round), anyKey(i))
		order := s.r.rng.Perm(packets)
		wg.Go(func() {
			defer p.close()
			ciphertext := p.encrypt(content)
			sent := make(chan struct{})
			go func() { // while the replies are awaited: a client that is refused leaves
				defer close(sent)
				var b []byte
				for k := range packets {
					n := packets - k
					if i%2 == 1 {
						n = order[k] + 1
					}
					b = append(b, p.packet("file", ciphertext, len(content), size, n)...)
					if len(b) > 60_000 || k == packets-1 {
						if p.write(b) != nil {
							return
						}
						b = b[:0]
					}
				}
			}()
			err := p.received("file", cksum.Checksum(content))
			if err == nil {
				err = p.confirm("file")
			}
			p.close()
			<-sent
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				s.r.Errorf("client %d: %v", i, err)
				return
			}
			files = append(files, p.stored("file", content))
		})
	}
	wg.Wait()
	return files
}

// begun has a client begin transfer after transfer on one connection.
func begun(r *run) {
	n := r.size(4000, 50_000)
	const most = 16 // the default of --max-uploads-per-connection
	s := r.start(r.TempDir())
	p := s.join("beginner", anyKey(0))
	p.mustUpload("warm", pattern(1, 100_000), 1000)
	s.resetPeak()
	before := s.rss()
	content := pattern(r.seed, 5000)
	ciphertext := p.encrypt(content)
	sent := make(chan error, 1)
	go func() {
		for i := range n {
			if err := p.write(p.packet(fmt.Sprint("file ", i), ciphertext, len(content), 1000, 1)); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for i := range n - most {
		if code, _, err := p.read(); err != nil || code != codec.CodeError {
			r.Fatalf("transfer %d too many: %v %v", i+1, code, err)
		}
	}
	if err := <-sent; err != nil {
		r.Fatalf("%v", err)
	}
	// The first ones go on as if nothing had been.
	var want []stored
	for i := range most {
		name := fmt.Sprint("file ", i)
		for k := 2; k <= 6; k++ {
			if err := p.write(p.packet(name, ciphertext, len(content), 1000, k)); err != nil {
				r.Fatalf("%v", err)
			}
		}
		if err := p.received(name, cksum.Checksum(content)); err != nil {
			r.Fatalf("%s: %v", name, err)
		}
		if err := p.confirm(name); err != nil {
			r.Fatalf("%s: %v", name, err)
		}
		want = append(want, p.stored(name, content))
	}
	r.figures("%d transfers begun on a connection: %d are taken and finished, the rest get 1607; memory +%d KiB", n, most, s.grown(before, 1))
	p.close()
	r.calm(s)
	r.checkStore(s.dir, want)
	s.finish()
}

// flood has one address register without end.
func flood(r *run) {
	n := r.size(3000, 30_000)
	const rate, burst = 5, 100
	s := r.start(r.TempDir(), "--register-rate", strconv.Itoa(rate))
	began := time.Now()
	taken, turnedDown := 0, 0
	var p *peer
	for i := range n {
		if p == nil {
			p = s.mustDial()
		}
		switch err := p.register(fmt.Sprint("name ", i)); {
		case err == nil:
			taken++
			p.close()
			p = nil
		case refused(err, codec.CodeError):
			turnedDown++
		default:
			r.Fatalf("registration %d: %v", i, err)
		}
	}
	took := time.Since(began)
	if limit := burst + int(took.Seconds()*rate) + 1; taken > limit {
		r.Errorf("%d registrations from an address in %v, more than %d", taken, took, limit)
	}
	if taken < burst {
		r.Errorf("only %d registrations were taken, %d may come at once", taken, burst)
	}
	other, err := s.dial("127.0.0.2")
	if err == nil {
		defer other.close()
		err = other.enter("somebody else", anyKey(0))
	}
	if err != nil {
		r.Errorf("from another address: %v", err)
	}
	out, _, _, _ := program(sealiftd, "clients", "--json", "--dir", s.dir)
	if rows := len(splitLines(out)); rows != taken+1 {
		r.Errorf("%d clients are recorded, %d were taken", rows, taken+1)
	}
	r.figures("%d registrations from one address in %.1f s: %d taken, %d refused; another address is served", n, took.Seconds(), taken, turnedDown)
	if p != nil {
		p.close()
	}
	if other != nil {
		other.close()
	}
	s.finish()
}
