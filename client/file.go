package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"sealift/crypto/cksum"
	"sealift/internal/printable"
)

// File is a file to send.
type File struct {
	Path string // where it is
	// Name is what to call it; default: the last element of Path. A name that
	// servers store otherwise (a drive letter, "..", a backslash) is an ErrName.
	Name string
	// Content, if it is not nil, is a regular file that is sent in the place of
	// what is at Path, from its first byte. Path then only says in messages what
	// it is. The caller closes it after the Run.
	Content *os.File

	found bool  // in a folder, and not named by the caller
	size  int64 // bytes, once a Run has checked it
	err   error // why it cannot be sent, if that is known already
}

func (f File) name() string {
	if f.Name != "" {
		return f.Name
	}
	return filepath.Base(f.Path)
}

// Check returns an error where o could not send f: it is not there, is no
// regular file, cannot be read, has another size than it says, is too large for
// the dialect whatever server it is for, keeps who the client is, or has a name that cannot be sent.
func (f File) Check(o Options) error {
	_, err := f.check(&o)
	return err
}

// check is Check, and returns the size of the file in bytes.
func (f File) check(o *Options) (size int64, err error) {
	if f.err != nil {
		return 0, f.err
	}
	if err := checkStored(f.name()); err != nil {
		return 0, err
	}
	s, err := f.open(o)
	if err != nil {
		return 0, err
	}
	defer s.close()
	size = s.before.Size()
	if _, err := plan(o.Dialect, o.PacketSize, firstTransfer(size, size)); err != nil {
		return 0, fmt.Errorf("%s: %w", printable.Path(f.Path), err)
	}
	if err := s.hasItsSize(); err != nil {
		return 0, fmt.Errorf("%s: %w", printable.Path(f.Path), err)
	}
	return size, nil
}

// passedOver reports whether a Run leaves f out without an error.
func (f File) passedOver(o *Options) bool {
	if !f.found {
		return false
	}
	_, err := f.check(o)
	return errors.Is(err, ErrSecret)
}

// source is a file that is open to be sent, and how it was when it was opened.
type source struct {
	file   *os.File
	path   string // that led to it; "" if no path needs to
	before fs.FileInfo
	opened time.Time
	ours   bool // to close
}

