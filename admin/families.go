package admin

import "github.com/prometheus/client_golang/prometheus"

// Stats are numbers of a moment, and totals since the start.
type Stats struct {
	Connections map[string]int64 // that loops have, by phase
	Lent        int
	Protected   int64
	Limit       int
	Admitted    uint64
	Refused     uint64
	Unprotected uint64 // plain connections refused
	// Unintroduced are connections refused because of their PROXY header.
	Unintroduced uint64

	Handshakes struct {
		Waiting, UnderWay int
		Succeeded, Failed uint64
	}
	Lanes  map[string]Lane
	Memory struct {
		Budget, Used       int64
		Waiting            int
		EarlyBudget, Early int64
		Protected          int64
	}

	Partials struct{ Files, Bytes int64 }

	Sessions Sessions
	Events   map[string]Events // by target
}

// Events are those for one target.
type Events struct {
	Waiting       int
	OldestSeconds float64 // how long ago the oldest of them happened
	UnderWay      int
	Told, Failed  uint64
	Dropped       uint64
}

// Lane is a pool of workers.
type Lane struct{ Waiting, Busy, Size int }

// Sessions are what sessions have done, in all.
type Sessions struct {
	Registered, NotRegistered, Rejoined, Rejected, Resumed uint64
	Begun, ContentBytes, Received, Verified, VerifiedBytes uint64
	Again, Mismatches, GivenUp, Kept, Continued            uint64
	Refusals, Failures                                     map[string]uint64 // by reason, and by step
}

// sample is what the values of all families are taken from.
type sample struct {
	Stats
	Condition
	ready bool
}

// family is a metric: its name and kind, and how its values are had.
type family struct {
	desc   *prometheus.Desc
	kind   prometheus.ValueType
	values func(s *sample, emit func(v float64, labels ...string))
}

type emit = func(v float64, labels ...string)

func counter(name, help string, value func(s *sample) uint64) family {
	return family{prometheus.NewDesc(name, help, nil, nil), prometheus.CounterValue,
		func(s *sample, emit emit) { emit(float64(value(s))) }}
}

func gauge(name, help string, value func(s *sample) int64) family {
	return family{prometheus.NewDesc(name, help, nil, nil), prometheus.GaugeValue,
		func(s *sample, emit emit) { emit(float64(value(s))) }}
}

// by is a family with a label.
func by[N int | int64 | uint64 | float64, M ~map[string]V, V any](kind prometheus.ValueType, name, label, help string, of func(*sample) M, value func(V) N) family {
	return family{prometheus.NewDesc(name, help, []string{label}, nil), kind, func(s *sample, emit emit) {
		for l, v := range of(s) {
			emit(float64(value(v)), l)
		}
	}}
}

func same[N any](n N) N { return n }

func (s *sample) lanes() map[string]Lane { return s.Lanes }

func (s *sample) events() map[string]Events { return s.Events }

