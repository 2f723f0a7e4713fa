package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sealift/codec"
	"sealift/storage"
)

// BucketPart is from how many bytes on a part goes into a Bucket while content comes in.
const BucketPart = 4096

// Bucket is a store in memory that several servers share, for tests of what uses one: each
// version of a file is an object of its own, content comes in under a lease, and what is not
// complete cannot be read. Each server has a [BucketFiles] of its own. Safe for concurrent
// use.
type Bucket struct {
	mu   sync.Mutex
	made int // keys
	all  map[storage.Uploaded]*object

	// Step, unless it is nil, is called before each request that changes something, with its
	// name. An error fails the request, which then does nothing. It may panic: the server was
	// killed. It may change while no request is under way.
	Step func(request string, up storage.Uploaded) error
}

// object is content under a key.
type object struct {
	data    []byte          // complete
	whole   bool            // there is data
	flushed []byte          // of what comes in: what would be there for a Reopen
	comes   bool            // there is flushed
	writer  *bucketIncoming // who may change it; the one before has lost it
}

// NewBucket returns an empty one.
func NewBucket() *Bucket { return &Bucket{all: make(map[storage.Uploaded]*object)} }

// Content returns the complete content under a key.
func (b *Bucket) Content(up storage.Uploaded) (data []byte, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	o := b.all[up]
	if o == nil || !o.whole {
		return nil, false
	}
	return o.data, true
}

// Prefix returns the first length bytes of content, complete or not, as a Reopen finds them.
func (b *Bucket) Prefix(up storage.Uploaded, length int64) (data []byte, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.prefix(up, length)
}

// prefix is Prefix under mu.
func (b *Bucket) prefix(up storage.Uploaded, length int64) (data []byte, ok bool) {
	switch o := b.all[up]; {
	case o == nil:
	case o.comes && int64(len(o.flushed)) >= length:
		return slices.Clone(o.flushed[:length]), true
	case o.whole && int64(len(o.data)) >= length:
		return slices.Clone(o.data[:length]), true
	}
	return nil, false
}

// Uploads returns all content of which something is there.
func (b *Bucket) Uploads() (all []storage.Uploaded) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for up, o := range b.all {
		if o.whole || o.comes {
			all = append(all, up)
		}
	}
	return all
}

// step is called under mu.
func (b *Bucket) step(request string, up storage.Uploaded) error {
	if b.Step == nil {
		return nil
	}
	return b.Step(request, up)
}

// ErrDead is what a server that was killed gets of each request.
var ErrDead = errors.New("the server is dead")

// BucketFiles is a Bucket as one server has it: a storage.Files.
type BucketFiles struct {
	*Bucket
	dead  atomic.Bool
	lease func(ctx context.Context, up storage.Uploaded) error
	open  map[string]*bucketIncoming // by key
}

var _ storage.Files = (*BucketFiles)(nil)

// Server returns the bucket as another server has it. lease is called before the first byte
// of content goes into it. nil: it is not called.
func (b *Bucket) Server(lease func(ctx context.Context, up storage.Uploaded) error) *BucketFiles {
	return &BucketFiles{Bucket: b, lease: lease, open: make(map[string]*bucketIncoming)}
}

// LeaseFrom makes the lease of Server from a registry, for that server.
func LeaseFrom(reg storage.Registry, server string, d time.Duration) func(ctx context.Context, up storage.Uploaded) error {
	return func(ctx context.Context, up storage.Uploaded) error {
		op := &storage.LeaseUpload{Outcome: storage.Outcome{By: storage.Server}, Upload: up, Server: server, For: d}
		if err := reg.Apply(ctx, []storage.Operation{op}); err != nil {
			return err
		}
		return op.Err
	}
}

// Kill has the server do nothing any more: all its requests fail.
func (s *BucketFiles) Kill() { s.dead.Store(true) }

// alive returns why a request of the server fails at once, or nil.
func (s *BucketFiles) alive(ctx context.Context) error {
	if s.dead.Load() {
		return ErrDead
	}
	return ctx.Err()
}

// bucketIncoming is content on its way through one server.
type bucketIncoming struct {
	s  *BucketFiles
	up storage.Uploaded

	mu     sync.Mutex // taken before that of the bucket
	staged []byte     // by this server alone
	sent   int        // of these, in parts
	leased bool
}

