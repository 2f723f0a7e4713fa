package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"sealift/codec"
	"sealift/storage"
)

// TakeOptions say which files to take, and where to.
type TakeOptions struct {
	Pattern string // compared with the path below the client's folder; see parsePattern
	Clients []Who  // none: all
	To      string
	DryRun  bool                    // change nothing, and call Each as otherwise
	Each    func(Taken)             // is called with each file that was taken or left
	Read    func(done, total int64) // is called with how many bytes of how many are read

	after   func(step) // nil but in tests: is called after each step for a batch, or a file
	noLinks bool       // in tests: as where there can be no links
}

// step is one after which a test has a Take end as if it was killed.
type step int

const (
	stepFetched   step = iota // a file is below the folder of the batch
	stepComplete              // the batch is durable, and not recorded
	stepApplied               // its files are recorded as taken
	stepRecorded              // and it is on record no more that they may not be
	stepPublished             // a file is in its place
	steps
)

func (o *TakeOptions) did(s step) {
	if o.after != nil {
		o.after(s)
	}
}

// Taken is a file that was taken, or was left in the store for the reason Err.
type Taken struct {
	File
	To  string // where it is
	Err error
	// LeftOver: an earlier run that was killed had taken it from the store, and it is in
	// its place now, or with an Err, still waits for that. Of File only ID, Path,
	// Incoming and Size are set.
	LeftOver bool
}

// Take hands verified files out to whoever works with them: each is in its place below
// To when its row says that it is taken, or will be after the next Take. The server may
// run, and Take may be killed at any moment, and called again. What came to be known of a
// file that could not be taken, Each is told; the error is about To as a whole or the
// server's directory, and then Take ends early.
//
// A file is put below takingFolder, read and made durable there; the registry records that
// it is taken, and it moves to its place. These steps are taken for a batch of files at a time.
// What is below takingFolder says how far a batch was:
//
//	.taking/<ms>.part/<number>   not recorded as taken
//	.taking/<ms>/<number>        it may be. <ms> is the File.Taken of the batch
//	.taking/<ms>/list            which files they are
//
// The parts: outlet.go is the folder To, fetch.go brings a file into the batch, hand.go
// records a batch and moves it to its places, leftover.go finishes what a killed Take has
// left, and underway.go keeps two Takes from recording at once.
func Take(ctx context.Context, at Stores, o TakeOptions) error {
	if o.DryRun {
		return o.dryRun(ctx, at)
	}
	return steer(ctx, at, func(reg storage.Registry) (err error) {
		store, err := at.openContent(ctx, reg)
		if err != nil {
			return err
		}
		defer store.Close()
		out, err := openOutlet(at.Dir, o.To)
		if err != nil {
			return err
		}
		defer out.close()
		t := &take{TakeOptions: o, at: at, reg: reg, store: store, out: out, buf: make([]byte, 256<<10)}
		if t.owner, err = at.owner(ctx, reg); err != nil {
			return err
		}
		if err := t.finishOthers(ctx); err != nil {
			return err
		}
		if err := t.all(ctx); err != nil {
			return err
		}
		_, err = clearAlone(ctx, at, reg)
		return err
	})
}

// dryRun calls Each with what a Take would begin with.
func (o *TakeOptions) dryRun(ctx context.Context, at Stores) error {
	if err := checkOutlet(at.Dir, o.To); err != nil {
		return err
	}
	reg, err := at.openReadOnly(ctx)
	if err != nil {
		return err
	}
	defer reg.Close()
	out := new(outlet)
	if out.path, err = filepath.Abs(o.To); err != nil {
		return err
	}
	if out.root, err = os.OpenRoot(out.path); err != nil {
		return err
	}
	defer out.close()
	found, _, listing := o.find(ctx, reg)
	if listing != nil && !errors.Is(listing, storage.ErrBadRows) {
		return listing
	}
	for _, f := range found {
		o.Each(Taken{File: f, To: out.join(placeBelow(&f)), Err: cmp.Or(missing(&f), out.free(placeBelow(&f)))})
	}
	return listing
}

// find returns the files that are meant and can be taken, and how many bytes they have.
func (o *TakeOptions) find(ctx context.Context, reg storage.Registry) (found []File, total int64, err error) {
	err = eachMatch(ctx, reg, o.Pattern, o.Clients, func(f File) {
		if f.Verified && f.Stays() {
			found = append(found, f)
			total += f.Size
		}
	})
	return found, total, err
}

// eachMatch calls yield with each file on record that a pattern means, of these clients, or
// of all if there are none.
func eachMatch(ctx context.Context, reg storage.Registry, pattern string, whos []Who, yield func(File)) error {
	match, err := matching(ctx, reg, pattern, whos)
	if err != nil {
		return err
	}
	return reg.Files(ctx, func(f File) error {
		if match(f.Place()) {
			yield(f)
		}
		return nil
	})
}

// matching returns a function that reports whether a place is one that the pattern is about,
// of those clients; none: of any.
func matching(ctx context.Context, reg storage.Registry, pattern string, whos []Who) (func(storage.Place) bool, error) {
	clients, err := findClients(ctx, reg, whos)
	if err != nil {
		return nil, err
	}
	of := make(map[codec.ClientID]bool)
	for _, c := range clients {
		of[c.ID] = true
	}
	p := parsePattern(pattern)
	return func(at storage.Place) bool { return (len(whos) == 0 || of[at.ID]) && p.match(at.Path) }, nil
}

