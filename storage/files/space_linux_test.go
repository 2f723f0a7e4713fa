package files

import (
	"errors"
	"io"
	"math"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"sealift/storage"
)

// small is a disk of so many free bytes, which what is written takes away.
func small(t *testing.T, free int64, o Options) *Store {
	var used atomic.Int64
	o.Faults = &Faults{Free: func(int64) int64 { return free - used.Load() }}
	s := open(t, t.TempDir(), o)
	s.faults.After = func(step Step, err error) error {
		if step.Op == Write {
			used.Add(1000)
		}
		return err
	}
	return s
}

// Content is refused once the reserve would be taken, however many write at once,
// and not before; what is complete can be committed.
func TestReserveOfSpace(t *testing.T) {
	const reserve, fits = 1 << 20, 900
	s := small(t, reserve+fits*1000+999, Options{MinFree: reserve})
	var written atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		in, err := s.Create(t.Context(), placeOf("new"), storage.Announced{})
		if err != nil {
			t.Fatal(err)
		}
		sc, err := s.Scratch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer sc.Close()
			for i := 0; ; i++ {
				w := func(p []byte) (int, error) { return in.Write(t.Context(), p) }
				if i%2 == 1 {
					w = func(p []byte) (int, error) { return sc.WriteAt(p, int64(i)*1000) }
				}
				if _, err := w(make([]byte, 1000)); err != nil {
					if !errors.Is(err, storage.ErrFull) {
						t.Errorf("Write: %v, want ErrFull", err)
					}
					break
				}
				written.Add(1)
			}
			if err := in.Close(t.Context()); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
	wg.Wait()
	// What is being written at the moment counts twice.
	if n := written.Load(); n > fits || n < fits-8 {
		t.Errorf("%d writes of 1000 bytes, want %d", n, fits)
	}
	if s.space.pending != 0 {
		t.Errorf("%d bytes are still taken for being written", s.space.pending)
	}
}

func TestCreateWithoutSpace(t *testing.T) {
	for _, tt := range []struct {
		free, reserve int64
		want          error
	}{
		{999, 1000, storage.ErrFull}, {1000, 1000, nil}, {0, 0, nil}, {-5, 0, nil}, {math.MaxInt64, 1, nil},
	} {
		s := small(t, tt.free, Options{MinFree: tt.reserve})
		if _, err := s.Create(t.Context(), placeOf("new"), storage.Announce(5<<30)); !errors.Is(err, tt.want) {
			t.Errorf("%d free, %d reserved: %v, want %v", tt.free, tt.reserve, err, tt.want)
		}
	}
}

// Others fill the disk: that is noticed at the next upload, and within askEvery
// bytes of one under way.
func TestOthersFillTheDisk(t *testing.T) {
	free := int64(1 << 30)
	s := open(t, t.TempDir(), Options{MinFree: 1 << 20, Faults: &Faults{Free: func(int64) int64 { return free }}})
	in, err := s.Create(t.Context(), placeOf("new"), storage.Announced{})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close(t.Context())
	if _, err := in.Write(t.Context(), make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	free = 1<<20 - 1
	n := 0
	for err == nil {
		n, err = n+1000, nil
		_, err = in.Write(t.Context(), make([]byte, 1000))
	}
	if !errors.Is(err, storage.ErrFull) || n > askEvery {
		t.Errorf("%v after %d bytes, want ErrFull after %d", err, n, askEvery)
	}
	for range 2 {
		if _, err := s.Create(t.Context(), placeOf("new"), storage.Announced{}); !errors.Is(err, storage.ErrFull) {
			t.Errorf("Create: %v, want ErrFull", err)
		}
		free = 1 << 30
		if _, err := s.Create(t.Context(), placeOf("new"), storage.Announced{}); err != nil {
			t.Errorf("Create when there is room again: %v", err)
		}
		free = 1<<20 - 1
	}
}

// A file system that does not say how large it is is not asked for room.
func TestUnknownSpace(t *testing.T) {
	sp := space{reserve: 1 << 20, ask: func() (int64, int64, error) { return 0, 0, nil }}
	for range 3 {
		if err := sp.take(1<<30, false); err != nil {
			t.Error(err)
		}
		sp.done(1 << 30)
	}
	if sp.pending != 0 {
		t.Errorf("pending %d", sp.pending)
	}
	sp.ask = func() (int64, int64, error) { return 0, 0, io.ErrUnexpectedEOF }
	if err := sp.take(1, true); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v, want what asking came to", err)
	}
}

