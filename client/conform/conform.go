// Package conform tries the rules of the protocol on a server: one short
// session per rule, with correct and with wrong messages, each reply compared
// byte by byte with what docs/PROTOCOL.md says. It needs nothing but the
// server's address, and leaves clients named "conform-…" and some small files
// with it.
package conform

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"net"
	"time"

	"sealift/client"
	"sealift/crypto/keys"
)

// Status is what became of a rule.
type Status string

const (
	Pass Status = "pass"
	Fail Status = "fail"
	// NotTried: what the rule builds on does not work; another rule fails.
	NotTried Status = "not tried"
)

// Rule is something that docs/PROTOCOL.md says about servers.
type Rule struct {
	Name    string // short and stable: "register-taken"
	Section string // of docs/PROTOCOL.md
	Text    string // what the server does

	try func(*probe) error
}

// Result is what became of a rule on a server.
type Result struct {
	Rule    string `json:"rule"`
	Section string `json:"section"` // of docs/PROTOCOL.md
	Text    string `json:"text"`
	Status  Status `json:"status"`
	// Problem says why, unless the rule passes, and Log what went to and fro up
	// to there.
	Problem string  `json:"problem,omitempty"`
	Log     []Entry `json:"log,omitempty"`
}

// Entry is a message, or the beginning or end of a connection.
type Entry struct {
	Connection int    `json:"connection"` // 1, 2, … within the rule
	Direction  string `json:"direction"`  // ">" to the server, "<" from it, "-" neither
	What       string `json:"what"`
	// Hex has the bytes; 00*250 stands for 250 bytes of 00. Of a long message
	// it has the beginning.
	Hex string `json:"hex,omitempty"`
}

// DialectResult says whether the server takes a dialect.
type DialectResult struct {
	Dialect    string `json:"dialect"`
	PacketSize int    `json:"packet_size"` // 0: the dialect's default
	Taken      bool   `json:"taken"`
	Problem    string `json:"problem,omitempty"`
}

// Report is what Run found.
type Report struct {
	Server   string          `json:"server"`
	Results  []Result        `json:"rules"`
	Dialects []DialectResult `json:"dialects"`
	// Use is the first dialect that the server takes; empty if there is none.
	Use string `json:"use"`
	// UsePacketSize goes with it; 0: the dialect's default.
	UsePacketSize int `json:"use_packet_size"`
}

// Count returns how many rules have that status.
func (r *Report) Count(s Status) (n int) {
	for _, res := range r.Results {
		if res.Status == s {
			n++
		}
	}
	return n
}

// Options say which server, and how.
type Options struct {
	Server string // host:port, as for package client
	// Timeout is how long the server may take for a reply; default: 5 s.
	Timeout time.Duration
	// DialContext makes the connections; default: that of a net.Dialer.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
	// Progress is told each result as soon as it is known; may be nil.
	Progress func(Result)
}

// Rules returns all rules, in the order in which they are tried: those that
// others build on come first, so that what happens only once is found by the
// rule that names it.
func Rules() []Rule {
	var all []Rule
	for _, group := range [][]Rule{registerRules, headerRules, keyRules, transferRules, packetRules, verdictRules, reconnectRules, orderRules, sizeRules} {
		all = append(all, group...)
	}
	return all
}

const defaultTimeout = 5 * time.Second

// Run tries all rules. It returns an error, and no report, if the server cannot
// be reached or ctx ends.
func Run(ctx context.Context, o Options) (*Report, error) {
	address, err := client.ServerAddress(o.Server)
	if err != nil {
		return nil, err
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.DialContext == nil {
		o.DialContext = new(net.Dialer).DialContext
	}
	s := &subject{o: o, address: address, broken: map[string]bool{}}
	if s.key, err = keys.Generate(); err != nil {
		return nil, err
	}
	if s.otherKey, err = keys.Generate(); err != nil {
		return nil, err
	}
	s.prefix = "conform-" + rand.Text()[:8]

	nc, err := s.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	nc.Close()
	report := &Report{Server: address}
	for _, rule := range Rules() {
		var result Result
		if rule.Name == basicTransfer {
			result = s.survey(ctx, rule, report)
		} else {
			result = s.try(ctx, rule)
		}
		s.broken[rule.Name] = result.Status != Pass
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		report.Results = append(report.Results, result)
		if o.Progress != nil {
			o.Progress(result)
		}
	}
	return report, nil
}

// subject is the server under test and what all rules share.
type subject struct {
	o        Options
	address  string
	prefix   string // of all names: another run has another
	names    int
	key      *rsa.PrivateKey // of the clients: making one takes longer than a rule
	otherKey *rsa.PrivateKey

	dialect    client.Dialect // the first that the server takes
	packetSize int

	broken map[string]bool // rules that do not pass
}

// The rules that others build on. Where one does not pass, its failures in the
// others are not theirs.
const (
	basicRegister  = "register"
	basicKey       = "key-exchange"
	basicTransfer  = "transfer"
	basicReconnect = "reconnect"
)

// failure is err, or a prerequisite of it if the basic rule does not pass.
func (s *subject) failure(basic string, err error) error {
	if err != nil && s.broken[basic] {
		return prerequisite{err}
	}
	return err
}

func (s *subject) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.sendTimeout())
	defer cancel()
	return s.o.DialContext(ctx, "tcp", s.address)
}

