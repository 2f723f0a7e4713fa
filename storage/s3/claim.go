package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"sealift/storage"
)

// ownerName is the object that names whose a prefix is. No client's folder has such a name.
const ownerName = ".sealift-registry"

// maxOwner is how many bytes of that object are read.
const maxOwner = 1024

// Claim makes the prefix that of owner, a name of some bytes, if it is nobody's, and returns
// whose it is. Of several that claim it at once one gets it. It stays until somebody
// removes the object ".sealift-registry".
func (s *Store) Claim(ctx context.Context, owner string) (whose string, err error) {
	object := s.prefix + ownerName
	for range 2 {
		whose, err := s.owner(ctx, object)
		if !errors.Is(err, storage.ErrNotStored) {
			return whose, err
		}
		content := []byte(owner + "\n")
		options := s.putOptions(checksumOf(content))
		options.SetMatchETagExcept("*") // only where there is none
		err = s.try(ctx, "PutObject", func(ctx context.Context) error {
			_, err := s.core.PutObject(ctx, s.bucket, object, bytes.NewReader(content), int64(len(content)), "", "", options)
			if status(err) == http.StatusPreconditionFailed {
				return nil // another one was faster, or the answer of an earlier attempt was lost
			}
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return "", fmt.Errorf("%s was written, and is not there", object)
}

// owner reads whose the prefix is. ErrNotStored if it is nobody's.
func (s *Store) owner(ctx context.Context, object string) (string, error) {
	in, err := s.get(ctx, object, 0)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(io.LimitReader(in, maxOwner))
	return string(bytes.TrimSpace(text)), errors.Join(err, in.Close())
}
