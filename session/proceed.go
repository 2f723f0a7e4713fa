package session

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"

	"go.uber.org/zap"

	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/storage"
)

var (
	errNotReady  = &offence{ReasonState, "a 1032 needs a 1602 or 1605 on its connection"}
	errUnderWay  = &offence{ReasonState, "a transfer under the name is under way on the connection"}
	errTotalSize = &offence{ReasonSize, "the Total Size is larger than the server takes"}
)

// proceed answers a 1032: how much of a file is there. It returns false if it has to wait.
func (s *Session) proceed(payload []byte) bool {
	m, err := codec.ParseContinue(payload)
	if err != nil {
		s.protocolError(err)
		return true
	}
	name := string(m.FileName)
	if u := s.uploads.all[name]; u != nil && u.transfer.AllIn() { // its 1603 comes first
		return false
	}
	if c := s.uploads.continued(name); c != nil && c.stage == undoing {
		return false
	}
	path, err := s.mayProceed(name, m.TotalSize)
	if err != nil {
		s.refuse(request(codec.CodeContinue), err)
		return true
	}
	q := &question{s: s, name: name, path: pathKey{s.id, path}, total: int64(m.TotalSize)}
	s.serve(q.answer)
	return true
}

// mayProceed returns the path of the file, or why a 1032 is refused.
func (s *Session) mayProceed(name string, total uint64) (path string, err error) {
	path, err = storage.CleanPath(name)
	switch {
	case err != nil:
		return "", err
	case strings.Count(path, "/") > maxFolders:
		return "", errTooDeep
	case s.draining:
		return "", errGoingDown
	case s.guarded: // its checksum would tell what content decrypts to, see resumed.go
		return "", errNotReady
	case total > uint64(s.svc.limits.Load().MaxFileSize):
		return "", errTotalSize
	case s.uploads.all[name] != nil:
		return "", errUnderWay
	}
	return path, nil
}

// question is a 1032 that is being answered.
type question struct {
	s     *Session
	name  string
	path  pathKey
	total int64
}

// given says what the 1608 says.
func (q *question) given(offset int64, state uint32) *continued {
	return &continued{name: q.name, total: q.total, offset: offset, state: state}
}

// whole is given for a file that is there as a whole: the 1608 is the receipt for it.
func (q *question) whole(f *storage.File) *continued {
	q.s.uploads.note(q.name, receipt{incoming: f.Incoming, settled: f.Verified})
	c := q.given(f.Size, 0)
	c.stage = spent
	return c
}

// answer looks for what there is, and sends the 1608.
func (q *question) answer(co *coroutine) {
	s := q.s
	s.uploads.forgetContinued(q.name)
	c, sum, step, err := q.look(co)
	switch {
	case s.closed:
		if c != nil {
			s.uploads.giveUp(c)
		}
		return
	case err != nil:
		s.refuseOrFail(request(codec.CodeContinue), step, err)
		return
	}
	s.uploads.remember(c)
	s.uploads.refused.forget(s.host, s.id, q.name)
	if c.offset > 0 {
		s.svc.counts.continued.Add(1)
		told := zap.InfoLevel
		if c.offset == q.total { // nothing goes on, and a folder that is sent again asks about each of its files
			told = zap.DebugLevel
		}
		if line := s.log().Check(told, "continued"); line != nil {
			line.Write(s.fields(zap.String("file", q.name), zap.Int64("offset_bytes", c.offset), zap.Int64("total_bytes", q.total))...)
		}
	}
	s.send(codec.Continued{ID: s.id, FileName: []byte(q.name), Offset: uint64(c.offset), Cksum: sum}.Append(nil))
}

// look finds what there is of the file, and its checksum. An error is that of step.
func (q *question) look(co *coroutine) (c *continued, sum uint32, step Step, err error) {
	for { // once more for each connection that had the file
		place := co.lock(q.path)
		c, sum, step, err = q.lookIn(co, place)
		if !errors.Is(err, errTaken) {
			place.unlock()
			return c, sum, step, err
		}
	}
}

