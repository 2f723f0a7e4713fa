//go:build linux

package soak

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"sealift/client"
	"sealift/codec"
	"sealift/internal/testpeer"
)

// Lengths of the messages of a session with one file in one packet.
const (
	upRegister = codec.RequestHeaderSize + codec.NameSize
	upKey      = codec.RequestHeaderSize + codec.NameSize + codec.PublicKeySize
	upFile     = codec.RequestHeaderSize + codec.SendFileFieldsSize + smallCipher
	upVerdict  = codec.RequestHeaderSize + codec.NameSize
	upAll      = upRegister + upKey + upFile + upVerdict
	downID     = codec.ResponseHeaderSize + codec.IDSize
	downKey    = codec.ResponseHeaderSize + codec.IDSize + codec.WrappedKeySize
	downFile   = codec.ResponseHeaderSize + codec.IDSize + 4 + codec.NameSize + 4
	downAll    = downID + downKey + downFile + downID
	// About what TLS adds: the handshake without a client certificate, and 22 bytes
	// for each record.
	upTLS, downTLS = 1750, 2150

	smallSize   = 40 // bytes of the file
	smallCipher = 48
)

// positions are the places of a whole session, register to 1604, where damage
// is done: all of them, or those near the ends of messages and every step-th of
// the others.
func positions(step int) (places []damage) {
	add := func(up bool, all int, ends ...int) {
		near := func(at int) bool {
			for _, e := range ends {
				if at >= e-1 && at <= e {
					return true
				}
			}
			return false
		}
		for at := range all {
			if at%step == 0 || near(at) {
				places = append(places, damage{up: up, at: at})
			}
		}
	}
	if testpeer.OverTLS() { // the ends of messages are somewhere in records
		add(true, upAll+upTLS)
		add(false, downAll+downTLS)
		return places
	}
	add(true, upAll, upRegister, upRegister+upKey, upAll-upVerdict)
	add(false, downAll, downID, downID+downKey, downAll-downID)
	return places
}

// trials runs clients behind proxies and collects what they say.
type trials struct {
	*run
	s     *server
	mu    sync.Mutex
	want  []stored
	fatal map[string]int // the clients that gave up, by their reasons
	next  atomic.Int64
}

func (r *run) newTrials(s *server) *trials { return &trials{run: r, s: s, fatal: make(map[string]int)} }

// each runs try for every damage, a few at a time.
func (t *trials) each(all []damage, try func(d damage, name string)) {
	var wg sync.WaitGroup
	todo := make(chan damage)
	for range 8 {
		wg.Go(func() {
			for d := range todo {
				try(d, fmt.Sprintf("client %d", t.next.Add(1)))
			}
		})
	}
	for _, d := range all {
		todo <- d
	}
	close(todo)
	wg.Wait()
}

func (t *trials) succeeded(f stored) {
	t.mu.Lock()
	t.want = append(t.want, f)
	t.mu.Unlock()
}

func (t *trials) gaveUp(reason string) {
	t.mu.Lock()
	t.fatal[reason]++
	t.mu.Unlock()
}

// library sends a file with the client library, and returns what it says. The
// proxy has done its damage if it has come to the place.
func (t *trials) library(d damage, name string, content []byte, packet int, reply time.Duration) (*client.Client, error) {
	p, err := t.s.proxied(d)
	if err != nil {
		t.Errorf("%v", err)
		return nil, err
	}
	defer p.close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	o := client.Options{
		Server: p.addr(), Name: name, PacketSize: packet, ReplyTimeout: reply,
		Backoff: func(int) time.Duration { return time.Millisecond },
	}
	if testpeer.OverTLS() {
		o.TLS = client.TLS{Mode: client.TLSOn, TrustFirst: true}
		o.Known = client.KnownServersFile(filepath.Join(t.TempDir(), "known_servers"))
	}
	c, err := client.Dial(ctx, o)
	if err == nil {
		defer c.Close()
		if _, err = c.Login(ctx); err == nil {
			_, err = c.Send(ctx, "file", bytes.NewReader(content), int64(len(content)))
		}
	}
	if ctx.Err() != nil {
		t.Errorf("damage %+v: the client hangs", d)
	}
	if e := (*client.Error)(nil); err != nil && !errors.As(err, &e) {
		t.Errorf("damage %+v: %v, which is none of the client's errors", d, err)
	}
	return c, err
}

// reason is the sentinel of an error of the client.
func reason(err error) string {
	for _, e := range []error{client.ErrTLS, client.ErrNameTaken, client.ErrServer, client.ErrKey, client.ErrChecksum, client.ErrRejected, client.ErrConnection, client.ErrReply} {
		if errors.Is(err, e) {
			return e.Error()
		}
	}
	return err.Error()
}
