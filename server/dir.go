package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// checkDir returns an error that says what to do unless dir is a folder. It makes
// none: a path that is not there is the place of a disk that is not mounted as
// often as a server's first start, and an empty server rejects all clients.
func checkDir(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		return fmt.Errorf("--dir %s: want a folder, this is a file", dir)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("--dir %s: %w", dir, err)
	}
	if to, err := os.Readlink(dir); err == nil {
		return &Hinted{
			Err:  fmt.Errorf("--dir %s is a link to %s, which does not exist", dir, to),
			Hint: "Is the right disk mounted?",
		}
	}
	return &Hinted{
		Err:  fmt.Errorf("--dir %s does not exist", dir),
		Hint: fmt.Sprintf("Is the right disk mounted? To begin a new server there: mkdir -p -m 700 %s", dir),
	}
}
