package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"sealift/crypto/cksum"
	"sealift/storage"
)

// How much is sent before it is recorded: enough for few commits, and little enough for not
// much to be sent again after a kill.
const (
	movePlaces = 64
	moveBytes  = 64 << 20
)

// site is what there is at a place.
type site struct {
	at       storage.Place
	verified *parcel // nil: there is none, or it is in the new registry already
	waiting  *parcel
	lapsed   bool // the version that waited is left out
}

// parcel is a file on its way.
type parcel struct {
	storage.File
	ref  storage.Ref // its content; nil: it has none, or it stays where it is
	key  string      // in the new store
	sent bool
}

// files moves all files, a few places at a time.
func (r *mover) files(ctx context.Context) error {
	var sites []*site
	bytes := int64(0)
	flush := func() error {
		err := r.sites(ctx, sites)
		sites, bytes = nil, 0
		return err
	}
	err := r.From.Files(ctx, func(f storage.File) error {
		if f.Deleted {
			return nil // it was to go, and could not be removed
		}
		last := len(sites) - 1
		if last < 0 || sites[last].at != f.Place() {
			if len(sites) >= movePlaces || bytes >= moveBytes {
				if err := flush(); err != nil {
					return err
				}
			}
			sites = append(sites, &site{at: f.Place()})
			last = len(sites) - 1
		}
		p := &parcel{File: f, key: f.Incoming}
		if f.Verified {
			r.moved.Verified++
			sites[last].verified = p
			if !f.Missing && f.Taken.IsZero() {
				p.ref = f.Stored()
			}
		} else {
			r.moved.Waiting++
			sites[last].waiting = p
			p.ref = f.Uploaded()
		}
		if p.ref != nil {
			bytes += f.Size
			r.moved.Bytes += f.Size
		}
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}

// sites moves what there is at some places: content, as far as it is not there, and then all
// records in one step.
func (r *mover) sites(ctx context.Context, sites []*site) error {
	if err := r.passOver(ctx, sites); err != nil {
		return err
	}
	if err := r.send(ctx, sites); err != nil {
		return err
	}
	var ops []storage.Operation
	for _, s := range sites {
		ops = append(ops, r.siteOps(s)...)
	}
	return r.do(ctx, ops)
}

// passOver takes out of sites what is in the new registry already.
func (r *mover) passOver(ctx context.Context, sites []*site) error {
	var ops []storage.Operation
	for _, s := range sites {
		ops = append(ops, &storage.GetFile{Outcome: own, ID: s.at.ID, Path: s.at.Path})
	}
	if len(ops) == 0 {
		return nil
	}
	if err := r.To.Apply(ctx, ops); err != nil {
		return err
	}
	for i, s := range sites {
		get := ops[i].(*storage.GetFile)
		if get.Err != nil && !errors.Is(get.Err, storage.ErrNoFile) {
			return get.Err
		}
		for _, of := range []struct {
			parcel **parcel
			there  *storage.File
		}{{&s.verified, get.Verified}, {&s.waiting, get.Unverified}} {
			p := *of.parcel
			switch {
			case of.there == nil || p == nil:
			case !sameFile(&p.File, of.there, true):
				return fmt.Errorf("%s: %w", p.PathName(), errRecords)
			default:
				if p.ref != nil {
					if of.there.Missing { // it was found to be wrong before
						r.tellWrong(p, errWrongBefore)
					}
					r.Done(p.Size)
				}
				*of.parcel = nil
			}
		}
	}
	return nil
}

// errWrongBefore is what is wrong with content that an earlier run found to be wrong.
var errWrongBefore = errors.New("marked as missing by the first attempt, since its content was missing or damaged")

func (r *mover) tellWrong(p *parcel, why error) {
	r.wrong[p.Uploaded()] = true
	r.Wrong(p.File, why)
}

// sameFile reports whether two records are of one version, which may have another key in each.
// With wrong, b may be marked as missing, or lapsed, where a is not.
func sameFile(a, b *storage.File, wrong bool) bool {
	x, y := *a, *b
	x.Incoming, y.Incoming = "", ""
	x.Received, y.Received = x.Received.UTC(), y.Received.UTC()
	x.Taken, y.Taken = x.Taken.UTC(), y.Taken.UTC()
	if wrong && y.Missing {
		x.Missing = true
	}
	if wrong && y.Lapsed || !x.Taken.IsZero() && y.Missing {
		x.Lapsed, x.Missing = y.Lapsed, y.Missing
	}
	return x == y
}

// send sends the content of sites, a few files at a time.
func (r *mover) send(ctx context.Context, sites []*site) error {
	if r.ToFiles == nil {
		return nil
	}
	var all []*parcel
	for _, s := range sites {
		for _, p := range []*parcel{s.verified, s.waiting} {
			if p != nil && p.ref != nil {
				all = append(all, p)
			}
		}
	}
	todo := make(chan *parcel, len(all))
	for _, p := range all {
		todo <- p
	}
	close(todo)
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var workers sync.WaitGroup
	faults := make(map[*parcel]error)
	var mu sync.Mutex
	for range min(r.Workers, len(all)) {
		workers.Go(func() {
			c := newChecker(r.FromFiles)
			for p := range todo {
				if ctx.Err() != nil {
					return
				}
				left := p.Size
				fault, err := c.sendOne(ctx, r.ToFiles, p, func(n int) {
					mu.Lock()
					defer mu.Unlock()
					r.Done(min(int64(n), left))
					left -= min(int64(n), left)
				})
				if err != nil {
					stop(err)
					return
				}
				mu.Lock()
				faults[p] = fault
				r.Done(left)
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for _, s := range sites {
		for _, p := range []*parcel{s.verified, s.waiting} {
			switch {
			case p == nil || p.ref == nil:
			case faults[p] != nil:
				r.tellWrong(p, faults[p])
			default:
				r.moved.Sent++
				r.moved.SentBytes += p.Size
			}
		}
	}
	return nil
}

// sendOne sends the content of a file, and compares it on the way. read is called with how
// many bytes were read. fault says what is wrong
// with it; then nothing is left of it. err is one of the new store.
func (c *checker) sendOne(ctx context.Context, to storage.Files, p *parcel, read func(n int)) (fault, err error) {
	from, err := c.files.Open(ctx, p.ref)
	if errors.Is(err, storage.ErrNotStored) {
		return ErrMissing, nil
	}
	if err != nil {
		return err, ctx.Err()
	}
	defer from.Close()
	in, err := to.Create(ctx, p.Place(), storage.Announce(p.Size))
	if errors.Is(err, storage.ErrPath) {
		return err, nil // there is no room for such a name
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.PathName(), err)
	}
	f := p.File
	f.Incoming = in.Key()
	size, sum, fault := c.copy(ctx, writer{ctx, in}, counted{from, read}, p.Size)
	var w *writeError
	if errors.As(fault, &w) || fault != nil && ctx.Err() != nil {
		fault, err = nil, fault
	} else if fault == nil {
		fault = compare(&f, size, sum)
	}
	if err == nil && fault == nil {
		err = in.Complete(ctx)
	} else {
		err = errors.Join(err, in.Close(context.WithoutCancel(ctx)))
	}
	if err == nil && fault == nil && f.Verified {
		err = to.Commit(ctx, &f)
	}
	if err != nil || fault != nil {
		e := to.Discard(context.WithoutCancel(ctx), f.Uploaded())
		if err == nil {
			return fault, e
		}
		return nil, fmt.Errorf("%s: %w", p.PathName(), errors.Join(err, e))
	}
	p.key, p.sent = f.Incoming, true
	return nil, nil
}

// counted is a reader of which is told how much was read.
type counted struct {
	io.Reader
	read func(n int)
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.read(n)
	return n, err
}

// siteOps record what there is at a place. A version that is marked as lapsed was replaced, or
// lost one that waited: that happens to it here.
func (r *mover) siteOps(s *site) (ops []storage.Operation) {
	leased := func(p *parcel) bool { return p.sent && r.ToFiles.Keeping().Leases }
	put := func(p *parcel) *storage.PutFile {
		f := p.File
		f.Incoming = p.key
		return &storage.PutFile{File: f, Leased: leased(p)}
	}
	filler := func(p *parcel) *storage.PutFile {
		f := p.File
		f.Incoming, f.Size = "lapsed-"+p.key, 0
		return &storage.PutFile{File: f}
	}
	v, w := s.verified, s.waiting
	if w != nil && r.wrong[w.Uploaded()] {
		s.lapsed, w = true, nil
	}
	if v != nil {
		ops = append(ops, put(v), &storage.VerifyFile{ID: v.ID, Path: v.Path, Incoming: v.key})
		if v.Lapsed || s.lapsed {
			f := filler(v)
			ops = append(ops, f, &storage.DropFile{ID: v.ID, Path: v.Path, Incoming: f.File.Incoming, Why: storage.WhySpoilt})
		}
		if !v.Taken.IsZero() {
			ops = append(ops, &storage.TakeFile{ID: v.ID, Path: v.Path, Incoming: v.key, Taken: v.Taken})
		}
		if v.Missing || !v.Taken.IsZero() || r.wrong[v.Uploaded()] {
			ops = append(ops, &storage.MarkFile{ID: v.ID, Path: v.Path, Incoming: v.key, Missing: true})
		}
	}
	if w != nil {
		if w.Lapsed {
			ops = append(ops, filler(w))
		}
		ops = append(ops, put(w))
	}
	return ops
}

// partials moves the partial files, as far as they are certain to be there.
func (r *mover) partials(ctx context.Context) error {
	return r.From.Partials(ctx, func(p storage.Partial) error {
		if p.Deleted {
			return nil
		}
		get := &storage.GetFile{Outcome: own, ID: p.ID, Path: p.Path, WithPartial: true}
		if err := r.To.Apply(ctx, []storage.Operation{get}); err != nil {
			return err
		}
		if get.Partial == nil {
			fault, err := r.partial(ctx, p)
			if err != nil {
				return err
			}
			if fault != nil {
				r.Left(p, fault)
				return nil
			}
		}
		if r.ToFiles != nil {
			r.Done(p.Length)
		}
		r.moved.Partials++
		return nil
	})
}

// partial moves one partial file. fault is what is wrong with its content.
func (r *mover) partial(ctx context.Context, p storage.Partial) (fault, err error) {
	if r.ToFiles == nil {
		return nil, r.do(ctx, []storage.Operation{&storage.PutPartial{Partial: p}})
	}
	in, err := r.ToFiles.Create(ctx, p.Place(), storage.Announce(p.Total))
	if err != nil {
		return nil, err
	}
	up := storage.Uploaded{Place: p.Place(), Key: in.Key()}
	fault, err = r.copyPartial(ctx, in, &p)
	if err == nil && fault == nil {
		err = r.ToFiles.Flush(ctx, up, p.Length)
	}
	err = errors.Join(err, in.Close(context.WithoutCancel(ctx)))
	if err != nil || fault != nil {
		return fault, errors.Join(err, r.ToFiles.Discard(context.WithoutCancel(ctx), up))
	}
	p.Incoming = up.Key
	// After an error it may be on record, and its content stays.
	return nil, r.do(ctx, []storage.Operation{
		&storage.PutPartial{Partial: p, Leased: r.ToFiles.Keeping().Leases}, &storage.EndLease{Key: up.Key},
	})
}

// copyPartial writes what is certain to be there of p to in, and compares it with its checksum.
func (r *mover) copyPartial(ctx context.Context, in storage.Incoming, p *storage.Partial) (fault, err error) {
	from, err := r.FromFiles.Open(ctx, storage.Uploaded{Place: p.Place(), Key: p.Incoming})
	if err != nil {
		return err, ctx.Err()
	}
	defer from.Close()
	h := cksum.New()
	for left := p.Length; left > 0; {
		n, err := from.Read(r.buf[:min(int64(len(r.buf)), left)])
		_, _ = h.Write(r.buf[:n])
		left -= int64(n)
		if _, err := in.Write(ctx, r.buf[:n]); err != nil {
			return nil, err
		}
		if err != nil && left > 0 {
			return err, ctx.Err()
		}
	}
	if h.State() != p.State {
		return fmt.Errorf("%w: what is there of it", ErrCksum), nil
	}
	return nil, nil
}

// compareFiles is compare for files and partial ones.
func (r *mover) compareFiles(ctx context.Context) error {
	there := 0
	err := r.From.Files(ctx, func(f storage.File) error {
		if f.Deleted || r.wrong[f.Uploaded()] && !f.Verified {
			return nil
		}
		there++
		get, err := getFile(ctx, r.To, &f)
		if err != nil {
			return err
		}
		g := get.Unverified
		if f.Verified {
			g = get.Verified
		}
		if g == nil || !sameFile(&f, g, true) || g.Missing && f.Verified && !f.Missing && f.Taken.IsZero() && !r.wrong[f.Uploaded()] {
			return fmt.Errorf("%s: %w", f.PathName(), errRecords)
		}
		return nil
	})
	if err != nil {
		return err
	}
	partials := r.moved.Partials
	err = errors.Join(
		r.To.Files(ctx, func(storage.File) error { there--; return nil }),
		r.To.Partials(ctx, func(storage.Partial) error { partials--; return nil }),
	)
	if err == nil && (there != 0 || partials != 0) {
		err = errRecords
	}
	return err
}
