package s3

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/minio/minio-go/v7"

	"sealift/internal/testservices"
	"sealift/storage"
)

// BenchmarkUpload compares a file that comes in 1 MiB at a time with the same bytes by minio-go's own PutObject, and
// with small files.
func BenchmarkUpload(b *testing.B) {
	bucket := testservices.S3(b)
	s := open(b, bucket, Options{})
	for _, size := range []int{16 << 10, 1 << 20, 16 << 20, 256 << 20} {
		data := content(1, size)
		b.Run(fmt.Sprintf("%d KiB", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			for range b.N {
				in, err := s.Create(b.Context(), storage.Place{ID: alice, Path: "a"}, storage.Announce(int64(size)))
				if err != nil {
					b.Fatal(err)
				}
				(&upload{t: b, s: s, in: in}).write(data).complete(nil)
				b.StopTimer()
				if err := s.Discard(b.Context(), storage.Uploaded{Place: storage.Place{ID: alice, Path: "a"}, Key: in.Key()}); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
		b.Run(fmt.Sprintf("%d KiB, PutObject", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			for range b.N {
				_, err := s.core.Client.PutObject(b.Context(), s.bucket, "put", struct{ io.Reader }{bytes.NewReader(data)}, int64(size), minio.PutObjectOptions{})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("%d KiB, PutObject from memory", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			for range b.N {
				if _, err := s.core.Client.PutObject(b.Context(), s.bucket, "put", bytes.NewReader(data), int64(size), minio.PutObjectOptions{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkMemory has 64 uploads of 16 MiB under way at once, and measures what they take of the heap, and of the memory that Go has of the system,
// besides the 1 MiB that each writer has.
func BenchmarkMemory(b *testing.B) {
	bucket := testservices.S3(b)
	s := open(b, bucket, Options{})
	const uploads, size = 64, 16 << 20
	data := content(1, 1<<20)
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var peak, peakSys atomic.Uint64
	for range b.N {
		var wg sync.WaitGroup
		for i := range uploads {
			wg.Go(func() {
				in, err := s.Create(b.Context(), storage.Place{ID: alice, Path: fmt.Sprint(i)}, storage.Announce(size))
				if err != nil {
					b.Error(err)
					return
				}
				for range size >> 20 {
					if _, err := in.Write(b.Context(), data); err != nil {
						b.Error(err)
					}
				}
				if err := in.Complete(b.Context()); err != nil {
					b.Error(err)
				}
			})
		}
		done := make(chan struct{})
		go func() {
			wg.Wait()
			close(done)
		}()
		for running := true; running; {
			runtime.ReadMemStats(&now)
			peak.Store(max(peak.Load(), now.HeapAlloc-min(now.HeapAlloc, before.HeapAlloc)))
			peakSys.Store(max(peakSys.Load(), now.Sys-min(now.Sys, before.Sys)))
			select {
			case <-done:
				running = false
			default:
				runtime.Gosched()
			}
		}
	}
	b.ReportMetric(float64(peak.Load())/(1<<20), "heap-MiB")
	b.ReportMetric(float64(peakSys.Load())/(1<<20), "system-MiB")
}
