//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"sealift/bench/load"
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

func startTus(ctx context.Context, _ *harness, o serverOptions, env []string) (*server, error) {
	tusd, err := findTus()
	if err != nil {
		return nil, err
	}
	addr, err := freePort()
	if err != nil {
		return nil, err
	}
	p, err := startApart(ctx, env, tusd, "-host", "127.0.0.1", "-port", strconv.Itoa(addr.Port), "-upload-dir", o.dir,
		"-base-path", "/files/", "-verbose=false")
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
				url, err = createUpload(ctx, "http://"+s.addr+"/files/", spec.FileSize)
				return err
			},
			command: func() *exec.Cmd {
				return exec.CommandContext(ctx, "curl", "--silent", "--show-error", "--fail", "--request", "PATCH",
					"--header", "Tus-Resumable: 1.0.0", "--header", "Upload-Offset: 0", "--header", "Expect:",
					"--header", "Content-Type: application/offset+octet-stream", "--upload-file", from, url)
			},
		})
	}
	return all, nil
}

// createUpload announces a file (tus protocol 1.0.0, "Creation").
func createUpload(ctx context.Context, endpoint string, size int64) (url string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Tus-Resumable", "1.0.0")
	req.Header.Set("Upload-Length", strconv.FormatInt(size, 10))
	resp, err := http.DefaultClient.Do(req)
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
