// Package s3 keeps the content of files in a bucket of an S3-compatible server, which
// several servers may share. names.go says what objects are called.
//
// Content that comes in is staged in a local scratch file. Up to one part of it becomes an object
// by one PutObject when it is complete; more goes up as the parts of a multipart upload while
// it comes in. An object never changes, and its name has the key of its upload: the place
// of a file is a row of the registry, and Commit looks whether the object is there.
//
// What was flushed of an upload that is not complete, an object of its own says (kept.go): which
// parts of the multipart upload it is, and what comes behind them. So any server can go on
// with it.
package s3

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"go.uber.org/zap"

	"sealift/codec"
	"sealift/storage"
)

const (
	// DefaultPatience is how long a request is repeated, unless Options say otherwise. Clients wait for a reply
	// for a minute.
	DefaultPatience = 30 * time.Second
	// DefaultMaxUploads is how many parts are on their way at once, unless Options say otherwise.
	DefaultMaxUploads = 16
	// minStall is how long a connection may stand still at least.
	minStall = 5 * time.Second
	// copyRate is how many bytes a second a server copies at least. Some copy all parts of a file when it is completed,
	// and say nothing meanwhile: of 4 GiB, versitygw on two cores for 10 s.
	copyRate = 32 << 20
	// DefaultPartSize is the least size of a part, in bytes, unless Options say otherwise.
	DefaultPartSize = 16 << 20
)

// Options of Open.
type Options struct {
	// Scratch is the directory for content on its way. It is made if there is none. Without one the store takes no
	// content: nothing is tried out but whether the bucket can be listed, and Create, Reopen and Scratch fail.
	Scratch string
	// Lease, if not nil, is called before the first byte under a key goes to the bucket, once. What it returns
	// ends the upload.
	Lease func(ctx context.Context, up storage.Uploaded) error
	// Release, if not nil, is called when the content of a key is gone that may have a lease.
	Release func(ctx context.Context, key string) error
	// Log, if not nil, is told of requests that are repeated, at Debug, and of what was left behind,
	// at Warn.
	Log *zap.Logger
	// Patience is how long a request that fails is repeated, and a third of it, or 5 s if that is more, how
	// long a connection may stand still; longer while the server puts a file together. Zero is DefaultPatience.
	Patience time.Duration
	// MaxUploads is how many parts of files go up at once. Zero is DefaultMaxUploads.
	MaxUploads int
	// Observed, if not nil, is called after each request, by whichever goroutine made it.
	Observed func(request string, took time.Duration, err error)
	// Credentials, if not nil, are used instead of the usual chain: the environment
	// (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN), the shared file
	// (~/.aws/credentials with AWS_PROFILE), and the role of the machine.
	Credentials *credentials.Credentials
	// PartSize is for tests, at least 5 MiB. Zero is DefaultPartSize.
	PartSize int64
}

// Store is a storage.Files in a bucket. It is safe for concurrent use; an Incoming or a
// Scratch of it belongs to one goroutine at a time.
type Store struct {
	url         URL
	core        *minio.Core
	credentials *credentials.Credentials
	bucket      string
	prefix      string // "" or with a slash at its end
	room        *room  // nil: the store takes no content
	patience    time.Duration
	stall       time.Duration // how long a connection may stand still
	copyRate    float64       // in bytes a second
	partSize    int64
	lease       func(context.Context, storage.Uploaded) error
	release     func(context.Context, string) error
	observed    func(string, time.Duration, error)
	log         *zap.Logger
	sending     chan struct{} // holds one for each part on its way

	mu      sync.Mutex
	uploads map[string]*incoming // those that are open, by key
	unsent  map[string]struct{}  // keys of uploads that were closed, and of which the bucket has nothing
}

var _ storage.Files = (*Store)(nil)

