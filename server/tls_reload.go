package server

import (
	"context"
	"os"
	"time"

	"go.uber.org/zap"
)

// lookEvery is how often the files of TLS are read again. What is wrong with them is
// told at the second look that finds it, and is to be told within a minute.
const lookEvery = 20 * time.Second

// follow looks at the files until ctx ends: again and again, and whenever something
// comes from reload, which may be nil. p is nil for a server without TLS.
func (p *protection) follow(ctx context.Context, reload <-chan os.Signal, log *zap.Logger) {
	var tick <-chan time.Time
	if p != nil {
		ticker := time.NewTicker(p.every)
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick:
			p.look(false)
		case _, ok := <-reload:
			switch {
			case !ok:
				reload = nil
			case p == nil:
				log.Info("there is nothing to reload", zap.String("reason", "TLS is off"))
			default:
				p.look(true)
			}
		}
	}
}

// look reads the files, and has the next handshakes use them if they have changed and
// make sense. asked is whether the operator waits for an answer.
//
// Two files cannot be replaced at once. What makes no sense is therefore told when
// two looks found the same, and once.
func (p *protection) look(asked bool) {
	before := p.serve.Load()
	next, err := p.load()
	if next.sum == before.sum {
		p.bad, p.told = fileSum{}, false
		if asked {
			p.log.Info("there is nothing to reload", zap.String("reason", "the files of TLS have not changed"))
		}
		return
	}
	if err == nil {
		p.bad, p.told = fileSum{}, false
		p.warnOfMode()
		p.use(next)
		p.log.Info("the files of TLS were reloaded", zap.Stringer("fingerprint", next.fingerprint),
			zap.Bool("another_key", next.fingerprint != before.fingerprint), zap.Time("not_after", next.leaf.NotAfter))
		return
	}
	again := next.sum == p.bad
	if p.bad = next.sum; !again {
		p.told = false
	}
	if asked || again && !p.told {
		p.told = true
		p.log.Error("the files of TLS cannot be used; those from before stay", zap.Error(err))
	}
}
