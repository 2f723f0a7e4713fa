package memory

import (
	"context"
	"slices"
	"strings"
	"time"

	"sealift/storage"
)

func (r *Registry) leaseUpload(op *storage.LeaseUpload) error {
	if op.Again && !r.knows(op.Upload) {
		return storage.ErrNoLease
	}
	r.leases[op.Upload.Key] = storage.Lease{Upload: op.Upload, Server: op.Server, Ends: r.now().Add(op.For)}
	return nil
}

func (r *Registry) renewLeases(op *storage.RenewLeases) {
	op.Lost = nil
	for _, key := range op.Keys {
		l, ok := r.leases[key]
		if !ok || l.Server != op.Server {
			op.Lost = append(op.Lost, key)
			continue
		}
		l.Ends = r.now().Add(op.For)
		r.leases[key] = l
	}
}

func (r *Registry) reapLeases(op *storage.ReapLeases) {
	op.Reaped = nil
	until := r.now().Add(-op.Ago)
	for key, l := range r.leases {
		if len(op.Reaped) < op.Limit && !l.Ends.After(until) {
			op.Reaped = append(op.Reaped, l)
			delete(r.leases, key)
		}
	}
}

// knows reports whether anything is on record of content.
func (r *Registry) knows(up storage.Uploaded) bool {
	at := place{up.ID, up.Path}
	p := r.parts[at]
	_, leased := r.leases[up.Key]
	return leased || r.files[at].has(up.Key) || p != nil && p.Incoming == up.Key
}

// EachLease implements storage.Leases. It yields what there was when it began.
func (r *Registry) EachLease(ctx context.Context, yield func(storage.Lease) error) error {
	if err := r.lock(ctx); err != nil {
		return err
	}
	all := make([]storage.Lease, 0, len(r.leases))
	for _, l := range r.leases {
		l.Ends = l.Ends.UTC().Truncate(time.Millisecond)
		all = append(all, l)
	}
	r.mu.Unlock()
	slices.SortFunc(all, func(a, b storage.Lease) int { return strings.Compare(a.Upload.Key, b.Upload.Key) })
	return each(ctx, all, yield)
}