// Open opens the bucket that url names, and tries out what the credentials may do there.
func Open(ctx context.Context, url string, o Options) (*Store, error) {
	u, err := ParseURL(url)
	if err != nil {
		return nil, err
	}
	s := &Store{
		url: u, bucket: u.Bucket, credentials: o.Credentials,
		patience: cmp.Or(o.Patience, DefaultPatience), copyRate: copyRate, partSize: max(minPart, cmp.Or(o.PartSize, DefaultPartSize)),
		lease: o.Lease, release: o.Release, observed: o.Observed, log: o.Log,
		sending: make(chan struct{}, cmp.Or(o.MaxUploads, DefaultMaxUploads)),
		uploads: make(map[string]*incoming), unsent: make(map[string]struct{}),
	}
	if u.Prefix != "" {
		s.prefix = u.Prefix + "/"
	}
	if s.log == nil {
		s.log = zap.NewNop()
	}
	if s.credentials == nil {
		s.credentials = usualCredentials()
	}
	s.stall = max(s.patience/3, minStall)
	transport, err := newTransport(u.Secure, s.stall)
	if err != nil {
		return nil, err
	}
	s.core, err = minio.NewCore(u.Endpoint, &minio.Options{
		Creds: s.credentials, Secure: u.Secure, Region: u.Region, BucketLookup: u.lookup(), Transport: transport,
		MaxRetries: 1, // try repeats
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", u, err)
	}
	if err := s.checkCredentials(); err != nil {
		return nil, fmt.Errorf("%s: %w", u, err)
	}
	if err := s.probe(ctx, o.Scratch != ""); err != nil {
		return nil, fmt.Errorf("%s: %w", u, err)
	}
	if o.Scratch == "" {
		return s, nil
	}
	if s.room, err = newRoom(o.Scratch); err != nil {
		return nil, err
	}
	return s, nil
}

// Close ends what is under way, and removes the scratch file. Nothing of the store may be in
// use any more.
func (s *Store) Close() error {
	s.mu.Lock()
	var left []*incoming
	for _, in := range s.uploads {
		left = append(left, in)
	}
	s.mu.Unlock()
	for _, in := range left {
		in.leave(errClosed)
	}
	if s.room == nil {
		return nil
	}
	return s.room.close()
}

// Ping returns an error unless the bucket answers.
func (s *Store) Ping(ctx context.Context) error {
	_, err := s.list(ctx, s.prefix+".", 1) // nothing of ours begins so
	return err
}

// Keeping implements storage.Files.
func (s *Store) Keeping() storage.Keeping {
	return storage.Keeping{Versions: true, Leases: true, Sealed: true}
}

// Folds implements storage.Files: each path is a place of its own.
func (s *Store) Folds() func(string) string { return nil }

// Create implements storage.Files. Nothing goes to the bucket yet.
func (s *Store) Create(ctx context.Context, place storage.Place, size storage.Announced) (storage.Incoming, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := checkPlace(place); err != nil {
		return nil, err
	}
	if s.room == nil {
		return nil, errReadOnly
	}
	return s.newIncoming(storage.Uploaded{Place: place, Key: newKey()}, size), nil
}

// errReadOnly is what a store without a scratch directory answers to content.
var errReadOnly = errors.New("the bucket is open without a scratch directory: it takes no content")

// Commit implements storage.Files. The object is in its place since it was completed.
func (s *Store) Commit(ctx context.Context, f *storage.File) error {
	object, err := s.objectOf(f.Uploaded())
	if err != nil {
		return err
	}
	size, err := s.stat(ctx, object)
	if err == nil && size != f.Size {
		err = fmt.Errorf("%w: the object has %d bytes, the file %d", storage.ErrNotStored, size, f.Size)
	}
	return err
}

// Remove implements storage.Files: it removes the version that the key names.
func (s *Store) Remove(ctx context.Context, f storage.Stored) error {
	object, err := s.objectOf(f)
	if err != nil {
		return notThere(err)
	}
	return s.remove(ctx, object)
}

// notThere is err, unless it says that there is nothing.
func notThere(err error) error {
	if errors.Is(err, storage.ErrNotStored) {
		return nil
	}
	return err
}

// Size implements storage.Files. Of an upload that is not complete it is the most that was
// flushed.
func (s *Store) Size(ctx context.Context, ref storage.Ref) (int64, error) {
	object, err := s.objectOf(ref)
	if err != nil {
		return 0, errors.Join(err, ctx.Err())
	}
	up, ok := ref.(storage.Uploaded)
	if !ok {
		return s.stat(ctx, object)
	}
	t, err := s.what(ctx, up)
	if err != nil {
		return 0, err
	}
	size := t.object
	for _, k := range t.kept {
		size = max(size, k.length)
	}
	if size < 0 {
		return 0, storage.ErrNotStored
	}
	return size, nil
}

// Has implements storage.Files. What only came in counts, too.
func (s *Store) Has(ctx context.Context, id codec.ClientID) (bool, error) {
	names, err := s.list(ctx, s.clientFolder(id), 1)
	return len(names) > 0, err
}

// objectOf is the object's name of content. ErrPath if the path is none, ErrNotStored if the
// key is none.
func (s *Store) objectOf(ref storage.Ref) (string, error) {
	var place storage.Place
	var key string
	switch ref := ref.(type) {
	case storage.Uploaded:
		place, key = ref.Place, ref.Key
	case storage.Stored:
		place, key = ref.Place, ref.Key
	default:
		return "", storage.ErrNotStored
	}
	if err := checkPlace(place); err != nil {
		return "", err
	}
	if !isKey(key) {
		return "", fmt.Errorf("%w: the key is none", storage.ErrNotStored)
	}
	return s.object(place, key), nil
}

// stat returns the size of an object.
func (s *Store) stat(ctx context.Context, object string) (size int64, err error) {
	err = s.try(ctx, "HeadObject", func(ctx context.Context) error {
		info, err := s.core.StatObject(ctx, s.bucket, object, minio.StatObjectOptions{})
		size = info.Size
		return err
	})
	if err != nil {
		return 0, err
	}
	return size, nil
}

func (s *Store) remove(ctx context.Context, object string) error {
	return notThere(s.try(ctx, "DeleteObject", func(ctx context.Context) error {
		return s.core.RemoveObject(ctx, s.bucket, object, minio.RemoveObjectOptions{})
	}))
}

// list returns the objects whose names begin with prefix, at most so many of them unless that is 0.
func (s *Store) list(ctx context.Context, prefix string, most int) ([]minio.ObjectInfo, error) {
	return s.listAfter(ctx, prefix, "", most)
}

// listAfter is list of those whose names come behind after.
func (s *Store) listAfter(ctx context.Context, prefix, after string, most int) (found []minio.ObjectInfo, err error) {
	err = s.try(ctx, "ListObjectsV2", func(ctx context.Context) error {
		found = found[:0]
		options := minio.ListObjectsOptions{Prefix: prefix, Recursive: true, StartAfter: after, MaxKeys: most}
		for info := range s.core.ListObjectsIter(ctx, s.bucket, options) {
			if info.Err != nil {
				return info.Err
			}
			if found = append(found, info); len(found) == most {
				break
			}
		}
		return nil
	})
	return found, err
}

// there is what the bucket has of an upload.
type there struct {
	object int64 // its size; -1: it is not there
	kept   []keptName
}

// what looks what the bucket has of an upload, but for multipart uploads.
func (s *Store) what(ctx context.Context, up storage.Uploaded) (there, error) {
	t := there{object: -1}
	object := s.object(up.Place, up.Key)
	found, err := s.list(ctx, object, 0)
	if err != nil {
		return t, err
	}
	for _, info := range found {
		if of, kept, ok := s.parse(info.Key); !ok || of != up {
			continue
		} else if kept.name != "" {
			t.kept = append(t.kept, kept)
		} else {
			t.object = info.Size
		}
	}
	return t, nil
}

// logRequest are the fields of a log line about a request.
func logRequest(request string, err error) []zap.Field {
	return []zap.Field{zap.String("request", request), zap.String("error", strings.TrimSpace(err.Error()))}
}
