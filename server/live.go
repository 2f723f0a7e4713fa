package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"sealift/admin"
	"sealift/codec"
	"sealift/eventloop"
	"sealift/events"
	"sealift/internal/version"
	"sealift/session"
	"sealift/storage"
)

// liveSource is what the page of the admin address asks the server, and has it do. The parts
// are kept here: Close clears those of the server.
type liveSource struct {
	s        *Server
	store    storage.Files
	registry storage.Registry
	loops    *eventloop.Server
	service  *session.Service
	teller   *events.Teller
}

// newLive puts together what the page needs.
func (s *Server) newLive() *admin.Live {
	l := &liveSource{s: s, store: s.store, registry: s.registry, loops: s.loops, service: s.service, teller: s.events}
	return &admin.Live{
		Version: version.Number(), Started: s.watched.started, Tail: s.watched.tail, Files: &s.watched.recent,
		Observe: l.observe, Clients: l.clients, Stored: l.stored, Names: l.names, Limits: l.limits,
		Partials: l.partials, Rows: l.rows, Hint: Hint,
		Disable: l.disable, Delete: l.delete, DeleteMatching: l.deleteMatching, End: l.end, Open: l.open,
		Waiting: l.waiting, RetryEvents: l.retryEvents, DropEvents: l.dropEvents,
	}
}

// observe is admin.Live.Observe.
func (l *liveSource) observe(ctx context.Context, most int, client string) (admin.Observed, error) {
	q := eventloop.Query{Most: most}
	if client != "" {
		id, err := idOf(client)
		if err != nil {
			return admin.Observed{}, err
		}
		q.Client = id
	}
	found, err := l.loops.Observe(ctx, q)
	seen := admin.Observed{Connections: found.Connections, Transfers: found.Transfers, List: make([]admin.Connection, len(found.Views))}
	for i := range found.Views {
		seen.List[i] = connectionOf(&found.Views[i])
	}
	return seen, err
}

// connectionOf puts a connection in the words of package admin.
func connectionOf(v *session.View) admin.Connection {
	c := admin.Connection{
		ID: v.Remote + "@" + strconv.FormatInt(v.Opened.UnixNano(), 10), Remote: v.Remote, Opened: v.Opened, Name: v.Name, TLS: v.TLS,
	}
	if !v.ID.IsZero() {
		c.Client = v.ID.String()
	}
	for _, t := range v.Transfers {
		c.Transfers = append(c.Transfers, admin.Transfer{File: t.File, Began: t.Began, Bytes: t.Bytes, Total: t.Total})
	}
	return c
}

// idOf is parseID for what a request says.
func idOf(s string) (codec.ClientID, error) {
	id, err := parseID(s)
	if err != nil {
		err = fmt.Errorf("%w: %w", admin.ErrInput, err)
	}
	return id, err
}

// end is admin.Live.End.
func (l *liveSource) end(ctx context.Context, connection string) error {
	remote, at, _ := strings.Cut(connection, "@")
	ns, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		return fmt.Errorf("%w: connection %q", admin.ErrInput, connection)
	}
	found, err := l.loops.EndConnection(ctx, remote, time.Unix(0, ns))
	if err == nil && !found {
		err = fmt.Errorf("%w: the connection has ended already", admin.ErrNotFound)
	}
	return err
}

// clients is admin.Live.Clients.
func (l *liveSource) clients(ctx context.Context, after string, most int) (page []admin.Client, more bool, err error) {
	err = l.registry.Clients(ctx, func(c Client) error {
		if c.Name <= after && after != "" {
			return nil
		}
		if len(page) == most {
			more = true
			return errFound
		}
		page = append(page, admin.Client{
			ID: c.ID.String(), Name: c.Name, Seen: c.LastSeen, Disabled: c.Disabled, Pinned: c.TLSKey != nil, Expires: c.Expires,
			QuotaBytes: c.Quota.Bytes, QuotaFiles: c.Quota.Files,
		})
		return nil
	})
	return page, more, passedOver(err)
}

// passedOver is the error of a list that went on over what it could not read, or was ended.
func passedOver(err error) error {
	if errors.Is(err, errFound) || errors.Is(err, storage.ErrBadRows) {
		return nil
	}
	return err
}

// stored is admin.Live.Stored.
func (l *liveSource) stored(ctx context.Context, q admin.FileQuery) (page []admin.StoredFile, more bool, err error) {
	var only codec.ClientID
	if q.Client != "" {
		if only, err = idOf(q.Client); err != nil {
			return nil, false, err
		}
	}
	err = l.registry.Files(ctx, func(f File) error {
		if !only.IsZero() && f.ID != only {
			return nil
		}
		if f.ID.String()+"/"+f.Path <= q.After {
			return nil
		}
		// The two versions of a path stay on one page, or the next would begin behind both.
		if len(page) >= q.Most && (page[len(page)-1].Path != f.Path || page[len(page)-1].Client != f.ID.String()) {
			more = true
			return errFound
		}
		page = append(page, fileOf(&f))
		return nil
	})
	return page, more, passedOver(err)
}

