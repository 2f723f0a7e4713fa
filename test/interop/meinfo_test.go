package interop

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"sealift/internal/testpeer"
)

const (
	registering  = "1025 1600 1026 1602 1028 1603 1029 1604"
	reconnecting = "1027 1605 1028 1603 1029 1604"
)

// TestMeInfoOfOthers shows that the peers' me.info has the form that its style promises, and that the other peer and
// sealift take it over as it is.
func TestMeInfoOfOthers(t *testing.T) {
	programs := peers(t)
	if programs == nil {
		return
	}
	forms := map[string]*regexp.Regexp{
		"":            regexp.MustCompile(`^Michael Jackson\n[0-9a-f]{32}\n[^\n]+\n`),
		"nul-padded":  regexp.MustCompile(`^Michael Jackson\x00{240}\n[0-9a-f]{32}\n[^\n]+\n`),
		"upper-case":  regexp.MustCompile(`^Michael Jackson\n[0-9A-F]{32}\n[^\n]+\n`),
		"dashed":      regexp.MustCompile(`^Michael Jackson\n[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\n[^\n]+\n`),
		"crlf":        regexp.MustCompile(`^Michael Jackson\r\n[0-9a-f]{32}\r\n[^\n]+\r\n`),
		"blank-lines": regexp.MustCompile(`^Michael Jackson\n\n[0-9a-f]{32}\n\n[^\n]+\n\n`),
	}
	broken := regexp.MustCompile(`(?m)^[A-Za-z0-9+/]{72}\r?$`)
	for _, writer := range Peers {
		for _, style := range append([]string{""}, MeInfoStyles...) {
			t.Run(string(writer)+" "+style, func(t *testing.T) {
				s := newScene(t, programs, Server{Maker: Python, Dialect: single}, 500)
				first := Client{Maker: writer, Dialect: single}
				if style != "" {
					first.Habits = []string{"--me-info", style}
				}
				s.want(s.send(first), 0, registering)
				before := s.meInfo()
				if !forms[style].Match(before) {
					t.Errorf("me.info %q", before)
				}
				if lines := broken.Match(before); lines != (writer == Cpp) {
					t.Errorf("Base64 in lines of 72: %t", lines)
				}
				for _, reader := range Peers {
					s.want(s.send(Client{Maker: reader, Dialect: single}), 0, reconnecting)
				}
				if got := s.send(Client{Maker: Sealift, Dialect: single, Batch: true}); got.Exit != 0 {
					t.Errorf("sealift: %s", got.Errors)
				}
				s.wantStored()
				if !bytes.Equal(s.meInfo(), before) {
					t.Error("a reader has changed me.info")
				}
				if _, err := os.Stat(filepath.Join(s.dir, "priv.key")); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("priv.key: %v", err)
				}
			})
		}
	}
}

func (s scene) meInfo() []byte {
	s.Helper()
	info, err := os.ReadFile(filepath.Join(s.dir, "me.info"))
	if err != nil {
		s.Fatal(err)
	}
	return info
}

// TestPrivKey shows that sealift, which has to register anew, leaves a client that takes its key from priv.key as able
// to reconnect as one that takes it from me.info. Over TLS, the id that sealift has made is sealift's alone.
func TestPrivKey(t *testing.T) {
	programs := peers(t)
	if programs == nil {
		return
	}
	for _, owner := range Peers {
		t.Run(string(owner), func(t *testing.T) {
			client := Client{Maker: owner, Dialect: spec, Habits: []string{"--priv-key"}}
			s := newScene(t, programs, Server{Maker: Sealift}, 500)
			s.want(s.send(client), 0, registering)
			s.want(s.send(client), 0, reconnecting)
			before := s.meInfo()

			elsewhere, err := programs.Start(t.Context(), Server{Maker: Sealift}, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(elsewhere.Stop)
			s.server = elsewhere // knows nobody
			if got := s.send(Client{Maker: Sealift, Dialect: spec, Batch: true}); got.Exit != 0 {
				t.Fatalf("sealift: %s", got.Errors)
			}
			if bytes.Equal(s.meInfo(), before) {
				t.Error("me.info is still the old one")
			}
			if testpeer.OverTLS() { // the id is pinned to sealift's TLS key, of which the other knows nothing
				s.want(s.send(client), 1, "1027 1607 1027 1607 1027 1607 1027 1607")
				return
			}
			s.want(s.send(client), 0, reconnecting)
			s.wantStored()
		})
	}
}
