package load

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"testing"

	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/crypto/keys"
)

// The messages of a file must be what a server that knows nothing of the
// pattern takes for an ordinary upload.
func TestFileIsOrdinary(t *testing.T) {
	key, err := keys.NewAESKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{0, 1, 15, 16, 17, 1024, packetBody - 16, packetBody - 1, packetBody, 3*packetBody + 5, patternSize + 100_003} {
		for _, body := range []int64{0, 1 << 10} {
			f := newFile("name", size, body, &key, make([]byte, 48<<10))
			w := wire{f: f, id: codec.ClientID{1}}
			var sent bytes.Buffer
			for w.more() {
				if _, err := w.gather().WriteTo(&sent); err != nil {
					t.Fatal(err)
				}
			}
			if int64(sent.Len()) != w.size() {
				t.Errorf("%d bytes: size() is %d and %d are sent", size, w.size(), sent.Len())
			}

			var dec codec.RequestDecoder
			var ciphertext []byte
			var plan codec.Plan
			packets := 0
			for p := sent.Bytes(); len(p) > 0; {
				ev, n, err := dec.Next(p)
				if err != nil {
					t.Fatal(err)
				}
				p = p[n:]
				switch ev.Kind {
				case codec.Message:
					m, err := codec.ParseSendFile(ev.Payload)
					if err != nil {
						t.Fatal(err)
					}
					if packets++; packets == 1 {
						plan, err = codec.Infer(m, ev.ContentSize)
					} else {
						err = plan.Check(m, ev.ContentSize)
					}
					if err != nil || int(m.Packet) != packets || plan.Scheme != codec.WholeFile {
						t.Fatalf("%d bytes: packet %d: %+v, %+v, %v", size, packets, m, plan, err)
					}
				case codec.Content:
					ciphertext = append(ciphertext, ev.Content...)
				}
			}

			block, err := aes.NewCipher(key[:])
			if err != nil {
				t.Fatal(err)
			}
			cipher.NewCBCDecrypter(block, make([]byte, 16)).CryptBlocks(ciphertext, ciphertext)
			pad := int(ciphertext[len(ciphertext)-1])
			if pad < 1 || pad > 16 || !bytes.HasSuffix(ciphertext, bytes.Repeat([]byte{byte(pad)}, pad)) {
				t.Fatalf("%d bytes: padding %x", size, ciphertext[len(ciphertext)-16:])
			}
			plain := ciphertext[:len(ciphertext)-pad]
			if int64(len(plain)) != size || cksum.Checksum(plain) != f.cksum {
				t.Errorf("%d bytes: decrypts to %d with cksum %d, not %d", size, len(plain), cksum.Checksum(plain), f.cksum)
			}
		}
	}
}

// A file so large that 65,535 packets of the usual size do not hold it.
func TestLargestFileFits(t *testing.T) {
	f := &file{size: codec.MaxFileSize, ciphertext: codec.MaxCiphertext}
	f.layOut(0)
	if f.packets > codec.MaxPackets || int64(f.packets)*f.body < f.ciphertext || int64(f.packets-1)*f.body >= f.ciphertext {
		t.Errorf("%d packets of %d bytes for %d", f.packets, f.body, f.ciphertext)
	}
}
