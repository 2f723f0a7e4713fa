package files

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"sealift/storage"
)

// ahead returns a store, and what it asks of the disk from now on: each write,
// reservation and flush with the bytes of room that are granted for it.
func ahead(t *testing.T, o Options, fail func(Op) error) (*Store, *[]string) {
	t.Helper()
	var s *Store
	var steps []string
	o.MinFree = 1 // so that room is granted at all
	o.Faults = &Faults{Before: func(step Step) error {
		switch step.Op {
		case Write, Reserve, Flush, Await:
			steps = append(steps, fmt.Sprintf("%s %dK", step.Op, s.space.pending>>10))
		}
		return fail(step.Op)
	}}
	s = open(t, t.TempDir(), o)
	return s, &steps
}

func noFault(Op) error { return nil }

// Blocks are reserved ahead of what is written: as much again as there is, no more
// than the client announced, and none for a small file. What has its blocks takes
// no more room when it is written.
func TestBlocksAheadOfContent(t *testing.T) {
	const piece = 128 << 10
	for _, tt := range []struct {
		size   storage.Announced
		fail   func(Op) error
		pieces int
		want   []string
	}{
		{storage.Announce(1 << 20), noFault, 8, []string{
			"write 128K",
			"reserve 384K", "write 0K", // 128 to 512
			"write 0K", "write 0K",
			"reserve 512K", "write 0K", // 512 to 1024, and not to 1280
			"write 0K", "write 0K", "write 0K",
		}},
		{storage.Announce(2 * piece), noFault, 2, []string{"write 128K", "write 128K"}}, // nothing comes after the second
		{storage.Announced{}, noFault, 3, []string{"write 128K", "write 128K", "write 128K"}},
		{storage.Announce(1 << 20), func(op Op) error {
			if op == Reserve {
				return errors.ErrUnsupported
			}
			return nil
		}, 4, []string{"write 128K", "reserve 384K", "write 128K", "write 128K", "write 128K"}},
		{storage.Announce(3*piece + 1), noFault, 4, []string{"write 128K", "reserve 256K", "write 0K", "write 0K", "write 127K"}},
	} {
		s, steps := ahead(t, Options{}, tt.fail)
		in, err := s.Create(t.Context(), placeOf("new"), tt.size)
		if err != nil {
			t.Fatal(err)
		}
		for range tt.pieces {
			if _, err := in.Write(t.Context(), make([]byte, piece)); err != nil {
				t.Fatal(err)
			}
		}
		if err := in.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if !slices.Equal(*steps, tt.want) {
			t.Errorf("size %v: %q, want %q", tt.size, *steps, tt.want)
		}
	}
}

// A reservation is never of more than maxAhead bytes and the piece that is being
// written.
func TestMostBlocksAhead(t *testing.T) {
	s, steps := ahead(t, Options{}, noFault)
	f, err := s.Create(t.Context(), placeOf("new"), storage.Announce(4<<30))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close(t.Context())
	in := f.(*incoming)
	in.size = 1 << 30
	if _, err := in.Write(t.Context(), make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if want := []string{"reserve 66560K", "write 0K"}; !slices.Equal(*steps, want) {
		t.Errorf("%q, want %q", *steps, want)
	}
}

// The disk begins to write what will be synced each time that flushEvery bytes
// have gathered, and where nothing is synced, never.
func TestContentIsFlushedOnTheWay(t *testing.T) {
	const piece = 2 << 20
	for _, fsync := range []bool{true, false} {
		s, steps := ahead(t, Options{Fsync: fsync}, noFault)
		in, err := s.Create(t.Context(), placeOf("new"), storage.Announced{})
		if err != nil {
			t.Fatal(err)
		}
		for range 9 {
			if _, err := in.Write(t.Context(), make([]byte, piece)); err != nil {
				t.Fatal(err)
			}
		}
		if err := in.Close(t.Context()); err != nil {
			t.Error(err)
		}
		var want []string
		for i := range 9 {
			want = append(want, "write 2048K")
			if fsync && i%4 == 3 {
				want = append(want, "flush 0K")
			}
		}
		if !slices.Equal(*steps, want) {
			t.Errorf("fsync %v: %q, want %q", fsync, *steps, want)
		}
	}
}

// While small files are made durable, an upload sends what it writes to the disk in small pieces,
// and waits for each before it sends the one after the next.
func TestUploadsLetSmallFilesPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var failure error
		s, steps := ahead(t, Options{Fsync: true}, func(op Op) error {
			if op == Await {
				return failure
			}
			return nil
		})
		in, err := s.Create(t.Context(), placeOf("large"), storage.Announced{})
		if err != nil {
			t.Fatal(err)
		}
		write := func() (string, error) {
			before := len(*steps)
			_, err := in.Write(t.Context(), make([]byte, 1<<20))
			return strings.Join((*steps)[before:], ", "), err
		}
		wants := func(want string, times int) {
			t.Helper()
			for i := range times {
				if got, err := write(); got != want || err != nil {
					t.Errorf("write %d: %q, %v, want %q", i+1, got, err, want)
				}
			}
		}
		small := func() { commit(t, s, waiting(receive(t, s, "small"), "small", "small")) }

		wants("write 1024K", 3)
		small()
		wants("write 1024K, flush 0K", 1)
		wants("write 1024K, flush 0K, await 0K", 3)
		time.Sleep(turnTime)
		wants("write 1024K", 7)
		wants("write 1024K, flush 0K", 1)
		small()
		wants("write 1024K, flush 0K, await 0K", 1)

		failure = syscall.EIO
		if got, err := write(); !errors.Is(err, storage.ErrNotDurable) {
			t.Errorf("%q: %v, want ErrNotDurable", got, err)
		}
		if err := s.Flush(t.Context(), storage.Uploaded{Place: placeOf("large"), Key: in.Key()}, 0); !errors.Is(err, storage.ErrNotStored) {
			t.Errorf("Flush of what the disk may not have: %v", err)
		}
		_ = in.Close(t.Context())
	})
}
