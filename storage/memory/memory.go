// Package memory keeps the registry of clients and files in RAM, for servers
// that are to forget everything when they end (--registry=memory) and for
// tests.
package memory

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"sealift/codec"
	"sealift/storage"
)

// ErrClosed is the use of a registry after Close.
var ErrClosed = errors.New("the registry is closed")

// Registry is a storage.Registry in RAM. It is safe for concurrent use. Nothing
// in it survives the process.
type Registry struct {
	mu      sync.Mutex
	closed  bool
	clients map[codec.ClientID]*storage.Client
	names   map[string]codec.ClientID
	added   map[string]struct{}
	files   map[place]*entry
	parts   map[place]*storage.Partial
	used    map[codec.ClientID]*storage.Usage // of clients for whom a quota stands
	leases  map[string]storage.Lease          // by key
	now     func() time.Time
	events
}

var _ storage.Registry = (*Registry)(nil)

type place struct {
	id   codec.ClientID
	path string
}

// entry is what there is at a place; never two nils.
type entry struct{ verified, unverified *storage.File }

// New returns an empty registry.
func New() *Registry { return NewAt(time.Now) }

// NewAt is New with another clock, by which leases run out.
func NewAt(now func() time.Time) *Registry {
	return &Registry{
		now:     now,
		leases:  make(map[string]storage.Lease),
		clients: make(map[codec.ClientID]*storage.Client),
		names:   make(map[string]codec.ClientID),
		added:   make(map[string]struct{}),
		files:   make(map[place]*entry),
		parts:   make(map[place]*storage.Partial),
		used:    make(map[codec.ClientID]*storage.Usage),
		events:  newEvents(),
	}
}

// Close implements storage.Registry. What comes later gets ErrClosed.
func (r *Registry) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.clients, r.names, r.added, r.files, r.parts, r.used, r.leases = nil, nil, nil, nil, nil, nil, nil
	r.waiting = nil
	return nil
}

// lock locks r, unless ctx has ended or r is closed.
func (r *Registry) lock(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return ErrClosed
	}
	return nil
}

// Apply implements storage.Registry.
func (r *Registry) Apply(ctx context.Context, batch []storage.Operation) error {
	if err := r.lock(ctx); err != nil {
		return err
	}
	defer r.mu.Unlock()
	for _, op := range batch {
		out := op.Result()
		var was *storage.File
		var client *storage.Client
		if len(r.targets) > 0 {
			was, client = r.subject(op)
		}
		var id codec.ClientID
		if id, out.Err = r.apply(op); out.Err == nil && !out.At.IsZero() {
			r.clients[id].LastSeen = out.At
		}
		if len(r.targets) > 0 && out.Err == nil {
			r.record(op, was, client)
		}
	}
	return nil
}

