package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/storage"
	"sealift/storage/files"
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
// See also underway.
func Take(ctx context.Context, dir string, o TakeOptions) error {
	if o.DryRun {
		return o.dryRun(ctx, dir)
	}
	return steer(ctx, dir, func(reg storage.Registry) (err error) {
		store, err := files.OpenReadOnly(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return &Hinted{Err: err, Hint: "Is the right disk mounted?"}
		}
		if err != nil {
			return err
		}
		defer store.Close()
		out, err := openOutlet(dir, o.To)
		if err != nil {
			return err
		}
		defer out.close()
		t := &take{TakeOptions: o, dir: dir, reg: reg, store: store, out: out, buf: make([]byte, 256<<10)}
		if err := t.finishOthers(ctx); err != nil {
			return err
		}
		if err := t.all(ctx); err != nil {
			return err
		}
		_, err = clearAlone(ctx, dir, reg)
		return err
	})
}

// dryRun calls Each with what a Take would begin with.
func (o *TakeOptions) dryRun(ctx context.Context, dir string) error {
	if err := checkOutlet(dir, o.To); err != nil {
		return err
	}
	reg, err := openReadOnly(ctx, dir)
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
	clients, err := findClients(ctx, reg, whos)
	if err != nil {
		return err
	}
	of := make(map[codec.ClientID]bool)
	for _, c := range clients {
		of[c.ID] = true
	}
	p := parsePattern(pattern)
	return reg.Files(ctx, func(f File) error {
		if (len(whos) == 0 || of[f.ID]) && p.match(f.Path) {
			yield(f)
		}
		return nil
	})
}

// take is one Take.
type take struct {
	TakeOptions
	dir         string
	reg         storage.Registry
	store       *files.Store
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
		err := t.out.taking.Mkdir(name, 0o700)
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

// fetch puts the content of f below the folder of the batch, whole. It is durable but for the
// folder when open is synced, unless that is nil. fault is about the file alone.
func (t *take) fetch(ctx context.Context, b *taking, f *File) (open *os.File, fault, err error) {
	opened, err := t.store.Open(ctx, f.Stored())
	if errors.Is(err, storage.ErrNotStored) {
		return nil, errors.New("the file is missing"), nil
	}
	if err != nil {
		return nil, err, ctx.Err()
	}
	from, name := opened.(*os.File), fmt.Sprint(b.next)
	linked, err := t.link(f, from, b.part, name)
	switch {
	case err != nil:
		fault, err = t.out.about(err)
	case linked:
		var sum uint32
		var size int64
		if sum, size, fault = t.read(ctx, from, io.Discard, f.Size); fault == nil {
			fault = compare(f, size, sum)
		}
		if fault == nil {
			return from, nil, nil
		}
		err = ctx.Err()
	default:
		fault, err = t.copyTo(ctx, f, from, b.part, name)
	}
	_ = from.Close()
	return nil, fault, err
}

// link gives the content a second name, if both are on one file system that can.
func (t *take) link(f *File, from *os.File, to *os.Root, name string) (bool, error) {
	info, err := from.Stat()
	if err != nil {
		return false, err
	}
	if t.noLinks || linkInto(filepath.Join(t.dir, filepath.FromSlash(f.PathName())), to, name) != nil {
		return false, nil
	}
	// A newer version may be in the place since it was opened.
	linked, err := to.Lstat(name)
	if err == nil && os.SameFile(info, linked) {
		return true, nil
	}
	return false, errors.Join(err, to.Remove(name))
}

// copyTo is fetch where there can be no link.
func (t *take) copyTo(ctx context.Context, f *File, from *os.File, to *os.Root, name string) (fault, err error) {
	info, err := from.Stat()
	if err != nil {
		return err, nil
	}
	if err := tryNames(to, f.Path); err != nil {
		return t.out.about(err)
	}
	w, err := to.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return t.out.about(err)
	}
	out := &writing{w: w}
	sum, size, err := t.read(ctx, from, out, f.Size)
	if err == nil {
		chownLike(w, info)
		_ = w.Chmod(info.Mode().Perm()) // a disk without modes has no use for it
		out.err = w.Sync()
	}
	if e := w.Close(); out.err == nil {
		out.err = e
	}
	switch {
	case out.err != nil:
		return t.out.about(out.err)
	case err != nil:
		return err, ctx.Err()
	}
	_ = to.Chtimes(name, time.Time{}, info.ModTime())
	return compare(f, size, sum), nil
}

