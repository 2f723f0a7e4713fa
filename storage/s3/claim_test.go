package s3

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"sealift/internal/testservices"
	"sealift/storage"
)

// Of several registries that claim one prefix at once, one has it, and all are told which, also
// later. Another prefix is another one's. The claim is no content.
func TestClaim(t *testing.T) {
	b := testservices.S3(t)
	url := b.URL(newPrefix())
	whose := make([]string, 8)
	var wg sync.WaitGroup
	for i := range whose {
		s := openAt(t, url, b, Options{})
		wg.Go(func() {
			var err error
			if whose[i], err = s.Claim(t.Context(), "registry-"+strings.Repeat("x", i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i, got := range whose {
		if !strings.HasPrefix(got, "registry-") || got != whose[0] {
			t.Errorf("%d is told %q, and 0 %q", i, got, whose[0])
		}
	}
	s := openAt(t, url, b, Options{})
	if got, err := s.Claim(t.Context(), "late"); err != nil || got != whose[0] {
		t.Errorf("later %q, %v, want %q", got, err, whose[0])
	}
	err := s.EachContent(t.Context(), func(up storage.Uploaded, _ time.Time) error {
		t.Errorf("%v is content", up)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if got, err := open(t, b, Options{}).Claim(t.Context(), "elsewhere"); err != nil || got != "elsewhere" {
		t.Errorf("elsewhere: %q, %v", got, err)
	}

	// "At this moment another one writes it" is no answer: nobody may have it in the end.
	conflicts := 2
	p := newProxy(t, b, nil)
	s = openAt(t, b.URLAt(p.URL, newPrefix()), b, Options{})
	p.set(func(_ int, r *http.Request) fault {
		if r.Method != http.MethodPut || conflicts == 0 {
			return pass
		}
		conflicts--
		return conflict
	})
	if got, err := s.Claim(t.Context(), "patient"); err != nil || got != "patient" {
		t.Errorf("beside others: %q, %v", got, err)
	}
}
