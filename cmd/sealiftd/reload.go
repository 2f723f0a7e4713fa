package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/spf13/pflag"
	"go.uber.org/zap"

	"sealift/server"
)

// ownSettings are the flags of serve that the server itself knows nothing of, each with
// whether it may change while that runs; [server.Settings] are the others.
var ownSettings = map[string]bool{configFlag: false, "addr-file": false, levelFlag: true, "log-format": false}

const levelFlag = "log-level"

// reloader has a running server go by what its settings are at each SIGHUP.
type reloader struct {
	given   *pflag.FlagSet // of the start; the command line is taken from it
	level   zap.AtomicLevel
	log     *zap.Logger
	manager *manager
	own     map[string]string // the values of ownSettings that the server goes by
	hangups chan os.Signal
}

// newReloader begins to collect signals: from here on none of them ends the process.
func newReloader(given *pflag.FlagSet, level zap.AtomicLevel, log *zap.Logger, m *manager) *reloader {
	r := &reloader{given: given, level: level, log: log, manager: m, own: ownValues(given), hangups: make(chan os.Signal, 1)}
	signal.Notify(r.hangups, syscall.SIGHUP)
	return r
}

func ownValues(fs *pflag.FlagSet) map[string]string {
	values := make(map[string]string)
	for name := range ownSettings {
		values[name] = exact(fs.Lookup(name).Value)
	}
	return values
}

// run reloads for each signal, one at a time, until ctx ends. Signals that come
// meanwhile are one.
func (r *reloader) run(ctx context.Context, s *server.Server) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.hangups:
		}
		r.manager.reloading()
		r.reload(s)
		if ctx.Err() == nil { // else the manager has been told that the server stops
			r.manager.reloaded()
		}
	}
}

// reload reads the settings again, and then the files that they name. A setting that is
// wrong leaves all as they are.
func (r *reloader) reload(s *server.Server) {
	changed, restart, err := r.apply(s)
	if err != nil {
		r.log.Error("the settings cannot be used; those from before stay", zap.Error(err))
	}
	for _, c := range restart {
		r.log.Warn("a setting needs a restart to change", zap.String("setting", c.Setting), zap.String("from", c.From), zap.String("to", c.To))
	}
	said := s.Reread()
	if err == nil && len(changed)+len(restart) == 0 && !said {
		r.log.Info("there is nothing to reload", zap.String("reason", "neither the settings nor the files that they name have changed"))
	}
}

// apply takes up what may change, and logs that. It returns what did, and what needs a
// restart.
func (r *reloader) apply(s *server.Server) (changed, restart []server.Change, err error) {
	next, fs, err := r.read()
	if err != nil {
		return nil, nil, err
	}
	level, err := zap.ParseAtomicLevel(next.level)
	if err != nil { // which read has found to be good
		return nil, nil, err
	}
	changed, restart, err = s.Apply(next.options)
	if err != nil {
		return nil, nil, err
	}
	own := ownValues(fs)
	for _, name := range slices.Sorted(maps.Keys(own)) {
		c := server.Change{Setting: name, From: r.own[name], To: own[name]}
		switch {
		case c.From == c.To:
		case ownSettings[name]:
			changed, r.own[name] = append(changed, c), c.To
		default:
			restart = append(restart, c)
		}
	}
	// The lines about the change are logged if either level has them.
	r.level.SetLevel(min(r.level.Level(), level.Level()))
	for _, c := range changed {
		r.log.Info("a setting was changed", zap.String("setting", c.Setting), zap.String("from", c.From), zap.String("to", c.To))
	}
	r.level.SetLevel(level.Level())
	return changed, restart, nil
}

// read returns the settings that a server would start with that is given the same command
// line. An error names the file and the line that is wrong, if one is.
func (r *reloader) read() (*serveFlags, *pflag.FlagSet, error) {
	cmd, next := serveCommand()
	fs := cmd.Flags()
	var errs []error
	r.given.VisitAll(func(f *pflag.Flag) {
		if by := f.Annotations[from]; by != nil && by[0] == commandLine && fs.Lookup(f.Name) != nil {
			errs = append(errs, fs.Set(f.Name, exact(f.Value)))
		}
	})
	if err := errors.Join(errs...); err != nil {
		return nil, nil, err
	}
	if path := configFile(r.given); path != "" {
		// A pipe, which may have been good for the start, would be waited for.
		if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
			return nil, nil, fmt.Errorf("%s: want a regular file", path)
		}
	}
	if err := settle(fs); err != nil {
		return nil, nil, err
	}
	if err := next.check(); err != nil {
		return nil, nil, locate(fs, err)
	}
	return next, fs, nil
}
