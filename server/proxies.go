package server

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

func (n *Network) checkProxies() error {
	if n.ProxyProtocol && len(n.TrustedProxies) == 0 {
		return errors.New("--proxy-protocol without --trusted-proxies: want the addresses of the proxies, such as 192.0.2.1 or 10.1.0.0/16")
	}
	for _, text := range n.TrustedProxies {
		if _, err := parseNetwork(text); err != nil {
			return fmt.Errorf("--trusted-proxies %q: want addresses or networks, such as 192.0.2.1 or 10.1.0.0/16", text)
		}
	}
	return nil
}

// proxies are the networks of TrustedProxies, which have been checked, if they count.
func (n *Network) proxies() (all []netip.Prefix) {
	if !n.ProxyProtocol {
		return nil
	}
	for _, text := range n.TrustedProxies {
		if p, err := parseNetwork(text); err == nil {
			all = append(all, p)
		}
	}
	return all
}

// parseNetwork returns the network that text names: an address is one of its own.
func parseNetwork(text string) (netip.Prefix, error) {
	if !strings.Contains(text, "/") {
		ip, err := netip.ParseAddr(text)
		if err != nil {
			return netip.Prefix{}, err
		}
		ip = ip.Unmap().WithZone("")
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, err
	}
	if p.Addr().Is4In6() { // connections have the IPv4 address
		return p, errors.New("an IPv4 network in the form of IPv6")
	}
	return p.Masked(), nil
}
