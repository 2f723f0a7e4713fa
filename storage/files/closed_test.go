package files

import (
	"testing"

	"sealift/storage"
)

// A call that a store is still asked for after Close, as by a worker that a disk had
// kept, reaches no other store, although that may have its descriptors.
func TestClosedStoreReachesNoOther(t *testing.T) {
	first, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	in, err := first.Create(t.Context(), placeOf("a"), storage.Announced{})
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := open(t, t.TempDir(), Options{})
	commit(t, second, waiting(receive(t, second, newer), "a", newer))
	if size, err := first.Size(t.Context(), storedAt("a")); err == nil {
		t.Errorf("Size: %d bytes, in the other store", size)
	}
	if has, err := first.Has(t.Context(), alice); err == nil {
		t.Errorf("Has: %v, about the other store", has)
	}
	if _, err := in.Write(t.Context(), []byte(newer)); err == nil {
		t.Error("Write: nil")
	}
	wantIncoming(t, second)
	_ = first.Close() // once more
	if has, err := second.Has(t.Context(), alice); !has || err != nil {
		t.Errorf("after another Close of the first store the second one has %v, %v", has, err)
	}
}
