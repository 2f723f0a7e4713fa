package client

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"sealift/internal/infofile"
)

// ServerAt is what the address of a server says.
type ServerAt struct {
	Address string      // host:port
	TLS     bool        // connections to it are protected
	Key     Fingerprint // the TLS key that it has; zero: it does not say
}

// tlsScheme begins the address of a server that is reached over TLS.
const tlsScheme = "tls://"

// ParseServer reads the address of a server: HOST:PORT, or tls://HOST:PORT where
// connections are to be protected, or tls://HOST:PORT#SHA256:… with the fingerprint
// of the server's key. The port defaults to 1256; an IPv6 address stands in brackets.
func ParseServer(server string) (ServerAt, error) {
	var s ServerAt
	plain := server
	if len(plain) >= len(tlsScheme) && strings.EqualFold(plain[:len(tlsScheme)], tlsScheme) {
		plain, s.TLS = plain[len(tlsScheme):], true
	}
	plain, key, hasKey := strings.Cut(plain, "#")
	var err error
	if hasKey {
		if !s.TLS {
			return ServerAt{}, fmt.Errorf("server address %q: a fingerprint stands behind %sHOST:PORT", server, tlsScheme)
		}
		if s.Key, err = ParseFingerprint(key); err != nil {
			return ServerAt{}, fmt.Errorf("server address %q: %w", server, err)
		}
	}
	if s.Address, err = hostPort(server, plain); err != nil {
		return ServerAt{}, err
	}
	return s, nil
}

// ServerAddress returns the host:port of a server, as [ParseServer] reads it.
func ServerAddress(server string) (string, error) {
	s, err := ParseServer(server)
	return s.Address, err
}

// hostPort returns what follows the tls:// of server as host:port.
func hostPort(server, plain string) (string, error) {
	host, port := plain, strconv.Itoa(infofile.DefaultPort)
	wrong := func(format string, args ...any) (string, error) {
		return "", fmt.Errorf("server address %q: %s", server, fmt.Sprintf(format, args...))
	}
	if _, rest, isURL := strings.Cut(plain, "://"); isURL || strings.Contains(plain, "/") {
		if !isURL {
			rest = plain
		}
		host, _, _ := strings.Cut(rest, "/")
		if host == "" {
			return wrong("want HOST:PORT, without slashes")
		}
		return wrong("want HOST:PORT and not a URL: %s", host)
	}
	switch i := strings.LastIndexByte(plain, ':'); {
	case strings.HasPrefix(plain, "[") && strings.HasSuffix(plain, "]"):
		host = plain[1 : len(plain)-1]
	case i >= 0:
		var err error
		if host, port, err = net.SplitHostPort(plain); err != nil {
			if _, err := netip.ParseAddr(plain); err == nil {
				return wrong("want HOST:PORT, an IPv6 address in brackets: [%s]:%d", plain, infofile.DefaultPort)
			}
			return wrong("want HOST:PORT, such as files.example.org:%d or [::1]:%d", infofile.DefaultPort, infofile.DefaultPort)
		}
	}
	if host == "" || strings.ContainsAny(host, " \t[]") {
		return wrong("there is no host in it")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return wrong("the port must be a number from 1 to 65535")
	}
	// A server is known by its address: another spelling of the same must not make it
	// unknown, and its connections plain.
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.String()
	}
	return net.JoinHostPort(host, strconv.FormatUint(n, 10)), nil
}
