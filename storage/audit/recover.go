package audit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sealift/codec"
	"sealift/storage"
)

// massLoss is how many verified files there must be for it to be suspicious
// that none is found.
const massLoss = 10

// batchSize is how many operations go into one batch.
const batchSize = 256

// own is the outcome of an operation that is the server's own: what recovery and
// maintenance put in order is not asked for over a connection, and no pin stands
// against it.
var own = storage.Outcome{By: storage.Server}

// Recover makes registry and files agree after a crash; see the package
// comment. It must run before the server serves: an incoming file without a row
// might be an upload under way otherwise. It reads every file that awaits its
// 1029; of the verified ones it only looks at the size, unless they are marked
// as missing.
//
// What leaves, see [Clear], is removed once it is settled whose content is in each
// place.
//
// A verified row whose file is gone is marked as missing. The mark goes when the
// file is there again with its size and checksum, and was made durable anew. A
// file in a client's folder without a row is left alone: the server puts none
// there without a row, so somebody else did. Where rows cannot be understood,
// incoming files without a row stay: those rows may be about them.
//
// The error is a *FilesGoneError or an *AlikeError, and then nothing was changed, or says what
// failed in the registry or the files; then part of the work may be done, and
// Recover may be called again.
func Recover(ctx context.Context, reg storage.Registry, files Files, o Options) (Report, error) {
	r := newRecovery(reg, files, o)
	if err := checkAlike(ctx, reg, files); err != nil {
		return r.report, err
	}
	found, err := r.survey(ctx)
	if err != nil {
		return r.report, err
	}
	named := make(map[string]struct{}, len(found.waiting)) // incoming files that a row names, or named
	for i := range found.waiting {
		named[found.waiting[i].Incoming] = struct{}{}
		r.settle(ctx, &found.waiting[i])
		if err := r.flushIfFull(ctx); err != nil {
			return r.report, err
		}
	}
	if err := r.flush(ctx); err != nil {
		return r.report, err
	}
	for i := range found.odd {
		named[found.odd[i].Incoming] = struct{}{}
		if err := r.settleVerified(ctx, &found.odd[i]); err != nil {
			return r.report, err
		}
	}
	if err := r.flush(ctx); err != nil {
		return r.report, err
	}
	r.o.Waiting = nil // it was called with each
	if err := r.clearAll(ctx, found.leaving); err != nil {
		return r.report, err
	}
	if err := r.recoverPartials(ctx, named); err != nil {
		return r.report, err
	}
	if r.report[BadRows] == 0 {
		if err := r.removeOrphans(ctx, files, named); err != nil {
			return r.report, err
		}
	}
	if err := r.reportStrays(ctx, files); err != nil {
		return r.report, err
	}
	return r.report, r.dropKeyless(ctx)
}

// takenFor is how long the row of a file that was taken stays: its 1604 may be lost, and
// a client that was cut off over night asks again. After that its 1029 gets 1607, and the
// client sends the file once more.
const takenFor = 24 * time.Hour

// Expire drops the files that have waited too long for their 1029, and the
// clients that have waited too long with their 1026. It forgets the files that were
// taken a day ago. It may run beside a server, with Options.Exclusive. Rows that cannot
// be understood are passed over.
func Expire(ctx context.Context, reg storage.Registry, files storage.Files, o Options) (Report, error) {
	r := newRecovery(reg, files, o)
	var old []storage.File
	err := reg.Files(ctx, func(f storage.File) error {
		if !f.Verified && o.expired(&f) || f.Verified && o.handed(&f) {
			old = append(old, f)
		}
		return nil
	})
	if err != nil && !errors.Is(err, storage.ErrBadRows) {
		return r.report, err
	}
	for i := range old {
		if err := o.exclusively(&old[i], func() error { return r.expire(ctx, &old[i]) }); err != nil {
			return r.report, err
		}
	}
	return r.report, r.dropKeyless(ctx)
}

