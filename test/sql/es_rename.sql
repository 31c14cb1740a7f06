-- es_rename_projection and es_rename_subscription: what belongs to them goes with them.
SET client_min_messages = warning;
CREATE EXTENSION eventstore;
CREATE TABLE seen (name text, position bigint, PRIMARY KEY (name, position));
CREATE FUNCTION note(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF event.type = 'bad' THEN RAISE 'it is bad'; END IF;
    INSERT INTO seen VALUES ('note', event.position);
END $$;
SELECT count(es_append('a-1', 'any', t)) FROM unnest('{a,bad,a}'::text[]) AS t;
SELECT es_append('b-1', 'any', 'bad');

--
-- Projections
--
SELECT es_create_projection('p', 'note', tables => '{seen}', on_failure => 'park', max_attempts => 1);
SELECT es_skip_event('p', 4);
SET client_min_messages = error;
SELECT es_run_projections();
SET client_min_messages = warning;
SELECT es_rename_projection('p', 'other');
SELECT name, position, parked FROM es_projection_status;
SELECT projection, position FROM es_failures ORDER BY position;
SELECT projection, position FROM es_skipped_events;
SELECT es_wait('p', 1);
SELECT es_wait('other', 1);
SELECT es_run_projections('p');
SELECT es_append('b-1', 'any', 'a');
SELECT es_run_projections('other');
SELECT es_discard(id) FROM es_failures WHERE position = 2;
SELECT array_agg(position ORDER BY position) FROM seen;
SELECT es_rebuild_projection('other');
SELECT array_agg(position ORDER BY position) FROM seen;
SELECT es_discard(min(id)) FROM es_failures;
-- Sync: the trigger has the new name at once; triggers fire in the order of names.
SELECT es_alter_projection('other', mode => 'sync');
SELECT es_rename_projection('other', 'Odd "name"');
SELECT tgname, tgenabled, tgargs FROM pg_trigger WHERE tgrelid = 'es_events'::regclass AND tgfoid = 'es_projection_sync'::regproc ORDER BY tgname;
SELECT es_append('c-1', 'any', 'a');
SELECT es_rename_projection('Odd "name"', 'p');
SELECT es_append('c-1', 'any', 'a');
SELECT array_agg(position ORDER BY position) = (SELECT array_agg(position ORDER BY position) FROM es_events WHERE type = 'a') FROM seen;
-- A name that was left is free, and its trigger is used again.
SELECT es_create_projection('other', query => 'INSERT INTO seen SELECT ''other'', position FROM new_events', mode => 'sync', start_position => NULL);
SELECT es_append('c-1', 'any', 'a');
SELECT name, count(*) FROM seen GROUP BY name ORDER BY name;
-- Two names are swapped in one transaction.
BEGIN;
SELECT es_rename_projection('p', 'old'), es_rename_projection('other', 'p');
SELECT es_append('c-1', 'any', 'a');
COMMIT;
SELECT es_append('c-1', 'any', 'a');
SELECT name, mode, handler FROM es_projections ORDER BY name;
SELECT name, count(*) FROM seen GROUP BY name ORDER BY name;
SELECT es_drop_projection('p');
SELECT es_append('c-1', 'any', 'a');
SELECT name, count(*) FROM seen GROUP BY name ORDER BY name;
-- Paused.
SELECT es_pause_projection('old'), es_rename_projection('old', 'paused'), es_resume_projection('paused');
SELECT es_append('c-1', 'any', 'a');
SELECT name, count(*) FROM seen GROUP BY name ORDER BY name;
SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = 'es_events'::regclass AND tgfoid = 'es_projection_sync'::regproc AND tgenabled <> 'D' ORDER BY tgname;
-- What is refused.
SELECT es_create_projection('taken', query => 'SELECT FROM new_events');
SELECT es_rename_projection('paused', 'taken');
SELECT es_rename_projection('paused', 'paused');
SELECT es_rename_projection('nothing', 'taken');
SELECT es_rename_projection('nothing', 'new');
SELECT es_rename_projection('paused', '');
SELECT es_rename_projection('paused', repeat('x', 64));
SELECT es_rename_projection(NULL, 'new');
SELECT es_rename_projection('paused', NULL);
SELECT es_drop_projection('paused'), es_drop_projection('taken');

--
-- Subscriptions
--
SELECT es_create_subscription('s', partitions => 2, lease => '1 h');
CREATE TABLE delivered AS SELECT * FROM es_poll('s', 'c', 3);
SELECT es_nack('s', min(token), min(position), 'why', 'park') FROM delivered;
SELECT es_rename_subscription('s', 'new');
SELECT subscription, count(*) FROM es_partitions GROUP BY 1;
SELECT DISTINCT subscription FROM es_failures;
SELECT DISTINCT subscription, parked > 0 AS parked FROM es_subscription_status ORDER BY parked;
SELECT es_ack('s', min(token)) FROM delivered;
SELECT * FROM es_poll('s');
SELECT es_ack('new', min(token)) > 0 AS acknowledged FROM delivered;
SELECT count(*) > 0 AS goes_on FROM es_poll('new', 'c');
SELECT es_retry(min(id)) > 0 AS retried FROM es_failures;
SELECT es_rename_subscription('new', 's');
SELECT count(*) > 0 AS retried FROM es_poll('s', 'other', 100, '1 s');
-- What is refused.
SELECT es_create_subscription('taken');
SELECT es_rename_subscription('s', 'taken');
SELECT es_rename_subscription('nothing', 'new');
SELECT es_rename_subscription('s', '');
SELECT es_rename_subscription(NULL, 'new');
SELECT es_rename_subscription('s', NULL);

DROP EXTENSION eventstore CASCADE;
DROP TABLE seen, delivered;
