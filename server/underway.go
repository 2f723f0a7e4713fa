package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"sealift/internal/infofile"
)

// underway is the right to record a batch of files as taken, which one command at a time has,
// and the record of that batch: whoever comes next finds it if the command is killed between
// the two.
type underway interface {
	// others returns which files, by their keys, a killed command may have taken that only it
	// can finish, each with the machine and the outlet of the command.
	others(ctx context.Context) (map[string]string, error)
	// set records a batch, whose files may or may not be recorded as taken from now on.
	set(ctx context.Context, b *taking, outlet string) error
	// clear removes that: it is known what is recorded.
	clear(ctx context.Context) error
	unlock()
}

// line is an underway in the server's directory: a line with the batch's folder below takingFolder
// and the outlet, in the file of that name. Whoever holds the lock
// of that file and finds a line in it has come after a command that was killed, and brings
// that batch to its end before anybody takes another file. So nobody else has a file of it.
type line struct {
	path    string
	release func()
}

const underwayName = "taking"

// lockUnderway waits until no other command is between the two ends of that record.
func lockUnderway(ctx context.Context, dir string) (*line, error) {
	path := filepath.Join(dir, underwayName)
	unlock, err := infofile.Lock(ctx, path)
	if err != nil {
		return nil, err
	}
	return &line{path, unlock}, nil
}

func (u *line) unlock() { u.release() }

// others implements underway: whoever finds the line finishes the batch.
func (u *line) others(context.Context) (map[string]string, error) { return nil, nil }

// get returns the batch and the outlet, or "" if there is none.
func (u *line) get() (batch, to string, err error) {
	text, err := os.ReadFile(u.path)
	if errors.Is(err, os.ErrNotExist) {
		return "", "", nil
	}
	line, whole := strings.CutSuffix(string(text), "\n")
	batch, to, ok := strings.Cut(line, " ")
	if !whole || !ok { // it was being written, and nothing was recorded after it
		return "", "", err
	}
	return batch, to, err
}

// set makes the line durable.
func (u *line) set(_ context.Context, b *taking, to string) error {
	_, err := os.Lstat(u.path)
	made := errors.Is(err, os.ErrNotExist)
	f, err := os.OpenFile(u.path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(b.name() + " " + to + "\n")
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil && made {
		err = syncFolder(filepath.Dir(u.path))
	}
	return err
}

// clear removes the line. One that a power cut brings back does no harm.
func (u *line) clear(context.Context) error { return os.Truncate(u.path, 0) }

// alone waits until no other command is where underway is about, and brings what a killed one
// has left there to its end.
func (t *take) alone(ctx context.Context) (underway, error) {
	if !t.at.database() {
		return lockTakers(ctx, t)
	}
	for {
		u, err := lockUnderway(ctx, t.at.Dir)
		if err != nil {
			return nil, err
		}
		busy, err := t.settle(ctx, u)
		if err == nil && !busy {
			err = checkMoved(t.at.Dir, true, t.at.folder()) // while this waited for the lock
		}
		if err == nil && !busy {
			return u, nil
		}
		u.unlock()
		if err == nil {
			err = pause(ctx, settleEvery)
		}
		if err != nil {
			return nil, err
		}
	}
}

// settleEvery is how often a command looks whether another has settled what is under way.
const settleEvery = 20 * time.Millisecond

// settle finishes the batch that is under way, if there is one. busy: another command has its
// outlet, and does that.
func (t *take) settle(ctx context.Context, u *line) (busy bool, err error) {
	batch, to, err := u.get()
	if err != nil || batch == "" {
		return false, err
	}
	ms, err := strconv.ParseInt(batch, 10, 64)
	if err != nil {
		return false, fmt.Errorf("%s: %q is no batch of files", u.path, batch)
	}
	other := *t
	if !t.out.is(to) {
		other.out, err = openOutlet(t.at.Dir, to)
		if errors.Is(err, infofile.ErrBusy) {
			return true, nil
		}
		if err != nil {
			return false, &Hinted{
				Err:  fmt.Errorf("a command that was killed has to be finished first, and cannot be: %w", err),
				Hint: fmt.Sprintf("Make %s accessible, or if it is lost for good, remove %s. Then run this again.", to, u.path),
			}
		}
		defer other.out.close()
	}
	if err := other.finish(ctx, batch, time.UnixMilli(ms), true); err != nil {
		return false, err
	}
	return false, u.clear(ctx)
}
