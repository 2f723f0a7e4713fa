package storage

import (
	"context"
	"errors"
	"time"

	"sealift/codec"
)

// What a Registry answers when an operation cannot be done. Anything else in
// an operation's error is a failure of the store, and a client gets 1607.
var (
	ErrNameTaken = errors.New("the name is taken")
	ErrIDTaken   = errors.New("the client id is taken")
	ErrNoClient  = errors.New("no such client")
	ErrWrongName = errors.New("the client is registered under another name")
	ErrKeyPinned = errors.New("the client has another public key on record")
	ErrPinned    = errors.New("the client is pinned to another TLS key")
	ErrNoFile    = errors.New("no such file")
	ErrDisabled  = errors.New("the client is disabled")
	ErrNotAdded  = errors.New("the name was not added, and registration is closed")
	ErrHasFiles  = errors.New("the client has files on record")
	// ErrSuperseded: a partial file belongs to a later 1032 than the one asked for.
	ErrSuperseded = errors.New("another connection goes on with the file")
)

// ErrBadRows is what [Registry.Clients] and [Registry.Files] return, wrapped, when
// they have yielded all but what cannot be understood: somebody changed the store
// by hand.
var ErrBadRows = errors.New("records that Sealift did not write")

// Client is what the registry knows of a client: a row of the table clients
// (protocol documents, "Server Persistence with SQLite").
type Client struct {
	ID        codec.ClientID
	Name      string
	PublicKey []byte // codec.PublicKeySize bytes of DER, or nil before the first 1026
	AESKey    []byte // 32 bytes, the last AES key sent to the client, or nil
	LastSeen  time.Time
	// TLSKey is the fingerprint, 32 bytes, of the TLS key that the client is pinned
	// to, or nil. What is done for a pinned client over a connection without that key
	// is refused, see [Actor].
	TLSKey []byte
	// Disabled: what is done for the client is refused with ErrDisabled, unless it is
	// the server's own.
	Disabled bool
	// Quota is the client's own, where it differs from that of all.
	Quota Quota
	// KeepFor is how long the client's verified files are kept; 0: as long as those of all,
	// Unlimited: for ever. Whole seconds.
	KeepFor time.Duration
	// Expires is when the client is to be disabled, or zero.
	Expires time.Time
}

// File is what the registry knows of a stored file: a row of the table files.
// A client has at most one verified and one unverified file under a path.
type File struct {
	ID       codec.ClientID
	FileName string // as the client sent it
	Path     string // below the client's folder, slash-separated: what CleanPath made of FileName
	// Incoming is the Files key under which the content came in. It tells the
	// versions of a file apart. While the file is not verified, its content has
	// that key; then it is in its place. Registries of schema 1 did not keep the
	// key of a verified file: it is empty there.
	Incoming string
	Verified bool
	// Missing is set on a verified file whose content was not in its place when
	// recovery looked, or whose place could not be made durable. It is cleared
	// when the content is found again, and by a new version that is verified.
	Missing bool
	// Lapsed is set where a version under the path that had its 1603 went
	// without being verified: a 1029 from a connection that did not send that
	// 1603 may mean it. A version that is verified clears it.
	Lapsed bool
	// Taken is when the verified file was handed out to whoever works with it, or zero.
	// Its content is not the store's any more: what is in the place is to be removed.
	// Once that is done, Missing is set; the row stays for a day, so that a 1029 that
	// comes again is answered as it was.
	Taken time.Time
	// Deleted is set on a file that somebody wants to be gone: its content is to be
	// removed, and then the row. A version that is verified clears it.
	Deleted  bool
	Size     int64  // bytes, decrypted
	Cksum    uint32 // POSIX cksum
	Received time.Time
}

// Leaves reports whether the content of f is to be removed, see [Registry.Leaving].
func (f *File) Leaves() bool { return f.Deleted || !f.Taken.IsZero() && !f.Missing }

// Stays reports whether f is, or shall be, in the store: it was neither taken nor
// deleted.
func (f *File) Stays() bool { return !f.Deleted && f.Taken.IsZero() }

// Partial is what the registry knows of a file of which a part is there, from its
// beginning on: a row of the table partials. A client has at most one under a path. Its
// content is the incoming file of that key.
type Partial struct {
	ID       codec.ClientID
	FileName string // as the client sent it
	Path     string // as in File
	Incoming string // Files key
	Total    int64  // bytes of the whole file
	// Length is how many bytes are certain to be there, also after a power cut; State is
	// that of their checksum (cksum.Hash). More may be there: what a server wrote before it
	// was killed. It counts only during the same Boot of the machine, once it is read.
	Length int64
	State  uint32
	Boot   string // names the boot of the machine; "" if that is not known
	// Generation is raised by each 1032 for the file. Who has an older one has lost it.
	Generation int64
	Changed    time.Time // when content or a 1032 came for it last
	// Deleted is set where somebody wants it to be gone, see [File].
	Deleted bool
}

