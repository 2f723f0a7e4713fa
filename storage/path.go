package storage

import (
	"errors"
	"fmt"
	"strings"

	"sealift/codec"
)

// ErrPath is a file name that cannot be stored.
var ErrPath = errors.New("the file name is not a path below the client's folder")

// ErrAlike is a name that is not that of another file of the client, and is on the
// server's disk: the disk does not tell upper from lower case, or an accented
// letter from the letter and its accent. The file would take the other's place.
var ErrAlike = errors.New("the server's disk takes the name for that of another file")

// CleanPath makes a slash-separated path below a client's folder of the name
// that the client gave its file. Backslashes count as slashes; a drive letter
// (one letter, a colon and a slash) and leading slashes are dropped, as are "."
// and empty elements. A ".." removes the element before it, and where there is
// none it is dropped like a leading slash: so clients whose names are relative
// to a folder of their own are served, and no name leads out of the client's
// folder. Different names may have the same path. What CleanPath returns, it
// returns as it is. Names that [codec.CheckText] does not take, and names of
// which nothing is left, are refused with ErrPath.
func CleanPath(name string) (string, error) {
	if err := codec.CheckText(name); err != nil {
		return "", fmt.Errorf("%w: %w", ErrPath, err)
	}
	s := strings.ReplaceAll(name, `\`, "/")
	if len(s) >= 3 && codec.BeginsWithDrive(s) && s[2] == '/' {
		s = s[2:]
	}
	elements := codec.PathElements(s)
	for len(elements) > 1 && len(elements[0]) == 2 && codec.BeginsWithDrive(elements[0]) { // brought to the front by what was dropped
		elements = elements[1:]
	}
	if len(elements) == 0 {
		return "", ErrPath
	}
	return strings.Join(elements, "/"), nil
}