// tryNames returns the error of a disk that does not take the names in a path.
func tryNames(at *os.Root, path string) error {
	const folder = "names"
	if err := at.Mkdir(folder, 0o700); err != nil {
		return err
	}
	for name := range strings.SplitSeq(path, "/") {
		f, err := at.Create(folder + "/" + name)
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			return errors.Join(err, at.RemoveAll(folder))
		}
	}
	return at.RemoveAll(folder)
}

// writing tells errors of writing from those of reading.
type writing struct {
	w   io.Writer
	err error
}

func (w *writing) Write(p []byte) (n int, err error) {
	n, w.err = w.w.Write(p)
	return n, w.err
}

// read copies from to w and sums it, and stops where there is more than want bytes.
func (t *take) read(ctx context.Context, from io.Reader, w io.Writer, want int64) (sum uint32, size int64, err error) {
	h := cksum.New()
	for size <= want {
		if err := ctx.Err(); err != nil {
			return 0, 0, err
		}
		n, err := from.Read(t.buf)
		size += int64(n)
		_, _ = h.Write(t.buf[:n])
		if _, err := w.Write(t.buf[:n]); err != nil {
			return 0, 0, err
		}
		t.progress(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, 0, err
		}
	}
	return h.Sum32(), size, nil
}

func compare(f *File, size int64, sum uint32) error {
	switch {
	case size != f.Size:
		return fmt.Errorf("damaged: it has not the %d bytes that were recorded", f.Size)
	case sum != f.Cksum:
		return fmt.Errorf("damaged: its checksum is %d, and %d was recorded", sum, f.Cksum)
	}
	return nil
}

// about sorts an error of writing below the outlet: as a fault of one file, whose name
// the disk does not take, or as one of the outlet.
func (o *outlet) about(err error) (fault, fatal error) {
	for _, e := range []error{syscall.EINVAL, syscall.ENAMETOOLONG, syscall.EILSEQ} {
		if errors.Is(err, e) {
			return o.named(err), nil
		}
	}
	return nil, o.fault(err)
}

// fault is an error of writing below the outlet, with what helps.
func (o *outlet) fault(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return &Hinted{Err: o.named(err), Hint: "Files that are not listed as taken are still in the store. Run this again when there is room and the right to write."}
}

// hand has the registry record the files of a batch as taken, and moves them to their places.
// It does not end before that because ctx has.
func (t *take) hand(ctx context.Context, b *taking) error {
	err := t.makeDurable(b)
	b.close()
	if err != nil {
		return t.out.fault(err)
	}
	ctx = context.WithoutCancel(ctx)
	if err := t.record(ctx, b); err != nil {
		return err
	}
	t.did(stepRecorded)
	p := &publishing{take: t, batch: b.name()}
	for i := range b.files {
		if err := p.publish(&b.files[i], false); err != nil {
			return err
		}
	}
	return p.end()
}

// makeDurable makes a batch durable, and writes its list. One file after the other is synced
// when all are there: where they are links, only the first sync has something to do.
func (t *take) makeDurable(b *taking) error {
	synced := b.files[:0]
	for _, f := range b.files {
		if f.open != nil {
			err := f.open.Sync()
			_ = f.open.Close()
			f.open = nil
			if err != nil {
				t.left(&f.File, err)
				if err := b.drop(f.number); err != nil {
					return err
				}
				continue
			}
		}
		synced = append(synced, f)
	}
	b.files = synced
	if err := writeList(b); err != nil {
		return err
	}
	return syncRoot(b.part)
}

