-- Events. See 1_common.sql.

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
