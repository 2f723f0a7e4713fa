package client

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sealift/codec"
)

// maxAsked is how many files are asked about before the first answer is there.
const maxAsked = 128

// maxBarren is how many connections that bring replies and are lost are no failures, as
// long as none of them gets anywhere: a server may end each at the first 1029.
const maxBarren = 5

// canSkip reports whether the server can be asked what it has verified: it continues
// files, and may know the client by its TLS key.
func (c *Client) canSkip() bool {
	has, sure := c.peer.continues()
	return has == ContinueYes && sure && c.peer.guard.shows()
}

const (
	// askers is over how many connections many files are asked about at once: the server
	// does one request of a connection at a time.
	askers = 4
	// askAtOnce is how many files make a portion for one of them.
	askAtOnce = 512
)

// ask asks the server about r.files, over c and, where they are many, over other connections
// of the same identity, and returns those that are to be sent, in their order. One that does
// not come about, or is lost, leaves its files to the others.
func (r *run) ask(ctx context.Context, o Options, c *Client) []File {
	portions := slices.Collect(slices.Chunk(r.files, askAtOnce))
	others := make([][]File, len(portions))
	var next atomic.Int64
	work := func(c *Client) {
		for i := int(next.Add(1)) - 1; i < len(portions); i = int(next.Add(1)) - 1 {
			others[i] = c.skip(ctx, portions[i], r.stored)
		}
	}
	joining, enough := context.WithCancel(ctx) // nobody waits for a connection that has nothing to ask
	identity, known, log := c.Identity(), c.peer, c.log
	var wg sync.WaitGroup
	more := 0
	if c.canSkip() {
		more = min(askers, len(portions)) - 1
	}
	for range more {
		wg.Go(func() {
			c, err := dial(joining, o, known)
			if err == nil {
				defer c.Close()
				_, err = c.comeBack(joining, identity)
			}
			if err != nil {
				log.Debug("a connection for questions did not come about", "because", err)
				return
			}
			work(c)
		})
	}
	work(c)
	enough()
	wg.Wait()
	return slices.Concat(others...)
}

// skip calls stored for each of files that the server has verified with the same content,
// and returns the others. It sends no content. Where it gets no answer, the files are
// among the others.
func (c *Client) skip(ctx context.Context, files []File, stored func(File, Result)) (others []File) {
	s := &skipping{c: c, files: files, stored: stored, state: make([]skipState, len(files))}
	for i, f := range files {
		if f.size == 0 || f.size >= worthAsking {
			s.state[i] = skipOther
		}
	}
	err := c.retry(ctx, codec.CodeContinue, func(cn *conn) error {
		if !cn.keyed {
			if err := c.again(ctx); err != nil {
				return err
			}
			cn = c.conn
		}
		if !c.canSkip() {
			return nil
		}
		return s.over(ctx, cn)
	})
	if err != nil {
		c.log.Debug("not all files were asked about", "because", err)
	}
	for i, f := range files {
		if s.state[i] != skipStored {
			others = append(others, f)
		}
	}
	return others
}

// skipState is what is known of a file that may be on the server.
type skipState uint8

const (
	skipUnknown skipState = iota
	skipAsked             // it is being found out
	skipStored            // the server has it. Final.
	skipOther             // it is to be sent. Final.
)

// skipping asks about many files at once. The 1032 of a file comes first; where the
// server has as many bytes, and their checksum is that of our file, a 1029 makes sure
// that they are verified.
type skipping struct {
	c      *Client
	files  []File
	state  []skipState
	stored func(File, Result)

	cn    *conn
	next  int     // of the files to ask about
	due   []asked // requests without a reply yet, in order
	ready []summed
	under int  // files whose checksum is being computed
	told  bool // there was a reply over this connection
	// barren counts connections in a row that were lost before it was known of any file
	// what becomes of it.
	barren int
	out    []byte
	began  []time.Time // of the file's 1032
}

// asked is a request.
type asked struct {
	code codec.Code
	file int
	sum  uint32 // with a 1029
}

// summed is a file with its checksum; ok is false where it differs from the server's.
type summed struct {
	file int
	sum  uint32
	ok   bool
}

// toSum is a file whose checksum is wanted, and the server's.
type toSum struct {
	file int
	sum  uint32
}

