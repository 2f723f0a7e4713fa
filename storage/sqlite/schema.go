package sqlite

import (
	"context"
	"database/sql/driver"
	"fmt"
	"slices"
)

// schemaVersion is what PRAGMA user_version says of a database with this
// schema.
const schemaVersion = 6

// The tables of the protocol documents ("Server Persistence with SQLite"), with
// the columns that a server needs besides. PathName is
// files/<client id, 32 hex digits>/<path>, for a file that is not verified yet:
// the place it will have. The rows lie in the order in which they came, and only
// the indexes in that of the random ids: WITHOUT ROWID, a batch of 100 writes a
// fifth to a half more pages.
var schema = slices.Concat([]string{
	`CREATE TABLE clients (
	ID        BLOB NOT NULL PRIMARY KEY CHECK (length(ID) = 16),
	Name      TEXT NOT NULL UNIQUE,
	PublicKey BLOB,
	LastSeen  DATETIME,
	AESKey    BLOB,
	TLSKey    BLOB CHECK (length(TLSKey) = 32),
	Disabled  BOOLEAN NOT NULL DEFAULT 0 CHECK (Disabled IN (0, 1)),
	QuotaBytes INTEGER NOT NULL DEFAULT 0,
	QuotaFiles INTEGER NOT NULL DEFAULT 0,
	UsedBytes  INTEGER,
	UsedFiles  INTEGER,
	KeepFor    INTEGER NOT NULL DEFAULT 0,
	Expires    DATETIME
)`,
	`CREATE TABLE files (
	ID       BLOB NOT NULL REFERENCES clients (ID),
	FileName TEXT NOT NULL,
	PathName TEXT NOT NULL,
	Verified BOOLEAN NOT NULL CHECK (Verified IN (0, 1)),
	Size     INTEGER NOT NULL,
	Cksum    INTEGER NOT NULL,
	Incoming TEXT,
	Received DATETIME,
	Missing  BOOLEAN NOT NULL DEFAULT 0 CHECK (Missing IN (0, 1)),
	Lapsed   BOOLEAN NOT NULL DEFAULT 0 CHECK (Lapsed IN (0, 1)),
	Taken    DATETIME,
	Deleted  BOOLEAN NOT NULL DEFAULT 0 CHECK (Deleted IN (0, 1)),
	PRIMARY KEY (ID, PathName, Verified)
)`,
	namesTable,
	leavingIndex,
	partialsTable,
	expiringIndex,
	leasesTable,
}, eventTables, []string{fmt.Sprintf("PRAGMA user_version = %d", schemaVersion)})

// A step of migrations has these too, so they are never changed either.
const (
	// The names that may register where registration is closed.
	namesTable = "CREATE TABLE names (Name TEXT NOT NULL PRIMARY KEY)"
	// The files whose content is to be removed. An index of these alone: what becomes of
	// all others writes nothing to it.
	leavingIndex = "CREATE INDEX leaving ON files (ID, PathName, Verified DESC)" +
		" WHERE Deleted <> 0 OR Taken IS NOT NULL AND Missing = 0"
	// The files of which a part is there: see storage.Partial. PathName is as in files. A table
	// of its own: what is done with whole files reads and writes nothing of it.
	partialsTable = `CREATE TABLE partials (
	ID         BLOB NOT NULL REFERENCES clients (ID),
	FileName   TEXT NOT NULL,
	PathName   TEXT NOT NULL,
	Incoming   TEXT NOT NULL,
	Total      INTEGER NOT NULL,
	Length     INTEGER NOT NULL,
	State      INTEGER NOT NULL,
	Boot       TEXT NOT NULL,
	Generation INTEGER NOT NULL,
	Changed    DATETIME,
	Deleted    BOOLEAN NOT NULL DEFAULT 0 CHECK (Deleted IN (0, 1)),
	PRIMARY KEY (ID, PathName)
)`
)

// The clients that are to be disabled, an index of these alone.
const expiringIndex = "CREATE INDEX expiring ON clients (Expires) WHERE Expires IS NOT NULL"

