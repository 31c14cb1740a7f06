-- Rules of retention: what es_run_retention removes, what holds it, what it passes over, and
-- what is refused. Workers, kills and clocks: t/026_retention.pl.
SET client_min_messages = error;
CREATE EXTENSION eventstore;
SET client_min_messages = warning;

-- Appends so many events to the stream.
CREATE FUNCTION grow(stream text, events int) RETURNS bigint LANGUAGE sql
    AS $$ SELECT count(es_append(stream, 'any', 'measured', to_jsonb(i))) FROM generate_series(1, events) i $$;
-- What is left: versions of each stream, if they are dense.
CREATE VIEW streams AS
    SELECT stream, min(version) AS first, max(version) AS last, max(version) - min(version) + 1 = count(*) AS dense
      FROM es_events GROUP BY stream ORDER BY stream;
-- Lets events be older.
CREATE PROCEDURE age(of text, upto bigint, by interval) LANGUAGE plpgsql AS $$
BEGIN
    ALTER TABLE es_events DISABLE TRIGGER es_events_refuse;
    ALTER TABLE es_events DISABLE TRIGGER es_events_refuse_row;
    UPDATE es_events SET recorded_at = recorded_at - by WHERE stream LIKE of AND version <= upto;
    ALTER TABLE es_events ENABLE ALWAYS TRIGGER es_events_refuse;
    ALTER TABLE es_events ENABLE ALWAYS TRIGGER es_events_refuse_row;
END $$;
CREATE VIEW run AS SELECT category, streams, events, held_by, held_since IS NOT NULL AS since, more FROM es_run_retention();
CREATE VIEW dry AS SELECT category, streams, events, held_by FROM es_run_retention(dry_run => true);

--
-- What is refused
--
SELECT es_set_retention(NULL, max_count => 1);
SELECT es_set_retention('', max_count => 1);
SELECT es_set_retention('*', max_count => 1);
SELECT es_set_retention('sensor-1', max_count => 1);
SELECT es_set_retention('es_reports', max_count => 1);
SELECT es_set_retention('sensor', max_count => 0);
SELECT es_set_retention('sensor', max_age => '0');
SELECT es_set_retention('sensor', max_age => '-1 day');
SELECT es_set_retention('sensor', max_age => '1001 years');
SELECT es_set_retention('sensor', max_count => 1, max_lag => '0');
SELECT es_set_retention('sensor', max_lag => '1 day');
SELECT * FROM es_run_retention('sensor');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM es_run_retention();
ROLLBACK;
SELECT * FROM es_retention;
SELECT * FROM run;

--
-- max_count: of each stream, never the last one, nothing of other categories
--
SELECT grow('sensor-1', 10), grow('sensor-2', 3), grow('sensor-3', 4), grow('sensors-1', 10), grow('sensor', 6), grow('other-1', 9);
SELECT es_set_retention('sensor', max_count => 3);
SELECT * FROM dry;
SELECT * FROM run;
SELECT * FROM streams;
SELECT * FROM dry;
SELECT * FROM run;
SELECT action, stream, versions, removed, removed_by = session_user AS by_me, metadata - 'set_by' AS metadata, metadata ? 'set_by' AS set_by
  FROM es_removals ORDER BY stream;
SELECT category, max_count, max_age, unseen, overdue, removed, held_by, left_streams, tagged_streams, last_error FROM es_retention_status;
-- what comes later is found; a stream that has grown a little at a time, too
SELECT grow('sensor-1', 1), grow('sensor-2', 2);
SELECT unseen FROM es_retention_status;
SELECT * FROM run;
SELECT * FROM streams WHERE stream ~ '^sensor-';
SELECT es_set_retention('sensor', max_count => 1);
SELECT * FROM dry;
SELECT * FROM run;
SELECT * FROM streams WHERE stream ~ '^sensor';
-- the stream goes on where it was, and a deleted one has one event
SELECT es_append('sensor-1', 11, 'measured');
SELECT removed FROM es_delete_stream('sensor-2', 'any');
SELECT * FROM run;
SELECT * FROM streams WHERE stream ~ '^sensor';

--
-- max_age: by recorded_at, up to the first event that is not too old; the last event of a
-- stream goes when another follows it
--
SELECT es_set_retention('sensor');
SELECT es_set_retention('door', max_age => '1 hour');
SELECT grow('door-1', 3), grow('door-2', 1), grow('door-3', 2), grow('door-4', 1);
CALL age('door-1', 2, '2 hours');
CALL age('door-2', 1, '2 hours');
CALL age('door-3', 1, '2 hours');
SELECT overdue FROM es_retention_status;
SELECT * FROM dry;
SELECT * FROM run;
SELECT * FROM streams WHERE stream ~ '^door';
-- behind the first event of the category that is young nothing is removed yet: door-3's first
CALL age('door-1', 3, '2 hours');
SELECT * FROM dry;
SELECT * FROM run;
SELECT * FROM streams WHERE stream ~ '^door';
SELECT grow('door-2', 1);
SELECT * FROM dry;
SELECT * FROM run;
SELECT * FROM streams WHERE stream ~ '^door';
-- an event from the future ends nothing, and goes with those after it
SELECT grow('door-5', 4);
CALL age('door-3', 2, '2 hours');
CALL age('door-4', 1, '2 hours');
CALL age('door-2', 2, '2 hours');
CALL age('door-5', 4, '2 hours');
CALL age('door-5', 2, '-1 year');
SELECT * FROM dry;
SELECT * FROM run;
SELECT * FROM streams WHERE stream ~ '^door';
-- events of the future alone stay; more of them than are looked at in one go hide nothing
SELECT grow('door-6', 1500), grow('door-7', 2);
CALL age('door-6', 1500, '-1 year');
SELECT * FROM run;
CALL age('door-7', 2, '2 hours');
SELECT * FROM dry;
SELECT * FROM run;
SELECT * FROM streams WHERE stream ~ '^door-[67]';

