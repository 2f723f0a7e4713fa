package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"sealift/internal/apiclient"
	"sealift/internal/bars"
	"sealift/server"
)

// patternHelp explains PATTERN.
const patternHelp = `PATTERN is compared with a file's whole path below its client's folder: * is
any part of a name, ? one character, ** any folders. '**' is all files, '*.csv'
those in no folder, '**/*.csv' those in any, 'docs/**' all in docs. Everything
else stands for itself. Quote it, or the shell replaces it.`

// fileCommand is what there is to do about files, and the list of all.
func fileCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "file",
		Short: "Take files away, delete or list them",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(listFiles("list"), takeCommand(), deleteFilesCommand(), expireFilesCommand())
	return cmd
}

// choosing is what the commands share that do something to files.
type choosing struct {
	stores
	at           *place // where the server may also be; nil: in the stores alone
	names, ids   []string
	dryRun, json bool
}

func (c *choosing) command(use, short, long string, run func(cmd *cobra.Command, pattern string) error) *cobra.Command {
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Long:  long + "\n\n" + patternHelp,
		Args:  exactly(1),
		RunE:  func(cmd *cobra.Command, args []string) error { return run(cmd, args[0]) },
	}
	if c.at != nil {
		c.at.flags(cmd.Flags())
	} else {
		c.stores.flags(cmd.Flags())
	}
	cmd.Flags().StringArrayVar(&c.names, "client", nil, "only files of the client with this user `NAME`; may be given several times")
	cmd.Flags().StringArrayVar(&c.ids, "id", nil, "the same by client `ID`, 32 hex digits")
	cmd.Flags().BoolVar(&c.dryRun, "dry-run", false, "change nothing, and print the same")
	cmd.Flags().BoolVar(&c.json, "json", false, "one JSON object a line")
	return cmd
}

func (c *choosing) clients() (whos []server.Who) {
	for _, name := range c.names {
		whos = append(whos, server.Who{Name: name})
	}
	for _, id := range c.ids {
		whos = append(whos, server.Who{ID: id})
	}
	return whos
}

// lines prints to standard output, above the bars if both are one terminal.
func lines(screen *bars.Screen, w io.Writer) io.Writer {
	if screen.Drawing() && term.IsTerminal(int(os.Stdout.Fd())) {
		return screen
	}
	return w
}

// outcomeRow is what became of a file, as JSON.
type outcomeRow struct {
	Client string `json:"client"`
	From   string `json:"from"` // below the server's directory
	To     string `json:"to,omitempty"`
	Size   int64  `json:"size_bytes"`
	OK     bool   `json:"ok"`
	Error  string `json:"error,omitempty"`
}

func outcomeOf(f *server.File) outcomeRow {
	return outcomeRow{Client: f.ID.String(), From: f.PathName(), Size: f.Size}
}

// tally counts what became of files, for the last line.
type tally struct {
	done, left int
	bytes      int64
}

// row counts a file, and says what became of it.
func (t *tally) row(r outcomeRow, err error) outcomeRow {
	if r.OK = err == nil; r.OK {
		t.done++
		t.bytes += r.Size
	} else {
		t.left++
		r.Error = err.Error()
	}
	return r
}

// end prints how many files were done, unless there was none because of err, and returns
// err, or that files were left. what is what was to be done.
func (t *tally) end(w io.Writer, c *choosing, done, left string, err error) error {
	if !c.json && (err == nil || t.done+t.left > 0) {
		fmt.Fprintf(w, "%s %s (%s)\n", count(t.done, "file"), would(c.dryRun, done), humanize.Bytes(uint64(t.bytes)))
	}
	if err == nil && t.left > 0 {
		err = fmt.Errorf("%s %s", count(t.left, "file"), left)
	}
	return err
}

