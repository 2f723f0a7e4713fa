//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"sealift/bench/load"
	"sealift/crypto/tlskey"
)

// The peer tusd is the reference server of the tus protocol, uploads over HTTP
// that can be resumed, with curl as the client.

var tusd = goProgram{name: "tusd", path: "github.com/tus/tusd/v2/cmd/tusd", version: "v2.9.1"}

// findTus looks for the program that TUSD names, or else in the PATH, or else for
// the one that an earlier run has fetched.
func findTus() (string, error) {
	if path := os.Getenv("TUSD"); path != "" {
		return exec.LookPath(path)
	}
	if path, err := exec.LookPath(tusd.name); err == nil {
		return path, nil
	}
	kept, err := tusd.kept()
	if err != nil {
		return "", err
	}
	return exec.LookPath(kept)
}

func tusNeeds() error {
	if _, err := exec.LookPath("curl"); err != nil {
		return errors.New("there is no curl")
	}
	_, err := findTus()
	switch {
	case err != nil && os.Getenv("TUSD") != "":
		return fmt.Errorf("TUSD: %w", err)
	case err != nil:
		return fetchable{errors.New("there is no tusd (with --peer tusd it is fetched; or set TUSD)"), tusd}
	}
	return nil
}

// certificate makes the files with a certificate and its key, once.
func (h *harness) certificate() (cert, key string, err error) {
	cert, key = filepath.Join(h.dir, "cert.pem"), filepath.Join(h.dir, "key.pem")
	if _, err := os.Stat(cert); err == nil {
		return cert, key, nil
	}
	private, err := tlskey.Generate()
	if err != nil {
		return "", "", err
	}
	made, err := tlskey.SelfSigned(private, "localhost", nil, time.Now())
	if err != nil {
		return "", "", err
	}
	text, err := tlskey.EncodeKey(private)
	return cert, key, errors.Join(err, os.WriteFile(key, text, 0o600),
		os.WriteFile(cert, tlskey.EncodeCertificate(made.Certificate[0]), 0o644))
}

func startTus(ctx context.Context, h *harness, o serverOptions, env []string) (*server, error) {
	tusd, err := findTus()
	if err != nil {
		return nil, err
	}
	addr, err := freePort()
	if err != nil {
		return nil, err
	}
	args := []string{"-host", "127.0.0.1", "-port", strconv.Itoa(addr.Port), "-upload-dir", o.dir, "-base-path", "/files/", "-verbose=false"}
	if o.tls {
		cert, key, err := h.certificate()
		if err != nil {
			return nil, err
		}
		args = append(args, "-tls-certificate", cert, "-tls-key", key, "-tls-mode", "tls13")
	}
	p, err := startApart(ctx, env, tusd, args...)
	if err != nil {
		return nil, err
	}
	s := &server{process: p, addr: addr.String(), opts: o, signal: syscall.SIGTERM}
	return s, whenConnectable(s, s.addr)
}

// tusClients makes the uploads beforehand, and times their content.
func tusClients(ctx context.Context, h *harness, s *server, spec load.Spec) ([]fileClient, error) {
	from, err := h.sourceFile(spec.FileSize)
	if err != nil {
		return nil, err
	}
	var all []fileClient
	for range spec.Connections {
		var url string
		all = append(all, &commandClient{
			prepare: func() (err error) {
				scheme := "http://"
				if s.opts.tls {
					scheme = "https://"
				}
				url, err = createUpload(ctx, scheme+s.addr+"/files/", spec.FileSize)
				return err
			},
			command: func() *exec.Cmd {
				return exec.CommandContext(ctx, "curl", "--insecure", "--silent", "--show-error", "--fail", "--request", "PATCH",
					"--header", "Tus-Resumable: 1.0.0", "--header", "Upload-Offset: 0", "--header", "Expect:",
					"--header", "Content-Type: application/offset+octet-stream", "--upload-file", from, url)
			},
		})
	}
	return all, nil
}

// anyServer does not look at certificates, as curl is told not to.
var anyServer = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}

// createUpload announces a file (tus protocol 1.0.0, "Creation").
func createUpload(ctx context.Context, endpoint string, size int64) (url string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Tus-Resumable", "1.0.0")
	req.Header.Set("Upload-Length", strconv.FormatInt(size, 10))
	resp, err := anyServer.Do(req)
	if err != nil {
		return "", err
	}
	if err := resp.Body.Close(); err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusCreated {
		return "", fmt.Errorf("tusd answers %s", resp.Status)
	}
	return resp.Header.Get("Location"), nil
}
