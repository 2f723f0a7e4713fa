package interop

import (
	"encoding/json"
	"errors"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"sealift/client/conform"
)

// patience is what conform waits for a reply: much longer than one takes, for some rules are about none.
const patience = "10s"

// conform runs sealift conform, and fails the test unless its status tells what its report does.
func (p *Programs) conform(t *testing.T, addr string) conform.Report {
	t.Helper()
	var report conform.Report
	run := exec.CommandContext(t.Context(), p.sealift, "conform", "--json", "--timeout", patience, addr)
	run.Env = clientEnvironment(t.TempDir())
	output, err := run.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Error(err)
		return report
	}
	if err := json.Unmarshal(output, &report); err != nil {
		t.Errorf("conform: %v: %s", err, exit.Stderr)
		return report
	}
	if passed := report.Passed(); passed != (exit == nil) {
		t.Errorf("conform: %v, although all rules pass: %t", err, passed)
	}
	return report
}

// rules are the names of those with that status.
func rules(report conform.Report, status conform.Status) map[string]bool {
	names := map[string]bool{}
	for _, result := range report.Results {
		if result.Status == status {
			names[result.Rule] = true
		}
	}
	return names
}

// plantedFault is a server that conform is to find out.
type plantedFault struct {
	server Server
	rules  []string // that name the fault, and must fail; no other may
	more   bool     // others build on what fails, and need not be tried
}

func plant(rules string, quirks ...string) plantedFault {
	return plantedFault{server: Server{Quirks: quirks}, rules: strings.Fields(rules)}
}

// andMore says that there are rules that build on those that fail.
func (f plantedFault) andMore() plantedFault {
	f.more = true
	return f
}

// lenient are the rules that the peers break without any quirk, for they trust their clients as most of the field does.
var lenient = []string{
	"name-malformed", "version", "wrong-size", "orig-size", "abort-removes", "verified-unknown",
	"key-pinned", "reconnect-name", "order-register-twice", "order-other-id",
}

func (f plantedFault) String() string { return f.server.String() }

// check runs conform on the server and compares. The rules in broken fail without the fault.
func (f plantedFault) check(t *testing.T, programs *Programs, broken []string) {
	server, err := programs.Start(t.Context(), f.server, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	report := programs.conform(t, server.AddrFor(Sealift))
	if len(report.Results) != len(conform.Rules()) {
		t.Errorf("%d rules, want %d", len(report.Results), len(conform.Rules()))
	}
	failed, untried := rules(report, conform.Fail), rules(report, conform.NotTried)
	for _, rule := range f.rules {
		if !failed[rule] {
			t.Errorf("%s does not fail", rule)
		}
	}
	for _, rule := range broken {
		if len(f.rules) == 0 && !failed[rule] {
			t.Errorf("%s does not fail", rule)
		}
		delete(untried, rule)
	}
	for rule := range failed {
		if !slices.Contains(f.rules, rule) && !slices.Contains(broken, rule) {
			t.Errorf("%s fails", rule)
		}
	}
	if len(untried) > 0 && !f.more {
		t.Errorf("not tried: %q", slices.Sorted(maps.Keys(untried)))
	}
	if report.Use != "spec" && !f.more {
		t.Errorf("use %q, want %q", report.Use, "spec")
	}
}

// severally runs subtests, more at a time than there are processors: conform mostly waits for replies that never come.
func severally[T any](t *testing.T, all []T, name func(T) string, test func(*testing.T, T)) {
	var group sync.WaitGroup
	slots := make(chan struct{}, 16)
	for _, each := range all {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			t.Run(name(each), func(t *testing.T) { test(t, each) })
		})
	}
	group.Wait()
}

// TestConformFindsQuirks shows that each quirk of the peers' servers is found by the rule that names it, and that no
// other rule complains that does not complain without the quirk.
func TestConformFindsQuirks(t *testing.T) {
	programs := peers(t)
	if programs == nil {
		return
	}
	faults := []plantedFault{
		{},
		plant("payload-size", "header-size-0"),
		plant("payload-size", "header-size-255"),
		plant("mismatch", "ack-1030"),
		plant("stays-open", "close-after-1604"),
		plant("transfer-size", "crc-size-ciphertext"),
		plant("transfer-size", "crc-size-last-packet"),
		plant("reconnect-unknown reconnect-no-key", "empty-1606").andMore(),
		plant("reconnect-unknown reconnect-no-key", "new-id-1606"),
		plant("any-pieces", "needs-one-write"),
		plant("", "later-codes"), // it is tried in its own edition
		plant("transfer", "spoil-crc=1"),
		plant("transfer", "spoil-crc=-1").andMore(),
		plant("transfer", "error=1028:1"),
		plant("transfer", "drop=1029:1"),
		plant("reconnect", "reject=1"),
	}
	var all []plantedFault
	for _, maker := range Peers {
		for _, fault := range faults {
			fault.server.Maker, fault.server.Dialect = maker, spec
			all = append(all, fault)
		}
	}
	severally(t, all, plantedFault.String, func(t *testing.T, f plantedFault) { f.check(t, programs, lenient) })
}

