package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"sealift/codec"
)

// Result is what became of a file that the server has stored.
type Result struct {
	ID       codec.ClientID // as whom it was sent: a server that forgot the client has it under a new id
	Name     string         // the name sent
	Size     int64          // bytes
	Cksum    uint32         // POSIX cksum of the content, equal on both sides
	Offset   int64          // bytes that the server had at first; Size: all of them, and nothing was sent
	Packets  int            // in the transfers that got their 1603
	Attempts int            // how often the file, or a part of it, was sent; 1 if nothing went wrong
	Elapsed  time.Duration  // from the first byte to the server's last word
}

// Send sends size bytes of r under name (1028), compares checksums, and
// confirms (1029). The server has the file for good when Send returns without
// an error. It reads r from the start each time that it has to send the file. If
// r is an *os.File that changes meanwhile, the server is told to forget it, and
// the error is an ErrChanged.
//
// When ctx ends while a call of r.ReadAt does not return, Send returns without
// it: r may still be read then.
//
// A connection that is gone is replaced, and taken up with a reconnect (1027).
func (c *Client) Send(ctx context.Context, name string, r io.ReaderAt, size int64) (Result, error) {
	if err := CheckFileName(name); err != nil {
		return Result{}, err
	}
	t := &transfer{c: c, name: name, file: r, size: size, began: time.Now(), offset: -1}
	if file, ok := r.(*os.File); ok {
		var err error
		if t.source, err = newSource(file); err != nil {
			return Result{}, err
		}
	}
	return c.deliver(ctx, t)
}

// deliver is Send for a transfer.
func (c *Client) deliver(ctx context.Context, t *transfer) (Result, error) {
	if !c.hasKey {
		return Result{}, ErrNotLoggedIn
	}
	if err := t.deliver(ctx); err != nil {
		var e *Error
		if errors.As(err, &e) {
			e.File = t.name
			return Result{}, e
		}
		return Result{}, err
	}
	return Result{
		ID:   c.identity.ID,
		Name: t.name, Size: t.size, Cksum: t.sum, Offset: t.offset, Packets: t.packets, Attempts: t.attempts, Elapsed: time.Since(t.began),
	}, nil
}

// transfer is one file on its way, over any number of attempts.
type transfer struct {
	c        *Client
	name     string
	file     io.ReaderAt
	size     int64     // bytes of the file
	source   *source   // nil if it cannot be told whether the file changes
	began    time.Time // when the file was to be sent first
	attempts int       // that sent the file or began to
	sum      uint32    // our checksum of the file as far as it was sent

	// The transfer under way carries the bytes from begin to end.
	begin, end int64
	base       int64  // where the attempt began that it belongs to
	written    int64  // bytes of the file that have been written to a connection, or were there
	prefix     prefix // what comes before begin, or more after the transfer
	last       prefix // what comes before end, once the transfer was sent
	offset     int64  // the first begin; -1: there was none
	packets    int    // in the transfers that agreed
	next       bool   // it follows another, and nothing went wrong since

	asked   *conn // that brought the 1608 for the transfer under way; nil: there is none
	asks    int   // 1032s without a 1608, since the last one
	reached int64 // the largest offset in one, and the largest begin
	cut     bool  // the server may have kept a part
	plain   bool  // it does not continue this file

	// What follows is about the form that the file is sent in now.
	layout layout
	form   form
	trust  trust
	worked bool // the server has stored a file of several packets before
	turn   int  // of the peer's forms
	// failures counts 1607s, ends of the connection, silences and wrong checksums
	// after a 1028; silences and lost count those among them that were silences
	// and ends of the connection.
	failures, silences, lost int
	outages                  int           // of the client's line, when a connection was lost last; 0: that was not the last failure
	pause                    time.Duration // after each packet of the last attempt
	wrong                    int           // checksums of the server
	agreed                   bool          // a checksum was right: the server takes this form
	receipt                  *conn         // that brought the last 1603
	restarts                 int           // of the server, which explained a loss
}