// fileOf puts a file in the words of package admin.
func fileOf(f *File) admin.StoredFile {
	state := "verified"
	switch {
	case f.Deleted:
		state = "deleted"
	case !f.Taken.IsZero():
		state = "taken"
	case f.Missing:
		state = "missing"
	case !f.Verified:
		state = "unverified"
	}
	return admin.StoredFile{
		Client: f.ID.String(), Path: f.Path, Version: f.Incoming, Size: f.Size, Cksum: f.Cksum,
		Received: f.Received, State: state,
	}
}

// names is admin.Live.Names.
func (l *liveSource) names(ctx context.Context, ids []string) (map[string]string, error) {
	var batch []storage.Operation
	for _, s := range ids {
		id, err := idOf(s)
		if err != nil {
			return nil, err
		}
		batch = append(batch, &storage.GetClient{Outcome: storage.Outcome{By: storage.Server}, ID: id})
	}
	if err := l.registry.Apply(ctx, batch); err != nil {
		return nil, err
	}
	names := make(map[string]string)
	for i, op := range batch {
		if get := op.(*storage.GetClient); get.Err == nil {
			names[ids[i]] = get.Client.Name
		}
	}
	return names, nil
}

// shownLimits are the settings that the page has as limits.
var shownLimits = map[string]bool{
	"registration": true, "key-policy": true, "max-connections-per-ip": true, "register-rate": true, "max-uploads-per-connection": true,
	"quota-bytes": true, "quota-files": true, "keep-for": true, "limit-rate": true, "partial-ttl": true, "partial-budget": true,
	"max-file-size": true, "max-unverified": true, "min-free": true, "memory-budget": true, "handshake-timeout": true,
	"idle-timeout": true, "drain-timeout": true, "unverified-ttl": true, "tls": true, "fsync": true, "registry": true, "files": true,
}

// limits is admin.Live.Limits.
func (l *liveSource) limits() (all []admin.Limit) {
	s := l.s
	s.applying.Lock()
	o := s.asked
	s.applying.Unlock()
	for _, a := range settings {
		value := a.text(&o)
		if a.shown != nil {
			value = a.shown(value)
		}
		if shownLimits[a.flag] && value != "0" && value != "0s" && value != "" {
			all = append(all, admin.Limit{Name: a.flag, Value: value})
		}
	}
	return all
}

// open is admin.Live.Open.
func (l *liveSource) open(ctx context.Context, ref admin.FileRef) (io.ReadCloser, int64, error) {
	id, err := idOf(ref.Client)
	if err != nil {
		return nil, 0, err
	}
	get := &storage.GetFile{Outcome: storage.Outcome{By: storage.Server}, ID: id, Path: ref.Path}
	err = applyOwn(ctx, l.registry, get)
	f := get.Verified
	if errors.Is(err, storage.ErrNoFile) || err == nil && (f == nil || !f.Stays() || f.Missing || f.Incoming != ref.Version) {
		return nil, 0, fmt.Errorf("%w: that version of the file is not there any more", admin.ErrNotFound)
	}
	if err != nil {
		return nil, 0, err
	}
	content, err := l.store.Open(ctx, f.Stored())
	if err != nil {
		return nil, 0, err
	}
	size, err := sizeOf(ctx, l.store, f, content)
	if err == nil && size != f.Size {
		err = fmt.Errorf("%w: the file is being replaced, or damaged", admin.ErrNotFound)
	}
	if err != nil {
		return nil, 0, errors.Join(err, content.Close())
	}
	return content, f.Size, nil
}

// sizeOf is how much there is of the content of f, which was opened. In a folder a newer version
// may take its place at any time, so the open file itself is asked.
func sizeOf(ctx context.Context, store storage.Files, f *File, content io.Reader) (int64, error) {
	if file, ok := content.(*os.File); ok {
		info, err := file.Stat()
		if err != nil {
			return 0, err
		}
		return info.Size(), nil
	}
	return store.Size(ctx, f.Stored())
}

// waiting is admin.Live.Waiting: nil where nobody is told of anything.
func (l *liveSource) waiting(context.Context) (all []admin.Waiting, err error) {
	for _, e := range l.teller.Stats() {
		all = append(all, admin.Waiting{Target: e.Target, Count: e.Waiting, Oldest: e.Oldest, Problem: e.Failure})
	}
	return all, nil
}
