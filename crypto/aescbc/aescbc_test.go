package aescbc

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
)

var testKey = func() (key [KeySize]byte) { copy(key[:], random(KeySize)); return }()

// eachKernel runs f with every kernel of this machine in turn.
func eachKernel(t *testing.T, f func(t *testing.T)) {
	defer func(k kernel) { active = k }(active)
	for _, k := range kernels() {
		active = k
		t.Run(k.name, f)
	}
}

// random returns n bytes that are the same in every run.
func random(n int) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(p)
	return p
}

// std returns the standard library's encryption of whole blocks.
func std(key *[KeySize]byte, plain []byte) []byte {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err)
	}
	out := make([]byte, len(plain))
	cipher.NewCBCEncrypter(block, make([]byte, BlockSize)).CryptBlocks(out, plain)
	return out
}

// modes returns both directions with their input and the output to expect.
func modes(plain []byte) []direction {
	ciphertext := std(&testKey, plain)
	return []direction{
		{"encrypt", func() mode { return NewEncrypter(&testKey) }, plain, ciphertext},
		{"decrypt", func() mode { return NewDecrypter(&testKey) }, ciphertext, plain},
	}
}

type mode interface {
	cipher.BlockMode
	Reset()
}

type direction struct {
	name     string
	open     func() mode
	in, want []byte
}

