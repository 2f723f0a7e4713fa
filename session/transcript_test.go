package session_test

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"sealift/codec"
	"sealift/session"
)

// transcript is what the server sends, byte by byte, to a client that does all
// that clients do, in each dialect and order. edit changes what the client sends.
func transcript(t *testing.T, edit func([]byte) []byte) (all []byte) {
	for _, d := range dialects {
		for _, o := range orders {
			for _, size := range []int{0, 1, 16, 500, 5000, 70_001} {
				w := newWorld(t, session.Config{})
				p, c := w.known("alice"), w.dial()
				content := random(uint64(size), size)
				packets := notOneFirst(d, o.put(p.packets(d, "f", content, 1024), rand.New(rand.NewPCG(uint64(size), 1))))
				wrong := slices.Clone(packets)
				wrong[len(wrong)-1] = slices.Clone(wrong[len(wrong)-1])
				copy(wrong[len(wrong)-1][codec.RequestHeaderSize:], "\x01\x02\x03")
				past := slices.Clone(packets[0])
				total := past[codec.RequestHeaderSize+10:][:2]
				first := uint16(1)
				if d == zeroBased || d == zeroSpec {
					first = 0
				}
				binary.LittleEndian.PutUint16(past[codec.RequestHeaderSize+8:], binary.LittleEndian.Uint16(total)+first)
				stranger := peer{id: codec.ClientID{1}, name: "stranger"}
				for _, messages := range [][][]byte{
					packets, {p.ok("f")}, {p.ok("f")},
					wrong, packets, {past}, {p.verdict(codec.CodeCRCBad, "f")},
					packets, {p.verdict(codec.CodeAbort, "f")}, {p.ok("g")},
					stranger.packets(spec, "f", content, 20_000), {stranger.reconnect()},
				} {
					for _, m := range messages {
						c.send(edit(m))
					}
					w.run()
				}
				for _, reply := range c.raw {
					all = append(all, reply...)
				}
				w.hangUp()
			}
		}
	}
	return all
}

// TestTranscripts: clients with the codes 1025… that were served in an earlier
// version see the same bytes. Those with the codes 825… see the same, but for
// the Content Size of the 1603.
func TestTranscripts(t *testing.T) {
	const want = "9113dbd99a94ecaf0650cf2f5c089b2e49505f037e7c426631c8b2ea5e4f4e73"
	documents := transcript(t, func(m []byte) []byte { return m })
	sum := sha256.Sum256(documents)
	if got := hex.EncodeToString(sum[:]); got != want {
		t.Errorf("%d bytes of replies with the sum %s, want %s", len(documents), got, want)
	}
	edition := transcript(t, func(m []byte) []byte { return later(m)[0] })
	for _, b := range [][]byte{documents, edition} {
		var d codec.ResponseDecoder
		for at := 0; at < len(b); {
			r, n, ok, err := d.Next(b[at:])
			if err != nil || !ok {
				t.Fatal(fmt.Sprint(at), err)
			}
			if at += n; r.Header.Code == codec.CodeFileReceived {
				clear(b[at-n+7+16:][:4])
			}
		}
	}
	if !slices.Equal(documents, edition) {
		t.Error("the codes 825… get other replies, beyond the Content Size of the 1603")
	}
}
