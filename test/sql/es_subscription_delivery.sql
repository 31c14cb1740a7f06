-- es_poll and es_ack: which events are delivered, how many, to which consumer, how
-- often.
CREATE EXTENSION eventstore;
-- What a poll delivers, without its token.
CREATE FUNCTION seen(name text, consumer text DEFAULT NULL, many int DEFAULT 100, after bigint DEFAULT NULL,
                     OUT part int, OUT attempts text, OUT positions text) LANGUAGE sql AS $$
    SELECT min(p.partition), string_agg(DISTINCT p.attempt::text, ' '), string_agg(p.position::text, ' ' ORDER BY p.position)
      FROM es_poll(name, consumer, many, after_token => after) p
$$;

--
-- Filters: category, types, both; the checkpoint goes over what does not match
--
SELECT es_append_batch('a-1', 'any', '{opened,renamed,closed}', '{"{}","{}","{}"}');
SELECT es_append_batch('b-1', 'any', '{opened,renamed,closed}', '{"{}","{}","{}"}');
SELECT es_append_batch('a-2', 'any', '{opened,renamed}', '{"{}","{}"}');
SELECT es_append_batch('c', 'any', '{opened,renamed}', '{"{}","{}"}');
SELECT es_create_subscription('everything', lease => '1 h'), es_create_subscription('a', category => 'a', lease => '1 h'),
       es_create_subscription('closed', types => '{closed,opened}', lease => '1 h'),
       es_create_subscription('a closed', category => 'a', types => '{closed}', lease => '1 h'),
       es_create_subscription('c', category => 'c', lease => '1 h'), es_create_subscription('none', category => 'nowhere'),
       es_create_subscription('no type', types => '{nothing}'), es_create_subscription('later', start_position => 7, lease => '1 h');
SELECT name, s.* FROM es_subscriptions, seen(name) s ORDER BY name COLLATE "C";
SELECT subscription, position, in_flight, lag_events FROM es_subscription_status ORDER BY subscription COLLATE "C";
-- Acknowledged: up to where it was read.
SELECT subscription, es_ack(subscription, token) FROM es_partitions WHERE token > 0 ORDER BY subscription COLLATE "C";
SELECT name, s.* FROM es_subscriptions, seen(name) s ORDER BY name COLLATE "C";
SELECT DISTINCT position, lag_events, lag_seconds, in_flight FROM es_subscription_status;
-- The row is the event's.
SELECT es_seek('closed', 0);
SELECT p.token IS NOT NULL AS token, p.partition, p.attempt,
       (p.position, p.version, p.recorded_at, p.occurred_at, p.id, p.stream, p.type, p.data, p.metadata)
       IS NOT DISTINCT FROM (e.position, e.version, e.recorded_at, e.occurred_at, e.id, e.stream, e.type, e.data, e.metadata) AS same
  FROM es_poll('closed') p JOIN es_events e USING (position);
SELECT es_drop_subscription(name) FROM es_subscriptions;

--
-- Partitions: a stream is always in the same; all events are delivered once
--
SELECT es_append_batch('p-' || n % 17, 'any', '{x,y}', '{"{}","{}"}') FROM generate_series(1, 100) n \g /dev/null
SELECT es_create_subscription('five', category => 'p', partitions => 5, lease => '1 h');
CREATE TABLE got (n bigserial, part int, position bigint, version bigint, stream text, attempt int);
CREATE PROCEDURE drain(name text, many int, consumer text DEFAULT NULL) LANGUAGE plpgsql AS $$
DECLARE token bigint; found int;
BEGIN
    LOOP
        WITH p AS (SELECT * FROM es_poll(name, consumer, many)),
             i AS (INSERT INTO got (part, position, version, stream, attempt) SELECT p.partition, p.position, p.version, p.stream, p.attempt FROM p)
        SELECT min(p.token), count(*) INTO token, found FROM p;
        EXIT WHEN found = 0;
        PERFORM es_ack(name, token);
        COMMIT;
    END LOOP;
END $$;
CALL drain('five', 7);
SELECT count(*), count(DISTINCT position), count(DISTINCT part) AS parts, bool_and(part = es_partition(stream, 5)) AS right_part,
       bool_and(attempt = 1) AS once FROM got;
