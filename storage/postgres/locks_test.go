package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func lock(t testing.TB, r *Registry, name string) (lost <-chan struct{}, unlock func(), ok bool) {
	t.Helper()
	lost, unlock, ok, err := r.TryLock(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return lost, unlock, ok
}

// wait waits for c to be closed.
func wait(t testing.TB, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(time.Minute):
		t.Fatalf("%s: not within a minute", what)
	}
}

// The database notices within half a minute that a server's machine is gone: else the rows that
// a batch had locked of which half has come would stay locked for hours.
func TestGoneMachineIsNoticed(t *testing.T) {
	r := open(t, database(t))
	if _, _, ok := lock(t, r, "a lock"); !ok {
		t.Fatal("the lock is not free")
	}
	pooled, err := r.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer pooled.Release()
	r.locks.mu.Lock()
	defer r.locks.mu.Unlock()
	for what, c := range map[string]*pgx.Conn{"of batches": pooled.Conn(), "of locks": r.locks.conn} {
		var idle, interval, count int
		err := c.QueryRow(t.Context(), "SELECT current_setting('tcp_keepalives_idle')::int, current_setting('tcp_keepalives_interval')::int, current_setting('tcp_keepalives_count')::int").
			Scan(&idle, &interval, &count)
		if after := idle + interval*count; err != nil || idle == 0 || after > 30 {
			t.Errorf("the connection %s: after %d s, %v", what, after, err)
		}
	}
}

// A lock is one server's at a time, and ends with its connection.
func TestTryLock(t *testing.T) {
	address := database(t)
	a, b := open(t, address), open(t, address)
	lost, unlock, ok := lock(t, a, "sweep")
	if !ok {
		t.Fatal("nobody had it, and it was not free")
	}
	for _, r := range []*Registry{a, b} {
		if _, _, ok := lock(t, r, "sweep"); ok {
			t.Fatal("two have the lock")
		}
	}
	if _, unlock, ok := lock(t, b, "events"); !ok {
		t.Error("another lock is not free")
	} else {
		unlock()
	}
	select {
	case <-lost:
		t.Error("it was lost")
	default:
	}
	unlock()
	unlock()
	_, _, ok = lock(t, b, "sweep")
	if !ok {
		t.Fatal("it was given back, and is not free")
	}

	// b ends.
	_ = b.Close()
	lost, _, ok = lock(t, a, "sweep")
	if !ok {
		t.Fatal("its server has ended, and it is not free")
	}
	// The connection ends.
	c, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	if _, err := c.Exec(t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"+
		" AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"); err != nil {
		t.Fatal(err)
	}
	wait(t, lost, "the loss of a lock whose connection was ended")
	if _, _, ok := lock(t, a, "sweep"); !ok {
		t.Error("it is not free after its loss")
	}
}

// A server that shows no sign of life loses its locks.
func TestLockOfSleeper(t *testing.T) {
	address := database(t)
	a, b := open(t, address), open(t, address)
	a.locks.config.RuntimeParams["idle_session_timeout"] = "50ms" // less than a beat
	lost, _, ok := lock(t, a, "sweep")
	if !ok {
		t.Fatal("it is not free")
	}
	wait(t, lost, "the loss of a lock")
	if _, _, ok := lock(t, b, "sweep"); !ok {
		t.Error("it is not free")
	}
}

// Servers that need a secret at once get the same.
func TestSecret(t *testing.T) {
	address := database(t)
	var g sync.WaitGroup
	got := make([]string, 8)
	for n := range got {
		r := open(t, address)
		g.Go(func() {
			value, err := r.Secret(context.Background(), "key", func() ([]byte, error) { return fmt.Append(nil, "made by ", n), nil })
			if err != nil {
				t.Error(err)
			}
			got[n] = string(value)
		})
	}
	g.Wait()
	for _, value := range got {
		if value == "" || value != got[0] {
			t.Errorf("secrets %q", got)
			break
		}
	}
	r := open(t, address)
	no := errors.New("no")
	if _, err := r.Secret(t.Context(), "other", func() ([]byte, error) { return nil, no }); !errors.Is(err, no) {
		t.Errorf("%v, want the error of fresh", err)
	}
}

// One server at a time has the registry, unless it is the same directory.
func TestHold(t *testing.T) {
	address := database(t)
	a, b := open(t, address), open(t, address)
	_, release, err := a.Hold(t.Context(), "a", "host1", "/srv")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range [][2]string{{"host2", "/srv"}, {"host1", "/srv2"}} {
		if _, _, err := b.Hold(t.Context(), "b", dir[0], dir[1]); !errors.Is(err, ErrHeld) {
			t.Errorf("%v: %v, want ErrHeld", dir, err)
		}
	}
	_, again, err := b.Hold(t.Context(), "b", "host1", "/srv")
	if err != nil {
		t.Errorf("the same directory: %v", err)
	}
	release() // what is not a's any more stays
	if _, _, err := a.Hold(t.Context(), "c", "host3", "/srv"); !errors.Is(err, ErrHeld) {
		t.Errorf("after the release of what another one has: %v, want ErrHeld", err)
	}
	again()
	_, release, err = a.Hold(t.Context(), "c", "host3", "/srv")
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	// One that is out of sight.
	c, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	if _, err := c.Exec(t.Context(), "UPDATE sealift.holder SET ends = now()"); err != nil {
		t.Fatal(err)
	}
	_, release, err = b.Hold(t.Context(), "d", "host4", "/srv")
	if err != nil {
		t.Fatal(err)
	}
	release()
}
