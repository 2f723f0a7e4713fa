package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// channel is where begin_batch tells of a batch that steers, with the schema as payload.
	channel = "sealift_steering"
	// listenAgain is how long the registry waits before it listens again over another connection.
	listenAgain = time.Second
)

// Steered implements storage.Announcer. From the first call on, the registry has one connection
// more, which listens until Close.
func (r *Registry) Steered() <-chan struct{} {
	r.listening.Do(func() {
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan struct{})
		r.stopListening = func() {
			stop()
			<-ended
		}
		go func() {
			defer close(ended)
			r.listen(ctx)
		}()
	})
	return r.announced
}

// listen passes on what is announced, until ctx ends. What is announced while there is no
// connection is not heard: the first thing that each connection passes on stands for that.
func (r *Registry) listen(ctx context.Context) {
	config := r.pool.Config().ConnConfig
	for ctx.Err() == nil {
		if conn, err := pgx.ConnectConfig(ctx, config); err == nil {
			r.hear(ctx, conn)
			closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			_ = conn.Close(closing)
			cancel()
		}
		select {
		case <-ctx.Done():
		case <-time.After(listenAgain):
		}
	}
}

// hear passes on what comes over conn, until it is lost or ctx ends.
func (r *Registry) hear(ctx context.Context, conn *pgx.Conn) {
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return
	}
	r.tellSteered()
	for {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			return
		}
		if n.Payload == r.schema {
			r.tellSteered()
		}
	}
}

// tellSteered wakes whoever reads from Steered.
func (r *Registry) tellSteered() {
	select {
	case r.announced <- struct{}{}:
	default:
	}
}
