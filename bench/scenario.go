//go:build linux

package main

import (
	"fmt"
	"runtime"
	"strconv"
	"time"

	"sealift/bench/load"
	"sealift/bench/report"
)

// scenario is a question, and the cases that answer it.
type scenario struct {
	name, about string
	table       report.Table
	cases       func() []kase
}

// kase is one load, run on each peer in turn. ("case" is taken.)
type kase struct {
	label string
	peers []string
	load  load.Spec
	// background begins before load and ends after it.
	background *load.Spec
	tls        bool // connections are protected, with the peers that can
	fsync      bool
	procs      int  // GOMAXPROCS of the server; 0 is all
	programs   bool // programs that people use send the files, not the load generator
	once       bool // takes so long that one round has to do
	disk       bool // fills the page cache
	memory     bool // the server's memory with idle connections is the point
}

const (
	kib = int64(1) << 10
	mib = int64(1) << 20
	gib = int64(1) << 30
)

var (
	ours    = []string{"sealift", "goroutine"}
	servers = []string{"sealift", "goroutine", "python"}
	onDisk  = []string{"sealift", "goroutine", "floor"}
)

// second is how long a load by time lasts.
const second = 1500 * time.Millisecond

var scenarios = []scenario{
	{
		name: "bulk", about: "large files, their ciphertext prepared beforehand; into the page cache, and durably",
		table: report.Throughput,
		cases: func() []kase {
			all := []string{"sealift", "goroutine", "python", "sftp", "tusd", "floor"}
			smallPackets := uploads(4, 60*mib, 4) // 65,535 packets do not hold more
			smallPackets.Packet = kib
			return []kase{
				{label: "1 x 1 GiB", peers: all, load: uploads(1, gib, 1), disk: true},
				{label: "4 x 256 MiB", peers: all, load: uploads(4, 256*mib, 1), disk: true},
				{label: "64 x 16 MiB", peers: all, load: uploads(64, 16*mib, 1), disk: true},
				{label: "4 x 240 MiB in 1 KiB", peers: onDisk, load: smallPackets, disk: true},
				{label: "1 x 1 GiB, durable", peers: servers, load: uploads(1, gib, 1), disk: true, fsync: true},
			}
		},
	},
	{
		name: "endtoend", about: "a file from disk to disk with the programs that people use: read, encrypt, send, verify",
		table: report.Throughput,
		cases: func() []kase {
			return []kase{{
				label: "1 x 1 GiB", peers: []string{"sealift", "goroutine", "python", "sftp", "tusd"},
				load: uploads(1, gib, 1), disk: true, programs: true,
			}}
		},
	},
	{
		name: "sizes", about: "one connection and files of growing size",
		table: report.Throughput,
		cases: func() []kase {
			return []kase{
				{label: "256 x 1 MiB", peers: onDisk, load: uploads(1, mib, 256), disk: true},
				{label: "32 x 16 MiB", peers: onDisk, load: uploads(1, 16*mib, 32), disk: true},
				{label: "4 x 256 MiB", peers: onDisk, load: uploads(1, 256*mib, 4), disk: true},
				{label: "1 x 4 GiB", peers: onDisk, load: uploads(1, 4*gib-64*kib, 1), disk: true, once: true},
			}
		},
	},
	{
		name: "sessions", about: "connect, register, send a key and 1 KiB, verify, hang up",
		table: report.Rate,
		cases: func() []kase {
			var cs []kase
			for _, n := range []int{1, 16, 128, 1024} {
				c := kase{label: fmt.Sprintf("durable, %d at a time", n), peers: ours, load: sessions(load.Sessions, n), fsync: true}
				if n == 16 || n == 128 {
					c.peers = servers
				}
				cs = append(cs, c)
			}
			paced := sessions(load.Sessions, 256)
			paced.Rate = 200
			return append(cs,
				kase{label: "fsync off, 128 at a time", peers: append(servers, "python-ram"), load: sessions(load.Sessions, 128)},
				kase{label: "durable, 200 a second", peers: servers, load: paced, fsync: true})
		},
	},
	{
		name: "reconnect", about: "connect, reconnect under an id, send 1 KiB, verify, hang up",
		table: report.Rate,
		cases: func() []kase {
			return []kase{
				{label: "durable, 128 at a time", peers: servers, load: sessions(load.Reconnects, 128), fsync: true},
				{label: "fsync off, 128 at a time", peers: servers, load: sessions(load.Reconnects, 128)},
			}
		},
	},
	{
		name: "idle", about: "connections that have a key and are silent; then each sends a file",
		table: report.Memory,
		cases: func() []kase {
			return []kase{{
				label: "10000 connections", peers: servers, memory: true, once: true,
				load: load.Spec{Kind: load.Idle, Connections: 10_000, FileSize: kib, Duration: second},
			}}
		},
	},
	{
		name: "mixed", about: "1,000 clients send 1 KiB twice a second, alone and while 4 others send bulk",
		table: report.Latency,
		cases: func() []kase {
			small := load.Spec{Kind: load.Uploads, Connections: 1000, FileSize: kib, Duration: 2 * second, Rate: 500}
			bulk := load.Spec{Kind: load.Uploads, Connections: 4, FileSize: 64 * mib, Duration: small.Duration + 500*time.Millisecond}
			return []kase{
				{label: "alone", peers: servers, load: small},
				{label: "beside bulk", peers: servers, load: small, background: &bulk, disk: true},
				{label: "durable, alone", peers: servers, load: small, fsync: true},
				{label: "durable, beside bulk", peers: servers, load: small, background: &bulk, disk: true, fsync: true},
			}
		},
	},
	{
		name: "active", about: "connections that all send 16 KiB files one after the other",
		table: report.Rate,
		cases: func() []kase {
			var cs []kase
			for _, n := range []int{1, 10, 100, 1000, 10_000} {
				c := kase{label: fmt.Sprintf("%d connections", n), peers: ours, load: load.Spec{
					Kind: load.Uploads, Connections: n, FileSize: 16 * kib, Duration: second,
				}}
				if n == 100 || n == 1000 {
					c.peers = servers
				}
				if n == 10_000 { // a round of all of them takes some seconds
					c.load.Duration *= 3
				}
				cs = append(cs, c)
			}
			return cs
		},
	},
	{
		name: "cores", about: "bulk and sessions on growing numbers of the server's cores",
		table: report.Cores,
		cases: func() []kase {
			var cs []kase
			for n := 1; n < 2*runtime.NumCPU(); n *= 2 {
				n := min(n, runtime.NumCPU())
				cs = append(cs,
					kase{label: fmt.Sprintf("bulk 4 x 128 MiB, %d", n), peers: onDisk, load: uploads(4, 128*mib, 1), procs: n, disk: true},
					kase{label: fmt.Sprintf("sessions, fsync off, %d", n), peers: ours, load: sessions(load.Sessions, 128), procs: n})
			}
			return cs
		},
	},
	{
		name: "tls-bulk", about: "large files over TLS; plain is sealift without it",
		table: report.Throughput,
		cases: func() []kase {
			all := []string{"sealift", "plain", "sftp", "tusd"}
			return []kase{
				{label: "1 x 1 GiB", peers: all, load: uploads(1, gib, 1), disk: true, tls: true},
				{label: "4 x 256 MiB", peers: all, load: uploads(4, 256*mib, 1), disk: true, tls: true},
			}
		},
	},
	{
		name: "tls-sessions", about: "connect, shake hands, register, send a key and 1 KiB, verify, hang up",
		table: report.Rate,
		cases: func() []kase {
			return []kase{
				{label: "durable, 128 at a time", peers: []string{"sealift", "plain"}, load: sessions(load.Sessions, 128), fsync: true, tls: true},
				{label: "reconnects, 128 at a time", peers: []string{"sealift", "plain"}, load: sessions(load.Reconnects, 128), fsync: true, tls: true},
			}
		},
	},
	{
		name: "tls-idle", about: "connections over TLS that are silent, before and after each has sent 4 MiB",
		table: report.Memory,
		cases: func() []kase {
			// As many after bulk as a server keeps that is to serve no more than these.
			idle := load.Spec{Kind: load.Idle, Connections: 300, FileSize: kib, Duration: second}
			after := idle
			after.Before = 4 * mib
			return []kase{
				{label: "before bulk", peers: []string{"sealift", "plain"}, memory: true, once: true, load: idle, tls: true},
				{label: "after bulk", peers: []string{"sealift", "plain"}, memory: true, once: true, load: after, tls: true, disk: true},
			}
		},
	},
	{
		name: "tls-storm", about: "1,000 clients send 1 KiB twice a second over plain connections, alone and while others only shake hands",
		table: report.Latency,
		cases: func() []kase {
			small := load.Spec{Kind: load.Uploads, Connections: 1000, FileSize: kib, Duration: 2 * second, Rate: 500}
			storm := load.Spec{Kind: load.Handshakes, Connections: 32, Duration: small.Duration + 500*time.Millisecond}
			return []kase{
				{label: "alone", peers: []string{"sealift"}, load: small},
				{label: "beside handshakes", peers: []string{"sealift"}, load: small, background: &storm},
			}
		},
	},
	{
		name: "cluster-sessions", about: "sessions on stores that servers share, and the same load on each of one server and of three",
		table: report.Rate,
		cases: func() []kase {
			one, three := sessions(load.Sessions, 60), sessions(load.Sessions, 180)
			one.Rate, three.Rate = 60, 180
			one.Duration, three.Duration = 2*second, 2*second
			return []kase{
				{label: "durable, 128 at a time", peers: []string{"sealift", "postgres", "shared"}, load: sessions(load.Sessions, 128), fsync: true},
				{label: "60 a second", peers: []string{"shared"}, load: one, fsync: true},
				{label: "180 a second", peers: []string{"shared-3"}, load: three, fsync: true},
			}
		},
	},
	{
		name: "cluster-bulk", about: "large files into an S3 server, beside what puts them there without a protocol",
		table: report.Throughput,
		cases: func() []kase {
			peers := []string{"sealift", "shared", "putobject"}
			return []kase{
				{label: "1 x 1 GiB", peers: peers, load: uploads(1, gib, 1), disk: true},
				{label: "4 x 256 MiB", peers: peers, load: uploads(4, 256*mib, 1), disk: true},
				{label: "64 x 16 MiB", peers: peers, load: uploads(64, 16*mib, 1), disk: true},
			}
		},
	},
	{
		name: "parts", about: "what a received byte costs, one part at a time; nothing runs beside it",
		table: report.Parts,
	},
}

