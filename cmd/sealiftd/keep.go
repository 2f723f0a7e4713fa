package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"sealift/internal/flagenv"
	"sealift/server"
)

// bound is a flag for one half of a client's quota, or the words default and unlimited.
type bound struct {
	n    *int64 // nil: it was not set
	size bool   // of bytes
}

func (b *bound) String() string {
	if b.n == nil {
		return ""
	}
	return strconv.FormatInt(*b.n, 10)
}

func (b *bound) Type() string {
	if b.size {
		return "size"
	}
	return "number"
}

func (b *bound) Set(s string) error {
	n, err := int64(0), error(nil)
	switch {
	case s == "default":
	case s == "unlimited":
		n = server.Unlimited
	case b.size:
		var size byteSize
		err = size.Set(s)
		n = int64(size)
	default:
		n, err = strconv.ParseInt(s, 10, 64)
	}
	if err != nil || n == 0 && s != "default" || n < 0 && s != "unlimited" {
		return errors.New("want 1 or more, unlimited, or default for what all clients may have")
	}
	b.n = &n
	return nil
}

func quotaCommand() *cobra.Command {
	s := &steering{onlyRecords: true}
	bytes, files := &bound{size: true}, &bound{}
	cmd := s.command("quota NAME", "Show or set what a client may have stored",
		`quota sets how many bytes, and how many files, the client may have stored, in
the place of what --quota-bytes and --quota-files say for all. Files that await
their verdict count as if it had come, and one in the place of another needs no
room for both. A file that goes beyond gets 1607. What is stored already stays,
also where it is more than the new quota.

Without flags it shows what is set, and what the client has. It works beside a
running server, for which it counts from the next file on.`, 0,
		func(ctx context.Context, w io.Writer, who server.Who, _ []string) error {
			var client server.Client
			var has server.Usage
			var err error
			if bytes.n == nil && files.n == nil {
				client, has, err = server.ShowQuota(ctx, s.Stores, who)
			} else {
				client, has, err = server.SetQuota(ctx, s.Stores, who, bytes.n, files.n)
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(w, "%s may have %s and %s, and has %s in %s\n", shown(client.Name),
				boundText(client.Quota.Bytes, "bytes", func(n int64) string { return humanize.IBytes(uint64(n)) }),
				boundText(client.Quota.Files, "files", func(n int64) string { return count(int(n), "file") }),
				humanize.IBytes(uint64(has.Bytes)), count(int(has.Files), "file"))
			return err
		})
	cmd.Flags().Var(bytes, "bytes", "bytes, such as 10GiB; unlimited; or default, what all clients may have")
	cmd.Flags().Var(files, filesFlag, "the same in files")
	_ = cmd.Flags().SetAnnotation(filesFlag, flagenv.None, []string{"yes"}) // the flag exists
	return cmd
}

// boundText says what a bound of a client's own allows.
func boundText(n int64, unit string, some func(int64) string) string {
	switch {
	case n == 0:
		return "as many " + unit + " as all clients"
	case n < 0:
		return "any number of " + unit
	}
	return some(n)
}

func keepForCommand() *cobra.Command {
	s := new(steering)
	var dryRun bool
	cmd := s.command("keep-for NAME TIME", "Set how long a client's files are kept",
		`keep-for has the server remove the client's verified files that arrived longer
than TIME ago, such as 720h, in the place of what --keep-for says for all. TIME
ever keeps them, and default is what holds for all. It works beside a running
server, which looks every ten minutes. With --dry-run nothing is changed, and
the files are listed that would go now.`, 1,
		func(ctx context.Context, w io.Writer, who server.Who, args []string) error {
			d, err := keepTime(args[0])
			if err == nil && dryRun && d == 0 {
				err = errors.New("--dry-run with default: want a time, the server alone knows its --keep-for")
			}
			if err != nil {
				return err
			}
			var list table
			list.add("PATH", "SIZE", "RECEIVED")
			n := 0
			c, err := server.KeepFor(ctx, s.Stores, who, d, dryRun, func(f server.File) {
				list.add(oldFile(f)...)
				n++
			})
			switch {
			case err != nil:
				return err
			case dryRun && n > 0:
				return list.print(w)
			case dryRun:
				_, err = fmt.Fprintf(w, "no file of %s is that old\n", shown(c.Name))
			default:
				_, err = fmt.Fprintf(w, "the files of %s are kept %s\n", shown(c.Name), keptText(d))
			}
			return err
		})
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "change nothing, and list the files that would go")
	return cmd
}

