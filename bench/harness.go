//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sealift/bench/load"
	"sealift/bench/parts"
	"sealift/bench/proc"
	"sealift/bench/report"
	"sealift/storage/files"
)

// harness runs cases on peers and keeps the figures.
type harness struct {
	opts    options
	dir     string // everything below is removed at the end
	before  string // the program of --before, "" without
	run     *report.Run
	missing map[string]error // peers that this machine cannot run
	serial  int
	stores  stores // that servers share
	notes   io.Writer
}

func newHarness(o options) (*harness, error) {
	dir, err := os.MkdirTemp(o.dir, "sealift-bench-")
	if err != nil {
		return nil, err
	}
	files.SpreadFolders(dir) // each server's
	h := &harness{opts: o, dir: dir, missing: make(map[string]error), notes: os.Stderr}
	h.run = &report.Run{Command: strings.Join(os.Args[1:], " ")}
	return h, nil
}

func (h *harness) close() error { return errors.Join(h.stores.close(), os.RemoveAll(h.dir)) }

func (h *harness) note(format string, args ...any) { fmt.Fprintf(h.notes, format+"\n", args...) }

func (h *harness) runAll(ctx context.Context, chosen []scenario) error {
	if err := h.findPeers(ctx, chosen); err != nil {
		return err
	}
	if h.opts.before != "" {
		if err := h.buildBefore(ctx, h.opts.before); err != nil {
			return err
		}
	}
	h.run.Began, h.run.Machine = time.Now(), describeMachine(h.dir)
	for _, s := range chosen {
		h.run.Scenarios = append(h.run.Scenarios, report.Scenario{Name: s.name, About: s.about, Table: s.table})
		if s.table == report.Parts {
			h.note("%s", s.name)
			figures, err := parts.Measure(h.dir, h.opts.tiny)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			h.run.Parts = figures
			continue
		}
		for _, c := range h.casesOf(s) {
			if err := h.runCase(ctx, s, c); err != nil {
				return fmt.Errorf("%s, %s: %w", s.name, c.label, err)
			}
		}
	}
	h.run.Took = time.Since(h.run.Began).Seconds()
	return nil
}

// casesOf are the cases of a scenario, in a tiny run without those that have
// become the same.
func (h *harness) casesOf(s scenario) []kase {
	all := slices.DeleteFunc(s.cases(), func(c kase) bool { return !strings.Contains(c.label, h.opts.kase) })
	if !h.opts.tiny {
		return all
	}
	var small []kase
	for _, c := range all {
		c = c.shrink()
		if !slices.ContainsFunc(small, c.sameAs) {
			small = append(small, c)
		}
	}
	return small
}

// runCase has the peers take turns, so that what changes about the machine
// meets all of them.
func (h *harness) runCase(ctx context.Context, s scenario, c kase) error {
	rounds := h.opts.rounds
	if c.once {
		rounds = 1
	}
	for round := range rounds {
		for _, name := range h.peersOf(c) {
			p := findPeer(name)
			if !h.wanted(p) || round > 0 && c.disk && p.slow {
				continue
			}
			f, err := h.turn(ctx, s, c, p)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			f.Scenario, f.Case, f.Peer, f.Round = s.name, c.label, name, round
			h.run.Figures = append(h.run.Figures, f)
			h.note("%-9s %-26s %-10s %s", s.name, c.label, name, f.Brief())
		}
	}
	return nil
}

// wanted reports whether a peer is to be measured, and can be.
func (h *harness) wanted(p *peer) bool { return h.asked(p) && h.missing[p.name] == nil }

func (h *harness) asked(p *peer) bool {
	return p.name == "before" || len(h.opts.peers) == 0 || slices.Contains(h.opts.peers, p.name)
}

// findPeers looks which of the scenarios' peers this machine can run, and fetches
// what it can, before the first is measured: a compiler must not run beside them.
// It goes on without the others; an error is the end of ctx.
func (h *harness) findPeers(ctx context.Context, chosen []scenario) error {
	for _, p := range peers {
		if p.needs == nil || !h.asked(p) || !h.haveCase(chosen, p) {
			continue
		}
		err := p.needs()
		var lacks fetchable
		if errors.As(err, &lacks) && h.mayFetch(p) {
			h.note("fetching %s %s and building it; later runs find it in the user's cache", p.name, lacks.program.version)
			if err = lacks.program.fetch(ctx); err == nil {
				err = p.needs()
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			h.missing[p.name] = err
			h.note("without %s: %v", p.name, err)
			h.run.Missing = append(h.run.Missing, fmt.Sprintf("%s: %v", p.name, err))
		}
	}
	return nil
}

// mayFetch reports whether a peer is worth minutes of fetching and building. For a
// look at whether everything works it is not, unless the peer is asked for.
func (h *harness) mayFetch(p *peer) bool {
	return !h.opts.tiny || slices.Contains(h.opts.peers, p.name)
}

// haveCase reports whether there is a case to run on a peer.
func (h *harness) haveCase(chosen []scenario, p *peer) bool {
	for _, s := range chosen {
		if s.table == report.Parts {
			continue
		}
		for _, c := range h.casesOf(s) {
			if slices.Contains(c.peers, p.name) {
				return true
			}
		}
	}
	return false
}

// turnTime is how long a turn may take before it has failed.
const turnTime = 3 * time.Minute

// turn measures one case on one peer, once.
func (h *harness) turn(ctx context.Context, s scenario, c kase, p *peer) (f report.Figure, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, turnTime, errors.New("the turn takes too long"))
	defer cancel()
	h.serial++
	dir := filepath.Join(h.dir, fmt.Sprint("server-", h.serial))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, giveUpRoom(dir)) }()
	o := serverOptions{dir: dir, fsync: c.fsync, connections: c.load.Connections, logLevel: h.opts.logLevel, tls: h.protected(c, p)}
	if b := c.background; b != nil {
		o.connections += b.Connections
		o.tls = o.tls || b.Kind == load.Handshakes
	}
	srv, err := p.start(ctx, h, o, c.environment())
	if err != nil {
		return f, err
	}
	f, err = h.underLoad(ctx, s, c, p, srv)
	if stopped := srv.stop(srv.signal); err == nil {
		err = stopped
	}
	if err == nil && p.stored != nil {
		err = p.stored(ctx, h, srv)
	}
	return f, err
}

