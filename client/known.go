package client

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sealift/internal/infofile"
)

// Facts are what was found out about a server.
type Facts struct {
	Codes      Codes         // AutoCodes: not known
	Dialect    Dialect       // Auto: not known
	PacketSize int           // goes with Dialect; 0: what the dialect usually has
	Pause      time.Duration // after each packet, see [Options.Known]; 0: none is needed

	// OnePacket: files of one packet went through, but none of several did yet, and
	// so the dialect is not known: most have the same packet then.
	OnePacket bool

	// Continue says whether the server continues files that were cut.
	Continue Continuing
}

var noFacts = Facts{Codes: AutoCodes, Dialect: Auto}

// KnownServers keeps what was found out about servers between runs.
// [KnownServersFile] is one.
type KnownServers interface {
	// Load returns what is known about a server, host:port; nil if nothing is.
	Load(server string) (*Facts, error)
	// Save keeps facts in the place of what was known about the server. Several
	// processes may do so at once.
	Save(server string, facts Facts) error
}

// KnownServersFile keeps facts in a text file: a line for each server with its
// host:port and the words codes=, dialect=, packet-size=, pause=, one-packet=
// and continue=, and tls= with the fingerprint of its TLS key, as far as they are known. Other words
// and other lines stay as they are. It is a [KnownKeys] as well.
func KnownServersFile(path string) KnownServers { return knownServersFile(path) }

type knownServersFile string

func (f knownServersFile) Load(server string) (*Facts, error) {
	words, err := infofile.ReadKnown(string(f), server)
	if err != nil || words == nil {
		return nil, err
	}
	facts := noFacts
	for _, w := range words {
		// A value that makes no sense is not known.
		switch w.Key {
		case "codes":
			if c, err := ParseCodes(w.Value); err == nil {
				facts.Codes = c
			}
		case "dialect":
			if d, err := ParseDialect(w.Value); err == nil {
				facts.Dialect = d
			}
		case "packet-size":
			if n, err := strconv.Atoi(w.Value); err == nil && n > 0 && int64(n) <= maxBody {
				facts.PacketSize = n
			}
		case "one-packet":
			facts.OnePacket = w.Value == "ok"
		case "continue":
			switch w.Value {
			case ContinueYes.String():
				facts.Continue = ContinueYes
			case ContinueNo.String():
				facts.Continue = ContinueNo
			}
		case "pause":
			if d, err := time.ParseDuration(w.Value); err == nil {
				facts.Pause = min(max(d, 0), pauses[len(pauses)-1])
			}
		}
	}
	if facts.Dialect == Auto || facts.Dialect == Single {
		facts.PacketSize = 0
	}
	return &facts, nil
}

func (f knownServersFile) Save(server string, facts Facts) error {
	word := func(key, value string, known bool) infofile.Word {
		if !known {
			value = ""
		}
		return infofile.Word{Key: key, Value: value}
	}
	return infofile.WriteKnown(string(f), server,
		word("codes", facts.Codes.String(), facts.Codes != AutoCodes),
		word("dialect", facts.Dialect.String(), facts.Dialect != Auto),
		word("packet-size", strconv.Itoa(facts.PacketSize), facts.PacketSize > 0),
		word("one-packet", "ok", facts.OnePacket),
		word("continue", facts.Continue.String(), facts.Continue != ContinueUnknown),
		word("pause", fmt.Sprintf("%gms", facts.Pause.Seconds()*1e3), facts.Pause > 0))
}

// tlsWord is the word with a server's TLS key.
const tlsWord = "tls"

func (f knownServersFile) LoadKey(server string) (Fingerprint, error) {
	values, err := infofile.KnownValues(string(f), server, tlsWord)
	switch {
	case errors.Is(err, syscall.ENOTDIR):
		return Fingerprint{}, nil // there is no such file
	case err != nil:
		return Fingerprint{}, err
	case len(values) == 0:
		return Fingerprint{}, nil
	case len(values) > 1:
		return Fingerprint{}, fmt.Errorf("%s: %s has several keys, tls=%s", string(f), server, strings.Join(values, " and tls="))
	}
	key, err := ParseFingerprint(values[0])
	if err != nil {
		return Fingerprint{}, fmt.Errorf("%s: the line of %s: tls=: %w", string(f), server, err)
	}
	return key, nil
}

func (f knownServersFile) SaveKey(server string, key, old Fingerprint) error {
	before := ""
	if !old.IsZero() {
		before = old.String()
	}
	return infofile.ChangeKnown(string(f), server, infofile.Word{Key: tlsWord, Value: key.String()}, before)
}

// nothingKnown keeps nothing.
type nothingKnown struct{}

func (nothingKnown) Load(string) (*Facts, error) { return nil, nil }
func (nothingKnown) Save(string, Facts) error    { return nil }

// pauses are those after a packet, from one failure to the next: for servers
// that read once and take what comes for a message. At 1 MB the second is
// enough for one that was met, the last for another.
var pauses = [...]time.Duration{0, 300 * time.Microsecond, 2500 * time.Microsecond, 20 * time.Millisecond}

// longer returns the pause n steps up from d.
func longer(d time.Duration, n int) time.Duration {
	i := 0
	for i < len(pauses)-1 && pauses[i] < d {
		i++
	}
	return max(pauses[min(i+n, len(pauses)-1)], d)
}
