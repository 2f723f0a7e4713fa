package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sync/errgroup"
)

// File is a file to send.
type File struct {
	Path string // where it is
	Name string // what to call it; default: the last element of Path
}

// SendFile sends a file from disk. A directory, or anything else that is no
// regular file, is an error.
func (c *Client) SendFile(ctx context.Context, f File) (Result, error) {
	name, err := f.sentName()
	if err != nil {
		return Result{}, err
	}
	file, err := os.Open(f.Path)
	if err != nil {
		return Result{}, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return Result{}, err
	}
	if !info.Mode().IsRegular() {
		return Result{}, fmt.Errorf("%s is not a regular file", f.Path)
	}
	return c.Send(ctx, name, file, info.Size())
}

func (f File) sentName() (string, error) {
	name := f.Name
	if name == "" {
		name = filepath.Base(f.Path)
	}
	return name, CheckFileName(name)
}

// Check returns an error where o could not send f: it is not there, is no
// regular file, cannot be read, is too large for the dialect, or its name
// cannot be sent.
func (f File) Check(o Options) error {
	if _, err := f.sentName(); err != nil {
		return err
	}
	info, err := os.Stat(f.Path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", f.Path)
	}
	if _, err := plan(o.Dialect, o.PacketSize, info.Size()); err != nil {
		return fmt.Errorf("%s: %w", f.Path, err)
	}
	file, err := os.Open(f.Path)
	if err != nil {
		return err
	}
	return file.Close()
}

// Events are told how a Run goes; each may be nil.
type Events struct {
	LoggedIn func(Login)
	Stored   func(File, Result)
}

// Run connects to a server, logs in and sends files, one after the other over
// one connection or, with Options.Parallel, several at once. All files are
// checked before the server hears anything. Run stops at the first error; the
// results are those of the files stored until then, in the order in which they
// were. events may be nil; its functions are never called two at a time.
func Run(ctx context.Context, o Options, files []File, events *Events) (results []Result, err error) {
	if len(files) == 0 {
		return nil, errors.New("there is no file to send")
	}
	for _, f := range files {
		if err := f.Check(o); err != nil {
			return nil, err
		}
	}
	r := &run{files: files}
	if events != nil {
		r.events = *events
	}
	parallel := min(o.Parallel, len(files))
	if progress := o.Progress; parallel > 1 && progress != nil {
		o.Progress = func(p Progress) {
			r.mu.Lock()
			defer r.mu.Unlock()
			progress(p)
		}
	}
	c, err := Dial(ctx, o)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	login, err := c.Login(ctx)
	if r.events.LoggedIn != nil && (err == nil || login.Registered) {
		r.events.LoggedIn(login)
	}
	if err != nil {
		return nil, err
	}
	if parallel > 1 {
		err = r.parallel(ctx, o, c, parallel)
	} else {
		err = r.send(ctx, c)
	}
	return r.results, err
}

// run is a Run under way.
type run struct {
	events Events

	mu      sync.Mutex
	files   []File // that nobody sends yet
	results []Result
}

// send sends files over c until there are none left.
func (r *run) send(ctx context.Context, c *Client) error {
	for {
		f, ok := r.next()
		if !ok {
			return nil
		}
		result, err := c.SendFile(ctx, f)
		if err != nil {
			return err
		}
		r.stored(f, result)
	}
}

// parallel sends files over c and other connections of the same identity, n in
// all. The first error ends them all.
func (r *run) parallel(ctx context.Context, o Options, c *Client, n int) error {
	c.mix = newMixer()
	defer c.mix.close()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return r.send(ctx, c) })
	identity, mix, known := c.Identity(), c.mix, c.peer
	for range n - 1 {
		group.Go(func() error {
			c, err := dial(ctx, o, known)
			if err != nil {
				return err
			}
			defer c.Close()
			if _, err := c.comeBack(ctx, identity); err != nil {
				return err
			}
			c.mix = mix
			return r.send(ctx, c)
		})
	}
	return group.Wait()
}

func (r *run) next() (File, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.files) == 0 {
		return File{}, false
	}
	f := r.files[0]
	r.files = r.files[1:]
	return f, true
}

func (r *run) stored(f File, result Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.results = append(r.results, result)
	if r.events.Stored != nil {
		r.events.Stored(f, result)
	}
}
