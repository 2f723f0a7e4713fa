package client

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// FolderOptions say what of a folder is sent.
type FolderOptions struct {
	// FollowLinks sends what symbolic links lead to. Otherwise they are passed
	// over.
	FollowLinks bool
	// Exclude has patterns of [path.Match] for what is not sent. One without a
	// slash is compared with the last element of a path, one with a slash with the
	// whole path below the folder; a slash at its beginning counts for that only,
	// and one at its end makes it a pattern for folders. With a folder goes all that
	// is in it.
	Exclude []string
	// PassedOver, if it is not nil, is told what is none to send, with the path and
	// why: links, pipes, sockets, devices. Not so what is excluded.
	PassedOver func(path, why string)
}

// Check returns an error where a pattern is malformed.
func (o *FolderOptions) Check() error {
	for _, p := range o.Exclude {
		if _, err := path.Match(p, ""); err != nil || strings.Trim(p, "/") == "" {
			return fmt.Errorf("pattern %q: want one of the shell, such as *.tmp or build/", p)
		}
	}
	return nil
}

// FolderFiles returns the files in the folder dir and all folders in it, in the
// order of their names. They are sent under their paths below dir, with slashes.
// What cannot be read, such as a folder without permission, is among them: a Run
// tells its error, as that of a file. The error is about the patterns or ctx.
func FolderFiles(ctx context.Context, dir string, o FolderOptions) ([]File, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	w := &walk{ctx: ctx, o: o, prefix: len(dir)}
	if !strings.HasSuffix(filepath.ToSlash(dir), "/") {
		w.prefix++
	}
	info, err := within(ctx, func() (fs.FileInfo, error) { return os.Stat(dir) }, nil)
	var entries []fs.DirEntry
	if err == nil {
		entries, err = w.read(dir)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		w.files = append(w.files, File{Path: dir, err: err})
	}
	if err := w.folder(dir, entries, []fs.FileInfo{info}); err != nil {
		return nil, err
	}
	return w.files, nil
}

// walk is a FolderFiles under way.
type walk struct {
	ctx    context.Context
	o      FolderOptions
	prefix int // bytes of a path that are not the name
	files  []File
}

func (w *walk) read(dir string) ([]fs.DirEntry, error) {
	return within(w.ctx, func() ([]fs.DirEntry, error) { return os.ReadDir(dir) }, nil)
}

// folder takes what is in the folder at dir. above are that folder and those
// that it lies in.
func (w *walk) folder(dir string, entries []fs.DirEntry, above []fs.FileInfo) error {
	for _, e := range entries {
		p := join(dir, e.Name())
		mode := e.Type()
		var info fs.FileInfo
		if mode&fs.ModeSymlink != 0 && w.o.FollowLinks {
			var err error
			info, err = within(w.ctx, func() (fs.FileInfo, error) { return os.Stat(p) }, nil)
			switch {
			case w.ctx.Err() != nil:
				return context.Cause(w.ctx)
			case w.excluded(p, err == nil && info.IsDir()):
				continue
			case err != nil:
				w.add(p, err)
				continue
			}
			mode = info.Mode()
		}
		if w.excluded(p, mode.IsDir()) {
			continue
		}
		switch {
		case mode.IsDir():
			if err := w.below(p, info, above); err != nil {
				return err
			}
		case mode.IsRegular():
			w.add(p, nil)
		default:
			w.passOver(p, kind(mode))
		}
	}
	return nil
}

// below takes the folder at p; info is nil if it must be looked up.
func (w *walk) below(p string, info fs.FileInfo, above []fs.FileInfo) error {
	if w.o.FollowLinks {
		if info == nil {
			info, _ = within(w.ctx, func() (fs.FileInfo, error) { return os.Stat(p) }, nil)
		}
		for _, a := range above {
			if info != nil && os.SameFile(info, a) {
				w.passOver(p, "a link to a folder that it lies in")
				return nil
			}
		}
		above = append(above[:len(above):len(above)], info)
	}
	entries, err := w.read(p)
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	if err != nil {
		w.add(p, err)
	}
	return w.folder(p, entries, above)
}

func (w *walk) add(p string, err error) {
	w.files = append(w.files, File{Path: p, Name: filepath.ToSlash(p[w.prefix:]), found: true, err: err})
}

func (w *walk) passOver(p, why string) {
	if w.o.PassedOver != nil {
		w.o.PassedOver(p, why)
	}
}

func (w *walk) excluded(p string, folder bool) bool {
	name := filepath.ToSlash(p[w.prefix:])
	for _, pattern := range w.o.Exclude {
		bare := strings.TrimSuffix(pattern, "/")
		if bare != pattern && !folder {
			continue
		}
		subject := path.Base(name)
		if strings.Contains(bare, "/") {
			subject, bare = name, strings.TrimPrefix(bare, "/")
		}
		if ok, _ := path.Match(bare, subject); ok {
			return true
		}
	}
	return false
}

// join is filepath.Join, but keeps dir as it is: what is behind it is the name.
func join(dir, name string) string {
	if dir == "" || os.IsPathSeparator(dir[len(dir)-1]) {
		return dir + name
	}
	return dir + string(filepath.Separator) + name
}
