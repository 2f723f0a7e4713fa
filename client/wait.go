package client

import (
	"context"
	"fmt"
	"time"

	"sealift/codec"
)

// patience is how long a person waits without being told what for. A variable
// for tests.
var patience = 3 * time.Second

// notice tells, unless it is stopped before, what is waited for and how long
// yet. The whole wait is limit.
func (c *Client) notice(what string, limit time.Duration) *time.Timer {
	left := limit - patience
	if left <= 0 || c.quiet {
		return time.NewTimer(limit) // never read
	}
	return time.AfterFunc(patience, func() {
		c.log.Warn("still waiting", "for", what, "at_most_seconds", left.Round(time.Second).Seconds())
	})
}

// noticeEndless is notice for a wait that only its context ends.
func (c *Client) noticeEndless(what string) *time.Timer {
	return time.AfterFunc(patience, func() {
		if !c.quiet {
			c.log.Warn("still waiting", "for", what)
		}
	})
}

// write sends b in one write, and tells when that takes long. An error is an
// ErrConnection.
func (c *Client) write(cn *conn, b []byte) error {
	defer c.notice("the server to read what was sent", c.opts.WriteTimeout).Stop()
	return cn.write(b, c.opts.WriteTimeout)
}

// await returns the reply to a request, and tells when it is long in coming.
// While the first message of a conversation waits, others are asked beside it
// how the server numbers requests; an errOtherCodes says that it does so
// otherwise. The first message may still be answered meanwhile, so a slow server
// loses nothing.
func (c *Client) await(ctx context.Context, cn *conn, request codec.Code, limit time.Duration) (reply, error) {
	defer c.notice(fmt.Sprintf("the reply to %v", request), limit).Stop()
	if !isFirst(request) || limit <= suspicion || !c.peer.mayFindCodes(c.attempt > 1) {
		return cn.await(ctx, limit)
	}
	began := time.Now()
	r, err := cn.await(ctx, suspicion)
	if !isSilence(err) {
		return r, err
	}
	before, known := c.peer.number(), false
	beside, stop := context.WithCancel(ctx)
	changed := make(chan bool, 1)
	go func() { changed <- c.findCodes(beside, false, true) }()
	defer func() {
		stop()
		if changed != nil {
			<-changed
		}
		if known {
			c.peer.foundCodes(before)
		}
	}()
	left := time.NewTimer(limit - time.Since(began))
	defer left.Stop()
	for {
		select {
		case got := <-cn.replies:
			known = got.err == nil && got.code != codec.CodeError
			return got.reply, got.err
		case yes := <-changed:
			changed = nil
			if yes {
				return reply{}, lost(errOtherCodes)
			}
		case <-ctx.Done():
			return reply{}, ctx.Err()
		case <-left.C:
			return reply{}, lost(silence(limit))
		}
	}
}
