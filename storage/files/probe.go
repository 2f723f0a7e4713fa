package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
)

// probeFolder is below files/ for a moment when a Store is opened.
const probeFolder = ".probe"

// probe finds out what the disk makes of names and modes, with two files in a
// folder of its own. It removes that, and what a probe left that was killed.
func (s *Store) probe(o Options) (err error) {
	if err := s.root.RemoveAll(probeFolder); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.root.RemoveAll(probeFolder)) }()
	const file = probeFolder + "/Probe"
	err = s.root.Mkdir(probeFolder, s.dirMode)
	if err == nil {
		err = s.touch(file)
	}
	if err != nil {
		if lacksSpace(err) { // a server starts on a full disk, too
			s.folding = s.guess()
			return nil
		}
		return err
	}
	s.folding.Case = s.exists(probeFolder + "/pROBE")
	_ = s.touch(probeFolder + "/\u00e9") // a disk that has no such name does not take two for one
	s.folding.Forms = s.exists(probeFolder + "/e\u0301")
	if s.chmodFiles, err = s.tryMode(file, s.fileMode, o.FileMode != 0); err != nil {
		return err
	}
	s.chmodDirs, err = s.tryMode(probeFolder, s.dirMode, o.DirMode != 0)
	return err
}

// guess is for a disk that has no room for a probe: the lock file tells about
// case, and the system about forms.
func (s *Store) guess() Folding {
	return Folding{Case: s.exists(".LOCK"), Forms: runtime.GOOS == "darwin"}
}

func (s *Store) exists(name string) bool {
	_, err := s.root.Lstat(name)
	return err == nil
}

func (s *Store) touch(name string) error {
	f, err := s.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, s.fileMode)
	if err != nil {
		return err
	}
	return f.Close()
}

// tryMode reports whether what is made with a mode gets it only by a chmod: a
// umask takes some of it away. Where the disk has no such modes, as FAT, that is
// an error if somebody asked for this one.
func (s *Store) tryMode(name string, mode fs.FileMode, asked bool) (chmod bool, err error) {
	info, err := s.root.Lstat(name)
	if err != nil || info.Mode().Perm() == mode {
		return false, err
	}
	made := info.Mode().Perm()
	err = s.step(Chmod, s.below(name), "", func() error { return s.root.Chmod(name, mode|special(info)) })
	if err == nil {
		if info, err = s.root.Lstat(name); err != nil {
			return false, err
		}
		made = info.Mode().Perm()
	}
	switch {
	case made == mode:
		return true, nil
	case !asked:
		return false, nil
	case err == nil:
		err = fmt.Errorf("it made %04o of it", made)
	}
	return false, fmt.Errorf("the disk does not take the mode %04o for a %s: %w", mode, kind(info.Mode()), err)
}

// special is what a mode has besides permissions: a chmod would take it away, and
// a folder may have inherited it.
func special(info fs.FileInfo) fs.FileMode {
	return info.Mode() & (fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)
}
