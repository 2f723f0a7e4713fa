package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"sealift/internal/infofile"
)

// takingFolder is where files are, below the folder that they are taken to, until they
// are the taker's alone.
const takingFolder = ".taking"

// outlet is a folder that files are taken to. One command at a time has it. Folders are
// entered one element of a path at a time and through no symbolic link, so nothing that
// others put below it leads elsewhere.
type outlet struct {
	path   string   // absolute
	root   *os.Root // the folder
	taking *os.Root // takingFolder in it
	lock   *os.File
}

// openOutlet opens the folder to for files of the server in dir, and waits for nobody.
func openOutlet(dir, to string) (_ *outlet, err error) {
	if err := checkOutlet(dir, to); err != nil {
		return nil, err
	}
	o := new(outlet)
	defer func() {
		if err != nil {
			o.close()
		}
	}()
	if o.path, err = filepath.Abs(to); err != nil {
		return nil, err
	}
	if o.root, err = os.OpenRoot(o.path); err != nil {
		return nil, err
	}
	if err = o.root.Mkdir(takingFolder, 0o700); err == nil || errors.Is(err, fs.ErrExist) {
		err = syncRoot(o.root) // a command that was killed may have made it a moment ago
	}
	if err != nil {
		return nil, fmt.Errorf("--to %s cannot take files: %w", to, err)
	}
	if o.taking, err = enter(o.root, takingFolder); err != nil {
		return nil, o.named(err)
	}
	if err = o.checkOwner(); err != nil {
		return nil, err
	}
	if o.lock, err = o.taking.OpenFile("lock", os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, fmt.Errorf("--to %s cannot take files: %w", to, err)
	}
	err = infofile.TryLock(o.lock)
	if errors.Is(err, infofile.ErrBusy) {
		return nil, &Hinted{
			Err:  fmt.Errorf("--to %s: another command takes files there (%w)", to, err),
			Hint: "Run this again when it is done, or take files to another folder.",
		}
	}
	if err != nil {
		return nil, fmt.Errorf("--to %s cannot be locked: %w", to, err)
	}
	return o, nil
}

// checkOutlet returns an error that says what to do unless files of the server in dir can
// be taken to the folder to.
func checkOutlet(dir, to string) error {
	if to == "" {
		return errors.New("--to is not set: want the folder to take files to")
	}
	info, err := os.Stat(to)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &Hinted{Err: fmt.Errorf("--to %s does not exist", to), Hint: "Is the right disk mounted? To begin with an empty folder: mkdir -p " + to}
	case err != nil:
		return fmt.Errorf("--to %s: %w", to, err)
	case !info.IsDir():
		return fmt.Errorf("--to %s: want a folder, this is a file", to)
	}
	at, err := filepath.Abs(to)
	if err == nil {
		at, err = filepath.EvalSymlinks(at)
	}
	if err != nil {
		return err
	}
	if own, err := os.Stat(dir); err == nil && os.SameFile(own, info) {
		return fmt.Errorf("--to %s is the server's directory: want a folder of its own, which may be in it", to)
	}
	if _, err := os.Lstat(filepath.Join(at, ".incoming")); err == nil {
		return fmt.Errorf("--to %s is where a server keeps its files: want a folder elsewhere", to)
	}
	for _, name := range []string{"files", pairFolder} {
		inner, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			continue
		}
		for p := at; ; p = filepath.Dir(p) {
			if info, err := os.Stat(p); err == nil && os.SameFile(inner, info) {
				return fmt.Errorf("--to %s is in %s, where the server would take it for its own: want a folder elsewhere", to, filepath.Join(dir, name))
			}
			if p == filepath.Dir(p) {
				break
			}
		}
	}
	return nil
}

func (o *outlet) close() {
	for _, r := range []*os.Root{o.root, o.taking} {
		if r != nil {
			_ = r.Close()
		}
	}
	if o.lock != nil {
		_ = o.lock.Close() // last: this releases the lock
	}
}

// is reports whether the outlet is the folder at a path.
func (o *outlet) is(path string) bool {
	own, err := o.root.Stat(".")
	if err != nil {
		return false
	}
	other, err := os.Stat(path)
	return err == nil && os.SameFile(own, other)
}

// named says in which outlet an error is.
func (o *outlet) named(err error) error { return fmt.Errorf("--to %s: %w", o.path, err) }

