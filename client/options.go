package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"time"
	"unicode/utf8"

	"sealift/codec"
)

// MaxUserName is the longest user name that a client may register, in
// characters.
const MaxUserName = 100

// DefaultRetries is how often the protocol has a message sent again.
const DefaultRetries = 3

// maxChecksumRetries is how often a file is sent again because the server's
// checksum differs. The check after the last one aborts.
const maxChecksumRetries = 3

// Options say how to reach a server and how to talk to it. The zero value of
// each field means its default.
type Options struct {
	// Server is host:port; [ParseServer] says what it may look like.
	Server string

	// TLS says whether connections are protected by TLS 1.3, and how the server is
	// known then. Default: they are if Server begins with tls:// or Known has a TLS
	// key of the server.
	TLS TLS

	// Name is who registers, where Identity has nobody yet.
	Name string

	// Identity keeps who we are between runs; default: it is forgotten.
	Identity IdentityStore

	// Codes says how the server numbers requests; default: [Codes1025]. With
	// [AutoCodes] a server that does not answer the first message is asked under
	// the name of nobody, which changes nothing on it.
	Codes Codes

	// Dialect is how the server wants its packets; default: [Spec]. With [Auto],
	// a file that has failed twice by a 1607, the end of the connection or a wrong
	// checksum, or once by silence, makes the client find out what the server
	// takes: it sends small files of other names, in one dialect after the other,
	// and aborts each with a 1031. A server that has stored a file before gets all
	// tries of the protocol first. For codes and dialects there are at most 20
	// probes and 2 minutes in a Run; a failure after them is an ErrNoDialect.
	Dialect Dialect

	// NoProbes keeps [Auto] from probing: it uses what Known remembers, or Spec.
	NoProbes bool

	// Known keeps what was found out about servers; default: it is forgotten. It
	// is about the codes and the dialect, where Codes and Dialect leave them open,
	// and about a pause after each packet. Servers that read once and take what
	// comes for a message need that: after a failure of a file, packets go out one
	// by one, each when the peer's TCP has acknowledged the last (on Linux; on
	// other systems only the pause keeps them apart), with a pause that grows from
	// 0.3 to 20 ms with each failure.
	Known KnownServers

	// Continue says whether the server continues files that were cut; default: what
	// Known or TLS say, or else it is asked when a connection is lost in a file of which
	// 1 MiB and more was sent. A file that was cut goes on then where it was, if what the
	// server has is the beginning of it. Where the server is known to continue files, it is
	// asked about each of 8 MiB and more before that is sent, and takes files of more than
	// 4 GiB.
	Continue Continuing

	// SkipStored has a [Run] ask about all files first, and send none of which the server
	// has the content verified: with a server that continues files, over TLS, where
	// Identity has a TLS key that the server knows the client by. It is about files below
	// 8 MiB; larger ones are always asked about.
	SkipStored bool
	// Force sends files also where the server has them.
	Force bool

	// PacketSize is the content of a packet in bytes, or, in the [PerPacket]
	// dialect, of the file in it. Default: 64 KiB, 1024 for [Padded] and
	// [ZeroBased], 4096 for PerPacket, or more if 65,535 packets could not hold
	// the file.
	PacketSize int

	// Parallel is how many files [Run] sends at once, each over a connection of
	// its own; default: 1. A processor encrypts several files in the time of
	// one. Servers that keep one key for each client, and not for each
	// connection, cannot take it; sealiftd can.
	Parallel int

	// FailFast ends a [Run] at the first file that fails: if that is found before
	// the server hears anything, nothing is sent. Default: the others are sent.
	FailFast bool

	// DialTimeout is for making a connection; default: 10 s.
	DialTimeout time.Duration
	// ReplyTimeout is how long the server may think about a message; default:
	// 60 s. It gets another second for each 2 MB of a file, because the servers
	// in the field decrypt and sum only once all of it is there.
	ReplyTimeout time.Duration
	// WriteTimeout is how long a single write may be stuck because the server
	// reads nothing; default: 60 s.
	WriteTimeout time.Duration

	// Retries is how often a message is sent again after a 1607 or a lost
	// connection; default: 3, negative: never.
	Retries int
	// RetryFor is how long the client tries to reach a server: one that cannot be
	// connected to, that ends the connection, or that turns it away with a 1607
	// before it was asked anything. So a restart of the server ends nothing. The
	// time begins anew with each answer. A message whose connection is lost is sent
	// again for that time, and at least Retries times; Retries alone is for a 1607
	// that answers it. Default: 0, where Retries is for all of these.
	RetryFor time.Duration
	// Backoff returns how long to wait before retry 1, 2, …; default: about
	// 0.25 s, twice that, and so on up to 4 s, each randomised by half.
	Backoff func(retry int) time.Duration

	// DialContext makes the connections; default: that of a net.Dialer.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)

	// Progress is told how far a file is, after each packet (or 256 KiB of a
	// larger one). It is called from another goroutine, never two at a time and
	// never after Send has returned, and should be quick.
	Progress func(Progress)

	// Logger gets each message sent and received at level debug, what a server
	// does otherwise than the protocol says too, and at level warn each retry, what
	// is found out about the server, and what is waited for when a reply takes more
	// than 3 s; default: nobody.
	Logger *slog.Logger
}

