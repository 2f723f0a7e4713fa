package postgres

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"sealift/codec"
	"sealift/storage"
)

// step is a statement of a batch, for an operation: a call of a function that changes
// something, or a question.
type step struct {
	op   storage.Operation
	text string
	args []any // of a change, without those of note
	// changes: the statement returns one value, a result; done, if not nil, takes it into op. The
	// result is empty after a refusal.
	changes bool
	done    func(*result)
	rows    func(pgx.Rows) error // takes the answer to a question into op
	touches bool                 // it has no answer, and sets LastSeen
}

// result is what a function in the database returns, see schema/1_common.sql.
type result struct {
	Refused        string
	Quota          storage.Quota
	Used, More     storage.Usage
	Replaced       *fileRow
	Partial        *partialRow
	Marked, Lapsed bool
	N              int
	Lost           []string
	Reaped         []leaseRow
}

var errResult = errors.New("the database returned what it should not")

var refusals = map[string]error{
	"name_taken": storage.ErrNameTaken,
	"id_taken":   storage.ErrIDTaken,
	"no_client":  storage.ErrNoClient,
	"wrong_name": storage.ErrWrongName,
	"key_pinned": storage.ErrKeyPinned,
	"pinned":     storage.ErrPinned,
	"no_file":    storage.ErrNoFile,
	"disabled":   storage.ErrDisabled,
	"not_added":  storage.ErrNotAdded,
	"has_files":  storage.ErrHasFiles,
	"superseded": storage.ErrSuperseded,
	"no_lease":   storage.ErrNoLease,
	"no_event":   storage.ErrNoEvent,
}

// takeRows takes the answer of the database.
func (s *step) takeRows(rows pgx.Rows) error {
	if !s.changes {
		return s.rows(rows)
	}
	var raw []byte
	if !rows.Next() {
		if err := rows.Err(); err != nil {
			return err
		}
		return fmt.Errorf("%w: nothing for %T", errResult, s.op)
	}
	if err := rows.Scan(&raw); err != nil {
		return err
	}
	return s.takeResult(raw)
}

// takeResult takes a result in JSON; nil: the operation has succeeded.
func (s *step) takeResult(raw []byte) error {
	out := s.op.Result()
	out.Err = nil
	var res result
	if raw != nil {
		if err := json.Unmarshal(raw, &res); err != nil {
			return fmt.Errorf("%w: %w", errResult, err)
		}
	}
	switch res.Refused {
	case "":
	case "quota":
		out.Err = &storage.QuotaError{Quota: res.Quota, Used: res.Used, More: res.More, Size: s.op.(*storage.PutFile).File.Size}
	default:
		if out.Err = refusals[res.Refused]; out.Err == nil {
			return fmt.Errorf("%w: refused %q", errResult, res.Refused)
		}
	}
	if s.done != nil {
		s.done(&res)
	}
	return nil
}

// plan makes the steps of a batch.
type plan struct {
	steps []step
	tells bool
}

func steps(batch []storage.Operation, tells bool) []step {
	p := plan{steps: make([]step, 0, len(batch)), tells: tells}
	for _, op := range batch {
		from := len(p.steps)
		p.add(op)
		for i := range p.steps[from:] {
			if err := checkText(p.steps[from+i].args); err != nil {
				// It is refused by itself, and does not spoil the batch.
				op.Result().Err = err
				p.steps = p.steps[:from]
				break
			}
		}
	}
	return p.steps
}

// errText is a text that PostgreSQL cannot keep. No name that a client may have is one.
var errText = errors.New("the text is no UTF-8, or has a zero in it")

func checkText(args []any) error {
	for _, arg := range args {
		switch arg := arg.(type) {
		case string:
			if !canBeKept(arg) {
				return fmt.Errorf("%w: %q", errText, arg)
			}
		case []string:
			if slices.ContainsFunc(arg, func(s string) bool { return !canBeKept(s) }) {
				return fmt.Errorf("%w: %q", errText, arg)
			}
		}
	}
	return nil
}

