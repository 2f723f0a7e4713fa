package sqlite

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync/atomic"
	"testing"

	"sealift/codec"
	"sealift/storage"
	"sealift/storage/storagetest/power"
)

// What Apply acknowledged is there after a power cut, and after the process was
// killed, also where syncs of the database and its WAL failed before. A batch
// that got an error may be there or not, but whole.
func TestPowerCut(t *testing.T) {
	rounds := 60
	if testing.Short() {
		rounds = 10
	}
	for round := range rounds {
		rnd := rand.New(rand.NewPCG(1, uint64(round)))
		acknowledged, uncertain := make(map[int]bool), make(map[int]bool)
		dir, n := t.TempDir(), 0
		var failing atomic.Bool
		db := power.Watch(dir, func(string) bool { return failing.Load() && rnd.IntN(3) == 0 })
		for range 5 { // lives of the server
			r, err := Open(t.Context(), filepath.Join(dir, "defensive.db"), Options{Fsync: true})
			if err != nil {
				t.Fatal(err)
			}
			there := make(map[int]bool)
			err = r.Clients(t.Context(), func(c storage.Client) error {
				var i int
				_, err := fmt.Sscanf(c.Name, "client %d", &i)
				there[i] = true
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			for i := range n {
				switch {
				case there[i]:
					acknowledged[i] = true // it stays
				case acknowledged[i]:
					t.Fatalf("round %d: client %d was acknowledged, and is gone", round, i)
				case !uncertain[i]:
					t.Fatalf("round %d: client %d of an acknowledged batch is gone", round, i)
				}
			}
			failing.Store(true)
			for range rnd.IntN(12) {
				var batch []storage.Operation
				from := n
				for range 1 + rnd.IntN(5) {
					id := codec.ClientID{14: byte(n >> 8), 15: byte(n)}
					batch = append(batch, &storage.AddClient{ID: id, Name: fmt.Sprintf("client %d", n)})
					n++
				}
				err := r.Apply(t.Context(), batch)
				for i := from; i < n; i++ {
					if err == nil {
						acknowledged[i] = true
					} else {
						uncertain[i] = true
					}
				}
			}
			failing.Store(false)
			next := t.TempDir()
			if rnd.IntN(2) == 0 {
				db, err = db.Cut(next, rnd)
			} else {
				db, err = db.Kill(next)
			}
			if err != nil {
				t.Fatal(err)
			}
			_ = r.Close() // of the life that has ended
			dir = next
		}
	}
}