// Place returns where the file is meant to be.
func (p *Partial) Place() Place { return Place{p.ID, p.Path} }

// Uploaded names the content.
func (p *Partial) Uploaded() Uploaded { return Uploaded{p.Place(), p.Incoming} }

// PathName is where the file is stored once it is verified, below the server's
// directory: the column of that name in the protocol documents.
func (f *File) PathName() string { return "files/" + f.ID.String() + "/" + f.Path }

// Registry keeps clients and files. Implementations are safe for concurrent
// use.
//
// Everything a running server asks of a registry comes in batches, because one
// round trip or one commit for many operations is what makes a durable store
// fast: a host gathers what its connections want while the last batch is under
// way.
type Registry interface {
	// Apply does the operations of batch in order and sets the results in each.
	// Those that succeed are durable when Apply returns, all or none of them: a
	// crash leaves no half of a batch. An operation that cannot be done (its Err
	// is one of the sentinels above) changes nothing and does not stop the others.
	//
	// An error of Apply itself means that the store failed, or that ctx ended:
	// then nothing of the batch took place, and the Errs are to be ignored. A registry over a
	// network may not know: the batch was done, or not. One that repeats a batch by itself
	// does it once, and returns what came of it then.
	Apply(ctx context.Context, batch []Operation) error

	// Clients calls yield for each client, ordered by name, until yield returns
	// an error, which it then returns. A client that cannot be understood is
	// passed over, and the error at the end wraps ErrBadRows.
	Clients(ctx context.Context, yield func(Client) error) error

	// Files calls yield for each file, ordered by client and path, the verified
	// one before the unverified, until yield returns an error, which it then
	// returns. yield may not call the registry. A file that cannot be understood
	// is passed over, and the error at the end wraps ErrBadRows.
	Files(ctx context.Context, yield func(File) error) error

	// Leaving calls yield for each file whose content is to be removed: those that are
	// Taken and not Missing, and those that are Deleted. Otherwise it is as Files. It
	// costs nothing for files that stay.
	Leaving(ctx context.Context, yield func(File) error) error

	// Partials calls yield for each partial file, ordered by client and path. Otherwise
	// it is as Files.
	Partials(ctx context.Context, yield func(Partial) error) error

	// Added calls yield for each name that was added by AddName, in their order, until
	// yield returns an error, which it then returns.
	Added(ctx context.Context, yield func(name string) error) error

	Events
	Leases

	// Close releases the store. What Apply did is durable already.
	Close() error
}

// Shared is a Registry that other processes may change while this one has it open.
type Shared interface {
	// Changed reports whether another process may have changed the registry since the
	// last call, or, at the first, since it was opened. What Apply reads after that is
	// not older. It costs little and is called about twice a second.
	Changed(ctx context.Context) (bool, error)
}

// Announcer is a Shared that tells at once that Changed may have something to say.
type Announcer interface {
	// Steered is sent to when another process may have changed the registry. It may miss one:
	// Changed is called from time to time all the same. The channel holds one value.
	Steered() <-chan struct{}
}

// Operation is one thing asked of a Registry: a pointer to one of the types
// below, which carries the arguments in and the results out. It belongs to the
// registry from Apply's call to its return.
//
// Every operation that names a client and succeeds sets that client's LastSeen
// to At, unless At is zero. Unless it says that it is the server's own, it is refused
// with ErrPinned where the client is pinned and By may not act for it, and with
// ErrDisabled where the client is disabled: the registry looks at that and does the
// operation in one step.
type Operation interface {
	// Result returns the part that every operation has.
	Result() *Outcome
	operation()
}

// Reads reports whether op changes nothing: a GetClient, GetFile, FindAlike, FindUpload, GetUsage or
// FindExpired without a time. A batch of such can be answered without a commit, beside one that is
// under way.
func Reads(op Operation) bool {
	switch op.(type) {
	case *GetClient, *GetFile, *FindAlike, *FindUpload, *GetUsage, *FindExpired:
		return op.Result().At.IsZero()
	}
	return false
}

// Outcome is the part that every operation shares.
type Outcome struct {
	At  time.Time // when it was asked for
	By  Actor     // on whose behalf
	Err error     // result
}

