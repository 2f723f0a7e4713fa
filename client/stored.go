package client

import (
	"errors"
	"fmt"
	"strings"

	"sealift/codec"
	"sealift/internal/printable"
)

// maxFolders is how many folders the name of a file may have: servers take no
// more (docs/PROTOCOL.md, 11).
const maxFolders = 16

// ErrSameName says that two files of a Run would be the same file on the server.
var ErrSameName = errors.New("the same name")

// storedName returns the path, below the client's folder, at which a server
// stores a file that is sent as name (docs/PROTOCOL.md, 4.4). A letter with a
// colon at the beginning is a drive, with or without a slash behind it: servers
// differ in that.
func storedName(name string) (string, error) {
	s := strings.ReplaceAll(name, `\`, "/")
	if codec.BeginsWithDrive(s) {
		s = s[2:]
	}
	elements := codec.PathElements(s)
	switch {
	case len(elements) == 0:
		return "", fmt.Errorf("file name %q: %w: nothing is left of it on the server", name, ErrName)
	case len(elements) > maxFolders+1:
		return "", fmt.Errorf("file name %q: %w: it has %d folders, at most %d are allowed", name, ErrName, len(elements)-1, maxFolders)
	}
	return strings.Join(elements, "/"), nil
}

// checkStored returns an error, an ErrName, unless a server stores a file that
// is sent as name under that very name.
func checkStored(name string) error {
	if err := CheckFileName(name); err != nil {
		return err
	}
	stored, err := storedName(name)
	if err == nil && stored != name {
		err = fmt.Errorf("file name %q: %w: servers may store it as %q", name, ErrName, stored)
	}
	return err
}

// sameName looks for two files that the server would store as one. i and j are
// their places in files; the error is an ErrSameName. One that a Run passes over
// is not sent, so each of several folders may have a me.info.
func sameName(files []File, o *Options) (i, j int, err error) {
	first := make(map[string]int, len(files))
	for j, f := range files {
		stored, err := storedName(f.name())
		if err != nil || f.err != nil {
			continue // it is not sent
		}
		i, twice := first[stored]
		if !twice || files[i].passedOver(o) {
			first[stored] = j
			continue
		}
		if f.passedOver(o) {
			continue
		}
		if files[i].Path == f.Path {
			return i, j, fmt.Errorf("%w: %s is given twice", ErrSameName, printable.Path(f.Path))
		}
		return i, j, fmt.Errorf("%w: %s and %s would both be stored as %q", ErrSameName, printable.Path(files[i].Path), printable.Path(f.Path), stored)
	}
	return 0, 0, nil
}