// deliver sends the file in the form that the server is believed to want, and
// in another if that is found out to be wrong.
func (t *transfer) deliver(ctx context.Context) error {
	for {
		if err := t.shape(); err != nil {
			return fmt.Errorf("%q: %w", t.name, err)
		}
		err := t.run(ctx)
		if err == nil {
			used := t.form
			used.pause = t.pause
			if t.attempts > 0 {
				t.c.peer.stored(ctx, used, t.layout.total)
			}
			return nil
		}
		if again, err := t.adapt(ctx, err); !again {
			return err
		}
	}
}

// shape lays the file out in the form that the server is believed to want.
func (t *transfer) shape() (err error) {
	t.form, t.trust, t.turn = t.c.peer.current()
	t.outages = 0
	t.failures, t.silences, t.lost, t.pause, t.wrong, t.agreed = 0, 0, 0, 0, 0, false
	if has, _ := t.c.peer.continues(); t.size > maxTransfer && has != ContinueYes {
		return fmt.Errorf("%w: %d bytes; a transfer carries at most %d, and the server is not known to take a file in several", ErrTooLarge, t.size, maxTransfer)
	}
	t.layout, err = t.form.plan(firstTransfer(t.size, t.size))
	several, one := t.c.peer.served()
	if t.worked = several; t.trust == guessed && t.layout.total == 1 && one {
		t.trust = remembered
	}
	return err
}

// maxWhole is how often the whole file is sent again, with Options.RetryFor, after
// a verdict that got 1607 to the end: somebody else who sends under the same name
// may have replaced it.
const maxWhole = 3

// run sends the file and confirms it.
func (t *transfer) run(ctx context.Context) error {
	for again := 1; ; again++ {
		err := t.all(ctx, func(afterWrong bool) (uint32, error) { return t.send(ctx, afterWrong) })
		if err != nil {
			return err
		}
		err = t.verdict(ctx, codec.CodeCRCOK)
		if !errors.Is(err, ErrServer) || t.c.opts.RetryFor <= 0 || again > maxWhole {
			return err
		}
		t.c.log.Warn("sending the whole file again", "file", t.name, "retry", again, "of", maxWhole, "because", err)
	}
}

// all sends the file, in as many transfers as it needs, each by agree. A server may forget
// what it has taken, but not more often than Options.Retries without getting further.
func (t *transfer) all(ctx context.Context, send func(afterWrong bool) (uint32, error)) error {
	furthest, forgot := int64(0), 0
	for t.next = false; ; t.next = true {
		if err := t.agree(ctx, send); err != nil || t.end == t.size {
			return err
		}
		t.wrong = 0
		if t.end > furthest {
			furthest, forgot = t.end, 0
		} else if forgot++; forgot > t.c.opts.Retries {
			err := fmt.Errorf("%w: the server has taken %d bytes of the file before, and forgets them", ErrReply, furthest)
			return &Error{Code: codec.CodeSendFile, Attempts: t.attempts, Err: err}
		}
	}
}

// agree makes a transfer until the checksums agree, or have differed too often.
// send makes it, with a 1030 ahead of it when the last checksum was wrong, and
// returns the server's checksum of the file so far.
func (t *transfer) agree(ctx context.Context, send func(afterWrong bool) (uint32, error)) error {
	for afterWrong := false; ; afterWrong = true {
		theirs, err := send(afterWrong)
		if err != nil {
			return err
		}
		if theirs == t.sum {
			t.agreed = true
			if !t.there() {
				t.packets, t.prefix = t.packets+t.layout.total, t.last
			}
			if t.asked = nil; t.end < t.size {
				return nil
			}
			return t.whole(ctx)
		}
		t.failures++
		if t.wrong == maxChecksumRetries || t.hopeless() {
			err := fmt.Errorf("%w: %d, ours is %d", ErrChecksum, theirs, t.sum)
			if abortErr := t.verdict(ctx, codec.CodeAbort); abortErr != nil {
				err = fmt.Errorf("%w; and the abort failed too: %w", err, abortErr)
			}
			return &Error{Code: codec.CodeSendFile, Attempts: t.attempts, Err: err}
		}
		t.wrong++
		t.next = false
		t.c.log.Warn("the server's checksum is wrong", "file", t.name, "ours", t.sum, "theirs", theirs,
			"retry", t.wrong, "of", maxChecksumRetries)
	}
}

