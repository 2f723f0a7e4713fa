package report

import (
	"strings"
	"testing"

	"sealift/bench/load"
)

func figure(kase, peer string, round int, uploads int64) Figure {
	return Figure{
		Scenario: "s", Case: kase, Peer: peer, Round: round, Connections: 1,
		Load: load.Result{Seconds: 2, Rounds: uploads, Bytes: uploads * 1e9},
	}
}

func TestTable(t *testing.T) {
	run := &Run{
		Scenarios: []Scenario{{Name: "s", About: "about", Table: Throughput}},
		Missing:   []string{"other: not installed"},
		Figures: []Figure{ // as peers take turns
			figure("one", "sealift", 0, 8), figure("one", "python", 0, 1),
			figure("one", "sealift", 1, 4), figure("one", "python", 1, 1),
			figure("two", "sealift", 0, 30), figure("two", "python", 0, 20),
		},
	}
	var b strings.Builder
	Print(&b, run)
	lines := strings.Split(b.String(), "\n")
	for _, want := range [][]string{
		{"not", "measured:", "other:", "not", "installed"},
		{"one", "sealift", "3.00", "100%"}, // the median of 4 and 2 GB/s
		{"python", "0.50", "6.00x", "0%"},
		{"two", "sealift", "15.00"},
		{"python", "10.00", "1.50x"},
	} {
		found := false
		for _, line := range lines {
			words := strings.Fields(line)
			found = found || len(words) >= len(want) && strings.Join(words[:len(want)], " ") == strings.Join(want, " ")
		}
		if !found {
			t.Errorf("no line %q in:\n%s", want, &b)
		}
	}
}

// The short table is for those who choose a server: it has the others, and not what sealift was.
func TestShortTable(t *testing.T) {
	run := &Run{Scenarios: []Scenario{{Name: "bulk", Table: Throughput}}}
	for _, peer := range []string{"sealift", "before", "python"} {
		f := figure("1 x 1 GiB", peer, 0, 8)
		f.Scenario = "bulk"
		run.Figures = append(run.Figures, f)
	}
	var b strings.Builder
	PrintMarkdown(&b, run)
	if head, _, _ := strings.Cut(b.String(), "\n"); head != "| | sealift | as against python |" {
		t.Errorf("%q in:\n%s", head, &b)
	}
}
