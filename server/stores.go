package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"go.uber.org/zap"

	"sealift/storage"
	"sealift/storage/files"
	"sealift/storage/postgres"
	"sealift/storage/s3"
)

// Where a server keeps its records and its content is said by two settings. Without them both
// are in its directory: the registry is SQLite's file, and the files are a folder. A registry
// may also be a PostgreSQL, by a URL, and content a bucket of an S3 server. One server has
// its stores for itself, unless both are of the second kind: then any number share them.

// Values of Storage.Registry besides URLs.
const (
	registrySQLite = "sqlite"
	registryMemory = "memory"
)

// fileStore is where a server keeps content. It closes it.
type fileStore interface {
	storage.Files
	Close() error
}

// openStores opens the files and the registry.
func (s *Server) openStores(ctx context.Context) (err error) {
	o := &s.o
	if o.Storage.inBucket() {
		if err = s.openBucket(ctx); err != nil {
			return err
		}
	} else {
		if s.folder, err = s.openFolder(ctx); err != nil {
			return err
		}
		s.store = s.folder
	}
	switch {
	case o.Storage.inPostgres():
		err = s.openPostgres(ctx)
	case o.Storage.Registry == registryMemory:
		s.registry, err = openMemory(ctx, o, s.folder)
	default:
		s.registry, err = openDatabase(ctx, o, s.store)
	}
	if bucket, ok := s.store.(claimable); ok && err == nil {
		err = claim(ctx, s.registry, bucket, o.Dir, o.Storage.Files)
	}
	if err == nil && (o.Storage.inBucket() || o.Storage.inPostgres()) {
		o.Log.Info("the stores are open", zap.String("registry", storeTold(o.Storage.Registry)), zap.String("files", cmp.Or(storeTold(o.Storage.Files), o.Dir)))
	}
	return err
}

// silence is how long a start waits for a store before it says so.
var silence = 2 * time.Second

// waitFor logs that the start waits for a store, a URL, unless stop is called soon.
func (s *Server) waitFor(url string) (stop func()) {
	t := time.AfterFunc(silence, func() {
		s.o.Log.Warn("the start waits for a store", zap.String("store", storeTold(url)))
	})
	return func() { t.Stop() }
}

// storeWait is how long the server waits for the directory at its start: a command that
// finds no server has it for a moment.
const storeWait = 3 * time.Second

// openFolder opens the files in the directory.
func (s *Server) openFolder(ctx context.Context) (*files.Store, error) {
	o, began := &s.o, time.Now()
	for {
		store, err := files.Open(o.Dir, files.Options{
			Fsync: o.Storage.Fsync, MaxOpen: s.share.Files, MinFree: o.Storage.MinFree,
			FileMode: o.Storage.FileMode, DirMode: o.Storage.DirMode, Synced: s.watched.synced(),
			Folding: o.Testing.Folding, Faults: o.Testing.DiskFaults,
		})
		if !errors.Is(err, files.ErrLocked) || time.Since(began) > storeWait {
			return store, err
		}
		if err := pause(ctx, storeWait/100); err != nil {
			return nil, err
		}
	}
}

// inPostgres reports whether the registry is a PostgreSQL.
func (s *Storage) inPostgres() bool { return postgres.IsURL(s.Registry) }

// inBucket reports whether content is in a bucket.
func (s *Storage) inBucket() bool { return s.Files != "" }

// shared reports whether other servers may have the same stores.
func (s *Storage) shared() bool { return s.inPostgres() && s.inBucket() }

// complete checks s and sets what is zero and has a default.
func (s *Storage) complete() error {
	if s.Registry == "" {
		s.Registry = registrySQLite
	}
	switch {
	case s.inPostgres():
		if _, err := url.Parse(s.Registry); err != nil {
			return fmt.Errorf("--registry: %w", errNoURL) // the error itself quotes the password
		}
	case s.Registry != registrySQLite && s.Registry != registryMemory:
		return fmt.Errorf("--registry %q: want sqlite, memory or postgres://…", storeTold(s.Registry))
	}
	if !s.inBucket() {
		return nil
	}
	switch {
	case !s3.IsURL(s.Files):
		return fmt.Errorf("--files %q: want s3://BUCKET/PREFIX?endpoint=URL&region=NAME", storeTold(s.Files))
	case s.Registry == registryMemory:
		return errors.New("--files with --registry memory: want a registry that lasts, since content that it has forgotten would be removed from the bucket")
	case cmp.Or(s.FileMode, files.DefaultFileMode) != files.DefaultFileMode, cmp.Or(s.DirMode, files.DefaultDirMode) != files.DefaultDirMode:
		return errors.New("--file-mode or --dir-mode with --files: want neither, a bucket has no permissions of that kind")
	}
	if _, err := s3.ParseURL(s.Files); err != nil {
		return fmt.Errorf("--files: %w", err)
	}
	return nil
}

// check returns what Open would find wrong with the registry, as far as reading tells. It changes
// nothing.
func (s *Storage) check() error {
	if !s.inPostgres() {
		return nil
	}
	ctx, stop := context.WithTimeout(context.Background(), checkTime)
	defer stop()
	reg, err := postgres.OpenReadOnly(ctx, s.Registry, postgres.Options{Patience: checkTime})
	if errors.Is(err, postgres.ErrOlder) {
		return nil // the server makes the tables, or brings them up to date
	}
	if err != nil {
		return explainPostgres("--registry", err)
	}
	return reg.Close()
}

// checkTime is how long check waits for a database.
const checkTime = 5 * time.Second

// descriptors is how many open files the stores need at most beside those of a directory, with
// so many workers.
func (s *Storage) descriptors(workers int) (n int) {
	if s.inPostgres() {
		n += postgres.DefaultConnections + 2 // and one for the locks, and one that is made anew
	}
	if s.inBucket() {
		n += workers + s3.DefaultMaxUploads + 2 // connections, and the scratch file
	}
	return n
}

var errNoURL = errors.New("it is not a URL; characters such as / ? # @ % in a password are written as %2F %3F %23 %40 %25")

// isScheme reports whether a URL may begin so.
func isScheme(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') })
}

// storeTold is the value of --registry or --files as people are told it: a URL has no password,
// and no parameters but those that say where the store is.
func storeTold(text string) string {
	if !strings.Contains(text, ":") && !strings.Contains(text, "=") {
		return text
	}
	if scheme, _, ok := strings.Cut(text, ":"); !ok || !isScheme(scheme) { // host=db password=…, as libpq takes it
		return "…"
	}
	u, err := url.Parse(text)
	if err != nil || strings.Contains(u.Opaque+u.Host+u.Path, "@") { // postgres:://user:password@host is no URL
		scheme, _, _ := strings.Cut(text, ":")
		return scheme + "://…"
	}
	if u.User != nil {
		u.User = url.User(u.User.Username())
	}
	told := make(url.Values)
	for _, name := range []string{"host", "port", "dbname", "search_path", "sslmode", "endpoint", "region", "path-style"} {
		value := u.Query().Get(name)
		if name == "endpoint" {
			value = urlTold(value)
		}
		if value != "" {
			told.Set(name, value)
		}
	}
	u.RawQuery, u.Fragment = told.Encode(), ""
	return u.String()
}
