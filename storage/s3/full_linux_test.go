package s3

import (
	"errors"
	"os"
	"testing"

	"sealift/internal/testservices"
	"sealift/storage"
)

// A disk that is full of what is staged is storage.ErrFull, as a bucket that is full.
func TestScratchIsFull(t *testing.T) {
	b := testservices.S3(t)
	s := open(t, b, Options{})
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	was := s.room.f
	s.room.f = full
	defer func() {
		s.room.f = was
		_ = full.Close()
	}()
	u := create(t, s, "a", nil)
	for range 2 {
		if _, err := u.in.Write(t.Context(), []byte("x")); !errors.Is(err, storage.ErrFull) {
			t.Errorf("Write: %v, want ErrFull", err)
		}
	}
	if err := u.in.Complete(t.Context()); !errors.Is(err, storage.ErrFull) {
		t.Errorf("Complete: %v, want ErrFull", err)
	}
	u.discard()
	sc, err := s.Scratch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sc.WriteAt([]byte("x"), 0); !errors.Is(err, storage.ErrFull) {
		t.Errorf("WriteAt of a Scratch: %v, want ErrFull", err)
	}
	_ = sc.Close()
}