// take is one Take.
type take struct {
	TakeOptions
	at          Stores
	owner       owner // whose files these are
	reg         storage.Registry
	store       fileStore
	out         *outlet
	done, total int64 // bytes read
	buf         []byte
}

// How much one batch has: enough for few syncs, and little enough for files to come soon.
const (
	takeBatch      = 64
	takeBatchBytes = 64 << 20
)

// taking is a batch of files, below a folder of takingFolder.
type taking struct {
	at    time.Time
	part  *os.Root // while the batch is being made
	files []fetched
	next  int // number of the next file
	bytes int64
}

// fetched is a file of a batch, which has its number for a name there.
type fetched struct {
	File
	number int
	open   *os.File // to be synced; nil: that is done
}

func (b *taking) name() string { return fmt.Sprint(b.at.UnixMilli()) }

// close gives back what is open.
func (b *taking) close() {
	_ = b.part.Close()
	for i := range b.files {
		if f := &b.files[i]; f.open != nil {
			_ = f.open.Close()
		}
	}
}

// all takes all files that are meant.
func (t *take) all(ctx context.Context) error {
	found, total, listing := t.find(ctx, t.reg)
	if listing != nil && !errors.Is(listing, storage.ErrBadRows) {
		return listing
	}
	t.total = total
	t.progress(0)
	var b *taking
	for i := range found {
		if b == nil {
			var err error
			if b, err = t.begin(); err != nil {
				return err
			}
		}
		if err := t.add(ctx, b, found[i]); err != nil {
			return errors.Join(err, t.breakOff(ctx, b))
		}
		if i == len(found)-1 || len(b.files) == takeBatch || b.bytes >= takeBatchBytes {
			if err := t.hand(ctx, b); err != nil {
				return err
			}
			b = nil
		}
	}
	return listing
}

// breakOff ends a batch at a file that cannot be fetched since the outlet is full, or ctx has
// ended. What there is before it is handed out, unless nobody waits for that any more.
func (t *take) breakOff(ctx context.Context, b *taking) error {
	if ctx.Err() != nil {
		b.close()
		return t.out.taking.RemoveAll(b.name() + ".part")
	}
	if err := b.drop(b.next); err != nil {
		b.close()
		return err
	}
	return t.hand(ctx, b)
}

// drop removes a file of the batch, if it is there.
func (b *taking) drop(number int) error {
	if err := b.part.Remove(fmt.Sprint(number)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (t *take) progress(n int) {
	t.done += int64(n)
	t.Read(t.done, t.total)
}

// begin makes the folder of a batch.
func (t *take) begin() (*taking, error) {
	for {
		b := &taking{at: takenAt()}
		name := b.name() + ".part"
		_, err := t.out.taking.Lstat(b.name())
		if err == nil {
			continue // files of another batch of that time wait there
		}
		err = t.out.taking.Mkdir(name, 0o700)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err == nil {
			b.part, err = enter(t.out.taking, name)
		}
		if err != nil {
			return nil, t.out.fault(err)
		}
		return b, nil
	}
}

// placeBelow is the path below an outlet that a file gets.
func placeBelow(f *File) string { return f.ID.String() + "/" + f.Path }

func (t *take) left(f *File, why error) {
	t.Each(Taken{File: *f, To: t.out.join(placeBelow(f)), Err: why})
}

// missing is why a file that the server has marked is not taken.
func missing(f *File) error {
	if f.Missing {
		return errors.New("marked as missing")
	}
	return nil
}

// What a client that uploads beside does to a file is on record a moment later.
const (
	takeTries    = 5
	takeTryAfter = 50 * time.Millisecond // doubled from try to try
)

// add puts f, or the version that has taken its place meanwhile, into the batch, or tells
// Each why it is left. The error is one that the next file would have, too.
func (t *take) add(ctx context.Context, b *taking, f File) error {
	for try := 0; ; try++ {
		if clean, err := storage.CleanPath(f.Path); err != nil || clean != f.Path {
			t.left(&f, errors.New("its record has a path that Sealift did not write"))
			return nil
		}
		if err := cmp.Or(missing(&f), t.out.free(placeBelow(&f))); err != nil {
			t.left(&f, err)
			return nil
		}
		read := t.done
		open, fault, err := t.fetch(ctx, b, &f)
		if err != nil {
			return err
		}
		if fault == nil {
			b.files = append(b.files, fetched{f, b.next, open})
			b.next++
			b.bytes += f.Size
			t.did(stepFetched)
			return nil
		}
		t.done = read
		if err := b.drop(b.next); err != nil {
			return t.out.fault(err)
		}
		get, err := getFile(ctx, t.reg, &f)
		if err != nil {
			return err
		}
		switch now := get.Verified; {
		case now == nil || !now.Stays():
			return nil // somebody else was faster
		case now.Incoming != f.Incoming || now.Missing:
			f, try = *now, 0
		case get.Unverified == nil || try == takeTries:
			t.left(&f, fault)
			return nil
		default:
			if err := pause(ctx, takeTryAfter<<try); err != nil {
				return err
			}
		}
	}
}
