package client

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"

	"sealift/codec"
)

// How long the first message to a server goes without a reply before others are
// asked beside it, and how long each of these may take. Variables for tests.
var (
	suspicion        = 5 * time.Second
	strangerPatience = 3 * time.Second
)

// errOtherCodes ends a try of a first message whose number the server does not
// know.
var errOtherCodes = errors.New("the server numbers its requests otherwise")

// isFirst reports whether a request is one that a conversation may begin with.
func isFirst(code codec.Code) bool {
	return code == codec.CodeRegister || code == codec.CodePublicKey || code == codec.CodeReconnect
}

// findCodes finds out how the server numbers requests: by a 1027 and an 827
// under an id and a name that nobody has, each on a connection of its own. They
// change nothing on a server, and the one that it knows gets a 1606. refused
// says that the message that failed got a 1607, beside that it still waits: then
// silence says nothing, for the server may serve one connection at a time. A server
// that is away is not judged. It reports whether requests are numbered otherwise from now on.
func (c *Client) findCodes(ctx context.Context, refused, beside bool) (changed bool) {
	before := c.peer.number()
	c.log.Warn("finding out how the server numbers requests", "codes", "1025 or 825")
	var got [2]codec.Code // by Codes
	// If it knows both, 1025 is used. Where that got a 1607 and 825 a 1606, 1025 is
	// asked again: the 1607 may have been about something else.
	for _, codes := range []Codes{Codes1025, Codes825, Codes1025} {
		probe, end, ok := c.peer.budget.take(ctx)
		if !ok {
			break
		}
		var away bool
		got[codes], away = c.askStranger(probe, codes)
		end()
		if away {
			c.peer.budget.giveBack()
		}
		if away || ctx.Err() != nil {
			return false
		}
		if got[Codes1025] == codec.CodeReconnectRejected ||
			codes == Codes825 && (got[Codes825] != codec.CodeReconnectRejected || got[Codes1025] != codec.CodeError) {
			break
		}
	}
	if beside && got[Codes1025] == 0 && got[Codes825] == 0 {
		return false
	}
	found := before
	switch {
	case got[Codes1025] == codec.CodeReconnectRejected:
		found = Codes1025
	case got[Codes825] == codec.CodeReconnectRejected:
		found = Codes825
	case !refused && got[Codes1025] == 0 && got[Codes825] != 0:
		found = Codes825 // it has no words for a number that it does not know
	}
	c.peer.foundCodes(found)
	if found != before {
		c.log.Warn("the server numbers requests otherwise", "codes", found)
	}
	return found != before
}

// askStranger sends a 1027 or 827 of somebody whom no server knows, and returns
// the code of the reply, or 0 if there was none. away says that the server cannot
// be reached, or turns away whoever connects.
func (c *Client) askStranger(ctx context.Context, codes Codes) (code codec.Code, away bool) {
	dialling, cancel := context.WithTimeout(ctx, c.opts.DialTimeout)
	defer cancel()
	nc, err := c.open(dialling, c.identity)
	if err != nil {
		return 0, true
	}
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { nc.Close() })()
	in := bufio.NewReader(nc)
	if c.opts.RetryFor > 0 {
		_ = nc.SetReadDeadline(time.Now().Add(unasked))
		if _, err := in.Peek(1); err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, true
		}
	}
	msg := codec.Reconnect{Name: []byte(probeName())}.Append(nil, codec.ClientID(uuid.New()))
	codes.put(msg, codec.CodeReconnect)
	if nc.SetDeadline(time.Now().Add(strangerPatience)) != nil {
		return 0, false
	}
	if _, err := nc.Write(msg); err != nil {
		return 0, false
	}
	r, err := readReply(in, nil)
	if err != nil {
		c.log.Debug("asked as nobody", "codes", codes, "because", err)
		return 0, false
	}
	c.log.Debug("asked as nobody", "codes", codes, "received", r.code)
	return r.code, false
}

// probeName returns a name for a user or a file that nobody has: letters and
// digits, a letter first.
func probeName() string { return "probe" + strings.ToLower(rand.Text()[:12]) }
