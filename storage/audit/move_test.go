package audit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/storage"
	"sealift/storage/audit"
	"sealift/storage/files"
	"sealift/storage/memory"
	"sealift/storage/storagetest"
)

// mixed is a world with records of all kinds.
func mixed(t *testing.T) *world {
	w := newWorld(t)
	bob := codec.ClientID{0xb0}
	ten, many := int64(10), int64(storage.Unlimited)
	if err := w.reg.SetTargets(t.Context(), []string{"command"}); err != nil {
		t.Fatal(err)
	}
	w.apply(&storage.AddName{Name: "waits to register"})
	w.apply(&storage.AddName{Name: "bob"})
	w.apply(&storage.AddClient{ID: bob, Name: "bob", OnlyAdded: true})
	w.apply(&storage.SetKeys{Outcome: storage.Outcome{At: now}, ID: bob, Name: "bob", PublicKey: bytes.Repeat([]byte{1}, codec.PublicKeySize), AESKey: bytes.Repeat([]byte{2}, 32)})
	w.apply(&storage.SetQuota{ID: bob, Bytes: &ten, Files: &many})
	w.apply(&storage.SetKeepFor{ID: bob, KeepFor: time.Hour})
	w.apply(&storage.SetExpires{ID: bob, Expires: now.Add(time.Hour)})
	w.apply(&storage.DisableClient{ID: bob, Disabled: true})

	verified := func(path, content string) string {
		key := w.receive(content)
		w.put(key, path, content)
		w.commit(key, path)
		w.apply(&storage.VerifyFile{ID: alice, Path: path, Incoming: key})
		return key
	}
	waits := func(path, content string) string {
		key := w.receive(content)
		w.put(key, path, content)
		return key
	}
	verified("verified", oldContent)
	verified("both", oldContent)
	waits("both", newContent)
	verified("lapsed", oldContent)
	w.apply(&storage.DropFile{ID: alice, Path: "lapsed", Incoming: waits("lapsed", newContent), Why: storage.WhyMismatch})
	waits("lapsed waits", oldContent)
	waits("lapsed waits", newContent)
	waits("waits", newContent)
	w.apply(&storage.MarkFile{ID: alice, Path: "missing", Incoming: verified("missing", oldContent), Missing: true})
	taken := verified("taken", oldContent)
	w.apply(&storage.TakeFile{ID: alice, Path: "taken", Incoming: taken, Taken: now.Add(-time.Hour)})
	w.apply(&storage.MarkFile{ID: alice, Path: "taken", Incoming: taken, Missing: true})
	verified("empty", "")
	w.keep(alice, "partial", strings.Repeat("x", 300_000), 200_000, now)
	return w
}

