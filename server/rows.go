package server

import (
	"context"
	"errors"
	"time"

	"sealift/storage"
)

// Rows are what lists print of a server, each as one line of JSON: the commands do, beside
// the server or through its API, and so does the API.

// ClientRow is a client, or a name that was added.
type ClientRow struct {
	ID       string     `json:"id,omitempty"` // none: its name was added, and it has not registered
	Name     string     `json:"name"`
	Key      bool       `json:"public_key"`
	TLSKey   string     `json:"tls_key,omitempty"` // that it is pinned to
	LastSeen *time.Time `json:"last_seen,omitempty"`
	Disabled bool       `json:"disabled"`
	Added    bool       `json:"added"` // it may register where registration is closed

	// Its own: 0 is what all clients have, and negative no bound.
	QuotaBytes int64      `json:"quota_bytes,omitempty"`
	QuotaFiles int64      `json:"quota_files,omitempty"`
	KeepFor    int64      `json:"keep_for_seconds,omitempty"`
	Expires    *time.Time `json:"expires,omitempty"`
}

// State is that of a client in a few words.
func (c *ClientRow) State() string {
	switch {
	case c.ID == "":
		return "added"
	case c.Disabled:
		return "disabled"
	case !c.Key:
		return "no key"
	case c.Expires != nil:
		return "enabled until " + c.Expires.Local().Format(time.DateTime)
	}
	return "enabled"
}

// FileRow is a file, or a part of one.
type FileRow struct {
	Client   string    `json:"client"`
	FileName string    `json:"file_name"`
	Path     string    `json:"path"` // below the server's directory
	Verified bool      `json:"verified"`
	Missing  bool      `json:"missing"` // it is not in its place, and was not taken from there
	Size     int64     `json:"size_bytes"`
	Cksum    uint32    `json:"cksum"` // as the command of that name prints it
	Received time.Time `json:"received"`

	Taken   *time.Time `json:"taken,omitempty"` // when it was handed out
	Deleted bool       `json:"deleted"`         // it is to be removed
	// Partial is how many of Size bytes are there of a partial file, which has no cksum.
	// Received is when some of it came last.
	Partial *int64 `json:"partial_bytes,omitempty"`
}

// State is that of a file in one word.
func (f *FileRow) State() string {
	switch {
	case f.Taken != nil:
		return "taken"
	case f.Deleted:
		return "deleted"
	case f.Partial != nil:
		return "partial"
	case f.Missing:
		return "missing"
	case f.Verified:
		return "verified"
	}
	return "waiting"
}

// RowOf is the row of a file.
func RowOf(f File) FileRow {
	row := FileRow{
		Client: f.ID.String(), FileName: f.FileName, Path: f.PathName(),
		Verified: f.Verified, Missing: f.Missing && f.Taken.IsZero(), Size: f.Size, Cksum: f.Cksum, Received: f.Received,
		Deleted: f.Deleted,
	}
	if !f.Taken.IsZero() {
		row.Taken = &f.Taken
	}
	return row
}

// partialRowOf is the row of a file of which a part is there.
func partialRowOf(p Partial) FileRow {
	return FileRow{
		Client: p.ID.String(), FileName: p.FileName, Path: (&File{ID: p.ID, Path: p.Path}).PathName(), Size: p.Total, Received: p.Changed,
		Deleted: p.Deleted, Partial: &p.Length,
	}
}

// EventRow is an event that waits.
type EventRow struct {
	ID       string     `json:"id"`
	Target   string     `json:"target"`
	Kind     string     `json:"kind"`
	Why      string     `json:"why,omitempty"`
	Happened time.Time  `json:"happened"`
	Client   string     `json:"client"`
	Name     string     `json:"client_name"`
	FileName string     `json:"file_name,omitempty"`
	Path     string     `json:"path,omitempty"` // below the client's folder
	Version  string     `json:"version,omitempty"`
	Size     int64      `json:"size_bytes"`
	Cksum    uint32     `json:"cksum"`
	Attempts int        `json:"attempts"` // that failed
	Error    string     `json:"error,omitempty"`
	Due      *time.Time `json:"due,omitempty"` // when it is told next
	Behind   bool       `json:"behind"`        // an earlier event of the client comes first
}

func eventRowOf(e Event) EventRow {
	row := EventRow{
		ID: e.ID, Target: e.Target, Kind: string(e.Kind), Why: string(e.Why), Happened: e.Happened,
		Client: e.Client.String(), Name: e.ClientName, FileName: e.FileName, Path: e.Path, Version: e.Version,
		Size: e.Size, Cksum: e.Cksum, Attempts: e.Attempts, Error: e.Failure, Behind: e.Behind,
	}
	if !e.Due.IsZero() {
		row.Due = &e.Due
	}
	return row
}

// ClientRows calls yield for each client, by name, and then for the names that were added
// and have not registered.
func (r *ReadOnly) ClientRows(ctx context.Context, yield func(ClientRow) error) error {
	return clientRows(ctx, r.reg, yield)
}

// FileRows calls yield for each file, by client and path, and then for the partial ones.
func (r *ReadOnly) FileRows(ctx context.Context, yield func(FileRow) error) error {
	return fileRows(ctx, r.reg, yield)
}

// EventRows calls yield for each event that waits, in the order in which they happened.
func (r *ReadOnly) EventRows(ctx context.Context, yield func(EventRow) error) error {
	return eventRows(ctx, r.reg, yield)
}

func clientRows(ctx context.Context, reg storage.Registry, yield func(ClientRow) error) error {
	var names []string
	waits := make(map[string]bool) // names that were added, false where a client has registered
	if err := reg.Added(ctx, func(name string) error {
		names, waits[name] = append(names, name), true
		return nil
	}); err != nil {
		return err
	}
	clients := reg.Clients(ctx, func(c Client) error {
		_, added := waits[c.Name]
		if added {
			waits[c.Name] = false
		}
		row := ClientRow{
			ID: c.ID.String(), Name: c.Name, Key: c.PublicKey != nil, TLSKey: TLSKey(c), Disabled: c.Disabled, Added: added,
			QuotaBytes: c.Quota.Bytes, QuotaFiles: c.Quota.Files, KeepFor: int64(c.KeepFor / time.Second),
		}
		if !c.Expires.IsZero() {
			row.Expires = &c.Expires
		}
		if !c.LastSeen.IsZero() {
			row.LastSeen = &c.LastSeen
		}
		return yield(row)
	})
	if clients != nil && !errors.Is(clients, ErrBadRows) {
		return clients
	}
	for _, name := range names {
		if waits[name] {
			if err := yield(ClientRow{Name: name, Added: true}); err != nil {
				return err
			}
		}
	}
	return clients
}

func fileRows(ctx context.Context, reg storage.Registry, yield func(FileRow) error) error {
	files := reg.Files(ctx, func(f File) error { return yield(RowOf(f)) })
	if files != nil && !errors.Is(files, ErrBadRows) {
		return files
	}
	return errors.Join(files, reg.Partials(ctx, func(p Partial) error { return yield(partialRowOf(p)) }))
}

func eventRows(ctx context.Context, reg storage.Registry, yield func(EventRow) error) error {
	return reg.ListEvents(ctx, func(e Event) error { return yield(eventRowOf(e)) })
}
