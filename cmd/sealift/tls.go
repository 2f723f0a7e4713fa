package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"

	"sealift/client"
	"sealift/internal/infofile"
	"sealift/internal/printable"
)

// tlsScheme begins the address of a server that is reached over TLS.
const tlsScheme = "tls://"

// tlsFlags are the flags about TLS.
type tlsFlags struct {
	on           bool
	fingerprints []string
	trustFirst   bool
	ca           string
	cert, key    string // files
}

// any reports whether one of them was given.
func (f *tlsFlags) any() bool {
	return f.on || len(f.fingerprints) > 0 || f.trustFirst || f.ca != "" || f.cert != "" || f.key != ""
}

// systemCA is the --tls-ca that stands for the authorities of the system.
const systemCA = "system"

// tlsOptions makes options of the flags.
func (a *app) tlsOptions() (client.TLS, error) {
	t := client.TLS{TrustFirst: a.tls.trustFirst}
	if a.tls.any() {
		t.Mode = client.TLSOn
	}
	for _, s := range a.tls.fingerprints {
		key, err := client.ParseFingerprint(s)
		if err != nil {
			return t, fmt.Errorf("--tls-fingerprint: %w", err)
		}
		t.Fingerprints = append(t.Fingerprints, key)
	}
	ways := 0
	for _, given := range []bool{len(t.Fingerprints) > 0, t.TrustFirst, a.tls.ca != ""} {
		if given {
			ways++
		}
	}
	if ways > 1 {
		return t, errors.New("--tls-fingerprint, --tls-trust-first and --tls-ca are three ways to know a server: want one of them")
	}
	if a.tls.ca != "" {
		roots, err := authorities(a.tls.ca)
		if err != nil {
			return t, fmt.Errorf("--tls-ca: %w", err)
		}
		t.Roots = roots
	}
	if a.tls.cert != "" || a.tls.key != "" {
		if a.tls.cert == "" || a.tls.key == "" {
			return t, errors.New("--tls-cert and --tls-key go together: want both")
		}
		pair, err := tls.LoadX509KeyPair(a.tls.cert, a.tls.key)
		if err != nil {
			return t, fmt.Errorf("--tls-cert %s with --tls-key %s: %w", printable.Path(a.tls.cert), printable.Path(a.tls.key), err)
		}
		t.Certificate = &pair
	}
	if a.interactive {
		t.Ask = a.ask
	}
	return t, nil
}

func authorities(ca string) (*x509.CertPool, error) {
	if ca == systemCA {
		return x509.SystemCertPool()
	}
	text, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: there is no certificate in it, in PEM", printable.Path(ca))
	}
	return pool, nil
}

// ask asks on the terminal whether the key of a server that is new is right.
func (a *app) ask(ctx context.Context, server string, key client.Fingerprint) error {
	fmt.Fprintf(a.screen, "The server %s is not known yet. Its TLS key has the fingerprint\n  %v\n", server, key)
	fmt.Fprint(a.screen, "Is that right (yes, no, or the fingerprint that it should be)? ")
	for lines := bufio.NewReader(os.Stdin); ; {
		answer, err := readLine(ctx, lines)
		if err != nil {
			fmt.Fprintln(a.screen)
			return err
		}
		switch expected, err := client.ParseFingerprint(answer); {
		case err == nil && expected == key, strings.EqualFold(answer, "yes"):
			return nil
		case err == nil:
			return fmt.Errorf("it should be %v", expected)
		case strings.EqualFold(answer, "no"):
			return errors.New("the answer was no")
		}
		fmt.Fprint(a.screen, "Please type yes, no, or the fingerprint: ")
	}
}

// readLine reads a line, without blanks at its ends, or returns when ctx ends.
func readLine(ctx context.Context, r *bufio.Reader) (string, error) {
	type result struct {
		line string
		err  error
	}
	done := make(chan result, 1)
	go func() { // a read of a terminal knows no context
		line, err := r.ReadString('\n')
		done <- result{strings.TrimSpace(line), err}
	}()
	select {
	case got := <-done:
		if got.err != nil {
			return "", errors.New("there was no answer")
		}
		return got.line, nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// aboutKey says what to do about the TLS key of a server that is not trusted.
func (a *app) aboutKey(e *client.KeyError) string {
	how := fmt.Sprintf("--tls-fingerprint %v", e.Key)
	if a.batching {
		how = fmt.Sprintf("%s%s#%v as line 1 of %s", tlsScheme, e.Server, e.Key, infofile.TransferName)
	}
	switch {
	case e.Refused != nil:
		return ""
	case e.Remembered:
		// Without tls= and without --tls the next connection would be a plain one.
		return fmt.Sprintf(". Ask its operator. If the new key is right: %s, or take tls=… out of the line of %s in %s, and use --tls",
			how, e.Server, printable.Path(a.knownPath(a.identity)))
	case len(e.Expected) == 0:
		return fmt.Sprintf(". If that is what sealiftd fingerprint prints there: %s; to trust it unseen: --tls-trust-first", how)
	}
	return fmt.Sprintf(". Ask its operator which one is right. If it is the server's: %s", how)
}

// The messages that a connection begins with.
const (
	register  = 1025
	reconnect = 1027 // 1026 is between them
	asked     = 1032
)

// aboutRefusal says what a 1607 may be about that has kept us from logging in: a server
// answers so to a client that it serves over TLS only, or with another TLS key only.
func (a *app) aboutRefusal(err error) string {
	me := cmp.Or(a.identity, infofile.MeName)
	if to, err := infofile.Follow(me); err == nil {
		me = to
	}
	var e *client.Error
	switch {
	case errors.As(err, &e) && e.Code == asked:
		return ". It may be that it takes no file of that size"
	case !errors.As(err, &e) || e.Code < register || e.Code > reconnect:
	case a.plainTo != "" && a.batching:
		return fmt.Sprintf(". If it serves this client over TLS only: %s%s as line 1 of %s", tlsScheme, a.plainTo, infofile.TransferName)
	case a.plainTo != "":
		return ". If it serves this client over TLS only: --tls"
	case e.Code != register:
		return fmt.Sprintf(". If this client is pinned to another TLS key than that in %s, the operator can release it: sealiftd client unpin",
			printable.Path(infofile.TLSKeyPath(me)))
	}
	return ""
}
