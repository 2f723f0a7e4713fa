package client_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"testing"

	"sealift/client"
	"sealift/internal/fakeserver"
)

// stuck waits for whoever releases it, and tells that it does.
type stuck struct{ entered, release chan struct{} }

func newStuck(t *testing.T) stuck {
	s := stuck{make(chan struct{}, 100), make(chan struct{})}
	t.Cleanup(func() { close(s.release) })
	return s
}

func (s stuck) wait() {
	s.entered <- struct{}{}
	<-s.release
}

// ReadAt is a file on a disk that does not answer.
func (s stuck) ReadAt([]byte, int64) (int, error) {
	s.wait()
	return 0, errDisk
}

// Load and Save are of a store that does not answer.
func (s stuck) Load(string) (*client.Facts, error) { s.wait(); return nil, nil }
func (s stuck) Save(string, client.Facts) error    { s.wait(); return nil }

// onlySave is a store that answers when it is asked.
type onlySave struct{ stuck }

func (onlySave) Load(string) (*client.Facts, error) { return nil, nil }

// cancelled makes sure that call returns when its context ends, while it waits
// in s.
func cancelled(t *testing.T, s stuck, call func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-s.entered
		cancel()
	}()
	if err := call(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want that it was cancelled", err)
	}
}

// Each call ends with its context, wherever it waits.
func TestCallsEndWithTheirContext(t *testing.T) {
	t.Run("a file that cannot be read", func(t *testing.T) {
		s, server := newStuck(t), fakeserver.New(t)
		c := login(t, options(server))
		cancelled(t, s, func(ctx context.Context) error {
			_, err := c.Send(ctx, "f", s, 1<<20)
			return err
		})
		if _, err := send(c, "g", pattern(10)); err != nil {
			t.Errorf("the next file: %v", err)
		}
	})
	t.Run("a connection of the user's", func(t *testing.T) {
		s, server := newStuck(t), fakeserver.New(t)
		o := options(server)
		o.DialContext = func(context.Context, string, string) (net.Conn, error) {
			s.wait()
			return nil, errDisk
		}
		cancelled(t, s, func(ctx context.Context) error {
			_, err := client.Dial(ctx, o)
			return err
		})
	})
	t.Run("known servers, to be read", func(t *testing.T) {
		s, server := newStuck(t), fakeserver.New(t)
		o := options(server)
		o.Known = s
		cancelled(t, s, func(ctx context.Context) error {
			_, err := client.Dial(ctx, o)
			return err
		})
	})
	t.Run("known servers, to be written", func(t *testing.T) {
		s, server := newStuck(t), fakeserver.New(t)
		o := options(server)
		o.Known, o.Dialect = onlySave{s}, client.Auto
		c := login(t, o)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-s.entered
			cancel()
		}()
		if _, err := c.Send(ctx, "f", bytes.NewReader(pattern(100)), 100); err != nil {
			t.Errorf("the file is stored: %v", err)
		}
		if ctx.Err() == nil {
			t.Error("nothing was to be kept")
		}
	})
}
