package s3

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/minio/minio-go/v7"

	"sealift/storage"
)

// Reopen implements storage.Files. It begins an upload with a key of its own and the first length bytes of up: so content
// under a key comes from one Incoming alone, and what a server still does that is late, changes nothing of it. What there is
// of up stays, but for parts: the server can copy them only when they are an object, so they become one.
func (s *Store) Reopen(ctx context.Context, up storage.Uploaded, size storage.Announced, length int64) (storage.Incoming, error) {
	if _, err := s.objectOf(up); err != nil {
		return nil, errors.Join(err, ctx.Err())
	}
	if s.room == nil {
		return nil, errReadOnly
	}
	from, err := s.source(ctx, up, length)
	if err != nil {
		return nil, err
	}
	in := s.newIncoming(storage.Uploaded{Place: up.Place, Key: newKey()}, size)
	if err := in.takeFrom(ctx, from, length); err != nil {
		return nil, errors.Join(err, s.abandon(ctx, in))
	}
	return in, nil
}

// abandon removes an upload that could not be begun, as well as that is possible.
func (s *Store) abandon(ctx context.Context, in *incoming) error {
	in.leave(errClosed)
	return s.Discard(ctx, in.up)
}

// source is where the first bytes of an upload are: in its object, and then behind the line of what was kept.
type source struct {
	object string
	size   int64    // of the object; -1: there is none, or it is not needed
	name   keptName // of what was kept
	kept   *kept    // nil: nothing is needed of it
}

// source finds the first length bytes of an upload, and sees to it that they can be read. storage.ErrNotStored
// if they are not there.
func (s *Store) source(ctx context.Context, up storage.Uploaded, length int64) (source, error) {
	object := s.object(up.Place, up.Key)
	for again := false; ; again = true {
		t, err := s.what(ctx, up)
		if err != nil {
			return source{}, err
		}
		from, alive, err := s.locate(ctx, t, object, length)
		if err != nil || !alive {
			return from, err
		}
		err = s.completeParts(ctx, object, from.kept.Upload, from.kept.parts())
		if err == nil {
			return from, nil
		}
		if err = lostParts(err); !errors.Is(err, storage.ErrNotStored) || again {
			return source{}, err
		} // another server was faster
	}
}

// locate finds the first length bytes of an upload: in what was flushed of just that length or of more, or in its
// object. alive says that the parts have to be made an object.
func (s *Store) locate(ctx context.Context, t there, object string, length int64) (from source, alive bool, err error) {
	if length == 0 && (t.object >= 0 || len(t.kept) > 0) {
		return source{object: object, size: -1}, false, nil
	}
	slices.SortFunc(t.kept, func(a, b keptName) int { return cmp.Compare(a.length, b.length) })
	for _, name := range t.kept {
		if name.length < length {
			continue
		}
		k, rest, err := s.readKept(ctx, name)
		if errors.Is(err, storage.ErrNotStored) {
			continue
		}
		if err == nil {
			err = rest.Close()
		}
		if err != nil {
			return from, false, err
		}
		from := source{object: object, size: -1, name: name, kept: &k}
		parts := k.parts()
		if len(parts) == 0 {
			return from, false, nil
		}
		from.size = parts[len(parts)-1].end()
		err = s.checkParts(ctx, object, k)
		if err != nil && !errors.Is(err, storage.ErrNotStored) {
			return from, false, err
		}
		// An object of that key begins with the same bytes, whichever of its parts it was made of.
		if err == nil || t.object >= min(length, from.size) {
			return from, err == nil, nil
		}
	}
	if t.object >= length {
		return source{object: object, size: t.object}, false, nil
	}
	return from, false, fmt.Errorf("%w: the first %d bytes of the upload were not kept", storage.ErrNotStored, length)
}

// parts are the parts that k is about.
func (k *kept) parts() (parts []*part) {
	end := int64(0)
	for i, p := range k.Parts {
		parts = append(parts, &part{number: i + 1, from: end, size: p.Size, etag: p.ETag, checksum: p.Checksum})
		end += p.Size
	}
	return parts
}

// takeFrom has the server copy what is in an object, or takes it in where that is too little to be
// a part, and then takes in what lies behind it.
func (in *incoming) takeFrom(ctx context.Context, from source, length int64) error {
	if copied := min(length, from.size); copied >= minPart {
		if err := in.copyFrom(ctx, from.object, copied); err != nil {
			return err
		}
	} else if copied > 0 {
		r, err := in.s.get(ctx, from.object, 0)
		if err != nil {
			return err
		}
		if err := errors.Join(in.takeIn(r, copied, ""), r.Close()); err != nil {
			return err
		}
	}
	rest := length - max(0, from.size)
	if from.kept == nil || rest <= 0 {
		return nil
	}
	sum := from.kept.Sum
	if rest < from.kept.Rest || from.size > 0 && from.size < minPart {
		sum = "" // which is of all of it alone
	}
	_, r, err := in.s.readKept(ctx, from.name)
	if err != nil {
		return err
	}
	return errors.Join(in.takeIn(r, rest, sum), r.Close())
}

