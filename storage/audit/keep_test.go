package audit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/storage"
	"sealift/storage/audit"
	"sealift/storage/memory"
)

// between runs a hook once, after the store was asked for the size of a file, and
// one before each file is opened.
type between struct {
	audit.Files
	size   func()
	onOpen func(path string)
}

func (b *between) Size(ctx context.Context, ref storage.Ref) (int64, error) {
	size, err := b.Files.Size(ctx, ref)
	if hook := b.size; hook != nil {
		b.size = nil
		hook()
	}
	return size, err
}

func (b *between) Open(ctx context.Context, ref storage.Ref) (io.ReadCloser, error) {
	if b.onOpen != nil {
		b.onOpen(ref.(storage.Stored).Path)
	}
	return b.Files.Open(ctx, ref)
}

// A file that is missing when it is looked at, and that a client sends again
// before it is forgotten, is not forgotten.
func TestForgetMissingBesideAServer(t *testing.T) {
	for _, marked := range []bool{false, true} {
		t.Run(fmt.Sprintf("marked %t", marked), func(t *testing.T) {
			w := newWorld(t)
			w.store("gone for good", oldContent)
			w.store(path, oldContent)
			for _, p := range []string{path, "gone for good"} {
				if err := os.Remove(w.storedFile(p)); err != nil {
					t.Fatal(err)
				}
			}
			if marked {
				w.recover(audit.Report{audit.Missing: 2})
				w.store("looked at", oldContent)
			}
			var told []string
			server := &between{Files: w.Store, size: func() { w.store(path, newContent) }}
			err := audit.ForgetMissing(t.Context(), w.reg, server, false, func(f storage.File) { told = append(told, f.Path) })
			if err != nil || !slices.Equal(told, []string{"gone for good"}) {
				t.Errorf("told of %q, %v", told, err)
			}
			w.wantFile(path, newContent, "")
			w.wantMissing(path, false)
		})
	}
}

// What stands in the way of a file, or cannot be looked at, is no reason to
// forget it.
func TestForgetMissingForgetsNothingElse(t *testing.T) {
	w := newWorld(t)
	w.store(path, oldContent)
	w.store("shorter", oldContent)
	if err := errors.Join(
		os.Remove(w.storedFile(path)), os.Symlink("elsewhere", w.storedFile(path)),
		os.Truncate(w.storedFile("shorter"), 1),
	); err != nil {
		t.Fatal(err)
	}
	err := audit.ForgetMissing(t.Context(), w.reg, w.Store, false, func(f storage.File) { t.Errorf("forgot %s", f.Path) })
	if err != nil {
		t.Error(err)
	}
	w.wantMissing(path, false)
	w.wantMissing("shorter", false)
}

