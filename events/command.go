package events

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"sealift/storage"
)

// commandName is the name of the target that is a command.
const commandName = "command"

// Command is a target: a program that is run for each event. It has accepted the event if it
// ends with status 0.
type Command struct {
	Args   []string // of the program, which is the first
	Dir    string   // where it runs
	Source string   // for the JSON
	Log    *zap.Logger
}

// Name implements [Target].
func (c *Command) Name() string { return commandName }

// maxOutput is how many bytes of what a command prints go to the log.
const maxOutput = 1024

// leaveTime is how long a command's output is waited for after its end: a program that has
// left its process group may hold it open.
const leaveTime = 500 * time.Millisecond

// Tell implements [Target]. The event is on the program's standard input, as JSON, and in its
// environment. When it ends, or ctx does, what is left of its process group is killed.
func (c *Command) Tell(ctx context.Context, e *storage.Event) error {
	body, err := encode(e, c.Source)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
	out := new(output)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(append(body, '\n')), out, out
	cmd.Dir, cmd.Env = c.Dir, append(inherited(os.Environ()), environment(e)...)
	cmd.WaitDelay = leaveTime
	err = runGroup(cmd)
	said := out.String()
	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("it was killed after the time for an attempt: %w", context.Cause(ctx))
	case errors.Is(err, exec.ErrWaitDelay): // it ended well, and somebody holds its output
		err = nil
	}
	if said != "" {
		line := append(fields(commandName, e), zap.String("output", said), zap.Error(err))
		if err != nil {
			c.Log.Warn("the event command failed", line...)
		} else {
			c.Log.Debug("the event command said something", line...)
		}
	}
	return err
}

// notInherited are variables that are meant for the server alone.
var notInherited = []string{"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID"}

// inherited is what a command has of the server's environment.
func inherited(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains(notInherited, name) || strings.HasPrefix(name, "SEALIFT_EVENT_")
	})
}

// output keeps the beginning of what is written to it, and takes the rest as well.
type output struct {
	mu   sync.Mutex
	kept []byte
	more int // bytes that were not kept
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := min(len(p), maxOutput-len(o.kept))
	o.kept = append(o.kept, p[:n]...)
	o.more += len(p) - n
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	said := strings.ToValidUTF8(strings.TrimSpace(string(o.kept)), "\ufffd")
	if o.more > 0 {
		said += fmt.Sprintf(" … (%d bytes more)", o.more)
	}
	return said
}
