package s3

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"sealift/storage"
)

// kept is what an object says that a Flush has made: the first bytes of an upload are in these parts of
// a multipart upload, and then in the object itself, behind a line of JSON with this in it. So another server
// needs nothing but the row of the partial file to go on.
//
// Whoever may still have the upload open must change nothing any more when Reopen returns. So an upload
// that was flushed, or reopened, always has a multipart upload, each Reopen makes one of its own, and
// ends those that were: then no part, no Complete and no Flush of theirs succeeds. What was kept by an upload that has ended is
// not believed, unless the object that was made of its parts is there.
type kept struct {
	Upload string     `json:"upload,omitempty"`
	Parts  []keptPart `json:"parts,omitempty"`
	Rest   int64      `json:"rest"` // bytes behind the line
	Sum    string     `json:"crc32c"`
}

type keptPart struct {
	Size     int64  `json:"size"`
	ETag     string `json:"etag"`
	Checksum string `json:"crc32c"`
}

// maxLine is how long the line of a kept may be: each part needs less than 150 bytes.
const maxLine = 4 << 20

// Flush implements storage.Files, for content that came in through this store.
func (s *Store) Flush(ctx context.Context, up storage.Uploaded, length int64) error {
	if _, err := s.objectOf(up); err != nil {
		return err
	}
	in := s.find(up.Key)
	if in == nil || in.up != up {
		return s.isKept(ctx, up, length)
	}
	if err := in.take(ctx); err != nil {
		return err
	}
	defer in.giveBack()
	return in.flush(ctx, length)
}

// isKept returns nil if the first bytes of an upload are in the bucket.
func (s *Store) isKept(ctx context.Context, up storage.Uploaded, length int64) error {
	t, err := s.what(ctx, up)
	if err != nil {
		return err
	}
	if t.object >= length || length == 0 && len(t.kept) > 0 || slices.ContainsFunc(t.kept, func(k keptName) bool { return k.length == length }) {
		return nil
	}
	return fmt.Errorf("%w: nothing of the upload was kept", storage.ErrNotStored)
}

// flush makes the first length bytes durable. The caller has the turn.
func (in *incoming) flush(ctx context.Context, length int64) error {
	if in.reopened && length == in.opened {
		return nil // it is what it was reopened by
	}
	if err := in.cutFor(ctx, length); err != nil {
		return err
	}
	in.mu.Lock()
	if in.failed != nil || length > in.size {
		defer in.mu.Unlock()
		if in.failed != nil {
			return in.failed
		}
		return fmt.Errorf("%w: only %d bytes came in", storage.ErrNotStored, in.size)
	}
	// The parts that the length lies behind, or in: then Reopen has the server copy what it needs.
	n, end := 0, int64(0)
	for n < len(in.parts) && end < length {
		end = in.parts[n].end()
		n++
	}
	if rest := length - end; rest > 0 {
		in.hold = end
		defer func() {
			in.mu.Lock()
			in.hold = math.MaxInt64
			in.mu.Unlock()
			in.dropDone()
		}()
	}
	in.mu.Unlock()
	if err := in.wait(ctx, n); err != nil {
		return err
	}
	if err := in.begin(ctx, true); err != nil {
		return err
	}
	name, err := in.keep(ctx, in.parts[:n:n], end, length)
	if err != nil {
		return err
	}
	// It counts only if nobody has ended the multipart upload by then.
	if _, err := in.s.listParts(ctx, in.object, in.uploadID, 1); err != nil {
		if err = in.lost(err); errors.Is(err, storage.ErrSuperseded) {
			err = errors.Join(err, in.s.remove(ctx, name.name))
		}
		return err
	}
	return nil
}

// cutFor cuts a part at length, if there is enough for one.
func (in *incoming) cutFor(ctx context.Context, length int64) error {
	wanted := func() bool {
		in.mu.Lock()
		defer in.mu.Unlock()
		return in.failed == nil && length <= in.size && length-in.cut >= minPart
	}
	if !wanted() {
		return nil
	}
	if err := in.slot(ctx); err != nil {
		return err
	}
	if !wanted() { // a Write has cut one
		<-in.slots
		return nil
	}
	in.mu.Lock()
	if length-in.cut < minPart {
		in.mu.Unlock()
		<-in.slots
		return nil
	}
	p, err := in.cutAt(length)
	in.mu.Unlock()
	if err != nil {
		<-in.slots
		return err
	}
	go in.send(p)
	return nil
}

