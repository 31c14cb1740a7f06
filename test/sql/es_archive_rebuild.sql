-- es_rebuild_projection with the archive: events of the log and of the archive, merged by position, whatever
-- the size of a batch, filters and skipped events; the rights of the owner; events that fail.
CREATE EXTENSION eventstore;
SET client_min_messages = warning;
CREATE TABLE seen (n bigserial, "position" bigint, stream text, type text);
-- Six streams with five events each, whose positions alternate.
SELECT count(es_append('order-' || 1 + n % 6, 'any', (ARRAY['placed', 'paid', 'shipped'])[1 + n % 3], tags => ARRAY['customer:' || n % 2])) FROM generate_series(0, 29) AS n;
SELECT sum((es_archive_stream(s)).archived) FROM unnest('{order-2,order-3,order-5}'::text[]) AS s;
SELECT count(es_append('order-' || n, 'any', 'placed', tags => '{customer:1}')) FROM generate_series(1, 3) AS n;
SELECT archived FROM es_archive_stream('order-3');
CREATE VIEW wanted AS SELECT position, stream, type FROM es_all_events;
-- What a rebuild gave: how many, in order, and what is more or less than in the view.
CREATE FUNCTION report(condition text, OUT events bigint, OUT in_order boolean, OUT more bigint, OUT fewer bigint) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('SELECT count(*), (SELECT bool_and(p) FROM (SELECT position > lag(position, 1, 0::bigint) OVER (ORDER BY n) AS p FROM seen) o),
        (SELECT count(*) FROM (SELECT position, stream, type FROM seen EXCEPT SELECT * FROM (%1$s) w) x),
        (SELECT count(*) FROM (SELECT * FROM (%1$s) w EXCEPT SELECT position, stream, type FROM seen) x) FROM seen', condition)
        INTO events, in_order, more, fewer;
END $$;
SELECT es_create_projection('p', query => 'INSERT INTO seen (position, stream, type) SELECT position, stream, type FROM new_events ORDER BY position', tables => '{seen}', mode => 'async');
-- Without the archive, and with it.
SELECT es_rebuild_projection('p');
SELECT * FROM report('SELECT position, stream, type FROM es_events');
SELECT es_rebuild_projection('p', false);
SELECT es_rebuild_projection('p', NULL);
SELECT es_rebuild_projection('p', true);
SELECT * FROM report('TABLE wanted');
-- What it does not get.
SELECT version, removed FROM es_delete_stream('order-6', 'any');
SET client_min_messages = notice;
SELECT es_rebuild_projection('p');
SELECT es_rebuild_projection('p', true);
SET client_min_messages = warning;
-- A skipped event, in the archive. It is skipped while it is in the log.
SELECT es_skip_event('p', 2, 'not wanted');
SELECT es_unarchive_stream('order-2');
SELECT es_skip_event('p', 2, 'not wanted');
SELECT archived FROM es_archive_stream('order-2');
SELECT es_rebuild_projection('p', true);
SELECT * FROM report('SELECT * FROM wanted WHERE position <> 2');
SELECT es_unskip_event('p', 2);
-- Batches of any size.
DO $$
BEGIN
    FOR size IN 1 .. 9 LOOP
        PERFORM es_alter_projection('p', batch_size => size);
        PERFORM es_rebuild_projection('p', archived => true);
        IF (SELECT (r.events, r.in_order, r.more, r.fewer) FROM report('TABLE wanted') AS r) IS DISTINCT FROM ((SELECT count(*) FROM wanted), true, 0::bigint, 0::bigint) THEN
            RAISE EXCEPTION 'batches of %: %', size, (SELECT report('TABLE wanted'));
        END IF;
        COMMIT;
    END LOOP;
END $$;
SELECT es_alter_projection('p', batch_size => 4);
-- Filters: notices pass by the types of the events that they stand for.
SELECT es_alter_projection('p', types => '{shipped}');
SELECT es_rebuild_projection('p', true);
SELECT * FROM report($$ SELECT position, stream, type FROM es_all_events WHERE type = 'shipped' OR type = 'es_stream_archived' AND data->'types' ? 'shipped' $$);
SELECT es_alter_projection('p', category => 'other', all_types => true);
SELECT es_rebuild_projection('p', true);
SELECT es_alter_projection('p', category => '{other,order}'::text[], event_query => '[{"tags": ["customer:1"], "types": ["placed", "paid"]}]');
SELECT es_rebuild_projection('p', true);
SELECT * FROM report($$ SELECT position, stream, type FROM es_all_events WHERE tags @> '{customer:1}' AND (type IN ('placed', 'paid') OR type = 'es_stream_archived' AND data->'types' ?| '{placed,paid}') $$);
SELECT es_alter_projection('p', all_categories => true, any_event => true, start_position => 10);
SELECT es_rebuild_projection('p', true);
SELECT * FROM report('SELECT * FROM wanted WHERE position > 10');
SELECT es_alter_projection('p', start_position => 0);
-- A sync one.
SELECT es_alter_projection('p', mode => 'sync');
SELECT es_rebuild_projection('p', true);
SELECT * FROM report('TABLE wanted');
SELECT es_alter_projection('p', mode => 'async');

-- An archived event that fails ends the rebuild, and is not parked.
CREATE FUNCTION fails_at_2(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF event.position = 2 THEN
        RAISE EXCEPTION 'not this one';
    END IF;
    INSERT INTO counted (position) VALUES (event.position);
END $$;
CREATE TABLE counted (position bigint PRIMARY KEY);
SELECT es_create_projection('f', 'fails_at_2(es_recorded_event)', tables => '{counted}', mode => 'async', on_failure => 'park');
SELECT es_rebuild_projection('f');
\set VERBOSITY terse
SELECT es_rebuild_projection('f', true);
\set VERBOSITY default
SELECT count(*) FROM es_failures;
SELECT count(*) FROM counted;

-- The owner's rights.
CREATE ROLE es_archive_owner;
GRANT SELECT ON es_events TO es_archive_owner;
GRANT CREATE ON SCHEMA public TO es_archive_owner;
GRANT EXECUTE ON FUNCTION es_create_projection, es_rebuild_projection TO es_archive_owner;
SET ROLE es_archive_owner;
CREATE TABLE own (position bigint);
SELECT es_create_projection('o', query => 'INSERT INTO own SELECT position FROM new_events', tables => '{own}', mode => 'async');
SELECT es_rebuild_projection('o');
SELECT es_rebuild_projection('o', true);
RESET ROLE;
GRANT SELECT ON es_archived_events TO es_archive_owner;
SET ROLE es_archive_owner;
SELECT es_rebuild_projection('o', true);
SELECT count(*) FROM own;
RESET ROLE;
-- Row security of the archive is that of the archive.
ALTER TABLE es_archived_events ENABLE ROW LEVEL SECURITY;
CREATE POLICY one ON es_archived_events TO es_archive_owner USING (stream = 'order-2');
SELECT es_rebuild_projection('o', true);
SELECT count(*) FROM own;

-- A materialized view is not given events.
CREATE MATERIALIZED VIEW viewed AS SELECT count(*) FROM es_all_events;
SELECT es_create_projection('v', refresh => 'viewed');
SELECT es_rebuild_projection('v', true);
SELECT es_rebuild_projection('v', false);
SELECT es_drop_projection('v');
DROP MATERIALIZED VIEW viewed;

SELECT es_drop_projection('p'), es_drop_projection('f'), es_drop_projection('o');
DROP TABLE seen, counted, own;
DROP VIEW wanted;
DROP FUNCTION report, fails_at_2;
DROP EXTENSION eventstore;
REVOKE CREATE ON SCHEMA public FROM es_archive_owner;
DROP ROLE es_archive_owner;
