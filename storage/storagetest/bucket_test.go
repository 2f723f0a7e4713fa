package storagetest_test

import (
	"testing"

	"sealift/storage"
	"sealift/storage/storagetest"
)

func TestBucket(t *testing.T) {
	storagetest.TestFiles(t, func(*testing.T) storage.Files { return storagetest.NewBucket().Server(nil) })
}
