-- es_nack, es_retry, es_discard, and events whose lease expires.
CREATE EXTENSION eventstore;
-- What a poll delivers: position#attempt.
CREATE FUNCTION seen(many int DEFAULT 100, consumer text DEFAULT 'me') RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(p.position || '#' || p.attempt, ' ' ORDER BY p.position) FROM es_poll('s', consumer, many) p
$$;
-- By the token of the last delivery.
CREATE FUNCTION ack(upto bigint DEFAULT NULL) RETURNS bigint LANGUAGE sql AS $$
    SELECT es_ack('s', token, upto) FROM es_partitions
$$;
-- A pause is made a day longer, so that it does not end by itself.
CREATE FUNCTION nack(at bigint, action text DEFAULT 'retry', reason text DEFAULT 'no') RETURNS text LANGUAGE plpgsql AS $$
DECLARE result text;
BEGIN
    SELECT es_nack('s', token, at, reason, action) INTO result FROM es_partitions;
    UPDATE es_failures SET retry_at = retry_at + interval '1 day' WHERE position = at;
    RETURN result;
END $$;
CREATE VIEW failures AS
SELECT position, stream, message, attempts, CASE WHEN retry_at > now() THEN 'later' WHEN retry_at <= now() THEN 'due' END AS retry
  FROM es_failures ORDER BY position;
CREATE VIEW status AS
SELECT consumer, lease_left > '0' AS leased, position, lag_events, in_flight, parked, oldest_parked_age >= '0' AS old FROM es_subscription_status;
-- The lease expires; the pauses are over.
CREATE FUNCTION expire() RETURNS void LANGUAGE sql AS $$ UPDATE es_partitions SET leased_until = now() - interval '1 s' WHERE leased_until IS NOT NULL $$;
CREATE FUNCTION due() RETURNS void LANGUAGE sql AS $$
    UPDATE es_failures SET retry_at = now() - interval '1 s' WHERE retry_at IS NOT NULL;
    UPDATE es_partitions SET due_at = now() - interval '1 s' WHERE due_at IS NOT NULL
$$;
CREATE FUNCTION anew(attempts int DEFAULT 3) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM es_drop_subscription(name) FROM es_subscriptions;
    PERFORM es_create_subscription('s', category => 'a', lease => '1 h', max_attempts => attempts);
END $$;
SELECT es_append('a-' || n % 3, 'any', 'x') FROM generate_series(1, 9) n \g /dev/null

--
-- skip, park, retry; what is behind in the same delivery
--
SELECT anew();
SELECT seen(6);
SELECT nack(2, 'skip'), nack(4, 'park', 'a reason'), nack(3);
TABLE failures;
TABLE status;
SELECT sqlstate, message, detail, context, partition, subscription, type, event_id = (SELECT id FROM es_events e WHERE e.position = f.position) AS id,
       first_failed_at <= last_failed_at AS times FROM es_failures f WHERE position = 4;
-- What is settled stays settled: repeating the call changes nothing.
SELECT nack(2, 'skip'), nack(2), nack(4), nack(3, 'park'), nack(6);
TABLE failures;
-- The rest is in flight, and is redelivered alone when its lease expires.
SELECT expire();
SELECT seen(6);
SELECT ack();
TABLE status;
-- What is appended later waits, too; those of other streams do not.
SELECT seen();
SELECT ack();
SELECT es_append('a-1', 'any', 'x'), es_append('a-2', 'any', 'x');
SELECT seen();
SELECT ack();
TABLE failures;
TABLE status;
-- The pause is over: it comes alone, then those behind it together.
SELECT due();
SELECT seen();
TABLE status;
SELECT ack();
SELECT seen();
SELECT ack();
SELECT seen();
TABLE failures;
-- The parked one by es_retry, of whichever of its stream.
SELECT es_retry(id) FROM es_failures WHERE position = 10;
SELECT seen();
SELECT ack();
SELECT seen(1);
SELECT ack();
SELECT seen();
SELECT ack();
SELECT seen(), count(*) FROM es_failures;
TABLE status;

