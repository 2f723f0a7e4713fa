package server

import (
	"context"
	"time"

	"go.uber.org/zap"
)

// lookEvery is how often the files of TLS are read again. What is wrong with them is
// told at the second look that finds it, and is to be told within a minute.
const lookEvery = 20 * time.Second

// follow looks at the files again and again until ctx ends.
func (p *protection) follow(ctx context.Context) {
	ticker := time.NewTicker(p.every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			p.look(false)
		}
	}
}

// look reads the files, and has the next handshakes use them if they have changed and
// make sense. asked is whether the operator waits for an answer. It reports whether it
// has logged something. Any goroutine may call it.
//
// Two files cannot be replaced at once. What makes no sense is therefore told when
// two looks found the same, and once.
func (p *protection) look(asked bool) (said bool) {
	p.looking.Lock()
	defer p.looking.Unlock()
	before := p.serve.Load()
	next, err := p.load()
	if next.sum == before.sum {
		p.bad, p.told = fileSum{}, false
		return false
	}
	if err == nil {
		p.bad, p.told = fileSum{}, false
		p.warnOfMode()
		p.use(next)
		p.log.Info("the files of TLS were reloaded", zap.Stringer("fingerprint", next.fingerprint),
			zap.Bool("another_key", next.fingerprint != before.fingerprint), zap.Time("not_after", next.leaf.NotAfter))
		return true
	}
	again := next.sum == p.bad
	if p.bad = next.sum; !again {
		p.told = false
	}
	if !asked && (!again || p.told) {
		return false
	}
	p.told = true
	p.log.Error("the files of TLS cannot be used; those from before stay", zap.Error(err))
	return true
}