// errLink is a link where a folder should be.
var errLink = errors.New("want a folder, this is a link or a file")

// enter opens the folder name, one element, below at, and follows no link.
func enter(at *os.Root, name string) (*os.Root, error) {
	before, err := at.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !before.IsDir() {
		return nil, &fs.PathError{Op: "enter", Path: name, Err: errLink}
	}
	in, err := at.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	// Somebody may have put a link there in between.
	if found, err := in.Stat("."); err != nil || !os.SameFile(before, found) {
		_ = in.Close()
		return nil, errors.Join(err, &fs.PathError{Op: "enter", Path: name, Err: errLink})
	}
	return in, nil
}

// descend opens the folder at a path below at, "." is at itself. With above, it makes the
// folders that are missing, and calls above with the path of each one on the way: also
// where none was missing, since a command that was killed may have made the next one
// without a sync.
func descend(at *os.Root, folder string, above func(folder string)) (*os.Root, error) {
	in, err := at.OpenRoot(".")
	if err != nil || folder == "." {
		return in, err
	}
	whole := "."
	for name := range strings.SplitSeq(folder, "/") {
		if above != nil {
			if err := in.Mkdir(name, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
				_ = in.Close()
				return nil, err
			}
			above(whole)
		}
		next, err := enter(in, name)
		_ = in.Close()
		if err != nil {
			return nil, err
		}
		in, whole = next, path.Join(whole, name)
	}
	return in, nil
}

// inTheWayError is something that is where a file, or a folder for it, is to go.
type inTheWayError struct{ path string }

func (e *inTheWayError) Error() string {
	return fmt.Sprintf("%s is in the way; carry it away, then take files again", e.path)
}

// free returns an *inTheWayError unless there can be a file at a path below the outlet, and
// is none.
func (o *outlet) free(at string) error {
	in, err := o.root.OpenRoot(".")
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	elements := strings.Split(at, "/")
	for i, name := range elements {
		switch found, err := in.Lstat(name); {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return o.named(err)
		case i == len(elements)-1 || !found.IsDir():
			return &inTheWayError{o.join(path.Join(elements[:i+1]...))}
		}
		next, err := enter(in, name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // carried away
		}
		if err != nil {
			return o.named(err)
		}
		_ = in.Close()
		in = next
	}
	return nil
}

// join is a path below the outlet as the system has it.
func (o *outlet) join(at string) string { return filepath.Join(o.path, filepath.FromSlash(at)) }

// publishTries is how often publish makes the folder of a file, if somebody who carries
// files away removes it each time.
const publishTries = 10

// publish moves the file at a path below taking to a path below the outlet, which must be
// free. It calls changed with each folder of the outlet that is to be synced.
func (o *outlet) publish(from, to string, changed func(folder string)) error {
	source, err := descend(o.taking, path.Dir(from), nil)
	if err != nil {
		return err
	}
	defer source.Close()
	for try := 1; ; try++ {
		var target *os.Root
		if target, err = descend(o.root, path.Dir(to), changed); err == nil {
			err = renameNew(move{
				top: o.root, from: path.Join(takingFolder, from), to: to,
				source: source, target: target,
			})
			_ = target.Close()
		}
		switch {
		case err == nil:
			changed(path.Dir(to))
			return nil
		case errors.Is(err, fs.ErrExist) || errors.Is(err, errLink):
			if way := o.free(to); way != nil {
				return way
			}
		case !errors.Is(err, fs.ErrNotExist):
			return o.named(err)
		}
		if try == publishTries {
			return o.named(err)
		}
	}
}

// sync makes the entries of a folder below the outlet durable. That is no error if it was
// carried away.
func (o *outlet) sync(folder string) error {
	in, err := descend(o.root, folder, nil)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errLink) {
		return nil
	}
	if err != nil {
		return o.named(err)
	}
	defer in.Close()
	if err := syncRoot(in); err != nil {
		return o.named(err)
	}
	return nil
}

// move is a file to be moved below a folder: the paths of both ends below top, and their
// open folders.
type move struct {
	top            *os.Root
	from, to       string
	source, target *os.Root
}

// renameByPath is renameNew where the system cannot do it in one step. Between the two, no
// other taker is at work: the outlet is locked.
func renameByPath(m move) error {
	if _, err := m.target.Lstat(path.Base(m.to)); err == nil {
		return fs.ErrExist
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return m.top.Rename(m.from, m.to)
}
