-- es_create_subscription, es_drop_subscription, es_seek, and what the arguments
-- of es_poll, es_ack and es_nack must be.
CREATE EXTENSION eventstore;
SELECT es_append_batch('a-' || n, 'any', '{opened,renamed,closed}', '{"{}","{}","{}"}') FROM generate_series(1, 4) n;
SELECT es_append('b-1', 'any', 'opened');

--
-- What is stored
--
SELECT es_create_subscription('plain');
SELECT es_create_subscription('all', 'a', '{opened,"clo,sed"}', 3, 4, '1 day 2 hours', 7, 50);
SELECT es_create_subscription('from now on', start_position => NULL, types => '{x}');
\x
SELECT name, owner = current_user AS owner, categories, types, start_position, partitions, lease, max_attempts, max_in_flight,
       created_at <= clock_timestamp() AS created
  FROM es_subscriptions ORDER BY name;
SELECT * FROM es_partitions WHERE subscription = 'plain';
\x
SELECT subscription, partition, position, reached FROM es_partitions ORDER BY 1, 2;
SELECT subscription, partition, consumer, lease_left, position, horizon, lag_events, lag_seconds > 0 AS lags, in_flight, parked, oldest_parked_age
  FROM es_subscription_status ORDER BY 1, 2;
SELECT es_drop_subscription(name) FROM es_subscriptions;
SELECT (SELECT count(*) FROM es_subscriptions) AS subscriptions, (SELECT count(*) FROM es_partitions) AS partitions;

