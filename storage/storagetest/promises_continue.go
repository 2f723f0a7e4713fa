package storagetest

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"sealift/codec"
	"sealift/crypto/aescbc"
	"sealift/crypto/cksum"
	"sealift/storage"
)

// promiseKeepFrom is KeepFrom of the services, and promiseCheckpointEvery what its name
// says: uploads have 4,500 bytes on average.
const promiseKeepFrom, promiseCheckpointEvery = 700, 1500

// part is a partial file at a place. Each has a version of its own.
type part struct {
	v     *version
	least int // bytes of it that must be on record
	held  int // that must be there until the power is cut
}

// lastAsked is what the last 1608 for a path told a connection.
type lastAsked struct {
	v      *version // whose rest comes next
	offset int
	part   *part // that it took over or has sent, nil: none
	lost   bool  // a later 1032 has taken that
	sent   bool  // the 1603 of what followed is out
	spent  bool  // nothing is to follow
}

// survived takes what is left of a partial file after a life has ended, in an act on its place if here.
func (m *promiseModel) survived(p *placeModel, here, cut bool) {
	t, h := p.part, m.held
	switch {
	case t == nil:
	case cut:
		t.held = 0
		m.counts["partial file survived a power cut"]++
	case here && h != nil && h.v == t.v: // else it was not recorded yet
		t.held = h.held
		m.counts["killed in the middle of a transfer"]++
	default:
		m.counts["partial file survived a kill"]++
	}
}

// aim has some acts hit what there is: a partial file, or a connection that goes on with one.
func (m *promiseModel) aim(act int, c *promiseConn, path string) (*promiseConn, string) {
	if m.rnd.IntN(4) == 0 {
		return c, path
	}
	for _, at := range promisePaths {
		for _, o := range m.conns {
			k, hit := o.asked[at], false
			switch act {
			case actGoOn:
				hit = o.goesOn(at)
			case actContinue:
				hit = o.proven && m.places[at].part != nil && m.rnd.IntN(2) == 0
			case actConfirm:
				hit = k != nil && k.spent && m.rnd.IntN(2) == 0
			case actAgain, actAbort:
				hit = k != nil && k.sent
			}
			if hit {
				return o, at
			}
		}
	}
	return c, path
}

// goesOn reports whether the next transfer on the connection goes on after the 1608.
func (c *promiseConn) goesOn(path string) bool {
	k := c.asked[path]
	return k != nil && !k.sent && !k.spent
}

// isHeld reports whether another open connection than c has the partial file.
func (m *promiseModel) isHeld(path string, t *part, c *promiseConn) bool {
	for _, o := range m.conns {
		if k := o.asked[path]; o != c && !o.gone && k != nil && k.part == t && !k.lost {
			return true
		}
	}
	return false
}

// partial returns what is on record of a partial file at path, or nil.
func (m *promiseModel) partial(path string) *storage.Partial {
	get := &storage.GetFile{Outcome: storage.Outcome{By: storage.Server}, ID: clientID(1), Path: path, WithPartial: true}
	if err := m.reg.Apply(context.Background(), []storage.Operation{get}); err != nil {
		m.fatalf("registry: %v", err)
	}
	return get.Partial
}

// versionOf returns the version that the partial file is a part of, nil if nobody sent such a
// one.
func (m *promiseModel) versionOf(row *storage.Partial) *version {
	b := m.contentOf(row)
	for _, v := range m.sent {
		if int64(len(v.content)) == row.Total && bytes.HasPrefix(v.content, b) && stateOf(v.content[:row.Length]) == row.State {
			return v
		}
	}
	return nil
}