// The file system is asked once for each askEvery bytes, and not for what would
// cost nothing.
func TestFileSystemIsAskedSeldom(t *testing.T) {
	asked := 0
	sp := space{reserve: 1, ask: func() (int64, int64, error) { asked++; return 1 << 30, 1 << 30, nil }}
	for i, want := range []int{1, 1, 1, 1, 2, 2, 2, 2, 3} {
		if err := sp.take(askEvery/4, false); err != nil {
			t.Fatal(err)
		}
		if asked != want {
			t.Errorf("asked %d times for %d quarters, want %d", asked, i+1, want)
		}
	}
}

// Some file systems have no blocks, or more than a number can hold.
func TestBlocks(t *testing.T) {
	const most = math.MaxInt64 / 4096
	for _, tt := range []struct {
		n          uint64
		size, want int64
	}{
		{3, 4096, 3 * 4096}, {0, 4096, 0}, {3, 0, 0}, {math.MaxUint64, 0, 0},
		{most, 4096, most * 4096}, {most + 1, 4096, math.MaxInt64}, {math.MaxUint64, 4096, math.MaxInt64},
	} {
		if got := blocks(tt.n, tt.size); got != tt.want {
			t.Errorf("%d of %d bytes: %d, want %d", tt.n, tt.size, got, tt.want)
		}
	}
}

// Whatever the disk refuses for want of room is ErrFull; blocks that cannot be
// had ahead are not missed while there is room for the content itself.
func TestDiskFull(t *testing.T) {
	for op, ok := range map[Op]bool{Create: false, Write: false, Reserve: true} {
		d := new(disk)
		s := open(t, t.TempDir(), Options{Fsync: true, Faults: d.faults()})
		d.before(func(step Step) error {
			if step.Op == op {
				return syscall.ENOSPC
			}
			return nil
		})
		in, err := s.Create(t.Context(), placeOf("new"), storage.Announce(4<<20))
		for i := 0; i < 10 && err == nil; i++ {
			_, err = in.Write(t.Context(), make([]byte, 100_000))
		}
		if ok && err != nil || !ok && !errors.Is(err, storage.ErrFull) {
			t.Errorf("%s fails: %v", op, err)
		}
		if err := in.Close(t.Context()); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
}

// Another reserve counts from the next bytes on, also of an upload that is under way and
// began without any.
func TestReserveThatIsChanged(t *testing.T) {
	s := small(t, 10_000, Options{})
	create := func() storage.Incoming {
		in, err := s.Create(t.Context(), placeOf("new"), storage.Announced{})
		if err != nil {
			t.Fatal(err)
		}
		return in
	}
	in := create()
	for i, step := range []struct {
		keep int64
		want error // after which the upload is over
	}{{0, nil}, {1000, nil}, {1 << 40, storage.ErrFull}, {7000, nil}, {7000, storage.ErrFull}, {0, nil}} {
		s.Keep(step.keep)
		if _, err := in.Write(t.Context(), make([]byte, 1000)); !errors.Is(err, step.want) {
			t.Errorf("step %d, with %d bytes kept free: %v, want %v", i, step.keep, err, step.want)
		}
		if step.want != nil {
			_ = in.Close(t.Context())
			s.Keep(0)
			in = create()
		}
	}
	_ = in.Close(t.Context())
	if s.space.pending != 0 {
		t.Errorf("%d bytes are still taken for being written", s.space.pending)
	}
}
