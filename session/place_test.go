package session

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"sealift/codec"
	"sealift/storage"
)

// place locks a place for the test.
func (ps *places) place(t *testing.T, path string) *place {
	t.Helper()
	p, now := ps.lock(pathKey{path: path}, nil)
	if !now {
		t.Fatalf("%s is locked", path)
	}
	return p
}

// TestPlaceInTurn: a place goes to those that wait for it one after the other, in
// their order, and is gone after the last.
func TestPlaceInTurn(t *testing.T) {
	var ps places
	p := ps.place(t, "f")
	var order []int
	for i := range 5 {
		if _, now := ps.lock(p.key, func() { order = append(order, i) }); now {
			t.Fatal("two have the place")
		}
	}
	for i := range 5 {
		if p.unlock(); !slices.Equal(order, []int{0, 1, 2, 3, 4}[:i+1]) {
			t.Fatalf("after %d unlocks the turns were %v", i+1, order)
		}
	}
	if p.unlock(); len(ps.all) != 0 {
		t.Errorf("%d places are kept", len(ps.all))
	}
}

// TestPlaceRemembers: what a place holds is there for the next who locks it, until it
// is taken or too old.
func TestPlaceRemembers(t *testing.T) {
	var ps places
	now := time.Unix(1_700_000_000, 0)
	f := &storage.File{Path: "f", Received: now}
	p := ps.place(t, "f")
	p.setWaits(f)
	p.setLapsed(true)
	p.unlock()
	p = ps.place(t, "f")
	if got := p.takeWaits(now.Add(freshFor)); got != f {
		t.Errorf("the file that waits is %v", got)
	}
	if got := p.takeWaits(now); got != nil {
		t.Error("it is there after it was taken")
	}
	if p.setWaits(f); p.takeWaits(now.Add(freshFor+1)) != nil {
		t.Error("it is trusted for too long")
	}
	if !p.setLapsed(false) || p.setLapsed(false) {
		t.Error("the mark was not there once")
	}
	if p.unlock(); len(ps.all) != 0 || ps.waits != 0 || ps.lapsed != 0 {
		t.Errorf("%d places, %d files, %d marks are kept", len(ps.all), ps.waits, ps.lapsed)
	}
}

// TestPlacesAreBounded: files that wait are forgotten when they are too many, and no
// place is kept for them.
func TestPlacesAreBounded(t *testing.T) {
	var ps places
	for i := range 3*maxWaits + 5 {
		p := ps.place(t, fmt.Sprint(i))
		p.setWaits(&storage.File{})
		p.unlock()
		if len(ps.all) > maxWaits || ps.waits != len(ps.all) {
			t.Fatalf("%d places, %d files", len(ps.all), ps.waits)
		}
	}
	if len(ps.all) != 5 {
		t.Errorf("%d places, want 5", len(ps.all))
	}
}

// TestMaintenanceClearsThePlace: a file that maintenance dropped, or recorded as
// verified, does not wait any more, there is nothing to settle, and it does not count.
func TestMaintenanceClearsThePlace(t *testing.T) {
	for what, tell := range map[string]func(*Service, *storage.File){
		"dropped":  func(svc *Service, f *storage.File) { svc.Dropped(f, true) },
		"finished": func(svc *Service, f *storage.File) { svc.Finished(f) },
	} {
		svc := NewService(Config{})
		f := &storage.File{ID: codec.ClientID{1}, Path: "f"}
		svc.Waiting(f.ID, Occupies(f.Size))
		p, _ := svc.places.lock(pathKey{f.ID, f.Path}, nil)
		p.setWaits(f)
		p.setUnsettled(&commitment{file: f})
		p.unlock()
		svc.Exclusive(f.ID, f.Path, func() { tell(svc, f) })
		if len(svc.places.all) != 0 || svc.places.waits != 0 || svc.Unverified(f.ID) != 0 {
			t.Errorf("%s: %d places, %d files that wait, %d bytes that count", what, len(svc.places.all), svc.places.waits, svc.Unverified(f.ID))
		}
	}
}