SELECT count(*) AS in_two FROM (SELECT stream FROM got GROUP BY stream HAVING count(DISTINCT part) > 1) s;
SELECT count(*) AS out_of_order FROM (SELECT position < lag(position) OVER (PARTITION BY part ORDER BY n) AS wrong FROM got) g WHERE wrong;
SELECT count(*) AS out_of_order FROM (SELECT version <> 1 + coalesce(lag(version) OVER (PARTITION BY stream ORDER BY n), 0) AS wrong FROM got) g WHERE wrong;
SELECT DISTINCT position = horizon AS all_there, lag_events FROM es_subscription_status;
-- A consumer has one partition at a time, and then the one that has waited longest.
SELECT es_seek('five', 0);
SELECT count(DISTINCT part), count(*) FROM generate_series(1, 5) n, seen('five', 'c' || n, 3);
SELECT * FROM seen('five', 'c6');
SELECT consumer, lease_left > '0' AS leased, in_flight FROM es_subscription_status ORDER BY consumer;
SELECT string_agg(partition::text, '' ORDER BY delivered_at) AS served FROM es_partitions \gset
SELECT count(es_ack('five', token)) FROM es_partitions;
TRUNCATE got;
CALL drain('five', 1000);
SELECT string_agg(part::text, '' ORDER BY n) = :'served' AS longest_first FROM (SELECT part, min(n) AS n FROM got GROUP BY part) g;
SELECT es_drop_subscription('five');
-- More partitions than streams.
SELECT es_create_subscription('wide', category => 'p', partitions => 1024);
TRUNCATE got;
CALL drain('wide', 1000);
SELECT count(*), count(DISTINCT position), bool_and(part = es_partition(stream, 1024)) AS right_part FROM got;
SELECT es_drop_subscription('wide');

--
-- How many: max_count, max_in_flight
--
SELECT es_create_subscription('m', category => 'p', start_position => 10, max_in_flight => 5, lease => '1 h');
SELECT * FROM seen('m', 'me', 3);
SELECT token AS t1 FROM es_partitions \gset
SELECT * FROM seen('m', 'me', 3, :t1);
SELECT token AS t2 FROM es_partitions \gset
SELECT * FROM seen('m', 'me', 3, :t2);
SELECT consumer, in_flight, position FROM es_subscription_status;
-- An acknowledgement is for everything up to it; there is room for more then.
SELECT es_ack('m', :t1);
SELECT in_flight FROM es_subscription_status;
SELECT * FROM seen('m', 'me', 100, :t2);
SELECT token AS t3 FROM es_partitions \gset
SELECT es_ack('m', :t3, 16);
SELECT in_flight FROM es_subscription_status;
SELECT * FROM seen('m', 'me', 100, :t3);
SELECT token AS t4 FROM es_partitions \gset
SELECT es_ack('m', :t4, 17), es_ack('m', :t4);
SELECT in_flight, consumer FROM es_subscription_status;
-- The last one can be repeated, the ones before cannot.
SELECT es_ack('m', :t4), es_ack('m', :t4, 17);
\set VERBOSITY sqlstate
SELECT es_ack('m', :t3);
SELECT es_ack('m', :t1);
SELECT es_poll('m', after_token => :t4);
\set VERBOSITY default
-- Also while more is in flight.
SELECT * FROM seen('m', 'me', 2);
SELECT token AS t1 FROM es_partitions \gset
SELECT * FROM seen('m', 'me', 2, :t1);
SELECT token AS t2 FROM es_partitions \gset
SELECT es_ack('m', :t1);
SELECT es_ack('m', :t1);
SELECT in_flight FROM es_subscription_status;
-- And after the next delivery.
SELECT es_ack('m', :t2);
SELECT * FROM seen('m', 'me', 2);
SELECT es_ack('m', :t2);
SELECT es_drop_subscription('m');
-- Without more than one at a time.
SELECT es_create_subscription('m', category => 'p', start_position => 10, max_in_flight => 1);
SELECT * FROM seen('m');
SELECT es_drop_subscription('m');

