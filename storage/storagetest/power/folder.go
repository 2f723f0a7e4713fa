package power

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"sealift/storage/files"
)

// ErrSync is what a sync fails with.
var ErrSync = errors.New("input/output error, as the test wants it")

// Folder watches what a files.Store does to its disk. The zero Fail and Step do
// nothing.
type Folder struct {
	Fail func() bool // asked at each sync whether it fails
	Step func()      // called before and after each step

	dir string // the one that was given to files.Open

	mu      sync.Mutex
	content map[string]state  // of files whose content is not known to be durable, by path
	begun   map[string][]byte // of files that were synced and written again: what is durable, from their beginning on
	entries []*entry          // changes of folders that are not durable, oldest first
}

// state says what the disk has of a file's content.
type state uint8

const (
	unsynced state = iota + 1
	lost           // a sync has failed, and later ones know nothing of that
)

// entry is a change of a folder: something was made, renamed, or removed.
type entry struct {
	files.Step
	before []byte // the file that was there: at Path, of a Remove, or at To, of a Rename
	was    bool   // there was one
	lost   bool   // a sync of the folder has failed since

	// Of a Rename: the folder that it took something from was synced since, so the old
	// name is gone for good, or such a sync has failed.
	left, leftLost bool
}

// name is what changed in its folder, which has to be synced for the change to be
// durable.
func (e *entry) name() string {
	if e.Op == files.Rename {
		return e.To
	}
	return e.Path
}

func (e *entry) folder() string { return path.Dir(e.name()) }

// takesFrom reports whether e moves something out of a folder. In another one it comes
// to be by a sync of that.
func (e *entry) takesFrom(folder string) bool {
	return e.Op == files.Rename && path.Dir(e.Path) == folder
}

// WatchFolder watches a store in dir that is opened with Faults.
func WatchFolder(dir string) *Folder {
	return &Folder{dir: dir, content: make(map[string]state), begun: make(map[string][]byte)}
}

// Faults are for files.Options.
func (f *Folder) Faults() *files.Faults { return &files.Faults{Before: f.before, After: f.after} }

