-- The tables of schema 1. They are those of the SQLite registry, with the names of columns in
-- lower case and underscores, and some more.
--
-- Text is compared byte by byte: COLLATE "C". Times are kept to the millisecond.

-- fillfactor: a client's row changes with each of its requests, on its own page.
CREATE TABLE clients (
    id          uuid PRIMARY KEY,
    name        text COLLATE "C" NOT NULL UNIQUE,
    public_key  bytea,
    last_seen   timestamptz,
    aes_key     bytea,
    tls_key     bytea CHECK (length(tls_key) = 32),
    disabled    boolean NOT NULL DEFAULT false,
    quota_bytes bigint NOT NULL DEFAULT 0 CHECK (quota_bytes >= -1),
    quota_files bigint NOT NULL DEFAULT 0 CHECK (quota_files >= -1),
    used_bytes  bigint,                    -- NULL: not counted, as no quota stands
    used_files  bigint,
    keep_for    bigint NOT NULL DEFAULT 0, -- seconds
    expires     timestamptz
) WITH (fillfactor = 60);
CREATE INDEX expiring ON clients (expires) WHERE expires IS NOT NULL;

-- The names that may register where registration is closed.
CREATE TABLE names (name text COLLATE "C" PRIMARY KEY);

-- A client has at most one verified and one waiting file under a path. There is no foreign key:
-- the functions lock the client's row before they touch its files.
CREATE TABLE files (
    id        uuid NOT NULL,
    file_name text COLLATE "C" NOT NULL,
    path      text COLLATE "C" NOT NULL,
    waiting   boolean NOT NULL,            -- for its verdict; otherwise it is verified
    size      bigint NOT NULL CHECK (size >= 0),
    cksum     bigint NOT NULL CHECK (cksum BETWEEN 0 AND 4294967295),
    incoming  text COLLATE "C" NOT NULL,   -- the key of the upload
    received  timestamptz,
    missing   boolean NOT NULL DEFAULT false,
    lapsed    boolean NOT NULL DEFAULT false,
    taken     timestamptz,
    deleted   boolean NOT NULL DEFAULT false,
    PRIMARY KEY (id, path, waiting)
);
-- The files whose content is to be removed.
CREATE INDEX leaving ON files (id, path, waiting) WHERE deleted OR taken IS NOT NULL AND NOT missing;

-- The files of which a part is there.
CREATE TABLE partials (
    id         uuid NOT NULL,
    file_name  text COLLATE "C" NOT NULL,
    path       text COLLATE "C" NOT NULL,
    incoming   text COLLATE "C" NOT NULL,
    total      bigint NOT NULL,
    length     bigint NOT NULL CHECK (length BETWEEN 0 AND total),
    state      bigint NOT NULL CHECK (state BETWEEN 0 AND 4294967295),
    boot       text NOT NULL,
    generation bigint NOT NULL,
    changed    timestamptz,
    deleted    boolean NOT NULL DEFAULT false,
    PRIMARY KEY (id, path)
);

-- Content on its way into the store.
CREATE TABLE leases (
    key    text COLLATE "C" PRIMARY KEY,
    id     uuid NOT NULL,
    path   text COLLATE "C" NOT NULL,
    server text COLLATE "C" NOT NULL,
    ends   timestamptz NOT NULL
);
CREATE INDEX leases_end ON leases (ends);

-- An event is a row for each target. due is in milliseconds since 1970, 0 for at once, and NULL
-- while an earlier event of the client waits for the same target: so events_due has one row of
-- each client, and what is to be told next costs the same however much waits.
CREATE TABLE event_targets (name text COLLATE "C" PRIMARY KEY);
CREATE TABLE events (
    seq         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    target      text COLLATE "C" NOT NULL,
    event_id    text COLLATE "C" NOT NULL,
    kind        text NOT NULL,
    why         text NOT NULL,
    happened    timestamptz NOT NULL,
    id          uuid NOT NULL,
    client_name text NOT NULL,
    file_name   text NOT NULL,
    path        text NOT NULL,
    version     text NOT NULL,
    size        bigint NOT NULL,
    cksum       bigint NOT NULL,
    attempts    bigint NOT NULL DEFAULT 0,
    failure     text NOT NULL DEFAULT '',
    due         bigint
);
CREATE INDEX events_due ON events (target, due, seq) WHERE due IS NOT NULL;
CREATE INDEX events_of_client ON events (target, id, seq);

-- Who applies batches: a row for each of those that a registry has under way at once. It makes
-- sure that a batch is done once, and keeps what came of the last one until the next: see
-- begin_batch. changes counts the batches that steered clients or files.
CREATE TABLE writers (
    writer   uuid PRIMARY KEY,
    instance uuid NOT NULL,                -- the registry whose it is
    seq      bigint NOT NULL,              -- of the last batch
    results  jsonb,                        -- of that, by the number of the operation
    changes  bigint NOT NULL DEFAULT 0,
    at       timestamptz NOT NULL
) WITH (fillfactor = 40);

-- What servers share and nobody else is to know.
CREATE TABLE secrets (name text COLLATE "C" PRIMARY KEY, value bytea NOT NULL);

-- The one server that may serve, where the content is in a directory: one row at most.
CREATE TABLE holder (
    one    boolean PRIMARY KEY DEFAULT true CHECK (one),
    server text NOT NULL,
    host   text NOT NULL,
    dir    text NOT NULL,
    ends   timestamptz NOT NULL
);
