package transfer_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/storage"
	"sealift/transfer"
)

func (f *files) Reopen(_ context.Context, up storage.Uploaded, _ storage.Announced, length int64) (storage.Incoming, error) {
	if err := f.call(); err != nil {
		return nil, err
	}
	b, ok := f.incoming[up.Key]
	if !ok || int64(len(b)) < length {
		return nil, storage.ErrNotStored
	}
	f.incoming[up.Key] = b[:length:length]
	f.open++
	return &incoming{f, up.Key}, nil
}

// goOn is a caller for what follows the first offset bytes of a file, of which c has the store.
func (c *caller) goOn(l layout, file []byte, w transfer.Written, size int) *caller {
	plan, packets := l.packets(file[w.Length:], size)
	next := newCaller(c.t, plan, true)
	next.files, next.buffer = c.files, c.buffer
	next.tr = transfer.New(transfer.Options{
		Plan: plan, FirstKnown: true, Key: &key, MaxSize: int64(len(file)), Memory: next.memory, Files: c.files, Place: storage.Place{Path: "f"},
		Segment: &transfer.Segment{Key: w.Key, Offset: w.Length, State: w.State, Total: int64(len(file))},
	})
	for _, p := range packets {
		if err := next.take(p); err != nil {
			c.t.Fatal(err)
		}
	}
	if err := next.all(nil); err != nil {
		c.t.Fatal(err)
	}
	return next
}

// TestParked: a transfer that is parked after any packet, with some that came early, says how far it is,
// and another transfer goes on from there, in any layout: the file is the same.
func TestParked(t *testing.T) {
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 9))
		l, m := layouts[r.IntN(len(layouts))], layouts[r.IntN(len(layouts))]
		file := random(seed, []int{17, 4000, 70_000}[r.IntN(3)])
		size := []int{16, 100, 1000, 70_000}[r.IntN(4)]
		t.Run(fmt.Sprint(seed, " ", l, ", then ", m, ", ", len(file), " in ", size), func(t *testing.T) {
			plan, packets := l.packets(file, size)
			c := newCaller(t, plan, true)
			c.buffer = []int{40, 1000, 100_000}[r.IntN(3)]
			packets = packets[:r.IntN(len(packets))]
			if n := len(packets); n > 3 && r.IntN(2) == 0 { // one is missing
				packets = append(packets[:n/2:n/2], packets[n/2+1:]...)
			}
			for _, p := range packets {
				if err := c.take(p); err != nil {
					t.Fatal(err)
				}
			}
			c.push()
			if err := c.work(); err != nil && len(packets) > 0 {
				t.Fatal(err)
			}
			if err := c.tr.Park(t.Context()); err != nil {
				t.Fatal(err)
			}
			c.tr.Forget()
			w := c.tr.Written()
			h := cksum.Resume(w.State, uint64(w.Length))
			if h.Sum32() != cksum.Checksum(file[:w.Length]) || w.Length != c.tr.Length() {
				t.Fatalf("written is %+v, and not the beginning of the file", w)
			}
			if w.Key == "" {
				return
			}
			c.files.incoming[w.Key] = append(c.files.incoming[w.Key], "what came behind"...)
			next := c.goOn(m, file, w, size)
			next.received(file)
			if got := next.tr.Received().Key; got != w.Key {
				t.Errorf("the file is %s, and was %s", got, w.Key)
			}
		})
	}
}

// TestSegmentTooLong: content beyond the size of the whole file is refused, where no packet has said it.
func TestSegmentTooLong(t *testing.T) {
	file := random(1, 1000)
	c := newCaller(t, codec.Plan{}, true)
	c.files.incoming = map[string][]byte{"key": file[:500]}
	w := transfer.Written{Key: "key", Length: 500}
	h := cksum.Resume(0, 0)
	_, _ = h.Write(file[:500])
	w.State = h.State()
	_, packets := layouts[4].packets(append(file[500:], 0), 100)
	plan, _ := layouts[4].packets(append(file[500:], 0), 100)
	c.tr = transfer.New(transfer.Options{
		Plan: plan, FirstKnown: true, Key: &key, MaxSize: 1000, Memory: c.memory, Files: c.files, Place: storage.Place{Path: "f"},
		Segment: &transfer.Segment{Key: "key", Offset: 500, State: w.State, Total: 1000},
	})
	var err error
	for _, p := range packets {
		if err = c.take(p); err != nil {
			break
		}
	}
	if err == nil {
		err = c.all(nil)
	}
	if !errors.Is(err, transfer.ErrTooLarge) {
		t.Errorf("%v", err)
	}
}