// TestConformFindsFaults shows the same of sealiftd serve --fault, and that all rules pass without.
func TestConformFindsFaults(t *testing.T) {
	programs := sealift(t)
	t.Parallel()
	faults := []plantedFault{
		{},
		plant("", "delay=20ms"),
		plant("transfer", "crc=1"),
		plant("transfer", "crc=-1").andMore(),
		plant("reconnect", "reject=1"),
		plant("reconnect", "reject=-1").andMore(),
		plant("register", "error=1025:1"),
		plant("register", "drop=1025:1"),
		plant("register", "error=1025:-1").andMore(),
		plant("key-exchange", "error=1026:1"),
		plant("key-exchange", "drop=1026:1"),
		plant("key-exchange", "error=1026:-1").andMore(),
		plant("reconnect", "error=1027:1"),
		plant("reconnect", "drop=1027:1"),
		plant("transfer", "error=1028:1"),
		plant("transfer", "drop=1028:1"),
		plant("transfer", "error=1028:-1").andMore(),
		plant("transfer", "error=1029:1"),
		plant("transfer", "drop=1029:1"),
		plant("mismatch", "error=1030:1"),
		plant("mismatch", "drop=1030:1"),
		plant("abort", "error=1031:1"),
		plant("abort", "drop=1031:1"),
		plant("transfer reconnect abort", "crc=1", "reject=1", "drop=1031:1"),
	}
	for i := range faults {
		faults[i].server.Maker = Sealift
	}
	severally(t, faults, plantedFault.String, func(t *testing.T, f plantedFault) { f.check(t, programs, nil) })
}

// TestConformNamesTheDialect shows that conform tells which dialects a server takes and which to use: sealift reaches
// the server with those, and with no other.
func TestConformNamesTheDialect(t *testing.T) {
	programs := peers(t)
	if programs == nil {
		return
	}
	// Besides their own: the same bytes, or the same but for the size of a packet.
	alsoTaken := map[string][]string{
		"spec":            {"spec 1024", "single"},
		"per-packet 4096": {"per-packet 4000", "single"},
		"per-packet 4000": {"per-packet 4096", "single"},
		"packet-size":     {"single"},
	}
	use := map[string]string{"per-packet 4000": "per-packet 4096"} // the first that is taken
	servers := []Server{{Maker: Sealift}}
	for _, maker := range Peers {
		for _, dialect := range Dialects {
			servers = append(servers, Server{Maker: maker, Dialect: dialect})
		}
	}
	severally(t, servers, Server.String, func(t *testing.T, server Server) {
		s := newScene(t, programs, server, 150_001)
		report := programs.conform(t, s.server.AddrFor(Sealift))
		if len(report.Dialects) != len(Dialects)+1 { // spec in packets of 1024, too
			t.Errorf("%d dialects, want %d", len(report.Dialects), len(Dialects)+1)
		}
		own := server.Dialect.String()
		wantUse := own
		if u, ok := use[own]; ok {
			wantUse = u
		}
		if server.Maker == Sealift {
			wantUse = "spec"
		}
		if got := (Dialect{report.Use, report.UsePacketSize}).String(); got != wantUse {
			t.Errorf("use %q, want %q", got, wantUse)
		}
		for _, result := range report.Dialects {
			dialect := Dialect{result.Dialect, result.PacketSize}
			taken := server.Maker == Sealift || dialect == server.Dialect || slices.Contains(alsoTaken[own], dialect.String())
			if result.Taken != taken {
				t.Errorf("takes %s: %t, want %t: %s", dialect, result.Taken, taken, result.Problem)
			}
			transcript := s.send(Client{Maker: Sealift, Dialect: dialect})
			switch {
			case taken:
				if transcript.Exit != 0 {
					t.Errorf("%s: %s", dialect, transcript.Errors)
				}
				s.wantStored()
			case transcript.Exit != 1 && transcript.Exit != 75 || !strings.Contains(transcript.Errors, "Fatal error: message 1028 send file"):
				t.Errorf("sealift %s: status %d: %s", dialect, transcript.Exit, transcript.Errors)
			}
		}
	})
}
