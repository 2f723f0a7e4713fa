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
}

// state is that of a client in one word.
func (c *clientRow) state() string {
	switch {
	case c.ID == "":
		return "added"
	case c.Disabled:
		return "disabled"
	case !c.Key:
		return "no key"
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
		if !l.json {
			fmt.Fprintf(w, "%d of %d files are as they were uploaded (%s in %.1f s)\n",
				good, good+bad, humanize.IBytes(uint64(bytes)), time.Since(began).Seconds())
		}
		if bad > 0 {
			return fmt.Errorf("%d of %d files are not as they were uploaded", bad, good+bad)
		}
		return nil
	})
	return cmd
}
