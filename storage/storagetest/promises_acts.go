package storagetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"sealift/codec"
	"sealift/storage"
)

const (
	actUpload = iota
	actConfirm
	actAgain
	actAbort
	actClose
	actExpire
	actRemove
	actTake
	actDelete
	actClear
	actDisable
	actContinue
	actGoOn
)

// steering are the names of what an operator does.
var steering = map[int]string{
	actTake: "a file was taken", actDelete: "a file was deleted", actClear: "what leaves was cleared", actDisable: "the client was disabled",
}

// actWeights say how often each is done.
var actWeights = [...]int{
	actUpload: 5, actConfirm: 7, actAgain: 2, actAbort: 1, actClose: 1, actExpire: 1, actRemove: 1,
	actTake: 3, actDelete: 4, actClear: 2, actDisable: 1,
	actContinue: 7, actGoOn: 3,
}

func (m *promiseModel) someAct() int {
	if m.disabled && m.rnd.IntN(2) == 0 {
		return actDisable // for a short while
	}
	sum := 0
	for _, w := range actWeights {
		sum += w
	}
	n := m.rnd.IntN(sum)
	for act, w := range actWeights {
		if n -= w; n < 0 {
			return act
		}
	}
	panic("not reached")
}

func (m *promiseModel) do(act int, c *promiseConn, path string, failing bool) {
	p := m.places[path]
	switch act {
	case actUpload, actGoOn:
		if c.goesOn(path) {
			m.goOn(c, path, p, failing)
		} else if act == actUpload {
			m.upload(c, path, p, failing)
		} else {
			m.proceed(c, path, p, failing)
		}
	case actContinue:
		m.proceed(c, path, p, failing)
	case actConfirm:
		m.confirm(c, path, p, failing)
	case actAgain, actAbort:
		m.giveUp(act, c, path, p, failing)
	case actClose:
		m.note("connection %d closes", c.n)
		c.close()
	case actExpire:
		if !failing {
			m.expire()
		}
	case actRemove:
		if p.verified != nil && p.there && !p.taken && m.rnd.IntN(3) == 0 {
			m.note("%s is removed by hand", path)
			m.machine.Remove(m.t, clientID(1), path)
			p.there = false
		}
	case actTake:
		m.take(path, p, failing)
	case actDelete:
		m.delete(path, p, failing)
	case actClear:
		m.clear(failing)
	case actDisable:
		m.note("the client is disabled: %v", !m.disabled)
		if m.steer(failing, &storage.DisableClient{ID: clientID(1), Disabled: !m.disabled}) == nil {
			m.disabled = !m.disabled
		}
	}
}

func (m *promiseModel) upload(c *promiseConn, path string, p *placeModel, failing bool) {
	v := m.newVersion()
	m.note("connection %d uploads %s, version %08x", c.n, path, v.sum)
	fits := m.fits(path, int64(len(v.content)))
	reply := c.ask(c.upload(path, v.content))
	want := fmt.Sprintf("1603 %08x", v.sum)
	if !fits {
		want = "1607"
		m.counts["beyond the quota: 1607"]++
	}
	if m.disabled {
		want = "1607"
		m.counts["disabled: 1607"]++
	}
	if reply != want && !failing {
		m.fatalf("upload: got %q, want %q", reply, want)
	} else if m.disabled {
		c.close() // a server ends such connections within a second
		return
	} else if reply != want || !fits {
		c.failed[path] = c.receipts[path] == nil || c.failed[path]
		c.receipts[path] = new(version) // of a file that never was
		return
	}
	delete(c.failed, path)
	if p.waiting != nil {
		p.drop()
	}
	p.waiting, p.part = v, nil
	c.receipts[path] = v
	delete(c.asked, path)
}