func keepTime(s string) (time.Duration, error) {
	switch s {
	case "ever":
		return server.Unlimited, nil
	case "default":
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 || d%time.Second != 0 {
		return 0, fmt.Errorf("%q: want a time in whole seconds, such as 720h, or ever, or default", s)
	}
	return d, nil
}

func keptText(d time.Duration) string {
	switch {
	case d < 0:
		return "for ever"
	case d == 0:
		return "as long as those of all clients"
	}
	return "for " + d.String()
}

// oldFile is a row about a file that goes because it is old.
func oldFile(f server.File) []string {
	return []string{shown(f.PathName()), strconv.FormatInt(f.Size, 10), f.Received.Local().Format(time.DateTime)}
}

func expireClientCommand() *cobra.Command {
	s := new(steering)
	var at string
	var after time.Duration
	var never, dryRun bool
	cmd := s.command("expire NAME", "Disable a client at some time",
		`expire has the server disable the client at that time, as "client disable"
does: what it sends gets 1607, and its name, its id and its files stay. "client
enable" serves it again, and "client delete" removes it. A server that does not
run then does it at its next start.`, 0,
		func(ctx context.Context, w io.Writer, who server.Who, _ []string) error {
			when, err := expiry(at, after, never)
			if err != nil {
				return err
			}
			c, err := server.Expire(ctx, s.Stores, who, when, dryRun)
			if err != nil {
				return err
			}
			would := map[bool]string{false: "is", true: "would be"}[dryRun]
			if never {
				_, err = fmt.Fprintf(w, "%s %s served without an end\n", shown(c.Name), would)
			} else {
				_, err = fmt.Fprintf(w, "%s %s disabled on %s\n", shown(c.Name), would, when.Local().Format(time.DateTime+" MST"))
			}
			return err
		})
	cmd.Flags().StringVar(&at, "at", "", "when: 2027-01-31, the beginning of that day, or 2027-01-31T18:00:00+01:00")
	cmd.Flags().DurationVar(&after, "after", 0, "so long from now, such as 720h")
	cmd.Flags().BoolVar(&never, "never", false, "take back what was set")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "change nothing, and say what would be")
	return cmd
}

// expiry is the time that the flags of expire name.
func expiry(at string, after time.Duration, never bool) (time.Time, error) {
	set := 0
	for _, is := range []bool{at != "", after != 0, never} {
		if is {
			set++
		}
	}
	switch {
	case set != 1:
		return time.Time{}, errors.New("want one of --at, --after and --never")
	case never:
		return time.Time{}, nil
	case after < 0:
		return time.Time{}, fmt.Errorf("--after %v: want more than 0", after)
	case after > 0:
		return time.Now().Add(after), nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if when, err := time.ParseInLocation(layout, at, time.Local); err == nil {
			return when, nil
		}
	}
	return time.Time{}, fmt.Errorf("--at %q: want a day such as 2027-01-31, or a time such as 2027-01-31T18:00:00+01:00", at)
}

func expireFilesCommand() *cobra.Command {
	var at stores
	var o server.ExpireOptions
	cmd := &cobra.Command{
		Use:   "expire",
		Short: "Remove files that were kept long enough",
		Long: `expire removes the verified files that arrived longer ago than --keep-for here,
or than their client's own time says, see "client keep-for". A server does so by
itself, by its own --keep-for. --dry-run lists what a server with that
--keep-for would remove. It works beside a running server and without one.`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list table
			list.add("PATH", "SIZE", "RECEIVED")
			n := 0
			o.Each = func(f server.File) {
				list.add(oldFile(f)...)
				n++
			}
			err := server.ExpireFiles(cmd.Context(), at.Stores, o)
			if n > 0 {
				return errors.Join(list.print(cmd.OutOrStdout()), err)
			}
			if err == nil {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), "no file is that old")
			}
			return err
		},
	}
	at.flags(cmd.Flags())
	cmd.Flags().DurationVar(&o.KeepFor, "keep-for", 0, "of clients that have no time of their own; 0 is for ever")
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "change nothing, and list the files that would go")
	return cmd
}