// expire does with one file what Expire does.
func (r *recovery) expire(ctx context.Context, f *storage.File) error {
	if f.Verified {
		r.forget(f, Finding{Handed, *f, nil})
		return r.flush(ctx)
	}
	get, err := getFile(ctx, r.reg, f)
	if err != nil || get.Unverified == nil || get.Unverified.Incoming != f.Incoming { // verified meanwhile
		return err
	}
	r.settle(ctx, get.Unverified)
	return r.flush(ctx)
}

// recovery is one Recover, Expire or Clear.
type recovery struct {
	*checker
	o      Options
	reg    storage.Registry
	files  storage.Files
	report Report

	// What is to be done: operations of one batch, and of each what it is about.
	batch []storage.Operation
	about []Finding
}

func newRecovery(reg storage.Registry, files storage.Files, o Options) *recovery {
	return &recovery{checker: newChecker(files), o: o, reg: reg, files: files, report: make(Report)}
}

func (r *recovery) found(f Finding) {
	r.report[f.Event]++
	if r.o.Log != nil {
		r.o.Log(f)
	}
}

// survey is what a look at all rows and places finds.
type survey struct {
	waiting []storage.File // unverified
	odd     []storage.File // verified, and not there in their size, or marked as missing
	leaving []storage.File // verified, and their content is to be removed
}

func (r *recovery) survey(ctx context.Context) (s survey, err error) {
	verified, missing := 0, 0 // of those that stay
	err = r.reg.Files(ctx, func(f storage.File) error {
		switch {
		case !f.Verified:
			s.waiting = append(s.waiting, f)
			return nil
		case f.Leaves():
			s.leaving = append(s.leaving, f)
			return nil
		case !f.Stays():
			return nil
		}
		verified++
		size, err := r.files.Size(ctx, f.Stored())
		if errors.Is(err, storage.ErrNotStored) {
			missing++
		}
		if err != nil || size != f.Size || f.Missing {
			s.odd = append(s.odd, f)
		}
		return ctx.Err()
	})
	if err != nil && !errors.Is(err, storage.ErrBadRows) {
		return s, err
	}
	if missing == verified && missing >= massLoss {
		return s, &FilesGoneError{Recorded: verified}
	}
	if err != nil {
		r.found(Finding{Event: BadRows, Err: err})
	}
	return s, nil
}

// settle decides about an unverified file.
func (r *recovery) settle(ctx context.Context, f *storage.File) {
	_, err := r.files.Size(ctx, f.Uploaded())
	if errors.Is(err, storage.ErrNotStored) {
		r.settleMoved(ctx, f)
		return
	}
	if f.Deleted {
		r.drop(f, Finding{Deleted, *f, nil})
		return
	}
	expired := r.o.expired(f)
	if err == nil && !expired {
		err = r.check(ctx, f, f.Uploaded())
	}
	switch {
	case errors.Is(err, ErrSize) || errors.Is(err, ErrCksum):
		r.drop(f, Finding{Spoilt, *f, err})
	case err != nil:
		r.stays(Finding{Failed, *f, err})
	case expired:
		r.drop(f, Finding{Expired, *f, nil})
	default:
		r.waits(f)
	}
}

// settleMoved decides about an unverified file whose incoming file is gone: it
// is in its place already, or lost.
func (r *recovery) settleMoved(ctx context.Context, f *storage.File) {
	err := r.check(ctx, f, f.Stored())
	if err == nil {
		// The directory may not have been flushed.
		err = r.files.Commit(ctx, f)
	}
	verify := &storage.VerifyFile{Outcome: own, ID: f.ID, Path: f.Path, Incoming: f.Incoming}
	switch {
	case err == nil:
		r.do(verify, Finding{Finished, *f, nil})
	case errors.Is(err, storage.ErrPlaceNotDurable):
		verify.Missing = true
		r.do(verify, Finding{Missing, *f, err})
	case errors.Is(err, ErrSize) || errors.Is(err, ErrCksum): // it is another version's
		r.drop(f, Finding{Spoilt, *f, ErrMissing})
	case errors.Is(err, ErrMissing) || errors.Is(err, storage.ErrNotStored) || errors.Is(err, storage.ErrNotDurable):
		r.drop(f, Finding{Spoilt, *f, err})
	default:
		r.stays(Finding{Failed, *f, err})
	}
}

