-- Partial files. See 1_common.sql.

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
