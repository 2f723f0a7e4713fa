package s3

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/minio/minio-go/v7/pkg/credentials"

	"sealift/internal/testservices"
	"sealift/storage"
	"sealift/storage/storagetest"
)

var prefixes atomic.Int64

// newPrefix is a folder of the bucket that nobody has used.
func newPrefix() string { return fmt.Sprintf("test/%d", prefixes.Add(1)) }

// open opens a store with nothing in it, in a folder of the bucket that only this test uses.
func open(t testing.TB, b *testservices.Bucket, o Options) *Store {
	t.Helper()
	return openAt(t, b.URL(newPrefix()), b, o)
}

func openAt(t testing.TB, url string, b *testservices.Bucket, o Options) *Store {
	t.Helper()
	o.Scratch = t.TempDir()
	if o.Credentials == nil {
		o.Credentials = credentials.NewStaticV4(b.AccessKey, b.SecretKey, "")
	}
	s, err := Open(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestFiles(t *testing.T) {
	b := testservices.S3(t)
	storagetest.TestFiles(t, func(t *testing.T) storage.Files { return open(t, b, Options{PartSize: minPart}) })
}
