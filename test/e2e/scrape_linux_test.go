package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sealift/internal/testpeer"
)

// BenchmarkPage is BenchmarkScrape with somebody who watches the page besides. It counts
// frames, and one scrape for each.
func BenchmarkPage(b *testing.B) { benchmarkWatched(b, true) }

// BenchmarkScrape measures what a scrape each second costs a server with 10,000 silent
// connections and 500 uploads under way: its processor time, less that of as many
// seconds without one, and the memory that it takes. One op is a second of each:
//
//	go test ./test/e2e -run '^$' -bench Scrape -benchtime 30x
func BenchmarkScrape(b *testing.B) { benchmarkWatched(b, false) }

func benchmarkWatched(b *testing.B, page bool) {
	const connections, uploads = 10_500, 500
	d := serve(b, append(adminFlags(b, "127.0.0.1"), "--fsync", "off", "--register-rate", "0", "--tls", "off", "--idle-timeout", "1h")...)
	url := "http://" + d.admin()
	peers := make([]*testpeer.Conn, connections)
	var wg sync.WaitGroup
	for w := range 32 {
		wg.Go(func() {
			for i := w; i < connections; i += 32 {
				p := &peer{t: b, addr: d.addr}
				p.Name, p.Pair = fmt.Sprint("client ", i), testpeer.SharedPair(0)
				p.dial()
				p.must(p.Enter())
				if i < uploads {
					p.sendPackets(cut(p.File("a file", make([]byte, 200_000)), 40_000)[:2])
				}
				peers[i] = &p.Conn
			}
		})
	}
	wg.Wait()
	eventually(b, "all uploads have begun", func() bool {
		return strings.Contains(call(b, "GET", url+"/metrics", nil).body, fmt.Sprintf("\nsealift_uploads_begun_total %d\n", uploads))
	})
	before, size := d.memory(b), 0
	seconds := func(each func()) time.Duration {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		from := d.processorTime(b)
		for range b.N {
			<-tick.C
			each()
		}
		return d.processorTime(b) - from
	}
	without := seconds(func() {})
	if page {
		r, err := http.NewRequest("GET", url+"/api/v1/stream", nil)
		if err != nil {
			b.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+adminToken)
		resp, err := http.DefaultClient.Do(r)
		if err != nil || resp.StatusCode != 200 {
			b.Fatal(resp, err)
		}
		defer resp.Body.Close()
		var seen atomic.Int64
		go func() {
			_, _ = io.Copy(writerFunc(func(p []byte) { seen.Add(int64(len(p))) }), resp.Body) // until it is closed
		}()
		defer func() { b.ReportMetric(float64(seen.Load())/float64(b.N), "B/frame") }()
	}
	b.ResetTimer()
	with := seconds(func() { size = len(call(b, "GET", url+"/metrics", nil).body) })
	b.ReportMetric(float64((with-without).Microseconds())/1000/float64(b.N), "ms-CPU/scrape")
	b.ReportMetric(float64(without.Microseconds())/1000/float64(b.N), "ms-CPU/s-without")
	b.ReportMetric(float64(d.memory(b)-before)/1024, "KiB-more")
	b.ReportMetric(float64(size), "B/scrape")
	for _, p := range peers {
		_ = p.Close()
	}
}

// writerFunc is a writer that tells what it takes.
type writerFunc func(p []byte)

func (f writerFunc) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}

// processorTime is what all threads of the server have used.
func (d *daemon) processorTime(b *testing.B) time.Duration {
	b.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", d.cmd.Process.Pid))
	if err != nil || len(tasks) == 0 {
		b.Fatal("no threads: ", err)
	}
	var all time.Duration
	for _, path := range tasks {
		text, err := os.ReadFile(path)
		var ns int64
		if _, scan := fmt.Sscan(string(text), &ns); err != nil || scan != nil {
			b.Fatal(err, scan)
		}
		all += time.Duration(ns)
	}
	return all
}

// memory is how many bytes the server has resident.
func (d *daemon) memory(b *testing.B) int64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", d.cmd.Process.Pid))
	var total, resident int64
	if _, scan := fmt.Sscan(string(text), &total, &resident); err != nil || scan != nil {
		b.Fatal(err, scan)
	}
	return resident * int64(os.Getpagesize())
}
