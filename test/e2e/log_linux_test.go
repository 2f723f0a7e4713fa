package e2e

import (
	"os"
	"testing"
)

// A log on a disk without room holds nobody up either.
func TestLogOnAFullDisk(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	dir := t.TempDir()
	d := launchTo(t, full, dir, nil, "serve", "--dir", dir, "--listen", "127.0.0.1:0", "--log-level", "debug")
	d.ready()
	goesOnWithoutLog(d)
	d.stop()
}
