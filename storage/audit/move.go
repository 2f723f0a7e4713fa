package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"sealift/storage"
)

// Move copies what a server has on record from one registry to another, and the content from
// one store to another, unless the content stays where it is. No server may have either. It
// may be killed at any moment and called again: what is on record in the new registry is done,
// and a client, or all that there is at a place, is recorded in one step.
//
// The steps: the names that were added; each client; each place, with its content first; the
// partial files; the events that wait. The new registry tells nobody of what is moved.
type Move struct {
	From, To storage.Registry
	// The stores of the content. ToFiles is nil if the content stays where it is.
	FromFiles, ToFiles storage.Files
	Targets            []string // that events are recorded for
	Workers            int      // how many files are read and sent at a time
	// Done is called with how many bytes of content are done: sent, or there already.
	Done func(bytes int64)
	// Wrong is called with each file whose content is missing or damaged: a verified one is
	// marked as missing, and one that waits for its verdict is left out. The error is as
	// Verify has it.
	Wrong func(storage.File, error)
	// Left is called with each partial file whose content cannot be read, or is not what was
	// recorded: it is left out, and its client begins anew.
	Left func(storage.Partial, error)
}

// Moved says how much there is after a Move.
type Moved struct {
	Clients, Names, Verified, Waiting, Partials, Events int

	Bytes     int64 // of verified and waiting files
	Sent      int   // files whose content was sent by this call
	SentBytes int64
}

// errRecords is what a Move ends with that finds records in the new registry that it did not
// write.
var errRecords = errors.New("there are other records than those that are moved; was a server started there?")

// Run moves everything. Records of From that cannot be understood are an error.
func (m *Move) Run(ctx context.Context) (Moved, error) {
	r := &mover{Move: m, checker: newChecker(m.FromFiles), wrong: make(map[storage.Uploaded]bool)}
	for _, step := range []func(context.Context) error{
		func(ctx context.Context) error { return m.To.SetTargets(ctx, nil) },
		r.names, r.clients, r.files, r.partials, r.events,
		func(ctx context.Context) error { return m.To.SetTargets(ctx, m.Targets) },
		r.compare,
	} {
		if err := step(ctx); err != nil {
			return r.moved, err
		}
	}
	return r.moved, nil
}

// mover is one Run.
type mover struct {
	*Move
	*checker
	moved Moved
	wrong map[storage.Uploaded]bool // files of which Wrong was told
}

// do applies operations to the new registry. None may be refused.
func (r *mover) do(ctx context.Context, ops []storage.Operation) error {
	if len(ops) == 0 {
		return nil
	}
	for _, op := range ops {
		op.Result().By = storage.Server
	}
	if err := r.To.Apply(ctx, ops); err != nil {
		return err
	}
	for _, op := range ops {
		if err := op.Result().Err; err != nil {
			return fmt.Errorf("%T: %w", op, err)
		}
	}
	return nil
}

// names copies the names that were added. They come before all clients, since none can be
// added that a client has.
func (r *mover) names(ctx context.Context) error {
	there := make(map[string]bool)
	if err := r.To.Added(ctx, func(name string) error { there[name] = true; return nil }); err != nil {
		return err
	}
	b := batch{r: r}
	err := r.From.Added(ctx, func(name string) error {
		r.moved.Names++
		if there[name] {
			return nil
		}
		return b.add(ctx, &storage.AddName{Name: name})
	})
	return b.end(ctx, err)
}

// batch gathers operations for the new registry.
type batch struct {
	r   *mover
	ops []storage.Operation
}

func (b *batch) add(ctx context.Context, ops ...storage.Operation) error {
	b.ops = append(b.ops, ops...)
	if len(b.ops) < batchSize {
		return nil
	}
	return b.flush(ctx)
}

// end flushes b, unless err says that something went wrong.
func (b *batch) end(ctx context.Context, err error) error {
	if err != nil {
		return err
	}
	return b.flush(ctx)
}

func (b *batch) flush(ctx context.Context) error {
	ops := b.ops
	b.ops = nil
	return b.r.do(ctx, ops)
}

