package interop

import (
	"os"
	"strings"
	"testing"
)

// TestFieldClients shows that the clients are as strict as those that were met: where a server gives the size of the
// file in the 1603, they end, and a server of the documents does not take their numbers.
func TestFieldClients(t *testing.T) {
	programs := peers(t)
	if programs == nil {
		return
	}
	for _, maker := range Peers {
		s := newScene(t, programs, Server{Maker: Sealift}, 2500)
		// The codes are those whose 1603 has the size of the file.
		transcript := s.send(Client{Maker: maker, Dialect: spec, Habits: []string{"--check-size"}})
		s.want(transcript, 1, "1025 1600 1026 1602 1028x3 1603")
		if !strings.Contains(transcript.Errors, "Content Size") {
			t.Errorf("%s: %s", maker, transcript.Errors)
		}
		for _, habit := range []string{"--swapped", "--no-total"} {
			size := 2500
			if habit == "--no-total" {
				size = 0
			}
			s := newScene(t, programs, Server{Maker: Python, Dialect: spec}, size)
			transcript := s.send(Client{Maker: maker, Dialect: spec, Habits: []string{habit}})
			if transcript.Exit == 0 {
				t.Errorf("%s %s: a server of the documents takes it", maker, habit)
			}
		}
	}
}

// TestBigEndianClient shows what such a client gets, and what the operator reads.
func TestBigEndianClient(t *testing.T) {
	programs := peers(t)
	if programs == nil {
		return
	}
	for _, maker := range Peers {
		for _, habits := range [][]string{{"--big-endian"}, {"--big-endian", "--later-codes"}} {
			s := newScene(t, programs, Server{Maker: Sealift}, 500)
			transcript := s.send(Client{Maker: maker, Dialect: spec, Habits: habits})
			if transcript.Exit != 1 || strings.Count(transcript.Output, "sent") > 2 || !strings.Contains(transcript.Output, "received 1607") {
				t.Errorf("%s %s: status %d after %s", maker, habits, transcript.Exit, transcript.Codes())
			}
			s.server.Stop()
			log := s.server.stderr.String()
			if n := strings.Count(log, "big-endian"); n != 1 || strings.Contains(log, "unknown code") {
				t.Errorf("%s %s: the log says it %d times:\n%s", maker, habits, n, log)
			}
			if _, err := os.Stat(s.dir + "/me.info"); err == nil {
				t.Errorf("%s %s: the client is registered", maker, habits)
			}
		}
	}
}
