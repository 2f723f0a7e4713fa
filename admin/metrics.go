package admin

import (
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
)

// Metrics are what a server measures of each event, beside the numbers that Source.Stats
// has. Its functions may be called from any goroutine, and cost about 100 ns.
type Metrics struct {
	registry *prometheus.Registry

	fsync, batch, batchSize, bucket *prometheus.HistogramVec
	commit, upload                  prometheus.Histogram
	bucketFailures                  *prometheus.CounterVec
}

// Buckets, in seconds, but for those of sizes.
var (
	diskBuckets   = prometheus.ExponentialBuckets(0.0001, 2, 16) // 100 µs to 3.3 s
	batchBuckets  = prometheus.ExponentialBuckets(0.00002, 2.5, 14)
	uploadBuckets = prometheus.ExponentialBuckets(0.001, 4, 12) // 1 ms to 70 min
	bucketBuckets = prometheus.ExponentialBuckets(0.001, 2, 15) // 1 ms to 16 s
	sizeBuckets   = prometheus.ExponentialBuckets(1, 2, 11)     // 1 to 1,024
)

// NewMetrics makes the histograms. build is what sealift_build_info says, by the names of
// its labels.
func NewMetrics(build map[string]string) *Metrics {
	histogram := func(name, help string, buckets []float64) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}
	}
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		fsync: prometheus.NewHistogramVec(histogram("sealift_fsync_seconds",
			"Time of each sync of the store's: of a file's content, or of a folder.", diskBuckets), []string{"of"}),
		batch: prometheus.NewHistogramVec(histogram("sealift_registry_batch_seconds",
			"Time that the registry took for a batch of operations, with the sync where it writes.", batchBuckets), []string{"kind"}),
		batchSize: prometheus.NewHistogramVec(histogram("sealift_registry_batch_operations",
			"Operations in a batch for the registry.", sizeBuckets), []string{"kind"}),
		commit: prometheus.NewHistogram(histogram("sealift_commit_seconds",
			"Time to make a verified file durable in its place, without its record.", diskBuckets)),
		bucket: prometheus.NewHistogramVec(histogram("sealift_bucket_request_seconds",
			"Time of each attempt at a request to the bucket.", bucketBuckets), []string{"request"}),
		bucketFailures: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sealift_bucket_failures_total",
			Help: "Attempts at a request to the bucket that failed. Most are repeated."}, []string{"request"}),
		upload: prometheus.NewHistogram(histogram("sealift_upload_seconds",
			"Time from the first packet of a transfer to its 1603.", uploadBuckets)),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "sealift_build_info", Help: "Always 1. The labels say what runs.", ConstLabels: build,
	})
	info.Set(1)
	for _, of := range []string{File, Folder} {
		m.fsync.WithLabelValues(of)
	}
	for _, kind := range []string{Read, Write} {
		m.batch.WithLabelValues(kind)
		m.batchSize.WithLabelValues(kind)
	}
	m.registry.MustRegister(m.fsync, m.batch, m.batchSize, m.bucket, m.bucketFailures, m.commit, m.upload, info,
		collectors.NewGoCollector(), ownProcess{collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})})
	return m
}

// ownProcess is a collector of numbers of the process without those of the network,
// which the kernel has of the whole machine only.
type ownProcess struct{ prometheus.Collector }

// Collect implements [prometheus.Collector].
func (c ownProcess) Collect(ch chan<- prometheus.Metric) {
	all := make(chan prometheus.Metric)
	go func() {
		defer close(all)
		c.Collector.Collect(all)
	}()
	for m := range all {
		if !strings.Contains(m.Desc().String(), `"process_network_`) {
			ch <- m
		}
	}
}

// What is synced, and what a batch does.
const (
	File, Folder = "file", "folder"
	Read, Write  = "read", "write"
)

// Synced counts a sync of a File or Folder.
func (m *Metrics) Synced(of string, took time.Duration) {
	m.fsync.WithLabelValues(of).Observe(took.Seconds())
}

// Applied counts a batch of so many operations that was a Read or Write.
func (m *Metrics) Applied(kind string, operations int, took time.Duration) {
	m.batch.WithLabelValues(kind).Observe(took.Seconds())
	m.batchSize.WithLabelValues(kind).Observe(float64(operations))
}

// Requested counts an attempt at a request to the bucket.
func (m *Metrics) Requested(request string, took time.Duration, err error) {
	m.bucket.WithLabelValues(request).Observe(took.Seconds())
	if err != nil {
		m.bucketFailures.WithLabelValues(request).Inc()
	}
}

// Committed counts a file that came into its place, or failed to.
func (m *Metrics) Committed(took time.Duration) { m.commit.Observe(took.Seconds()) }

// Received counts a file that had its 1603.
func (m *Metrics) Received(took time.Duration) { m.upload.Observe(took.Seconds()) }

// handler is /metrics. It waits for nothing.
func (m *Metrics) handler(source Source, c *checks, log *zap.Logger) http.Handler {
	m.registry.MustRegister(&collector{source: source, checks: c})
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorLog: scrapeLog{log}, MaxRequestsInFlight: 2, DisableCompression: true, // a page has 20 KB
	})
}

// scrapeLog has promhttp log what goes wrong.
type scrapeLog struct{ log *zap.Logger }

// Println implements promhttp.Logger.
func (l scrapeLog) Println(v ...any) { l.log.Warn("a scrape failed", zap.Any("errors", v)) }

// collector makes metrics of the numbers of a moment.
type collector struct {
	source Source
	checks *checks
}

// Describe implements [prometheus.Collector].
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for i := range families {
		ch <- families[i].desc
	}
}

// Collect implements [prometheus.Collector]. The disk's numbers are those that were found
// last, and the next look at it is begun.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	c.checks.begin()
	now := sample{Stats: c.source.Stats(), Condition: c.checks.known()}
	now.ready = c.source.Stage() == Serving && (&health{source: c.source}).beats() && len(now.Reasons) == 0
	for i := range families {
		f := &families[i]
		f.values(&now, func(v float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(f.desc, f.kind, v, labels...)
		})
	}
}

// BuildInfo returns the labels of sealift_build_info.
func BuildInfo(version string) map[string]string {
	return map[string]string{"version": version, "go_version": runtime.Version()}
}
