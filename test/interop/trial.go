package interop

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// A Trial sends files from one client to one server.
type Trial struct {
	Client Client
	Server Server
	// MeInfo registers first, and leaves its me.info to Client, if it is not the zero value.
	MeInfo Client
}

// Run sends a file of each size, in turn, and returns an error for each: nil if the server has stored the same bytes
// and the client has ended with status 0. The client registers with the first file and reconnects for the others. Scratch
// files go to the directory scratch, which must exist.
func (p *Programs) Run(ctx context.Context, trial Trial, sizes []int, scratch string) []error {
	results := make([]error, len(sizes))
	runner := runner{programs: p, Trial: trial, scratch: scratch}
	defer runner.stop()
	if trial.Client.OneRun {
		runner.tryAll(ctx, sizes, results)
		return results
	}
	for i, size := range sizes {
		results[i] = runner.try(ctx, i, size)
	}
	return results
}

type runner struct {
	Trial
	programs *Programs
	scratch  string
	server   *RunningServer
	dir      string // the client's
	user     string
}

func (r *runner) stop() {
	if r.server != nil {
		r.server.Stop()
		r.server = nil
	}
}

// try sends the file number i. It prepares what is missing for that: a server, a client, what the client believes.
func (r *runner) try(ctx context.Context, i, size int) error {
	if r.server == nil || r.Server.Fresh {
		if err := r.restart(ctx, i); err != nil {
			return err
		}
	}
	if (r.Client.Unknown || r.Server.Unknown) && i > 0 {
		if err := r.forge(i); err != nil {
			return err
		}
	}
	if err := r.send(ctx, size); err != nil {
		return err
	}
	return r.stored(size)
}

// tryAll sends all files in one run, and puts what became of each into results.
func (r *runner) tryAll(ctx context.Context, sizes []int, results []error) {
	err := r.restart(ctx, 0)
	if err == nil {
		err = r.send(ctx, sizes...)
	}
	for i, size := range sizes {
		if results[i] = err; err == nil {
			results[i] = r.stored(size)
		}
	}
}

func fileName(size int) string { return fmt.Sprintf("file-%d.bin", size) }

// send has the client send files of these sizes, in one run.
func (r *runner) send(ctx context.Context, sizes ...int) error {
	var names []string
	for _, size := range sizes {
		names = append(names, fileName(size))
		if err := os.WriteFile(filepath.Join(r.dir, fileName(size)), Content(size), 0o600); err != nil {
			return err
		}
	}
	transcript, err := r.programs.Send(ctx, r.Client, r.server.AddrFor(r.Client.Maker), r.user, r.dir, names...)
	if err == nil && transcript.Exit != 0 {
		err = fmt.Errorf("status %d after %q: %s", transcript.Exit, transcript.Codes(), strings.TrimSpace(transcript.Errors))
	}
	return err
}

// stored returns nil if the server has the same bytes.
func (r *runner) stored(size int) error {
	id, err := clientID(r.dir)
	if err != nil {
		return err
	}
	stored, err := os.ReadFile(r.server.Stored(id, r.Client.stored(fileName(size))))
	if err == nil && !bytes.Equal(stored, Content(size)) {
		err = errors.New("the stored file differs")
	}
	return err
}

// restart begins with a new server and a client that knows nothing, or what the client before it knew.
func (r *runner) restart(ctx context.Context, i int) error {
	r.stop()
	serverDir, err := os.MkdirTemp(r.scratch, "server-")
	if err != nil {
		return err
	}
	if r.dir, err = os.MkdirTemp(r.scratch, "client-"); err != nil {
		return err
	}
	r.user = fmt.Sprintf("user %d", i)
	if r.server, err = r.programs.Start(ctx, r.Server, serverDir); err != nil {
		return err
	}
	if r.MeInfo.Maker == "" {
		return nil
	}
	if err := os.WriteFile(filepath.Join(r.dir, "first.bin"), nil, 0o600); err != nil {
		return err
	}
	transcript, err := r.programs.Send(ctx, r.MeInfo, r.server.AddrFor(r.MeInfo.Maker), r.user, r.dir, "first.bin")
	if err == nil && transcript.Exit != 0 {
		err = fmt.Errorf("%s does not register: %s", r.MeInfo, strings.TrimSpace(transcript.Errors))
	}
	return err
}

// forge gives the client's me.info a name and an id that the server has never heard of. The key stays.
func (r *runner) forge(i int) error {
	path := filepath.Join(r.dir, "me.info")
	info, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	lines := strings.SplitAfterN(string(info), "\n", 3)
	if len(lines) < 3 {
		return errors.New("me.info has less than three lines")
	}
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	r.user = fmt.Sprintf("user %d", i)
	forged := fmt.Sprintf("%s\n%x\n%s", r.user, id, lines[2])
	return os.WriteFile(path, []byte(forged), 0o600)
}

// Content is the file of so many bytes: random, and the same each time.
func Content(size int) []byte {
	content := make([]byte, size)
	_, _ = mathrand.NewChaCha8([32]byte{byte(size), byte(size >> 8), byte(size >> 16)}).Read(content)
	return content
}
