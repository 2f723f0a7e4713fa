package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"sealift/internal/bars"
	"sealift/server"
)

// listing is what the commands share that look at a server's directory. They
// work beside a running server.
type listing struct {
	stores
	json bool
}

func (l *listing) command(use, short string, run func(ctx context.Context, w io.Writer, dir *server.ReadOnly) error) *cobra.Command {
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := server.OpenReadOnly(cmd.Context(), l.Stores)
			if err != nil {
				return err
			}
			defer dir.Close()
			return run(cmd.Context(), cmd.OutOrStdout(), dir)
		},
	}
	l.stores.flags(cmd.Flags())
	cmd.Flags().BoolVar(&l.json, "json", false, "one JSON object a line")
	return cmd
}

// records is a command of run that also takes --api.
func (l *listing) records(use, short string, run func(ctx context.Context, w io.Writer, from records) error) *cobra.Command {
	var at place
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, w := cmd.Context(), cmd.OutOrStdout()
			api, err := at.remote(cmd.Flags())
			if err != nil {
				return err
			}
			if api != nil {
				return hinted(run(ctx, w, &remoteRecords{api}))
			}
			dir, err := server.OpenReadOnly(ctx, at.Stores)
			if err != nil {
				return err
			}
			defer dir.Close()
			return run(ctx, w, dir)
		},
	}
	at.flags(cmd.Flags())
	cmd.Flags().BoolVar(&l.json, "json", false, "one JSON object a line")
	return cmd
}

// print prints rows in columns, or each as JSON: what line gets is the object and
// the row's cells.
func (l *listing) print(w io.Writer, header []string, each func(line func(object any, cells ...string) error) error) error {
	if l.json {
		out := json.NewEncoder(w)
		return each(func(object any, _ ...string) error { return out.Encode(object) })
	}
	var t table
	t.add(header...)
	err := each(func(_ any, cells ...string) error {
		t.add(cells...)
		return nil
	})
	return errors.Join(t.print(w), err)
}

// listClients is the command of that name.
func listClients(use string) *cobra.Command {
	l := new(listing)
	return l.records(use, "List the clients on record, and names that were added", func(ctx context.Context, w io.Writer, from records) error {
		return l.print(w, []string{"ID", "NAME", "KEY", "LAST SEEN", "STATE", "TLS KEY"}, func(line func(any, ...string) error) error {
			return from.ClientRows(ctx, func(row server.ClientRow) error {
				seen := "-"
				if row.LastSeen != nil {
					seen = row.LastSeen.Local().Format(time.DateTime)
				}
				return line(row, orDash(row.ID), shown(row.Name), yes(row.Key), seen, row.State(), orDash(row.TLSKey))
			})
		})
	})
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// listFiles is the command of that name.
func listFiles(use string) *cobra.Command {
	l := new(listing)
	return l.records(use, "List files on record, partial and lately taken ones too", func(ctx context.Context, w io.Writer, from records) error {
		return l.print(w, []string{"PATH", "SIZE", "CKSUM", "STATE", "RECEIVED"}, func(line func(any, ...string) error) error {
			return from.FileRows(ctx, func(row server.FileRow) error {
				size, sum := strconv.FormatInt(row.Size, 10), strconv.FormatUint(uint64(row.Cksum), 10)
				if row.Partial != nil {
					size, sum = fmt.Sprintf("%d of %d", *row.Partial, row.Size), "-"
				}
				return line(row, shown(row.Path), size, sum, row.State(), row.Received.Local().Format(time.DateTime))
			})
		})
	})
}

type verifyRow struct {
	server.FileRow
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
}

func verifyCommand() *cobra.Command {
	l := new(listing)
	cmd := l.command("verify", "Compare every stored file with the checksum of its upload", func(ctx context.Context, w io.Writer, dir *server.ReadOnly) error {
		var good, bad int
		var bytes, done int64
		began := time.Now()
		total, err := dir.Size(ctx)
		if err != nil {
			return err
		}
		screen := bars.New(os.Stderr)
		defer screen.Stop()
		bar := screen.Add("verifying", true)
		bar.Set(0, total)
		out := lines(screen, w)
		encode := json.NewEncoder(out)
		ctx, stop := context.WithCancelCause(ctx)
		defer stop(nil)
		err = dir.Verify(ctx, func(f server.File, err error) {
			done += f.Size
			bar.Set(done, max(done, total))
			row := verifyRow{FileRow: server.RowOf(f), OK: err == nil}
			if err == nil {
				good++
				bytes += f.Size
			} else {
				bad++
				row.Error = err.Error()
			}
			switch {
			case l.json:
				_ = encode.Encode(row)
			case err != nil:
				fmt.Fprintf(out, "%s: %v\n", shown(row.Path), err)
			}
			if lost := stdout.Err(); lost != nil {
				stop(lost) // nobody hears what else is found
			}
		})
		screen.Stop()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		miscounted, err := compareUsage(ctx, w, dir, l.json)
		if err != nil {
			return err
		}
		if !l.json {
			fmt.Fprintf(w, "%d of %d files are as they were uploaded (%s in %.1f s)\n",
				good, good+bad, humanize.IBytes(uint64(bytes)), time.Since(began).Seconds())
		}
		if bad > 0 {
			return fmt.Errorf("%d of %d files are not as they were uploaded", bad, good+bad)
		}
		if miscounted > 0 {
			return &server.Hinted{
				Err:  fmt.Errorf("what %s have is not what is counted for their quota", count(miscounted, "client")),
				Hint: "To count anew, set the quota again: sealiftd client quota NAME --bytes …",
			}
		}
		return nil
	})
	return cmd
}

// usageRow is what verify says of a client whose count is wrong.
type usageRow struct {
	Client      string `json:"client"`
	Name        string `json:"name"`
	OK          bool   `json:"ok"`
	Error       string `json:"error"`
	KeptBytes   int64  `json:"kept_bytes"`
	KeptFiles   int64  `json:"kept_files"`
	ActualBytes int64  `json:"actual_bytes"`
	ActualFiles int64  `json:"actual_files"`
}

// compareUsage compares what is counted for quotas with the files, and prints of which
// clients it differs. It returns how many they are.
func compareUsage(ctx context.Context, w io.Writer, dir *server.ReadOnly, asJSON bool) (wrong int, err error) {
	encode := json.NewEncoder(w)
	_, err = dir.CompareUsage(ctx, func(c server.Client, kept, actual server.Usage) {
		wrong++
		row := usageRow{
			Client: c.ID.String(), Name: c.Name, Error: "what is counted for the quota is not what is there",
			KeptBytes: kept.Bytes, KeptFiles: kept.Files, ActualBytes: actual.Bytes, ActualFiles: actual.Files,
		}
		if asJSON {
			_ = encode.Encode(row)
			return
		}
		fmt.Fprintf(w, "%s: %d bytes in %s are counted for the quota, and there are %d in %s\n",
			shown(c.Name), kept.Bytes, count(int(kept.Files), "file"), actual.Bytes, count(int(actual.Files), "file"))
	})
	return wrong, err
}
