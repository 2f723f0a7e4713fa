package client_test

import (
	"errors"
	"strings"
	"testing"

	"sealift/client"
)

// A file that no transfer can carry goes in several, and nothing of it is sent to a
// server that is not known to take that.
func TestSegments(t *testing.T) {
	defer client.Segments(100_000, 40_000)()
	content := pattern(250_007)
	for _, d := range client.Dialects() {
		for _, tc := range []struct {
			faults faults
			want   string
		}{
			{nil, "1032 1028 1032 1028 1032 1028 1032 1028 1032 1028 1032 1028 1032 1028 1029"},
			// A lost 1603, and a wrong checksum, of the second.
			{faults{1028: {"", "drop"}}, "1032 1028 1032 1028 conn 1027 1032 1028 1032 1028 1032 1028 1032 1028 1032 1028 1029"},
			{faults{1028: {"", "crc"}}, "1032 1028 1032 1028 1030 1028 1032 1028 1032 1028 1032 1028 1032 1028 1032 1028 1029"},
			{faults{1032: {"", "", "drop"}}, "1032 1028 1032 1028 1032 conn 1027 1032 1028 1032 1028 1032 1028 1032 1028 1032 1028 1029"},
			{faults{1029: {"drop", "1607"}}, "1032 1028 1032 1028 1032 1028 1032 1028 1032 1028 1032 1028 1032 1028 1029 conn 1029 1027 1032 1029"},
		} {
			s, o := continuing(t)
			o.Dialect, o.Continue = d, client.ContinueYes
			s.Answer = tc.faults.answer
			c := login(t, o)
			before := s.Sequence()
			r, err := send(c, "f", content)
			if err != nil {
				t.Fatal(d, tc.faults, err)
			}
			got := strings.TrimSpace(strings.TrimPrefix(s.Sequence(), before))
			went(t, s, before, got, content)
			if got := strings.ReplaceAll(got, "(0)", ""); got != tc.want {
				t.Errorf("%v, %v: sequence %q, want %q", d, tc.faults, got, tc.want)
			}
			if r.Attempts != 1+len(tc.faults[1028])/2 || r.Size != int64(len(content)) || d == client.Single && tc.faults[1028] == nil && r.Packets != 7 {
				t.Errorf("%v, %v: %+v", d, tc.faults, r)
			}
		}
	}
	for _, has := range []client.Continuing{client.ContinueUnknown, client.ContinueNo} {
		s, o := continuing(t)
		o.Continue = has
		c := login(t, o)
		before := s.Sequence()
		if _, err := send(c, "f", content); !errors.Is(err, client.ErrTooLarge) || s.Sequence() != before {
			t.Errorf("%v: %v, %q", has, err, s.Sequence())
		}
	}
	// One that was believed to.
	s, o := continuing(t)
	s.Continues, o.Continue = false, client.ContinueYes
	c := login(t, o)
	before := s.Sequence()
	_, err := send(c, "f", content)
	if !errors.Is(err, client.ErrTooLarge) || client.Temporary(err) || strings.TrimPrefix(s.Sequence(), before) != " 1032" {
		t.Errorf("%v, %q", err, s.Sequence())
	}
}
