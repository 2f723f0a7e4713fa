//go:build linux

// Command soak puts a real server under load, faults and hostile input over
// loopback, and checks that it loses nothing, grows within its bounds and
// recovers:
//
//	go run ./test/soak -minutes 10
//	go run ./test/soak -run 'kill|cut' -seed 7
//
// Each scenario prints a line with the figures it saw. `go test ./test/soak`
// runs all of them once, smaller.
package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"time"
)

func main() {
	if done, err := playRole(); done {
		if err != nil {
			fmt.Fprintln(os.Stderr, "Fatal error:", err)
			os.Exit(1)
		}
		return
	}
	minutes := flag.Float64("minutes", 1, "how long to go on; the pass under way is finished, and one is made at least")
	only := flag.String("run", "", "regular expression: only the scenarios whose name it matches")
	short := flag.Bool("short", false, "the sizes of go test")
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano()), "of what is random; the next pass takes the next one")
	flag.Parse()
	match, err := regexp.Compile(*only)
	if err != nil || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "usage: soak [-minutes N] [-run REGEXP] [-short] [-seed N]", err)
		os.Exit(2)
	}
	os.Exit(soak(time.Now().Add(time.Duration(*minutes*float64(time.Minute))), match, !*short, *seed))
}

func soak(until time.Time, match *regexp.Regexp, long bool, seed uint64) (status int) {
	built := new(command)
	defer built.cleanup()
	if !built.try(func() { build(built) }) {
		return 1
	}
	for pass := 1; ; pass++ {
		fmt.Printf("pass %d, seed %d\n", pass, seed)
		for _, s := range scenarios {
			if !match.MatchString(s.name) {
				continue
			}
			c, began := new(command), time.Now()
			c.try(func() { s.run(newRun(c, s.name, long, seed)) })
			c.cleanup()
			if c.Failed() {
				fmt.Printf("FAIL: %s (%s), seed %d\n", s.name, s.what, seed)
				status = 1
			}
			fmt.Printf("%-12s %.1f s\n", s.name, time.Since(began).Seconds())
		}
		if time.Now().After(until) {
			return status
		}
		seed++
	}
}
