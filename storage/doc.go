// Package storage is the contract between the server and its stores, and nothing
// else: a [Registry] keeps clients and files on record, [Files] keeps content, and
// a [Queue] in front of the registry makes batches of what many connections want.
// Below it are the stores (sqlite, memory, files), the suite that each of them must
// pass (storagetest), and what puts registry and files in order after a crash
// (audit).
package storage
