-- Parked events that are removed: the failures go, and what waits behind them goes on.
SET client_min_messages = warning;
CREATE EXTENSION eventstore;
SET client_min_messages = notice;
CREATE TABLE seen (n int GENERATED ALWAYS AS IDENTITY, stream text, version bigint, type text);
-- Fails for events with "bad" in their data, until the table "fixed" is there.
CREATE FUNCTION note(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF event.data ? 'bad' AND to_regclass('fixed') IS NULL THEN
        RAISE EXCEPTION 'bad';
    END IF;
    INSERT INTO seen (stream, version, type) VALUES (event.stream, event.version, event.type);
END $$;
-- What was seen since the last look.
CREATE FUNCTION look() RETURNS text LANGUAGE sql AS $$
    WITH gone AS (DELETE FROM seen RETURNING *)
    SELECT string_agg(concat_ws(' ', stream, version, CASE WHEN type <> 't' THEN type END), ', ' ORDER BY n) FROM gone
$$;
CREATE VIEW failures AS
SELECT coalesce(projection, subscription) AS consumer, stream, version, type, message,
       CASE WHEN retry_at > now() THEN 'later' WHEN retry_at <= now() THEN 'due' END AS retry
  FROM es_failures ORDER BY 1, position;
CREATE FUNCTION due() RETURNS void LANGUAGE sql AS $$
    UPDATE es_failures SET retry_at = now() - interval '1 s' WHERE retry_at IS NOT NULL;
    UPDATE es_partitions SET due_at = now() - interval '1 s' WHERE due_at IS NOT NULL
$$;
CREATE FUNCTION bad(stream text, count int DEFAULT 3) RETURNS bigint LANGUAGE sql AS $$
    SELECT version FROM es_append_batch(stream, 'any', jsonb_build_array('{"type": "t", "data": {"bad": true}}'::jsonb)
                                                       || (SELECT jsonb_agg('{"type": "t"}'::jsonb) FROM generate_series(2, count)))
$$;

--
-- Projections. A stream is deleted whose events are parked for good: es_stream_deleted comes, which a batch
-- finds behind them, and then all goes on by itself.
--
SELECT es_create_projection('p', 'note(es_recorded_event)', on_failure => 'park', max_attempts => 1, category => 'a');
SELECT bad('a-1'), bad('a-2');
SET client_min_messages = error;
SELECT es_run_projections('p');
SET client_min_messages = notice;
TABLE failures;
SELECT version, removed FROM es_delete_stream('a-1', 'any');
SELECT es_run_projections('p');
TABLE failures;
SELECT look();
SELECT version FROM es_append('a-1', 'any', 't');
SELECT es_run_projections('p');
SELECT look();
-- One that is to be tried again by itself, and a batch that finds nothing new.
SELECT es_alter_projection('p', max_attempts => 5);
SELECT bad('a-3');
SET client_min_messages = error;
SELECT es_run_projections('p');
SET client_min_messages = notice;
SELECT es_truncate_stream('a-3', 3);
SELECT due();
SELECT es_run_projections('p');
SELECT look();
TABLE failures;
-- es_retry says so: of an event that is gone, and where it is gone with some of those behind it.
SELECT es_truncate_stream('a-2', 3);
SELECT es_retry(id) FROM es_failures WHERE message IS NOT NULL;
SELECT look();
TABLE failures;
SELECT state, parked FROM es_projection_status;
-- es_discard and es_skip_event of an event that is gone. One behind it is gone, too.
SET client_min_messages = error;
SELECT bad('a-4', 4), bad('a-5'), es_run_projections('p');
SET client_min_messages = notice;
SELECT es_truncate_stream('a-4', 3), es_truncate_stream('a-5', 2);
SELECT es_skip_event('p', position) FROM es_failures WHERE stream = 'a-5' AND message IS NOT NULL;
SELECT es_discard(id) FROM es_failures WHERE stream = 'a-4' AND message IS NOT NULL;
SELECT es_discard(id) FROM es_failures WHERE stream = 'a-5' AND message IS NOT NULL;
SELECT look();
TABLE failures;
-- Another event of the stream has failed behind it: it stays.
SET client_min_messages = error;
SELECT bad('a-6'), bad('a-6', 2), es_run_projections('p');
SET client_min_messages = notice;
SELECT es_truncate_stream('a-6', 4);
SELECT due();
SET client_min_messages = error;
SELECT es_run_projections('p');
SET client_min_messages = notice;
SELECT look();
SELECT stream, version, type, message IS NOT NULL AS failed FROM failures;
CREATE TABLE fixed ();
SELECT es_retry(min(id)) FROM es_failures;
SELECT look();
DROP TABLE fixed;
-- An event that is hidden from the owner is not one that is gone.
CREATE ROLE es_removal_parked_owner;
GRANT CREATE ON SCHEMA public TO es_removal_parked_owner;
GRANT ALL ON seen TO es_removal_parked_owner;
SELECT es_grant('es_removal_parked_owner', 'operator');
SET ROLE es_removal_parked_owner;
SELECT es_create_projection('hides', 'note(es_recorded_event)', on_failure => 'park', max_attempts => 1, category => 'h');
RESET ROLE;
SELECT bad('h-1');
SET client_min_messages = error;
SELECT es_run_projections('hides');
SET client_min_messages = notice;
ALTER TABLE es_events ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY not_all ON es_events FOR SELECT USING (stream <> 'h-1');
SELECT es_retry(id) FROM es_failures WHERE message IS NOT NULL;
SELECT count(*) FROM failures;
ALTER TABLE es_events DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY;
DROP POLICY not_all ON es_events;
SELECT removed FROM es_delete_stream('h-1', 'any');
SELECT es_retry(id) FROM es_failures WHERE message IS NOT NULL;
SELECT es_run_projections('hides');
SELECT look();
TABLE failures;
-- on_failure stop: the projection waits at an event that is gone, and goes on.
SELECT es_create_projection('s', 'note(es_recorded_event)', max_attempts => 1, category => 's');
SELECT bad('s-1', 2);
SET client_min_messages = error;
SELECT es_run_projections('s');
SET client_min_messages = notice;
SELECT state, failed_version FROM es_projection_status WHERE name = 's';
SELECT removed FROM es_delete_stream('s-1', 'any', tombstone => true);
SELECT es_resume_projection('s');
SELECT es_run_projections('s');
SELECT state, failed_version FROM es_projection_status WHERE name = 's';
SELECT look();
-- A rebuild gets what is there, and forgets the rest.
CREATE TABLE model (stream text);
CREATE FUNCTION fill(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF event.data ? 'bad' THEN
        RAISE EXCEPTION 'bad';
    END IF;
    INSERT INTO model VALUES (event.stream || ' ' || event.version);
END $$;
SELECT es_create_projection('r', 'fill(es_recorded_event)', on_failure => 'park', max_attempts => 1, category => 'r', tables => '{model}');
SELECT bad('r-1');
SET client_min_messages = error;
SELECT es_run_projections('r');
SET client_min_messages = notice;
SELECT removed FROM es_delete_stream('r-1', 'any');
SELECT es_rebuild_projection('r');
TABLE model;
TABLE failures;
SELECT count(es_drop_projection(name)) FROM es_projections;

--
-- Subscriptions
--
-- What a poll delivers, which is acknowledged.
CREATE FUNCTION seen(ack boolean DEFAULT true) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
    last bigint;
BEGIN
    SELECT string_agg(concat_ws(' ', p.stream, p.version, CASE WHEN p.type <> 't' THEN p.type END), ', ' ORDER BY p.position), max(p.token)
      INTO result, last FROM es_poll('sub', 'me') p;
    IF ack AND last IS NOT NULL THEN
        PERFORM es_ack('sub', last);
    END IF;
    RETURN result;
END $$;
CREATE FUNCTION nack(stream text, version bigint, action text DEFAULT 'park') RETURNS text LANGUAGE sql AS $$
    SELECT es_nack('sub', p.token, e.position, 'no', action)
      FROM es_partitions p JOIN (SELECT position, stream, version FROM es_events UNION ALL SELECT position, stream, version FROM es_removed_ids) e ON e.stream = nack.stream AND e.version = nack.version
$$;
SELECT es_create_subscription('sub', category => 'b', lease => '1 h');
SELECT bad('b-1'), bad('b-2'), bad('b-3', 4);
SELECT seen(false);
SELECT nack('b-1', 1), nack('b-2', 1), nack('b-3', 2);
SELECT es_ack('sub', token) > 0 AS acked FROM es_partitions;
TABLE failures;
-- Deleted: the notice comes, and then all of it goes on.
SELECT version, removed FROM es_delete_stream('b-1', 'any');
SELECT seen();
SELECT seen();
TABLE failures;
-- Truncated: es_retry says so.
SELECT es_truncate_stream('b-2', 3);
SELECT es_retry(id) FROM es_failures WHERE stream = 'b-2' AND message IS NOT NULL;
SELECT seen();
TABLE failures;
-- What was due finds that it is gone.
SELECT es_truncate_stream('b-3', 4);
UPDATE es_failures SET retry_at = now() WHERE message IS NOT NULL;
UPDATE es_partitions SET due_at = now();
SELECT seen();
TABLE failures;
SELECT parked, lag_events FROM es_subscription_status;
-- Several streams at once, of which one is there.
SELECT bad('b-4'), bad('b-5'), bad('b-6');
SELECT seen(false);
SELECT nack('b-4', 1), nack('b-5', 1), nack('b-6', 1);
SELECT es_ack('sub', token) > 0 AS acked FROM es_partitions;
SELECT removed FROM es_delete_stream('b-4', 'any') UNION ALL SELECT removed FROM es_delete_stream('b-5', 'any');
SELECT es_truncate_stream('b-6', 3);
UPDATE es_failures SET retry_at = now() WHERE message IS NOT NULL;
UPDATE es_partitions SET due_at = now();
SELECT seen();
SELECT seen(), seen(), seen();
TABLE failures;
-- es_discard of one that is gone.
SELECT bad('b-7', 4);
SELECT seen(false);
SELECT nack('b-7', 1);
SELECT es_ack('sub', token) > 0 AS acked FROM es_partitions;
SELECT es_truncate_stream('b-7', 3);
SELECT es_discard(id) FROM es_failures WHERE message IS NOT NULL;
SELECT seen();
TABLE failures;
-- An event that is hidden from the owner is not one that is gone.
SELECT es_create_subscription('other', category => 'o');
SELECT bad('o-1');
SELECT es_nack('other', token, position, 'no', 'park') FROM es_poll('other', 'me', 1);
ALTER TABLE es_subscriptions DISABLE TRIGGER USER;
UPDATE es_subscriptions SET owner = 'es_removal_parked_owner' WHERE name = 'other';
ALTER TABLE es_subscriptions ENABLE TRIGGER USER;
ALTER TABLE es_events ENABLE ROW LEVEL SECURITY;
CREATE POLICY not_all ON es_events FOR SELECT USING (stream <> 'o-1');
SELECT es_retry(id) FROM es_failures WHERE message IS NOT NULL;
SELECT count(*) FROM es_poll('other', 'me');
TABLE failures;
ALTER TABLE es_events DISABLE ROW LEVEL SECURITY;
DROP POLICY not_all ON es_events;
SELECT es_drop_subscription('other');

-- Events in flight are removed. es_nack of one skips it, and es_ack of what is left is as ever.
SELECT bad('b-8'), bad('b-9');
SELECT seen(false);
SELECT removed FROM es_delete_stream('b-8', 'any');
SELECT nack('b-8', 2);
SELECT nack('b-8', 2, 'retry'), nack('b-9', 2, 'skip');
SELECT es_nack('sub', token, e.position, 'no', 'park') FROM es_partitions, es_events e WHERE e.stream = 'r-1';
SELECT es_nack('sub', token, 1, 'no', 'park') FROM es_partitions;
-- The lease expires: what is there is redelivered, and what has come since.
UPDATE es_partitions SET leased_until = now() - interval '1 s';
SELECT seen();
-- Those of a delivery that are all gone.
SELECT bad('b-10');
SELECT seen(false);
SELECT es_truncate_stream('b-10', 3), removed FROM es_delete_stream('b-10', 'any');
UPDATE es_partitions SET leased_until = now() - interval '1 s';
SELECT seen();
SELECT in_flight, lag_events, parked FROM es_subscription_status;
-- A delivery of a parked stream whose events are removed while it is in flight.
SELECT bad('b-11');
SELECT seen(false);
SELECT nack('b-11', 1);
SELECT es_ack('sub', token) > 0 AS acked FROM es_partitions;
SELECT es_discard(id) FROM es_failures WHERE message IS NOT NULL;
SELECT seen(false);
SELECT removed FROM es_delete_stream('b-11', 'any');
SELECT nack('b-11', 3, 'retry');
SELECT es_ack('sub', token) > 0 AS acked FROM es_partitions;
SELECT due();
SELECT seen(), seen();
TABLE failures;
SELECT in_flight, lag_events, parked FROM es_subscription_status;
SELECT es_drop_subscription('sub');

SET client_min_messages = warning;
DROP EXTENSION eventstore CASCADE;
DROP FUNCTION IF EXISTS note, look, due, bad, fill, seen, nack;
DROP TABLE seen, model;
DROP OWNED BY es_removal_parked_owner;
DROP ROLE es_removal_parked_owner;
