package s3

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/minio/minio-go/v7"

	"sealift/storage"
)

const (
	// What S3 takes.
	minPart  = 5 << 20 // but for the last
	maxPart  = 5 << 30
	maxParts = 10_000
	maxSize  = 5 << 40

	// smallObject is up to how many bytes an object is small.
	smallObject = 1 << 20

	// growEvery is after how many parts they become twice as large, whatever was announced: 10,000
	// of them have room for all that S3 takes.
	growEvery = 1000

	checksumHeader = "X-Amz-Checksum-Crc32c"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// part is a part of a multipart upload.
type part struct {
	number int
	from   int64
	size   int64
	sum    uint32 // CRC-32C
	summed bool   // sum is known
	done   chan struct{}
	// When done is closed and the upload has not failed:
	etag     string
	checksum string // as S3 has it
}

func (p *part) end() int64 { return p.from + p.size }

// baseSize is the least size of the parts of a file. What the client announced is a hint: a file that becomes larger
// has parts that grow.
func (s *Store) baseSize(size storage.Announced) int64 {
	n, _ := size.Size()
	const mib = 1 << 20
	n = min(n, maxSize)
	return max(s.partSize, (n/(maxParts-growEvery)+mib-1)/mib*mib)
}

// nextSize is the size of the next part if nobody cuts it before. The caller holds mu.
func (in *incoming) nextSize() int64 {
	return min(maxPart, max(in.base, in.s.partSize<<(len(in.parts)/growEvery)))
}

// cutAt makes a part of what lies between the last one and end. The caller holds mu and
// has a slot for it.
func (in *incoming) cutAt(end int64) (*part, error) {
	if len(in.parts) == maxParts {
		return nil, fmt.Errorf("the file has more than %d parts", maxParts)
	}
	p := &part{number: len(in.parts) + 1, from: in.cut, size: end - in.cut, done: make(chan struct{})}
	if p.summed = in.sumFrom == in.cut && end == in.size; p.summed {
		p.sum = in.sum
	}
	if end == in.size {
		in.sum, in.sumFrom = 0, end
	} else {
		in.sumFrom = -1
	}
	in.parts, in.cut = append(in.parts, p), end
	return p, nil
}

// send sends a part, gives its slot back, and the room of what is in the bucket. It runs on a
// goroutine of its own.
func (in *incoming) send(p *part) {
	defer func() {
		close(p.done)
		in.dropDone()
		<-in.slots
	}()
	select {
	case in.s.sending <- struct{}{}:
		defer func() { <-in.s.sending }()
	case <-in.ctx.Done():
		in.fail(in.ctx.Err())
		return
	}
	if err := in.put(in.ctx, p); err != nil {
		in.fail(in.lost(err))
	}
}

func (in *incoming) put(ctx context.Context, p *part) error {
	if err := in.begin(ctx, true); err != nil {
		return err
	}
	if err := in.sumUp(p); err != nil {
		return err
	}
	in.mu.Lock()
	uploadID, plain := in.uploadID, in.plain
	in.mu.Unlock()
	checksum, options := base64Sum(p.sum), minio.PutObjectPartOptions{CustomHeader: make(http.Header)}
	if plain {
		sha, err := in.sha256(p)
		if err != nil {
			return err
		}
		checksum, options.DisableContentSha256, options.Sha256Hex = "", true, sha
	} else {
		options.CustomHeader.Set(checksumHeader, checksum)
	}
	return in.s.try(ctx, "UploadPart", func(ctx context.Context) error {
		put, err := in.s.core.PutObjectPart(ctx, in.s.bucket, in.object, uploadID, p.number, io.NewSectionReader(in.area, p.from, p.size), p.size, options)
		p.etag, p.checksum = put.ETag, checksum
		return err
	})
}

// sumUp sees to it that the checksum of a part is known. That of what was written is taken as it
// came in; only where a Flush has cut between two writes it is read again.
func (in *incoming) sumUp(p *part) error {
	if p.summed {
		return nil
	}
	sum, err := sumOf(io.NewSectionReader(in.area, p.from, p.size))
	p.sum, p.summed = sum, err == nil
	return err
}

// sha256 returns the SHA-256 of a part, in hex. What is read again must have the checksum of what came in.
func (in *incoming) sha256(p *part) (string, error) {
	h := sha256.New()
	sum, err := sumOf(io.TeeReader(io.NewSectionReader(in.area, p.from, p.size), h))
	if err == nil && sum != p.sum {
		err = errors.New("the scratch file has other content than was written to it")
	}
	return hex.EncodeToString(h.Sum(nil)), err
}

func sumOf(r io.Reader) (uint32, error) {
	h := crc32.New(castagnoli)
	_, err := io.Copy(h, r)
	return h.Sum32(), err
}

func base64Sum(sum uint32) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum))
}

func checksumOf(content []byte) string { return base64Sum(crc32.Checksum(content, castagnoli)) }

// dropDone gives back the room of the parts that are in the bucket.
func (in *incoming) dropDone() {
	in.mu.Lock()
	done := in.cut
	if in.failed != nil {
		done = 0
	}
	for _, p := range in.parts {
		select {
		case <-p.done:
			continue
		default:
		}
		done = min(done, p.from)
		break
	}
	done = min(done, in.hold)
	in.mu.Unlock()
	in.area.drop(done)
}