--
-- Both limits: what is beyond one of them
--
SELECT grow('door-8', 10), grow('door-9', 2);
CALL age('door-8', 4, '2 hours');
SELECT es_set_retention('door', max_age => '1 hour', max_count => 8);
SELECT * FROM dry;
SELECT * FROM run;
SELECT * FROM streams WHERE stream ~ '^door-[89]';

--
-- Consumers hold it
--
SELECT es_set_retention('door');
SELECT es_set_retention('lift', max_count => 2);
SELECT es_create_subscription('audit', 'lift', partitions => 2), es_create_subscription('elsewhere', 'other'), es_create_subscription('all');
SELECT es_seek('all', NULL);
SELECT grow('lift-1', 6);
SELECT * FROM dry;
SELECT * FROM run;
SELECT held_by, held_since IS NOT NULL AS since FROM es_retention_status;
-- up to what is acknowledged: in flight is not read
SELECT max(token) AS token FROM es_poll('audit', max_count => 4) \gset
SELECT * FROM run;
SELECT es_ack('audit', :token);
-- the other partition, which has nothing, is at the end when it was polled, too
SELECT count(*) FROM es_poll('audit', max_count => 1);
SELECT * FROM run;
SELECT * FROM streams WHERE stream ~ '^lift';
SELECT es_drop_subscription('audit'), es_drop_subscription('all'), es_drop_subscription('elsewhere');
SELECT * FROM run;
SELECT * FROM streams WHERE stream ~ '^lift';
-- projections: async ones, paused or not; a sync one only while it does not run
CREATE TABLE seen (position bigint);
CREATE FUNCTION see(event es_recorded_event) RETURNS void LANGUAGE sql AS 'INSERT INTO seen VALUES (event.position)';
CREATE FUNCTION fail(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
SELECT es_create_projection('sees', 'see', tables => '{seen}', category => 'lift');
SELECT grow('lift-1', 4);
SELECT * FROM run;
SELECT es_run_projections();
SELECT * FROM run;
SELECT es_pause_projection('sees');
SELECT grow('lift-1', 4);
SELECT * FROM run;
SELECT es_resume_projection('sees');
SELECT es_run_projections();
SELECT es_alter_projection('sees', mode => 'sync');
SELECT grow('lift-1', 4);
SELECT * FROM run;
SELECT es_drop_projection('sees');
SELECT * FROM streams WHERE stream ~ '^lift';
-- another category, or types, or a query, hold or do not
SELECT es_create_projection('sees', 'see', tables => '{seen}', category => '{door,other}');
SELECT grow('lift-1', 1);
SELECT * FROM run;
SELECT es_alter_projection('sees', all_categories => true, event_query => '[{"tags": ["none"]}]');
SELECT grow('lift-1', 1);
SELECT * FROM run;
SELECT es_run_projections();
SELECT * FROM run;
SELECT es_drop_projection('sees');
-- force
SELECT es_create_subscription('audit');
SELECT grow('lift-1', 2);
SELECT * FROM run;
SELECT category, streams, events, held_by FROM es_run_retention(dry_run => true, force => true);
SELECT category, streams, events, held_by FROM es_run_retention('lift', force => true);
SELECT * FROM streams WHERE stream ~ '^lift';

--
-- max_lag: an abandoned consumer holds nothing any more, and is named
--
SELECT grow('lift-1', 2);
SELECT es_set_retention('lift', max_count => 2, max_lag => '1 day');
SELECT * FROM run;
CALL age('lift-1', 1000, '2 days');
SELECT * FROM run;
SELECT left_behind, held_by FROM es_retention_status;
-- the WARNING comes once
SELECT grow('lift-1', 1);
CALL age('lift-1', 1000, '2 days');
SELECT * FROM run;
SELECT es_seek('audit', NULL);
SELECT * FROM run;
SELECT left_behind, held_by FROM es_retention_status;
SELECT es_drop_subscription('audit');

--
-- What is parked stays, with what follows it in its stream
--
SELECT es_set_retention('lift');
SELECT es_set_retention('gate', max_count => 1);
SELECT es_create_projection('fails', 'fail', category => 'gate', on_failure => 'park', max_attempts => 1);
SELECT grow('gate-1', 1), grow('gate-2', 1);
SELECT es_run_projections();
SELECT stream, version FROM es_failures ORDER BY stream;
SELECT es_discard(id) FROM es_failures WHERE stream = 'gate-2';
SELECT grow('gate-1', 3), grow('gate-2', 3);
SELECT es_pause_projection('fails');
SELECT es_run_projections();
SELECT * FROM run;
SELECT es_drop_projection('fails');
SELECT es_create_projection('fails', 'fail', category => 'gate', on_failure => 'park', max_attempts => 1, start_position => (SELECT max(position) - 3 FROM es_events));
SELECT es_run_projections();
SELECT stream, version FROM es_failures ORDER BY stream, version;
SELECT * FROM run;
SELECT left_streams FROM es_retention_status;
SELECT * FROM streams WHERE stream ~ '^gate';
SELECT count(es_discard(id)) FROM es_failures;
SELECT * FROM run;
SELECT left_streams FROM es_retention_status;
SELECT * FROM streams WHERE stream ~ '^gate';
SELECT es_drop_projection('fails');

--
-- Events with tags are passed over, and do not stop what comes after them
--
SELECT es_set_retention('gate');
SELECT es_set_retention('order', max_count => 1);
SELECT grow('order-1', 2), es_append('order-1', 'any', 'placed', tags => '{customer:1}'), grow('order-1', 1), grow('order-2', 3);
SELECT * FROM dry;
SELECT * FROM run;
SELECT * FROM run;
SELECT tagged_streams FROM es_retention_status;
SELECT * FROM streams WHERE stream ~ '^order';

--
-- Parts: a stream of many events, and many streams of one or two
--
SELECT es_set_retention('order');
SELECT position FROM es_append_batch('log-1', 'none', array_fill('a'::text, '{5000}'), array_fill('{}'::jsonb, '{5000}')) AS position;
SELECT count(es_append('log-' || i, 'none', 'a')) FROM generate_series(2, 1200) i;
SELECT count(es_append('log-' || i, 'any', 'a')) FROM generate_series(201, 1200) i;
SELECT es_set_retention('log', max_count => 1);
SELECT * FROM dry;
SELECT * FROM run;
SELECT * FROM run;
SELECT * FROM run;
SELECT count(*), count(DISTINCT stream) FROM es_events WHERE es_category(stream) = 'log';

-- a run that is rolled back changes nothing
SELECT es_append('log-1', 'any', 'a');
BEGIN;
SELECT * FROM run;
ROLLBACK;
SELECT * FROM streams WHERE stream = 'log-1';
SELECT * FROM run;

-- a retry of what was removed is one
SELECT es_append('log-1', 5001, 'a', id => '00000000-0000-0000-0000-000000000001');
SELECT es_append('log-1', 5002, 'a');
SELECT * FROM run;
SELECT es_append('log-1', 5001, 'a', id => '00000000-0000-0000-0000-000000000001');
SELECT * FROM streams WHERE stream = 'log-1';


--
-- es_health: what is wrong with a rule
--
CREATE VIEW ill AS SELECT urgency, problem, object, since IS NOT NULL AS since, message, remedy, remedy_by = current_user AS by FROM es_health
 WHERE problem ~ '^retention';
SELECT * FROM ill;
UPDATE es_retention SET message = 'no luck', attempts = 2, failing_since = clock_timestamp();
SELECT * FROM ill;
SELECT events FROM es_run_retention('log');
SELECT * FROM ill;
CREATE FUNCTION sees(event es_recorded_event) RETURNS void LANGUAGE sql AS '';
SELECT es_create_projection('sees', 'sees', category => 'log');
SELECT es_pause_projection('sees');
SELECT es_append('log-1', 'any', 'a') IS NOT NULL AS appended;
SELECT * FROM run;
SELECT * FROM ill;
UPDATE es_retention SET held_since = held_since - interval '25 hours';
SELECT * FROM run;
SELECT * FROM ill;
SELECT es_resume_projection('sees');
SELECT es_run_projections('sees') > 0 AS ran;
SELECT * FROM run;
SELECT * FROM ill;
SELECT es_drop_projection('sees');
SELECT es_create_subscription('audit', 'log');
SELECT es_set_retention('log', max_count => 1, max_lag => '1 day');
UPDATE es_retention SET left_behind = '{subscription audit}';
SELECT * FROM ill;
SELECT es_drop_subscription('audit');
SELECT * FROM run;
SELECT * FROM ill;
-- late: no worker, one that is not fast enough, or none that may
SELECT es_append('log-1', 'any', 'a') IS NOT NULL AS appended;
UPDATE es_retention SET set_at = set_at - interval '2 hours', ran_at = NULL;
SELECT * FROM ill;
CALL age('log-1', 10000, '2 hours');
SELECT * FROM ill;
UPDATE es_retention SET ran_at = clock_timestamp();
SELECT * FROM ill;
SELECT * FROM run;
SELECT * FROM ill;
DROP VIEW ill;
DROP FUNCTION sees;

DROP VIEW run, dry, streams;
DROP PROCEDURE age;
DROP FUNCTION grow, see, fail;
DROP TABLE seen;
SET client_min_messages = error;
DROP EXTENSION eventstore;