// whole makes sure that the file is still what was sent of it, before a 1029
// says so. Otherwise the server is told with a 1031 to forget it.
func (t *transfer) whole(ctx context.Context) error {
	if t.source == nil {
		return nil
	}
	_, err := within(ctx, func() (struct{}, error) { return struct{}{}, t.source.unchanged(ctx, t.sum) }, nil)
	if err == nil {
		return nil
	}
	if ctx.Err() == nil {
		if abortErr := t.verdict(ctx, codec.CodeAbort); abortErr != nil {
			err = fmt.Errorf("%w; and the abort failed too: %w", err, abortErr)
		}
	}
	return &Error{Code: codec.CodeSendFile, Attempts: 1, Err: err}
}

// verdict sends 1029 or 1031 and waits for the 1604.
//
// A 1029 that gets 1607 on another connection than its 1603 came on is not sent
// again alone: the server may not know which version of the file is meant. The
// next try is the whole file and its 1029. The tries of both are counted as one.
func (t *transfer) verdict(ctx context.Context, code codec.Code) error {
	c := t.c
	sender := c.identity
	reconnect, whole := false, false
	return c.retry(ctx, code, func(cn *conn) error {
		if reconnect || whole && !cn.keyed {
			if err := c.again(ctx); err != nil {
				return err
			}
			cn, reconnect = c.conn, false
			whole = whole || code == codec.CodeCRCOK && !c.identity.is(sender)
		}
		if whole {
			if err := t.sendAgain(ctx, cn); err != nil {
				return err
			}
			whole, sender = false, c.identity
		}
		msg := codec.Verdict{Code: code, FileName: []byte(t.name)}.Append(nil, c.identity.ID)
		r, err := c.exchange(ctx, cn, code, msg)
		if errors.Is(err, ErrServer) {
			reconnect = !cn.keyed
			whole = code == codec.CodeCRCOK && cn != t.receipt
		}
		if err != nil {
			return err
		}
		if r.code != codec.CodeAck {
			return c.wrong(r, codec.CodeAck)
		}
		return checkAck(r, c.identity.ID)
	})
}

// again brings the client back in the middle of its work, as who it is or who it
// has to be from now on.
func (c *Client) again(ctx context.Context) error {
	_, err := c.comeBack(ctx, c.identity)
	return err
}

// sendAgain sends over cn the whole file that the server had before, until the
// checksums agree. A 1607 or the end of the connection is for the caller's
// retry; other errors are about the 1028.
func (t *transfer) sendAgain(ctx context.Context, cn *conn) error {
	if t.size >= worthKeeping {
		t.cut = true // the server may still have it
	}
	err := t.all(ctx, func(afterWrong bool) (uint32, error) { return t.sendOnce(ctx, cn, afterWrong) })
	if err == nil || errors.As(err, new(*Error)) || errors.Is(err, ErrServer) || errors.Is(err, ErrConnection) || ctx.Err() != nil {
		return err
	}
	return &Error{Code: codec.CodeSendFile, Attempts: t.attempts, Err: err}
}

func checkAck(r reply, ours codec.ClientID) error {
	if r.payload == nil {
		return nil
	}
	ack, err := codec.ParseIDReply(r.code, r.payload)
	if err != nil {
		return err
	}
	return r.checkID(ack.ID, ours)
}

