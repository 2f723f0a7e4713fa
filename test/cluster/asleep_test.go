//go:build linux

package cluster

import (
	"net/http"
	"syscall"
	"testing"
	"time"

	"sealift/codec"
	"sealift/internal/testpeer"
)

// TestAsleep stops a server while the content of a file is on its way to the services.s3.Name, until
// another server has taken its lease away and swept the object. When it wakes it hears that
// the object is stored, and cannot record it: the client gets a 1607, sends the file again,
// and then it is stored.
func TestAsleep(t *testing.T) {
	r := newRun(t)
	r.needServices()
	s3 := r.newS3Proxy(services.s3.Endpoint)
	c := r.cluster(clusterOptions{
		servers: 2, lease: time.Second, reapAfter: time.Second, sweep: 500 * time.Millisecond,
		s3: func(i int, direct string) string {
			if i == 0 {
				return s3.URL
			}
			return direct
		},
	})
	p := &testpeer.Conn{Peer: testpeer.Peer{Name: "patient", Pair: testpeer.SharedPair(1)}}
	r.must("connecting", dial(c.addrs[0], p))
	defer p.Close()
	r.must("registering", p.Enter())
	var told promises
	b := pattern(r.seed, 5000)
	told.sends(place{p.ID, "file"}, contentOf(b))

	fault := &s3Fault{
		hits: func(_ int64, q *http.Request) bool { return q.Method == http.MethodPut },
		hold: make(chan struct{}),
	}
	s3.fault.Store(fault)
	r.must("1028", p.SendPackets(p.File("file", b).Packets(testpeer.Spec, 60_000)))
	r.until("the content to be on its way", func() bool { return fault.done.Load() > 0 })
	if n := len(c.rows().leases); n != 1 {
		r.Errorf("%d leases while the content is on its way", n)
	}
	c.servers[0].signal(syscall.SIGSTOP)
	close(fault.hold)
	s3.fault.Store(nil)
	r.until("the object to be there", func() bool { return len(c.objects()) == 1 })
	r.until("the lease to be taken away, and the object swept", func() bool { return len(c.rows().leases) == 0 && len(c.objects()) == 0 })
	c.servers[0].signal(syscall.SIGCONT)

	if err := p.Received(p.File("file", b)); !testpeer.Refused(err, codec.CodeError) {
		r.Errorf("when the server wakes: %v, and not a 1607", err)
	}
	if n := len(c.rows().files); n != 0 {
		r.Errorf("%d files are recorded", n)
	}
	if err := p.Upload(p.File("file", b), 60_000); err != nil {
		r.Fatalf("sent again: %v\n%s", err, c.tails())
	}
	told.keeps(place{p.ID, "file"}, contentOf(b))
	c.swept()
	c.keeps(&told)
}

// TestAsleepInParts stops a server in the middle of a large file, of which parts are in the
// services.s3.Name, for longer than its lease. What is on record no sweep takes, so the upload comes to
// its end, or gets a 1607 and comes again.
func TestAsleepInParts(t *testing.T) {
	r := newRun(t)
	c := r.cluster(clusterOptions{servers: 2, lease: time.Second, reapAfter: time.Second, sweep: 500 * time.Millisecond})
	p := &testpeer.Conn{Peer: testpeer.Peer{Name: "patient", Pair: testpeer.SharedPair(1)}}
	r.must("connecting", dial(c.addrs[0], p))
	defer p.Close()
	r.must("registering", p.Enter())
	var told promises
	b := pattern(r.seed, 40<<20)
	told.sends(place{p.ID, "file"}, contentOf(b))
	packets := p.File("file", b).Packets(testpeer.Spec, 60_000)
	half := len(packets) / 2
	r.must("sending", p.SendPackets(packets[:half]))
	r.until("the first part to be in the bucket", func() bool { return len(c.objects()) == 1 })
	c.servers[0].signal(syscall.SIGSTOP)
	r.until("the lease to be taken away", func() bool { return len(c.rows().leases) == 0 })
	r.until("another sweep", c.anotherSweep())
	c.servers[0].signal(syscall.SIGCONT)

	err := p.SendPackets(packets[half:])
	if err == nil {
		err = p.Received(p.File("file", b))
	}
	r.Logf("when it wakes: %v", err)
	switch {
	case err == nil:
		err = p.Confirm("file")
	case testpeer.Refused(err, codec.CodeError):
		err = p.Upload(p.File("file", b), 60_000)
	}
	if err != nil {
		r.Fatalf("%v\n%s", err, c.tails())
	}
	told.keeps(place{p.ID, "file"}, contentOf(b))
	c.swept()
	c.keeps(&told)
}
