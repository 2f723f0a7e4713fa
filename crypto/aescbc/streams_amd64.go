//go:build !purego

package aescbc

// lanes is how many streams run side by side. A round has a latency of four
// cycles and two units (AMD Zen 4; others are near), so eight would fill them, if
// it were not for each stream's own round keys, which are loaded every time: that
// takes 80 cycles a block for eight. Four take the 56 that one takes.
const lanes = 8

// encryptStreams fills the lanes with streams and runs them until the shortest
// has ended, which leaves its lane to the next one.
func encryptStreams(streams []*Encrypter, dst, src [][]byte) {
	type lane struct {
		e        *aesEncrypter
		dst, src []byte
	}
	var busy [lanes]lane
	n := 0
	for {
		for n < lanes && len(streams) > 0 {
			e, ok := streams[0].engine.(*aesEncrypter)
			switch {
			case len(src[0]) == 0:
			case ok:
				busy[n] = lane{e, dst[0], src[0]}
				n++
			default:
				streams[0].CryptBlocks(dst[0], src[0])
			}
			streams, dst, src = streams[1:], dst[1:], src[1:]
		}
		if n == 0 {
			return
		}
		if n == 1 { // and no other stream is left
			busy[0].e.CryptBlocks(busy[0].dst, busy[0].src)
			return
		}

		var keys [lanes]*schedule
		var ivs [lanes]*[BlockSize]byte
		var to, from [lanes]*byte
		size := len(busy[0].src)
		for i := range lanes {
			l := &busy[0] // twice the same is allowed
			if i < n {
				l = &busy[i]
			}
			keys[i], ivs[i], to[i], from[i] = &l.e.schedule, &l.e.iv, &l.dst[0], &l.src[0]
			size = min(size, len(l.src))
		}
		if n <= 4 {
			encrypt4Lanes(&keys, &ivs, &to, &from, size/BlockSize)
		} else {
			encrypt8Lanes(&keys, &ivs, &to, &from, size/BlockSize)
		}

		running := 0
		for _, l := range busy[:n] {
			if l.dst, l.src = l.dst[size:], l.src[size:]; len(l.src) > 0 {
				busy[running] = l
				running++
			}
		}
		n = running
	}
}
