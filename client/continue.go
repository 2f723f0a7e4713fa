package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"sealift/codec"
	"sealift/crypto/cksum"
)

// Continuing says whether a server continues files that were cut (docs/PROTOCOL.md,
// section 15).
type Continuing uint8

const (
	// ContinueUnknown: it is found out when a connection is lost in a large file.
	ContinueUnknown Continuing = iota
	// ContinueYes: it does.
	ContinueYes
	// ContinueNo: it does not.
	ContinueNo
)

var continuingNames = [...]string{"unknown", "yes", "no"}

// String returns unknown, yes or no.
func (c Continuing) String() string {
	if int(c) < len(continuingNames) {
		return continuingNames[c]
	}
	return fmt.Sprintf("Continuing(%d)", uint8(c))
}

const (
	// worthKeeping is how much of a file that was cut servers keep, at least.
	worthKeeping = 1 << 20
	// worthAsking is the least size of a file that is asked about before it is sent.
	worthAsking = 8 << 20
)

// What one transfer carries, and how much of a larger file. Variables for tests.
var (
	maxTransfer int64 = MaxFileSize
	segmentSize int64 = 1 << 30
)

// askPatience is how long a server of which nothing is known may think about a 1032,
// before its silence is taken for a no. A variable for tests.
var askPatience = 10 * time.Second

// firstTransfer is how much of a file of size bytes a transfer carries that begins
// where left bytes are still to come.
func firstTransfer(size, left int64) int64 {
	if size <= maxTransfer {
		return left
	}
	return min(left, segmentSize)
}

// said is what a 1608 has said about a file: the server has its first offset bytes.
type said struct {
	total  int64 // the size of the file that was asked about
	offset int64
	cksum  uint32
}

// prefix is the beginning of our file, as far as it was summed.
type prefix struct {
	n   int64
	sum cksum.Hash
}

// wants reports whether the server is to be asked before the next 1028.
func (t *transfer) wants() bool {
	has, _ := t.c.peer.continues()
	switch {
	case t.size > maxTransfer:
		return true
	case t.plain || has == ContinueNo:
		return false
	}
	return t.cut || has == ContinueYes && t.size >= worthAsking
}

// mayAsk reports whether the server may have kept what a lost connection has brought,
// and it is not known whether it does.
func (t *transfer) mayAsk() bool {
	has, _ := t.c.peer.continues()
	return t.cut && !t.plain && has == ContinueUnknown
}

// noteCut notes whether the loss of a connection may have left a part of the file with
// the server.
func (t *transfer) noteCut(err error) {
	if isLoss(err) && t.written-t.begin >= worthKeeping {
		t.cut = true
	}
}

// place finds out where in the file the next transfer begins, over cn or, where the
// server does not continue the file, over the connection that it returns. Afterwards
// t.asked is that connection if a 1608 was about the transfer, and else nil.
func (t *transfer) place(ctx context.Context, cn *conn) (*conn, error) {
	if t.asked == cn {
		return cn, nil // after a 1030 the server goes back to where it was
	}
	t.asked = nil
	answer, told := cn.told[t.name]
	if !told && !t.wants() {
		return cn, t.from(0)
	}
	told = told && answer.total == t.size // else the server expects another file
	for again := false; ; again = true {
		if !told {
			var err error
			if answer, err = t.ask(ctx, cn); err != nil {
				return t.unanswered(ctx, cn, err)
			}
		}
		told = false
		ours, err := t.isOurs(ctx, answer)
		switch {
		case err != nil:
			return cn, err
		case ours:
			if answer.offset == t.size {
				delete(cn.told, t.name)
			}
			t.asked = cn
			return cn, t.from(answer.offset)
		case again:
			return t.instead(ctx, fmt.Errorf("after a 1031 it has %d bytes that are not ours", answer.offset))
		}
		t.c.log.Info("the server has another file of that name: beginning anew", "file", t.name, "its_bytes", answer.offset)
		if err := t.forget(ctx, cn); isLoss(err) || ctx.Err() != nil {
			return cn, err
		} else if err != nil {
			return t.instead(ctx, err)
		}
	}
}

// from lays out the transfer that begins behind the first n bytes of the file. If
// these are all, there is nothing to send.
func (t *transfer) from(n int64) (err error) {
	if t.offset < 0 {
		t.offset = n
	}
	if t.next = t.next && n == t.end; !t.next {
		t.base = n
	}
	t.reached = max(t.reached, n)
	t.begin, t.end, t.written = n, n+firstTransfer(t.size, t.size-n), n
	if n == 0 {
		t.prefix, t.packets = prefix{}, 0
	}
	if n < t.size || n == 0 {
		t.layout, err = t.form.plan(t.end - n)
	}
	if n > 0 && !t.next {
		t.c.log.Debug("continuing", "file", t.name, "offset_bytes", n, "file_bytes", t.size)
		t.c.opts.Progress(Progress{File: t.name, Sent: n, Size: t.size, Offset: n, Attempt: t.attempts + 1})
	}
	return err
}

// there reports whether the server has all of the file.
func (t *transfer) there() bool { return t.asked != nil && t.begin == t.size }

