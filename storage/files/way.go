package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"sealift/storage"
)

// standing is what stands at a path below files/.
type standing struct {
	mode   fs.FileMode // its type
	device uint64      // of its file system; 0 where the system does not say
	mount  bool        // something is mounted there
}

// mayHold returns why a Commit to place is known to fail, nil if nothing is known:
// ErrPath, or ErrObstructed with what is in the way. It looks at each folder on the
// way once, and opens none.
func (s *Store) mayHold(place storage.Place) error {
	if !storable(place.Path) {
		return storage.ErrPath
	}
	at := place.ID.String()
	for rest := place.Path; ; {
		found, err := s.lookAt(at)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case rest == "" && found.mode.IsRegular():
			return nil
		case rest == "" || !found.mode.IsDir():
			return fmt.Errorf("%w: %q is a %s", ErrObstructed, folder+"/"+at, kind(found.mode))
		case found.mount || found.device != s.device:
			return fmt.Errorf("%w: %q is another file system", ErrObstructed, folder+"/"+at)
		}
		var next string
		next, rest, _ = strings.Cut(rest, "/")
		at += "/" + next
	}
}

// storable reports whether path is one that CleanPath makes, and one that means
// on this system what it says.
func storable(path string) bool {
	clean, err := storage.CleanPath(path)
	return err == nil && clean == path && (runtime.GOOS != "windows" || onWindows(path))
}

// onWindows reports whether Windows has files of that path. There a colon begins
// the name of a stream within a file, a few names are those of devices, and a dot
// or a blank at the end of a name is dropped.
func onWindows(path string) bool {
	if strings.ContainsAny(path, `<>:"|?*`) {
		return false
	}
	for name := range strings.SplitSeq(path, "/") {
		if strings.HasSuffix(name, ".") || strings.HasSuffix(name, " ") {
			return false
		}
		base, _, _ := strings.Cut(name, ".")
		if isDevice(strings.ToUpper(strings.TrimRight(base, " "))) {
			return false
		}
	}
	return true
}

func isDevice(name string) bool {
	switch name {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$":
		return true
	}
	number, ok := strings.CutPrefix(name, "COM")
	if !ok {
		number, ok = strings.CutPrefix(name, "LPT")
	}
	return ok && len(number) > 0 && strings.Contains("0123456789\u00b9\u00b2\u00b3", number)
}

// look is lookAt where the system has no call of its own for that.
func look(root *os.Root, path string) (standing, error) {
	info, err := root.Lstat(path)
	if err != nil {
		return standing{}, err
	}
	return standing{mode: info.Mode().Type(), device: deviceOf(info)}, nil
}
