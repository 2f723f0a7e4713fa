package main

import (
	"testing"

	"github.com/spf13/pflag"

	"sealift/server"
)

// Of each setting it is said, in one place, whether it may change while the server runs.
func TestEachSettingIsListed(t *testing.T) {
	cmd, _ := serveCommand()
	flags := 0
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		flags++
		_, own := ownSettings[f.Name]
		_, servers := server.Settings()[f.Name]
		if own == servers {
			t.Errorf("--%s: in ownSettings %v, in server.Settings %v", f.Name, own, servers)
		}
	})
	if n := len(ownSettings) + len(server.Settings()); n != flags {
		t.Errorf("%d settings are listed, and there are %d flags", n, flags)
	}
}
