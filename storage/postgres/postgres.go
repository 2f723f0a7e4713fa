// Package postgres keeps the registry of clients and files in a PostgreSQL database, which
// several servers may share.
//
// A batch is one transaction and one round trip: its statements go out together, each a call
// of a function in the database (schema/), and the commit is the end of that message. A batch
// is done once, even if the connection is lost and the registry repeats it: see begin_batch.
// So a restart of the database, or an answer that is lost, is only seen by those who ask for
// longer than Options.Patience.
//
// The tables lie in the schema "sealift", or in the one that search_path in the URL names:
//
//	psql postgres://… -c 'select id, name, last_seen from sealift.clients'
//
// Sessions of the database are used (prepared statements, locks), so between here and there may
// be no pool that deals out transactions.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"sealift/storage"
)

// What is wrong with a database. The errors of this package wrap one of these where one of
// them applies.
var (
	ErrURL      = errors.New("this is no URL of a PostgreSQL database")
	ErrReadOnly = errors.New("the registry was opened for reading")
	ErrEncoding = errors.New("the database has another encoding than UTF8")
	ErrVersion  = errors.New("PostgreSQL is too old: 14 is needed")
	ErrForeign  = errors.New("the schema belongs to another program")
	ErrNewer    = errors.New("the database was brought up to date by a newer version of Sealift")
	ErrOlder    = errors.New("the database was made by an older version of Sealift, or by none")
	ErrClosed   = errors.New("the registry is closed")
)

// What Options mean where they say nothing.
const (
	DefaultPatience    = 10 * time.Second
	DefaultConnections = 8
)

// defaultSchema is where the tables lie unless the URL has a search_path.
const defaultSchema = "sealift"

// Options of Open.
type Options struct {
	// Patience is how long an operation waits for a database that cannot be reached, or does
	// not answer. Zero is DefaultPatience.
	Patience time.Duration
	// Connections is how many the registry opens at most, besides one for locks. Zero is
	// DefaultConnections.
	Connections int
	// Log, if not nil, is told of batches that are repeated: what was wrong, without passwords.
	Log func(err error)
}

// Registry is a storage.Registry in a PostgreSQL database. It is safe for concurrent use.
type Registry struct {
	pool     *pgxpool.Pool
	name     string // for errors, without the password
	schema   string
	patience time.Duration
	log      func(error)
	readOnly bool
	instance uuid.UUID
	writers  chan *writer // those that are free
	tells    atomic.Bool  // events may be recorded, for whoever is in event_targets
	recorded chan struct{}
	watch    watch

	listening     sync.Once
	announced     chan struct{} // see Steered
	stopListening func()        // nil: nobody has asked

	locks *locks

	closing sync.Once
	closed  chan struct{}
}

var (
	_ storage.Registry  = (*Registry)(nil)
	_ storage.Shared    = (*Registry)(nil)
	_ storage.Announcer = (*Registry)(nil)
	_ storage.Locker    = (*Registry)(nil)
	_ storage.Secrets   = (*Registry)(nil)
)

// IsURL reports whether s names a PostgreSQL database, and no file.
func IsURL(s string) bool {
	return strings.HasPrefix(s, "postgres://") || strings.HasPrefix(s, "postgresql://")
}

// Name returns what may be shown of a URL: it has no password, and no parameters.
func Name(s string) string {
	u, err := url.Parse(s)
	if err != nil || !IsURL(s) {
		return "postgres://"
	}
	shown := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	if u.User.Username() != "" {
		shown.User = url.User(u.User.Username())
	}
	return shown.String()
}

// Open opens the database at url, and makes the tables in it first, or brings them up to date.
// Several may do that at once. What the URL does not say is taken from libpq's environment
// (PGHOST, PGPASSWORD, PGSSLMODE, …). Open waits for Options.Patience for a database that cannot
// be reached. Of several hosts in the URL, and of several databases behind one, it uses the one that takes writes, for
// questions as well: a replica may lack what was committed a moment ago, and a sweep would take that for content that
// nothing on record names. The error has no password in it, and wraps ErrURL, ErrEncoding, ErrForeign or
// ErrNewer where one applies.
func Open(ctx context.Context, url string, o Options) (*Registry, error) {
	r, err := connect(ctx, url, o, pgconn.ValidateConnectTargetSessionAttrsReadWrite)
	if err != nil {
		return nil, err
	}
	var c *pgxpool.Conn
	err = r.persist(ctx, func(attempt context.Context) (err error) {
		if c, err = r.acquire(attempt); err == nil {
			err = checkServer(attempt, c.Conn())
		}
		if err != nil && c != nil {
			c.Release()
		}
		return err
	})
	if err == nil {
		err = r.migrate(ctx, c) // which may take its time
		c.Release()
	}
	if err == nil {
		err = r.persist(ctx, r.forgetWriters)
	}
	if err == nil {
		err = r.persist(ctx, r.loadTargets)
	}
	if err != nil {
		_ = r.Close()
		return nil, r.failure("open", err)
	}
	return r, nil
}

// forgetWriters forgets what servers that are gone have left in the table writers. A batch is
// repeated for minutes at most.
func (r *Registry) forgetWriters(ctx context.Context) error {
	_, err := r.pool.Exec(ctx, "WITH gone AS (DELETE FROM writers WHERE at < now() - interval '7 days' RETURNING writer)"+
		" DELETE FROM results WHERE writer IN (SELECT writer FROM gone)")
	return err
}

