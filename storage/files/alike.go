package files

import (
	"strings"
	"unicode"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"sealift/storage"
)

// Folding says which names a disk takes for one. The zero value is a disk that
// tells all names apart.
type Folding struct {
	Case  bool // "Docs" and "docs" are one
	Forms bool // an accented letter is one with the letter and its accent
}

// fold returns what two paths have in common that the disk may take for one.
// Disks differ in what they fold. So this folds all that any of them does: with
// Case, also the characters that nobody sees, which HFS+ and ext4 pass over, and
// the letters that become two in lower case. What is told apart here, is on the
// disk.
func (f Folding) fold(path string) string {
	if f.Forms {
		path = norm.NFD.String(path)
	}
	if f.Case {
		path = cases.Fold().String(strings.Map(visible, path))
	}
	if f.Forms {
		path = norm.NFD.String(path)
	}
	return path
}

func visible(r rune) rune {
	if unicode.In(r, unicode.Cf, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point) {
		return -1
	}
	return r
}

// Keeping implements storage.Files.
func (s *Store) Keeping() storage.Keeping { return storage.Keeping{} }

// Folds implements storage.Files.
func (s *Store) Folds() func(path string) string {
	if s.folding == (Folding{}) {
		return nil
	}
	return s.folding.fold
}
