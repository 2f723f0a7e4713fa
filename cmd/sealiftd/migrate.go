package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"sealift/internal/bars"
	"sealift/server"
)

func migrateCommand() *cobra.Command {
	var from string
	var to []string
	var o server.MigrateOptions
	cmd := &cobra.Command{
		Use:   "migrate --from DIR --to URL...",
		Short: "Move a server's directory to PostgreSQL, a bucket or both",
		Long: `migrate moves what a server has in its directory to stores that several servers
may share: the records to --to postgres://..., the files to --to s3://..., or
both. What is not named stays in the directory. Clients, their keys, pins,
names and quotas, files with and without a verdict, partial files and events
that wait come along, and so does the TLS key, if both are moved. Clients
notice nothing but that the server was away.

The server must be stopped, and the new stores must be empty. Each file is
compared with its checksum while it is sent. What is missing or damaged is
printed, and is on record as missing; then the status is 1. migrate may be
stopped or killed at any time: run it again with the same words, and it goes on
where it was. Until it is done the directory stays as it is. Then it is marked,
so that no server starts with what is left there, and is yours to remove.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if from == "" {
				return errors.New("--from is not set: want the directory of the server")
			}
			at, err := target(to)
			if err != nil {
				return err
			}
			screen := bars.New(os.Stderr)
			defer screen.Stop()
			w := lines(screen, cmd.OutOrStdout())
			o.Moved = screen.Add("moving", true).Set
			var back *bars.Bar
			o.Verified = func(done, total int64) {
				if back == nil { // it has begun
					back = screen.Add("reading back", true)
				}
				back.Set(done, total)
			}
			o.Wrong = func(f server.File, err error) {
				fmt.Fprintf(w, "%s: %v\n", shown(f.PathName()), err)
			}
			o.Left = func(p server.Partial, err error) {
				fmt.Fprintf(w, "%s: partial, left: %v\n", shown((&server.File{ID: p.ID, Path: p.Path}).PathName()), err)
			}
			done, err := server.Migrate(cmd.Context(), from, at, o)
			screen.Stop()
			if err != nil {
				return err
			}
			return migrated(cmd, from, &done)
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "the directory, `DIR`, of the server that is moved")
	cmd.Flags().StringArrayVar(&to, "to", nil, "`URL` to move to, postgres://… for the records, s3://… for the files; may be given twice")
	cmd.Flags().BoolVar(&o.Verify, "verify", false, "read all files back at the end, and compare them again")
	return cmd
}

// target sorts what --to says.
func target(to []string) (at server.Stores, err error) {
	for _, url := range to {
		place := &at.Registry
		switch scheme, _, _ := strings.Cut(url, "://"); scheme {
		case "postgres", "postgresql":
		case "s3":
			place = &at.Files
		default:
			return at, fmt.Errorf("--to %s://…: want postgres://… or s3://…", scheme)
		}
		if *place != "" {
			return at, errors.New("--to: want one URL for the records and one for the files at most")
		}
		*place = url
	}
	return at, nil
}

// migrated prints what was moved.
func migrated(cmd *cobra.Command, from string, done *server.Migrated) error {
	w := cmd.OutOrStdout()
	if done.Before {
		_, err := fmt.Fprintf(w, "%s was moved before\n", from)
		return err
	}
	fmt.Fprintf(w, "%s, %s (%s), %s, %s and %s moved; %s sent in this run\n",
		count(done.Clients, "client"), count(done.Verified+done.Waiting, "file"), humanize.Bytes(uint64(done.Bytes)),
		count(done.Partials, "partial file"), count(done.Events, "event"), count(done.Names, "added name"), count(done.Sent, "file"))
	if done.Wrong > 0 {
		return fmt.Errorf("all is moved, without %s", count(done.Wrong, "file"))
	}
	return nil
}
