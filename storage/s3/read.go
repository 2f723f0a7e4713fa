package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/minio/minio-go/v7"

	"sealift/storage"
)

// Open implements storage.Files.
func (s *Store) Open(ctx context.Context, ref storage.Ref) (io.ReadCloser, error) {
	return s.OpenFrom(ctx, ref, 0)
}

// OpenFrom implements storage.Files. What came in can be read when it is complete. A reader whose connection is lost
// goes on over another one; it ends with ctx.
func (s *Store) OpenFrom(ctx context.Context, ref storage.Ref, offset int64) (io.ReadCloser, error) {
	object, err := s.objectOf(ref)
	if err != nil {
		return nil, errors.Join(err, ctx.Err())
	}
	return s.get(ctx, object, offset)
}

func (s *Store) get(ctx context.Context, object string, offset int64) (io.ReadCloser, error) {
	r := &reader{s: s, ctx: ctx, object: object, at: offset}
	if err := r.open(); err != nil {
		return nil, err
	}
	return r, nil
}

// reader reads an object.
type reader struct {
	s      *Store
	ctx    context.Context
	object string
	at     int64
	end    int64 // size of the object
	etag   string
	body   io.ReadCloser // nil: to be opened
}

func (r *reader) open() error {
	if r.etag != "" && r.at >= r.end {
		return io.EOF
	}
	return r.s.try(r.ctx, "GetObject", func(ctx context.Context) error {
		options := minio.GetObjectOptions{}
		if r.at > 0 {
			if err := options.SetRange(r.at, 0); err != nil {
				return err
			}
		}
		if r.etag != "" {
			if err := options.SetMatchETag(r.etag); err != nil {
				return err
			}
		}
		body, info, _, err := r.s.core.GetObject(ctx, r.s.bucket, r.object, options)
		if status(err) == http.StatusRequestedRangeNotSatisfiable && r.etag == "" {
			return r.atEnd(ctx, err)
		}
		if err != nil {
			return err
		}
		r.body = body
		if r.etag == "" {
			r.etag, r.end = info.ETag, r.at+info.Size
		}
		return nil
	})
}

// atEnd finds out whether there is nothing to be read because all was.
func (r *reader) atEnd(ctx context.Context, cause error) error {
	info, err := r.s.core.StatObject(ctx, r.s.bucket, r.object, minio.StatObjectOptions{})
	if err != nil {
		return err
	}
	if r.at != info.Size {
		return cause
	}
	r.etag, r.end, r.body = info.ETag, info.Size, http.NoBody
	return nil
}

func (r *reader) Read(p []byte) (int, error) {
	if r.body == nil {
		if err := r.open(); err != nil {
			return 0, err
		}
	}
	n, err := r.body.Read(p)
	r.at += int64(n)
	switch {
	case err == nil:
		return n, nil
	case r.at == r.end:
		return n, io.EOF
	case r.at > r.end:
		return n, fmt.Errorf("bucket: GetObject: more than the %d bytes of the object came", r.end)
	case r.ctx.Err() != nil:
		return n, r.ctx.Err()
	}
	// It was cut. The next Read goes on from here.
	_ = r.body.Close()
	r.body = nil
	if n > 0 {
		return n, nil
	}
	if err := r.open(); err != nil {
		return 0, err
	}
	return 0, nil
}

// Close implements io.Closer.
func (r *reader) Close() error {
	if r.body == nil {
		return nil
	}
	return r.body.Close()
}