--
-- Polling ahead whose answer was lost: what came after the token is redelivered
--
SELECT es_create_subscription('ahead', category => 'p', start_position => 10, lease => '1 h');
SELECT * FROM seen('ahead', 'me', 2);
SELECT token AS t1 FROM es_partitions \gset
SELECT * FROM seen('ahead', 'me', 2, :t1);
SELECT token AS t2 FROM es_partitions \gset
SELECT * FROM seen('ahead', 'me', 2, :t2);
SELECT token AS t3 FROM es_partitions \gset
SELECT * FROM seen('ahead', 'me', 4, :t1);
SELECT token AS t4 FROM es_partitions \gset
\set VERBOSITY sqlstate
SELECT es_ack('ahead', :t2);
SELECT es_ack('ahead', :t3);
\set VERBOSITY default
-- What was in flight before it has not expired: it is still the first attempt.
SELECT es_nack('ahead', :t1, 12, 'no');
SELECT position, attempts FROM es_failures;
SELECT es_ack('ahead', :t1);
SELECT es_ack('ahead', :t4);
SELECT position, in_flight FROM es_subscription_status;
SELECT es_drop_subscription('ahead');

--
-- A name: the same events again, with another token; without one, nothing
--
SELECT es_create_subscription('n', category => 'p', start_position => 10, lease => '1 h');
SELECT * FROM seen('n', 'me', 4);
SELECT token AS t1 FROM es_partitions \gset
SELECT * FROM seen('n');
SELECT * FROM seen('n', 'you');
SELECT * FROM seen('n', 'me', 4);
SELECT token AS t2, token > :t1 AS greater FROM es_partitions \gset
SELECT :'greater' AS greater;
\set VERBOSITY sqlstate
SELECT es_ack('n', :t1);
\set VERBOSITY default
SELECT es_ack('n', :t2);
-- Without one.
SELECT * FROM seen('n', NULL, 2);
SELECT * FROM seen('n');
SELECT * FROM seen('n', 'me');
SELECT consumer, in_flight FROM es_subscription_status;
SELECT es_drop_subscription('n');

--
-- A lease that expires
--
SELECT es_create_subscription('l', category => 'p', start_position => 10, lease => '50 ms');
SELECT * FROM seen('l', 'me', 4);
SELECT token AS t1 FROM es_partitions \gset
SELECT pg_sleep(0.06) \g /dev/null
SELECT lease_left, consumer, in_flight FROM es_subscription_status;
-- No other consumer came: the token is still valid.
SELECT es_ack('l', :t1);
SELECT * FROM seen('l', 'me', 4);
SELECT token AS t1 FROM es_partitions \gset
SELECT pg_sleep(0.06) \g /dev/null
-- Another consumer came.
UPDATE es_subscriptions SET lease = '1 h';
SELECT * FROM seen('l', 'you', 4);
\set VERBOSITY sqlstate
SELECT es_ack('l', :t1);
SELECT es_nack('l', :t1, 15, 'no');
SELECT es_poll('l', after_token => :t1);
\set VERBOSITY default
SELECT consumer, in_flight FROM es_subscription_status;
SELECT es_ack('l', token) FROM es_partitions;
-- Acknowledging a part begins the lease anew.
UPDATE es_subscriptions SET lease = '50 ms';
SELECT * FROM seen('l', NULL, 4);
UPDATE es_subscriptions SET lease = '1 h';
SELECT es_ack('l', token, 17) FROM es_partitions;
SELECT lease_left > '50 min' AS anew, in_flight FROM es_subscription_status;
SELECT es_drop_subscription('l');

--
-- Poll, effect and acknowledgement in one transaction: once
--
SELECT es_create_subscription('t', category => 'p', start_position => 10, lease => '1 h');
CREATE TABLE effect (position bigint PRIMARY KEY, attempt int);
BEGIN;
INSERT INTO effect SELECT position, attempt FROM es_poll('t', 'me', 3);
SELECT es_ack('t', token) FROM es_partitions;
ROLLBACK;
SELECT count(*) FROM effect;
SELECT position, in_flight FROM es_subscription_status;
BEGIN;
INSERT INTO effect SELECT position, attempt FROM es_poll('t', 'me', 3);
SELECT es_ack('t', token) FROM es_partitions;
COMMIT;
SELECT * FROM effect;
-- Savepoints: what is rolled back was not delivered, or not acknowledged.
BEGIN;
SAVEPOINT a;
SELECT * FROM seen('t', 'me', 2);
ROLLBACK TO a;
SELECT * FROM seen('t', 'me', 2);
SELECT token FROM es_partitions \gset
SAVEPOINT b;
SELECT es_ack('t', :token);
ROLLBACK TO b;
SELECT in_flight FROM es_subscription_status;
SELECT es_nack('t', :token, 14, 'no', 'park');
ROLLBACK TO b;
RELEASE b;
SELECT es_ack('t', :token);
COMMIT;
SELECT position, in_flight, parked FROM es_subscription_status;
SELECT es_drop_subscription('t');
DROP TABLE effect;

