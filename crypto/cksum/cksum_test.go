package cksum

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// eachKernel runs f with every kernel of this machine in turn.
func eachKernel(t *testing.T, f func(t *testing.T)) {
	defer func(k kernel) { active = k }(active)
	for _, k := range kernels() {
		active = k
		t.Run(k.String(), f)
	}
}

// random returns n bytes that are the same in every run.
func random(n int) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(p)
	return p
}

// bitwise is the definition: one bit at a time, over data and length.
func bitwise(p []byte) uint32 {
	length := binary.LittleEndian.AppendUint64(nil, uint64(len(p)))
	for len(length) > 0 && length[len(length)-1] == 0 {
		length = length[:len(length)-1]
	}
	var crc uint32
	for _, part := range [][]byte{p, length} {
		for _, b := range part {
			for bit := 7; bit >= 0; bit-- {
				top := crc>>31 ^ uint32(b>>bit)&1
				crc = crc<<1 ^ top*0x04C11DB7
			}
		}
	}
	return ^crc
}

// Values that cksum of coreutils prints.
func TestChecksumKnown(t *testing.T) {
	known := []struct {
		data string
		want uint32
	}{
		{"", 4294967295},
		{"a", 1220704766},
		{"abc", 1219131554},
		{"123456789", 930766865},
		{strings.Repeat("\x00", 255), 1309196107},
		{strings.Repeat("\x00", 256), 4215202376},
		{strings.Repeat("1234567890", 10000), 431444412},
	}
	eachKernel(t, func(t *testing.T) {
		for _, k := range known {
			if got := Checksum([]byte(k.data)); got != k.want {
				t.Errorf("Checksum of %d bytes %.12q = %d, want %d", len(k.data), k.data, got, k.want)
			}
		}
	})
}

// Every length around the strides of the kernels, then random ones.
func TestChecksumLengths(t *testing.T) {
	data := random(70_000)
	lengths := make([]int, 0, 3000)
	for n := range 1100 {
		lengths = append(lengths, n)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		lengths = append(lengths, r.IntN(len(data)+1))
	}
	want := make([]uint32, len(lengths))
	for i, n := range lengths {
		want[i] = bitwise(data[:n])
	}
	eachKernel(t, func(t *testing.T) {
		for i, n := range lengths {
			if got := Checksum(data[:n]); got != want[i] {
				t.Fatalf("Checksum of %d bytes = %d, want %d", n, got, want[i])
			}
		}
	})
}

// The register at the start of a kernel's stride is not always 0, and data does
// not always start on a boundary.
func TestWriteEverySplitAndAlignment(t *testing.T) {
	data := random(1300 + 64)
	eachKernel(t, func(t *testing.T) {
		p := data[:1300]
		want := bitwise(p)
		for cut := range len(p) + 1 {
			h := New()
			h.Write(p[:cut])
			h.Write(p[cut:])
			if got := h.Sum32(); got != want {
				t.Fatalf("split at %d: %d, want %d", cut, got, want)
			}
		}
		for at := range 64 {
			for _, n := range []int{16, 100, 256, 511, 1024, 1300} {
				if got, want := Checksum(data[at:at+n]), bitwise(data[at:at+n]); got != want {
					t.Fatalf("%d bytes at offset %d: %d, want %d", n, at, got, want)
				}
			}
		}
	})
}

func TestWriteRandomSplits(t *testing.T) {
	data := random(70_000)
	want := bitwise(data)
	eachKernel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(3, 4))
		for range 50 {
			h := New()
			for p := data; len(p) > 0; {
				n := min(1+r.IntN(1<<r.IntN(16)), len(p))
				if m, err := h.Write(p[:n]); m != n || err != nil {
					t.Fatalf("Write of %d bytes = %d, %v", n, m, err)
				}
				p = p[n:]
			}
			if got := h.Sum32(); got != want {
				t.Fatalf("%d, want %d", got, want)
			}
		}
	})
}

