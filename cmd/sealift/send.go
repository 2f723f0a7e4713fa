package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sealift/client"
	"sealift/internal/flagenv"
	"sealift/internal/infofile"
	"sealift/internal/progress"

	"github.com/spf13/cobra"
)

// app is what the commands share: the flags, and where output goes.
type app struct {
	stdout io.Writer
	stderr *os.File
	bar    *progress.Bar // nil where standard error is no terminal

	codes        string
	dialect      string
	packetSize   int
	knownServers string
	json         bool
	verbose      bool
	logLevel     string
	timeout      time.Duration

	server   string
	name     string
	identity string
	parallel int
	retryFor time.Duration

	options client.Options // what the flags for all commands make
}

// setUp turns the flags and their environment variables into options.
func (a *app) setUp(cmd *cobra.Command) error {
	if err := flagenv.Apply(cmd.Flags()); err != nil {
		return usageError{err}
	}
	codes, err := client.ParseCodes(a.codes)
	if err != nil {
		return usageError{err}
	}
	dialect, err := client.ParseDialect(a.dialect)
	if err != nil {
		return usageError{err}
	}
	if a.packetSize < 0 {
		return usageError{fmt.Errorf("--packet-size %d is negative", a.packetSize)}
	}
	if a.packetSize > 0 && dialect == client.Single {
		return usageError{errors.New("--packet-size has no meaning for --dialect single")}
	}
	if a.timeout < 0 {
		return usageError{fmt.Errorf("--timeout %v is negative", a.timeout)}
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(a.logLevel)); err != nil {
		return usageError{fmt.Errorf("--log-level %q: there are debug, info, warn and error", a.logLevel)}
	}
	if a.verbose {
		level = slog.LevelDebug
	}
	var w io.Writer = a.stderr
	if a.bar = progress.New(a.stderr); a.bar != nil {
		w = a.bar
	}
	a.options = client.Options{
		Codes:        codes,
		Dialect:      dialect,
		PacketSize:   a.packetSize,
		ReplyTimeout: a.timeout,
		Logger: slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{
			Level: level,
			ReplaceAttr: func(groups []string, at slog.Attr) slog.Attr {
				if len(groups) == 0 && at.Key == slog.TimeKey {
					return slog.Attr{} // a run takes seconds, and they are in the result
				}
				return at
			},
		})),
	}
	a.options.Parallel = a.parallel
	if a.bar != nil {
		a.options.Progress = a.progress()
	}
	return nil
}

// progress shows how far a file is, or all of them where several are under way
// at once.
func (a *app) progress() func(client.Progress) {
	if a.parallel <= 1 {
		return func(p client.Progress) { a.bar.Update(p.File, p.Sent, p.Size) }
	}
	var all client.Progress
	latest := make(map[string]client.Progress)
	return func(p client.Progress) {
		before := latest[p.File]
		latest[p.File] = p
		all.Sent += p.Sent - before.Sent
		all.Size += p.Size - before.Size
		a.bar.Update(fmt.Sprintf("%d files", len(latest)), all.Sent, all.Size)
	}
}

// batch is the client of the documents: server and file from transfer.info, the
// name too unless there is a me.info.
func (a *app) batch(ctx context.Context) error {
	t, err := infofile.ReadTransfer(infofile.TransferName)
	if errors.Is(err, fs.ErrNotExist) {
		return usageError{fmt.Errorf("there is no %s here: it has three lines with server IP:port, user name and path of the file", infofile.TransferName)}
	}
	if err != nil {
		return usageError{err}
	}
	o := a.options
	o.Server, o.Name, o.NoProbes = t.Server, t.Name, true
	return a.transfer(ctx, o, infofile.MeName, []string{t.Path})
}

