//go:build linux

package cluster

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	daemon "sealift/server"
)

// roleVariable makes the program of this test a server in a process of its own. Its value
// is a role in JSON.
const roleVariable = "SEALIFT_CLUSTER_ROLE"

// role is a sealiftd whose times a test can have shortened.
type role struct {
	Dir, Listen     string
	Registry, Files string // URLs
	// Lease is how long content on its way is safe from a sweep without being renewed.
	// ReapAfter is how long after its end the lease is taken away, and Sweep how often
	// that is looked for.
	Lease, ReapAfter, Sweep time.Duration
	Patience                time.Duration // with requests to the bucket
}

// playRole does what the environment asks of this process. done is false if it asks
// nothing.
func playRole() (done bool, err error) {
	text, ok := os.LookupEnv(roleVariable)
	if !ok {
		return false, nil
	}
	var p role
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return true, err
	}
	return true, p.serve()
}

// command is the command that plays the part.
func (p role) command(r *run) *exec.Cmd {
	r.Helper()
	self, err := os.Executable()
	if err != nil {
		r.Fatalf("%v", err)
	}
	text, err := json.Marshal(p)
	if err != nil {
		r.Fatalf("%v", err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(append(os.Environ(), services.s3.Env()...), roleVariable+"="+string(text))
	return cmd
}

func (p role) serve() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	enc := zap.NewProductionEncoderConfig()
	enc.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(enc), zapcore.Lock(os.Stderr), zap.InfoLevel))
	o := daemon.Defaults()
	o.Dir, o.Log = p.Dir, log
	o.Network.Listen = p.Listen
	o.Network.DrainTimeout = 2 * time.Second
	o.Network.MaxPerIP = 10_000
	o.Sessions.RegisterRate = 0
	o.Storage.Registry, o.Storage.Files = p.Registry, p.Files
	o.Testing.Lease, o.Testing.ReapAfter, o.Testing.SweepEvery = p.Lease, p.ReapAfter, p.Sweep
	o.Testing.Patience = p.Patience
	return daemon.Serve(ctx, o, func(_ context.Context, s *daemon.Server) { log.Info("listening", zap.Stringer("address", s.Addr())) })
}
