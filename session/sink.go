package session

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"sealift/codec"
	"sealift/crypto/aescbc"
	"sealift/crypto/cksum"
	"sealift/storage"
)

// fault is why a transfer is refused though nothing in the server failed.
type fault string

func (f fault) Error() string { return string(f) }

const (
	errPadding    = fault("the content does not decrypt: wrong key or damaged")
	errOrigSize   = fault("the decrypted size is not the Orig File Size")
	errNotWhole   = fault("all packets are in, and the ciphertext is not whole")
	errTooLarge   = fault("the file is larger than the server takes")
	errTooMany    = fault("too many transfers under way on the connection")
	errGoingDown  = fault("the server is going down")
	errUnverified = fault("what the client has without a verdict is more than --max-unverified allows")
	errTooDeep    = fault("the file name has more than 16 folders")
	errNotZero    = fault("bytes past the Content Size are not zero")
)

// errUnfinished is what a piece of work leaves that does not come to its end: a
// host recovers from a panic, and no result must not look like success.
var errUnfinished = errors.New("the work did not come to its end")

// headroom is left free at the start of each buffer, for the bytes of a cipher
// block that the content before it ended in.
const headroom = aescbc.BlockSize

// stride is how much is decrypted and summed at a time, in bytes: it stays in
// the first caches from the one to the other.
const stride = 32 << 10

// chunk is a buffer of content on its way to a sink.
type chunk struct {
	buf  []byte // from Host.Buffer; the content begins at headroom
	n    int    // bytes of content
	ends []end  // where ciphertexts end in it, ascending
	// spill is, for content that came before its turn, the place in the scratch
	// room where it goes, and -1 for content that is to be decrypted.
	spill int64
	marks []mark // the packets that begin in it, if it goes there
}

// end is where a ciphertext ends: the place in the content and the size that
// the client claims for what is in it, -1 if it claims none.
type end struct {
	at   int
	orig int64
}

// span is content that came before its turn and whose turn has come.
type span struct {
	mem  []byte // the content, or nil: it is in the scratch room at off
	off  int64
	n    int64 // bytes of ciphertext
	pad  int64 // bytes behind it that must be zero
	ends bool  // the ciphertext ends here
	orig int64 // as in end
}

// sink is the far end of a transfer: it decrypts, sums and stores. One job at
// a time owns it.
type sink struct {
	files storage.Files
	id    codec.ClientID // for Files.Create, as path and hint
	path  string
	hint  int64
	limit int64 // bytes, the largest file

	dec     *aescbc.Decrypter
	sum     cksum.Hash
	out     storage.Incoming
	closed  bool  // out is
	size    int64 // bytes, decrypted
	part    int64 // of these, since the ciphertext began
	carry   [aescbc.BlockSize]byte
	carried int
	scratch storage.Scratch
}

// job is one job of a transfer: the content of c if it has a buffer, or else
// the spans or the run, and the end of the file if this is it.
func (k *sink) job(ctx context.Context, c *chunk, spans []span, r *run, finish bool) (err error) {
	switch {
	case c.buf != nil:
		err = k.take(ctx, c)
	case spans != nil:
		err = k.replay(ctx, spans)
	case r != nil:
		err = k.replayRun(ctx, r)
	}
	if err == nil && finish {
		err = k.finish(ctx)
	}
	return err
}

// take decrypts and stores the content of c, or puts it aside if it came early.
func (k *sink) take(ctx context.Context, c *chunk) error {
	if c.spill >= 0 {
		return k.putAside(ctx, c)
	}
	in := headroom - k.carried
	copy(c.buf[in:], k.carry[:k.carried])
	k.carried = 0
	start, out := in, in
	for _, e := range c.ends {
		n, err := k.decryptLast(c.buf[in:headroom+e.at], e.orig)
		if err != nil {
			return err
		}
		if out != in { // close the gap that the padding left
			copy(c.buf[out:], c.buf[in:in+n])
		}
		out += n
		in = headroom + e.at
	}
	rest := c.buf[in : headroom+c.n]
	whole := len(rest) &^ (aescbc.BlockSize - 1)
	k.carried = copy(k.carry[:], rest[whole:])
	k.decrypt(rest[:whole])
	if out != in {
		copy(c.buf[out:], rest[:whole])
	}
	return k.write(ctx, c.buf[start:out+whole])
}

