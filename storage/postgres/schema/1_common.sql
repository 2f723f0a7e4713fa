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
    IF _steers THEN -- whoever listens need not wait until it looks
        PERFORM pg_notify('sealift_steering', current_schema());
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
