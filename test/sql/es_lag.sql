-- How far projections and subscriptions are behind: exact while there is little to count,
-- an estimate that says so above that, at a cost that does not grow.
SET client_min_messages = warning;
CREATE EXTENSION eventstore;
ALTER TABLE es_events SET (autovacuum_enabled = off);

-- The log counted one by one: events of each category, type and partition of 1,024, up to
-- the next of the positions after which consumers begin.
CREATE TABLE tally (category text, type text, hash int, bucket bigint, events bigint, first timestamptz);
-- What each consumer has before it, as the views say it and as it was counted.
CREATE TABLE looked (kind text, name text, partition int, lag_events bigint, is_estimate boolean, since timestamptz,
                     events bigint DEFAULT 0, first timestamptz);
CREATE PROCEDURE look() LANGUAGE plpgsql AS $$
BEGIN
    TRUNCATE tally, looked;
    INSERT INTO tally
    SELECT es_category(stream), type, es_partition(stream, 1024),
           CASE WHEN position <= 650 THEN 0 WHEN position <= 110000 THEN 650 ELSE 110000 END, count(*), min(recorded_at)
      FROM es_events GROUP BY 1, 2, 3, 4;
    INSERT INTO looked
    SELECT 's', v.subscription, v.partition, v.lag_events, v.lag_is_estimate, l.lag_since
      FROM es_subscription_status v JOIN es_subscription_lag() l USING (subscription, partition);
    INSERT INTO looked
    SELECT 'p', v.name, 0, v.lag_events, v.lag_is_estimate, l.lag_since
      FROM es_projection_status v JOIN es_projection_lag() l USING (name);
    ANALYZE looked;
    UPDATE looked l SET events = c.events, first = c.first
      FROM (SELECT s.kind, s.name, t.hash % s.partitions AS partition, sum(t.events) AS events, min(t.first) AS first
              FROM (SELECT 's' AS kind, name, categories, types, start_position, partitions FROM es_subscriptions
                    UNION ALL SELECT 'p', name, categories, types, start_position, 1 FROM es_projections) s
              JOIN tally t ON t.bucket >= s.start_position AND (s.categories IS NULL OR t.category = ANY (s.categories))
                          AND (s.types IS NULL OR t.type = ANY (s.types))
             GROUP BY 1, 2, 3) c
     WHERE c.kind = l.kind AND c.name = l.name AND c.partition = l.partition;
END $$;

CREATE FUNCTION import(category text, type text, events int, streams int) RETURNS void LANGUAGE sql AS $$
    INSERT INTO es_import (stream, type)
    SELECT format('%s-%s', category, n % streams), coalesce(type, 't' || n % 10) FROM generate_series(1, events) n
$$;
CREATE PROCEDURE create_consumers(suffix text, after bigint) LANGUAGE plpgsql AS $$
DECLARE
    f record;
BEGIN
    FOR f IN SELECT c.*, t.* FROM (VALUES ('all', NULL), ('even', '{even}'), ('early', '{early}'), ('rare', '{rare}'), ('absent', '{absent}'),
                                          ('two', '{even,early}')) AS c (name, categories),
                                  (VALUES ('', NULL), (' t3', '{t3}'), (' rare', '{rare}'), (' none', '{none}')) AS t (type, types) LOOP
        PERFORM es_create_subscription(f.name || f.type || suffix, f.categories::text[], f.types::text[], after);
        PERFORM es_create_projection(f.name || f.type || suffix, category => f.categories::text[], types => f.types::text[],
                                     start_position => after, query => 'SELECT FROM new_events');
    END LOOP;
    PERFORM es_create_subscription('all in 16' || suffix, NULL, NULL, after, partitions => 16);
    PERFORM es_create_subscription('two in 16' || suffix, '{even,early}', '{t3,t4}', after, partitions => 16);
    PERFORM es_create_subscription('all in 1024' || suffix, NULL, NULL, after, partitions => 1024);
END $$;

