package server

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"

	"sealift/codec"
	"sealift/storage"
	"sealift/storage/sqlite"
)

// A server that cannot serve clients which are pinned to a TLS key, or that they do not
// know any more, says so when it starts, and no other does.
func TestWarningOfPinnedClients(t *testing.T) {
	for _, tc := range []struct {
		name   string
		pinned bool
		made   bool // the server makes a key
		set    func(o *Options)
		want   string
	}{
		{"as before", true, false, func(*Options) {}, ""},
		{"another key", true, true, func(*Options) {}, "refuse the one that was made"},
		{"a first key", false, true, func(*Options) {}, ""},
		{"off", true, false, func(o *Options) { o.TLS.Mode = tlsOff }, "--tls off serves no client"},
		{"off, and nobody is pinned", false, false, func(o *Options) { o.TLS.Mode = tlsOff }, ""},
		{"any", true, false, func(o *Options) { o.TLS.Clients = clientsAny }, "--tls-clients asks for no key"},
		{"any, and nobody is pinned", false, false, func(o *Options) { o.TLS.Clients = clientsAny }, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o, logged := tlsOptions(t.TempDir())
			reg, err := sqlite.Open(t.Context(), filepath.Join(o.Dir, DatabaseName), sqlite.Options{})
			if err != nil {
				t.Fatal(err)
			}
			plain := &storage.AddClient{ID: codec.ClientID{1}, Name: "plain"}
			pinned := &storage.AddClient{ID: codec.ClientID{2}, Name: "pinned"}
			if tc.pinned {
				pinned.TLSKey = make([]byte, 32)
			}
			if err := errors.Join(reg.Apply(t.Context(), []storage.Operation{plain, pinned}), plain.Err, pinned.Err, reg.Close()); err != nil {
				t.Fatal(err)
			}
			if !tc.made {
				if _, err := makePair(o.Dir, testNow); err != nil {
					t.Fatal(err)
				}
			}
			tc.set(&o)
			open(t, o)
			warned := logged.FilterLevelExact(zap.WarnLevel).FilterField(zap.Int("pinned", 1)).All()
			if (len(warned) == 1) != (tc.want != "") || len(warned) == 1 && !strings.Contains(warned[0].Message, tc.want) {
				t.Errorf("warned %v, want %q", warned, tc.want)
			}
		})
	}
}

// A server on a backup refuses whom the first one refused: clients stay pinned.
func TestBackupKeepsPins(t *testing.T) {
	o, _ := tlsOptions(t.TempDir())
	s := open(t, o)
	add := &storage.AddClient{ID: codec.ClientID{1}, Name: "pinned", TLSKey: bytes.Repeat([]byte{7}, 32)}
	if err := errors.Join(s.registry.Apply(t.Context(), []storage.Operation{add}), add.Err); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "copy")
	if err := Backup(t.Context(), Stores{Dir: o.Dir}, to, func(int64, int64) {}, func(File, error) {}); err != nil {
		t.Fatal(err)
	}
	o.Dir = to
	copied := open(t, o)
	for by, want := range map[string]error{"": storage.ErrPinned, string(add.TLSKey): nil} {
		get := &storage.GetClient{Outcome: storage.Outcome{By: storage.OverChannel([]byte(by))}, ID: add.ID}
		if err := copied.registry.Apply(t.Context(), []storage.Operation{get}); err != nil || !errors.Is(get.Err, want) {
			t.Errorf("over the key %x: %v, %v, want %v", by, err, get.Err, want)
		}
	}
}
