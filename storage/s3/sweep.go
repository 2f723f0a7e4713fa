package s3

import (
	"context"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"sealift/storage"
)

// Discard implements storage.Files: it removes all there is of a key, and gives its lease back.
func (s *Store) Discard(ctx context.Context, up storage.Uploaded) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, err := s.objectOf(up); err != nil {
		return notThere(err)
	}
	if in := s.find(up.Key); in != nil && in.up == up {
		in.leave(errClosed)
	}
	if s.takeUnsent(up.Key) {
		return nil
	}
	if err := s.clear(ctx, up); err != nil {
		return err
	}
	if s.release == nil {
		return nil
	}
	return s.release(ctx, up.Key)
}

// clear removes what the bucket has of a key.
func (s *Store) clear(ctx context.Context, up storage.Uploaded) error {
	object := s.object(up.Place, up.Key)
	// First the uploads, of which there could be an object otherwise.
	if err := s.abortAll(ctx, object); err != nil {
		return err
	}
	found, err := s.list(ctx, object, 0)
	if err != nil {
		return err
	}
	for _, info := range found {
		if of, _, ok := s.parse(info.Key); !ok || of != up {
			continue
		}
		if err := s.remove(ctx, info.Key); err != nil {
			return err
		}
	}
	return nil
}

// abortAll ends all multipart uploads of an object. A part that was on its way may come
// behind the end of its upload, and with some servers the upload is there again: so it looks once more.
func (s *Store) abortAll(ctx context.Context, object string) error {
	for range 3 {
		found := false
		err := s.eachUpload(ctx, object, func(u minio.ObjectMultipartInfo) error {
			if u.Key != object {
				return nil
			}
			found = true
			return s.abort(ctx, object, u.UploadID)
		})
		if err != nil || !found {
			return err
		}
	}
	return nil
}

func (s *Store) abort(ctx context.Context, object, uploadID string) error {
	err := s.try(ctx, "AbortMultipartUpload", func(ctx context.Context) error {
		return s.core.AbortMultipartUpload(ctx, s.bucket, object, uploadID)
	})
	if errorCode(err) == "NoSuchUpload" {
		return nil
	}
	return notThere(err)
}

// eachUpload calls yield for each multipart upload of an object whose name begins with prefix.
// yield may abort it.
func (s *Store) eachUpload(ctx context.Context, prefix string, yield func(minio.ObjectMultipartInfo) error) error {
	for key, id := "", ""; ; {
		var page minio.ListMultipartUploadsResult
		err := s.try(ctx, "ListMultipartUploads", func(ctx context.Context) (err error) {
			page, err = s.core.ListMultipartUploads(ctx, s.bucket, prefix, key, id, "", 1000)
			return err
		})
		if err != nil {
			return err
		}
		for _, u := range page.Uploads {
			if strings.HasPrefix(u.Key, prefix) {
				if err := yield(u); err != nil {
					return err
				}
			}
		}
		if !page.IsTruncated || page.NextKeyMarker == key && page.NextUploadIDMarker == id {
			return nil
		}
		key, id = page.NextKeyMarker, page.NextUploadIDMarker
	}
}

// EachContent calls yield for all there is in the bucket below the prefix: objects of files, what was flushed, and multipart
// uploads. A key comes once for each of these, with the time at which that was made. What has another name
// than ours is left out. It ends with the first error that yield returns. yield may discard what it is told of.
func (s *Store) EachContent(ctx context.Context, yield func(up storage.Uploaded, modified time.Time) error) error {
	told := func(name string, modified time.Time) error {
		up, _, ok := s.parse(name)
		if !ok {
			return nil
		}
		return yield(up, modified)
	}
	for after := ""; ; {
		page, err := s.listAfter(ctx, s.prefix, after, 1000)
		if err != nil {
			return err
		}
		for _, info := range page {
			if err := told(info.Key, info.LastModified); err != nil {
				return err
			}
			after = info.Key
		}
		if len(page) < 1000 {
			break
		}
	}
	return s.eachUpload(ctx, s.prefix, func(u minio.ObjectMultipartInfo) error { return told(u.Key, u.Initiated) })
}
