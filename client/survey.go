package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"sealift/codec"
)

// Sizes of probe files, in bytes: the smallest of one packet; several packets in
// most dialects; and enough of them for a server that is too slow for the pause
// between them.
const (
	onePacketProbe = 501
	dialectProbe   = 5_001
	pauseProbe     = 150_001
)

// dialectPause is the pause after each packet of a dialectProbe: there are few of
// them, and a server that is slow is not to be taken for one that wants another
// dialect.
const dialectPause = 50 * time.Millisecond

// probeSize is the size of a file that has several packets in form f.
func probeSize(f form) int { return max(dialectProbe, 2*f.packetSize+1) }

// probePatience is how long a probe waits for its reply. A variable for tests.
var probePatience = 5 * time.Second

// maxProbePatience is the longest that a probe waits for its reply. It waits
// three times as long as the slowest reply yet took.
const maxProbePatience = 20 * time.Second

// candidates are the forms that servers in the field want, those of most
// servers first. Small packets suit servers with small buffers, too.
func candidates(packetSize int) []form {
	all := []form{
		{dialect: Spec, packetSize: 1024},
		{dialect: Padded, packetSize: 1024},
		{dialect: ZeroBased, packetSize: 1024},
		{dialect: ZeroBasedShort, packetSize: 1024},
		{dialect: PerPacket, packetSize: 4096},
		{dialect: PacketSize, packetSize: 1024},
		{dialect: Padded, packetSize: 65269},
		{dialect: PerPacket, packetSize: 4000},
		{dialect: Single},
	}
	var chosen []form
	seen := map[form]bool{}
	for _, f := range all {
		f.atLeast = true
		if packetSize > 0 && f.dialect != Single {
			f.packetSize, f.atLeast = packetSize, false
		}
		if !seen[f] {
			chosen = append(chosen, f)
		}
		seen[f] = true
	}
	return chosen
}

// errGone says that the server cannot be reached any more, or takes us for
// nobody.
var errGone = errors.New("the server is gone")

// errNoProbes says that the budget is spent.
var errNoProbes = errors.New("there are no probes left")

// survey finds a form in which the server takes files, by small files of names
// of their own that are aborted. It returns the form of t if the server takes
// that, and so the form is not what t has failed for. The error is an
// ErrNoDialect, or says why there is no more to be found out.
func (c *Client) survey(ctx context.Context, t *transfer) (form, error) {
	s := *c // it goes on with our connection: the server may serve one at a time
	s.quiet = true
	s.opts.Progress = func(Progress) {}
	s.opts.Retries, s.opts.RetryFor = 4, 0
	s.opts.ReplyTimeout = min(max(probePatience, 3*c.slowest), maxProbePatience)
	s.opts.WriteTimeout = s.opts.ReplyTimeout
	defer func() { // what it knows of us now
		c.identity, c.aesKey, c.hasKey, c.conn, c.line = s.identity, s.aesKey, s.hasKey, s.conn, s.line
	}()
	if t.trust == remembered || t.onlyLost() {
		size := pauseProbe
		if t.layout.total == 1 { // as large a packet
			size = int(min(max(onePacketProbe, t.size), pauseProbe))
		}
		if err := s.probe(ctx, t.form, size); err == nil {
			return t.form, nil
		}
	}
	for _, f := range candidates(c.opts.PacketSize) {
		f.pause = dialectPause
		err := s.probe(ctx, f, probeSize(f))
		if err == nil {
			f.pause, err = s.findPause(ctx, f)
		}
		switch {
		case err == nil:
			return f, nil
		case errors.Is(err, errGone):
			return form{}, fmt.Errorf("%w since a probe in the dialect %v, or the one before", err, f.dialect)
		case errors.Is(err, errNoProbes) || ctx.Err() != nil:
			return form{}, fmt.Errorf("%w (there are no probes left)", ErrNoDialect)
		}
		c.log.Debug("not this dialect", "dialect", f.dialect, "packet_size_bytes", f.packetSize, "because", err)
	}
	return form{}, ErrNoDialect
}

// findPause returns the shortest pause with which a file of many packets goes
// through in form f, or what kept it from it.
func (c *Client) findPause(ctx context.Context, f form) (pause time.Duration, err error) {
	for _, f.pause = range pauses {
		if err = c.probe(ctx, f, pauseProbe); err == nil || errors.Is(err, errGone) || errors.Is(err, errNoProbes) {
			break
		}
	}
	return f.pause, err
}

// probe sends a file of that size in form f, compares checksums, and aborts it.
func (c *Client) probe(ctx context.Context, f form, size int) error {
	ctx, end, ok := c.peer.budget.take(ctx)
	if !ok {
		return errNoProbes
	}
	defer end()
	if err := c.ready(ctx); err != nil {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	content := make([]byte, size)
	for i := range content {
		content[i] = byte(i + i>>8*31)
	}
	l, err := f.plan(int64(size))
	if err != nil {
		return err
	}
	t := &transfer{c: c, name: probeName(), file: bytes.NewReader(content), size: int64(size), layout: l, form: f, trust: proven}
	theirs := uint32(0)
	r, err := t.exchange(ctx, c.conn, false)
	if err == nil {
		theirs, err = t.received(r)
	}
	if err != nil {
		c.drop() // more replies may follow
	} else if theirs != t.sum {
		err = ErrChecksum
	}
	c.abort(ctx, t)
	return err
}

// abort ends a probe. That the server has nothing to abort is no matter.
func (c *Client) abort(ctx context.Context, t *transfer) {
	if err := c.ready(ctx); err != nil {
		return
	}
	msg := codec.Verdict{Code: codec.CodeAbort, FileName: []byte(t.name)}.Append(nil, c.identity.ID)
	r, err := c.exchange(ctx, c.conn, codec.CodeAbort, msg)
	if err != nil || r.code != codec.CodeAck {
		c.drop()
	}
}

// ready makes sure of a connection on which a file can be sent. The regular way
// is that of any client that comes back. A server that does not have us back in
// any way may only refuse to do so: then the last key may still be good.
func (c *Client) ready(ctx context.Context) error {
	if c.conn != nil && c.conn.usable() == nil {
		return nil
	}
	c.drop()
	me, key := c.identity, c.aesKey
	_, err := c.comeBack(ctx, me)
	if isRefusal(err) || errors.Is(err, ErrRejected) {
		c.identity, c.aesKey, c.hasKey = me, key, true
		err = c.connect(ctx)
	}
	return err
}
