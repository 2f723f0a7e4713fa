package session

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"sealift/codec"
	"sealift/transfer"
)

// Faults make a server misbehave on purpose, so that those who write a client
// can see what it does then. Its methods may be called from any goroutine.
type Faults struct {
	// Delay is for the host: it sends each reply so much later.
	Delay time.Duration

	cut  int64 // bytes of a transfer's ciphertext after which its connection is reset; 0: never
	text string
	mu   sync.Mutex
	left map[faultKind]int // how often; below zero: for ever
}

// faultKind is a kind of fault and, where it has one, the code of the request
// that it strikes.
type faultKind struct {
	kind string
	code codec.Code
}

// ParseFaults reads a list of faults, separated by commas:
//
//	crc=N         the checksum in the next N 1603 is wrong
//	error=CODE:N  the next N requests CODE get 1607; of 1028, N transfers
//	drop=CODE:N   the next N requests CODE end the connection without a reply
//	reject=N      the next N 1027 get 1606
//	delay=TIME    each reply comes so much later: 200ms
//	cut=BYTES:N   the next N transfers of which so many bytes of content came in order,
//	              and more is to come, have their connection reset there
//
// N counts over all connections; -1 is for ever.
func ParseFaults(text string) (*Faults, error) {
	f := &Faults{text: text, left: make(map[faultKind]int)}
	for item := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(item), "=")
		if err := f.parse(name, value); err != nil {
			return nil, fmt.Errorf("fault %q: %w", item, err)
		}
	}
	return f, nil
}

func (f *Faults) parse(name, value string) (err error) {
	k := faultKind{kind: name}
	switch name {
	case "delay":
		if f.Delay, err = time.ParseDuration(value); err == nil && f.Delay < 0 {
			err = fmt.Errorf("delay %v is negative", f.Delay)
		}
		return err
	case "crc", "reject":
	case "cut":
		var bytes string
		bytes, value, _ = strings.Cut(value, ":")
		if f.cut, err = strconv.ParseInt(bytes, 10, 64); err != nil || f.cut <= 0 {
			return fmt.Errorf("%q: want a number of bytes, 1 or more", bytes)
		}
	case "error", "drop":
		var code string
		code, value, _ = strings.Cut(value, ":")
		n, err := strconv.ParseUint(code, 10, 16)
		if _, known := codec.RequestPayloadSize(codec.Code(n)); err != nil || !known {
			return fmt.Errorf("code %q: want that of a request, 1025 to 1032", code)
		}
		k.code = codec.Code(n)
	default:
		return fmt.Errorf("want crc=N, error=CODE:N, drop=CODE:N, reject=N, delay=TIME or cut=BYTES:N")
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < -1 || n == 0 {
		return fmt.Errorf("count %q: want 1, 2, … or -1 for ever", value)
	}
	f.left[k] = n
	return nil
}

// String is the text that the faults were parsed from.
func (f *Faults) String() string { return f.text }

// strike reports whether a fault of that kind is due, and counts it.
func (f *Faults) strike(kind string, code codec.Code) bool {
	if f == nil {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	k := faultKind{kind, code}
	n := f.left[k]
	if n > 0 {
		f.left[k]--
	}
	return n != 0
}

// sabotage does to a request what Config.Faults say. It returns false if they say
// nothing about it.
func (s *Session) sabotage(h codec.RequestHeader, payload []byte) bool {
	f := s.svc.Faults
	if f == nil || !s.uploads.beginsSomething(h, payload) {
		return false
	}
	switch {
	case f.strike("drop", h.Code):
		s.sayFault("connection dropped", h.Code)
		s.hungUp = true
		s.host.Hangup("fault injection")
	case f.strike("error", h.Code):
		s.sayFault("1607", h.Code)
		s.refuse(s.about(h, payload), errFault)
	case h.Code == codec.CodeReconnect && f.strike("reject", 0):
		s.sayFault("1606", h.Code)
		m, _ := codec.ParseReconnect(payload)
		s.reject(h.ID, string(m.Name), errFault)
	default:
		return false
	}
	return true
}

var errFault = &offence{ReasonFault, "fault injection"}

// beginsSomething reports whether a request is more than another packet of a transfer
// that is under way or was refused: faults count transfers, not packets.
func (us *uploads) beginsSomething(h codec.RequestHeader, payload []byte) bool {
	if h.Code != codec.CodeSendFile {
		return true
	}
	m, err := codec.ParseSendFile(payload)
	return err != nil || us.all[string(m.FileName)] == nil && us.refused.covering(h.ID, m) == nil
}

func (s *Session) sayFault(what string, code codec.Code) {
	s.log().Warn("FAULT INJECTED", s.fields(zap.String("fault", what), zap.Stringer("request", code))...)
}

// cutter is the host of a session whose connection may be reset in the middle of a
// file. It hands out buffers that are full where the content is to be cut.
type cutter struct {
	Host
	s    *Session
	mu   sync.Mutex
	full map[*byte]int // sizes of the buffers that were shortened
}

// resetter is a host that can end a connection as if the network had: at once, with a
// reset. One that cannot hangs up.
type resetter interface{ Reset(reason string) }

// watch has the content of s cut where the faults say so. It is called before the
// session takes anything. Nothing of it is lent then: see NewService.
func (f *Faults) watch(s *Session) {
	if f != nil && f.cut > 0 {
		s.host = &cutter{Host: s.host, s: s, full: make(map[*byte]int)}
	}
}

// Buffer returns one that ends where the content is to be cut, and cuts it when it has
// come there.
func (c *cutter) Buffer(size int) []byte {
	s, t := c.s, c.s.uploads.incoming.transfer
	left := s.svc.Faults.cut - t.Offset()
	if t.Place() != transfer.InOrder || left < 0 {
		return c.Host.Buffer(size)
	}
	if left == 0 && s.svc.Faults.strike("cut", 0) {
		s.sayFault("connection reset", codec.CodeSendFile)
		s.hungUp = true
		if r, ok := c.Host.(resetter); ok {
			r.Reset("fault injection")
		} else {
			c.Hangup("fault injection")
		}
		return nil
	}
	buf := c.Host.Buffer(size)
	if short := Headroom + left; left > 0 && int64(len(buf)) > short {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.full[&buf[0]] = len(buf)
		buf = buf[:short]
	}
	return buf
}

// Release gives back the whole of what the host's Buffer returned.
func (c *cutter) Release(buf []byte) {
	c.mu.Lock()
	n, shortened := c.full[&buf[0]]
	delete(c.full, &buf[0])
	c.mu.Unlock()
	if shortened {
		buf = buf[:n]
	}
	c.Host.Release(buf)
}
