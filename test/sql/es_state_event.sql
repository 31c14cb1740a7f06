-- The event that a reducer or a handler gets: it may keep parts of it, change it, and
-- return them, wherever the event is stored.
CREATE EXTENSION eventstore;
SET eventstore.snapshot_every = 0;
-- So that events that are read by SQL do not stay in memory.
SET work_mem = '64kB';
-- As a reducer has it.
SET timezone = 'UTC';

SELECT max(version) FROM es_append_batch('small-1', 'none', array_fill('added'::text, ARRAY[600]),
    ARRAY(SELECT jsonb_build_object('n', n, 'text', repeat(md5(n::text), 4)) FROM generate_series(1, 600) n));
-- Stored out of line, and compressed.
SELECT max(version) FROM es_append_batch('large-1', 'none', array_fill('added'::text, ARRAY[30]),
    ARRAY(SELECT jsonb_build_object('n', n, 'text', CASE n % 3 WHEN 0 THEN repeat(md5(n::text), 300) WHEN 1 THEN md5(n::text)
          ELSE (SELECT string_agg(md5(n || ' ' || i), '') FROM generate_series(1, 150) i) END) FROM generate_series(1, 30) n));

-- Each keeps the data of every seventh event, in its way.
CREATE FUNCTION inlined(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS
    'SELECT CASE WHEN (event).version % 7 = 1 THEN (event).data ELSE state END';
CREATE FUNCTION called(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS
    'SELECT 1; SELECT CASE WHEN (event).version % 7 = 1 THEN (event).data ELSE state END';
CREATE FUNCTION returned(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF event.version % 7 = 1 THEN
        RETURN event.data;
    END IF;
    RETURN state;
END $$;
CREATE FUNCTION changed(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    before es_recorded_event := event;
    seventh boolean := event.version % 7 = 1;
BEGIN
    event.id := es_uuid7();
    event.stream := event.stream || event.type;
    event.type := NULL;
    event.metadata := '{"a": 1}';
    event.data := jsonb_build_object('other', event.data->'n');
    event.version := 1;
    event := (event.position, 2, now(), now(), event.id, event.stream, 'type', event.data, NULL);
    event.data := before.data;
    before := NULL;
    IF seventh THEN
        state := event.data;
    END IF;
    RETURN state;
END $$;
CREATE FUNCTION whole(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    RETURN CASE WHEN event.version % 7 = 1 THEN to_jsonb(event)->'data' ELSE state END;
END $$;

-- By the index, by SQL, and after each event.
CREATE FUNCTION compare() RETURNS TABLE (reducer text, stream text, "by index" boolean, "by time" boolean, history boolean) LANGUAGE sql AS $$
    SELECT reducer, stream,
           (SELECT s.state = e.data FROM es_state(stream, reducer) s),
           (SELECT s.state = e.data FROM es_state(stream, reducer, by_time => 'occurred') s),
           (SELECT bool_and(h.state = l.data) FROM es_history(stream, reducer) h
              JOIN es_load(stream) l ON l.version = h.version - (h.version - 1) % 7)
      FROM unnest('{inlined,called,returned,changed,whole}'::text[]) WITH ORDINALITY r (reducer, i),
           unnest('{small-1,large-1}'::text[]) stream,
           LATERAL (SELECT data FROM es_load(stream) WHERE version % 7 = 1 ORDER BY version DESC LIMIT 1) e
     ORDER BY i, stream DESC
$$;
SELECT * FROM compare();

-- Every column, with and without a time and metadata, in rows of every length.
SELECT max(version) FROM es_append_batch('mixed-1', 'none', (SELECT jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
        'type', repeat('t', 1 + n % 130), 'data', repeat('d', n * 7 % 200), 'occurred_at', CASE WHEN n % 2 = 0 THEN '2026-01-01T00:00:00Z' END,
        'metadata', CASE WHEN n % 3 = 0 THEN jsonb_build_object('user', repeat('u', n % 150)) END)) ORDER BY n) FROM generate_series(1, 600) n));
CREATE FUNCTION event_itself(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE plpgsql AS 'BEGIN RETURN to_jsonb(event); END';
CREATE FUNCTION same_events() RETURNS TABLE (name text, count bigint, same bigint) LANGUAGE sql AS $$
    SELECT name, count(*), count(*) FILTER (WHERE h.state = to_jsonb(e))
      FROM unnest('{mixed-1,large-1}'::text[]) name, LATERAL es_load(name) e LEFT JOIN LATERAL es_history(name, 'event_itself') h USING (version)
     GROUP BY 1 ORDER BY 1 DESC
$$;
SELECT * FROM same_events();

-- What is appended while the stream is folded comes after the fold, also where its row
-- and its entry in the index are on pages that the fold has not read so far.
CREATE FUNCTION appending(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF event.version % 100 = 1 THEN
        PERFORM es_append(event.stream, 'any', 'late', event.data);
    END IF;
    RETURN to_jsonb(state::int + 1);
END $$;
VACUUM es_events;
BEGIN;
SELECT * FROM es_state('mixed-1', 'appending', '0');
SELECT es_stream_version('mixed-1');
ROLLBACK;

-- Rewritten, before and after the rows of before are removed.
SELECT es_rewrite(id, '"rewritten"') FROM es_load('mixed-1') WHERE version % 5 = 0 \g /dev/null
SELECT * FROM same_events();
VACUUM es_events;
SELECT * FROM same_events();

-- Where the server counts calls of functions.
SET track_functions = 'all';
SELECT s.state = e.data AS same FROM es_state('small-1', 'returned') s, es_load('small-1', 595, 1) e;
SELECT s.state = e.data AS same FROM es_state('small-1', 'inlined') s, es_load('small-1', 595, 1) e;
RESET track_functions;

-- A role with row security.
CREATE ROLE regress_reader;
SELECT es_grant('regress_reader', 'reader');
ALTER TABLE es_events ENABLE ROW LEVEL SECURITY;
CREATE POLICY visible ON es_events FOR SELECT TO regress_reader USING (version <= 500);
SET ROLE regress_reader;
SELECT r.reducer, s.version, s.state->>'n' AS n, s.state = e.data AS same
  FROM unnest('{inlined,called,returned,changed,whole}'::text[]) r (reducer), es_state('small-1', r.reducer) s, es_load('small-1', 497, 1) e;
RESET ROLE;
ALTER TABLE es_events DISABLE ROW LEVEL SECURITY;

-- Of a handler.
CREATE TABLE seen (position bigint PRIMARY KEY, data jsonb, rest text, size int);
CREATE FUNCTION see(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    size int := pg_column_size(event);
    before es_recorded_event := event;
BEGIN
    event.data := jsonb_build_object('other', event.data->'n');
    event.stream := event.stream || event.type;
    event.metadata := event.data;
    INSERT INTO seen VALUES (event.position, before.data, event.stream, size);
END $$;
SELECT es_create_projection('seen', handler => 'see', tables => '{seen}', start_position => 0);
CALL es_work();
SELECT count(*), count(*) FILTER (WHERE s.data = e.data AND s.rest = e.stream || e.type) AS same,
       bool_and(s.size > 2000) FILTER (WHERE e.stream = 'large-1' AND e.version % 3 = 2) AS whole FROM seen s JOIN es_read() e USING (position);
SELECT es_drop_projection('seen');

-- A table that has got other columns.
ALTER TABLE es_events ADD COLUMN tenant text DEFAULT 'none';
SELECT version FROM es_append('small-1', 'any', 'added', '{"n": 601}');
SELECT * FROM compare();
SELECT * FROM same_events();
-- One whose columns are no longer as the extension has made them.
ALTER TABLE es_events ALTER COLUMN type DROP NOT NULL;
SELECT * FROM same_events();
ALTER TABLE es_events ALTER COLUMN type SET NOT NULL;

-- With an upcaster, which may return the same value each time.
CREATE FUNCTION constant(data jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE RETURN '{"n": 0}'::jsonb;
SELECT es_define_event_type('added', schema_version => 2);
SELECT es_define_upcaster('added', 1, 'constant');
SELECT * FROM compare();

DROP TABLE seen;
DROP FUNCTION compare, constant, same_events;
DROP EXTENSION eventstore CASCADE;
DROP OWNED BY regress_reader;
DROP ROLE regress_reader;
