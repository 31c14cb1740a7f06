-- Tokens of deliveries are void in the next incarnation of the store, and what was in flight
-- is delivered again, without an attempt more. A promotion is played as in es_identity.
SET client_min_messages = warning;
CREATE EXTENSION eventstore;
CREATE TABLE known (name text, token bigint);
CREATE PROCEDURE is_promoted() LANGUAGE sql AS $$ UPDATE es_incarnation_entries SET timeline = timeline + 1 $$;
CREATE FUNCTION said(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    said text;
BEGIN
    EXECUTE call INTO said;
    RETURN said;
EXCEPTION WHEN SQLSTATE 'ES006' THEN
    GET STACKED DIAGNOSTICS said = PG_EXCEPTION_DETAIL;
    RETURN 'ES006: ' || said;
END $$;
SELECT count(es_append(c || n % 3, 'any', 'x')) FROM unnest('{a-,b-}'::text[]) AS c, generate_series(1, 9) AS n;

-- in flight: of one with a name, and of one without; two deliveries; one attempt is all
SELECT es_create_subscription('named', 'a', lease => '1 hour', max_attempts => 1);
INSERT INTO known SELECT 'named', max(token) FROM es_poll('named', 'ann', 4);
SELECT es_nack('named', token, 2, 'not wanted', 'skip') FROM known WHERE name = 'named';
SELECT es_create_subscription('ahead', 'a', lease => '1 hour', partitions => 3);
INSERT INTO known SELECT 'ahead 1', max(token) FROM es_poll('ahead', max_count => 1);
INSERT INTO known SELECT 'ahead 2', max(token) FROM es_poll('ahead', max_count => 1, after_token => (SELECT token FROM known WHERE name = 'ahead 1'));
-- the second of two, after the first was acknowledged
SELECT es_create_subscription('acked', 'a', lease => '1 hour');
INSERT INTO known SELECT 'acked', max(token) FROM es_poll('acked', 'ann', 2);
SELECT es_ack('acked', token) FROM known WHERE name = 'acked';
-- a parked stream that is retried
SELECT es_create_subscription('parked', 'b', lease => '1 hour');
SELECT es_nack('parked', max(token), 10, 'broken', 'park') FROM es_poll('parked', 'ann', 9);
SELECT es_ack('parked', token) FROM es_partitions WHERE subscription = 'parked';
SELECT es_retry(min(id)) FROM es_failures WHERE subscription = 'parked';
INSERT INTO known SELECT 'parked', max(token) FROM es_poll('parked', 'ann');
SELECT subscription, position, stream, leased_until IS NOT NULL AS leased, cardinality(tokens) AS deliveries
  FROM es_partitions WHERE token > 0 ORDER BY 1;
CALL is_promoted();
\c
SET client_min_messages = warning;

-- whoever asks first
SELECT said(format('SELECT es_ack(''named'', %s)', token)) FROM known WHERE name = 'named';
SELECT said(format('SELECT es_nack(''named'', %s, 3, ''why'', ''park'')', token)) FROM known WHERE name = 'named';
SELECT said(format('SELECT position FROM es_poll(''ahead'', after_token => %s)', token)) FROM known WHERE name = 'ahead 2';
SELECT said(format('SELECT position FROM es_poll(''ahead'', after_token => %s, wait => ''1 ms'')', token)) FROM known WHERE name = 'ahead 2';
SELECT max(number) AS number FROM es_incarnations;
-- a repeated acknowledgement says what it has said
SELECT es_ack('acked', token) FROM known WHERE name = 'acked';

-- anybody gets it, at once, at the same attempt; what was skipped stays so. The retry of a
-- parked event was counted when it began.
SELECT attempt, position FROM es_poll('named', 'ben');
SELECT max(number) AS number FROM es_incarnations;
SELECT said(format('SELECT es_ack(''named'', %s)', token)) FROM known WHERE name = 'named';
SELECT es_ack('named', token) FROM es_partitions WHERE subscription = 'named' AND token > (SELECT max(token) FROM known);
SELECT count(*) AS more FROM es_poll('named', 'ben');
SELECT count(*) AS parked FROM es_failures WHERE subscription = 'named';
BEGIN;
SELECT partition = (SELECT token & 1023 FROM known WHERE name = 'ahead 1') AS same_partition, attempt, position FROM es_poll('ahead', 'ben', 1) AS e;
ROLLBACK;
SELECT count(*), count(DISTINCT position), max(attempt) AS attempt FROM
    (SELECT * FROM es_poll('ahead', 'one') UNION ALL SELECT * FROM es_poll('ahead', 'two') UNION ALL SELECT * FROM es_poll('ahead', 'three')) AS e;
SELECT attempt, position, stream FROM es_poll('parked', 'ben');
SELECT said(format('SELECT es_ack(''parked'', %s)', token)) FROM known WHERE name = 'parked';
SELECT es_ack('parked', token) FROM es_partitions WHERE subscription = 'parked';
SELECT attempt, position, stream FROM es_poll('parked', 'ben');

-- tokens of the incarnation are good for all sessions
\c
SET client_min_messages = warning;
SELECT es_ack('ahead', max(token)) > 0 AS acked FROM es_partitions WHERE subscription = 'ahead' AND leased_until IS NOT NULL GROUP BY partition;

-- a clock that is behind: new tokens lie above those that are void
UPDATE es_partitions SET token = token + 1024 * 3600000000;
CALL is_promoted();
\c
SET client_min_messages = warning;
SELECT es_create_subscription('later', 'a');
SELECT es_ack('later', max(token)) FROM es_poll('later', 'c', 2);

DROP EXTENSION eventstore CASCADE;
DROP TABLE known;
DROP FUNCTION said;
DROP PROCEDURE is_promoted;
