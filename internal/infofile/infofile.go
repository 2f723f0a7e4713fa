// Package infofile reads and writes the small text files that configure the
// programs of the protocol: transfer.info and me.info of a client, port.info of
// a server.
//
// The files come from people and from other implementations, so reading is
// tolerant of what editors and other languages leave behind: CRLF, blank lines,
// spaces, a byte order mark, NUL padding. What cannot be understood is an error
// that names the file and the line, and never a reason to delete it.
//
// Replace writes them, and any other small file that must appear whole.
package infofile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// The names of the files, each in the working directory of its program.
const (
	TransferName = "transfer.info"
	MeName       = "me.info"
	PortName     = "port.info"

	// PrivateKeyName is a second copy of the private key that some clients
	// keep beside me.info.
	PrivateKeyName = "priv.key"
)

// DefaultPort is the port of a server that was told no other.
const DefaultPort = 1256

// maxSize bounds what is read of a file, in bytes: a me.info has about 1000.
const maxSize = 64 << 10

// ErrMalformed says that a file does not hold what it should.
var ErrMalformed = errors.New("malformed")

func malformed(path, format string, args ...any) error {
	return fmt.Errorf("%s: %w: %s", path, ErrMalformed, fmt.Sprintf(format, args...))
}

// read returns the whole file. One that is larger than any of its kind is
// malformed.
func read(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return "", err
	}
	if len(b) > maxSize {
		return "", malformed(path, "more than %d bytes", maxSize)
	}
	return decode(b), nil
}

// readRegular is read for a file that we look for ourselves: a pipe of its name
// is none, and not waited for.
func readRegular(path string) (string, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return "", malformed(path, "not a regular file")
	}
	return read(path)
}

// lines splits s at any kind of line end, cuts each line at a NUL, and leaves
// out those with nothing but white space.
func lines(s string) []string {
	var out []string
	for more := s != ""; more; {
		line := s
		end := strings.IndexAny(s, "\r\n")
		if more = end >= 0; more {
			line, s = s[:end], s[end+1:]
		}
		line, _, _ = strings.Cut(line, "\x00")
		if strings.TrimSpace(line) != "" {
			out = append(out, line)
		}
	}
	return out
}

// ReadPort reads a port.info: one number from 1 to 65535. A file that is
// missing gives an error that is fs.ErrNotExist, rubbish one that is
// ErrMalformed; the server warns and takes DefaultPort for either.
func ReadPort(path string) (uint16, error) {
	text, err := read(path)
	if err != nil {
		return 0, err
	}
	text = strings.Trim(text, " \t\r\n\x00")
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return 0, malformed(path, "%.40q is no port from 1 to 65535", text)
	}
	return uint16(port), nil
}

// Transfer is what a transfer.info says.
type Transfer struct {
	Server string // as it stands there: IP:Port
	Name   string // the user's
	Path   string // the file to send, relative to the working directory
}

// ReadTransfer reads a transfer.info: three lines with server, name and path.
// Spaces around each are dropped. The values themselves are not judged. A file
// that is missing gives an error that is fs.ErrNotExist, another number of
// lines one that is ErrMalformed.
func ReadTransfer(path string) (Transfer, error) {
	text, err := read(path)
	if err != nil {
		return Transfer{}, err
	}
	l := lines(text)
	if len(l) != 3 {
		return Transfer{}, malformed(path, "%d lines, not the three of server address, user name and path of the file", len(l))
	}
	return Transfer{
		Server: strings.TrimSpace(l[0]),
		Name:   strings.TrimSpace(l[1]),
		Path:   strings.TrimSpace(l[2]),
	}, nil
}
