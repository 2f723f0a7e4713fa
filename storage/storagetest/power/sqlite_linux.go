package power

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// Database watches what SQLite writes to the files of one folder. All of SQLite
// in the process goes through it once Watch was called.
type Database struct {
	dir string

	mu     sync.Mutex
	files  map[string]*image // by base name
	fail   func(name string) bool
	frozen bool
}

// image is a file as the disk has it, and what was written to it since.
type image struct {
	durable []byte
	pending []write
}

// write is a write at off, or if data is nil, a truncation to off.
type write struct {
	off  int64
	data []byte
}

func (w write) on(b []byte) []byte {
	if w.data == nil {
		for int64(len(b)) < w.off {
			b = append(b, 0)
		}
		return b[:w.off]
	}
	for int64(len(b)) < w.off+int64(len(w.data)) {
		b = append(b, 0)
	}
	copy(b[w.off:], w.data)
	return b
}

var (
	once     sync.Once
	vfs      *sqlite3.Tsqlite3_vfs
	realOpen uintptr
	realDrop uintptr

	mu      sync.Mutex
	watched []*Database
	open    = make(map[uintptr]*handle) // by sqlite3_file
)

type handle struct {
	real    *sqlite3.Tsqlite3_io_methods
	methods uintptr // ours, which SQLite points to: in C's memory, as it expects
	db      *Database
	name    string
}

// Watch begins to watch the databases in dir. fail is asked at each sync of the
// file with that base name whether it fails; it may be nil.
func Watch(dir string, fail func(name string) bool) *Database {
	return watch(dir, fail, make(map[string]*image))
}

func watch(dir string, fail func(name string) bool, files map[string]*image) *Database {
	once.Do(install)
	d := &Database{dir: dir, files: files, fail: fail}
	mu.Lock()
	watched = append(watched, d)
	mu.Unlock()
	return d
}

// Freeze keeps SQLite from making files in the folder, as a medium does that is for
// reading only.
func (d *Database) Freeze() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.frozen = true
}

// mayMake reports whether SQLite can open the file name, which it makes if there is
// none.
func (d *Database) mayMake(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.frozen {
		return true
	}
	_, err := os.Lstat(filepath.Join(d.dir, name))
	return err == nil
}

// Kill copies the database's files to the folder to, as they are after the process
// was killed, and begins to watch it there. What was not synced is not on the disk
// yet.
func (d *Database) Kill(to string) (*Database, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	files := make(map[string]*image)
	for name, f := range d.files {
		if strings.HasSuffix(name, "-shm") { // of processes that live
			continue
		}
		b, err := os.ReadFile(filepath.Join(d.dir, name))
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(to, name), b, 0o600); err != nil {
			return nil, err
		}
		files[name] = &image{slices.Clone(f.durable), slices.Clone(f.pending)}
	}
	return watch(to, d.fail, files), nil
}

// Cut puts into the folder to what the disk holds of the database's files after
// a power cut: what was synced, and any of the writes after that. It begins to
// watch them there.
func (d *Database) Cut(to string, rnd *rand.Rand) (*Database, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, f := range d.files {
		b := append([]byte(nil), f.durable...)
		for _, w := range f.pending {
			if rnd.IntN(2) == 0 {
				b = w.on(b)
			}
		}
		if strings.HasSuffix(name, "-shm") {
			continue
		}
		if err := os.WriteFile(filepath.Join(to, name), b, 0o600); err != nil {
			return nil, err
		}
	}
	return Watch(to, d.fail), nil
}

func (d *Database) file(name string) *image {
	f := d.files[name]
	if f == nil {
		f = new(image)
		f.durable, _ = os.ReadFile(filepath.Join(d.dir, name))
		d.files[name] = f
	}
	return f
}

func (h *handle) pend(w write) {
	h.db.mu.Lock()
	defer h.db.mu.Unlock()
	f := h.db.file(h.name)
	f.pending = append(f.pending, w)
}

// sync reports whether the file's sync fails, and does to the image what the
// kernel does.
func (h *handle) sync() (fails bool) {
	fails = h.db.fail != nil && h.db.fail(h.name)
	h.db.mu.Lock()
	defer h.db.mu.Unlock()
	f := h.db.file(h.name)
	if !fails {
		for _, w := range f.pending {
			f.durable = w.on(f.durable)
		}
	}
	f.pending = nil
	return fails
}