// open opens the file to send it. A FIFO or a device is an error, and not waited for; so
// is a file that keeps who a client is.
func (f File) open(o *Options) (*source, error) {
	s, err := f.openAny()
	if err == nil && s.path != "" {
		if err = o.checkSecret(f.Path, s.before); err != nil {
			s.close()
		}
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// openAny is open also for a file that keeps who a client is.
func (f File) openAny() (*source, error) {
	if f.Content != nil {
		s, err := newSource(f.Content)
		if err != nil {
			return nil, err
		}
		return s, checkRegular(f.Path, s.before)
	}
	info, err := os.Stat(f.Path)
	if err != nil {
		return nil, err
	}
	if err := checkRegular(f.Path, info); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(f.Path, os.O_RDONLY|dontWait, 0)
	if err != nil {
		return nil, err
	}
	s, err := newSource(file)
	if err == nil {
		s.path, s.ours = f.Path, true
		err = checkRegular(f.Path, s.before) // another may have taken its place
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return s, nil
}

func newSource(file *os.File) (*source, error) {
	s := &source{file: file, opened: time.Now()}
	var err error
	s.before, err = file.Stat()
	return s, err
}

// hasItsSize returns an error, an ErrSize, where the content ends elsewhere than
// the size says, and the size stays.
func (s *source) hasItsSize() error {
	var b [1]byte
	size := s.before.Size()
	more, _ := s.file.ReadAt(b[:], size)
	less := false
	if size > 0 {
		_, err := s.file.ReadAt(b[:], size-1)
		less = err == io.EOF
	}
	if more == 0 && !less {
		return nil
	}
	if now, err := s.file.Stat(); err != nil || now.Size() != size {
		return err // it is being written to: the transfer sees to that
	}
	return fmt.Errorf("%w: the system says %d bytes", ErrSize, size)
}

func (s *source) close() {
	if s.ours {
		s.file.Close()
	}
}

func checkRegular(path string, info fs.FileInfo) error {
	if info.Mode().IsRegular() {
		return nil
	}
	return fmt.Errorf("%s is %s, not a regular file", printable.Path(path), kind(info.Mode()))
}

// kind says what a file that is no regular one is.
func kind(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "a folder"
	case m&fs.ModeSymlink != 0:
		return "a symbolic link"
	case m&fs.ModeNamedPipe != 0:
		return "a pipe"
	case m&fs.ModeSocket != 0:
		return "a socket"
	case m&fs.ModeDevice != 0:
		return "a device"
	}
	return "something else"
}

// settled is how long ago the last change of a file must be for its times to
// show the next one. File systems count time in steps of up to 2 s, network file
// systems tell a client of changes after up to a minute, and a program that has
// mapped the file changes a page without a trace in the times until the system
// has written that page to the disk, after half a minute.
const settled = time.Minute

// unchanged returns an error, an ErrChanged, unless the file still is what was
// read of it: sum is the checksum of that. Where times cannot tell, it reads the
// file again; what is the same in two readings was in the file, as a whole, at
// the moment between them.
func (s *source) unchanged(ctx context.Context, sum uint32) error {
	now, err := s.file.Stat()
	if err != nil {
		return err
	}
	switch {
	case now.Size() != s.before.Size():
		return fmt.Errorf("%w: it had %d bytes and has %d", ErrChanged, s.before.Size(), now.Size())
	case !now.ModTime().Equal(s.before.ModTime()):
		return fmt.Errorf("%w: it was written to", ErrChanged)
	}
	if s.path != "" {
		there, err := os.Stat(s.path)
		switch {
		case errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(there, s.before):
			return fmt.Errorf("%w: it was replaced or removed", ErrChanged)
		case err != nil:
			return err
		}
	}
	changed := statusTime(s.before)
	if statusTime(now).Equal(changed) && s.before.ModTime().Before(s.opened.Add(-settled)) && changed.Before(s.opened.Add(-settled)) {
		return nil
	}
	again, err := s.sum(ctx)
	if err == nil && again != sum {
		err = fmt.Errorf("%w: it was written to", ErrChanged)
	}
	return err
}

// sum returns the checksum of the content as it is now.
func (s *source) sum(ctx context.Context) (uint32, error) {
	sum := cksum.New()
	buf := make([]byte, min(s.before.Size(), maxChunk))
	for off, size := int64(0), s.before.Size(); off < size; {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		b := buf[:min(int64(len(buf)), size-off)]
		switch n, err := s.file.ReadAt(b, off); {
		case n == len(b):
		case err == io.EOF:
			return 0, fmt.Errorf("%w: it ends after %d bytes", ErrChanged, off+int64(n))
		default:
			return 0, err
		}
		_, _ = sum.Write(b)
		off += int64(len(b))
	}
	return sum.Sum32(), nil
}

// maxChangedRetries is how often a file is sent again because it has changed.
const maxChangedRetries = 3

// SendFile sends a file from disk. A directory, or anything else that is no
// regular file, is an error. A file that changes while it is sent is sent again,
// up to 3 times, and then gives an ErrChanged: the server has been told to
// forget each version that was not whole.
func (c *Client) SendFile(ctx context.Context, f File) (Result, error) {
	name := f.name()
	if err := checkStored(name); err != nil {
		return Result{}, err
	}
	began, attempts := time.Now(), 0
	for changes := 0; ; changes++ {
		s, err := within(ctx, func() (*source, error) { return f.open(&c.opts) }, (*source).close)
		if err != nil {
			return Result{}, err
		}
		t := &transfer{c: c, name: name, file: s.file, size: s.before.Size(), source: s, attempts: attempts, began: began, offset: -1}
		result, err := c.deliver(ctx, t)
		s.close()
		if !errors.Is(err, ErrChanged) || ctx.Err() != nil {
			return result, err
		}
		attempts = t.attempts
		if changes == maxChangedRetries {
			var e *Error
			if errors.As(err, &e) {
				e.Attempts = attempts
			}
			return Result{}, err
		}
		c.log.Warn("the file changed while it was sent: sending it again", "file", name, "retry", changes+1, "of", maxChangedRetries)
	}
}
