// Package conform tries the rules of the protocol on a server: one short
// session per rule, with correct and with wrong messages, each reply compared
// byte by byte with what docs/PROTOCOL.md says. It needs nothing but the
// server's address, and leaves clients named "conform…" and some small files
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

	"github.com/google/uuid"

	"sealift/client"
	"sealift/codec"
	"sealift/crypto/keys"
)

// Status is what became of a rule.
type Status string

const (
	Pass Status = "pass"
	Fail Status = "fail"
	// NotTried: what the rule builds on does not work; another rule fails.
	NotTried Status = "not tried"
	// NotOffered: the rule is about something that a server need not have, and this one
	// has it not.
	NotOffered Status = "not offered"
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
	PacketSize int    `json:"packet_size_bytes"` // 0: the dialect's default
	Taken      bool   `json:"taken"`
	Problem    string `json:"problem,omitempty"`
}

// Report is what Run found.
type Report struct {
	Server   string          `json:"server"`
	TLS      bool            `json:"tls,omitempty"` // connections were protected
	Results  []Result        `json:"rules"`
	Dialects []DialectResult `json:"dialects"`
	// Codes is how the server numbers requests: 1025 or 825.
	Codes string `json:"codes"`
	// Use is the first dialect that the server takes; empty if there is none.
	Use string `json:"use"`
	// UsePacketSize goes with it; 0: the dialect's default.
	UsePacketSize int `json:"use_packet_size_bytes"`
	// Slowly says that the server takes files only if there is a pause after each
	// packet.
	Slowly bool `json:"slowly,omitempty"`
	// GoneSince is the rule, or the dialect, since which the server cannot be
	// reached or does not answer any more; empty if all rules were tried.
	GoneSince string `json:"gone_since,omitempty"`
}

// Passed reports whether the server does all that the rules say, of what it offers.
func (r *Report) Passed() bool {
	return r.Count(Pass)+r.Count(NotOffered) == len(r.Results)
}

// Tried returns how many rules are about something that the server offers.
func (r *Report) Tried() int { return len(r.Results) - r.Count(NotOffered) }

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
	// Codes says how the server numbers requests; with [client.AutoCodes] that is
	// found out if the first rule fails.
	Codes client.Codes
	// TLS and Known say whether connections are protected, as for package client. No
	// client certificate is shown.
	TLS   client.TLS
	Known client.KnownServers
	// Timeout is how long the server may take for a reply; default: 5 s.
	Timeout time.Duration
	// DialContext makes the connections; default: that of a net.Dialer.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
	// Progress is told each result as soon as it is known; may be nil.
	Progress func(Result)
}

// Rules returns all rules, in the order in which they are tried: those that
// others build on come first, so that what happens only once is found by the
// rule that names it, and so that the dialects are tried on a server that no
// strange message has reached yet.
func Rules() []Rule {
	var basic, others []Rule
	for _, group := range [][]Rule{registerRules, headerRules, keyRules, transferRules, packetRules, verdictRules, reconnectRules, orderRules, sizeRules, continueRules} {
		for _, rule := range group {
			switch rule.Name {
			case basicRegister, basicKey, basicTransfer, basicReconnect:
				basic = append(basic, rule)
			default:
				others = append(others, rule)
			}
		}
	}
	return append(basic, others...)
}

const defaultTimeout = 5 * time.Second

