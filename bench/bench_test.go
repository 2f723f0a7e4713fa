//go:build linux

package main

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sealift/bench/report"
)

// TestMain lets the test's binary be the servers and the load generator, as the
// benchmark's own is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "server" || os.Args[1] == "load" || os.Args[1] == "put") {
		main()
		return
	}
	os.Exit(m.Run())
}

// Every scenario runs on every peer that can be had, with all uploads checked, and
// comes out as figures, tables and pictures.
func TestEveryScenario(t *testing.T) {
	opts := options{rounds: 1, dir: t.TempDir(), logLevel: "error", tiny: true}
	var want []string
	if os.Getenv("SEALIFT_INTEROP") != "1" { // nothing but Go
		opts.peers = []string{"sealift", "goroutine", "floor"}
	} else if _, err := findPython(); err != nil {
		t.Fatal(err)
	}
	run, err := measure(t.Context(), opts, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range scenarios {
		if s.table == report.Parts {
			if len(run.Parts) == 0 {
				t.Error("the parts were not measured")
			}
			continue
		}
		rows := run.Rows(s.name)
		for _, c := range s.cases() {
			for _, name := range c.peers {
				label := s.name + " " + name
				wanted := len(opts.peers) == 0 || slices.Contains(opts.peers, name)
				if wanted && findPeer(name).needs == nil {
					want = append(want, label)
				}
				if i := slices.IndexFunc(rows, func(r report.Row) bool { return r.Peer == name }); i >= 0 {
					want = slices.DeleteFunc(want, func(l string) bool { return l == label })
					if f := rows[i].Figures[0]; f.Load.Seconds <= 0 || f.Server.Peak <= 0 || f.Load.Peak <= 0 && f.Load.Latency.Count > 0 {
						t.Errorf("%s: %+v", label, f)
					}
				}
			}
		}
	}
	if len(want) > 0 {
		t.Errorf("not measured: %v", want)
	}

	var table strings.Builder
	report.Print(&table, run)
	for _, s := range scenarios {
		if !strings.Contains(table.String(), "\n"+s.name+": ") {
			t.Errorf("no table of %s in:\n%s", s.name, &table)
		}
	}
	file := filepath.Join(opts.dir, "run.json")
	if err := writeRun(file, run); err != nil {
		t.Fatal(err)
	}
	if run, err = readRun(file); err != nil {
		t.Fatal(err)
	}
	if err := report.Plot(opts.dir, run); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"overview.svg", "overview.png"} {
		if info, err := os.Stat(filepath.Join(opts.dir, name)); err != nil || info.Size() < 10_000 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

// The README quotes a run that is kept, and nothing else.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	quoted := regexp.MustCompile(`results/\S+\.json`).Find(readme)
	run, err := readRun(string(quoted))
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	report.PrintMarkdown(&table, run)
	if strings.Count(table.String(), "\n") < 10 || !strings.Contains(string(readme), "\n"+table.String()+"\n") {
		t.Errorf("go -C bench run . --from %s --markdown makes a table that is not the README's:\n%s", quoted, &table)
	}
	if !strings.Contains(string(readme), "(bench/results/overview.png)") {
		t.Error("there is no picture")
	}
}

// What is measured is built of the same versions as what is shipped.
func TestRequirementsAreTheProducts(t *testing.T) {
	product, ours := requirements(t, ".."), requirements(t, ".")
	shared := 0
	for path, version := range ours {
		want, ok := product[path]
		if !ok {
			continue
		}
		shared++
		if version != want {
			t.Errorf("%s is %s here and %s in the product", path, version, want)
		}
	}
	if shared < 10 {
		t.Errorf("only %d requirements are the product's", shared)
	}
}

// requirements are the versions in the go.mod of the module in dir.
func requirements(t *testing.T, dir string) map[string]string {
	t.Helper()
	out, err := exec.Command("go", "-C", dir, "mod", "edit", "-json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var mod struct {
		Require []struct{ Path, Version string }
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	versions := make(map[string]string)
	for _, r := range mod.Require {
		versions[r.Path] = r.Version
	}
	return versions
}

// A server that computes another checksum, or owes a reply, does not get away.
func TestFaultyServerFailsTheRun(t *testing.T) {
	for fault, want := range map[string]string{
		"crc=1":         "cksum",
		"error=1029:1":  "1604",
		"drop=1028:1":   "1603",
		"error=1026:-1": "1602",
	} {
		h, err := newHarness(options{dir: t.TempDir(), tiny: true, logLevel: "error"})
		if err != nil {
			t.Fatal(err)
		}
		faulty := *findPeer("sealift")
		faulty.start = func(ctx context.Context, h *harness, o serverOptions, env []string) (*server, error) {
			o.fault = fault
			return findPeer("sealift").start(ctx, h, o, env)
		}
		s := scenarios[0]
		_, err = h.turn(t.Context(), s, s.cases()[0].shrink(), &faulty)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("with %s the turn ends with %v", fault, err)
		}
		if err := h.close(); err != nil {
			t.Error(err)
		}
	}
}
