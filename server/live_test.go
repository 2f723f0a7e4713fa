package server

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sealift/admin"
	"sealift/client"
	"sealift/codec"
	"sealift/storage"
)

// What a person sees of a server, and does there, with each of the registries.
func TestLive(t *testing.T) {
	for _, registry := range []string{registrySQLite, registryMemory} {
		t.Run(registry, func(t *testing.T) { testLive(t, Storage{Registry: registry}) })
	}
	t.Run("bucket", func(t *testing.T) { testLive(t, Storage{Files: bucket(t)}) })
	t.Run("shared", func(t *testing.T) { testLive(t, sharedStores(t)) })
}

func testLive(t *testing.T, stores Storage) {
	ctx := t.Context()
	o := options(t.TempDir())
	o.Admin.Listen, o.Storage = "127.0.0.1:0", stores
	s := open(t, o)
	defer run(t, s)()
	live := s.newLive()
	c, err := client.Dial(ctx, client.Options{Server: s.Addr().String(), Name: "anna", Retries: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Login(ctx); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"a/b", "a/c", "d"} {
		if _, err := c.Send(ctx, path, strings.NewReader("content of "+path), int64(len("content of "+path))); err != nil {
			t.Fatal(err)
		}
	}
	id := c.Identity().ID.String()
	for _, l := range live.Limits() {
		if l.Value == "0" || l.Value == "0s" {
			t.Errorf("%s is none, and shown as %s", l.Name, l.Value)
		}
	}

	seen, err := live.Observe(ctx, 10, id)
	if err != nil || seen.Connections != 1 || len(seen.List) != 1 || seen.List[0].Name != "anna" || seen.List[0].Client != id {
		t.Fatalf("%+v, %v", seen, err)
	}
	if other, err := live.Observe(ctx, 10, codec.ClientID{1}.String()); err != nil || other.Connections != 0 {
		t.Errorf("%+v, %v", other, err)
	}
	if names, err := live.Names(ctx, []string{id, codec.ClientID{1}.String()}); err != nil || len(names) != 1 || names[id] != "anna" {
		t.Errorf("%v, %v", names, err)
	}

	// All pages together have each file once.
	var paths []string
	var last admin.StoredFile
	for after, more := "", true; more; after = last.Client + "/" + last.Path {
		var page []admin.StoredFile
		if page, more, err = live.Stored(ctx, admin.FileQuery{After: after, Most: 2}); err != nil || len(page) == 0 {
			t.Fatal(page, err)
		}
		for _, last = range page {
			paths = append(paths, last.Path+" "+last.State)
		}
	}
	if got := strings.Join(paths, ", "); got != "a/b verified, a/c verified, d verified" {
		t.Errorf("%s", got)
	}
	if page, more, err := live.Clients(ctx, "", 1); err != nil || more || len(page) != 1 || page[0].Name != "anna" || page[0].Disabled {
		t.Errorf("%+v, %v, %v", page, more, err)
	}
	if page, _, err := live.Clients(ctx, "anna", 1); err != nil || len(page) > 0 {
		t.Errorf("%+v, %v", page, err)
	}

	ref := admin.FileRef{Client: id, Path: "d", Version: last.Version, Verified: true}
	content, size, err := live.Open(ctx, ref)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(content)
	if string(text) != "content of d" || size != int64(len(text)) || err != nil || content.Close() != nil {
		t.Errorf("%q, %d, %v", text, size, err)
	}
	for what, bad := range map[string]admin.FileRef{
		"another version": {Client: id, Path: "d", Version: "x", Verified: true},
		"no such file":    {Client: id, Path: "../d", Version: last.Version, Verified: true},
		"nobody's":        {Client: codec.ClientID{1}.String(), Path: "d", Version: last.Version, Verified: true},
	} {
		if _, _, err := live.Open(ctx, bad); !errors.Is(err, admin.ErrNotFound) {
			t.Errorf("open, %s: %v", what, err)
		}
		if err := live.Delete(ctx, bad); !errors.Is(err, admin.ErrNotFound) {
			t.Errorf("delete, %s: %v", what, err)
		}
	}
	if err := live.Delete(ctx, ref); err != nil {
		t.Fatal(err)
	}
	until(t, "the file is gone", func() bool {
		if s.folder == nil {
			_, err := s.store.Size(ctx, storage.Stored{Place: storage.Place{ID: c.Identity().ID, Path: "d"}, Key: ref.Version})
			return errors.Is(err, storage.ErrNotStored)
		}
		_, err := os.Stat(filepath.Join(o.Dir, "files", id, "d"))
		return errors.Is(err, os.ErrNotExist)
	})

	// A client that is disabled is cut, and not served until it is enabled.
	connected := func() bool {
		seen, err := live.Observe(ctx, 10, id)
		if err != nil {
			t.Fatal(err)
		}
		return seen.Connections > 0
	}
	if of, err := live.Disable(ctx, admin.Who{Client: id}, true); err != nil || of != (admin.Who{Client: id, Name: "anna"}) {
		t.Fatal(of, err)
	}
	until(t, "it is cut", func() bool { return !connected() })
	again, err := client.Dial(ctx, client.Options{Server: s.Addr().String(), Retries: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.Reconnect(ctx, c.Identity()); err == nil {
		t.Error("a client that is disabled is served")
	}
	for _, nobody := range []admin.Who{{Client: codec.ClientID{1}.String()}, {Name: "nobody"}} {
		if _, err := live.Disable(ctx, nobody, true); !errors.Is(err, admin.ErrNotFound) || live.Hint(err) == "" {
			t.Errorf("%v: %v", nobody, err)
		}
	}
	disable := func(who admin.Who) error { _, err := live.Disable(ctx, who, true); return err }
	for _, err := range []error{disable(admin.Who{Client: "x"}), disable(admin.Who{}), disable(admin.Who{Client: id, Name: "anna"}), live.End(ctx, "x"), live.Delete(ctx, admin.FileRef{Client: "x"})} {
		if !errors.Is(err, admin.ErrInput) {
			t.Errorf("%v", err)
		}
	}
	if err := live.End(ctx, "127.0.0.1:1@1"); !errors.Is(err, admin.ErrNotFound) {
		t.Errorf("%v", err)
	}
}

// until waits for something to be so.
func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for !so() {
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			t.Fatal("in vain: ", what)
		}
	}
}
