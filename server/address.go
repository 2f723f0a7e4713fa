package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"sealift/internal/infofile"
)

// addressName is the file in a server's directory that says where its API is.
const addressName = "admin.info"

// Address is where the API of a server is, for commands on the same machine.
type Address struct {
	URL       string `json:"url"`
	TokenFile string `json:"token_file,omitempty"`
	Cert      string `json:"cert,omitempty"` // the file of the certificate that the address shows; "": it is plain
}

// ErrNoAddress says that no server with an API has a directory, as far as that tells.
var ErrNoAddress = errors.New("no server with an admin address has the directory")

// FindAddress returns what the server that has dir has written of its API. It may be that
// of one that was killed.
func FindAddress(dir string) (a Address, err error) {
	if err := checkDir(dir); err != nil {
		return a, err
	}
	path := filepath.Join(dir, addressName)
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return a, &Hinted{Err: fmt.Errorf("%s: %w", dir, ErrNoAddress), Hint: "Start it with --admin and --admin-token-file, or say where another server is: --api URL."}
	case errors.Is(err, fs.ErrPermission):
		return a, &Hinted{Err: err, Hint: "Run this as the user that the server runs as."}
	case err != nil:
		return a, err
	}
	if err := json.Unmarshal(text, &a); err != nil {
		return a, fmt.Errorf("%s: %w", path, err)
	}
	return a, nil
}

// writeAddress writes where the API is, and removes what another server has left if there
// is none.
func (s *Server) writeAddress() error {
	path := filepath.Join(s.o.Dir, addressName)
	w := s.watched
	if w == nil {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	at := *w.server.Addr()
	switch {
	case !at.IP.IsUnspecified():
	case at.IP.To4() != nil:
		at.IP = net.IPv4(127, 0, 0, 1)
	default:
		at.IP = net.IPv6loopback
	}
	a := Address{URL: "http://" + at.String()}
	var err error
	if !at.IP.IsLoopback() || !w.server.Addr().IP.IsLoopback() {
		a.URL = "https://" + at.String()
		if a.Cert, err = filepath.Abs(s.tls.o.Cert); err != nil {
			return err
		}
	}
	if s.o.Admin.TokenFile != "" {
		if a.TokenFile, err = filepath.Abs(s.o.Admin.TokenFile); err != nil {
			return err
		}
	}
	text, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return infofile.Replace(path, append(text, '\n'), 0o600)
}

// removeAddress removes what writeAddress has written. A file that stays does no harm.
func (s *Server) removeAddress() {
	if s.watched != nil && s.watched.server != nil {
		_ = os.Remove(filepath.Join(s.o.Dir, addressName))
	}
}
