-- Handlers that fail: attempts, the search for the bad event, stop and park,
-- es_failures, es_retry, es_discard.
CREATE EXTENSION eventstore;
CREATE TABLE seen (n int GENERATED ALWAYS AS IDENTITY, position bigint PRIMARY KEY, what text);
CREATE TABLE fixed (what text);
CREATE SEQUENCE calls;
-- Fails for events with "bad" in their data, until that is fixed.
CREATE FUNCTION note(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM nextval('calls');
    INSERT INTO seen (position, what) VALUES (event.position, event.stream || ' ' || event.version);
    IF event.data ? 'bad' AND event.data->>'bad' NOT IN (SELECT what FROM fixed) THEN
        RAISE EXCEPTION '% is bad', event.data->>'bad'
            USING ERRCODE = 'BAD01', DETAIL = 'Version ' || event.version || '.', HINT = 'Mend it.';
    END IF;
END $$;
-- What was seen since the last look, and how often the handler was called.
CREATE FUNCTION look() RETURNS TABLE (seen text, calls bigint) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY WITH gone AS (DELETE FROM seen RETURNING *)
        SELECT string_agg(g.what, ', ' ORDER BY n), nextval('calls') - 1 FROM gone g;
    PERFORM setval('calls', 1, false);
END $$;
CREATE VIEW status AS
SELECT state, position, lag_events AS lag, attempts, sqlstate, last_error, error_detail,
       regexp_replace(error_context, 'id [-0-9a-f]+', 'id ...') AS error_context, parked FROM es_projection_status;
-- Runs until nothing is to be tried any more.
CREATE FUNCTION run_all() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. 3000 LOOP
        PERFORM es_run_projections();
        EXIT WHEN NOT EXISTS (SELECT FROM es_projection_status WHERE state IN ('running', 'retrying') AND position < horizon);
        PERFORM pg_sleep(0.01);
    END LOOP;
END $$;

--
-- stop: of a batch of ten those before the bad one are handled, then that is alone
--
SELECT es_append_batch('a-1', 'none', '[{"type": "t"}, {"type": "t"}, {"type": "t"}, {"type": "t"}, {"type": "t"}, {"type": "t"},
    {"type": "t", "data": {"bad": "seven"}}, {"type": "t"}, {"type": "t"}, {"type": "t"}]');
SELECT es_create_projection('p', 'note(es_recorded_event)', max_attempts => 1, batch_size => 10);
SELECT es_run_projections('p', 1);
SELECT batch_limit, suspect_upto FROM es_projections;
SELECT * FROM status;
SELECT * FROM look();
SELECT es_run_projections('p', 1);
SELECT batch_limit, suspect_upto FROM es_projections;
SELECT * FROM look();
SELECT state, position, attempts, last_error FROM status;
SELECT es_run_projections('p', 1);
SELECT batch_limit, suspect_upto FROM es_projections;
SELECT * FROM look();
\x
SELECT * FROM status;
\x
SELECT next_attempt > clock_timestamp() + '10s' AS long_pause FROM es_projections;
-- It does nothing before its next attempt, or until it is resumed.
SELECT es_append('a-1', 'any', 't') IS NOT NULL;
SELECT es_run_projections(), es_run_projections('p');
SELECT state, position, lag FROM status;
SELECT es_resume_projection('p');
SELECT * FROM status;
SELECT es_run_projections();
SELECT state, position, lag, attempts, last_error FROM status;
SELECT seen FROM look();
INSERT INTO fixed VALUES ('seven');
SELECT es_resume_projection('p');
SELECT es_run_projections();
SELECT * FROM status;
SELECT * FROM look();
SELECT batch_limit, suspect_upto, next_attempt FROM es_projections;
SELECT es_drop_projection('p');
TRUNCATE fixed;

-- All in one call; the first, the last, and several of a batch.
SELECT es_create_projection('p', 'note(es_recorded_event)', max_attempts => 1, category => 'b');
SELECT es_append_batch('b-1', 'none', '[{"type": "t", "data": {"bad": "first"}}, {"type": "t"}, {"type": "t", "data": {"bad": "third"}},
    {"type": "t"}, {"type": "t", "data": {"bad": "fifth"}}]') IS NOT NULL;
SELECT es_run_projections();
SELECT seen FROM look();
SELECT state, lag, last_error FROM status;
INSERT INTO fixed VALUES ('first');
SELECT es_resume_projection('p');
SELECT es_run_projections();
SELECT seen FROM look();
SELECT state, lag, last_error FROM status;
INSERT INTO fixed VALUES ('third');
SELECT es_resume_projection('p');
SELECT es_run_projections();
SELECT seen FROM look();
SELECT state, lag, last_error FROM status;
INSERT INTO fixed VALUES ('fifth');
SELECT es_resume_projection('p');
SELECT es_run_projections();
SELECT seen FROM look();
SELECT state, lag, last_error FROM status;
SELECT es_drop_projection('p');
TRUNCATE fixed;

-- A query's batch is halved as well.
SELECT es_create_projection('q', category => 'b', max_attempts => 1, query => $$
    INSERT INTO seen (position, what) SELECT position, 'query ' || version / (data->>'bad' IS DISTINCT FROM 'third')::int FROM new_events $$);
SELECT es_run_projections();
SELECT seen FROM look();
SELECT state, lag, sqlstate, last_error FROM status;
SELECT es_drop_projection('q');

-- max_attempts: with pauses between, then the error stands.
SET eventstore.max_retry_pause = '10ms';
SELECT es_create_projection('p', 'note(es_recorded_event)', category => 'b', max_attempts => 3, batch_size => 1);
SELECT run_all();
SELECT * FROM look();
SELECT state, attempts, last_error FROM status;
-- A projection that is fixed in between goes on, and clears its error.
SELECT es_alter_projection('p', max_attempts => 1000), es_resume_projection('p');
SELECT es_run_projections();
SELECT s.state, s.attempts > 0 AS attempts, last_error, s.next_attempt > ran_at AS pause
  FROM es_projection_status s JOIN es_projections USING (name);
RESET eventstore.max_retry_pause;
SELECT es_resume_projection('p');
INSERT INTO fixed VALUES ('first'), ('third'), ('fifth');
SELECT run_all();
SELECT seen FROM look();
SELECT state, lag, attempts, sqlstate, last_error FROM status;
SELECT es_drop_projection('p');
TRUNCATE fixed;

--
-- park: the event is parked, later ones of its stream wait behind it
--
SELECT es_create_projection('p', 'note(es_recorded_event)', category => 'c', max_attempts => 1, on_failure => 'park');
SELECT es_append('c-1', 'none', 'opened') IS NOT NULL, es_append('c-2', 'none', 'opened', '{"bad": "c-2"}') IS NOT NULL,
       es_append('c-1', 'any', 'used', '{"bad": "c-1"}') IS NOT NULL, es_append('c-2', 'any', 'used') IS NOT NULL,
       es_append('c-3', 'none', 'opened') IS NOT NULL, es_append('c-1', 'any', 'used', '{"bad": "c-1 later"}') IS NOT NULL,
       es_append('c-3', 'any', 'used') IS NOT NULL, es_append('c-1', 'any', 'closed') IS NOT NULL;
SELECT es_run_projections();
SELECT seen FROM look();
SELECT state, lag, attempts, sqlstate, last_error, parked FROM status;
SELECT f.id, projection, stream, type, sqlstate, message, detail, regexp_replace(context, 'id [-0-9a-f]+', 'id ...') AS context, attempts, e.id = event_id AS event, e.position = f.position AS position,
       first_failed_at <= last_failed_at AS times
  FROM es_failures f JOIN es_events e USING (stream, type, position) ORDER BY f.id;
-- So does what comes later.
SELECT es_append('c-2', 'any', 'closed') IS NOT NULL, es_append('c-3', 'any', 'closed') IS NOT NULL;
SELECT es_run_projections();
SELECT seen FROM look();
-- Listed the newest first, in pages, by projection, stream and type.
SELECT id, stream, type, sqlstate FROM es_failures();
SELECT id FROM es_failures('p');
SELECT id FROM es_failures('nowhere');
SELECT id FROM es_failures(stream => 'c-1');
SELECT id FROM es_failures(type => 'closed');
SELECT id FROM es_failures('p', 'c-2', 'used');
SELECT id FROM es_failures(max_count => 2);
SELECT id FROM es_failures(max_count => 2, skip => 3);
SELECT id FROM es_failures(max_count => 0);
SELECT count(*) FROM es_failures(max_count => NULL), LATERAL (SELECT sqlstate IS NULL) x(waits) WHERE waits;
-- It cannot become sync: later events would pass these.
SELECT es_alter_projection('p', mode => 'sync');
-- es_retry: nothing is fixed.
SELECT id AS c1 FROM es_failures(stream => 'c-1') WHERE sqlstate IS NOT NULL \gset
SELECT id AS c2 FROM es_failures(stream => 'c-2') WHERE sqlstate IS NOT NULL \gset
SELECT id AS c2_last FROM es_failures(stream => 'c-2', type => 'closed') \gset
SELECT es_retry(:c1);
SELECT seen FROM look();
SELECT stream, type, sqlstate, attempts, attempts > 0 AND last_failed_at > first_failed_at AS again FROM es_failures('p', 'c-1');
-- One is; the next bad one of the stream stops it again.
INSERT INTO fixed VALUES ('c-1');
SELECT es_retry(:c1);
SELECT seen FROM look();
SELECT stream, type, sqlstate, message, attempts FROM es_failures('p', 'c-1');
SELECT es_retry(:c1);
-- Any id of the stream retries it from its first.
INSERT INTO fixed VALUES ('c-2');
SELECT es_retry(:c2_last);
SELECT seen FROM look();
SELECT stream, type, sqlstate, attempts FROM es_failures();
SELECT parked FROM status;
-- The stream is free again.
SELECT es_append('c-2', 'any', 'used') IS NOT NULL;
SELECT es_run_projections();
SELECT seen FROM look();
-- es_discard: what waited behind it is handled.
SELECT id AS bad FROM es_failures() WHERE sqlstate IS NOT NULL \gset
SELECT es_discard(:bad);
SELECT seen FROM look();
SELECT count(*) FROM es_failures();
SELECT es_discard(:bad);
SELECT es_retry(0);
SELECT es_discard(9223372036854775807);
SELECT es_retry(NULL);
SELECT es_discard(NULL);
-- A discarded one may be one that waits, or be followed by one that fails.
SELECT es_append_batch('c-4', 'none', '[{"type": "1", "data": {"bad": "1"}}, {"type": "2"}, {"type": "3"}, {"type": "4", "data": {"bad": "4"}}, {"type": "5"}]') IS NOT NULL;
SELECT es_run_projections();
SELECT es_discard(id) FROM es_failures(stream => 'c-4', type => '2');
SELECT seen FROM look();
SELECT type, sqlstate FROM es_failures();
SELECT es_discard(id) FROM es_failures(stream => 'c-4', type => '1');
SELECT seen FROM look();
SELECT type, sqlstate, attempts FROM es_failures();
SELECT es_append_batch('c-5', 'none', '[{"type": "1", "data": {"bad": "1"}}, {"type": "2", "data": {"bad": "2"}}, {"type": "3"}]') IS NOT NULL;
SELECT es_run_projections();
SELECT es_discard(id) FROM es_failures(stream => 'c-5', type => '1');
INSERT INTO fixed VALUES ('1'), ('2'), ('4');
SELECT es_retry(min(id)) FROM es_failures() GROUP BY stream ORDER BY stream;
SELECT seen FROM look();
SELECT count(*) FROM es_failures();
SELECT es_alter_projection('p', mode => 'sync');
SELECT es_alter_projection('p', mode => 'async');
TRUNCATE fixed;
-- All of it is gone with the transaction, and with the projection.
SELECT es_append('c-6', 'none', 'opened', '{"bad": "c-6"}') IS NOT NULL, es_append('c-6', 'any', 'used') IS NOT NULL;
BEGIN;
SELECT es_run_projections();
SELECT count(*) FROM es_failures();
ROLLBACK;
SELECT count(*) FROM es_failures();
SELECT es_run_projections();
BEGIN;
SELECT es_discard(min(id)) FROM es_failures();
SELECT seen FROM look();
ROLLBACK;
SELECT stream, type, sqlstate FROM es_failures();
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT es_retry(min(id)) FROM es_failures();
ROLLBACK;
BEGIN READ ONLY;
SELECT es_discard(min(id)) FROM es_failures();
ROLLBACK;
-- What is parked keeps later events of the stream waiting, whatever the
-- projection does with failures from now on.
DO $$
BEGIN
    PERFORM es_alter_projection('p', on_failure => 'stop');
EXCEPTION WHEN object_not_in_prerequisite_state THEN
    NULL;
END $$;
SELECT es_append('c-6', 'any', 'closed') IS NOT NULL;
DO $$ BEGIN PERFORM es_run_projections(); END $$;
INSERT INTO fixed VALUES ('c-6');
DO $$ BEGIN PERFORM es_retry(min(id)) FROM es_failures(); END $$;
DO $$ BEGIN PERFORM es_run_projections(); END $$;
SELECT seen FROM look();
TRUNCATE fixed;
SELECT es_append('c-7', 'none', 'opened', '{"bad": "c-7"}') IS NOT NULL;
SELECT es_alter_projection('p', on_failure => 'park');
SELECT es_run_projections();
SELECT count(*) FROM es_failures();
SELECT es_drop_projection('p');
SELECT count(*) FROM es_failures();
TRUNCATE seen;

-- Paused or stopped, it can be retried; it is the past that is retried, too.
CREATE FUNCTION note_history(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO seen (position, what) VALUES (event.position, event.type || ' ' || es_replaying());
    IF event.stream NOT IN (SELECT what FROM fixed) THEN
        RAISE 'not yet';
    END IF;
END $$;
SELECT es_append('d-1', 'none', 'old') IS NOT NULL;
SELECT es_create_projection('p', 'note_history(es_recorded_event)', category => 'd', max_attempts => 1, on_failure => 'park');
SELECT es_append('d-1', 'any', 'new') IS NOT NULL, es_append('d-2', 'any', 'new') IS NOT NULL;
SELECT es_run_projections();
SELECT stream, type, sqlstate, message FROM es_failures() ORDER BY id;
SELECT es_pause_projection('p');
INSERT INTO fixed VALUES ('d-1'), ('d-2');
SELECT es_retry(min(id)) FROM es_failures() GROUP BY stream ORDER BY stream;
SELECT seen FROM look();
SELECT state, lag FROM status;
SELECT es_drop_projection('p');
TRUNCATE fixed;

-- A view that cannot be refreshed is a failure.  A handler that is gone is one that does
-- not count: the projection goes on when it is back.
SET eventstore.max_retry_pause = '10ms';
SET client_min_messages = error;
CREATE FUNCTION gone(event es_recorded_event) RETURNS void LANGUAGE sql AS '';
CREATE TABLE base (n int);
INSERT INTO base VALUES (1);
CREATE MATERIALIZED VIEW view AS SELECT 1 / n AS n FROM base;
SELECT es_create_projection('gone', 'gone(es_recorded_event)', max_attempts => 1, batch_size => 2, start_position => NULL);
SELECT es_create_projection('view', refresh => 'view', max_attempts => 2, min_interval => '0');
DROP FUNCTION gone(es_recorded_event);
UPDATE base SET n = 0;
SELECT es_append_batch('e-1', 'none', '[{"type": "1"}, {"type": "2"}, {"type": "3"}]') IS NOT NULL;
DO $$
BEGIN
    WHILE (SELECT min(attempts) < 5 FROM es_projection_status) LOOP
        PERFORM es_run_projections();
        PERFORM pg_sleep(0.01);
    END LOOP;
END $$;
SELECT s.name, s.state, s.attempts > 4 AS attempts, attempts_used, s.sqlstate, last_error, s.failing_since < s.next_attempt AS since,
       s.failed_position, failed_stream, failed_version, failed_type, failed_event_id = e.id AS event
  FROM es_projection_status s JOIN es_projections USING (name) LEFT JOIN es_events e ON e.position = s.failed_position ORDER BY s.name;
CREATE FUNCTION gone(event es_recorded_event) RETURNS void LANGUAGE sql AS 'INSERT INTO seen (position, what) VALUES (event.position, ''back'')';
UPDATE base SET n = 1;
DO $$
BEGIN
    WHILE (SELECT bool_or(position < horizon) FROM es_projection_status) LOOP
        PERFORM es_run_projections();
        PERFORM pg_sleep(0.01);
    END LOOP;
END $$;
SELECT name, state, attempts, sqlstate, last_error, failing_since, next_attempt, failed_position FROM es_projection_status ORDER BY name;
SELECT seen FROM look();
SELECT es_drop_projection(name) FROM es_projections;
RESET eventstore.max_retry_pause;
RESET client_min_messages;

-- Deferred constraints of the read model are checked with the batch in es_work.
CREATE TABLE once (what text CONSTRAINT once_only UNIQUE DEFERRABLE INITIALLY DEFERRED);
SELECT es_create_projection('p', query => 'INSERT INTO once SELECT type FROM new_events', max_attempts => 1, on_failure => 'park', start_position => NULL);
SELECT es_append_batch('f-1', 'none', '[{"type": "1"}, {"type": "2"}]') IS NOT NULL, es_append_batch('f-2', 'none', '[{"type": "1"}, {"type": "3"}]') IS NOT NULL,
       es_append('f-3', 'none', '3') IS NOT NULL;
CALL es_work();
SELECT * FROM once ORDER BY what;
SELECT stream, type, sqlstate, message, detail FROM es_failures();
SELECT es_drop_projection('p');

-- A cancel is no failure: it ends the run.
CREATE FUNCTION sleep(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(600); END $$;
SELECT es_create_projection('p', 'sleep(es_recorded_event)', max_attempts => 1, on_failure => 'park');
\set VERBOSITY terse
SET statement_timeout = '200ms';
SELECT es_run_projections();
CALL es_work();
RESET statement_timeout;
\set VERBOSITY default
SELECT state, attempts, last_error, parked FROM status;
SELECT es_drop_projection('p');

-- Nobody else retries what is the owner's.
CREATE ROLE regress_es_other;
GRANT EXECUTE ON FUNCTION es_retry, es_discard, es_run_projections TO regress_es_other;
SELECT es_create_projection('p', 'note(es_recorded_event)', category => 'c', max_attempts => 1, on_failure => 'park');
SELECT es_run_projections() > 0;
SELECT min(id) AS id FROM es_failures() \gset
SET ROLE regress_es_other;
SELECT es_retry(:id);
SELECT es_discard(:id);
SELECT * FROM es_failures();
SELECT es_run_projections();
RESET ROLE;
REVOKE EXECUTE ON FUNCTION es_retry, es_discard, es_run_projections FROM regress_es_other;
DROP ROLE regress_es_other;

SET client_min_messages = warning;
DROP MATERIALIZED VIEW view;
DROP EXTENSION eventstore CASCADE;
DROP FUNCTION look, run_all;
DROP TABLE seen, fixed, base, once;
DROP SEQUENCE calls;
