//go:build linux

package soak

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/storage"
)

// TestKill has clients upload all the time, while the server is disturbed in one way
// or another, killed at random moments and started again. What a client has its
// 1604 for must be there.
func TestKill(t *testing.T) {
	r := newRun(t)
	rounds := r.size(25, 1000)
	const clients = 8
	k := &killing{run: r, dir: r.TempDir(), findings: make(map[string]int)}
	k.restart()
	var wg sync.WaitGroup
	for i := range clients {
		u := &uploader{k: k, number: i, rng: rand.New(rand.NewPCG(r.seed, uint64(i)))}
		k.uploaders = append(k.uploaders, u)
		wg.Go(u.work)
	}
	began := time.Now()
	for round := 1; round <= rounds; round++ {
		k.disturb(round, time.Duration(r.rng.IntN(200))*time.Millisecond)
		if round%25 == 0 || round == rounds {
			k.check()
		}
		if round%5 == 0 { // the next one lives on a disk whose syncs fail
			k.server.Store(k.startFaulty(role{Serve: k.dir, FailSyncs: 8}))
		} else {
			k.restart()
		}
	}
	k.stop.Store(true)
	wg.Wait()
	k.server.Load().kill()
	files := k.check()
	r.Logf("%d rounds in %.1f s: %d uploads got their 1604 and all are there, %d were cut off; at the starts: %v",
		rounds, time.Since(began).Seconds(), files, k.failures.Load(), k.findings)
}

// disturb disturbs the server for that long, a random moment, and kills it.
func (k *killing) disturb(round int, d time.Duration) {
	how := disturbances[round%len(disturbances)]
	s := k.server.Load()
	one := &disturbance{k: k, server: s, rng: rand.New(rand.NewPCG(k.seed, uint64(1000+round))), quiet: make(chan struct{})}
	k.putBack = nil
	done := make(chan struct{})
	go func() {
		defer close(done)
		how.run(one)
	}()
	time.Sleep(d)
	ended := false
	select {
	case <-s.exited:
		ended = true
	default:
	}
	_ = s.cmd.Process.Kill()
	close(one.quiet)
	<-done
	s.kill()
	if ended {
		k.Errorf("%s: the server ended by itself: %s", how.name, s.tail())
	}
	if k.putBack != nil {
		k.putBack()
	}
}

// killing is what the clients and the killer share.
type killing struct {
	*run
	putBack func() // what a disturbance took from the server's folder

	mu  sync.Mutex
	ids []codec.ClientID // of the uploaders

	dir       string
	server    atomic.Pointer[server]
	stop      atomic.Bool
	failures  atomic.Int64
	uploaders []*uploader

	// gate is held for reading by each upload under way, for writing by those
	// who look at the store.
	gate sync.RWMutex

	findings map[string]int // of the starts, for the figures
}

func (k *killing) restart() {
	k.server.Store(k.begin())
}

// begin starts a server and takes down what it found.
func (k *killing) begin() *server {
	s := k.start(k.dir)
	for _, l := range s.all(func(l line) bool { return l.Finding != "" }) {
		what, _, _ := strings.Cut(l.Finding, ":")
		k.findings[what]++
	}
	return s
}

// check starts the server on what the last one left, without any client, and
// looks at what it makes of it. It returns how many uploads there were.
func (k *killing) check() (files int) {
	k.gate.Lock()
	defer k.gate.Unlock()
	k.begin().kill()
	var want []stored
	for _, u := range k.uploaders {
		want = append(want, u.done...)
	}
	good := k.checkStore(k.dir, want)
	for _, u := range k.uploaders {
		u.checkSame(good)
	}
	return len(want)
}

// uploader is a client that uploads one file after the other.
type uploader struct {
	k      *killing
	number int
	names  int // that it has tried to register
	rng    *rand.Rand
	me     *peer // the last connection
	known  bool  // me has registered and exchanged keys, on some connection

	done []stored // under names of their own
	// The file "same" is sent over and over: what of it has its 1604, and what
	// was sent since.
	same      stored
	sameSince map[uint32]bool
}

func (u *uploader) work() {
	for n := 0; !u.k.stop.Load(); n++ {
		u.k.gate.RLock()
		if err := u.upload(n); err != nil {
			u.k.failures.Add(1)
			u.leave()
		}
		u.k.gate.RUnlock()
	}
	u.leave()
}

func (u *uploader) leave() {
	if u.me != nil && u.me.Net != nil {
		u.me.close()
		u.me.Net = nil
	}
}

// connect makes a connection, for a client that registered if there is one.
func (u *uploader) connect() error {
	p, err := u.k.server.Load().dial("")
	if err != nil {
		time.Sleep(time.Millisecond) // there is no server now
		return err
	}
	if u.known {
		u.me.Net = p.Net
		return u.me.Rejoin()
	}
	u.me = p
	u.names++
	if err := p.enter(fmt.Sprintf("client %d.%d", u.number, u.names), u.number); err != nil {
		return err
	}
	u.known = true
	u.k.mu.Lock()
	u.k.ids = append(u.k.ids, p.ID)
	u.k.mu.Unlock()
	return nil
}

func (u *uploader) upload(n int) error {
	if u.me == nil || u.me.Net == nil {
		if err := u.connect(); err != nil {
			return err
		}
	}
	size := u.rng.IntN(8_000)
	if u.rng.IntN(10) == 0 {
		size = u.rng.IntN(400_000)
	}
	content := pattern(u.rng.Uint64(), size)
	packet := 1000 + u.rng.IntN(60_000)
	if n%4 > 0 {
		name := fmt.Sprintf("folder %d/file %d", n%7, n)
		err := u.me.upload(name, content, packet)
		if err == nil {
			u.done = append(u.done, u.me.stored(name, content))
		}
		return err
	}
	if u.sameSince == nil {
		u.sameSince = make(map[uint32]bool)
	}
	u.sameSince[cksum.Checksum(content)] = true
	err := u.me.upload("same", content, packet)
	if err == nil {
		u.same = u.me.stored("same", content)
		clear(u.sameSince)
	}
	return err
}

// checkSame asserts that the file "same" is one that may be there.
func (u *uploader) checkSame(good map[fileName]storage.File) {
	if u.me == nil {
		return
	}
	f, ok := good[fileName{u.me.ID, "same"}]
	switch {
	case !ok && u.same.path == "":
	case !ok:
		u.k.Errorf("%v/same got its 1604 and is not there", u.me.ID)
	case f.Cksum != u.same.cksum && !u.sameSince[f.Cksum]:
		u.k.Errorf("%v/same is neither what got its 1604 last nor what was sent since", u.me.ID)
	}
}
