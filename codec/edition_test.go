package codec

import "testing"

func TestLater(t *testing.T) {
	for later, first := range laterEdition {
		if got := first.Later(); got != later {
			t.Errorf("%v: %v, want %v", first, got, later)
		}
		if got := later.Later(); got != later {
			t.Errorf("%v: %v", later, got)
		}
	}
	if got := CodeAck.Later(); got != CodeAck {
		t.Errorf("a reply: %v", got)
	}
}
