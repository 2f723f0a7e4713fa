-- Files. See 1_common.sql.

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
