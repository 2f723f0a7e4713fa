-- Clients. See 1_common.sql.

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