// A crash between any two steps of taking a stray leaves what Recover knows, and
// the stray is taken the next time.
func TestTakeStraysAfterACrash(t *testing.T) {
	for crashAt := range 4 {
		t.Run(fmt.Sprint(crashAt), func(t *testing.T) {
			w := newWorld(t)
			w.store("other", "stays")
			if err := os.MkdirAll(filepath.Dir(w.storedFile(path)), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(w.storedFile(path), []byte(newContent), 0o600); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			server := &crashing{Files: w.Store, at: crashAt, crash: cancel}
			_ = audit.TakeStrays(ctx, w.reg, server, now, false, func(storage.File, error) {})
			// A 1029 may have gone through, or not.
			if _, err := audit.Recover(t.Context(), w.reg, w.Store, audit.Options{Now: now}); err != nil {
				t.Fatal(err)
			}
			if content, err := os.ReadFile(w.storedFile(path)); err != nil || string(content) != newContent {
				t.Errorf("after the crash the stray is %q, %v", content, err)
			}
			o := w.options()
			o.Now = now.Add(2 * o.UnverifiedTTL)
			if _, err := audit.Expire(t.Context(), w.reg, w.Store, o); err != nil {
				t.Fatal(err)
			}
			err := audit.TakeStrays(t.Context(), w.reg, w.Store, now, false, func(f storage.File, err error) {
				if err != nil || f.Path != path || f.Cksum != cksum.Checksum([]byte(newContent)) {
					t.Errorf("%+v: %v", f, err)
				}
			})
			if err != nil {
				t.Error(err)
			}
			w.wantFile(path, newContent, "")
			w.wantFile("other", "stays", "")
			w.wantIncoming(0)
		})
	}
}

// crashing ends everything at the n-th of the steps that change something.
type crashing struct {
	audit.Files
	at    int
	crash func()
}

func (c *crashing) step() {
	if c.at--; c.at < 0 {
		c.crash()
	}
}

func (c *crashing) Create(ctx context.Context, place storage.Place, size storage.Announced) (storage.Incoming, error) {
	c.step()
	return c.Files.Create(ctx, place, size)
}

func (c *crashing) Commit(ctx context.Context, f *storage.File) error {
	c.step()
	err := c.Files.Commit(ctx, f)
	c.step()
	return err
}

// snapshot returns another registry with the same rows.
func (w *world) snapshot() storage.Registry {
	w.t.Helper()
	copied := &world{t: w.t, reg: memory.New()}
	_ = w.reg.Clients(w.t.Context(), func(c storage.Client) error {
		copied.apply(&storage.AddClient{ID: c.ID, Name: c.Name, TLSKey: c.TLSKey})
		return nil
	})
	_ = w.reg.Files(w.t.Context(), func(f storage.File) error {
		copied.apply(&storage.PutFile{File: f})
		if f.Verified {
			copied.apply(&storage.VerifyFile{ID: f.ID, Path: f.Path, Incoming: f.Incoming})
		}
		if !f.Taken.IsZero() {
			copied.apply(&storage.TakeFile{ID: f.ID, Path: f.Path, Incoming: f.Incoming, Taken: f.Taken})
		}
		if f.Deleted {
			copied.apply(&storage.DeleteFile{ID: f.ID, Path: f.Path, Incoming: f.Incoming, Verified: f.Verified})
		}
		if f.Verified {
			copied.apply(&storage.MarkFile{ID: f.ID, Path: f.Path, Incoming: f.Incoming, Missing: f.Missing})
		}
		return nil
	})
	return copied.reg
}

// later runs a hook once, after the registry was asked for a file.
type later struct {
	storage.Registry
	hook func()
}

func (l *later) Apply(ctx context.Context, batch []storage.Operation) error {
	err := l.Registry.Apply(ctx, batch)
	if hook := l.hook; hook != nil {
		l.hook = nil
		hook()
	}
	return err
}

// Where the server replaces a file, or is just about to, while it is copied, the
// copy's record is about what was copied. What is wrong is marked in the copy.
func TestBackupBesideAServer(t *testing.T) {
	const again = "the version after that"
	for _, tc := range []struct {
		name      string
		meanwhile func(w *world, live *later)
		want      string // "": the copy has no such file
		missing   bool
	}{
		{"nothing", func(*world, *later) {}, oldContent, false},
		{"replaced", func(w *world, _ *later) { w.store(path, newContent) }, newContent, false},
		{"replaced twice", func(w *world, live *later) {
			w.store(path, newContent)
			live.hook = func() { w.store(path, again) }
		}, again, false},
		{"in its place, and recorded a moment later", func(w *world, live *later) {
			key := w.receive(newContent)
			w.put(key, path, newContent)
			w.commit(key, path)
			live.hook = func() { w.verify(key, path) }
		}, newContent, false},
		{"in its place, and never recorded", func(w *world, _ *later) {
			key := w.receive(newContent)
			w.put(key, path, newContent)
			w.commit(key, path)
		}, oldContent, true},
		{"forgotten", func(w *world, _ *later) {
			if err := os.Remove(w.storedFile(path)); err != nil {
				w.t.Fatal(err)
			}
			if err := audit.ForgetMissing(w.t.Context(), w.reg, w.Store, false, func(storage.File) {}); err != nil {
				w.t.Fatal(err)
			}
		}, "", false},
		{"damaged", func(w *world, _ *later) {
			if err := os.Truncate(w.storedFile(path), 1); err != nil {
				w.t.Fatal(err)
			}
		}, oldContent, true},
	} {
		for _, waits := range []bool{false, true} { // in the snapshot
			t.Run(fmt.Sprintf("%s/%t", tc.name, waits), func(t *testing.T) {
				w, to := newWorld(t), newWorld(t)
				w.store(path, oldContent)
				w.store("other", "stays")
				w.store("marked", "marked, and there")
				w.apply(&storage.MarkFile{ID: alice, Path: "marked", Incoming: w.get("marked").Verified.Incoming, Missing: true})
				if waits {
					w.put(w.receive("waits"), path, "waits")
				}
				to.reg = w.snapshot()
				live := &later{Registry: w.reg}
				server := &between{Files: w.Store}
				var wrong []string
				tell := func(f storage.File, err error) { wrong = append(wrong, f.Path) }
				server.onOpen = func(p string) {
					if p == path {
						server.onOpen = nil
						tc.meanwhile(w, live)
					}
				}
				if err := audit.Backup(t.Context(), live, server, to.reg, to.Store, func(int64) {}, tell); err != nil {
					t.Fatal(err)
				}
				if tc.missing != slices.Equal(wrong, []string{path}) || len(wrong) > 1 {
					t.Errorf("told that %q are wrong", wrong)
				}
				switch {
				case tc.missing:
					to.wantMissing(path, true)
				case tc.want == "":
					to.wantFile(path, "", "")
				default:
					to.wantFile(path, tc.want, "")
				}
				to.wantFile("other", "stays", "")
				to.wantFile("marked", "marked, and there", "")
				to.wantMissing("marked", false)
				to.wantIncoming(0)
			})
		}
	}
}

// A backup that cannot be written is none.
func TestBackupOnAFullDisk(t *testing.T) {
	w, to := newWorld(t), newWorld(t)
	w.store(path, oldContent)
	to.reg = w.snapshot()
	err := audit.Backup(t.Context(), w.reg, w.Store, to.reg, &full{to.Store}, func(int64) {}, func(f storage.File, err error) {
		t.Errorf("%s is called wrong: %v", f.Path, err)
	})
	if !errors.Is(err, storage.ErrFull) {
		t.Errorf("Backup: %v", err)
	}
}

// A client that never sent its key gives its name back after a while.
func TestClientsWithoutAKeyGo(t *testing.T) {
	for name, act := range map[string]func(context.Context, storage.Registry, audit.Files, audit.Options) (audit.Report, error){
		"Recover": audit.Recover,
		"Expire": func(ctx context.Context, reg storage.Registry, files audit.Files, o audit.Options) (audit.Report, error) {
			return audit.Expire(ctx, reg, files, o)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.store(path, oldContent) // alice has no key either
			add := func(n int, name string, at time.Time) codec.ClientID {
				id := codec.ClientID{byte(n), byte(n >> 8), 7}
				w.apply(&storage.AddClient{Outcome: storage.Outcome{At: at}, ID: id, Name: name})
				return id
			}
			const many = 600 // more than one batch
			for i := range many {
				add(i, fmt.Sprint("keyless ", i), now.Add(-time.Hour))
			}
			keyed := add(many, "keyed", now.Add(-time.Hour))
			w.apply(&storage.SetKeys{ID: keyed, Name: "keyed", PublicKey: make([]byte, codec.PublicKeySize), AESKey: make([]byte, 32)})
			add(many+1, "just registered", now)

			o := w.options()
			o.UnverifiedTTL = 0
			if got, err := act(t.Context(), w.reg, w.Store, o); err != nil || len(got) != 0 {
				t.Errorf("without a limit: %v, %v", got, err)
			}
			o.UnverifiedTTL = time.Hour
			if got, err := act(t.Context(), w.reg, w.Store, o); err != nil || !maps.Equal(got, audit.Report{audit.Keyless: many}) {
				t.Errorf("report %v, %v", got, err)
			}
			var left []string
			_ = w.reg.Clients(t.Context(), func(c storage.Client) error { left = append(left, c.Name); return nil })
			if want := []string{"alice", "just registered", "keyed"}; !slices.Equal(left, want) {
				t.Errorf("left are %q, want %q", left, want)
			}
		})
	}
}
