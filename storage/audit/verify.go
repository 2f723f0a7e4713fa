// Package audit puts in order what a server finds when it starts, and checks
// what it has stored: the registry and the files have to agree, whatever moment
// the last server was killed at.
//
// A file goes through these steps; a crash may fall between any two:
//
//  1. its content is in an incoming file;
//  2. PutFile commits an unverified row that names it, and the client gets 1603;
//  3. after the client's 1029, Files.Commit flushes the content,
//  4. renames it over what is in its place,
//  5. flushes the directory;
//  6. VerifyFile commits the row as verified, over that of the file that was, and
//     the client gets 1604.
//
// Before step 2 there is an incoming file without a row: it goes. From 2 to 4
// row and file agree, and the client may still send its 1029; unless the power
// failed and the content, not flushed yet, is not what the row says: then both
// go. From 4 to 6 the row is unverified, its incoming file is gone, and the
// place holds what the row says: since only a 1029 gets that far, the file is
// verified.
//
// A verified row stays whatever became of its file. It is marked as missing while
// that is not in its place, or may not survive a power cut there. Only a person
// can have it forgotten. What was taken or deleted has steps of its own, see [Clear].
package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/storage"
)

// Files is a storage.Files that can tell what it holds. *files.Store is one.
type Files interface {
	storage.Files

	// EachIncoming calls yield with each incoming file. yield may discard files. A
	// store that does not know which place a file is meant for says none.
	EachIncoming(ctx context.Context, yield func(storage.Uploaded) error) error

	// EachStored calls yield with each file in a client's folder.
	EachStored(ctx context.Context, yield func(id codec.ClientID, path string) error) error
}

// What is wrong with a file whose row says otherwise.
var (
	ErrMissing = errors.New("the file is missing")
	ErrSize    = errors.New("the file has another size than was recorded")
	ErrCksum   = errors.New("the file has another checksum than was recorded")
)

// FilesGoneError is a registry of which no file at all can be found: a disk that
// is not mounted is likelier than that all were removed.
type FilesGoneError struct {
	Recorded int // how many verified files there should be
}

func (e *FilesGoneError) Error() string {
	return fmt.Sprintf("none of the %d recorded files was found", e.Recorded)
}

// Event says what Recover, Expire and Clear found, and what they did about it.
type Event string

// The events. The comments say which fields of Finding.File are set.
const (
	Finished Event = "verified now: its 1029 had come and the file was in place"    // all
	Spoilt   Event = "dropped: the content that waited for a 1029 is not whole"     // all
	Expired  Event = "dropped: no 1029 came in time"                                // all
	Missing  Event = "marked as missing: the stored file is not in its place"       // all
	Returned Event = "found again: the stored file is in its place"                 // all
	Damaged  Event = "the stored file is not what was recorded"                     // all
	Orphan   Event = "removed: an incoming file that no record knows"               // Incoming
	Stray    Event = "left alone: a file in a client's folder that no record knows" // ID, Path
	Taken    Event = "removed: the content of a file that was taken"                // all
	Deleted  Event = "removed: a file that somebody deleted"                        // all
	Handed   Event = "forgotten: a file that was taken a day ago"                   // all
	Keyless  Event = "forgotten: a client that has not sent a public key in time"   // ID
	BadRows  Event = "left alone: records that cannot be understood"                // none
	Failed   Event = "left as it was, because it cannot be read or changed"         // all
)

// Finding is one thing found.
type Finding struct {
	Event Event
	File  storage.File
	Err   error // why; nil where the event says it all
}

// Report counts the findings of a Recover, an Expire or a Clear.
type Report map[Event]int

// Options of Recover, Expire and Clear.
type Options struct {
	// UnverifiedTTL is how long a file waits for its 1029, and a client without a
	// file for its 1026. Zero is for ever.
	UnverifiedTTL time.Duration
	// Now is the time.
	Now time.Time
	// Log is called with each finding; it may be nil.
	Log func(Finding)
	// Dropped is called with each unverified file that was dropped, after its
	// record went and before its content goes, with what DropFile said about
	// Marked. Inside of Exclusive. It may be nil.
	Dropped func(f *storage.File, marked bool)
	// Forgotten is called with each verified file that was forgotten with the mark that
	// a version of it had lapsed, see storage.ForgetFile. Inside of Exclusive. It may be
	// nil.
	Forgotten func(f *storage.File)
	// Finished is called with each unverified file that was found in its place,
	// after it was recorded as verified. Inside of Exclusive. It may be nil.
	Finished func(f *storage.File)
	// Waiting is called by Recover with each unverified file that stays. It may
	// be nil.
	Waiting func(f *storage.File)
	// Exclusive runs do while nobody else verifies or drops the file of client id
	// at path. Expire and Clear need it beside a running server; nil is for when there
	// is none.
	Exclusive func(id codec.ClientID, path string, do func())
	// Enough reports whether Clear, or Recover where it does the same, shall leave the rest
	// of the files for another Clear. It is called after each file; nil is for all of them.
	Enough func() bool
}

