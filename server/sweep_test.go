package server

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"sealift/storage"
	"sealift/storage/s3"
)

// gate is content of which no more than the first bytes are read until it is open.
type gate struct {
	bytes.Reader
	first int64
	open  chan struct{}
}

func (g *gate) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > g.first {
		<-g.open
	}
	return g.Reader.ReadAt(p, off)
}

// What a server has left in a bucket that was killed goes, when its lease ran out. What comes in
// is renewed and stays, however slow it is.
func TestSweep(t *testing.T) {
	s := serveOn(t, Storage{Files: bucket(t)}, func(o *Options) {
		o.Testing.Lease, o.Testing.ReapAfter, o.Testing.SweepEvery = 300*time.Millisecond, time.Millisecond, 20*time.Millisecond
	})
	c, err := dial(t, s, "anna", nil)
	if err != nil {
		t.Fatal(err)
	}
	content := bytes.Repeat([]byte("content "), 5<<20)
	slow := &gate{first: 20 << 20, open: make(chan struct{})}
	slow.Reset(content)
	sent := make(chan error, 1)
	go func() {
		_, err := c.Send(t.Context(), "slow", slow, int64(len(content)))
		sent <- err
	}()
	until(t, "the slow upload has a lease", func() bool { return len(s.store.(leased).Leased()) == 1 })

	// Another server of the store, which is killed.
	killed, err := s3.Open(t.Context(), s.o.Storage.Files, s3.Options{
		Scratch: t.TempDir(), Lease: func(ctx context.Context, up storage.Uploaded) error {
			// For so long that the other lease would run out, too.
			return applyOwn(ctx, s.registry, &storage.LeaseUpload{Upload: up, Server: "killed", For: time.Second})
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer killed.Close()
	in, err := killed.Create(t.Context(), storage.Place{ID: c.Identity().ID, Path: "left"}, storage.Announced{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(t.Context(), []byte("content")); err != nil {
		t.Fatal(err)
	}
	if err := in.Complete(t.Context()); err != nil {
		t.Fatal(err)
	}
	left := storage.Uploaded{Place: storage.Place{ID: c.Identity().ID, Path: "left"}, Key: in.Key()}
	until(t, "what was left goes", func() bool {
		_, err := s.store.Size(t.Context(), left)
		return errors.Is(err, storage.ErrNotStored)
	})
	close(slow.open)
	if err := <-sent; err != nil {
		t.Errorf("the slow upload: %v", err)
	}
	if !bytes.Equal(stored(t, s, c, "slow"), content) {
		t.Error("the content is another")
	}
}
