package storage

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"sealift/codec"
)

// ErrNoEvent is what an operation about an event that is not on record is refused with: it
// was told, or dropped.
var ErrNoEvent = errors.New("no such event")

// EventKind says what has happened.
type EventKind string

// The kinds of events. docs/EVENTS.md says of each when it comes.
const (
	EventRegistered EventKind = "registered"
	EventReceived   EventKind = "received"
	EventVerified   EventKind = "verified"
	EventRejected   EventKind = "rejected"
	EventRemoved    EventKind = "removed"
	EventExpired    EventKind = "expired"
	EventQuota      EventKind = "quota"
)

// Why says what an event comes from, where its kind leaves that open.
type Why string

const (
	WhyMismatch   Why = "mismatch"    // rejected: 1030
	WhyGivenUp    Why = "given_up"    // rejected: 1031
	WhyReplaced   Why = "replaced"    // rejected: a newer upload of the name was complete first
	WhySpoilt     Why = "spoilt"      // rejected: the content was lost or damaged before the verdict
	WhyNotDurable Why = "not_durable" // rejected: the content could not be made durable at the verdict
	WhyFoundAgain Why = "found_again" // verified: the content is back in its place
	WhyDeleted    Why = "deleted"     // removed: somebody had it deleted
	WhyTaken      Why = "taken"       // removed: it was handed out
	WhyMissing    Why = "missing"     // removed: it is not in its place, and the server has not removed it
	WhyNoVerdict  Why = "no_verdict"  // expired: the file waited too long for its 1029
	WhyNoKey      Why = "no_key"      // expired: the client waited too long with its 1026
	WhyKept       Why = "kept"        // expired: the file was kept as long as it should be; removed comes when it is gone
	WhyTime       Why = "time"        // expired: the client's time is over, and it is disabled
)

// Event is something that has happened, for one target that is to be told: a row of the
// table events. What it says was true when it was recorded, in the transaction of the change
// itself. The events of one client are told to a target in their order.
type Event struct {
	Seq    int64  // its place in the order of the registry; no two events have the same
	Target string // who is to be told
	// ID is the same for all targets, and each time that the event is told: who is told twice
	// knows by it.
	ID         string
	Kind       EventKind
	Why        Why // "" where the kind says it all
	Happened   time.Time
	Client     codec.ClientID
	ClientName string
	// The file that it is about. Without a Path it is about the client itself. Version is
	// File.Incoming.
	FileName, Path, Version string
	Size                    int64
	Cksum                   uint32

	// How it goes with telling.
	Attempts int       // that failed
	Failure  string    // why the last one did
	Due      time.Time // when it is to be told; zero: at once
	Behind   bool      // an earlier event of its client comes first; Due says nothing then
}

// About puts the file of f into e, and returns it.
func (e Event) About(f *File) Event {
	e.Client, e.FileName, e.Path, e.Version, e.Size, e.Cksum = f.ID, f.FileName, f.Path, f.Incoming, f.Size, f.Cksum
	return e
}

// NewEventID returns an ID that no other event has.
func NewEventID() string { return rand.Text() }

// Backlog is what waits to be told to one target.
type Backlog struct {
	Target string
	Events int
	Oldest time.Time // when the oldest happened
}

// Events is the part of a Registry that keeps events until their targets are told. As long
// as there is no target, nothing is recorded, and an operation costs what it does without
// events.
//
// What is told, put off or dropped are operations: [EventTold], [PostponeEvent],
// [RetryEvents], [DropEvents]. One process at a time tells the events of a registry.
type Events interface {
	// SetTargets has events be recorded for these targets and no others from now on, in this
	// process and in all that open the registry later. Events that wait for others stay. The
	// server calls it before anything can happen.
	SetTargets(ctx context.Context, targets []string) error

	// NextEvents returns up to limit events for target that no other event of their client
	// comes before, those that are due first, in the order in which they are due. Some may be due
	// in the future.
	NextEvents(ctx context.Context, target string, limit int) ([]Event, error)

	// ListEvents calls yield for each event in the order of Seq, until yield returns an error,
	// which it then returns. yield may not call the registry.
	ListEvents(ctx context.Context, yield func(Event) error) error

	// Backlogs returns what waits, for each target for which something does, ordered by
	// Target. It goes through all events.
	Backlogs(ctx context.Context) ([]Backlog, error)

	// Recorded is sent to when this process has recorded events. The channel holds one value.
	Recorded() <-chan struct{}
}

