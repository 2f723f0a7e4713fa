-- What is done for an operation of storage.Registry. Each function does one, in the
-- transaction of its batch, and returns NULL if that succeeded and there is nothing to tell.
-- Otherwise it returns what there is: {"refused": why}, or the rows that were replaced. It
-- raises nothing for a refusal, and a refusal changes nothing.
--
-- Of the arguments, _own says that it is the server's own; otherwise _by is the fingerprint of
-- the TLS key that the client has shown, or NULL. _at is what becomes of last_seen, unless it
-- is NULL. _tells says that events may be recorded.
--
-- Whatever changes something of a client has its row locked first: begin_batch does that for a
-- whole batch, in the order of the ids, so that two batches wait for each other in one
-- direction only. In a transaction at READ COMMITTED each statement of a function then sees
-- all that others have done for the client.

-- begin_batch begins batch _seq of a writer. A writer's batches have rising numbers. Where the
-- batch was done before, it raises SL001, which ends the transaction: the answer was lost, and
-- what came of it is in results. Where the first attempt is still under way, in another
-- session, it waits for its end.
CREATE FUNCTION begin_batch(_writer uuid, _instance uuid, _seq bigint, _steers boolean, _clients uuid[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO writers (writer, instance, seq, changes, at) VALUES (_writer, _instance, _seq, _steers::int, now())
    ON CONFLICT (writer) DO UPDATE
        SET seq = excluded.seq, changes = writers.changes + excluded.changes, at = excluded.at
        WHERE writers.seq < excluded.seq;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'batch % was done before', _seq USING ERRCODE = 'SL001';
    END IF;
    DELETE FROM results WHERE writer = _writer;
    PERFORM 1 FROM clients WHERE id = ANY (_clients) ORDER BY id FOR NO KEY UPDATE;
END $$;

-- note keeps the result of the operation with that number, and returns it. It is STRICT: for
-- the result NULL, which most operations have, nothing is called.
CREATE FUNCTION note(_writer uuid, _n integer, _result jsonb) RETURNS jsonb
LANGUAGE plpgsql STRICT AS $$
BEGIN
    INSERT INTO results (writer, n, result) VALUES (_writer, _n, _result);
    RETURN _result;
END $$;

CREATE FUNCTION refuse(_why text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN jsonb_build_object('refused', _why);
END $$;

-- refusal is why nobody, or not this actor, may act for a client; NULL: it may.
CREATE FUNCTION refusal(_c clients, _own boolean, _by bytea) RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF _c.id IS NULL THEN
        RETURN 'no_client';
    ELSIF _own THEN
        RETURN NULL;
    ELSIF _c.tls_key IS NOT NULL AND _c.tls_key IS DISTINCT FROM _by THEN
        RETURN 'pinned';
    ELSIF _c.disabled THEN
        RETURN 'disabled';
    END IF;
    RETURN NULL;
END $$;

-- refusal_of is what refuses an operation for a client where nothing was found to change:
-- _none unless the actor may not act for the client.
CREATE FUNCTION refusal_of(_id uuid, _own boolean, _by bytea, _none text) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    c clients;
    why text;
BEGIN
    SELECT * INTO c FROM clients WHERE id = _id;
    why := refusal(c, _own, _by);
    RETURN refuse(CASE WHEN why IS NULL OR why = 'no_client' THEN _none ELSE why END);
END $$;

-- here is what a place counts as, see storage.Usage: bytes; NULL: no file.
CREATE FUNCTION here(_id uuid, _path text) RETURNS bigint
LANGUAGE plpgsql AS $$
BEGIN
    RETURN (SELECT max(size) FROM files WHERE id = _id AND path = _path AND (waiting OR NOT missing));
END $$;

-- count_place adds to a client's count what has become of a place that counted as _before.
CREATE FUNCTION count_place(_id uuid, _path text, _before bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    after bigint := here(_id, _path);
BEGIN
    IF after IS DISTINCT FROM _before THEN
        UPDATE clients SET used_bytes = used_bytes + coalesce(after, 0) - coalesce(_before, 0),
            used_files = used_files + (after IS NOT NULL)::int - (_before IS NOT NULL)::int
            WHERE id = _id;
    END IF;
END $$;

-- recount counts what a client has, from now on or anew.
CREATE FUNCTION recount(_id uuid) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE clients SET (used_bytes, used_files) =
        (SELECT coalesce(sum(most), 0), count(*) FROM
            (SELECT max(size) AS most FROM files WHERE id = _id AND (waiting OR NOT missing) GROUP BY path) places)
        WHERE id = _id;
END $$;

-- record_event records an event for each target. The events of a client are in the order of
-- seq because its row is locked. The lock keeps drop_events away, which has no client's row.
CREATE FUNCTION record_event(_kind text, _why text, _id uuid, _name text, _f files) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtext('sealift events'), hashtext(current_schema()));
    INSERT INTO events (target, event_id, kind, why, happened, id, client_name, file_name, path, version, size, cksum, due)
        SELECT t.name, e.id, _kind, _why, date_trunc('milliseconds', clock_timestamp()), _id,
            coalesce(_name, (SELECT name FROM clients WHERE id = _id), ''),
            coalesce(_f.file_name, ''), coalesce(_f.path, ''), coalesce(_f.incoming, ''), coalesce(_f.size, 0), coalesce(_f.cksum, 0),
            CASE WHEN EXISTS (SELECT FROM events w WHERE w.target = t.name AND w.id = _id) THEN NULL ELSE 0 END
        FROM (SELECT replace(gen_random_uuid()::text, '-', '') AS id) e, event_targets t
        ORDER BY t.name;
END $$;

-- why_gone says why the content of a verified file is gone.
CREATE FUNCTION why_gone(_f files) RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN CASE WHEN _f.deleted THEN 'deleted' WHEN _f.taken IS NOT NULL THEN 'taken' ELSE 'missing' END;
END $$;

-- Clients.

CREATE FUNCTION add_client(_id uuid, _name text, _tls_key bytea, _only_added boolean, _at timestamptz, _tells boolean) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    IF _only_added THEN
        PERFORM 1 FROM names WHERE name = _name FOR KEY SHARE;
        IF NOT FOUND THEN
            RETURN refuse(CASE WHEN EXISTS (SELECT FROM clients WHERE name = _name) THEN 'name_taken' ELSE 'not_added' END);
        END IF;
    END IF;
    LOOP
        INSERT INTO clients (id, name, last_seen, tls_key) VALUES (_id, _name, _at, _tls_key) ON CONFLICT DO NOTHING;
        EXIT WHEN FOUND;
        -- Who was in the way may be gone by now.
        IF EXISTS (SELECT FROM clients WHERE name = _name) THEN
            RETURN refuse('name_taken');
        ELSIF EXISTS (SELECT FROM clients WHERE id = _id) THEN
            RETURN refuse('id_taken');
        END IF;
    END LOOP;
    IF _tells THEN
        PERFORM record_event('registered', '', _id, _name, NULL);
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION add_name(_name text) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM names WHERE name = _name) THEN
        RETURN NULL;
    ELSIF EXISTS (SELECT FROM clients WHERE name = _name) THEN
        RETURN refuse('name_taken');
    END IF;
    INSERT INTO names (name) VALUES (_name) ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;

CREATE FUNCTION drop_name(_name text) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM names WHERE name = _name;
    RETURN CASE WHEN NOT FOUND THEN refuse('no_client') END;
END $$;

CREATE FUNCTION disable_client(_id uuid, _disabled boolean, _at timestamptz) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE clients SET disabled = _disabled, last_seen = coalesce(_at, last_seen) WHERE id = _id;
    RETURN CASE WHEN NOT FOUND THEN refuse('no_client') END;
END $$;

CREATE FUNCTION drop_client(_id uuid, _tells boolean) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    c clients;
BEGIN
    SELECT * INTO c FROM clients WHERE id = _id FOR UPDATE;
    IF NOT FOUND THEN
        RETURN refuse('no_client');
    ELSIF EXISTS (SELECT FROM files WHERE id = _id AND (taken IS NULL OR NOT missing))
        OR EXISTS (SELECT FROM partials WHERE id = _id) THEN
        RETURN refuse('has_files');
    END IF;
    DELETE FROM files WHERE id = _id;
    DELETE FROM names WHERE name = c.name;
    DELETE FROM clients WHERE id = _id;
    IF _tells THEN
        PERFORM record_event('removed', 'deleted', _id, c.name, NULL);
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION drop_keyless(_id uuid, _before timestamptz, _tells boolean) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    c clients;
BEGIN
    SELECT * INTO c FROM clients WHERE id = _id FOR UPDATE;
    IF NOT FOUND OR c.public_key IS NOT NULL OR c.disabled OR c.last_seen >= _before OR c.last_seen IS NULL
        OR EXISTS (SELECT FROM files WHERE id = _id) OR EXISTS (SELECT FROM partials WHERE id = _id) THEN
        RETURN refuse('no_client');
    END IF;
    DELETE FROM clients WHERE id = _id;
    IF _tells THEN
        PERFORM record_event('expired', 'no_key', _id, c.name, NULL);
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION pin_client(_id uuid, _tls_key bytea, _own boolean, _by bytea, _at timestamptz) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE clients SET tls_key = _tls_key, last_seen = coalesce(_at, last_seen)
        WHERE id = _id AND (_own OR NOT disabled AND (tls_key IS NULL OR tls_key = _by));
    RETURN CASE WHEN NOT FOUND THEN refusal_of(_id, _own, _by, 'no_client') END;
END $$;

CREATE FUNCTION set_keys(_id uuid, _name text, _public_key bytea, _aes_key bytea, _replace boolean,
    _own boolean, _by bytea, _at timestamptz) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    c clients;
    why text;
BEGIN
    UPDATE clients SET public_key = _public_key, aes_key = _aes_key, last_seen = coalesce(_at, last_seen)
        WHERE id = _id AND name = _name AND (_replace OR public_key IS NULL OR public_key = _public_key)
        AND (_own OR NOT disabled AND (tls_key IS NULL OR tls_key = _by));
    IF FOUND THEN
        RETURN NULL;
    END IF;
    SELECT * INTO c FROM clients WHERE id = _id;
    why := refusal(c, _own, _by);
    RETURN refuse(coalesce(why, CASE WHEN c.name <> _name THEN 'wrong_name' ELSE 'key_pinned' END));
END $$;

CREATE FUNCTION set_aes_key(_id uuid, _aes_key bytea, _if bytea, _own boolean, _by bytea, _at timestamptz) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE clients SET aes_key = _aes_key, last_seen = coalesce(_at, last_seen)
        WHERE id = _id AND (_if IS NULL OR aes_key = _if)
        AND (_own OR NOT disabled AND (tls_key IS NULL OR tls_key = _by));
    RETURN CASE WHEN NOT FOUND THEN refusal_of(_id, _own, _by, 'no_client') END;
END $$;

CREATE FUNCTION seen(_id uuid, _own boolean, _by bytea, _at timestamptz) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE clients SET last_seen = coalesce(_at, last_seen)
        WHERE id = _id AND (_own OR NOT disabled AND (tls_key IS NULL OR tls_key = _by));
    RETURN CASE WHEN NOT FOUND THEN refusal_of(_id, _own, _by, 'no_client') END;
END $$;

-- seen_file is seen, if there is a file under the path, or a partial one and that is asked for.
CREATE FUNCTION seen_file(_id uuid, _path text, _with_partial boolean, _own boolean, _by bytea, _at timestamptz) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM files WHERE id = _id AND path = _path)
        OR _with_partial AND EXISTS (SELECT FROM partials WHERE id = _id AND path = _path) THEN
        PERFORM seen(_id, _own, _by, _at);
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION set_quota(_id uuid, _bytes bigint, _files bigint, _at timestamptz) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE clients SET quota_bytes = coalesce(_bytes, quota_bytes), quota_files = coalesce(_files, quota_files),
        last_seen = coalesce(_at, last_seen) WHERE id = _id;
    IF NOT FOUND THEN
        RETURN refuse('no_client');
    END IF;
    PERFORM recount(_id); -- where no quota stands any more, the next file ends the count
    RETURN NULL;
END $$;

CREATE FUNCTION set_keep_for(_id uuid, _seconds bigint, _at timestamptz) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE clients SET keep_for = _seconds, last_seen = coalesce(_at, last_seen) WHERE id = _id;
    RETURN CASE WHEN NOT FOUND THEN refuse('no_client') END;
END $$;

CREATE FUNCTION set_expires(_id uuid, _expires timestamptz, _at timestamptz) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE clients SET expires = _expires, last_seen = coalesce(_at, last_seen) WHERE id = _id;
    RETURN CASE WHEN NOT FOUND THEN refuse('no_client') END;
END $$;

CREATE FUNCTION expire_client(_id uuid, _now timestamptz, _at timestamptz, _tells boolean) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    c clients;
BEGIN
    UPDATE clients SET disabled = true, expires = NULL, last_seen = coalesce(_at, last_seen)
        WHERE id = _id AND expires <= _now RETURNING * INTO c;
    IF NOT FOUND THEN
        RETURN refuse('no_client');
    END IF;
    IF _tells THEN
        PERFORM record_event('expired', 'time', _id, c.name, NULL);
    END IF;
    RETURN NULL;
END $$;

-- Files.

-- bound is the bound of a quota that stands where a client has _own and all have _all; 0: none.
CREATE FUNCTION bound(_own bigint, _all bigint) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN CASE WHEN _own = 0 THEN greatest(_all, 0) WHEN _own < 0 THEN 0 ELSE _own END;
END $$;

CREATE FUNCTION put_file(_id uuid, _file_name text, _path text, _size bigint, _cksum bigint, _incoming text, _received timestamptz,
    _lapsed boolean, _quota_bytes bigint, _quota_files bigint, _generation bigint, _from text, _leased boolean,
    _own boolean, _by bytea, _at timestamptz, _tells boolean) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    c clients;
    p partials;
    w files; -- the one that waited
    f files;
    why text;
    counted boolean;
    before bigint;
    most_bytes bigint;
    most_files bigint;
    more_bytes bigint;
    more_files bigint;
BEGIN
    SELECT * INTO c FROM clients WHERE id = _id FOR NO KEY UPDATE;
    why := refusal(c, _own, _by);
    IF why IS NOT NULL THEN
        RETURN refuse(why);
    END IF;
    SELECT * INTO p FROM partials WHERE id = _id AND path = _path;
    IF _from <> '' AND (p.incoming IS DISTINCT FROM _from OR p.generation <> _generation)
        OR _generation <> 0 AND (p.incoming = _incoming AND p.generation <> _generation
            OR EXISTS (SELECT FROM files WHERE id = _id AND path = _path AND incoming = _incoming)) THEN
        RETURN refuse('superseded');
    END IF;

    most_bytes := bound(c.quota_bytes, _quota_bytes);
    most_files := bound(c.quota_files, _quota_files);
    counted := c.used_files IS NOT NULL;
    IF NOT _own AND most_bytes = 0 AND most_files = 0 THEN
        IF counted THEN
            UPDATE clients SET used_bytes = NULL, used_files = NULL WHERE id = _id;
        END IF;
        counted := false;
    ELSIF NOT _own AND NOT counted THEN
        PERFORM recount(_id);
        SELECT * INTO c FROM clients WHERE id = _id;
        counted := true;
    END IF;
    IF counted THEN
        before := here(_id, _path);
        more_bytes := greatest(coalesce(before, 0), _size) - coalesce(before, 0);
        more_files := (before IS NULL)::int;
        IF NOT _own AND (most_bytes > 0 AND more_bytes > 0 AND more_bytes > most_bytes - c.used_bytes
            OR most_files > 0 AND more_files > 0 AND more_files > most_files - c.used_files) THEN
            RETURN jsonb_build_object('refused', 'quota', 'quota', jsonb_build_object('Bytes', most_bytes, 'Files', most_files),
                'used', jsonb_build_object('Bytes', c.used_bytes, 'Files', c.used_files),
                'more', jsonb_build_object('Bytes', more_bytes, 'Files', more_files));
        END IF;
    END IF;

    IF _leased THEN
        -- Whoever reaps the lease at the same time waits, or has been waited for.
        DELETE FROM leases WHERE key = _incoming;
        IF NOT FOUND AND p.incoming IS DISTINCT FROM _incoming THEN
            RETURN refuse('no_lease');
        END IF;
        IF _from <> '' THEN
            DELETE FROM leases WHERE key = _from;
        END IF;
    END IF;
    IF p.id IS NOT NULL THEN
        DELETE FROM partials WHERE id = _id AND path = _path;
    END IF;
    INSERT INTO files (id, file_name, path, waiting, size, cksum, incoming, received, lapsed)
        VALUES (_id, _file_name, _path, true, _size, _cksum, _incoming, _received, _lapsed) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        DELETE FROM files WHERE id = _id AND path = _path AND waiting RETURNING * INTO w;
        INSERT INTO files (id, file_name, path, waiting, size, cksum, incoming, received, lapsed)
            VALUES (_id, _file_name, _path, true, _size, _cksum, _incoming, _received, true);
    END IF;
    IF counted THEN
        PERFORM count_place(_id, _path, before);
    END IF;
    IF _at IS NOT NULL THEN
        UPDATE clients SET last_seen = _at WHERE id = _id;
    END IF;
    IF _tells THEN
        IF w.id IS NOT NULL THEN
            PERFORM record_event('rejected', 'replaced', _id, c.name, w);
        END IF;
        f := (_id, _file_name, _path, true, _size, _cksum, _incoming, _received, _lapsed, false, NULL, false);
        PERFORM record_event('received', '', _id, c.name, f);
    END IF;
    IF w.id IS NULL AND p.id IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN jsonb_build_object('replaced', CASE WHEN w.id IS NOT NULL THEN to_jsonb(w) END,
        'partial', CASE WHEN p.id IS NOT NULL THEN to_jsonb(p) END);
END $$;

CREATE FUNCTION verify_file(_id uuid, _path text, _incoming text, _missing boolean, _versions boolean,
    _own boolean, _by bytea, _at timestamptz, _tells boolean) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    c clients;
    v files; -- the verified one
    w files; -- the one that waits
    why text;
    before bigint;
BEGIN
    SELECT * INTO c FROM clients WHERE id = _id FOR NO KEY UPDATE;
    why := refusal(c, _own, _by);
    IF why IS NOT NULL AND why <> 'no_client' THEN
        RETURN refuse(why);
    END IF;
    SELECT * INTO w FROM files WHERE id = _id AND path = _path AND waiting;
    IF w.incoming IS DISTINCT FROM _incoming THEN
        RETURN refuse('no_file');
    END IF;
    IF c.used_files IS NOT NULL THEN
        before := here(_id, _path);
    END IF;
    DELETE FROM files WHERE id = _id AND path = _path AND NOT waiting RETURNING * INTO v;
    UPDATE files SET waiting = false, missing = _missing, lapsed = false, deleted = false WHERE id = _id AND path = _path AND waiting;
    IF c.used_files IS NOT NULL THEN
        PERFORM count_place(_id, _path, before);
    END IF;
    IF _at IS NOT NULL THEN
        UPDATE clients SET last_seen = _at WHERE id = _id;
    END IF;
    IF _tells THEN
        PERFORM record_event(CASE WHEN _missing THEN 'rejected' ELSE 'verified' END, CASE WHEN _missing THEN 'not_durable' ELSE '' END,
            _id, c.name, w);
    END IF;
    RETURN CASE WHEN _versions AND v.id IS NOT NULL THEN jsonb_build_object('replaced', to_jsonb(v)) END;
END $$;

-- drop_file: _kind and _why are those of its event.
CREATE FUNCTION drop_file(_id uuid, _path text, _incoming text, _kind text, _why text,
    _own boolean, _by bytea, _at timestamptz, _tells boolean) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    c clients;
    w files;
    why text;
    before bigint;
    marked boolean;
BEGIN
    SELECT * INTO c FROM clients WHERE id = _id FOR NO KEY UPDATE;
    why := refusal(c, _own, _by);
    IF why IS NOT NULL AND why <> 'no_client' THEN
        RETURN refuse(why);
    END IF;
    IF c.used_files IS NOT NULL THEN
        before := here(_id, _path);
    END IF;
    DELETE FROM files WHERE id = _id AND path = _path AND waiting AND incoming = _incoming RETURNING * INTO w;
    IF NOT FOUND THEN
        RETURN refuse('no_file');
    END IF;
    UPDATE files SET lapsed = true WHERE id = _id AND path = _path AND NOT waiting;
    marked := FOUND;
    IF c.used_files IS NOT NULL THEN
        PERFORM count_place(_id, _path, before);
    END IF;
    IF _at IS NOT NULL THEN
        UPDATE clients SET last_seen = _at WHERE id = _id;
    END IF;
    IF _tells THEN
        PERFORM record_event(_kind, _why, _id, c.name, w);
    END IF;
    RETURN CASE WHEN marked THEN '{"marked": true}'::jsonb END;
END $$;

CREATE FUNCTION mark_file(_id uuid, _path text, _incoming text, _missing boolean, _at timestamptz, _tells boolean) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    c clients;
    v files; -- as it was
    before bigint;
BEGIN
    SELECT * INTO c FROM clients WHERE id = _id FOR NO KEY UPDATE;
    SELECT * INTO v FROM files WHERE id = _id AND path = _path AND NOT waiting AND incoming = _incoming;
    IF NOT FOUND THEN
        RETURN refuse('no_file');
    END IF;
    IF v.missing <> _missing THEN
        IF c.used_files IS NOT NULL THEN
            before := here(_id, _path);
        END IF;
        UPDATE files SET missing = _missing WHERE id = _id AND path = _path AND NOT waiting;
        IF c.used_files IS NOT NULL THEN
            PERFORM count_place(_id, _path, before);
        END IF;
        IF _tells AND _missing THEN
            PERFORM record_event('removed', why_gone(v), _id, c.name, v);
        ELSIF _tells THEN
            PERFORM record_event('verified', 'found_again', _id, c.name, v);
        END IF;
    END IF;
    IF _at IS NOT NULL THEN
        UPDATE clients SET last_seen = _at WHERE id = _id;
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION forget_file(_id uuid, _path text, _incoming text, _at timestamptz, _tells boolean) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    c clients;
    v files;
    before bigint;
    lapsed_left boolean;
BEGIN
    SELECT * INTO c FROM clients WHERE id = _id FOR NO KEY UPDATE;
    IF c.used_files IS NOT NULL THEN
        before := here(_id, _path);
    END IF;
    DELETE FROM files WHERE id = _id AND path = _path AND NOT waiting AND incoming = _incoming AND (missing OR deleted) RETURNING * INTO v;
    IF NOT FOUND THEN
        RETURN refuse('no_file');
    END IF;
    lapsed_left := v.lapsed;
    IF v.lapsed THEN
        UPDATE files SET lapsed = true WHERE id = _id AND path = _path AND waiting;
        lapsed_left := NOT FOUND;
    END IF;
    IF c.used_files IS NOT NULL THEN
        PERFORM count_place(_id, _path, before);
    END IF;
    IF _at IS NOT NULL THEN
        UPDATE clients SET last_seen = _at WHERE id = _id;
    END IF;
    IF _tells AND NOT v.missing THEN -- otherwise it was told when it was marked
        PERFORM record_event('removed', why_gone(v), _id, c.name, v);
    END IF;
    RETURN CASE WHEN lapsed_left THEN '{"lapsed": true}'::jsonb END;
END $$;

CREATE FUNCTION take_file(_id uuid, _path text, _incoming text, _taken timestamptz, _at timestamptz) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM clients WHERE id = _id FOR NO KEY UPDATE;
    UPDATE files SET taken = _taken WHERE id = _id AND path = _path AND NOT waiting AND incoming = _incoming
        AND NOT missing AND NOT deleted AND taken IS NULL;
    IF NOT FOUND THEN
        RETURN refuse('no_file');
    END IF;
    IF _at IS NOT NULL THEN
        UPDATE clients SET last_seen = _at WHERE id = _id;
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION delete_file(_id uuid, _path text, _incoming text, _waiting boolean, _why text, _at timestamptz, _tells boolean) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    f files;
BEGIN
    PERFORM 1 FROM clients WHERE id = _id FOR NO KEY UPDATE;
    UPDATE files SET deleted = true WHERE id = _id AND path = _path AND waiting = _waiting AND incoming = _incoming RETURNING * INTO f;
    IF NOT FOUND THEN
        RETURN refuse('no_file');
    END IF;
    IF _at IS NOT NULL THEN
        UPDATE clients SET last_seen = _at WHERE id = _id;
    END IF;
    IF _tells AND _why <> '' THEN
        PERFORM record_event('expired', _why, _id, NULL, f);
    END IF;
    RETURN NULL;
END $$;

-- Partial files.

CREATE FUNCTION put_partial(_id uuid, _file_name text, _path text, _incoming text, _total bigint, _length bigint, _state bigint,
    _boot text, _generation bigint, _changed timestamptz, _deleted boolean, _from text, _leased boolean,
    _own boolean, _by bytea, _at timestamptz) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    c clients;
    p partials;
    why text;
BEGIN
    SELECT * INTO c FROM clients WHERE id = _id FOR NO KEY UPDATE;
    why := refusal(c, _own, _by);
    IF why IS NOT NULL THEN
        RETURN refuse(why);
    END IF;
    IF EXISTS (SELECT FROM files WHERE id = _id AND path = _path AND incoming = _incoming) THEN
        RETURN refuse('superseded');
    END IF;
    SELECT * INTO p FROM partials WHERE id = _id AND path = _path;
    IF _from <> '' AND (p.incoming IS DISTINCT FROM _from OR p.generation <> _generation) THEN
        RETURN refuse('superseded');
    END IF;
    IF _leased AND p.incoming IS DISTINCT FROM _incoming THEN
        -- Whoever reaps the lease at the same time waits for this row, or has been waited for.
        PERFORM 1 FROM leases WHERE key = _incoming FOR SHARE;
        IF NOT FOUND THEN
            RETURN refuse('no_lease');
        END IF;
    END IF;
    IF p.incoming = _incoming AND p.generation <> _generation THEN
        RETURN refuse('superseded');
    END IF;
    INSERT INTO partials (id, file_name, path, incoming, total, length, state, boot, generation, changed, deleted)
        VALUES (_id, _file_name, _path, _incoming, _total, _length, _state, _boot, _generation, _changed, _deleted)
        ON CONFLICT (id, path) DO UPDATE SET file_name = excluded.file_name, incoming = excluded.incoming, total = excluded.total,
            length = excluded.length, state = excluded.state, boot = excluded.boot, generation = excluded.generation,
            changed = excluded.changed, deleted = CASE WHEN partials.incoming = excluded.incoming OR _from <> '' THEN partials.deleted ELSE excluded.deleted END;
    IF _from <> '' THEN
        DELETE FROM leases WHERE key = _from;
    END IF;
    IF _at IS NOT NULL THEN
        UPDATE clients SET last_seen = _at WHERE id = _id;
    END IF;
    RETURN CASE WHEN p.incoming <> _incoming THEN jsonb_build_object('partial', to_jsonb(p)) END;
END $$;

CREATE FUNCTION continue_file(_id uuid, _path text, _incoming text, _changed timestamptz,
    _own boolean, _by bytea, _at timestamptz) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    c clients;
    p partials;
    why text;
BEGIN
    SELECT * INTO c FROM clients WHERE id = _id FOR NO KEY UPDATE;
    why := refusal(c, _own, _by);
    IF why IS NOT NULL AND why <> 'no_client' THEN
        RETURN refuse(why);
    END IF;
    UPDATE partials SET generation = generation + 1, changed = _changed
        WHERE id = _id AND path = _path AND incoming = _incoming AND NOT deleted RETURNING * INTO p;
    IF NOT FOUND THEN
        RETURN refuse('no_file');
    END IF;
    IF _at IS NOT NULL THEN
        UPDATE clients SET last_seen = _at WHERE id = _id;
    END IF;
    RETURN jsonb_build_object('partial', to_jsonb(p));
END $$;

CREATE FUNCTION drop_partial(_id uuid, _path text, _incoming text, _generation bigint, _leased boolean,
    _own boolean, _by bytea, _at timestamptz) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    c clients;
    why text;
BEGIN
    SELECT * INTO c FROM clients WHERE id = _id FOR NO KEY UPDATE;
    why := refusal(c, _own, _by);
    IF why IS NOT NULL AND why <> 'no_client' THEN
        RETURN refuse(why);
    END IF;
    DELETE FROM partials WHERE id = _id AND path = _path AND incoming = _incoming AND (_generation = 0 OR generation = _generation);
    IF NOT FOUND THEN
        RETURN refuse('no_file');
    END IF;
    IF _leased THEN
        DELETE FROM leases WHERE key = _incoming;
    END IF;
    IF _at IS NOT NULL THEN
        UPDATE clients SET last_seen = _at WHERE id = _id;
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION delete_partial(_id uuid, _path text, _incoming text, _at timestamptz) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM clients WHERE id = _id FOR NO KEY UPDATE;
    UPDATE partials SET deleted = true WHERE id = _id AND path = _path AND incoming = _incoming;
    IF NOT FOUND THEN
        RETURN refuse('no_file');
    END IF;
    IF _at IS NOT NULL THEN
        UPDATE clients SET last_seen = _at WHERE id = _id;
    END IF;
    RETURN NULL;
END $$;

-- Leases. Their times are by the clock of the database.

CREATE FUNCTION lease_upload(_key text, _id uuid, _path text, _server text, _for interval, _again boolean) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    IF _again THEN
        UPDATE leases SET id = _id, path = _path, server = _server, ends = clock_timestamp() + _for WHERE key = _key;
        IF FOUND THEN
            RETURN NULL;
        ELSIF NOT EXISTS (SELECT FROM files WHERE id = _id AND path = _path AND incoming = _key)
            AND NOT EXISTS (SELECT FROM partials WHERE id = _id AND path = _path AND incoming = _key) THEN
            RETURN refuse('no_lease');
        END IF;
    END IF;
    INSERT INTO leases (key, id, path, server, ends) VALUES (_key, _id, _path, _server, clock_timestamp() + _for)
        ON CONFLICT (key) DO UPDATE SET id = excluded.id, path = excluded.path, server = excluded.server, ends = excluded.ends;
    RETURN NULL;
END $$;

CREATE FUNCTION renew_leases(_server text, _keys text[], _for interval) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    until timestamptz := clock_timestamp() + _for;
    lost jsonb;
BEGIN
    WITH renewed AS (UPDATE leases SET ends = until WHERE key = ANY (_keys) AND server = _server RETURNING key)
    SELECT jsonb_agg(k.key ORDER BY k.n) INTO lost
        FROM unnest(_keys) WITH ORDINALITY k (key, n) WHERE NOT EXISTS (SELECT FROM renewed r WHERE r.key = k.key);
    RETURN CASE WHEN lost IS NOT NULL THEN jsonb_build_object('lost', lost) END;
END $$;

CREATE FUNCTION end_lease(_key text) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM leases WHERE key = _key;
    RETURN NULL;
END $$;

CREATE FUNCTION reap_leases(_ago interval, _limit bigint) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    until timestamptz := clock_timestamp() - _ago;
    reaped jsonb;
BEGIN
    WITH gone AS (
        DELETE FROM leases WHERE key IN (SELECT key FROM leases WHERE ends <= until ORDER BY ends LIMIT _limit FOR UPDATE SKIP LOCKED)
        RETURNING *)
    SELECT jsonb_agg(to_jsonb(gone)) INTO reaped FROM gone;
    RETURN CASE WHEN reaped IS NOT NULL THEN jsonb_build_object('reaped', reaped) END;
END $$;

-- Events.

CREATE FUNCTION raise_event(_kind text, _why text, _id uuid, _name text, _file_name text, _path text, _version text, _size bigint, _cksum bigint,
    _own boolean, _by bytea, _at timestamptz, _tells boolean) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    result jsonb := seen(_id, _own, _by, _at);
    f files;
BEGIN
    IF result IS NULL AND _tells THEN
        f.file_name := _file_name;
        f.path := _path;
        f.incoming := _version;
        f.size := _size;
        f.cksum := _cksum;
        PERFORM record_event(_kind, _why, _id, _name, f);
    END IF;
    RETURN result;
END $$;

-- restore_event records an event as it is, unless it is on record: it comes from another registry.
CREATE FUNCTION restore_event(_target text, _event_id text, _kind text, _why text, _happened timestamptz, _id uuid, _name text,
    _file_name text, _path text, _version text, _size bigint, _cksum bigint, _attempts bigint, _failure text) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtext('sealift events'), hashtext(current_schema()));
    INSERT INTO events (target, event_id, kind, why, happened, id, client_name, file_name, path, version, size, cksum, attempts, failure, due)
        SELECT _target, _event_id, _kind, _why, _happened, _id, _name, _file_name, _path, _version, _size, _cksum, _attempts, _failure,
            CASE WHEN EXISTS (SELECT FROM events WHERE target = _target AND id = _id) THEN NULL ELSE 0 END
        WHERE NOT EXISTS (SELECT FROM events WHERE target = _target AND id = _id AND event_id = _event_id);
    RETURN NULL;