// Progress is how far the sending of a file is.
type Progress struct {
	File    string // the name sent
	Sent    int64  // bytes of the file, 0…Size, that the packets written so far hold
	Size    int64  // bytes of the file
	Offset  int64  // where the attempt began: so many bytes were on the server already
	Attempt int    // 1 at first; each time that the file begins anew it is one more
}

func (o *Options) setDefaults() {
	setDefault(&o.DialTimeout, 10*time.Second)
	setDefault(&o.ReplyTimeout, time.Minute)
	setDefault(&o.WriteTimeout, time.Minute)
	setDefault(&o.Retries, DefaultRetries)
	o.Retries = max(o.Retries, 0)
	if o.Backoff == nil {
		o.Backoff = backoff
	}
	if o.DialContext == nil {
		o.DialContext = new(net.Dialer).DialContext
	}
	o.DialContext = dialWithin(o.DialContext)
	if o.Known == nil {
		o.Known = nothingKnown{}
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

func backoff(retry int) time.Duration {
	const first = 250 * time.Millisecond
	d := first << min(retry-1, 4)
	return d/2 + rand.N(d)
}

// replyTimeout is for the answer to a message that carried size bytes.
func (o *Options) replyTimeout(size int64) time.Duration {
	return o.ReplyTimeout + time.Duration(size/2_000_000)*time.Second
}

// CheckUserName returns an error, an ErrName, unless a client can register
// under name: 1 to MaxUserName characters of UTF-8, 254 bytes at most. Control
// characters are none, nor are the others that PROTOCOL.md section 2 leaves out.
// Servers that go by the letter of the documents take ASCII only.
func CheckUserName(name string) error {
	if err := codec.CheckName(name); err != nil {
		return nameError("user", name, err)
	}
	if n := utf8.RuneCountInString(name); n > MaxUserName {
		return fmt.Errorf("user name %q: %w: it has %d characters, at most %d are allowed",
			name, ErrName, n, MaxUserName)
	}
	return nil
}

// CheckFileName returns an error, an ErrName, unless name can be sent as the
// name of a file: 1 to 254 bytes of UTF-8 with the same characters as a user name.
func CheckFileName(name string) error {
	if err := codec.CheckName(name); err != nil {
		return nameError("file", name, err)
	}
	return nil
}

func nameError(kind, name string, err error) error {
	detail := err.Error()
	var e *codec.Error
	if errors.As(err, &e) {
		detail = e.Detail
	}
	return fmt.Errorf("%s name %q: %w: %s", kind, name, ErrName, detail)
}