// send sends the file, with a 1030 ahead of it when the checksum of the one
// before was wrong, and returns the server's checksum.
//
// Where the AES key did not come over the connection, a 1027 goes ahead, and the
// file is encrypted anew: the server may have no key for the connection, or that
// of another one of the same client, in this process or in another.
func (t *transfer) send(ctx context.Context, afterWrong bool) (theirs uint32, err error) {
	c := t.c
	err = c.retry(ctx, codec.CodeSendFile, func(cn *conn) error {
		if !cn.keyed {
			if err := c.again(ctx); err != nil {
				return err
			}
			cn = c.conn
		}
		theirs, err = t.sendOnce(ctx, cn, afterWrong)
		afterWrong = false // a retry is about the 1028
		return err
	})
	return theirs, err
}

// sendOnce is send over cn, without a retry.
func (t *transfer) sendOnce(ctx context.Context, cn *conn, afterWrong bool) (theirs uint32, err error) {
	t.forgive()
	back := afterWrong && t.asked == cn
	if cn, err = t.place(ctx, cn); err != nil {
		return 0, err
	}
	if t.asked != nil {
		afterWrong = back // what was wrong is out of the way
	}
	if t.there() {
		t.receipt = cn
		return t.sum, nil
	}
	r, err := t.exchange(ctx, cn, afterWrong)
	if err != nil {
		t.asked, t.next = nil, false
		t.noteCut(err)
		return 0, t.failed(err)
	}
	if theirs, err = t.received(r); err == nil {
		t.receipt = cn
	}
	return theirs, err
}

// received reads a 1603.
func (t *transfer) received(r reply) (cksum uint32, err error) {
	if r.code != codec.CodeFileReceived {
		return 0, t.c.wrong(r, codec.CodeFileReceived)
	}
	m, err := codec.ParseFileReceived(r.payload)
	if err != nil {
		return 0, r.surprise("%v", err)
	}
	if err := r.checkID(m.ID, t.c.identity.ID); err != nil {
		return 0, err
	}
	if string(m.FileName) != t.name {
		return 0, r.surprise("a %v for file %q, we sent %q", r.code, m.FileName, t.name)
	}
	if int64(m.ContentSize) != t.layout.size {
		// Some servers give the size of the ciphertext or of the last packet.
		// The checksum covers the size of the file.
		t.c.log.Debug("the server's content size is not that of the file", "bytes", m.ContentSize, "file_bytes", t.layout.size)
	}
	return m.Cksum, nil
}

// exchange sends all packets, after a 1030 if the last checksum was wrong, and
// returns the reply to them. The server may reply before it has all, and may
// stop reading then.
func (t *transfer) exchange(ctx context.Context, cn *conn, afterWrong bool) (reply, error) {
	defer context.AfterFunc(ctx, cn.close)()
	c := t.c
	acks := 0
	codes := c.peer.number()
	t.pause = t.pauseNow()
	if afterWrong {
		msg := codec.Verdict{Code: codec.CodeCRCBad, FileName: []byte(t.name)}.Append(nil, c.identity.ID)
		codes.put(msg, codec.CodeCRCBad)
		c.log.Debug("sent", "message", codec.CodeCRCBad, "bytes", len(msg))
		if err := c.write(cn, msg); err != nil {
			c.noted(cn, reply{}, err)
			return reply{}, err
		}
		acks = 1
		cn.pace(t.pause)
	}
	if !t.next {
		t.attempts++
	}
	delete(cn.told, t.name)
	c.log.Debug("sent", "message", codec.CodeSendFile, "packets", t.layout.total, "file", t.name, "file_bytes", t.size)
	p := produce(t.layout, t.file, part{t.prefix, t.size}, header{c.identity.ID, t.name, codes}, &c.aesKey, c.mix)
	w := &writer{t: t, cn: cn, done: make(chan struct{})}
	go w.run(p)

	r, early, err := t.awaitEarly(ctx, cn, w, &acks)
	if early && (err != nil || !w.finishes()) {
		// What has gone out is a part of a packet or of a file, and more such
		// replies may follow: the connection cannot be used again.
		cn.close()
		p.cancel()
	}
	<-w.done
	if !p.abort(ctx) {
		c.drop()
		return reply{}, context.Cause(ctx)
	}
	t.last = p.sum
	t.sum = t.last.sum.Sum32()
	switch {
	case w.err != nil && !errors.Is(w.err, ErrConnection):
		c.drop() // in the middle of a file that could not be read to its end
		return reply{}, w.err
	case early:
	case w.err != nil:
		r, err = cn.afterFailedWrite(ctx, w.err)
	default:
		r, err = t.await(ctx, cn, &acks)
	}
	c.noted(cn, r, err)
	if err != nil {
		return reply{}, err
	}
	err = c.heard(r)
	switch {
	case err == nil && w.err != nil:
		return reply{}, &ReplyError{Problem: fmt.Sprintf("a %v before the file was sent", r.code), Raw: r.raw, OutOfStep: true}
	case err != nil && (t.layout.total > 1 || w.err != nil):
		// There may be a 1607 on its way for each packet.
		c.drop()
	}
	return r, err
}

