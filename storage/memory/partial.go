package memory

import (
	"sealift/codec"
	"sealift/storage"
)

func (r *Registry) putPartial(op *storage.PutPartial) error {
	op.Replaced = nil
	p := op.Partial
	if _, err := r.client(p.ID, op.By); err != nil {
		return err
	}
	at := place{p.ID, p.Path}
	if r.files[at].has(p.Incoming) {
		return storage.ErrSuperseded
	}
	_, leased := r.leases[p.Incoming]
	switch old := r.parts[at]; {
	case op.From != "" && !isOf(old, op.From, p.Generation):
		return storage.ErrSuperseded
	case op.Leased && !leased && (old == nil || old.Incoming != p.Incoming):
		return storage.ErrNoLease
	case old == nil:
	case old.Incoming != p.Incoming:
		op.Replaced = old
	case old.Generation != p.Generation:
		return storage.ErrSuperseded
	default:
		p.Deleted = old.Deleted
	}
	if op.From != "" {
		p.Deleted = op.Replaced.Deleted
		delete(r.leases, op.From)
	}
	r.parts[at] = &p
	return nil
}

// isOf reports whether p is there, and has that key and generation.
func isOf(p *storage.Partial, key string, generation int64) bool {
	return p != nil && p.Incoming == key && p.Generation == generation
}

func (r *Registry) continueFile(op *storage.ContinueFile) error {
	op.Partial = storage.Partial{}
	if err := r.mayActFor(op.ID, op.By); err != nil {
		return err
	}
	p := r.parts[place{op.ID, op.Path}]
	if p == nil || p.Incoming != op.Incoming || p.Deleted {
		return storage.ErrNoFile
	}
	p.Generation++
	p.Changed = op.Changed
	op.Partial = *p
	return nil
}

func (r *Registry) dropPartial(op *storage.DropPartial) error {
	if err := r.mayActFor(op.ID, op.By); err != nil {
		return err
	}
	at := place{op.ID, op.Path}
	p := r.parts[at]
	if p == nil || p.Incoming != op.Incoming || op.Generation != 0 && p.Generation != op.Generation {
		return storage.ErrNoFile
	}
	delete(r.parts, at)
	if op.Leased {
		delete(r.leases, op.Incoming)
	}
	return nil
}

func (r *Registry) deletePartial(op *storage.DeletePartial) error {
	p := r.parts[place{op.ID, op.Path}]
	if p == nil || p.Incoming != op.Incoming {
		return storage.ErrNoFile
	}
	p.Deleted = true
	return nil
}

// takePartial forgets the partial file that became the whole file of op, or that it
// replaces.
func (r *Registry) takePartial(op *storage.PutFile) error {
	at := place{op.File.ID, op.File.Path}
	p := r.parts[at]
	own := p != nil && p.Incoming == op.File.Incoming
	if op.From != "" && (!isOf(p, op.From, op.Generation) || r.files[at].has(op.File.Incoming)) {
		return storage.ErrSuperseded
	}
	if op.Generation != 0 && (own && p.Generation != op.Generation || r.files[at].has(op.File.Incoming)) {
		return storage.ErrSuperseded
	}
	if op.Leased {
		if _, leased := r.leases[op.File.Incoming]; !own && !leased {
			return storage.ErrNoLease
		}
		delete(r.leases, op.File.Incoming)
		delete(r.leases, op.From)
	}
	op.Partial = p
	delete(r.parts, at)
	return nil
}

func (r *Registry) hasPartials(id codec.ClientID) bool {
	for at := range r.parts {
		if at.id == id {
			return true
		}
	}
	return false
}

// has reports whether a file with that key is at the place.
func (e *entry) has(incoming string) bool {
	if e == nil {
		return false
	}
	return e.verified != nil && e.verified.Incoming == incoming || e.unverified != nil && e.unverified.Incoming == incoming
}

// copyPartial copies p, unless it is nil.
func copyPartial(p *storage.Partial) *storage.Partial {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}