// Run tries all rules. It returns an error, and no report, if the server cannot
// be reached or ctx ends.
func Run(ctx context.Context, o Options) (*Report, error) {
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	s := &subject{o: o, codes: o.Codes, broken: map[string]bool{}}
	if s.codes == client.AutoCodes {
		s.codes = client.Codes1025
	}
	var err error
	if s.address, err = client.ServerAddress(o.Server); err != nil {
		return nil, err
	}
	if s.key, err = keys.Generate(); err != nil {
		return nil, err
	}
	if s.otherKey, err = keys.Generate(); err != nil {
		return nil, err
	}
	s.prefix = "conform" + rand.Text()[:8] + "n"

	report := &Report{Server: s.address}
	s.connect, report.TLS, err = client.Dialer(ctx, client.Options{
		Server: o.Server, TLS: o.TLS, Known: o.Known, DialContext: o.DialContext, DialTimeout: s.sendTimeout(),
	})
	if err != nil {
		return nil, err
	}
	nc, err := s.dial(ctx)
	if err != nil {
		return nil, client.Unreachable(s.address, err)
	}
	nc.Close()
	for _, rule := range Rules() {
		var result Result
		switch {
		case s.gone != "":
			result = s.untried(rule)
		case rule.Name == basicRegister:
			result = s.first(ctx, rule)
			report.Codes = s.codes.String()
		case rule.Name == basicTransfer:
			result = s.survey(ctx, rule, report)
		case rule.optional() && !s.offers(ctx):
			result = s.notOffered(rule)
		default:
			result = s.try(ctx, rule)
		}
		report.GoneSince = s.gone
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
	connect  func(context.Context) (net.Conn, error)
	codes    client.Codes
	prefix   string // of all names: another run has another
	names    int
	key      *rsa.PrivateKey // of the clients: making one takes longer than a rule
	otherKey *rsa.PrivateKey

	dialect    client.Dialect // the first that the server takes
	packetSize int
	pause      time.Duration // after each packet

	trying  string // the rule, or the dialect, that is tried now
	before  string // and the one before
	reached bool   // there was a connection while it is tried
	mute    int    // registrations in a row that got no reply
	muted   string // what was tried when the first of them got none
	gone    string // since when the server is gone

	broken map[string]bool // rules that do not pass

	asked bool          // whether Continue is offered
	lacks errNotOffered // why it is not; zero: it is, or nobody knows
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

// redials are the pauses before a connection is tried again: a server that a
// probe has killed may be started anew.
var redials = []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second}

func (s *subject) dial(ctx context.Context) (net.Conn, error) {
	for i := 0; ; i++ {
		nc, err := s.dialOnce(ctx)
		if err == nil {
			s.reached = true
			return nc, nil
		}
		if s.trying == "" || i == len(redials) || ctx.Err() != nil {
			if s.trying != "" && ctx.Err() == nil {
				s.gone = s.trying
				if !s.reached {
					s.gone = s.before
				}
			}
			return nil, err
		}
		select {
		case <-time.After(redials[i]):
		case <-ctx.Done():
		}
	}
}

func (s *subject) dialOnce(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.sendTimeout())
	defer cancel()
	return s.connect(ctx)
}

// maxMute is how many registrations in a row may get no reply, from a server
// that has answered one, before it is taken for dead.
const maxMute = 3

// heard notes whether a registration got a reply.
func (s *subject) heard(silent bool) {
	if !silent {
		s.mute = 0
		return
	}
	if s.mute++; s.mute == 1 {
		s.muted = s.trying
	}
	if passed, tried := s.broken[basicRegister]; tried && !passed && s.mute >= maxMute {
		s.gone = s.muted
	}
}

// begin notes what is tried from now on.
func (s *subject) begin(what string) {
	s.before, s.trying, s.reached = s.trying, what, false
}

func (s *subject) untried(rule Rule) Result {
	return Result{Rule: rule.Name, Section: rule.Section, Text: rule.Text, Status: NotTried, Problem: s.goneText()}
}

func (s *subject) goneText() string { return fmt.Sprintf("the server is gone since rule %s", s.gone) }

// sendTimeout is for what depends on the network rather than on the server's
// thinking: making a connection, and writing.
func (s *subject) sendTimeout() time.Duration { return max(s.o.Timeout, defaultTimeout) }

// freshName returns a user name that nobody has yet.
func (s *subject) freshName() string {
	s.names++
	return fmt.Sprintf("%s%d", s.prefix, s.names)
}

func (s *subject) try(ctx context.Context, rule Rule) Result {
	s.begin(rule.Name)
	return s.tryAs(ctx, rule)
}

func (s *subject) tryAs(ctx context.Context, rule Rule) Result {
	p := &probe{subject: s, ctx: ctx}
	defer p.close()
	defer context.AfterFunc(ctx, p.close)()
	result := p.result(rule, rule.try(p))
	if s.gone != "" && !s.reached {
		return s.untried(rule)
	}
	return result
}

