//go:build linux

package cluster

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"sealift/codec"
	"sealift/internal/testpeer"
)

// faulty is one server whose ways to its stores lead through proxies.
type faulty struct {
	*cluster
	pg    *pgProxy
	s3    *s3Proxy
	names int
	told  promises
}

func (r *run) faulty() *faulty {
	r.Helper()
	r.needServices()
	f := &faulty{s3: r.newS3Proxy(services.s3.Endpoint)}
	f.told.sends(place{}, content{})
	f.cluster = r.cluster(clusterOptions{
		servers: 1,
		registry: func(_ int, direct string) string {
			if f.pg == nil {
				f.pg = r.newPGProxy(direct)
			}
			return f.pg.through(direct)
		},
		s3:    func(int, string) string { return f.s3.URL },
		lease: 30 * time.Second, reapAfter: time.Second, sweep: time.Second, patience: 2 * time.Second,
	})
	return f
}

// peer is a client of a new name.
func (f *faulty) peer() *testpeer.Conn {
	f.names++
	return &testpeer.Conn{Peer: testpeer.Peer{Name: fmt.Sprintf("client %d", f.names), Pair: testpeer.SharedPair(f.names % 4)}}
}

// enter connects and registers.
func (f *faulty) enter(p *testpeer.Conn) error {
	if err := dial(f.addr, p); err != nil {
		return err
	}
	f.Cleanup(func() { _ = p.Close() })
	return p.Enter()
}

// upload stores a file, and keeps what it was promised.
func (f *faulty) upload(p *testpeer.Conn, name string, b []byte) error {
	at, c := place{p.ID, name}, contentOf(b)
	f.told.sends(at, c)
	err := p.Upload(p.File(name, b), 60_000)
	if err == nil {
		f.told.keeps(at, c)
	}
	return err
}

// session is all that a client does with a small file.
func (f *faulty) session(size int) error {
	p := f.peer()
	if err := f.enter(p); err != nil {
		return err
	}
	defer p.Close()
	return f.upload(p, "file", pattern(f.rng.Uint64(), size))
}

// goesOn asserts that a session is as it should be, since nothing is wrong any more.
func (f *faulty) goesOn(after string) {
	f.Helper()
	if err := f.session(5000); err != nil {
		f.Fatalf("after %s: %v\n%s", after, err, f.tails())
	}
}

// end asserts that everything is as promised.
func (f *faulty) end() {
	f.Helper()
	f.swept()
	f.keeps(&f.told)
}

// TestCutStatements cuts the connection to PostgreSQL at each message of a session, in each
// direction, and loses the answer to each. The client notices nothing: its name is its own,
// and its file is stored.
func TestCutStatements(t *testing.T) {
	r := newRun(t)
	f := r.faulty()
	f.goesOn("the start")
	before := [2]int64{f.pg.messages[0].Load(), f.pg.messages[1].Load()}
	f.goesOn("nothing")
	var messages [2]int64 // of one session
	for i := range messages {
		messages[i] = f.pg.messages[i].Load() - before[i]
	}
	for _, how := range []struct {
		name      string
		direction int
		lost      bool
	}{
		{"cut before a message to the database", toDatabase, false},
		{"cut before a message of the database", fromDatabase, false},
		{"what the database answers is lost", toDatabase, true},
	} {
		began, cuts, last := time.Now(), 0, messages[how.direction]
		for k := int64(1); k <= last; k += int64(f.every(1)) {
			fault := &pgFault{direction: how.direction, at: k, lost: how.lost}
			f.pg.fault.Store(fault)
			if err := f.session(5000); err != nil {
				f.Errorf("%s, %d of %d: %v", how.name, k, last, err)
			}
			f.pg.fault.Store(nil)
			if fault.done.Load() {
				cuts++
			}
			f.servers[0].alive()
		}
		f.goesOn(how.name)
		r.Logf("%s: at %d places in %.1f s, %d of them hit", how.name, last, time.Since(began).Seconds(), cuts)
		if cuts < int(last)/(2*f.every(1)) {
			f.Errorf("%s: only %d cuts", how.name, cuts)
		}
	}
	f.end()
}

// every is how many places a run goes on at a time, where one without the race detector visits
// all.
func (r *run) every(n int) int {
	if raceEnabled {
		return 7 * n
	}
	return n
}

