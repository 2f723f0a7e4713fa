package audit

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/storage"
)

// Partial files, see [storage.Partial], are looked after in three steps. Recover drops those
// whose content is gone, or shorter than Length. CheckPartials, beside the server, reads those
// that an earlier boot of the machine has left. SweepPartials drops what is too old or too much.
// The row goes first, then the content: a crash between leaves an orphan.

// The events of partial files. Of Finding.File all is set but what a partial file does not
// have; Size is the Length.
const (
	PartialSpoilt  Event = "dropped: the content of a partial file is not what was recorded"
	PartialExpired Event = "dropped: nobody went on with a partial file in time"
	PartialSurplus Event = "dropped: there are too many partial files, and this was one of the oldest"
	PartialDeleted Event = "dropped: a partial file that somebody deleted"
)

// PartialOptions of CheckPartials and SweepPartials.
type PartialOptions struct {
	Boot string        // of the machine, see storage.Partial
	TTL  time.Duration // after which a partial file goes that nobody goes on with; 0: never
	// Budget is how many bytes all of them may have, and PerClient how many partial files one
	// client may have; 0: any.
	Budget    int64
	PerClient int
	Now       time.Time
	// Alive reports whether the content with that key belongs to a transfer under way; it may
	// be nil. Such a partial file stays. Where content has leases, so does one whose lease has not
	// run out: another server may be at work on it.
	Alive func(incoming string) bool
	// Log is as in Options. Exclusive is too, for CheckPartials.
	Log       func(Finding)
	Exclusive func(id codec.ClientID, path string, do func())
}

// Partials says what there is.
type Partials struct {
	Files int
	Bytes int64
}

// recoverPartials drops partial files that are no use, and adds the keys of the others to
// named: their content is no orphan.
func (r *recovery) recoverPartials(ctx context.Context, named map[string]struct{}) error {
	var all []storage.Partial
	err := r.reg.Partials(ctx, func(p storage.Partial) error {
		all = append(all, p)
		return nil
	})
	if err != nil && !errors.Is(err, storage.ErrBadRows) {
		return err
	}
	if err != nil {
		r.found(Finding{Event: BadRows, Err: err})
	}
	for i := range all {
		p := &all[i]
		named[p.Incoming] = struct{}{} // also of one that goes: flush discards its content
		size, err := r.files.Size(ctx, p.Uploaded())
		switch {
		case errors.Is(err, storage.ErrNotStored) || err == nil && size < p.Length:
			r.dropPartial(p, PartialSpoilt, cmp.Or(err, tooShort(size, p)))
		case p.Deleted:
			r.dropPartial(p, PartialDeleted, nil)
		case err != nil:
			r.found(Finding{Failed, aboutPartial(p), err})
		}
		if err := r.flushIfFull(ctx); err != nil {
			return err
		}
	}
	return r.flush(ctx)
}

func tooShort(size int64, p *storage.Partial) error {
	return fmt.Errorf("%w: %d bytes, fewer than %d", ErrSize, size, p.Length)
}

// aboutPartial is p as a Finding has it.
func aboutPartial(p *storage.Partial) storage.File {
	return storage.File{ID: p.ID, FileName: p.FileName, Path: p.Path, Incoming: p.Incoming, Size: p.Length, Received: p.Changed}
}

// dropPartial drops p with the next flush, unless somebody goes on with it meanwhile.
func (r *recovery) dropPartial(p *storage.Partial, why Event, err error) {
	r.do(&storage.DropPartial{
		Outcome: own, ID: p.ID, Path: p.Path, Incoming: p.Incoming, Generation: p.Generation,
	}, Finding{why, aboutPartial(p), err})
}

