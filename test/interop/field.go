package interop

import "slices"

// FieldServers are the peers' servers as they are met outside: sealift is told nothing about them, and has to find out what
// they want.
func FieldServers(maker Maker) []Server {
	var servers []Server
	for _, dialect := range Dialects {
		servers = append(servers, Server{Dialect: dialect})
	}
	for _, quirks := range [][]string{
		{"later-codes"},
		{"later-codes", "unknown-close"},
		{"later-codes", "unknown-silent"},
		{"registers-at-1606"},
		{"empty-1604"},
		{"crc-size-ciphertext"},
		{"crc-size-last-packet"},
		{"reads-once"},
		{"one-message-a-read"},
		{"one-message-a-read", "busy=5"},
		{"serial"},
	} {
		servers = append(servers, Server{Dialect: spec, Quirks: quirks})
	}
	servers = append(servers,
		Server{Dialect: padded, Quirks: []string{"later-codes", "unknown-close"}},
		Server{Dialect: perPacket, Quirks: []string{"later-codes", "empty-1604"}},
		Server{Dialect: padded, Quirks: []string{"later-codes", "one-message-a-read"}},
		Server{Dialect: zeroBased, Quirks: []string{"serial", "registers-at-1606"}},
		Server{Dialect: padded, Quirks: []string{"fixed-read"}},
	)
	for i := range servers {
		servers[i].Maker = maker
	}
	return servers
}

// fieldPlans try each of them with a client that comes back, one that is new each time, and one that the server does not
// know; and with the batch client, where that can reach it: it does not try dialects.
func fieldPlans() []plan {
	var plans []plan
	for _, maker := range Peers {
		for _, server := range FieldServers(maker) {
			client := Client{Maker: Sealift}
			row := func(what string, client Client, server Server) {
				plans = append(plans, plan{server.String() + what, []Trial{{Client: client, Server: server}}})
			}
			row("", client, server)
			fresh, unknown := server, server
			fresh.Fresh, unknown.Unknown = true, true
			if !slices.Contains(server.Quirks, "fixed-read") { // it is silent for long before anything is found out
				row(", fresh", client, fresh)
			}
			row(", rejected", client, unknown)
			if server.Dialect == spec && !slices.ContainsFunc(server.Quirks, readsOnce) {
				row(", transfer.info", Client{Maker: Sealift, Batch: true}, server)
			}
		}
	}
	return plans
}

// readsOnce reports whether a quirk keeps a server from taking packets of the size that sealift sends unless it finds out.
func readsOnce(quirk string) bool { return quirk == "reads-once" || quirk == "one-message-a-read" }