// migrations[v] makes schema v+1 of schema v. Each is run in one transaction, and
// ends with the new user_version. A step is never changed once it was released:
// a database may have any of the earlier schemas.
var migrations = map[int64][]string{
	1: {
		"ALTER TABLE files ADD COLUMN Missing BOOLEAN NOT NULL DEFAULT 0 CHECK (Missing IN (0, 1))",
		"ALTER TABLE files ADD COLUMN Lapsed BOOLEAN NOT NULL DEFAULT 0 CHECK (Lapsed IN (0, 1))",
		"PRAGMA user_version = 2",
	},
	2: {
		"ALTER TABLE clients ADD COLUMN TLSKey BLOB CHECK (length(TLSKey) = 32)",
		"PRAGMA user_version = 3",
	},
	3: {
		"ALTER TABLE clients ADD COLUMN Disabled BOOLEAN NOT NULL DEFAULT 0 CHECK (Disabled IN (0, 1))",
		"ALTER TABLE files ADD COLUMN Taken DATETIME",
		"ALTER TABLE files ADD COLUMN Deleted BOOLEAN NOT NULL DEFAULT 0 CHECK (Deleted IN (0, 1))",
		namesTable,
		leavingIndex,
		"PRAGMA user_version = 4",
	},
	4: slices.Concat([]string{
		// Quotas and retention: see quotas.go.
		"ALTER TABLE clients ADD COLUMN QuotaBytes INTEGER NOT NULL DEFAULT 0",
		"ALTER TABLE clients ADD COLUMN QuotaFiles INTEGER NOT NULL DEFAULT 0",
		"ALTER TABLE clients ADD COLUMN UsedBytes INTEGER",
		"ALTER TABLE clients ADD COLUMN UsedFiles INTEGER",
		"ALTER TABLE clients ADD COLUMN KeepFor INTEGER NOT NULL DEFAULT 0",
		"ALTER TABLE clients ADD COLUMN Expires DATETIME",
		expiringIndex,
		partialsTable,
	}, eventTables, []string{"PRAGMA user_version = 5"}),
	5: {leasesTable, "PRAGMA user_version = 6"},
}

// checkSchema returns an error unless the database has the schema above.
func checkSchema(ctx context.Context, c *conn) error {
	version, err := c.schemaVersion(ctx)
	if err == nil && version != schemaVersion {
		err = fmt.Errorf("%w: schema %d, this one needs %d; a server that is started on it brings it up to date",
			ErrOlder, version, schemaVersion)
	}
	return err
}

// schemaVersion reads which schema a database of ours has, 1 to schemaVersion.
// ErrForeign if it is not ours, ErrNewer if this program does not know it.
func (c *conn) schemaVersion(ctx context.Context) (int64, error) {
	v, err := c.value(ctx, "PRAGMA user_version")
	if err != nil {
		return 0, err
	}
	version, _ := v.(int64)
	switch {
	case version > schemaVersion:
		return 0, fmt.Errorf("%w: schema %d, this one knows %d", ErrNewer, version, schemaVersion)
	case version < 1:
		return 0, fmt.Errorf("%w, or to none: schema version %d", ErrForeign, version)
	}
	n, err := c.value(ctx, "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name IN ('clients', 'files')")
	if err != nil {
		return 0, err
	}
	if n != int64(2) {
		return 0, fmt.Errorf("%w: the tables clients and files are missing", ErrForeign)
	}
	return version, nil
}