--
-- All of a delivery is settled by es_nack: the partition is free
--
SELECT anew();
SELECT seen(2);
SELECT nack(1, 'skip'), nack(2, 'skip');
TABLE status;
SELECT ack();
SELECT nack(1, 'skip');
SELECT seen(2);
SELECT nack(3, 'park'), nack(4, 'park');
TABLE status;
SELECT seen(3);
SELECT ack();
TABLE status;
-- Only those that wait are between: nothing is left in flight, either.
SELECT anew();
SELECT seen(3);
SELECT nack(1, 'park'), ack();
SELECT seen(2);
TABLE status;
SELECT nack(5, 'skip'), nack(6, 'skip');
TABLE status;

--
-- retry until max_attempts, then parked
--
SELECT anew();
SELECT seen(1);
SELECT nack(1);
SELECT retry_at - last_failed_at BETWEEN '1 day 0.05 s' AND '1 day 0.15 s' AS pause FROM es_failures;
SELECT due();
SELECT seen(1);
SELECT nack(1);
SELECT retry_at - last_failed_at BETWEEN '1 day 0.1 s' AND '1 day 0.3 s' AS pause FROM es_failures;
SELECT due();
SELECT seen(1);
SELECT nack(1, reason => 'for the last time');
TABLE failures;
TABLE status;
-- es_retry allows it one attempt more.
SELECT es_retry(id) FROM es_failures;
TABLE failures;
SELECT seen(1);
SELECT nack(1);
TABLE failures;
SELECT es_retry(id) FROM es_failures;
SELECT seen(1);
SELECT nack(1, 'skip');
SELECT count(*) FROM es_failures;
-- Pauses grow to a minute.
SELECT anew(1000);
SELECT seen(1);
SELECT nack(1);
UPDATE es_failures SET attempts = 500;
SELECT due();
SELECT seen(1);
SELECT nack(1);
SELECT retry_at - last_failed_at BETWEEN '1 day 30 s' AND '1 day 90 s' AS pause FROM es_failures;
TABLE failures;
-- A pause that is waited for.
UPDATE es_failures SET retry_at = now() + interval '20 ms';
UPDATE es_partitions SET position = 11, reached = 11, due_at = now();
SELECT position, attempt FROM es_poll('s', 'me', wait => '1 h');
SELECT anew(1);
-- max_attempts 1: retry parks at once.
SELECT seen(2);
SELECT nack(1), nack(2, 'retry');
TABLE failures;

--
-- A parked stream whose lease expires: its first event has failed
--
SELECT anew(4);
SELECT seen();
SELECT nack(1, 'park'), ack();
TABLE failures;
SELECT es_discard(id) FROM es_failures WHERE position = 1;
SELECT seen();
TABLE status;
SELECT expire();
SELECT seen();
TABLE failures;
SELECT ack();
SELECT seen();
SELECT expire();
SELECT seen();
TABLE failures;
SELECT expire();
SELECT seen();
TABLE failures;
TABLE status;
-- nack of one behind: those before it stay in flight.
SELECT anew(9);
SELECT seen();
SELECT nack(1, 'park'), ack();
SELECT es_append('a-1', 'any', 'x'), es_append('a-1', 'any', 'x');
SELECT seen();
SELECT es_discard(id) FROM es_failures WHERE position = 1;
SELECT seen();
SELECT nack(10, 'park');
TABLE status;
SELECT expire();
-- What is parked behind is not delivered with those that come before it.
SELECT seen();
TABLE failures;
SELECT ack();
SELECT seen();
TABLE status;
SELECT ack();
SELECT seen();
TABLE failures;
SELECT es_discard(id) FROM es_failures WHERE position = 10;
SELECT seen();
SELECT ack();
-- Discarded in flight: acknowledging it does no harm, and its lease does not count
-- for the next.
SELECT anew();
SELECT seen();
SELECT nack(1, 'park'), ack();
SELECT es_retry(id) FROM es_failures WHERE position = 1;
SELECT seen();
SELECT es_discard(id) FROM es_failures WHERE position = 1;
SELECT expire();
SELECT seen();
TABLE failures;
SELECT es_discard(id) FROM es_failures;
SELECT ack();
-- What was discarded does not come back from the log when the lease of the
-- delivery that parked it expires.
SELECT anew();
SELECT seen(1);
SELECT nack(1, 'park');
SELECT seen(5);
SELECT es_discard(id) FROM es_failures ORDER BY position;
SELECT expire();
SELECT seen(10);
SELECT ack();
SELECT seen();
SELECT ack();

