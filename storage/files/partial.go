package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"sealift/storage"
)

// Reopen implements storage.Files. The file is opened and cut at once.
func (s *Store) Reopen(ctx context.Context, up storage.Uploaded, size storage.Announced, length int64) (storage.Incoming, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.incoming == nil {
		return nil, errReadOnly
	}
	if err := s.space.take(0, true); err != nil {
		return nil, err
	}
	if err := s.mayHold(up.Place); err != nil {
		return nil, err
	}
	if cause := s.isSpoilt(up.Key); cause != nil {
		return nil, s.spoil(up.Key, cause)
	}
	at, found, err := s.findIncoming(up.Key)
	if err != nil {
		return nil, err
	}
	at.dir.close()
	if found.size < length {
		return nil, fmt.Errorf("%w: the incoming file has %d bytes, fewer than %d", storage.ErrNotStored, found.size, length)
	}
	in := &incoming{key: up.Key, size: length, begun: length, there: length}
	if kept := s.takeKept(up.Key); kept != nil {
		in.file = *kept
	} else {
		in.file = newFile(s, inFolder(up.Key))
		in.made = true
	}
	in.hint, _ = size.Size()
	f, err := in.use()
	if err == nil {
		err = in.done(s.step(Write, in.path, "", func() error { return f.Truncate(length) }))
	}
	if err != nil {
		return nil, errors.Join(notStored(err), in.release())
	}
	return in, nil
}

// Flush implements storage.Files. It opens the file anew, so that the writer's descriptor
// still tells of an error, and makes the file's entry durable as well. After a sync that
// failed, of a folder too, the file is removed: nobody syncs it again and believes it.
func (s *Store) Flush(ctx context.Context, up storage.Uploaded, _ int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	at, _, err := s.findIncoming(up.Key)
	if err != nil {
		return err
	}
	defer at.dir.close()
	if !s.fsync {
		return nil
	}
	if cause := s.isSpoilt(up.Key); cause != nil {
		return s.spoil(up.Key, cause)
	}
	f, err := at.dir.open(at.name, os.O_RDWR, 0)
	if err != nil {
		return notStored(err)
	}
	err = s.step(SyncFile, s.below(at.path()), "", f.Sync)
	if err = errors.Join(err, f.Close()); err == nil {
		err = s.syncFolder(at.dir, at.folder)
	}
	if err == nil {
		err = s.syncFolder(s.incoming, incomingFolder)
	}
	if err == nil {
		return nil
	}
	if kept := s.takeKept(up.Key); kept != nil {
		_ = kept.release() // for Commit not to ask a descriptor that may not tell
	}
	return s.spoil(up.Key, err)
}

// OpenFrom implements storage.Files.
func (s *Store) OpenFrom(ctx context.Context, ref storage.Ref, offset int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, err := s.open(ref)
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
