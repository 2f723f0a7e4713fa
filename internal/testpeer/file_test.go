package testpeer

import (
	"bytes"
	"testing"

	"sealift/codec"
	"sealift/crypto/aescbc"
)

// What the packets of each dialect carry decrypts to the file, and the numbers in
// them are those of the dialect.
func TestDialects(t *testing.T) {
	p := Peer{ID: codec.ClientID{1}}
	const size = 48
	for _, d := range Dialects {
		for _, n := range []int{0, 1, 16, 47, 48, 100, 144} {
			content := bytes.Repeat([]byte{byte(n)}, n)
			f := p.File("f", content)
			all := f.Packets(d, size)
			var got, ciphertext []byte
			for i, k := range all {
				m, err := codec.ParseSendFile(k.Head[codec.RequestHeaderSize:])
				if err != nil {
					t.Fatal(err)
				}
				number := i + 1
				if d == ZeroBased || d == ZeroSpec {
					number = i
				}
				if int(m.Packet) != number || int(m.Total) != len(all) {
					t.Errorf("%s, %d bytes: packet %d of %d is called %d of %d", d, n, i, len(all), m.Packet, m.Total)
				}
				if d == PacketSize && int(m.ContentSize) != len(k.Body) || d != PacketSize && d != PerPacket && int(m.ContentSize) != len(f.Ciphertext) {
					t.Errorf("%s, %d bytes: Content Size %d", d, n, m.ContentSize)
				}
				if d == PerPacket {
					got = append(got, decrypt(t, &p, k.Body)...)
				}
				ciphertext = append(ciphertext, k.Body...)
			}
			if d != PerPacket {
				got = decrypt(t, &p, ciphertext[:len(f.Ciphertext)])
			}
			if !bytes.Equal(got, content) {
				t.Errorf("%s, %d bytes: the packets carry %d others", d, n, len(got))
			}
			if padded := len(all) * size; (d == Padded || d == ZeroBased) && len(ciphertext) != padded {
				t.Errorf("%s, %d bytes: the packets have %d bytes, not %d", d, n, len(ciphertext), padded)
			}
		}
	}
}

func decrypt(t *testing.T, p *Peer, ciphertext []byte) []byte {
	t.Helper()
	out := make([]byte, len(ciphertext))
	n, err := aescbc.NewDecrypter(&p.Key).Final(out, ciphertext)
	if err != nil {
		t.Fatal(err)
	}
	return out[:n]
}
