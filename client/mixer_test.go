package client

import (
	"bytes"
	"sync"
	"testing"

	"sealift/crypto/aescbc"
)

// Streams that are mixed give what each gives alone.
func TestMixer(t *testing.T) {
	m := newMixer()
	defer m.close()
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			key := [aescbc.KeySize]byte{byte(i)}
			encrypt := m.stream(aescbc.NewEncrypter(&key))
			alone := aescbc.NewEncrypter(&key)
			for n := range 50 {
				got := bytes.Repeat([]byte{byte(i), byte(n)}, 8*(1+(i*n)%300))
				want := make([]byte, len(got))
				alone.CryptBlocks(want, got)
				encrypt(got)
				if !bytes.Equal(got, want) {
					t.Errorf("stream %d, piece %d differs", i, n)
					return
				}
			}
		})
	}
	wg.Wait()
}
