package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"sealift/server"
)

// keeping is what the commands share that change what is on record.
type keeping struct {
	stores
	dryRun bool
}

// command makes a command of run.
func (k *keeping) command(use, short, long string, run func(ctx context.Context, w io.Writer) error) *cobra.Command {
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Long:  long,
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return run(cmd.Context(), cmd.OutOrStdout()) },
	}
	k.stores.flags(cmd.Flags())
	cmd.Flags().BoolVar(&k.dryRun, "dry-run", false, "change nothing, and print the same")
	return cmd
}

func forgetMissingCommand() *cobra.Command {
	k := new(keeping)
	return k.command("forget-missing", "Forget the files on record that are not in their place",
		`forget-missing forgets the files that are marked as missing, and those that are
not in their place now, and prints the path of each. Their clients may send them
again. It works beside a running server.`,
		func(ctx context.Context, w io.Writer) error {
			n := 0
			err := server.ForgetMissing(ctx, k.Stores, k.dryRun, func(f server.File) {
				n++
				fmt.Fprintln(w, shown(f.PathName()))
			})
			if err == nil || n > 0 {
				fmt.Fprintf(w, "%s %s\n", count(n, "missing file"), k.outcome("forgotten"))
			}
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
		func(ctx context.Context, w io.Writer) error {
			taken, left := 0, 0
			err := server.TakeStrays(ctx, k.Stores, k.dryRun, func(f server.File, err error) {
				if err != nil {
					left++
					fmt.Fprintf(w, "%s: %v\n", shown(f.PathName()), err)
					return
				}
				taken++
				fmt.Fprintf(w, "%s  %d bytes, cksum %d\n", shown(f.PathName()), f.Size, f.Cksum)
			})
			if err == nil || taken+left > 0 {
				fmt.Fprintf(w, "%s %s\n", count(taken, "file"), k.outcome("taken"))
			}
			if err == nil && left > 0 {
				err = fmt.Errorf("%s left alone", count(left, "file"))
			}
			return err
		})
}

// outcome says that something was done, or would be.
func (k *keeping) outcome(done string) string { return would(k.dryRun, done) }

// would says that something was done, or would be.
func would(dryRun bool, done string) string {
	if dryRun {
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