// over asks over cn. Files whose answers a lost connection has taken along are unknown
// again.
func (s *skipping) over(ctx context.Context, cn *conn) (err error) {
	defer context.AfterFunc(ctx, cn.close)()
	s.cn, s.next, s.due, s.ready, s.under, s.told = cn, 0, nil, nil, 0, false
	if s.began == nil {
		s.began = make([]time.Time, len(s.files))
	}
	jobs, sums := make(chan toSum, maxAsked), make(chan summed, maxAsked)
	for range runtime.GOMAXPROCS(0) {
		go func() {
			for j := range jobs {
				sums <- s.sum(ctx, j)
			}
		}()
	}
	defer func() {
		close(jobs)
		if err == nil {
			return
		}
		s.barren++
		s.c.advanced = s.told && s.barren <= maxBarren // the next connection may get further
		for i := range s.state {
			if s.state[i] == skipAsked {
				s.state[i] = skipUnknown
			}
		}
	}()
	silent := time.NewTimer(s.c.opts.ReplyTimeout)
	defer silent.Stop()
	for {
		if err := s.request(); err != nil {
			return err
		}
		if len(s.due)+s.under == 0 {
			return nil
		}
		select {
		case got := <-cn.replies:
			silent.Reset(s.c.opts.ReplyTimeout)
			if got.err != nil {
				s.c.noted(cn, got.reply, got.err)
				return got.err
			}
			if len(s.due) == 0 {
				return got.surprise("nothing was asked")
			}
			if err := s.reply(got.reply, jobs); err != nil {
				s.c.drop()
				return err
			}
		case done := <-sums:
			if s.under--; done.ok {
				s.ready = append(s.ready, done)
			} else {
				s.settle(done.file, skipOther)
			}
		case <-silent.C:
			return lost(silence(s.c.opts.ReplyTimeout))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// request sends what can be asked now, in one write, once at least half as much as may
// be under way can be.
func (s *skipping) request() error {
	if len(s.due)+s.under > maxAsked/2 {
		return nil
	}
	c := s.c
	s.out = s.out[:0]
	codes := c.peer.number()
	put := func(a asked, msg []byte) {
		codes.put(msg, a.code)
		s.out, s.due = append(s.out, msg...), append(s.due, a)
	}
	for _, r := range s.ready {
		put(asked{codec.CodeCRCOK, r.file, r.sum},
			codec.Verdict{Code: codec.CodeCRCOK, FileName: []byte(s.files[r.file].name())}.Append(nil, c.identity.ID))
	}
	s.ready = s.ready[:0]
	for ; s.next < len(s.files) && len(s.due)+s.under < maxAsked; s.next++ {
		if s.state[s.next] != skipUnknown {
			continue
		}
		f := s.files[s.next]
		s.state[s.next], s.began[s.next] = skipAsked, time.Now()
		put(asked{code: codec.CodeContinue, file: s.next},
			codec.Continue{FileName: []byte(f.name()), TotalSize: uint64(f.size)}.Append(nil, c.identity.ID))
	}
	if len(s.out) == 0 {
		return nil
	}
	c.log.Debug("sent", "message", codec.CodeContinue, "bytes", len(s.out), "files_asked", s.next)
	return c.write(s.cn, s.out)
}

// reply takes the reply to the oldest request. An error is about the connection.
func (s *skipping) reply(r reply, jobs chan<- toSum) error {
	a := s.due[0]
	s.due = s.due[1:]
	f := s.files[a.file]
	s.told = true
	if err := s.c.heard(r); err != nil {
		s.settle(a.file, skipOther)
		if r.odd != "" {
			return lost(err)
		}
		return nil
	}
	s.cn.answered = true
	if a.code == codec.CodeCRCOK {
		if r.code != codec.CodeAck {
			return s.c.wrong(r, codec.CodeAck)
		}
		if err := checkAck(r, s.c.identity.ID); err != nil {
			return err
		}
		s.settle(a.file, skipStored)
		s.stored(f, Result{
			ID: s.c.identity.ID, Name: f.name(), Size: f.size, Offset: f.size, Cksum: a.sum, Elapsed: time.Since(s.began[a.file]),
		})
		return nil
	}
	answer, err := s.c.continued(r, f.name(), f.size)
	if err != nil {
		return err
	}
	if answer.offset < f.size {
		s.cn.note(f.name(), answer) // the next 1028 of the file goes on there
		s.settle(a.file, skipOther)
		return nil
	}
	s.under++
	jobs <- toSum{a.file, answer.cksum}
	return nil
}

// settle notes what becomes of a file.
func (s *skipping) settle(file int, to skipState) { s.state[file], s.barren = to, 0 }

// sum computes the checksum of a file, and compares it with the server's.
func (s *skipping) sum(ctx context.Context, j toSum) summed {
	done := summed{file: j.file, sum: j.sum}
	src, err := s.files[j.file].openAny()
	if err != nil {
		return done // sending it will say why
	}
	defer src.close()
	if src.before.Size() != s.files[j.file].size {
		return done
	}
	sum, err := src.sum(ctx)
	if err != nil && !errors.Is(err, ErrChanged) {
		s.c.log.Debug("a file cannot be read", "because", err)
	}
	done.ok = err == nil && sum == j.sum
	return done
}
