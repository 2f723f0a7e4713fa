//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/spf13/cobra"

	"sealift/bench/load"
	"sealift/crypto/cksum"
	"sealift/internal/testservices"
)

// The peers on stores that servers can share: PostgreSQL, and an S3 server. Both run for
// all turns, each of which has a database and a prefix of its own. What they cost is in no
// figure: they would run on other machines.

// stores are those services, started when the first turn needs them.
type stores struct {
	postgres *testservices.Postgres
	s3       *testservices.Bucket
}

// storesNeeded says what the machine lacks for them.
func storesNeeded() error {
	return errors.Join(testservices.HasPostgres(), testservices.HasS3())
}

func (h *harness) needStores() (err error) {
	if h.stores.postgres == nil {
		if h.stores.postgres, err = testservices.StartPostgres(testservices.PostgresOptions{Fsync: true}); err != nil {
			return err
		}
	}
	if h.stores.s3 == nil {
		if h.stores.s3, err = testservices.StartS3(); err != nil {
			return err
		}
		for _, v := range h.stores.s3.Env() { // of this process, which reads back, and those that it starts
			name, value, _ := strings.Cut(v, "=")
			if err := os.Setenv(name, value); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *stores) close() error {
	var errs []error
	if s.postgres != nil {
		errs = append(errs, s.postgres.Close())
	}
	if s.s3 != nil {
		errs = append(errs, s.s3.Close())
	}
	return errors.Join(errs...)
}

// startShared starts so many servers on a database, and, with bucket, on the S3 server.
func startShared(servers int, bucket bool) func(context.Context, *harness, serverOptions, []string) (*server, error) {
	return func(ctx context.Context, h *harness, o serverOptions, env []string) (*server, error) {
		if err := h.needStores(); err != nil {
			return nil, err
		}
		var err error
		if o.registry, err = h.stores.postgres.Database(); err != nil {
			return nil, err
		}
		if bucket {
			o.files = h.stores.s3.URL(prefixOf(o))
		}
		o.servers = servers
		kind := "sealift"
		if servers > 1 {
			kind = "several"
		}
		p, err := self(ctx, env, o.args(kind)...)
		if err != nil {
			return nil, err
		}
		return whenListening(&server{process: p, opts: o, golang: servers == 1})
	}
}

// prefixOf is where a server's objects are in the bucket.
func prefixOf(o serverOptions) string { return filepath.Base(o.dir) }

// serveSeveral runs servers in processes of their own, and tells their addresses with commas.
func serveSeveral(ctx context.Context, o serverOptions, started func(net.Addr)) (err error) {
	var all addresses
	for i := range o.servers {
		each := o
		each.dir = filepath.Join(o.dir, fmt.Sprint("server-", i))
		if err := os.Mkdir(each.dir, 0o755); err != nil {
			return err
		}
		p, err := self(ctx, nil, each.args("sealift")...)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, p.stop(nil)) }()
		addr, err := p.line()
		if err != nil {
			return err
		}
		all = append(all, addr)
	}
	started(all)
	<-ctx.Done()
	return nil
}

// addresses are those of several servers.
type addresses []string

func (addresses) Network() string  { return "tcp" }
func (a addresses) String() string { return strings.Join(a, ",") }

// startNothing starts a process that only tells where the S3 server is: for clients that send
// their files there.
func startNothing(ctx context.Context, h *harness, o serverOptions, env []string) (*server, error) {
	if err := h.needStores(); err != nil {
		return nil, err
	}
	p, err := self(ctx, env, o.args("none")...)
	if err != nil {
		return nil, err
	}
	return whenListening(&server{process: p, opts: o})
}

func serveNone(ctx context.Context, _ serverOptions, started func(net.Addr)) error {
	started(addresses{"nobody"})
	<-ctx.Done()
	return nil
}

// putClients send the file with minio-go's PutObject.
func putClients(ctx context.Context, h *harness, s *server, spec load.Spec) ([]fileClient, error) {
	from, err := h.sourceFile(spec.FileSize)
	if err != nil {
		return nil, err
	}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var all []fileClient
	for i := range spec.Connections {
		all = append(all, &commandClient{command: func() *exec.Cmd {
			return exec.CommandContext(ctx, program, "put", h.stores.s3.Endpoint, h.stores.s3.Name, prefixOf(s.opts)+fmt.Sprint("/object-", i), from)
		}})
	}
	return all, nil
}

// putCommand is the hidden command that those clients run.
func putCommand() *cobra.Command {
	return &cobra.Command{
		Use: "put ENDPOINT BUCKET NAME FILE", Hidden: true, Args: cobra.ExactArgs(4),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := minio.New(strings.TrimPrefix(args[0], "http://"), &minio.Options{Creds: credentials.NewEnvAWS(), Region: "us-east-1", BucketLookup: minio.BucketLookupPath})
			if err != nil {
				return err
			}
			f, err := os.Open(args[3])
			if err != nil {
				return err
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				return err
			}
			_, err = c.PutObject(cmd.Context(), args[1], args[2], f, info.Size(), minio.PutObjectOptions{})
			return err
		},
	}
}

// storedInBucket reads back what those clients have sent.
func storedInBucket(ctx context.Context, h *harness, s *server) error {
	c := h.stores.s3.Client()
	n := 0
	for info := range c.ListObjects(ctx, h.stores.s3.Name, minio.ListObjectsOptions{Prefix: prefixOf(s.opts) + "/"}) {
		if info.Err != nil {
			return info.Err
		}
		n++
		from, err := h.sourceFile(info.Size)
		if err != nil {
			return err
		}
		want, err := cksumOf(from)
		if err != nil {
			return err
		}
		o, err := c.GetObject(ctx, h.stores.s3.Name, info.Key, minio.GetObjectOptions{})
		if err != nil {
			return err
		}
		sum := cksum.New()
		_, err = io.Copy(sum, o)
		if err = errors.Join(err, o.Close()); err != nil {
			return err
		}
		if sum.Sum32() != want {
			return fmt.Errorf("%s has arrived with another checksum", info.Key)
		}
	}
	if n == 0 {
		return errNothingStored
	}
	return nil
}
