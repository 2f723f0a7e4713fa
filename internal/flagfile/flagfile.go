// Package flagfile reads what flags are set to from a YAML file: a mapping of their
// names, without the dashes, to plain values. A line `max-file-size: 1GiB` stands for
// --max-file-size 1GiB.
package flagfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// maxSize is how many bytes a file may have.
const maxSize = 1 << 20

// setting is a line of a file.
type setting struct {
	name, value string
	line        int // from 1
}

// read returns the settings in a file, in its order. An error names the file and the
// line.
func read(path string) ([]setting, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxSize {
		return nil, fmt.Errorf("%s: want %d bytes at most", path, maxSize)
	}
	documents := yaml.NewDecoder(bytes.NewReader(text))
	var document, more yaml.Node
	err = documents.Decode(&document)
	if errors.Is(err, io.EOF) { // nothing but comments
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := documents.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s:%d: want one document", path, max(more.Line, document.Line+1))
	}
	top := document.Content[0]
	if top.Tag == "!!null" {
		return nil, nil
	}
	if top.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s:%d: want lines of NAME: VALUE", path, top.Line)
	}
	var all []setting
	lines := make(map[string]int)
	for i := 0; i < len(top.Content); i += 2 {
		key, value := top.Content[i], top.Content[i+1]
		switch {
		case key.Kind != yaml.ScalarNode || value.Kind != yaml.ScalarNode || value.Tag == "!!null":
			return nil, fmt.Errorf("%s:%d: %s: want one plain value", path, key.Line, key.Value)
		case lines[key.Value] > 0:
			return nil, fmt.Errorf("%s:%d: %s is set in line %d already", path, key.Line, key.Value, lines[key.Value])
		}
		lines[key.Value] = key.Line
		all = append(all, setting{key.Value, value.Value, key.Line})
	}
	return all, nil
}

// Apply sets each flag of fs that nothing has set yet from the file. Every name in it
// has to be a flag, and none of but. The value of a flag that was set is not looked at. It
// returns the lines of all names. An error names the file and the line.
func Apply(fs *pflag.FlagSet, path string, but ...string) (lines map[string]int, err error) {
	all, err := read(path)
	if err != nil {
		return nil, err
	}
	lines = make(map[string]int)
	for _, s := range all {
		f := fs.Lookup(s.name)
		if f == nil || slices.Contains(but, s.name) {
			return nil, fmt.Errorf("%s:%d: there is no setting %q", path, s.line, s.name)
		}
		lines[s.name] = s.line
		if f.Changed {
			continue
		}
		if err := fs.Set(s.name, s.value); err != nil {
			// pflag speaks of a flag that nobody gave; what is wrong with the value comes last.
			var invalid *pflag.InvalidValueError
			if errors.As(err, &invalid) {
				err = invalid.Unwrap()
			}
			return nil, fmt.Errorf("%s:%d: %s %q: %w", path, s.line, s.name, s.value, err)
		}
	}
	return lines, nil
}
