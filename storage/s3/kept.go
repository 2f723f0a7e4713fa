package s3

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/minio/minio-go/v7"

	"sealift/storage"
)

// kept is what an object says that a Flush has made: the first bytes of an upload are in these parts of
// a multipart upload, and then in the object itself, behind a line of JSON with this in it. So another server
// needs nothing but the row of the partial file to go on.
//
// Its name has the length, and the instance of the incoming file: a server that was cut off, and flushes
// as much of the same upload, does not write over it. If there are two that say different things of one length, none is
// believed.
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
	err := in.flush(ctx, length)
	<-in.turn
	if err != nil {
		return err
	}
	in.mu.Lock()
	closed := in.parked != nil && !in.whole
	in.mu.Unlock()
	if closed { // what was not flushed is of no use any more
		in.leave()
	}
	return nil
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
	if err := in.begin(ctx, false); err != nil {
		return err
	}
	return in.keep(ctx, in.parts[:n:n], end, length)
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
	name := keptName{keptObject(in.object, length, in.writes), length, in.writes}
	if err := in.s.putObject(ctx, name.name, content, size, base64Sum(sum)); err != nil {
		return err
	}
	in.mu.Lock()
	if !slices.Contains(in.kept, name) {
		in.kept = append(in.kept, name)
	}
	in.mu.Unlock()
	in.thin(ctx)
	return nil
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

// same reports whether two say the same of the content.
func (k *kept) same(other *kept) bool {
	return k.Rest == other.Rest && k.Sum == other.Sum && k.Upload == other.Upload && slices.Equal(k.Parts, other.Parts)
}

// Reopen implements storage.Files. What was flushed of length bytes is found by its name; of a file that was
// completed, the server copies them.
func (s *Store) Reopen(ctx context.Context, up storage.Uploaded, size storage.Announced, length int64) (storage.Incoming, error) {
	if _, err := s.objectOf(up); err != nil {
		return nil, errors.Join(err, ctx.Err())
	}
	if in := s.find(up.Key); in != nil { // closed, and not flushed
		in.leave()
	}
	t, err := s.what(ctx, up)
	if err != nil {
		return nil, err
	}
	name, found, err := s.choose(ctx, t.kept, length)
	if err != nil {
		return nil, err
	}
	if !found && t.object < length && (length > 0 || len(t.kept) == 0) {
		return nil, fmt.Errorf("%w: the first %d bytes of the upload were not kept", storage.ErrNotStored, length)
	}
	in := s.newIncoming(up, size)
	in.reopened, in.opened, in.sent = true, length, true
	switch {
	case found:
		err = in.goOn(ctx, name)
	default:
		err = in.goBack(ctx, t.object, length)
	}
	if err != nil {
		in.leave()
		return nil, err
	}
	return in, nil
}

// choose returns what was kept of that length, if all that was agrees.
func (s *Store) choose(ctx context.Context, names []keptName, length int64) (chosen keptName, found bool, err error) {
	var first kept
	for _, name := range names {
		if name.length != length {
			continue
		}
		if !found {
			chosen, found = name, true
			continue
		}
		if first.Sum == "" {
			if first, err = s.keptLine(ctx, chosen); err != nil {
				return chosen, false, err
			}
		}
		k, err := s.keptLine(ctx, name)
		if err != nil {
			return chosen, false, err
		}
		if !first.same(&k) {
			return chosen, false, fmt.Errorf("%w: two servers have kept different content", storage.ErrNotStored)
		}
	}
	return chosen, found, nil
}

func (s *Store) keptLine(ctx context.Context, name keptName) (kept, error) {
	k, rest, err := s.readKept(ctx, name)
	if err != nil {
		return k, err
	}
	return k, rest.Close()
}

// goOn has the upload go on with what was kept.
func (in *incoming) goOn(ctx context.Context, name keptName) error {
	k, rest, err := in.s.readKept(ctx, name)
	if err != nil {
		return err
	}
	defer rest.Close()
	in.mu.Lock()
	in.uploadID, in.kept = k.Upload, []keptName{name}
	for i, p := range k.Parts {
		done := make(chan struct{})
		close(done)
		in.parts = append(in.parts, &part{number: i + 1, from: in.cut, size: p.Size, etag: p.ETag, checksum: p.Checksum, done: done})
		in.cut += p.Size
	}
	in.size = in.cut
	in.sum, in.sumFrom = 0, in.cut
	in.mu.Unlock()
	if in.cut > name.length { // it ends within a part, which can be read when there is an object of it
		if err := in.begin(ctx, false); err != nil {
			return err
		}
		if err := in.s.completeParts(ctx, in.object, k.Upload, in.parts); err != nil {
			return lostParts(err)
		}
		object := in.cut
		in.mu.Lock()
		in.uploadID, in.parts, in.cut, in.size, in.sumFrom, in.kept = "", nil, 0, 0, 0, nil
		in.mu.Unlock()
		if err := in.goBack(ctx, object, name.length); err != nil {
			return err
		}
		return in.s.remove(ctx, name.name)
	}
	if len(k.Parts) > 0 {
		if err := in.s.checkParts(ctx, in.object, k); err != nil {
			return err
		}
	}
	return in.takeIn(rest, k.Rest, k.Sum)
}

