-- Subscriptions of many partitions: each event is delivered once and in the order of its stream, and the log is read
-- over once, not once for each partition.
SET client_min_messages = warning;
CREATE EXTENSION eventstore;
CREATE FUNCTION append(first int, last int) RETURNS void LANGUAGE sql AS $$
    SELECT count(es_append((ARRAY['a', 'b'])[1 + i % 2] || '-' || i % 46, 'any', (ARRAY['x', 'y', 'z'])[1 + i % 3],
                           jsonb_build_object('n', repeat('n', i % 7))))
      FROM (SELECT i FROM generate_series(first, last) i ORDER BY i) t $$;
CREATE TABLE got (subscription text, n bigint GENERATED ALWAYS AS IDENTITY, position bigint, stream text, version bigint, data jsonb);
-- Polls once for so many; acknowledges. Returns how many there were.
CREATE FUNCTION consume(name text, count int, bytes bigint DEFAULT 1000000) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE t bigint; n bigint;
BEGIN
    WITH p AS (SELECT * FROM es_poll(name, 'c', count, max_bytes => bytes) WITH ORDINALITY),
         i AS (INSERT INTO got (subscription, position, stream, version, data)
               SELECT name, p.position, p.stream, p.version, p.data FROM p ORDER BY ordinality)
    SELECT max(token), count(*) INTO t, n FROM p;
    PERFORM es_ack(name, t) WHERE t IS NOT NULL;
    RETURN n;
END $$;
CREATE FUNCTION drain(name text, count int, bytes bigint DEFAULT 1000000) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    WHILE consume(name, count, bytes) > 0 LOOP END LOOP;
END $$;
-- What is wrong: events of the subscription that came not once, or that came before an earlier one of their stream.
CREATE FUNCTION wrong(name text, after bigint DEFAULT 0) RETURNS TABLE (fault text, n bigint) LANGUAGE sql AS $$
    SELECT 'not once', count(*)
      FROM (SELECT e.position FROM es_events e JOIN es_subscriptions s ON s.name = wrong.name
             WHERE e.position > after AND (s.categories IS NULL OR es_category(e.stream) = ANY (s.categories))
               AND (s.types IS NULL OR e.type = ANY (s.types))) e
      FULL JOIN (SELECT position, count(*) AS times FROM got WHERE subscription = name GROUP BY 1) g USING (position)
     WHERE e.position IS NULL OR g.times IS DISTINCT FROM 1
    UNION ALL
    SELECT 'not in order', count(*)
      FROM (SELECT version < lag(version) OVER (PARTITION BY stream ORDER BY n) AS back FROM got WHERE subscription = name) o WHERE back
    UNION ALL
    SELECT 'events', count(*) FROM got WHERE subscription = name $$;

SELECT append(1, 1000);
SELECT es_create_subscription('all', partitions => 16), es_create_subscription('b', 'b', partitions => 8),
       es_create_subscription('xz', types => '{x,z}', partitions => 1024), es_create_subscription('both', '{a,b}', '{y}', partitions => 9),
       es_create_subscription('eight', partitions => 8), es_create_subscription('nine', 'a', partitions => 9);

-- Rows of the log that are fetched for 1,000 events, in a walk and one by one.
BEGIN;
SELECT drain('all', 7);
SELECT idx_tup_fetch < 4000 AS once FROM pg_stat_xact_user_tables WHERE relname = 'es_events';
COMMIT;
SELECT * FROM wrong('all');

-- Several subscriptions by turns, more than a session remembers, while events are appended.
CREATE PROCEDURE by_turns(first int) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. 400 LOOP
        PERFORM append(first + i, first + i + i % 3);
        PERFORM consume(name, 5) FROM es_subscriptions;
        COMMIT;
    END LOOP;
END $$;
CALL by_turns(1000);
SELECT drain(name, 100) FROM es_subscriptions;
SELECT name, w.* FROM es_subscriptions, wrong(name) w ORDER BY 1, 2;

-- By bytes.
DELETE FROM got;
SELECT es_seek('all', 0), es_seek('xz', 0);
SELECT drain('all', 100, 9), drain('xz', 100, 50);
SELECT * FROM wrong('all');
SELECT * FROM wrong('xz');

