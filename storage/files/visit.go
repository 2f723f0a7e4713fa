package files

import (
	"context"
	"errors"
	"io"
	"io/fs"
)

// readDir is how many entries of a folder are read at once.
const readDir = 256

// walk goes through the folders below root, and into no symbolic link. Whatever
// the depth and the number of folders, it holds one descriptor while it calls a
// function, and at most three between. Its memory is that of the names of the
// folders that it has seen and not entered yet.
type walk struct {
	root *directory
	// into says whether to enter the folder at a path below root.
	into func(path string) bool
	// found is called with everything that is no folder. An error ends the walk.
	found func(path string, e fs.DirEntry) error
	// left, if not nil, is called with each folder in which nothing is left, after
	// all below it. It reports whether it removed the folder.
	left func(path string) bool

	waiting []*visit   // the last one is next
	open    *directory // the folder of the last visit, if it is still open
	at      *visit
}

// visit is a folder that is or will be visited.
type visit struct {
	above   *visit // nil for root
	name    string
	entered bool
	full    bool // something stays in it
}

func (v *visit) path() string {
	if v.above == nil {
		return ""
	}
	return join(v.above.path(), v.name)
}

func (w *walk) run(ctx context.Context) error {
	defer w.close()
	w.waiting = append(w.waiting, new(visit))
	for len(w.waiting) > 0 {
		v := w.waiting[len(w.waiting)-1]
		if v.entered {
			w.waiting = w.waiting[:len(w.waiting)-1]
			w.leave(v)
			continue
		}
		v.entered = true
		if w.left == nil {
			w.waiting = w.waiting[:len(w.waiting)-1]
		}
		err := w.enter(v)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrObstructed) {
			continue // changed since it was listed
		}
		if err != nil {
			return err
		}
		if err := w.list(ctx, v); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) close() {
	if w.open != nil {
		w.open.close()
		w.open = nil
	}
}

// leave ends the visit of a folder after all those below it.
func (w *walk) leave(v *visit) {
	w.close()
	if v.above == nil {
		return
	}
	if v.full || !w.left(v.path()) {
		v.above.full = true
	}
}

// enter opens the folder of v: from the one that is open if it is in there,
// otherwise from root, one element at a time.
func (w *walk) enter(v *visit) error {
	var below []string
	from := v
	for ; from.above != nil && (w.open == nil || from != w.at); from = from.above {
		below = append(below, from.name)
	}
	if from.above == nil {
		w.close()
		root, err := w.root.enter(".")
		if err != nil {
			return err
		}
		w.open = root
	}
	for i := len(below) - 1; i >= 0; i-- {
		next, err := w.open.enter(below[i])
		w.close()
		if err != nil {
			return err
		}
		w.open = next
	}
	w.at = v
	return nil
}

// list goes through the entries of the folder that is open.
func (w *walk) list(ctx context.Context, v *visit) error {
	f, err := w.open.self()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed since it was entered
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	here := v.path()
	entries, err := f.ReadDir(readDir)
	for err == nil {
		var next []fs.DirEntry
		next, err = f.ReadDir(readDir)
		if err == io.EOF {
			_ = f.Close() // the folder stays open, for those below it
		} else {
			w.close()
		}
		for _, e := range entries {
			if err := w.entry(ctx, v, join(here, e.Name()), e); err != nil {
				return err
			}
		}
		entries = next
	}
	if err == io.EOF {
		return nil
	}
	return err
}

func (w *walk) entry(ctx context.Context, v *visit, path string, e fs.DirEntry) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if e.IsDir() {
		if w.into(path) {
			w.waiting = append(w.waiting, &visit{above: v, name: e.Name()})
		} else {
			v.full = true
		}
		return nil
	}
	v.full = true
	return w.found(path, e)
}