// contentOf is what there is of a partial file, recorded or not.
func (m *promiseModel) contentOf(row *storage.Partial) []byte {
	if b, sealed := m.files.(*BucketFiles); sealed {
		data, ok := b.Prefix(row.Uploaded(), row.Length)
		if !ok {
			m.fatalf("%s: the first %d bytes are not there", row.Path, row.Length)
		}
		return data
	}
	r, err := m.files.OpenFrom(context.Background(), row.Uploaded(), 0)
	if err != nil {
		m.fatalf("%s: %v", row.Path, err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil || int64(len(b)) < row.Length {
		m.fatalf("%s: %d bytes of the partial file %+v: %v", row.Path, len(b), row, err)
	}
	return b
}

// proceed is a 1032.
func (m *promiseModel) proceed(c *promiseConn, path string, p *placeModel, failing bool) {
	total := m.someTotal(path, p)
	m.note("connection %d asks for %s, of %d bytes", c.n, path, total)
	row, get := m.partial(path), m.row(path)
	got := c.ask(codec.Continue{FileName: []byte(path), TotalSize: uint64(total)}.Append(nil, clientID(1)))
	m.note("got %s", got)
	if m.disabled || !c.proven {
		if got != "1607" {
			m.fatalf("1032: got %q, want 1607", got)
		}
		if m.disabled {
			c.close()
		}
		return
	}
	var offset int
	var sum uint32
	if n, _ := fmt.Sscanf(got, "1608 %d %08x", &offset, &sum); n != 2 {
		if got != "1607" || !failing && !(row != nil && m.quota.Bounds()) {
			m.fatalf("1032: got %q", got)
		}
		c.close() // whatever came of it
		m.resyncPart(path, true)
		return
	}
	m.answered(c, path, p, &lastAsked{offset: offset}, sum, total, row, get)
}

// someTotal is the size of what is there, or of what is not.
func (m *promiseModel) someTotal(path string, p *placeModel) int {
	of := []*version{p.waiting, p.verified}
	if p.part != nil {
		of = append(of, p.part.v, p.part.v, p.part.v, p.part.v, p.part.v)
	}
	if v := of[m.rnd.IntN(len(of))]; v != nil && m.rnd.IntN(8) != 0 {
		return len(v.content)
	}
	return 8 + m.rnd.IntN(9000)
}

// answered takes a 1608. row and get are what was on record before.
func (m *promiseModel) answered(c *promiseConn, path string, p *placeModel, k *lastAsked, sum uint32, total int, row *storage.Partial, get *storage.GetFile) {
	delete(c.asked, path)
	if c.failed[path] { // the 1607 is forgotten
		delete(c.failed, path)
		delete(c.receipts, path)
	}
	want := func(what string, offset int, content []byte) {
		if k.offset != offset || sum != cksum.Checksum(content) {
			m.fatalf("1608: %d bytes with checksum %08x, want %d of %s with %08x", k.offset, sum, offset, what, cksum.Checksum(content))
		}
	}
	tells := c.channel != nil && !c.unwanted[path] // of what is verified
	switch v, w := get.Verified, get.Unverified; {
	case row != nil && row.Total == int64(total):
		m.took(c, path, p, k, sum, row)
		return
	case w != nil && w.Size == int64(total) && !w.Deleted:
		want("the waiting version", total, p.waiting.content)
		c.receipts[path], k.spent = p.waiting, true
		m.counts["1608 about a waiting version"]++
	case v != nil && v.Size == int64(total) && !v.Deleted && tells && (p.there || p.taken):
		want("the verified version", total, p.verified.content)
		c.receipts[path], k.spent = p.verified, true
		m.counts["1608 about a verified version"]++
	default:
		want("nothing", 0, nil)
		k.v = m.versionOfSize(total)
	}
	c.asked[path] = k
}

// took takes a 1608 about a partial file.
func (m *promiseModel) took(c *promiseConn, path string, p *placeModel, k *lastAsked, sum uint32, row *storage.Partial) {
	t := p.part
	if t == nil || k.offset < max(t.least, t.held) || k.offset > len(t.v.content) || sum != cksum.Checksum(t.v.content[:k.offset]) {
		m.fatalf("1608: %d bytes with checksum %08x, of %+v on record; want those of %s", k.offset, sum, row, p)
	}
	m.counts["continued"]++
	if int64(k.offset) > row.Length {
		m.counts["continued behind what was recorded"]++
	}
	for _, o := range m.conns {
		if other := o.asked[path]; o != c && other != nil && other.part == t {
			other.lost = true
		}
	}
	t.least, t.held = k.offset, 0
	switch k.offset {
	case len(t.v.content):
		m.counts["only the padding was missing"]++
		m.waits(c, path, p, t.v)
		k.spent = true
	case 0:
		p.part = nil
		k.v = m.versionOfSize(len(t.v.content))
	default:
		k.v, k.part = t.v, t
	}
	c.asked[path] = k
}

// waits has a version wait that has come as a whole on c.
func (m *promiseModel) waits(c *promiseConn, path string, p *placeModel, v *version) {
	if p.waiting != nil {
		p.drop()
	}
	p.waiting, p.part, c.receipts[path] = v, nil, v
}

// goOn sends what follows the last 1608 on the connection, or a part of that; or the first
// packets of it, and then the connection is cut, or the server's life ends.
func (m *promiseModel) goOn(c *promiseConn, path string, p *placeModel, failing bool) {
	k := c.asked[path]
	if k.offset == 0 { // of a version only once: its key tells versions apart
		k.v = m.versionOfSize(len(k.v.content))
	}
	rest := k.v.content[k.offset:]
	if m.rnd.IntN(3) == 0 {
		rest = rest[:min(len(rest), 8+m.rnd.IntN(len(rest)))] // so many that they tell versions apart
	}
	if m.rnd.IntN(3) == 0 {
		m.cut(c, path, p, rest, failing)
		return
	}
	whole := k.offset+len(rest) == len(k.v.content)
	m.note("connection %d goes on with %s after %d of %d, version %08x, with %d bytes", c.n, path, k.offset, len(k.v.content), k.v.sum, len(rest))
	want := fmt.Sprintf("1603 %08x", cksum.Checksum(k.v.content[:k.offset+len(rest)]))
	fits := m.fits(path, int64(len(k.v.content)))
	if m.disabled || k.lost || !fits {
		want = "1607"
	}
	got := c.ask(c.upload(path, rest))
	m.note("got %s", got)
	switch {
	case got != want && !failing:
		m.fatalf("segment: got %q, want %q", got, want)
	case got != want || want == "1607":
		if k.lost {
			m.counts["superseded: 1607"]++
		}
		c.close()
		m.resyncPart(path, failing)
	case whole:
		delete(c.failed, path)
		m.waits(c, path, p, k.v)
		k.sent, k.part = true, cond(k.offset > 0, k.part)
		m.counts["last segment"]++
	default:
		delete(c.failed, path)
		delete(c.receipts, path)
		if k.part == nil {
			k.part = &part{v: k.v}
		}
		k.part.least = k.offset + len(rest)
		p.part, k.sent = k.part, true
		m.counts["segment"]++
	}
}

func cond(ok bool, t *part) *part {
	if ok {
		return t
	}
	return nil
}

// cut sends the first packets of what is to follow a 1608. Then the connection is cut, or the life ends.
func (m *promiseModel) cut(c *promiseConn, path string, p *placeModel, rest []byte, failing bool) {
	k := c.asked[path]
	packets := c.packets(path, rest, 16*(1+m.rnd.IntN(60)))
	packets = packets[:m.rnd.IntN(len(packets))]
	sent := 0
	for _, packet := range packets {
		sent += packet.content
	}
	m.note("connection %d sends %d packets for %s after %d of %d, version %08x, with %d bytes, and is cut", c.n, len(packets), path, k.offset, len(k.v.content), k.v.sum, sent)
	fits := m.fits(path, int64(len(k.v.content)))
	said := ""
	for _, packet := range packets {
		said += c.ask(packet.message)
	}
	refused := k.lost || !fits
	if !failing && !m.disabled && (said == "1607") != (refused && len(packets) > 0) { // who is disabled hears of it at a record
		m.fatalf("the packets get %q", said)
	} else if m.disabled || refused || said != "" {
		c.close()
		m.resyncPart(path, failing)
		return
	}
	held := k.offset + max(sent-aescbc.BlockSize, 0) // the last block waits for its padding
	kept := k.part != nil || c.proven && held >= promiseKeepFrom
	if failing {
		kept = false
	}
	if m.mortal && m.rnd.IntN(2) == 0 {
		m.ends = true
		m.held = cond(kept && len(packets) > 0, &part{v: k.v, held: held})
		return
	}
	c.close()
	if kept && sent > 0 {
		if p.part == nil || p.part.v != k.v {
			p.part = &part{v: k.v}
		}
		p.part.least = held
		m.counts["cut off"]++
	}
	m.resyncPart(path, failing)
}

// stops is a 1030 or 1031 where a 1608 came before, or a partial file is there. It returns
// false if what it is about is as if neither was.
func (m *promiseModel) stops(act int, c *promiseConn, path string, p *placeModel) bool {
	k := c.asked[path]
	if act == actAbort {
		if t := p.part; t != nil && !m.isHeld(path, t, c) {
			p.part = nil
			m.counts["partial file given up"]++
		}
		delete(c.asked, path)
		c.unwanted[path] = true
		return false
	}
	switch {
	case k == nil || k.spent:
		return false
	case k.part != nil && !k.sent:
		return true
	case k.part != nil && p.waiting == k.v && c.receipts[path] == k.v: // it was the last segment
		p.drop()
		p.part = k.part
	case k.part != nil && c.receipts[path] == k.v: // and its file has gone
		k.lost, k.sent = true, false
		return true
	case k.part == nil: // the whole file, or what waits besides
		k.sent = false
		return false
	case k.lost:
		k.sent = false
		return true
	case k.offset == 0:
		if p.part == k.part {
			p.part = nil
		}
		k.part, k.sent = nil, false
		return true
	}
	p.part, k.part.least, k.sent, k.lost = k.part, k.offset, false, false
	m.counts["went back"]++
	return true
}

// resyncPart takes what the registry has for what is there of a partial file at path. mayGo: an
// operation that failed, or of which nobody heard, may have taken any of it away.
func (m *promiseModel) resyncPart(path string, mayGo bool) {
	p, row := m.places[path], m.partial(path)
	if row == nil || row.Length == 0 {
		if t := p.part; t != nil && t.least > 0 && !mayGo {
			m.fatalf("%s: the partial file of %08x is gone", path, t.v.sum)
		}
		if row == nil {
			p.part = nil
			return
		}
	}
	if t := p.part; t != nil && row.Total == int64(len(t.v.content)) && stateOf(t.v.content[:row.Length]) == row.State {
		if row.Length < int64(t.least) && !mayGo {
			m.fatalf("%s: %d bytes are there of a partial file that had %d", path, row.Length, t.least)
		}
		t.least = int(row.Length)
		return
	}
	v := m.versionOf(row)
	if v == nil {
		m.fatalf("%s: an unknown partial file: %+v", path, row)
	}
	p.part = &part{v: v, least: int(row.Length)}
}

// checkPart compares the partial file on record with the one of the model, and with its content.
func (m *promiseModel) checkPart(path string, p *placeModel) {
	row := m.partial(path)
	switch {
	case row == nil && p.part != nil:
		m.fatalf("%s: the partial file of %08x is gone", path, p.part.v.sum)
	case row == nil:
		return
	case p.part == nil:
		m.fatalf("%s: there is a partial file: %+v", path, row)
	case row.Total != int64(len(p.part.v.content)) || stateOf(p.part.v.content[:row.Length]) != row.State:
		m.fatalf("%s: the partial file is not that of %08x: %+v", path, p.part.v.sum, row)
	}
	if b := m.contentOf(row); !bytes.HasPrefix(p.part.v.content, b) {
		m.fatalf("%s: the %d bytes of the partial file are not those that were sent: %+v", path, len(b), row)
	}
}
