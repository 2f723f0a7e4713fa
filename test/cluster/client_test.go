//go:build linux

package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"sealift/client"
	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/internal/testpeer"
)

// place is where a file of a client is stored.
type place struct {
	id   codec.ClientID
	path string
}

// content is what a file is.
type content struct {
	size  int64
	cksum uint32
}

func contentOf(b []byte) content { return content{int64(len(b)), cksum.Checksum(b)} }

// promises are what one client knows of its files. One goroutine uses it.
type promises struct {
	kept  map[place]content          // what got its 1604 last
	maybe map[place]map[content]bool // what was sent since, and may have taken its place
}

// sends says that the client is about to send it.
func (p *promises) sends(at place, c content) {
	if p.maybe == nil {
		p.kept, p.maybe = make(map[place]content), make(map[place]map[content]bool)
	}
	if p.maybe[at] == nil {
		p.maybe[at] = make(map[content]bool)
	}
	p.maybe[at][c] = true
}

// keeps says that it got its 1604.
func (p *promises) keeps(at place, c content) {
	p.kept[at] = c
	delete(p.maybe, at)
}

// uploader is a client that uploads all the time, from several connections, one after the
// other. What fails it tries again with other files.
type uploader struct {
	addr   string
	number int
	rng    *rand.Rand
	pause  time.Duration // about, between two files
	large  int           // bytes that a large file has about

	me       testpeer.Conn
	known    bool // me has registered and exchanged keys
	names    int  // that it has tried to register
	promised promises

	stored, failed atomic.Int64
	doing          atomic.Pointer[step] // nil between two steps
}

// step is what an uploader is waiting for.
type step struct {
	what  string
	began time.Time
}

// work uploads until ctx ends. What is under way then it ends as at any time.
func (u *uploader) work(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		if err := u.upload(n); err != nil {
			u.failed.Add(1)
			u.leave()
		} else {
			u.stored.Add(1)
		}
		u.doing.Store(nil)
		select {
		case <-ctx.Done():
		case <-time.After(u.pause/2 + time.Duration(u.rng.Int64N(int64(u.pause)))):
		}
	}
	u.leave()
}

// does says what comes.
func (u *uploader) does(what string) { u.doing.Store(&step{what, time.Now()}) }

func (u *uploader) leave() {
	if u.me.Net != nil {
		_ = u.me.Close()
		u.me.Net = nil
	}
}

// connect makes a connection, to whichever server, for a client that registered if there is
// one.
func (u *uploader) connect() error {
	if u.me.Net != nil {
		return nil
	}
	u.does("connecting")
	if u.known {
		if err := dial(u.addr, &u.me); err != nil {
			return err
		}
		u.does("1027")
		return u.me.Rejoin()
	}
	u.names++
	u.me = testpeer.Conn{Peer: testpeer.Peer{Name: fmt.Sprintf("client %d.%d", u.number, u.names), Pair: testpeer.SharedPair(u.number % 4)}}
	if err := dial(u.addr, &u.me); err != nil {
		return err
	}
	u.does("1025 and 1026")
	if err := u.me.Enter(); err != nil {
		return err
	}
	u.known = true
	return nil
}

// upload does one of the things that clients do with a file.
func (u *uploader) upload(n int) error {
	if err := u.connect(); err != nil {
		return err
	}
	b := pattern(u.rng.Uint64(), u.rng.IntN(40_000))
	size := 1000 + u.rng.IntN(60_000)
	name := fmt.Sprintf("folder %d/file %d", n%7, n)
	switch what := u.rng.IntN(20); {
	case what < 4:
		name = "same" // again and again
	case what < 7:
		return u.elsewhere(name, b, size)
	case what < 9:
		return u.twice(name, b, size)
	case what < 10 && u.large > 0:
		return u.cut(name, pattern(u.rng.Uint64(), u.large/2+u.rng.IntN(u.large)))
	}
	if err := u.send(name, b, size); err != nil {
		return err
	}
	return u.confirm(name, b)
}

