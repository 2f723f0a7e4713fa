package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"sealift/internal/daemon"
	"sealift/storage"
	"sealift/storage/audit"
	"sealift/storage/files"
	"sealift/storage/sqlite"
)

// keeping is what the commands share that change what is on record.
type keeping struct {
	dir    string
	dryRun bool
}

// command makes a command of run, which is given the directory's database.
func (k *keeping) command(use, short, long string, run func(ctx context.Context, w io.Writer, reg *sqlite.Registry) error) *cobra.Command {
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Long:  long,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			// It is opened for reading first: that makes no database, and can tell what
			// is wrong where there is none.
			look, err := daemon.OpenReadOnly(cmd.Context(), k.dir)
			switch {
			case err == nil:
				_ = look.Close()
			case !errors.Is(err, sqlite.ErrOlder): // which the next Open changes
				return err
			}
			reg, err := sqlite.Open(cmd.Context(), filepath.Join(k.dir, daemon.DatabaseName), sqlite.Options{Fsync: true})
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, reg.Close()) }()
			return run(cmd.Context(), cmd.OutOrStdout(), reg)
		},
	}
	cmd.Flags().StringVar(&k.dir, "dir", ".", "the server's directory")
	cmd.Flags().BoolVar(&k.dryRun, "dry-run", false, "change nothing, and print the same")
	return cmd
}

func forgetMissingCommand() *cobra.Command {
	k := new(keeping)
	return k.command("forget-missing", "Forget the files on record that are not in their place",
		`forget-missing forgets the files that are marked as missing, and those that are
not in their place now, and prints the path of each. Their clients may send them
again. It works beside a running server.`,
		func(ctx context.Context, w io.Writer, reg *sqlite.Registry) error {
			store, err := files.OpenReadOnly(k.dir)
			if errors.Is(err, fs.ErrNotExist) {
				return &daemon.Hinted{Err: err, Hint: "Is the right disk mounted? To forget all files, make that folder."}
			}
			if err != nil {
				return err
			}
			defer store.Close()
			n := 0
			err = audit.ForgetMissing(ctx, reg, store, k.dryRun, func(f storage.File) {
				n++
				fmt.Fprintln(w, shown(f.PathName()))
			})
			fmt.Fprintf(w, "%s %s\n", count(n, "missing file"), k.outcome("forgotten"))
			return err
		})
}

func takeStraysCommand() *cobra.Command {
	k := new(keeping)
	return k.command("take-strays", "Record the files in clients' folders that are not on record",
		`take-strays records as verified the files in clients' folders that are not on
record, or are on record as missing or with another size, and prints path, size
and checksum of each. Whether they are what the clients sent is for you to know.
The server must be stopped.`,
		func(ctx context.Context, w io.Writer, reg *sqlite.Registry) (err error) {
			store, err := files.Open(k.dir, files.Options{Fsync: true})
			if errors.Is(err, files.ErrLocked) {
				return &daemon.Hinted{Err: err, Hint: "Stop the server first: strays cannot be told from its uploads."}
			}
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, store.Close()) }()
			taken, left := 0, 0
			err = audit.TakeStrays(ctx, reg, store, time.Now(), k.dryRun, func(f storage.File, err error) {
				if err != nil {
					left++
					fmt.Fprintf(w, "%s: %v\n", shown(f.PathName()), err)
					return
				}
				taken++
				fmt.Fprintf(w, "%s  %d bytes, cksum %d\n", shown(f.PathName()), f.Size, f.Cksum)
			})
			fmt.Fprintf(w, "%s %s\n", count(taken, "file"), k.outcome("taken"))
			if err == nil && left > 0 {
				err = fmt.Errorf("%s left alone", count(left, "file"))
			}
			return err
		})
}

// outcome says that something was done, or would be.
func (k *keeping) outcome(done string) string {
	if k.dryRun {
		return "would be " + done
	}
	return done
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