// decrypt turns whole blocks into plaintext, in place, and sums it.
func (k *sink) decrypt(b []byte) {
	k.part += int64(len(b))
	for len(b) > 0 {
		p := b[:min(stride, len(b))]
		k.dec.CryptBlocks(p, p)
		k.sum.Write(p)
		b = b[len(p):]
	}
}

// decryptLast does the same with the end of a ciphertext, and returns how much
// plaintext it is.
func (k *sink) decryptLast(b []byte, orig int64) (int, error) {
	if len(b) == 0 || len(b)%aescbc.BlockSize != 0 {
		return 0, errPadding
	}
	bulk := len(b) - aescbc.BlockSize
	k.decrypt(b[:bulk])
	n, err := k.dec.Final(b[bulk:], b[bulk:])
	if err != nil {
		return 0, errPadding
	}
	k.sum.Write(b[bulk : bulk+n])
	if k.part += int64(n); orig >= 0 && k.part != orig {
		return 0, fmt.Errorf("%w: %d, not %d", errOrigSize, k.part, orig)
	}
	k.dec.Reset()
	k.part = 0
	return bulk + n, nil
}

func (k *sink) write(ctx context.Context, p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if k.size += int64(len(p)); k.size > k.limit {
		return errTooLarge
	}
	if err := k.open(ctx); err != nil {
		return err
	}
	_, err := k.out.Write(p)
	return err
}

func (k *sink) open(ctx context.Context) (err error) {
	if k.out == nil {
		k.out, err = k.files.Create(ctx, k.id, k.path, k.hint)
	}
	return err
}

// replayBuffers are for content that comes out of the scratch room, of
// replaySize bytes. Workers use them, one each, so they need no budget.
var replayBuffers = sync.Pool{New: func() any { b := make([]byte, replaySize); return &b }}

const replaySize = 256 << 10

// replay takes the spans, in order, as if their content came in now.
func (k *sink) replay(ctx context.Context, spans []span) error {
	buf := replayBuffers.Get().(*[]byte)
	defer replayBuffers.Put(buf)
	c := chunk{buf: *buf, spill: -1}
	drain := func() error {
		err := k.take(ctx, &c)
		c.n, c.ends = 0, c.ends[:0]
		return err
	}
	for _, sp := range spans {
		for done := int64(0); done < sp.n; {
			room := c.buf[headroom+c.n:]
			room = room[:min(int64(len(room)), sp.n-done)]
			if err := sp.read(k.scratch, room, done); err != nil {
				return err
			}
			c.n += len(room)
			done += int64(len(room))
			if done == sp.n && sp.ends {
				c.ends = append(c.ends, end{c.n, sp.orig})
			}
			if headroom+c.n == len(c.buf) {
				if err := drain(); err != nil {
					return err
				}
			}
		}
		if err := sp.checkPad(k.scratch); err != nil {
			return err
		}
	}
	return drain()
}

func (sp *span) read(scratch storage.Scratch, p []byte, from int64) error {
	if sp.mem != nil {
		copy(p, sp.mem[from:])
		return nil
	}
	return readScratch(scratch, p, sp.off+from)
}

func (sp *span) checkPad(scratch storage.Scratch) error {
	var b [4096]byte
	for done := int64(0); done < sp.pad; {
		p := b[:min(int64(len(b)), sp.pad-done)]
		if err := sp.read(scratch, p, sp.n+done); err != nil {
			return err
		}
		if !allZero(p) {
			return errNotZero
		}
		done += int64(len(p))
	}
	return nil
}

func allZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

// finish ends the writing; all content is in.
func (k *sink) finish(ctx context.Context) error {
	if err := k.open(ctx); err != nil { // an empty file
		return err
	}
	k.closed = true
	return errors.Join(k.out.Close(), k.closeScratch())
}

func (k *sink) closeScratch() (err error) {
	if s := k.scratch; s != nil {
		k.scratch = nil
		err = s.Close()
	}
	return err
}

// abandon removes all that the transfer left.
func (k *sink) abandon(ctx context.Context) error {
	err := k.closeScratch()
	if k.out == nil {
		return err
	}
	if !k.closed {
		err = errors.Join(err, k.out.Close())
	}
	return errors.Join(err, k.files.Discard(ctx, k.out.Key()))
}