func takeCommand() *cobra.Command {
	c := new(choosing)
	var to string
	cmd := c.command("take PATTERN --to DIR", "Take verified files away",
		`take moves verified files to DIR/CLIENT-ID/PATH. Each appears there once,
whole, and on the disk, and belongs to whoever watches DIR, who may carry it
away at once. A client whose 1604 was lost and that asks again within a day
still gets it.

take works beside a running server and without one. It may be stopped or killed
at any time: the next run into the same DIR finishes what it has begun, first
of all. On one file system nothing is copied. DIR/.taking is where files are in
between: leave it alone. Only files that are verified are taken. One that is
missing or damaged is left and printed, and so is one whose place in DIR is not
free, since an earlier file of that name has not been carried away; then the
status is 1.`,
		func(cmd *cobra.Command, pattern string) error {
			screen := bars.New(os.Stderr)
			defer screen.Stop()
			bar := screen.Add("taking files", true)
			var all tally
			err := server.Take(cmd.Context(), c.Stores, server.TakeOptions{
				Pattern: pattern, Clients: c.clients(), To: to, DryRun: c.dryRun,
				Read: bar.Set,
				Each: func(t server.Taken) {
					out := lines(screen, cmd.OutOrStdout())
					row := outcomeOf(&t.File)
					row.To = t.To
					row = all.row(row, t.Err)
					switch {
					case c.json:
						_ = json.NewEncoder(out).Encode(row)
					case t.Err != nil && t.LeftOver:
						fmt.Fprintf(out, "%s: not in its place yet: %v\n", shown(t.To), t.Err)
					case t.Err != nil:
						fmt.Fprintf(out, "%s: left: %v\n", shown(row.From), t.Err)
					default:
						fmt.Fprintf(out, "%s -> %s\n", shown(row.From), shown(row.To))
					}
				},
			})
			screen.Stop()
			return all.end(cmd.OutOrStdout(), c, "taken", "left", err)
		})
	cmd.Flags().StringVar(&to, "to", "", "the folder, `DIR`, to take files to, on any file system")
	return cmd
}

func deleteFilesCommand() *cobra.Command {
	at := new(place)
	c := &choosing{at: at}
	var unverified bool
	cmd := c.command("delete PATTERN", "Delete files",
		`delete removes verified files and their records. A 1029 for such a file gets
1607, and the client may send it again. With --unverified it removes the files
that await their client's verdict, and partial ones, and not the verified ones.
It works beside a running server, which removes the files, and waits until that
is done. It may be stopped and run again.`,
		func(cmd *cobra.Command, pattern string) error {
			api, err := at.remote(cmd.Flags())
			if err != nil {
				return err
			}
			screen := bars.New(os.Stderr)
			defer screen.Stop()
			bar := screen.Add("deleting files", false)
			var all tally
			each := func(row outcomeRow, err error) {
				out := lines(screen, cmd.OutOrStdout())
				row = all.row(row, err)
				switch {
				case c.json:
					_ = json.NewEncoder(out).Encode(row)
				case err != nil:
					fmt.Fprintf(out, "%s: %v\n", shown(row.From), err)
				default:
					fmt.Fprintln(out, shown(row.From))
				}
			}
			if api != nil {
				d := apiclient.Deletion{Pattern: pattern, Names: c.names, IDs: c.ids, Unverified: unverified, DryRun: c.dryRun}
				err = api.Delete(cmd.Context(), d, func(of apiclient.Deleted) {
					switch {
					case of.Path == "":
						bar.Set(of.Done, of.Total)
					case of.Error != "":
						each(remoteOutcome(&of), errors.New(of.Error))
					default:
						each(remoteOutcome(&of), nil)
					}
				})
			} else {
				err = server.DeleteFiles(cmd.Context(), at.Stores, server.DeleteOptions{
					Pattern: pattern, Clients: c.clients(), Unverified: unverified, DryRun: c.dryRun,
					Removed: bar.Set,
					Each:    func(f server.File, err error) { each(outcomeOf(&f), err) },
				})
			}
			screen.Stop()
			return all.end(cmd.OutOrStdout(), c, "deleted", "not deleted", hinted(err))
		})
	cmd.Flags().BoolVar(&unverified, "unverified", false, "delete the files that await a verdict, and partial ones, and not the verified ones")
	return cmd
}

func remoteOutcome(of *apiclient.Deleted) outcomeRow {
	return outcomeRow{Client: of.Client, From: "files/" + of.Client + "/" + of.Path, Size: of.Size}
}
