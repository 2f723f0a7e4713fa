package client_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"sealift/client"
)

// A caller can tell what passes by itself from what needs somebody's hand.
func TestTemporary(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{client.ErrConnection, true},
		{client.ErrServer, true},
		{&client.Error{Code: 1028, Attempts: 4, Err: fmt.Errorf("%w: broken pipe", client.ErrConnection)}, true},
		{fmt.Errorf("a.txt: %w", &client.Error{Code: 1027, Attempts: 4, Err: client.ErrServer}), true},
		{&client.Error{Code: 1025, Err: client.ErrNameTaken}, false},
		{&client.Error{Code: 1027, Err: fmt.Errorf("%w; %w", client.ErrRejected, client.ErrServer)}, false},
		{&client.Error{Code: 1028, Err: fmt.Errorf("%w; and the abort failed too: %w", client.ErrChecksum, client.ErrServer)}, false},
		{&client.Error{Code: 1028, Err: fmt.Errorf("%w; %w", client.ErrServer, client.ErrNoDialect)}, false},
		{&client.ReplyError{Problem: "its version is 83", OutOfStep: true}, false},
		{fmt.Errorf("%w: %w", client.ErrConnection, context.Canceled), false},
		{&client.Error{Err: context.Canceled}, false},
		{client.ErrTooLarge, false},
		{fs.ErrNotExist, false},
		{errors.New("something else"), false},
	} {
		if got := client.Temporary(tc.err); got != tc.want {
			t.Errorf("%v: %v, want %v", tc.err, got, tc.want)
		}
	}
}
