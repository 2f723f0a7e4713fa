package s3

import (
	"context"
	"errors"
	"hash/crc32"
	"math"
	"sync"

	"go.uber.org/zap"

	"sealift/storage"
)

// ahead is how many parts of an upload may be on their way, or wait for that, while more content comes in.
const ahead = 3

// incoming is a storage.Incoming. Between its goroutine, those that send its parts and a Flush,
// mu is held for a moment only.
type incoming struct {
	s       *Store
	up      storage.Uploaded
	object  string
	area    *area
	base    int64 // the least size of its parts
	ctx     context.Context
	cancel  context.CancelFunc
	slots   chan struct{} // holds one for each part that is not done, ahead at most
	turn    chan struct{} // holds one while a Flush, a Complete or the end is under way
	beginMu sync.Mutex    // held while the lease and the multipart upload are made

	mu       sync.Mutex
	size     int64
	cut      int64 // where the parts end
	parts    []*part
	sum      uint32 // CRC-32C of what lies between sumFrom and size
	sumFrom  int64  // -1: not known
	hold     int64  // from there on the scratch file keeps the content: a Flush reads it
	uploadID string
	plain    bool // the multipart upload knows no checksums: its parts are sent with their SHA-256
	leased   bool
	sent     bool       // something of the key may be in the bucket
	whole    bool       // it was completed
	failed   error      // what the bucket gets is not sure any more
	kept     []keptName // the objects that this incoming has made in the bucket, with growing lengths
}

// newIncoming is an upload that has nothing yet, and is known to the store.
func (s *Store) newIncoming(up storage.Uploaded, size storage.Announced) *incoming {
	ctx, cancel := context.WithCancel(context.Background())
	in := &incoming{
		s: s, up: up, object: s.object(up.Place, up.Key), area: s.room.area(), base: s.baseSize(size),
		ctx: ctx, cancel: cancel, slots: make(chan struct{}, ahead), turn: make(chan struct{}, 1), hold: math.MaxInt64,
	}
	s.mu.Lock()
	s.uploads[up.Key] = in
	s.mu.Unlock()
	return in
}

// find returns the upload of a key, or nil if this store has it not.
func (s *Store) find(key string) *incoming {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.uploads[key]
}

// Key implements storage.Incoming.
func (in *incoming) Key() string { return in.up.Key }

// Write implements storage.Incoming. A part is cut when more comes than it may have. Write waits as
// long as too many parts are on their way.
func (in *incoming) Write(ctx context.Context, p []byte) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	written := 0
	for written < len(p) {
		room, err := in.space(ctx)
		if err != nil {
			return written, err
		}
		ctx = in.ctx // from the first byte on, all of p is taken
		piece := p[written:min(len(p), written+room)]
		if _, err := in.area.WriteAt(piece, in.size); err != nil { // only this goroutine changes size
			in.fail(err)
			return written, err
		}
		in.appended(piece)
		written += len(piece)
	}
	return written, nil
}

// appended counts in what was appended to the scratch file.
func (in *incoming) appended(p []byte) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.size += int64(len(p))
	if in.sumFrom >= 0 {
		in.sum = crc32.Update(in.sum, castagnoli, p)
	}
}

// space returns how many bytes can be appended to the next part. It cuts one that is full.
func (in *incoming) space(ctx context.Context) (int, error) {
	for {
		in.mu.Lock()
		room, failed := in.nextSize()-(in.size-in.cut), in.failed
		in.mu.Unlock()
		if failed != nil {
			return 0, failed
		}
		if room > 0 {
			return int(min(room, math.MaxInt32)), nil
		}
		if err := in.slot(ctx); err != nil {
			return 0, err
		}
		in.mu.Lock()
		if in.nextSize() > in.size-in.cut { // a Flush has cut it meanwhile
			in.mu.Unlock()
			<-in.slots
			continue
		}
		p, err := in.cutAt(in.size)
		in.mu.Unlock()
		if err != nil {
			<-in.slots
			return 0, err
		}
		go in.send(p)
	}
}

// slot waits until another part may be made.
func (in *incoming) slot(ctx context.Context) error {
	select {
	case in.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-in.ctx.Done():
		return in.failure() // which came first
	}
}

// fail has the upload end with err, unless it failed before.
func (in *incoming) fail(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.failed == nil {
		in.failed = err
	}
}

// failure is what the upload has failed of.
func (in *incoming) failure() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.failed
}

