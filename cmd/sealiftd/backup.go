package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"sealift/internal/bars"
	"sealift/server"
)

func backupCommand() *cobra.Command {
	var at stores
	var to string
	cmd := &cobra.Command{
		Use:   "backup --to DEST",
		Short: "Copy a server's directory while it runs",
		Long: `backup copies the database as it is at one moment, and each verified file with a
check of its size and checksum, to a directory that is empty or not there. It
works beside a running server. The copy is complete, and on the disk, when the
command ends with 0. Where files are missing or damaged, it prints them, makes
the copy without them, and ends with 1.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if to == "" {
				return errors.New("--to is not set: want the directory to make")
			}
			screen := bars.New(os.Stderr)
			defer screen.Stop()
			bar := screen.Add("backup", true)
			w := cmd.OutOrStdout()
			bad, copied := 0, int64(0)
			err := server.Backup(cmd.Context(), at.Stores, to, func(done, total int64) {
				copied = done
				bar.Set(done, total)
			}, func(f server.File, err error) {
				bad++
				line := fmt.Sprintf("%s: %v\n", shown(f.PathName()), err)
				if screen.Drawing() && term.IsTerminal(int(os.Stdout.Fd())) {
					_, _ = io.WriteString(screen, line)
				} else {
					_, _ = io.WriteString(w, line)
				}
			})
			screen.Stop()
			if err != nil {
				return err
			}
			if bad > 0 {
				return fmt.Errorf("the copy is made, without %s", count(bad, "file"))
			}
			fmt.Fprintf(w, "%s copied to %s\n", humanize.Bytes(uint64(copied)), to)
			return nil
		},
	}
	at.flags(cmd.Flags())
	cmd.Flags().StringVar(&to, "to", "", "the directory to make")
	return cmd
}
