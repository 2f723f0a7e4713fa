package memory

import (
	"time"

	"sealift/codec"
	"sealift/storage"
)

// here is what a place counts as.
func (r *Registry) here(at place) (u storage.Usage) {
	e := r.files[at]
	if e == nil {
		return u
	}
	if e.verified != nil && !e.verified.Missing {
		u = u.With(e.verified.Size)
	}
	if e.unverified != nil {
		u = u.With(e.unverified.Size)
	}
	return u
}

// count has change change what is stored in a place, and keeps count of it if the client
// is counted.
func (r *Registry) count(at place, change func() error) error {
	before := r.here(at)
	err := change()
	if used := r.used[at.id]; err == nil && used != nil {
		*used = used.Add(r.here(at).Sub(before))
	}
	return err
}

// recount counts what a client has, from now on or anew.
func (r *Registry) recount(id codec.ClientID) *storage.Usage {
	used := r.actual(id)
	r.used[id] = &used
	return &used
}

func (r *Registry) actual(id codec.ClientID) (u storage.Usage) {
	for at := range r.files {
		if at.id == id {
			u = u.Add(r.here(at))
		}
	}
	return u
}

// admit returns ErrQuota if the file of op would take its client beyond the quota.
func (r *Registry) admit(op *storage.PutFile) error {
	op.Replaced, op.Partial = nil, nil
	id := op.File.ID
	c, err := r.client(id, op.By)
	if err != nil || op.By.IsServer() {
		return err
	}
	quota := c.Quota.Or(op.Quota)
	if !quota.Bounds() {
		delete(r.used, id)
		return nil
	}
	used := r.used[id]
	if used == nil {
		used = r.recount(id)
	}
	return quota.Refuses(*used, r.here(place{id, op.File.Path}), op.File.Size)
}

// change changes a client on the server's behalf.
func (r *Registry) change(id codec.ClientID, do func(*storage.Client)) error {
	c := r.clients[id]
	if c == nil {
		return storage.ErrNoClient
	}
	do(c)
	return nil
}

func (r *Registry) expireClient(op *storage.ExpireClient) error {
	c := r.clients[op.ID]
	if c == nil || !c.ExpiredAt(op.Now) {
		return storage.ErrNoClient
	}
	c.Disabled, c.Expires = true, time.Time{}
	return nil
}

func (r *Registry) setQuota(op *storage.SetQuota) error {
	return r.change(op.ID, func(c *storage.Client) {
		if op.Bytes != nil {
			c.Quota.Bytes = *op.Bytes
		}
		if op.Files != nil {
			c.Quota.Files = *op.Files
		}
		r.recount(op.ID)
	})
}

func (r *Registry) getUsage(op *storage.GetUsage) error {
	op.Own, op.Counted = storage.Quota{}, false
	op.Used, op.Here, op.Actual = storage.Usage{}, storage.Usage{}, storage.Usage{}
	c, err := r.client(op.ID, op.By)
	if err != nil {
		return err
	}
	op.Own = c.Quota
	if used := r.used[op.ID]; used != nil {
		op.Counted, op.Used = true, *used
	}
	op.Here = r.here(place{op.ID, op.Path})
	if op.Recount {
		op.Actual = r.actual(op.ID)
	}
	return nil
}
