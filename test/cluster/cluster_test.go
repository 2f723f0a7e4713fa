//go:build linux

package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"sealift/internal/testservices"
)

// clusterOptions say what a scenario wants. Times of 0 are those of sealiftd.
type clusterOptions struct {
	servers                 int
	built                   bool // the servers are the program sealiftd, with its flags
	balanced                bool // HAProxy stands in front
	lease, reapAfter, sweep time.Duration
	patience                time.Duration // with the bucket
	// registry and s3 change where server i finds its stores: to lead through a proxy. They
	// get the URL of the database, and that of the S3 server.
	registry, s3 func(i int, url string) string
}

// cluster is some servers on one database and one prefix of the services.s3.Name, which no other
// scenario uses.
type cluster struct {
	*run
	opts        clusterOptions
	registry    string // the URL of the database itself
	prefix      string // of the objects
	dirs, addrs []string
	servers     []*server
	addr        string // of the balancer, or of the only server
}

// cluster starts what a scenario wants.
func (r *run) cluster(o clusterOptions) *cluster {
	r.Helper()
	r.needServices()
	c := &cluster{run: r, opts: o}
	var err error
	c.registry, err = services.postgres.Database()
	r.must("making a database", err)
	c.prefix = fmt.Sprintf("%s-%d", r.Name(), r.rng.Uint32())
	for range o.servers {
		c.dirs = append(c.dirs, r.TempDir())
		c.addrs = append(c.addrs, r.freeAddr())
		c.servers = append(c.servers, nil)
	}
	for i := range c.servers {
		c.servers[i] = c.begin(i) // all at once: each finds the database empty, or half made
	}
	for _, s := range c.servers {
		s.ready()
	}
	c.addr = c.addrs[0]
	if o.balanced {
		c.addr = r.freeAddr()
		testservices.NewHAProxy(r, testservices.Balancer{Listen: c.addr, Servers: c.addrs}.Text(), c.addr)
	}
	return c
}

// begin starts server i in its directory, at its address.
func (c *cluster) begin(i int) *server {
	c.Helper()
	registry, s3 := c.registry, services.s3.Endpoint
	if c.opts.registry != nil {
		registry = c.opts.registry(i, registry)
	}
	if c.opts.s3 != nil {
		s3 = c.opts.s3(i, s3)
	}
	files := services.s3.URLAt(s3, c.prefix)
	if c.opts.built {
		cmd := exec.Command(sealiftd(c.run), "serve", "--listen", c.addrs[i], "--dir", c.dirs[i], "--registry", registry, "--files", files, "--log-format", "json")
		cmd.Env = append(os.Environ(), services.s3.Env()...)
		return c.launch(cmd)
	}
	p := role{
		Dir: c.dirs[i], Listen: c.addrs[i], Registry: registry, Files: files,
		Lease: c.opts.lease, ReapAfter: c.opts.reapAfter, Sweep: c.opts.sweep, Patience: c.opts.patience,
	}
	return c.launch(p.command(c.run))
}

func (r *run) freeAddr() string {
	r.Helper()
	addr, err := testservices.FreeAddress()
	r.must("looking for a port", err)
	return addr
}

// services are what the scenarios share: each has a database and a prefix of its own.
var services struct {
	once     sync.Once
	postgres *testservices.Postgres
	s3       *testservices.Bucket
	err      error
}

// needServices starts PostgreSQL and the S3 server, with the first scenario that asks.
func (r *run) needServices() {
	r.Helper()
	services.once.Do(func() {
		services.postgres, services.err = testservices.StartPostgres(testservices.PostgresOptions{})
		if services.err == nil {
			services.s3, services.err = testservices.StartS3()
		}
	})
	testservices.Need(r, services.err)
}

// sealiftd is the path of the program, which is built when the first scenario asks.
func sealiftd(r *run) string {
	r.Helper()
	program.once.Do(func() {
		if program.dir, program.err = os.MkdirTemp("", "sealift-cluster-"); program.err != nil {
			return
		}
		args := []string{"build", "-o", filepath.Join(program.dir, "sealiftd")}
		if raceEnabled {
			args = append(args, "-race")
		}
		if out, err := exec.Command("go", append(args, "sealift/cmd/sealiftd")...).CombinedOutput(); err != nil {
			program.err = fmt.Errorf("%w\n%s", err, out)
		}
	})
	r.must("go build", program.err)
	return filepath.Join(program.dir, "sealiftd")
}

var program struct {
	once sync.Once
	dir  string
	err  error
}

// verify asserts that `sealiftd verify` finds everything in order.
func (c *cluster) verify() {
	c.Helper()
	cmd := exec.Command(sealiftd(c.run), "verify", "--registry", c.registry, "--files", services.s3.URL(c.prefix))
	cmd.Env = append(os.Environ(), services.s3.Env()...)
	if out, err := cmd.CombinedOutput(); err != nil {
		c.Errorf("sealiftd verify: %v\n%s", err, out)
	}
}

func stopServices() error {
	var errs []error
	if program.dir != "" {
		errs = append(errs, os.RemoveAll(program.dir))
	}
	if services.postgres != nil {
		errs = append(errs, services.postgres.Close())
	}
	if services.s3 != nil {
		errs = append(errs, services.s3.Close())
	}
	return errors.Join(errs...)
}
