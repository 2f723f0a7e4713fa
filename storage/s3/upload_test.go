package s3

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"sealift/codec"
	"sealift/storage"
)

var alice = codec.ClientID{0xa1, 0xce}

// content is size bytes that depend on seed.
func content(seed byte, size int) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// upload is an upload of a test. What must hold is checked as it goes on.
type upload struct {
	t    testing.TB
	s    *Store
	in   storage.Incoming
	up   storage.Uploaded
	data []byte
}

// create begins alice's file at path with data.
func create(t testing.TB, s *Store, path string, data []byte) *upload {
	t.Helper()
	in, err := s.Create(t.Context(), storage.Place{ID: alice, Path: path}, storage.Announced{})
	if err != nil {
		t.Fatal(err)
	}
	u := &upload{t: t, s: s, in: in, up: storage.Uploaded{Place: storage.Place{ID: alice, Path: path}, Key: in.Key()}}
	return u.write(data)
}

func (u *upload) object() string { return u.s.object(u.up.Place, u.up.Key) }

func (u *upload) write(data []byte) *upload {
	u.t.Helper()
	for len(data) > 0 {
		n, err := u.in.Write(u.t.Context(), data[:min(len(data), 1<<20)])
		if err != nil {
			u.t.Fatalf("Write: %v", err)
		}
		data = data[n:]
	}
	return u
}

func (u *upload) flush(length int64) *upload {
	u.t.Helper()
	if err := u.s.Flush(u.t.Context(), u.up, length); err != nil {
		u.t.Errorf("Flush of %d bytes: %v", length, err)
	}
	return u
}

// parts waits until the parts that were cut are in the bucket.
func (u *upload) parts() *upload {
	u.t.Helper()
	in := u.in.(*incoming)
	in.mu.Lock()
	n := len(in.parts)
	in.mu.Unlock()
	if err := in.wait(u.t.Context(), n); err != nil {
		u.t.Errorf("sending parts: %v", err)
	}
	return u
}

func (u *upload) close() *upload {
	u.t.Helper()
	if err := u.in.Close(u.t.Context()); err != nil {
		u.t.Errorf("Close: %v", err)
	}
	return u
}

func (u *upload) complete(want []byte) *upload {
	u.t.Helper()
	if err := u.in.Complete(u.t.Context()); err != nil {
		u.t.Errorf("Complete: %v", err)
	}
	u.data = want
	return u
}

// reopen goes on through a store, which may be another, under another key.
func (u *upload) reopen(s *Store, length int64) *upload {
	u.t.Helper()
	in, err := s.Reopen(u.t.Context(), u.up, storage.Announced{}, length)
	if err != nil {
		u.t.Fatalf("Reopen after %d bytes: %v", length, err)
	}
	if in.Key() == u.up.Key {
		u.t.Errorf("it goes on under the same key")
	}
	return &upload{t: u.t, s: s, in: in, up: storage.Uploaded{Place: u.up.Place, Key: in.Key()}}
}

// committed checks that the content is there and can be committed.
func (u *upload) committed() *upload {
	u.t.Helper()
	f := &storage.File{ID: u.up.ID, Path: u.up.Path, Incoming: u.up.Key, Size: int64(len(u.data))}
	if err := u.s.Commit(u.t.Context(), f); err != nil {
		u.t.Errorf("Commit: %v", err)
		return u
	}
	r, err := u.s.Open(u.t.Context(), f.Stored())
	if err != nil {
		u.t.Errorf("Open: %v", err)
		return u
	}
	got, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil || !bytes.Equal(got, u.data) {
		u.t.Errorf("the file has %d bytes that are not the %d sent: %v", len(got), len(u.data), err)
	}
	return u
}

func (u *upload) discard() *upload {
	u.t.Helper()
	if err := u.s.Discard(u.t.Context(), u.up); err != nil {
		u.t.Errorf("Discard: %v", err)
	}
	return u
}

// nothingLeft checks that the bucket has nothing of the key.
func (u *upload) nothingLeft() *upload {
	u.t.Helper()
	if all := u.left(); len(all) > 0 {
		u.t.Errorf("the bucket has %q", all)
	}
	return u
}

// left returns what the bucket has of the key.
func (u *upload) left() (all []string) {
	u.t.Helper()
	found, err := u.s.list(u.t.Context(), u.object(), 0)
	if err != nil {
		u.t.Fatal(err)
	}
	for _, info := range found {
		all = append(all, info.Key)
	}
	err = u.s.eachUpload(u.t.Context(), u.object(), func(m minio.ObjectMultipartInfo) error {
		all = append(all, m.Key+" upload "+m.UploadID)
		return nil
	})
	if err != nil {
		u.t.Fatal(err)
	}
	return all
}

// each returns what EachContent tells, by path.
func each(t testing.TB, s *Store) map[string]storage.Uploaded {
	t.Helper()
	all := make(map[string]storage.Uploaded)
	err := s.EachContent(t.Context(), func(up storage.Uploaded, modified time.Time) error {
		if modified.IsZero() || modified.After(time.Now().Add(time.Minute)) {
			t.Errorf("%+v was modified at %v", up, modified)
		}
		all[up.Path] = up
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
