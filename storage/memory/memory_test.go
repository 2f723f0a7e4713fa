package memory_test

import (
	"testing"

	"sealift/storage"
	"sealift/storage/memory"
	"sealift/storage/storagetest"
)

func TestRegistry(t *testing.T) {
	storagetest.TestRegistry(t, func(*testing.T) storage.Registry { return memory.New() })
}

func BenchmarkRegistry(b *testing.B) {
	storagetest.BenchmarkRegistry(b, memory.New())
}