// await waits for the reply to a file that is all sent.
func (t *transfer) await(ctx context.Context, cn *conn, acks *int) (reply, error) {
	for {
		r, err := t.c.await(ctx, cn, codec.CodeSendFile, t.replyTimeout())
		if err != nil || !t.skip(r, acks) {
			return r, err
		}
	}
}

// awaitEarly waits until the writer is done, or until something comes before.
func (t *transfer) awaitEarly(ctx context.Context, cn *conn, w *writer, acks *int) (r reply, early bool, err error) {
	for {
		select {
		case <-ctx.Done():
			return reply{}, true, ctx.Err()
		case <-w.done:
			return reply{}, false, nil
		case got := <-cn.replies:
			if got.err != nil || !t.skip(got.reply, acks) {
				return got.reply, true, got.err
			}
		}
	}
}

// skip reports whether r is the 1604 that some servers send for a 1030. The
// protocol has no reply to that.
func (t *transfer) skip(r reply, acks *int) bool {
	if r.code != codec.CodeAck || *acks == 0 {
		return false
	}
	*acks--
	t.c.log.Debug("received, and passed over: there is no reply to a 1030", "message", r.code)
	return true
}

// writer writes what a producer makes, on a goroutine of its own.
type writer struct {
	t    *transfer
	cn   *conn
	last atomic.Bool   // the last chunk is being written
	done chan struct{} // closed at the end; then err is set
	err  error
}

func (w *writer) run(p *producer) {
	defer close(w.done)
	c := w.t.c
	for {
		var ck chunk
		var more bool
		select {
		case ck, more = <-p.chunks:
		case <-p.stop:
			w.err = lost(errAborted)
			return
		}
		if !more {
			break
		}
		if ck.last {
			w.last.Store(true)
		}
		if w.err = c.write(w.cn, ck.b); w.err != nil {
			return
		}
		w.t.written = ck.plain
		c.opts.Progress(Progress{File: w.t.name, Sent: ck.plain, Size: w.t.size, Offset: w.t.base, Attempt: w.t.attempts})
		p.free <- ck.b
		if ck.packetEnd && !ck.last {
			w.cn.pace(w.t.pause)
		}
	}
	w.err = p.err
}

// lastWriteGrace is how long the last write may still take after the reply to
// it has come: the server has read it all, so it is about to return.
const lastWriteGrace = 5 * time.Second

// finishes reports whether everything has been written.
func (w *writer) finishes() bool {
	if !w.last.Load() {
		return false
	}
	t := time.NewTimer(lastWriteGrace)
	defer t.Stop()
	select {
	case <-w.done:
		return w.err == nil
	case <-t.C:
		return false
	}
}
