package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"sealift/client"
	"sealift/internal/daemon"
	"sealift/storage"
	"sealift/storage/audit"
	"sealift/storage/files"
	"sealift/storage/sqlite"
)

func demoCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show all of it at work: a server, a client, two uploads, what is stored",
		Long: `demo starts a server on a free port, registers a client, uploads a file (this
program), reconnects, uploads another, stops the server, and reads what is
stored. Everything happens in one directory, which is left for you to look at.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if dir == "" {
				if dir, err = os.MkdirTemp("", "sealift-demo-"); err != nil {
					return err
				}
			} else if err = os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			return demo(cmd.Context(), cmd.OutOrStdout(), dir)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "directory for it all (default: a new one under the system's temporary directory)")
	return cmd
}

func demo(ctx context.Context, w io.Writer, dir string) error {
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
	if err := os.WriteFile(note, []byte("A second file, sent after a reconnect.\n"), 0o644); err != nil {
		return err
	}

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	addr := make(chan *net.TCPAddr, 1)
	served := make(chan error, 1)
	go func() {
		served <- daemon.Run(ctx, daemon.Config{Dir: serverDir, Listen: "127.0.0.1:0", Fsync: true, Log: zap.NewNop()},
			func(a *net.TCPAddr) { addr <- a })
	}()
	var server string
	select {
	case a := <-addr:
		server = a.String()
	case err := <-served:
		return fmt.Errorf("the server did not start: %w", err)
	}
	fmt.Fprintf(w, "server     listens on %s, keeps everything in %s\n", server, serverDir)

	opts := client.Options{
		Server: server, Name: fmt.Sprintf("demo %s", time.Now().Format("15:04:05.000")),
		Identity: client.IdentityFile(filepath.Join(clientDir, "me.info")),
	}
	for _, f := range []client.File{{Path: program}, {Path: note}} {
		if err := demoSend(ctx, w, opts, f); err != nil {
			return err
		}
	}

	stop()
	if err := <-served; err != nil {
		return fmt.Errorf("the server: %w", err)
	}
	fmt.Fprintln(w, "server     drained and stopped; what it stored:")
	if err := demoStored(context.WithoutCancel(ctx), w, serverDir); err != nil {
		return err
	}
	fmt.Fprintf(w, "success    look around in %s, or serve it: sealiftd --dir %s\n", dir, serverDir)
	return nil
}

// demoSend is one visit of the client: the first registers, the next reconnects.
func demoSend(ctx context.Context, w io.Writer, opts client.Options, f client.File) error {
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

// demoStored reads back what the server stored and compares checksums.
func demoStored(ctx context.Context, w io.Writer, dir string) error {
	reg, err := sqlite.OpenReadOnly(ctx, filepath.Join(dir, daemon.DatabaseName))
	if err != nil {
		return err
	}
	defer reg.Close()
	store, err := files.OpenReadOnly(dir)
	if err != nil {
		return err
	}
	defer store.Close()
	stored := 0
	var wrong error
	err = audit.Verify(ctx, reg, store, func(f storage.File, err error) {
		stored++
		state := "read back, cksum equal"
		if err != nil {
			state, wrong = err.Error(), err
		}
		fmt.Fprintf(w, "  %s  %d bytes, cksum %d, verified: %s\n", f.PathName(), f.Size, f.Cksum, state)
	})
	if err = errors.Join(err, wrong); err != nil {
		return err
	}
	if stored != 2 {
		return fmt.Errorf("%d files are stored, not 2", stored)
	}
	return nil
}
