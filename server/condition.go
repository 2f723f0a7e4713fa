package server

import (
	"context"
	"errors"
	"time"

	"sealift/admin"
	"sealift/storage"
	"sealift/storage/files"
)

// storesToCheck are the stores of a server, as /readyz looks at them.
type storesToCheck struct {
	registry *observedRegistry
	folder   *files.Store // nil: content is in a bucket
	bucket   pinged       // nil: it is in a folder
	distant  bool         // the registry is another machine's, and may not answer at all
}

// pinged is a store that can say whether it answers.
type pinged interface {
	Ping(ctx context.Context) error
}

// distantTime is how long a store on another machine may take to answer /readyz. Whoever asks
// waits for 2 s, and both may keep silent.
const distantTime = 900 * time.Millisecond

func (s *Server) storesToCheck() *storesToCheck {
	c := &storesToCheck{registry: s.watched.registry, folder: s.folder, distant: s.o.Storage.inPostgres()}
	c.bucket, _ = s.store.(pinged)
	return c
}

// condition looks at the stores.
func (s *storesToCheck) condition() admin.Condition {
	c := admin.Condition{Free: -1, Reserve: -1}
	if s.folder != nil {
		c = folderCondition(s.folder)
	}
	ctx, stop := context.Background(), func() {}
	if s.distant {
		ctx, stop = context.WithTimeout(ctx, distantTime)
	}
	if err := s.registry.writable(ctx); err != nil {
		add(&c, admin.RegistryNotWritable, err)
	}
	stop()
	if s.bucket != nil {
		ctx, stop := context.WithTimeout(context.Background(), distantTime)
		defer stop()
		if err := s.bucket.Ping(ctx); err != nil {
			add(&c, admin.StoreFails, err)
		}
	}
	return c
}

func add(c *admin.Condition, reason string, err error) {
	c.Reasons = append(c.Reasons, admin.Reason{Reason: reason, Detail: err.Error()})
}

// folderCondition looks at the disk.
func folderCondition(folder *files.Store) admin.Condition {
	found, err := folder.Condition()
	c := admin.Condition{Free: -1, Reserve: found.Reserve}
	if found.Known && err == nil {
		c.Free = found.Free
	}
	switch {
	case errors.Is(found.Moved, files.ErrMoved):
		add(&c, admin.StoreMoved, found.Moved)
	case found.Moved != nil:
		add(&c, admin.StoreFails, found.Moved)
	case err != nil:
		add(&c, admin.StoreFails, err)
	}
	if err == nil && found.Short() {
		add(&c, admin.DiskBelowReserve, storage.ErrFull)
	}
	return c
}
