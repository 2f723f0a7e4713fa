package storage

import "sealift/codec"

// Place is where a client's file is once it is verified.
type Place struct {
	ID   codec.ClientID
	Path string // below the client's folder, as [CleanPath] returns it
}

// Ref names content in a store, and says in which state it is: it is an
// [Uploaded] or a [Stored].
type Ref interface{ ref() }

// Uploaded is content that came in, complete or not, and is not in its place: an
// incoming file.
type Uploaded struct {
	Place        // that it is meant for
	Key   string // see [Incoming]
}

// Stored is content in its place.
type Stored struct {
	Place
	Key string // under which it came in. A store that keeps one version of a file does not need it; "" if not known.
}

func (Uploaded) ref() {}
func (Stored) ref()   {}

// Place returns where f is, or is meant to be.
func (f *File) Place() Place { return Place{f.ID, f.Path} }

// Uploaded names the content of f as it came in.
func (f *File) Uploaded() Uploaded { return Uploaded{f.Place(), f.Incoming} }

// Stored names the content of f in its place.
func (f *File) Stored() Stored { return Stored{f.Place(), f.Incoming} }

// Announced is the size that a client announced for a file; the zero value says
// that it announced none. Nobody has checked it: a store reserves room step by
// step as content arrives, never all of it at once.
type Announced struct {
	bytes int64
	known bool
}

// Announce returns the announcement of a file of that many bytes.
func Announce(bytes int64) Announced { return Announced{bytes, true} }

// Size returns the size in bytes, and whether there is one.
func (a Announced) Size() (bytes int64, known bool) { return a.bytes, a.known }