--
-- Where and how it is called
--
SELECT es_create_subscription('w', category => 'p', start_position => 10, lease => '1 h', partitions => 2);
SELECT es_poll('w', 'me', 2) IS NULL AS nothing;
SELECT (es_poll('w', 'me', 2)).position;
SELECT position FROM es_poll('w', 'me', 3) LIMIT 1;
SELECT position, (SELECT count(*) FROM es_poll('w', 'me', 3)) FROM es_poll('w', 'you', 1);
SELECT (SELECT max(attempt) FROM es_poll('w', 'me', 3)) AS attempt;
WITH p AS (SELECT * FROM es_poll('w', 'me', 2)) SELECT count(*), count(DISTINCT a.token) FROM p a JOIN p b USING (position);
WITH p AS MATERIALIZED (SELECT * FROM es_poll('w', 'me', 2)) SELECT count(*) FROM p WHERE false;
SELECT p.attempt, p.position = e.position AS joined FROM es_poll('w', 'me', 2) p JOIN es_events e ON e.id = p.id;
SELECT count(*) FROM es_poll('w', 'me', 2, wait => '1 h') p JOIN es_events e ON e.id = p.id;
-- Two in one statement: both get something, from two partitions; of one name, the second.
SELECT es_seek('w', 0);
SELECT count(DISTINCT p.partition), count(*) FROM (SELECT * FROM es_poll('w', 'a', 2) UNION ALL SELECT * FROM es_poll('w', 'b', 2)) p;
SELECT string_agg(DISTINCT p.attempt::text, ' ') FROM (SELECT * FROM es_poll('w', 'a', 2) UNION ALL SELECT * FROM es_poll('w', 'a', 2)) p;
SELECT count(DISTINCT p.partition), count(*) FROM generate_series(1, 3) n, es_poll('w', 'c' || n, 1) p;
-- EXPLAIN ANALYZE delivers, EXPLAIN does not.
SELECT es_seek('w', 0);
CREATE FUNCTION explained(how text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE line text;
BEGIN
    EXECUTE 'EXPLAIN (' || how || ') SELECT * FROM es_poll(''w'', ''me'', 2, wait => ''1 h'')' INTO line;
    RETURN replace(line, '.00', '');      -- from version 18 on
END $$;
SELECT explained('COSTS off');
SELECT sum(in_flight) FROM es_subscription_status;
SELECT explained('ANALYZE, COSTS off, TIMING off, SUMMARY off, BUFFERS off');
SELECT sum(in_flight) FROM es_subscription_status;
EXPLAIN (COSTS off) SELECT * FROM es_poll('w', 'me', 2, wait => '1 h');
-- A cursor.
SELECT es_seek('w', 0);
BEGIN;
DECLARE c CURSOR FOR SELECT position > 0 AS found FROM es_poll('w', 'me', 4, wait => '1 h');
FETCH 1 FROM c;
SELECT sum(in_flight) FROM es_subscription_status;
FETCH 2 FROM c;
MOVE BACKWARD ALL IN c;
FETCH ALL FROM c;
COMMIT;
BEGIN;
DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT attempt FROM es_poll('w', 'me', 2);
COMMIT;
FETCH ALL FROM c;
CLOSE c;
-- plpgsql: a loop over it, with waits, in a transaction with others.
SELECT es_seek('w', 0);
DO $$
DECLARE e record; n int := 0;
BEGIN
    FOR e IN SELECT * FROM es_poll('w', 'me', 5, wait => '1 h') LOOP
        n := n + 1;
    END LOOP;
    RAISE NOTICE '% events', n;
    PERFORM * FROM es_poll('w', 'me', 5, wait => '1 ms');
    BEGIN
        PERFORM * FROM es_poll('w', 'me', 5, wait => '1 ms');
        RAISE SQLSTATE '00A00';
    EXCEPTION WHEN SQLSTATE '00A00' THEN
        NULL;
    END;
END $$;
SELECT max(attempt) FROM es_poll('w', 'me', 5);
-- Prepared statements, generic plans too.
SELECT es_seek('w', 0);
PREPARE poll(text, int, interval) AS SELECT attempt FROM es_poll('w', $1, $2, $3);
SET plan_cache_mode = force_generic_plan;
EXECUTE poll('me', 1, '0');
EXECUTE poll('me', 1, '1 h');
EXECUTE poll('me', 1, '1 h');
RESET plan_cache_mode;
EXECUTE poll('me', 1, '1 h');
DEALLOCATE poll;
PREPARE poll AS SELECT count(*) FROM es_poll('w', 'me', 1);
EXECUTE poll;
CREATE INDEX got_position ON got (position);    -- plans are made anew
EXECUTE poll;
DEALLOCATE poll;
-- Waiting for nothing.
SELECT es_drop_subscription('w');
SELECT es_create_subscription('w', category => 'nowhere');
SELECT count(*) FROM es_poll('w', wait => '20 ms');
SELECT count(*) FROM es_poll('w', wait => '20 ms') UNION ALL SELECT count(*) FROM es_poll('w', wait => '1 ms');
SELECT count(*) FROM es_events e, es_poll('w', wait => '1 ms') p WHERE e.position = p.position;
SELECT position = es_horizon() AS moved FROM es_partitions;
BEGIN;
SELECT count(*) FROM es_poll('w', wait => '1 ms');
SELECT count(*) FROM es_poll('w', wait => '1 ms');
SAVEPOINT a;
SELECT count(*) FROM es_poll('w', wait => '1 ms');
COMMIT;
-- It ends before the time-out of its statement.
SET statement_timeout = '1 s';
SELECT count(*) FROM es_poll('w', wait => '1 h');
RESET statement_timeout;
SELECT count(*) FROM es_poll('w');
-- What is read after the wait is read as of then. The snapshot is given back,
-- so the statement's own ones see what was committed meanwhile; here, that
-- they have one at all.
SELECT p.n, es_horizon() > 0 AS horizon, es_stream_version('p-1') > 0 AS version, txid_current_snapshot() IS NOT NULL AS snapshot
  FROM (SELECT count(*) AS n FROM es_poll('w', wait => '5 ms')) p;

-- One snapshot for the whole transaction: no waiting.
BEGIN ISOLATION LEVEL REPEATABLE READ;
\set VERBOSITY sqlstate
SELECT es_poll('w', wait => '1 ms');
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT es_poll('w', wait => '1 ms');
ROLLBACK;
\set VERBOSITY default
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM es_poll('w', wait => '0');
SELECT es_append('nowhere-1', 'any', 'x') IS NOT NULL;
SELECT count(*) FROM es_poll('w');
SELECT es_ack('w', token) > 0 FROM es_partitions;
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT es_append('nowhere-1', 'any', 'x') IS NOT NULL;
SELECT count(*) FROM es_poll('w');
SELECT es_ack('w', token) > 0 FROM es_partitions;
COMMIT;
SELECT count(*) FROM es_poll('w');
SELECT es_drop_subscription('w');

--
-- Much
--
SET work_mem = '64kB';
SELECT count(*) FROM (SELECT es_append_batch('much-' || n, 'any', array_fill('x'::text, '{100}'), array_fill(jsonb_build_object('n', n), '{100}'))
  FROM generate_series(1, 100) n) a;
SELECT es_create_subscription('much', category => 'much', max_in_flight => 10000, lease => '1 h');
SELECT count(*), count(DISTINCT position), sum((data->>'n')::int), count(DISTINCT token) AS tokens FROM es_poll('much', 'me', 10000);
SELECT count(*), count(DISTINCT position), sum((data->>'n')::int), max(attempt) FROM es_poll('much', 'me', 20000, wait => '1 h');
SELECT count(*), count(DISTINCT position), sum((data->>'n')::int), max(attempt) FROM es_poll('much', 'me', 1000000, wait => '1 h');
SELECT es_ack('much', token) = es_horizon() FROM es_partitions WHERE subscription = 'much';
-- Large ones, inline and out of line; a part of them is settled.
SELECT es_append_batch('large-1', 'any', array_fill('x'::text, '{4}'), array_agg(jsonb_build_object('n', n, 'text', repeat(md5(n::text), 32768))))
  IS NOT NULL FROM generate_series(1, 4) n;
SELECT es_append('large-1', 'any', 'x', jsonb_build_object('n', 5, 'text', (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 40000) i)))
  IS NOT NULL;