// first tries the first rule, with the other numbers of the requests if it fails
// and the numbers are to be found out.
func (s *subject) first(ctx context.Context, rule Rule) Result {
	result := s.try(ctx, rule)
	if result.Status == Pass || s.o.Codes != client.AutoCodes || s.gone != "" {
		return result
	}
	// The 1027 comes twice: a server of both editions may be in trouble with one.
	if s.knows(ctx, client.Codes1025) || !s.knows(ctx, client.Codes825) || s.knows(ctx, client.Codes1025) {
		return result
	}
	s.codes = client.Codes825
	return s.try(ctx, rule)
}

// knows reports whether the server answers a 1027, or 827, of nobody with 1606.
func (s *subject) knows(ctx context.Context, codes client.Codes) bool {
	p := &probe{subject: s, ctx: ctx}
	defer p.close()
	defer context.AfterFunc(ctx, p.close)()
	l, err := p.dial()
	if err != nil {
		return false
	}
	old := s.codes
	s.codes = codes
	defer func() { s.codes = old }()
	if err := l.send("1027 reconnect, as nobody", codec.Reconnect{Name: []byte(s.freshName())}.Append(nil, codec.ClientID(uuid.New()))); err != nil {
		return false
	}
	r, err := l.read()
	return err == nil && r.code == codec.CodeReconnectRejected
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
	{client.Spec, 1024},
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

// slowly is the pause after each packet for a server that takes no dialect
// without: it may read once and take what comes for a message.
const slowly = 20 * time.Millisecond

// slowSize is the size of the file then, in bytes: some packets are enough.
const slowSize = 10_001

// survey tries the dialects, chooses the one for the rules to come, and then
// tries rule, the basic transfer. A server that fails in the first dialect and
// takes it later fails rule, with what happened the first time.
func (s *subject) survey(ctx context.Context, rule Rule, report *Report) Result {
	first, chosen := s.tryDialects(ctx, rule, report, surveySize)
	if chosen < 0 && s.gone == "" && !s.broken[basicRegister] && !s.broken[basicKey] {
		s.pause = slowly
		if _, chosen = s.tryDialects(ctx, rule, report, slowSize); chosen < 0 {
			s.pause = 0
		}
		report.Slowly = chosen >= 0
	}
	if s.gone != "" {
		if chosen >= 0 {
			s.choose(chosen, report)
		}
		return first
	}
	if chosen != 0 && s.tryDialect(ctx, rule, candidates[0], surveySize).Status == Pass {
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

// tryDialects tries all dialects, and returns what became of the first and which
// one is the first that is taken, -1 if none is.
func (s *subject) tryDialects(ctx context.Context, rule Rule, report *Report, size int) (first Result, chosen int) {
	chosen, report.Dialects = -1, nil
	for i, c := range candidates {
		var result Result
		if s.gone != "" {
			result = s.untried(rule)
		} else {
			result = s.tryDialect(ctx, rule, c, size)
		}
		if i == 0 {
			first = result
		}
		taken := result.Status == Pass
		if taken && chosen < 0 {
			chosen = i
		}
		report.Dialects = append(report.Dialects, DialectResult{c.dialect.String(), c.packetSize, taken, result.Problem})
	}
	return first, chosen
}

func (s *subject) choose(i int, report *Report) {
	s.dialect, s.packetSize = candidates[i].dialect, candidates[i].packetSize
	report.Use, report.UsePacketSize = s.dialect.String(), s.packetSize
}

// tryDialect sends a file of that size in a dialect. It is taken if the server
// gets the checksum right.
func (s *subject) tryDialect(ctx context.Context, rule Rule, c candidate, size int) Result {
	s.begin(fmt.Sprintf("%s, in the dialect %v", rule.Name, c.dialect))
	rule.try = func(p *probe) error {
		l, id, err := p.ready()
		if err != nil {
			return err
		}
		return l.transfer(id, c.dialect, c.packetSize, "dialect", content(size))
	}
	return s.tryAs(ctx, rule)
}

// content makes a file of n bytes.
func content(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i + i>>8*31)
	}
	return b
}