// Keeping implements storage.Files.
func (s *BucketFiles) Keeping() storage.Keeping {
	return storage.Keeping{Versions: true, Leases: true, Sealed: true}
}

// Folds implements storage.Files.
func (s *BucketFiles) Folds() func(string) string { return nil }

// Create implements storage.Files. Nothing goes into the bucket.
func (s *BucketFiles) Create(ctx context.Context, place storage.Place, _ storage.Announced) (storage.Incoming, error) {
	if err := s.alive(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made++
	in := &bucketIncoming{s: s, up: storage.Uploaded{Place: place, Key: fmt.Sprintf("key-%d", s.made)}}
	s.open[in.up.Key] = in
	return in, nil
}

// Reopen implements storage.Files. The new content has a key of its own, and that of up stays as
// it is: nobody writes to it any more.
func (s *BucketFiles) Reopen(ctx context.Context, up storage.Uploaded, size storage.Announced, length int64) (storage.Incoming, error) {
	made, err := s.Create(ctx, up.Place, size)
	if err != nil {
		return nil, err
	}
	in := made.(*bucketIncoming)
	s.mu.Lock()
	defer s.mu.Unlock()
	err = s.step("Reopen", up)
	staged, ok := s.prefix(up, length)
	if err == nil && !ok {
		err = storage.ErrNotStored
	}
	if err != nil {
		delete(s.open, in.up.Key)
		return nil, err
	}
	in.staged = staged
	s.all[up].writer = nil
	return in, nil
}

func (in *bucketIncoming) Key() string { return in.up.Key }

// takeLease has the content leased, once. The caller does not have mu.
func (in *bucketIncoming) takeLease(ctx context.Context) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.leased || in.s.lease == nil {
		return nil
	}
	if err := in.s.lease(ctx, in.up); err != nil {
		return err
	}
	in.leased = true
	return nil
}

