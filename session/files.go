package session

import (
	"context"
	"errors"
	"io"
	"strings"

	"sealift/codec"
)

// ErrPath is a file name that cannot be stored.
var ErrPath = errors.New("the file name is not a path below the client's folder")

// ErrObstructed is a place for a file that cannot be used, because something
// that is no folder is on the way, or something that is no file is in it.
var ErrObstructed = errors.New("something else is in the file's place")

// Files keeps the content of files. An upload is written to an incoming file,
// which has a key of its own; once verified it moves to its client's folder.
// Implementations are safe for concurrent use.
type Files interface {
	// Create begins an incoming file. size is how many bytes the client says it
	// will send, or -1 if it does not. It is a hint that nobody has paid for yet:
	// a store reserves room step by step as content comes, never size at once.
	Create(ctx context.Context, size int64) (Incoming, error)

	// Commit makes the complete incoming file with that key the file of client
	// id at path, in the place of the one that was. When it returns nil the
	// content and its place survive a power cut. After an error the incoming
	// file is still there, or is in its place already: both may be committed
	// again. ErrNotStored if it is in neither, ErrObstructed if there can be no
	// file at path.
	Commit(ctx context.Context, key string, id codec.ClientID, path string) error

	// Discard removes an incoming file. It is no error if there is none.
	Discard(ctx context.Context, key string) error

	// Open opens a stored file for reading: the incoming one with that key, or,
	// if key is empty, that of client id at path. ErrNotStored if there is none.
	Open(ctx context.Context, key string, id codec.ClientID, path string) (io.ReadCloser, error)

	// Scratch makes temporary room for packets that came before their turn. What
	// a process that was killed left of it goes at the next start.
	Scratch(ctx context.Context) (Scratch, error)
}

// ErrNotStored is an attempt to open or commit a file that is not there.
var ErrNotStored = errors.New("the file is not in the store")

// Incoming is a file that is being received. One goroutine at a time uses it.
type Incoming interface {
	// Key names the file in the store, also after a restart.
	Key() string
	// Write appends p, and returns an error unless all of it was taken. It does
	// not keep p.
	Write(p []byte) (int, error)
	// Close ends the writing. The file stays, to be committed or discarded by
	// its key.
	Close() error
}

// Scratch is temporary room. One goroutine at a time uses it; Close removes it.
type Scratch interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
}

// CleanPath makes a slash-separated path below a client's folder of the name
// that the client gave its file. Backslashes count as slashes; a drive letter
// and leading slashes are dropped, as are "." and empty elements. A ".." removes
// the element before it, and where there is none it is dropped like a leading
// slash: so clients whose names are relative to a folder of their own are
// served, and no name leads out of the client's folder. Different names may
// have the same path. Names with control characters, and names of which nothing
// is left, are refused with ErrPath.
func CleanPath(name string) (string, error) {
	for i := range len(name) {
		if name[i] < 0x20 || name[i] > 0x7e {
			return "", ErrPath
		}
	}
	s := strings.ReplaceAll(name, `\`, "/")
	if len(s) >= 2 && s[1] == ':' && (s[0]|0x20 >= 'a' && s[0]|0x20 <= 'z') {
		s = s[2:]
	}
	var elements []string
	for e := range strings.SplitSeq(s, "/") {
		switch e {
		case "", ".":
		case "..":
			elements = elements[:max(len(elements)-1, 0)]
		default:
			elements = append(elements, e)
		}
	}
	if len(elements) == 0 {
		return "", ErrPath
	}
	return strings.Join(elements, "/"), nil
}
