// Package files keeps the content of files in a directory:
//
//	files/.incoming/<2>/<32 hex digits>   what is being received, or waits for its 1029;
//	                                      in folders after the first two digits
//	files/<client id, 32 hex digits>/<path>
//	files/.lock                       held while a Store is open
//
// Folders are entered one element of a path at a time and through no symbolic
// link. So nothing under files/ leads out of it, and links that somebody planted
// below a client's folder are refused, also those that lead to another client's.
package files

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"sealift/storage"
)

var (
	// ErrLocked is what Open returns while another Store has the directory.
	ErrLocked = errors.New("another sealiftd uses this directory")
	// ErrObstructed is a place for a file that cannot be used: something that is
	// no regular file is there, or a symbolic link or a file where a folder of
	// the path should be.
	ErrObstructed = storage.ErrObstructed
)

const (
	folder         = "files" // below the directory given to Open
	incomingFolder = ".incoming"
	lockName       = ".lock"
	scratchSuffix  = ".scratch"
	keySize        = 16 // random bytes in a key

	// What is under way is nobody else's business.
	privateFile   = 0o600
	privateFolder = 0o700
)

// DefaultFileMode and DefaultDirMode are the modes of stored files and of the
// folders that they are in: what clients send is nobody else's business.
const (
	DefaultFileMode fs.FileMode = privateFile
	DefaultDirMode  fs.FileMode = privateFolder
)

// DefaultMaxOpen is how many files stay open between two writes, unless Options
// say otherwise.
const DefaultMaxOpen = 256

// Options of Open.
type Options struct {
	// Fsync makes Commit survive a power cut.
	Fsync bool
	// MaxOpen is how many incoming and scratch files at most keep a descriptor
	// from one use to the next. The others are opened for each Write and closed
	// again, so that any number of uploads can be under way. Zero is
	// DefaultMaxOpen, below zero is none.
	MaxOpen int
	// MinFree is how many bytes stay free on the file system: content is refused
	// with storage.ErrFull that would take them. Zero is none. A file system that
	// does not say how large it is is not checked.
	MinFree int64
	// FileMode and DirMode are the permissions of stored files, and of the folders
	// that are made for them: these bits exactly, whatever the umask is. files/
	// itself gets DirMode without write for others than its owner. What exists stays
	// as it is. Zero is DefaultFileMode and DefaultDirMode. Open fails on a disk that
	// does not take a mode that was asked for.
	FileMode, DirMode fs.FileMode
	// Folding, if not nil, is what the disk does; else Open finds it out. For tests.
	Folding *Folding
	// Synced, if not nil, is called after each sync, a SyncFile or SyncFolder, with the
	// time that it took, by whichever goroutine has waited for it.
	Synced func(op Op, took time.Duration)
	// Faults is for tests; see there.
	Faults *Faults
}

// Store is a storage.Files in a directory. It is safe for concurrent use; an
// Incoming or a Scratch of it belongs to one goroutine at a time. Besides the
// files that MaxOpen allows, it holds 4 descriptors, and up to 4 in each call
// under way.
type Store struct {
	fsync    bool
	synced   func(Op, time.Duration) // or nil
	faults   *Faults                 // nil but in tests
	lock     *os.File
	root     *os.Root   // files/; nil in a Store for reading
	top      *directory // the same
	incoming *directory // files/.incoming/; nil in a Store for reading
	slots    chan struct{}
	kept     kept
	locks    locks  // of places and folders
	space    *space // nil in a Store for reading
	small    recent // when a small file was made durable

	rootHome, incomingHome home

	fileMode, dirMode     fs.FileMode
	chmodFiles, chmodDirs bool // the umask takes some of these modes away
	folding               Folding
	device                uint64 // of files/, as in standing

	mu       sync.Mutex
	durable  map[string]struct{} // folders whose entries are on the disk; see makeFolder
	doubtful map[string]struct{} // folders whose entries may not be, for good
	spoilt   map[string]error    // incoming files, by key; see spoil
}

var _ storage.Files = (*Store)(nil)

