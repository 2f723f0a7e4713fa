package files

import "time"

// Op is a kind of step that a Store takes on the disk.
type Op string

// The steps. Path says of what; of a Rename, To is the new path.
const (
	Create     Op = "create"      // an incoming or scratch file comes into being
	Write      Op = "write"       // content into such a file
	Reserve    Op = "reserve"     // blocks for such a file
	Flush      Op = "flush"       // the disk begins to write; nobody waits for it
	Await      Op = "await"       // what it began to write of such a file is waited for
	SyncFile   Op = "sync file"   // content is made durable
	Close      Op = "close"       // of such a file; on NFS it writes, and may fail
	SyncFolder Op = "sync folder" // the entries of a folder are made durable
	Mkdir      Op = "mkdir"
	Chmod      Op = "chmod" // of something that was just made
	Rename     Op = "rename"
	Remove     Op = "remove" // a file, or an empty folder
	Space      Op = "space"  // the file system is asked how much room is left
)

// Step is something that a Store does to the disk. Paths are relative to the
// directory that was given to Open, with slashes; "." is that directory.
type Step struct {
	Op       Op
	Path, To string
}

// Faults lets tests see each step and make it fail. Any of the functions may be
// nil; all are called by whichever goroutine takes the step.
type Faults struct {
	// Before is called before a step. The step is not taken if it returns an
	// error, which is then what came of it.
	Before func(Step) error
	// After is called after a step that was taken, with what came of it, and
	// returns what the Store is told.
	After func(Step, error) error
	// Free returns how many bytes are free, given how many really are.
	Free func(free int64) int64
}

// step takes a step on the disk. do must not be kept.
func (s *Store) step(op Op, path, to string, do func() error) error {
	if s.synced != nil && (op == SyncFile || op == SyncFolder) {
		began := time.Now()
		defer func() { s.synced(op, time.Since(began)) }()
	}
	f := s.faults
	if f == nil {
		return do()
	}
	step := Step{op, path, to}
	if f.Before != nil {
		if err := f.Before(step); err != nil {
			return err
		}
	}
	err := do()
	if f.After != nil {
		err = f.After(step, err)
	}
	return err
}

// below is the path of what lies below files/, for a Step.
func (s *Store) below(path string) string {
	switch {
	case s.faults == nil:
		return "" // nobody looks at it
	case path == "":
		return folder
	}
	return folder + "/" + path
}

func (s *Store) rename(from, to location) error {
	return s.step(Rename, s.below(from.path()), s.below(to.path()), func() error { return rename(s.root, from, to) })
}

// syncFolder makes the entries of dir durable, the folder at path below files/.
func (s *Store) syncFolder(dir *directory, path string) error {
	return s.step(SyncFolder, s.below(path), "", func() error { return syncDir(dir) })
}
