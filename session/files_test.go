package session_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/storage"
	"sealift/storage/memory"
)

var errInjected = errors.New("injected fault")

// faults makes the nth call of a store fail. The zero value never fails.
type faults struct {
	mu     sync.Mutex
	calls  int
	failAt int          // 0: never
	failOn string       // the next call so described, instead
	hit    string       // the call that failed last
	hits   []string     // all that did
	fail   func() error // what a failing call does; nil: it returns errInjected
}

func (f *faults) call(what string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	if f.calls != f.failAt && (f.failOn == "" || f.failOn != what) {
		return nil
	}
	f.failOn = ""
	f.hit, f.hits = what, append(f.hits, what)
	if f.fail != nil {
		return f.fail()
	}
	return errInjected
}

// lost reports whether the call that failed was a sync: then the content is lost,
// and the client has to send it again.
func (f *faults) lost() bool {
	return f.fail == nil && (f.hit == "Commit, the sync" || f.hit == "Commit, after the rename")
}

// leftRow reports whether content was lost by a sync, and the registry failed when
// it was to forget the file: the next verdict or recovery does so.
func (f *faults) leftRow() bool {
	return slices.Contains(f.hits, "Commit, the sync") &&
		slices.ContainsFunc(f.hits, func(call string) bool { return strings.Contains(call, "storage.DropFile") })
}

// registry is a real registry whose batches can be made to fail.
type registry struct {
	*memory.Registry
	faults *faults
	// partials are the places that a partial file was recorded for.
	partials map[storage.Place]bool
	// loses reports whether the answer to a batch that was done is lost; nil: never.
	loses func() bool
	// onVerified is called with each VerifyFile that was done; it may be nil.
	onVerified func(op *storage.VerifyFile)
}

// partial returns the partial file that is on record for a place, or nil.
func (r *registry) partial(at storage.Place) *storage.Partial {
	get := &storage.GetFile{Outcome: byServer, ID: at.ID, Path: at.Path, WithPartial: true}
	_ = r.Registry.Apply(context.Background(), []storage.Operation{get})
	return get.Partial
}

func (r *registry) Apply(ctx context.Context, batch []storage.Operation) error {
	what := "Apply"
	for _, op := range batch {
		what += fmt.Sprintf(" %T", op)
	}
	if err := r.faults.call(what); err != nil {
		return err
	}
	for _, op := range batch {
		if put, ok := op.(*storage.PutPartial); ok {
			r.partials[put.Partial.Place()] = true
		}
	}
	err := r.Registry.Apply(ctx, batch)
	for _, op := range batch {
		if verify, ok := op.(*storage.VerifyFile); ok && r.onVerified != nil && err == nil && verify.Err == nil {
			r.onVerified(verify)
		}
	}
	if err == nil && r.loses != nil && r.loses() {
		err = errInjected
	}
	return err
}

// contents is a storage.Files in memory that knows what was left behind.
type contents struct {
	faults *faults
	null   bool // keep no content of files
	noRoom bool // keep no content of scratch rooms

	mu        sync.Mutex
	last      int
	incoming  map[string]*incoming
	stored    map[string][]byte   // by client and path
	folds     func(string) string // what Folds returns
	opened    int                 // calls of Open and OpenFrom
	open      int                 // incoming files that are not closed
	scratches int                 // scratch rooms that are not closed
	scratched int64               // bytes, the largest scratch room there was
}

func newContents(f *faults) *contents {
	return &contents{faults: f, incoming: make(map[string]*incoming), stored: make(map[string][]byte)}
}

func (c *contents) Folds() func(string) string { return c.folds }

func (c *contents) Keeping() storage.Keeping { return storage.Keeping{} }

func place(id codec.ClientID, path string) string { return id.String() + "/" + path }

type incoming struct {
	c      *contents
	key    string
	b      bytes.Buffer
	closed bool
}

func (c *contents) Create(context.Context, storage.Place, storage.Announced) (storage.Incoming, error) {
	if err := c.faults.call("Create"); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	c.open++
	in := &incoming{c: c, key: fmt.Sprint("key", c.last)}
	c.incoming[in.key] = in
	return in, nil
}

func (in *incoming) Key() string { return in.key }

func (in *incoming) Write(_ context.Context, p []byte) (int, error) {
	if in.closed {
		panic("write to a closed incoming file")
	}
	if err := in.c.faults.call("Write"); err != nil {
		in.b.Write(p[:len(p)/2])
		return len(p) / 2, err
	}
	if in.c.null {
		return len(p), nil
	}
	return in.b.Write(p)
}

func (in *incoming) Complete(ctx context.Context) error { return in.Close(ctx) }

func (in *incoming) Close(context.Context) error {
	in.c.mu.Lock()
	defer in.c.mu.Unlock()
	if in.closed {
		panic("incoming file closed twice")
	}
	in.closed = true
	in.c.open--
	return in.c.faults.call("Close")
}

