package client

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
)

// Events are told how a Run goes; each may be nil. They are never called two at
// a time.
type Events struct {
	// Checked is called once, before the server hears anything: so many files of
	// so many bytes are going to be sent.
	Checked  func(files int, bytes int64)
	LoggedIn func(Login)
	// Each file gets exactly one of these. The error of a file that was not tried,
	// because the Run had ended, is ErrNotTried.
	Stored func(File, Result)
	Failed func(File, error)
	// PassedOver: the file was found in a folder and is none to send; why is an
	// ErrSecret.
	PassedOver func(f File, why error)
}

var (
	// ErrNotTried: the Run ended before the turn of this file.
	ErrNotTried = errors.New("not tried")
	// errStopped ends the files under way of a Run with FailFast.
	errStopped = errors.New("stopped, because another file failed")
)

// FilesError is the error of a Run of several files.
type FilesError struct {
	Files    int   // of the Run
	Failed   int   // were tried and are not stored
	NotTried int   // had no turn
	Ended    error // what ended the Run early, or nil
	First    error // of the first file that failed, or nil
}

func (e *FilesError) Error() string {
	why := e.Ended
	if why == nil {
		why = e.First
	}
	return fmt.Sprintf("%d of %d files are not stored: %v", e.Failed+e.NotTried, e.Files, why)
}

// Unwrap returns what ended the Run, and the error of the first file.
func (e *FilesError) Unwrap() []error {
	var all []error
	for _, err := range []error{e.Ended, e.First} {
		if err != nil {
			all = append(all, err)
		}
	}
	return all
}

// Run connects to a server, logs in and sends files, one after the other over
// one connection or, with Options.Parallel, several at once. All files are
// checked before the server hears anything.
//
// Two files that the server would store as one are an ErrSameName, and nothing
// is sent. Otherwise a file that cannot be sent does not keep back the others,
// unless Options.FailFast is set. The Run ends early where the others would fail
// as well: the server is out of reach, does not take the client, or takes no
// file.
//
// The results are those of the files that are stored, in the order in which they
// were. The error is nil if all are; that of the file if there is only one; and
// else a [*FilesError]. events may be nil.
func Run(ctx context.Context, o Options, files []File, events *Events) ([]Result, error) {
	if len(files) == 0 {
		return nil, errors.New("there is no file to send")
	}
	r := &run{total: len(files), failFast: o.FailFast}
	if events != nil {
		r.events = *events
	}
	if i, j, err := sameName(files, &o); err != nil {
		for n, f := range files {
			if n == i || n == j {
				r.fail(f, err)
			} else {
				r.fail(f, ErrNotTried)
			}
		}
		return nil, err
	}
	ctx, r.stop = context.WithCancelCause(ctx)
	defer r.stop(nil)
	if r.check(ctx, &o, files) {
		r.end(r.connect(ctx, o))
	}
	return r.results, r.close(ctx)
}

// run is a Run under way.
type run struct {
	events   Events
	total    int
	failFast bool
	stop     context.CancelCauseFunc // ends what is under way

	mu       sync.Mutex
	files    []File // that nobody sends yet
	results  []Result
	failed   int
	notTried int
	passed   int   // over
	ended    error // why the Run ends before all files had their turn
	first    error // of the first file that failed
}

// check checks all files, and reports whether there are any to send.
func (r *run) check(ctx context.Context, o *Options, files []File) bool {
	var bytes int64
	var sizes []sizeOrError
	for i, f := range files {
		if i%maxChecked == 0 {
			sizes, _ = within(ctx, func() ([]sizeOrError, error) { return checkAtOnce(files[i:min(i+maxChecked, len(files))], o), nil }, nil)
		}
		if ctx.Err() != nil {
			r.files = append(r.files, files[i:]...)
			r.end(context.Cause(ctx))
			return false
		}
		size, err := sizes[i%maxChecked].size, sizes[i%maxChecked].err
		switch {
		case err == nil:
			bytes += size
			f.size = size
			r.files = append(r.files, f)
		case f.found && errors.Is(err, ErrSecret):
			r.passed++
			if r.events.PassedOver != nil {
				r.events.PassedOver(f, err)
			}
		default:
			r.fail(f, err)
		}
	}
	if len(r.files) == 0 || r.failFast && r.failed > 0 {
		return false
	}
	if r.events.Checked != nil {
		r.events.Checked(len(r.files), bytes)
	}
	return true
}

// maxChecked is how many files are checked between two looks at the context.
const maxChecked = 64

// sizeOrError is what a check of a file has found.
type sizeOrError struct {
	size int64
	err  error
}