// take waits until neither a Flush nor a Complete is under way.
func (in *incoming) take(ctx context.Context) error {
	select {
	case in.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// giveBack ends what take began.
func (in *incoming) giveBack() { <-in.turn }

// Complete implements storage.Incoming: the object is there when it returns nil.
func (in *incoming) Complete(ctx context.Context) error {
	err := in.take(ctx)
	if err == nil {
		err = in.lost(in.complete(ctx))
		in.giveBack()
	}
	in.leave(errClosed)
	return err
}

func (in *incoming) complete(ctx context.Context) error {
	if err := in.failure(); err != nil {
		return err
	}
	in.mu.Lock()
	single, kept := in.uploadID == "" && len(in.parts) == 0, in.kept
	in.mu.Unlock()
	var err error
	if single {
		err = in.putWhole(ctx)
	} else {
		err = in.finishParts(ctx)
	}
	if err != nil {
		return err
	}
	in.mu.Lock()
	in.whole = true
	in.mu.Unlock()
	for _, k := range kept {
		if err := in.s.remove(ctx, k.name); err != nil { // it takes room, and does no harm
			in.s.log.Warn("what a file needed on its way is left in the bucket", zap.String("object", k.name), zap.Error(err))
		}
	}
	return nil
}

// Close implements storage.Incoming. What was flushed stays.
func (in *incoming) Close(context.Context) error {
	in.leave(errClosed)
	return nil
}

// errClosed is what comes of the use of an upload that was closed.
var errClosed = errors.New("the upload is closed")

// leave ends what is under way for the upload in this store, whose further use fails with err, and forgets
// it. What the bucket has stays.
func (in *incoming) leave(err error) {
	in.s.mu.Lock()
	if in.s.uploads[in.up.Key] != in {
		in.s.mu.Unlock()
		return
	}
	delete(in.s.uploads, in.up.Key)
	in.s.mu.Unlock()
	in.fail(err)
	in.cancel()
	in.turn <- struct{}{} // a Flush that is under way ends first
	defer in.giveBack()
	in.mu.Lock()
	parts, sent := in.parts, in.sent
	in.mu.Unlock()
	for _, p := range parts {
		<-p.done
	}
	_ = in.area.Close() // never fails
	if !sent {
		in.s.noteUnsent(in.up.Key)
	}
}

// maxUnsent is of how many uploads it is remembered that the bucket has nothing of them.
const maxUnsent = 4096

// noteUnsent remembers that the bucket has nothing of a key, so its Discard needs no request.
func (s *Store) noteUnsent(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.unsent) >= maxUnsent {
		clear(s.unsent) // those that stay are closed and discarded at once
	}
	s.unsent[key] = struct{}{}
}

// takeUnsent reports whether the bucket has nothing of a key for sure, and forgets it.
func (s *Store) takeUnsent(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.unsent[key]
	delete(s.unsent, key)
	return ok
}

// Leased returns the keys of the uploads that are on their way under a lease: they want it renewed.
func (s *Store) Leased() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []string
	for key, in := range s.uploads {
		in.mu.Lock()
		if in.leased && !in.whole {
			keys = append(keys, key)
		}
		in.mu.Unlock()
	}
	return keys
}

// Lost says that the leases of these keys are gone. Those that are still on their way fail with storage.ErrNoLease.
func (s *Store) Lost(keys []string) {
	for _, key := range keys {
		in := s.find(key)
		if in == nil {
			continue
		}
		in.mu.Lock()
		lost := in.leased && !in.whole
		in.mu.Unlock()
		if lost {
			in.fail(storage.ErrNoLease)
			in.cancel()
		}
	}
}

// begin sees to it that there is a lease, and with multipart a multipart upload.
func (in *incoming) begin(ctx context.Context, multipart bool) error {
	in.beginMu.Lock()
	defer in.beginMu.Unlock()
	in.mu.Lock()
	leased, uploadID, plain, err := in.leased, in.uploadID, in.plain, in.failed
	in.mu.Unlock()
	if err != nil {
		return err
	}
	if !leased {
		if in.s.lease != nil {
			if err := in.s.lease(ctx, in.up); err != nil {
				return err
			}
		}
		in.mu.Lock()
		in.leased, in.sent = true, true
		in.mu.Unlock()
	}
	if !multipart || uploadID != "" {
		return nil
	}
	uploadID, err = in.s.beginMultipart(ctx, in.object, plain)
	in.mu.Lock()
	in.uploadID = uploadID
	in.mu.Unlock()
	return err
}
