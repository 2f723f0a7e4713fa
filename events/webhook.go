package events

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"sealift/storage"
)

// webhookName is the name of the target that is a URL.
const webhookName = "url"

// Webhook is a target: whoever answers at a URL. It has accepted an event if it answers 2xx.
// The requests are CloudEvents in structured mode, signed as the Standard Webhooks
// specification says (https://www.standardwebhooks.com, version 1.0).
type Webhook struct {
	o       WebhookOptions
	secrets atomic.Pointer[[][]byte]
	client  *http.Client
}

// WebhookOptions of NewWebhook.
type WebhookOptions struct {
	URL        string
	SecretFile string // "": the requests are not signed
	Source     string // for the JSON
	UserAgent  string
	Parallel   int // requests at once
}

// CheckURL returns why events cannot be sent to a URL, or nil.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return errors.New("it is no URL")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return errors.New("want http://… or https://…")
	}
	return nil
}

// NewWebhook returns a Webhook.
func NewWebhook(o WebhookOptions) (*Webhook, error) {
	if err := CheckURL(o.URL); err != nil {
		return nil, err
	}
	w := &Webhook{o: o}
	if _, err := w.Reload(); err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost, transport.MaxResponseHeaderBytes = o.Parallel, maxHeader
	w.client = &http.Client{
		Transport: transport,
		// An event is for the one who was named, and its signature too.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return w, nil
}

// Reload reads the secrets again, and reports whether they are others. After an error those
// from before count.
func (w *Webhook) Reload() (changed bool, err error) {
	if w.o.SecretFile == "" {
		return false, nil
	}
	next, err := ReadSecrets(w.o.SecretFile)
	if err != nil {
		return false, err
	}
	was := w.secrets.Swap(&next)
	return was == nil || !bytes.Equal(bytes.Join(*was, []byte{'\n'}), bytes.Join(next, []byte{'\n'})), nil
}

// Close gives up the connections that are kept.
func (w *Webhook) Close() { w.client.CloseIdleConnections() }

const (
	secretPrefix = "whsec_"
	minSecret    = 24 // bytes, by the specification
	maxSecret    = 64
	maxSecrets   = 4
	maxFileSize  = 4096
	maxHeader    = 64 << 10 // bytes of an answer's header
)

// ReadSecrets reads the secrets in a file: one a line, in base64, with or without whsec_ in
// front. Each signs each request, so that a secret can be replaced while receivers still
// have the one before. A file that everybody may read, or write, is refused.
func ReadSecrets(path string) ([][]byte, error) {
	if info, err := os.Stat(path); err == nil { // what is not there is found out below
		if !info.Mode().IsRegular() {
			return nil, fmt.Errorf("%s: want a regular file", path) // to open a pipe would wait for who writes to it
		}
		if mode := info.Mode().Perm(); mode&0o007 != 0 && runtime.GOOS != "windows" {
			return nil, fmt.Errorf("%s: everybody may use the file, its mode is %04o: want 0600, or 0640", path, mode)
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxFileSize {
		return nil, fmt.Errorf("%s: want %d bytes at most", path, maxFileSize)
	}
	var secrets [][]byte
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		secret, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(line, secretPrefix))
		if err != nil || len(secret) < minSecret || len(secret) > maxSecret {
			return nil, fmt.Errorf("%s: want secrets of %d to %d bytes in base64, one a line", path, minSecret, maxSecret)
		}
		secrets = append(secrets, secret)
	}
	if len(secrets) == 0 || len(secrets) > maxSecrets {
		return nil, fmt.Errorf("%s: %d secrets: want 1 to %d", path, len(secrets), maxSecrets)
	}
	return secrets, nil
}

// Sign returns the header webhook-signature of a message.
func Sign(secrets [][]byte, id, timestamp string, body []byte) string {
	var signatures []string
	for _, secret := range secrets {
		mac := hmac.New(sha256.New, secret)
		fmt.Fprintf(mac, "%s.%s.", id, timestamp)
		mac.Write(body)
		signatures = append(signatures, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	return strings.Join(signatures, " ")
}

// Name implements [Target].
func (w *Webhook) Name() string { return webhookName }

// goneRest is how long nothing is sent to a URL that answers 410, which says that nobody
// wants more.
const goneRest = time.Hour

// maxRest bounds what a Retry-After may ask for.
const maxRest = time.Hour

// Tell implements [Target].
func (w *Webhook) Tell(ctx context.Context, e *storage.Event) error {
	body, err := encode(e, w.o.Source)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.o.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	timestamp := strconv.FormatInt(time.Now().Unix(), 10)
	h := req.Header
	h.Set("Content-Type", "application/cloudevents+json; charset=utf-8")
	h.Set("User-Agent", w.o.UserAgent)
	h.Set("Webhook-Id", e.ID)
	h.Set("Webhook-Timestamp", timestamp)
	if secrets := w.secrets.Load(); secrets != nil {
		h.Set("Webhook-Signature", Sign(*secrets, e.ID, timestamp, body))
	}
	res, err := w.client.Do(req)
	if err != nil {
		var about *url.Error // which has the URL in it, and that may have a password in it
		if errors.As(err, &about) {
			err = about.Err
		}
		return err
	}
	defer res.Body.Close()
	// The connection is kept if the answer is short.
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
	return judge(res)
}

// judge returns nil if an answer accepts an event.
func judge(res *http.Response) error {
	code := res.StatusCode
	err := fmt.Errorf("answer %d %s", code, http.StatusText(code))
	switch {
	case code >= 200 && code < 300:
		return nil
	case code == http.StatusGone:
		return &RestError{goneRest, err}
	case code == http.StatusTooManyRequests || code == http.StatusServiceUnavailable:
		if seconds, no := strconv.Atoi(res.Header.Get("Retry-After")); no == nil && seconds > 0 {
			return &RestError{min(time.Duration(seconds)*time.Second, maxRest), err}
		}
	}
	return err
}