// checkAtOnce checks files on all processors.
func checkAtOnce(files []File, o *Options) []sizeOrError {
	found := make([]sizeOrError, len(files))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(files)) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(files)); i = next.Add(1) - 1 {
				found[i].size, found[i].err = files[i].check(o)
			}
		})
	}
	wg.Wait()
	return found
}

// connect logs in and sends the files.
func (r *run) connect(ctx context.Context, o Options) error {
	parallel := min(o.Parallel, len(r.files))
	if progress := o.Progress; parallel > 1 && progress != nil {
		o.Progress = func(p Progress) {
			r.mu.Lock()
			defer r.mu.Unlock()
			progress(p)
		}
	}
	c, err := Dial(ctx, o)
	if err != nil {
		return err
	}
	defer c.Close()
	login, err := c.Login(ctx)
	if r.events.LoggedIn != nil && (err == nil || login.Registered) {
		r.events.LoggedIn(login)
	}
	if err != nil {
		return err
	}
	if o.SkipStored && !o.Force {
		r.files = r.ask(ctx, o, c)
		parallel = min(parallel, len(r.files))
	}
	if parallel <= 1 {
		return r.send(ctx, c)
	}
	return r.parallel(ctx, o, c, parallel)
}

// send sends files over c until there are none left, or until the next ones
// would fail as well.
func (r *run) send(ctx context.Context, c *Client) error {
	for lost := 0; ; {
		f, ok := r.next()
		if !ok {
			return nil
		}
		result, err := c.SendFile(ctx, f)
		if err == nil {
			lost = 0
			r.stored(f, result)
			continue
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		r.fail(f, err)
		if lost++; !errors.Is(err, ErrConnection) {
			lost = 0
		}
		switch {
		case ctx.Err() != nil, lost > 1, isForAll(err):
			return err
		case r.failFast:
			r.end(err)
			r.stop(errStopped)
			return err
		}
	}
}

// isForAll reports whether an error of one file is about all files.
func isForAll(err error) bool {
	if errors.As(err, new(unreachable)) {
		return true
	}
	for _, e := range []error{ErrRejected, ErrNameTaken, ErrNotLoggedIn, ErrKey, ErrNoDialect, ErrServerKey, ErrTLS, ErrKeyNotKept} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// parallel sends files over c and other connections of the same identity, n in
// all. A connection that fails leaves its files to the others.
func (r *run) parallel(ctx context.Context, o Options, c *Client, n int) error {
	mix := newMixer()
	defer mix.close()
	identity, known := c.Identity(), c.peer
	joining, enough := context.WithCancel(ctx) // nobody waits for a connection when no file is left for it
	defer enough()
	var wg sync.WaitGroup
	work := func(send func() error) {
		wg.Go(func() {
			err := send()
			if err == nil {
				return
			}
			if ctx.Err() == nil {
				c.log.Warn("a connection ended: the others take its files", "because", err)
			}
			r.end(err)
		})
	}
	send := func(c *Client) error {
		c.mix = mix
		err := r.send(ctx, c)
		if err == nil {
			enough()
		}
		return err
	}
	work(func() error { return send(c) })
	for range n - 1 {
		work(func() error {
			c, err := dial(joining, o, known)
			if err != nil {
				return err
			}
			defer c.Close()
			if _, err := c.comeBack(joining, identity); err != nil {
				if joining.Err() != nil && ctx.Err() == nil {
					return nil
				}
				return err
			}
			return send(c)
		})
	}
	wg.Wait()
	return nil
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

func (r *run) fail(f File, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case errors.Is(err, ErrNotTried):
		r.notTried++
	default:
		r.failed++
		if r.first == nil {
			r.first = err
		}
	}
	if r.events.Failed != nil {
		r.events.Failed(f, err)
	}
}

// end notes why the Run ends early; the first reason counts.
func (r *run) end(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended == nil {
		r.ended = err
	}
}

// close reports the files that had no turn, and returns the error of the Run.
func (r *run) close(ctx context.Context) error {
	for {
		f, ok := r.next()
		if !ok {
			break
		}
		if r.total == 1 && r.ended != nil {
			r.fail(f, r.ended)
		} else {
			r.fail(f, ErrNotTried)
		}
	}
	switch {
	case r.passed == r.total:
		return errors.New("there is no file to send")
	case r.failed+r.notTried == 0:
		return nil
	case r.total == 1:
		return r.first
	}
	e := &FilesError{Files: r.total - r.passed, Failed: r.failed, NotTried: r.notTried, First: r.first}
	if r.notTried > 0 || ctx.Err() != nil {
		e.Ended = r.ended
	}
	return e
}
