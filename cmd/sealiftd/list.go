package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"sealift/server"
)

// listing is what the commands share that look at a server's directory. They
// work beside a running server.
type listing struct {
	dir  string
	json bool
}

func (l *listing) command(use, short string, run func(ctx context.Context, w io.Writer, dir *server.ReadOnly) error) *cobra.Command {
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := server.OpenReadOnly(cmd.Context(), l.dir)
			if err != nil {
				return err
			}
			defer dir.Close()
			return run(cmd.Context(), cmd.OutOrStdout(), dir)
		},
	}
	cmd.Flags().StringVar(&l.dir, "dir", ".", "the server's directory")
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

type clientRow struct {
	ID       string     `json:"id,omitempty"` // none: its name was added, and it has not registered
	Name     string     `json:"name"`
	Key      bool       `json:"public_key"`
	TLSKey   string     `json:"tls_key,omitempty"` // that it is pinned to
	LastSeen *time.Time `json:"last_seen,omitempty"`
	Disabled bool       `json:"disabled"`
	Added    bool       `json:"added"` // it may register where registration is closed

	// Its own: 0 is what all clients have, and negative no bound.
	QuotaBytes int64      `json:"quota_bytes,omitempty"`
	QuotaFiles int64      `json:"quota_files,omitempty"`
	KeepFor    int64      `json:"keep_for_seconds,omitempty"`
	Expires    *time.Time `json:"expires,omitempty"`
}

// state is that of a client in a few words.
func (c *clientRow) state() string {
	switch {
	case c.ID == "":
		return "added"
	case c.Disabled:
		return "disabled"
	case !c.Key:
		return "no key"
	case c.Expires != nil:
		return "enabled until " + c.Expires.Local().Format(time.DateTime)
	}
	return "enabled"
}

// listClients is the command of that name.
func listClients(use string) *cobra.Command {
	l := new(listing)
	return l.command(use, "List the clients on record, and names that were added", func(ctx context.Context, w io.Writer, dir *server.ReadOnly) error {
		added := make(map[string]bool) // names, false where a client has registered
		if err := dir.Added(ctx, func(name string) error {
			added[name] = true
			return nil
		}); err != nil {
			return err
		}
		return l.print(w, []string{"ID", "NAME", "KEY", "LAST SEEN", "STATE", "TLS KEY"}, func(line func(any, ...string) error) error {
			err := dir.Clients(ctx, func(c server.Client) error {
				_, may := added[c.Name]
				row := clientRow{
					ID: c.ID.String(), Name: c.Name, Key: c.PublicKey != nil, TLSKey: server.TLSKey(c),
					Disabled: c.Disabled, Added: may,
					QuotaBytes: c.Quota.Bytes, QuotaFiles: c.Quota.Files, KeepFor: int64(c.KeepFor / time.Second),
				}
				if !c.Expires.IsZero() {
					row.Expires = &c.Expires
				}
				if may {
					added[c.Name] = false
				}
				seen := "-"
				if !c.LastSeen.IsZero() {
					row.LastSeen, seen = &c.LastSeen, c.LastSeen.Local().Format(time.DateTime)
				}
				return line(row, row.ID, shown(row.Name), yes(row.Key), seen, row.state(), cmp.Or(row.TLSKey, "-"))
			})
			for _, name := range slices.Sorted(maps.Keys(added)) {
				if row := (clientRow{Name: name, Added: true}); added[name] {
					err = errors.Join(err, line(row, "-", shown(name), yes(false), "-", row.state(), "-"))
				}
			}
			return err
		})
	})
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

type fileRow struct {
	Client   string    `json:"client"`
	FileName string    `json:"file_name"`
	Path     string    `json:"path"` // below the server's directory
	Verified bool      `json:"verified"`
	Missing  bool      `json:"missing"` // it is not in its place, and was not taken from there
	Size     int64     `json:"size_bytes"`
	Cksum    uint32    `json:"cksum"` // as the command of that name prints it
	Received time.Time `json:"received"`

	Taken   *time.Time `json:"taken,omitempty"` // when it was handed out
	Deleted bool       `json:"deleted"`         // it is to be removed
	// Partial is how many of Size bytes are there of a partial file, which has no cksum.
	// Received is when some of it came last.
	Partial *int64 `json:"partial_bytes,omitempty"`
}

// state is that of a file in one word.
func (f *fileRow) state() string {
	switch {
	case f.Taken != nil:
		return "taken"
	case f.Deleted:
		return "deleted"
	case f.Partial != nil:
		return "partial"
	case f.Missing:
		return "missing"
	case f.Verified:
		return "verified"
	}
	return "waiting"
}

// listFiles is the command of that name.
func listFiles(use string) *cobra.Command {
	l := new(listing)
	return l.command(use, "List files on record, partial and lately taken ones too", func(ctx context.Context, w io.Writer, dir *server.ReadOnly) error {
		return l.print(w, []string{"PATH", "SIZE", "CKSUM", "STATE", "RECEIVED"}, func(line func(any, ...string) error) error {
			files := dir.Files(ctx, func(f server.File) error {
				row := rowOf(f)
				return line(row, shown(row.Path), strconv.FormatInt(row.Size, 10), strconv.FormatUint(uint64(row.Cksum), 10),
					row.state(), row.Received.Local().Format(time.DateTime))
			})
			if files != nil && !errors.Is(files, server.ErrBadRows) {
				return files
			}
			return errors.Join(files, dir.Partials(ctx, func(p server.Partial) error {
				row := partialRowOf(p)
				return line(row, shown(row.Path), fmt.Sprintf("%d of %d", p.Length, p.Total), "-",
					row.state(), row.Received.Local().Format(time.DateTime))
			}))
		})
	})
}

func rowOf(f server.File) fileRow {
	row := fileRow{
		Client: f.ID.String(), FileName: f.FileName, Path: f.PathName(),
		Verified: f.Verified, Missing: f.Missing && f.Taken.IsZero(), Size: f.Size, Cksum: f.Cksum, Received: f.Received,
		Deleted: f.Deleted,
	}
	if !f.Taken.IsZero() {
		row.Taken = &f.Taken
	}
	return row
}

// partialRowOf is the row of a file of which a part is there.
func partialRowOf(p server.Partial) fileRow {
	f := storedAt(p)
	return fileRow{
		Client: p.ID.String(), FileName: p.FileName, Path: f.PathName(), Size: p.Total, Received: p.Changed,
		Deleted: p.Deleted, Partial: &p.Length,
	}
}

// storedAt is the file that p is to become, as far as its place.
func storedAt(p server.Partial) server.File { return server.File{ID: p.ID, Path: p.Path} }

type verifyRow struct {
	fileRow
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
}

func verifyCommand() *cobra.Command {
	l := new(listing)
	cmd := l.command("verify", "Compare every stored file with the checksum of its upload", func(ctx context.Context, w io.Writer, dir *server.ReadOnly) error {
		var good, bad int
		var bytes int64
		began := time.Now()
		encode := json.NewEncoder(w)
		ctx, stop := context.WithCancelCause(ctx)
		defer stop(nil)
		err := dir.Verify(ctx, func(f server.File, err error) {
			row := verifyRow{fileRow: rowOf(f), OK: err == nil}
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
				fmt.Fprintf(w, "%s: %v\n", shown(row.Path), err)
			}
			if lost := stdout.Err(); lost != nil {
				stop(lost) // nobody hears what else is found
			}
		})
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
