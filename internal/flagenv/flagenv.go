// Package flagenv lets environment variables stand in for flags that were not
// given: SEALIFT_MAX_FILE_SIZE for --max-file-size.
package flagenv

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"
)

// Name is the environment variable of a flag.
func Name(flag string) string {
	return "SEALIFT_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// None is the annotation of a flag that no variable stands in for, since another flag has its
// name elsewhere.
const None = "no environment variable"

// Apply sets each flag of fs that was not given on the command line from its
// environment variable, if that is set and not empty.
func Apply(fs *pflag.FlagSet) error {
	var err error
	fs.VisitAll(func(f *pflag.Flag) {
		value := os.Getenv(Name(f.Name))
		if err != nil || f.Changed || value == "" || f.Annotations[None] != nil {
			return
		}
		if e := fs.Set(f.Name, value); e != nil {
			err = fmt.Errorf("environment variable %s: %w", Name(f.Name), e)
		}
	})
	return err
}