// sendTimeout is for what depends on the network rather than on the server's
// thinking: making a connection, and writing.
func (s *subject) sendTimeout() time.Duration { return max(s.o.Timeout, defaultTimeout) }

// freshName returns a user name that nobody has yet.
func (s *subject) freshName() string {
	s.names++
	return fmt.Sprintf("%s-%d", s.prefix, s.names)
}

func (s *subject) try(ctx context.Context, rule Rule) Result {
	p := &probe{subject: s, ctx: ctx}
	defer p.close()
	defer context.AfterFunc(ctx, p.close)()
	return p.result(rule, rule.try(p))
}

func (p *probe) result(rule Rule, err error) Result {
	r := Result{Rule: rule.Name, Section: rule.Section, Text: rule.Text, Status: Pass}
	if err != nil {
		r.Status, r.Problem, r.Log = Fail, err.Error(), p.log
		if errors.As(err, new(prerequisite)) {
			r.Status = NotTried
		}
	}
	return r
}

type candidate struct {
	dialect    client.Dialect
	packetSize int // 0: the dialect's default
}

// candidates are the dialects and packet sizes that servers in the field want.
var candidates = []candidate{
	{client.Spec, 0},
	{client.Padded, 1024},
	{client.Padded, 65269},
	{client.ZeroBased, 1024},
	{client.ZeroBasedShort, 0},
	{client.PerPacket, 4096},
	{client.PerPacket, 4000},
	{client.PacketSize, 0},
	// Last, because most others take it too, and have to hold the whole file.
	{client.Single, 0},
}

// surveySize is several packets in each dialect but single and padded 65269,
// and no multiple of anything.
const surveySize = 150_001

// survey tries the dialects, chooses the one for the rules to come, and then
// tries rule, the basic transfer. A server that fails in the first dialect and
// takes it later fails rule, with what happened the first time.
func (s *subject) survey(ctx context.Context, rule Rule, report *Report) Result {
	var first Result
	chosen := -1
	for i, c := range candidates {
		result := s.tryDialect(ctx, rule, c)
		if i == 0 {
			first = result
		}
		taken := result.Status == Pass
		if taken && chosen < 0 {
			chosen = i
		}
		report.Dialects = append(report.Dialects, DialectResult{c.dialect.String(), c.packetSize, taken, result.Problem})
	}
	if chosen != 0 && s.tryDialect(ctx, rule, candidates[0]).Status == Pass {
		report.Dialects[0].Taken, report.Dialects[0].Problem = true, ""
		s.choose(0, report)
		return first
	}
	if chosen < 0 {
		return first
	}
	s.choose(chosen, report)
	return s.try(ctx, rule)
}

func (s *subject) choose(i int, report *Report) {
	s.dialect, s.packetSize = candidates[i].dialect, candidates[i].packetSize
	report.Use, report.UsePacketSize = s.dialect.String(), s.packetSize
}

// tryDialect sends a file in a dialect. It is taken if the server gets the
// checksum right.
func (s *subject) tryDialect(ctx context.Context, rule Rule, c candidate) Result {
	rule.try = func(p *probe) error {
		l, id, err := p.ready()
		if err != nil {
			return err
		}
		return l.transfer(id, c.dialect, c.packetSize, "dialect.bin", content(surveySize))
	}
	return s.try(ctx, rule)
}

// content makes a file of n bytes.
func content(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i + i>>8*31)
	}
	return b
}