// ask asks over cn how much of the file the server has (1032).
func (t *transfer) ask(ctx context.Context, cn *conn) (said, error) {
	c := t.c
	limit := c.opts.ReplyTimeout
	if has, _ := c.peer.continues(); has == ContinueUnknown {
		limit = min(limit, askPatience)
	}
	msg := codec.Continue{FileName: []byte(t.name), TotalSize: uint64(t.size)}.Append(nil, c.identity.ID)
	r, err := c.exchangeWithin(ctx, cn, codec.CodeContinue, msg, limit)
	if err != nil {
		return said{}, err
	}
	answer, err := c.continued(r, t.name, t.size)
	if err != nil {
		return said{}, err
	}
	c.peer.doesContinue(ctx)
	cn.note(t.name, answer)
	c.advanced = t.attempts > 0 && answer.offset >= t.reached+worthKeeping
	t.reached, t.asks = max(t.reached, answer.offset), 0
	return answer, nil
}

// continued reads a 1608 about the file called name of size bytes.
func (c *Client) continued(r reply, name string, size int64) (said, error) {
	if r.code != codec.CodeContinued {
		return said{}, c.wrong(r, codec.CodeContinued)
	}
	m, err := codec.ParseContinued(r.payload)
	if err != nil {
		return said{}, r.surprise("%v", err)
	}
	if err := r.checkID(m.ID, c.identity.ID); err != nil {
		return said{}, err
	}
	if string(m.FileName) != name {
		return said{}, r.surprise("a %v for file %q, we asked about %q", r.code, m.FileName, name)
	}
	if m.Offset > uint64(size) {
		return said{}, r.surprise("a %v with %d bytes of a file of %d", r.code, m.Offset, size)
	}
	return said{total: size, offset: int64(m.Offset), cksum: m.Cksum}, nil
}

// unanswered is for a 1032 that got no 1608, but err. Either it is time to do without,
// or the error is for the caller's retry.
func (t *transfer) unanswered(ctx context.Context, cn *conn, err error) (*conn, error) {
	if ctx.Err() != nil || isForGood(err) {
		return cn, err
	}
	t.asks++
	has, sure := t.c.peer.continues()
	switch {
	case isLoss(err) && !isSilence(err) && t.asks < 2: // it may be like the loss before
		return cn, before{codec.CodeContinue, err}
	case has == ContinueUnknown:
	case isLoss(err) && (sure || t.asks < 2), errors.Is(err, ErrServer) && sure && (t.asks < 2 || t.size > maxTransfer):
		return cn, before{codec.CodeContinue, err}
	}
	return t.instead(ctx, err)
}

// instead begins with the whole file, since the server does not continue it: why says
// how it has shown that. It does so over a new connection, which it returns: on the old
// one the server may have lost its step, or expect the rest of another file.
func (t *transfer) instead(ctx context.Context, why error) (*conn, error) {
	c := t.c
	if _, sure := c.peer.continues(); sure {
		t.plain = true
	} else {
		c.peer.doesNotContinue(ctx)
	}
	c.drop()
	if t.size > maxTransfer {
		return nil, fmt.Errorf("%w: %d bytes, and the server does not take it in several transfers: %v", ErrTooLarge, t.size, why)
	}
	c.log.Warn("the server does not continue the file: sending all of it", "file", t.name, "because", why)
	if err := c.again(ctx); err != nil {
		return nil, err
	}
	return c.conn, t.from(0)
}

// forget has the server forget, over cn, what it has of the file and is not verified
// (1031).
func (t *transfer) forget(ctx context.Context, cn *conn) error {
	msg := codec.Verdict{Code: codec.CodeAbort, FileName: []byte(t.name)}.Append(nil, t.c.identity.ID)
	r, err := t.c.exchange(ctx, cn, codec.CodeAbort, msg)
	if err != nil {
		return err
	}
	delete(cn.told, t.name)
	if r.code != codec.CodeAck {
		return t.c.wrong(r, codec.CodeAck)
	}
	return checkAck(r, t.c.identity.ID)
}

// isOurs reports whether what the server has is the beginning of our file. With
// Options.Force a whole file is not, unless we have sent it.
func (t *transfer) isOurs(ctx context.Context, a said) (bool, error) {
	if a.offset == 0 && t.size > 0 {
		return true, nil
	}
	if t.c.opts.Force && a.offset == t.size && t.attempts == 0 {
		return false, nil
	}
	defer t.c.notice("the checksum of what the server has already", t.c.opts.replyTimeout(a.offset)).Stop()
	p := t.prefix
	if p.n > a.offset {
		p = prefix{}
	}
	p, err := within(ctx, func() (prefix, error) { return p.extend(ctx, t.file, a.offset) }, nil)
	if err != nil || p.sum.Sum32() != a.cksum {
		return false, err
	}
	t.prefix, t.sum = p, a.cksum
	return true, nil
}

// extend returns the prefix of n bytes of r, of which p is the beginning.
func (p prefix) extend(ctx context.Context, r io.ReaderAt, n int64) (prefix, error) {
	buf := make([]byte, min(n-p.n, maxChunk))
	for p.n < n {
		if ctx.Err() != nil {
			return p, context.Cause(ctx)
		}
		b := buf[:min(int64(len(buf)), n-p.n)]
		if got, err := r.ReadAt(b, p.n); got < len(b) {
			if err == io.EOF {
				err = fmt.Errorf("%w: it ends after %d bytes", ErrChanged, p.n+int64(got))
			}
			return p, err
		}
		_, _ = p.sum.Write(b)
		p.n += int64(len(b))
	}
	return p, nil
}
