package infofile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"
)

// KnownName is the file that keeps what a client has found out about servers.
// Each line is a server, host:port, and words of the form key=value behind it,
// with spaces between. Empty lines, lines that begin with # and lines that make
// no sense are passed over, and stay when the file is written.
const KnownName = "known_servers"

// maxKnown bounds a known_servers, in bytes: some ten thousand servers.
const maxKnown = 1 << 20

// lockPatience is how long a process waits for others that write the file.
const lockPatience = 5 * time.Second

// KnownPath returns where the known_servers of this user is: in the folder
// sealift of the user's configuration directory, or in the folder beside where
// the system has no such directory.
func KnownPath(beside string) string {
	if dir, err := os.UserConfigDir(); err == nil {
		return filepath.Join(dir, "sealift", KnownName)
	}
	return filepath.Join(beside, KnownName)
}

// A Word is what a known_servers says about a server.
type Word struct{ Key, Value string }

// ReadKnown returns what the file at path says about server, host:port; nothing
// if there is no such file. Of several lines for a server the first counts.
func ReadKnown(path, server string) ([]Word, error) {
	text, err := readKnown(path)
	if err != nil {
		return nil, err
	}
	return wordsOf(text, server), nil
}

// KnownValues returns what the file at path gives for one key of server, host:port, in
// all lines of the server, also in those that make no sense otherwise: for a key that must
// not be overlooked.
func KnownValues(path, server, key string) ([]string, error) {
	text, err := readKnown(path)
	if err != nil {
		return nil, err
	}
	var values []string
	for line := range strings.Lines(text) {
		fields := strings.Fields(strings.TrimPrefix(line, "\ufeff"))
		if len(fields) == 0 || !strings.EqualFold(fields[0], server) {
			continue
		}
		for _, field := range fields[1:] {
			if k, value, _ := strings.Cut(field, "="); k == key && !slices.Contains(values, value) {
				values = append(values, value)
			}
		}
	}
	return values, nil
}

// wordsOf returns the words of the first line of server in text.
func wordsOf(text, server string) []Word {
	for line := range strings.Lines(text) {
		if s, words, ok := parseKnown(line); ok && strings.EqualFold(s, server) {
			return words
		}
	}
	return nil
}

func readKnown(path string) (string, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxKnown+1))
	if err != nil {
		return "", err
	}
	if len(b) > maxKnown {
		return "", malformed(path, "more than %d bytes", maxKnown)
	}
	return decode(b), nil // lines in UTF-16 would be nobody's, and a key in them unknown
}

// parseKnown takes a line apart. ok is false for one that is no server's.
func parseKnown(line string) (server string, words []Word, ok bool) {
	line = strings.TrimRight(strings.TrimPrefix(line, "\ufeff"), "\r\n")
	if strings.ContainsFunc(line, func(r rune) bool { return r != '\t' && (unicode.IsControl(r) || r == unicode.ReplacementChar) }) {
		return "", nil, false
	}
	fields := strings.Fields(line)
	if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
		return "", nil, false
	}
	if _, _, err := net.SplitHostPort(fields[0]); err != nil {
		return "", nil, false
	}
	for _, field := range fields[1:] {
		key, value, found := strings.Cut(field, "=")
		if !found || key == "" {
			return "", nil, false
		}
		words = append(words, Word{key, value})
	}
	return fields[0], words, true
}

// ErrNotKept says that a known_servers keeps nothing: its path is there and is no
// regular file, such as /dev/null.
var ErrNotKept = errors.New("it keeps nothing, since it is no regular file")

// ErrOtherWord says that a word has another value than it was believed to have.
var ErrOtherWord = errors.New("another process has written something else there meanwhile")

// WriteKnown sets words in the line of server, host:port, and makes the file
// and the line where there are none. A word with an empty value is taken out.
// Everything else in the file stays. Processes that write at the same time wait
// for each other, so that none loses what another has written; the file is
// replaced as a whole. A path that is there and is no regular file, such as
// /dev/null, is left alone.
func WriteKnown(path, server string, words ...Word) error {
	err := updateKnown(path, server, words, nil)
	if errors.Is(err, ErrNotKept) {
		return nil
	}
	return err
}

// ChangeKnown is WriteKnown of one word, where that has the value old; empty: where
// it is not there. Otherwise the error is an ErrOtherWord, and nothing changes. A
// file that keeps nothing is an ErrNotKept.
func ChangeKnown(path, server string, word Word, old string) error {
	return updateKnown(path, server, []Word{word}, func(have []Word) error {
		for _, w := range have {
			if w.Key == word.Key {
				if w.Value != old && w.Value != word.Value {
					return fmt.Errorf("%s: %w: %s=%s", path, ErrOtherWord, w.Key, w.Value)
				}
				return nil
			}
		}
		if old != "" {
			return fmt.Errorf("%s: %w: no %s=", path, ErrOtherWord, word.Key)
		}
		return nil
	})
}

// updateKnown writes words, unless check, which is asked about those that are
// there and may be nil, returns an error.
func updateKnown(path, server string, words []Word, check func(have []Word) error) error {
	path, err := Follow(path) // a link is to stay one
	if err != nil {
		return err
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s: %w", path, ErrNotKept)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), lockPatience)
	defer cancel()
	unlock, err := Lock(ctx, path)
	if err != nil {
		return err
	}
	defer unlock()
	old, err := readKnown(path)
	if err != nil {
		return err
	}
	if check != nil {
		if err := check(wordsOf(old, server)); err != nil {
			return err
		}
	}
	text := mergeKnown(old, server, words)
	if text == old {
		return nil
	}
	if len(text) > maxKnown {
		return fmt.Errorf("%s: it would have more than %d bytes", path, maxKnown)
	}
	return Replace(path, []byte(text), 0o600)
}

// mergeKnown returns text with the words in the first line of server.
func mergeKnown(text, server string, words []Word) string {
	var out strings.Builder
	done := false
	for line := range strings.Lines(text) {
		s, have, ok := parseKnown(line)
		if done || !ok || !strings.EqualFold(s, server) {
			out.WriteString(line)
			continue
		}
		done = true
		out.WriteString(knownLine(s, mergeWords(have, words)))
	}
	if !done {
		if text != "" && !strings.HasSuffix(text, "\n") {
			out.WriteByte('\n')
		}
		out.WriteString(knownLine(server, mergeWords(nil, words)))
	}
	return out.String()
}

func mergeWords(have, set []Word) []Word {
	var all []Word
	seen := map[string]bool{}
	for _, w := range have {
		for _, s := range set {
			if s.Key == w.Key {
				w.Value = s.Value
			}
		}
		if !seen[w.Key] && w.Value != "" {
			all = append(all, w)
		}
		seen[w.Key] = true
	}
	for _, s := range set {
		if !seen[s.Key] && s.Value != "" {
			all = append(all, s)
		}
	}
	return all
}

func knownLine(server string, words []Word) string {
	line := server
	for _, w := range words {
		line += " " + w.Key + "=" + w.Value
	}
	return line + "\n"
}
