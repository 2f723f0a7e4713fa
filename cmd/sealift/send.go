package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"sealift/client"
	"sealift/internal/bars"
	"sealift/internal/flagenv"
	"sealift/internal/infofile"
	"sealift/internal/printable"
	"sealift/internal/stdio"
)

// app is what the commands share: the flags, and where output goes.
type app struct {
	out      *stdio.Output
	terminal bool // standard output is one
	// interactive: standard input and standard error are a terminal, whose user can be
	// asked.
	interactive bool
	screen      *bars.Screen
	permanent   bool // a file failed for a reason that stays
	sending     bool // the command is send
	batching    bool // it is the client of the documents
	hint        string
	plainTo     string // the server, if connections to it are plain
	continued   continuations

	codes        string
	dialect      string
	packetSize   int
	knownServers string
	json         bool
	verbose      bool
	logLevel     string
	timeout      time.Duration
	tls          tlsFlags

	server    string
	name      string
	identity  string
	parallel  int
	failFast  bool
	recursive bool
	follow    bool
	exclude   []string
	as        string
	retryFor  time.Duration
	resume    bool
	force     bool

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
	settings, err := a.tlsOptions()
	if err != nil {
		return usageError{err}
	}
	a.options = client.Options{
		TLS:          settings,
		Codes:        codes,
		Dialect:      dialect,
		PacketSize:   a.packetSize,
		Parallel:     a.parallel,
		FailFast:     a.failFast,
		ReplyTimeout: a.timeout,
		Logger: slog.New(slog.NewTextHandler(a.screen, &slog.HandlerOptions{
			Level: level,
			ReplaceAttr: func(groups []string, at slog.Attr) slog.Attr {
				if len(groups) == 0 && at.Key == slog.TimeKey {
					return slog.Attr{} // a run takes seconds, and they are in the result
				}
				return at
			},
		})),
	}
	return nil
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
	a.batching = true
	o.Server, o.Name, o.NoProbes = t.Server, t.Name, true
	if at, err := client.ParseServer(t.Server); err == nil && !at.TLS {
		// The line alone says whether it is plain v3.
		if a.tls.any() {
			return usageError{fmt.Errorf("line 1 of %s is a server without TLS; with TLS it is %s%s", infofile.TransferName, tlsScheme, at.Address)}
		}
		o.TLS.Mode = client.TLSOff
	}
	if err := a.prepare(&o, infofile.MeName); err != nil {
		return err
	}
	return a.transfer(ctx, o, infofile.MeName, []client.File{{Path: t.Path}})
}

// send is the client without a transfer.info.
func (a *app) send(ctx context.Context, args []string) error {
	a.sending = true
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
	if a.parallel < 1 {
		return usageError{fmt.Errorf("--parallel %d: want 1 or more", a.parallel)}
	}
	o := a.options
	o.Server, o.Name, o.RetryFor = a.server, a.name, a.retryFor
	o.SkipStored, o.Force = a.recursive, a.force
	if a.resume {
		o.Continue = client.ContinueYes
	}
	if err := a.prepare(&o, path); err != nil {
		return err
	}
	files, err := a.files(ctx, args)
	if err != nil {
		return err
	}
	for _, f := range files {
		if f.Content != nil {
			defer f.Content.Close()
		}
	}
	return a.transfer(ctx, o, path, files)
}

// prepare puts into o where things are kept, and checks what needs no server.
func (a *app) prepare(o *client.Options, identity string) error {
	at, err := client.ParseServer(o.Server)
	if err != nil {
		return usageError{err}
	}
	if !at.Key.IsZero() && (a.tls.trustFirst || a.tls.ca != "") {
		return usageError{errors.New("the server's address has the fingerprint of its key: --tls-trust-first and --tls-ca are other ways to know it")}
	}
	o.Identity = client.IdentityFile(identity)
	o.Known = client.KnownServersFile(a.knownPath(identity))
	if _, err := os.Stat(identity); errors.Is(err, fs.ErrNotExist) {
		if err := client.CheckUserName(o.Name); err != nil {
			return usageError{err}
		}
	}
	return nil
}

// knownPath returns where known_servers is, for who is kept in that file.
func (a *app) knownPath(identity string) string {
	if a.knownServers != "" {
		return a.knownServers
	}
	return infofile.KnownPath(filepath.Dir(identity))
}

// standardInput is the argument that stands for it.
const standardInput = "-"

