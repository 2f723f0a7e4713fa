package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sync/atomic"
	"time"

	"sealift/storage"
)

// file is a file in the incoming folder that is opened when it is used, and
// stays open afterwards if there is a slot for it.
type file struct {
	store *Store
	name  string // in the incoming folder
	path  string // for a Step
	mode  fs.FileMode
	made  bool // it exists
	f     *os.File
	slot  bool // f is open and has a slot
}

func newFile(s *Store, name string) file {
	return file{store: s, name: name, path: s.below(incomingFolder + "/" + name), mode: privateFile}
}

// use returns the open file, which it makes first if it is new. Each use ends
// with done.
func (f *file) use() (*os.File, error) {
	if f.f != nil {
		return f.f, nil
	}
	var err error
	if f.made {
		f.f, err = f.store.openIn(f.name, os.O_RDWR, 0)
	} else {
		err = f.store.step(Create, f.path, "", f.create)
	}
	if err != nil {
		return nil, errors.Join(full(err), f.release())
	}
	f.made = true
	return f.f, nil
}

func (f *file) create() error {
	open := func() (err error) {
		f.f, err = f.store.openIn(f.name, os.O_RDWR|os.O_CREATE|os.O_EXCL, f.mode)
		if err != nil || !f.store.chmodFiles || f.mode == privateFile {
			return err
		}
		// It has its mode before it has a place. Nothing is in it yet.
		if err = f.store.step(Chmod, f.path, "", func() error { return f.f.Chmod(f.mode) }); err != nil {
			err = errors.Join(err, f.f.Close(), f.store.removeIncoming(f.name))
			f.f = nil
		}
		return err
	}
	err := open()
	if errors.Is(err, fs.ErrNotExist) {
		if err = f.store.makeIncomingFolder(f.name); err == nil {
			err = open()
		}
	}
	return err
}

// inIncoming opens the folder of an incoming or scratch file, whose name is one of inFolder. The
// caller closes it.
func (s *Store) inIncoming(name string) (location, error) {
	dir, base := path.Split(name)
	dir = path.Clean(dir)
	d, err := s.incoming.enter(dir)
	return location{d, incomingFolder + "/" + dir, base}, err
}

func (s *Store) openIn(name string, flag int, perm fs.FileMode) (*os.File, error) {
	at, err := s.inIncoming(name)
	if err != nil {
		return nil, err
	}
	defer at.dir.close()
	return at.dir.open(at.name, flag, perm)
}

func (s *Store) removeIncoming(name string) error {
	at, err := s.inIncoming(name)
	if err != nil {
		return err
	}
	defer at.dir.close()
	return at.dir.remove(at.name)
}

// findIncoming looks at an incoming file, and returns where it is. ErrNotStored if there
// is none, or something that is no file: opening a pipe would wait for a writer. The
// caller closes the folder.
func (s *Store) findIncoming(key string) (location, entry, error) {
	if !isKey(key) || s.incoming == nil {
		return location{}, entry{}, storage.ErrNotStored
	}
	at, err := s.inIncoming(inFolder(key))
	if err != nil {
		return location{}, entry{}, notStored(err)
	}
	found, err := at.dir.look(at.name)
	if err == nil && !found.mode.IsRegular() {
		err = fmt.Errorf("%w: the incoming file is a %s", storage.ErrNotStored, kind(found.mode))
	}
	if err != nil {
		at.dir.close()
		return location{}, entry{}, notStored(err)
	}
	return at, found, nil
}