func canBeKept(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// texts are the statements that call a function, by its name.
var texts sync.Map

// change adds a call of a function that changes something.
func (p *plan) change(op storage.Operation, function string, done func(*result), args ...any) {
	text, ok := texts.Load(function)
	if !ok {
		var b strings.Builder
		fmt.Fprintf(&b, "SELECT note($1, $2, %s(", function)
		for i := range args {
			if i > 0 {
				b.WriteString(", ")
			}
			fmt.Fprintf(&b, "$%d", i+3)
		}
		b.WriteString("))")
		text, _ = texts.LoadOrStore(function, b.String())
	}
	p.steps = append(p.steps, step{op: op, text: text.(string), args: args, changes: true, done: done})
}

// ask adds a question.
func (p *plan) ask(op storage.Operation, text string, rows func(pgx.Rows) error, args ...any) {
	p.steps = append(p.steps, step{op: op, text: text, args: args, rows: rows})
}

// touch adds the change of LastSeen to a question that has a time, by a function that changes it
// where the question has an answer.
func (p *plan) touch(op storage.Operation, function string, args ...any) {
	if !op.Result().At.IsZero() {
		p.steps = append(p.steps, step{op: op, text: "SELECT " + function, args: args, touches: true, rows: func(rows pgx.Rows) error {
			for rows.Next() {
			}
			return nil
		}})
	}
}

// add adds the steps of op.
func (p *plan) add(op storage.Operation) {
	out := op.Result()
	at, own, by := timestamp(out.At), out.By.IsServer(), blob(out.By.Key())
	switch op := op.(type) {
	case *storage.AddClient:
		p.change(op, "add_client", nil, id(op.ID), op.Name, blob(op.TLSKey), op.OnlyAdded, at, p.tells)
	case *storage.GetClient:
		p.getClient(op)
		p.touch(op, "seen($1, $2, $3, $4)", id(op.ID), own, by, at)
	case *storage.PinClient:
		p.change(op, "pin_client", nil, id(op.ID), blob(op.TLSKey), own, by, at)
	case *storage.SetKeys:
		p.change(op, "set_keys", nil, id(op.ID), op.Name, blob(op.PublicKey), blob(op.AESKey), op.Replace, own, by, at)
	case *storage.SetAESKey:
		p.change(op, "set_aes_key", nil, id(op.ID), blob(op.AESKey), blob(op.If), own, by, at)
	case *storage.Seen:
		p.change(op, "seen", nil, id(op.ID), own, by, at)
	case *storage.PutFile:
		p.putFile(op)
	case *storage.GetFile:
		p.getFile(op)
		p.touch(op, "seen_file($1, $2, $3, $4, $5, $6)", id(op.ID), op.Path, op.WithPartial, own, by, at)
	case *storage.FindAlike:
		p.findAlike(op) // its LastSeen: see seeAlike
	case *storage.PutPartial:
		p.putPartial(op)
	case *storage.ContinueFile:
		p.change(op, "continue_file", func(r *result) {
			op.Partial = storage.Partial{}
			if r.Partial != nil {
				op.Partial = *r.Partial.partial()
			}
		}, id(op.ID), op.Path, op.Incoming, timestamp(op.Changed), own, by, at)
	case *storage.DropPartial:
		p.change(op, "drop_partial", nil, id(op.ID), op.Path, op.Incoming, op.Generation, op.Leased, own, by, at)
	case *storage.DeletePartial:
		p.change(op, "delete_partial", nil, id(op.ID), op.Path, op.Incoming, at)
	case *storage.VerifyFile:
		p.change(op, "verify_file", func(r *result) { op.Replaced = r.Replaced.file() },
			id(op.ID), op.Path, op.Incoming, op.Missing, op.Versions, own, by, at, p.tells)
	case *storage.DropFile:
		kind, why := droppedAs(op)
		p.change(op, "drop_file", func(r *result) { op.Marked = r.Marked },
			id(op.ID), op.Path, op.Incoming, kind, why, own, by, at, p.tells)
	case *storage.MarkFile:
		p.change(op, "mark_file", nil, id(op.ID), op.Path, op.Incoming, op.Missing, at, p.tells)
	case *storage.ForgetFile:
		p.change(op, "forget_file", func(r *result) { op.Lapsed = r.Lapsed }, id(op.ID), op.Path, op.Incoming, at, p.tells)
	case *storage.TakeFile:
		p.change(op, "take_file", nil, id(op.ID), op.Path, op.Incoming, timestamp(op.Taken), at)
	case *storage.DeleteFile:
		p.change(op, "delete_file", nil, id(op.ID), op.Path, op.Incoming, !op.Verified, string(op.Why), at, p.tells)
	default:
		if !p.addOwn(op) {
			out.Err = fmt.Errorf("unknown operation %T", op)
		}
	}
}

// addOwn adds the steps of an operation that only the server asks for.
func (p *plan) addOwn(op storage.Operation) bool {
	out := op.Result()
	at := timestamp(out.At)
	switch op := op.(type) {
	case *storage.AddName:
		p.change(op, "add_name", nil, op.Name)
	case *storage.DropName:
		p.change(op, "drop_name", nil, op.Name)
	case *storage.DisableClient:
		p.change(op, "disable_client", nil, id(op.ID), op.Disabled, at)
	case *storage.DropClient:
		p.change(op, "drop_client", nil, id(op.ID), p.tells)
	case *storage.DropKeyless:
		p.change(op, "drop_keyless", nil, id(op.ID), timestamp(op.Before), p.tells)
	case *storage.SetQuota:
		p.change(op, "set_quota", nil, id(op.ID), number(op.Bytes), number(op.Files), at)
	case *storage.SetKeepFor:
		p.change(op, "set_keep_for", nil, id(op.ID), keepSeconds(op.KeepFor), at)
	case *storage.SetExpires:
		p.change(op, "set_expires", nil, id(op.ID), timestamp(op.Expires), at)
	case *storage.ExpireClient:
		p.change(op, "expire_client", nil, id(op.ID), timestamp(op.Now), at, p.tells)
	case *storage.FindExpired:
		p.findExpired(op)
	case *storage.GetUsage:
		p.getUsage(op)
		p.touch(op, "seen($1, $2, $3, $4)", id(op.ID), out.By.IsServer(), blob(out.By.Key()), at)
	case *storage.LeaseUpload:
		p.change(op, "lease_upload", nil, op.Upload.Key, id(op.Upload.ID), op.Upload.Path, op.Server, op.For, op.Again)
	case *storage.RenewLeases:
		p.change(op, "renew_leases", func(r *result) { op.Lost = r.Lost }, op.Server, op.Keys, op.For)
	case *storage.EndLease:
		p.change(op, "end_lease", nil, op.Key)
	case *storage.ReapLeases:
		p.change(op, "reap_leases", func(r *result) {
			op.Reaped = nil
			for _, l := range r.Reaped {
				op.Reaped = append(op.Reaped, l.lease())
			}
		}, op.Ago, int64(op.Limit))
	case *storage.FindUpload:
		p.findUpload(op)
	case *storage.RaiseEvent:
		e := &op.Event
		p.change(op, "raise_event", nil, string(e.Kind), string(e.Why), id(e.Client), orNull(e.ClientName), e.FileName, e.Path, e.Version,
			e.Size, int64(e.Cksum), out.By.IsServer(), blob(out.By.Key()), at, p.tells)
	case *storage.RestoreEvent:
		e := &op.Event
		p.change(op, "restore_event", nil, e.Target, e.ID, string(e.Kind), string(e.Why), timestamp(e.Happened), id(e.Client), e.ClientName,
			e.FileName, e.Path, e.Version, e.Size, int64(e.Cksum), int64(e.Attempts), e.Failure)
	case *storage.EventTold:
		p.change(op, "event_told", nil, op.Event.Seq, op.Event.Target, id(op.Event.Client))
	case *storage.PostponeEvent:
		p.change(op, "postpone_event", nil, op.Seq, due(op.Due), strings.ToValidUTF8(strings.ReplaceAll(op.Failure, "\x00", ""), "\uFFFD"))
	case *storage.RetryEvents:
		p.change(op, "retry_events", func(r *result) { op.Retried = r.N }, op.Target, op.EventID)
	case *storage.DropEvents:
		p.change(op, "drop_events", func(r *result) { op.Dropped = r.N }, op.Target, op.EventID, timestamp(op.Before), int64(op.Keep))
	default:
		return false
	}
	return true
}

func (p *plan) putFile(op *storage.PutFile) {
	f, out := &op.File, op.Result()
	p.change(op, "put_file", func(r *result) { op.Replaced, op.Partial = r.Replaced.file(), r.Partial.partial() },
		id(f.ID), f.FileName, f.Path, f.Size, int64(f.Cksum), f.Incoming, timestamp(f.Received), f.Lapsed,
		op.Quota.Bytes, op.Quota.Files, op.Generation, op.From, op.Leased, out.By.IsServer(), blob(out.By.Key()), timestamp(out.At), p.tells)
}

func (p *plan) putPartial(op *storage.PutPartial) {
	q, out := &op.Partial, op.Result()
	p.change(op, "put_partial", func(r *result) { op.Replaced = r.Partial.partial() },
		id(q.ID), q.FileName, q.Path, q.Incoming, q.Total, q.Length, int64(q.State), q.Boot, q.Generation, timestamp(q.Changed), q.Deleted,
		op.From, op.Leased, out.By.IsServer(), blob(out.By.Key()), timestamp(out.At))
}

// droppedAs is what the event of a DropFile says, see storage.EventsOf.
func droppedAs(op *storage.DropFile) (kind, why string) {
	e := storage.EventsOf(op, new(storage.File), nil)[0]
	return string(e.Kind), string(e.Why)
}

// subject returns the client whose row has to be locked for op, zero if there is none, and
// whether op steers: other servers have to look again what they may do.
func subject(op storage.Operation) (of codec.ClientID, steers bool) {
	switch op := op.(type) {
	case *storage.GetClient:
		return op.ID, false
	case *storage.SetKeys:
		return op.ID, false
	case *storage.SetAESKey:
		return op.ID, false
	case *storage.Seen:
		return op.ID, false
	case *storage.PutFile:
		return op.File.ID, false
	case *storage.GetFile:
		return op.ID, false
	case *storage.GetUsage:
		return op.ID, false
	case *storage.PutPartial:
		return op.Partial.ID, false
	case *storage.ContinueFile:
		return op.ID, false
	case *storage.DropPartial:
		return op.ID, false
	case *storage.VerifyFile:
		return op.ID, false
	case *storage.DropFile:
		return op.ID, false
	case *storage.MarkFile:
		return op.ID, false
	case *storage.ForgetFile:
		return op.ID, false
	case *storage.RaiseEvent:
		return op.Event.Client, false
	case *storage.RestoreEvent:
		return op.Event.Client, false
	case *storage.EventTold:
		return op.Event.Client, false
	case *storage.PinClient:
		return op.ID, true
	case *storage.DeletePartial:
		return op.ID, true
	case *storage.TakeFile:
		return op.ID, true
	case *storage.DeleteFile:
		return op.ID, true
	case *storage.DisableClient:
		return op.ID, true
	case *storage.DropClient:
		return op.ID, true
	case *storage.DropKeyless:
		return op.ID, true
	case *storage.SetQuota:
		return op.ID, true
	case *storage.SetKeepFor:
		return op.ID, true
	case *storage.SetExpires:
		return op.ID, true
	case *storage.ExpireClient:
		return op.ID, true
	case *storage.AddName, *storage.DropName:
		return of, true
	}
	return of, false
}

// isTold reports whether op, which has succeeded, may have recorded an event.
func isTold(op storage.Operation) bool {
	switch op := op.(type) {
	case *storage.AddClient, *storage.PutFile, *storage.VerifyFile, *storage.DropFile, *storage.MarkFile, *storage.ForgetFile,
		*storage.ExpireClient, *storage.DropClient, *storage.DropKeyless, *storage.RaiseEvent, *storage.RestoreEvent:
		return true
	case *storage.DeleteFile:
		return op.Why != ""
	}
	return false
}

// What the arguments of statements are made of.

func id(id codec.ClientID) uuid.UUID { return uuid.UUID(id) }

// blob makes NULL of a key that is not there.
func blob(b []byte) any {
	if len(b) == 0 {
		return nil
	}
	return b
}

// orNull makes NULL of an empty text.
func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func number(n *int64) any {
	if n == nil {
		return nil
	}
	return *n
}

// timestamp makes NULL of a time that is not there.
func timestamp(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return roundTime(t)
}

func roundTime(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

// due is what the column due holds for t.
func due(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return max(1, t.UnixMilli())
}

// keepSeconds is what the column keep_for has for a time, and keepForOf the reverse.
func keepSeconds(d time.Duration) int64 {
	if d < 0 {
		return storage.Unlimited
	}
	return int64(d / time.Second)
}

func keepForOf(seconds int64) time.Duration {
	if seconds < 0 {
		return storage.Unlimited
	}
	return time.Duration(seconds) * time.Second
}