END $$;

-- event_told: the row of the client is locked by begin_batch, so no event of it is recorded meanwhile, which
-- would take this one for one that is before it.
CREATE FUNCTION event_told(_seq bigint, _target text, _id uuid) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM events WHERE seq = _seq;
    IF NOT FOUND THEN
        RETURN refuse('no_event');
    END IF;
    UPDATE events SET due = 0 WHERE due IS NULL
        AND seq = (SELECT seq FROM events WHERE target = _target AND id = _id ORDER BY seq LIMIT 1);
    RETURN NULL;
END $$;

CREATE FUNCTION postpone_event(_seq bigint, _due bigint, _failure text) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE events SET attempts = attempts + 1, due = _due, failure = _failure WHERE seq = _seq;
    RETURN CASE WHEN NOT FOUND THEN refuse('no_event') END;
END $$;

CREATE FUNCTION retry_events(_target text, _event_id text) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    n bigint;
BEGIN
    UPDATE events SET due = 0 WHERE due > 0 AND (_target = '' OR target = _target) AND (_event_id = '' OR event_id = _event_id);
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN CASE WHEN n > 0 THEN jsonb_build_object('n', n) END;
END $$;

CREATE FUNCTION drop_events(_target text, _event_id text, _before timestamptz, _keep bigint) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    n bigint;
    newest bigint; -- that may go for _keep
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('sealift events'), hashtext(current_schema()));
    IF _keep > 0 THEN
        SELECT seq INTO newest FROM events WHERE target = _target ORDER BY seq DESC OFFSET _keep LIMIT 1;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
    END IF;
    DELETE FROM events WHERE (_target = '' OR target = _target) AND (_event_id = '' OR event_id = _event_id)
        AND (_before IS NULL OR happened < _before) AND (newest IS NULL OR seq <= newest);
    GET DIAGNOSTICS n = ROW_COUNT;
    IF n > 0 THEN
        UPDATE events w SET due = 0 WHERE due IS NULL
            AND NOT EXISTS (SELECT FROM events e WHERE e.target = w.target AND e.id = w.id AND e.seq < w.seq);
    END IF;
    RETURN CASE WHEN n > 0 THEN jsonb_build_object('n', n) END;
END $$;
