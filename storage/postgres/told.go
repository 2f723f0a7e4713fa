package postgres

import (
	"errors"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Advice is what a person can do about an error of this package, or "".
func Advice(err error) string {
	switch code(err) {
	case "28P01", "28000": // invalid_password, invalid_authorization_specification
		return "The password is taken from the URL, PGPASSWORD, PGPASSFILE or ~/.pgpass. Who may come in from where is in the database's pg_hba.conf."
	case "3D000": // invalid_catalog_name
		return "The database has to be there first: createdb --owner USER DATABASE."
	case "42501": // insufficient_privilege
		return "The user has to own the schema with the tables, or may make one: GRANT CREATE ON DATABASE … TO …."
	case readOnlyTransaction:
		return "It takes no writes. Is it a standby?"
	}
	return ""
}

// told is an error of the driver in one line. A driver that reaches a host in several ways names
// each in a line of its own, also where all fail alike.
type told struct{ error }

func (t told) Unwrap() error { return t.error }

func (t told) Error() string {
	lines := strings.Split(t.error.Error(), "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	// With sslmode=prefer, the default, the same host is tried without TLS then.
	without := slices.DeleteFunc(slices.Clone(lines[1:]), func(s string) bool {
		return strings.HasSuffix(s, "tls error: server refused TLS connection")
	})
	if len(without) > 0 {
		lines = append(lines[:1], without...)
	}
	var once []string
	for _, line := range lines[1:] {
		if !slices.Contains(once, line) {
			once = append(once, line)
		}
	}
	return strings.TrimSpace(lines[0] + " " + strings.Join(once, "; "))
}

// inOneLine returns err as told if it is the driver's, of a connection.
func inOneLine(err error) error {
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return told{err}
	}
	return err
}
