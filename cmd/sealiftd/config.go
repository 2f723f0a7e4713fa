package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"sealift/internal/flagenv"
	"sealift/internal/flagfile"
)

// configFlag names the file that settings are read from.
const configFlag = "config"

// notInFile are flags that a file cannot set.
var notInFile = []string{configFlag, "help"}

// from is the annotation of a flag that says what has set it.
const from = "from"

// commandLine is that of a flag that was given.
const commandLine = "command line"

// settle sets the flags that were not given: from the environment, and then from the
// file that --config names.
func settle(fs *pflag.FlagSet) error {
	mark(fs, func(string) string { return commandLine })
	if err := flagenv.Apply(fs); err != nil {
		return err
	}
	mark(fs, flagenv.Name)
	path := configFile(fs)
	if path == "" {
		return nil
	}
	lines, err := flagfile.Apply(fs, path, notInFile...)
	mark(fs, func(name string) string { return fmt.Sprintf("%s:%d", path, lines[name]) })
	return err
}

// mark notes by what the flags are set that were not when it was called last.
func mark(fs *pflag.FlagSet, by func(name string) string) {
	fs.Visit(func(f *pflag.Flag) {
		if f.Annotations[from] == nil {
			_ = fs.SetAnnotation(f.Name, from, []string{by(f.Name)}) // the flag exists
		}
	})
}

func configFile(fs *pflag.FlagSet) string {
	f := fs.Lookup(configFlag)
	if f == nil {
		return ""
	}
	return f.Value.String()
}

var flagInText = regexp.MustCompile(`--([a-z-]+)`)

// locate puts the line or the variable that has set the flag that err is about in front of
// it.
func locate(fs *pflag.FlagSet, err error) error {
	for _, m := range flagInText.FindAllStringSubmatch(err.Error(), -1) {
		if f := fs.Lookup(m[1]); f != nil && f.Annotations[from] != nil && f.Annotations[from][0] != commandLine {
			return fmt.Errorf("%s: %w", f.Annotations[from][0], err)
		}
	}
	return err
}

func configCommand(serve *cobra.Command, settings *serveFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Look at the settings of a server",
		Long: `A server's settings can stand in a YAML file, by the names of its flags:

  dir: /var/lib/sealift
  listen: ":1256"
  max-file-size: 1GiB

sealiftd serve --config FILE reads it. What the command line sets counts, then
the environment, then the file. A name that is none is an error. At a SIGHUP a
server reads the file again, and its log says what changed, and what needs a
restart.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	sub := func(use, short string, run func(w io.Writer, fs *pflag.FlagSet) error) {
		c := &cobra.Command{
			Use: use, Short: short, Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return run(cmd.OutOrStdout(), cmd.Flags()) },
		}
		c.Flags().SortFlags = false
		c.Flags().AddFlagSet(serve.Flags())
		cmd.AddCommand(c)
	}
	sub("check", "Say whether serve would start with these settings", func(w io.Writer, fs *pflag.FlagSet) error {
		if err := cmp.Or(settings.check(), settings.options.CheckFiles()); err != nil {
			return locate(fs, err)
		}
		_, err := fmt.Fprintln(w, "The settings are good.")
		return err
	})
	sub("show", "Print all settings of serve, as a file for --config", func(w io.Writer, fs *pflag.FlagSet) error {
		if err := settings.check(); err != nil {
			return locate(fs, err)
		}
		return showSettings(w, fs)
	})
	return cmd
}

// showSettings prints the flags that a file can set, each with what has set it.
func showSettings(w io.Writer, fs *pflag.FlagSet) error {
	top := &yaml.Node{Kind: yaml.MappingNode}
	fs.VisitAll(func(f *pflag.Flag) {
		if slices.Contains(notInFile, f.Name) {
			return
		}
		key, value := new(yaml.Node), new(yaml.Node)
		key.SetString(f.Name)
		value.SetString(exact(f.Value))
		value.LineComment = "default"
		if by := f.Annotations[from]; by != nil {
			value.LineComment = by[0]
		}
		top.Content = append(top.Content, key, value)
	})
	var out bytes.Buffer
	if err := yaml.NewEncoder(&out).Encode(top); err != nil {
		return err
	}
	_, err := w.Write(out.Bytes())
	return err
}

// exact is a value in words that give the same value again.
func exact(v pflag.Value) string {
	if b, ok := v.(*byteSize); ok {
		return b.exact()
	}
	if list, ok := v.(pflag.SliceValue); ok {
		return strings.Join(list.GetSlice(), ",")
	}
	return v.String()
}