// clients copies the clients.
func (r *mover) clients(ctx context.Context) error {
	b := batch{r: r}
	err := r.From.Clients(ctx, func(c storage.Client) error {
		r.moved.Clients++
		get, err := getClient(ctx, r.To, &c)
		if err != nil || get.ID == c.ID {
			return err
		}
		return b.add(ctx, clientOps(&c)...)
	})
	return b.end(ctx, err)
}

// getClient reads what reg has of c; a zero Client if there is none.
func getClient(ctx context.Context, reg storage.Registry, c *storage.Client) (storage.Client, error) {
	get := &storage.GetClient{Outcome: own, ID: c.ID}
	if err := reg.Apply(ctx, []storage.Operation{get}); err != nil {
		return storage.Client{}, err
	}
	if get.Err != nil && !errors.Is(get.Err, storage.ErrNoClient) {
		return storage.Client{}, get.Err
	}
	return get.Client, nil
}

// clientOps make a client what c is.
func clientOps(c *storage.Client) []storage.Operation {
	ops := []storage.Operation{&storage.AddClient{ID: c.ID, Name: c.Name, TLSKey: c.TLSKey}}
	if c.PublicKey != nil {
		ops = append(ops, &storage.SetKeys{ID: c.ID, Name: c.Name, PublicKey: c.PublicKey, AESKey: c.AESKey})
	} else if c.AESKey != nil {
		ops = append(ops, &storage.SetAESKey{ID: c.ID, AESKey: c.AESKey})
	}
	if c.Quota != (storage.Quota{}) {
		ops = append(ops, &storage.SetQuota{ID: c.ID, Bytes: &c.Quota.Bytes, Files: &c.Quota.Files})
	}
	if c.KeepFor != 0 {
		ops = append(ops, &storage.SetKeepFor{ID: c.ID, KeepFor: c.KeepFor})
	}
	if !c.Expires.IsZero() {
		ops = append(ops, &storage.SetExpires{ID: c.ID, Expires: c.Expires})
	}
	if c.Disabled {
		ops = append(ops, &storage.DisableClient{ID: c.ID, Disabled: true})
	}
	if !c.LastSeen.IsZero() {
		ops = append(ops, &storage.Seen{Outcome: storage.Outcome{At: c.LastSeen}, ID: c.ID})
	}
	return ops
}

func sameClient(a, b *storage.Client) bool {
	return a.ID == b.ID && a.Name == b.Name && bytes.Equal(a.PublicKey, b.PublicKey) && bytes.Equal(a.AESKey, b.AESKey) &&
		a.LastSeen.Equal(b.LastSeen) && bytes.Equal(a.TLSKey, b.TLSKey) && a.Disabled == b.Disabled && a.Quota == b.Quota &&
		a.KeepFor == b.KeepFor && a.Expires.Equal(b.Expires)
}

// events copies the events that wait, in their order.
func (r *mover) events(ctx context.Context) error {
	b := batch{r: r}
	err := r.From.ListEvents(ctx, func(e storage.Event) error {
		r.moved.Events++
		return b.add(ctx, &storage.RestoreEvent{Event: e})
	})
	return b.end(ctx, err)
}

// compare compares what is on record in both registries: each record of one is in the other,
// and there are as many.
func (r *mover) compare(ctx context.Context) error {
	clients, names, events := 0, 0, 0
	err := errors.Join(
		r.From.Clients(ctx, func(c storage.Client) error {
			clients++
			there, err := getClient(ctx, r.To, &c)
			if err == nil && !sameClient(&c, &there) {
				err = fmt.Errorf("client %q: %w", c.Name, errRecords)
			}
			return err
		}),
		r.From.Added(ctx, func(string) error { names++; return nil }),
		r.From.ListEvents(ctx, func(storage.Event) error { events++; return nil }),
		r.compareFiles(ctx),
	)
	if err == nil {
		err = errors.Join(
			r.To.Clients(ctx, func(storage.Client) error { clients--; return nil }),
			r.To.Added(ctx, func(string) error { names--; return nil }),
			r.To.ListEvents(ctx, func(storage.Event) error { events--; return nil }),
		)
	}
	if err == nil && (clients != 0 || names != 0 || events != 0) {
		err = errRecords
	}
	return err
}
