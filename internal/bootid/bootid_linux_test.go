package bootid

import (
	"regexp"
	"testing"
)

func TestID(t *testing.T) {
	got := ID()
	if !regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`).MatchString(got) {
		t.Errorf("the boot is called %q, want a UUID", got)
	}
	if again := ID(); again != got {
		t.Errorf("the boot is called %q, and then %q", got, again)
	}
}
