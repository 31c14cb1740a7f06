-- Removals in random use, against a model in plain tables of what must be in the log, in
-- the archive, and gone: appends and their retries, conditions, deletes, truncations,
-- compactions, archives and rules, in transactions that are rolled back now and then.
-- Whatever can be read is compared with the model, and so is what readers, projections and
-- a subscription have been given.
--
-- One seed gives one run; SET client_min_messages = debug1 before the runs shows it.
SET client_min_messages = warning;
CREATE EXTENSION eventstore;

-- Every event that was ever stored. types: those that it stands for; place: log, archive, gone.
CREATE TABLE model (
    position bigint PRIMARY KEY,
    version  bigint NOT NULL,
    stream   text COLLATE "C" NOT NULL,
    type     text COLLATE "C" NOT NULL,
    data     jsonb NOT NULL,
    metadata jsonb,
    id       uuid NOT NULL UNIQUE,
    tags     text[] COLLATE "C",
    types    text[] COLLATE "C" NOT NULL,
    place    text NOT NULL DEFAULT 'log',
    UNIQUE (stream, version)
) WITH (autovacuum_enabled = off);
-- What the table es_removals must have.
CREATE TABLE removals (n bigint GENERATED ALWAYS AS IDENTITY, action text, stream text, "position" bigint,
                       positions int8multirange, versions int8range, removed bigint, metadata jsonb);
-- Appends with ids, which may be sent again.
CREATE TABLE calls (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, stream text, events jsonb, version bigint, "position" bigint) WITH (autovacuum_enabled = off);
-- Read models, and what they must have.
CREATE TABLE read_async (position bigint PRIMARY KEY, version bigint, stream text, type text);
CREATE TABLE read_sync (LIKE read_async INCLUDING ALL);
CREATE TABLE read_polled (LIKE read_async INCLUDING ALL);
CREATE TABLE must_async (LIKE read_async INCLUDING ALL);
CREATE TABLE must_sync (LIKE read_async INCLUDING ALL);
CREATE TABLE must_polled (LIKE read_async INCLUDING ALL);
CREATE TABLE polled (passed bigint);
INSERT INTO polled VALUES (0);
CREATE TABLE counts (what text PRIMARY KEY, n bigint);

CREATE FUNCTION note(what text, n bigint DEFAULT 1) RETURNS void LANGUAGE sql AS $$
    INSERT INTO counts VALUES (replace(trim(what), '  ', ' '), n) ON CONFLICT ON CONSTRAINT counts_pkey DO UPDATE SET n = counts.n + excluded.n
