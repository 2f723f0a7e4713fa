package files

import (
	"errors"
	"fmt"
	"math"
	"sync"

	"sealift/storage"
)

// DefaultMinFree is how many bytes stay free on the file system, unless an
// operator says otherwise.
const DefaultMinFree = 64 << 20

// askEvery is how many bytes may be granted between two looks at the file system.
// Others write to it too: what they took meanwhile is noticed that late.
const askEvery = 256 << 10

// space keeps a reserve on the file system: content is refused that would take
// it. What was granted counts until it is written, so that any number of uploads
// at once keep the reserve together. A nil space, and one without a reserve, refuses nothing.
type space struct {
	ask func() (free, total int64, err error) // of the file system, in bytes

	mu      sync.Mutex
	reserve int64 // bytes; 0: none
	pending int64 // granted, and not written yet
	left    int64 // what could be granted when the file system was asked
	granted int64 // since then
	asked   bool
}

// take grants n bytes, or says ErrFull. The caller gives them back with done when
// they are written, or are not going to be. fresh has the file system asked in
// any case.
func (sp *space) take(n int64, fresh bool) error {
	if sp == nil {
		return nil
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.reserve <= 0 {
		sp.pending += n
		return nil
	}
	if fresh || !sp.asked || sp.granted+n > min(sp.left, askEvery) {
		free, total, err := sp.ask()
		if err != nil {
			return err
		}
		sp.asked = total > 0 // otherwise it does not know
		if !sp.asked {
			sp.pending += n
			return nil
		}
		sp.left, sp.granted = free-sp.reserve-sp.pending, 0
		if n > sp.left || sp.left < 0 {
			return fmt.Errorf("%w of %d bytes: %d are free", storage.ErrFull, sp.reserve, free)
		}
	}
	sp.granted += n
	sp.pending += n
	return nil
}

func (sp *space) done(n int64) {
	if sp == nil {
		return
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	sp.pending -= n
}

// kept is how many bytes stay free.
func (sp *space) kept() int64 {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	return sp.reserve
}

// Keep has so many bytes stay free on the file system from now on, see Options.MinFree.
func (s *Store) Keep(minFree int64) {
	s.space.mu.Lock()
	defer s.space.mu.Unlock()
	s.space.reserve, s.space.asked = minFree, false
}

// askSpace asks the file system.
func (s *Store) askSpace() (free, total int64, err error) {
	err = s.step(Space, folder, "", func() error {
		free, total, err = diskSpace(s.lock)
		return err
	})
	if errors.Is(err, errors.ErrUnsupported) {
		return 0, 0, nil
	}
	if s.faults != nil && s.faults.Free != nil {
		free = s.faults.Free(free)
	}
	return free, total, err
}

// room runs write, which takes n bytes on the disk, if they can be had. ErrFull
// if not, also where the disk says so.
func (s *Store) room(n int64, write func() error) error {
	if n == 0 {
		return full(write())
	}
	if err := s.space.take(n, false); err != nil {
		return err
	}
	defer s.space.done(n)
	return full(write())
}

// blocks is how many bytes n blocks have. Some file systems say that they have more
// than a number can hold.
func blocks(n uint64, size int64) int64 {
	if size > 0 && n > uint64(math.MaxInt64/size) {
		return math.MaxInt64
	}
	return int64(n) * size
}

// full puts our error before the system's.
func full(err error) error {
	if err != nil && lacksSpace(err) {
		return fmt.Errorf("%w: %w", storage.ErrFull, err)
	}
	return err
}
