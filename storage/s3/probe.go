package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/google/uuid"
	"github.com/minio/minio-go/v7"
)

// probeAge is for how long an object of probe stays: an older one was left by a process that was
// killed there.
const probeAge = time.Hour

// probe tries out what the store needs, so that what the credentials lack is found at the start
// and not by the first client. Without write it only lists.
func (s *Store) probe(ctx context.Context, write bool) error {
	// A name of its own: servers that start at one moment remove each other's objects otherwise.
	names := s.prefix + ".sealift-probe-"
	object := names + uuid.NewString()
	content := []byte("Sealift tries out whether it can write here.\n")
	uploadID := ""
	var left []string // by processes that were killed here
	steps := []struct {
		request, permission string
		do                  func(ctx context.Context) error
	}{
		{"ListObjectsV2", "s3:ListBucket", func(ctx context.Context) error {
			left = left[:0]
			for info := range s.core.ListObjectsIter(ctx, s.bucket, minio.ListObjectsOptions{Prefix: names, Recursive: true}) {
				if info.Err != nil {
					return info.Err
				}
				if time.Since(info.LastModified) > probeAge {
					left = append(left, info.Key)
				}
			}
			return nil
		}},
		{"PutObject", "s3:PutObject", func(ctx context.Context) error {
			_, err := s.core.PutObject(ctx, s.bucket, object, bytes.NewReader(content), int64(len(content)), "", "", s.putOptions(checksumOf(content)))
			return err
		}},
		{"GetObject", "s3:GetObject", func(ctx context.Context) error {
			_, err := s.core.StatObject(ctx, s.bucket, object, minio.StatObjectOptions{})
			return err
		}},
		{"DeleteObject", "s3:DeleteObject", func(ctx context.Context) error {
			for _, object := range append(left, object) {
				err := s.core.RemoveObject(ctx, s.bucket, object, minio.RemoveObjectOptions{})
				if err != nil && !missing[errorCode(err)] { // the answer of an earlier attempt was lost, or another server was faster
					return err
				}
			}
			return nil
		}},
		{"CreateMultipartUpload", "s3:PutObject", func(ctx context.Context) (err error) {
			uploadID, err = s.core.NewMultipartUpload(ctx, s.bucket, object, s.multipartOptions(false))
			return err
		}},
		{"ListMultipartUploads", "s3:ListBucketMultipartUploads", func(ctx context.Context) error {
			_, err := s.core.ListMultipartUploads(ctx, s.bucket, object, "", "", "", 1)
			return err
		}},
		{"ListParts", "s3:ListMultipartUploadParts", func(ctx context.Context) error {
			_, err := s.core.ListObjectParts(ctx, s.bucket, object, uploadID, 0, 1)
			return err
		}},
		{"AbortMultipartUpload", "s3:AbortMultipartUpload", func(ctx context.Context) error {
			return s.core.AbortMultipartUpload(ctx, s.bucket, object, uploadID)
		}},
	}
	if !write {
		steps = steps[:1]
	}
	for _, step := range steps {
		err := s.try(ctx, step.request, step.do)
		if err == nil {
			continue
		}
		switch code := errorCode(err); {
		case code == "NoSuchBucket":
			return fmt.Errorf("the bucket does not exist, and Sealift does not make it: %w", err)
		case code == "AccessDenied", code == "AllAccessDisabled":
			return fmt.Errorf("the credentials lack the permission %s: %w", step.permission, err)
		case refused[code] || expired[code]:
			return fmt.Errorf("the server does not take the credentials: %w", err)
		case errors.Is(err, context.Canceled):
			return err
		}
		if e, ok := errors.AsType[*url.Error](err); ok { // which has all of the request
			return fmt.Errorf("%s does not answer as an S3 server: %w", s.core.EndpointURL(), e.Err)
		}
		return fmt.Errorf("trying out the bucket: %w", err)
	}
	return nil
}