SELECT es_create_subscription('large', category => 'large', lease => '1 h');
SELECT count(*), sum(length(data->>'text')), bool_and(data = (SELECT e.data FROM es_events e WHERE e.position = p.position)) AS same
  FROM es_poll('large', 'me', 10, wait => '1 h') p;
SELECT es_ack('large', token, es_horizon() - 2) = es_horizon() - 2 FROM es_partitions WHERE subscription = 'large';
SELECT in_flight FROM es_subscription_status WHERE subscription = 'large';
SELECT count(*), sum(length(data->>'text')), max(attempt) FROM es_poll('large', 'me', 10);
-- So many bytes at most, or one event.
CREATE FUNCTION sizes(max_bytes bigint, max_count bigint DEFAULT 10) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM es_seek('large', 0);
    RETURN (SELECT string_agg(length(data->>'text')::text, ' ') FROM es_poll('large', 'me', max_count, max_bytes => sizes.max_bytes));
END $$;
SELECT sizes(1), sizes(1048576), sizes(2 * 1048576), sizes(2 * 1048576 + 100), sizes(3 * 1048576 + 200), sizes(100000000), sizes(100000000, 2);
SELECT array_agg(length(data->>'text')) FROM es_poll('large', 'me', 10, after_token => (SELECT token FROM es_partitions WHERE subscription = 'large'), max_bytes => 1);
SELECT es_poll('large', max_bytes => 0);
SELECT es_poll('large', max_bytes => NULL);
-- The same for a role that reads by SQL.
ALTER TABLE es_events FORCE ROW LEVEL SECURITY, ENABLE ROW LEVEL SECURITY;
CREATE ROLE regress_es_polls;
SELECT es_grant('regress_es_polls', 'reader');
CREATE POLICY all_rows ON es_events TO regress_es_polls USING (true);
SELECT es_drop_subscription('large');
SET ROLE regress_es_polls;
SELECT es_create_subscription('large', category => 'large', lease => '1 h');
SELECT sizes(1), sizes(1048576), sizes(2 * 1048576), sizes(2 * 1048576 + 100), sizes(3 * 1048576 + 200), sizes(100000000), sizes(100000000, 2);
RESET ROLE;
ALTER TABLE es_events NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY;
-- A parked stream: what there is no room for was not attempted.
SET ROLE regress_es_polls;
SELECT es_seek('large', 0);
SELECT DISTINCT es_nack('large', token, position, 'not yet', 'park') FROM es_poll('large', 'me', 1);
SELECT count(*) FROM es_poll('large', 'me', 10);
SELECT attempts, message IS NOT NULL AS parked FROM es_failures(subscription => 'large') ORDER BY position;
RESET ROLE;
SELECT es_retry(id) FROM es_failures(subscription => 'large') WHERE message IS NOT NULL;
SET ROLE regress_es_polls;
SELECT es_ack('large', max(token)) IS NOT NULL, count(*) FROM es_poll('large', 'me', 10, max_bytes => 1);
SELECT string_agg(length(data->>'text')::text, ' '), min(attempt), max(attempt) FROM es_poll('large', 'me', 10, max_bytes => 2 * 1048576 + 100);
SELECT attempts, message IS NOT NULL AS parked FROM es_failures(subscription => 'large') ORDER BY position;
RESET ROLE;
-- In a cursor of which only the first row is read, and one that is closed early.
BEGIN;
SELECT es_seek('much', 0);
DECLARE c CURSOR FOR SELECT position > 0 FROM es_poll('much', 'me', 10000, wait => '1 h');
FETCH 1 FROM c;
SAVEPOINT s;
FETCH 1 FROM c;
ROLLBACK TO s;
FETCH 1 FROM c;
CLOSE c;
COMMIT;
RESET work_mem;

DROP PROCEDURE drain;
DROP FUNCTION seen, explained, sizes;
DROP TABLE got;
DROP EXTENSION eventstore;
DROP OWNED BY regress_es_polls;
DROP ROLE regress_es_polls;
