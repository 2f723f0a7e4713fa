package client

import (
	"context"
	"net"
)

// within calls f on a goroutine of its own and returns what f returns, or the
// cause of ctx as soon as that ends. It is for calls that know no context and
// may hang: a file on a network file system, a lock, a function of the user. f
// goes on in the background then, and what it still returns goes to discard,
// unless that is nil.
func within[T any](ctx context.Context, f func() (T, error), discard func(T)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := f()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		go func() {
			if r := <-done; r.err == nil && discard != nil {
				discard(r.value)
			}
		}()
		var none T
		return none, context.Cause(ctx)
	}
}

// dialFunc is the type of Options.DialContext.
type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// dialWithin makes a dial that ends with its context of one that need not.
func dialWithin(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		return within(ctx, func() (net.Conn, error) { return dial(ctx, network, address) },
			func(nc net.Conn) { nc.Close() })
	}
}