--
-- es_retry and es_discard: what they refuse
--
\set VERBOSITY sqlstate
SELECT es_retry(-1);
SELECT es_discard(-1);
SELECT es_retry(NULL);
SELECT es_discard(NULL);
SELECT anew();
SELECT seen(1);
SELECT nack(1, 'park');
BEGIN READ ONLY;
SELECT es_retry(id) FROM es_failures;
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT es_retry(id) FROM es_failures;
ROLLBACK;
\set VERBOSITY default
-- A rolled back es_discard, a rolled back es_retry.
BEGIN;
SELECT es_discard(id) FROM es_failures WHERE position = 1;
ROLLBACK;
BEGIN;
SELECT es_retry(id) FROM es_failures WHERE position = 1;
ROLLBACK;
TABLE failures;
SELECT seen(2);
SELECT ack();

--
-- An event that kills its consumer: the delivery is halved until it is alone,
-- and parked at the last attempt; all others are delivered
--
CREATE FUNCTION work(bad bigint[], many int, rounds int, OUT polls int, OUT handled text, OUT expired text) LANGUAGE plpgsql AS $$
DECLARE delivered bigint[]; shown bigint; one bigint; least int;
BEGIN
    polls := 0;
    LOOP
        SELECT array_agg(p.position ORDER BY p.position), min(p.token), max(p.attempt) INTO delivered, shown, least FROM es_poll('s', 'me', many) p;
        EXIT WHEN delivered IS NULL OR polls >= rounds;
        polls := polls + 1;
        IF delivered && bad THEN
            expired := concat_ws(' ', expired, cardinality(delivered) || '#' || least);
            PERFORM expire();
        ELSE
            handled := concat_ws(' ', handled, array_to_string(delivered, ','));
            PERFORM es_ack('s', shown);
        END IF;
    END LOOP;
END $$;
TRUNCATE es_failures;
SELECT es_append('a-' || 10 + n, 'any', 'x') FROM generate_series(1, 20) n \g /dev/null
SELECT es_drop_subscription('s');
SELECT es_create_subscription('s', category => 'a', start_position => (SELECT max(position) - 20 FROM es_events), lease => '1 h', max_attempts => 5);
SELECT position AS start FROM es_partitions \gset
SELECT polls, expired, parts FROM work(ARRAY[:start + 7], 16, 100), LATERAL (SELECT cardinality(string_to_array(handled, ' ')) AS parts) r;
SELECT position - :start AS position, stream, message, detail, attempts, retry_at FROM es_failures;
TABLE status;
-- Each other one was delivered at last: nothing is left.
SELECT seen();
-- Two of them, one of them the first, the other the last; fewer attempts.
SELECT es_drop_subscription('s');
SELECT es_create_subscription('s', category => 'a', start_position => :start, lease => '1 h', max_attempts => 3);
SELECT polls, expired, translate(handled, ' ', ';') IS NOT NULL AS handled,
       (SELECT count(DISTINCT x) FROM unnest(string_to_array(replace(handled, ' ', ','), ',')) x) AS events
  FROM work(ARRAY[:start + 1, :start + 20], 8, 100);