// wait waits until the first n parts are in the bucket.
func (in *incoming) wait(ctx context.Context, n int) error {
	in.mu.Lock()
	parts := in.parts[:n]
	in.mu.Unlock()
	for _, p := range parts {
		select {
		case <-p.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return in.failure()
}

func (s *Store) putOptions(checksum string) minio.PutObjectOptions {
	return minio.PutObjectOptions{ContentType: "application/octet-stream", UserMetadata: map[string]string{checksumHeader: checksum}}
}

func (s *Store) multipartOptions(plain bool) minio.PutObjectOptions {
	options := minio.PutObjectOptions{ContentType: "application/octet-stream"}
	if !plain {
		options.UserMetadata = map[string]string{"X-Amz-Checksum-Algorithm": "CRC32C"}
	}
	return options
}

func (s *Store) beginMultipart(ctx context.Context, object string, plain bool) (uploadID string, err error) {
	// An upload whose answer was lost is found by the sweep, and by a Discard.
	err = s.try(ctx, "CreateMultipartUpload", func(ctx context.Context) (err error) {
		uploadID, err = s.core.NewMultipartUpload(ctx, s.bucket, object, s.multipartOptions(plain))
		return err
	})
	return uploadID, err
}

// putObject makes an object of what r has.
func (s *Store) putObject(ctx context.Context, object string, r io.ReaderAt, size int64, checksum string) error {
	options, sha := s.putOptions(checksum), ""
	if size <= smallObject {
		// Over http, a signature of chunks would need buffers of 64 KiB, and has a last chunk also where there is no content.
		h := sha256.New()
		if _, err := io.Copy(h, io.NewSectionReader(r, 0, size)); err != nil {
			return err
		}
		options.DisableContentSha256, sha = true, hex.EncodeToString(h.Sum(nil))
	}
	return s.try(ctx, "PutObject", func(ctx context.Context) error {
		_, err := s.core.PutObject(ctx, s.bucket, object, io.NewSectionReader(r, 0, size), size, "", sha, options)
		return err
	})
}

// putWhole makes an object of a file that has no parts.
func (in *incoming) putWhole(ctx context.Context) error {
	if err := in.begin(ctx, false); err != nil {
		return err
	}
	p := &part{size: in.size, sum: in.sum, summed: in.sumFrom == 0}
	if err := in.sumUp(p); err != nil {
		return err
	}
	if in.size > smallObject { // small ones do not wait behind parts
		select {
		case in.s.sending <- struct{}{}:
			defer func() { <-in.s.sending }()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return in.s.putObject(ctx, in.object, in.area, in.size, base64Sum(p.sum))
}

// finishParts makes a last part of what is left, waits for the others, and has the server make
// the object of them.
func (in *incoming) finishParts(ctx context.Context) error {
	if in.size > in.cut {
		if err := in.slot(ctx); err != nil {
			return err
		}
		in.mu.Lock()
		p, err := in.cutAt(in.size)
		in.mu.Unlock()
		if err != nil {
			<-in.slots
			return err
		}
		go in.send(p)
	}
	if err := in.wait(ctx, len(in.parts)); err != nil {
		return err
	}
	return in.s.completeParts(ctx, in.object, in.uploadID, in.parts)
}

// completeParts has the server make an object of parts. It fails if one of them is not what this store has sent, or was told of: another
// server may have written over it.
func (s *Store) completeParts(ctx context.Context, object, uploadID string, parts []*part) error {
	list, size := make([]minio.CompletePart, len(parts)), int64(0)
	for i, p := range parts {
		size += p.size
		list[i] = minio.CompletePart{PartNumber: p.number, ETag: p.etag, ChecksumCRC32C: p.checksum}
	}
	asked := 0
	err := s.tryLonger(ctx, "CompleteMultipartUpload", size, func(ctx context.Context) error {
		asked++
		_, err := s.core.CompleteMultipartUpload(ctx, s.bucket, object, uploadID, list, minio.PutObjectOptions{})
		if code := errorCode(err); asked > 1 && (code == "NoSuchUpload" || code == "InvalidPart") && s.isOf(ctx, object, parts) {
			return nil // it was done, and the answer was lost
		}
		return err
	})
	return err
}

// isOf reports whether an object is there that was made of these parts.
func (s *Store) isOf(ctx context.Context, object string, parts []*part) bool {
	info, err := s.core.StatObject(ctx, s.bucket, object, minio.StatObjectOptions{Checksum: true})
	if err != nil || info.Size != parts[len(parts)-1].end() {
		return false
	}
	h, etags, sums := md5.New(), true, make([]byte, 0, 4*len(parts))
	for _, p := range parts {
		b, err := hex.DecodeString(p.etag)
		etags = etags && err == nil && len(b) == md5.Size
		h.Write(b)
		sum, err := base64.StdEncoding.DecodeString(p.checksum)
		if err != nil || len(sum) != 4 {
			sums = nil
			break
		}
		sums = append(sums, sum...)
	}
	count := "-" + strconv.Itoa(len(parts))
	if etags && strings.Trim(info.ETag, `"`) == hex.EncodeToString(h.Sum(nil))+count {
		return true
	}
	if sums == nil {
		return false
	}
	want := checksumOf(sums)
	return info.ChecksumCRC32C == want || info.ChecksumCRC32C == want+count
}
