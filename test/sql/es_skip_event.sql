-- es_skip_event: a projection leaves an event out, now, in retries and in rebuilds.
CREATE EXTENSION eventstore;
SET eventstore.max_retry_pause = '10ms';
CREATE TABLE seen (n int GENERATED ALWAYS AS IDENTITY, position bigint PRIMARY KEY, what text);
-- Fails for events with "bad" in their data.
CREATE FUNCTION note(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF event.data ? 'bad' THEN
        RAISE EXCEPTION '% is bad', event.data->>'bad';
    END IF;
    INSERT INTO seen (position, what) VALUES (event.position, event.stream || ' ' || event.version);
END $$;
CREATE VIEW model AS SELECT string_agg(what, ', ' ORDER BY position) AS seen FROM seen;
-- Runs until nothing is to be tried any more.
CREATE FUNCTION run_all() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. 3000 LOOP
        PERFORM es_run_projections();
        EXIT WHEN NOT EXISTS (SELECT FROM es_projection_status WHERE state IN ('running', 'retrying') AND position < horizon);
        PERFORM pg_sleep(0.01);
    END LOOP;
    RETURN (SELECT seen FROM model);
END $$;
-- Positions as the tests know them: without the gaps that errors leave.
CREATE FUNCTION at(stream text, version bigint) RETURNS bigint STABLE LANGUAGE sql
    AS $$ SELECT e.position FROM es_events e WHERE e.stream = at.stream AND e.version = at.version $$;

--
-- A projection that waits at the event goes on at once, also from failed
--
SELECT es_append_batch('a-1', 'none', '[{"type": "t"}, {"type": "t"}, {"type": "t", "data": {"bad": "third"}}, {"type": "t"}, {"type": "other"}]');
SELECT es_create_projection('p', 'note', tables => '{seen}', category => 'a', types => '{t}', max_attempts => 2);
SET client_min_messages = error;
SELECT run_all();
SET client_min_messages = notice;
SELECT state, attempts, failed_position = at('a-1', 3) AS failed FROM es_projection_status;
-- Nothing changes by skipping another one, which is still ahead.
SELECT es_skip_event('p', at('a-1', 4));
SELECT state, attempts, failed_position = at('a-1', 3) AS failed FROM es_projection_status;
SELECT es_unskip_event('p', at('a-1', 4));
SELECT es_skip_event('p', at('a-1', 3), 'it was a test');
SELECT state, attempts, next_attempt, failing_since, failed_position, sqlstate, last_error, error_context FROM es_projection_status;
SELECT run_all();
SELECT state, lag_events, handled, last_error FROM es_projection_status;
SELECT projection, s.position = e.position AS position, s.stream, s.type, reason, skipped_by = current_user AS by, skipped_at <= clock_timestamp() AS at
  FROM es_skipped_events s JOIN es_events e ON e.id = s.event_id;
-- It is waited for as an event that was handled.
SELECT es_wait('p', at('a-1', 3), '0');
-- The same log gives the same read model.
SELECT es_rebuild_projection('p');
SELECT * FROM model;
-- Once is enough.
SELECT es_skip_event('p', at('a-1', 3), 'again');
SELECT reason FROM es_skipped_events;
-- A pause stays one.
SELECT es_pause_projection('p');
SELECT es_append('a-1', 'any', 't', '{"bad": "sixth"}') IS NOT NULL;
SELECT es_skip_event('p', at('a-1', 6));
SELECT state FROM es_projection_status;
SELECT es_resume_projection('p');
SELECT run_all();

--
-- An event that was handled has its effect until a rebuild
--
SELECT es_skip_event('p', at('a-1', 1));
SELECT * FROM model;
SELECT es_rebuild_projection('p');
SELECT * FROM model;
SELECT es_unskip_event('p', at('a-1', 1));
SELECT es_rebuild_projection('p');
SELECT * FROM model;
-- So can one that a changed handler cannot take any more.
CREATE OR REPLACE FUNCTION note(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF event.data ? 'bad' OR event.version = 2 THEN
        RAISE EXCEPTION '% is bad', event.version;
    END IF;
    INSERT INTO seen (position, what) VALUES (event.position, event.stream || ' ' || event.version);
END $$;
\set VERBOSITY terse
SELECT es_rebuild_projection('p');
\set VERBOSITY default
SELECT es_skip_event('p', at('a-1', 2));
SELECT es_rebuild_projection('p');
SELECT * FROM model;

--
-- A sync projection: the past only; becoming sync leaves it out, too
--
SELECT es_alter_projection('p', mode => 'sync');
SELECT es_append('a-2', 'none', 't') IS NOT NULL;
SELECT es_skip_event('p', at('a-2', 1));
SELECT es_rebuild_projection('p');
SELECT * FROM model;
SELECT es_alter_projection('p', mode => 'async');
SELECT es_append('a-1', 'any', 't', '{"bad": "seventh"}') IS NOT NULL, es_append('a-3', 'any', 't') IS NOT NULL;
SELECT es_skip_event('p', at('a-1', 7));
SELECT es_alter_projection('p', mode => 'sync');
SELECT * FROM model;

-- With the projection goes what it skips.
SELECT count(*) FROM es_skipped_events;
SELECT es_drop_projection('p');
SELECT count(*) FROM es_skipped_events;
TRUNCATE seen;

--
-- A parked event: its failure goes, and what only waited behind it goes on
--
SET client_min_messages = error;
SELECT es_append_batch('b-1', 'none', '[{"type": "t"}, {"type": "t", "data": {"bad": "second"}}, {"type": "t"}, {"type": "t", "data": {"bad": "fourth"}}, {"type": "t"}]') IS NOT NULL,
       es_append('b-2', 'none', 't') IS NOT NULL;
SELECT es_create_projection('p', 'note', tables => '{seen}', category => 'b', on_failure => 'park', max_attempts => 1);
CREATE OR REPLACE FUNCTION note(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF event.data ? 'bad' THEN
        RAISE EXCEPTION '% is bad', event.data->>'bad';
    END IF;
    INSERT INTO seen (position, what) VALUES (event.position, event.stream || ' ' || event.version);
END $$;
SELECT run_all();
SELECT stream, version, message FROM es_failures ORDER BY position;
SELECT es_wait('p', at('b-1', 2), '0');
-- One that waits does not let the others pass the one that has failed.
SELECT es_skip_event('p', at('b-1', 3));
SELECT stream, version, message FROM es_failures ORDER BY position;
SELECT es_skip_event('p', at('b-1', 2));
SELECT * FROM model;
SELECT stream, version, message FROM es_failures ORDER BY position;
SELECT es_skip_event('p', at('b-1', 4));
SELECT * FROM model;
SELECT count(*) FROM es_failures;
SELECT es_wait('p', at('b-1', 2), '0');
-- One that was parked before the filter changed is the projection's still.
SELECT es_append('b-4', 'none', 'gone', '{"bad": "gone"}') IS NOT NULL;
SELECT run_all();
SELECT es_alter_projection('p', types => '{t}');
SELECT es_skip_event('p', at('b-4', 1));
SELECT count(*) FROM es_failures;
SELECT es_unskip_event('p', at('b-4', 1)), es_alter_projection('p', all_types => true), es_skip_event('p', at('b-4', 1));
-- es_discard does not leave anything out of a rebuild, es_skip_event does.
SELECT es_append('b-3', 'none', 't', '{"bad": "first"}') IS NOT NULL;
SELECT run_all();
SELECT es_discard(id) FROM es_failures;
SELECT es_rebuild_projection('p');
SELECT stream, version, message FROM es_failures ORDER BY position;
SELECT es_skip_event('p', at('b-3', 1));
SELECT es_rebuild_projection('p');
SELECT count(*) FROM es_failures;
SELECT * FROM model;
SELECT es_drop_projection('p');
TRUNCATE seen;
SET client_min_messages = notice;

-- A query's batch, while the bad event is searched for; events are read by SQL.
CREATE ROLE es_skip_owner;
GRANT SELECT ON es_events, es_projection_status TO es_skip_owner;
GRANT EXECUTE ON FUNCTION es_create_projection, es_skip_event, es_run_projections, es_wait TO es_skip_owner;
ALTER TABLE es_events ENABLE ROW LEVEL SECURITY;
CREATE POLICY a ON es_events FOR SELECT TO es_skip_owner USING (es_category(stream) = 'b' AND stream <> 'b-2');
ALTER TABLE seen OWNER TO es_skip_owner;
SET client_min_messages = error;
SET ROLE es_skip_owner;
SELECT es_create_projection('q', max_attempts => 1, query => $$
    INSERT INTO seen (position, what) SELECT position, stream || ' ' || version / (NOT data ? 'bad')::int FROM new_events $$);
SELECT es_run_projections('q', 1);
SELECT state, last_error, failed_position FROM es_projection_status;
SELECT es_skip_event('q', at('b-1', 2)), es_skip_event('q', at('b-1', 4)), es_skip_event('q', at('b-3', 1));
SELECT state, last_error FROM es_projection_status;
SELECT es_run_projections('q');
SET client_min_messages = notice;
-- What its owner may not read it does not get.
RESET ROLE;
SELECT at('b-2', 1) AS hidden \gset
SELECT es_skip_event('q', :hidden);
SELECT * FROM model;
ALTER TABLE es_events DISABLE ROW LEVEL SECURITY;
SELECT es_drop_projection('q');

--
-- What is refused
--
SELECT es_create_projection('p', 'note', category => 'a', types => '{t}', start_position => at('a-1', 2));
CREATE MATERIALIZED VIEW view AS SELECT count(*) FROM es_events;
SELECT es_create_projection('view', refresh => 'view');
SELECT es_skip_event(NULL, 1);
SELECT es_skip_event('p', NULL);
SELECT es_skip_event('nothing', 1);
SELECT es_skip_event('p', 0);
SELECT es_skip_event('p', -1);
\set VERBOSITY terse
SELECT es_skip_event('p', 1000000);
\set VERBOSITY default
BEGIN;
SELECT es_append('a-9', 'none', 't') IS NOT NULL;
ROLLBACK;
SELECT last_value AS gap FROM es_position \gset
\set VERBOSITY terse
SELECT es_skip_event('p', :gap);
SELECT es_skip_event('p', at('a-1', 2));
SELECT es_skip_event('p', at('a-1', 5));
SELECT es_skip_event('p', at('b-1', 1));
SELECT es_unskip_event('p', at('a-1', 4));
SELECT es_unskip_event('nothing', 1);
\set VERBOSITY default
SELECT es_skip_event('view', 1);
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT es_skip_event('p', 1);
ROLLBACK;
BEGIN READ ONLY;
SELECT es_skip_event('p', 1);
ROLLBACK;
CREATE FUNCTION skips(event es_recorded_event) RETURNS void LANGUAGE sql AS $$ SELECT es_skip_event('p', 1) $$;
SELECT es_create_projection('s', 'skips', category => 'b', types => '{t}');
SELECT es_run_projections('s', 1);
SELECT last_error, error_detail FROM es_projection_status WHERE name = 's';
SELECT es_drop_projection('s');
-- A start_position beyond the event that fails is for rebuilds: the projection waits at the event all the same.
CREATE FUNCTION fails(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'failed'; END $$;
SELECT es_create_projection('later', 'fails', category => 'a', types => '{t}', max_attempts => 1);
SET client_min_messages = error;
SELECT es_run_projections('later');
SET client_min_messages = notice;
SELECT es_alter_projection('later', start_position => at('a-1', 3));
SELECT es_skip_event('later', failed_position) FROM es_projection_status WHERE name = 'later';
SELECT state, position < at('a-1', 3) AS before_start FROM es_projection_status WHERE name = 'later';
SELECT es_drop_projection('later');
-- Owner and operators only.
CREATE ROLE es_skip_other;
GRANT EXECUTE ON FUNCTION es_skip_event, es_unskip_event TO es_skip_other;
GRANT EXECUTE ON FUNCTION at TO es_skip_other;
SELECT at('a-1', 3) AS third \gset
SET ROLE es_skip_other;
SELECT es_skip_event('p', :third);
SELECT es_unskip_event('p', :third);
RESET ROLE;
-- An owner who is no operator sees its own, and a reader nothing of others.
SELECT es_grant('es_skip_other', 'reader'), es_grant('es_skip_owner', 'reader');
GRANT EXECUTE ON FUNCTION es_skip_event, es_unskip_event TO es_skip_owner;
SELECT es_skip_event('p', :third);
SET ROLE es_skip_owner;
SELECT count(*) FROM es_visible_skipped_events;
RESET ROLE;
UPDATE es_projections SET owner = 'es_skip_owner' WHERE name = 'p';
SET ROLE es_skip_owner;
SELECT projection, position = :third AS third FROM es_visible_skipped_events;
SELECT es_unskip_event('p', :third);
SET ROLE es_skip_other;
SELECT count(*) FROM es_visible_skipped_events;
SELECT es_unskip_event('p', :third);
RESET ROLE;
UPDATE es_projections SET owner = CURRENT_USER WHERE name = 'p';
SELECT es_revoke('es_skip_other', 'reader');
SELECT es_grant('es_skip_other', 'operator');
SET ROLE es_skip_other;
SELECT es_skip_event('p', :third);
SELECT skipped_by FROM es_skipped_events;
RESET ROLE;

DROP EXTENSION eventstore CASCADE;
DROP VIEW model;
DROP TABLE seen;
DROP FUNCTION at, run_all;
DROP OWNED BY es_skip_owner, es_skip_other;
DROP ROLE es_skip_owner, es_skip_other;