--
-- What is refused, with its code, so that a client can tell
--
CREATE FUNCTION refused(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE message text; detail text; hint text;
BEGIN
    EXECUTE 'SELECT ' || call;
    RAISE SQLSTATE '00A00';     -- undoes it
EXCEPTION WHEN SQLSTATE '00A00' THEN
    RETURN 'accepted';
WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN concat_ws(E'\n       ', SQLSTATE || ': ' || message, nullif(detail, ''), nullif(hint, ''));
END $$;
\pset format unaligned
\pset tuples_only on

-- Names: 1 to 63 bytes.
SELECT refused($$ es_create_subscription(NULL) $$);
SELECT refused($$ es_create_subscription('') $$);
SELECT refused($$ es_create_subscription(repeat('n', 64)) $$);
SELECT refused($$ es_create_subscription(repeat('ä', 32)) $$);
SELECT refused($$ es_create_subscription(repeat('ä', 31) || 'x') $$);
SELECT refused($$ es_create_subscription('Odd "name", isn''t it') $$);
SELECT es_create_subscription('s');
SELECT refused($$ es_create_subscription('s') $$);
SELECT refused($$ es_create_subscription('s', category => 'other') $$);
SELECT refused($$ es_create_subscription('S') $$);

-- Types.
SELECT refused($$ es_create_subscription('t', types => '{a,NULL}') $$);
SELECT refused($$ es_create_subscription('t', types => '{{a,b},{c,d}}') $$);
SELECT refused($$ es_create_subscription('t', types => '{""}') $$);
SELECT refused($$ es_create_subscription('t', types => ARRAY[repeat('t', 256)]) $$);
SELECT refused($$ es_create_subscription('t', types => ARRAY[repeat('t', 255)], category => '') $$);
SELECT refused($$ es_create_subscription('t', types => '{}') $$);
SELECT refused($$ es_create_subscription('t', category => 'order-1') $$);
SELECT refused($$ es_create_subscription('t', category => '-') $$);
SELECT refused($$ es_create_subscription('t', category => repeat('x', 2049)) $$);

-- Numbers.
SELECT refused($$ es_create_subscription('t', start_position => -1) $$);
SELECT refused($$ es_create_subscription('t', start_position => 9223372036854775807) $$);
SELECT refused($$ es_create_subscription('t', partitions => NULL) $$);
SELECT refused($$ es_create_subscription('t', partitions => 0) $$);
SELECT refused($$ es_create_subscription('t', partitions => -1) $$);
SELECT refused($$ es_create_subscription('t', partitions => 1025) $$);
SELECT refused($$ es_create_subscription('t', partitions => 1024) $$);
SELECT refused($$ es_create_subscription('t', max_attempts => NULL) $$);
SELECT refused($$ es_create_subscription('t', max_attempts => 0) $$);
SELECT refused($$ es_create_subscription('t', max_attempts => 1001) $$);
SELECT refused($$ es_create_subscription('t', max_attempts => 1000) $$);
SELECT refused($$ es_create_subscription('t', max_in_flight => NULL) $$);
SELECT refused($$ es_create_subscription('t', max_in_flight => 0) $$);
SELECT refused($$ es_create_subscription('t', max_in_flight => 1000001) $$);
SELECT refused($$ es_create_subscription('t', max_in_flight => 1000000) $$);

-- Leases.
SELECT refused($$ es_create_subscription('t', lease => NULL) $$);
SELECT refused($$ es_create_subscription('t', lease => '0') $$);
SELECT refused($$ es_create_subscription('t', lease => '-1 s') $$);
SELECT refused($$ es_create_subscription('t', lease => '-1 month 29 days') $$);
SELECT left(refused($$ es_create_subscription('t', lease => '100000000 years') $$), 5);
SELECT refused($$ es_create_subscription('t', lease => '1 microsecond') $$);
SELECT refused($$ es_create_subscription('t', lease => '1000 years') $$);

-- Names of subscriptions that do not exist, or are null.
SELECT refused($$ es_drop_subscription('nowhere') $$);
SELECT refused($$ es_drop_subscription('') $$);
SELECT es_drop_subscription(NULL);
SELECT refused($$ es_seek('nowhere', 0) $$);
SELECT refused($$ es_seek('nowhere', NULL) $$);
SELECT refused($$ es_seek(NULL, 0) $$);
SELECT refused($$ es_poll('nowhere') $$);
SELECT refused($$ es_poll('nowhere', wait => '1 h') $$);
SELECT refused($$ es_poll('nowhere', after_token => 1024) $$);
SELECT refused($$ es_poll(NULL) $$);
SELECT refused($$ es_ack('nowhere', 1024) $$);
SELECT refused($$ es_ack(NULL, 1024) $$);
SELECT refused($$ es_nack('nowhere', 1024, 1, 'no') $$);
SELECT refused($$ es_nack(NULL, 1024, 1, 'no') $$);

-- es_poll.
SELECT refused($$ es_poll('s', '') $$);
SELECT refused($$ es_poll('s', repeat('c', 256)) $$);
SELECT refused($$ es_poll('s', repeat('c', 255)) $$);
SELECT refused($$ es_poll('s', max_count => NULL) $$);
SELECT refused($$ es_poll('s', max_count => 0) $$);
SELECT refused($$ es_poll('s', max_count => -1) $$);
SELECT refused($$ es_poll('s', max_count => 1000001) $$);
SELECT refused($$ es_poll('s', max_count => 1000000) $$);
SELECT refused($$ es_poll('s', wait => NULL) $$);
SELECT refused($$ es_poll('s', wait => '-1 s') $$);
SELECT refused($$ es_poll('s', wait => '-1 day 23 hours') $$);
SELECT left(refused($$ es_poll('s', wait => '100000000 years') $$), 5);
SELECT refused($$ es_poll('s', wait => '1000 years') $$);
SELECT refused($$ es_poll('s', wait => '1 microsecond') $$);
SELECT refused($$ es_poll('s', after_token => 0) $$);
SELECT refused($$ es_poll('s', after_token => -1) $$);
SELECT refused($$ es_poll('s', after_token => 1024) $$);
SELECT refused($$ es_poll('s', after_token => 1025) $$);
SELECT refused($$ es_poll('s', after_token => 9223372036854775807) $$);

-- es_ack and es_nack: nothing is in flight.
SELECT refused($$ es_ack('s', NULL) $$);
SELECT refused($$ es_ack('s', 1024) $$);
SELECT refused($$ es_ack('s', 1025) $$);
SELECT refused($$ es_ack('s', 0) $$);
SELECT refused($$ es_ack('s', -1) $$);
SELECT refused($$ es_nack('s', NULL, 1, 'no') $$);
SELECT refused($$ es_nack('s', 1024, 1, 'no') $$);
SELECT refused($$ es_nack('s', 1024, NULL, 'no') $$);
SELECT refused($$ es_nack('s', 1024, 1, NULL) $$);
SELECT refused($$ es_nack('s', 1024, 1, 'no', NULL) $$);
SELECT refused($$ es_nack('s', 1024, 1, 'no', 'drop') $$);
SELECT refused($$ es_nack('s', 1024, 1, 'no', 'Retry') $$);
SELECT refused($$ es_nack('s', 1024, 1, 'no', '') $$);

-- Something is: positions that were not delivered.
SELECT es_create_subscription('p', category => 'a', partitions => 2, lease => '1 h');
SELECT min(token) AS token, min(partition) AS partition, min(position) AS first, max(position) AS last
  FROM es_poll('p', 'me', max_count => 3) \gset
\set other 1 - :partition
SELECT :first > 0 AND :last > :first AS delivered;
SELECT replace(refused(format('es_ack(%L, %s, %s)', 'p', :token, :last + 1)), :'token', 'TOKEN');
SELECT replace(refused(format('es_ack(%L, %s, %s)', 'p', :token, -1)), :'token', 'TOKEN');
SELECT replace(refused(format('es_ack(%L, %s, 9223372036854775807)', 'p', :token)), :'token', 'TOKEN');
SELECT refused(format('es_ack(%L, %s, %s)', 'p', :token, 0));
-- A position before the delivery acknowledges nothing, and the lease begins anew.
UPDATE es_partitions SET leased_until = leased_until - interval '30 min' WHERE subscription = 'p' AND leased_until IS NOT NULL;
SELECT es_ack('p', :token, 0) < :first AS nothing_is_acknowledged;
SELECT count(*) AS leased_anew FROM es_partitions WHERE subscription = 'p' AND leased_until > clock_timestamp() + interval '59 min';
SELECT refused(format('es_ack(%L, %s, %s)', 'p', :token, :first));
SELECT replace(refused(format('es_nack(%L, %s, %s, %L)', 'p', :token, :last + 1, 'no')), :'token', 'TOKEN');
SELECT replace(refused(format('es_nack(%L, %s, %s, %L)', 'p', :token, -1, 'no')), :'token', 'TOKEN');
SELECT left(refused(format('es_nack(%L, %s, %s, %L)', 'p', :token, 0, 'no')), 5);
-- One of the other partition, one of another category.
SELECT left(refused(format('es_nack(%L, %s, %s, %L)', 'p', :token, position, 'no')), 5)
  FROM es_events WHERE position < :last AND es_partition(stream, 2) <> :partition ORDER BY position LIMIT 1;
SELECT left(refused(format('es_nack(%L, %s, %s, %L)', 'p', :token, 13, 'no')), 5);
-- Its token for another partition, or another subscription, is void.
SELECT left(refused(format('es_ack(%L, %s)', 'p', :token - :partition + :other)), 5);
SELECT left(refused(format('es_ack(%L, %s)', 'p', :token - 1024)), 5);
SELECT left(refused(format('es_ack(%L, %s)', 'p', :token + 1024)), 5);
SELECT left(refused(format('es_ack(%L, %s)', 's', :token - :partition)), 5);
SELECT left(refused(format('es_nack(%L, %s, %s, %L)', 's', :token - :partition, :first, 'no')), 5);
SELECT left(refused(format('es_poll(%L, after_token => %s)', 's', :token - :partition)), 5);
SELECT left(refused(format('es_poll(%L, after_token => %s)', 'p', :token - 1024)), 5);
-- The message where a consumer comes too late.
SELECT regexp_replace(refused(format('es_ack(%L, %s)', 'p', :token - 1024)), '[0-9]{6,}', 'TOKEN', 'g');
SELECT es_ack('p', :token) = :last;
SELECT regexp_replace(refused(format('es_ack(%L, %s)', 'p', :token - 1024)), '[0-9]{6,}', 'TOKEN', 'g');

-- In a transaction that must not write.
BEGIN READ ONLY;
SELECT refused($$ es_create_subscription('t') $$);
SELECT refused($$ es_drop_subscription('s') $$);
SELECT refused($$ es_seek('s', 0) $$);
SELECT refused($$ es_poll('s') $$);
SELECT refused($$ es_poll('s', wait => '1 s') $$);
SELECT refused($$ es_ack('s', 1024) $$);
SELECT refused($$ es_nack('s', 1024, 1, 'no') $$);
COMMIT;

-- None of them left anything.
SELECT name FROM es_subscriptions ORDER BY name;
SELECT count(*) FROM es_failures;
SELECT es_drop_subscription('p');

--
-- es_seek
--
\pset tuples_only off
\pset format aligned
SELECT refused($$ es_seek('s', -1) $$);
SELECT refused($$ es_seek('s', 9223372036854775807) $$);
SELECT es_drop_subscription('s');
SELECT es_create_subscription('s', category => 'a', start_position => 6, lease => '1 h', max_attempts => 3);
-- A poll in one transaction with its acknowledgement.
CREATE FUNCTION take(name text, many int DEFAULT 100, OUT positions text, OUT attempts text, OUT checkpoint bigint) LANGUAGE plpgsql AS $$
DECLARE shown bigint;
BEGIN
    SELECT string_agg(p.position::text, ' ' ORDER BY p.position), string_agg(p.attempt::text, ' ' ORDER BY p.position), min(p.token)
      INTO positions, attempts, shown FROM es_poll(name, max_count => many) p;
    IF shown IS NOT NULL THEN
        checkpoint := es_ack(name, shown);
    END IF;
END $$;
SELECT * FROM take('s', 3);
-- Back; forward; to its beginning; to where new events come.
SELECT es_seek('s', 4);
SELECT * FROM take('s', 4);
SELECT es_seek('s', 11);
SELECT * FROM take('s');
SELECT es_seek('s', 0);
SELECT * FROM take('s', 2);
SELECT es_seek('s', NULL);
SELECT * FROM take('s');
SELECT position, horizon, lag_events FROM es_subscription_status;
SELECT es_append('a-9', 'any', 'opened');
SELECT * FROM take('s');
-- Beyond the end of the log nothing can be; a position of an append that was rolled back is not beyond it.
SELECT es_seek('s', 16);
BEGIN;
SELECT es_append_batch('a-9', 'any', '{opened,opened}', '{"{}","{}"}');
ROLLBACK;
SELECT es_seek('s', 16);
SELECT position, horizon, lag_events, lag_seconds FROM es_subscription_status;
SELECT es_append('a-9', 'any', 'opened');
SELECT * FROM take('s');
SELECT es_append('a-9', 'any', 'opened'), es_append('a-9', 'any', 'opened');
SELECT * FROM take('s');

-- What is in flight is void, and how often its lease expired is forgotten.
SELECT es_seek('s', 0);
SELECT min(token) AS token FROM es_poll('s', 'me') \gset
SELECT min(token) AS token, min(attempt) AS attempt FROM es_poll('s', 'me') \gset
SELECT :attempt AS attempt;
SELECT es_seek('s', 0);
SELECT consumer, lease_left, position, in_flight FROM es_subscription_status;
\set VERBOSITY sqlstate
SELECT es_ack('s', :token);
SELECT es_nack('s', :token, 1, 'no');
SELECT es_poll('s', after_token => :token);
\set VERBOSITY default
SELECT count(*), min(attempt), max(attempt), bool_and(token > :token) AS later FROM es_poll('s', 'me');

-- Failures after the position are removed, those before it stay.
SELECT es_seek('s', 0);
SELECT min(token) AS token FROM es_poll('s', 'me', 6) \gset
SELECT es_nack('s', :token, 2, 'no', 'park'), es_nack('s', :token, 5, 'no', 'retry'), es_ack('s', :token);
SELECT position, stream, message, attempts, retry_at IS NOT NULL AS retried FROM es_failures ORDER BY position;
SELECT parked, oldest_parked_age > '0' AS old FROM es_subscription_status;
SELECT es_seek('s', 3);
SELECT position, stream, message, attempts FROM es_failures ORDER BY position;
SELECT * FROM take('s');
SELECT es_retry(id) FROM es_failures WHERE position = 2;
SELECT * FROM take('s');
SELECT * FROM take('s');
SELECT count(*) FROM es_failures;
-- In the middle of a parked stream: what comes after the position waits anew.
SELECT es_seek('s', 0);
SELECT min(token) AS token FROM es_poll('s', 'me', 3) \gset
SELECT es_nack('s', :token, 1, 'no', 'park');
SELECT position, message FROM es_failures ORDER BY position;
SELECT es_seek('s', 2);
SELECT position, message FROM es_failures ORDER BY position;
SELECT * FROM take('s');
SELECT position, message, attempts FROM es_failures ORDER BY position;
SELECT position, horizon, lag_events, parked FROM es_subscription_status;

--
-- Dropped with something in flight and parked, and created anew
--
SELECT es_seek('s', 3);
SELECT min(token) AS token FROM es_poll('s', 'me') \gset
SELECT es_drop_subscription('s');
SELECT (SELECT count(*) FROM es_subscriptions) AS subscriptions, (SELECT count(*) FROM es_partitions) AS partitions,
       (SELECT count(*) FROM es_failures) AS failures;
\set VERBOSITY sqlstate
SELECT es_ack('s', :token);
SELECT es_poll('s');
SELECT es_create_subscription('s');
SELECT es_ack('s', :token);
\set VERBOSITY default
SELECT count(*), min(attempt), max(attempt) FROM es_poll('s');
-- In a transaction that is rolled back.
BEGIN;
SELECT es_drop_subscription('s'), es_create_subscription('s', partitions => 2);
SELECT count(*) FROM es_partitions;
ROLLBACK;
SELECT count(*) FROM es_partitions;

DROP FUNCTION refused, take;
DROP EXTENSION eventstore;
