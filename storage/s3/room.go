package s3

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"sealift/storage"
)

const (
	// block is how much of the scratch file is taken at a time, in bytes.
	block = 256 << 10
	// shrinkFrom is the least size of the scratch file that is cut when nothing is in it.
	shrinkFrom = 64 << 20

	scratchPattern = "bucket-*.scratch"
)

// room is a scratch file that all uploads share, so any number of them need one descriptor.
// It is safe for concurrent use.
type room struct {
	f    *os.File
	name string // to be removed by close; "" if it has no name any more

	mu   sync.Mutex
	free []int64 // offsets of blocks; the last is taken first
	end  int64
	used int // blocks
}

// newRoom makes the scratch file in dir, and removes what killed processes left there.
func newRoom(dir string) (*room, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	left, err := filepath.Glob(filepath.Join(dir, scratchPattern))
	if err != nil {
		return nil, err
	}
	for _, name := range left {
		_ = os.Remove(name) // where a name means that the file is in use, it cannot be removed
	}
	f, err := os.CreateTemp(dir, scratchPattern)
	if err != nil {
		return nil, err
	}
	r := &room{f: f}
	if os.Remove(f.Name()) != nil {
		r.name = f.Name()
	}
	return r, nil
}

func (r *room) close() error {
	err := r.f.Close()
	if r.name != "" {
		err = errors.Join(err, os.Remove(r.name))
	}
	return err
}

// take returns the offset of a block that nobody else has.
func (r *room) take() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used++
	if n := len(r.free); n > 0 {
		offset := r.free[n-1]
		r.free = r.free[:n-1]
		return offset
	}
	r.end += block
	return r.end - block
}

// give takes blocks back.
func (r *room) give(blocks []int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used -= len(blocks)
	for i := len(blocks) - 1; i >= 0; i-- { // to be taken in the same order
		r.free = append(r.free, blocks[i])
	}
	if r.used == 0 && r.end >= shrinkFrom && r.f.Truncate(0) == nil {
		r.free, r.end = nil, 0
	}
}

// area is bytes in a room, addressed from 0 on. One goroutine at a time writes; others
// may read what was written before. Its blocks are taken as they are written to.
type area struct {
	room *room

	closing sync.RWMutex // held for reading while the content is read or written

	mu     sync.Mutex
	blocks map[int64]int64 // offset in the room, by number of the block. nil: it is closed
	low    int64           // blocks below were dropped
	size   int64           // behind the last byte that was written
}

func (r *room) area() *area { return &area{room: r, blocks: make(map[int64]int64)} }

var _ storage.Scratch = (*area)(nil)

// span returns where the bytes from off on are in the room, and how many of the n lie there
// in one piece. With take, blocks are taken that are missing; otherwise io.EOF says that there is none.
func (a *area) span(off, n int64, take bool) (at, length int64, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.blocks == nil {
		return 0, 0, fs.ErrClosed
	}
	if take {
		a.size = max(a.size, off+n)
	} else if n = min(n, a.size-off); n <= 0 {
		return 0, 0, io.EOF
	}
	for number := off / block; length < n; number++ {
		start, ok := a.blocks[number]
		if !ok {
			if !take || number < a.low {
				return 0, 0, io.ErrUnexpectedEOF
			}
			start = a.room.take()
			a.blocks[number] = start
		}
		from := (off + length) % block
		if length == 0 {
			at = start + from
		} else if start+from != at+length {
			break
		}
		length += min(block-from, n-length)
	}
	return at, length, nil
}

// WriteAt implements io.WriterAt.
func (a *area) WriteAt(p []byte, off int64) (written int, err error) {
	a.closing.RLock()
	defer a.closing.RUnlock()
	for written < len(p) {
		at, n, err := a.span(off+int64(written), int64(len(p)-written), true)
		if err != nil {
			return written, err
		}
		if _, err := a.room.f.WriteAt(p[written:written+int(n)], at); err != nil {
			return written, fullDisk(err)
		}
		written += int(n)
	}
	return written, nil
}

// ReadAt implements io.ReaderAt.
func (a *area) ReadAt(p []byte, off int64) (read int, err error) {
	a.closing.RLock()
	defer a.closing.RUnlock()
	for read < len(p) {
		at, n, err := a.span(off+int64(read), int64(len(p)-read), false)
		if err != nil {
			return read, err
		}
		if _, err := a.room.f.ReadAt(p[read:read+int(n)], at); err != nil {
			return read, err
		}
		read += int(n)
	}
	return read, nil
}

// drop gives the room of the first bytes back.
func (a *area) drop(before int64) {
	a.mu.Lock()
	var blocks []int64
	for ; a.low < before/block; a.low++ {
		if at, ok := a.blocks[a.low]; ok {
			blocks = append(blocks, at)
			delete(a.blocks, a.low)
		}
	}
	a.mu.Unlock()
	if len(blocks) > 0 {
		a.room.give(blocks)
	}
}

// Close gives all room back. Further use fails.
func (a *area) Close() error {
	a.closing.Lock()
	defer a.closing.Unlock()
	a.mu.Lock()
	blocks := make([]int64, 0, len(a.blocks))
	for _, at := range a.blocks {
		blocks = append(blocks, at)
	}
	a.blocks, a.size = nil, 0
	a.mu.Unlock()
	if len(blocks) > 0 {
		a.room.give(blocks)
	}
	return nil
}

// Scratch implements storage.Files.
func (s *Store) Scratch(ctx context.Context) (storage.Scratch, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.room == nil {
		return nil, errReadOnly
	}
	return s.room.area(), nil
}
