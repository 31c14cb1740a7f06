-- es_recorded_event: what readers, handlers, reducers and consumers get is the
-- same, whatever columns a user adds to es_events, and drops again.
CREATE EXTENSION eventstore;
-- Reducers run with these, and readers print by them.
SET TimeZone = 'UTC';
SET DateStyle = 'ISO, MDY';
CREATE SCHEMA by_type;
CREATE SCHEMA reducers;
CREATE TABLE seen (who text, event text);

-- Values that are stored out of line, and columns that are null
INSERT INTO es_import (stream, type, data, metadata, id, occurred_at, tags, body)
SELECT 'a-' || i % 3, 't' || i % 2,
       CASE i % 4 WHEN 0 THEN jsonb_build_object('long', (SELECT string_agg(md5((i * j)::text), '') FROM generate_series(1, 300) j), 'n', i)
                  ELSE jsonb_build_object('n', i) END,
       CASE i % 3 WHEN 0 THEN '{"user": 7}'::jsonb END, es_uuid5('00000000-0000-0000-0000-000000000001', i::text),
       CASE i % 5 WHEN 0 THEN '2026-01-01 12:00Z'::timestamptz END,
       CASE i % 7 WHEN 0 THEN ARRAY['n:' || i, 'a', 'n:' || i] END,
       CASE i % 11 WHEN 0 THEN sha256(i::text::bytea) WHEN 1 THEN convert_to(repeat(md5(i::text), 200), 'UTF8') END
  FROM generate_series(1, 40) i;

