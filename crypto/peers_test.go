// Package crypto_test sets the three packages of this folder beside Crypto++
// and PyCryptodome. testdata/README.md describes the vectors and the peers.
package crypto_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"sealift/crypto/aescbc"
	"sealift/crypto/cksum"
	"sealift/crypto/keys"
)

// A vector is one line: a name and its values.
type vector []string

func (v vector) bytes(t *testing.T, i int) []byte {
	t.Helper()
	p, err := hex.DecodeString(v[i])
	if err != nil {
		t.Fatalf("%s: %v", v[0], err)
	}
	return p
}

func (v vector) size(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(v[1])
	if err != nil {
		t.Fatalf("%s: %v", v[0], err)
	}
	return n
}

func parseVectors(text []byte) []vector {
	var out []vector
	for line := range strings.Lines(string(text)) {
		out = append(out, strings.Fields(line))
	}
	return out
}

// find returns the value of the only line of that name.
func find(t *testing.T, vectors []vector, name string) []byte {
	t.Helper()
	for _, v := range vectors {
		if v[0] == name {
			return v.bytes(t, 1)
		}
	}
	t.Fatalf("no line %q", name)
	return nil
}

func plaintext(size int) []byte {
	p := make([]byte, size)
	for i := range p {
		p[i] = byte(131*i + 17*(i/256) + 7)
	}
	return p
}

func encrypt(key []byte, plain []byte) []byte {
	buf := make([]byte, aescbc.CiphertextSize(int64(len(plain))))
	n := aescbc.NewEncrypter((*[aescbc.KeySize]byte)(key)).Final(buf, plain)
	return buf[:n]
}

func decrypt(key []byte, ciphertext []byte) ([]byte, error) {
	buf := make([]byte, len(ciphertext))
	n, err := aescbc.NewDecrypter((*[aescbc.KeySize]byte)(key)).Final(buf, ciphertext)
	return buf[:n], err
}

func TestVectors(t *testing.T) {
	for _, peer := range []string{"cryptopp", "pycryptodome"} {
		t.Run(peer, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("testdata", peer+".txt"))
			if err != nil {
				t.Fatal(err)
			}
			testVectors(t, parseVectors(text))
		})
	}
}

func testVectors(t *testing.T, vectors []vector) {
	key := find(t, vectors, "key")
	priv, err := keys.ParsePrivate(find(t, vectors, "private"))
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]int)
	for _, v := range vectors {
		seen[v[0]]++
		switch v[0] {
		case "key":
		case "private":
			if der, err := keys.MarshalPrivate(priv); err != nil || !bytes.Equal(der, v.bytes(t, 1)) {
				t.Errorf("PKCS#8 written again: %x, %v", der, err)
			}
		case "private_pkcs1":
			if same, err := keys.ParsePrivate(v.bytes(t, 1)); err != nil || !same.Equal(priv) {
				t.Errorf("PKCS#1 is another key than PKCS#8, %v", err)
			}
		case "public":
			pub, err := keys.ParsePublic(v.bytes(t, 1))
			if err != nil || !pub.Equal(&priv.PublicKey) {
				t.Errorf("public key: %v, or not the private key's", err)
			}
		case "wrapped":
			got, err := keys.Unwrap(priv, v.bytes(t, 1))
			if err != nil || !bytes.Equal(got[:], key) {
				t.Errorf("Unwrap = %x, %v, want %x", got, err, key)
			}
		case "cbc", "cbc_sha256":
			plain := plaintext(v.size(t))
			ciphertext := encrypt(key, plain)
			want, got := v.bytes(t, 2), ciphertext
			if v[0] == "cbc_sha256" {
				sum := sha256.Sum256(ciphertext)
				got = sum[:]
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s of %d bytes = %x, want %x", v[0], len(plain), got, want)
			}
			if back, err := decrypt(key, ciphertext); err != nil || !bytes.Equal(back, plain) {
				t.Errorf("decryption of %d bytes: %v, or differs", len(plain), err)
			}
		case "cksum":
			if got := cksum.Checksum(plaintext(v.size(t))); fmt.Sprint(got) != v[2] {
				t.Errorf("cksum of %s bytes = %d, want %s", v[1], got, v[2])
			}
		default:
			t.Errorf("unknown line %q", v[0])
		}
	}
	for _, name := range []string{"private", "public", "wrapped", "cbc", "cbc_sha256"} {
		if seen[name] == 0 {
			t.Errorf("no line %q", name)
		}
	}
}

// TestLivePeers has the peers open what this folder makes, and opens their
// answer. It needs g++ with libcrypto++-dev, and Python with PyCryptodome.
func TestLivePeers(t *testing.T) {
	if os.Getenv("SEALIFT_INTEROP") != "1" {
		t.Log("SEALIFT_INTEROP is not 1: the peers stay at home, TestVectors stands in")
		return
	}
	t.Run("cryptopp", func(t *testing.T) {
		binary := filepath.Join(t.TempDir(), "cryptopp")
		build := exec.Command("g++", "-std=c++17", "-O1", "-o", binary, "testdata/gen/cryptopp.cpp", "-lcryptopp")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", build, err, out)
		}
		testLivePeer(t, binary)
	})
	t.Run("pycryptodome", func(t *testing.T) {
		// Debian's module belongs to the system's interpreter; another one
		// may be first in PATH.
		python := os.Getenv("SEALIFT_PYTHON")
		if python == "" {
			python = "/usr/bin/python3"
		}
		testLivePeer(t, python, "testdata/gen/pycryptodome.py")
	})
}

func testLivePeer(t *testing.T, command ...string) {
	run := func(stdin string, args ...string) []vector {
		t.Helper()
		cmd := exec.Command(command[0], append(command[1:], args...)...)
		var stderr bytes.Buffer
		cmd.Stdin, cmd.Stderr = strings.NewReader(stdin), &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v\n%s", cmd, err, stderr.Bytes())
		}
		return parseVectors(out)
	}
	testVectors(t, run("", "vectors")) // fresh keys, not those of the fixtures

	for _, size := range []int{0, 1, 15, 16, 17, 4096, 100_003} {
		priv, err := keys.Generate()
		if err != nil {
			t.Fatal(err)
		}
		private, err := keys.MarshalPrivate(priv)
		if err != nil {
			t.Fatal(err)
		}
		public, err := keys.MarshalPublic(&priv.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		key, err := keys.NewAESKey()
		if err != nil {
			t.Fatal(err)
		}
		wrapped, err := keys.Wrap(&priv.PublicKey, &key)
		if err != nil {
			t.Fatal(err)
		}
		plain := plaintext(size)
		ciphertext := encrypt(key[:], plain)

		answer := run(fmt.Sprintf("private %x\npublic %x\nwrapped %x\nciphertext %x\n",
			private, public, wrapped, ciphertext), "check")
		for name, want := range map[string][]byte{
			"private": private, "public": public[:], "key": key[:], "ciphertext": ciphertext,
		} {
			if got := find(t, answer, name); !bytes.Equal(got, want) {
				t.Errorf("%d bytes: the peer's %s is %.64x, want %.64x", size, name, got, want)
			}
		}
		if got, err := keys.Unwrap(priv, find(t, answer, "wrapped")); err != nil || got != key {
			t.Errorf("%d bytes: the key that the peer wrapped: %v, or another one", size, err)
		}
		for _, v := range answer {
			if v[0] == "plaintext" && strings.Join(v[1:], "") != hex.EncodeToString(plain) {
				t.Errorf("%d bytes: the peer decrypts to something else", size)
			}
		}
	}
}
