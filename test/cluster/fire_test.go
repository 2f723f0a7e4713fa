//go:build linux

package cluster

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestFire has three servers serve 300 clients through a balancer, while one server after
// the other is killed, one sleeps past its leases, PostgreSQL is restarted and the S3 server
// is away. Every 1604 that a client saw is true in the end, no row is without content, and
// after the sweep no content without a row. No client is stuck.
func TestFire(t *testing.T) {
	r := newRun(t)
	c := r.cluster(clusterOptions{
		servers: 3, balanced: true,
		lease: 3 * time.Second, reapAfter: time.Second, sweep: 2 * time.Second,
	})
	f := &fire{cluster: c}
	f.light()
	began := time.Now()
	if *full {
		for time.Since(began) < 10*time.Minute {
			f.round()
		}
	} else {
		f.round()
	}
	burned := time.Since(began)
	f.calm()
	f.check()
	stored, failed := f.counts()
	r.Logf("%d clients in %.0f s: %d files got their 1604, %d attempts failed; a file took at most %.1f s; %d kills",
		len(f.uploaders)+len(f.senders), burned.Seconds(), stored, failed, f.longest.Seconds(), f.kills)
	if stored < int64(len(f.uploaders)) {
		r.Errorf("only %d files are stored", stored)
	}
}

// fire is a cluster under load, and what is done to it.
type fire struct {
	*cluster
	uploaders []*uploader
	senders   []*sender
	put       context.CancelFunc // the load out
	done      sync.WaitGroup
	all       chan struct{} // every client has ended

	kills   int
	longest time.Duration // that a client waited for one thing, as far as it was seen
}

// light begins the load.
func (f *fire) light() {
	ctx, cancel := context.WithCancel(context.Background())
	f.put = cancel
	f.Cleanup(cancel)
	n := f.size(300, 300)
	for i := range n {
		u := &uploader{
			addr: f.addr, number: i, rng: rand.New(rand.NewPCG(f.seed, uint64(100+i))),
			pause: 3 * time.Second, large: 12 << 20,
		}
		if i%10 == 0 {
			s := &sender{u}
			f.senders = append(f.senders, s)
			f.done.Go(func() { s.work(ctx) })
			continue
		}
		if i%30 != 1 {
			u.large = 0
		}
		f.uploaders = append(f.uploaders, u)
		f.done.Go(func() { u.work(ctx) })
	}
	f.all = make(chan struct{})
	go func() {
		f.done.Wait()
		close(f.all)
	}()
}

// round is half a minute in which everything fails once. Every three seconds a server is
// killed.
func (f *fire) round() {
	const step = 3 * time.Second
	f.burn(2*step, -1)
	asleep := f.rng.IntN(len(f.servers))
	f.servers[asleep].signal(syscall.SIGSTOP)
	f.burn(2*step, asleep) // past its lease and what is granted beyond
	f.servers[asleep].signal(syscall.SIGCONT)
	f.burn(step, -1)
	f.must("restarting PostgreSQL", services.postgres.Restart())
	f.burn(2*step, -1)
	services.s3.Kill()
	f.burn(10*time.Second, -1)
	f.must("starting the S3 server", services.s3.Start())
	f.burn(step, -1)
}

// murder kills a server, but not that one, and starts another in its place.
func (f *fire) murder(butNot int) {
	i := f.rng.IntN(len(f.servers))
	if i == butNot {
		i = (i + 1) % len(f.servers)
	}
	f.servers[i].alive()
	f.servers[i].kill()
	f.kills++
	f.servers[i] = f.begin(i) // not waited for: the others serve meanwhile
}

// burn lets time pass, in which servers are killed, but not that one.
func (f *fire) burn(d time.Duration, butNot int) {
	const every = 3 * time.Second
	for began, kills := time.Now(), 1; time.Since(began) < d; time.Sleep(100 * time.Millisecond) {
		f.watch()
		if time.Since(began) > time.Duration(kills)*every-every/2 {
			f.murder(butNot)
			kills++
		}
	}
}

// stuckAfter is more than a server waits for its stores, and a client for a server that
// has gone.
const stuckAfter = 90 * time.Second

// watch fails the run if a client is stuck.
func (f *fire) watch() {
	f.Helper()
	see := func(u *uploader) {
		s := u.doing.Load()
		if s == nil {
			return
		}
		d := time.Since(s.began)
		f.longest = max(f.longest, d)
		if d > stuckAfter {
			f.Fatalf("client %d is stuck: %s for %v\n%s", u.number, s.what, d, f.tails())
		}
	}
	for _, u := range f.uploaders {
		see(u)
	}
	for _, s := range f.senders {
		see(s.uploader)
	}
}

// calm has each client store a file when all is well again, and then ends the load.
func (f *fire) calm() {
	f.Helper()
	for _, s := range f.servers {
		s.ready()
	}
	before := make(map[*uploader]int64)
	each := func(yield func(u *uploader)) {
		for _, u := range f.uploaders {
			yield(u)
		}
		for _, s := range f.senders {
			yield(s.uploader)
		}
	}
	each(func(u *uploader) { before[u] = u.stored.Load() })
	f.until("each client to store a file", func() bool {
		f.watch()
		each(func(u *uploader) {
			if n, ok := before[u]; ok && u.stored.Load() > n {
				delete(before, u)
			}
		})
		return len(before) == 0
	})
	f.put()
	select {
	case <-f.all:
	case <-time.After(stuckAfter):
		f.watch()
		f.Fatalf("a client does not end\n%s", f.tails())
	}
}

func (f *fire) counts() (stored, failed int64) {
	for _, u := range f.uploaders {
		stored, failed = stored+u.stored.Load(), failed+u.failed.Load()
	}
	for _, s := range f.senders {
		stored, failed = stored+s.stored.Load(), failed+s.failed.Load()
	}
	return stored, failed
}

// check holds what the clients know against what is stored.
func (f *fire) check() {
	f.Helper()
	all := promises{kept: make(map[place]content), maybe: make(map[place]map[content]bool)}
	add := func(p *promises) {
		maps.Copy(all.kept, p.kept)
		maps.Copy(all.maybe, p.maybe)
	}
	for _, u := range f.uploaders {
		add(&u.promised)
	}
	for _, s := range f.senders {
		add(&s.promised)
	}
	f.swept()
	f.keeps(&all)
	f.verify()
}

// tails is what the servers complain of.
func (c *cluster) tails() string {
	var b strings.Builder
	for i, s := range c.servers {
		fmt.Fprintf(&b, "server %d:\n%s", i, s.tail())
	}
	return b.String()
}