// send sends a file and reads its 1603.
func (u *uploader) send(name string, b []byte, size int) error {
	u.promised.sends(place{u.me.ID, name}, contentOf(b))
	f := u.me.File(name, b)
	u.does("1028")
	if err := u.me.SendPackets(f.Packets(testpeer.Spec, size)); err != nil {
		return err
	}
	return u.me.Received(f)
}

func (u *uploader) confirm(name string, b []byte) error {
	u.does("1029")
	err := u.me.Confirm(name)
	if err == nil {
		u.promised.keeps(place{u.me.ID, name}, contentOf(b))
	}
	return err
}

// elsewhere gives the verdict over another connection, and so often to another server. A
// second client of that name may have taken nothing away: a 1604 is about this content.
func (u *uploader) elsewhere(name string, b []byte, size int) error {
	if err := u.send(name, b, size); err != nil {
		return err
	}
	u.leave()
	if err := u.connect(); err != nil {
		return err
	}
	return u.confirm(name, b)
}

// twice refuses a file by a 1030, and sends it again.
func (u *uploader) twice(name string, b []byte, size int) error {
	if err := u.send(name, b, size); err != nil {
		return err
	}
	u.does("1030")
	if err := u.me.Send(u.me.Verdict(codec.CodeCRCBad, name)); err != nil {
		return err
	}
	if err := u.send(name, b, size); err != nil {
		return err
	}
	return u.confirm(name, b)
}

// cut loses the connection in the middle of a file, and goes on where any server has it.
func (u *uploader) cut(name string, b []byte) error {
	u.promised.sends(place{u.me.ID, name}, contentOf(b))
	packets := u.me.File(name, b).Packets(testpeer.Spec, 60_000)
	u.does("half of the 1028")
	if err := u.me.SendPackets(packets[:len(packets)*3/4]); err != nil {
		return err
	}
	u.leave()
	if err := u.connect(); err != nil {
		return err
	}
	u.does("1032")
	if _, err := u.me.Resume(name, b, 60_000); err != nil {
		return err
	}
	u.promised.keeps(place{u.me.ID, name}, contentOf(b))
	return nil
}

// sender is the client that people use, in this process.
type sender struct{ *uploader }

// work sends until ctx ends. The client itself tries again what fails.
func (s *sender) work(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		if err := s.send(ctx, n); err != nil && ctx.Err() == nil {
			s.failed.Add(1)
		} else if err == nil {
			s.stored.Add(1)
		}
		s.doing.Store(nil)
		select {
		case <-ctx.Done():
		case <-time.After(s.pause/2 + time.Duration(s.rng.Int64N(int64(s.pause)))):
		}
	}
}

func (s *sender) send(ctx context.Context, n int) error {
	s.names++
	s.does("a run of package client")
	o := client.Options{
		Server: s.addr, Name: fmt.Sprintf("sender %d.%d", s.number, s.names),
		RetryFor: patience, ReplyTimeout: patience / 2,
	}
	c, err := client.Dial(ctx, o)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Login(ctx); err != nil {
		return err
	}
	for i := range 3 {
		name := fmt.Sprintf("file %d.%d", n, i)
		b := pattern(s.rng.Uint64(), s.rng.IntN(200_000))
		s.promised.sends(place{c.Identity().ID, name}, contentOf(b))
		r, err := c.Send(ctx, name, bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return err
		}
		if r.Cksum != cksum.Checksum(b) {
			return errors.New("another checksum")
		}
		s.promised.sends(place{r.ID, name}, contentOf(b))
		s.promised.keeps(place{r.ID, name}, contentOf(b))
		s.does("a run of package client")
	}
	return nil
}

// pattern is n bytes that look random and depend on seed.
func pattern(seed uint64, n int) []byte {
	b := make([]byte, n)
	x := seed*0x9e3779b97f4a7c15 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return b
}