// SweepPartials drops the partial files that are deleted, too old, or too many, and says what
// is left. The oldest go first, but none that is alive, nor the newest of a client. It may run
// beside a server. It looks at rows alone, and what goes goes in batches.
func SweepPartials(ctx context.Context, reg storage.Registry, files storage.Files, o PartialOptions) (left Partials, err error) {
	var all []storage.Partial
	err = reg.Partials(ctx, func(p storage.Partial) error {
		all = append(all, p)
		left.Bytes += p.Length
		return nil
	})
	if err != nil && !errors.Is(err, storage.ErrBadRows) || len(all) == 0 {
		return Partials{}, notBadRows(err)
	}
	left.Files = len(all)
	s := &sweep{recovery: newRecovery(reg, files, o.options()), o: o}
	if files.Keeping().Leases {
		if s.leased, err = leased(ctx, reg, o.Now); err != nil {
			return Partials{}, err
		}
	}
	for gone := range slices.Chunk(s.choose(all, left.Bytes), batchSize) {
		dropped, err := s.drop(ctx, gone)
		if err != nil {
			return left, err
		}
		for i := range dropped {
			left.Files--
			left.Bytes -= dropped[i].Length
		}
	}
	return left, nil
}

// options are what recovery goes by.
func (o *PartialOptions) options() Options {
	return Options{Now: o.Now, Log: o.Log, Exclusive: o.Exclusive}
}

// alive reports whether a transfer under way has p, on this server or, as its lease tells, on
// another one.
func (s *sweep) alive(p *storage.Partial) bool {
	_, leased := s.leased[p.Incoming]
	return leased || s.o.Alive != nil && s.o.Alive(p.Incoming)
}

// sweep is one SweepPartials.
type sweep struct {
	*recovery
	o      PartialOptions
	leased map[string]struct{} // keys
}

// doomed is a partial file that is to go, and why.
type doomed struct {
	storage.Partial
	why Event
}

// choose says which of all are to go, which have that many bytes.
func (s *sweep) choose(all []storage.Partial, total int64) (gone []doomed) {
	slices.SortFunc(all, func(a, b storage.Partial) int {
		return cmp.Or(a.Changed.Compare(b.Changed), bytes.Compare(a.ID[:], b.ID[:]), cmp.Compare(a.Path, b.Path))
	})
	left, newest := make(map[codec.ClientID]int), make(map[codec.ClientID]int) // of each client: how many, and which
	for i := range all {
		left[all[i].ID]++
		if !all[i].Deleted {
			newest[all[i].ID] = i
		}
	}
	for i := range all {
		p := &all[i]
		var why Event
		switch surplus := s.o.Budget > 0 && total > s.o.Budget || s.o.PerClient > 0 && left[p.ID] > s.o.PerClient; {
		case p.Deleted:
			why = PartialDeleted
		case s.alive(p):
		case s.o.TTL > 0 && s.o.Now.Sub(p.Changed) > s.o.TTL:
			why = PartialExpired
		case surplus && newest[p.ID] != i:
			why = PartialSurplus
		}
		if why != "" {
			gone = append(gone, doomed{*p, why})
			left[p.ID]--
			total -= p.Length
		}
	}
	return gone
}

// drop drops partial files, and returns those that went: nobody has gone on with them
// meanwhile, which the Generation says. The content of one that was deleted stays while a
// transfer under way has it: that records it anew.
func (s *sweep) drop(ctx context.Context, gone []doomed) (dropped []doomed, err error) {
	batch := make([]storage.Operation, len(gone))
	for i := range gone {
		d := &gone[i]
		op := &storage.DropPartial{
			Outcome: own, ID: d.ID, Path: d.Path, Incoming: d.Incoming, Generation: d.Generation,
			Leased: s.files.Keeping().Leases && !s.alive(&d.Partial),
		}
		if d.why == PartialDeleted {
			op.Generation = 0
		}
		batch[i] = op
	}
	if err := s.reg.Apply(ctx, batch); err != nil {
		return nil, err
	}
	for i, op := range batch {
		d := &gone[i]
		if op.Result().Err != nil { // it was continued, or has become whole
			continue
		}
		dropped = append(dropped, *d)
		s.found(Finding{Event: d.why, File: aboutPartial(&d.Partial)})
		if s.alive(&d.Partial) {
			continue
		}
		if err := s.files.Discard(ctx, d.Uploaded()); err != nil {
			s.found(Finding{Failed, aboutPartial(&d.Partial), err})
		}
	}
	return dropped, nil
}

