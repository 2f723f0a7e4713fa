//go:build linux

package soak

import (
	"fmt"
	"testing"

	"sealift/codec"
	"sealift/internal/testpeer"
)

// TestBegun has a client begin transfer after transfer on one connection.
func TestBegun(t *testing.T) {
	r := newRun(t)
	n := r.size(4000, 50_000)
	const most = 16 // the default of --max-uploads-per-connection
	s := r.start(r.TempDir())
	p := s.join("beginner", 0)
	p.mustUpload("warm", pattern(1, 100_000), 1000)
	s.resetPeak()
	before := s.rss()
	content := pattern(r.seed, 5000)
	one := *p.File("", content)
	file := func(i int) *testpeer.File {
		f := one
		f.Name = fmt.Sprint("file ", i)
		return &f
	}
	sent := make(chan error, 1)
	go func() {
		for i := range n {
			if err := p.Send(packet(file(i), 1000, 1)); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for i := range n - most {
		if code, _, err := p.Read(); err != nil || code != codec.CodeError {
			r.Fatalf("transfer %d too many: %v %v", i+1, code, err)
		}
	}
	if err := <-sent; err != nil {
		r.Fatalf("%v", err)
	}
	// The first ones go on as if nothing had been.
	var want []stored
	for i := range most {
		f := file(i)
		for k := 2; k <= 6; k++ {
			if err := p.Send(packet(f, 1000, k)); err != nil {
				r.Fatalf("%v", err)
			}
		}
		if err := p.finish(f); err != nil {
			r.Fatalf("%s: %v", f.Name, err)
		}
		want = append(want, p.stored(f.Name, content))
	}
	r.Logf("%d transfers begun on a connection: %d are taken and finished, the rest get 1607; memory +%d KiB", n, most, s.grown(before, 1))
	p.close()
	r.calm(s)
	r.checkStore(s.dir, want)
	s.finish()
}