func (m *promiseModel) confirm(c *promiseConn, path string, p *placeModel, failing bool) {
	receipt := c.receipts[path]
	want := m.answer(p, receipt)
	k := c.asked[path]
	partly := k != nil && k.part != nil && receipt != k.v // a part is not confirmed
	if partly {
		want = "1607"
	}
	m.note("connection %d confirms %s: %s", c.n, path, want)
	got := c.ask(c.verdict(codec.CodeCRCOK, path))
	if got != want {
		m.note("got %s", got)
	}
	meant := !partly && p.waiting != nil && (receipt == p.waiting || receipt == nil && !p.lapsed)
	late := got == "1604" && meant && p.doomed && !m.disabled // the session did not know
	if got != want && !(got == "1607" && (failing || meant && m.isStuck())) && !late {
		m.fatalf("1029: got %q, want %q", got, want)
	}
	m.count(p, meant, receipt, got)
	if got == "1604" && k != nil && k.spent {
		m.counts["1608 confirmed"]++
	}
	switch {
	case m.disabled && !failing: // what was on its way may have come to its end
		m.resync(path, actConfirm, false)
	case got == "1604" && meant:
		if p.verified != nil && (p.taken || p.deleted) {
			m.counts[map[bool]string{true: "taken version replaced", false: "deleted version replaced"}[p.taken]]++
		}
		p.forget()
		p.verified, p.there, p.waiting, p.doomed, p.lapsed = p.waiting, true, nil, false, false
	}
}

// isStuck reports whether the last thing that the server said is that a folder could not
// be synced, and cannot be made anew: then no commit goes there until the next start.
func (m *promiseModel) isStuck() bool {
	all := m.logged.All()
	if len(all) == 0 {
		return false
	}
	why, _ := all[len(all)-1].ContextMap()["error"].(string)
	return strings.Contains(why, "it cannot be made anew")
}

// count counts an answer to a 1029 that is about something which an operator steered.
func (m *promiseModel) count(p *placeModel, meant bool, receipt *version, got string) {
	about := p.verified != nil && (receipt == p.verified || receipt == nil && p.waiting == nil && !p.lapsed)
	switch {
	case m.disabled && meant:
		m.counts["disabled: "+got+" to a 1029 for what waits"]++
	case m.disabled:
		m.counts["disabled: "+got]++
	case meant && p.doomed:
		m.counts["deleted waiting version: "+got]++
	case about && p.deleted:
		m.counts["deleted version: "+got]++
	case about && p.taken && p.there:
		m.counts["taken version with its content there: "+got]++
	case about && p.taken:
		m.counts["taken version: "+got]++
	}
}

func (m *promiseModel) giveUp(act int, c *promiseConn, path string, p *placeModel, failing bool) {
	code, want := codec.CodeCRCBad, ""
	if act == actAbort {
		code, want = codec.CodeAbort, "1604"
	}
	if m.disabled {
		want = "1607"
	}
	m.note("connection %d sends %d for %s", c.n, code, path)
	if c.failed[path] { // it was about no 1603 of this connection
		delete(c.failed, path)
		delete(c.receipts, path)
	}
	if got := c.ask(c.verdict(code, path)); got != want && !failing {
		m.fatalf("%d: got %q, want %q", code, got, want)
	} else if got == "1607" {
		return
	}
	if m.stops(act, c, path, p) {
		return
	}
	if p.waiting != nil && (c.receipts[path] == p.waiting || c.receipts[path] == nil) {
		p.drop()
	}
}

// expire has all expire that waits, and sometimes what was taken a day ago.
func (m *promiseModel) expire() {
	after := time.Hour
	if m.rnd.IntN(2) == 0 {
		after = 25 * time.Hour
	}
	m.note("all that waits expires, and what was taken before %v", after-24*time.Hour)
	m.machine.Expire(m.t, m.svc, m.now.Add(after))
	for _, p := range m.places {
		if p.waiting != nil {
			p.drop()
		}
		if after > 24*time.Hour && p.taken && !p.there {
			p.forget()
			m.counts["forgotten taken version"]++
		}
	}
}

// row returns what is on record at path.
func (m *promiseModel) row(path string) *storage.GetFile {
	get := &storage.GetFile{Outcome: storage.Outcome{By: storage.Server}, ID: clientID(1), Path: path}
	if err := m.reg.Apply(context.Background(), []storage.Operation{get}); err != nil {
		m.fatalf("registry: %v", err)
	}
	return get
}