// settleVerified decides about a verified file that seemed odd before the
// unverified ones were settled: its row may be a new one now.
func (r *recovery) settleVerified(ctx context.Context, f *storage.File) error {
	get, err := getFile(ctx, r.reg, f)
	if err != nil || get.Verified == nil || !get.Verified.Stays() {
		return err
	}
	f = get.Verified
	switch size, err := r.files.Size(ctx, f.Stored()); {
	case (errors.Is(err, storage.ErrNotStored) || err == nil) && r.isIncoming(ctx, f):
		r.moveAgain(ctx, f)
	case errors.Is(err, storage.ErrNotStored):
		r.mark(f, true, Finding{Missing, *f, nil})
	case err != nil:
		r.found(Finding{Failed, *f, err})
	case size != f.Size:
		r.found(Finding{Damaged, *f, fmt.Errorf("%w: %d, not %d bytes", ErrSize, size, f.Size)})
	case f.Missing:
		r.takeBack(ctx, f)
	}
	return r.flushIfFull(ctx)
}

// isIncoming reports whether the content of the verified file f is still, or again,
// an incoming file: a power cut undid its rename, which could not be synced.
func (r *recovery) isIncoming(ctx context.Context, f *storage.File) bool {
	return r.check(ctx, f, f.Uploaded()) == nil
}

// moveAgain puts such a file into its place.
func (r *recovery) moveAgain(ctx context.Context, f *storage.File) {
	switch err := r.files.Commit(ctx, f); {
	case err == nil:
		r.mark(f, false, Finding{Returned, *f, nil})
	case errors.Is(err, storage.ErrPlaceNotDurable):
		r.mark(f, true, Finding{Missing, *f, err})
	default:
		r.mark(f, true, Finding{Failed, *f, err})
	}
}

// takeBack decides about a file that is marked as missing and has its size again.
//
// It is written anew: whoever put it back may not have synced it, or a sync of it
// or of its folder may have failed, after which the kernel takes the pages for
// clean and the next sync says nothing. Only what has just been written can be
// synced and believed.
func (r *recovery) takeBack(ctx context.Context, f *storage.File) {
	again, err := r.writeAnew(ctx, r.files, f, f.Size)
	if err == nil {
		if err = compare(f, again.Size, again.Cksum); err == nil {
			err = r.files.Commit(ctx, &again)
		}
		if err != nil {
			err = errors.Join(err, r.files.Discard(ctx, again.Uploaded()))
		}
	}
	switch {
	case err == nil:
		r.mark(f, false, Finding{Returned, *f, nil})
	case errors.Is(err, ErrSize) || errors.Is(err, ErrCksum):
		r.found(Finding{Damaged, *f, err})
	default:
		r.found(Finding{Failed, *f, err})
	}
}

// dropKeyless forgets the clients that have no public key, no files, and were not
// seen for long.
func (r *recovery) dropKeyless(ctx context.Context) error {
	if r.o.UnverifiedTTL <= 0 {
		return nil
	}
	before := r.o.Now.Add(-r.o.UnverifiedTTL)
	var old []codec.ClientID
	err := r.reg.Clients(ctx, func(c storage.Client) error {
		if c.PublicKey == nil && !c.LastSeen.IsZero() && c.LastSeen.Before(before) {
			old = append(old, c.ID)
		}
		return nil
	})
	if err != nil && !errors.Is(err, storage.ErrBadRows) {
		return err
	}
	for _, id := range old {
		r.do(&storage.DropKeyless{ID: id, Before: before}, Finding{Event: Keyless, File: storage.File{ID: id}})
		if err := r.flushIfFull(ctx); err != nil {
			return err
		}
	}
	return r.flush(ctx)
}

// stays reports an unverified file that cannot be decided about.
func (r *recovery) stays(about Finding) {
	r.found(about)
	r.waits(&about.File)
}

// waits tells of an unverified file that stays.
func (r *recovery) waits(f *storage.File) {
	if r.o.Waiting != nil {
		r.o.Waiting(f)
	}
}

