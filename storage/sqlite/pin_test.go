package sqlite

import (
	"path/filepath"
	"strings"
	"testing"

	"sealift/storage"
)

// A pin that somebody edited so that it cannot be understood is not none.
func TestEditedPin(t *testing.T) {
	path := filepath.Join(t.TempDir(), "defensive.db")
	r := open(t, path)
	id := add(1, "").ID
	apply(t, r, add(1, "anna"))
	run(t, other(t, path), "UPDATE clients SET TLSKey = '"+strings.Repeat("x", 32)+"'")
	file := storage.File{ID: id, FileName: "a", Path: "a", Incoming: "k", Received: moment}
	ops := []storage.Operation{
		&storage.GetClient{ID: id},
		&storage.GetFile{ID: id, Path: "a"},
		&storage.PutFile{File: file},
		&storage.SetAESKey{ID: id, AESKey: make([]byte, 32)},
		&storage.Seen{ID: id},
	}
	if err := r.Apply(t.Context(), ops); err != nil {
		t.Fatal(err)
	}
	for _, op := range ops {
		if op.Result().Err == nil {
			t.Errorf("%T was done", op)
		}
	}
	release := &storage.PinClient{Outcome: storage.Outcome{By: storage.Server}, ID: id}
	apply(t, r, release, &storage.GetClient{ID: id})
}
