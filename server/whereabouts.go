package server

import (
	"context"
	"errors"
	"fmt"

	"sealift/storage"
	"sealift/storage/postgres"
	"sealift/storage/s3"
)

// A registry in a database can be reached from anywhere, and content is not with it. So the
// registry keeps where the content is: a server with another place, or without --files, would
// find none of it, and would mark all of it as missing while others serve it.

// filesSecret is the name under which a registry keeps that.
const filesSecret = "files"

// inDirectory is what is kept where content is in a server's directory. Which directory that is,
// nobody but the server needs to know: one server has the registry at a time.
const inDirectory = "a directory"

// errFilesOfOthers is a registry whose content is elsewhere.
var errFilesOfOthers = errors.New("the files of this registry are elsewhere")

// whereabouts is where content is, as a registry keeps it. Machines may know the endpoint of a
// bucket by different names, so that is no part of it.
func whereabouts(bucket string) (string, error) {
	if bucket == "" {
		return inDirectory, nil
	}
	u, err := s3.ParseURL(bucket)
	return u.String(), err
}

// keepTogether returns an error unless the content of the registry is in bucket, or in a
// directory if that is "". The first that asks decides.
func keepTogether(ctx context.Context, secrets storage.Secrets, bucket string) error {
	here, err := whereabouts(bucket)
	if err != nil {
		return fmt.Errorf("--files: %w", err)
	}
	kept, err := secrets.Secret(ctx, filesSecret, func() ([]byte, error) { return []byte(here), nil })
	if err != nil || string(kept) == here {
		return err
	}
	return errElsewhere(string(kept), here)
}

// errElsewhere is errFilesOfOthers with what can be done.
func errElsewhere(kept, here string) error {
	return &Hinted{
		Err: fmt.Errorf("--files: %w: they are in %s, and this is %s", errFilesOfOthers, kept, here),
		Hint: "Give --files as the other servers have it. If all files were moved by other means, or there are none yet, " +
			"have the registry forget where they were: DELETE FROM secrets WHERE name = 'files', in its schema.",
	}
}

// checkTogether is keepTogether for commands, which decide nothing.
func (at Stores) checkTogether(ctx context.Context, reg storage.Registry) error {
	secrets, ok := reg.(storage.Secrets)
	if !ok {
		return nil
	}
	here, err := whereabouts(at.Files)
	if err != nil {
		return fmt.Errorf("--files: %w", err)
	}
	kept, err := secrets.Secret(ctx, filesSecret, func() ([]byte, error) { return nil, errNotKept })
	if errors.Is(err, errNotKept) || errors.Is(err, postgres.ErrReadOnly) || string(kept) == here {
		return nil
	}
	if err != nil {
		return err
	}
	return errElsewhere(string(kept), here)
}

// errNotKept is a registry that does not say where its content is.
var errNotKept = errors.New("no server has said yet where the files are")