// CheckPartials reads the partial files that another boot of the machine has left, up to their
// Length, and compares them with their State. What is behind that goes: a power cut may have
// taken it. Those that are as they were get this Boot, so that a client can go on with them;
// the others are dropped. It may run beside a server, and holds up nobody while it reads.
//
// The error is one of the registry, or ctx's. A partial file that cannot be read stays as it is.
func CheckPartials(ctx context.Context, reg storage.Registry, files storage.Files, o PartialOptions) error {
	var others []storage.Partial
	err := reg.Partials(ctx, func(p storage.Partial) error {
		if p.Boot != o.Boot {
			others = append(others, p)
		}
		return nil
	})
	if err != nil && !errors.Is(err, storage.ErrBadRows) || len(others) == 0 {
		return notBadRows(err)
	}
	s := &sweep{recovery: newRecovery(reg, files, o.options()), o: o}
	for i := range others {
		if err := s.check(ctx, &others[i]); err != nil {
			return err
		}
	}
	return nil
}

// check does with one partial file what CheckPartials does.
func (s *sweep) check(ctx context.Context, p *storage.Partial) error {
	fault := s.checkPrefix(ctx, p)
	if err := ctx.Err(); err != nil {
		return err
	}
	about := aboutPartial(p)
	return s.recovery.o.exclusively(&about, func() error {
		get := &storage.GetFile{Outcome: own, ID: p.ID, Path: p.Path, WithPartial: true}
		if err := s.reg.Apply(ctx, []storage.Operation{get}); err != nil {
			return err
		}
		if get.Err != nil || get.Partial == nil || *get.Partial != *p || s.alive(p) {
			return nil // it has changed meanwhile
		}
		if fault == nil {
			fault = s.cut(ctx, p)
		}
		switch {
		case errors.Is(fault, ErrSize) || errors.Is(fault, ErrCksum) || errors.Is(fault, storage.ErrNotStored):
			s.dropPartial(p, PartialSpoilt, fault)
			return s.flush(ctx)
		case fault != nil:
			s.found(Finding{Failed, about, fault})
			return nil
		}
		return s.trust(ctx, p)
	})
}

// trust records that p counts during this boot.
func (s *sweep) trust(ctx context.Context, p *storage.Partial) error {
	op := &storage.PutPartial{Outcome: own, Partial: *p}
	op.Partial.Boot = s.o.Boot
	if err := s.reg.Apply(ctx, []storage.Operation{op}); err != nil {
		return err
	}
	if op.Replaced == nil { // or refused: it belongs to somebody else
		return nil
	}
	// A new transfer of the name was recorded in between: its row goes back.
	back := &storage.PutPartial{Outcome: own, Partial: *op.Replaced}
	if err := s.reg.Apply(ctx, []storage.Operation{back}); err != nil {
		return err
	}
	return s.files.Discard(ctx, p.Uploaded())
}

// checkPrefix reads the first Length bytes of p. The error wraps ErrSize or ErrCksum where
// they are not what was recorded.
func (s *sweep) checkPrefix(ctx context.Context, p *storage.Partial) error {
	if p.Length == 0 {
		return fmt.Errorf("%w: nothing of it was made durable", ErrSize)
	}
	r, err := s.files.OpenFrom(ctx, p.Uploaded(), 0)
	if err != nil {
		return err
	}
	size, state, err := s.sum(ctx, io.LimitReader(r, p.Length))
	if err = errors.Join(err, r.Close()); err != nil {
		return err
	}
	switch {
	case size < p.Length:
		return tooShort(size, p)
	case state != p.State:
		return fmt.Errorf("%w: the first %d bytes", ErrCksum, size)
	}
	return nil
}

// sum reads r to its end, and returns how many bytes that are and the state of their checksum.
func (s *sweep) sum(ctx context.Context, r io.Reader) (size int64, state uint32, err error) {
	h := cksum.New()
	for {
		if err := ctx.Err(); err != nil {
			return 0, 0, err
		}
		n, err := r.Read(s.buf)
		size += int64(n)
		h.Write(s.buf[:n])
		if err == io.EOF {
			return size, h.State(), nil
		}
		if err != nil {
			return 0, 0, err
		}
	}
}

// cut takes away what is behind the Length of p.
func (s *sweep) cut(ctx context.Context, p *storage.Partial) error {
	in, err := s.files.Reopen(ctx, p.Uploaded(), storage.Announce(p.Total), p.Length)
	if err != nil {
		return err
	}
	return in.Close(ctx)
}
