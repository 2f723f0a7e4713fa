package admin

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
)

// someStats are numbers of which each is another one.
func someStats() Stats {
	s := Stats{
		Connections: map[string]int64{"open": 3}, Lent: 4, Protected: 5, Limit: 6, Admitted: 7, Refused: 8, Unprotected: 9, Unintroduced: 66,
		Lanes: map[string]Lane{"bulk": {10, 11, 12}},
		Sessions: Sessions{
			Registered: 20, NotRegistered: 21, Rejoined: 22, Rejected: 23, Resumed: 24, Begun: 25, ContentBytes: 26,
			Received: 27, Verified: 28, VerifiedBytes: 29, Again: 30, Mismatches: 31, GivenUp: 32, Kept: 35, Continued: 36,
			Refusals: map[string]uint64{"state": 33}, Failures: map[string]uint64{"registry": 34},
		},
	}
	s.Events = map[string]Events{"url": {Waiting: 60, OldestSeconds: 61, UnderWay: 62, Told: 63, Failed: 64, Dropped: 65}}
	h, m := &s.Handshakes, &s.Memory
	h.Waiting, h.UnderWay, h.Succeeded, h.Failed = 40, 41, 42, 43
	m.Budget, m.Used, m.Waiting, m.EarlyBudget, m.Early, m.Protected = 44, 45, 46, 47, 48, 49
	return s
}

// gather returns all metrics of a server.
func gather(t testing.TB) []*dto.MetricFamily {
	t.Helper()
	var m *Metrics
	w := watch(t, func(_ *watched, o *Options) { m = o.Metrics })
	w.checks.latest(t.Context())
	m.Synced(File, time.Millisecond)
	m.Applied(Write, 3, time.Millisecond)
	m.Committed(time.Millisecond)
	m.Received(time.Second)
	all, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if problems, err := testutil.GatherAndLint(m.registry); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
	return all
}

// Each number is the one that it is called, and the names are as is usual.
func TestMetrics(t *testing.T) {
	var lines []string
	for _, f := range gather(t) {
		for _, m := range f.Metric {
			v := m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			label := ""
			for _, l := range m.Label {
				label = " " + l.GetValue()
			}
			if strings.HasPrefix(f.GetName(), "process_network_") {
				t.Errorf("%s is of the whole machine", f.GetName())
			}
			if strings.HasPrefix(f.GetName(), "sealift_") && v != 0 && f.GetName() != "sealift_build_info" {
				lines = append(lines, fmt.Sprintf("%s%s %v", f.GetName(), label, v))
			}
		}
	}
	want := `sealift_commit_seconds 1
sealift_connections open 3
sealift_connections_accepted_total 7
sealift_connections_lent 4
sealift_connections_limit 6
sealift_connections_protected 5
sealift_connections_refused_total 8
sealift_connections_unprotected_total 9
sealift_disk_free_bytes 100
sealift_disk_reserve_bytes 10
sealift_early_budget_bytes 47
sealift_early_used_bytes 48
sealift_events_dropped_total url 65
sealift_events_failed_total url 64
sealift_events_oldest_seconds url 61
sealift_events_told_total url 63
sealift_events_under_way url 62
sealift_events_waiting url 60
sealift_failures_total registry 34
sealift_fsync_seconds file 1
sealift_handshakes 41
sealift_handshakes_failed_total 43
sealift_handshakes_succeeded_total 42
sealift_handshakes_waiting 40
sealift_lane_busy bulk 11
sealift_lane_waiting bulk 10
sealift_lane_workers bulk 12
sealift_memory_budget_bytes 44
sealift_memory_used_bytes 45
sealift_memory_waiting 46
sealift_proxy_headers_refused_total 66
sealift_ready 1
sealift_received_bytes_total 26
sealift_reconnects_rejected_total 23
sealift_reconnects_total 22
sealift_refusals_total state 33
sealift_registrations_rejected_total 21
sealift_registrations_total 20
sealift_registry_batch_operations write 1
sealift_registry_batch_seconds write 1
sealift_resumptions_total 24
sealift_tls_memory_bytes 49
sealift_upload_seconds 1
sealift_uploads_begun_total 25
sealift_uploads_confirmed_again_total 30
sealift_uploads_continued_total 36
sealift_uploads_given_up_total 32
sealift_uploads_kept_total 35
sealift_uploads_mismatched_total 31
sealift_uploads_received_total 27
sealift_uploads_verified_total 28
sealift_verified_bytes_total 29`
	slices.Sort(lines)
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("got\n%s", got)
	}
}