// prepareSchema makes the tables in an empty database, and brings an older one up
// to date.
func (r *Registry) prepareSchema(ctx context.Context, c *conn) error {
	// Look before touching: a database of somebody else's stays as it is.
	empty, err := c.isEmpty(ctx)
	if err != nil {
		return err
	}
	if !empty {
		if _, err := c.schemaVersion(ctx); err != nil {
			return err
		}
	}
	var mode driver.Value
	if err := r.whenFree(ctx, func() (err error) {
		mode, err = c.value(ctx, "PRAGMA journal_mode = WAL")
		return err
	}); err != nil {
		return err
	}
	if mode != "wal" {
		return fmt.Errorf("the file system does not allow WAL mode (mmap and locks are needed); journal mode %v", mode)
	}
	// One transaction, and a second look inside of it: another process may be at
	// the same.
	if err := c.run(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	if err := c.bringUpToDate(ctx); err != nil {
		_ = c.run(context.Background(), "ROLLBACK") // the connection is closed next
		return err
	}
	return c.run(ctx, "COMMIT")
}

// bringUpToDate makes the tables, or the changes that an older schema lacks. It
// runs inside of a transaction.
func (c *conn) bringUpToDate(ctx context.Context) error {
	empty, err := c.isEmpty(ctx)
	if err != nil {
		return err
	}
	if empty {
		return c.runAll(ctx, schema)
	}
	version, err := c.schemaVersion(ctx)
	for ; err == nil && version < schemaVersion; version++ {
		err = c.runAll(ctx, migrations[version])
	}
	return err
}

func (c *conn) runAll(ctx context.Context, texts []string) error {
	for _, text := range texts {
		if err := c.run(ctx, text); err != nil {
			return err
		}
	}
	return nil
}

func (c *conn) isEmpty(ctx context.Context) (bool, error) {
	v, err := c.value(ctx, "PRAGMA user_version")
	if err != nil {
		return false, err
	}
	n, err := c.value(ctx, "SELECT count(*) FROM sqlite_schema")
	return v == int64(0) && n == int64(0), err
}

// statement is an index into the prepared statements of a connection.
type statement int

const (
	begin statement = iota
	commit
	rollback
	insertClient
	hasName
	addName
	isAdded
	dropName
	selectClient
	updateKeys
	updateTLSKey
	updateAESKey
	updateLastSeen
	updateDisabled
	selectAccess
	selectFile
	selectUnverified
	selectPaths
	addFile
	putFile
	verifyFile
	dropFile
	markLapsed
	markMissing
	selectForgettable
	markWaiting
	forgetFile
	takeFile
	deleteFile
	dropKeyless
	hasFiles
	dropFiles
	dropAdded
	dropClient
	selectPartial
	putPartial
	continuePartial
	dropPartial
	forgetPartial
	deletePartial
	hasPartials
	clientHasPartials
	hasVersion
	markEmptied
	isEmptied
	listClients
	listFiles
	listLeaving
	listPartials
	listAdded
	dataVersion
	verifyCounted
	selectUsage
	selectHere
	sumUsage
	recount
	addUsage
	uncount
	updateQuota
	updateKeepFor
	updateExpires
	selectExpired
	expireClient
	insertEvent
	tellEvent
	releaseEvent
	releaseEvents
	postponeEvent
	retryEvents
	dropEvents
	nextEvents
	listEvents
	listBacklogs
	restoreEvent
	addEventTarget
	clearTargets
	listEventTargets
	putLease
	renewLease
	endLease
	hasLease
	listEnded
	listLeases
	findUpload
	selectVerified
	statementCount
)

const (
	clientColumns     = "ID, Name, PublicKey, AESKey, LastSeen, TLSKey, Disabled, QuotaBytes, QuotaFiles, KeepFor, Expires"
	clientColumnCount = 11
	fileColumns       = "ID, FileName, PathName, Verified, Size, Cksum, Incoming, Received, Missing, Lapsed, Taken, Deleted"
	fileColumnCount   = 12

	partialColumns     = "ID, FileName, PathName, Incoming, Total, Length, State, Boot, Generation, Changed, Deleted"
	partialColumnCount = 11
)

var (
	newFile = "INTO files (" + fileColumns + ")" +
		" SELECT ?1, ?2, ?3, 0, ?4, ?5, ?6, ?7, 0, ?8, NULL, 0" +
		" WHERE EXISTS (SELECT 1 FROM clients WHERE ID = ?1" + mayAct(9)

	// One file of a client, by path, and by key.
	ofPath     = " WHERE ID = ?1 AND PathName = ?2"
	verified   = ofPath + " AND Verified = 1 AND coalesce(Incoming, '') = ?3"
	unverified = ofPath + " AND Verified = 0 AND Incoming = ?3"

	// What counts of a client's files, see storage.Usage.
	counts    = " (Verified = 0 OR Missing = 0)"
	eachPlace = "SELECT max(Size) AS Most FROM files WHERE ID = ?1 AND" + counts + " GROUP BY PathName"
)

// mayAct is the condition on a row of clients that an actor may act for it: what actor
// makes of that is argument n.
func mayAct(n int) string {
	return fmt.Sprintf(" AND (?%[1]d = 1 OR Disabled = 0 AND (TLSKey IS NULL OR TLSKey = ?%[1]d))", n)
}

// mayActFor is the same for the client of argument 1, in a statement about others than
// clients.
func mayActFor(n int) string {
	return fmt.Sprintf(" AND (?%[1]d = 1 OR NOT EXISTS (SELECT 1 FROM clients WHERE ID = ?1"+
		" AND (Disabled <> 0 OR TLSKey IS NOT ?%[1]d AND TLSKey IS NOT NULL)))", n)
}

var statements = with([statementCount]string{
	begin:    "BEGIN IMMEDIATE",
	commit:   "COMMIT",
	rollback: "ROLLBACK",

	insertClient: "INSERT INTO clients (ID, Name, LastSeen, TLSKey) SELECT ?1, ?2, ?3, ?4" +
		" WHERE ?5 = 0 OR EXISTS (SELECT 1 FROM names WHERE Name = ?2) ON CONFLICT DO NOTHING",
	hasName:      "SELECT 1 FROM clients WHERE Name = ?1",
	addName:      "INSERT INTO names (Name) SELECT ?1 WHERE NOT EXISTS (SELECT 1 FROM clients WHERE Name = ?1) ON CONFLICT DO NOTHING",
	isAdded:      "SELECT 1 FROM names WHERE Name = ?1",
	dropName:     "DELETE FROM names WHERE Name = ?1",
	selectAccess: "SELECT TLSKey, Disabled FROM clients WHERE ID = ?1",
	selectClient: "SELECT " + clientColumns + " FROM clients WHERE ID = ?1",
	updateKeys: "UPDATE clients SET PublicKey = ?3, AESKey = ?4, LastSeen = coalesce(?7, LastSeen)" +
		" WHERE ID = ?1 AND Name = ?2 AND (?5 OR PublicKey IS NULL OR PublicKey = ?3)" + mayAct(6),
	updateAESKey: "UPDATE clients SET AESKey = ?2, LastSeen = coalesce(?5, LastSeen)" +
		" WHERE ID = ?1 AND (?3 IS NULL OR AESKey = ?3)" + mayAct(4),
	updateTLSKey:   "UPDATE clients SET TLSKey = ?2 WHERE ID = ?1" + mayAct(3),
	updateLastSeen: "UPDATE clients SET LastSeen = ?2 WHERE ID = ?1",
	updateDisabled: "UPDATE clients SET Disabled = ?2 WHERE ID = ?1",

	selectFile:       "SELECT " + fileColumns + " FROM files" + ofPath,
	selectUnverified: "SELECT " + fileColumns + " FROM files" + ofPath + " AND Verified = 0",
	selectVerified:   "SELECT " + fileColumns + " FROM files" + ofPath + " AND Verified = 1",
	selectPaths:      "SELECT DISTINCT PathName FROM files WHERE ID = ?1 AND NOT (Taken IS NOT NULL AND Missing = 1)",
	// Where the client is not counted, which most are not, no question needs to be asked.
	addFile: "INSERT " + newFile + " AND UsedFiles IS NULL) ON CONFLICT DO NOTHING",
	putFile: "INSERT OR REPLACE " + newFile + ")",
	// REPLACE takes away the verified row that was.
	verifyCounted: "UPDATE OR REPLACE files SET Verified = 1, Missing = ?4, Lapsed = 0, Deleted = 0" + unverified + mayActFor(5),
	// The same where the client is not counted.
	verifyFile: "UPDATE OR REPLACE files SET Verified = 1, Missing = ?4, Lapsed = 0, Deleted = 0" + unverified +
		" AND NOT EXISTS (SELECT 1 FROM clients WHERE ID = ?1 AND (UsedFiles IS NOT NULL OR" +
		" ?5 IS NOT 1 AND (Disabled <> 0 OR TLSKey IS NOT ?5 AND TLSKey IS NOT NULL)))",
	dropFile:    "DELETE FROM files" + unverified + mayActFor(4),
	markLapsed:  "UPDATE files SET Lapsed = 1" + ofPath + " AND Verified = 1",
	markMissing: "UPDATE files SET Missing = ?4" + verified,

	selectForgettable: "SELECT Lapsed FROM files" + verified + " AND (Missing = 1 OR Deleted <> 0)",
	markWaiting:       "UPDATE files SET Lapsed = 1" + ofPath + " AND Verified = 0",
	forgetFile:        "DELETE FROM files" + ofPath + " AND Verified = 1",
	takeFile:          "UPDATE files SET Taken = ?4" + verified + " AND Missing = 0 AND Deleted = 0 AND Taken IS NULL",
	deleteFile:        "UPDATE files SET Deleted = 1" + ofPath + " AND Verified = ?4 AND coalesce(Incoming, '') = ?3",

	dropKeyless: "DELETE FROM clients WHERE ID = ?1 AND PublicKey IS NULL AND Disabled = 0 AND LastSeen < ?2" +
		" AND NOT EXISTS (SELECT 1 FROM files WHERE files.ID = clients.ID)" +
		" AND NOT EXISTS (SELECT 1 FROM partials WHERE partials.ID = clients.ID)",
	hasFiles:   "SELECT 1 FROM files WHERE ID = ?1 AND (Taken IS NULL OR Missing = 0) LIMIT 1",
	dropFiles:  "DELETE FROM files WHERE ID = ?1",
	dropAdded:  "DELETE FROM names WHERE Name = (SELECT Name FROM clients WHERE ID = ?1)",
	dropClient: "DELETE FROM clients WHERE ID = ?1",

	selectPartial: "SELECT " + partialColumns + " FROM partials" + ofPath,
	putPartial: "INSERT OR REPLACE INTO partials (" + partialColumns + ")" +
		" VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
	continuePartial: "UPDATE partials SET Generation = Generation + 1, Changed = ?4" + ofPath +
		" AND Incoming = ?3 AND Deleted = 0" + mayActFor(5),
	dropPartial:       "DELETE FROM partials" + ofPath + " AND Incoming = ?3 AND (?4 = 0 OR Generation = ?4)" + mayActFor(5),
	forgetPartial:     "DELETE FROM partials" + ofPath,
	deletePartial:     "UPDATE partials SET Deleted = 1" + ofPath + " AND Incoming = ?3",
	hasPartials:       "SELECT 1 FROM partials LIMIT 1",
	clientHasPartials: "SELECT 1 FROM partials WHERE ID = ?1 LIMIT 1",
	hasVersion:        "SELECT 1 FROM files" + ofPath + " AND Incoming = ?3",

	// A number in the header of the database that SQLite leaves to its user. 0: no client
	// was ever forgotten.
	markEmptied: "PRAGMA application_id = 1",
	isEmptied:   "PRAGMA application_id",

	listClients: "SELECT " + clientColumns + " FROM clients WHERE Name > ?1 ORDER BY Name LIMIT ?2",
	listFiles: "SELECT " + fileColumns + " FROM files WHERE (ID, PathName, 1 - Verified) > (?1, ?2, ?3)" +
		" ORDER BY ID, PathName, Verified DESC LIMIT ?4",
	// INDEXED BY: it is prepared only if it can go by the index.
	listLeaving: "SELECT " + fileColumns + " FROM files INDEXED BY leaving WHERE (ID, PathName, 1 - Verified) > (?1, ?2, ?3)" +
		" AND (Deleted <> 0 OR Taken IS NOT NULL AND Missing = 0)" +
		" ORDER BY ID, PathName, Verified DESC LIMIT ?4",
	listPartials: "SELECT " + partialColumns + " FROM partials WHERE (ID, PathName) > (?1, ?2)" +
		" ORDER BY ID, PathName LIMIT ?3",
	listAdded: "SELECT Name FROM names WHERE Name > ?1 ORDER BY Name LIMIT ?2",

	selectUsage: "SELECT QuotaBytes, QuotaFiles, UsedBytes, UsedFiles FROM clients WHERE ID = ?1",
	selectHere:  "SELECT max(Size) FROM files" + ofPath + " AND" + counts,
	// One statement: it sees the count and the files at one moment.
	sumUsage: "SELECT UsedBytes, UsedFiles, Bytes, Files FROM clients," +
		" (SELECT coalesce(sum(Most), 0) AS Bytes, count(*) AS Files FROM (" + eachPlace + ")) WHERE ID = ?1",
	recount: "UPDATE clients SET (UsedBytes, UsedFiles) =" +
		" (SELECT coalesce(sum(Most), 0), count(*) FROM (" + eachPlace + ")) WHERE ID = ?1",
	addUsage: "UPDATE clients SET UsedBytes = UsedBytes + ?2, UsedFiles = UsedFiles + ?3 WHERE ID = ?1",
	uncount:  "UPDATE clients SET UsedBytes = NULL, UsedFiles = NULL WHERE ID = ?1",
	updateQuota: "UPDATE clients SET QuotaBytes = coalesce(?2, QuotaBytes), QuotaFiles = coalesce(?3, QuotaFiles)" +
		" WHERE ID = ?1",
	updateKeepFor: "UPDATE clients SET KeepFor = ?2 WHERE ID = ?1",
	updateExpires: "UPDATE clients SET Expires = ?2 WHERE ID = ?1",
	selectExpired: "SELECT ID FROM clients INDEXED BY expiring WHERE Expires IS NOT NULL AND Expires <= ?1",
	expireClient:  "UPDATE clients SET Disabled = 1, Expires = NULL WHERE ID = ?1 AND Expires <= ?2",

	// Another number than before: another connection has committed.
	dataVersion: "PRAGMA data_version",
}, eventStatements, leaseStatements)

// with puts the statements of other files to all.
func with(all [statementCount]string, more ...map[statement]string) [statementCount]string {
	for _, of := range more {
		for s, text := range of {
			all[s] = text
		}
	}
	return all
}