type (
	// RaiseEvent records an event for each target that comes from no other operation. Client,
	// Kind and Why, and the fields of the file, are the caller's; the others are not looked at.
	// It is the server's own. Err: ErrNoClient.
	RaiseEvent struct {
		Outcome
		Event Event
	}

	// RestoreEvent records an event as it is, for its Target and with its ID: it comes from
	// another registry. Seq, Due and Behind are not looked at: it is due at once, behind those
	// of its client that are there. If it is on record already, nothing changes. It is the
	// server's own. At stays zero.
	RestoreEvent struct {
		Outcome
		Event Event
	}

	// EventTold forgets an event that its target has accepted, of which Seq, Target and Client count.
	// The next one of its client becomes due. It is the server's own. At stays zero. Err:
	// ErrNoEvent.
	EventTold struct {
		Outcome
		Event Event
	}

	// PostponeEvent puts an event off until Due, after an attempt that failed. It is the
	// server's own. At stays zero. Err: ErrNoEvent.
	PostponeEvent struct {
		Outcome
		Seq     int64
		Due     time.Time
		Failure string
	}

	// RetryEvents makes the events due at once that are Chosen and have been put off. It is the
	// server's own. At stays zero.
	RetryEvents struct {
		Outcome
		Chosen
		Retried int // result
	}

	// DropEvents forgets the events that are Chosen and were recorded before Before, unless
	// that is zero, and that are older than the newest Keep of all that wait for the target,
	// unless that is 0: then Target must be set. It is the server's own. At stays zero.
	DropEvents struct {
		Outcome
		Chosen
		Before  time.Time
		Keep    int
		Dropped int // result
	}

	// Chosen says which events are meant: those for Target with that ID. What is "" is not
	// looked at.
	Chosen struct{ Target, EventID string }
)

// Takes reports whether e is chosen.
func (c Chosen) Takes(e *Event) bool {
	return (c.Target == "" || c.Target == e.Target) && (c.EventID == "" || c.EventID == e.ID)
}

// Subject is what a store has to read, before it does an operation, for [EventsOf].
type Subject struct {
	Place    Place
	Incoming string
	Verified bool // the verified file of that key, otherwise the unverified one
	// Client: the client itself is what is to be read.
	Client bool
}

// SubjectOf returns what has to be read before op for its events; false: nothing.
func SubjectOf(op Operation) (Subject, bool) {
	switch op := op.(type) {
	case *VerifyFile:
		return Subject{Place: Place{op.ID, op.Path}, Incoming: op.Incoming}, true
	case *DropFile:
		return Subject{Place: Place{op.ID, op.Path}, Incoming: op.Incoming}, true
	case *MarkFile:
		return Subject{Place: Place{op.ID, op.Path}, Incoming: op.Incoming, Verified: true}, true
	case *ForgetFile:
		return Subject{Place: Place{op.ID, op.Path}, Incoming: op.Incoming, Verified: true}, true
	case *DeleteFile:
		return Subject{Place: Place{op.ID, op.Path}, Incoming: op.Incoming, Verified: op.Verified}, op.Why != ""
	case *DropClient:
		return Subject{Place: Place{ID: op.ID}, Client: true}, true
	case *ExpireClient:
		return Subject{Place: Place{ID: op.ID}, Client: true}, true
	case *DropKeyless:
		return Subject{Place: Place{ID: op.ID}, Client: true}, true
	}
	return Subject{}, false
}

// EventsOf returns the events of an operation that has succeeded, of which was and client
// were read before it: what [SubjectOf] asked for. Seq, Target, ID and Happened are for the
// store to set, and ClientName where it is "".
func EventsOf(op Operation, was *File, client *Client) []Event {
	event := func(kind EventKind, why Why, f *File) []Event {
		if f == nil {
			return nil
		}
		return []Event{Event{Kind: kind, Why: why}.About(f)}
	}
	ofClient := func(kind EventKind, why Why) []Event {
		if client == nil {
			return nil
		}
		return []Event{{Kind: kind, Why: why, Client: client.ID, ClientName: client.Name}}
	}
	switch op := op.(type) {
	case *AddClient:
		return []Event{{Kind: EventRegistered, Client: op.ID, ClientName: op.Name}}
	case *PutFile:
		return append(event(EventRejected, WhyReplaced, op.Replaced), Event{Kind: EventReceived}.About(&op.File))
	case *VerifyFile:
		if op.Missing {
			return event(EventRejected, WhyNotDurable, was)
		}
		return event(EventVerified, "", was)
	case *DropFile:
		switch {
		case op.Why == WhyNoVerdict:
			return event(EventExpired, op.Why, was)
		case op.Why == WhyDeleted:
			return event(EventRemoved, op.Why, was)
		}
		return event(EventRejected, op.Why, was)
	case *MarkFile:
		switch {
		case was == nil || was.Missing == op.Missing:
			return nil
		case op.Missing:
			return event(EventRemoved, whyGone(was), was)
		}
		return event(EventVerified, WhyFoundAgain, was)
	case *ForgetFile:
		if was == nil || was.Missing { // that it is gone was told when it was marked
			return nil
		}
		return event(EventRemoved, whyGone(was), was)
	case *DeleteFile:
		if op.Why == "" {
			return nil
		}
		return event(EventExpired, op.Why, was)
	case *ExpireClient:
		return ofClient(EventExpired, WhyTime)
	case *DropClient:
		return ofClient(EventRemoved, WhyDeleted)
	case *DropKeyless:
		return ofClient(EventExpired, WhyNoKey)
	case *RaiseEvent:
		return []Event{op.Event}
	}
	return nil
}

// whyGone says why the content of a verified file is gone.
func whyGone(f *File) Why {
	switch {
	case f.Deleted:
		return WhyDeleted
	case !f.Taken.IsZero():
		return WhyTaken
	}
	return WhyMissing
}
