package server

import (
	"database/sql"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"sealift/storage"
)

// A server marks what is too old at once when it runs, and disables a client whose time was
// over while no server ran.
func TestServerRetires(t *testing.T) {
	d := newDepot(t)
	d.store(anna, "a", "content")
	if _, err := Expire(t.Context(), Stores{Dir: d.dir}, Who{ID: anna.String()}, time.Now().Add(-time.Second), false); err != nil {
		t.Fatal(err)
	}
	o := Defaults()
	o.Dir, o.Network.Listen, o.Log = d.dir, "127.0.0.1:0", options("").Log
	o.Storage.KeepFor = time.Nanosecond
	s := open(t, o)
	s.disableExpired(t.Context(), time.Now())
	s.retire(t.Context(), time.Now())
	get := &storage.GetClient{ID: anna}
	if err := applyOwn(t.Context(), s.registry, get); err != nil || !get.Client.Disabled || !get.Client.Expires.IsZero() {
		t.Errorf("%v, the client is %+v", err, get.Client)
	}
	leaving := 0
	err := s.registry.Leaving(t.Context(), func(f File) error {
		leaving++
		return nil
	})
	if err != nil || leaving != 1 {
		t.Errorf("%d files are leaving, %v", leaving, err)
	}
	select {
	case <-s.clearDue:
	default:
		t.Error("nobody is told to remove it")
	}
}

// Verification tells of a count that is not that of the files, and setting the quota again
// puts it right.
func TestCountThatIsWrong(t *testing.T) {
	d := newDepot(t)
	d.store(anna, "a", "content")
	two := int64(2)
	set := func() {
		t.Helper()
		if _, has, err := SetQuota(t.Context(), Stores{Dir: d.dir}, Who{ID: anna.String()}, nil, &two); err != nil || has != (Usage{Bytes: 7, Files: 1}) {
			t.Errorf("%v, the client has %+v", err, has)
		}
	}
	compare := func(want int) {
		t.Helper()
		r, err := OpenReadOnly(t.Context(), Stores{Dir: d.dir})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		differ := 0
		n, err := r.CompareUsage(t.Context(), func(c Client, kept, actual Usage) {
			differ++
			if c.ID != anna || kept != (Usage{Bytes: 7, Files: 5}) || actual != (Usage{Bytes: 7, Files: 1}) {
				t.Errorf("%s: %+v, %+v", c.Name, kept, actual)
			}
		})
		if err != nil || n != 1 || differ != want {
			t.Errorf("%d of %d differ, %v, want %d", differ, n, err, want)
		}
	}
	set()
	compare(0)
	db, err := sql.Open("sqlite", filepath.Join(d.dir, DatabaseName))
	if err == nil {
		_, err = db.ExecContext(t.Context(), "UPDATE clients SET UsedFiles = 5 WHERE UsedFiles IS NOT NULL")
		err = errors.Join(err, db.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	compare(1)
	set()
	compare(0)
}
