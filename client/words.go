package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"sealift/codec"
)

// unreachable says that a connection to address could not be made. It is an
// ErrConnection.
type unreachable struct {
	address string
	err     error
}

func (u unreachable) Error() string {
	return fmt.Sprintf("cannot connect to %s: %s", u.address, plainly(u.err))
}

func (u unreachable) Unwrap() error        { return u.err }
func (u unreachable) Is(target error) bool { return target == ErrConnection }

// Unreachable returns the error for a connection to address that could not be
// made because of err. It is an ErrConnection and says why in plain words, or err itself
// where that is about TLS and another try would come to the same.
func Unreachable(address string, err error) error {
	if isForGood(err) {
		return err
	}
	return unreachable{address, err}
}

// plainly says why a connection could not be made, without the calls that found
// it out.
func plainly(err error) string {
	var (
		dns   *net.DNSError
		errno syscall.Errno
		limit net.Error
	)
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return fmt.Sprintf("there is no host %q", dns.Name)
	case errors.As(err, &dns):
		return fmt.Sprintf("the address of %q cannot be looked up: %s", dns.Name, dns.Err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.As(err, &errno):
		return errno.Error()
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &limit) && limit.Timeout():
		return "no answer"
	case errors.Is(err, errClosed):
		return "the server closes connections before it is asked anything"
	}
	return err.Error()
}

// step is what a message is called in the log; without one it is the connection
// that is being made.
func step(code codec.Code) string {
	if code == 0 {
		return "connect"
	}
	return code.String()
}

// stranger says that what answers is not a server of this protocol. Asking again
// is of no use.
type stranger struct {
	protocol string // "" if it is not known
	said     string // the first line of what it sent, as far as it is known; "" if it is no text
}

func (s stranger) Error() string {
	what := "no server of this protocol"
	if s.protocol != "" {
		what = "a server of another protocol, " + s.protocol + ","
	}
	if s.said != "" {
		return fmt.Sprintf("%s answers there (it says %q): is the port right?", what, s.said)
	}
	return what + " answers there: is the port right?"
}

// Is makes every stranger an ErrReply.
func (s stranger) Is(target error) bool { return target == ErrReply }

// protocols are what servers of other protocols begin with.
var protocols = []struct{ begin, name string }{
	{"SSH-", "SSH"},
	{"HTTP/", "HTTP"},
	{"\x15\x03", "TLS"},
	{"220", "SMTP or FTP"},
	{"554", "SMTP"},
	{"421", "SMTP or FTP"},
	{"+OK", "POP3"},
	{"* OK", "IMAP"},
	{"RFB ", "VNC"},
	{"AMQP", "AMQP"},
	{"-ERR", "Redis or POP3"},
	{"-DENIED", "Redis"},
}

// strangerOf returns who speaks if a server's first bytes, seven or more, are
// another protocol's, or words of any; nil where they may be a damaged reply.
func strangerOf(first []byte) error {
	said := string(first)
	if strings.ContainsFunc(said, func(r rune) bool { return r < ' ' && r != '\t' || r > '~' }) {
		said = ""
	}
	for _, p := range protocols {
		if strings.HasPrefix(string(first), p.begin) {
			return stranger{p.name, said}
		}
	}
	if said == "" {
		return nil
	}
	return stranger{"", said}
}