// TestCutRequests cuts each request of a session to the S3 server, before it gets there and
// after it was done. The client notices nothing.
func TestCutRequests(t *testing.T) {
	r := newRun(t)
	f := r.faulty()
	for _, size := range []int{5000, 40 << 20} { // one object, and one in parts
		before := f.s3.requests.Load()
		if err := f.session(size); err != nil {
			f.Fatalf("%v\n%s", err, f.tails())
		}
		requests := f.s3.requests.Load() - before // about: the sweep has some too
		cuts := 0
		for k := int64(1); k <= requests; k++ {
			for _, lost := range []bool{false, true} {
				fault := &s3Fault{cut: !lost, lost: lost, hits: func(n int64, _ *http.Request) bool { return n == k }}
				f.s3.fault.Store(fault)
				if err := f.session(size); err != nil {
					f.Errorf("request %d of %d for %d bytes, answer lost: %t: %v", k, requests, size, lost, err)
				}
				f.s3.fault.Store(nil)
				if fault.done.Load() > 0 {
					cuts++
				}
				f.servers[0].alive()
			}
		}
		r.Logf("%d cuts at %d requests for %d bytes", cuts, requests, size)
		if cuts < int(requests) {
			f.Errorf("only %d cuts at %d requests", cuts, requests)
		}
	}
	f.goesOn("the cuts")
	f.end()
}

// TestLatency has each message to and from the stores take 50 ms more. A session takes
// longer, and nothing else.
func TestLatency(t *testing.T) {
	r := newRun(t)
	f := r.faulty()
	f.goesOn("the start")
	f.pg.delay(50 * time.Millisecond)
	f.s3.fault.Store(&s3Fault{delay: 50 * time.Millisecond})
	for _, size := range []int{5000, 20 << 20} {
		began := time.Now()
		if err := f.session(size); err != nil {
			f.Fatalf("%d bytes: %v\n%s", size, err, f.tails())
		}
		r.Logf("a session with %d bytes: %.0f ms", size, time.Since(began).Seconds()*1000)
	}
	f.pg.delay(0)
	f.s3.fault.Store(nil)
	f.goesOn("the latency")
	f.end()
}

// TestBucket has the S3 server be slow, out of order, full, or refuse the credentials. What
// passes the client does not notice; what lasts is a 1607, on a connection that goes on. Then
// all is as before.
func TestBucket(t *testing.T) {
	r := newRun(t)
	f := r.faulty()
	f.goesOn("the start")
	writes := func(_ int64, q *http.Request) bool { return q.Method == http.MethodPut || q.Method == http.MethodPost }
	for _, c := range []struct {
		name  string
		fault *s3Fault
		well  bool // the client notices nothing
	}{
		{"a slow bucket", &s3Fault{perSecond: 8 << 20}, true},
		{"503 for a while", &s3Fault{status: 503, code: "SlowDown", hits: func(n int64, _ *http.Request) bool { return n <= 3 }}, true},
		{"500 for a while", &s3Fault{status: 500, code: "InternalError", hits: func(n int64, _ *http.Request) bool { return n <= 3 }}, true},
		{"503 to all", &s3Fault{status: 503, code: "SlowDown"}, false},
		{"a full bucket", &s3Fault{status: 507, code: "XMinioStorageFull", hits: writes}, false},
		{"a quota of the bucket", &s3Fault{status: 403, code: "QuotaExceeded", hits: writes}, false},
		{"an expired credential", &s3Fault{status: 403, code: "ExpiredToken"}, false},
		{"another credential", &s3Fault{status: 403, code: "InvalidAccessKeyId"}, false},
		{"no such bucket", &s3Fault{status: 404, code: "NoSuchBucket"}, false},
	} {
		for _, size := range []int{5000, 20 << 20} {
			p := f.peer()
			if err := f.enter(p); err != nil {
				f.Fatalf("%s: %v\n%s", c.name, err, f.tails())
			}
			b := pattern(f.rng.Uint64(), size)
			began := time.Now()
			c.fault.done.Store(0)
			c.fault.seen.Store(0)
			f.s3.fault.Store(c.fault)
			err := f.upload(p, "file", b)
			switch {
			case c.well && err != nil:
				f.Errorf("%s, %d bytes: %v", c.name, size, err)
			case !c.well && !testpeer.Refused(err, codec.CodeError):
				f.Errorf("%s, %d bytes: %v, and not a 1607", c.name, size, err)
			}
			r.Logf("%s, %d bytes: %v, after %.1f s", c.name, size, err, time.Since(began).Seconds())
			f.s3.fault.Store(nil)
			if c.fault.done.Load() == 0 {
				f.Errorf("%s, %d bytes: no request was hit", c.name, size)
			}
			// What follows the 1607 may be packets that the server passes over, so the file comes
			// again over this connection.
			if err := f.upload(p, "file again", b); err != nil {
				f.Errorf("after %s, %d bytes: %v", c.name, size, err)
			}
			_ = p.Close()
		}
	}
	f.end()
}
