package files

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// fold makes the same of what some disk takes for one, and keeps the rest apart.
func TestFold(t *testing.T) {
	letterCase, forms := Folding{Case: true}, Folding{Forms: true}
	both := Folding{Case: true, Forms: true}
	for _, tt := range []struct {
		f    Folding
		a, b string
		same bool
	}{
		{letterCase, "Docs/A.txt", "docs/a.TXT", true},
		{letterCase, "docs/a", "docs/b", false},
		{letterCase, "\u00c9", "\u00e9", true},
		{letterCase, "\u00e9", "e\u0301", false},
		{letterCase, "stra\u00dfe", "STRASSE", true},
		{letterCase, "\u03a3", "\u03c2", true}, // the sigma at the end of a word
		{letterCase, "a\u200db", "ab", true},   // HFS+ and ext4 pass over what is not seen
		{letterCase, "a/b", "ab", false},
		{forms, "\u00e9", "e\u0301", true},
		{forms, "\ud55c", "\u1112\u1161\u11ab", true}, // Hangul
		{forms, "\u212b", "\u00c5", true},             // the sign of Angstrom
		{forms, "A", "a", false},
		{forms, "\ufb01", "fi", false}, // a ligature is compatible, not the same
		{both, "R\u00c9SUM\u00c9", "re\u0301sume\u0301", true},
		{both, "\u1fb3", "\u0391\u0399", true}, // folded it is two letters
		{both, "a", "\u00e4", false},
	} {
		if got := tt.f.fold(tt.a) == tt.f.fold(tt.b); got != tt.same {
			t.Errorf("%+v: %q and %q are the same: %v, want %v", tt.f, tt.a, tt.b, got, tt.same)
		}
	}
}

// The probe finds what this disk does, leaves nothing behind, and is not held up
// by what one before it left.
func TestProbe(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, "files", probeFolder)
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Probe", "\u00e9", "pROBE"} {
		if err := os.WriteFile(filepath.Join(left, name), nil, 0o400); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, dir, Options{})
	if _, err := os.Lstat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the probe's folder: %v, want it removed", err)
	}
	tells := func(one, other string) bool {
		if err := os.WriteFile(filepath.Join(dir, one), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := os.Lstat(filepath.Join(dir, other))
		return errors.Is(err, fs.ErrNotExist)
	}
	if want := (Folding{Case: !tells("Upper", "uPPER"), Forms: !tells("\u00e9", "e\u0301")}); s.folding != want {
		t.Errorf("the probe says %+v, want %+v", s.folding, want)
	}
	// The guess may miss that forms are the same; it does not make it up.
	if got := s.guess(); got.Case != s.folding.Case || got.Forms && !s.folding.Forms {
		t.Errorf("without room for a probe: %+v, want %+v", got, s.folding)
	}
	if (s.Folds() == nil) != (s.folding == Folding{}) {
		t.Error("Folds is nil, and the disk folds, or the other way round")
	}
	if s := open(t, t.TempDir(), Options{Folding: &Folding{Case: true}}); s.Folds() == nil || s.Folds()("A") != s.Folds()("a") {
		t.Error("Options.Folding is not what Folds goes by")
	}
}

// On Windows some names mean something else than a file of that name.
func TestNamesOfWindows(t *testing.T) {
	for _, path := range []string{"a", "a/b.txt", ".a", "concert", "com/x", "COM10", "lpt", "null", "a b", "nul_"} {
		if !onWindows(path) {
			t.Errorf("%q is refused", path)
		}
	}
	for _, path := range []string{
		"b:x", "C:", "a/b:stream", "NUL", "nul", "a/NUL.txt", "con.tar.gz", "CON .txt", "aux/x", "COM1", "com\u00b9.log", "LPT9",
		"CONIN$", "a.", "a ", "a./b", "a /b", "...", `a"b`, "a<b", "a>b", "a|b", "a?b", "a*b",
	} {
		if onWindows(path) {
			t.Errorf("%q is taken", path)
		}
	}
}
