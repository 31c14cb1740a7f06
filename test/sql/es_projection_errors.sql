-- What fails is named: projection, position, version, stream, type and id of the event.
-- An error that no event causes uses up no attempts, and the projection goes on by itself.
CREATE EXTENSION eventstore;
CREATE TABLE seen (position bigint PRIMARY KEY, stream text, n int);
CREATE FUNCTION note(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO seen VALUES (event.position, event.stream, (event.data->>'n')::int);
END $$;
-- An event with a known id.
CREATE FUNCTION put(stream text, number int, n text DEFAULT '1', type text DEFAULT 'added') RETURNS bigint LANGUAGE sql
RETURN (es_append(stream, 'any', type, jsonb_build_object('n', n), id => format('00000000-0000-0000-0000-%s', lpad(number::text, 12, '0'))::uuid)).position;
CREATE VIEW status AS
SELECT name, state, position, attempts, sqlstate, last_error, failed_position, failed_version, failed_stream, failed_type, right(failed_event_id::text, 4) AS failed_id,
       failing_since IS NOT NULL AS since, next_attempt > clock_timestamp() AS pause FROM es_projection_status;

--
-- sync: the append says which projection, and which of its events
--
SELECT es_create_projection('handler', 'note(es_recorded_event)', category => 'a', mode => 'sync', tables => '{seen}');
SELECT put('a-1', 1), put('a-1', 2);
SELECT put('a-1', 3, 'three');
SELECT es_append_batch('a-1', 'any', '[{"type": "added", "data": {"n": 1}, "id": "00000000-0000-0000-0000-000000000003"},
    {"type": "removed", "data": {"n": "x"}, "id": "00000000-0000-0000-0000-000000000004"},
    {"type": "added", "data": {"n": 1}, "id": "00000000-0000-0000-0000-000000000005"}]');
INSERT INTO es_import (stream, type, data, id) VALUES ('a-8', 'added', '{"n": 1}', '00000000-0000-0000-0000-000000000006'),
    ('a-9', 'added', '{"n": "y"}', '00000000-0000-0000-0000-000000000007');
SELECT es_drop_projection('handler');
CREATE SCHEMA on_type;
CREATE FUNCTION on_type.on_added(event es_recorded_event) RETURNS void LANGUAGE sql BEGIN ATOMIC SELECT note(event); END;
SELECT es_create_projection('schema', handler_schema => 'on_type', category => 'b', mode => 'sync', tables => '{seen}');
SELECT put('b-1', 10, 'ten');
SELECT es_drop_projection('schema');
-- A query has the whole batch.
SELECT es_create_projection('query', category => 'c', mode => 'sync', tables => '{seen}', query =>
    'INSERT INTO seen SELECT position, stream, (data->>''n'')::int FROM new_events');
SELECT put('c-1', 20, 'twenty');
SELECT es_append_batch('c-1', 'any', '[{"type": "added", "data": {"n": 1}, "id": "00000000-0000-0000-0000-000000000021"},
    {"type": "added", "data": {"n": 1}, "id": "00000000-0000-0000-0000-000000000022"},
    {"type": "removed", "data": {"n": "x"}, "id": "00000000-0000-0000-0000-000000000023"}]');
-- Nobody reads the names while nothing fails: a notice in a query, in the middle of a batch.
CREATE FUNCTION say(n int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'here %', n USING ERRCODE = '22012'; RETURN n; END $$;
SELECT es_create_projection('says', category => 'n', mode => 'sync', tables => '{seen}', query =>
    'INSERT INTO seen SELECT position, stream, say((data->>''n'')::int) FROM new_events');
SELECT es_append_batch('n-1', 'any', '[{"type": "added", "data": {"n": 1}, "id": "00000000-0000-0000-0000-000000000024"},
    {"type": "added", "data": {"n": 2}, "id": "00000000-0000-0000-0000-000000000025"},
    {"type": "added", "data": {"n": 3}, "id": "00000000-0000-0000-0000-000000000026"}]') IS NOT NULL AS appended;
SELECT stream, n FROM seen WHERE stream = 'n-1' ORDER BY position;
SELECT es_drop_projection('query'), es_drop_projection('says');
TRUNCATE seen;

--
-- async: the status and the log say it; only the event that fails is not handled
--
SELECT put('d-1', 30), put('d-2', 31), put('d-3', 32, 'bad', 'removed'), put('d-1', 33), put('d-2', 34);
SELECT es_create_projection('handler', 'note(es_recorded_event)', category => 'd', max_attempts => 1);
SELECT es_create_projection('query', category => 'd', max_attempts => 1, query => $$
    INSERT INTO seen SELECT -position, stream, (data->>'n')::int FROM new_events $$);
\set SHOW_CONTEXT always
SELECT es_run_projections('handler');
SELECT es_run_projections('query');
\set SHOW_CONTEXT errors
\x
SELECT * FROM status ORDER BY name;
\x
SELECT string_agg(position::text, ' ' ORDER BY abs(position), position DESC) FROM seen;
SELECT es_drop_projection('handler'), es_drop_projection('query');
TRUNCATE seen;
-- Deferred checks, in the transaction of a worker or of es_work.
CREATE TABLE once (n int CONSTRAINT only_once UNIQUE DEFERRABLE INITIALLY DEFERRED);
SELECT put('e-1', 40), put('e-1', 41, '2'), put('e-1', 42, '2', 'again'), put('e-1', 43, '3');
SELECT es_create_projection('deferred', category => 'e', max_attempts => 1, query => $$ INSERT INTO once SELECT (data->>'n')::int FROM new_events $$);
CALL es_work();
SELECT last_error, failed_position, failed_version, failed_type, failed_id FROM status;
SELECT es_drop_projection('deferred');
-- A rebuild.
CREATE TABLE rebuilt (position bigint PRIMARY KEY, n int);
CREATE FUNCTION note_rebuilt(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO rebuilt VALUES (event.position, (event.data->>'n')::int);
END $$;
SELECT es_create_projection('p', 'note_rebuilt(es_recorded_event)', category => 'd', tables => '{rebuilt}', max_attempts => 1);
SELECT es_rebuild_projection('p');
SELECT es_create_projection('q', category => 'd', tables => '{rebuilt}', query =>
    $$ INSERT INTO rebuilt SELECT position, (data->>'n')::int FROM new_events $$);
SELECT es_rebuild_projection('q');
-- With park it goes on, says it once, and what cannot be an event's fault ends it.
SELECT es_alter_projection('p', on_failure => 'park');
SELECT es_rebuild_projection('p');
SELECT position, stream, version, type, right(event_id::text, 4) AS id, attempts, retry_at IS NULL AS for_good FROM es_failures;
ALTER FUNCTION note_rebuilt(es_recorded_event) RENAME TO note_renamed;
SELECT es_rebuild_projection('p');
SELECT count(*) FROM es_failures;
SELECT es_drop_projection('p'), es_drop_projection('q');
-- A query that fails for a batch, but for no event of it, is divided as by a runner.
CREATE TABLE latest (stream text PRIMARY KEY, position bigint);
SELECT es_create_projection('q', category => 'd', tables => '{latest}', query =>
    $$ INSERT INTO latest AS l SELECT stream, position FROM new_events ON CONFLICT (stream) DO UPDATE SET position = greatest(l.position, excluded.position) $$);
SELECT es_rebuild_projection('q');
TABLE latest ORDER BY stream;
SELECT es_drop_projection('q');
-- Becoming sync.
SELECT es_create_projection('p', 'note(es_recorded_event)', category => 'd', tables => '{seen}', mode => 'sync');
-- A view.
CREATE MATERIALIZED VIEW view AS SELECT 1 / count(*) AS n FROM seen WITH NO DATA;
TRUNCATE seen;
SELECT es_create_projection('view', refresh => 'view', max_attempts => 1);
\set SHOW_CONTEXT always
SELECT es_run_projections();
\set SHOW_CONTEXT errors
SELECT name, state, last_error, failed_position FROM status;
SELECT es_drop_projection('view');

--
-- What is not an event's fault: no attempt is used up, nothing is parked, and the
-- projection goes on by itself when the cause is gone
--
SET eventstore.max_retry_pause = '10ms';
CREATE ROLE regress_es_owner;
GRANT SELECT ON es_events TO regress_es_owner;
GRANT EXECUTE ON FUNCTION es_create_projection TO regress_es_owner;
GRANT CREATE ON SCHEMA public TO regress_es_owner;
CREATE SCHEMA side;
CREATE TABLE side.seen (position bigint PRIMARY KEY, n int);
CREATE TABLE side.seen_row (position bigint PRIMARY KEY, n int);
GRANT USAGE ON SCHEMA side TO regress_es_owner;
GRANT INSERT ON side.seen, side.seen_row TO regress_es_owner;
SET ROLE regress_es_owner;
CREATE FUNCTION note_side(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO side.seen (position, n) VALUES (event.position, (event.data->>'n')::int);
END $$;
SELECT es_create_projection('stops', 'note_side(es_recorded_event)', category => 'f', max_attempts => 1);
SELECT es_create_projection('parks', category => 'f', max_attempts => 1, on_failure => 'park', query =>
    $$ INSERT INTO side.seen_row (position, n) SELECT position, (data->>'n')::int FROM new_events $$);
RESET ROLE;
SET client_min_messages = error;
-- Runs until each has failed some times.
CREATE FUNCTION runs(attempts int, OUT state text, OUT sqlstate text, OUT used int, OUT parked bigint, OUT events text) LANGUAGE plpgsql AS $$
BEGIN
    WHILE (SELECT min(p.attempts) < runs.attempts FROM es_projections p) LOOP
        PERFORM es_run_projections();
        PERFORM pg_sleep(0.005);
    END LOOP;
    SELECT string_agg(DISTINCT s.state, ' '), string_agg(DISTINCT s.sqlstate, ' '), max(p.attempts_used), sum(s.parked),
           string_agg(DISTINCT s.failed_position || ' ' || s.failed_stream, ', ')
      INTO state, sqlstate, used, parked, events
      FROM es_projection_status s JOIN es_projections p USING (name);
END $$;
-- Runs until each has nothing left to do.
CREATE FUNCTION goes_on(OUT state text, OUT attempts int, OUT same boolean) LANGUAGE plpgsql AS $$
BEGIN
    WHILE EXISTS (SELECT FROM es_projection_status s WHERE s.position < s.horizon) LOOP
        PERFORM es_run_projections();
        PERFORM pg_sleep(0.005);
    END LOOP;
    SELECT string_agg(DISTINCT s.state, ' '), max(s.attempts),
           (SELECT count(*) FROM side.seen) = (SELECT count(*) FROM es_events WHERE stream = 'f-1')
           AND (SELECT count(*) FROM side.seen_row) = (SELECT count(*) FROM es_events WHERE stream = 'f-1')
      INTO state, attempts, same
      FROM es_projection_status s;
END $$;
SELECT put('f-1', 51), put('f-1', 52), put('f-1', 53);
REVOKE INSERT ON side.seen, side.seen_row FROM regress_es_owner;
SELECT * FROM runs(4);
GRANT INSERT ON side.seen, side.seen_row TO regress_es_owner;
SELECT * FROM goes_on();
SELECT put('f-1', 54), put('f-1', 55);
REVOKE SELECT ON es_events FROM regress_es_owner;
SELECT * FROM runs(3);
GRANT SELECT ON es_events TO regress_es_owner;
SELECT * FROM goes_on();
SELECT put('f-1', 56), put('f-1', 57);
ALTER SCHEMA side RENAME TO other;
SELECT * FROM runs(3);
ALTER SCHEMA other RENAME TO side;
SELECT * FROM goes_on();
SELECT put('f-1', 58), put('f-1', 59);
ALTER TABLE side.seen RENAME n TO m;
ALTER TABLE side.seen_row RENAME n TO m;
SELECT * FROM runs(3);
ALTER TABLE side.seen RENAME m TO n;
ALTER TABLE side.seen_row RENAME m TO n;
SELECT * FROM goes_on();
-- Handlers that raise such an error by themselves: of each class.
CREATE FUNCTION fail(code text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = code; END $$;
CREATE TABLE code (code text);
INSERT INTO code VALUES ('00000');
CREATE FUNCTION raise_code() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT c.code <> '00000' FROM code c) THEN
        PERFORM fail(c.code) FROM code c;
    END IF;
    RETURN NULL;
END $$;
ALTER FUNCTION raise_code() SECURITY DEFINER;
CREATE TRIGGER raise AFTER INSERT ON side.seen FOR EACH ROW EXECUTE FUNCTION raise_code();
CREATE TRIGGER raise AFTER INSERT ON side.seen_row FOR EACH ROW EXECUTE FUNCTION raise_code();
SELECT put('f-1', 60), put('f-1', 61);
CREATE FUNCTION with_code(code text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM es_resume_projection(name) FROM es_projections;
    UPDATE code SET code = with_code.code;
    RETURN (SELECT code || ': ' || state || CASE WHEN used > 0 THEN ', used' ELSE '' END || ', ' || parked || ' parked' FROM runs(2));
END $$;
SELECT with_code(code) FROM unnest('{08006, 3F000, 3D000, 40001, 40P01, 42501, 42P01, 42883, 42703, 42704, 53100, 53200, 53300, 55P03, 55006, 57P01, 58030}'::text[]) AS code;
-- The others are an event's own: the projection has failed.
SELECT es_alter_projection('parks', on_failure => 'stop');
SELECT with_code(code) FROM unnest('{0A000, 22012, 22P02, 23505, 23514, 55000, 57014, P0001, XX000}'::text[]) AS code;
UPDATE code SET code = '00000';
-- It goes on by itself all the same.
SELECT * FROM goes_on();
RESET client_min_messages;
DROP TRIGGER raise ON side.seen;
DROP TRIGGER raise ON side.seen_row;
RESET eventstore.max_retry_pause;

--
-- Pauses grow; es_resume_projection ends one; es_alter_projection, too
--
SELECT put('f-1', 70, 'bad');
SELECT es_alter_projection('stops', max_attempts => 4);
SELECT es_drop_projection('parks');
-- Makes the next attempt now, and returns how long the pause after it is, from 0.5 to 1.5 times that.
CREATE FUNCTION pause(number int, OUT attempts int, OUT state text, OUT about int, OUT right_pause boolean) LANGUAGE plpgsql AS $$
DECLARE
    p es_projections;
    seconds float8;
BEGIN
    UPDATE es_projections SET next_attempt = clock_timestamp();
    PERFORM es_run_projections();
    SELECT * INTO p FROM es_projections;
    attempts := p.attempts;
    state := p.state;
    seconds := extract(epoch FROM p.next_attempt - p.ran_at);
    about := least(300, CASE WHEN p.state = 'failed' THEN greatest(30, 2 ^ (p.attempts - 1)) ELSE 2 ^ (p.attempts - 1) END);
    right_pause := seconds BETWEEN about * 0.49 AND least(about * 1.51, 300.1);
END $$;
\set VERBOSITY terse
SELECT p.* FROM generate_series(1, 11) AS i, LATERAL pause(i) AS p;
\set VERBOSITY default
SELECT es_resume_projection('stops');
SELECT state, attempts, since, pause, failed_position FROM status;
SELECT es_run_projections();
SELECT state, attempts, since, pause, failed_position FROM status;
SELECT es_alter_projection('stops', on_failure => 'park');
SELECT es_run_projections();
SELECT state, attempts, since, pause, failed_position FROM status;

--
-- park: other streams go on at once, and the event is tried again by itself
--
SELECT position, stream, attempts, retry_at > last_failed_at AS retried FROM es_failures ORDER BY position;
UPDATE es_failures SET retry_at = clock_timestamp() + '1h';
SELECT put('f-1', 71) - max(position), put('f-2', 72) - max(position) FROM es_events;
SELECT es_run_projections();
SELECT (SELECT string_agg(stream || ' ' || version, ', ' ORDER BY position) FROM es_events JOIN side.seen USING (position) WHERE version > 11 OR stream = 'f-2') AS seen,
       (SELECT string_agg(stream || ' ' || version || coalesce(' ' || attempts, ''), ', ' ORDER BY position) FROM es_failures) AS parked;
-- Not before it is time.
SELECT es_run_projections();
SELECT attempts FROM es_failures ORDER BY position;
-- It is time.
SET eventstore.max_retry_pause = '1ms';
UPDATE es_failures SET retry_at = clock_timestamp() WHERE retry_at IS NOT NULL;
SELECT es_run_projections(max_batches => 1);
SELECT attempts, retry_at > last_failed_at AS retried FROM es_failures ORDER BY position;
-- es_wait: it has not taken effect, and is tried again.
RESET eventstore.max_retry_pause;
SELECT es_run_projections(max_batches => 0);
UPDATE es_failures SET retry_at = clock_timestamp() + '1h' WHERE retry_at IS NOT NULL;
SELECT min(position) AS bad, max(position) AS behind FROM es_failures \gset
SELECT es_wait('stops', :bad, '10ms') AS bad, es_wait('stops', :behind, '10ms') AS behind, es_wait('stops', :behind + 1) AS other, es_wait('stops', :bad - 1) AS before;
-- A cause outside of the event does not count here, either.
REVOKE INSERT ON side.seen FROM regress_es_owner;
SELECT es_resume_projection('stops');
SELECT es_run_projections();
SELECT attempts, sqlstate, retry_at > last_failed_at AS retried FROM es_failures ORDER BY position;
REVOKE SELECT ON es_events FROM regress_es_owner;
SELECT es_resume_projection('stops');
SELECT es_run_projections();
SELECT attempts, sqlstate, message FROM es_failures ORDER BY position;
GRANT SELECT ON es_events TO regress_es_owner;
GRANT INSERT ON side.seen TO regress_es_owner;
-- At last it is parked for good.
SELECT es_alter_projection('stops', max_attempts => 3);
SELECT es_resume_projection('stops');
SELECT es_run_projections();
SELECT attempts, retry_at FROM es_failures ORDER BY position;
SELECT es_resume_projection('stops');
SELECT es_run_projections();
SELECT attempts, retry_at FROM es_failures ORDER BY position;
DO $$ BEGIN PERFORM es_wait('stops', min(position)) FROM es_failures; EXCEPTION WHEN SQLSTATE 'ES005' THEN RAISE NOTICE 'ES005'; END $$;
SELECT es_wait('stops', :bad);
SELECT es_wait('stops', :behind);
SELECT es_wait('stops', :behind + 1);
-- A role that may not read the error gets the failure's id alone.
CREATE ROLE regress_es_web;
GRANT EXECUTE ON FUNCTION es_wait TO regress_es_web;
SET ROLE regress_es_web;
SELECT es_wait('stops', :bad);
RESET ROLE;
-- Fixed, it takes effect, and so does what waited behind it.
CREATE OR REPLACE FUNCTION note_side(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO side.seen (position, n) VALUES (event.position, CASE WHEN event.data->>'n' <> 'bad' THEN (event.data->>'n')::int END);
END $$;
SELECT es_retry(id) FROM es_failures ORDER BY position LIMIT 1;
SELECT es_wait('stops', :bad), es_wait('stops', :behind);
SELECT count(*) FROM es_failures;

-- Fixed before its attempts are over, it takes effect by itself, with all that waits,
-- a batch at a time.
CREATE OR REPLACE FUNCTION note_side(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO side.seen (position, n) VALUES (event.position, (event.data->>'n')::int);
END $$;
SELECT es_alter_projection('stops', batch_size => 2);
SELECT put('f-3', 80, 'bad') - max(position) FROM es_events;
SELECT count(put('f-3', 80 + i)) FROM generate_series(1, 4) AS i;
SELECT es_run_projections();
SELECT count(*), count(retry_at) FROM es_failures;
CREATE OR REPLACE FUNCTION note_side(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO side.seen (position, n) VALUES (event.position, CASE WHEN event.data->>'n' <> 'bad' THEN (event.data->>'n')::int END);
END $$;
SELECT es_resume_projection('stops');
SELECT es_run_projections('stops', 1);
SELECT count(*), count(retry_at) FROM es_failures;
SELECT es_run_projections('nowhere');
SELECT es_run_projections();
SELECT count(*) FROM es_failures;
SELECT string_agg(version::text, ' ' ORDER BY seen.ctid) FROM side.seen JOIN es_events USING (position) WHERE stream = 'f-3';

-- What fails is tried once in a call, however short the pauses are.
SET eventstore.max_retry_pause = '1ms';
SELECT es_create_projection('always', query => 'SELECT 1 / (position - position) FROM new_events', max_attempts => 1000, batch_size => 1);
SELECT es_run_projections('always');
SELECT attempts FROM es_projections WHERE name = 'always';
SELECT es_alter_projection('always', on_failure => 'park');
SELECT es_run_projections('always') > 0;
SELECT max(attempts) FROM es_failures WHERE projection = 'always';
SELECT pg_sleep(0.005);
SELECT es_run_projections('always') > 0;
SELECT max(attempts) FROM es_failures WHERE projection = 'always';
RESET eventstore.max_retry_pause;

DROP EXTENSION eventstore CASCADE;
DROP SCHEMA side, on_type CASCADE;
DROP MATERIALIZED VIEW view;
DROP TABLE seen, once, rebuilt, code, latest;
DROP FUNCTION fail, raise_code, say, runs, goes_on, with_code, pause;
REVOKE CREATE ON SCHEMA public FROM regress_es_owner;
DROP ROLE regress_es_owner, regress_es_web;
