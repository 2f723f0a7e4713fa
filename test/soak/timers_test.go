//go:build linux

package soak

import (
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"sealift/codec"
	"sealift/internal/testpeer"
)

// TestTimers has clients be slow or silent in every way there is. Each is ended by
// the timer that the log names; who is slow and moves is not.
func TestTimers(t *testing.T) {
	t.Parallel()
	r := newRun(t)
	const handshake, idle = time.Second, 2 * time.Second
	s := r.start(r.TempDir(), "--handshake-timeout", handshake.String(), "--idle-timeout", idle.String())
	began := time.Now()
	content := pattern(r.seed, 20_000)

	// Each case leaves its connection open, and says how the server should end it.
	cases := []struct {
		name, reason string
		do           func(p *peer) error
	}{
		{"says nothing", "timeout: no registration", func(*peer) error { return nil }},
		{"one byte of a header now and then", "timeout: message not completed", func(p *peer) error {
			for _, b := range (codec.Register{Name: []byte("slow")}).Append(nil)[:20] {
				if p.Send([]byte{b}) != nil {
					return nil // ended
				}
				time.Sleep(handshake / 5)
			}
			return nil
		}},
		{"half a registration", "timeout: message not completed", func(p *peer) error {
			return p.Send(codec.Register{Name: []byte("half")}.Append(nil)[:100])
		}},
		{"registers and says nothing more", "timeout: idle", func(p *peer) error { return p.register("registered") }},
		{"has a key and says nothing more", "timeout: idle", func(p *peer) error { return p.enter("ready", 0) }},
		{"stops in the middle of a packet", "timeout: upload stopped", func(p *peer) error {
			if err := p.enter("stops in a packet", 0); err != nil {
				return err
			}
			return p.Send(p.packet("file", content, 30_000, 1)[:9000])
		}},
		{"stops between two packets", "timeout: upload stopped", func(p *peer) error {
			if err := p.enter("stops between packets", 0); err != nil {
				return err
			}
			return p.Send(p.packet("file", content, 3000, 1))
		}},
		{"stops in the fields of a packet", "timeout: message not completed", func(p *peer) error {
			if err := p.enter("stops in the fields", 0); err != nil {
				return err
			}
			return p.Send(p.packet("file", content, 3000, 1)[:codec.RequestHeaderSize+50])
		}},
		{"reads no reply", "timeout: replies not read", func(p *peer) error {
			_ = p.provoke(200_000) // ended before it has sent them
			return nil
		}},
	}
	var wg sync.WaitGroup
	for _, c := range cases {
		p := s.deaf()
		wg.Go(func() {
			defer p.close()
			if err := c.do(p); err != nil {
				r.Errorf("%s: %v", c.name, err)
				return
			}
			l, ok := s.await(func(l line) bool {
				return l.Msg == "connection closed" && l.Remote == p.Net.LocalAddr().String()
			})
			switch {
			case !ok:
				r.Errorf("%s: the connection is not ended", c.name)
			case l.Reason != c.reason:
				r.Errorf("%s: ended by %q, not %q", c.name, l.Reason, c.reason)
			}
		})
	}
	var want stored
	moves := s.join("slow but moves", 1)
	wg.Go(func() { // for several times the longest timer
		f := moves.File("file", content)
		b := packet(f, 30_000, 1)
		const pieces = 12
		for i := range pieces {
			if err := moves.Send(b[i*len(b)/pieces : (i+1)*len(b)/pieces]); err != nil {
				r.Errorf("slow but moving: %v", err)
				return
			}
			time.Sleep(idle / 4)
		}
		if err := moves.finish(f); err != nil {
			r.Errorf("slow but moving: %v", err)
		}
		want = moves.stored("file", content)
	})
	chats := s.join("never between two messages", 2)
	wg.Go(func() { // each write ends in the middle of a message
		unknown := codec.RequestHeader{Version: codec.Version, Code: 1111}.Append(nil)
		err := chats.Send(unknown[:5])
		for range 20 {
			if err == nil {
				_, err = chats.Ask(append(unknown[5:len(unknown):len(unknown)], unknown[:5]...), codec.CodeError)
			}
			time.Sleep(handshake / 8)
		}
		if err != nil {
			r.Errorf("messages that come all the time: %v", err)
		}
	})
	wg.Wait()
	moves.close()
	chats.close()
	r.Logf("%d ways to be slow or silent: each is ended by its timer; an upload that moves is whole after %.1f s, with timers of %v and %v",
		len(cases)+1, time.Since(began).Seconds(), handshake, idle)
	r.calm(s)
	if n := r.incoming(s.dir); n > 0 {
		r.Errorf("%d incoming files are left", n)
	}
	r.checkStore(s.dir, []stored{want})
	s.finish()
}

// deaf is a connection into which little fits that is not read: small segments
// and a small buffer keep what the kernels hold below 64 KiB.
func (s *server) deaf() *peer {
	s.r.Helper()
	d := net.Dialer{Timeout: patience, Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 536)
			_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096)
		})
	}}
	c, err := d.Dial("tcp", s.addr)
	if err != nil {
		s.r.Fatalf("%v", err)
	}
	p := &peer{r: s.r}
	if err := p.UseTLS(c, testpeer.Switched()); err != nil {
		s.r.Fatalf("%v", err)
	}
	return p
}

// provoke sends n requests that get a 1607 each.
func (p *peer) provoke(n int) error {
	unknown := codec.RequestHeader{Version: codec.Version, Code: 1111}.Append(nil)
	b := make([]byte, 0, 1000*len(unknown))
	for range 1000 {
		b = append(b, unknown...)
	}
	for range n / 1000 {
		if err := p.Send(b); err != nil {
			return err
		}
	}
	return nil
}