func (r *recovery) mark(f *storage.File, missing bool, about Finding) {
	r.do(&storage.MarkFile{ID: f.ID, Path: f.Path, Incoming: f.Incoming, Missing: missing}, about)
}

func (r *recovery) drop(f *storage.File, about Finding) {
	why := storage.WhySpoilt
	switch about.Event {
	case Deleted:
		why = storage.WhyDeleted
	case Expired:
		why = storage.WhyNoVerdict
	}
	r.do(&storage.DropFile{Outcome: own, ID: f.ID, Path: f.Path, Incoming: f.Incoming, Why: why}, about)
}

func (r *recovery) forget(f *storage.File, about Finding) {
	r.do(&storage.ForgetFile{ID: f.ID, Path: f.Path, Incoming: f.Incoming}, about)
}

func (r *recovery) do(op storage.Operation, about Finding) {
	r.batch = append(r.batch, op)
	r.about = append(r.about, about)
}

func (r *recovery) flushIfFull(ctx context.Context) error {
	if len(r.batch) < batchSize {
		return nil
	}
	return r.flush(ctx)
}

// flush does what is to be done. The row goes first, then the content: a crash
// between leaves an orphan, which the next Recover removes.
func (r *recovery) flush(ctx context.Context) error {
	if err := r.reg.Apply(ctx, r.batch); err != nil {
		return err
	}
	for i, op := range r.batch {
		switch err := op.Result().Err; {
		case errors.Is(err, storage.ErrNoClient) || errors.Is(err, storage.ErrNoFile):
			continue // it has changed meanwhile
		case err != nil:
			r.found(Finding{Failed, r.about[i].File, err})
			continue
		}
		switch op := op.(type) {
		case *storage.VerifyFile:
			if r.o.Finished != nil {
				r.o.Finished(&r.about[i].File)
			}
		case *storage.ForgetFile:
			if op.Lapsed && r.o.Forgotten != nil {
				r.o.Forgotten(&r.about[i].File)
			}
		case *storage.DropPartial:
			if err := r.files.Discard(ctx, r.about[i].File.Uploaded()); err != nil {
				return err
			}
		case *storage.DropFile:
			if r.o.Dropped != nil {
				r.o.Dropped(&r.about[i].File, op.Marked)
			}
			if err := r.files.Discard(ctx, r.about[i].File.Uploaded()); err != nil {
				return err
			}
		}
		r.found(r.about[i])
	}
	r.batch, r.about = r.batch[:0], r.about[:0]
	return nil
}

// removeOrphans removes the incoming files that no row names.
func (r *recovery) removeOrphans(ctx context.Context, files Files, named map[string]struct{}) error {
	return files.EachIncoming(ctx, func(up storage.Uploaded) error {
		if _, ok := named[up.Key]; ok {
			return nil
		}
		if err := r.files.Discard(ctx, up); err != nil {
			return err
		}
		r.found(Finding{Event: Orphan, File: storage.File{ID: up.ID, Path: up.Path, Incoming: up.Key}})
		return nil
	})
}

// reportStrays tells of the stored files that no row names.
func (r *recovery) reportStrays(ctx context.Context, files Files) error {
	look := func() error {
		if err := r.reg.Apply(ctx, r.batch); err != nil {
			return err
		}
		for _, op := range r.batch {
			get := op.(*storage.GetFile)
			file := storage.File{ID: get.ID, Path: get.Path}
			switch {
			case get.Err != nil && !errors.Is(get.Err, storage.ErrNoFile):
				r.found(Finding{Failed, file, get.Err})
			case get.Verified == nil:
				// On record a folder may be spelt otherwise than on the disk.
				like, err := findAlike(ctx, r.reg, r.files, get.ID, get.Path)
				if err != nil {
					return err
				}
				if like == "" {
					r.found(Finding{Event: Stray, File: file})
				}
			}
		}
		r.batch = r.batch[:0]
		return nil
	}
	err := files.EachStored(ctx, func(id codec.ClientID, path string) error {
		r.batch = append(r.batch, &storage.GetFile{Outcome: own, ID: id, Path: path})
		if len(r.batch) < batchSize {
			return nil
		}
		return look()
	})
	if err != nil {
		return err
	}
	return look()
}
