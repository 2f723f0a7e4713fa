package interop

import "slices"

// Habits of the peers' clients, and what belongs to them.
const (
	underRejectedID = "--register-under-1606"
	windowsPath     = "--windows-path"
)

// FieldClients are the peers' clients that read the documents as clients outside were met to do, and are as strict.
func FieldClients(maker Maker) []Client {
	strict := []string{"--later-codes", "--check-size"}
	clients := []Client{
		{Dialect: spec, Habits: strict},
		{Dialect: single, Habits: strict},
		{Dialect: padded, Habits: strict},
		{Dialect: zeroBased, Habits: strict},
		{Dialect: perPacket, Habits: strict},
		{Dialect: Dialect{"packet-size", 0}, Habits: strict},
		{Dialect: Dialect{"packet-size", 0}, Habits: append(slices.Clone(strict), "--reverse")},
		{Dialect: spec, Habits: strict, Unknown: true},
		{Dialect: padded, Habits: append(slices.Clone(strict), underRejectedID), Unknown: true},
		{Dialect: spec, Habits: []string{"--no-total"}},
		{Dialect: padded, Habits: append([]string{"--no-total"}, strict...)},
		{Dialect: zeroBased, Habits: []string{"--no-total"}},
		{Dialect: spec, Habits: []string{"--swapped"}},
		{Dialect: padded, Habits: []string{"--swapped", "--extra-packet"}},
		{Dialect: Dialect{"packet-size", 0}, Habits: append([]string{"--swapped"}, strict...)},
		{Dialect: spec, Habits: append([]string{"--swapped"}, strict...), Unknown: true},
		{Dialect: spec, Habits: []string{windowsPath}},
		{Dialect: perPacket, Habits: append([]string{windowsPath}, strict...), Unknown: true},
	}
	for i := range clients {
		clients[i].Maker = maker
	}
	return clients
}

// stored is the path below the client's folder under which a server keeps the client's file of that name.
func (c Client) stored(name string) string {
	if slices.Contains(c.Habits, windowsPath) {
		return "x64/debug/" + name
	}
	return name
}
