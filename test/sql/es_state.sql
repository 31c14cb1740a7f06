-- Folding a stream: es_state, es_history, ready-made reducers and those of a
-- schema.
CREATE EXTENSION eventstore;
-- No snapshot is saved here, so that every fold begins with the first event.
SET eventstore.snapshot_every = 0;
SET timezone = 'UTC';

-- The code of the error of a statement; null: none.
CREATE FUNCTION code_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END $$;

-- Events as a restored dump brings them, whose times can be chosen.
CREATE FUNCTION put(stream text, version bigint, recorded_at timestamptz, data jsonb, occurred_at timestamptz DEFAULT NULL)
    RETURNS void LANGUAGE sql AS $$
    INSERT INTO es_events (position, version, next_xid, recorded_at, occurred_at, id, stream, type, data)
    VALUES (nextval('es_position'), version, '1', recorded_at, occurred_at, es_uuid7(), stream, 'put', data)
$$;

--
-- The state at a version, at a time, and its history
--
CREATE FUNCTION user_reducer(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS $$
    SELECT CASE event.type WHEN 'inserted' THEN event.data->'name' WHEN 'deleted' THEN NULL ELSE state END
$$;
SELECT count(put('user-1', n, timestamptz '2020-01-01' + n * interval '1 day', format('{"name": "%s"}', name)::jsonb)) AS put
  FROM unnest(ARRAY['fred', 'barney', 'wilma']) WITH ORDINALITY AS t (name, n);
CREATE FUNCTION name_reducer(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS $$ SELECT event.data->'name' $$;
SELECT * FROM es_state('user-1', 'name_reducer(jsonb, es_recorded_event)');
SELECT * FROM es_state('user-1', 'name_reducer'::regproc, at_version => 2);
SELECT n, s.* FROM generate_series(0, 4) n, es_state('user-1', 'name_reducer'::regproc, 'null', at_version => n) s ORDER BY n;
SELECT * FROM es_state('user-1', 'name_reducer'::regproc, at_version => 9223372036854775807);
SELECT * FROM es_state('user-1', 'name_reducer'::regproc, at_version => -1);
SELECT * FROM es_state('user-1', 'name_reducer'::regproc, at_version => -9223372036854775808);
SELECT * FROM es_state('user-1', 'name_reducer'::regproc, at_version => NULL, at_time => NULL);

-- A time is inclusive.
SELECT t, s.* FROM unnest(ARRAY['-infinity', '2020-01-01', '2020-01-02 00:00:00', '2020-01-02 00:00:00.000001', '2020-01-03', '2020-01-04',
                                'infinity']::timestamptz[]) t, es_state('user-1', 'name_reducer'::regproc, at_time => t) s ORDER BY t;
SELECT * FROM es_state('user-1', 'name_reducer'::regproc, at_version => 1, at_time => '2020-01-04');
SELECT * FROM es_state('user-1', 'name_reducer'::regproc, at_version => 3, at_time => '2020-01-02');

-- The first later event ends it, even if one after it was recorded earlier.
SELECT count(put('clock-1', n, t, to_jsonb(n))) AS put FROM unnest(ARRAY['2020-01-01', '2020-01-05', '2020-01-02', '2020-01-05', '2020-01-06']::timestamptz[]) WITH ORDINALITY AS x (t, n);
SELECT t, s.* FROM unnest(ARRAY['2020-01-01', '2020-01-02', '2020-01-04', '2020-01-05', '2020-01-06']::timestamptz[]) t,
       es_state('clock-1', 'es_last'::regproc, at_time => t) s ORDER BY t;

-- A deleted aggregate has a null state.
SELECT version FROM es_append_batch('user-2', 'none', '[{"type": "inserted", "data": {"name": "fred"}}, {"type": "inserted", "data": {"name": "barney"}},
    {"type": "deleted"}, {"type": "inserted", "data": {"name": "wilma"}}]');
SELECT version, type, state, state IS NULL AS deleted, recorded_at = (SELECT e.recorded_at FROM es_load('user-2') e WHERE e.version = h.version) AS recorded_at
  FROM es_history('user-2', 'user_reducer'::regproc) h;
SELECT version FROM es_append_batch('user-3', 'none', '[{"type": "inserted", "data": {"name": "fred"}}, {"type": "deleted"}]');
SELECT state, state IS NULL AS deleted, version FROM es_state('user-3', 'user_reducer'::regproc);
SELECT state, state IS NULL AS deleted, version FROM es_state('user-3', 'user_reducer'::regproc, at_version => 1);
-- An event that changes nothing moves the version on.
SELECT version FROM es_append('user-3', 2, 'greeted');
SELECT state, state IS NULL AS deleted, version FROM es_state('user-3', 'user_reducer'::regproc);
-- One stream, many views.
SELECT n.state, l.state, m.state FROM es_state('user-1', 'name_reducer'::regproc) n, es_state('user-1', 'es_last'::regproc) l, es_state('user-1', 'es_merge'::regproc) m;

-- Commands are decided on the present state.
CREATE FUNCTION user_decider(state jsonb, command jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    name CONSTANT jsonb := NULLIF(state, '{}');
    holds CONSTANT boolean := CASE command->>'only_if' WHEN 'absent' THEN name IS NULL WHEN 'exists' THEN name IS NOT NULL
                      WHEN 'equal' THEN name = command->'to' WHEN 'longer' THEN length(name #>> '{}') > 4 ELSE true END;
BEGIN
    IF holds IS NOT TRUE AND command->>'else' = 'reject' THEN
        RAISE EXCEPTION 'not %', command->>'only_if' USING ERRCODE = 'REFUS', DETAIL = format('The name is %s.', coalesce(name::text, 'absent'));
    END IF;
    RETURN CASE WHEN holds IS NOT TRUE THEN '[]' WHEN command ? 'name' THEN jsonb_build_array(jsonb_build_object('type', 'inserted', 'data', jsonb_build_object('name', command->'name')))
           ELSE '[{"type": "deleted"}]' END;
END $$;
CREATE FUNCTION try(stream text, command jsonb, OUT version bigint, OUT state jsonb, OUT events int) LANGUAGE sql AS $$
    SELECT x.version, x.state, x.events FROM es_execute(stream, 'user_decider'::regproc, command, 'user_reducer'::regproc) x
$$;
SELECT * FROM try('user-4', '{"name": "fred"}');
SELECT * FROM try('user-4', '{"name": "barney", "only_if": "absent"}');
SELECT * FROM try('user-4', '{"name": "barney", "only_if": "absent", "else": "reject"}');
SELECT * FROM try('user-4', '{"name": "barney", "only_if": "equal", "to": "fred"}');
SELECT * FROM try('user-4', '{"name": "wilma", "only_if": "equal", "to": "fred"}');
SELECT * FROM try('user-4', '{"name": "wilma", "only_if": "longer"}');
SELECT * FROM try('user-4', '{"name": "betty-lou", "only_if": "exists"}');
SELECT * FROM try('user-4', '{"only_if": "exists"}');
SELECT * FROM try('user-4', '{"name": "pebbles", "only_if": "exists"}');
SELECT * FROM try('user-4', '{"name": "pebbles", "only_if": "exists", "else": "reject"}');
SELECT * FROM try('user-4', '{"name": "pebbles", "only_if": "absent"}');
SELECT array_agg(data->>'name' ORDER BY version) FROM es_load('user-4');

-- 150 events of 12 kB.
SELECT version FROM es_append_batch('big-1', 'none', (SELECT jsonb_agg(jsonb_build_object('type', 'big', 'data', jsonb_build_object('n', n, 'text', t)) ORDER BY n)
    FROM (SELECT n, (SELECT string_agg(md5(n || ' ' || i), '') FROM generate_series(1, 375) i) AS t FROM generate_series(1, 150) n) x));
CREATE FUNCTION collect(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS $$ SELECT jsonb_set(state, ARRAY[event.data->>'n'], event.data->'text') $$;
SELECT count(*), min(length(value)), max(length(value)), bool_and(value = (SELECT string_agg(md5(key || ' ' || i), '') FROM generate_series(1, 375) i)) AS same
  FROM es_state('big-1', 'collect'::regproc), jsonb_each_text(state);
SELECT count(*) FROM es_load('big-1');

--
-- Two times: when it was recorded and when it occurred
--
SELECT put('bottle-1', 1, '2020-05-01 08:00', '{"n": 6}', '2020-05-01');
SELECT put('bottle-1', 2, '2020-05-06 08:00', '{"n": -3}', '2020-05-04 12:00');
CREATE FUNCTION add(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS $$
    SELECT to_jsonb(coalesce(NULLIF(state, '{}')::int, 0) + (event.data->>'n')::int) $$;
SELECT state FROM es_state('bottle-1', 'add'::regproc, at_time => '2020-05-04 00:00', by_time => 'occurred');
SELECT state FROM es_state('bottle-1', 'add'::regproc, at_time => '2020-05-05 00:00', by_time => 'occurred');
-- As it was known then: the shipment was recorded only on the 6th.
SELECT state FROM es_state('bottle-1', 'add'::regproc, at_time => '2020-05-05 00:00');
SELECT state FROM es_state('bottle-1', 'add'::regproc, at_time => '2020-05-05 00:00', by_time => 'recorded');
SELECT * FROM es_state('bottle-1', 'add'::regproc, at_version => 1, at_time => '2020-05-05 00:00', by_time => 'occurred');
SELECT * FROM es_state('bottle-1', 'add'::regproc, by_time => 'occurred');
-- Late arrivals are in their place. Without an occurred_at recorded_at counts, then
-- the version.
SELECT count(put('late-1', n, '2020-01-01'::timestamptz + n * interval '1 day', to_jsonb(n), o)) AS put FROM unnest(ARRAY['2020-01-09', NULL, '2020-01-01', '2020-01-09', NULL]::timestamptz[])
    WITH ORDINALITY AS x (o, n);
CREATE FUNCTION trace(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS $$ SELECT coalesce(NULLIF(state, '{}'), '[]') || event.data $$;
SELECT * FROM es_state('late-1', 'trace'::regproc, by_time => 'occurred');
SELECT * FROM es_state('late-1', 'trace'::regproc, by_time => 'occurred', at_time => '2020-01-06');
SELECT * FROM es_state('late-1', 'trace'::regproc, by_time => 'occurred', at_time => '2020-01-05 23:59:59');
SELECT * FROM es_state('late-1', 'trace'::regproc, by_time => 'occurred', at_time => '2020-01-01');
SELECT * FROM es_state('late-1', 'trace'::regproc, by_time => 'occurred', at_time => '2019-12-31');
SELECT * FROM es_state('late-1', 'trace'::regproc, by_time => 'occurred', at_version => 3);
SELECT * FROM es_state('late-1', 'trace'::regproc, by_time => 'occurred', at_version => 4, at_time => '2020-01-05');
SELECT * FROM es_state('late-1', 'trace'::regproc, by_time => 'occurred', at_version => 0);
SELECT * FROM es_state('late-1', 'trace'::regproc);
SELECT * FROM es_state('late-1', 'es_last'::regproc, by_time => 'occurred');
SELECT * FROM es_state('late-1', 'trace'::regproc, by_time => 'occurred', at_version => -1);
SELECT * FROM es_state('late-1', 'trace'::regproc, by_time => 'Occurred');
SELECT * FROM es_state('late-1', 'trace'::regproc, by_time => '');
SELECT * FROM es_state('late-1', 'trace'::regproc, by_time => NULL);

--
-- Arguments
--
SELECT * FROM es_state(NULL, 'trace'::regproc);
SELECT * FROM es_state('late-1', NULL);
SELECT * FROM es_state('', 'trace'::regproc);
SELECT code_of(format('SELECT es_state(%L, ''trace''::regproc)', repeat('x', 2049)));
SELECT * FROM es_state(repeat('x', 2048), 'trace'::regproc);
SELECT * FROM es_state('nobody', 'trace'::regproc);
SELECT * FROM es_state('nobody', 'trace'::regproc, NULL);
SELECT * FROM es_state('nobody', 'trace'::regproc, '[7]');
SELECT * FROM es_state('nobody', 'trace'::regproc, '[7]', at_version => 5, by_time => 'occurred');
SELECT * FROM es_state('late-1', 'trace'::regproc, '[7]');
SELECT * FROM es_state('late-1', 'trace'::regproc, NULL);
SELECT * FROM es_state('late-1', 'trace'::regproc, '[7]', at_version => 0);
SELECT count(*) FROM es_history('nobody', 'trace'::regproc);
SELECT * FROM es_history(NULL, 'trace'::regproc);
SELECT * FROM es_history('late-1', NULL);
SELECT version, type, state FROM es_history('late-1', 'trace'::regproc, NULL);
SELECT * FROM es_snapshot(NULL, 'trace'::regproc);
SELECT * FROM es_snapshot('late-1', NULL);
SELECT es_snapshot('nobody', 'trace'::regproc);

--
-- Reducers
--
CREATE FUNCTION r_strict(state jsonb, event es_recorded_event) RETURNS jsonb STRICT LANGUAGE sql AS $$ SELECT to_jsonb(coalesce(state::int, 100) + 1) $$;
SELECT * FROM es_state('late-1', 'r_strict'::regproc, '0');
SELECT * FROM es_state('late-1', 'r_strict'::regproc, NULL);
CREATE FUNCTION r_strict_ends(state jsonb, event es_recorded_event) RETURNS jsonb STRICT LANGUAGE plpgsql AS $$ BEGIN RETURN CASE WHEN event.version <> 3 THEN to_jsonb(event.version) END; END $$;
SELECT version, state FROM es_history('late-1', 'r_strict_ends'::regproc);
CREATE FUNCTION r_null(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb';
SELECT * FROM es_state('late-1', 'r_null'::regproc);
CREATE FUNCTION r_same(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE plpgsql AS 'BEGIN RETURN state; END';
SELECT * FROM es_state('late-1', 'r_same'::regproc, '{"a": [1, 2, 3]}');
SELECT * FROM es_state('late-1', 'r_same'::regproc, NULL);
-- It sees the whole event.
CREATE FUNCTION r_all(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS $$ SELECT coalesce(NULLIF(state, '{}'), '[]') || to_jsonb(event) $$;
SELECT state = (SELECT jsonb_agg(to_jsonb(e) ORDER BY version) FROM es_load('late-1') e) AS same FROM es_state('late-1', 'r_all'::regproc);
SELECT state = (SELECT jsonb_agg(to_jsonb(e) ORDER BY coalesce(occurred_at, recorded_at), version) FROM es_load('late-1') e) AS same
  FROM es_state('late-1', 'r_all'::regproc, by_time => 'occurred');

-- One that raises: the context says which event it was.
CREATE FUNCTION r_raise(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF event.version = 3 THEN
        RAISE EXCEPTION 'no' USING ERRCODE = 'RAISE', DETAIL = 'why', HINT = 'what now';
    END IF;
    RETURN state;
END $$;
SELECT * FROM es_state('late-1', 'r_raise'::regproc);
SELECT * FROM es_state('late-1', 'r_raise'::regproc, by_time => 'occurred');
SELECT * FROM es_history('late-1', 'r_raise'::regproc);
SELECT * FROM es_state('late-1', 'r_raise'::regproc, at_version => 2);
SELECT * FROM es_state('late-1', 'es_merge'::regproc);

-- A function that is not a reducer.
CREATE FUNCTION w_result(state jsonb, event es_recorded_event) RETURNS json LANGUAGE sql AS 'SELECT NULL::json';
CREATE FUNCTION w_set(state jsonb, event es_recorded_event) RETURNS SETOF jsonb LANGUAGE sql AS 'SELECT state';
CREATE FUNCTION w_few(state jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT state';
CREATE FUNCTION w_many(state jsonb, event es_recorded_event, more int DEFAULT 1) RETURNS jsonb LANGUAGE sql AS 'SELECT state';
CREATE FUNCTION w_order(event es_recorded_event, state jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT state';
CREATE FUNCTION w_type(state jsonb, event jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT state';
CREATE PROCEDURE w_procedure(INOUT state jsonb, event es_recorded_event) LANGUAGE sql AS 'SELECT state';
CREATE AGGREGATE w_aggregate(es_recorded_event) (sfunc = es_merge, stype = jsonb);
SELECT f, code_of(format('SELECT es_state(''late-1'', %L::regproc)', f)), code_of(format('SELECT es_history(''late-1'', %L::regproc)', f)),
       code_of(format('SELECT es_snapshot(''late-1'', %L::regproc)', f)),
       code_of(format('SELECT es_execute(''late-1'', ''user_decider''::regproc, ''{}'', %L::regproc)', f))
  FROM unnest(ARRAY['w_result', 'w_set', 'w_few', 'w_many', 'w_order', 'w_type', 'w_procedure', 'w_aggregate']) f;
SELECT * FROM es_state('late-1', 'w_type'::regproc);
SELECT * FROM es_state('nobody', 'w_result'::regproc);
SELECT code_of('SELECT es_state(''late-1'', 0)'), code_of('SELECT es_state(''late-1'', 4294967295)');
SELECT * FROM es_state('late-1', 'nothing(jsonb, es_recorded_event)');
-- As the transition of an aggregate es_merge does the same.
SELECT w_aggregate(e ORDER BY e.version) FROM es_load('user-1') e;

-- Dropped and replaced between calls, in one transaction too.
CREATE FUNCTION r_other(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS $$ SELECT '"one"'::jsonb $$;
SELECT * FROM es_state('late-1', 'r_other'::regproc);
BEGIN;
SELECT * FROM es_state('late-1', 'r_other'::regproc);
CREATE OR REPLACE FUNCTION r_other(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS $$ SELECT '"two"'::jsonb $$;
SELECT * FROM es_state('late-1', 'r_other'::regproc);
SAVEPOINT a;
CREATE OR REPLACE FUNCTION r_other(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RETURN '"three"'; END $$;
SELECT * FROM es_state('late-1', 'r_other'::regproc);
ROLLBACK TO a;
SELECT * FROM es_state('late-1', 'r_other'::regproc);
COMMIT;
SELECT 'r_other'::regproc::oid AS gone \gset
DROP FUNCTION r_other;
SELECT code_of('SELECT es_state(''late-1'', ' || :gone || ')');

-- In the middle of its own fold: the language decides which definition folds the
-- rest, but nothing breaks.
CREATE FUNCTION r_replaces(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF event.version = 2 THEN
        CREATE OR REPLACE FUNCTION r_inner(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS 'SELECT ''"second"''::jsonb';
    END IF;
    RETURN r_inner(state, event);
END $$;
CREATE FUNCTION r_inner(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS 'SELECT ''"first"''::jsonb';
SELECT version, state FROM es_history('late-1', 'r_replaces'::regproc);
CREATE FUNCTION r_itself(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF event.version = 2 THEN
        EXECUTE $x$ CREATE OR REPLACE FUNCTION r_itself(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE plpgsql AS 'BEGIN RETURN ''"other"''; END' $x$;
    END IF;
    RETURN '"first"';
END $$;
SET client_min_messages = error;
SELECT state IN ('"first"', '"other"') AS sane, version FROM es_state('late-1', 'r_itself'::regproc);
RESET client_min_messages;
SELECT * FROM es_state('late-1', 'r_itself'::regproc);
CREATE FUNCTION r_drops(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF event.version = 2 THEN
        DROP FUNCTION r_drops(jsonb, es_recorded_event);
    END IF;
    RETURN '"first"';
END $$;
SELECT code_of('SELECT es_state(''late-1'', ''r_drops''::regproc)') IN ('XX000', '42883') AS refused;
SELECT count(*) FROM pg_proc WHERE proname = 'r_drops';
CREATE FUNCTION drop_it(version bigint) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF version = 2 THEN
        DROP FUNCTION r_drops_sql(jsonb, es_recorded_event);
    END IF;
    RETURN version;
END $$;
CREATE FUNCTION r_drops_sql(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS 'SELECT drop_it(event.version)';
SELECT version > 0 AS folded FROM es_state('late-1', 'r_drops_sql'::regproc);
SELECT count(*) FROM pg_proc WHERE proname = 'r_drops_sql';

-- A reducer that folds another stream, and one that folds its own.
CREATE FUNCTION r_other_stream(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    RETURN jsonb_build_object('own', event.version, 'other', (SELECT s.state FROM es_state('bottle-1', 'add'::regproc, at_version => least(event.version, 2)) s));
END $$;
SELECT * FROM es_history('user-1', 'r_other_stream'::regproc);
CREATE FUNCTION r_own_stream(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    RETURN event.version + coalesce(NULLIF((SELECT s.state FROM es_state(event.stream, 'r_own_stream'::regproc, '0', event.version - 1) s), '{}')::int, 0);
END $$;
SELECT * FROM es_state('late-1', 'r_own_stream'::regproc, '0');
CREATE FUNCTION r_endless(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS $$ SELECT state FROM es_state(event.stream, 'r_endless(jsonb, es_recorded_event)') $$;
SELECT code_of($$ SELECT es_state('late-1', 'r_endless'::regproc) $$);

-- A reducer that appends, here to the stream that it folds: the fold does not see it.
CREATE FUNCTION r_appends(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    PERFORM es_append(event.stream, 'any', 'more');
    RETURN event.version;
END $$;
SELECT version FROM es_append('endless-1', 'none', 'one');
SELECT * FROM es_state('endless-1', 'r_appends'::regproc);
SELECT * FROM es_state('endless-1', 'r_appends'::regproc);
SELECT es_stream_version('endless-1');
BEGIN TRANSACTION READ ONLY;
SELECT * FROM es_state('endless-1', 'r_appends'::regproc);
ROLLBACK;

-- A state of 10 MB, made anew by each of 20 events.
SELECT version FROM es_append_batch('huge-1', 'none', array_fill('x'::text, ARRAY[20]), (SELECT array_agg(to_jsonb(i)) FROM generate_series(1, 20) i));
CREATE FUNCTION r_huge(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS $$ SELECT jsonb_build_object('n', event.version, 'text', repeat(md5(event.version::text), 327680)) $$;
SELECT length(state->>'text'), state->'n' AS n, left(state->>'text', 32) = md5('20') AS last, version FROM es_state('huge-1', 'r_huge'::regproc);
SELECT count(*), sum(length(state->>'text')), bool_and(left(state->>'text', 32) = md5(version::text)) FROM es_history('huge-1', 'r_huge'::regproc);

-- Data that is stored out of line, and an initial state from a table.
CREATE TABLE states (state jsonb);
INSERT INTO states SELECT jsonb_object_agg('k' || i, md5(i::text)) FROM generate_series(1, 1000) i;
SELECT pg_column_size(s.state) > 2000 AS is_big, e.state = s.state || '{"name": "wilma"}' AS merged FROM states s, LATERAL (SELECT * FROM es_state('user-1', 'es_merge'::regproc, s.state)) e (state, version);
SELECT r.state = s.state AS same FROM states s, LATERAL (SELECT * FROM es_state('late-1', 'r_same'::regproc, s.state)) r (state, version);
SELECT version FROM es_append_batch('packed-1', 'none', ARRAY['x', 'x', 'x'], ARRAY(SELECT jsonb_build_object('k' || i % 2, repeat('packed', 5000), 'n', i) FROM generate_series(1, 3) i));
SELECT s.state = (SELECT data FROM es_load('packed-1', 2)) AS last FROM es_state('packed-1', 'es_last'::regproc) s;
SELECT s.state = (SELECT a.data || b.data FROM es_load('packed-1', 1, 1) a, es_load('packed-1', 2) b) AS both FROM es_state('packed-1', 'es_merge'::regproc) s;
SELECT bool_and(h.state = e.data) AS each FROM es_history('big-1', 'es_last'::regproc) h JOIN es_load('big-1') e USING (version);
SELECT bool_and(h.state = e.data) AS each FROM es_history('big-1', 'es_merge'::regproc) h JOIN es_load('big-1') e USING (version);

--
-- es_merge and es_last
--
SELECT version FROM es_append_batch('odd-1', 'none', '[{"type": "t", "data": {"a": 1}}, {"type": "t", "data": 5}, {"type": "t", "data": [1, 2]}, {"type": "t", "data": null}, {"type": "t", "data": "x"}]');
SELECT * FROM es_state('odd-1', 'es_merge'::regproc, at_version => 1);
SELECT * FROM es_state('odd-1', 'es_merge'::regproc, at_version => 2);
SELECT * FROM es_history('odd-1', 'es_merge'::regproc);
SELECT version, state FROM es_history('odd-1', 'es_last'::regproc);
SELECT n, s.* FROM generate_series(0, 5) n, es_state('odd-1', 'es_last'::regproc, '"initial"', n) s ORDER BY n;
SELECT * FROM es_state('user-1', 'es_merge'::regproc, '[1]');
SELECT * FROM es_state('user-1', 'es_merge'::regproc, '1');
SELECT * FROM es_state('user-1', 'es_merge'::regproc, NULL);
SELECT es_merge('{"a": 1, "b": 2}', e) FROM es_load('user-1', 2) e;
SELECT es_merge(NULL, e), es_last(NULL, e), es_last('[1]', e) FROM es_load('user-1', 2) e;
SELECT es_merge('{}', NULL);
SELECT es_last('{}', NULL);
SELECT es_merge('{}', ROW(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)::es_recorded_event);
SELECT code_of($$ SELECT es_merge('5', e) FROM es_load('user-1') e $$), code_of($$ SELECT es_merge('{}', e) FROM es_load('odd-1', 1) e $$);

-- The same as a fold by ||: streams with one to 90 sets of keys, empty objects,
-- 45 keys, nested ones, names that begin alike, long, not ASCII.
CREATE FUNCTION plain(of text, initial jsonb, upto bigint) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE state jsonb := initial; e es_recorded_event;
BEGIN
    FOR e IN SELECT * FROM es_load(of, 0, upto) LOOP
        state := CASE WHEN state IS NULL THEN e.data ELSE state || e.data END;
    END LOOP;
    RETURN state;
END $$;
CREATE FUNCTION object(seed int, sets int) RETURNS jsonb LANGUAGE sql AS $$
    SELECT CASE which WHEN 0 THEN '{}' WHEN 1 THEN (SELECT jsonb_object_agg('key' || i, seed) FROM generate_series(1, 45) i)
        WHEN 2 THEN jsonb_build_object('nested', jsonb_build_object('a', seed, 'b', jsonb_build_array(seed, NULL)), 'key1', seed % 2 = 0)
        WHEN 3 THEN jsonb_build_object(repeat('long', 100), seed, 'key1', repeat('v', seed % 50))
        WHEN 4 THEN jsonb_build_object('ключ', seed, 'Zoë', NULL, U&'\+01F600', md5(seed::text))
        WHEN 5 THEN jsonb_build_object('a', seed, 'ab', seed) WHEN 6 THEN jsonb_build_object('aa', seed, 'b', seed)
        WHEN 7 THEN (SELECT jsonb_object_agg('key' || i, CASE WHEN i % 3 = 0 THEN 'null' ELSE to_jsonb(seed * 1.5) END) FROM generate_series(2, 46) i)
        ELSE jsonb_build_object('key' || which % 50, seed, 'x' || which % 7, seed) END
      FROM (SELECT abs(hashint4(seed)) % sets AS which) w
$$;
SELECT count(*) FROM generate_series(1, 91, 6) sets, es_append_batch('set-' || sets, 'none', array_fill('x'::text, ARRAY[300]),
    ARRAY(SELECT object(sets * 1000 + i, sets) FROM generate_series(1, 300) i));
SELECT count(DISTINCT ARRAY(SELECT jsonb_object_keys(data))) FROM es_load('set-91');
SELECT sets, upto, initial FROM generate_series(1, 91, 6) sets, unnest(ARRAY[0, 1, 7, 33, 34, 150, 299, 300]) upto, unnest(ARRAY['{}', NULL, '{"key1": "initial", "only": 1}']::jsonb[]) initial
 WHERE (SELECT state FROM es_state('set-' || sets, 'es_merge'::regproc, initial, upto)) IS DISTINCT FROM plain('set-' || sets, initial, upto);
SELECT sets FROM generate_series(1, 91, 6) sets, LATERAL (SELECT h.state FROM es_history('set-' || sets, 'es_merge'::regproc) h WHERE version = 300) h
 WHERE h.state IS DISTINCT FROM plain('set-' || sets, '{}', 300);
SELECT sets FROM generate_series(1, 91, 6) sets, LATERAL (SELECT * FROM es_state('set-' || sets, 'es_merge'::regproc, by_time => 'occurred')) s
 WHERE s.state IS DISTINCT FROM plain('set-' || sets, '{}', 300);

--
-- Reducers of a schema, and commands that are refused
--
CREATE SCHEMA account;
CREATE FUNCTION account.apply_opened(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT '{"balance": 0}'::jsonb || data $$;
CREATE FUNCTION account.apply_deposited(state jsonb, data jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN RETURN jsonb_set(state, '{balance}', to_jsonb((state->>'balance')::int + (data->>'amount')::int)); END $$;
CREATE FUNCTION account.apply_withdrawn(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql STRICT AS $$
    SELECT jsonb_set(state, '{balance}', to_jsonb((state->>'balance')::int - (data->>'amount')::int)) $$;
CREATE FUNCTION account.apply_closed(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb';
CREATE FUNCTION account.decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE amount CONSTANT int := command->>'amount';
BEGIN
    IF command->>'do' = 'open' THEN
        IF state ? 'balance' THEN RAISE EXCEPTION 'the account is open already'; END IF;
        RETURN CASE WHEN amount > 0 THEN jsonb_build_array('{"type": "opened"}'::jsonb, jsonb_build_object('type', 'deposited', 'data', jsonb_build_object('amount', amount)))
               ELSE '[{"type": "opened"}]' END;
    END IF;
    IF state IS NULL OR NOT state ? 'balance' THEN RAISE EXCEPTION 'there is no account'; END IF;
    IF command->>'do' = 'withdraw' THEN
        IF amount <= 0 THEN RAISE EXCEPTION 'the amount must be above 0'; END IF;
        IF amount > (state->>'balance')::int THEN RAISE EXCEPTION 'too little' USING DETAIL = format('The balance is %s.', state->>'balance'); END IF;
        RETURN jsonb_build_array(jsonb_build_object('type', 'withdrawn', 'data', jsonb_build_object('amount', amount)));
    END IF;
    RETURN '[{"type": "closed"}]';
END $$;
SELECT es_reducer('account');
SELECT es_reducer('account') = 'account.es_reduce(jsonb, es_recorded_event)'::regprocedure AS found;
SELECT count(*) FROM pg_proc WHERE proname = 'es_reduce' AND pronamespace = 'account'::regnamespace;
CREATE FUNCTION account(stream text, command jsonb, OUT version bigint, OUT state jsonb, OUT events int) LANGUAGE sql AS $$
    SELECT x.version, x.state, x.events FROM es_execute(stream, 'account.decide'::regproc, command, es_reducer('account')) x
$$;
SELECT * FROM account('account-1', '{"do": "withdraw", "amount": 1}');
SELECT * FROM account('account-1', '{"do": "open", "amount": 10}');
SELECT * FROM account('account-1', '{"do": "open"}');
SELECT * FROM account('account-1', '{"do": "withdraw", "amount": 11}');
SELECT * FROM account('account-1', '{"do": "withdraw", "amount": 0}');
SELECT * FROM account('account-1', '{"do": "withdraw", "amount": 4}');
SELECT version FROM es_append('account-1', 3, 'audited', '{"balance": "ignored"}');
SELECT * FROM account('account-1', '{"do": "close"}');
SELECT * FROM account('account-1', '{"do": "withdraw", "amount": 1}');
SELECT version, type, state FROM es_history('account-1', es_reducer('account'));
-- STRICT: not called for the null state of a closed account.
SELECT version FROM es_append('account-1', 5, 'withdrawn', '{"amount": 1}');
SELECT state, state IS NULL AS closed, version FROM es_state('account-1', es_reducer('account'));
SELECT version, type FROM es_load('account-1');
-- Called as any function.
SELECT account.es_reduce('{"balance": 3}', e) FROM es_load('account-1', 1, 1) e;
SELECT account.es_reduce('{"balance": 3}', e) FROM es_load('account-1', 3, 1) e;
SELECT account.es_reduce(NULL, e) FROM es_load('account-1', 3, 1) e;
SELECT account.es_reduce('{}', NULL);
SELECT state FROM es_state('account-1', es_reducer('account'), at_version => 4, by_time => 'occurred');

-- A function is created, changed, dropped.
SELECT state FROM es_state('account-1', es_reducer('account'), at_version => 4);
CREATE FUNCTION account.apply_audited(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT state || '{"audited": 1}' $$;
SELECT state FROM es_state('account-1', es_reducer('account'), at_version => 4);
CREATE OR REPLACE FUNCTION account.apply_audited(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT state || '{"audited": 2}' $$;
SELECT state FROM es_state('account-1', es_reducer('account'), at_version => 4);
CREATE OR REPLACE FUNCTION account.apply_audited(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT data $$;
SELECT state FROM es_state('account-1', es_reducer('account'), at_version => 4);
DROP FUNCTION account.apply_audited;
SELECT state FROM es_state('account-1', es_reducer('account'), at_version => 4);
CREATE FUNCTION account.apply_audited(state jsonb, data jsonb) RETURNS json LANGUAGE sql AS $$ SELECT '{}'::json $$;
SELECT state FROM es_state('account-1', es_reducer('account'), at_version => 4);
SELECT state FROM es_state('account-1', es_reducer('account'), at_version => 3);
DROP FUNCTION account.apply_audited;
CREATE FUNCTION account.apply_audited(state jsonb, data json) RETURNS jsonb LANGUAGE sql AS $$ SELECT '{"wrong": 1}'::jsonb $$;
SELECT state FROM es_state('account-1', es_reducer('account'), at_version => 4);
DROP FUNCTION account.apply_audited;
CREATE FUNCTION account.apply_audited(state jsonb, data jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'audited'; END $$;
SELECT state FROM es_state('account-1', es_reducer('account'), at_version => 4);
-- In the middle of a fold.
CREATE OR REPLACE FUNCTION account.apply_audited(state jsonb, data jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    DROP FUNCTION account.apply_audited;
    DROP FUNCTION account.apply_closed;
    RETURN state;
END $$;
BEGIN;
SELECT * FROM es_state('account-1', es_reducer('account'));
ROLLBACK;
DROP FUNCTION account.apply_audited;

-- Types with spaces, quotes, capitals, other letters, and too long for a name.
SELECT version FROM es_append_batch('type-1', 'none', jsonb_build_array(jsonb_build_object('type', 'name given'), jsonb_build_object('type', 'O''Neil "x"'),
    jsonb_build_object('type', 'Имя'), jsonb_build_object('type', 'Opened'), jsonb_build_object('type', repeat('t', 57)), jsonb_build_object('type', repeat('t', 58)), jsonb_build_object('type', '%s; $1')));
CREATE SCHEMA "Odd ""Schema""; it's";
CREATE FUNCTION "Odd ""Schema""; it's"."apply_name given"(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT state || '{"space": true}' $$;
CREATE FUNCTION "Odd ""Schema""; it's"."apply_O'Neil ""x"""(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT state || '{"quote": true}' $$;
CREATE FUNCTION "Odd ""Schema""; it's"."apply_Имя"(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT state || '{"letters": true}' $$;
CREATE FUNCTION "Odd ""Schema""; it's"."apply_opened"(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT state || '{"small": true}' $$;
CREATE FUNCTION "Odd ""Schema""; it's"."apply_%s; $1"(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT state || '{"signs": true}' $$;
SELECT format('CREATE FUNCTION %I.%I(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql AS $x$ SELECT state || jsonb_build_object(%L, true) $x$', 'Odd "Schema"; it''s', 'apply_' || repeat('t', 57), 'long') \gexec
SELECT es_reducer('"Odd ""Schema""; it''s"');
SELECT * FROM es_state('type-1', es_reducer('"Odd ""Schema""; it''s"'));

-- A schema without functions leaves the state alone.
CREATE SCHEMA empty;
SELECT * FROM es_state('account-1', es_reducer('empty'), '[1]');
-- A function of the name that es_reducer has not made.
CREATE SCHEMA taken;
CREATE FUNCTION taken.es_reduce(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS 'SELECT state';
SELECT es_reducer('taken');
DROP FUNCTION taken.es_reduce;
CREATE FUNCTION taken.es_reduce(state jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT state';
SELECT es_reducer('taken');
-- A schema that does not exist.
SELECT es_reducer('nowhere');
SELECT code_of('SELECT es_reducer(0)'), code_of('SELECT es_reducer(4294967295)');
SELECT es_reducer(NULL);
SELECT es_reducer('taken')::oid AS gone \gset
DROP SCHEMA taken CASCADE;
SELECT code_of('SELECT es_state(''account-1'', ' || :gone || ')');
-- The schema is renamed; the function moves to another schema.
ALTER SCHEMA account RENAME TO bank;
SELECT state FROM es_state('account-1', es_reducer('bank'), at_version => 3);
CREATE SCHEMA elsewhere;
CREATE FUNCTION elsewhere.apply_opened(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT '"elsewhere"'::jsonb $$;
ALTER FUNCTION bank.es_reduce SET SCHEMA elsewhere;
SELECT state FROM es_state('account-1', es_reducer('elsewhere'), at_version => 3);
ALTER FUNCTION elsewhere.es_reduce RENAME TO of_mine;
SELECT state FROM es_state('account-1', 'elsewhere.of_mine'::regproc, at_version => 3);
SELECT state FROM es_state('account-1', es_reducer('elsewhere'), at_version => 3);
DROP FUNCTION elsewhere.of_mine;
-- No right to create functions there, or to call it, or those of a schema.
CREATE ROLE regress_es_reducer;
GRANT EXECUTE ON FUNCTION es_reducer(regnamespace) TO regress_es_reducer;
GRANT SELECT ON es_events TO regress_es_reducer;
GRANT USAGE ON SCHEMA bank TO regress_es_reducer;
SET ROLE regress_es_reducer;
SELECT es_reducer('bank');
RESET ROLE;
GRANT CREATE ON SCHEMA bank TO regress_es_reducer;
SET ROLE regress_es_reducer;
SELECT es_reducer('bank');
SELECT state FROM es_state('account-1', 'bank.es_reduce'::regproc, at_version => 3);
RESET ROLE;
SELECT proowner::regrole, prosecdef, provolatile, probin LIKE '%eventstore%' AS ours FROM pg_proc WHERE oid = 'bank.es_reduce'::regproc;
REVOKE EXECUTE ON FUNCTION bank.apply_deposited FROM PUBLIC;
SET ROLE regress_es_reducer;
SELECT state FROM es_state('account-1', 'bank.es_reduce'::regproc, at_version => 3);
SELECT state FROM es_state('account-1', 'bank.es_reduce'::regproc, at_version => 1);
RESET ROLE;
REVOKE USAGE, CREATE ON SCHEMA bank FROM regress_es_reducer;
SET ROLE regress_es_reducer;
SELECT code_of($$ SELECT es_reducer('bank') $$);
RESET ROLE;
BEGIN TRANSACTION READ ONLY;
SELECT es_reducer('bank');
CREATE SCHEMA other;
ROLLBACK;
CREATE SCHEMA other;
BEGIN TRANSACTION READ ONLY;
SELECT es_reducer('other');
ROLLBACK;
BEGIN;
SELECT es_reducer('other');
ROLLBACK;
SELECT count(*) FROM pg_proc WHERE pronamespace = 'other'::regnamespace;

-- A reducer that the caller may not execute.
REVOKE EXECUTE ON FUNCTION trace FROM PUBLIC;
SET ROLE regress_es_reducer;
SELECT * FROM es_state('late-1', 'trace'::regproc);
RESET ROLE;
SELECT count(*) FROM es_snapshots;
DROP OWNED BY regress_es_reducer;
DROP ROLE regress_es_reducer;

SET client_min_messages = warning;
DROP EXTENSION eventstore CASCADE;
DROP SCHEMA bank, elsewhere, empty, other, "Odd ""Schema""; it's" CASCADE;
DROP FUNCTION code_of, put, user_decider, try, drop_it, plain, object, account, w_few, w_type;
DROP TABLE states;
