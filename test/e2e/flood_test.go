//go:build unix

package e2e

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"sealift/codec"
)

// Copies of a packet that is refused, in one write or each in its own, get a
// handful of 1607s and lines in the log. A client that waits gets its reply
// however often it tries.
func TestFloodOfRefusals(t *testing.T) {
	t.Parallel()
	const copies = 2000
	for _, alone := range []bool{false, true} {
		for what, at := range map[string]int{"the content": 4, "Total Packets": 8} {
			d := serve(t)
			p := login(t, d, "f")
			content := make([]byte, 500)
			bad := cut(p.File("f", content), 0)[0].Bytes()
			field := bad[codec.RequestHeaderSize+at:]
			binary.LittleEndian.PutUint16(field, binary.LittleEndian.Uint16(field)+1)
			began := time.Now()
			var all []byte
			for range copies {
				if alone {
					p.send(bad)
				} else {
					all = append(all, bad...)
				}
			}
			p.send(all)
			p.send(p.Reconnect()) // its reply shows the end of the others
			replies := 0
			for {
				code, _, err := p.Read()
				if err != nil {
					t.Fatal(err)
				}
				if code == codec.CodeReconnected {
					break
				}
				replies++
			}
			// A few at once, then two a second, however slow the machine is.
			if most := 10 + int(2*time.Since(began).Seconds()); replies < 1 || replies > most {
				t.Errorf("%d packets that contradict %s get %d replies, at most %d are due", copies, what, replies, most)
			}
			t.Logf("%s, alone %v: %d replies", what, alone, replies)
			q := *p // on a connection to which nothing is owed
			q.Net = nil
			q.dial()
			q.rejoin()
			for range 6 {
				q.send(bad)
				q.expect(codec.CodeError)
			}
			if n := strings.Count(d.log.String(), "transfer refused"); n > 20 {
				t.Errorf("%d lines in the log", n)
			}
		}
	}
}
