//go:build unix

package e2e

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"sealift/codec"
)

// metrics asks the admin address for all metrics, by their names.
func (d *daemon) metrics() map[string]*dto.MetricFamily {
	d.t.Helper()
	got := d.ask("/metrics")
	if got.status != 200 {
		d.t.Fatalf("/metrics: %d: %s", got.status, got.body)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	all, err := parser.TextToMetricFamilies(strings.NewReader(got.body))
	if err != nil {
		d.t.Fatal(err)
	}
	return all
}

// metric is a value: of a histogram, how often it was measured. labels are values.
func metric(t testing.TB, all map[string]*dto.MetricFamily, name string, labels ...string) float64 {
	t.Helper()
	for _, m := range all[name].GetMetric() {
		var has []string
		for _, l := range m.Label {
			has = append(has, l.GetValue())
		}
		if slices.Equal(has, labels) {
			return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	t.Fatalf("there is no %s %v", name, labels)
	return 0
}

// The numbers are what a client did.
func TestMetricsAgree(t *testing.T) {
	d := serve(t, adminFlags(t, "127.0.0.1")...)
	p := login(t, d, "a client")
	sizes := []int{0, 1, 1000, 100_000, 1_000_000}
	bytes, encrypted := 0, 0
	for i, n := range sizes {
		p.upload(fmt.Sprint("file ", i), randomBytes(n, byte(i)))
		bytes, encrypted = bytes+n, encrypted+n/16*16+16
	}
	p.confirm("file 1") // once more
	f := p.File("spoilt", []byte("content"))
	p.sendPackets(cut(f, 100))
	p.expectReceived(f)
	p.send(p.Verdict(codec.CodeCRCBad, "spoilt"))
	p.sendPackets(cut(f, 100))
	p.expectReceived(f)
	p.send(p.Verdict(codec.CodeAbort, "spoilt"))
	p.expectID(codec.CodeAck)
	encrypted += 2 * 16
	p.send(p.Verdict(codec.CodeCRCOK, "no such file"))
	p.expect(codec.CodeError)
	q := login(t, d, "another client")
	q.dial()
	q.rejoin()
	if r := run(t, t.TempDir(), sealiftd, "clients", "--dir", d.dir); r.status != 0 {
		t.Error(r.stderr)
	}

	eventually(t, "the disk was looked at", func() bool { return d.metrics()["sealift_disk_free_bytes"] != nil })
	all := d.metrics()
	for name, want := range map[string]float64{
		"sealift_registrations_total": 2, "sealift_reconnects_total": 1,
		"sealift_uploads_begun_total":           float64(len(sizes) + 2),
		"sealift_uploads_received_total":        float64(len(sizes) + 2),
		"sealift_uploads_verified_total":        float64(len(sizes)),
		"sealift_uploads_confirmed_again_total": 1,
		"sealift_uploads_mismatched_total":      1,
		"sealift_uploads_given_up_total":        1,
		"sealift_verified_bytes_total":          float64(bytes),
		"sealift_received_bytes_total":          float64(encrypted),
		"sealift_commit_seconds":                float64(len(sizes)),
		"sealift_upload_seconds":                float64(len(sizes) + 2),
		"sealift_ready":                         1,
		"sealift_connections_refused_total":     0,
		"sealift_disk_reserve_bytes":            64 << 20,
	} {
		if got := metric(t, all, name); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	for _, m := range []struct {
		name, label string
		want        float64
	}{{"sealift_refusals_total", "verdict", 1}, {"sealift_refusals_total", "state", 0}, {"sealift_failures_total", "registry", 0}, {"sealift_fsync_seconds", "file", float64(len(sizes))}} {
		if got := metric(t, all, m.name, m.label); got != m.want {
			t.Errorf("%s %s: %v, want %v", m.name, m.label, got, m.want)
		}
	}
	for _, kind := range []string{"read", "write"} {
		if metric(t, all, "sealift_registry_batch_seconds", kind) == 0 {
			t.Errorf("no batch that %ss", kind)
		}
	}
	if free := metric(t, all, "sealift_disk_free_bytes"); free <= 0 {
		t.Errorf("%v bytes free", free)
	}
}

// Metrics are named as is usual.
func TestMetricsLint(t *testing.T) {
	d := serve(t, adminFlags(t, "127.0.0.1")...)
	problems, err := promlint.New(strings.NewReader(d.ask("/metrics").body)).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

// The page has all metrics, with their types and labels, and no others; and all reasons
// and steps.
func TestMetricsPage(t *testing.T) {
	page := string(get(t, "../../docs/METRICS.md"))
	d := serve(t, append(adminFlags(t, "127.0.0.1"), "--on-event", "true")...)
	exposed, described := map[string]string{}, map[string]string{}
	values := map[string][]string{} // of a label
	eventually(t, "the disk was looked at", func() bool { return d.metrics()["sealift_disk_free_bytes"] != nil })
	for name, f := range d.metrics() {
		if strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") {
			continue
		}
		var labels []string
		for _, l := range f.Metric[0].Label {
			labels = append(labels, "`"+l.GetName()+"`")
		}
		slices.Sort(labels)
		exposed[name] = strings.ToLower(f.GetType().String()) + " " + strings.Join(labels, " ")
		for _, m := range f.Metric {
			for _, l := range m.Label {
				values[l.GetName()] = append(values[l.GetName()], l.GetValue())
			}
		}
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `(sealift_[a-z_]+)` \\| ([a-z]+) \\|([^|]*)\\|").FindAllStringSubmatch(page, -1) {
		labels := strings.Fields(row[3])
		slices.Sort(labels)
		described[row[1]] = row[2] + " " + strings.Join(labels, " ")
	}
	if !maps.Equal(exposed, described) {
		for name := range exposed {
			if described[name] != exposed[name] {
				t.Errorf("%s: %q, and the page has %q", name, exposed[name], described[name])
			}
		}
		for name := range described {
			if _, ok := exposed[name]; !ok {
				t.Errorf("%s is on the page and nowhere else", name)
			}
		}
	}
	for _, label := range []string{"reason", "step"} {
		_, table, found := strings.Cut(page, "| `"+label+"` | meaning |\n|---|---|\n")
		if !found {
			t.Fatalf("no table of each %s", label)
		}
		table, _, _ = strings.Cut(table, "\n\n")
		var rows []string
		for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(table, -1) {
			rows = append(rows, row[1])
		}
		slices.Sort(rows)
		slices.Sort(values[label])
		if !slices.Equal(rows, values[label]) {
			t.Errorf("%s: the page has %v, the metrics have %v", label, rows, values[label])
		}
	}
}
