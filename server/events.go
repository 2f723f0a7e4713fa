package server

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"sealift/events"
	"sealift/internal/version"
	"sealift/storage"
)

// Events is about who is told what happens; see package events.
type Events struct {
	Command    string // a program and its arguments, see events.Words. "": none
	URL        string // "": none
	SecretFile string // holds the secrets that sign requests to URL. "": they are not signed
	// TTL is after how long an event is dropped that was not accepted; 0: never.
	TTL time.Duration
	// Max is how many events may wait for one target; 0: any number.
	Max      int
	Retry    time.Duration // before the second attempt; default 1 s
	Timeout  time.Duration // for one attempt; default 30 s
	Parallel int           // attempts at once, for each target. Default 4
}

// Defaults of Events.
const (
	defaultEventTTL      = 72 * time.Hour
	defaultEventMax      = 100_000
	defaultEventRetry    = time.Second
	defaultEventTimeout  = 30 * time.Second
	defaultEventParallel = 4
)

// maxEventParallel bounds what runs at once: each attempt is a process, or a connection.
const maxEventParallel = 256

// complete checks e and sets what is zero and has a default.
func (e *Events) complete() error {
	for _, v := range []struct {
		flag  string
		value any
		ok    bool
	}{
		{"event-ttl", e.TTL, e.TTL >= 0},
		{"event-max", e.Max, e.Max >= 0},
		{"event-retry", e.Retry, e.Retry >= 0},
		{"event-timeout", e.Timeout, e.Timeout >= 0},
		{"event-parallel", e.Parallel, e.Parallel >= 0},
	} {
		if !v.ok {
			return fmt.Errorf("--%s %v: want 0 or more", v.flag, v.value)
		}
	}
	switch {
	case e.Parallel > maxEventParallel:
		return fmt.Errorf("--event-parallel %d: want %d or less", e.Parallel, maxEventParallel)
	case e.Retry > events.MaxRetry:
		return fmt.Errorf("--event-retry %v: want %v or less", e.Retry, events.MaxRetry)
	case e.SecretFile != "" && e.URL == "":
		return errors.New("--event-secret-file without --event-url: want the URL that events are sent to")
	}
	if e.URL != "" {
		if err := events.CheckURL(e.URL); err != nil {
			return fmt.Errorf("--event-url: %w", err)
		}
	}
	if e.Command != "" {
		if _, err := events.Words(e.Command); err != nil {
			return fmt.Errorf("--on-event: %w", err)
		}
	}
	if e.Retry == 0 {
		e.Retry = defaultEventRetry
	}
	if e.Timeout == 0 {
		e.Timeout = defaultEventTimeout
	}
	if e.Parallel == 0 {
		e.Parallel = defaultEventParallel
	}
	return nil
}

// checkFiles returns what is wrong with the program and the file that e names.
func (e *Events) checkFiles() error {
	if e.SecretFile != "" {
		if _, err := events.ReadSecrets(e.SecretFile); err != nil {
			return fmt.Errorf("--event-secret-file: %w", err)
		}
	}
	if e.Command != "" {
		args, err := events.Words(e.Command)
		if err == nil {
			_, err = exec.LookPath(args[0])
		}
		if err != nil {
			return fmt.Errorf("--on-event: %w", err)
		}
	}
	return nil
}

// any reports whether there is a target.
func (e *Events) any() bool { return e.Command != "" || e.URL != "" }

func (e *Events) limits() events.Limits {
	return events.Limits{TTL: e.TTL, Max: e.Max, Retry: e.Retry, Timeout: e.Timeout}
}

// Open files that one attempt needs at most: a program's pipes, its process and the pipe that
// tells how it began; a request's connection, and one that is kept for the next.
const (
	commandFiles = 8
	requestFiles = 2
)

// descriptors is how many open files telling needs at most.
func (e *Events) descriptors() (n int) {
	if e.Command != "" {
		n += commandFiles * e.Parallel
	}
	if e.URL != "" {
		n += requestFiles * e.Parallel
	}
	return n
}

