package load

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// A generator in a process of its own and the program that started it talk over
// the generator's standard input and output: the Spec as a line of JSON; back
// comes a line "ready"; then "go"; then "start" and "stop" when the clock starts
// and stops; and in the end one of these.
type outcome struct {
	Result *Result `json:"result,omitempty"`
	Error  string  `json:"error,omitempty"`
}

const (
	readyLine = "ready\n"
	goLine    = "go\n"
	startLine = "start\n"
	stopLine  = "stop\n"
)

// Serve is the generator's side. An error is one of the conversation; that of a
// run goes over it.
func Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	lines := bufio.NewReader(in)
	line, err := lines.ReadBytes('\n')
	if err != nil {
		return err
	}
	var spec Spec
	if err := json.Unmarshal(line, &spec); err != nil {
		return err
	}
	// If out is broken, so is the outcome, which returns the error.
	result, err := Run(ctx, spec, Events{
		Ready: func() error {
			if _, err := io.WriteString(out, readyLine); err != nil {
				return err
			}
			if s, err := lines.ReadString('\n'); err != nil || s != goLine {
				return fmt.Errorf("waiting to begin: %q, %w", s, err)
			}
			return nil
		},
		Started: func() { _, _ = io.WriteString(out, startLine) },
		Stopped: func() { _, _ = io.WriteString(out, stopLine) },
	})
	o := outcome{Result: &result}
	if err != nil {
		o = outcome{Error: err.Error()}
	}
	return json.NewEncoder(out).Encode(o)
}

// Process is the other side: a generator that runs elsewhere.
type Process struct {
	in  io.Writer
	out *bufio.Reader
}

// Start sends spec to a generator and waits until it is ready.
func Start(spec Spec, in io.Writer, out io.Reader) (*Process, error) {
	p := &Process{in: in, out: bufio.NewReader(out)}
	if err := json.NewEncoder(in).Encode(spec); err != nil {
		return nil, err
	}
	return p, p.wait(readyLine)
}

// Go begins the load and returns when the clock has started.
func (p *Process) Go() error {
	if _, err := io.WriteString(p.in, goLine); err != nil {
		return err
	}
	return p.wait(startLine)
}

// Stopped returns when the clock has stopped.
func (p *Process) Stopped() error { return p.wait(stopLine) }

// Result waits for the end.
func (p *Process) Result() (Result, error) {
	line, err := p.line()
	if err != nil {
		return Result{}, err
	}
	return parseOutcome(line)
}

func (p *Process) line() (string, error) {
	line, err := p.out.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("waiting for the load generator: %w", err)
	}
	return line, nil
}

// wait reads a line that should be want, and otherwise is the outcome of a run
// that failed.
func (p *Process) wait(want string) error {
	line, err := p.line()
	if err != nil || line == want {
		return err
	}
	_, err = parseOutcome(line)
	return err
}

func parseOutcome(line string) (Result, error) {
	var o outcome
	switch err := json.Unmarshal([]byte(line), &o); {
	case err != nil:
		return Result{}, fmt.Errorf("the load generator said %q: %w", line, err)
	case o.Error != "":
		return Result{}, errors.New(o.Error)
	case o.Result == nil:
		return Result{}, fmt.Errorf("the load generator said %q", line)
	}
	return *o.Result, nil
}