// takeIn writes content of the bucket to the scratch file.
func (in *incoming) takeIn(r io.Reader, size int64, sum string) error {
	w := &appender{in: in}
	n, err := io.Copy(w, io.LimitReader(r, size))
	if err == nil && (n != size || sum != "" && base64Sum(in.sum) != sum) {
		err = fmt.Errorf("%w: what was kept of it is not what was flushed", storage.ErrNotStored)
	}
	return err
}

// appender appends to an upload that nobody else uses yet, and cuts no part.
type appender struct{ in *incoming }

func (w *appender) Write(p []byte) (int, error) {
	in := w.in
	n, err := in.area.WriteAt(p, in.size)
	if err != nil {
		return n, err
	}
	in.mu.Lock()
	in.size += int64(n)
	in.sum = crc32.Update(in.sum, castagnoli, p)
	in.mu.Unlock()
	return n, nil
}

// checkParts sees to it that the multipart upload still has the parts that were kept: an
// S3 server may have taken it away, or another server may have written over them.
func (s *Store) checkParts(ctx context.Context, object string, k kept) error {
	have := make(map[int]string)
	for marker := 0; ; {
		var page minio.ListObjectPartsResult
		err := s.try(ctx, "ListParts", func(ctx context.Context) (err error) {
			page, err = s.core.ListObjectParts(ctx, s.bucket, object, k.Upload, marker, 1000)
			return err
		})
		if err != nil {
			return lostParts(err)
		}
		for _, p := range page.ObjectParts {
			have[p.PartNumber] = strings.Trim(p.ETag, `"`)
		}
		if !page.IsTruncated || page.NextPartNumberMarker <= marker {
			break
		}
		marker = page.NextPartNumberMarker
	}
	for i, p := range k.Parts {
		if have[i+1] != p.ETag {
			return fmt.Errorf("%w: part %d of the upload is not the one that was kept", storage.ErrNotStored, i+1)
		}
	}
	return nil
}

// lostParts makes storage.ErrNotStored of what says that a multipart upload is gone, or has other parts.
func lostParts(err error) error {
	if code := errorCode(err); code == "NoSuchUpload" || code == "InvalidPart" {
		return fmt.Errorf("%w: %w", storage.ErrNotStored, err)
	}
	return err
}

// copyPiece is how much of an object becomes one part of another, in bytes.
const copyPiece = 256 << 20

// goBack begins the upload anew with the first length bytes of its object, and removes that.
func (in *incoming) goBack(ctx context.Context, object, length int64) error {
	if err := in.begin(ctx, length >= minPart); err != nil {
		return err
	}
	var err error
	switch {
	case length == 0:
	case length >= minPart:
		err = in.copyFrom(ctx, length)
	default:
		var r io.ReadCloser
		if r, err = in.s.get(ctx, in.object, 0); err == nil {
			err = errors.Join(in.takeIn(r, length, ""), r.Close())
		}
	}
	if err != nil || object < 0 {
		return err
	}
	if length > 0 {
		if err := in.keep(ctx, in.parts, in.cut, length); err != nil {
			return err
		}
	}
	return in.s.remove(ctx, in.object) // there is an object only of what is complete
}

// copyFrom has the server make parts of the first length bytes of the object.
func (in *incoming) copyFrom(ctx context.Context, length int64) error {
	pieces := length / copyPiece
	if length%copyPiece >= minPart || pieces == 0 {
		pieces++
	}
	for number := range pieces {
		from := number * copyPiece
		size := length - from
		if number < pieces-1 {
			size = copyPiece
		}
		p := &part{number: int(number) + 1, from: from, size: size, done: make(chan struct{})}
		close(p.done)
		err := in.s.try(ctx, "UploadPartCopy", func(ctx context.Context) error {
			copied, err := in.s.core.CopyObjectPart(ctx, in.s.bucket, in.object, in.s.bucket, in.object, in.uploadID, p.number, from, size, nil)
			p.etag, p.checksum = strings.Trim(copied.ETag, `"`), copied.ChecksumCRC32C
			return err
		})
		if err != nil {
			return err
		}
		in.mu.Lock()
		in.parts, in.cut, in.size, in.sumFrom = append(in.parts, p), from+size, from+size, from+size
		in.mu.Unlock()
	}
	return nil
}