-- Another filter holds at once, and back again.
DELETE FROM got;
SELECT append(1, 300);
SELECT consume('eight', 2) FROM generate_series(1, 4);
SELECT es_alter_subscription('eight', category => 'b', types => '{x}');
SELECT drain('eight', 7);
SELECT count(*), count(*) FILTER (WHERE stream LIKE 'a%' OR type <> 'x') AS by_the_first
  FROM got JOIN es_events USING (position, stream) WHERE subscription = 'eight';
SELECT es_alter_subscription('eight', all_categories => true, all_types => true);
DELETE FROM got;
SELECT es_seek('eight', 0);
SELECT drain('eight', 50);
SELECT * FROM wrong('eight');

-- What is rolled back is not delivered, and what comes in its place is.
DELETE FROM got;
SELECT drain('all', 1000);
DELETE FROM got;
SELECT max(position) AS before FROM es_events \gset
BEGIN;
SELECT append(1, 20);
SAVEPOINT s;
SELECT append(21, 60);
SELECT consume('all', 2) > 0 AS delivered;
ROLLBACK TO s;
SELECT append(21, 40);
COMMIT;
SELECT drain('all', 3);
SELECT * FROM wrong('all', :before);

-- Events that are changed or removed after the session has read over them.
DELETE FROM got;
SELECT es_seek('all', 0);
SELECT consume('all', 3) > 0 AS delivered;
SELECT id AS changed FROM es_events e WHERE NOT EXISTS (SELECT FROM got WHERE got.position = e.position)
   AND es_partition(stream, 16) <> (SELECT min(es_partition(stream, 16)) FROM got) ORDER BY position LIMIT 1 \gset
SELECT es_rewrite(:'changed', '{"n": "changed"}') IS NOT NULL AS changed;
ALTER TABLE es_events DISABLE TRIGGER ALL;
DELETE FROM es_events e WHERE position % 5 = 0 AND id <> :'changed' AND NOT EXISTS (SELECT FROM got WHERE got.position = e.position);
ALTER TABLE es_events ENABLE TRIGGER ALL;
SELECT drain('all', 3);
SELECT * FROM wrong('all');
SELECT count(*) FROM got WHERE data->>'n' = 'changed';

-- Where removed events were, there are others now, or the table has ended.
DELETE FROM got;
SELECT max(position) AS before FROM es_events \gset
SELECT append(1, 2000);
SELECT consume('all', 60) AS delivered;
ALTER TABLE es_events DISABLE TRIGGER ALL;
DELETE FROM es_events e WHERE position > :before + 400
    OR position > :before AND position % 3 > 0 AND NOT EXISTS (SELECT FROM got WHERE got.position = e.position);
DELETE FROM got WHERE position > :before + 400;
ALTER TABLE es_events ENABLE TRIGGER ALL;
SELECT pg_relation_size('es_events') AS size \gset
VACUUM es_events;
SELECT pg_relation_size('es_events') < :size AS ended_before;
SELECT drain('all', 3);
SELECT * FROM wrong('all', :before);
SELECT append(1, 300);
SELECT drain('all', 3);
SELECT * FROM wrong('all', :before);
-- A place that was taken by an event of the same partition.
DELETE FROM got;
SELECT es_seek('all', :before);
SELECT consume('all', 60) AS delivered;
ALTER TABLE es_events DISABLE TRIGGER ALL;
CREATE TABLE moved AS SELECT * FROM es_events e WHERE position > :before
   AND NOT EXISTS (SELECT FROM got WHERE got.position = e.position);
DELETE FROM es_events e WHERE position IN (SELECT position FROM moved);
VACUUM es_events;
INSERT INTO es_events SELECT * FROM moved ORDER BY position DESC;
ALTER TABLE es_events ENABLE TRIGGER ALL;
SELECT drain('all', 3);
SELECT * FROM wrong('all', :before);

-- Removed, and back again at their positions: es_seek finds them.
CREATE TABLE removed AS SELECT * FROM es_events WHERE position % 7 = 0;
ALTER TABLE es_events DISABLE TRIGGER ALL;
DELETE FROM es_events WHERE position % 7 = 0;
SELECT es_seek('all', 0);
SELECT drain('all', 10);
INSERT INTO es_events SELECT * FROM removed;
ALTER TABLE es_events ENABLE TRIGGER ALL;
DELETE FROM got;
SELECT es_seek('all', 0);
SELECT drain('all', 10);
SELECT * FROM wrong('all');

DROP PROCEDURE by_turns;
DROP FUNCTION append, consume, drain, wrong;
DROP TABLE got, removed, moved;
DROP EXTENSION eventstore;