// Open opens the store in dir/files, and makes it first if there is none. It
// fails with ErrLocked if another process has it open.
func Open(dir string, o Options) (*Store, error) {
	fileMode, dirMode := cmp.Or(o.FileMode, DefaultFileMode), cmp.Or(o.DirMode, DefaultDirMode)
	top := dirMode &^ 0o022
	err := os.Mkdir(filepath.Join(dir, folder), top)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	made := err == nil
	if made && o.DirMode != 0 {
		if err := os.Chmod(filepath.Join(dir, folder), top); err != nil {
			return nil, err
		}
	}
	root, err := os.OpenRoot(filepath.Join(dir, folder))
	if err != nil {
		return nil, err
	}
	s := &Store{
		fsync: o.Fsync, synced: o.Synced, faults: o.Faults, root: root, kept: kept{files: make(map[string]*keptFile)},
		fileMode: fileMode, dirMode: dirMode,
		durable: make(map[string]struct{}), doubtful: make(map[string]struct{}), spoilt: make(map[string]error),
	}
	s.space = &space{reserve: o.MinFree, ask: s.askSpace}
	if o.MaxOpen >= 0 {
		s.slots = make(chan struct{}, cmp.Or(o.MaxOpen, DefaultMaxOpen))
	}
	if err := s.setUp(dir, made, o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// OpenReadOnly opens the store in dir/files for Open, Size and EachStored,
// which is possible beside a running server. Everything else fails. The error
// wraps fs.ErrNotExist if there is no such directory.
func OpenReadOnly(dir string) (*Store, error) {
	top, err := openDirectory(filepath.Join(dir, folder))
	if err != nil {
		return nil, err
	}
	return &Store{top: top}, nil
}

// errReadOnly is what a Store for reading answers to everything that would
// change it.
var errReadOnly = errors.New("the store is open for reading only")

// setUp takes the lock and makes what is missing, durably. made says that files/
// did not exist before.
func (s *Store) setUp(dir string, made bool, o Options) error {
	var err error
	if s.top, err = openDirectory(filepath.Join(dir, folder)); err != nil {
		return err
	}
	if s.lock, err = s.root.OpenFile(lockName, os.O_RDWR|os.O_CREATE, privateFile); err != nil {
		return err
	}
	if err := lockFile(s.lock); err != nil {
		return fmt.Errorf("%s: %w", s.lock.Name(), err)
	}
	madeIncoming := false
	if err := s.root.Mkdir(incomingFolder, privateFolder); err == nil {
		madeIncoming = true
	} else if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if s.incoming, err = s.top.enter(incomingFolder); err != nil {
		return err
	}
	home := filepath.Join(dir, folder)
	if s.rootHome, err = findHome(home, s.top); err != nil {
		return err
	}
	if s.incomingHome, err = findHome(filepath.Join(home, incomingFolder), s.incoming); err != nil {
		return err
	}
	if err := s.survey(o); err != nil {
		return err
	}
	SpreadFolders(filepath.Join(dir, folder, incomingFolder))
	if err := s.sweepScratch(); err != nil {
		return err
	}
	if !s.fsync {
		return nil
	}
	parent, err := openDirectory(dir)
	if err != nil {
		return err
	}
	defer parent.close()
	err = errors.Join(
		s.syncFolder(s.top, ""),
		s.step(SyncFolder, ".", "", func() error { return syncDir(parent) }),
	)
	if err == nil {
		return nil
	}
	// As in makeFolder: the next try makes anew what could not be synced.
	if madeIncoming {
		err = errors.Join(err, s.root.Remove(incomingFolder))
	}
	if made {
		err = errors.Join(err, s.root.Remove(lockName), parent.rmdir(folder))
	}
	return err
}

// survey finds out about the disk.
func (s *Store) survey(o Options) error {
	home, err := s.lookAt(".")
	if err != nil {
		return err
	}
	s.device = home.device
	incoming, err := s.lookAt(incomingFolder)
	if err != nil {
		return err
	}
	if incoming.mount || incoming.device != home.device {
		return fmt.Errorf("%w: %q is another file system, and files move from there to files/", ErrObstructed, folder+"/"+incomingFolder)
	}
	if err := s.probe(o); err != nil {
		return fmt.Errorf("trying out the disk: %w", err)
	}
	if o.Folding != nil {
		s.folding = *o.Folding
	}
	return nil
}

// Close releases the directory. Nothing of the store may be in use any more.
func (s *Store) Close() error {
	var errs []error
	for s.giveWay() {
		<-s.slots
	}
	if s.incoming != nil {
		s.incoming.close()
	}
	if s.top != nil {
		s.top.close()
	}
	if s.root != nil {
		errs = append(errs, s.root.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close()) // last: closing it releases the lock
	}
	return errors.Join(errs...)
}

// Create begins an incoming file. It implements storage.Files. The file comes
// into being with its first Write, or with Close if there is none.
func (s *Store) Create(ctx context.Context, place storage.Place, size storage.Announced) (storage.Incoming, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.incoming == nil {
		return nil, errReadOnly
	}
	if err := s.space.take(0, true); err != nil {
		return nil, err
	}
	if err := s.mayHold(place); err != nil {
		return nil, err
	}
	key := newKey()
	in := &incoming{file: newFile(s, inFolder(key)), key: key}
	in.mode = s.fileMode
	in.hint, _ = size.Size()
	return in, nil
}

// Scratch implements storage.Files. The room is a file beside the incoming
// ones: an unlinked one would need its descriptor for as long as it lives. A
// process that is killed leaves it behind, and the next Open removes it. It
// comes into being with the first WriteAt.
func (s *Store) Scratch(ctx context.Context) (storage.Scratch, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.incoming == nil {
		return nil, errReadOnly
	}
	return &scratch{newFile(s, inFolder(newKey())+scratchSuffix)}, nil
}

// Discard implements storage.Files.
func (s *Store) Discard(ctx context.Context, up storage.Uploaded) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.incoming == nil {
		return errReadOnly
	}
	key := up.Key
	if !isKey(key) {
		return nil
	}
	if f := s.takeKept(key); f != nil {
		_ = f.release() // what it would tell is of no interest any more
	}
	if err := s.remove(inFolder(key)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.spoilt, key)
	return nil
}

// Open implements storage.Files.
func (s *Store) Open(ctx context.Context, ref storage.Ref) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, err := s.open(ref)
	if err != nil {
		return nil, err // not f: a nil *os.File is no nil ReadCloser
	}
	return f, nil
}