// send is the client without a transfer.info.
func (a *app) send(ctx context.Context, paths []string) error {
	if a.server == "" {
		return usageError{errors.New("--server is missing")}
	}
	a.name = strings.TrimSpace(a.name) // as it is read from a me.info
	path := a.identity
	if path == "" {
		path = infofile.MeName
	}
	me, err := infofile.ReadMe(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if a.name == "" {
			return usageError{fmt.Errorf("--name is missing: there is no %s with one", path)}
		}
	case err != nil:
		return err
	case a.name != "" && a.name != me.Name:
		return usageError{fmt.Errorf("%s belongs to %q, not %q: name another file with --identity, or leave --name out", path, me.Name, a.name)}
	}
	if a.retryFor < 0 {
		return usageError{fmt.Errorf("--retry-for %v is negative", a.retryFor)}
	}
	o := a.options
	o.Server, o.Name, o.RetryFor = a.server, a.name, a.retryFor
	return a.transfer(ctx, o, path, paths)
}

// transfer sends the files and says what became of them.
func (a *app) transfer(ctx context.Context, o client.Options, identity string, paths []string) error {
	address, err := client.ServerAddress(o.Server)
	if err != nil {
		return usageError{err}
	}
	o.Identity = client.IdentityFile(identity)
	known := a.knownServers
	if known == "" {
		known = infofile.KnownPath(filepath.Dir(identity))
	}
	o.Known = client.KnownServersFile(known)
	if _, err := os.Stat(identity); errors.Is(err, fs.ErrNotExist) {
		if err := client.CheckUserName(o.Name); err != nil {
			return usageError{err}
		}
	}
	files := make([]client.File, len(paths))
	for i, path := range paths {
		files[i].Path = path
	}
	stored := make(map[string]int, len(paths)) // a path may be given twice
	var id string
	_, err = client.Run(ctx, o, files, &client.Events{
		LoggedIn: func(l client.Login) {
			id = l.Identity.ID.String()
			if l.Registered && !a.json {
				a.say("registered %q with %s, id %v; kept in %s\n", l.Identity.Name, address, id, identity)
			}
		},
		Stored: func(f client.File, r client.Result) {
			stored[f.Path]++
			a.report(outcome{
				File: f.Path, Stored: true, Name: r.Name, Size: r.Size, Cksum: r.Cksum, Seconds: r.Elapsed.Seconds(),
				MBPerSecond: megabytesPerSecond(r), Packets: r.Packets, Attempts: r.Attempts, Server: address, ClientID: id,
			})
		},
	})
	if err == nil {
		return nil
	}
	reason := err.Error()
	for _, f := range files {
		if stored[f.Path] > 0 {
			stored[f.Path]--
			continue
		}
		a.report(outcome{File: f.Path, Server: address, ClientID: id, Error: reason})
		if o.Parallel <= 1 {
			reason = "not tried"
		}
	}
	return err
}

// outcome is what --json writes for each file. The help of the root command
// documents the fields.
type outcome struct {
	File        string  `json:"file"`   // the path as given
	Stored      bool    `json:"stored"` // the server has it for good
	Name        string  `json:"name,omitempty"`
	Size        int64   `json:"size"`          // bytes
	Cksum       uint32  `json:"cksum"`         // as cksum(1) prints it
	Seconds     float64 `json:"seconds"`       // from the first byte to the server's last word
	MBPerSecond float64 `json:"mb_per_second"` // 10^6 bytes of the file
	Packets     int     `json:"packets"`
	Attempts    int     `json:"attempts"` // how often the file was sent
	Server      string  `json:"server"`
	ClientID    string  `json:"client_id,omitempty"`
	Error       string  `json:"error,omitempty"`
}

func megabytesPerSecond(r client.Result) float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.Size) / 1e6 / r.Elapsed.Seconds()
}

// report writes one line about a file: for programs about every one, for people
// about those that are stored. The others are in the error.
func (a *app) report(o outcome) {
	switch {
	case a.json:
		a.bar.Clear()
		_ = json.NewEncoder(a.stdout).Encode(o) // plain values cannot fail to encode
	case o.Stored:
		again := ""
		if o.Attempts > 1 {
			again = fmt.Sprintf(", sent %d times", o.Attempts)
		}
		a.say("stored %s: %d bytes, cksum %d, %.2f s, %.1f MB/s%s\n", o.File, o.Size, o.Cksum, o.Seconds, o.MBPerSecond, again)
	}
}

// say writes to standard output without mixing with the bar.
func (a *app) say(format string, args ...any) {
	a.bar.Clear()
	fmt.Fprintf(a.stdout, format, args...)
}