// OpenReadOnly opens the database at url for lists, and for batches that only read. It changes
// nothing in the database. The error wraps ErrOlder or ErrNewer if this program does not know the
// tables, and otherwise what Open's does.
func OpenReadOnly(ctx context.Context, url string, o Options) (*Registry, error) {
	r, err := connect(ctx, url, o, nil)
	if err != nil {
		return nil, err
	}
	r.readOnly = true
	if err := r.persist(ctx, r.checkSchema); err != nil {
		_ = r.Close()
		return nil, r.failure("open", err)
	}
	return r, nil
}

// isSchema says which names of schemas are taken: such as need no quotes.
var isSchema = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)

// connect makes a registry. Of the hosts in the URL it uses those that pass valid, or, if that is nil, those
// that the URL asks for.
func connect(ctx context.Context, address string, o Options, valid pgconn.ValidateConnectFunc) (*Registry, error) {
	config, err := configure(address)
	if err != nil {
		return nil, err
	}
	if valid != nil {
		config.ConnConfig.ValidateConnect = valid
	}
	if o.Connections <= 0 {
		o.Connections = DefaultConnections
	}
	if o.Patience <= 0 {
		o.Patience = DefaultPatience
	}
	if o.Log == nil {
		o.Log = func(error) {}
	}
	config.MaxConns = int32(o.Connections)
	config.MinConns = 0
	// A batch is repeated anyway if its connection is dead: to ask first costs a round trip.
	config.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false }
	config.AfterConnect = becomeDurable
	schema := config.ConnConfig.RuntimeParams["search_path"]
	pool, err := pgxpool.NewWithConfig(context.WithoutCancel(ctx), config)
	if err != nil {
		return nil, fmt.Errorf("database %s: %w", Name(address), err)
	}
	r := &Registry{
		pool: pool, name: Name(address), schema: schema, patience: o.Patience, log: o.Log,
		instance: uuid.New(), writers: make(chan *writer, writersAtOnce), recorded: make(chan struct{}, 1), announced: make(chan struct{}, 1),
		locks: newLocks(config.ConnConfig), closed: make(chan struct{}),
	}
	for range writersAtOnce {
		r.writers <- &writer{id: uuid.New()}
	}
	return r, nil
}

// configure understands a URL.
func configure(address string) (*pgxpool.Config, error) {
	if u, err := url.Parse(address); !IsURL(address) || err != nil {
		// What is wrong with it might show a part of the password.
		return nil, fmt.Errorf("%w: want postgres://user:password@host:port/database, with what is special in the password as %%xx", ErrURL)
	} else if u.Query().Has("pool_max_conns") {
		return nil, fmt.Errorf("%w: pool_max_conns is not taken from the URL", ErrURL)
	}
	config, err := pgxpool.ParseConfig(address)
	if err != nil {
		var parse *pgconn.ParseConfigError
		if errors.As(err, &parse) { // it shows the URL without its password
			return nil, fmt.Errorf("%w: %w", ErrURL, parse)
		}
		return nil, ErrURL
	}
	params := config.ConnConfig.RuntimeParams
	if params["search_path"] == "" {
		params["search_path"] = defaultSchema
	}
	if !isSchema.MatchString(params["search_path"]) {
		return nil, fmt.Errorf("%w: search_path %q: want the name of one schema, of lower case letters, digits and underscores", ErrURL, params["search_path"])
	}
	if params["application_name"] == "" {
		params["application_name"] = "sealift"
	}
	for name, value := range settings {
		params[name] = value
	}
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = connectTimeout
	}
	return config, nil
}

// settings are those of the sessions. The functions rely on READ COMMITTED: each of their
// statements sees what others have committed. All that is asked goes by an index; but in a new
// database the planner takes tables for so small that it reads them whole, and the functions keep
// such a plan: until statistics came in, batches took a hundred times as long. Where the machine of a server is gone in
// the middle of a batch, the database notices within half a minute, and the rows of its clients are free again.
var settings = map[string]string{
	"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3",
	"default_transaction_isolation": "read committed", "client_encoding": "UTF8",
	"enable_seqscan": "off", "plan_cache_mode": "force_generic_plan", "jit": "off",
}

// becomeDurable has a new session wait for the disk with each commit, where the database would
// not. What an administrator has chosen for replicas stays.
func becomeDurable(ctx context.Context, c *pgx.Conn) error {
	_, err := c.Exec(ctx, "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'")
	return err
}

const connectTimeout = 5 * time.Second

// Close waits for what is under way and closes the connections. What comes later gets
// ErrClosed.
func (r *Registry) Close() error {
	r.closing.Do(func() {
		close(r.closed)
		r.listening.Do(func() {}) // from here on nobody begins to
		if r.stopListening != nil {
			r.stopListening()
		}
		r.locks.close()
		r.pool.Close()
	})
	return nil
}

// failure makes an error of the store name the database.
func (r *Registry) failure(doing string, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, ErrClosed) {
		return err
	}
	return fmt.Errorf("database %s: %s: %w", r.name, doing, inOneLine(err))
}
