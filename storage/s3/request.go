package s3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/minio/minio-go/v7"

	"sealift/storage"
)

const (
	firstWait = 50 * time.Millisecond // before the second attempt; it doubles
	maxWait   = 3 * time.Second
)

// minio-go waits up to that after an attempt also where it makes no other one.
func init() { minio.DefaultRetryUnit = time.Millisecond }

// try makes a request until it succeeds, for as long as the store is patient, and observes
// each attempt. A request is made again after an attempt whose answer was lost, so it must
// come out the same then. The error says what was asked for.
func (s *Store) try(ctx context.Context, request string, attempt func(ctx context.Context) error) error {
	return s.tryLonger(ctx, request, 0, attempt)
}

// tryLonger is try for a request that has the server copy size bytes before it answers.
func (s *Store) tryLonger(ctx context.Context, request string, size int64, attempt func(ctx context.Context) error) error {
	end := time.Now().Add(s.patience)
	ctx = withStall(ctx, s.stall+time.Duration(float64(size)/s.copyRate*float64(time.Second)))
	renewed := false
	for wait := firstWait; ; wait = min(2*wait, maxWait) {
		if err := ctx.Err(); err != nil {
			return err
		}
		began := time.Now()
		err := attempt(ctx)
		if s.observed != nil {
			s.observed(request, time.Since(began), err)
		}
		if err == nil {
			return nil
		}
		if ended := ctx.Err(); ended != nil {
			return ended
		}
		again := retryable(err)
		if code := errorCode(err); expired[code] || refused[code] && !renewed {
			// The file with the credentials may have others by now, or the machine's role.
			renewed, again = true, true
			s.credentials.Expire()
		}
		if !again || time.Now().After(end) {
			return &requestError{request, translate(err)}
		}
		s.log.Debug("request to the bucket failed and is repeated", logRequest(request, err)...)
		select {
		case <-time.After(wait/2 + rand.N(wait/2)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// requestError is a request that failed for good.
type requestError struct {
	request string
	err     error
}

func (e *requestError) Error() string { return "bucket: " + e.request + ": " + e.err.Error() }
func (e *requestError) Unwrap() error { return e.err }

// errorCode is the code of S3 in an error, or "".
func errorCode(err error) string {
	var response minio.ErrorResponse
	if errors.As(err, &response) {
		return response.Code
	}
	return ""
}

func status(err error) int {
	var response minio.ErrorResponse
	if errors.As(err, &response) {
		return response.StatusCode
	}
	return 0
}

var (
	// expired are the codes of credentials that were good. Where they come from, others may be
	// soon.
	expired = set("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired")
	// refused are the codes of credentials that the server does not take.
	refused = set("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidClientTokenId",
		"XAdminUserNotFound") // of versitygw
	// again are the codes that say "later", whatever the status.
	again = set("RequestTimeout", "SlowDown", "SlowDownRead", "SlowDownWrite", "Throttling", "ThrottlingException",
		"RequestLimitExceeded", "RequestThrottled", "InternalError", "ServiceUnavailable", "OperationAborted",
		// Another server writes, or removes, the same at this moment.
		"ConditionalRequestConflict", "ConcurrentModification",
		// versitygw removes a folder with its last object, and says this of an object that comes into
		// it meanwhile. No key of ours is a folder.
		"ExistingObjectIsDirectory",
		// The content was spoilt on its way.
		"BadDigest", "InvalidDigest", "IncompleteBody", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch")
	full = set("QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage",
		"InsufficientCapacity", "NotEnoughSpace", "StorageFull", "ServiceQuotaExceeded")
	missing = set("NoSuchKey", "NoSuchVersion", "NotFound")
)

func set(codes ...string) map[string]bool {
	m := make(map[string]bool, len(codes))
	for _, c := range codes {
		m[c] = true
	}
	return m
}

// retryable reports whether a request that failed so may succeed soon.
func retryable(err error) bool {
	code := errorCode(err)
	switch n := status(err); {
	case code == "": // of the network, or an answer that was cut
		return !errors.Is(err, storage.ErrFull) && !errors.Is(err, storage.ErrNoLease) && !isInvalid(err)
	case full[code]:
		return false
	case again[code], n == http.StatusRequestTimeout, n == http.StatusTooManyRequests:
		return true
	default:
		return n >= 500 && n != http.StatusNotImplemented && n != http.StatusInsufficientStorage
	}
}

// isInvalid reports whether err is minio-go's, of arguments that it never sends.
func isInvalid(err error) bool {
	code := minio.ToErrorResponse(err).Code
	return code == minio.InvalidArgument || code == "EntityTooSmall" || code == "EntityTooLarge"
}

// translate returns err with our error for what it says, if there is one.
func translate(err error) error {
	switch code := errorCode(err); {
	case missing[code]:
		return fmt.Errorf("%w: %w", storage.ErrNotStored, err)
	case full[code], status(err) == http.StatusInsufficientStorage:
		return fmt.Errorf("%w: the bucket: %w", storage.ErrFull, err)
	}
	return err
}

// fullDisk puts our error in the place of the system's for a disk that is full.
func fullDisk(err error) error {
	const windowsDiskFull = syscall.Errno(112)
	if errors.Is(err, syscall.ENOSPC) || runtime.GOOS == "windows" && errors.Is(err, windowsDiskFull) {
		return fmt.Errorf("%w: the scratch directory: %w", storage.ErrFull, err)
	}
	return err
}

// newTransport is minio-go's, with connections that end when they stand still.
func newTransport(secure bool, stall time.Duration) (*http.Transport, error) {
	transport, err := minio.DefaultTransport(secure)
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: stall, KeepAlive: 30 * time.Second}
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return newWatchedConn(conn, stall), nil
	}
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = 0, 256
	transport.IdleConnTimeout = stall / 2
	transport.ResponseHeaderTimeout = 0 // watchedConn sees to it
	transport.WriteBufferSize = 64 << 10
	return transport, nil
}

// withStall has the connections of a request stand still for so long.
func withStall(ctx context.Context, stall time.Duration) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
		conn := got.Conn
		if tls, ok := conn.(*tls.Conn); ok {
			conn = tls.NetConn()
		}
		if watched, ok := conn.(*watchedConn); ok {
			watched.stall.Store(int64(stall))
		}
	}})
}

// watchedConn is a connection on which each step has so much time: a part that is sent
// slowly is not given up, and one that stands still is.
type watchedConn struct {
	net.Conn
	stall atomic.Int64 // a time.Duration: that of the request which has the connection
}

func newWatchedConn(conn net.Conn, stall time.Duration) *watchedConn {
	c := &watchedConn{Conn: conn}
	c.stall.Store(int64(stall))
	return c
}

func (c *watchedConn) end() time.Time { return time.Now().Add(time.Duration(c.stall.Load())) }

func (c *watchedConn) Write(p []byte) (int, error) {
	// Also for the answer, which somebody may be waiting for already.
	if err := c.SetDeadline(c.end()); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

func (c *watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		_ = c.SetReadDeadline(c.end()) // the next Read tells
	}
	return n, err
}
