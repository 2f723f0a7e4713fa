package server

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"sealift/session"
	"sealift/storage"
	"sealift/storage/audit"
)

// recoverTurn is for how long a start may take because there is content to be removed.
var recoverTurn = 5 * time.Second

// recover puts the storage in order. missing is how many stored files were
// not found.
func (s *Server) recover(ctx context.Context) (missing int, err error) {
	began := time.Now()
	o := s.auditOptions(began)
	o.Enough = func() bool { return time.Since(began) > recoverTurn } // removeLeaving does the rest
	var waiting []storage.File
	o.Waiting = func(f *storage.File) { waiting = append(waiting, *f) }
	report, err := audit.Recover(ctx, s.registry, s.folder, o)
	var gone *audit.FilesGoneError
	if errors.As(err, &gone) {
		return 0, &Hinted{Err: err, Hint: "Is the right disk mounted? To start without them: sealiftd forget-missing --dir " + s.o.Dir}
	}
	var alike *audit.AlikeError
	if errors.As(err, &alike) {
		return 0, &Hinted{Err: err, Hint: "Move " + s.o.Dir + " to a disk that tells them apart: one of each two was lost when it came here. " +
			"Put the files back from a backup, then start the server there."}
	}
	if err != nil {
		return 0, fmt.Errorf("putting the storage in order: %w", err)
	}
	s.lookForLeaving()
	for _, f := range waiting {
		s.service.Waiting(f.ID, session.Occupies(f.Size))
	}
	missing = report[audit.Missing]
	if missing > 0 {
		s.o.Log.Error("stored files were not found; they are marked as missing", zap.Int("count", missing))
	}
	s.o.Log.Debug("storage is in order", zap.Any("findings", report))
	return missing, nil
}

func (s *Server) auditOptions(now time.Time) audit.Options {
	return audit.Options{
		UnverifiedTTL: time.Duration(s.ttl.Load()), Now: now,
		Dropped: s.service.Dropped, Finished: s.service.Finished, Forgotten: s.service.Forgotten,
		Log: s.logFinding,
	}
}

func (s *Server) logFinding(f audit.Finding) {
	s.o.Log.Log(levelOf(f.Event), "storage", zap.String("finding", string(f.Event)), zap.String("client", f.File.ID.String()),
		zap.String("path", f.File.Path), zap.String("incoming", f.File.Incoming), zap.Error(f.Err))
}

// levelOf is the level of the log for what was found: what somebody asked for, and what
// comes to an end as it should, is no warning.
func levelOf(e audit.Event) zapcore.Level {
	switch e {
	case audit.Taken, audit.Deleted, audit.Handed, audit.PartialDeleted, audit.PartialExpired, audit.PartialSurplus:
		return zapcore.InfoLevel
	}
	return zapcore.WarnLevel
}

// expireEvery is how often files that stay unverified are looked for.
const expireEvery = 10 * time.Minute

// lookAfter looks after what is stored, beside the loops, until ctx ends.
func (s *Server) lookAfter(ctx context.Context) {
	var others sync.WaitGroup
	others.Go(func() { s.removeLeaving(ctx) })
	others.Go(func() { s.checkPartials(ctx) })
	others.Go(func() { s.sweepPartials(ctx) })
	// Another server may have left something that it was told of alone.
	s.lookForLeaving()
	s.partials.look()
	s.maintain(ctx)
	others.Wait()
}

// maintain removes what nobody needs any more, beside the loops, until ctx ends.
func (s *Server) maintain(ctx context.Context) {
	// Where files are missing, an empty folder may be the place of a disk that is
	// not mounted.
	if s.missing == 0 && s.folder != nil {
		if err := s.folder.RemoveEmptyFolders(ctx); err != nil && ctx.Err() == nil {
			s.o.Log.Error("removing empty folders failed", zap.Error(err))
		}
	}
	s.disableExpired(ctx, time.Now())
	s.retire(ctx, time.Now())
	ticker, ends := time.NewTicker(expireEvery), time.NewTicker(endsEvery)
	defer ticker.Stop()
	defer ends.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ends.C:
			s.disableExpired(ctx, now)
		case now := <-ticker.C:
			s.retire(ctx, now)
			s.lookForLeaving()
			o := s.auditOptions(now)
			o.Exclusive = s.service.Exclusive
			if _, err := audit.Expire(ctx, s.registry, s.store, o); err != nil && ctx.Err() == nil {
				s.o.Log.Error("removing what is unverified failed", zap.Error(err))
			}
		}
	}
}
