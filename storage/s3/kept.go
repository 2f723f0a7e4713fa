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
type kept struct {
	Upload string     `json:"upload,omitempty"`
	Parts  []keptPart `json:"parts,omitempty"`
	Rest   int64      `json:"rest_bytes"` // bytes behind the line
	Sum    string     `json:"crc32c"`
}

type keptPart struct {
	Size     int64  `json:"size_bytes"`
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
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(in.ctx, cancel)() // whoever closes the upload does not wait for it
	err := in.flush(ctx, length)
	if failed := in.failure(); failed != nil {
		return failed
	}
	return err
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

// flush has the bucket keep the first length bytes. The caller has the turn.
func (in *incoming) flush(ctx context.Context, length int64) error {
	if err := in.cutFor(ctx, length); err != nil {
		return err
	}
	in.mu.Lock()
	switch {
	case in.failed != nil:
		defer in.mu.Unlock()
		return in.failed
	case len(in.kept) > 0 && length <= in.kept[len(in.kept)-1].length:
		in.mu.Unlock()
		return nil
	case length > in.size:
		defer in.mu.Unlock()
		return fmt.Errorf("%w: only %d bytes came in", storage.ErrNotStored, in.size)
	}
	// The parts that the length lies behind, or in: then Reopen has the server copy what it needs.
	n, end := 0, int64(0)
	for n < len(in.parts) && end < length {
		end = in.parts[n].end()
		n++
	}
	in.hold = end // what lies behind is read here, also if a Write has it sent meanwhile
	in.mu.Unlock()
	defer func() {
		in.mu.Lock()
		in.hold = math.MaxInt64
		in.mu.Unlock()
		in.dropDone()
	}()
	if err := in.wait(ctx, n); err != nil {
		return err
	}
	if err := in.begin(ctx, false); err != nil {
		return err
	}
	if err := in.keep(ctx, in.parts[:n:n], end, length); err != nil {
		return err
	}
	in.thin(ctx)
	return nil
}

// cutFor cuts a part at length, if there is enough for one.
func (in *incoming) cutFor(ctx context.Context, length int64) error {
	in.mu.Lock()
	enough := length <= in.size && length-in.cut >= minPart
	in.mu.Unlock()
	if !enough {
		return nil
	}
	if err := in.slot(ctx); err != nil {
		return err
	}
	in.mu.Lock()
	if in.failed != nil || length-in.cut < minPart { // a Write has cut one
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

// keep makes the object that says what was flushed.
func (in *incoming) keep(ctx context.Context, parts []*part, end, length int64) error {
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
		return err
	}
	k.Sum = base64Sum(sum)
	line, err := json.Marshal(k)
	if err != nil {
		return err
	}
	content := &lineAndRest{append(line, '\n'), rest}
	size := int64(len(content.line)) + k.Rest
	if sum, err = sumOf(io.NewSectionReader(content, 0, size)); err != nil {
		return err
	}
	name := keptName{keptObject(in.object, length), length}
	if err := in.s.putObject(ctx, name.name, content, size, base64Sum(sum)); err != nil {
		return err
	}
	in.mu.Lock()
	in.kept = append(in.kept, name)
	in.mu.Unlock()
	return nil
}

// thin removes what was flushed before the last two times: what is on record is one of these.
func (in *incoming) thin(ctx context.Context) {
	for {
		in.mu.Lock()
		if len(in.kept) <= 2 {
			in.mu.Unlock()
			return
		}
		first := in.kept[0].name
		in.kept = in.kept[1:]
		in.mu.Unlock()
		if in.s.remove(ctx, first) != nil {
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

// readKept opens what name has kept. The caller closes the rest.
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