// apply does one operation, and says which client it names.
func (r *Registry) apply(op storage.Operation) (codec.ClientID, error) {
	switch op := op.(type) {
	case *storage.AddClient:
		return op.ID, r.addClient(op)
	case *storage.GetClient:
		return op.ID, r.getClient(op)
	case *storage.PinClient:
		return op.ID, r.pinClient(op)
	case *storage.SetKeys:
		return op.ID, r.setKeys(op)
	case *storage.SetAESKey:
		return op.ID, r.setAESKey(op)
	case *storage.Seen:
		return op.ID, r.seen(op)
	case *storage.PutFile:
		if err := r.admit(op); err != nil {
			return op.File.ID, err
		}
		return op.File.ID, r.count(place{op.File.ID, op.File.Path}, func() error { return r.putFile(op) })
	case *storage.GetFile:
		return op.ID, r.getFile(op)
	case *storage.FindAlike:
		return op.ID, r.findAlike(op)
	case *storage.PutPartial:
		return op.Partial.ID, r.putPartial(op)
	case *storage.ContinueFile:
		return op.ID, r.continueFile(op)
	case *storage.DropPartial:
		return op.ID, r.dropPartial(op)
	case *storage.DeletePartial:
		return op.ID, r.deletePartial(op)
	case *storage.VerifyFile:
		return op.ID, r.count(place{op.ID, op.Path}, func() error { return r.verifyFile(op) })
	case *storage.DropFile:
		return op.ID, r.count(place{op.ID, op.Path}, func() error { return r.dropFile(op) })
	case *storage.MarkFile:
		return op.ID, r.count(place{op.ID, op.Path}, func() error { return r.markFile(op) })
	case *storage.ForgetFile:
		return op.ID, r.count(place{op.ID, op.Path}, func() error { return r.forgetFile(op) })
	case *storage.TakeFile:
		return op.ID, r.takeFile(op)
	case *storage.DeleteFile:
		return op.ID, r.deleteFile(op)
	case *storage.LeaseUpload:
		return codec.ClientID{}, r.leaseUpload(op)
	case *storage.RenewLeases:
		r.renewLeases(op)
		return codec.ClientID{}, nil
	case *storage.EndLease:
		delete(r.leases, op.Key)
		return codec.ClientID{}, nil
	case *storage.ReapLeases:
		r.reapLeases(op)
		return codec.ClientID{}, nil
	case *storage.FindUpload:
		op.Found = r.knows(op.Upload)
		return codec.ClientID{}, nil
	case *storage.AddName:
		return codec.ClientID{}, r.addName(op)
	case *storage.DropName:
		return codec.ClientID{}, r.dropName(op)
	case *storage.DisableClient:
		return op.ID, r.disableClient(op)
	case *storage.DropClient:
		return op.ID, r.dropClient(op)
	case *storage.DropKeyless:
		return op.ID, r.dropKeyless(op)
	case *storage.SetQuota:
		return op.ID, r.setQuota(op)
	case *storage.SetKeepFor:
		return op.ID, r.change(op.ID, func(c *storage.Client) { c.KeepFor = op.KeepFor })
	case *storage.SetExpires:
		return op.ID, r.change(op.ID, func(c *storage.Client) { c.Expires = op.Expires })
	case *storage.FindExpired:
		op.IDs = nil
		for id, c := range r.clients {
			if c.ExpiredAt(op.Now) {
				op.IDs = append(op.IDs, id)
			}
		}
		return codec.ClientID{}, nil
	case *storage.ExpireClient:
		return op.ID, r.expireClient(op)
	case *storage.GetUsage:
		return op.ID, r.getUsage(op)
	case *storage.RaiseEvent:
		return op.Event.Client, r.raiseEvent(op)
	case *storage.RestoreEvent:
		r.restoreEvent(op.Event)
		return codec.ClientID{}, nil
	case *storage.EventTold:
		return codec.ClientID{}, r.eventTold(op)
	case *storage.PostponeEvent:
		return codec.ClientID{}, r.postponeEvent(op)
	case *storage.RetryEvents:
		r.retryEvents(op)
		return codec.ClientID{}, nil
	case *storage.DropEvents:
		r.dropEvents(op)
		return codec.ClientID{}, nil
	}
	return codec.ClientID{}, fmt.Errorf("unknown operation %T", op)
}

func (r *Registry) addClient(op *storage.AddClient) error {
	if _, taken := r.names[op.Name]; taken {
		return storage.ErrNameTaken
	}
	if _, added := r.added[op.Name]; op.OnlyAdded && !added {
		return storage.ErrNotAdded
	}
	if _, taken := r.clients[op.ID]; taken {
		return storage.ErrIDTaken
	}
	r.names[op.Name] = op.ID
	r.clients[op.ID] = &storage.Client{ID: op.ID, Name: op.Name, TLSKey: bytes.Clone(op.TLSKey)}
	return nil
}

func (r *Registry) addName(op *storage.AddName) error {
	if _, taken := r.names[op.Name]; taken {
		return storage.ErrNameTaken
	}
	r.added[op.Name] = struct{}{}
	return nil
}

func (r *Registry) dropName(op *storage.DropName) error {
	if _, added := r.added[op.Name]; !added {
		return storage.ErrNoClient
	}
	delete(r.added, op.Name)
	return nil
}