// families are all metrics but the histograms, sealift_build_info, and those of the
// process and of Go.
var families = []family{
	counter("sealift_registrations_total", "Clients registered: 1600, and ids taken over from another server.", func(s *sample) uint64 { return s.Sessions.Registered }),
	counter("sealift_registrations_rejected_total", "Registrations answered with 1601.", func(s *sample) uint64 { return s.Sessions.NotRegistered }),
	counter("sealift_reconnects_total", "Reconnections answered with 1605.", func(s *sample) uint64 { return s.Sessions.Rejoined }),
	counter("sealift_reconnects_rejected_total", "Reconnections answered with 1606.", func(s *sample) uint64 { return s.Sessions.Rejected }),
	counter("sealift_resumptions_total", "Connections that went on under the id alone.", func(s *sample) uint64 { return s.Sessions.Resumed }),

	counter("sealift_uploads_begun_total", "Transfers that began.", func(s *sample) uint64 { return s.Sessions.Begun }),
	counter("sealift_uploads_received_total", "Files that were complete: 1603.", func(s *sample) uint64 { return s.Sessions.Received }),
	counter("sealift_uploads_verified_total", "Files that were verified, and are durable in their place: 1604 to a 1029.", func(s *sample) uint64 { return s.Sessions.Verified }),
	counter("sealift_uploads_confirmed_again_total", "1604 given again for a file that was verified.", func(s *sample) uint64 { return s.Sessions.Again }),
	counter("sealift_uploads_mismatched_total", "Files of which the client found another checksum: 1030.", func(s *sample) uint64 { return s.Sessions.Mismatches }),
	counter("sealift_uploads_given_up_total", "Files that the client gave up: 1031.", func(s *sample) uint64 { return s.Sessions.GivenUp }),
	counter("sealift_uploads_kept_total", "Transfers that were cut off, and kept as partial files.", func(s *sample) uint64 { return s.Sessions.Kept }),
	counter("sealift_uploads_continued_total", "1608 that spoke of more than nothing.", func(s *sample) uint64 { return s.Sessions.Continued }),
	gauge("sealift_partial_files", "Partial files that wait for their client to go on.", func(s *sample) int64 { return s.Partials.Files }),
	gauge("sealift_partial_bytes", "Content of these, as far as it was recorded.", func(s *sample) int64 { return s.Partials.Bytes }),
	counter("sealift_received_bytes_total", "Content that transfers took, encrypted as it came.", func(s *sample) uint64 { return s.Sessions.ContentBytes }),
	counter("sealift_verified_bytes_total", "Content of the files that were verified, decrypted.", func(s *sample) uint64 { return s.Sessions.VerifiedBytes }),
	by(prometheus.CounterValue, "sealift_refusals_total", "reason", "1607 for what a client did.", func(s *sample) map[string]uint64 { return s.Sessions.Refusals }, same[uint64]),
	by(prometheus.CounterValue, "sealift_failures_total", "step", "1607 for what the server could not do.", func(s *sample) map[string]uint64 { return s.Sessions.Failures }, same[uint64]),

	by(prometheus.GaugeValue, "sealift_connections", "phase", "Connections that the event loops have.", func(s *sample) map[string]int64 { return s.Connections }, same[int64]),
	gauge("sealift_connections_limit", "Connections that may be served at once.", func(s *sample) int64 { return int64(s.Limit) }),
	gauge("sealift_connections_lent", "Connections whose content a worker receives, or that wait for one.", func(s *sample) int64 { return int64(s.Lent) }),
	gauge("sealift_connections_protected", "Connections over TLS, after the handshake.", func(s *sample) int64 { return s.Protected }),
	counter("sealift_connections_accepted_total", "Connections that were served.", func(s *sample) uint64 { return s.Admitted }),
	counter("sealift_connections_refused_total", "Connections beyond a limit, which got 1607.", func(s *sample) uint64 { return s.Refused }),
	counter("sealift_connections_unprotected_total", "Plain connections that got 1607, because TLS is required.", func(s *sample) uint64 { return s.Unprotected }),
	counter("sealift_proxy_headers_refused_total", "Connections that got 1607 because of their PROXY header, or because none came.", func(s *sample) uint64 { return s.Unintroduced }),

	gauge("sealift_handshakes", "TLS handshakes under way.", func(s *sample) int64 { return int64(s.Handshakes.UnderWay) }),
	gauge("sealift_handshakes_waiting", "TLS handshakes that wait for a place.", func(s *sample) int64 { return int64(s.Handshakes.Waiting) }),
	counter("sealift_handshakes_succeeded_total", "TLS handshakes that went well.", func(s *sample) uint64 { return s.Handshakes.Succeeded }),
	counter("sealift_handshakes_failed_total", "TLS handshakes that failed.", func(s *sample) uint64 { return s.Handshakes.Failed }),

	by(prometheus.GaugeValue, "sealift_lane_waiting", "lane", "Work that waits for a worker.", (*sample).lanes, func(l Lane) int { return l.Waiting }),
	by(prometheus.GaugeValue, "sealift_lane_busy", "lane", "Workers that work.", (*sample).lanes, func(l Lane) int { return l.Busy }),
	by(prometheus.GaugeValue, "sealift_lane_workers", "lane", "Workers that there may be at this moment.", (*sample).lanes, func(l Lane) int { return l.Size }),

	gauge("sealift_memory_budget_bytes", "Memory for content on its way to the disk: --memory-budget.", func(s *sample) int64 { return s.Memory.Budget }),
	gauge("sealift_memory_used_bytes", "What is taken of it.", func(s *sample) int64 { return s.Memory.Used }),
	gauge("sealift_memory_waiting", "Connections that wait for some of it.", func(s *sample) int64 { return int64(s.Memory.Waiting) }),
	gauge("sealift_early_budget_bytes", "Memory for packets that came before their turn.", func(s *sample) int64 { return s.Memory.EarlyBudget }),
	gauge("sealift_early_used_bytes", "What is taken of it. What finds no room waits in files.", func(s *sample) int64 { return s.Memory.Early }),
	gauge("sealift_tls_memory_bytes", "Memory that protected connections take, about.", func(s *sample) int64 { return s.Memory.Protected }),

	by(prometheus.GaugeValue, "sealift_events_waiting", "target", "Events on record that the target has not accepted yet.", (*sample).events, func(e Events) int { return e.Waiting }),
	by(prometheus.GaugeValue, "sealift_events_oldest_seconds", "target", "How long ago the oldest of them happened.", (*sample).events, func(e Events) float64 { return e.OldestSeconds }),
	by(prometheus.GaugeValue, "sealift_events_under_way", "target", "Attempts to tell an event that are under way.", (*sample).events, func(e Events) int { return e.UnderWay }),
	by(prometheus.CounterValue, "sealift_events_told_total", "target", "Events that the target accepted.", (*sample).events, func(e Events) uint64 { return e.Told }),
	by(prometheus.CounterValue, "sealift_events_failed_total", "target", "Attempts to tell an event that failed.", (*sample).events, func(e Events) uint64 { return e.Failed }),
	by(prometheus.CounterValue, "sealift_events_dropped_total", "target", "Events that were given up: older than --event-ttl, or more than --event-max.", (*sample).events, func(e Events) uint64 { return e.Dropped }),

	gauge("sealift_ready", "1 if /readyz says so, otherwise 0.", func(s *sample) int64 {
		if s.ready {
			return 1
		}
		return 0
	}),
	disk("sealift_disk_free_bytes", "Room on the disk with the files.", func(s *sample) int64 { return s.Free }),
	disk("sealift_disk_reserve_bytes", "Room that content leaves free: --min-free.", func(s *sample) int64 { return s.Reserve }),
}

// disk is a gauge that is left out while it is not known.
func disk(name, help string, value func(s *sample) int64) family {
	return family{prometheus.NewDesc(name, help, nil, nil), prometheus.GaugeValue, func(s *sample, emit emit) {
		if v := value(s); v >= 0 {
			emit(float64(v))
		}
	}}
}
