package bootid

import (
	"os"
	"strings"
)

func id() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "" // no /proc
	}
	return strings.TrimSpace(string(b))
}
