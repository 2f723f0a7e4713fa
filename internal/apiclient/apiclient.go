// Package apiclient asks a server's API (docs/API.md), and has it do something, for commands
// that run elsewhere than the server.
//
// It shows the token in a header, over TLS or on the loopback alone, follows no redirection, and
// uses no proxy. A server that says nothing for [Silence] is given up. All methods may be
// called from any goroutine.
package apiclient

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"sealift/admin"
	"sealift/crypto/tlskey"
)

// What the API tells, and is told.
type (
	Frame       = admin.Frame
	Deletion    = admin.Deletion
	Deleted     = admin.Deleted
	Who         = admin.Who
	EventChoice = admin.EventChoice
)

const (
	// Silence is how long a server may send nothing while it is asked.
	Silence = time.Minute
	// dialTime is how long it may take until a connection is there and protected.
	dialTime = 10 * time.Second

	maxAnswer = 16 << 20 // bytes of an answer that is no list
	maxLine   = 1 << 20  // bytes of a line of a list
	maxToken  = 4 << 10
)

// Options of [New].
type Options struct {
	URL       string // http://host:port or https://host:port
	TokenFile string
	// CA is a file of authorities in PEM, in the place of the system's; "": those.
	CA string
	// Fingerprint is that of the server's key. If it is set, it alone counts, and no
	// authority, name or time.
	Fingerprint string
}

// Client asks one server.
type Client struct {
	base  *url.URL
	token string
	http  *http.Client
}

// New checks o, and reads the files that it names. It does not connect.
func New(o Options) (*Client, error) {
	base, err := baseOf(o.URL)
	if err != nil {
		return nil, err
	}
	c := &Client{base: base}
	if o.TokenFile == "" {
		return nil, errors.New("the API of a server needs its token: want --api-token-file FILE")
	}
	if c.token, err = readToken(o.TokenFile); err != nil {
		return nil, fmt.Errorf("--api-token-file: %w", err)
	}
	config, err := tlsConfig(&o)
	if err != nil {
		return nil, err
	}
	if config != nil && base.Scheme != "https" {
		return nil, fmt.Errorf("--api-ca or --api-fingerprint, and --api %s is plain: want https", base)
	}
	c.http = &http.Client{
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: dialTime}).DialContext,
			TLSClientConfig:     config,
			TLSHandshakeTimeout: dialTime,
			Protocols:           http1(),
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

func http1() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	return p
}

// baseOf reads the URL of a server. Its errors do not say what is in a part that might be a
// secret.
func baseOf(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("--api: want http://host:port or https://host:port, as of the server's --admin")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return nil, errors.New("--api: want nothing behind the port, and no user: the token is in the file of --api-token-file")
	case u.Scheme == "http" && !onLoopback(u.Hostname()):
		return nil, fmt.Errorf("--api http://%s: the token would be sent unprotected: want https, or an address on the loopback", u.Host)
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

func onLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

func readToken(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(text))
	if len(text) > maxToken || token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("%s: want a token: ASCII without white space in it, %d bytes at most", path, maxToken)
	}
	return token, nil
}

// tlsConfig is nil where the system's authorities count.
func tlsConfig(o *Options) (*tls.Config, error) {
	switch {
	case o.CA != "" && o.Fingerprint != "":
		return nil, errors.New("--api-ca and --api-fingerprint: want one of them")
	case o.CA != "":
		text, err := os.ReadFile(o.CA)
		if err != nil {
			return nil, fmt.Errorf("--api-ca: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("--api-ca %s: there is no certificate in it", o.CA)
		}
		return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}, nil
	case o.Fingerprint != "":
		want, err := tlskey.ParseFingerprint(o.Fingerprint)
		if err != nil {
			return nil, fmt.Errorf("--api-fingerprint: %w", err)
		}
		return &tls.Config{
			MinVersion: tls.VersionTLS13,
			// The key is compared below, and nothing else of a certificate counts.
			InsecureSkipVerify: true,
			VerifyConnection: func(s tls.ConnectionState) error {
				if got := tlskey.Of(s.PeerCertificates[0]); got != want {
					return fmt.Errorf("the server has another key, %v", got)
				}
				return nil
			},
		}, nil
	}
	return nil, nil
}

// Error is what a server has said is wrong.
type Error struct {
	Status int // of HTTP; 200: in the middle of an answer
	Text   string
	Advice string // "": none
}

func (e *Error) Error() string { return e.Text }

// do sends a request, with body as JSON unless it is nil, and has read read the answer.
func (c *Client) do(ctx context.Context, path string, query url.Values, body any, read func(io.Reader) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := time.AfterFunc(Silence, func() { cancel(fmt.Errorf("it has sent nothing for %v", Silence)) })
	defer silent.Stop()
	at := *c.base
	at.Path, at.RawQuery = "/api/v1/"+path, query.Encode()
	method, content := http.MethodGet, []byte(nil)
	if body != nil {
		var err error
		if content, err = json.Marshal(body); err != nil {
			return err
		}
		method = http.MethodPost
	}
	r, err := http.NewRequestWithContext(ctx, method, at.String(), bytes.NewReader(content))
	if err != nil {
		return err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set("Authorization", "Bearer "+c.token)
	resp, err := c.http.Do(r)
	if err != nil {
		return c.unreachable(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return c.refused(resp)
	}
	err = read(&heard{resp.Body, silent})
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = c.unreachable(ctx, cause)
	}
	return err
}

// heard puts off the end of a request whenever something has come.
type heard struct {
	io.Reader
	silent *time.Timer
}

func (h *heard) Read(p []byte) (int, error) {
	n, err := h.Reader.Read(p)
	if n > 0 {
		h.silent.Reset(Silence)
	}
	return n, err
}

// unreachable says why there is no answer, without the address of the request.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	var of *url.Error
	if errors.As(err, &of) {
		err = of.Err
	}
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	switch {
	case errors.As(err, &unknown), errors.As(err, &name):
		return &Error{Text: fmt.Sprintf("the API at %s cannot be trusted: %v", c.base, err), Advice: "With the server's own key, take what \"sealiftd fingerprint\" prints there: --api-fingerprint SHA256:…; with an authority of yours: --api-ca FILE."}
	}
	return fmt.Errorf("the API at %s does not answer: %w", c.base, err)
}

