//go:build linux && !race

package deploy

import (
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// systemd takes the units as the package installs them, and finds little that they leave
// open: 20 is 2.0 of 10.
func TestUnits(t *testing.T) {
	need(t, "root", "dpkg", "ldd", "useradd", "systemd-analyze")
	root := cleanRoot(t, "useradd", "kill", "systemd-notify")
	emptyDatabase(t, root)
	finish(t, packagers[0].install(root, packagers[0].built(t, runtime.GOARCH)))
	// Units of systemd that ours name.
	for _, name := range []string{"sysinit.target", "basic.target", "shutdown.target", "network-online.target", "multi-user.target", "sockets.target"} {
		write(t, filepath.Join(root, "usr/lib/systemd/system", name), "[Unit]\nDescription="+name+"\n", 0o644)
	}
	for _, unit := range []string{"sealiftd.service", "sealiftd.socket"} {
		said, err := exec.Command("systemd-analyze", "verify", "--man=no", "--root="+root, unit).CombinedOutput()
		if err != nil || len(said) > 0 { // what it does not know it reports, and succeeds
			t.Errorf("%s: %v\n%s", unit, err, said)
		}
	}
	said := output(t, "systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", "--root="+root, "sealiftd.service")
	if !strings.Contains(said, "Overall exposure level for sealiftd.service: ") {
		t.Errorf("security says nothing:\n%s", said)
	}
	t.Log(said[strings.Index(said, "Overall"):])
}
