package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"sealift/internal/infofile"
)

// movedName is the file in a server's directory that says where Migrate moves, or has moved, what
// was in it.
const movedName = "moved"

// moveState says how far that is.
type moveState string

const (
	moveBegun   moveState = "begun" // leads to moveSwaps, or with PostgreSQL to moveDone
	moveSwaps   moveState = "swaps" // the new database takes the place of the old one; leads to moveDone
	moveDone    moveState = "done"  // what was moved from here is out of date
	oldDatabase           = DatabaseName + ".before-move"
	newDatabase           = DatabaseName + ".moving"
)

// moved is what that file says.
type moved struct {
	State    moveState `json:"state"`
	ID       string    `json:"id"`                 // of the move
	Registry string    `json:"registry,omitempty"` // where the records are, without passwords; "": they stay
	Name     string    `json:"name,omitempty"`     // that the registry has given itself
	Files    string    `json:"files,omitempty"`    // where the files are; "": they stay
}

// readMoved reads that file. There is none if State is "", as where dir is no folder: what is
// wrong with that, checkDir says.
func readMoved(dir string) (m moved, err error) {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return m, nil
	}
	text, err := os.ReadFile(filepath.Join(dir, movedName))
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil {
		return m, fmt.Errorf("%s: %w", filepath.Join(dir, movedName), err)
	}
	return m, nil
}

func (m *moved) write(dir string) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return infofile.Replace(filepath.Join(dir, movedName), append(text, '\n'), 0o600)
}

// to says where the directory is moved to.
func (m *moved) to() string {
	switch {
	case m.Files == "":
		return m.Registry
	case m.Registry == "":
		return m.Files
	}
	return m.Registry + " and " + m.Files
}

// flags are those of a server that goes on with what was moved.
func (m *moved) flags() (s string) {
	if m.Registry != "" {
		s += " --registry '" + m.Registry + "'"
	}
	if m.Files != "" {
		s += " --files '" + m.Files + "'"
	}
	return s
}

// checkMoved returns an error that says how to go on if a server, or a command that changes
// something, must not have what is in dir: the database, the files or both.
func checkMoved(dir string, database, folder bool) error {
	if !database && !folder {
		return nil
	}
	m, err := readMoved(dir)
	if err != nil || m.State == "" {
		return err
	}
	if m.State != moveDone {
		return &Hinted{
			Err:  fmt.Errorf("%s is being moved to %s, and that has not come to its end", dir, m.to()),
			Hint: fmt.Sprintf("Run sealiftd migrate again as before: it goes on. To stay with the directory, remove %s, and what was copied.", filepath.Join(dir, movedName)),
		}
	}
	return m.outOfDate(dir, database, folder)
}

// checkMovedToRead is checkMoved for commands that read: they may while the move is under way.
func checkMovedToRead(dir string, database, folder bool) error {
	m, err := readMoved(dir)
	if err != nil || m.State != moveDone {
		return err
	}
	return m.outOfDate(dir, database, folder)
}

func (m *moved) outOfDate(dir string, database, folder bool) error {
	if !(database && m.Registry != "") && !(folder && m.Files != "") {
		return nil
	}
	back := "remove " + filepath.Join(dir, movedName)
	if m.Registry == "" {
		back += fmt.Sprintf(", and put %s in the place of %s", oldDatabase, DatabaseName)
	}
	return &Hinted{
		Err: fmt.Errorf("%s was moved to %s: what is left here is out of date", dir, m.to()),
		Hint: fmt.Sprintf("Go on with%s (and the password, where it needs one). To go back to what was here before the move: %s.",
			m.flags(), back),
	}
}

// movedTo returns the name of the registry that the server in dir was moved to, "" if it was
// not.
func movedTo(dir string) string {
	m, err := readMoved(dir)
	if err != nil || m.State != moveDone {
		return ""
	}
	return m.Name
}