func (c *contents) Commit(_ context.Context, f *storage.File) error {
	if err := c.faults.call("Commit"); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	in, ok := c.incoming[f.Incoming]
	if !ok {
		b, ok := c.stored[place(f.ID, f.Path)]
		if !ok || int64(len(b)) != f.Size || cksum.Checksum(b) != f.Cksum {
			return storage.ErrNotStored
		}
		return nil
	}
	if !in.closed {
		panic("commit of a file that is being written")
	}
	if err := c.faults.call("Commit, the sync"); err != nil {
		delete(c.incoming, f.Incoming)
		return fmt.Errorf("%w: %w", storage.ErrNotDurable, err)
	}
	c.stored[place(f.ID, f.Path)] = in.b.Bytes()
	delete(c.incoming, f.Incoming)
	if err := c.faults.call("Commit, after the rename"); err != nil {
		return fmt.Errorf("%w: %w", storage.ErrPlaceNotDurable, err)
	}
	return nil
}

func (c *contents) Size(_ context.Context, ref storage.Ref) (int64, error) {
	if err := c.faults.call("Size"); err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch ref := ref.(type) {
	case storage.Uploaded:
		if in, ok := c.incoming[ref.Key]; ok {
			return int64(in.b.Len()), nil
		}
	case storage.Stored:
		if b, ok := c.stored[place(ref.ID, ref.Path)]; ok {
			return int64(len(b)), nil
		}
	}
	return 0, storage.ErrNotStored
}

func (c *contents) Has(_ context.Context, id codec.ClientID) (bool, error) {
	if err := c.faults.call("Has"); err != nil {
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for at := range c.stored {
		if strings.HasPrefix(at, id.String()+"/") {
			return true, nil
		}
	}
	return false, nil
}

func (c *contents) Discard(_ context.Context, f storage.Uploaded) error {
	if err := c.faults.call("Discard"); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if in := c.incoming[f.Key]; in != nil && !in.closed {
		panic("discard of a file that is being written")
	}
	delete(c.incoming, f.Key)
	return nil
}

func (c *contents) Remove(_ context.Context, f storage.Stored) error {
	if err := c.faults.call("Remove"); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.stored, place(f.ID, f.Path))
	return nil
}

func (c *contents) Open(_ context.Context, ref storage.Ref) (io.ReadCloser, error) {
	if err := c.faults.call("Open"); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opened++
	up, _ := ref.(storage.Uploaded)
	in, ok := c.incoming[up.Key]
	if !ok {
		return nil, storage.ErrNotStored
	}
	return io.NopCloser(bytes.NewReader(in.b.Bytes())), nil
}

func (c *contents) Reopen(_ context.Context, up storage.Uploaded, _ storage.Announced, length int64) (storage.Incoming, error) {
	if err := c.faults.call("Reopen"); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	in, ok := c.incoming[up.Key]
	switch {
	case !ok || int64(in.b.Len()) < length:
		return nil, storage.ErrNotStored
	case !in.closed:
		panic("an incoming file that is open was opened again")
	}
	in.b.Truncate(int(length))
	in.closed = false
	c.open++
	return in, nil
}

func (c *contents) Flush(_ context.Context, up storage.Uploaded, _ int64) error {
	if err := c.faults.call("Flush"); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.incoming[up.Key] == nil {
		return storage.ErrNotStored
	}
	return nil
}

func (c *contents) OpenFrom(ctx context.Context, ref storage.Ref, offset int64) (io.ReadCloser, error) {
	r, err := c.Open(ctx, ref)
	if err == nil {
		_, err = io.CopyN(io.Discard, r, offset)
	}
	return r, err
}

func (c *contents) Scratch(context.Context) (storage.Scratch, error) {
	if err := c.faults.call("Scratch"); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.scratches++
	return &scratch{c: c}, nil
}

type scratch struct {
	c *contents
	b []byte
}

func (s *scratch) WriteAt(p []byte, off int64) (int, error) {
	if err := s.c.faults.call("WriteAt"); err != nil {
		return 0, err
	}
	if s.c.noRoom {
		s.c.scratched = max(s.c.scratched, off+int64(len(p)))
		return len(p), nil
	}
	for int64(len(s.b)) < off+int64(len(p)) {
		s.b = append(s.b, make([]byte, off+int64(len(p))-int64(len(s.b)))...)
	}
	s.c.mu.Lock()
	s.c.scratched = max(s.c.scratched, int64(len(s.b)))
	s.c.mu.Unlock()
	return copy(s.b[off:], p), nil
}

func (s *scratch) ReadAt(p []byte, off int64) (int, error) {
	if err := s.c.faults.call("ReadAt"); err != nil {
		return 0, err
	}
	if off >= int64(len(s.b)) {
		return 0, io.EOF
	}
	n := copy(p, s.b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (s *scratch) Close() error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.scratches--
	return s.c.faults.call("Scratch.Close")
}