func (in *bucketIncoming) Write(ctx context.Context, p []byte) (int, error) {
	if err := in.s.alive(ctx); err != nil {
		return 0, err
	}
	in.mu.Lock()
	in.staged = append(in.staged, p...)
	whole := len(in.staged) / BucketPart * BucketPart
	sends := whole > in.sent
	in.mu.Unlock()
	if sends {
		if err := in.send(ctx, "Part", whole); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// send makes the first n bytes durable.
func (in *bucketIncoming) send(ctx context.Context, request string, n int) error {
	if err := in.takeLease(ctx); err != nil {
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.s.mu.Lock()
	defer in.s.mu.Unlock()
	if err := in.s.step(request, in.up); err != nil {
		return err
	}
	o, err := in.object()
	if err != nil {
		return err
	}
	o.flushed, o.comes = slices.Clone(in.staged[:max(n, len(o.flushed))]), true
	in.sent = max(in.sent, n/BucketPart*BucketPart)
	return nil
}

// object returns what the bucket has of in, under mu. An error says that it is not in's any
// more.
func (in *bucketIncoming) object() (*object, error) {
	o := in.s.all[in.up]
	switch {
	case o == nil && in.sent > 0: // somebody has removed it
		return nil, storage.ErrNotStored
	case o == nil:
		o = &object{writer: in}
		in.s.all[in.up] = o
	case o.writer != in:
		return nil, storage.ErrSuperseded
	}
	return o, nil
}

func (in *bucketIncoming) Complete(ctx context.Context) error {
	in.leave()
	if err := in.s.alive(ctx); err != nil {
		return err
	}
	if err := in.takeLease(ctx); err != nil {
		return err
	}
	in.s.mu.Lock()
	defer in.s.mu.Unlock()
	if err := in.s.step("Complete", in.up); err != nil {
		return err
	}
	o, err := in.object()
	if err != nil {
		return err
	}
	o.data, o.whole, o.flushed, o.comes = in.staged, true, nil, false
	return nil
}

func (in *bucketIncoming) Close(context.Context) error {
	in.leave()
	return nil
}

func (in *bucketIncoming) leave() {
	in.s.mu.Lock()
	defer in.s.mu.Unlock()
	if in.s.open[in.up.Key] == in {
		delete(in.s.open, in.up.Key)
	}
}

// Flush implements storage.Files.
func (s *BucketFiles) Flush(ctx context.Context, up storage.Uploaded, length int64) error {
	if err := s.alive(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	in, o := s.open[up.Key], s.all[up]
	s.mu.Unlock()
	switch {
	case in != nil && in.up == up:
		return in.send(ctx, "Flush", int(length))
	case o == nil || int64(max(len(o.flushed), len(o.data))) < length:
		return storage.ErrNotStored
	}
	return nil
}

// Commit implements storage.Files. It only looks.
func (s *BucketFiles) Commit(ctx context.Context, f *storage.File) error {
	if err := s.checked(ctx, f.Path); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.all[f.Uploaded()]; o == nil || !o.whole || int64(len(o.data)) != f.Size {
		return storage.ErrNotStored
	}
	return nil
}

func (s *BucketFiles) checked(ctx context.Context, path string) error {
	if clean, err := storage.CleanPath(path); err != nil || clean != path {
		return storage.ErrPath
	}
	return s.alive(ctx)
}

// Discard implements storage.Files.
func (s *BucketFiles) Discard(ctx context.Context, up storage.Uploaded) error {
	if err := s.alive(ctx); err != nil {
		return err
	}
	return s.remove("Discard", up)
}

// Remove implements storage.Files.
func (s *BucketFiles) Remove(ctx context.Context, f storage.Stored) error {
	if err := s.checked(ctx, f.Path); err != nil {
		return err
	}
	return s.remove("Remove", storage.Uploaded(f))
}

func (s *BucketFiles) remove(request string, up storage.Uploaded) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.step(request, up); err != nil {
		return err
	}
	delete(s.all, up)
	return nil
}

// Size implements storage.Files.
func (s *BucketFiles) Size(ctx context.Context, ref storage.Ref) (int64, error) {
	up, stored, err := s.named(ctx, ref)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.all[up]
	switch {
	case o == nil:
	case o.whole && (stored || len(o.data) >= len(o.flushed)):
		return int64(len(o.data)), nil
	case o.comes && !stored:
		return int64(len(o.flushed)), nil
	}
	return 0, storage.ErrNotStored
}

// named returns the name of the object of ref.
func (s *BucketFiles) named(ctx context.Context, ref storage.Ref) (up storage.Uploaded, stored bool, err error) {
	switch ref := ref.(type) {
	case storage.Stored:
		return storage.Uploaded(ref), true, s.checked(ctx, ref.Path)
	case storage.Uploaded:
		return ref, false, s.alive(ctx)
	}
	return up, false, storage.ErrNotStored
}

// Open implements storage.Files.
func (s *BucketFiles) Open(ctx context.Context, ref storage.Ref) (io.ReadCloser, error) {
	return s.OpenFrom(ctx, ref, 0)
}

// OpenFrom implements storage.Files.
func (s *BucketFiles) OpenFrom(ctx context.Context, ref storage.Ref, offset int64) (io.ReadCloser, error) {
	up, _, err := s.named(ctx, ref)
	if err != nil {
		return nil, err
	}
	data, ok := s.Content(up)
	if !ok {
		return nil, storage.ErrNotStored
	}
	return io.NopCloser(bytes.NewReader(data[offset:])), nil
}

// Has implements storage.Files.
func (s *BucketFiles) Has(ctx context.Context, id codec.ClientID) (bool, error) {
	if err := s.alive(ctx); err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for up, o := range s.all {
		if up.ID == id && o.whole {
			return true, nil
		}
	}
	return false, nil
}

// EachContent is for audit.Sweep. It yields what there was when it began.
func (s *BucketFiles) EachContent(ctx context.Context, yield func(up storage.Uploaded, modified time.Time) error) error {
	all := s.Uploads()
	slices.SortFunc(all, func(a, b storage.Uploaded) int { return strings.Compare(a.Key, b.Key) })
	for _, up := range all {
		if err := s.alive(ctx); err != nil {
			return err
		}
		if err := yield(up, time.Time{}); err != nil {
			return err
		}
	}
	return nil
}

// Scratch implements storage.Files.
func (s *BucketFiles) Scratch(ctx context.Context) (storage.Scratch, error) {
	return new(scratch), s.alive(ctx)
}

// scratch is temporary room in memory.
type scratch struct{ b []byte }

func (s *scratch) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(s.b)) {
		return 0, io.EOF
	}
	n := copy(p, s.b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (s *scratch) WriteAt(p []byte, off int64) (int, error) {
	if more := off + int64(len(p)) - int64(len(s.b)); more > 0 {
		s.b = append(s.b, make([]byte, more)...)
	}
	return copy(s.b[off:], p), nil
}

func (s *scratch) Close() error { return nil }