func (s *Store) open(ref storage.Ref) (*os.File, error) {
	switch ref := ref.(type) {
	case storage.Uploaded:
		return s.openIncoming(ref.Key)
	case storage.Stored:
		at, err := s.find(ref.Place)
		if err != nil {
			return nil, err
		}
		defer at.close()
		f, err := at.dir.open(at.name, os.O_RDONLY, 0)
		return f, notStored(err)
	}
	return nil, storage.ErrNotStored
}

func (s *Store) openIncoming(key string) (*os.File, error) {
	at, _, err := s.findIncoming(key)
	if err != nil {
		return nil, err
	}
	defer at.dir.close()
	f, err := at.dir.open(at.name, os.O_RDONLY, 0)
	if err != nil {
		return nil, notStored(err)
	}
	if s.fsync {
		// The caller wants to know what a Commit would make durable.
		dropCache(f)
	}
	return f, nil
}

// Size implements storage.Files.
func (s *Store) Size(ctx context.Context, ref storage.Ref) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	switch ref := ref.(type) {
	case storage.Uploaded:
		at, found, err := s.findIncoming(ref.Key)
		if err != nil {
			return 0, err
		}
		at.dir.close()
		return found.size, nil
	case storage.Stored:
		if s.incoming != nil { // a 1604 may be given again by what Size says
			if err := s.atHome(); err != nil {
				return 0, err
			}
		}
		at, err := s.find(ref.Place)
		if err != nil {
			return 0, err
		}
		defer at.close()
		return at.found.size, nil
	}
	return 0, storage.ErrNotStored
}

// notStored puts our error in the place of the system's.
func notStored(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return storage.ErrNotStored
	}
	return err
}

// newKey returns a key that no file has had yet.
func newKey() string {
	var b [keySize]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// inFolder is the path of an incoming file below files/.incoming. Many folders
// are for ext4's sake, see SpreadFolders.
func inFolder(key string) string { return key[:2] + "/" + key }

// isKey reports whether key could have come from newKey: it may come out of a
// database that somebody edited.
func isKey(key string) bool {
	if len(key) != 2*keySize {
		return false
	}
	return strings.Trim(key, "0123456789abcdef") == ""
}
