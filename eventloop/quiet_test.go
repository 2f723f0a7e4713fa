package eventloop

import (
	"context"
	"io"
	"testing"
	"time"

	"go.uber.org/zap"

	"sealift/codec"
	"sealift/session"
)

// past is a host whose sessions were served a while ago.
type past struct{}

func (past) Send([]byte)                                    {}
func (past) Do(session.Lane, func(context.Context), func()) {}
func (past) Apply(session.Operation, func(error))           {}
func (past) Buffer(int) []byte                              { return nil }
func (past) Release([]byte)                                 {}
func (past) Hold(int) bool                                  { return false }
func (past) Unhold(int)                                     {}
func (past) Hangup(string)                                  {}
func (past) Now() time.Time                                 { return time.Now().Add(-time.Minute) }

// TestLeftOutIsTold: refusals that were left out of the log are told by the tick, and at
// the end of the server those of the last seconds.
func TestLeftOutIsTold(t *testing.T) {
	// While held is not told, no tick begins: each is at its end.
	ticked, held := make(chan struct{}), make(chan struct{})
	r := start(t, func(o *Options, _ *session.Config) {
		o.tick = 10 * time.Millisecond
		o.Alive = func() {
			select {
			case ticked <- struct{}{}:
				<-held
			case <-held:
			}
		}
	})
	left := func() (n int64) {
		for _, line := range r.logs.FilterMessage("refusals left out").All() {
			n += line.ContextMap()["left_out"].(int64)
		}
		return n
	}
	offence := codec.Register{Name: []byte("alice")}.Append(nil)
	offence[16] = 4 // the version
	s := session.New(r.opts.Service, past{}, "192.0.2.1:1")
	<-ticked // or the tick would tell of those that have come so far
	for range 25 {
		s.Feed(offence)
	}
	held <- struct{}{}
	<-ticked // the next one has come to its end
	close(held)
	if n := left(); n != 5 {
		t.Errorf("by the tick: %d refusals, want 5", n)
	}

	c := r.raw()
	for range 27 {
		if _, err := c.Write(offence); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, codec.ResponseHeaderSize)); err != nil {
			t.Fatal(err)
		}
	}
	r.stop()
	if err := r.wait(); err != nil {
		t.Fatal(err)
	}
	if n := left(); n != 5+7 {
		t.Errorf("in the end: %d refusals, want 12; %v", n, r.logs.FilterLevelExact(zap.WarnLevel).All())
	}
}