func uploads(connections int, size int64, each int) load.Spec {
	return load.Spec{Kind: load.Uploads, Connections: connections, FileSize: size, PerClient: each}
}

func sessions(kind load.Kind, connections int) load.Spec {
	return load.Spec{Kind: kind, Connections: connections, FileSize: kib, Duration: second}
}

// shrink makes a case small enough for a look at whether everything works.
func (c kase) shrink() kase {
	small := func(s *load.Spec) {
		s.Connections = min(s.Connections, 6)
		s.FileSize = min(s.FileSize, 300*kib+7)
		s.Before = min(s.Before, 300*kib)
		s.PerClient = min(s.PerClient, 2)
		s.Duration = min(s.Duration, 100*time.Millisecond)
		s.Rate = min(s.Rate, 100)
	}
	small(&c.load)
	if c.background != nil {
		b := *c.background
		small(&b)
		c.background = &b
	}
	c.once, c.disk = true, false
	return c
}

// sameAs reports whether two cases put the same load on their servers, as many
// do that have been shrunk.
func (c kase) sameAs(d kase) bool {
	return c.load == d.load && c.fsync == d.fsync && c.procs == d.procs && c.programs == d.programs && c.tls == d.tls &&
		c.memory == d.memory && (c.background == nil) == (d.background == nil)
}

// environment is what a case sets for its server.
func (c kase) environment() []string {
	if c.procs == 0 {
		return nil
	}
	return []string{"GOMAXPROCS=" + strconv.Itoa(c.procs)}
}
