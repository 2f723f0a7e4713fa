package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// ErrHeld is a registry that another server has for itself, whose content is in a directory.
var ErrHeld = errors.New("another server has the registry")

// How long a server may be out of sight before another one may have the registry, and how often
// it shows itself.
const (
	holdFor  = time.Minute
	holdBeat = 15 * time.Second
)

const (
	takeHold = "INSERT INTO holder (token, server, host, dir, ends) VALUES ($1, $2, $3, $4, clock_timestamp() + $5)" +
		" ON CONFLICT (one) DO UPDATE SET token = excluded.token, server = excluded.server, host = excluded.host, dir = excluded.dir," +
		" ends = excluded.ends WHERE holder.ends <= clock_timestamp() OR holder.host = excluded.host AND holder.dir = excluded.dir"
	keepHold   = "UPDATE holder SET ends = clock_timestamp() + $2 WHERE token = $1"
	dropHold   = "DELETE FROM holder WHERE token = $1"
	selectHold = "SELECT server, host, dir, ends > clock_timestamp() FROM holder"
)

// Hold takes the registry for one server, whose content is in dir of host, until release. The
// caller has dir to itself, so it takes over at once what another process had with the same dir
// of the same host. Anybody else is refused with ErrHeld, until the server was out of sight for a
// minute. lost is closed when another server may have it.
func (r *Registry) Hold(ctx context.Context, server, host, dir string) (lost <-chan struct{}, release func(), err error) {
	if r.readOnly {
		return nil, nil, r.failure("hold", ErrReadOnly)
	}
	h := &hold{r: r, token: uuid.New(), lost: make(chan struct{}), stop: make(chan struct{}), stopped: make(chan struct{})}
	var asked time.Time // the row lasts from after it on
	err = r.persist(ctx, func(ctx context.Context) error {
		asked = time.Now()
		return h.take(ctx, server, host, dir)
	})
	if err != nil {
		return nil, nil, r.failure("hold", err)
	}
	go h.keep(asked)
	return h.lost, h.release, nil
}

// hold is the row of a registry in the table holder.
type hold struct {
	r             *Registry
	token         uuid.UUID
	lost          chan struct{}
	stop, stopped chan struct{}
}

func (h *hold) take(ctx context.Context, server, host, dir string) error {
	tag, err := h.r.pool.Exec(ctx, takeHold, h.token, server, host, dir, holdFor)
	if err != nil || tag.RowsAffected() > 0 {
		return err
	}
	var other, where, folder string
	var live bool
	switch err := h.r.pool.QueryRow(ctx, selectHold).Scan(&other, &where, &folder, &live); {
	case errors.Is(err, pgx.ErrNoRows) || err == nil && !live:
		return h.take(ctx, server, host, dir) // it went meanwhile
	case err != nil:
		return err
	}
	return fmt.Errorf("%w: %s on %s, with the directory %s", ErrHeld, other, where, folder)
}

// keep shows that the server is there, until stop. seen is when it did last.
func (h *hold) keep(seen time.Time) {
	defer close(h.stopped)
	ticker := time.NewTicker(holdBeat)
	defer ticker.Stop()
	for {
		select {
		case <-h.stop:
			return
		case <-h.r.closed:
			return
		case <-ticker.C:
		}
		now := time.Now()
		ctx, cancel := context.WithDeadline(context.Background(), seen.Add(holdFor))
		tag, err := h.r.pool.Exec(ctx, keepHold, h.token, holdFor)
		cancel()
		switch {
		case err == nil && tag.RowsAffected() > 0:
			seen = now
		case err == nil || time.Since(seen) >= holdFor:
			close(h.lost)
			return
		}
	}
}

func (h *hold) release() {
	close(h.stop)
	<-h.stopped
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	_, _ = h.r.pool.Exec(ctx, dropHold, h.token) // otherwise it ends by itself
}
