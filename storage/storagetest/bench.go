package storagetest

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"sealift/codec"
	"sealift/storage"
)

// benchClients is how many clients the benchmarks have at work.
const benchClients = 100

// BenchmarkRegistry measures what a server does most, in batches of 1, 10 and
// 100 operations. Each reports operations per second. r is empty.
func BenchmarkRegistry(b *testing.B, r storage.Registry) {
	const incoming = "00112233445566778899aabbccddeeff"
	put := func(i int) storage.Operation {
		f := upload(0, fmt.Sprint("file ", i), incoming, 1000)
		f.ID = benchID(i % benchClients)
		return &storage.PutFile{Outcome: storage.Outcome{At: at(i)}, File: f}
	}
	benchmarks := []struct {
		name string
		op   func(i int) storage.Operation
	}{
		{"AddClient", func(i int) storage.Operation {
			return &storage.AddClient{Outcome: storage.Outcome{At: at(i)}, ID: benchID(i), Name: fmt.Sprint("client ", i)}
		}},
		{"SetAESKey", func(i int) storage.Operation {
			return &storage.SetAESKey{
				Outcome: storage.Outcome{At: at(i)}, ID: benchID(i % benchClients), AESKey: key(byte(i), 32),
			}
		}},
		{"Seen", func(i int) storage.Operation {
			return &storage.Seen{Outcome: storage.Outcome{At: at(i)}, ID: benchID(i % benchClients)}
		}},
		{"PutFile", put},
		{"PutFileVerifyFile", func(i int) storage.Operation { // by turns
			if i%2 == 0 {
				return put(i / 2)
			}
			return &storage.VerifyFile{
				Outcome: storage.Outcome{At: at(i)}, ID: benchID(i / 2 % benchClients), Path: fmt.Sprint("file ", i/2),
				Incoming: incoming,
			}
		}},
		{"GetFile", func(i int) storage.Operation {
			return &storage.GetFile{ID: benchID(i % benchClients), Path: fmt.Sprint("file ", i%benchClients)}
		}},
	}
	add := benchmarks[0].op
	for i := range benchClients {
		apply(b, r, add(i), put(i))
	}
	for _, bench := range benchmarks {
		done := 0
		if bench.name == "AddClient" {
			done = benchClients
		}
		for _, size := range []int{1, 10, 100} {
			b.Run(fmt.Sprintf("%s/%d", bench.name, size), func(b *testing.B) {
				batch := make([]storage.Operation, size)
				for b.Loop() {
					for i := range batch {
						batch[i] = bench.op(done)
						done++
					}
					if err := r.Apply(b.Context(), batch); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "rows/s")
			})
		}
	}
}

// BenchmarkSessions measures what the registry is asked by 128 clients at a time, each of which
// registers, gets a key, and uploads a file that is verified: four batches of their queue. Each
// reports sessions per second. r is empty.
func BenchmarkSessions(b *testing.B, r storage.Registry) {
	const clients, incoming = 128, "00112233445566778899aabbccddeeff"
	q := storage.NewQueue(b.Context(), r)
	var next atomic.Int64
	session := func(i int) error {
		id, name, when := benchID(i), fmt.Sprint("client ", i), storage.Outcome{At: at(i)}
		f := upload(0, "file", incoming, 1000)
		f.ID = id
		for _, op := range []storage.Operation{
			&storage.AddClient{Outcome: when, ID: id, Name: name},
			&storage.SetKeys{Outcome: when, ID: id, Name: name, PublicKey: key(1, codec.PublicKeySize), AESKey: key(2, 32)},
			&storage.PutFile{Outcome: when, File: f},
			&storage.VerifyFile{Outcome: when, ID: id, Path: f.Path, Incoming: incoming},
		} {
			done := make(chan error, 1)
			q.Submit(op, func(err error) { done <- err })
			if err := <-done; err != nil {
				return err
			}
		}
		return nil
	}
	var g sync.WaitGroup
	for range clients {
		g.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				if err := session(int(i)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	g.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sessions/s")
}

// benchID scatters ids over the whole range, as random ones are.
func benchID(i int) codec.ClientID {
	var id codec.ClientID
	x := uint64(i)*0x9e37_79b9_7f4a_7c15 + 1
	for j := range id {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		id[j] = byte(x >> 32)
	}
	return id
}