// Result returns o: it makes every type that embeds an Outcome an [Operation].
func (o *Outcome) Result() *Outcome { return o }

func (*Outcome) operation() {}

type (
	// AddClient registers ID under Name, and pins it to TLSKey unless that is nil.
	// Names are compared byte by byte. With OnlyAdded, the name must have been added by
	// AddName. Err: ErrNameTaken, ErrIDTaken, ErrNotAdded.
	AddClient struct {
		Outcome
		ID        codec.ClientID
		Name      string
		TLSKey    []byte
		OnlyAdded bool
	}

	// AddName lets a client of that name register where registration is closed, now
	// and again after its record went. It is the server's own. At stays zero. Err:
	// ErrNameTaken if a client has it. Adding a name twice is no error.
	AddName struct {
		Outcome
		Name string
	}

	// DropName takes back AddName. It is the server's own. At stays zero. Err:
	// ErrNoClient if the name was not added.
	DropName struct {
		Outcome
		Name string
	}

	// DisableClient sets or clears Disabled. It is the server's own. Err: ErrNoClient.
	DisableClient struct {
		Outcome
		ID       codec.ClientID
		Disabled bool
	}

	// DropClient forgets a client that has no files on record, partial ones too, but such as are Taken and
	// Missing, which it forgets too, and takes back AddName of its name. It is the
	// server's own. At stays zero. Err: ErrNoClient, ErrHasFiles.
	DropClient struct {
		Outcome
		ID codec.ClientID
	}

	// GetClient reads a client. Err: ErrNoClient.
	GetClient struct {
		Outcome
		ID     codec.ClientID
		Client Client // result, zero after an error
	}

	// PinClient pins a client to TLSKey, or releases it if that is nil. A client's
	// connection pins where there is no pin, or that of its own key; the server
	// replaces any. Err: ErrNoClient.
	PinClient struct {
		Outcome
		ID     codec.ClientID
		TLSKey []byte
	}

	// SetKeys records the public key of a client and the AES key that is about
	// to be sent to it. Unless Replace is set, a public key that is on record
	// already must be the same. Err: ErrNoClient, ErrWrongName, ErrKeyPinned.
	SetKeys struct {
		Outcome
		ID        codec.ClientID
		Name      string // must be the registered one
		PublicKey []byte
		AESKey    []byte
		Replace   bool
	}

	// SetAESKey records the AES key that is about to be sent to a client, or, if
	// AESKey is nil, that it has none. If If is set and the key on record is
	// another, nothing changes. Err: ErrNoClient, in that case too.
	SetAESKey struct {
		Outcome
		ID     codec.ClientID
		AESKey []byte
		If     []byte
	}

	// Seen only sets LastSeen. Err: ErrNoClient.
	Seen struct {
		Outcome
		ID codec.ClientID
	}

	// PutFile records an unverified file in the place of one that has the same
	// client and path, and marks it as Lapsed if there was one. It forgets the partial file
	// under client and path. Err: ErrNoClient; ErrQuota, unless it is the server's own; ErrSuperseded, if Generation is not 0, and the
	// partial file with the key Incoming has another, or a file with that key is on record.
	PutFile struct {
		Outcome
		File       File     // Incoming set; Verified, Missing, Taken and Deleted do not count
		Quota      Quota    // of clients that have none of their own
		Generation int64    // of the partial file that became whole; 0: none was on record
		From       string   // as in PutPartial
		Leased     bool     // the content has a lease, which ends; without it, and without a partial file of that key: ErrNoLease
		Replaced   *File    // result: the file whose place it took, or nil
		Partial    *Partial // result: the partial file that was forgotten, or nil; its content is left where its key is another than Incoming
	}

	// PutPartial records how far a file has come. Where the partial file under client and
	// path has the same key, its Generation must be the same. One of another key it replaces.
	// Deleted stays as it is on record. Err: ErrNoClient; ErrSuperseded, also where a file with
	// that key is on record.
	PutPartial struct {
		Outcome
		Partial Partial
		// From is the key of the partial file that the content goes on from, "": it has the same. That one must
		// be on record with the Generation, else ErrSuperseded. It is Replaced, and its lease ends.
		From     string
		Leased   bool     // the content has a lease, which stays; without it, and without a row of the same key: ErrNoLease
		Replaced *Partial // result: the one of another key whose place it took, or nil
	}

	// ContinueFile raises the Generation of the partial file under client and path, if Incoming is
	// its key and it is not Deleted. Err: ErrNoFile.
	ContinueFile struct {
		Outcome
		ID       codec.ClientID
		Path     string
		Incoming string
		Changed  time.Time
		Partial  Partial // result, zero after an error
	}

	// DropPartial forgets the partial file under client and path, if Incoming is its key, and
	// Generation, unless it is 0, its generation. Its content is left. With Leased, a lease of the content
	// ends with it: then no server can record it any more, and it may be removed. Err: ErrNoFile.
	DropPartial struct {
		Outcome
		ID         codec.ClientID
		Path       string
		Incoming   string
		Generation int64
		Leased     bool
	}

	// DeletePartial sets Deleted of the partial file under client and path, if Incoming is its
	// key. It is the server's own. Err: ErrNoFile.
	DeletePartial struct {
		Outcome
		ID       codec.ClientID
		Path     string
		Incoming string
	}

	// GetFile reads what there is under a client and path. Err: ErrNoFile if
	// there is nothing of what was asked for.
	GetFile struct {
		Outcome
		ID          codec.ClientID
		Path        string
		WithPartial bool     // a partial file is asked for, too
		Unverified  *File    // result, nil if there is none
		Verified    *File    // result, nil if there is none
		Partial     *Partial // result, nil if there is none or it is not asked for
	}

	// FindAlike looks for a file of a client under another path than Path of which
	// Folds makes the same. It looks at all paths of the client, but for files that are
	// Taken and Missing: their places are free. Err: ErrNoFile if there is none.
	FindAlike struct {
		Outcome
		ID    codec.ClientID
		Path  string
		Folds func(path string) string
		Found string // result: the path of one, "" if there is none
	}

	// VerifyFile makes the unverified file under client and path the verified
	// one, in the place of the one that was, and clears Lapsed and Deleted. Incoming must be
	// its key, so that a newer upload is not verified by mistake. With Missing,
	// the new row says that its content cannot be relied on. Err: ErrNoFile.
	VerifyFile struct {
		Outcome
		ID       codec.ClientID
		Path     string
		Incoming string
		Missing  bool
		// Versions asks for Replaced, see Keeping.
		Versions bool
		Replaced *File // result: the verified file whose place it took, or nil
	}

	// DropFile forgets the unverified file under client and path, if Incoming
	// is its key, and marks the verified one, if there is one, as Lapsed.
	// Err: ErrNoFile.
	DropFile struct {
		Outcome
		ID       codec.ClientID
		Path     string
		Incoming string
		Why      Why  // for its event
		Marked   bool // result: there is a verified one
	}

	// MarkFile sets or clears Missing of the verified file under client and path,
	// if Incoming is its key, so that a newer version is not marked by mistake. It is
	// the server's own. Err: ErrNoFile.
	MarkFile struct {
		Outcome
		ID       codec.ClientID
		Path     string
		Incoming string
		Missing  bool
	}

	// ForgetFile forgets the verified file under client and path, if Incoming is its
	// key, and it is marked as Missing or Deleted. The unverified one, if there is one,
	// takes over Lapsed. It is the server's own. Err: ErrNoFile.
	ForgetFile struct {
		Outcome
		ID       codec.ClientID
		Path     string
		Incoming string
		Lapsed   bool // result: it was marked as Lapsed, and there is no other to be marked
	}

	// TakeFile sets Taken of the verified file under client and path, if Incoming is
	// its key, and it is neither Missing nor Deleted nor Taken. It is the server's own.
	// Err: ErrNoFile.
	TakeFile struct {
		Outcome
		ID       codec.ClientID
		Path     string
		Incoming string
		Taken    time.Time // not zero
	}

	// DeleteFile sets Deleted of the verified file under client and path, or of the
	// unverified one, if Incoming is its key. It is the server's own. Err: ErrNoFile.
	DeleteFile struct {
		Outcome
		ID       codec.ClientID
		Path     string
		Incoming string
		Verified bool
		Why      Why // for its event, expired; "": none
	}

	// DropKeyless forgets a client that has no public key, no files, partial ones neither, is not disabled,
	// and was last seen before Before: its 1600 was lost, or it never went on. Its name
	// is free again. It is the server's own. At stays zero. Err: ErrNoClient if there is no such
	// client.
	DropKeyless struct {
		Outcome
		ID     codec.ClientID
		Before time.Time
	}
)

// Lapsed reports whether a 1029 that comes without a receipt may be about a
// version that is gone.
func (g *GetFile) Lapsed() bool {
	return g.Verified != nil && g.Verified.Lapsed || g.Unverified != nil && g.Unverified.Lapsed
}
