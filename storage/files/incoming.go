package files

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
)

// file is a file in the incoming folder that is opened when it is used, and
// stays open afterwards if there is a slot for it.
type file struct {
	store *Store
	name  string
	made  bool // it exists
	f     *os.File
	slot  bool // f is open and keeps a slot
}

// use returns the open file, which it makes first if it is new. Each use ends
// with done.
func (f *file) use() (*os.File, error) {
	if f.f != nil {
		return f.f, nil
	}
	flag := os.O_RDWR
	if !f.made {
		flag |= os.O_CREATE | os.O_EXCL
	}
	var err error
	f.f, err = f.store.incoming.OpenFile(f.name, flag, fileMode)
	if errors.Is(err, fs.ErrNotExist) && !f.made {
		if err = f.store.incoming.Mkdir(path.Dir(f.name), dirMode); err == nil || errors.Is(err, fs.ErrExist) {
			f.f, err = f.store.incoming.OpenFile(f.name, flag, fileMode)
		}
	}
	if err != nil {
		f.f = nil
		return nil, err
	}
	f.made = true
	return f.f, nil
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
		return errors.Join(err, f.release())
	}
}

// release closes the file, if it is open.
func (f *file) release() error {
	if f.f == nil {
		return nil
	}
	err := f.f.Close()
	f.f = nil
	if f.slot {
		f.slot = false
		<-f.store.slots
	}
	return err
}

// maxAhead is how many bytes are reserved ahead of what is written, at most.
const maxAhead = 64 << 20

// flushEvery is how many bytes gather before they are sent to the disk.
const flushEvery = 8 << 20

// incoming is a session.Incoming.
type incoming struct {
	file
	key      string
	hint     int64 // bytes that the client says will come, or -1
	size     int64 // bytes written
	reserved int64 // bytes for which there are blocks, or more written than that
	begun    int64 // bytes on their way to the disk
	failed   error // of an earlier Write: what the file holds is not sure any more
}

func (in *incoming) Key() string { return in.key }

// Write appends p.
func (in *incoming) Write(p []byte) (int, error) {
	if in.failed != nil {
		return 0, in.failed
	}
	f, err := in.use()
	if err != nil {
		in.failed = err
		return 0, err
	}
	if err := in.reserve(f, in.size+int64(len(p))); err != nil {
		in.failed = in.done(err)
		return 0, in.failed
	}
	n, err := f.WriteAt(p, in.size)
	in.size += int64(n)
	if in.store.fsync && in.size-in.begun >= flushEvery {
		startFlush(f, in.begun, in.size-in.begun)
		in.begun = in.size
	}
	in.failed = in.done(err)
	return n, in.failed
}

// reserve sees to it that there are blocks for what comes after the first end
// bytes, as much again as those, but no more than maxAhead and no more than the
// client announced. A client that announces 4 GiB and sends 20 KiB gets no room
// for it.
func (in *incoming) reserve(f *os.File, end int64) error {
	if end < reserveFrom || end <= in.reserved || end >= in.hint {
		return nil
	}
	from, to := max(in.reserved, in.size), min(in.hint, end+min(end, maxAhead))
	in.reserved = to
	return reserve(f, from, to-from)
}

// Close ends the writing. It does not repeat the error of a Write.
func (in *incoming) Close() error {
	if in.failed == nil && !in.made { // an empty file
		if _, err := in.use(); err != nil {
			return err
		}
	}
	return in.release()
}

// scratch is a session.Scratch.
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
	n, err := f.WriteAt(p, off)
	return n, s.done(err)
}

// Close removes the file.
func (s *scratch) Close() error {
	err := s.release()
	if !s.made {
		return err
	}
	s.made = false
	if rm := s.store.incoming.Remove(s.name); rm != nil && !errors.Is(rm, fs.ErrNotExist) {
		err = errors.Join(err, rm)
	}
	return err
}