$$;
-- A random number from 0 to n - 1.
CREATE FUNCTION dice(n bigint) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT floor(random() * n)::int';
CREATE FUNCTION fail(VARIADIC words text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'violation: %', array_to_string(words, ' ', '-') USING ERRCODE = 'XX999';
END $$;
-- The rows of a statement, or the code of its error.
CREATE FUNCTION attempt(statement text, OUT code text, OUT result jsonb, OUT message text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('SELECT to_jsonb(r) FROM (%s) r', statement) INTO result;
    code := '';
EXCEPTION WHEN OTHERS THEN
    code := SQLSTATE;
    message := SQLERRM;
END $$;
-- Makes the call, and compares its result or its error with what it must be.
CREATE FUNCTION must(statement text, code text, result jsonb DEFAULT NULL) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE a record;
BEGIN
    a := attempt(statement);
    RAISE DEBUG '% -> % % %', left(statement, 300), a.code, a.result, a.message;
    IF a.code <> must.code THEN
        PERFORM fail(statement, 'ends with', a.code, a.message, a.result::text, 'and must with', must.code);
    ELSIF must.result IS NOT NULL AND NOT a.result @> must.result THEN
        PERFORM fail(statement, 'returns', a.result::text, 'and must', must.result::text);
    END IF;
    RETURN a.result;
END $$;

--
-- The model
--
CREATE FUNCTION is_notice(type text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT type IN ('es_stream_deleted', 'es_compacted', 'es_stream_archived')
$$;
-- The types of the events that an event stands for.
CREATE FUNCTION types_of(type text, data jsonb) RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN is_notice(type) THEN ARRAY(SELECT jsonb_array_elements_text(data->'types')) ELSE ARRAY[type] END
$$;
-- What a query asks for, as a condition on the model.
CREATE FUNCTION condition_of(query jsonb) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT '(' || string_agg(format('(%L IS NULL OR type = ANY (%1$L) OR types && %1$L) AND (%L IS NULL OR tags @> %2$L)', types, tags), ' OR ') || ')'
      FROM jsonb_array_elements(query) item,
           LATERAL (SELECT CASE WHEN item ? 'types' THEN ARRAY(SELECT jsonb_array_elements_text(item->'types')) END AS types,
                           CASE WHEN item ? 'tags' THEN ARRAY(SELECT jsonb_array_elements_text(item->'tags')) END AS tags) l
$$;
CREATE FUNCTION last_of(of text) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT coalesce(max(m.version), 0) FROM model m WHERE m.stream = of
$$;
CREATE FUNCTION last_type(of text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT CASE WHEN m.data->>'tombstone' = 'true' THEN 'tombstone' ELSE m.type END
                       FROM model m WHERE m.stream = of ORDER BY m.version DESC LIMIT 1), '')
$$;
-- The error that an expected version makes; empty: none.
CREATE FUNCTION code_of(of text, expected text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN last_type(of) = 'tombstone' THEN 'ES003'
           WHEN expected = 'any' THEN ''
           WHEN expected IN ('none', '0') THEN CASE WHEN last_type(of) IN ('', 'es_stream_deleted') THEN '' ELSE 'ES001' END
           WHEN expected = 'exists' THEN CASE WHEN last_type(of) IN ('', 'es_stream_deleted') THEN 'ES001' ELSE '' END
           WHEN expected::bigint = last_of(of) THEN '' ELSE 'ES001' END
$$;
-- Stores what an append has stored; its result is that of the last event.
CREATE FUNCTION store(of text, events jsonb, last_version bigint, last_position bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE many CONSTANT int := jsonb_array_length(events);
BEGIN
    INSERT INTO model
    SELECT last_position - many + e.n, last_version - many + e.n, of, e.event->>'type', e.event->'data', e.event->'metadata',
           coalesce((e.event->>'id')::uuid, (SELECT l.id FROM es_events l WHERE l.position = last_position - many + e.n)),
           (SELECT array_agg(t ORDER BY t COLLATE "C") FROM jsonb_array_elements_text(e.event->'tags') t),
           types_of(e.event->>'type', e.event->'data')
      FROM jsonb_array_elements(events) WITH ORDINALITY AS e (event, n);
    INSERT INTO must_sync SELECT m.position, m.version, m.stream, m.type FROM model m
     WHERE m.position > last_position - many AND m.position <= last_position AND es_category(m.stream) = 'a' AND m.types && '{x, y}';
    IF events @? '$[*] ? (@.id != null)' THEN
        INSERT INTO calls (stream, events, version, position) VALUES (of, events, last_version, last_position);
    END IF;
END $$;
-- What the notice of a removal must say of events.
CREATE FUNCTION notice_of(of text, upto bigint, places text[], OUT data jsonb, OUT tags jsonb, OUT n bigint, OUT versions int8range, OUT positions int8multirange) LANGUAGE plpgsql AS $$
BEGIN
    SELECT jsonb_build_object('removed', count(*), 'first_version', min(m.version), 'last_version', max(m.version)), count(*),
           int8range(min(m.version), max(m.version), '[]'), range_agg(int8range(m.position, m.position, '[]')) INTO data, n, versions, positions
      FROM model m WHERE m.stream = of AND m.version <= upto AND m.place = ANY (places);
    IF n = 0 THEN
        versions := 'empty';
        positions := '{}';
    END IF;
    data := data || jsonb_build_object('types', (
        SELECT coalesce(jsonb_agg(DISTINCT t COLLATE "C" ORDER BY t COLLATE "C"), '[]') FROM model m, unnest(m.types) t
         WHERE m.stream = of AND m.version <= upto AND m.place = ANY (places)));
    tags := (SELECT jsonb_agg(DISTINCT t COLLATE "C" ORDER BY t COLLATE "C") FROM model m, unnest(m.tags) t
              WHERE m.stream = of AND m.version <= upto AND m.place = ANY (places));
END $$;

--
-- Random choices
--
CREATE FUNCTION random_stream() RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT (ARRAY['a-', 'b-', 'c-'])[1 + dice(3)] || dice(5) $$;
-- One time in three, one that has an event of a type, or in a place, if there is one.
CREATE FUNCTION random_stream(having_what text) RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT coalesce((SELECT m.stream FROM model m WHERE having_what IN (m.place, m.type) AND (m.place <> 'gone') AND d = 0 ORDER BY random() LIMIT 1), random_stream())
      FROM dice(3) d
$$;
CREATE FUNCTION random_type() RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT (ARRAY['x', 'y', 'z', 'w'])[1 + dice(4)] $$;
CREATE FUNCTION random_expected(of text) RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT CASE WHEN d < 5 THEN 'any' WHEN d < 6 THEN 'none' WHEN d < 7 THEN 'exists' WHEN d < 9 THEN last_of(of)::text ELSE dice(last_of(of) + 2)::text END
      FROM dice(10) d
$$;
CREATE FUNCTION random_tags() RETURNS jsonb LANGUAGE sql VOLATILE AS $$
    SELECT jsonb_agg(DISTINCT 't:' || dice(5)) FROM generate_series(0, dice(3))
$$;
CREATE FUNCTION random_position() RETURNS bigint LANGUAGE sql VOLATILE AS $$ SELECT dice(coalesce(max(position), 0) + 1)::bigint FROM model $$;
CREATE FUNCTION random_query() RETURNS jsonb LANGUAGE sql VOLATILE AS $$
    SELECT jsonb_agg(CASE WHEN d < 4 THEN jsonb_build_object('tags', random_tags()) WHEN d < 6 THEN jsonb_build_object('types', jsonb_build_array(random_type(), random_type()))
                     WHEN d < 9 THEN jsonb_build_object('types', jsonb_build_array(random_type()), 'tags', random_tags()) ELSE '{}' END)
      FROM (SELECT dice(10) d FROM generate_series(0, dice(2))) i
$$;
CREATE FUNCTION random_initial() RETURNS jsonb LANGUAGE sql VOLATILE AS $$
    SELECT CASE d WHEN 0 THEN NULL WHEN 1 THEN '{"n": 5}' ELSE '{}' END::jsonb FROM dice(12) d
$$;
-- Events of categories a and b have tags, some of them. ids: 0 none, 1 all, 2 some.
CREATE FUNCTION random_events(of text, n int, ids int) RETURNS jsonb LANGUAGE sql VOLATILE AS $$
    SELECT jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
               'type', random_type(), 'data', jsonb_build_object('k' || dice(3), dice(1000)), 'metadata', CASE WHEN dice(4) = 0 THEN jsonb_build_object('m', dice(9)) END,
               'id', CASE WHEN ids = 1 OR ids = 2 AND (i = 1 OR dice(2) = 0) THEN md5(random()::text)::uuid END,
               'tags', CASE WHEN of < 'c' AND dice(CASE WHEN of < 'b' THEN 2 ELSE 30 END) = 0 THEN random_tags() END)) ORDER BY i)
      FROM generate_series(1, n) i
$$;

--
-- Appends
--
CREATE FUNCTION append_statement(of text, expected text, events jsonb) RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT CASE WHEN jsonb_array_length(events) = 1 AND dice(2) = 0 THEN
               format('SELECT * FROM es_append(%L, %L, %L, %L, %L, %L, tags => %L)', of, expected, e->>'type', e->'data', e->'metadata', e->>'id',
                      (SELECT array_agg(t) FROM jsonb_array_elements_text(e->'tags') t))
           ELSE format('SELECT * FROM es_append_batch(%L, %L, %L)', of, expected, events) END
      FROM (SELECT events->0 AS e) one
$$;
CREATE FUNCTION do_append() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    s CONSTANT text := random_stream();
    expected CONSTANT text := random_expected(s);
    code CONSTANT text := code_of(s, expected);
    events CONSTANT jsonb := random_events(s, CASE WHEN dice(15) = 0 THEN 20 ELSE 1 + dice(3) END, dice(3));
    r jsonb;
BEGIN
    r := must(append_statement(s, expected, events), code,
              CASE WHEN code = '' THEN jsonb_build_object('version', last_of(s) + jsonb_array_length(events)) END);
    IF code = '' THEN
        PERFORM note('appends after ' || last_type(s)) WHERE is_notice(last_type(s));
        PERFORM store(s, events, (r->>'version')::bigint, (r->>'position')::bigint);
    END IF;
    PERFORM note('appends ' || code);
END $$;
-- An append that is sent again: has its first result, wherever its events are now. With other
-- data it is another, if data are there to be compared.
CREATE FUNCTION do_retry() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    c calls;
    places text[];
    k int;
    of text;
    events jsonb;
    altered boolean;
    code text := '';
    d CONSTANT int := dice(8);
BEGIN
    SELECT * INTO c FROM calls x WHERE d > 0 OR EXISTS (SELECT FROM model m WHERE m.stream = x.stream AND m.version = x.version AND m.place = 'archive') ORDER BY random() LIMIT 1;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    of := c.stream;
    events := c.events;
    k := dice(jsonb_array_length(events));
    altered := dice(4) = 0;
    IF dice(8) = 0 THEN
        of := random_stream();
    END IF;
    IF altered THEN
        events := jsonb_set(events, ARRAY[k::text, 'data'], '{"other": 1}');
    END IF;
    SELECT array_agg(DISTINCT CASE WHEN m.type = 'es_compacted' THEN m.type ELSE m.place END) INTO places FROM model m
     WHERE m.stream = c.stream AND m.version <= c.version AND m.version > c.version - jsonb_array_length(events);
    IF of <> c.stream OR altered AND EXISTS (SELECT FROM model m WHERE m.stream = c.stream AND m.place = 'log' AND m.type <> 'es_compacted'
                                                AND m.version = c.version - jsonb_array_length(events) + k + 1) THEN
        code := 'ES002';
    END IF;
    PERFORM must(append_statement(of, random_expected(of), events), code,
                 CASE WHEN code = '' THEN jsonb_build_object('version', c.version, 'position', c.position) END);
    PERFORM note('retries ' || code || ' ' || place) FROM unnest(places) place;
    PERFORM note('retries of what is in several places') WHERE cardinality(places) > 1;
END $$;
CREATE FUNCTION do_append_if() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    s CONSTANT text := random_stream();
    query CONSTANT jsonb := random_query();
    after CONSTANT bigint := (SELECT greatest(coalesce(max(m.position), 0) - CASE WHEN dice(2) = 0 THEN dice(20) ELSE dice(1000) END, 0) FROM model m);
    events CONSTANT jsonb := random_events(s, 1 + dice(2), dice(3));
    found_by text;
    code text := '';
    r jsonb;
BEGIN
    EXECUTE format('SELECT type FROM model WHERE place = ''log'' AND position > %s AND %s ORDER BY is_notice(type) LIMIT 1', after, condition_of(query)) INTO found_by;
    IF found_by IS NOT NULL THEN
        code := 'ES007';
    END IF;
    IF last_type(s) = 'tombstone' THEN
        code := CASE code WHEN '' THEN 'ES003' ELSE 'ES007' END;
    END IF;
    r := must(format('SELECT * FROM es_append_if(%L, %L, %s)', (SELECT jsonb_agg(e || jsonb_build_object('stream', s)) FROM jsonb_array_elements(events) e), query, after), code);
    IF code = '' THEN
        PERFORM store(s, events, last_of(s) + jsonb_array_length(events), (r->>'position')::bigint);
    END IF;
    PERFORM note('conditions ' || code || CASE WHEN is_notice(found_by) THEN ' by a notice alone' ELSE '' END);
END $$;

--
-- Removals
--
-- Appends the notice of a removal, or finds the first one if the stream was deleted before.
CREATE FUNCTION do_delete() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    s CONSTANT text := random_stream();
    tombstone CONSTANT boolean := dice(12) = 0;
    why CONSTANT jsonb := CASE WHEN dice(2) = 0 THEN jsonb_build_object('why', dice(9)) END;
    last CONSTANT bigint := last_of(s);
    of CONSTANT text := last_type(s);
    deleted CONSTANT boolean := of IN ('es_stream_deleted', 'tombstone');
    expected CONSTANT text := CASE WHEN deleted AND dice(3) = 0 THEN (last - 1)::text ELSE random_expected(s) END;
    code CONSTANT text := CASE WHEN of = 'tombstone' AND NOT tombstone THEN 'ES003'
                               WHEN deleted AND expected = (last - 1)::text OR of = 'tombstone' AND expected IN ('any', 'none', '0', last::text) THEN ''
                               WHEN of = 'tombstone' THEN 'ES001' ELSE code_of(s, expected) END;
    n record;
    r jsonb;
BEGIN
    IF code = '' AND (last = 0 AND NOT tombstone OR of = 'tombstone' OR deleted AND NOT tombstone) THEN
        PERFORM must(format('SELECT * FROM es_delete_stream(%L, %L, %L, %L)', s, expected, tombstone, why), '',
                     coalesce((SELECT jsonb_build_object('version', last, 'position', m.position, 'removed', m.data->'removed') FROM model m WHERE m.stream = s AND m.version = last),
                              '{"version": 0, "position": null, "removed": 0}'));
        PERFORM note('deletes again');
        RETURN;
    END IF;
    n := notice_of(s, last, '{log, archive}');
    r := must(format('SELECT * FROM es_delete_stream(%L, %L, %L, %L)', s, expected, tombstone, why), code,
              CASE WHEN code = '' THEN jsonb_build_object('version', last + 1, 'removed', n.n) END);
    IF code = '' THEN
        UPDATE model SET place = 'gone' WHERE stream = s;
        PERFORM store(s, jsonb_build_array(jsonb_strip_nulls(jsonb_build_object('type', 'es_stream_deleted', 'metadata', why, 'tags', n.tags))
                                           || jsonb_build_object('data', n.data || jsonb_build_object('tombstone', tombstone))), (r->>'version')::bigint, (r->>'position')::bigint);
        INSERT INTO removals (action, stream, position, positions, versions, removed, metadata)
        VALUES (CASE WHEN tombstone THEN 'tombstone' ELSE 'delete' END, s, (r->>'position')::bigint, n.positions, n.versions, n.n, why);
    END IF;
    PERFORM note('deletes ' || code);
END $$;
CREATE FUNCTION do_truncate() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    s CONSTANT text := random_stream();
    before CONSTANT bigint := 1 + dice(last_of(s) + 3);
    why CONSTANT jsonb := CASE WHEN dice(2) = 0 THEN jsonb_build_object('why', dice(9)) END;
    last CONSTANT bigint := last_of(s);
    n record;
    code text := '';
BEGIN
    n := notice_of(s, least(before, last) - 1, '{log}');
    IF n.tags IS NOT NULL THEN
        code := '0A000';
    END IF;
    PERFORM must(format('SELECT es_truncate_stream(%L, %s, %L)', s, before, why), code,
                 CASE WHEN code = '' THEN jsonb_build_object('es_truncate_stream', n.n) END);
    IF code = '' AND n.n > 0 THEN
        UPDATE model SET place = 'gone' WHERE stream = s AND version < least(before, last) AND place = 'log';
        INSERT INTO removals (action, stream, positions, versions, removed, metadata)
        VALUES ('truncate', s, n.positions, n.versions, n.n, why);
        PERFORM note('truncations');
    END IF;
    PERFORM note('truncations ' || code) WHERE code <> '';
END $$;

--
-- Folds
--
-- Order matters in both.
CREATE FUNCTION r_sum(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_build_object('n', (coalesce((state->>'n')::bigint, 7) * 31 + event.version + length(event.data::text)) % 1000003)
$$;
CREATE FUNCTION r_last(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN event.type <> 'w' THEN coalesce(state, '{}') || jsonb_build_object(event.type, event.version, 'was', coalesce(state->event.type, '0')) END
$$;
CREATE FUNCTION model_fold(of text, reducer text, initial jsonb, upto bigint, OUT code text, OUT state jsonb, OUT version bigint) LANGUAGE plpgsql AS $$
DECLARE
    m model;
    deleted boolean := false;
    last bigint := last_of(of);
BEGIN
    state := initial;
    code := '';
    version := 0;
    FOR m IN SELECT * FROM model l WHERE l.stream = of AND l.place = 'log' AND l.version <= upto ORDER BY l.version LOOP
        IF m.type = 'es_stream_deleted' THEN
            state := NULL;
            deleted := true;
        ELSIF m.type = 'es_compacted' THEN
            IF m.data->>'reducer' NOT LIKE '%' || reducer || '(%' OR m.data->'initial' IS DISTINCT FROM initial THEN
                code := '0A000';
                RETURN;
            END IF;
            state := m.data->'state';
            deleted := false;
        ELSIF m.type = 'es_stream_archived' THEN
            IF version = 0 THEN
                code := '55000';
                RETURN;
            END IF;
        ELSE
            IF deleted THEN
                state := initial;
                deleted := false;
            END IF;
            EXECUTE format('SELECT %I($1, ROW($2, $3, NULL, NULL, NULL, $4, $5, $6, NULL, NULL, NULL)::es_recorded_event)', reducer)
               INTO state USING state, m.position, m.version, m.stream, m.type, m.data;
        END IF;
        version := m.version;
    END LOOP;
    IF version = 0 AND upto > 0 AND last > 0 THEN
        code := '22023';
    END IF;
END $$;
CREATE FUNCTION do_state() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    s CONSTANT text := random_stream('archive');
    of CONSTANT text := (ARRAY['r_sum', 'r_last'])[1 + dice(2)];
    initial CONSTANT jsonb := random_initial();
    upto CONSTANT bigint := CASE WHEN dice(3) = 0 THEN dice(last_of(s) + 2) END;
    f record;
BEGIN
    EXECUTE format('SET LOCAL eventstore.snapshot_every = %s', (ARRAY[0, 1, 3, 200])[1 + dice(4)]);
    f := model_fold(s, of, initial, coalesce(upto, last_of(s)));
    PERFORM must(format('SELECT * FROM es_state(%L, %L, %L, %L)', s, of || '(jsonb, es_recorded_event)', initial, upto), f.code,
                 CASE WHEN f.code = '' THEN jsonb_build_object('state', f.state, 'version', f.version) END);
    PERFORM note('states ' || f.code);
END $$;

-- The state of the events up to a version takes the place of the last one of them.
CREATE FUNCTION do_compact() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    s CONSTANT text := random_stream('es_compacted');
    of CONSTANT text := CASE WHEN dice(4) = 0 THEN 'r_last' ELSE 'r_sum' END;
    initial CONSTANT jsonb := random_initial();
    last CONSTANT bigint := last_of(s);
    upto CONSTANT bigint := CASE WHEN dice(3) > 0 AND last > 0 THEN 1 + dice(last) END;
    why CONSTANT jsonb := CASE WHEN dice(2) = 0 THEN jsonb_build_object('why', dice(9)) END;
    first model;
    of_last model;
    n record;
    f record;
    r jsonb;
    stored jsonb;
BEGIN
    SELECT * INTO first FROM model m WHERE m.stream = s AND m.place = 'log' ORDER BY m.version LIMIT 1;
    SELECT * INTO of_last FROM model m WHERE m.stream = s AND m.version = coalesce(upto, last);
    n := notice_of(s, coalesce(upto, last), '{log}');
    f := model_fold(s, of, initial, coalesce(upto, last));
    IF last = 0 OR n.n = 1 AND is_notice(first.type) AND f.code = '' THEN
        PERFORM must(format('SELECT * FROM es_compact_stream(%L, %L, %L, %L, %L)', s, of || '(jsonb, es_recorded_event)', upto, initial, why), '',
                     jsonb_build_object('version', coalesce(upto, last), 'position', of_last.position, 'removed', 0));
        PERFORM note('compactions of nothing');
        RETURN;
    END IF;
    r := must(format('SELECT * FROM es_compact_stream(%L, %L, %L, %L, %L)', s, of || '(jsonb, es_recorded_event)', upto, initial, why), f.code,
              CASE WHEN f.code = '' THEN jsonb_build_object('version', coalesce(upto, last), 'position', of_last.position, 'removed', n.n) END);
    IF f.code = '' THEN
        IF first.type = 'es_compacted' THEN
            n.data := n.data || jsonb_build_object('first_version', first.data->'first_version', 'removed', n.n - 1 + (first.data->>'removed')::bigint);
            PERFORM note('compactions of a compaction');
        END IF;
        UPDATE model SET place = 'gone' WHERE stream = s AND version < coalesce(upto, last) AND place = 'log';
        SELECT e.data INTO stored FROM es_events e WHERE e.stream = s AND e.version = coalesce(upto, last);
        IF stored - '{reducer,fingerprint}'::text[] IS DISTINCT FROM jsonb_strip_nulls(jsonb_build_object('state', f.state, 'initial', initial)) || n.data
           OR stored->>'reducer' NOT LIKE '%' || of || '(%' THEN
            PERFORM fail('es_compacted of', s, 'is', stored::text, 'and must be', f.state::text, n.data::text);
        END IF;
        UPDATE model m SET type = 'es_compacted', data = stored, metadata = why, types = types_of('es_compacted', stored),
               tags = (SELECT array_agg(t) FROM jsonb_array_elements_text(n.tags) t)
         WHERE m.stream = s AND m.version = coalesce(upto, last);
        INSERT INTO removals (action, stream, position, positions, versions, removed, metadata)
        VALUES ('compact', s, of_last.position, n.positions - int8multirange(int8range(of_last.position, of_last.position, '[]')), n.versions, n.n - 1, why);
    END IF;
    PERFORM note('compactions ' || f.code);
END $$;

--
-- The archive
--
CREATE FUNCTION do_archive() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    s CONSTANT text := random_stream();
    why CONSTANT jsonb := CASE WHEN dice(2) = 0 THEN jsonb_build_object('why', dice(9)) END;
    last CONSTANT bigint := last_of(s);
    of CONSTANT text := last_type(s);
    n CONSTANT record := notice_of(s, last, '{log}');
    r jsonb;
BEGIN
    IF of IN ('', 'tombstone', 'es_stream_deleted') OR of = 'es_stream_archived' AND n.n = 1 THEN
        PERFORM must(format('SELECT * FROM es_archive_stream(%L, %L)', s, why), '',
                     (SELECT jsonb_build_object('version', last, 'position', max(m.position), 'archived', CASE WHEN of = 'es_stream_archived' THEN max(m.data->>'removed')::bigint ELSE 0 END)
                        FROM model m WHERE m.stream = s AND m.version = last));
        PERFORM note('archives again');
        RETURN;
    END IF;
    r := must(format('SELECT * FROM es_archive_stream(%L, %L)', s, why), '', jsonb_build_object('version', last + 1, 'archived', n.n));
    UPDATE model SET place = 'archive' WHERE stream = s AND place = 'log';
    PERFORM store(s, jsonb_build_array(jsonb_strip_nulls(jsonb_build_object('type', 'es_stream_archived', 'data', n.data, 'metadata', why, 'tags', n.tags))),
                  (r->>'version')::bigint, (r->>'position')::bigint);
    INSERT INTO removals (action, stream, position, positions, versions, removed, metadata)
    VALUES ('archive', s, (r->>'position')::bigint, n.positions, n.versions, n.n, why);
    PERFORM note('archives');
END $$;
-- What adjoins the first event in the log comes back.
CREATE FUNCTION do_unarchive() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    s CONSTANT text := (SELECT coalesce(min(x.stream), random_stream()) FROM (SELECT m.stream FROM model m WHERE m.place = 'archive' ORDER BY random() LIMIT 1) x);
    first bigint := (SELECT min(m.version) FROM model m WHERE m.stream = s AND m.place = 'log');
    upto CONSTANT bigint := first - 1;
    r removals;
BEGIN
    WHILE EXISTS (SELECT FROM model m WHERE m.stream = s AND m.version = first - 1 AND m.place = 'archive') LOOP
        first := first - 1;
    END LOOP;
    IF first <= upto THEN
        SELECT int8range(first, upto, '[]'), range_agg(int8range(m.position, m.position, '[]')), count(*) INTO r.versions, r.positions, r.removed
          FROM model m WHERE m.stream = s AND m.version BETWEEN first AND upto;
        PERFORM must(format('SELECT es_unarchive_stream(%L)', s), '', jsonb_build_object('es_unarchive_stream', r.removed));
        UPDATE model SET place = 'log' WHERE stream = s AND version BETWEEN first AND upto;
        INSERT INTO removals (action, stream, positions, versions, removed) VALUES ('unarchive', s, r.positions, r.versions, r.removed);
        PERFORM note('unarchives');
    ELSIF EXISTS (SELECT FROM model m WHERE m.stream = s AND m.place = 'archive') THEN
        PERFORM must(format('SELECT es_unarchive_stream(%L)', s), '55000');
        PERFORM note('unarchives 55000');
    ELSE
        PERFORM must(format('SELECT es_unarchive_stream(%L)', s), '', '{"es_unarchive_stream": 0}');
    END IF;
END $$;

--
-- Rules, of category c: what the projection has not read is kept, unless it is forced
--
CREATE FUNCTION do_rule() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    keep CONSTANT int := 1 + dice(6);
    dry CONSTANT boolean := dice(4) = 0;
    forced CONSTANT boolean := dice(4) = 0;
    upto CONSTANT bigint := CASE WHEN forced THEN es_horizon() ELSE (SELECT p.position FROM es_projections p WHERE p.name = 'async') END;
    s record;
    streams bigint := 0;
    events bigint := 0;
BEGIN
    IF keep = 1 AND dice(2) = 0 THEN
        PERFORM es_set_retention('c', max_age => '1 microsecond');
    ELSE
        PERFORM es_set_retention('c', max_count => keep);
    END IF;
    CREATE TEMP TABLE targets ON COMMIT DROP AS
        SELECT m.stream, max(m.version) AS last, count(*) AS n FROM (
            SELECT m.*, bool_and(m.position <= upto) OVER (PARTITION BY m.stream ORDER BY m.version) AS may
              FROM model m WHERE es_category(m.stream) = 'c' AND m.place = 'log') m
         WHERE m.may AND m.version <= last_of(m.stream) - keep GROUP BY m.stream;
    PERFORM must(format('SELECT category, streams, events, more FROM es_run_retention(%L, %L, %L)', 'c', dry, forced), '',
                 (SELECT jsonb_build_object('category', 'c', 'streams', count(*), 'events', coalesce(sum(t.n), 0)) FROM targets t));
    IF NOT dry THEN
        INSERT INTO removals (action, stream, positions, versions, removed, metadata)
        SELECT 'truncate', t.stream, x.positions, x.versions, x.n, jsonb_build_object('retention', 'c', 'set_by', session_user)
          FROM targets t, notice_of(t.stream, t.last, '{log}') x;
        UPDATE model m SET place = 'gone' FROM targets t WHERE m.stream = t.stream AND m.version <= t.last AND m.place = 'log';
        PERFORM note('rules' || CASE WHEN forced THEN ', forced' ELSE '' END) FROM targets t;
    ELSE
        PERFORM note('rules, dry') FROM targets t;
    END IF;
    DROP TABLE targets;
END $$;

--
-- What can be read
--
CREATE FUNCTION row_of(m model) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT ROW(m.position, m.version, m.id, m.stream, m.type, m.data, m.metadata, m.tags)::text
$$;
CREATE FUNCTION row_of(e es_recorded_event) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT ROW(e.position, e.version, e.id, e.stream, e.type, e.data, e.metadata, e.tags)::text
$$;
CREATE FUNCTION same(what text, rows text[], expected text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF rows IS DISTINCT FROM expected THEN
        PERFORM fail(what, 'has', (SELECT string_agg(r, ' ') FROM (SELECT r FROM unnest(rows) r WHERE r <> ALL (expected) LIMIT 3) x),
                     'and not', (SELECT string_agg(r, ' ') FROM (SELECT r FROM unnest(expected) r WHERE r <> ALL (rows) LIMIT 3) x));
    END IF;
    PERFORM note('reads');
END $$;
-- Tables of the store, as a whole.
CREATE FUNCTION check_tables() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM same('es_events', ARRAY(SELECT row_of(e) FROM es_events e ORDER BY e.position), ARRAY(SELECT row_of(m) FROM model m WHERE m.place = 'log' ORDER BY m.position));
    PERFORM same('es_tags', ARRAY(SELECT ROW(t.*)::text FROM es_tags t ORDER BY t.tag, t.position),
                 ARRAY(SELECT ROW(t, m.position, m.type)::text FROM model m, unnest(m.tags) t WHERE m.place = 'log' ORDER BY t COLLATE "C", m.position));
    PERFORM same('es_removed_ids', ARRAY(SELECT ROW(r.position, r.version, r.stream, r.id)::text FROM es_removed_ids r ORDER BY r.position),
                 ARRAY(SELECT ROW(m.position, m.version, m.stream, m.id)::text FROM model m WHERE m.place <> 'log' ORDER BY m.position));
    PERFORM same('es_removals', ARRAY(SELECT ROW(r.action, r.stream, r.position, r.positions, r.versions, r.removed, r.metadata)::text FROM es_removals r ORDER BY r.stream, r.id),
                 ARRAY(SELECT ROW(r.action, r.stream, r.position, r.positions, r.versions, r.removed, r.metadata)::text FROM removals r ORDER BY r.stream COLLATE "C", r.n));
    PERFORM same('es_archived_events', ARRAY(SELECT row_of(ROW(a.position, a.version, a.recorded_at, a.occurred_at, a.id, a.stream, a.type, a.data, a.metadata, a.tags, a.body)::es_recorded_event)
                                               FROM es_archived_events a ORDER BY a.position),
                 ARRAY(SELECT row_of(m) FROM model m WHERE m.place = 'archive' ORDER BY m.position));
    PERFORM same('es_all_events', ARRAY(SELECT ROW(a.position, a.id, a.archived)::text FROM es_all_events a ORDER BY a.position),
                 ARRAY(SELECT ROW(m.position, m.id, m.place = 'archive')::text FROM model m WHERE m.place <> 'gone' ORDER BY m.position));
    PERFORM same('read_sync', ARRAY(SELECT ROW(r.*)::text FROM read_sync r ORDER BY r.position), ARRAY(SELECT ROW(r.*)::text FROM must_sync r ORDER BY r.position));
END $$;
-- Functions that read a stream, also what the transaction itself has appended.
CREATE FUNCTION check_stream(s text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    last CONSTANT bigint := last_of(s);
    after CONSTANT bigint := dice(last + 3) - 1;
    many CONSTANT bigint := CASE WHEN dice(3) > 0 THEN dice(last + 2) END;
    of CONSTANT text := random_type();
    first bigint := (SELECT min(m.version) FROM model m WHERE m.stream = s AND m.place = 'log');
BEGIN
    IF first > 1 THEN
        PERFORM note('loads of streams that begin later');
    END IF;
    PERFORM same('es_load ' || s, ARRAY(SELECT row_of(e) FROM es_load(s) e), ARRAY(SELECT row_of(m) FROM model m WHERE m.stream = s AND m.place = 'log' ORDER BY m.version));
    PERFORM same(concat_ws(' ', 'es_load', s, after, many), ARRAY(SELECT row_of(e) FROM es_load(s, after, many) e),
                 ARRAY(SELECT row_of(m) FROM model m WHERE m.stream = s AND m.place = 'log' AND m.version > after ORDER BY m.version LIMIT many));
    PERFORM same(concat_ws(' ', 'es_load_backward', s, after, many), ARRAY(SELECT row_of(e) FROM es_load_backward(s, after, many) e),
                 ARRAY(SELECT row_of(m) FROM model m WHERE m.stream = s AND m.place = 'log' AND m.version < after ORDER BY m.version DESC LIMIT many));
    PERFORM same('es_load_backward ' || s, ARRAY(SELECT row_of(e) FROM es_load_backward(s, max_count => many) e),
                 ARRAY(SELECT row_of(m) FROM model m WHERE m.stream = s AND m.place = 'log' ORDER BY m.version DESC LIMIT many));
    PERFORM same('es_last_event ' || s, ARRAY(SELECT row_of(e) FROM es_last_event(s) e) || ARRAY(SELECT row_of(e) FROM es_last_event(s, of) e),
                 ARRAY(SELECT row_of(m) FROM model m WHERE m.stream = s AND m.place = 'log' ORDER BY m.version DESC LIMIT 1)
                 || ARRAY(SELECT row_of(m) FROM model m WHERE m.stream = s AND m.place = 'log' AND m.type = of ORDER BY m.version DESC LIMIT 1));
    PERFORM same(concat_ws(' ', 'es_load_archived', s, after, many), ARRAY(SELECT row_of(e) FROM es_load_archived(s, after, many) e),
                 ARRAY(SELECT row_of(m) FROM model m WHERE m.stream = s AND m.place = 'archive' AND m.version > after ORDER BY m.version LIMIT many));
    PERFORM same('es_stream_version ' || s, ARRAY[es_stream_version(s)::text], ARRAY[last::text]);
    PERFORM same('es_event', ARRAY(SELECT row_of(e) FROM model m, es_event(m.id) e WHERE m.stream = s ORDER BY e.version),
                 ARRAY(SELECT row_of(m) FROM model m WHERE m.stream = s AND m.place = 'log' ORDER BY m.version));
END $$;
-- Functions that read up to the horizon: everything, when no transaction is open.
CREATE FUNCTION check_log() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    after CONSTANT bigint := random_position();
    before CONSTANT bigint := 1 + random_position();
    many CONSTANT bigint := CASE WHEN dice(3) > 0 THEN dice(40) END;
    query CONSTANT jsonb := random_query();
    category CONSTANT text := (ARRAY['a', 'b', 'c'])[1 + dice(3)];
    chosen CONSTANT text[] := CASE WHEN dice(3) > 0 THEN ARRAY[random_type(), random_type()] END;
    found text[];
BEGIN
    PERFORM same(concat_ws(' ', 'es_read', after, many), ARRAY(SELECT row_of(e) FROM es_read(after, many) e),
                 ARRAY(SELECT row_of(m) FROM model m WHERE m.place = 'log' AND m.position > after ORDER BY m.position LIMIT many));
    EXECUTE format('SELECT ARRAY(SELECT row_of(m) FROM model m WHERE place = ''log'' AND position > %s AND %s ORDER BY position LIMIT %s)',
                   after, condition_of(query), coalesce(many::text, 'ALL')) INTO found;
    PERFORM same(concat_ws(' ', 'es_read', after, many, query), ARRAY(SELECT row_of(e) FROM es_read(after, many, query) e), found);
    PERFORM same(concat_ws(' ', 'es_query', query, after, many), ARRAY(SELECT row_of(e) FROM es_query(query, after, many) e), found);
    EXECUTE format('SELECT ARRAY(SELECT row_of(m) FROM model m WHERE place = ''log'' AND position < %s AND %s ORDER BY position DESC LIMIT %s)',
                   before, condition_of(query), coalesce(many::text, 'ALL')) INTO found;
    PERFORM same(concat_ws(' ', 'es_query backward', query, before, many), ARRAY(SELECT row_of(e) FROM es_query(query, 0, many, true, before) e), found);
    PERFORM same(concat_ws(' ', 'es_read_category', category, after, many, chosen), ARRAY(SELECT row_of(e) FROM es_read_category(category, after, many, chosen) e),
                 ARRAY(SELECT row_of(m) FROM model m WHERE m.place = 'log' AND m.position > after AND es_category(m.stream) = category
                          AND (chosen IS NULL OR m.types && chosen) ORDER BY m.position LIMIT many));
END $$;

--
-- Projections and a subscription
--
CREATE FUNCTION read_async(event es_recorded_event) RETURNS void LANGUAGE sql AS $$
    INSERT INTO read_async VALUES (event.position, event.version, event.stream, event.type)
$$;
SELECT es_create_projection('async', 'read_async(es_recorded_event)', tables => '{read_async}', batch_size => 7);
SELECT es_create_projection('sync', category => 'a', types => '{x, y}', mode => 'sync', tables => '{read_sync}', query => $$
    INSERT INTO read_sync SELECT position, version, stream, type FROM new_events $$);
SELECT es_create_subscription('polled', category => '{a, b}', types => '{x}');

CREATE FUNCTION do_project() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM es_run_projections('async');
    INSERT INTO must_async SELECT m.position, m.version, m.stream, m.type FROM model m
     WHERE m.place = 'log' AND m.position > (SELECT coalesce(max(position), 0) FROM must_async);
    PERFORM note('projections');
END $$;
CREATE FUNCTION do_rebuild() RETURNS void LANGUAGE plpgsql AS $$
DECLARE archived CONSTANT boolean := dice(2) = 0;
BEGIN
    PERFORM es_rebuild_projection('async', archived);
    DELETE FROM must_async;
    INSERT INTO must_async SELECT m.position, m.version, m.stream, m.type FROM model m WHERE m.place = 'log' OR archived AND m.place = 'archive';
    PERFORM note('rebuilds' || CASE WHEN archived THEN ' with the archive' ELSE '' END);
END $$;
CREATE FUNCTION do_poll() RETURNS void LANGUAGE plpgsql AS $$
DECLARE of bigint;
BEGIN
    FOR i IN 1 .. 100 LOOP
        WITH delivered AS (SELECT p.* FROM es_poll('polled', max_count => 20) p),
             stored AS (INSERT INTO read_polled SELECT p.position, p.version, p.stream, p.type FROM delivered p)
        SELECT max(token) INTO of FROM delivered;
        EXIT WHEN of IS NULL;
        PERFORM es_ack('polled', of);
    END LOOP;
    INSERT INTO must_polled SELECT m.position, m.version, m.stream, m.type FROM model m
     WHERE m.place = 'log' AND m.position > (SELECT passed FROM polled)
       AND es_category(m.stream) IN ('a', 'b') AND m.types && '{x}';
    UPDATE polled SET passed = es_horizon();
    PERFORM note('polls');
END $$;
CREATE FUNCTION check_readers() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM same('read_async', ARRAY(SELECT ROW(r.*)::text FROM read_async r ORDER BY r.position), ARRAY(SELECT ROW(r.*)::text FROM must_async r ORDER BY r.position));
    PERFORM same('read_polled', ARRAY(SELECT ROW(r.*)::text FROM read_polled r ORDER BY r.position), ARRAY(SELECT ROW(r.*)::text FROM must_polled r ORDER BY r.position));
END $$;

--
-- The run
--
CREATE FUNCTION do_something() RETURNS void LANGUAGE plpgsql AS $$
DECLARE d CONSTANT int := dice(100);
BEGIN
    IF d < 40 THEN PERFORM do_append();
    ELSIF d < 54 THEN PERFORM do_retry();
    ELSIF d < 62 THEN PERFORM do_append_if();
    ELSIF d < 67 THEN PERFORM do_delete();
    ELSIF d < 72 THEN PERFORM do_truncate();
    ELSIF d < 78 THEN PERFORM do_compact();
    ELSIF d < 80 THEN PERFORM do_archive();
    ELSIF d < 83 THEN PERFORM do_unarchive();
    ELSIF d < 86 THEN PERFORM do_rule();
    ELSIF d < 90 THEN PERFORM do_state();
    ELSIF d < 92 THEN PERFORM check_stream(random_stream());
    ELSIF d < 94 THEN PERFORM check_log();
    ELSE
        -- All this is undone, also in the model.
        BEGIN
            FOR i IN 0 .. dice(6) LOOP
                PERFORM do_something();
            END LOOP;
            RAISE EXCEPTION 'back' USING ERRCODE = 'BACK0';
        EXCEPTION WHEN SQLSTATE 'BACK0' THEN
            PERFORM note('rollbacks');
        END;
    END IF;
END $$;
-- Several steps a transaction, some of which are rolled back as a whole.
CREATE PROCEDURE run(seed float8, steps int) LANGUAGE plpgsql AS $$
DECLARE
    horizon bigint := 0;
    now_at bigint;
BEGIN
    PERFORM setseed(seed);
    FOR i IN 1 .. steps LOOP
        BEGIN
            PERFORM do_something();
        EXCEPTION WHEN OTHERS THEN
            RAISE EXCEPTION 'seed %, step %: % %', seed, i, SQLSTATE, SQLERRM;
        END;
        CONTINUE WHEN dice(4) > 0;
        IF dice(8) = 0 THEN
            ROLLBACK;
        ELSE
            COMMIT;
        END IF;
        BEGIN
            now_at := es_horizon();
            IF now_at < horizon OR now_at <> (SELECT max(position) FROM model) THEN
                PERFORM fail('the horizon is', now_at::text, 'and was', horizon::text);
            END IF;
            horizon := now_at;
            IF dice(4) = 0 THEN
                PERFORM check_tables();
            END IF;
            IF dice(2) = 0 THEN
                PERFORM check_log();
            END IF;
            IF dice(3) = 0 THEN
                IF dice(10) = 0 THEN
                    PERFORM do_rebuild();
                ELSE
                    PERFORM do_project();
                END IF;
                PERFORM do_poll();
                PERFORM check_readers();
            END IF;
        EXCEPTION WHEN OTHERS THEN
            RAISE EXCEPTION 'seed %, after step %: % %', seed, i, SQLSTATE, SQLERRM;
        END;
        COMMIT;
    END LOOP;
END $$;

-- One run begins in a store from which nothing was removed; the next ones go on, the last one with
-- indexes of types.
\if :{?seed}
    CALL run(:seed, :steps);
\else
    CALL run(0.1, 800);
    CALL run(0.2, 800);
    SELECT es_index_type('x'), es_index_type('y'), es_index_type('z'), es_index_type('w') \g /dev/null
    CALL run(0.3, 800);
\endif

-- Did everything happen?
SELECT what FROM unnest(ARRAY['appends', 'appends ES001', 'appends ES003', 'appends after es_compacted', 'appends after es_stream_archived',
       'appends after es_stream_deleted', 'archives', 'archives again', 'compactions', 'compactions 0A000', 'compactions 22023',
       'compactions of a compaction', 'compactions of nothing', 'conditions', 'conditions ES007', 'conditions ES007 by a notice alone',
       'deletes', 'deletes ES001', 'deletes ES003', 'deletes again', 'loads of streams that begin later', 'polls', 'projections', 'reads',
       'rebuilds', 'rebuilds with the archive', 'retries archive', 'retries es_compacted', 'retries gone', 'retries log', 'retries ES002 gone',
       'retries ES002 log', 'retries of what is in several places', 'rollbacks', 'rules', 'rules, dry', 'rules, forced', 'states', 'states 0A000',
       'states 22023', 'states 55000', 'truncations', 'truncations 0A000', 'unarchives']) AS what
 WHERE what NOT IN (SELECT c.what FROM counts c);

DROP PROCEDURE run;
DROP EXTENSION eventstore CASCADE;
DROP FUNCTION append_statement, model_fold, attempt, check_log, check_readers, check_stream, check_tables, code_of, condition_of, dice, do_append, do_append_if, do_archive, do_compact,
     do_delete, do_poll, do_project, do_rebuild, do_retry, do_rule, do_something, do_state, do_truncate, do_unarchive, fail, is_notice, last_of, last_type,
     must, note, notice_of, random_events, random_expected, random_initial, random_position, random_query, random_stream(), random_stream(text), random_tags, random_type,
     row_of(model), same, store, types_of;
DROP TABLE model, removals, calls, read_async, read_sync, read_polled, must_async, must_sync, must_polled, polled, counts;
