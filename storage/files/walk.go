package files

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"

	"sealift/codec"
	"sealift/storage"
)

// EachIncoming calls yield with each incoming file, until it returns an error,
// which EachIncoming then returns. yield may discard files. The place that a file
// is meant for is not known, and zero.
func (s *Store) EachIncoming(ctx context.Context, yield func(storage.Uploaded) error) error {
	if s.incoming == nil {
		return errReadOnly
	}
	return s.eachIncomingEntry(ctx, func(name string) error {
		if !isKey(name) {
			return nil
		}
		return yield(storage.Uploaded{Key: name})
	})
}

// eachIncomingEntry yields the names of what is in the folders of incoming
// files.
func (s *Store) eachIncomingEntry(ctx context.Context, yield func(name string) error) error {
	w := walk{
		root: s.incoming,
		into: func(folder string) bool { return len(folder) == 2 }, // one of inFolder
		found: func(at string, _ fs.DirEntry) error {
			name := path.Base(at)
			if at != inFolder(name) {
				return nil // it is not where a key leads
			}
			return yield(name)
		},
	}
	return w.run(ctx)
}

// EachStored calls yield with each file in a client's folder, in no order, until
// it returns an error, which EachStored then returns. What is neither a folder
// nor a regular file is passed over, as is what is in no client's folder.
func (s *Store) EachStored(ctx context.Context, yield func(id codec.ClientID, path string) error) error {
	w := walk{
		root: s.top,
		into: inClientFolder,
		found: func(at string, e fs.DirEntry) error {
			client, path, below := strings.Cut(at, "/")
			id, ok := clientID(client)
			if !ok || !below || !e.Type().IsRegular() {
				return nil
			}
			return yield(id, path)
		},
	}
	return w.run(ctx)
}

// RemoveEmptyFolders removes the folders below files/ in which no file is, those
// of clients too. It may run beside everything else: a Commit whose folder goes
// makes it again.
func (s *Store) RemoveEmptyFolders(ctx context.Context) error {
	if s.incoming == nil {
		return errReadOnly
	}
	w := walk{
		root:  s.top,
		into:  inClientFolder,
		found: func(string, fs.DirEntry) error { return nil },
		left: func(folder string) bool {
			err := s.removeFolder(folder)
			return err == nil || errors.Is(err, fs.ErrNotExist)
		},
	}
	return w.run(ctx)
}

// inClientFolder reports whether a folder below files/ is a client's, or in one.
func inClientFolder(folder string) bool {
	client, _, _ := strings.Cut(folder, "/")
	_, ok := clientID(client)
	return ok
}

// Has implements storage.Files.
func (s *Store) Has(ctx context.Context, id codec.ClientID) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	folder, err := s.top.enter(id.String())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer folder.close()
	f, err := folder.self()
	if err != nil {
		return false, err
	}
	defer f.Close()
	if _, err := f.ReadDir(1); err != io.EOF {
		return err == nil, err
	}
	return false, nil
}

// clientID reads the name of a client's folder.
func clientID(name string) (codec.ClientID, bool) {
	var id codec.ClientID
	if len(name) != 2*len(id) {
		return id, false
	}
	_, err := hex.Decode(id[:], []byte(name))
	return id, err == nil && id.String() == name // lower case
}

// sweepScratch removes the scratch files that a process left which was killed.
func (s *Store) sweepScratch() error {
	return s.eachIncomingEntry(context.Background(), func(name string) error {
		key, ok := strings.CutSuffix(name, scratchSuffix)
		if !ok || !isKey(key) {
			return nil
		}
		return s.remove(inFolder(name))
	})
}