SELECT position - :start AS position, message, detail, attempts FROM es_failures ORDER BY 1;
-- max_attempts 1: alone at the second.
SELECT es_drop_subscription('s');
SELECT es_create_subscription('s', category => 'a', start_position => :start, lease => '1 h', max_attempts => 1);
SELECT polls, expired, (SELECT count(DISTINCT x) FROM unnest(string_to_array(replace(handled, ' ', ','), ',')) x) AS events
  FROM work(ARRAY[:start + 3], 4, 100);
SELECT position - :start AS position, attempts FROM es_failures;
-- Alone at once: parked after the first.
SELECT es_seek('s', :start);
SELECT polls, expired, (SELECT count(DISTINCT x) FROM unnest(string_to_array(replace(handled, ' ', ','), ',')) x) AS events
  FROM work(ARRAY[:start + 3], 1, 100);
SELECT position - :start AS position, attempts FROM es_failures;
-- All of them.
SELECT es_drop_subscription('s');
SELECT es_create_subscription('s', category => 'a', start_position => :start, lease => '1 h', max_attempts => 2);
SELECT polls, handled FROM work(ARRAY(SELECT generate_series(:start, :start + 20)), 10, 1000);
SELECT count(*), min(attempts) >= 2 AS often_enough, max(attempts) FROM es_failures;
TABLE status;
-- One that is parked so, with one behind it, by es_retry.
SELECT es_append('a-11', 'any', 'x') IS NOT NULL;
SELECT seen();
SELECT es_retry(id) FROM es_failures WHERE stream = 'a-11' AND message IS NOT NULL;
SELECT count(*), max(attempt) >= 3 AS once_more FROM es_poll('s');
SELECT ack() = es_horizon() AS there;
SELECT count(*), max(attempt) FROM es_poll('s');
SELECT ack() = es_horizon() AS there;
-- While something is suspected, nothing more is delivered beside it.
SELECT es_drop_subscription('s');
SELECT es_create_subscription('s', category => 'a', start_position => :start, lease => '1 h', max_attempts => 3);
SELECT count(*) FROM es_poll('s', 'me', 4);
SELECT expire();
SELECT count(*) FROM es_poll('s', 'me', 4);
SELECT count(*) FROM es_partitions, es_poll('s', 'me', 4, after_token => token);
-- One after the other is nacked: the checkpoint does not go back.
SELECT position = :start AS waits FROM es_partitions;
SELECT nack(:start + 2, 'skip');
SELECT position = :start AS waits FROM es_partitions;
SELECT nack(:start + 1, 'skip');
SELECT position - :start AS checkpoint FROM es_partitions;
-- Hidden from the owner: parked, with that reason.
SELECT anew();
CREATE ROLE regress_es_hidden;
GRANT SELECT ON es_events TO regress_es_hidden;
UPDATE es_subscriptions SET owner = 'regress_es_hidden';
SELECT seen(2);
SELECT nack(1), ack();
ALTER TABLE es_events ENABLE ROW LEVEL SECURITY;
CREATE POLICY visible ON es_events FOR SELECT USING (position <> 1);
SELECT due();
SELECT seen(1);
SELECT position, sqlstate, message, retry_at FROM es_failures WHERE position = 1;
SELECT ack();
DROP POLICY visible ON es_events;
ALTER TABLE es_events DISABLE ROW LEVEL SECURITY;
-- No such role any more.
REVOKE ALL ON es_events FROM regress_es_hidden;
DROP ROLE regress_es_hidden;
SELECT es_append('a-1', 'any', 'x') IS NOT NULL;
\set VERBOSITY terse
SELECT seen(1);
SELECT es_drop_subscription('s');

DROP VIEW failures, status;
DROP FUNCTION seen, ack, nack, expire, due, anew, work;
DROP EXTENSION eventstore;