func (f *Folder) before(s files.Step) error {
	if f.Step != nil {
		f.Step()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch s.Op {
	case files.Write:
		_, open := f.content[s.Path]
		if _, ok := f.begun[s.Path]; !open && !ok { // all of it is durable: it was there before
			f.begun[s.Path], _ = os.ReadFile(filepath.Join(f.dir, filepath.FromSlash(s.Path)))
		}
	case files.SyncFile:
		if f.fails() {
			f.content[s.Path] = lost
			return ErrSync
		}
	case files.SyncFolder:
		if f.fails() {
			for _, e := range f.entries {
				e.lost = e.lost || e.folder() == s.Path
				e.leftLost = e.leftLost || e.takesFrom(s.Path)
			}
			return ErrSync
		}
	case files.Remove, files.Rename:
		at := s.Path
		if s.Op == files.Rename {
			at = s.To
		}
		e := &entry{Step: s}
		var err error
		e.before, err = os.ReadFile(filepath.Join(f.dir, filepath.FromSlash(at)))
		e.was = err == nil
		f.entries = append(f.entries, e)
	}
	return nil
}

func (f *Folder) fails() bool { return f.Fail != nil && f.Fail() }

func (f *Folder) after(s files.Step, err error) error {
	f.mu.Lock()
	f.took(s, err)
	f.mu.Unlock()
	if f.Step != nil {
		f.Step()
	}
	return err
}

func (f *Folder) took(s files.Step, err error) {
	switch s.Op {
	case files.Create, files.Mkdir:
		if err == nil {
			f.entries = append(f.entries, &entry{Step: s})
		}
		if s.Op == files.Create {
			f.content[s.Path] = unsynced
		}
	case files.Write:
		if f.content[s.Path] != lost {
			f.content[s.Path] = unsynced
		}
		f.shorten(s.Path)
	case files.SyncFile:
		if err == nil && f.content[s.Path] == unsynced {
			delete(f.content, s.Path)
		}
		if err == nil && f.content[s.Path] != lost {
			f.begun[s.Path], _ = os.ReadFile(filepath.Join(f.dir, filepath.FromSlash(s.Path)))
		}
	case files.SyncFolder:
		if err == nil {
			f.flush(s.Path)
		}
	case files.Remove:
		if err != nil {
			f.entries = f.entries[:len(f.entries)-1]
			return
		}
		delete(f.content, s.Path)
		delete(f.begun, s.Path)
	case files.Rename:
		if err != nil {
			f.entries = f.entries[:len(f.entries)-1]
			return
		}
		delete(f.begun, s.Path)
		delete(f.begun, s.To)
		if c, ok := f.content[s.Path]; ok {
			f.content[s.To] = c
			delete(f.content, s.Path)
		} else {
			delete(f.content, s.To)
		}
	}
}

// shorten notes that a file may have been cut below what is durable of it.
func (f *Folder) shorten(name string) {
	info, err := os.Stat(filepath.Join(f.dir, filepath.FromSlash(name)))
	if b, ok := f.begun[name]; ok && err == nil && info.Size() < int64(len(b)) {
		f.begun[name] = b[:info.Size()]
	}
}

// flush makes the changes of a folder durable, but for those that a sync has lost
// and that no later change of the same name has replaced.
func (f *Folder) flush(folder string) {
	newest := make(map[string]bool) // whether the name's newest change was lost
	for _, e := range f.entries {
		newest[e.name()] = e.lost
	}
	removed := make(map[string]bool) // folders that are gone for good, with all that was in them
	kept := f.entries[:0]
	for _, e := range f.entries {
		e.left = e.left || e.takesFrom(folder) && !e.leftLost
		if e.folder() != folder || newest[e.name()] {
			kept = append(kept, e)
		} else if e.Op == files.Remove && !e.was {
			removed[e.Path] = true
		}
	}
	f.entries = slices.DeleteFunc(kept, func(e *entry) bool { return removed[e.folder()] })
	for _, e := range f.entries {
		e.left = e.left || removed[path.Dir(e.Path)]
	}
}

// Kill copies the folder to the empty folder to, as it is after the process was
// killed, and watches it there: what was not durable still is not.
func (f *Folder) Kill(to string) (*Folder, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := &Folder{dir: to, content: f.content, begun: f.begun, entries: f.entries}
	return g, copyFolder(filepath.Join(f.dir, "files"), filepath.Join(to, "files"))
}

// Cut copies the folder to the empty folder to, as the disk may have it after a
// power cut, and watches it there. What was not durable is there or not, and
// content in any state.
func (f *Folder) Cut(to string, rnd *rand.Rand) (*Folder, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := copyFolder(filepath.Join(f.dir, "files"), filepath.Join(to, "files")); err != nil {
		return nil, err
	}
	for name := range f.content {
		if err := damage(filepath.Join(to, filepath.FromSlash(name)), f.begun[name], rnd); err != nil {
			return nil, err
		}
	}
	for i := len(f.entries) - 1; i >= 0; i-- {
		if rnd.IntN(2) == 0 {
			if err := f.entries[i].undo(to); err != nil {
				return nil, err
			}
		}
	}
	if err := os.MkdirAll(filepath.Join(to, "files"), 0o700); err != nil {
		return nil, err
	}
	return WatchFolder(to), nil
}

// copyFolder copies a folder with all that is in it to to.
func copyFolder(from, to string) error {
	return filepath.WalkDir(from, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(from, name)
		at := filepath.Join(to, rel)
		switch {
		case e.IsDir():
			if err := os.Mkdir(at, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
			return nil
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(at, b, 0o600)
	})
}

// undo makes the change not to have happened.
func (e *entry) undo(dir string) error {
	at := filepath.Join(dir, filepath.FromSlash(e.Path))
	switch e.Op {
	case files.Create, files.Mkdir:
		return os.RemoveAll(at)
	case files.Remove:
		if !e.was { // it was a folder
			_ = os.Mkdir(at, 0o700)
			return nil
		}
		return put(at, e.before)
	}
	to := filepath.Join(dir, filepath.FromSlash(e.To))
	b, err := os.ReadFile(to)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // its folder went
	}
	if err != nil {
		return err
	}
	if !e.left {
		if err := put(at, b); err != nil {
			return err
		}
	}
	if !e.was {
		return os.Remove(to)
	}
	return put(to, e.before)
}

// put makes a file, if its folder is there.
func put(name string, b []byte) error {
	err := os.WriteFile(name, b, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// damage leaves of a file what a disk may have that was not told to write it, but for what
// it begins with.
func damage(name string, begun []byte, rnd *rand.Rand) error {
	b, err := os.ReadFile(name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	switch rnd.IntN(4) {
	case 0: // all of it
		return nil
	case 1:
		b = b[:rnd.IntN(len(b)+1)]
	case 2:
		clear(b[rnd.IntN(len(b)+1):])
	case 3:
		b = []byte(strings.Repeat("?", len(b)))
	}
	b = append(b, make([]byte, max(0, len(begun)-len(b)))...)
	copy(b, begun)
	return os.WriteFile(name, b, 0o600)
}
