package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"
)

// manager is the service manager that has started the process (sd_notify(3)), which is
// told how the server is. Without one nothing is told.
type manager struct {
	log *zap.Logger
	// feed is how long the watchdog may go without a word, half of what the manager
	// has asked for; 0: there is none.
	feed time.Duration
	fed  time.Time // belongs to alive's caller
}

// newManager reads from the environment what the manager wants.
func newManager(log *zap.Logger) *manager {
	m := &manager{log: log}
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the watchdog's time makes no sense", zap.Error(err))
	}
	m.feed = every / 2
	return m
}

func (m *manager) tell(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		m.log.Warn("telling the service manager", zap.String("state", state), zap.Error(err))
	}
}

// alive feeds the watchdog. It is called while all loops answer, by one goroutine at a
// time.
func (m *manager) alive() {
	if now := time.Now(); m.feed > 0 && now.Sub(m.fed) >= m.feed {
		m.fed = now
		m.tell(daemon.SdNotifyWatchdog)
	}
}

// ready says that the server accepts connections, and later that it stops, when ctx
// ends.
func (m *manager) ready(ctx context.Context) {
	m.tell(daemon.SdNotifyReady)
	context.AfterFunc(ctx, func() { m.tell(daemon.SdNotifyStopping) })
}

// reloading says that the server reads its settings again, and reloaded that this is over.
func (m *manager) reloading() {
	m.tell(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, monotonic().Microseconds()))
}

func (m *manager) reloaded() { m.tell(daemon.SdNotifyReady) }

// passedListener is the socket that the manager has opened for us (sd_listen_fds(3)); nil
// if there is none.
func passedListener() (*net.TCPListener, error) {
	passed := activation.Files(true)
	if len(passed) == 0 {
		return nil, nil
	}
	defer func() {
		for _, f := range passed {
			_ = f.Close() // the listener has its own descriptor
		}
	}()
	if len(passed) > 1 {
		return nil, fmt.Errorf("the service manager passes %d sockets: want one", len(passed))
	}
	l, err := net.FileListener(passed[0])
	if err != nil {
		return nil, fmt.Errorf("the socket of the service manager: %w", err)
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("the socket of the service manager: want TCP, and not %s", l.Addr().Network()), l.Close())
	}
	return tcp, nil
}