// client returns a client for whom by may act.
func (r *Registry) client(id codec.ClientID, by storage.Actor) (*storage.Client, error) {
	c, ok := r.clients[id]
	if !ok {
		return nil, storage.ErrNoClient
	}
	if err := by.Refused(c.TLSKey, c.Disabled); err != nil {
		return nil, err
	}
	return c, nil
}

// mayActFor returns ErrPinned or ErrDisabled if there is the client and by may not act
// for it.
func (r *Registry) mayActFor(id codec.ClientID, by storage.Actor) error {
	if _, err := r.client(id, by); !errors.Is(err, storage.ErrNoClient) {
		return err
	}
	return nil
}

func (r *Registry) getClient(op *storage.GetClient) error {
	c, err := r.client(op.ID, op.By)
	if err != nil {
		op.Client = storage.Client{}
		return err
	}
	op.Client = copyClient(c)
	return nil
}

func (r *Registry) pinClient(op *storage.PinClient) error {
	c, err := r.client(op.ID, op.By)
	if err == nil {
		c.TLSKey = bytes.Clone(op.TLSKey)
	}
	return err
}

func (r *Registry) setKeys(op *storage.SetKeys) error {
	c, err := r.client(op.ID, op.By)
	switch {
	case err != nil:
		return err
	case c.Name != op.Name:
		return storage.ErrWrongName
	case !op.Replace && c.PublicKey != nil && !bytes.Equal(c.PublicKey, op.PublicKey):
		return storage.ErrKeyPinned
	}
	c.PublicKey, c.AESKey = bytes.Clone(op.PublicKey), bytes.Clone(op.AESKey)
	return nil
}

func (r *Registry) setAESKey(op *storage.SetAESKey) error {
	c, err := r.client(op.ID, op.By)
	if err == nil && op.If != nil && !bytes.Equal(c.AESKey, op.If) {
		err = storage.ErrNoClient
	}
	if err == nil {
		c.AESKey = bytes.Clone(op.AESKey)
	}
	return err
}

func (r *Registry) seen(op *storage.Seen) error {
	_, err := r.client(op.ID, op.By)
	return err
}

func (r *Registry) putFile(op *storage.PutFile) error {
	f := op.File
	op.Replaced, op.Partial = nil, nil
	if _, err := r.client(f.ID, op.By); err != nil {
		return err
	}
	if err := r.takePartial(op); err != nil {
		return err
	}
	e := r.files[place{f.ID, f.Path}]
	if e == nil {
		e = new(entry)
		r.files[place{f.ID, f.Path}] = e
	}
	op.Replaced = e.unverified
	f.Lapsed = f.Lapsed || e.unverified != nil
	f.Verified, f.Missing, f.Taken, f.Deleted = false, false, time.Time{}, false
	e.unverified = &f
	return nil
}

func (r *Registry) getFile(op *storage.GetFile) error {
	op.Verified, op.Unverified, op.Partial = nil, nil, nil
	if err := r.mayActFor(op.ID, op.By); err != nil {
		return err
	}
	at := place{op.ID, op.Path}
	if op.WithPartial {
		op.Partial = copyPartial(r.parts[at])
	}
	if e := r.files[at]; e != nil {
		op.Verified, op.Unverified = copyFile(e.verified), copyFile(e.unverified)
	} else if op.Partial == nil {
		return storage.ErrNoFile
	}
	return nil
}

func (r *Registry) findAlike(op *storage.FindAlike) error {
	op.Found = ""
	if err := r.mayActFor(op.ID, op.By); err != nil {
		return err
	}
	key := op.Folds(op.Path)
	for at, e := range r.files {
		if at.id == op.ID && at.path != op.Path && e.hasPlace() && op.Folds(at.path) == key {
			op.Found = at.path
			return nil
		}
	}
	return storage.ErrNoFile
}

// hasPlace reports whether something of e is in its place, or shall be.
func (e *entry) hasPlace() bool { return e.unverified != nil || !isTaken(e.verified) }

// isTaken reports whether the verified file f was taken and is out of its place.
func isTaken(f *storage.File) bool { return !f.Taken.IsZero() && f.Missing }