// exclusively is Exclusive, if there is one.
func (o *Options) exclusively(f *storage.File, do func() error) (err error) {
	if o.Exclusive == nil {
		return do()
	}
	o.Exclusive(f.ID, f.Path, func() { err = do() })
	return err
}

func (o *Options) expired(f *storage.File) bool {
	return o.UnverifiedTTL > 0 && !f.Received.IsZero() && o.Now.Sub(f.Received) > o.UnverifiedTTL
}

// handed reports whether the verified file f was taken so long ago that its row may go.
// The content went before.
func (o *Options) handed(f *storage.File) bool {
	return !f.Taken.IsZero() && f.Missing && o.Now.Sub(f.Taken) > takenFor
}

// copySize is how much content is read at a time, in bytes.
const copySize = 256 << 10

// checker compares files with what is on record.
type checker struct {
	files storage.Files
	buf   []byte
}

func newChecker(files storage.Files) *checker {
	return &checker{files: files, buf: make([]byte, copySize)}
}

// check reads the content that ref names and compares it with f. The error wraps
// ErrMissing, ErrSize or ErrCksum, or else is one of reading.
func (c *checker) check(ctx context.Context, f *storage.File, ref storage.Ref) error {
	r, err := c.files.Open(ctx, ref)
	if errors.Is(err, storage.ErrNotStored) {
		return ErrMissing
	}
	if err != nil {
		return err
	}
	size, sum, err := c.copy(ctx, io.Discard, r, f.Size)
	if err = errors.Join(err, r.Close()); err != nil {
		return err
	}
	return compare(f, size, sum)
}

// compare returns an error that wraps ErrSize or ErrCksum unless content of that
// size and checksum is that of f.
func compare(f *storage.File, size int64, sum uint32) error {
	switch {
	case size != f.Size:
		return fmt.Errorf("%w: %s, not %d bytes", ErrSize, sizeText(size, f.Size), f.Size)
	case sum != f.Cksum:
		return fmt.Errorf("%w: %d, not %d", ErrCksum, sum, f.Cksum)
	}
	return nil
}

// copy copies r to w and sums it, and stops when there is more than want bytes.
func (c *checker) copy(ctx context.Context, w io.Writer, r io.Reader, want int64) (size int64, sum uint32, err error) {
	h := cksum.New()
	for size <= want {
		if err := ctx.Err(); err != nil {
			return 0, 0, err
		}
		n, err := r.Read(c.buf)
		size += int64(n)
		h.Write(c.buf[:n])
		if _, err := w.Write(c.buf[:n]); err != nil {
			return 0, 0, &writeError{err}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, 0, err
		}
	}
	return size, h.Sum32(), nil
}

// writeAnew writes the stored content of f, of which it reads little more than
// want bytes, into a complete incoming file of to. It returns f with the key of
// that, and the size and checksum that it has. After an error nothing is left.
func (c *checker) writeAnew(ctx context.Context, to storage.Files, f *storage.File, want int64) (storage.File, error) {
	g := *f
	r, err := c.files.Open(ctx, f.Stored())
	if errors.Is(err, storage.ErrNotStored) {
		return g, ErrMissing
	}
	if err != nil {
		return g, err
	}
	defer r.Close()
	in, err := to.Create(ctx, f.Place(), storage.Announce(f.Size))
	if err != nil {
		return g, &writeError{fmt.Errorf("%s: %w", f.PathName(), err)}
	}
	g.Incoming = in.Key()
	g.Size, g.Cksum, err = c.copy(ctx, writer{ctx, in}, r, want)
	if e := in.Close(ctx); e != nil {
		err = errors.Join(err, &writeError{e})
	}
	if err != nil {
		err = errors.Join(err, to.Discard(context.WithoutCancel(ctx), g.Uploaded()))
	}
	return g, err
}