-- Of few events everything is exact.
SELECT import('early', NULL, 500, 10);
SELECT import('even', NULL, 300, 50);
SELECT import('rare', NULL, 3, 3);
SELECT import('even', 'rare', 2, 2);
CALL create_consumers('', 0);
CALL create_consumers(' later', 650);
CALL look();
SELECT kind, count(*), bool_or(is_estimate), sum(lag_events) FROM looked GROUP BY 1 ORDER BY 1;
SELECT * FROM looked WHERE is_estimate OR lag_events <> events OR since IS DISTINCT FROM first ORDER BY 1, 2, 3;
-- Without the index of categories, too.
BEGIN;
DROP INDEX es_events_category_position_idx;
CALL look();
SELECT * FROM looked WHERE is_estimate OR lag_events <> events OR since IS DISTINCT FROM first ORDER BY 1, 2, 3;
ROLLBACK;
-- Nothing above the horizon is counted, nor what was handled.
SELECT es_create_subscription('end', start_position => NULL), es_create_projection('end', start_position => NULL, query => 'SELECT FROM new_events');
SELECT lag_events, lag_seconds, lag_is_estimate FROM es_subscription_status WHERE subscription = 'end';
SELECT lag_events, lag_seconds, lag_is_estimate FROM es_projection_status WHERE name = 'end';

-- Many events: what is far behind gets an estimate, and what is near is exact beside it.
SELECT import('even', NULL, 30000, 997);
SELECT import('huge', NULL, 60000, 3001);
SELECT import('even', NULL, 20000, 997);
SELECT es_create_subscription('near', start_position => 110000, partitions => 16),
       es_create_subscription('near of even', start_position => 110000, category => 'even', types => '{t1,t2}');
CALL look();
SELECT name, count(*) AS partitions, bool_or(is_estimate), bool_or(lag_events <> events), bool_or(since <> first) FROM looked WHERE name ~ '^near' GROUP BY 1 ORDER BY 1;
-- Where events are many and evenly divided, it is near to the truth.
SELECT count(*) > 30 AS many FROM looked WHERE events > 1000 AND is_estimate;
SELECT * FROM looked WHERE events > 1000 AND lag_events::float8 / events NOT BETWEEN 0.67 AND 1.5 ORDER BY 1, 2, 3;
SELECT kind, name FROM looked WHERE name ~ '^(all|even|two)( t3| in .*|)$' GROUP BY 1, 2 HAVING sum(lag_events)::float8 / sum(events) NOT BETWEEN 0.8 AND 1.25;
-- An estimate is never 0, and an age never too small.
SELECT bool_or(lag_events < 1), bool_or(since IS NULL OR since > first) FROM looked WHERE is_estimate;
-- What is not estimated is exact.
SELECT * FROM looked WHERE NOT is_estimate AND (lag_events <> events OR since IS DISTINCT FROM first);
SELECT DISTINCT lag_events, is_estimate FROM looked WHERE name ~ '^(absent|rare)$' ORDER BY 1;

-- A stream that has most of the events makes its partition larger.
SELECT import('hot', NULL, 60000, 1);
SELECT import('huge', NULL, 20000, 3001);
SELECT es_create_subscription('hot', start_position => 0, partitions => 64);
CALL look();
SELECT partition = es_partition('hot-0', 64), is_estimate, lag_events::float8 / events BETWEEN 0.5 AND 2.0
  FROM looked WHERE name = 'hot' ORDER BY lag_events DESC LIMIT 1;

-- The cost is that of a bounded number of events, for all together.
CREATE FUNCTION fetched() RETURNS bigint LANGUAGE sql AS $$
    SELECT coalesce(seq_tup_read, 0) + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relid = 'es_events'::regclass $$;
SELECT pg_stat_force_next_flush();
BEGIN;
SELECT count(*) > 1500 AS many FROM es_subscription_status;
SELECT fetched() BETWEEN 5000 AND 30000 AS bounded;
SELECT count(*) FROM es_projection_status;
SELECT fetched() BETWEEN 10000 AND 60000 AS bounded;
COMMIT;

-- In flight is what was delivered and not settled, whichever delivery it came with.
SELECT es_create_subscription('flight', category => 'early');
SELECT max(token) AS token FROM es_poll('flight', 'me', 10) \gset
SELECT max(token) AS second, max(position) AS last FROM es_poll('flight', 'me', 10, after_token => :token) \gset
SELECT in_flight FROM es_subscription_status WHERE subscription = 'flight';
SELECT es_nack('flight', :second, :last, 'no', 'skip');
SELECT in_flight FROM es_subscription_status WHERE subscription = 'flight';
SELECT es_nack('flight', :second, :last - 9, 'no', 'park');
SELECT in_flight FROM es_subscription_status WHERE subscription = 'flight';
SELECT es_ack('flight', :token) = :last - 10;
SELECT in_flight, counts FROM es_subscription_status v JOIN es_partitions p USING (subscription) WHERE subscription = 'flight';
DROP EXTENSION eventstore CASCADE;
DROP TABLE tally, looked;
DROP FUNCTION import, fetched;
DROP PROCEDURE look, create_consumers;