// unverified returns the entry whose unverified file has that key, or nil.
func (r *Registry) unverified(at place, incoming string) *entry {
	e := r.files[at]
	if e == nil || e.unverified == nil || e.unverified.Incoming != incoming {
		return nil
	}
	return e
}

func (r *Registry) verifyFile(op *storage.VerifyFile) error {
	op.Replaced = nil
	if err := r.mayActFor(op.ID, op.By); err != nil {
		return err
	}
	e := r.unverified(place{op.ID, op.Path}, op.Incoming)
	if e == nil {
		return storage.ErrNoFile
	}
	f := *e.unverified
	f.Verified, f.Missing, f.Lapsed, f.Deleted = true, op.Missing, false, false
	if op.Versions {
		op.Replaced = e.verified
	}
	e.verified, e.unverified = &f, nil
	return nil
}

func (r *Registry) dropFile(op *storage.DropFile) error {
	op.Marked = false
	if err := r.mayActFor(op.ID, op.By); err != nil {
		return err
	}
	at := place{op.ID, op.Path}
	e := r.unverified(at, op.Incoming)
	if e == nil {
		return storage.ErrNoFile
	}
	e.unverified = nil
	if op.Marked = e.verified != nil; op.Marked {
		e.verified.Lapsed = true
	}
	r.forgetIfEmpty(at, e)
	return nil
}

// verified returns the verified file that has that key, or nil.
func (r *Registry) verified(at place, incoming string) *storage.File {
	e := r.files[at]
	if e == nil || e.verified == nil || e.verified.Incoming != incoming {
		return nil
	}
	return e.verified
}

func (r *Registry) markFile(op *storage.MarkFile) error {
	f := r.verified(place{op.ID, op.Path}, op.Incoming)
	if f == nil {
		return storage.ErrNoFile
	}
	f.Missing = op.Missing
	return nil
}

func (r *Registry) takeFile(op *storage.TakeFile) error {
	f := r.verified(place{op.ID, op.Path}, op.Incoming)
	if f == nil || f.Missing || !f.Stays() {
		return storage.ErrNoFile
	}
	f.Taken = op.Taken
	return nil
}

func (r *Registry) deleteFile(op *storage.DeleteFile) error {
	at := place{op.ID, op.Path}
	f := r.verified(at, op.Incoming)
	if !op.Verified {
		f = nil
		if e := r.unverified(at, op.Incoming); e != nil {
			f = e.unverified
		}
	}
	if f == nil {
		return storage.ErrNoFile
	}
	f.Deleted = true
	return nil
}

func (r *Registry) disableClient(op *storage.DisableClient) error {
	c := r.clients[op.ID]
	if c == nil {
		return storage.ErrNoClient
	}
	c.Disabled = op.Disabled
	return nil
}

func (r *Registry) dropClient(op *storage.DropClient) error {
	c := r.clients[op.ID]
	if c == nil {
		return storage.ErrNoClient
	}
	for at, e := range r.files {
		if at.id == op.ID && e.hasPlace() {
			return storage.ErrHasFiles
		}
	}
	if r.hasPartials(op.ID) {
		return storage.ErrHasFiles
	}
	maps.DeleteFunc(r.files, func(at place, _ *entry) bool { return at.id == op.ID })
	delete(r.added, c.Name)
	delete(r.names, c.Name)
	delete(r.clients, op.ID)
	delete(r.used, op.ID)
	return nil
}

func (r *Registry) dropKeyless(op *storage.DropKeyless) error {
	c := r.clients[op.ID]
	if c == nil || c.PublicKey != nil || c.Disabled || !c.LastSeen.Before(op.Before) || r.hasFiles(op.ID) || r.hasPartials(op.ID) {
		return storage.ErrNoClient
	}
	delete(r.names, c.Name)
	delete(r.clients, op.ID)
	delete(r.used, op.ID)
	return nil
}

func (r *Registry) hasFiles(id codec.ClientID) bool {
	for at := range r.files {
		if at.id == id {
			return true
		}
	}
	return false
}