// listParts returns the ETags of the parts of a multipart upload, by number.
func (s *Store) listParts(ctx context.Context, object, uploadID string) (map[int]string, error) {
	etags := make(map[int]string)
	for marker := 0; ; {
		var page minio.ListObjectPartsResult
		err := s.try(ctx, "ListParts", func(ctx context.Context) (err error) {
			page, err = s.core.ListObjectParts(ctx, s.bucket, object, uploadID, marker, 1000)
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, p := range page.ObjectParts {
			etags[p.PartNumber] = trimETag(p.ETag)
		}
		if !page.IsTruncated || page.NextPartNumberMarker <= marker {
			return etags, nil
		}
		marker = page.NextPartNumberMarker
	}
}

// checkParts sees to it that a multipart upload is there with the parts that were kept. storage.ErrNotStored
// if not.
func (s *Store) checkParts(ctx context.Context, object string, k kept) error {
	etags, err := s.listParts(ctx, object, k.Upload)
	if err != nil {
		return lostParts(err)
	}
	for i, p := range k.Parts {
		if etags[i+1] != p.ETag {
			return fmt.Errorf("%w: part %d of the upload is not the one that was kept", storage.ErrNotStored, i+1)
		}
	}
	return nil
}

func trimETag(etag string) string { return strings.Trim(etag, `"`) }

// lostParts makes storage.ErrNotStored of what says that a multipart upload is gone, or has other parts.
func lostParts(err error) error {
	if code := errorCode(err); code == "NoSuchUpload" || code == "InvalidPart" {
		return fmt.Errorf("%w: %w", storage.ErrNotStored, err)
	}
	return err
}

// lost says what it means that the multipart upload of in is gone: another server has reopened what was
// flushed of it, or a sweep has removed it.
func (in *incoming) lost(err error) error {
	if errorCode(err) != "NoSuchUpload" {
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.kept) > 0 {
		return fmt.Errorf("%w: %w", storage.ErrSuperseded, err)
	}
	return fmt.Errorf("%w: %w", storage.ErrNotStored, err)
}

// takeIn writes content of the bucket to the scratch file, and compares its checksum with sum, if that is not "".
func (in *incoming) takeIn(r io.Reader, size int64, sum string) error {
	n, err := io.Copy(&appender{in}, io.LimitReader(r, size))
	if err == nil && (n != size || sum != "" && base64Sum(in.sum) != sum) {
		err = fmt.Errorf("%w: what was kept of it is not what was flushed", storage.ErrNotStored)
	}
	return err
}

// appender appends to an upload that nobody else uses yet, and cuts no part.
type appender struct{ in *incoming }

func (w *appender) Write(p []byte) (int, error) {
	n, err := w.in.area.WriteAt(p, w.in.size)
	if err == nil {
		w.in.appended(p)
	}
	return n, err
}

// copyPiece is how much of an object becomes one part of another, in bytes, unless that makes more than growEvery.
const copyPiece = 256 << 20

// pieces says in how many parts the first length bytes of an object are copied, and how large all but the last are. Most of
// the parts that a file may have are left for what comes behind.
func pieces(length int64) (count, size int64) {
	size = copyPiece
	for size < maxPart/2 && length/size > growEvery {
		size = min(2*size, maxPart/2) // the last may be larger, by less than minPart
	}
	count = length / size
	if length%size >= minPart || count == 0 {
		count++
	}
	return count, size
}

// copyFrom has the server make parts of the first length bytes of an object.
func (in *incoming) copyFrom(ctx context.Context, object string, length int64) error {
	// What servers say of the checksum of a part that was copied differs, and some of it they refuse afterwards.
	in.plain = true // nobody else has in yet
	if err := in.begin(ctx, true); err != nil {
		return err
	}
	count, each := pieces(length)
	for number := range count {
		from, size := number*each, each
		if number == count-1 {
			size = length - from
		}
		p := &part{number: int(number) + 1, from: from, size: size, done: make(chan struct{})}
		close(p.done)
		err := in.s.tryLonger(ctx, "UploadPartCopy", size, func(ctx context.Context) error {
			copied, err := in.s.core.CopyObjectPart(ctx, in.s.bucket, object, in.s.bucket, in.object, in.uploadID, p.number, from, size, nil)
			p.etag = trimETag(copied.ETag)
			return err
		})
		if err != nil {
			return err
		}
		in.mu.Lock()
		in.parts, in.cut, in.size, in.sumFrom = append(in.parts, p), from+size, from+size, from+size
		in.mu.Unlock()
	}
	return nil
}
