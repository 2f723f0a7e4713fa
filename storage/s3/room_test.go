package s3

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func newTestRoom(t *testing.T) *room {
	t.Helper()
	r, err := newRoom(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.close() })
	return r
}

// Areas keep what is written to them, beside each other and while blocks come and go.
func TestAreas(t *testing.T) {
	r := newTestRoom(t)
	var wg sync.WaitGroup
	for seed := range byte(8) {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(seed)))
			for range 20 {
				a, data := r.area(), content(seed, 3*block+int(random.Int64N(block)))
				dropped := 0
				for at := 0; at < len(data); {
					n := min(len(data)-at, 1+int(random.Int64N(2*block)))
					if _, err := a.WriteAt(data[at:at+n], int64(at)); err != nil {
						t.Error(err)
					}
					at += n
					if random.IntN(3) == 0 {
						dropped = max(dropped, random.IntN(at))
						a.drop(int64(dropped))
					}
				}
				got := make([]byte, len(data)-dropped)
				if _, err := a.ReadAt(got, int64(dropped)); err != nil || !bytes.Equal(got, data[dropped:]) {
					t.Errorf("what is read from %d on is not what was written: %v", dropped, err)
				}
				if n, err := a.ReadAt(make([]byte, 10), int64(len(data)-5)); n != 5 || err != io.EOF {
					t.Errorf("reading over the end: %d, %v", n, err)
				}
				_ = a.Close()
			}
		})
	}
	wg.Wait()
	if r.used != 0 {
		t.Errorf("%d blocks are in use", r.used)
	}
}

// The scratch file shrinks when nothing is in it, and an area that was closed touches nothing.
func TestRoomShrinks(t *testing.T) {
	r := newTestRoom(t)
	a := r.area()
	if _, err := a.WriteAt([]byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	b := r.area()
	for at := int64(0); at < shrinkFrom; at += block {
		if _, err := b.WriteAt([]byte("y"), at); err != nil {
			t.Fatal(err)
		}
	}
	_ = b.Close()
	if r.end <= shrinkFrom {
		t.Errorf("the scratch file has %d bytes while an area has something in it", r.end)
	}
	_ = a.Close()
	_ = a.Close()
	if info, err := r.f.Stat(); err != nil || info.Size() != 0 || r.end != 0 || r.used != 0 {
		t.Errorf("the empty scratch file has %d bytes, %d blocks in use: %v", info.Size(), r.used, err)
	}
	for _, use := range []func([]byte, int64) (int, error){a.WriteAt, a.ReadAt} {
		if _, err := use([]byte("x"), 0); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("an area that was closed: %v, want fs.ErrClosed", err)
		}
	}
}

// What a process that was killed left goes at the next start, and a store leaves nothing.
func TestScratchIsRemoved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "scratch")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bucket-123.scratch", "port.info"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("left"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r, err := newRoom(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.area().WriteAt([]byte("x"), 0); err != nil {
		t.Error(err)
	}
	if err := r.close(); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != "port.info" {
		t.Errorf("the directory has %v, %v, want port.info alone", left, err)
	}
}
