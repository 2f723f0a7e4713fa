package eventloop

import (
	"io"
	"syscall"
	"testing"
	"time"

	"sealift/codec"
	"sealift/session"
)

// cpu is the processor time that the process has had, in µs.
func cpu() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e3
}

// A key is wrapped on the loop as long as no small work is under way, and by a worker
// otherwise.
func TestWhereKeysAreWrapped(t *testing.T) {
	r := start(t, nil)
	p := r.rawPeer(r.raw(), "light")
	ask := codec.Reconnect{Name: []byte("light")}.Append(nil, p.ID)
	lane := r.lanes[session.Compute]
	busy := make(chan struct{}) // workers
	for range lane.size {
		lane.submit(turn{}, func() { <-busy })
	}
	p.write(ask)
	p.reply(codec.CodeReconnected)
	r.beginSmall()
	p.write(ask)
	for waiting := 0; waiting == 0; {
		time.Sleep(time.Millisecond) // nothing tells that work waits
		lane.mu.Lock()
		waiting = len(lane.known) + len(lane.fresh)
		lane.mu.Unlock()
	}
	close(busy)
	p.reply(codec.CodeReconnected)
	r.finishSmall()
}

// BenchmarkLight has one client ask for one thing at a time, in a row or with a pause
// before each, in which all threads fall asleep. A 1027 is a look into the registry, an
// RSA wrap, and an operation that the registry commits.
func BenchmarkLight(b *testing.B) {
	for _, pause := range []time.Duration{0, time.Millisecond} {
		b.Run("pause "+pause.String(), func(b *testing.B) {
			r := start(b, nil)
			p := r.rawPeer(r.raw(), "light")
			ask := codec.Reconnect{Name: []byte("light")}.Append(nil, p.ID)
			reply := make([]byte, codec.ResponseHeaderSize+16+128) // a 1605 with its id and its key
			var waited time.Duration
			before := cpu()
			for b.Loop() {
				time.Sleep(pause)
				began := time.Now()
				p.write(ask)
				if _, err := io.ReadFull(p.Net, reply); err != nil {
					b.Fatal(err)
				}
				waited += time.Since(began)
			}
			b.ReportMetric((cpu()-before)/float64(b.N), "cpu-µs/op")
			b.ReportMetric(float64(waited.Microseconds())/float64(b.N), "wait-µs/op")
		})
	}
}