// files returns what the arguments of send stand for.
func (a *app) files(ctx context.Context, args []string) ([]client.File, error) {
	folders := client.FolderOptions{FollowLinks: a.follow, Exclude: a.exclude, PassedOver: a.passedOver}
	if err := folders.Check(); err != nil {
		return nil, usageError{fmt.Errorf("--exclude: %w", err)}
	}
	switch {
	case !a.recursive && (a.follow || len(a.exclude) > 0):
		return nil, usageError{errors.New("-L and --exclude are about what -r finds in folders")}
	case a.as != "" && len(args) > 1:
		return nil, usageError{fmt.Errorf("--as is the name of one file, and there are %d", len(args))}
	}
	var files []client.File
	for _, arg := range args {
		switch {
		case arg == standardInput && a.as == "":
			return nil, usageError{errors.New("- is standard input, and needs a name: --as NAME (a file of that name is ./-)")}
		case arg == standardInput:
			content, err := a.spool(ctx)
			if err != nil {
				return nil, err
			}
			files = append(files, client.File{Path: arg, Name: a.as, Content: content})
		case a.recursive && isFolder(arg):
			if a.as != "" {
				return nil, usageError{errors.New("--as is the name of a file, and not of a folder")}
			}
			found, err := client.FolderFiles(ctx, arg, folders)
			if err != nil {
				return nil, err
			}
			if len(found) == 0 && len(args) > 1 {
				a.passedOver(arg, "there is no file in it")
			}
			files = append(files, found...)
		default:
			files = append(files, client.File{Path: arg, Name: a.as})
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("there is no file to send in %s", printable.Path(args[0]))
	}
	return files, nil
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// transfer sends the files and says what became of them.
func (a *app) transfer(ctx context.Context, o client.Options, identity string, files []client.File) error {
	at, err := client.ParseServer(o.Server)
	if err != nil {
		return usageError{err}
	}
	address := at.Address
	if keys, ok := o.Known.(client.KnownKeys); ok && !at.TLS && !a.tls.any() {
		if key, err := keys.LoadKey(address); err == nil && key.IsZero() {
			a.plainTo = address
		}
	}
	var m *meter
	var id string
	if ask := o.TLS.Ask; ask != nil {
		o.TLS.Ask = func(ctx context.Context, server string, key client.Fingerprint) error {
			a.screen.Stop() // a question stands by itself
			defer func() { m.again() }()
			return ask(ctx, server, key)
		}
	}
	there := 0 // files that the server had already
	_, err = client.Run(ctx, a.withProgress(o, &m), files, &client.Events{
		Checked: func(n int, bytes int64) { m = newMeter(a.screen, n, bytes) },
		LoggedIn: func(l client.Login) {
			id = l.Identity.ID.String()
			if l.Registered && !a.json {
				a.say("registered %q with %s, id %v; kept in %s\n", l.Identity.Name, address, id, printable.Path(identity))
			}
		},
		Stored: func(f client.File, r client.Result) {
			m.stored(f, r)
			if r.Packets == 0 && r.Offset == r.Size {
				there++
			}
			a.stored(outcome{
				File: f.Path, Stored: true, Name: r.Name, Size: r.Size, Offset: r.Offset, Cksum: r.Cksum, Seconds: r.Elapsed.Seconds(),
				MBPerSecond: megabytesPerSecond(r), Packets: r.Packets, Attempts: r.Attempts, Server: address, ClientID: r.ID.String(),
			}, len(files) == 1)
		},
		Failed: func(f client.File, err error) {
			if m != nil {
				m.end(f)
			}
			if !errors.Is(err, client.ErrNotTried) && !client.Temporary(err) {
				a.permanent = true
			}
			a.notStored(outcome{File: f.Path, Server: address, ClientID: id}, err, len(files) == 1)
		},
		PassedOver: func(f client.File, why error) { a.passedOver(f.Path, plain(f.Path, why)) },
	})
	if there > 0 && len(files) > 1 && !a.json {
		a.say("%s on the server already\n", several(there))
	}
	switch {
	case errors.Is(err, client.ErrSameName):
		return usageError{err}
	case errors.Is(err, client.ErrProtected):
		return usageError{fmt.Errorf("%w: line 1 of %s must be %s%s", err, infofile.TransferName, tlsScheme, address)}
	}
	return err
}

// withProgress has the meter told how far the files are, and says where one goes on.
// There is a meter once the files have been checked.
func (a *app) withProgress(o client.Options, m **meter) client.Options {
	o.Progress = func(p client.Progress) {
		if p.Sent == p.Offset && p.Offset > 0 && p.Offset < p.Size {
			a.continued.note(p)
			fmt.Fprintf(a.screen, "%s: continuing at %s of %s\n", printable.Path(p.File),
				humanize.IBytes(uint64(p.Offset)), humanize.IBytes(uint64(p.Size)))
		}
		(*m).update(p)
	}
	return o
}
