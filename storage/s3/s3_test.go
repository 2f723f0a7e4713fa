package s3

import (
	"cmp"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/minio/minio-go/v7/pkg/credentials"

	"sealift/internal/testservices"
	"sealift/storage"
	"sealift/storage/storagetest"
)

var prefixes atomic.Int64

// bucket is an S3 server with an empty bucket.
type bucket struct{ *testservices.S3 }

const bucketName = "sealift-test"

func newBucket(t testing.TB) bucket { return bucket{testservices.NewS3(t, bucketName)} }

// url names the bucket, by way of that endpoint if it is not "".
func (b bucket) url(endpoint, prefix string) string {
	return "s3://" + bucketName + "/" + prefix + "?region=us-east-1&path-style=true&endpoint=" + url.QueryEscape(cmp.Or(endpoint, b.Endpoint()))
}

// newPrefix is a folder of the bucket that nobody has used.
func newPrefix() string { return fmt.Sprintf("test/%d", prefixes.Add(1)) }

// credentials are those of Environment.
func (b bucket) credentials() *credentials.Credentials {
	var v [2]string
	for i, e := range b.Environment() {
		_, v[i], _ = strings.Cut(e, "=")
	}
	return credentials.NewStaticV4(v[0], v[1], "")
}

// open opens a store with nothing in it, in a folder of the bucket that only this test uses.
func open(t testing.TB, b bucket, o Options) *Store {
	t.Helper()
	return openAt(t, b.url("", newPrefix()), b, o)
}

func openAt(t testing.TB, url string, b bucket, o Options) *Store {
	t.Helper()
	o.Scratch = t.TempDir()
	if o.Credentials == nil {
		o.Credentials = b.credentials()
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
	b := newBucket(t)
	storagetest.TestFiles(t, func(t *testing.T) storage.Files { return open(t, b, Options{PartSize: minPart}) })
}
