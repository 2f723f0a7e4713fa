package transfer_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"sealift/codec"
	"sealift/storage"
	"sealift/transfer"
)

// orders are the ways to send packets: in their turn, or early and kept in memory
// or in the scratch room.
var orders = map[string]func(c *caller, packets []packet) []packet{
	"in order": func(_ *caller, p []packet) []packet { return p },
	"kept": func(_ *caller, p []packet) []packet {
		slices.Reverse(p)
		return p
	},
	"aside": func(c *caller, p []packet) []packet {
		c.memory.grants = func(int) bool { return false }
		slices.Reverse(p)
		return p
	},
}

// TestOffences: what is wrong with a transfer is found in any order, and said by its
// name.
func TestOffences(t *testing.T) {
	whole, each := layout{scheme: codec.WholeFile, first: 1}, layout{scheme: codec.PerPacket, first: 1}
	for _, tt := range []struct {
		name   string
		layout layout
		spoil  func(plan *codec.Plan, packets []packet)
		want   error
	}{
		{"damaged", whole, func(_ *codec.Plan, p []packet) { last(p).content[len(last(p).content)-1] ^= 1 }, transfer.ErrPadding},
		{"one packet damaged", each, func(_ *codec.Plan, p []packet) { p[1].content[len(p[1].content)-1] ^= 1 }, transfer.ErrPadding},
		{"not whole blocks", each, func(_ *codec.Plan, p []packet) { p[1].content = p[1].content[1:] }, transfer.ErrPadding},
		{"another size", whole, func(plan *codec.Plan, _ []packet) { plan.OrigSize++ }, transfer.ErrOrigSize},
		{"another size of a packet", each, func(_ *codec.Plan, p []packet) { p[1].orig-- }, transfer.ErrOrigSize},
		{"too little", whole, func(_ *codec.Plan, p []packet) { last(p).content = last(p).content[1:] }, transfer.ErrNotWhole},
		{"filled up with ones", whole, func(_ *codec.Plan, p []packet) { last(p).content = append(last(p).content, 1) }, transfer.ErrNotZero},
		{"filled up before the last", whole, func(_ *codec.Plan, p []packet) {
			before := &p[len(p)-2].content
			*before = append(append(*before, last(p).content...), 0)
			clear(last(p).content)
		}, transfer.ErrNotZero},
		{"too much before the last", whole, func(_ *codec.Plan, p []packet) {
			p[len(p)-2].content = append(p[len(p)-2].content, make([]byte, 200)...)
		}, transfer.ErrNotZero},
	} {
		for name, order := range orders {
			t.Run(tt.name+", "+name, func(t *testing.T) {
				plan, packets := tt.layout.packets(random(1, 500), 100)
				for i := range packets {
					packets[i].content = slices.Clone(packets[i].content)
				}
				tt.spoil(&plan, packets)
				c := newCaller(t, plan, true)
				if err := c.all(order(c, packets)); !errors.Is(err, tt.want) {
					t.Errorf("got %v, want %v", err, tt.want)
				}
				c.abandoned()
			})
		}
	}
}

func last(p []packet) *packet { return &p[len(p)-1] }

// TestTooLarge: where nobody says how large the file is, it ends at the limit.
func TestTooLarge(t *testing.T) {
	plan, packets := layout{scheme: codec.PerPacket, first: 1}.packets(random(1, 500), 100)
	c := newCaller(t, plan, true)
	c.tr = transfer.New(transfer.Options{Plan: plan, FirstKnown: true, Key: &key, MaxSize: 499, Memory: c.memory, Files: c.files})
	if err := c.all(packets); !errors.Is(err, transfer.ErrTooLarge) {
		t.Error(err)
	}
	c.abandoned()
}

// abandoned checks that nothing is left of a transfer that is given up.
func (c *caller) abandoned() {
	c.t.Helper()
	c.tr.Forget()
	c.files.fail = 0
	if c.tr.Leaves() {
		if err := c.tr.Abandon(context.Background()); err != nil {
			c.t.Error(err)
		}
	}
	if c.memory.held != 0 || c.files.open != 0 || len(c.files.incoming) != 0 {
		c.t.Errorf("%d bytes of memory are held, %d files open, %d files left", c.memory.held, c.files.open, len(c.files.incoming))
	}
}

// TestStoreFails: whichever call of the store fails, the transfer says so, and
// nothing is left of it.
func TestStoreFails(t *testing.T) {
	for name, order := range orders {
		for n := 1; ; n++ {
			plan, packets := layout{scheme: codec.WholeFile, first: 1}.packets(random(1, 500), 100)
			c := newCaller(t, plan, true)
			c.files.fail = n
			err := c.all(order(c, packets))
			if c.files.fail > 0 { // so many calls there are not
				if err != nil || n < 3 {
					t.Errorf("%s: %d calls, %v", name, n-1, err)
				}
				break
			}
			if !errors.Is(err, errStore) {
				t.Errorf("%s: call %d fails, got %v", name, n, err)
			}
			c.abandoned()
		}
	}
}

var errStore = errors.New("the store failed")

// files is a storage.Files for transfers alone. The call number fail fails.
type files struct {
	storage.Files
	fail     int
	incoming map[string][]byte
	open     int // incoming files and scratch rooms
}

func (f *files) call() error {
	if f.fail--; f.fail == 0 {
		return errStore
	}
	return nil
}

func (f *files) Create(context.Context, storage.Place, storage.Announced) (storage.Incoming, error) {
	if err := f.call(); err != nil {
		return nil, err
	}
	if f.incoming == nil {
		f.incoming = make(map[string][]byte)
	}
	key := fmt.Sprint("key", len(f.incoming))
	f.incoming[key] = nil
	f.open++
	return &incoming{f, key}, nil
}

func (f *files) Discard(_ context.Context, up storage.Uploaded) error {
	delete(f.incoming, up.Key)
	return nil
}

func (f *files) Scratch(context.Context) (storage.Scratch, error) {
	if err := f.call(); err != nil {
		return nil, err
	}
	f.open++
	return &scratch{f: f}, nil
}

type incoming struct {
	f   *files
	key string
}

func (in *incoming) Key() string { return in.key }

func (in *incoming) Write(_ context.Context, p []byte) (int, error) {
	if err := in.f.call(); err != nil {
		return 0, err
	}
	in.f.incoming[in.key] = append(in.f.incoming[in.key], p...)
	return len(p), nil
}

func (in *incoming) Complete(ctx context.Context) error { return in.Close(ctx) }

func (in *incoming) Close(context.Context) error {
	in.f.open--
	return in.f.call()
}

type scratch struct {
	f *files
	b []byte
}

func (s *scratch) WriteAt(p []byte, off int64) (int, error) {
	if err := s.f.call(); err != nil {
		return 0, err
	}
	if more := int(off) + len(p) - len(s.b); more > 0 {
		s.b = append(s.b, make([]byte, more)...)
	}
	return copy(s.b[off:], p), nil
}

func (s *scratch) ReadAt(p []byte, off int64) (int, error) {
	if err := s.f.call(); err != nil {
		return 0, err
	}
	if off >= int64(len(s.b)) {
		return 0, io.EOF
	}
	n := copy(p, s.b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (s *scratch) Close() error {
	s.f.open--
	return s.f.call()
}
