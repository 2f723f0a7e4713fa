package admin

import (
	"context"
	"errors"
	"io"
	"time"
)

// Live is what the page and its API ask the server, and have it do. All functions may be
// called from any goroutine, and none waits for a loop for longer than its context lasts.
type Live struct {
	Version string
	Started time.Time
	Tail    *Tail
	Files   *Recent // that were verified last

	// Observe looks at the connections, at most so many; those that upload come first.
	// client is the id of one, or "": all.
	Observe func(ctx context.Context, most int, client string) (Observed, error)
	// Clients lists those on record by name, from behind after on, at most so many.
	Clients func(ctx context.Context, after string, most int) (page []Client, more bool, err error)
	// Stored lists files on record by client and path.
	Stored func(ctx context.Context, q FileQuery) (page []StoredFile, more bool, err error)
	// Partials lists partial files by client and path.
	Partials func(ctx context.Context, q FileQuery) (page []PartialFile, more bool, err error)
	// Rows lists all that there is of ClientRows, FileRows or EventRows: each row is a line
	// that the command of that list prints with --json. An error of yield ends it.
	Rows func(ctx context.Context, list string, yield func(row any) error) error
	// Names are the names of clients, by id; those that are not on record are left out.
	Names func(ctx context.Context, ids []string) (map[string]string, error)
	// Limits are settings that bound what clients may do.
	Limits func() []Limit

	// Disable has the server refuse everything to a client, or serve it again, and says
	// which client that is.
	Disable func(ctx context.Context, who Who, disabled bool) (Who, error)
	// Delete has a file removed.
	Delete func(ctx context.Context, f FileRef) error
	// DeleteMatching has files removed, and waits until they are. each is called for each
	// file, and now and then for how far it is.
	DeleteMatching func(ctx context.Context, d Deletion, each func(Deleted)) error
	// End ends a connection, named as Observe has.
	End func(ctx context.Context, connection string) error
	// Open opens a verified file for reading.
	Open func(ctx context.Context, f FileRef) (content io.ReadCloser, size int64, err error)
	// Waiting is what waits to be told to others; nil: nobody is told.
	Waiting func(ctx context.Context) ([]Waiting, error)
	// RetryEvents has events be told at once that were put off, and DropEvents forgets some.
	// They say how many.
	RetryEvents, DropEvents func(ctx context.Context, which EventChoice) (int, error)
	// Hint is the advice that an error of these carries; nil: none does.
	Hint func(error) string
}

// Errors of actions. What they wrap is told to whoever asks.
var (
	ErrNotFound = errors.New("there is no such thing")
	ErrInput    = errors.New("that cannot be understood")
)

// Observed is what Live.Observe has found.
type Observed struct {
	Connections int          `json:"connections_in_all"`
	Transfers   int          `json:"transfers_in_all"`
	List        []Connection `json:"connections"`
}

// Connection is a client that is connected.
type Connection struct {
	ID        string     `json:"id"`
	Remote    string     `json:"remote"`
	Opened    time.Time  `json:"opened"`
	Client    string     `json:"client,omitempty"`
	Name      string     `json:"name,omitempty"`
	TLS       bool       `json:"tls"`
	Transfers []Transfer `json:"transfers,omitempty"`
}

// Transfer is a file on its way.
type Transfer struct {
	File  string    `json:"file"`
	Began time.Time `json:"began"`
	Bytes int64     `json:"bytes"`
	Total int64     `json:"total_bytes"`      // -1: not known
	Rate  int64     `json:"bytes_per_second"` // of late
}

// Client is one on record.
type Client struct {
	ID         string    `json:"id"`
	Name       string    `json:"name"`
	Seen       time.Time `json:"seen"`
	Disabled   bool      `json:"disabled"`
	Pinned     bool      `json:"pinned"`                // to a TLS key
	Expires    time.Time `json:"expires,omitzero"`      // when the client is to be disabled
	QuotaBytes int64     `json:"quota_bytes,omitempty"` // its own; 0: that of all, -1: none
	QuotaFiles int64     `json:"quota_files,omitempty"` // likewise
}

// StoredFile is one on record.
type StoredFile struct {
	Client   string    `json:"client"`
	Name     string    `json:"name"` // of the client
	Path     string    `json:"path"`
	Version  string    `json:"version"`
	Size     int64     `json:"bytes"`
	Cksum    uint32    `json:"cksum"`
	Received time.Time `json:"received"`
	State    string    `json:"state"` // verified, unverified, missing, taken or deleted
}

// PartialFile is what came of a file before its connection was cut.
type PartialFile struct {
	Client  string    `json:"client"`
	Name    string    `json:"name"` // of the client
	Path    string    `json:"path"`
	Version string    `json:"version"`
	Size    int64     `json:"bytes"` // that are there
	Total   int64     `json:"total_bytes"`
	Changed time.Time `json:"changed"`
	Deleted bool      `json:"deleted"` // it is to be removed
}

// Who names a client: by its id, or by its name.
type Who struct {
	Client string `json:"client,omitempty"`
	Name   string `json:"name,omitempty"`
}

// EventChoice says which events: one, those for a target, or all.
type EventChoice struct {
	ID     string `json:"id,omitempty"`
	Target string `json:"target,omitempty"`
	All    bool   `json:"all,omitempty"`
}

// FileQuery says which files to list.
type FileQuery struct {
	Client string // "": of all
	After  string // client id and path, as "ID/PATH": those behind it
	Most   int
}

// FileRef names a version of a file.
type FileRef struct {
	Client   string `json:"client"`
	Path     string `json:"path"`
	Version  string `json:"version"`
	Verified bool   `json:"verified"`
	Partial  bool   `json:"partial,omitempty"` // it is what came of the file
}

// Limit is a setting.
type Limit struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Waiting is what waits to be told to one target.
type Waiting struct {
	Target  string    `json:"target"`
	Count   int       `json:"count"`
	Oldest  time.Time `json:"oldest,omitzero"`
	Problem string    `json:"problem,omitempty"`
}