func TestEveryLength(t *testing.T) {
	plain := random(70_000)
	lengths := []int{65536, 69_984}
	for n := 0; n <= 2048; n += BlockSize {
		lengths = append(lengths, n)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 40 {
		lengths = append(lengths, r.IntN(len(plain)/BlockSize+1)*BlockSize)
	}
	eachKernel(t, func(t *testing.T) {
		for _, n := range lengths {
			for _, d := range modes(plain[:n]) {
				out := make([]byte, n)
				d.open().CryptBlocks(out, d.in)
				if !bytes.Equal(out, d.want) {
					t.Fatalf("%s %d bytes: differs from crypto/cipher", d.name, n)
				}
				inPlace := bytes.Clone(d.in)
				d.open().CryptBlocks(inPlace, inPlace)
				if !bytes.Equal(inPlace, d.want) {
					t.Fatalf("%s %d bytes in place: differs from crypto/cipher", d.name, n)
				}
			}
		}
	})
}

// The chaining block must survive any sequence of calls.
func TestSplits(t *testing.T) {
	small := modes(random(1552))
	large := modes(random(70_000 / BlockSize * BlockSize))
	eachKernel(t, func(t *testing.T) {
		for _, d := range small {
			for cut := 0; cut <= len(d.in); cut += BlockSize {
				out := make([]byte, len(d.in))
				m := d.open()
				m.CryptBlocks(out, d.in[:cut])
				m.CryptBlocks(out[cut:], d.in[cut:])
				if !bytes.Equal(out, d.want) {
					t.Fatalf("%s split at %d: differs", d.name, cut)
				}
			}
		}
		r := rand.New(rand.NewPCG(3, 4))
		for _, d := range large {
			for range 30 {
				buf := bytes.Clone(d.in)
				m := d.open()
				for p := buf; len(p) > 0; {
					n := min((1+r.IntN(1<<r.IntN(11)))*BlockSize, len(p))
					m.CryptBlocks(p[:n], p[:n])
					p = p[n:]
				}
				if !bytes.Equal(buf, d.want) {
					t.Fatalf("%s in random pieces: differs", d.name)
				}
			}
		}
	})
}

func TestAlignments(t *testing.T) {
	const n = 1200
	eachKernel(t, func(t *testing.T) {
		for _, d := range modes(random(n)) {
			src, dst := make([]byte, n+64), make([]byte, n+64)
			for i := range 64 {
				copy(src[i:], d.in)
				for _, j := range []int{0, i, 63 - i} {
					clear(dst)
					d.open().CryptBlocks(dst[j:], src[i:i+n])
					if !bytes.Equal(dst[j:j+n], d.want) {
						t.Fatalf("%s from offset %d to %d: differs", d.name, i, j)
					}
					if !zeros(dst[:j]) || !zeros(dst[j+n:]) {
						t.Fatalf("%s from offset %d to %d: wrote outside", d.name, i, j)
					}
				}
			}
		}
	})
}

func zeros(p []byte) bool { return len(bytes.Trim(p, "\x00")) == 0 }

func TestReset(t *testing.T) {
	eachKernel(t, func(t *testing.T) {
		for _, d := range modes(random(304)) {
			m := d.open()
			for range 3 {
				out := make([]byte, len(d.in))
				m.CryptBlocks(out, d.in)
				if !bytes.Equal(out, d.want) {
					t.Fatalf("%s after Reset: differs", d.name)
				}
				m.Reset()
			}
		}
	})
}

func TestFinal(t *testing.T) {
	eachKernel(t, func(t *testing.T) {
		for n := range 80 {
			plain := random(n)
			pad := BlockSize - n%BlockSize
			want := std(&testKey, append(bytes.Clone(plain), bytes.Repeat([]byte{byte(pad)}, pad)...))
			if got := CiphertextSize(int64(n)); got != int64(len(want)) {
				t.Fatalf("CiphertextSize(%d) = %d, want %d", n, got, len(want))
			}

			// In place, with room behind len(src) only.
			buf := append(make([]byte, 0, len(want)), plain...)
			m := NewEncrypter(&testKey).Final(buf, buf)
			if !bytes.Equal(buf[:m], want) {
				t.Fatalf("Final of %d bytes = %x, want %x", n, buf[:m], want)
			}

			out := make([]byte, len(want))
			m, err := NewDecrypter(&testKey).Final(out, want)
			if err != nil || !bytes.Equal(out[:m], plain) {
				t.Fatalf("Final of %d bytes of ciphertext = %x, %v, want %x", len(want), out[:m], err, plain)
			}
		}
	})
}

// Final goes on where CryptBlocks stopped.
func TestFinalContinues(t *testing.T) {
	plain := random(1000)
	for cut := 0; cut <= len(plain); cut += BlockSize {
		e, d := NewEncrypter(&testKey), NewDecrypter(&testKey)
		buf := append(make([]byte, 0, 1008), plain...)
		e.CryptBlocks(buf[:cut], buf[:cut])
		if n := e.Final(buf[cut:], buf[cut:]); cut+n != 1008 {
			t.Fatalf("%d bytes of ciphertext, want 1008", cut+n)
		}
		buf = buf[:1008]
		d.CryptBlocks(buf[:cut], buf[:cut])
		n, err := d.Final(buf[cut:], buf[cut:])
		if err != nil || !bytes.Equal(buf[:cut+n], plain) {
			t.Fatalf("cut at %d: %v, or not the plaintext", cut, err)
		}
	}
}

func TestFinalRefusesPadding(t *testing.T) {
	final := func(plain []byte) error {
		ciphertext := std(&testKey, plain)
		_, err := NewDecrypter(&testKey).Final(ciphertext, ciphertext)
		return err
	}
	for pad := 1; pad <= BlockSize; pad++ {
		good := append(random(32-pad), bytes.Repeat([]byte{byte(pad)}, pad)...)
		if err := final(good); err != nil {
			t.Errorf("padding of %d: %v", pad, err)
		}
		for i := len(good) - pad; i < len(good)-1; i++ {
			bad := bytes.Clone(good)
			bad[i] ^= 0x80
			if err := final(bad); !errors.Is(err, ErrPadding) {
				t.Errorf("padding of %d, damaged at %d: %v, want ErrPadding", pad, i, err)
			}
		}
	}
	for _, last := range []byte{0, 17, 32, 128, 255} {
		if err := final(bytes.Repeat([]byte{last}, 32)); !errors.Is(err, ErrPadding) {
			t.Errorf("last byte %d: %v, want ErrPadding", last, err)
		}
	}
	for _, n := range []int{0, 1, 15, 17, 31} {
		if _, err := NewDecrypter(&testKey).Final(make([]byte, 32), make([]byte, n)); !errors.Is(err, ErrLength) {
			t.Errorf("ciphertext of %d bytes: %v, want ErrLength", n, err)
		}
	}
}

func TestContractOfBlockMode(t *testing.T) {
	buf := make([]byte, 128)
	calls := map[string][2][]byte{
		"partial block":   {buf, buf[:17]},
		"short dst":       {buf[:16], buf[:32]},
		"dst a bit ahead": {buf[1:65], buf[:64]},
		"dst a bit back":  {buf[:64], buf[16:80]},
	}
	eachKernel(t, func(t *testing.T) {
		for name, c := range calls {
			for _, m := range []cipher.BlockMode{NewEncrypter(&testKey), NewDecrypter(&testKey)} {
				func() {
					defer func() {
						if recover() == nil {
							t.Errorf("%T, %s: no panic", m, name)
						}
					}()
					m.CryptBlocks(c[0], c[1])
				}()
			}
		}
	})
}

func TestNoAllocations(t *testing.T) {
	buf := random(4096)
	eachKernel(t, func(t *testing.T) {
		for _, d := range modes(nil) {
			m := d.open()
			if n := testing.AllocsPerRun(50, func() { m.CryptBlocks(buf, buf) }); n != 0 {
				t.Errorf("%s: %v allocations per CryptBlocks", d.name, n)
			}
		}
	})
}

// FuzzAESCBC compares every kernel with the standard library, in two pieces,
// and takes the padding off again.
func FuzzAESCBC(f *testing.F) {
	f.Add([]byte("key"), []byte(nil), uint8(0))
	f.Add([]byte("key"), []byte("sixteen bytes...and some more"), uint8(1))
	f.Add([]byte{0xFF}, random(1000), uint8(33))
	f.Fuzz(func(t *testing.T, seed, plain []byte, cut uint8) {
		defer func(k kernel) { active = k }(active)
		var key [KeySize]byte
		copy(key[:], seed)
		pad := BlockSize - len(plain)%BlockSize
		want := std(&key, append(bytes.Clone(plain), bytes.Repeat([]byte{byte(pad)}, pad)...))
		at := min(int(cut)*BlockSize, len(plain)/BlockSize*BlockSize)
		for _, k := range kernels() {
			active = k
			buf := append(make([]byte, 0, len(want)), plain...)
			e := NewEncrypter(&key)
			e.CryptBlocks(buf[:at], buf[:at])
			n := e.Final(buf[at:], buf[at:])
			if buf = buf[:at+n]; !bytes.Equal(buf, want) {
				t.Fatalf("%s: ciphertext differs", k.name)
			}
			d := NewDecrypter(&key)
			d.CryptBlocks(buf[:at], buf[:at])
			n, err := d.Final(buf[at:], buf[at:])
			if err != nil || !bytes.Equal(buf[:at+n], plain) {
				t.Fatalf("%s: %v, or plaintext differs", k.name, err)
			}
		}
	})
}

func BenchmarkAESCBC(b *testing.B) {
	for _, n := range []int{64, 1024, 65536} {
		buf := make([]byte, n)
		run := func(name string, m cipher.BlockMode) {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.SetBytes(int64(n))
				for b.Loop() {
					m.CryptBlocks(buf, buf)
				}
			})
		}
		block, err := aes.NewCipher(testKey[:])
		if err != nil {
			b.Fatal(err)
		}
		iv := make([]byte, BlockSize)
		defer func(k kernel) { active = k }(active)
		for _, k := range kernels() {
			active = k
			run("decrypt/"+k.name, NewDecrypter(&testKey))
			run("encrypt/"+k.name, NewEncrypter(&testKey))
		}
		run("decrypt/stdlib", cipher.NewCBCDecrypter(block, iv))
		run("encrypt/stdlib", cipher.NewCBCEncrypter(block, iv))
	}
}
