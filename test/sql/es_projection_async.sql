-- Async projections: which events, in which order, in which batches, with
-- whose names and settings; es_run_projections, es_work, es_wait.
CREATE EXTENSION eventstore;
CREATE TABLE seen (n int GENERATED ALWAYS AS IDENTITY, who text, position bigint, what text);
CREATE FUNCTION note(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO seen (who, position, what) VALUES ('handler', event.position, event.stream || ' ' || event.version || ' ' || event.type);
END $$;
-- What was seen since the last look.
CREATE FUNCTION look() RETURNS TABLE (who text, "position" bigint, what text) LANGUAGE sql
BEGIN ATOMIC
    WITH gone AS (DELETE FROM seen RETURNING *)
    SELECT g.who, g.position, g.what FROM gone g ORDER BY n;
END;

--
-- Each event once, in the log's order, as a whole row
--
CREATE FUNCTION fields(event es_recorded_event) RETURNS void LANGUAGE sql AS $$
    INSERT INTO seen (who, position, what)
    SELECT 'fields', event.position, (event = e::es_recorded_event)::text || ' ' || (event).data || ' ' || coalesce(event.metadata::text, 'null')
      FROM es_events e WHERE e.id = event.id
$$;
SELECT es_append_batch('a-1', 'none', '[{"type": "x"}, {"type": "y", "data": [1], "metadata": {"m": 2}}]');
SELECT es_append('b-1', 'none', 'x', jsonb_build_object('long', repeat('long ', 3)));
INSERT INTO es_import (stream, type) VALUES ('b-1', 'y'), ('a-1', 'z'), ('c-1', 'x');
SELECT es_create_projection('p', 'note(es_recorded_event)', tables => '{seen}');
SELECT es_create_projection('f', 'fields(es_recorded_event)', category => 'b');
SELECT es_run_projections();
SELECT * FROM look() ORDER BY who, position;
SELECT es_run_projections();
SELECT es_append('a-1', 'any', 'w');
SELECT es_run_projections('p');
SELECT es_run_projections('p'), es_run_projections('f');
SELECT * FROM look();
SELECT name, position, handled, ran_at IS NOT NULL AS ran, rate > 0 AS rate FROM es_projections ORDER BY name;
SELECT es_drop_projection('p'), es_drop_projection('f');
TRUNCATE seen;

--
-- A query gets the events of a batch together
--
SELECT es_create_projection('q', query => $$
    INSERT INTO seen (who, position, what)
    SELECT 'query', max(position), string_agg(stream || ' ' || version, ', ' ORDER BY position) FROM new_events $$, batch_size => 3);
SELECT es_run_projections('q', 0);
SELECT es_run_projections('q', -1);
SELECT es_run_projections('q', 1);
SELECT position FROM es_projections;
SELECT * FROM look();
SELECT es_alter_projection('q', batch_size => 2);
SELECT es_run_projections('q', max_batches => 1);
SELECT es_run_projections();
SELECT * FROM look();
SELECT position = es_horizon() AS at_horizon, handled FROM es_projections;

-- Not by INSERT alone: any statement on rows, also one that returns some.
CREATE TABLE last (stream text PRIMARY KEY, position bigint, n int);
SELECT es_create_projection('merge', query => $$
    MERGE INTO last USING (SELECT stream, max(position) AS position, count(*) AS n FROM new_events GROUP BY stream) e ON last.stream = e.stream
    WHEN MATCHED THEN UPDATE SET position = e.position, n = last.n + e.n
    WHEN NOT MATCHED THEN INSERT VALUES (e.stream, e.position, e.n) $$, batch_size => 2);
SELECT es_create_projection('select', query => $$ SELECT note(e) FROM new_events e WHERE type = 'z' $$);
SELECT es_create_projection('returning', query => $$
    WITH e AS (SELECT * FROM new_events WHERE type = 'w')
    INSERT INTO seen (who, position) SELECT 'returning', position FROM e RETURNING n $$);
SELECT es_run_projections();
SELECT * FROM look();
SELECT * FROM last ORDER BY stream;
SELECT es_drop_projection(name) FROM es_projections;

--
-- Filters; the checkpoint passes what the projection does not want
--
SELECT es_append_batch('person', 'none', '[{"type": "a"}, {"type": "b"}]');
SELECT es_append_batch('person-1', 'none', '[{"type": "a"}, {"type": "b"}, {"type": "a"}]');
SELECT es_append_batch('person-1-x', 'none', '[{"type": "b"}]');
SELECT es_append_batch('persons-1', 'none', '[{"type": "a"}]');
SELECT es_append_batch('-1', 'none', '[{"type": "a"}]');
SELECT es_create_projection('category', 'note(es_recorded_event)', category => 'person');
SELECT es_run_projections();
SELECT what FROM look();
SELECT es_create_projection('types', 'note(es_recorded_event)', types => '{b,z,b}');
SELECT es_run_projections();
SELECT what FROM look();
SELECT es_create_projection('both', 'note(es_recorded_event)', category => 'person', types => '{b}', batch_size => 1);
SELECT es_run_projections('both', 1), es_run_projections('both', 1), es_run_projections('both', 1), es_run_projections('both', 1);
SELECT what FROM look();
SELECT es_create_projection('empty', 'note(es_recorded_event)', category => '');
SELECT es_create_projection('no category', 'note(es_recorded_event)', category => 'PERSON');
SELECT es_run_projections();
SELECT what FROM look();
SELECT name, position = es_horizon() AS at_horizon, handled FROM es_projections ORDER BY name;
SELECT name, mode, state, position = horizon AS at_horizon, lag_events, lag_seconds, handled, attempts, parked
  FROM es_projection_status ORDER BY name;
SELECT es_append('person-2', 'none', 'b');
SELECT name, lag_events, lag_seconds >= 0 AND lag_seconds < 3600 AS lag FROM es_projection_status ORDER BY name;
SELECT es_drop_projection(name) FROM es_projections;
TRUNCATE seen;

--
-- Where it starts; what is history
--
CREATE FUNCTION note_history(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO seen (who, position, what) VALUES ('history', event.position - (SELECT base FROM origin), event.type || ' ' || es_replaying());
END $$;
CREATE TABLE origin AS SELECT es_horizon() AS base;
SELECT es_append_batch('s-1', 'none', '[{"type": "old"}, {"type": "old"}]');
SELECT es_create_projection('all', 'note_history(es_recorded_event)', start_position => base) FROM origin;
SELECT es_create_projection('some', 'note_history(es_recorded_event)', start_position => base + 1) FROM origin;
SELECT es_create_projection('none', 'note_history(es_recorded_event)', start_position => NULL);
SELECT es_append_batch('s-1', 'any', '[{"type": "new"}, {"type": "new"}]');
SELECT es_create_projection('future', 'note_history(es_recorded_event)', start_position => base + 3) FROM origin;
SELECT es_replaying();
SELECT es_run_projections('all', 1), es_run_projections('all', 1), es_run_projections('all', 1);
SELECT * FROM look();
SELECT es_run_projections('some');
SELECT * FROM look();
SELECT es_run_projections('none');
SELECT * FROM look();
SELECT es_run_projections('future');
SELECT * FROM look();
SELECT es_replaying();
-- Beyond the end there is nothing to begin at, and the next event would be left out.
SELECT es_create_projection('beyond', 'note_history(es_recorded_event)', start_position => base + 30) FROM origin;
-- Also in a query; and when a handler fails the answer is as before.
SELECT es_create_projection('q', query => $$
    INSERT INTO seen (who, what) SELECT 'query', count(*) || ' ' || es_replaying() FROM new_events $$, start_position => base) FROM origin;
SELECT es_append('s-1', 'any', 'new');
SELECT es_run_projections('q');
SELECT * FROM look();
SELECT es_drop_projection(name) FROM es_projections;
CREATE FUNCTION fail(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'replaying: %', es_replaying(); END $$;
SELECT es_create_projection('fail', 'fail(es_recorded_event)', max_attempts => 1, batch_size => 1);
SELECT es_run_projections();
SELECT state, message, es_replaying() FROM es_projections;
SELECT es_drop_projection('fail');

--
-- A batch sees what its transaction has appended, and is gone with it
--
SELECT es_create_projection('p', 'note(es_recorded_event)', category => 'own', start_position => NULL);
BEGIN;
SELECT es_append('own-1', 'none', 'x') IS NOT NULL;
SELECT es_run_projections();
SELECT what FROM look();
SELECT es_append('own-1', 'any', 'y') IS NOT NULL;
SELECT es_run_projections();
SELECT what FROM look();
ROLLBACK;
SELECT es_run_projections();
SELECT what FROM look();
BEGIN;
SELECT es_append('own-1', 'none', 'x') IS NOT NULL;
SELECT es_run_projections();
COMMIT;
SELECT es_run_projections();
SELECT what FROM look();
-- Within a savepoint.
BEGIN;
SELECT es_append('own-1', 'any', 'y') IS NOT NULL;
SAVEPOINT s;
SELECT es_run_projections();
ROLLBACK TO s;
SELECT es_run_projections();
COMMIT;
SELECT what FROM look();
-- With one snapshot: what that sees.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT es_append('own-1', 'any', 'z') IS NOT NULL;
SELECT es_run_projections();
SELECT what FROM look();
COMMIT;
BEGIN READ ONLY;
SELECT es_run_projections();
ROLLBACK;
-- A handler that appends makes an event for the next run.
CREATE FUNCTION answer(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM es_append('own-' || (split_part(event.stream, '-', 2)::int + 1), 'none', 'answer');
END $$;
SELECT es_create_projection('answer', 'answer(es_recorded_event)', types => '{ask}', start_position => NULL);
SELECT es_append('own-7', 'none', 'ask') IS NOT NULL;
SELECT es_run_projections('answer'), es_run_projections('p'), es_run_projections();
SELECT what FROM look();
SELECT es_drop_projection(name) FROM es_projections;

--
-- A schema of handlers: on_<type>, if there is one
--
CREATE SCHEMA "On Event";
DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['on_opened', 'on_Opened', 'on_with space', 'on_quote"quote''', 'on_', 'on_é', 'opened',
                                'on_' || repeat('t', 60), 'on_' || repeat('u', 61)]
    LOOP
        EXECUTE format('CREATE FUNCTION "On Event".%I(event es_recorded_event) RETURNS void LANGUAGE sql AS %L', name,
                       format('INSERT INTO seen (who, what) VALUES (%L, left(event.type, 61))', left(name, 61)));
    END LOOP;
END $$;
CREATE FUNCTION "On Event".on_overloaded(event es_recorded_event) RETURNS void LANGUAGE sql AS 'INSERT INTO seen (who) VALUES (''on_overloaded'')';
CREATE FUNCTION "On Event".on_overloaded(event record) RETURNS void LANGUAGE plpgsql AS 'BEGIN RAISE ''wrong one''; END';
CREATE FUNCTION "On Event".on_overloaded(text) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION "On Event".on_other(text) RETURNS void LANGUAGE sql AS '';
SELECT es_create_projection('schema', handler_schema => '"On Event"', start_position => NULL);
SELECT handler_schema FROM es_projections;
SELECT (es_append('t-1', 'any', type)).version FROM unnest(ARRAY['opened', 'Opened', 'nothing', 'with space', 'quote"quote''', 'é', 'other',
    'overloaded', 'opened', repeat('t', 60), repeat('u', 60), repeat('u', 61), repeat('t', 255)]) type;
SELECT es_run_projections();
SELECT who, what FROM look();
SELECT position = es_horizon() FROM es_projections;
-- One that comes or goes later.
DROP FUNCTION "On Event".on_opened;
CREATE FUNCTION "On Event".on_nothing(event es_recorded_event) RETURNS void LANGUAGE sql AS 'INSERT INTO seen (who) VALUES (''on_nothing'')';
SELECT (es_append_batch('t-1', 'any', '[{"type": "opened"}, {"type": "nothing"}]')).version;
SELECT es_run_projections();
SELECT who, what FROM look();
SELECT es_drop_projection('schema');

--
-- A materialized view
--
CREATE MATERIALIZED VIEW streams AS SELECT es_category(stream) AS category, count(*) AS n FROM es_events GROUP BY 1 WITH NO DATA;
SELECT es_create_projection('view', refresh => 'streams', min_interval => '0', category => 'v');
SELECT es_append('v-1', 'any', 'x') IS NOT NULL;
-- Not populated, no index.
SELECT es_run_projections();
SELECT * FROM streams WHERE category = 'v';
SELECT es_append('v-1', 'any', 'x') IS NOT NULL, es_append('v-1', 'any', 'x') IS NOT NULL;
SELECT es_run_projections();
SELECT * FROM streams WHERE category = 'v';
-- With one it is concurrently, which keeps the view's file.
CREATE UNIQUE INDEX ON streams (category);
CREATE FUNCTION file_of(view regclass) RETURNS oid LANGUAGE sql AS 'SELECT pg_relation_filenode(view)';
SELECT file_of('streams') AS file \gset
SELECT es_append('v-1', 'any', 'x') IS NOT NULL;
SELECT es_run_projections();
SELECT *, file_of('streams') = :file AS same_file FROM streams WHERE category = 'v';
-- Unless it has been emptied, or the index is not on all rows' columns.
REFRESH MATERIALIZED VIEW streams WITH NO DATA;
SELECT es_append('v-1', 'any', 'x') IS NOT NULL;
SELECT es_run_projections();
SELECT * FROM streams WHERE category = 'v';
DROP INDEX streams_category_idx;
CREATE UNIQUE INDEX ON streams (category) WHERE n > 0;
CREATE UNIQUE INDEX ON streams (lower(category));
SELECT file_of('streams') AS file \gset
SELECT es_append('v-1', 'any', 'x') IS NOT NULL;
SELECT es_run_projections();
SELECT *, file_of('streams') = :file AS same_file FROM streams WHERE category = 'v';
SELECT sqlstate, message, position = es_horizon() AS at_horizon, handled, refreshed_at IS NOT NULL AS refreshed FROM es_projections;
-- Nothing that it wants: no refresh.
SELECT file_of('streams') AS file \gset
SELECT es_append('w-1', 'any', 'x') IS NOT NULL;
SELECT es_run_projections();
SELECT file_of('streams') = :file AS same_file, position = es_horizon() AS at_horizon FROM es_projections;
-- Not before its time.
SELECT es_alter_projection('view', min_interval => '1 day');
SELECT es_append('v-1', 'any', 'x') IS NOT NULL;
SELECT es_run_projections(), es_run_projections('view');
SELECT n FROM streams WHERE category = 'v';
SELECT lag_events FROM es_projection_status;
SELECT es_alter_projection('view', min_interval => '0');
SELECT es_run_projections();
SELECT n FROM streams WHERE category = 'v';
SELECT es_drop_projection('view');

--
-- Kinds of functions
--
CREATE FUNCTION as_text(event es_recorded_event) RETURNS void LANGUAGE sql AS $$
    INSERT INTO seen (who, what) VALUES ('as_text', event.type);
    UPDATE seen SET what = what || '!' WHERE who = 'as_text';
$$;
CREATE FUNCTION atomic(event es_recorded_event) RETURNS void LANGUAGE sql
BEGIN ATOMIC
    INSERT INTO seen (who, what) VALUES ('atomic', (event).type);
END;
CREATE FUNCTION definer(event es_recorded_event) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO seen (who, what) VALUES ('definer', current_user = session_user);
END $$;
CREATE FUNCTION settings(event es_recorded_event) RETURNS void LANGUAGE plpgsql SET work_mem = '123kB' SET search_path = 'pg_catalog' AS $$
BEGIN
    INSERT INTO public.seen (who, what) VALUES ('settings', current_setting('work_mem') || ' ' || current_setting('search_path'));
END $$;
CREATE FUNCTION strict(event es_recorded_event) RETURNS void LANGUAGE plpgsql STRICT AS $$
BEGIN
    INSERT INTO seen (who) VALUES ('strict');
END $$;
CREATE FUNCTION immutable(event es_recorded_event) RETURNS void LANGUAGE sql IMMUTABLE AS 'SELECT';
CREATE FUNCTION polymorphic(event anyelement) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO seen (who, what) VALUES ('polymorphic', pg_typeof(event));
END $$;
CREATE FUNCTION any_record(event record) RETURNS void LANGUAGE plpgsql AS 'BEGIN END';
SELECT es_create_projection(name, format('%s(es_recorded_event)', name)::regprocedure, start_position => NULL)
  FROM unnest('{as_text,atomic,definer,settings,strict,immutable}'::text[]) name;
SELECT es_create_projection('polymorphic', 'polymorphic(anyelement)');
SELECT es_create_projection('any_record', 'any_record(record)');
SELECT es_append('k-1', 'any', 'k') IS NOT NULL;
SELECT es_run_projections(name) FROM es_projections ORDER BY name;
SELECT who, what FROM look() ORDER BY who;
-- The handler is the one of the name: another one may take its place.
CREATE OR REPLACE FUNCTION as_text(event es_recorded_event) RETURNS void LANGUAGE sql AS $$
    INSERT INTO seen (who, what) VALUES ('as_text again', event.type);
$$;
DROP FUNCTION definer(es_recorded_event);
CREATE FUNCTION definer(event es_recorded_event) RETURNS void LANGUAGE sql AS $$
    INSERT INTO seen (who, what) VALUES ('definer again', event.type);
$$;
DROP FUNCTION strict(es_recorded_event);
CREATE FUNCTION strict(event es_recorded_event) RETURNS SETOF int LANGUAGE sql AS 'SELECT 1';
ALTER FUNCTION immutable RENAME TO renamed;
SELECT es_append('k-1', 'any', 'k') IS NOT NULL;
SELECT es_run_projections();
SELECT who, what FROM look() ORDER BY who;
SELECT name, sqlstate, message FROM es_projections WHERE attempts > 0 ORDER BY name;
SELECT es_drop_projection(name) FROM es_projections;

--
-- Names and settings
--
-- The search_path is that of when it was created, not the caller's, and a
-- temporary table never takes the place of the read model.
CREATE SCHEMA app;
CREATE TABLE app.mine (type text);
CREATE FUNCTION app.mine(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO mine VALUES (event.type || ' ' || current_setting('search_path'));
END $$;
SET search_path = app, public;
SELECT es_create_projection('names', 'mine(es_recorded_event)', start_position => NULL);
SELECT es_create_projection('names in a query', query => 'INSERT INTO mine SELECT type FROM new_events', start_position => NULL);
SET search_path = public;
CREATE TEMP TABLE mine (type text);
CREATE TEMP TABLE new_events (type text);
INSERT INTO new_events VALUES ('wrong');
SELECT es_append('n-1', 'any', 'n') IS NOT NULL;
SET search_path = pg_temp, public;
SELECT es_run_projections();
RESET search_path;
SELECT * FROM app.mine ORDER BY type COLLATE "C";
SELECT * FROM mine;
SELECT es_drop_projection(name) FROM es_projections;
DROP TABLE mine, new_events;
-- What a handler sets is put back.
CREATE FUNCTION set_all(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    SET search_path = app;
    SET work_mem = '99kB';
    SET LOCAL statement_timeout = '1 h';
    PERFORM set_config('regress.es', 'set', false);
    INSERT INTO mine VALUES (event.type);
END $$;
SELECT es_create_projection('settings', 'set_all(es_recorded_event)', start_position => NULL);
SELECT es_append_batch('n-2', 'any', '[{"type": "first"}, {"type": "second"}]') IS NOT NULL;
SELECT es_run_projections();
SELECT current_setting('search_path'), current_setting('work_mem') <> '99kB', current_setting('statement_timeout'), current_setting('regress.es', true);
SELECT * FROM app.mine WHERE type IN ('first', 'second');
SELECT es_drop_projection('settings');

--
-- States
--
SELECT es_create_projection('p', 'note(es_recorded_event)', start_position => NULL, max_attempts => 1, batch_size => 1);
SELECT es_append('st-1', 'any', 'one') IS NOT NULL;
SELECT es_pause_projection('p');
SELECT es_pause_projection('p');
SELECT es_run_projections(), es_run_projections('p');
SELECT state, lag_events FROM es_projection_status;
SELECT es_resume_projection('p');
SELECT es_resume_projection('p');
SELECT es_run_projections('p');
SELECT what FROM look();
ALTER TABLE seen ADD CHECK (what NOT LIKE '%bad');
SELECT es_append('st-1', 'any', 'bad') IS NOT NULL;
SELECT es_run_projections();
SELECT es_run_projections(), es_run_projections('p');
SELECT state, lag_events, sqlstate FROM es_projection_status;
SELECT es_pause_projection('p');
SELECT state, sqlstate FROM es_projection_status;
SELECT es_drop_projection('p');
SELECT es_run_projections();

--
-- A handler that runs projections, or a definition out of bounds, harms none
--
CREATE FUNCTION again(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM note(event);
    PERFORM es_run_projections();
END $$;
SELECT es_append_batch('rec-1', 'none', '[{"type": "1"}, {"type": "2"}, {"type": "3"}]') IS NOT NULL;
SELECT es_create_projection('again', 'again(es_recorded_event)', category => 'rec', max_attempts => 1);
DO $$ BEGIN PERFORM es_run_projections(); END $$;
SELECT count(*) = count(DISTINCT position) AS once FROM seen;
SELECT es_drop_projection('again');
TRUNCATE seen;
SELECT es_create_projection('p', 'note(es_recorded_event)', category => 'rec');
DO $$
BEGIN
    PERFORM es_create_projection('view', refresh => 'streams', min_interval => '178000000 years');
EXCEPTION WHEN OTHERS THEN  -- it may be refused
    NULL;
END $$;
DO $$ BEGIN PERFORM es_run_projections(); END $$;
SELECT es_append('rec-2', 'none', '4') IS NOT NULL;
DO $$ BEGIN PERFORM es_run_projections(); END $$;
SELECT what FROM look();
SELECT es_drop_projection(name) IS NOT NULL AS dropped FROM es_projections WHERE name = 'p';
DO $$ BEGIN PERFORM es_drop_projection(name) FROM es_projections; END $$;

--
-- es_work
--
CREATE FUNCTION note_xid(event es_recorded_event) RETURNS void LANGUAGE sql AS $$
    INSERT INTO seen (who, position, what) VALUES (pg_current_xact_id(), event.position, event.type) $$;
CALL es_work();
SELECT es_create_projection('w', 'note_xid(es_recorded_event)', start_position => NULL, batch_size => 2);
SELECT (es_append_batch('wk-1', 'any', '[{"type": "1"}, {"type": "2"}, {"type": "3"}, {"type": "4"}, {"type": "5"}]')).version;
CALL es_work(true);
SELECT dense_rank() OVER (ORDER BY min(n)) AS transaction, string_agg(what, ' ' ORDER BY n) FROM seen GROUP BY who;
CALL es_work(NULL);
BEGIN;
CALL es_work();
ROLLBACK;
DO 'BEGIN CALL es_work(); END';
CREATE FUNCTION work() RETURNS void LANGUAGE plpgsql AS 'BEGIN CALL es_work(); END';
SELECT work();
DO 'BEGIN CALL es_work(); EXCEPTION WHEN invalid_transaction_termination THEN RAISE NOTICE ''refused''; END';
SET default_transaction_read_only = on;
CALL es_work();
RESET default_transaction_read_only;
SELECT es_drop_projection('w');
TRUNCATE seen;

--
-- es_wait
--
SELECT es_create_projection('w', 'note(es_recorded_event)', start_position => NULL, batch_size => 1, max_attempts => 1);
SELECT position FROM es_append('wt-1', 'any', 'good') \gset
SELECT es_wait('w', 0), es_wait('w', :position - 1, '0'), es_wait('w', :position, '0'), es_wait('w', :position, '-1 s'), es_wait('w', :position, '20 ms');
SELECT es_run_projections('w');
SELECT es_wait('w', :position), es_wait('w', :position, '-1 s');
SELECT es_wait('w', :position + 1, '0');
SELECT es_wait('w', NULL);
SELECT position FROM es_append('wt-1', 'any', 'bad') \gset
SELECT es_run_projections('w');
SELECT es_wait('w', :position - 1, '0');
\set VERBOSITY sqlstate
SELECT es_wait('w', :position, '1 h');
\set VERBOSITY default
DO $$ BEGIN PERFORM es_wait('w', (SELECT max(position) FROM es_events), '1 h'); EXCEPTION WHEN SQLSTATE 'ES005' THEN RAISE NOTICE '%', SQLERRM; END $$;
SELECT es_drop_projection('w');
SELECT es_create_projection('w', 'note(es_recorded_event)', start_position => NULL, mode => 'sync');
SELECT position FROM es_append('wt-1', 'any', 'good') \gset
SELECT es_wait('w', :position, '0');
SELECT es_pause_projection('w');
SELECT position AS next FROM es_append('wt-1', 'any', 'good') \gset
SELECT es_wait('w', :position, '0'), es_wait('w', :next, '0');
BEGIN ISOLATION LEVEL REPEATABLE READ;
\set VERBOSITY terse
SELECT es_wait('w', 0);
\set VERBOSITY default
ROLLBACK;

SET client_min_messages = warning;
DROP SCHEMA app, "On Event" CASCADE;
DROP MATERIALIZED VIEW streams;
DROP EXTENSION eventstore CASCADE;
DROP FUNCTION look, file_of, work, polymorphic, any_record;
DROP TABLE seen, last, origin;