// records are all records of a registry in words, without keys of content, and the content.
func records(t *testing.T, reg storage.Registry, store storage.Files) (all []string) {
	t.Helper()
	read := func(ref storage.Ref, limit int64) string {
		r, err := store.Open(t.Context(), ref)
		if err != nil {
			return err.Error()
		}
		defer r.Close()
		b, err := io.ReadAll(io.LimitReader(r, limit))
		return fmt.Sprint(cksum.Checksum(b), err)
	}
	err := errors.Join(
		reg.Clients(t.Context(), func(c storage.Client) error { all = append(all, fmt.Sprintf("%+v", c)); return nil }),
		reg.Added(t.Context(), func(name string) error { all = append(all, name); return nil }),
		reg.Files(t.Context(), func(f storage.File) error {
			content := read(f.Stored(), f.Size+1)
			if !f.Verified {
				content = read(f.Uploaded(), f.Size+1)
			}
			if f.Missing {
				content = "missing"
			}
			f.Incoming = ""
			all = append(all, fmt.Sprintf("%+v: %s", f, content))
			return nil
		}),
		reg.Partials(t.Context(), func(p storage.Partial) error {
			size, err := store.Size(t.Context(), p.Uploaded())
			p.Incoming = ""
			all = append(all, fmt.Sprintf("%+v: %v %v", p, size >= p.Length, err))
			return nil
		}),
		reg.ListEvents(t.Context(), func(e storage.Event) error {
			e.Seq = 0
			all = append(all, fmt.Sprintf("%+v", e))
			return nil
		}),
	)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// mover is a Move into a registry of its own and a directory, or a bucket.
func (w *world) mover(t *testing.T, bucket bool) (*audit.Move, *[]string) {
	wrong := new([]string)
	m := &audit.Move{
		From: w.reg, To: memory.New(), FromFiles: w, Workers: 3, Targets: []string{"command"},
		Done:  func(int64) {},
		Wrong: func(f storage.File, err error) { *wrong = append(*wrong, f.Path+": "+err.Error()) },
		Left:  func(p storage.Partial, err error) { *wrong = append(*wrong, p.Path+": "+err.Error()) },
	}
	if bucket {
		m.ToFiles = storagetest.NewBucket().Server(storagetest.LeaseFrom(m.To, "mover", time.Minute))
		return m, wrong
	}
	store, err := files.Open(t.TempDir(), files.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	m.ToFiles = store
	return m, wrong
}

// inEither runs a test with a directory to move to, and with a bucket.
func inEither(t *testing.T, test func(t *testing.T, bucket bool)) {
	for _, bucket := range []bool{false, true} {
		t.Run(fmt.Sprint("bucket ", bucket), func(t *testing.T) { test(t, bucket) })
	}
}

func wantRecords(t *testing.T, got, want []string) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		var g, w string
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Errorf("record %d is\n\t%s\nwant\n\t%s", i, g, w)
		}
	}
}

// Everything is moved as it is, with its content or without, and a second Move sends nothing.
func TestMove(t *testing.T) {
	for _, to := range []string{"directory", "bucket", "nowhere"} {
		t.Run(to, func(t *testing.T) {
			w := mixed(t)
			m, wrong := w.mover(t, to == "bucket")
			content := to != "nowhere"
			at := m.ToFiles
			if !content {
				m.ToFiles, at = nil, w
			}
			want := records(t, w.reg, w)
			var done int64
			m.Done = func(n int64) { done += n }
			moved, err := m.Run(t.Context())
			if err != nil || len(*wrong) > 0 {
				t.Fatal(err, *wrong)
			}
			wantRecords(t, records(t, m.To, at), want)
			if moved.Clients != 2 || moved.Verified != 6 || moved.Waiting != 3 || moved.Partials != 1 || moved.Events == 0 {
				t.Errorf("%+v", moved)
			}
			if content && (moved.Sent != 7 || moved.SentBytes != moved.Bytes || done != moved.Bytes+200_000) {
				t.Errorf("%+v, %d bytes done", moved, done)
			}
			again, err := m.Run(t.Context())
			moved.Sent, moved.SentBytes = 0, 0
			if err != nil || again != moved {
				t.Errorf("%+v, %v, want %+v", again, err, moved)
			}
			wantRecords(t, records(t, m.To, at), want)
		})
	}
}

// What is missing or damaged is told of, and is not believed: a verified file is on record as
// missing, and one that waits is gone, so that a 1029 which may mean it gets 1607.
func TestMoveOfDamagedFiles(t *testing.T) { inEither(t, testMoveOfDamagedFiles) }

