//go:build linux

// Package proc reads what a process and its descendants cost from /proc.
package proc

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Usage is what a process and its descendants have used.
type Usage struct {
	CPU  float64 // seconds of processor time, user and system, so far
	RSS  int64   // bytes of memory resident now
	Peak int64   // bytes resident at most, the sum of each process's own peak
}

// ticks is the unit of times in /proc/PID/stat, per second. The kernel's
// interface fixes it on all systems that Go runs on.
const ticks = 100

// Tree sums up process pid and its descendants, those that ended and were waited
// for included.
func Tree(pid int) (Usage, error) {
	u, err := one(pid)
	if err != nil {
		return u, err
	}
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return u, err
	}
	for _, list := range lists {
		b, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for _, child := range strings.Fields(string(b)) {
			n, err := strconv.Atoi(child)
			if err != nil {
				return u, err
			}
			if c, err := Tree(n); err == nil { // else it has ended
				u.CPU += c.CPU
				u.RSS += c.RSS
				u.Peak += c.Peak
			}
		}
	}
	return u, nil
}

func one(pid int) (u Usage, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, err
	}
	// The second field is the name in parentheses, which may hold anything. utime,
	// stime, cutime and cstime are fields 14 to 17 (proc_pid_stat(5)).
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	const first = 3
	if len(fields) < 17-first+1 {
		return u, fmt.Errorf("/proc/%d/stat: %q", pid, stat)
	}
	for _, f := range fields[14-first : 17-first+1] {
		n, err := strconv.ParseFloat(f, 64)
		if err != nil {
			return u, err
		}
		u.CPU += n / ticks
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		var to *int64
		switch name {
		case "VmRSS":
			to = &u.RSS
		case "VmHWM":
			to = &u.Peak
		default:
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return u, err
		}
		*to = kib << 10
	}
	return u, nil
}
