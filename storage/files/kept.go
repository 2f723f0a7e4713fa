package files

import (
	"container/list"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"sealift/storage"
)

// kept are the complete incoming files that are still open, so that Commit syncs
// them through the descriptor that wrote them. Each has a slot; files that are
// being written take the slots of the oldest ones.
type kept struct {
	mu    sync.Mutex
	files map[string]*keptFile // by key
	order list.List            // of *keptFile, oldest first; those that are being closed are not in it
}

type keptFile struct {
	key   string
	f     *file
	place *list.Element
	gone  chan struct{} // closed when f is; nil until somebody closes it
}

// keep puts a complete file aside. It is open and has a slot.
func (s *Store) keep(key string, f *file) {
	k := &keptFile{key: key, f: f}
	s.kept.mu.Lock()
	defer s.kept.mu.Unlock()
	k.place = s.kept.order.PushBack(k)
	s.kept.files[key] = k
}

// takeKept returns the file if it is kept, and it is the caller's then; nil if
// not. If it is being closed, takeKept waits, since that may find it spoilt.
func (s *Store) takeKept(key string) *file {
	s.kept.mu.Lock()
	k := s.kept.files[key]
	if k == nil {
		s.kept.mu.Unlock()
		return nil
	}
	if k.gone != nil {
		s.kept.mu.Unlock()
		<-k.gone
		return nil
	}
	s.kept.order.Remove(k.place)
	delete(s.kept.files, key)
	s.kept.mu.Unlock()
	return k.f
}

// giveWay closes the oldest file that is kept. It reports whether there was one;
// the caller has its slot then.
func (s *Store) giveWay() bool {
	s.kept.mu.Lock()
	oldest := s.kept.order.Front()
	if oldest == nil {
		s.kept.mu.Unlock()
		return false
	}
	k := s.kept.order.Remove(oldest).(*keptFile)
	k.gone = make(chan struct{})
	s.kept.mu.Unlock()

	if err := k.f.close(); err != nil {
		_ = s.spoil(k.key, err) // Commit tells of it
	}
	s.kept.mu.Lock()
	delete(s.kept.files, k.key)
	s.kept.mu.Unlock()
	close(k.gone)
	return true
}

// spoil is called with what a sync or close of an incoming file failed with: what
// the disk has of it is not certain any more, and the kernel will not say so
// again. The file is removed, and if that fails, remembered as spoilt while the
// store is open. After that, whoever opens it reads what the disk has.
func (s *Store) spoil(key string, cause error) error {
	rm := s.remove(inFolder(key))
	s.mu.Lock()
	defer s.mu.Unlock()
	if rm == nil {
		delete(s.spoilt, key)
	} else {
		s.spoilt[key] = cause
	}
	return errors.Join(fmt.Errorf("%w: %w", storage.ErrNotDurable, cause), rm)
}

// isSpoilt returns why an incoming file is spoilt that could not be removed.
func (s *Store) isSpoilt(key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.spoilt[key]
}

// remove removes a file in the incoming folder. It is no error if there is none.
func (s *Store) remove(name string) error {
	err := s.step(Remove, s.below(incomingFolder+"/"+name), "", func() error { return s.removeIncoming(name) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
