//go:build linux

// Command bench measures Sealift beside other servers, on the same bytes, in the
// same run:
//
//	go -C bench run .                          everything, under ten minutes on two cores
//	go -C bench run . bulk --peer sealift,sftp one scenario, some servers
//	go -C bench run . --json run.json --plot d keep the figures, draw them
//	go -C bench run . --from run.json          print the tables of a run that was kept
//	go -C bench run . --before c777328         beside an earlier commit, which it builds
//	go -C bench run . bulk --profile d         with profiles of the servers in Go
//
// It is a module of its own, so that the product does not require what only bench
// needs. With -C bench, the paths in its flags are relative to the folder bench.
//
// Each turn starts a server in a process of its own and the load generator in
// another. The servers take turns, A B A B, and the tables show medians: on a
// shared machine the ratios say more than the absolute figures. The clients'
// processor time stands beside the server's, because on a small machine both
// share the cores and the generator may be the limit.
//
// Each upload is checked: the server's 1603 must name the right size and
// checksum, a 1604 must come, and afterwards all that is stored is read back.
// One wrong byte fails the run.
//
// A peer that the machine does not have is left out, with a line that says what is
// missing. tusd is fetched and built by the Go tool beforehand, and kept in the
// user's cache; with --tiny only if --peer names it.
//
// The scenarios are in scenario.go, the peers in peer.go, what --json writes in
// package report. Package goroutine is a peer, and an example of a server over
// package session that is not the event loop's.
//
// Linux only: it reads /proc.
package main
