package files

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"

	"sealift/codec"
)

// readDir is how many entries of a directory are read at once.
const readDir = 256

// EachIncoming calls yield with the key of each incoming file, until it returns
// an error, which EachIncoming then returns. yield may discard files.
func (s *Store) EachIncoming(ctx context.Context, yield func(key string) error) error {
	if s.incoming == nil {
		return errReadOnly
	}
	return s.eachIncomingEntry(ctx, func(name string) error {
		if !isKey(name) {
			return nil
		}
		return yield(name)
	})
}

// eachIncomingEntry yields the names of what is in the folders of incoming
// files.
func (s *Store) eachIncomingEntry(ctx context.Context, yield func(name string) error) error {
	return eachEntry(ctx, s.incoming, func(e fs.DirEntry) error {
		if !e.IsDir() || len(e.Name()) != 2 {
			return nil // not one of inFolder
		}
		folder, err := enter(s.incoming, e.Name())
		if err != nil {
			return err
		}
		defer folder.Close()
		return eachEntry(ctx, folder, func(file fs.DirEntry) error {
			if !strings.HasPrefix(file.Name(), e.Name()) {
				return nil // it is not where a key leads
			}
			return yield(file.Name())
		})
	})
}

// EachStored calls yield with each file in a client's folder, in no order, until
// it returns an error, which EachStored then returns. What is neither a folder
// nor a regular file is passed over, as is what is in no client's folder.
func (s *Store) EachStored(ctx context.Context, yield func(id codec.ClientID, path string) error) error {
	return eachEntry(ctx, s.root, func(e fs.DirEntry) error {
		id, ok := clientID(e.Name())
		if !ok || !e.IsDir() {
			return nil
		}
		return s.walk(ctx, s.root, e.Name(), "", func(path string) error { return yield(id, path) })
	})
}

// Has implements session.Files.
func (s *Store) Has(ctx context.Context, id codec.ClientID) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	folder, err := enter(s.root, id.String())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer folder.Close()
	f, err := folder.Open(".")
	if err != nil {
		return false, err
	}
	defer f.Close()
	if _, err := f.ReadDir(1); err != io.EOF {
		return err == nil, err
	}
	return false, nil
}

// walk yields the files below the folder name of dir; path is the folder's own,
// with a slash at its end unless it is empty.
func (s *Store) walk(ctx context.Context, dir *os.Root, name, path string, yield func(path string) error) error {
	below, err := enter(dir, name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrObstructed) {
		return nil // changed since it was listed
	}
	if err != nil {
		return err
	}
	defer below.Close()
	return eachEntry(ctx, below, func(e fs.DirEntry) error {
		switch {
		case e.IsDir():
			return s.walk(ctx, below, e.Name(), path+e.Name()+"/", yield)
		case e.Type().IsRegular():
			return yield(path + e.Name())
		}
		return nil
	})
}

func eachEntry(ctx context.Context, dir *os.Root, yield func(fs.DirEntry) error) error {
	f, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		entries, err := f.ReadDir(readDir)
		for _, e := range entries {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := yield(e); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
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
		return s.incoming.Remove(inFolder(name))
	})
}
