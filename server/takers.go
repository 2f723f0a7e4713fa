package server

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"strings"
	"time"

	"sealift/storage"
)

// takers is an underway in a registry that several servers share, of commands on several
// machines: a lock that one command at a time has, and a lease for each file of the batch.
// Where a command was killed, its leases say which files it may have recorded as taken. Others
// leave those alone, since only whoever has its outlet can bring the batch to its end.
type takers struct {
	*take
	lost    <-chan struct{}
	release func()
	ends    []storage.Operation // of the leases that were set
}

// takersLock is the name of that lock.
const takersLock = "takers"

// takenLease is how long a killed command may keep its files from others.
const takenLease = 30 * 24 * time.Hour

// lockTakers waits until no other command has the lock.
func lockTakers(ctx context.Context, t *take) (*takers, error) {
	locker, ok := t.reg.(storage.Locker)
	if !ok {
		return nil, errors.New("files cannot be taken: the registry has no locks")
	}
	for {
		lost, unlock, ok, err := locker.TryLock(ctx, takersLock)
		if err != nil {
			return nil, err
		}
		if ok {
			return &takers{take: t, lost: lost, release: unlock}, nil
		}
		if err := pause(ctx, settleEvery); err != nil {
			return nil, err
		}
	}
}

func (u *takers) unlock() { u.release() }

// takePrefix begins the keys of these leases, which are no keys of content.
const takePrefix = "take-"

func takenKey(batch, key string) string { return takePrefix + batch + "-" + key }

// others implements underway.
func (u *takers) others(ctx context.Context) (map[string]string, error) {
	of := make(map[string]string)
	err := u.reg.EachLease(ctx, func(l storage.Lease) error {
		if rest, ok := strings.CutPrefix(l.Upload.Key, takePrefix); ok {
			if _, key, ok := strings.Cut(rest, "-"); ok {
				of[key] = l.Server
			}
		}
		return nil
	})
	return of, err
}

// set implements underway.
func (u *takers) set(ctx context.Context, b *taking, outlet string) error {
	host, _ := os.Hostname()
	var ops []storage.Operation
	for i := range b.files {
		f := &b.files[i]
		ops = append(ops, &storage.LeaseUpload{
			Outcome: storage.Outcome{By: storage.Server}, For: takenLease, Server: host + ":" + outlet,
			Upload: storage.Uploaded{Place: f.Place(), Key: takenKey(b.name(), f.Incoming)},
		})
		u.ends = append(u.ends, endTaken(b.name(), f.Incoming))
	}
	if err := applyAll(ctx, u.reg, ops); err != nil {
		return err
	}
	select {
	case <-u.lost: // another command may not have seen these leases
		return errors.Join(errors.New("the connection to the registry was lost"), u.clear(ctx))
	default:
		return nil
	}
}

// clear implements underway.
func (u *takers) clear(ctx context.Context) error {
	return applyAll(ctx, u.reg, u.ends)
}

func endTaken(batch, key string) storage.Operation {
	return &storage.EndLease{Outcome: storage.Outcome{By: storage.Server}, Key: takenKey(batch, key)}
}

// forgetBatch ends the leases of a batch that a killed run has left, where it had some.
func (t *take) forgetBatch(ctx context.Context, batch string, files []fetched) error {
	if t.at.database() {
		return nil
	}
	var ops []storage.Operation
	for i := range files {
		ops = append(ops, endTaken(batch, files[i].Incoming))
	}
	return applyAll(ctx, t.reg, ops)
}

// applyAll does operations on the server's behalf, and returns the first error of one.
func applyAll(ctx context.Context, reg storage.Registry, ops []storage.Operation) error {
	if len(ops) == 0 {
		return nil
	}
	if err := reg.Apply(ctx, ops); err != nil {
		return err
	}
	for _, op := range ops {
		if err := op.Result().Err; err != nil {
			return err
		}
	}
	return nil
}

// registryName is the name that a registry has given itself, which no other has.
func registryName(ctx context.Context, reg storage.Registry) (string, error) {
	secrets, ok := reg.(storage.Secrets)
	if !ok {
		return "", errors.New("the registry keeps no name for itself")
	}
	name, err := secrets.Secret(ctx, "name", func() ([]byte, error) { return []byte(rand.Text()), nil })
	return string(name), err
}