// record has the registry record the files of a batch as taken, and leaves those in it that
// are.
func (t *take) record(ctx context.Context, b *taking) error {
	u, err := t.alone(ctx)
	if err != nil {
		return err
	}
	defer u.unlock()
	if err := t.stillThere(ctx, b); err != nil {
		return err
	}
	if err := u.set(b.name(), t.out.path); err != nil {
		return err
	}
	if err := t.out.taking.Rename(b.name()+".part", b.name()); err != nil {
		return t.out.fault(err)
	}
	if err := syncRoot(t.out.taking); err != nil {
		return t.out.fault(err)
	}
	t.did(stepComplete)
	ops := make([]storage.Operation, len(b.files))
	for i := range b.files {
		f := &b.files[i]
		ops[i] = &storage.TakeFile{
			Outcome: storage.Outcome{By: storage.Server},
			ID:      f.ID, Path: f.Path, Incoming: f.Incoming, Taken: b.at,
		}
	}
	if len(ops) > 0 {
		if err := t.reg.Apply(ctx, ops); err != nil {
			return &Hinted{Err: err, Hint: "Run this again: it finishes what it has begun."}
		}
	}
	t.did(stepApplied)
	taken := b.files[:0]
	for i, op := range ops {
		err := op.Result().Err
		if err == nil {
			taken = append(taken, b.files[i])
			continue
		}
		if !errors.Is(err, storage.ErrNoFile) { // a newer version has come
			t.left(&b.files[i].File, err)
		}
		if err := t.out.taking.Remove(fmt.Sprint(b.name(), "/", b.files[i].number)); err != nil {
			return t.out.fault(err)
		}
	}
	b.files = taken
	return u.clear()
}

// stillThere takes out of a batch what another command has taken, or a client has replaced,
// since it was fetched.
func (t *take) stillThere(ctx context.Context, b *taking) error {
	still := b.files[:0]
	for _, f := range b.files {
		get, err := getFile(ctx, t.reg, &f.File)
		if err != nil {
			return err
		}
		if v := get.Verified; v != nil && v.Incoming == f.Incoming && v.Stays() {
			still = append(still, f)
			continue
		}
		if err := t.out.taking.Remove(fmt.Sprint(b.name(), ".part/", f.number)); err != nil {
			return t.out.fault(err)
		}
	}
	b.files = still
	return nil
}

// publishing are the last steps for a batch.
type publishing struct {
	*take
	batch   string // its folder
	folders map[string]bool
	moved   []Taken
}

// publish moves a file of the batch to its place. One that something is in the way of stays
// for the next Take.
func (p *publishing) publish(f *fetched, leftOver bool) error {
	to := placeBelow(&f.File)
	taken := Taken{File: f.File, To: p.out.join(to), LeftOver: leftOver}
	if p.folders == nil {
		p.folders = make(map[string]bool)
	}
	err := p.out.publish(fmt.Sprint(p.batch, "/", f.number), to, func(folder string) { p.folders[folder] = true })
	var way *inTheWayError
	if errors.As(err, &way) {
		taken.Err, taken.LeftOver = way, true
		p.Each(taken)
		return nil
	}
	if err != nil {
		return errors.Join(p.out.fault(err), p.end())
	}
	p.moved = append(p.moved, taken)
	p.did(stepPublished)
	return nil
}

// end makes what was moved durable, tells of it, and removes the folder of the batch, unless
// a file waits there.
func (p *publishing) end() error {
	for folder := range p.folders {
		if err := p.out.sync(folder); err != nil {
			return err
		}
	}
	for _, f := range p.moved {
		p.Each(f)
	}
	p.moved, p.folders = nil, nil
	entries, err := fs.ReadDir(p.out.taking.FS(), p.batch)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && (len(entries) == 0 || len(entries) == 1 && entries[0].Name() == listName) {
		err = p.out.taking.RemoveAll(p.batch)
	}
	if err != nil {
		return p.out.fault(err)
	}
	return nil
}

// takenAt is a time of a few moments ago for File.Taken, to the millisecond, as registries keep
// it. It is a random one of the last ten seconds, so that what a killed run has left behind is
// not taken for the file of another run.
func takenAt() time.Time {
	return time.Now().UTC().Truncate(time.Millisecond).Add(-randomMillis(10_000))
}