// writer writes to an Incoming.
type writer struct {
	ctx context.Context
	in  storage.Incoming
}

func (w writer) Write(p []byte) (int, error) { return w.in.Write(w.ctx, p) }

// writeError is what went wrong with a copy, not with what is copied.
type writeError struct{ error }

func (w *writeError) Unwrap() error { return w.error }

func sizeText(size, want int64) string {
	if size > want {
		return "more"
	}
	return fmt.Sprintf("%d", size)
}

// Verify reads every verified file and calls progress with it, and with nil or
// what is wrong: an error that wraps ErrMissing, ErrSize or ErrCksum, or one of
// reading the file. Files that seem wrong come last: they are looked at again
// first, since a running server may have replaced them meanwhile. Memory
// depends on how many those are, not on how many or how large the files are.
//
// A file that is marked as missing is wrong also where it is in its place again:
// recovery has not taken it back yet. Files that were taken or deleted are passed over.
//
// A store whose answers take their time is asked for several files at once. Then files come in
// any order; progress is called with one after the other.
//
// The error is one of the registry, or ctx's.
func Verify(ctx context.Context, reg storage.Registry, files storage.Files, progress func(storage.File, error)) error {
	c := newChecker(files)
	wrong, err := c.firstLook(ctx, reg, progress)
	if err != nil && !errors.Is(err, storage.ErrBadRows) {
		return err
	}
	for i := range wrong {
		if err := c.checkAgain(ctx, reg, &wrong[i], progress); err != nil {
			return err
		}
	}
	return err
}

// verifyAtOnce is how many files of a bucket are read at once.
const verifyAtOnce = 4

// firstLook reads every verified file, calls progress with those that are as they were
// uploaded, and returns the others.
func (c *checker) firstLook(ctx context.Context, reg storage.Registry, progress func(storage.File, error)) (wrong []storage.File, err error) {
	var mu sync.Mutex
	look := func(c *checker, f storage.File) {
		fault := c.checkStored(ctx, &f)
		mu.Lock()
		defer mu.Unlock()
		if fault != nil {
			wrong = append(wrong, f)
		} else {
			progress(f, nil)
		}
	}
	next := func(f storage.File) { look(c, f) }
	end := func() {}
	if c.files.Keeping().Versions {
		todo := make(chan storage.File)
		var readers sync.WaitGroup
		for range verifyAtOnce {
			readers.Go(func() {
				c := newChecker(c.files)
				for f := range todo {
					look(c, f)
				}
			})
		}
		next = func(f storage.File) { todo <- f }
		end = func() {
			close(todo)
			readers.Wait()
		}
	}
	err = reg.Files(ctx, func(f storage.File) error {
		if f.Verified && f.Stays() {
			next(f)
		}
		return ctx.Err()
	})
	end()
	return wrong, err
}

// checkStored is check for the verified file f, which may be marked as missing.
func (c *checker) checkStored(ctx context.Context, f *storage.File) error {
	err := c.check(ctx, f, f.Stored())
	if err == nil && f.Missing {
		then := "the next start of the server takes it back"
		if c.files.Keeping().Sealed { // of a bucket no start looks for what is missing
			then = "its client has to send it again"
		}
		err = fmt.Errorf("%w on record; it is there now, and %s", ErrMissing, then)
	}
	return err
}

// checkAgain checks f, which seemed wrong, until its row is the same before and
// after.
func (c *checker) checkAgain(ctx context.Context, reg storage.Registry, f *storage.File, progress func(storage.File, error)) error {
	for {
		fault := c.checkStored(ctx, f)
		get, err := getFile(ctx, reg, f)
		switch {
		case err != nil:
			return err
		case get.Verified == nil || !get.Verified.Stays():
			return nil // forgotten, taken or deleted meanwhile
		case *get.Verified == *f:
			progress(*f, fault)
			return nil
		}
		f = get.Verified
	}
}

// getFile reads what the registry has where f is, or was.
func getFile(ctx context.Context, reg storage.Registry, f *storage.File) (*storage.GetFile, error) {
	get := &storage.GetFile{Outcome: own, ID: f.ID, Path: f.Path}
	if err := reg.Apply(ctx, []storage.Operation{get}); err != nil {
		return nil, err
	}
	if get.Err != nil && !errors.Is(get.Err, storage.ErrNoFile) {
		return nil, get.Err
	}
	return get, nil
}
