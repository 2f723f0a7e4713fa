package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"sealift/internal/daemon"
	"sealift/internal/progress"
	"sealift/session"
)

func backupCommand() *cobra.Command {
	var dir, to string
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
			bar := progress.New(os.Stderr)
			defer bar.Clear()
			var w io.Writer = cmd.OutOrStdout()
			bad, copied := 0, int64(0)
			err := daemon.Backup(cmd.Context(), dir, to, func(done, total int64) {
				copied = done
				bar.Update("backup", done, total)
			}, func(f session.File, err error) {
				bar.Clear()
				bad++
				fmt.Fprintf(w, "%s: %v\n", shown(f.PathName()), err)
			})
			bar.Clear()
			if err != nil {
				return err
			}
			if bad > 0 {
				return fmt.Errorf("the copy is made, without %s", count(bad, "file"))
			}
			fmt.Fprintf(w, "%s copied to %s\n", progress.Bytes(copied), to)
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "the server's directory")
	cmd.Flags().StringVar(&to, "to", "", "the directory to make")
	return cmd
}