-- Reducers and handlers in several languages
CREATE FUNCTION in_plpgsql(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    RETURN to_jsonb(md5(state::text || event::text));
END $$;
CREATE FUNCTION in_sql(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql
    RETURN to_jsonb(md5(state::text || event::text));
CREATE FUNCTION reducers.apply_t0(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql RETURN to_jsonb(md5(state::text || data::text));
CREATE FUNCTION reducers.apply_t1(state jsonb, data jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RETURN to_jsonb(md5(data::text || state::text)); END $$;
SELECT es_reducer('reducers');
CREATE FUNCTION handle(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO seen VALUES ('handler', event::text);
END $$;
CREATE FUNCTION handle_in_sql(event es_recorded_event) RETURNS void LANGUAGE sql
BEGIN ATOMIC
    INSERT INTO seen VALUES ('handler in SQL', event::text);
END;
CREATE FUNCTION by_type.on_t0(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    copy es_recorded_event := event;
BEGIN
    INSERT INTO seen VALUES ('schema', copy::text);
END $$;
CREATE FUNCTION by_type.on_t1(event es_recorded_event) RETURNS void LANGUAGE sql AS $$ INSERT INTO seen VALUES ('schema', event::text) $$;
CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql RETURN '[]'::jsonb;
CREATE AGGREGATE fold(event es_recorded_event) (SFUNC = in_plpgsql, STYPE = jsonb, INITCOND = '{}');

-- A digest of the events that a query returns as texts.
CREATE FUNCTION digest(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE result text;
BEGIN
    EXECUTE format('SELECT md5(string_agg(event, '','' ORDER BY event)) FROM (%s) q (event)', query) INTO result;
    RETURN result;
END $$;
CREATE FUNCTION digest_of_projection(arguments text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE result text;
BEGIN
    EXECUTE format('SELECT es_create_projection(''p'', start_position => 0, tables => ''{seen}'', %s)', arguments);
    PERFORM es_run_projections();
    result := digest('SELECT event FROM seen');
    PERFORM es_drop_projection('p');
    DELETE FROM seen;
    RETURN result;
END $$;
CREATE FUNCTION digest_of_subscription() RETURNS text LANGUAGE plpgsql AS $$
DECLARE result text;
BEGIN
    PERFORM es_create_subscription('s');
    result := digest($x$ SELECT ROW(position, version, recorded_at, occurred_at, id, stream, type, data, metadata, tags, body)::text FROM es_poll('s') $x$);
    PERFORM es_drop_subscription('s');
    RETURN result;
END $$;
-- All events, or the state of all streams, in each way to have them.
CREATE FUNCTION ways() RETURNS TABLE (way text, result text) LANGUAGE sql AS $$
    SELECT way, digest(query) FROM (VALUES
        ('es_read', 'SELECT e::text FROM es_read() e'),
        ('es_read_category', 'SELECT e::text FROM es_read_category(''a'') e'),
        ('es_load', 'SELECT e::text FROM generate_series(0, 2) i, es_load(''a-'' || i) e'),
        ('es_load_backward', 'SELECT e::text FROM generate_series(0, 2) i, es_load_backward(''a-'' || i) e'),
        ('es_event', 'SELECT es_event(id)::text FROM es_events'),
        ('es_upcast of a row', 'SELECT es_upcast(e)::text FROM es_events e'),
        ('es_upcast of an event', 'SELECT es_upcast(e)::text FROM es_read() e'),
        ('es_last_event', 'SELECT es_last_event(''a-'' || i)::text FROM generate_series(0, 2) i'),
        ('aggregate', 'SELECT fold(e ORDER BY e.version)::text FROM es_read() e GROUP BY stream'),
        ('aggregate of rows', 'SELECT fold(es_upcast(e) ORDER BY e.version)::text FROM es_events e GROUP BY stream'),
        ('reducer in PL/pgSQL', 'SELECT state::text FROM generate_series(0, 2) i, es_state(''a-'' || i, ''in_plpgsql''::regproc)'),
        ('reducer in SQL', 'SELECT state::text FROM generate_series(0, 2) i, es_state(''a-'' || i, ''in_sql''::regproc)'),
        ('in the order of occurred_at', 'SELECT state::text FROM generate_series(0, 2) i, es_state(''a-'' || i, ''in_sql''::regproc, at_time => ''infinity'', by_time => ''occurred'')'),
        ('reducer of a schema', 'SELECT state::text FROM generate_series(0, 2) i, es_state(''a-'' || i, ''reducers.es_reduce''::regproc)'),
        ('es_merge', 'SELECT state::text FROM generate_series(0, 2) i, es_state(''a-'' || i, ''es_merge''::regproc)'),
        ('es_last', 'SELECT state::text FROM generate_series(0, 2) i, es_state(''a-'' || i, ''es_last''::regproc)'),
        ('es_history', 'SELECT h::text FROM generate_series(0, 2) i, es_history(''a-'' || i, ''in_plpgsql''::regproc) h'),
        ('es_execute', 'SELECT state::text FROM generate_series(0, 2) i, es_execute(''a-'' || i, ''decide''::regproc, ''{}'', ''in_plpgsql''::regproc)')) w (way, query)
    UNION ALL SELECT 'es_poll', digest_of_subscription()
    UNION ALL SELECT way, digest_of_projection(arguments) FROM (VALUES
        ('handler in PL/pgSQL', $x$ handler => 'handle(es_recorded_event)' $x$),
        ('handler in SQL', $x$ handler => 'handle_in_sql(es_recorded_event)' $x$),
        ('handlers by type', $x$ handler_schema => 'by_type' $x$),
        ('query of whole rows', $x$ query => 'INSERT INTO seen SELECT ''query'', e::text FROM new_events e' $x$),
        ('query', $x$ query => 'INSERT INTO seen SELECT ''query'', ROW(e.*)::text FROM new_events e' $x$)) w (way, arguments)
$$;

-- As they are stored; those of one type upcast
CREATE FUNCTION up(data jsonb) RETURNS jsonb LANGUAGE sql RETURN data || '{"up": true}';
CREATE TABLE stored AS SELECT * FROM ways();
SELECT es_define_upcaster('t1', 1, 'up(jsonb)');
CREATE TABLE upcast AS SELECT * FROM ways();
SELECT es_define_upcaster('t1', 1, NULL);
SELECT result = digest('SELECT e::es_recorded_event::text FROM es_events e') AS as_stored, count(*), array_agg(way) FROM stored GROUP BY result ORDER BY count(*) DESC, min(way);
SELECT s.way FROM stored s JOIN upcast u USING (way) WHERE s.result = u.result;

-- What an index finds, and what SQL finds under row security
CREATE ROLE regress_es_events;
SELECT es_grant('regress_es_events', kind) FROM unnest('{reader,writer,operator}'::text[]) kind;
ALTER TABLE seen OWNER TO regress_es_events;
GRANT CREATE ON SCHEMA public TO regress_es_events;
GRANT USAGE ON SCHEMA by_type, reducers TO regress_es_events;
GRANT SELECT ON stored, upcast TO regress_es_events;
CREATE FUNCTION differences() RETURNS TABLE (read_by text, way text) LANGUAGE plpgsql AS $$
BEGIN
    FOR read_by IN VALUES ('index'), ('SQL') LOOP
        EXECUTE format('ALTER TABLE es_events %s ROW LEVEL SECURITY', CASE read_by WHEN 'SQL' THEN 'ENABLE' ELSE 'DISABLE' END);
        SET LOCAL ROLE regress_es_events;
        FOR way IN SELECT s.way FROM ways() s JOIN stored t USING (way) WHERE s.result IS DISTINCT FROM t.result LOOP
            RETURN NEXT;
        END LOOP;
        RESET ROLE;
        PERFORM es_define_upcaster('t1', 1, 'up(jsonb)');
        SET LOCAL ROLE regress_es_events;
        FOR way IN SELECT s.way FROM ways() s JOIN upcast t USING (way) WHERE s.result IS DISTINCT FROM t.result LOOP
            RETURN NEXT;
        END LOOP;
        RESET ROLE;
        PERFORM es_define_upcaster('t1', 1, NULL);
    END LOOP;
END $$;
CREATE POLICY everything ON es_events USING (true);
SELECT * FROM differences();
ALTER TABLE es_events ADD COLUMN n int GENERATED ALWAYS AS ((data->>'n')::int) STORED;
SELECT * FROM differences();
ALTER TABLE es_events ADD COLUMN plain text, ADD COLUMN by_default text DEFAULT 'd', ADD COLUMN gone int DEFAULT 7;
SELECT * FROM differences();
ALTER TABLE es_events DROP COLUMN gone;
SELECT * FROM differences();
ALTER TABLE es_events DROP COLUMN n, DROP COLUMN plain, ADD COLUMN later text DEFAULT 'x';
SELECT * FROM differences();
DROP POLICY everything ON es_events;
ALTER TABLE es_events DISABLE ROW LEVEL SECURITY;

-- Sync projections, and events that are tried again
SELECT es_create_projection('handler', 'handle(es_recorded_event)', mode => 'sync', start_position => NULL);
SELECT es_create_projection('schema', handler_schema => 'by_type', mode => 'sync', types => '{t0}', start_position => NULL);
SELECT es_create_projection('query', query => 'INSERT INTO seen SELECT ''query'', ROW(e.*)::text FROM new_events e', mode => 'sync', start_position => NULL);
CREATE FUNCTION fail(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
SELECT es_create_projection('parked', 'fail(es_recorded_event)', on_failure => 'park', max_attempts => 1, start_position => (SELECT max(position) FROM es_events));
SELECT version FROM es_append('sync-1', 'none', 't0', '{"n": 1}', '{"m": 1}');
SELECT who, count(*), bool_and(seen.event = e::text) AS same FROM seen, es_load('sync-1') e GROUP BY who ORDER BY who;
DELETE FROM seen;
SELECT es_run_projections();
CREATE OR REPLACE FUNCTION fail(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN INSERT INTO seen VALUES ('parked', event::text); END $$;
SELECT es_retry(id) IS NOT NULL AS retried FROM es_failures();
SELECT who, count(*), bool_and(seen.event = e::text) AS same FROM seen, es_load('sync-1') e GROUP BY who ORDER BY who;

SELECT es_create_projection('rebuilt', 'handle(es_recorded_event)', tables => '{seen}', start_position => 0);
SELECT es_rebuild_projection('rebuilt');
SELECT who, count(*), bool_and(seen.event = e::text) AS same FROM seen LEFT JOIN es_read() e ON seen.event = e::text GROUP BY who ORDER BY who;

-- A query that asks for what is not a part of an event
SELECT es_create_projection('x', query => 'INSERT INTO seen SELECT next_xid FROM new_events');
SELECT es_create_projection('x', query => 'INSERT INTO seen SELECT later FROM new_events');

-- The read functions are a part of the statement.
CREATE FUNCTION calls(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (VERBOSE, COSTS OFF) ' || query LOOP
        IF line ~ 'Function Scan|es_upcast|by_default' THEN
            RETURN NEXT line;
        END IF;
    END LOOP;
END $$;
SELECT query, calls(query) FROM unnest(ARRAY['SELECT * FROM es_load(''a-1'')', 'SELECT * FROM es_load_backward(''a-1'')', 'SELECT * FROM es_read()', 'SELECT * FROM es_read_category(''a'')']) query;

SET client_min_messages = warning;
DROP EXTENSION eventstore CASCADE;
DROP SCHEMA by_type, reducers CASCADE;
DROP TABLE seen, stored, upcast;
DROP FUNCTION decide, digest, digest_of_projection, digest_of_subscription, ways, up, differences, calls;
DROP OWNED BY regress_es_events;
DROP ROLE regress_es_events;
