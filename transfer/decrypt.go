package transfer

import (
	"context"
	"errors"
	"fmt"

	"sealift/crypto/aescbc"
	"sealift/crypto/cksum"
	"sealift/storage"
)

// stride is how much is decrypted and summed at a time, in bytes: it stays in
// the first caches from the one to the other.
const stride = 32 << 10

// sink is the far end of a transfer: it decrypts, sums and stores. The worker has
// it.
type sink struct {
	files     storage.Files
	place     storage.Place
	announced storage.Announced
	maxSize   int64

	dec *aescbc.Decrypter
	sum cksum.Hash
	out storage.Incoming // nil until there is content
	// reopened is the key of the incoming file that the transfer goes on with, "": it makes one.
	reopened string
	closed   bool  // out is
	size     int64 // bytes of the file, decrypted
	part     int64 // of these, since the ciphertext began
	carry    [aescbc.BlockSize]byte
	carried  int // bytes in carry: the beginning of a cipher block
	scratch  storage.Scratch
}

// Write decrypts and stores the content of p, or puts it aside if it came early. It
// changes the buffer, and does not keep it.
func (t *Transfer) Write(ctx context.Context, p *Part) error {
	if p.aside != nil {
		return t.sink.putAside(ctx, p)
	}
	return t.sink.decryptPart(ctx, p)
}

// Finish completes the incoming file. All content is written.
func (t *Transfer) Finish(ctx context.Context) error {
	k := &t.sink
	if err := k.open(ctx); err != nil { // an empty file
		return err
	}
	k.closed = true
	return errors.Join(k.out.Complete(ctx), k.closeScratch())
}

// Received is what there is of a file after its transfer. Its content is the incoming file Key.
type Received struct {
	Key   string
	Size  int64 // bytes
	Cksum uint32
}

// Received returns what came, after Finish.
func (t *Transfer) Received() Received {
	return Received{t.sink.out.Key(), t.sink.size, t.sink.sum.Sum32()}
}

// Written is how far a file has come. Its content is the incoming file Key.
type Written struct {
	Key    string // "": there is none yet
	Length int64  // bytes, from the beginning of the file
	State  uint32 // of their checksum, see cksum.Resume
}

// Written returns what is in the incoming file. A part of a cipher block, the last block of a
// ciphertext, and what came before its turn are not in it as long as something before them,
// or their padding, is to come. The worker is not at work, and its last work did not fail.
func (t *Transfer) Written() Written {
	k := &t.sink
	key := k.reopened
	if k.out != nil {
		key = k.out.Key()
	}
	return Written{key, k.size, k.sum.State()}
}

// Length is Written's.
func (t *Transfer) Length() int64 { return t.sink.size }

// Park ends a transfer whose incoming file is kept: that is closed, and has what Written
// says.
func (t *Transfer) Park(ctx context.Context) error {
	k := &t.sink
	err := k.closeScratch()
	if k.out != nil && !k.closed {
		k.closed = true
		err = errors.Join(err, k.out.Close(ctx))
	}
	return err
}

// Leaves reports whether something is in the store that Abandon has to remove. The
// worker is not at work.
func (t *Transfer) Leaves() bool { return t.sink.out != nil || t.sink.scratch != nil }

// Abandon removes all that the transfer left in the store.
func (t *Transfer) Abandon(ctx context.Context) error {
	k := &t.sink
	err := t.Park(ctx)
	if k.out == nil {
		return err
	}
	return errors.Join(err, k.files.Discard(ctx, storage.Uploaded{Place: k.place, Key: k.out.Key()}))
}

// decryptPart decrypts, sums and stores content in order. A ciphertext may begin
// and end anywhere in it: its padding leaves a gap, which the plaintext behind it
// closes.
func (k *sink) decryptPart(ctx context.Context, p *Part) error {
	before := k.carried
	content := p.buf[Headroom-before : Headroom+p.n]
	copy(content, k.carry[:before])
	k.carried = 0
	plain := packer{buf: content}
	from := 0
	for _, e := range p.ends {
		to := before + e.at
		n, err := k.decryptLast(content[from:to], e.orig)
		if err != nil {
			return err
		}
		plain.add(from, n)
		from = to
	}
	rest := content[from:]
	whole := len(rest) &^ (aescbc.BlockSize - 1)
	k.carried = copy(k.carry[:], rest[whole:])
	k.decrypt(rest[:whole])
	plain.add(from, whole)
	return k.write(ctx, content[:plain.n])
}

// packer moves what is kept of a buffer to its front.
type packer struct {
	buf []byte
	n   int // bytes kept so far
}

// add keeps the n bytes at from, which lie behind those that were kept before.
func (p *packer) add(from, n int) {
	if from != p.n {
		copy(p.buf[p.n:], p.buf[from:from+n])
	}
	p.n += n
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

// decryptLast does the same with the end of a ciphertext, and returns how many
// bytes of plaintext it is. orig is how many the whole ciphertext should have.
func (k *sink) decryptLast(b []byte, orig int64) (int, error) {
	if len(b) == 0 || len(b)%aescbc.BlockSize != 0 {
		return 0, ErrPadding
	}
	bulk := len(b) - aescbc.BlockSize
	k.decrypt(b[:bulk])
	n, err := k.dec.Final(b[bulk:], b[bulk:])
	if err != nil {
		return 0, ErrPadding
	}
	k.sum.Write(b[bulk : bulk+n])
	if k.part += int64(n); k.part != orig {
		return 0, fmt.Errorf("%w: %d, not %d", ErrOrigSize, k.part, orig)
	}
	k.dec.Reset()
	k.part = 0
	return bulk + n, nil
}

func (k *sink) write(ctx context.Context, p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if k.size+int64(len(p)) > k.maxSize {
		return ErrTooLarge
	}
	if err := k.open(ctx); err != nil {
		return err
	}
	_, err := k.out.Write(ctx, p)
	if err == nil {
		k.size += int64(len(p))
	}
	return err
}

func (k *sink) open(ctx context.Context) (err error) {
	switch {
	case k.out != nil:
	case k.reopened != "":
		k.out, err = k.files.Reopen(ctx, storage.Uploaded{Place: k.place, Key: k.reopened}, k.announced, k.size)
	default:
		k.out, err = k.files.Create(ctx, k.place, k.announced)
	}
	return err
}

func (k *sink) closeScratch() (err error) {
	if s := k.scratch; s != nil {
		k.scratch = nil
		err = s.Close()
	}
	return err
}