// lookIn is look in the place, which is locked. If it returns errTaken, it has given the place
// up, and another connection has ended its work on the file.
func (q *question) lookIn(co *coroutine, p *place) (c *continued, sum uint32, step Step, err error) {
	s := q.s
	if err := p.settle(co); err != nil {
		return nil, 0, StepCatchingUp, err
	}
	get := &storage.GetFile{Outcome: storage.Outcome{By: s.by()}, ID: q.path.id, Path: q.path.path, WithPartial: true}
	if err := co.apply(get); err != nil && !errors.Is(err, storage.ErrNoFile) {
		return nil, 0, StepRegistry, err
	}
	if part := get.Partial; part != nil && part.Total == q.total && !part.Deleted {
		if !co.claim(p, part.Incoming) {
			return nil, 0, StepOther, errTaken
		}
		if part.Boot == s.svc.Boot || s.svc.keeping.Sealed {
			return q.goOn(co, p, part)
		}
		return q.given(0, 0), cksum.Checksum(nil), StepOther, nil
	}
	if f := get.Unverified; f != nil && f.Size == q.total && !f.Deleted {
		return q.whole(f), f.Cksum, StepOther, nil
	}
	if f := get.Verified; f != nil && f.Size == q.total && !f.Deleted && f.Incoming != "" { // else there can be no receipt for it
		if ok, err := q.mayTell(co, f); err != nil {
			return nil, 0, StepRegistry, err
		} else if ok {
			return q.whole(f), f.Cksum, StepOther, nil
		}
	}
	return q.given(0, 0), cksum.Checksum(nil), StepOther, nil
}

// mayTell reports whether the client may be told of f, which is verified, and whether it is
// there: an id that was overheard must not be enough to ask what is stored.
func (q *question) mayTell(co *coroutine, f *storage.File) (bool, error) {
	s := q.s
	if s.channel.tlsKey() == nil || s.uploads.unwanted(q.name) || f.Missing && f.Taken.IsZero() {
		return false, nil
	}
	if !s.facts.has(keyOwner) {
		get := &storage.GetClient{Outcome: storage.Outcome{By: s.by()}, ID: s.id}
		if err := co.apply(get); err != nil || !s.owns(&get.Client) {
			return false, err
		}
		s.facts.set(keyOwner, true)
	}
	if !f.Taken.IsZero() {
		return true, nil
	}
	size := int64(0)
	err := co.do(Storage, func(ctx context.Context) (err error) {
		size, err = s.svc.Files.Size(ctx, f.Stored())
		return err
	})
	return err == nil && size == f.Size, nil
}

// goOn takes a partial file over: from now on it is this session's, and no older generation's.
func (q *question) goOn(co *coroutine, p *place, part *storage.Partial) (c *continued, cksum uint32, step Step, err error) {
	s := q.s
	claim := s.svc.claims.enter(s, part.Uploaded(), true)
	taken := false
	defer func() {
		if !taken {
			s.leaveClaim(claim)
		}
	}()
	op := &storage.ContinueFile{Outcome: s.outcome(), ID: part.ID, Path: part.Path, Incoming: part.Incoming, Changed: s.host.Now()}
	if err := co.apply(op); errors.Is(err, storage.ErrNoFile) { // it has gone meanwhile
		s.svc.claims.doubt(claim)
		return q.nothing()
	} else if err != nil {
		return nil, 0, StepRegistry, err
	}
	row := op.Partial
	if step, err := q.readOn(co, &row); errors.Is(err, storage.ErrNotStored) {
		return q.gone(co, &row)
	} else if err != nil {
		return nil, 0, step, err
	}
	if row.Length == row.Total {
		return q.complete(co, p, &row)
	}
	taken = true
	c = q.given(row.Length, row.State)
	c.row, c.claim = row, claim
	if c.offset == 0 { // nothing is there that the next transfer could go on with
		c.claim, taken = nil, false
		return q.gone(co, &row)
	}
	s.restClaim(claim)
	return c, sum(row.State, row.Length), StepOther, nil
}

// nothing is the answer if nothing is there.
func (q *question) nothing() (*continued, uint32, Step, error) {
	return q.given(0, 0), cksum.Checksum(nil), StepOther, nil
}

// gone forgets a partial file of which nothing can be used.
func (q *question) gone(co *coroutine, row *storage.Partial) (*continued, uint32, Step, error) {
	err := co.apply(q.s.svc.dropPartial(q.s.outcome(), row))
	if err != nil && !errors.Is(err, storage.ErrNoFile) {
		return nil, 0, StepRegistry, err
	}
	if q.s.svc.mayDiscard(err) {
		co.discard(row.Uploaded())
	}
	return q.nothing()
}