func testMoveOfDamagedFiles(t *testing.T, bucket bool) {
	w := mixed(t)
	if err := errors.Join(os.WriteFile(w.storedFile("verified"), []byte(strings.ToUpper(oldContent)), 0o600), os.Remove(w.storedFile("lapsed"))); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"both", "waits"} {
		f := w.get(path).Unverified
		if err := w.Discard(t.Context(), f.Uploaded()); err != nil {
			t.Fatal(err)
		}
	}
	m, wrong := w.mover(t, bucket)
	for range 2 {
		*wrong = nil
		if _, err := m.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if slices.Sort(*wrong); len(*wrong) != 4 || !strings.HasPrefix((*wrong)[0], "both: ") || !strings.HasPrefix((*wrong)[2], "verified: ") {
			t.Errorf("%q", *wrong)
		}
		to := &world{t: t, reg: m.To}
		if v := to.get("verified").Verified; v == nil || !v.Missing {
			t.Errorf("%+v", v)
		}
		if get := to.get("both"); get.Unverified != nil || get.Verified == nil || !get.Verified.Lapsed || get.Verified.Missing {
			t.Errorf("%+v", get)
		}
		good, bad := 0, 0
		if err := audit.Verify(t.Context(), m.To, m.ToFiles, func(f storage.File, err error) {
			if err == nil {
				good++
			} else if bad++; !errors.Is(err, audit.ErrMissing) {
				t.Errorf("%s: %v", f.Path, err)
			}
		}); err != nil || good != 2 || bad != 3 {
			t.Errorf("%d files are good and %d are not: %v", good, bad, err)
		}
	}
}

// errKilled is the end of a Move at some step.
var errKilled = errors.New("killed")

// steps lets some steps be taken, and no more.
type steps struct{ left int }

func (s *steps) next() error {
	if s.left--; s.left < 0 {
		return errKilled
	}
	return nil
}

type steppedRegistry struct {
	storage.Registry
	*steps
}

func (r steppedRegistry) Apply(ctx context.Context, batch []storage.Operation) error {
	if err := r.next(); err != nil {
		return err
	}
	if err := r.Registry.Apply(ctx, batch); err != nil {
		return err
	}
	return r.next()
}

type steppedFiles struct {
	storage.Files
	*steps
	sent *int
}

func (s steppedFiles) Create(ctx context.Context, at storage.Place, size storage.Announced) (storage.Incoming, error) {
	if err := s.next(); err != nil {
		return nil, err
	}
	*s.sent++
	return s.Files.Create(ctx, at, size)
}

func (s steppedFiles) Commit(ctx context.Context, f *storage.File) error {
	if err := s.next(); err != nil {
		return err
	}
	return s.Files.Commit(ctx, f)
}

// A Move that ends at any step is finished by the next one, which sends nothing anew that was
// recorded.
func TestMoveThatEndsAnywhere(t *testing.T) { inEither(t, testMoveThatEndsAnywhere) }

func testMoveThatEndsAnywhere(t *testing.T, bucket bool) {
	w := mixed(t)
	want := records(t, w.reg, w)
	for left := 0; ; left++ {
		m, _ := w.mover(t, bucket)
		whole, sent := m.ToFiles, 0
		reg, s := m.To, &steps{left}
		m.Workers = 1
		m.To, m.ToFiles = steppedRegistry{reg, s}, steppedFiles{whole, s, &sent}
		_, err := m.Run(t.Context())
		ended := err != nil
		if ended && !errors.Is(err, errKilled) {
			t.Fatalf("after %d steps: %v", left, err)
		}
		recorded := 0
		if err := reg.Files(t.Context(), func(f storage.File) error {
			if !f.Missing {
				recorded++
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		s.left = 1 << 30
		moved, err := m.Run(t.Context())
		if err != nil {
			t.Fatalf("after an end at step %d: %v", left, err)
		}
		if moved.Sent > 7-recorded {
			t.Errorf("after an end at step %d: %d files of 7 were recorded, and %d were sent again", left, recorded, moved.Sent)
		}
		wantRecords(t, records(t, reg, whole), want)
		if t.Failed() {
			t.Fatalf("after an end at step %d", left)
		}
		if !ended {
			t.Logf("%d steps", left)
			return
		}
	}
}

// Records of somebody else in the new registry are no reason to pass anything over.
func TestMoveBesideOtherRecords(t *testing.T) {
	w := mixed(t)
	m, _ := w.mover(t, true)
	to := &world{t: t, reg: m.To}
	to.apply(&storage.AddClient{ID: codec.ClientID{0xcc}, Name: "carol"})
	if _, err := m.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "other records") {
		t.Errorf("%v", err)
	}
}
