-- Leases. Their times are by the clock of the database. See 1_common.sql.

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