func (r *Registry) forgetFile(op *storage.ForgetFile) error {
	at := place{op.ID, op.Path}
	op.Lapsed = false
	f := r.verified(at, op.Incoming)
	if f == nil || !f.Missing && !f.Deleted {
		return storage.ErrNoFile
	}
	e := r.files[at]
	if f.Lapsed && e.unverified != nil {
		e.unverified.Lapsed = true
	} else {
		op.Lapsed = f.Lapsed
	}
	e.verified = nil
	r.forgetIfEmpty(at, e)
	return nil
}

func (r *Registry) forgetIfEmpty(at place, e *entry) {
	if e.verified == nil && e.unverified == nil {
		delete(r.files, at)
	}
}

// Clients implements storage.Registry. It yields what there was when it began.
func (r *Registry) Clients(ctx context.Context, yield func(storage.Client) error) error {
	if err := r.lock(ctx); err != nil {
		return err
	}
	all := make([]storage.Client, 0, len(r.clients))
	for _, c := range r.clients {
		all = append(all, copyClient(c))
	}
	r.mu.Unlock()
	slices.SortFunc(all, func(a, b storage.Client) int { return strings.Compare(a.Name, b.Name) })
	return each(ctx, all, yield)
}

// Files implements storage.Registry. It yields what there was when it began.
func (r *Registry) Files(ctx context.Context, yield func(storage.File) error) error {
	return r.list(ctx, yield, func(*storage.File) bool { return true })
}

// Leaving implements storage.Registry. It looks at all files.
func (r *Registry) Leaving(ctx context.Context, yield func(storage.File) error) error {
	return r.list(ctx, yield, (*storage.File).Leaves)
}

// Partials implements storage.Registry. It yields what there was when it began.
func (r *Registry) Partials(ctx context.Context, yield func(storage.Partial) error) error {
	if err := r.lock(ctx); err != nil {
		return err
	}
	all := make([]storage.Partial, 0, len(r.parts))
	for _, p := range r.parts {
		all = append(all, *p)
	}
	r.mu.Unlock()
	slices.SortFunc(all, func(a, b storage.Partial) int {
		return cmp.Or(bytes.Compare(a.ID[:], b.ID[:]), strings.Compare(a.Path, b.Path))
	})
	return each(ctx, all, yield)
}

// Added implements storage.Registry. It yields what there was when it began.
func (r *Registry) Added(ctx context.Context, yield func(name string) error) error {
	if err := r.lock(ctx); err != nil {
		return err
	}
	all := slices.Sorted(maps.Keys(r.added))
	r.mu.Unlock()
	return each(ctx, all, yield)
}

// list yields the files for which of is true, in the order of Files.
func (r *Registry) list(ctx context.Context, yield func(storage.File) error, of func(*storage.File) bool) error {
	if err := r.lock(ctx); err != nil {
		return err
	}
	var all []storage.File
	for _, e := range r.files {
		for _, f := range []*storage.File{e.verified, e.unverified} {
			if f != nil && of(f) {
				all = append(all, *f)
			}
		}
	}
	r.mu.Unlock()
	slices.SortFunc(all, func(a, b storage.File) int {
		return cmp.Or(bytes.Compare(a.ID[:], b.ID[:]), strings.Compare(a.Path, b.Path), verifiedFirst(a, b))
	})
	return each(ctx, all, yield)
}

func verifiedFirst(a, b storage.File) int {
	switch {
	case a.Verified == b.Verified:
		return 0
	case a.Verified:
		return -1
	}
	return 1
}

func each[T any](ctx context.Context, all []T, yield func(T) error) error {
	for _, v := range all {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := yield(v); err != nil {
			return err
		}
	}
	return nil
}

func copyClient(c *storage.Client) storage.Client {
	d := *c
	d.PublicKey, d.AESKey, d.TLSKey = bytes.Clone(c.PublicKey), bytes.Clone(c.AESKey), bytes.Clone(c.TLSKey)
	return d
}

func copyFile(f *storage.File) *storage.File {
	if f == nil {
		return nil
	}
	g := *f
	return &g
}