// makeIncomingFolder makes the folder of a file in the incoming folder. It need
// not be durable: what is in it may go in a power cut.
func (s *Store) makeIncomingFolder(name string) error {
	dir := path.Dir(name)
	err := s.step(Mkdir, s.below(incomingFolder+"/"+dir), "", func() error { return s.incoming.mkdir(dir, privateFolder) })
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// done ends a use that came out with err, and returns err, or what else went
// wrong.
func (f *file) done(err error) error {
	if f.slot {
		return err
	}
	select {
	case f.store.slots <- struct{}{}:
		f.slot = true
		return err
	default: // also where there are no slots at all
		if f.slot = f.store.giveWay(); f.slot {
			return err
		}
		return errors.Join(err, f.close())
	}
}

// release closes the file, if it is open, and gives its slot back.
func (f *file) release() error {
	err := f.close()
	if f.slot {
		f.slot = false
		<-f.store.slots
	}
	return err
}

// close closes the file, if it is open, and leaves its slot to the caller. On some
// file systems, NFS among them, that is when an error of an earlier write is told.
func (f *file) close() error {
	if f.f == nil {
		return nil
	}
	open := f.f
	f.f = nil
	return f.store.step(Close, f.path, "", open.Close)
}

// writeAt writes p to the open file. need is how many bytes of it have no blocks
// yet.
func (f *file) writeAt(open *os.File, p []byte, off, need int64) (n int, err error) {
	err = f.store.room(need, func() error {
		return f.store.step(Write, f.path, "", func() (err error) {
			n, err = open.WriteAt(p, off)
			return err
		})
	})
	return n, err
}

// maxAhead is how many bytes are reserved ahead of what is written, at most.
const maxAhead = 64 << 20

const (
	// flushEvery is how many bytes gather before they are sent to the disk.
	flushEvery = 8 << 20
	// turnEvery is the same while small files are made durable. Then an upload also waits
	// until the disk has what was sent before: all that is on its way to the disk, the syncs of
	// others wait for.
	turnEvery = 1 << 20
	// smallSize is how many bytes a small file has at most.
	smallSize = 1 << 20
	// turnTime is for how long after the last small file that goes on.
	turnTime = 100 * time.Millisecond
)

// incoming is a storage.Incoming.
type incoming struct {
	file
	key        string
	hint       int64 // bytes that the client says will come; 0 if it says nothing
	size       int64 // bytes written
	reserved   int64 // bytes for which there are blocks
	begun      int64 // bytes that were sent to the disk
	there      int64 // of these, bytes that were waited for
	unreserved bool  // the file system cannot reserve blocks
	failed     error // of an earlier Write: what the file holds is not sure any more
}

func (in *incoming) Key() string { return in.key }

// Write appends p.
func (in *incoming) Write(ctx context.Context, p []byte) (int, error) {
	if in.failed != nil {
		return 0, in.failed
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	f, err := in.use()
	if err != nil {
		in.failed = err
		return 0, err
	}
	end := in.size + int64(len(p))
	if err := in.reserve(f, end); err != nil {
		in.failed = in.done(err)
		return 0, in.failed
	}
	n, err := in.writeAt(f, p, in.size, max(0, end-max(in.size, in.reserved)))
	in.size += int64(n)
	if err == nil && in.store.fsync {
		err = in.flush(f)
	}
	in.failed = in.done(err)
	return n, in.failed
}

// flush sends what has gathered to the disk, and lets the syncs of others pass.
func (in *incoming) flush(f *os.File) error {
	s, sent := in.store, in.begun
	others := s.small.recently()
	if gathered := in.size - sent; gathered < turnEvery || gathered < flushEvery && !others {
		return nil
	}
	in.begun = in.size
	err := s.step(Flush, in.path, "", func() error { return startFlush(f, sent) })
	if err != nil || !others || in.there == sent {
		return err
	}
	err = s.step(Await, in.path, "", func() error { return awaitFlush(f, in.there, sent) })
	in.there = sent
	if err != nil {
		return s.spoil(in.key, err) // no later sync would report it
	}
	return nil
}

// recent is when something happened last. Any goroutine may use it.
type recent struct{ at atomic.Pointer[time.Time] }

func (r *recent) mark() {
	t := time.Now()
	r.at.Store(&t)
}

// recently reports whether it is less than turnTime ago.
func (r *recent) recently() bool {
	t := r.at.Load()
	return t != nil && time.Since(*t) < turnTime
}

// reserve sees to it that there are blocks for what comes after the first end
// bytes, as much again as those, but no more than maxAhead and no more than the
// client announced. A client that announces 4 GiB and sends 20 KiB gets no room
// for it.
func (in *incoming) reserve(f *os.File, end int64) error {
	if in.unreserved || end < reserveFrom || end <= in.reserved || end >= in.hint {
		return nil
	}
	from, to := max(in.reserved, in.size), min(in.hint, end+min(end, maxAhead))
	err := in.store.room(to-from, func() error {
		return in.store.step(Reserve, in.path, "", func() error { return reserve(f, from, to-from) })
	})
	switch {
	case err == nil:
		in.reserved = to
	case errors.Is(err, errors.ErrUnsupported):
		in.unreserved = true
	case !errors.Is(err, storage.ErrFull): // there may be room for p yet
		return err
	}
	return nil
}

// Complete implements storage.Incoming.
func (in *incoming) Complete(ctx context.Context) error { return in.Close(ctx) }

// Close ends the writing. The descriptor stays open for Commit, if it has a slot.
// Close does not repeat the error of a Write.
func (in *incoming) Close(context.Context) error {
	if in.failed != nil {
		return in.release()
	}
	if !in.made { // an empty file
		_, err := in.use()
		if err == nil {
			err = in.done(nil)
		}
		if err != nil {
			in.failed = err
			return err
		}
	}
	if err := in.store.incomingHome.check(); err != nil {
		return errors.Join(err, in.release())
	}
	if !in.store.fsync || !in.slot {
		return in.release()
	}
	if in.reserved > in.size { // an upload that was cut; what was reserved for the rest is free again
		_ = in.store.step(Write, in.path, "", func() error { return in.f.Truncate(in.size) })
	}
	kept := in.file
	in.f, in.slot = nil, false
	in.store.keep(in.key, &kept)
	return nil
}

// scratch is a storage.Scratch.
type scratch struct{ file }

func (s *scratch) ReadAt(p []byte, off int64) (int, error) {
	if !s.made {
		return 0, io.EOF
	}
	f, err := s.use()
	if err != nil {
		return 0, err
	}
	n, err := f.ReadAt(p, off)
	return n, s.done(err)
}

func (s *scratch) WriteAt(p []byte, off int64) (int, error) {
	f, err := s.use()
	if err != nil {
		return 0, err
	}
	n, err := s.writeAt(f, p, off, int64(len(p)))
	return n, s.done(err)
}

// Close removes the file.
func (s *scratch) Close() error {
	err := s.release()
	if !s.made {
		return err
	}
	s.made = false
	return errors.Join(err, s.store.remove(s.name))
}
