//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"sealift/bench/load"
)

// sealiftClients sends files with the command-line client, which reads,
// encrypts and sends at the same time. Each client is registered beforehand.
func sealiftClients(ctx context.Context, h *harness, s *server, spec load.Spec) ([]fileClient, error) {
	program, err := h.sealiftProgram()
	if err != nil {
		return nil, err
	}
	from, err := h.sourceFile(spec.FileSize)
	if err != nil {
		return nil, err
	}
	small, err := h.sourceFile(1)
	if err != nil {
		return nil, err
	}
	var all []fileClient
	for i := range spec.Connections {
		identity := filepath.Join(s.opts.dir, fmt.Sprintf("me-%d.info", i))
		send := func(file string, more ...string) *exec.Cmd {
			if s.opts.tls {
				more = append(more, "--tls", "--tls-trust-first")
			}
			args := append([]string{"send", "--server", s.addr, "--identity", identity, "--known-servers", os.DevNull}, more...)
			return exec.CommandContext(ctx, program, append(args, file)...)
		}
		all = append(all, &commandClient{
			prepare: func() error {
				cmd := send(small, "--name", fmt.Sprintf("%s %d", spec.Run, i))
				if out, err := cmd.CombinedOutput(); err != nil {
					return fmt.Errorf("%v: %w\n%s", cmd.Args, err, out)
				}
				return nil
			},
			command: func() *exec.Cmd { return send(from) },
		})
	}
	return all, nil
}

// sealiftProgram builds the client, once, with what the product's go.mod requires.
func (h *harness) sealiftProgram() (string, error) {
	path, err := filepath.Abs(filepath.Join(h.dir, "sealift"))
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	product, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "sealift").Output()
	if err != nil {
		return "", fmt.Errorf("looking for the module sealift from the working directory, which must be in the checkout: %w", err)
	}
	build := exec.Command("go", "build", "-o", path, "./cmd/sealift")
	build.Dir = strings.TrimSpace(string(product))
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the client in %s: %w\n%s", build.Dir, err, out)
	}
	return path, nil
}