// keep makes the object that says what was flushed, and removes those that nobody needs any more.
func (in *incoming) keep(ctx context.Context, parts []*part, end, length int64) (keptName, error) {
	in.mu.Lock()
	k := kept{Upload: in.uploadID}
	in.mu.Unlock()
	for _, p := range parts {
		k.Parts = append(k.Parts, keptPart{p.size, p.etag, p.checksum})
	}
	if k.Rest = length - end; k.Rest < 0 {
		k.Rest = 0
	}
	rest := io.NewSectionReader(in.area, end, k.Rest)
	sum, err := sumOf(rest)
	if err != nil {
		return keptName{}, err
	}
	k.Sum = base64Sum(sum)
	line, err := json.Marshal(k)
	if err != nil {
		return keptName{}, err
	}
	content := &lineAndRest{append(line, '\n'), rest}
	size := int64(len(content.line)) + k.Rest
	if sum, err = sumOf(io.NewSectionReader(content, 0, size)); err != nil {
		return keptName{}, err
	}
	name := keptName{keptObject(in.object, length, in.writes), length, in.writes}
	if err := in.s.putObject(ctx, name.name, content, size, base64Sum(sum)); err != nil {
		return keptName{}, err
	}
	in.mu.Lock()
	if !slices.Contains(in.kept, name) {
		in.kept = append(in.kept, name)
	}
	in.mu.Unlock()
	in.thin(ctx)
	return name, nil
}

// thin removes what was flushed before the last two times: what is on record is one of these, or what the upload was reopened
// with, to which a client may go back.
func (in *incoming) thin(ctx context.Context) {
	for {
		in.mu.Lock()
		first := 0
		if in.reopened && len(in.kept) > 0 && in.kept[0].length == in.opened {
			first = 1
		}
		if len(in.kept)-first <= 2 {
			in.mu.Unlock()
			return
		}
		name := in.kept[first].name
		in.kept = slices.Delete(in.kept, first, first+1)
		in.mu.Unlock()
		if err := in.s.remove(ctx, name); err != nil {
			return // it goes with the upload
		}
	}
}

// lineAndRest reads a line and what comes behind it.
type lineAndRest struct {
	line []byte
	rest io.ReaderAt
}

func (l *lineAndRest) ReadAt(p []byte, off int64) (n int, err error) {
	if off < int64(len(l.line)) {
		n = copy(p, l.line[off:])
	}
	if n == len(p) {
		return n, nil
	}
	m, err := l.rest.ReadAt(p[n:], off+int64(n)-int64(len(l.line)))
	return n + m, err
}

// read opens what name has kept. The caller closes the rest.
func (s *Store) readKept(ctx context.Context, name keptName) (k kept, rest io.ReadCloser, err error) {
	body, err := s.get(ctx, name.name, 0)
	if err != nil {
		return k, nil, err
	}
	buffered := bufio.NewReader(body)
	line, err := readLine(buffered)
	if err == nil {
		err = json.Unmarshal(line, &k)
	}
	if err == nil && !k.fits(name.length) {
		err = errors.New("its numbers do not fit together")
	}
	if err != nil {
		return k, nil, errors.Join(fmt.Errorf("%w: %s: %w", storage.ErrNotStored, name.name, err), body.Close())
	}
	return k, struct {
		io.Reader
		io.Closer
	}{buffered, body}, nil
}

func readLine(r *bufio.Reader) (line []byte, err error) {
	for {
		piece, err := r.ReadSlice('\n')
		line = append(line, piece...)
		switch {
		case err == nil:
			return line, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		case len(line) > maxLine:
			return nil, errors.New("its first line is too long")
		}
	}
}

// fits reports whether k is about that many bytes, or about parts the last of which ends behind them.
func (k *kept) fits(length int64) bool {
	end := int64(0)
	for i, p := range k.Parts {
		if p.Size <= 0 || end >= length || i == maxParts {
			return false
		}
		end += p.Size
	}
	return k.Rest >= 0 && (end+k.Rest == length || k.Rest == 0 && end > length) && (len(k.Parts) == 0 || k.Upload != "")
}