func (h *harness) underLoad(ctx context.Context, s scenario, c kase, p *peer, srv *server) (f report.Figure, err error) {
	f = report.Figure{
		Connections: c.load.Connections, FileSize: c.load.FileSize, Fsync: c.fsync, Procs: c.procs, Rate: c.load.Rate,
	}
	usage := func() proc.Usage {
		u, e := proc.Tree(srv.cmd.Process.Pid)
		err = errors.Join(err, e)
		return u
	}
	f.Server.RSSEmpty = usage().RSS

	var behind loader
	if c.background != nil {
		if behind, err = h.load(ctx, c, p, srv, *c.background); err != nil {
			return f, err
		}
		defer func() { err = errors.Join(err, behind.close()) }()
	}
	l, err := h.load(ctx, c, p, srv, c.load)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	profile := func(string) error { return nil }
	if h.opts.profile != "" && srv.golang {
		path, err := h.profilePath(s, c, p)
		if err != nil {
			return f, err
		}
		profile = func(command string) error { return srv.command(command + " " + path) }
	}
	if c.memory && srv.golang {
		f.Server.RSS = usage().RSS
		if err := srv.command(commandFree); err != nil {
			return f, err
		}
	}
	if c.disk {
		if err := h.touchPageCache(int64(c.load.Connections) * c.load.FileSize * int64(max(1, c.load.PerClient))); err != nil {
			return f, err
		}
	}
	if err := profile(commandProfile); err != nil {
		return f, err
	}

	if behind != nil {
		if err := behind.Go(); err != nil {
			return f, err
		}
	}
	if err := l.Go(); err != nil {
		return f, err
	}
	from := usage()
	if err := l.Stopped(); err != nil {
		return f, err
	}
	to := usage()
	if err != nil {
		return f, err
	}
	if err := profile(commandEnd); err != nil {
		return f, err
	}
	if f.Load, err = l.Result(); err != nil {
		return f, srv.explain(err)
	}
	if behind != nil {
		if err := behind.Stopped(); err != nil {
			return f, err
		}
		r, err := behind.Result()
		if err != nil {
			return f, srv.explain(err)
		}
		f.Background = &r
	}
	f.Server.CPU = to.CPU - from.CPU
	f.Server.Peak = to.Peak
	f.Server.RSSIdle = to.RSS
	if f.Server.RSS == 0 {
		f.Server.RSS = to.RSS
	}
	return f, err
}

// protected reports whether a peer's connections are over TLS.
func (h *harness) protected(c kase, p *peer) bool { return p.tls && (c.tls || h.opts.tls) }

// load sets up a load for a server.
func (h *harness) load(ctx context.Context, c kase, p *peer, srv *server, spec load.Spec) (loader, error) {
	h.serial++
	spec.Server, spec.Run = srv.addr, fmt.Sprint("run ", h.serial)
	spec.TLS = h.protected(c, p)
	if p.raw {
		spec.Kind = load.Raw
	}
	clients := p.clients
	if clients == nil && c.programs {
		clients = sealiftClients
	}
	if clients != nil {
		all, err := clients(ctx, h, srv, spec)
		if err != nil {
			return nil, err
		}
		l := &programs{spec: spec, clients: all}
		if p.clients != nil && p.stored == nil {
			l.verify = func() error { return h.compareFiles(srv.opts.dir, spec) }
		}
		if err := l.connect(); err != nil {
			return nil, errors.Join(srv.explain(err), l.close())
		}
		return l, nil
	}
	process, err := self(ctx, nil, "load")
	if err != nil {
		return nil, err
	}
	l, err := load.Start(spec, process.in, process.out)
	if err != nil {
		return nil, errors.Join(srv.explain(process.explain(err)), process.stop(nil))
	}
	return &generator{l, process}, nil
}

// profilePath is where the profiles of a turn go, without extension.
func (h *harness) profilePath(s scenario, c kase, p *peer) (string, error) {
	dir, err := filepath.Abs(h.opts.profile)
	if err != nil {
		return "", err
	}
	words := strings.FieldsFunc(s.name+" "+c.label+" "+p.name, func(r rune) bool { return r == ' ' || r == ',' })
	return filepath.Join(dir, strings.Join(words, "-")), os.MkdirAll(dir, 0o755)
}
