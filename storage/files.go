package storage

import (
	"context"
	"errors"
	"io"

	"sealift/codec"
)

// ErrObstructed is a place for a file that cannot be used, because something
// that is no folder, or a folder of another file system, is on the way, or
// something that is no file is in it.
var ErrObstructed = errors.New("something else is in the file's place")

// Files keeps the content of files. An upload is written to an incoming file,
// which has a key of its own; once verified it moves to its client's folder.
// Implementations are safe for concurrent use.
type Files interface {
	// Create begins an incoming file that is meant for place. ErrFull, from Create
	// or a Write, if the content would take the reserve. ErrPath or ErrObstructed if
	// it is seen already that no Commit can put a file there.
	Create(ctx context.Context, place Place, size Announced) (Incoming, error)

	// Commit puts the complete incoming file f.Uploaded() into its place, instead of
	// the one that was. When it returns nil the content and its place survive a
	// power cut. If the incoming file is gone, an earlier Commit may have put it
	// there: then what is in the place must have f.Size and f.Cksum. Errors:
	//
	//   - ErrNotStored: the content is in neither.
	//   - ErrObstructed: there can be no file at the path.
	//   - ErrNotDurable: the content could not be made durable, and never can be.
	//     The file that was is still in the place.
	//   - ErrPlaceNotDurable: the content is in the place, but after a power cut
	//     either version, or none, may be there.
	//   - After any other error Commit may be called again.
	Commit(ctx context.Context, f *File) error

	// Reopen goes on with an incoming file that was closed, after its first length bytes: the
	// others go. size is as for Create, of the whole. Nobody else may have the file open, but in
	// a store that is Sealed: there a server may be late, and what it still does must not change
	// the bytes that the new Incoming has. Such a store may give that a key of its own, and
	// leave up as it is, to be discarded. What is complete can be reopened too. Errors as from
	// Create, and ErrNotStored if there is no such file, or a shorter one.
	Reopen(ctx context.Context, up Uploaded, size Announced, length int64) (Incoming, error)

	// Flush makes the first length bytes of an incoming file durable, which were written
	// before Flush was called. It may run beside a Write. After an error nothing is known
	// to be. ErrNotStored if there is no such file. Reopen with a length that was flushed
	// finds those bytes, also on another server where the store is shared.
	Flush(ctx context.Context, up Uploaded, length int64) error

	// Discard removes an incoming file. It is no error if there is none.
	Discard(ctx context.Context, f Uploaded) error

	// Remove removes content from its place, and folders that are empty then. When it
	// returns nil, the content does not come back after a power cut. It is no error if
	// there is none. The caller knows that what is in the place is f.
	Remove(ctx context.Context, f Stored) error

	// Size returns how many bytes the content has. ErrNotStored if there is none.
	Size(ctx context.Context, ref Ref) (int64, error)

	// Open opens content for reading. ErrNotStored if there is none.
	Open(ctx context.Context, ref Ref) (io.ReadCloser, error)

	// OpenFrom is Open from that byte on, at most the size of the content.
	OpenFrom(ctx context.Context, ref Ref, offset int64) (io.ReadCloser, error)

	// Has reports whether client id has anything stored.
	Has(ctx context.Context, id codec.ClientID) (bool, error)

	// Folds returns a function that makes the same of two paths of a client which
	// are one place in this store, as where the disk does not tell upper from lower
	// case. It may make the same of others, too. It returns nil if each path is a
	// place of its own. The answer does not change.
	Folds() func(path string) string

	// Keeping says how the store keeps content. The answer does not change.
	Keeping() Keeping

	// Scratch makes temporary room for packets that came before their turn. What
	// a process that was killed left of it goes at the next start.
	Scratch(ctx context.Context) (Scratch, error)
}

// Keeping says how a store keeps content. The zero value is that of a directory.
type Keeping struct {
	// Versions: each version of a file has content of its own, which the key names, also in
	// its place. Commit moves nothing and replaces nothing: it looks whether the content is
	// there. Whoever has a version verified removes the content of the one that was.
	Versions bool
	// Leases: content is on its way into the store under a lease, see [Leases]. The registry
	// takes it away when the file is recorded, and records nothing without: PutFile.Leased,
	// PutPartial.Leased.
	Leases bool
	// Sealed: content that came in cannot be read before its Complete. Of a partial file no
	// more is there than was flushed, and that is certain, whatever boot it is of.
	Sealed bool
}

// What Files answers when a file cannot be had or kept.
var (
	ErrNotStored       = errors.New("the file is not in the store")
	ErrNotDurable      = errors.New("the content could not be written to the disk")
	ErrPlaceNotDurable = errors.New("the file's folder could not be written to the disk")
	ErrFull            = errors.New("the disk is full, but for a reserve")
)

// Incoming is a file that is being received. One goroutine at a time uses it.
type Incoming interface {
	// Key names the content in the store, together with its place, also after a
	// restart.
	Key() string
	// Write appends p, and returns an error unless all of it was taken. It does
	// not keep p. Nothing of p was taken if it returns the error of ctx.
	Write(ctx context.Context, p []byte) (int, error)
	// Complete ends the writing as Close does, and says that the content is whole: it can
	// be committed.
	Complete(ctx context.Context) error
	// Close ends the writing. The content stays as it is, to be reopened or discarded; where
	// the store is Sealed, what was flushed of it. Whatever it returns, and also if ctx has
	// ended, the Incoming holds nothing any more.
	Close(ctx context.Context) error
}

// Scratch is temporary room. One goroutine at a time uses it; Close removes it.
type Scratch interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
}