// steer does what an operator does by a command of its own. The error is that of the
// operation, or any one if the registry failed.
func (m *promiseModel) steer(failing bool, op storage.Operation) error {
	m.step()
	err := m.reg.Apply(context.Background(), []storage.Operation{op})
	m.step()
	if err != nil && !failing {
		m.fatalf("registry: %v", err)
	}
	if err == nil {
		err = op.Result().Err
	}
	return err
}

// take takes the verified version. That is possible if it is there, and neither taken nor
// deleted: so each is taken once.
func (m *promiseModel) take(path string, p *placeModel, failing bool) {
	v := m.row(path).Verified
	if v == nil || !p.there && !p.taken {
		return // whoever takes it reads it first
	}
	m.note("%s is taken, version %08x", path, v.Cksum)
	missing := v.Missing
	err := m.steer(failing, &storage.TakeFile{ID: v.ID, Path: path, Incoming: v.Incoming, Taken: m.now})
	may := !missing && !p.taken && !p.deleted
	switch {
	case err == nil && !may:
		m.fatalf("it was taken, and cannot be: %s", p)
	case err != nil && may && !failing:
		m.fatalf("take: %v", err)
	case err == nil:
		p.taken = true
		m.counts["taken"]++
	}
}

// delete deletes the verified version, the one that waits, or both.
func (m *promiseModel) delete(path string, p *placeModel, failing bool) {
	get, which := m.row(path), m.rnd.IntN(3)
	if v := get.Verified; v != nil && which != 0 {
		m.note("%s is deleted, version %08x", path, v.Cksum)
		if m.steer(failing, &storage.DeleteFile{ID: v.ID, Path: path, Incoming: v.Incoming, Verified: true}) == nil {
			p.deleted = true
		}
	}
	if w := get.Unverified; w != nil && which != 1 {
		m.note("%s is deleted while it waits, version %08x", path, w.Cksum)
		if m.steer(failing, &storage.DeleteFile{ID: w.ID, Path: path, Incoming: w.Incoming}) == nil {
			p.doomed = true
		}
	}
}

// clear has removed what was taken or deleted.
func (m *promiseModel) clear(failing bool) {
	m.note("what leaves is cleared")
	err := m.machine.Clear(m.t, m.svc)
	if err != nil && !failing {
		m.fatalf("clear: %v", err)
	}
	m.step()
	if failing { // it may have come to any point
		return
	}
	for path, p := range m.places {
		gone := false
		if p.waiting != nil && p.doomed {
			p.drop()
			m.counts["cleared deleted waiting version"]++
		}
		switch {
		case p.verified != nil && p.deleted:
			p.forget()
			gone = true
			m.counts["cleared deleted version"]++
		case p.taken && p.there:
			p.there, gone = false, true
			m.counts["cleared taken version"]++
		}
		if gone {
			m.wantGone(path)
		}
	}
	m.wantCleared()
}

// wantGone checks that nothing is in a place.
func (m *promiseModel) wantGone(path string) {
	if _, err := m.files.Size(context.Background(), m.inPlace(path)); !errors.Is(err, storage.ErrNotStored) {
		m.fatalf("%s: the content is in its place after it was removed: %v", path, err)
	}
}

// wantCleared checks that nothing is left to be removed, and that what the registry has is
// what the model has.
func (m *promiseModel) wantCleared() {
	err := m.reg.Leaving(context.Background(), func(f storage.File) error {
		m.fatalf("%+v is still to be removed", f)
		return nil
	})
	if err != nil {
		m.fatalf("registry: %v", err)
	}
	for path, p := range m.places {
		get := m.row(path)
		if (get.Verified != nil) != (p.verified != nil) || (get.Unverified != nil) != (p.waiting != nil) {
			m.fatalf("%s: on record %+v, %+v, want %s", path, get.Verified, get.Unverified, p)
		}
	}
}

// answer is the table.
func (m *promiseModel) answer(p *placeModel, receipt *version) string {
	yes := false
	switch has := !p.deleted && (p.there || p.taken); {
	case m.disabled:
	case receipt != nil && receipt == p.waiting:
		yes = !p.doomed
	case receipt != nil && receipt == p.verified:
		yes = has
	case receipt != nil, p.lapsed:
	case p.waiting != nil:
		yes = !p.doomed
	case p.verified != nil:
		yes = has
	}
	if yes {
		return "1604"
	}
	return "1607"
}