// refused is what an answer with another status says.
func (c *Client) refused(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	var said struct{ Error, Hint string }
	e := &Error{Status: resp.StatusCode}
	if json.Unmarshal(text, &said) == nil && said.Error != "" {
		e.Text, e.Advice = said.Error, said.Hint
		return e
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	e.Text = fmt.Sprintf("the API at %s answers with %s", c.base, resp.Status)
	switch {
	case resp.StatusCode == http.StatusUnauthorized:
		e.Text = fmt.Sprintf("the API at %s does not take this token", c.base)
		e.Advice = "The file of --api-token-file needs the same token as that of the server's --admin-token-file."
	case resp.StatusCode == http.StatusForbidden && line != "":
		e.Text = fmt.Sprintf("the API at %s refuses this: %s", c.base, line)
	case resp.StatusCode == http.StatusNotFound:
		e.Text = fmt.Sprintf("what is at %s does not have this", c.base)
		e.Advice = "Is it the server's --admin address, and not an older version?"
	case resp.StatusCode/100 == 3:
		e.Text = fmt.Sprintf("what is at %s sends elsewhere, which is not followed: %s", c.base, resp.Status)
	case line != "" && resp.Header.Get("Content-Type") == "text/plain; charset=utf-8":
		e.Text += ": " + line
	}
	return e
}

// get reads an answer into v.
func (c *Client) get(ctx context.Context, path string, query url.Values, body, v any) error {
	return c.do(ctx, path, query, body, func(r io.Reader) error {
		text, err := io.ReadAll(io.LimitReader(r, maxAnswer))
		if err == nil {
			err = json.Unmarshal(text, v)
		}
		if err != nil {
			return fmt.Errorf("what the API at %s answers cannot be understood: %w", c.base, err)
		}
		return nil
	})
}

// lines calls yield with each line of an answer but the last, which says how it ended.
func (c *Client) lines(ctx context.Context, path string, body any, yield func(json.RawMessage) error) error {
	return c.do(ctx, path, nil, body, func(r io.Reader) error {
		in := bufio.NewScanner(r)
		in.Buffer(nil, maxLine)
		for in.Scan() {
			var end admin.Ending
			if err := json.Unmarshal(in.Bytes(), &end); err != nil {
				return fmt.Errorf("what the API at %s answers cannot be understood: %w", c.base, err)
			}
			switch {
			case !end.End:
				if err := yield(in.Bytes()); err != nil {
					return err
				}
			case end.Error != "":
				return &Error{Status: http.StatusOK, Text: end.Error, Advice: end.Hint}
			default:
				return nil
			}
		}
		if err := in.Err(); err != nil {
			return fmt.Errorf("the answer of the API at %s was cut off: %w", c.base, err)
		}
		return fmt.Errorf("the answer of the API at %s was cut off", c.base)
	})
}

// Rows calls yield with each line of a list: "clients", "files" or "events". The line is
// valid until yield returns. An [Error] at the end may be about lines that the server could not read; all others came.
func (c *Client) Rows(ctx context.Context, list string, yield func(json.RawMessage) error) error {
	return c.lines(ctx, "rows/"+list, nil, yield)
}

// Status is the server at this moment.
func (c *Client) Status(ctx context.Context) (f Frame, err error) {
	err = c.get(ctx, "status", nil, nil, &f)
	return f, err
}

// Refusals are the last so many lines of the log about refusals and failures.
func (c *Client) Refusals(ctx context.Context, most int) ([]json.RawMessage, error) {
	var answer struct{ Lines []json.RawMessage }
	err := c.get(ctx, "refusals", url.Values{"limit": {fmt.Sprint(most)}}, nil, &answer)
	return answer.Lines, err
}

// Disable has the server refuse everything to a client, or serve it again. It returns which.
func (c *Client) Disable(ctx context.Context, who Who, disabled bool) (of Who, err error) {
	path := "clients/enable"
	if disabled {
		path = "clients/disable"
	}
	err = c.get(ctx, path, nil, who, &of)
	return of, err
}

// Delete deletes files, and waits until they are gone. each is called for each, and with an
// empty Path for how far it is.
func (c *Client) Delete(ctx context.Context, d Deletion, each func(Deleted)) error {
	return c.lines(ctx, "files/delete-matching", d, func(line json.RawMessage) error {
		var of Deleted
		if err := json.Unmarshal(line, &of); err != nil {
			return err
		}
		each(of)
		return nil
	})
}

// RetryEvents has events be told at once that were put off. It returns how many.
func (c *Client) RetryEvents(ctx context.Context, which EventChoice) (int, error) {
	return c.events(ctx, "events/retry", which)
}

// DropEvents forgets events. It returns how many.
func (c *Client) DropEvents(ctx context.Context, which EventChoice) (int, error) {
	return c.events(ctx, "events/drop", which)
}

func (c *Client) events(ctx context.Context, path string, which EventChoice) (int, error) {
	var answer struct{ Events int }
	err := c.get(ctx, path, nil, which, &answer)
	return answer.Events, err
}