func TestHash(t *testing.T) {
	h := New()
	h.Write([]byte("12345"))
	if got, want := h.Sum32(), Checksum([]byte("12345")); got != want {
		t.Errorf("Sum32 in the middle = %d, want %d", got, want)
	}
	h.Write([]byte("6789"))
	if got := h.Sum32(); got != 930766865 {
		t.Errorf("Sum32 after Sum32 and more = %d, want 930766865", got)
	}
	if got, want := fmt.Sprintf("%x", h.Sum([]byte{0xAB})), "ab377a6011"; got != want {
		t.Errorf("Sum = %s, want %s", got, want)
	}
	h.Reset()
	if got := h.Sum32(); got != 4294967295 {
		t.Errorf("Sum32 after Reset = %d", got)
	}
	var zero Hash
	zero.Write([]byte("123456789"))
	if got := zero.Sum32(); got != 930766865 {
		t.Errorf("zero value: %d", got)
	}
}

// The octets of the length beyond four: no test writes that much, so the length
// is set.
func TestLengthOver4GiB(t *testing.T) {
	h := Hash{length: 0x01_00_00_02_00}
	want := ^stepAll(0, []byte{0x00, 0x02, 0x00, 0x00, 0x01})
	if got := h.Sum32(); got != want {
		t.Errorf("Sum32 = %d, want %d", got, want)
	}
}

func TestNoAllocations(t *testing.T) {
	data := random(100_000)
	eachKernel(t, func(t *testing.T) {
		h := New()
		n := testing.AllocsPerRun(100, func() {
			h.Write(data)
			h.Sum32()
		})
		if n != 0 {
			t.Errorf("%v allocations per Write and Sum32", n)
		}
	})
}

// The cksum of this system, where there is one that speaks POSIX.
func TestSystemCksum(t *testing.T) {
	path, err := exec.LookPath("cksum")
	if err != nil {
		t.Log("no cksum on this system; TestChecksumKnown has its values")
		return
	}
	for _, n := range []int{0, 1, 63, 64, 65, 4096, 69_999} {
		data := random(n)
		cmd := exec.Command(path)
		cmd.Stdin = strings.NewReader(string(data))
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		want, _, _ := strings.Cut(string(out), " ")
		eachKernel(t, func(t *testing.T) {
			if got := strconv.FormatUint(uint64(Checksum(data)), 10); got != want {
				t.Errorf("Checksum of %d bytes = %s, cksum says %s", n, got, want)
			}
		})
	}
}

// FuzzCksum compares every kernel with the definition, on data in two pieces.
func FuzzCksum(f *testing.F) {
	f.Add([]byte(nil), uint16(0))
	f.Add([]byte("123456789"), uint16(4))
	f.Add(random(64), uint16(16))
	f.Add(random(300), uint16(256))
	f.Add(random(1500), uint16(7))
	f.Fuzz(func(t *testing.T, data []byte, cut uint16) {
		want := bitwise(data)
		at := min(int(cut), len(data))
		for _, k := range kernels() {
			h := Hash{length: uint64(len(data))}
			h.crc = k.update(k.update(0, data[:at]), data[at:])
			if got := h.Sum32(); got != want {
				t.Errorf("%v: %d bytes cut at %d: %d, want %d", k, len(data), at, got, want)
			}
		}
	})
}

func BenchmarkCksum(b *testing.B) {
	for _, n := range []int{64, 1024, 65536} {
		data := random(n)
		for _, k := range kernels() {
			b.Run(fmt.Sprintf("%v/%d", k, n), func(b *testing.B) {
				b.SetBytes(int64(n))
				for b.Loop() {
					k.update(0, data)
				}
			})
		}
		b.Run(fmt.Sprintf("stdlib-crc32-ieee/%d", n), func(b *testing.B) {
			b.SetBytes(int64(n))
			for b.Loop() {
				crc32.ChecksumIEEE(data)
			}
		})
	}
}
