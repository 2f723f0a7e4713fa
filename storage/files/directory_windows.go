package files

import (
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// directory is an open folder. Its methods take names, which are single elements
// of a path, and follow no symbolic link. Any goroutine may use one until it is
// closed.
type directory struct{ root *os.Root }

// entry is what a name in a folder stands for.
type entry struct {
	mode fs.FileMode
	size int64 // bytes
	info fs.FileInfo
}

// same reports whether both are one file.
func (e entry) same(other entry) bool { return os.SameFile(e.info, other.info) }

func newEntry(info fs.FileInfo, err error) (entry, error) {
	if err != nil {
		return entry{}, err
	}
	return entry{info.Mode(), info.Size(), info}, nil
}

// openDirectory opens the folder at a path, through symbolic links.
func openDirectory(path string) (*directory, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	return &directory{root}, nil
}

// enter opens the folder name. ErrObstructed if something else has that name.
func (d *directory) enter(name string) (*directory, error) {
	e, err := d.look(name)
	if err != nil {
		return nil, err
	}
	if !e.mode.IsDir() {
		return nil, obstructed(name, e.mode)
	}
	root, err := d.root.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	return &directory{root}, nil
}

// self opens the folder once more, to read it.
func (d *directory) self() (*os.File, error) { return d.root.Open(".") }

// open opens a file, with the flags of [os.OpenFile].
func (d *directory) open(name string, flag int, perm fs.FileMode) (*os.File, error) {
	return d.root.OpenFile(name, flag, perm)
}

// look says what stands at a name, or at a path whose folders are known to be no symbolic links.
func (d *directory) look(name string) (entry, error) {
	if name == "." { // Lstat does not say which folder it is
		f, err := d.self()
		if err != nil {
			return entry{}, err
		}
		defer f.Close()
		return newEntry(f.Stat())
	}
	return newEntry(d.root.Lstat(name))
}

// lookAtPath says what is at a path, through symbolic links.
func lookAtPath(path string) (entry, error) { return newEntry(os.Stat(path)) }

func (d *directory) mkdir(name string, perm fs.FileMode) error { return d.root.Mkdir(name, perm) }

// remove removes a file.
func (d *directory) remove(name string) error { return d.root.Remove(name) }

// rmdir removes an empty folder, and nothing but a folder.
func (d *directory) rmdir(name string) error {
	e, err := d.look(name)
	if err != nil {
		return err
	}
	if !e.mode.IsDir() {
		return &os.PathError{Op: "rmdir", Path: name, Err: windows.ERROR_DIRECTORY}
	}
	return d.root.Remove(name)
}

func (d *directory) close() { _ = d.root.Close() }

// rename moves a file to a place that may be taken already. It goes by the paths,
// below root.
func rename(root *os.Root, from, to location) error {
	return root.Rename(from.path(), to.path())
}
