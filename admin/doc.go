// Package admin is the address at which a server is watched: /healthz says whether the
// process and its loops answer, /readyz whether clients should come now, /metrics has
// numbers for Prometheus, and /debug/pprof/ profiles of the process.
//
// It knows nothing of the server but the functions and numbers of a [Source]. What may
// take long, as to ask a disk that hangs, it asks on a goroutine of its own, and answers
// with what was known last.
//
// Who may ask: on the loopback everybody who may connect to it, but profiles need the
// token of a file. Beyond the loopback everything needs the token, and goes over TLS. A
// request must name a host that the server is known by, and none may come from another
// site's page: so a browser on the same machine is nobody's way in.
package admin