// targets are those that o asks for. The webhook is among them, or nil.
func (o *Options) targets() (all []events.Target, hook *events.Webhook, err error) {
	e := &o.Events
	if err := e.checkFiles(); err != nil {
		return nil, nil, err
	}
	host, _ := os.Hostname() // an unnamed host has an empty part there
	source := "/sealift/" + url.PathEscape(host)
	if e.Command != "" {
		args, err := events.Words(e.Command)
		if err == nil && filepath.Base(args[0]) != args[0] {
			args[0], err = filepath.Abs(args[0]) // it runs in another folder
		}
		if err != nil {
			return nil, nil, err
		}
		all = append(all, &events.Command{Args: args, Dir: o.Dir, Source: source, Log: o.Log})
	}
	if e.URL != "" {
		hook, err = events.NewWebhook(events.WebhookOptions{
			URL: e.URL, SecretFile: e.SecretFile, Source: source, UserAgent: "Sealift/" + version.Number(), Parallel: e.Parallel,
		})
		if err != nil {
			return nil, nil, fmt.Errorf("--event-url: %w", err)
		}
		all = append(all, hook)
	}
	return all, hook, nil
}

// openEvents has what happens from now on be recorded for those who are told.
func (s *Server) openEvents(ctx context.Context, targets []events.Target) error {
	before, err := s.targetsOfOthers(ctx)
	if err == nil {
		err = s.registry.SetTargets(ctx, events.Names(targets))
	}
	if err != nil {
		return err
	}
	for _, name := range before {
		if !contains(targets, name) {
			s.o.Log.Warn("from now on no server records events for a target that this one does not have", zap.String("target", name))
		}
	}
	waiting, err := s.registry.Backlogs(ctx)
	if err != nil {
		return err
	}
	for _, b := range waiting {
		if !contains(targets, b.Target) {
			s.o.Log.Warn("events wait for a target that is not configured", zap.String("target", b.Target), zap.Int("count", b.Events))
		}
	}
	if len(targets) > 0 && s.o.Storage.Registry == registryMemory {
		s.o.Log.Warn("events that were not told are lost at the end of this server, since its registry is in memory")
	}
	s.events = events.New(events.Options{
		Registry: s.registry, Submit: s.loops.Submit, Targets: targets, Parallel: s.o.Events.Parallel,
		Limits: s.o.Events.limits(), Log: s.o.Log.Named("events"),
	})
	return nil
}

// targetsOfOthers returns whom events were recorded for so far, where that concerns other servers:
// the last that starts decides for all.
func (s *Server) targetsOfOthers(ctx context.Context) ([]string, error) {
	reg, ok := s.registry.(interface {
		Targets(ctx context.Context) ([]string, error)
	})
	if !ok || !s.o.Storage.shared() {
		return nil, nil
	}
	return reg.Targets(ctx)
}

func contains(targets []events.Target, name string) bool {
	for _, t := range targets {
		if t.Name() == name {
			return true
		}
	}
	return false
}

// rereadSecrets reads the secrets for the URL again. It reports whether it has logged
// something.
func (s *Server) rereadSecrets() (said bool) {
	if s.webhook == nil {
		return false
	}
	changed, err := s.webhook.Reload()
	switch {
	case err != nil:
		s.o.Log.Error("the event secrets cannot be used; those from before stay", zap.Error(err))
	case changed:
		s.o.Log.Info("the event secrets were reloaded")
	default:
		return false
	}
	return true
}

// Event is something that was recorded to be told; see [storage.Event].
type Event = storage.Event

// RetryEvents makes events due at once that were put off: those for target with that id, where
// "" is any. It returns how many. The server may run, and notices within a second.
func RetryEvents(ctx context.Context, at Stores, target, id string) (n int, err error) {
	err = steer(ctx, at, func(reg storage.Registry) error {
		n, err = retryEvents(ctx, reg, target, id)
		return err
	})
	return n, err
}

// DropEvents forgets events: those for target with that id, where "" is any. It returns how
// many. The server may run; an attempt that is under way is not undone.
func DropEvents(ctx context.Context, at Stores, target, id string) (n int, err error) {
	err = steer(ctx, at, func(reg storage.Registry) error {
		n, err = dropEvents(ctx, reg, target, id)
		return err
	})
	return n, err
}

func retryEvents(ctx context.Context, reg storage.Registry, target, id string) (int, error) {
	op := &storage.RetryEvents{Chosen: storage.Chosen{Target: target, EventID: id}}
	err := applyOwn(ctx, reg, op)
	return op.Retried, err
}

func dropEvents(ctx context.Context, reg storage.Registry, target, id string) (int, error) {
	op := &storage.DropEvents{Chosen: storage.Chosen{Target: target, EventID: id}}
	err := applyOwn(ctx, reg, op)
	return op.Dropped, err
}
