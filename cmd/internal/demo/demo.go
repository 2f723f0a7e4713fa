// Package demo shows a server and a client at work in one process.
package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"sealift/client"
	"sealift/server"
)

// Run serves on a free port, registers a client, uploads this program, reconnects over
// TLS, uploads another file, stops the server, and reads what is stored. It writes to w
// what happens, and leaves everything in dir. With stay the server goes on until ctx ends,
// for whoever wants to look at its page.
func Run(ctx context.Context, w io.Writer, dir string, stay bool) error {
	serverDir, clientDir := filepath.Join(dir, "server"), filepath.Join(dir, "client")
	for _, d := range []string{serverDir, clientDir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	note := filepath.Join(clientDir, "note.txt")
	if err := os.WriteFile(note, []byte("A second file, sent over TLS after a reconnect.\n"), 0o644); err != nil {
		return err
	}

	token := rand.Text()
	tokenFile := filepath.Join(dir, "token")
	if err := os.WriteFile(tokenFile, []byte(token+"\n"), 0o600); err != nil {
		return err
	}

	asked := ctx
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(asked, stop)()
	addr, page := make(chan *net.TCPAddr, 1), make(chan *net.TCPAddr, 1)
	served := make(chan error, 1)
	go func() {
		o := server.Options{Dir: serverDir, Log: zap.NewNop()}
		o.TLS.Mode = "allow"
		o.Network.Listen, o.Storage.Fsync = "127.0.0.1:0", true
		o.Admin.Listen, o.Admin.TokenFile = "127.0.0.1:0", tokenFile
		served <- server.Serve(ctx, o, func(_ context.Context, s *server.Server) {
			page <- s.AdminAddr()
			addr <- s.Addr()
		})
	}()
	var at string
	select {
	case a := <-addr:
		at = a.String()
	case err := <-served:
		return fmt.Errorf("the server did not start: %w", err)
	}
	fmt.Fprintf(w, "server     listens on %s, keeps everything in %s\n", at, serverDir)
	fmt.Fprintf(w, "page       http://%s/ with the token %s\n", <-page, token)

	opts := client.Options{
		Server: at, Name: fmt.Sprintf("demo %s", time.Now().Format("15:04:05.000")),
		Identity: client.IdentityFile(filepath.Join(clientDir, "me.info")),
	}
	if err := send(ctx, w, opts, client.File{Path: program}); err != nil {
		return err
	}
	// The client knows the server by its key, as if the operator had handed it the
	// fingerprint.
	key, err := server.Fingerprint(serverDir)
	if err != nil {
		return err
	}
	opts.TLS = client.TLS{Mode: client.TLSOn, Fingerprints: []client.Fingerprint{key}}
	fmt.Fprintf(w, "client     from here on over TLS 1.3, with the server of key %s\n", key)
	if err := send(ctx, w, opts, client.File{Path: note}); err != nil {
		return err
	}

	if stay {
		fmt.Fprintln(w, "page       stays up until Ctrl-C. Send something to it:")
		fmt.Fprintf(w, "           sealift send --server %s --tls-fingerprint %s --name you FILE\n", at, key)
		<-asked.Done()
	}
	stop()
	if err := <-served; err != nil {
		return fmt.Errorf("the server: %w", err)
	}
	fmt.Fprintln(w, "server     drained and stopped; what it stored:")
	if err := readBack(context.WithoutCancel(ctx), w, serverDir); err != nil {
		return err
	}
	fmt.Fprintf(w, "success    look around in %s, or serve it: sealiftd --dir %s\n", dir, serverDir)
	return nil
}

// send is one visit of the client: the first registers, the next reconnects.
func send(ctx context.Context, w io.Writer, opts client.Options, f client.File) error {
	_, err := client.Run(ctx, opts, []client.File{f}, &client.Events{
		LoggedIn: func(l client.Login) {
			how := "reconnected"
			if l.Registered {
				how = "registered "
			}
			fmt.Fprintf(w, "client     %s as %q with id %s\n", how, l.Identity.Name, l.Identity.ID)
		},
		Stored: func(f client.File, r client.Result) {
			fmt.Fprintf(w, "client     sent %s: %d bytes in %d packets, %.3f s, cksum %d on both sides\n",
				r.Name, r.Size, r.Packets, r.Elapsed.Seconds(), r.Cksum)
		},
	})
	return err
}

// readBack reads back what the server stored and compares checksums.
func readBack(ctx context.Context, w io.Writer, dir string) error {
	stored, err := server.OpenReadOnly(ctx, server.Stores{Dir: dir})
	if err != nil {
		return err
	}
	defer stored.Close()
	n := 0
	var wrong error
	err = stored.Verify(ctx, func(f server.File, err error) {
		n++
		state := "read back, cksum equal"
		if err != nil {
			state, wrong = err.Error(), err
		}
		fmt.Fprintf(w, "  %s  %d bytes, cksum %d, verified: %s\n", f.PathName(), f.Size, f.Cksum, state)
	})
	if err = errors.Join(err, wrong); err != nil {
		return err
	}
	if n != 2 {
		return fmt.Errorf("%d files are stored, not 2", n)
	}
	return nil
}
