// Package admin is the address at which a server is watched: /healthz says whether the
// process and its loops answer, /readyz whether clients should come now, /metrics has
// numbers for Prometheus, / a live page, /api/v1/ what that shows and does, and
// /debug/pprof/ profiles of the process.
//
// It knows nothing of the server but the functions and numbers of a [Source], and of a
// [Live] for the page. What may take long, as to ask a disk that hangs, it asks on a
// goroutine of its own, and answers with what was known last. Lists of the registry are
// read while the request waits, which is nobody's wait but its own.
//
// Who may ask: on the loopback everybody who may connect to it, but profiles, and all that
// has names of clients and files, need the token of a file. Beyond the loopback everything
// needs the token, and goes over TLS; the page's own files alone are for everybody, since
// they have nothing of the server's. A request must name a host that the server is known
// by, and none may come from another site's page: so a browser on the same machine is
// nobody's way in.
package admin