// complete makes a file that awaits its verdict of a partial one that has all its bytes: only its padding
// was missing.
func (q *question) complete(co *coroutine, p *place, row *storage.Partial) (*continued, uint32, Step, error) {
	s := q.s
	key, err := q.seal(co, row)
	if errors.Is(err, storage.ErrNotStored) {
		return q.gone(co, row)
	} else if err != nil {
		return nil, 0, StepStorage, err
	}
	op := &storage.PutFile{Outcome: s.outcome(), Generation: row.Generation, Quota: s.svc.limits.Load().Quota, File: storage.File{
		ID: row.ID, FileName: row.FileName, Path: row.Path, Incoming: key,
		Size: row.Total, Cksum: sum(row.State, row.Length), Received: s.host.Now(),
	}, Leased: s.svc.keeping.Leases}
	if key != row.Incoming {
		op.From = row.Incoming
	}
	if err := p.put(co, op); err != nil {
		return nil, 0, StepRegistry, err
	}
	co.tookPlace(op)
	return q.whole(&op.File), op.File.Cksum, StepOther, nil
}

// readOn counts in what lies behind the Length of a partial file: a server that was killed
// wrote it. It is made durable and recorded, so that it is read once. What is beyond
// Total is cut off. ErrNotStored if the content is not there, or less than Length.
func (q *question) readOn(co *coroutine, row *storage.Partial) (step Step, err error) {
	if q.s.svc.keeping.Sealed {
		return StepStorage, co.stillThere(row) // nothing lies behind the Length
	}
	files, from := q.s.svc.Files, row.Length
	err = co.do(Storage, func(ctx context.Context) error {
		if err := readBehind(ctx, files, row); err != nil {
			return err
		}
		in, err := files.Reopen(ctx, row.Uploaded(), storage.Announce(row.Total), row.Length)
		if err == nil {
			err = in.Close(ctx)
		}
		if err == nil && row.Length > from {
			err = files.Flush(ctx, row.Uploaded(), row.Length)
		}
		return err
	})
	switch {
	case errors.Is(err, storage.ErrNotDurable): // and never will be
		return StepStorage, errors.Join(storage.ErrNotStored, err)
	case err != nil || row.Length == from:
		return StepStorage, err
	}
	return StepRegistry, co.putPartial(row, "", nil)
}

// seal completes the content of a partial file that has all its bytes, where that is needed, and returns
// its key then.
func (q *question) seal(co *coroutine, row *storage.Partial) (key string, err error) {
	files := q.s.svc.Files
	if !q.s.svc.keeping.Sealed {
		return row.Incoming, nil
	}
	err = co.do(Storage, func(ctx context.Context) error {
		in, err := files.Reopen(ctx, row.Uploaded(), storage.Announce(row.Total), row.Length)
		if err != nil {
			return err
		}
		key = in.Key()
		return in.Complete(ctx)
	})
	return key, err
}

// readBuffers are for readBehind. Workers use them, one each, so they need no budget.
var readBuffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// readBehind sums what lies behind the Length of a partial file, up to its Total, and counts it in.
func readBehind(ctx context.Context, files storage.Files, row *storage.Partial) error {
	size, err := files.Size(ctx, row.Uploaded())
	switch {
	case err != nil:
		return err
	case size < row.Length:
		return storage.ErrNotStored
	case size == row.Length:
		return nil
	}
	r, err := files.OpenFrom(ctx, row.Uploaded(), row.Length)
	if err != nil {
		return err
	}
	buf := readBuffers.Get().(*[]byte)
	defer readBuffers.Put(buf)
	h := cksum.Resume(row.State, uint64(row.Length))
	n, err := io.CopyBuffer(&h, onlyReader{ctx, io.LimitReader(r, row.Total-row.Length)}, *buf)
	if err = errors.Join(err, r.Close()); err != nil {
		return err
	}
	row.Length, row.State = row.Length+n, h.State()
	return nil
}

// onlyReader reads until ctx ends.
type onlyReader struct {
	ctx context.Context
	r   io.Reader
}

func (r onlyReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
