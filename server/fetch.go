package server

import (
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

	"sealift/crypto/cksum"
	"sealift/storage"
)

// fetch puts the content of f below the folder of the batch, whole. It is durable but for the
// folder when open is synced, unless that is nil. fault is about the file alone.
func (t *take) fetch(ctx context.Context, b *taking, f *File) (open *os.File, fault, err error) {
	opened, err := t.store.Open(ctx, f.Stored())
	if errors.Is(err, storage.ErrNotStored) {
		return nil, errors.New("the file is missing"), nil
	}
	if err != nil && !t.at.folder() {
		return nil, nil, err // the next file would have it, too
	}
	if err != nil {
		return nil, err, ctx.Err()
	}
	name := fmt.Sprint(b.next)
	from, ok := opened.(*os.File)
	if !ok {
		fault, err = t.copyTo(ctx, f, opened, b.part, name)
		_ = opened.Close()
		return nil, fault, err
	}
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
	if t.noLinks || linkInto(filepath.Join(t.at.Dir, filepath.FromSlash(f.PathName())), to, name) != nil {
		return false, nil
	}
	// A newer version may be in the place since it was opened.
	linked, err := to.Lstat(name)
	if err == nil && os.SameFile(info, linked) {
		return true, nil
	}
	return false, errors.Join(err, to.Remove(name))
}

// copyTo is fetch where there can be no link. The copy has the owner, the mode and the time
// of a file, and otherwise the time at which the content was received.
func (t *take) copyTo(ctx context.Context, f *File, from io.Reader, to *os.Root, name string) (fault, err error) {
	if err := tryNames(to, f.Path); err != nil {
		return t.out.about(err)
	}
	w, err := to.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return t.out.about(err)
	}
	out, changed := &writing{w: w}, f.Received
	sum, size, err := t.read(ctx, from, out, f.Size)
	if of, ok := from.(*os.File); ok && err == nil {
		var info fs.FileInfo
		if info, err = of.Stat(); err == nil {
			chownLike(w, info)
			_ = w.Chmod(info.Mode().Perm()) // a disk without modes has no use for it
			changed = info.ModTime()
		}
	}
	if err == nil {
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
	if !changed.IsZero() {
		_ = to.Chtimes(name, time.Time{}, changed)
	}
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