// install puts our functions in the place of those of SQLite's default VFS.
func install() {
	tls := libc.NewTLS()
	vfs = (*sqlite3.Tsqlite3_vfs)(pointer(sqlite3.Xsqlite3_vfs_find(tls, 0)))
	realOpen, realDrop = vfs.FxOpen, vfs.FxDelete
	vfs.FxOpen, vfs.FxDelete = code(xOpen), code(xDelete)
}

func xOpen(tls *libc.TLS, v, name, file uintptr, flags int32, out uintptr) int32 {
	var d *Database
	var base string
	if name != 0 {
		d, base = watching(libc.GoString(name))
	}
	f := (*sqlite3.Tsqlite3_file)(pointer(file))
	if d != nil && flags&sqlite3.SQLITE_OPEN_CREATE != 0 && !d.mayMake(base) {
		f.FpMethods = 0 // there is nothing to close
		return sqlite3.SQLITE_CANTOPEN
	}
	rc := function[func(*libc.TLS, uintptr, uintptr, uintptr, int32, uintptr) int32](realOpen)(tls, v, name, file, flags, out)
	if rc != sqlite3.SQLITE_OK || d == nil {
		return rc
	}
	methods := libc.Xmalloc(tls, libc.Tsize_t(unsafe.Sizeof(sqlite3.Tsqlite3_io_methods{})))
	if methods == 0 {
		panic("no memory")
	}
	h := &handle{real: (*sqlite3.Tsqlite3_io_methods)(pointer(f.FpMethods)), methods: methods, db: d, name: base}
	ours := (*sqlite3.Tsqlite3_io_methods)(pointer(methods))
	*ours = *h.real
	ours.FxWrite, ours.FxTruncate, ours.FxSync, ours.FxClose = code(xWrite), code(xTruncate), code(xSync), code(xClose)
	d.mu.Lock()
	d.file(base)
	d.mu.Unlock()
	mu.Lock()
	open[file] = h
	mu.Unlock()
	f.FpMethods = methods
	return rc
}

func watching(path string) (*Database, string) {
	mu.Lock()
	defer mu.Unlock()
	for _, d := range watched {
		if filepath.Dir(path) == d.dir {
			return d, filepath.Base(path)
		}
	}
	return nil, ""
}

func handleOf(file uintptr) *handle {
	mu.Lock()
	defer mu.Unlock()
	return open[file]
}

func xWrite(tls *libc.TLS, file, p uintptr, n int32, off int64) int32 {
	h := handleOf(file)
	rc := function[func(*libc.TLS, uintptr, uintptr, int32, int64) int32](h.real.FxWrite)(tls, file, p, n, off)
	if rc == sqlite3.SQLITE_OK {
		h.pend(write{off, append([]byte{}, unsafe.Slice((*byte)(pointer(p)), n)...)})
	}
	return rc
}

func xTruncate(tls *libc.TLS, file uintptr, size int64) int32 {
	h := handleOf(file)
	rc := function[func(*libc.TLS, uintptr, int64) int32](h.real.FxTruncate)(tls, file, size)
	if rc == sqlite3.SQLITE_OK {
		h.pend(write{off: size})
	}
	return rc
}

func xSync(tls *libc.TLS, file uintptr, flags int32) int32 {
	h := handleOf(file)
	if h.sync() {
		return sqlite3.SQLITE_IOERR_FSYNC
	}
	return sqlite3.SQLITE_OK // nothing real needs to be synced
}

func xClose(tls *libc.TLS, file uintptr) int32 {
	h := handleOf(file)
	f := (*sqlite3.Tsqlite3_file)(pointer(file))
	f.FpMethods = uintptr(unsafe.Pointer(h.real))
	libc.Xfree(tls, h.methods)
	mu.Lock()
	delete(open, file)
	mu.Unlock()
	return function[func(*libc.TLS, uintptr) int32](h.real.FxClose)(tls, file)
}

func xDelete(tls *libc.TLS, v, name uintptr, syncDir int32) int32 {
	rc := function[func(*libc.TLS, uintptr, uintptr, int32) int32](realDrop)(tls, v, name, syncDir)
	if d, base := watching(libc.GoString(name)); d != nil && rc == sqlite3.SQLITE_OK {
		d.mu.Lock()
		delete(d.files, base)
		d.mu.Unlock()
	}
	return rc
}

// code is the address by which transpiled C calls a Go function that never goes
// away; function is a Go function of such an address.
func code(f any) uintptr { return (*[2]uintptr)(unsafe.Pointer(&f))[1] }

func function[F any](address uintptr) F {
	return *(*F)(unsafe.Pointer(&struct{ uintptr }{address}))
}

func pointer(address uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&address)) }
