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

// Reopen implements storage.Files. See kept for what it does to those who have the upload open.
func (s *Store) Reopen(ctx context.Context, up storage.Uploaded, size storage.Announced, length int64) (storage.Incoming, error) {
	if _, err := s.objectOf(up); err != nil {
		return nil, errors.Join(err, ctx.Err())
	}
	if s.room == nil {
		return nil, errReadOnly
	}
	if in := s.find(up.Key); in != nil {
		in.leave(storage.ErrSuperseded)
	}
	in := s.newIncoming(up, size)
	in.reopened, in.opened, in.sent = true, length, true
	err := in.begin(ctx, false)
	if err == nil {
		err = in.reopen(ctx, length)
	}
	if err != nil {
		in.leave(err)
		return nil, err
	}
	return in, nil
}

// source is where the first bytes of an upload are.
type source struct {
	object int64    // so many are in the object, which is made of parts first if that is not done; -1: there is none
	name   keptName // the rest is behind its line
	kept   *kept    // nil: there is no rest
	alive  bool     // its multipart upload is there
}

// reopen goes on after length bytes. It makes a multipart upload with what is there of
// them, says so in the bucket, and then ends all others.
func (in *incoming) reopen(ctx context.Context, length int64) error {
	var t there
	var from source
	for again := false; ; again = true {
		var err error
		if t, err = in.s.what(ctx, in.up); err != nil {
			return err
		}
		if from, err = in.s.locate(ctx, t, in.object, length); err != nil {
			return err
		}
		if !from.alive || len(from.kept.Parts) == 0 {
			break
		}
		err = in.s.completeParts(ctx, in.object, from.kept.Upload, from.kept.parts())
		if err == nil {
			break
		}
		if err = lostParts(err); !errors.Is(err, storage.ErrNotStored) || again {
			return err
		} // another server was faster
	}
	if err := in.begin(ctx, true); err != nil {
		return err
	}
	if err := in.takeFrom(ctx, from, length); err != nil {
		return err
	}
	name, err := in.keep(ctx, in.parts, in.cut, length)
	if err != nil {
		return err
	}
	return in.endOthers(ctx, t, name)
}

// locate finds the first length bytes of an upload: what was flushed of just that length, or of more.
func (s *Store) locate(ctx context.Context, t there, object string, length int64) (source, error) {
	slices.SortFunc(t.kept, func(a, b keptName) int { return cmp.Compare(a.length, b.length) })
	for _, name := range t.kept {
		if name.length < length || length == 0 {
			continue
		}
		k, rest, err := s.readKept(ctx, name)
		if errors.Is(err, storage.ErrNotStored) {
			continue
		}
		if err != nil {
			return source{}, err
		}
		if err := rest.Close(); err != nil {
			return source{}, err
		}
		from := source{object: -1, name: name, kept: &k}
		parts := k.parts()
		if len(parts) > 0 {
			from.object = parts[len(parts)-1].end()
		}
		err = s.checkParts(ctx, object, k)
		from.alive = err == nil
		if err != nil && !errors.Is(err, storage.ErrNotStored) {
			return source{}, err
		}
		if from.alive || len(parts) > 0 && t.object >= 0 && s.isOf(ctx, object, parts) {
			return from, nil
		}
	}
	if t.object >= length || length == 0 && len(t.kept) > 0 {
		return source{object: t.object}, nil
	}
	return source{}, fmt.Errorf("%w: the first %d bytes of the upload were not kept", storage.ErrNotStored, length)
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
	if copied := min(length, from.object); copied >= minPart {
		if err := in.copyFrom(ctx, copied); err != nil {
			return err
		}
	} else if copied > 0 {
		r, err := in.s.get(ctx, in.object, 0)
		if err != nil {
			return err
		}
		if err := errors.Join(in.takeIn(r, copied, ""), r.Close()); err != nil {
			return err
		}
	}
	rest := length - max(0, from.object)
	if from.kept == nil || rest <= 0 {
		return nil
	}
	sum := from.kept.Sum
	if rest < from.kept.Rest {
		sum = "" // which is of all of it
	}
	_, r, err := in.s.readKept(ctx, from.name)
	if err != nil {
		return err
	}
	return errors.Join(in.takeIn(r, rest, sum), r.Close())
}

// endOthers ends all multipart uploads of the key but that of in, and removes what was there of
// the key before name. There is an object only of what is complete.
func (in *incoming) endOthers(ctx context.Context, t there, name keptName) error {
	err := in.s.eachUpload(ctx, in.object, func(u minio.ObjectMultipartInfo) error {
		if u.Key != in.object || u.UploadID == in.uploadID {
			return nil
		}
		return in.s.abort(ctx, in.object, u.UploadID)
	})
	if err != nil {
		return err
	}
	if err := in.s.remove(ctx, in.object); err != nil {
		return err
	}
	for _, k := range t.kept {
		if k.name == name.name {
			continue
		}
		if err := in.s.remove(ctx, k.name); err != nil {
			return err
		}
	}
	return nil
}

// listParts returns up to most parts of a multipart upload, by number, or all of them if that is 0.
func (s *Store) listParts(ctx context.Context, object, uploadID string, most int) (map[int]minio.ObjectPart, error) {
	have := make(map[int]minio.ObjectPart)
	for marker := 0; ; {
		var page minio.ListObjectPartsResult
		err := s.try(ctx, "ListParts", func(ctx context.Context) (err error) {
			page, err = s.core.ListObjectParts(ctx, s.bucket, object, uploadID, marker, max(1, min(1000, most)))
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, p := range page.ObjectParts {
			have[p.PartNumber] = p
		}
		if !page.IsTruncated || page.NextPartNumberMarker <= marker || len(have) >= most {
			return have, nil
		}
		marker = page.NextPartNumberMarker
	}
}

// checkParts sees to it that a multipart upload is there with the parts that were kept. storage.ErrNotStored
// if not.
func (s *Store) checkParts(ctx context.Context, object string, k kept) error {
	have, err := s.listParts(ctx, object, k.Upload, max(1, len(k.Parts)))
	if err != nil {
		return lostParts(err)
	}
	for i, p := range k.Parts {
		if trimETag(have[i+1].ETag) != p.ETag {
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

// lost says what it means that the multipart upload of in is gone: another server has reopened it, or
// a sweep has removed it.
func (in *incoming) lost(err error) error {
	if errorCode(err) != "NoSuchUpload" {
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.reopened || len(in.kept) > 0 {
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

// copyPiece is how much of an object becomes one part of another, in bytes.
const copyPiece = 256 << 20

// copyFrom has the server make parts of the first length bytes of the object.
func (in *incoming) copyFrom(ctx context.Context, length int64) error {
	pieces := length / copyPiece
	if length%copyPiece >= minPart || pieces == 0 {
		pieces++
	}
	for number := range pieces {
		from, size := number*copyPiece, int64(copyPiece)
		if number == pieces-1 {
			size = length - from
		}
		p := &part{number: int(number) + 1, from: from, size: size, done: make(chan struct{})}
		close(p.done)
		err := in.s.try(ctx, "UploadPartCopy", func(ctx context.Context) error {
			copied, err := in.s.core.CopyObjectPart(ctx, in.s.bucket, in.object, in.s.bucket, in.object, in.uploadID, p.number, from, size, nil)
			p.etag, p.checksum = trimETag(copied.ETag), copied.ChecksumCRC32C
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
