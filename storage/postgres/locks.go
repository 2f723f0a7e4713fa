package postgres

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// Every so often the connection that has the locks asks whether it is still there, and the
// database ends it where it has not heard of it for so long: the locks of a server that is
// stopped, or whose machine is gone, are free then.
const (
	lockBeat    = 2 * time.Second
	lockTimeout = 30 * time.Second
)

// locks are the locks that this registry has: session-level advisory locks of one connection
// of their own.
type locks struct {
	config *pgx.ConnConfig
	mu     sync.Mutex
	conn   *pgx.Conn                // nil: there is none
	held   map[string]chan struct{} // the channels that are closed when a lock is lost
	stop   chan struct{}            // ends the beat of conn
	closed bool
}

func newLocks(config *pgx.ConnConfig) *locks {
	config = config.Copy()
	config.RuntimeParams["idle_session_timeout"] = "30s"
	return &locks{config: config, held: make(map[string]chan struct{})}
}

// TryLock implements storage.Locker. lost is closed a few seconds after the connection to the
// database was lost.
func (r *Registry) TryLock(ctx context.Context, name string) (lost <-chan struct{}, unlock func(), ok bool, err error) {
	lost, ok, err = r.locks.try(ctx, r.schema, name)
	if err != nil {
		return nil, nil, false, r.failure("lock", err)
	}
	return lost, func() { r.locks.unlock(r.schema, name) }, ok, nil
}

const (
	tryLock = "SELECT pg_try_advisory_lock(hashtext($1 || ' sealift lock'), hashtext($2))"
	unlock  = "SELECT pg_advisory_unlock(hashtext($1 || ' sealift lock'), hashtext($2))"
)

func (l *locks) try(ctx context.Context, schema, name string) (lost chan struct{}, ok bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, false, ErrClosed
	}
	if l.held[name] != nil {
		return nil, false, nil // a session may take its lock again, and another user of this registry may not
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if l.conn == nil {
		conn, err := pgx.ConnectConfig(ctx, l.config)
		if err != nil {
			return nil, false, err
		}
		l.conn, l.stop = conn, make(chan struct{})
		go l.beat(conn, l.stop)
	}
	if err := l.conn.QueryRow(ctx, tryLock, schema, name).Scan(&ok); err != nil {
		l.lose()
		return nil, false, err
	}
	if ok {
		lost = make(chan struct{})
		l.held[name] = lost
	}
	return lost, ok, nil
}

func (l *locks) unlock(schema, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[name] == nil {
		return // it was lost
	}
	delete(l.held, name)
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	if _, err := l.conn.Exec(ctx, unlock, schema, name); err != nil {
		l.lose()
	}
}

// beat asks the database whether conn is there, until stop.
func (l *locks) beat(conn *pgx.Conn, stop chan struct{}) {
	ticker := time.NewTicker(lockBeat)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
		l.mu.Lock()
		if l.conn == conn {
			ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
			if err := conn.Ping(ctx); err != nil {
				l.lose()
			}
			cancel()
		}
		l.mu.Unlock()
	}
}

// lose gives the connection up, and all locks with it. The caller has mu.
func (l *locks) lose() {
	if l.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = l.conn.Close(ctx)
	close(l.stop)
	l.conn, l.stop = nil, nil
	for name, lost := range l.held {
		close(lost)
		delete(l.held, name)
	}
}

func (l *locks) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.conn != nil && len(l.held) > 0 { // the end of the session takes a moment
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, _ = l.conn.Exec(ctx, "SELECT pg_advisory_unlock_all()")
	}
	l.lose()
}
