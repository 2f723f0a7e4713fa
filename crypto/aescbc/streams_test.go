package aescbc

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

// A set of streams of their own keys and lengths, with the expected result.
type streamSet struct {
	streams []*Encrypter
	bufs    [][]byte
	want    [][]byte
}

func newStreamSet(sizes []int) *streamSet {
	s := new(streamSet)
	data := random(70_000)
	for i, n := range sizes {
		var key [KeySize]byte
		copy(key[:], data[i*64:])
		plain := data[i*32 : i*32+n]
		s.streams = append(s.streams, NewEncrypter(&key))
		s.bufs = append(s.bufs, bytes.Clone(plain))
		s.want = append(s.want, std(&key, plain))
	}
	return s
}

// between returns the part of each buffer between two offsets.
func (s *streamSet) between(from, to int) [][]byte {
	out := make([][]byte, len(s.bufs))
	for i, b := range s.bufs {
		out[i] = b[min(from, len(b)):min(to, len(b))]
	}
	return out
}

func TestEncryptStreams(t *testing.T) {
	const all = 1 << 20
	sizes := [][]int{
		nil, {0}, {16}, {4096}, {0, 0}, {16, 16}, {160, 16}, {16, 160, 320},
		{48, 48, 48, 48, 48, 48, 48, 48},
		{16, 32, 48, 64, 80, 96, 112, 128, 144},
		{1024, 0, 16, 0, 0, 512, 16, 16, 16, 16, 16, 16, 65536},
	}
	r := rand.New(rand.NewPCG(5, 6))
	for range 30 {
		some := make([]int, r.IntN(20))
		for i := range some {
			some[i] = r.IntN(200) * BlockSize
		}
		sizes = append(sizes, some)
	}
	eachKernel(t, func(t *testing.T) {
		for _, sizes := range sizes {
			s := newStreamSet(sizes)
			whole := s.between(0, all)
			EncryptStreams(s.streams, whole, whole) // in place
			for i := range s.want {
				if !bytes.Equal(s.bufs[i], s.want[i]) {
					t.Fatalf("%v in place: stream %d differs", sizes, i)
				}
			}

			// To another place, in two calls, with the streams' own calls between.
			s = newStreamSet(sizes)
			out := new(streamSet)
			for _, w := range s.want {
				out.bufs = append(out.bufs, make([]byte, len(w)))
			}
			EncryptStreams(s.streams, out.between(0, 96), s.between(0, 96))
			for i, e := range s.streams {
				e.CryptBlocks(out.between(96, 160)[i], s.between(96, 160)[i])
			}
			EncryptStreams(s.streams, out.between(160, all), s.between(160, all))
			for i := range s.want {
				if !bytes.Equal(out.bufs[i], s.want[i]) {
					t.Fatalf("%v in pieces: stream %d differs", sizes, i)
				}
			}
		}
	})
}

func TestEncryptStreamsContract(t *testing.T) {
	s := newStreamSet([]int{32, 32})
	whole := s.between(0, 32)
	calls := map[string]func(){
		"fewer dst":     func() { EncryptStreams(s.streams, whole[:1], whole) },
		"fewer src":     func() { EncryptStreams(s.streams, whole, whole[:1]) },
		"partial block": func() { EncryptStreams(s.streams, whole, s.between(0, 17)) },
		"short dst":     func() { EncryptStreams(s.streams, s.between(0, 16), whole) },
	}
	for name, call := range calls {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			call()
		}()
	}
	if n := testing.AllocsPerRun(50, func() { EncryptStreams(s.streams, whole, whole) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkEncryptStreams(b *testing.B) {
	defer func(k kernel) { active = k }(active)
	for _, k := range kernels() {
		if k.name != kernels()[0].name && k.name != portable.name {
			continue // all but the portable one share their encrypter
		}
		active = k
		for _, n := range []int{1, 2, 4, 8, 16} {
			sizes := make([]int, n)
			for i := range sizes {
				sizes[i] = 32768
			}
			s := newStreamSet(sizes)
			whole := s.between(0, 32768)
			b.Run(fmt.Sprintf("%s/%d", k.name, n), func(b *testing.B) {
				b.SetBytes(int64(n) * 32768)
				for b.Loop() {
					EncryptStreams(s.streams, whole, whole)
				}
			})
		}
	}
}
