-- A subscription in random use, against a model of what must happen: which
-- events are in flight with which token, which are parked and why, how often each
-- was delivered. Every step is checked. At the end everything is drained, and no
-- event may be missing.
--
-- Leases last a day and pauses for ever; they end when the driver says so. So one
-- seed makes one run. SET client_min_messages = debug1 shows it.
CREATE EXTENSION eventstore;

-- state: new; flight; waiting, failed, parked (all three in es_failures); and for
-- good: acked, skipped, discarded.
CREATE TABLE model (
    position   bigint PRIMARY KEY,
    stream     text NOT NULL,
    partition  int NOT NULL,
    state      text NOT NULL DEFAULT 'new',
    deliveries int NOT NULL DEFAULT 0,
    token      bigint,
    alone      boolean
);
CREATE TABLE held (partition int PRIMARY KEY, consumer text, expired boolean, tokens bigint[], uptos bigint[], from_failures boolean);
CREATE TABLE parts (partition int PRIMARY KEY, checkpoint bigint NOT NULL DEFAULT 0, acked_token bigint);
CREATE TABLE delivered (token bigint PRIMARY KEY, partition int);
CREATE TABLE counts (what text PRIMARY KEY, n bigint);
CREATE TABLE config (max_attempts int, max_in_flight int, partitions int);
CREATE TABLE got (n bigint, token bigint, partition int, attempt int, position bigint, version bigint, stream text, same boolean);

CREATE FUNCTION fail(VARIADIC words text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'violation: %', array_to_string(words, ' ', '-') USING ERRCODE = 'XX999';
END $$;

CREATE FUNCTION note(what text, n bigint DEFAULT 1) RETURNS void LANGUAGE sql AS $$
    INSERT INTO counts VALUES (what, n) ON CONFLICT ON CONSTRAINT counts_pkey DO UPDATE SET n = counts.n + excluded.n
$$;

-- A random number from 0 to n - 1.
CREATE FUNCTION dice(n int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT floor(random() * n)::int';

-- The code of the error of a statement; null: none.
CREATE FUNCTION code_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END $$;

--
-- What must hold after each step
--
CREATE FUNCTION check_all() RETURNS void LANGUAGE plpgsql AS $$
DECLARE r record; c config;
BEGIN
    SELECT * INTO c FROM config;
    -- es_failures has what the model has there, and for the same reason.
    FOR r IN
        SELECT m.*, f.attempts, CASE WHEN f.id IS NULL THEN 'none' WHEN f.message IS NULL THEN 'waiting'
                                     WHEN f.retry_at IS NULL THEN 'parked' ELSE 'failed' END AS kind,
               h.from_failures, f.position AS at, f.partition AS its, f.stream AS of
          FROM model m
          FULL JOIN (SELECT * FROM es_failures) f ON f.position = m.position
          LEFT JOIN held h ON h.partition = m.partition
    LOOP
        IF r.state IS NULL THEN
            PERFORM fail('a failure of an event that is not there:', r.at::text);
        ELSIF r.state IN ('waiting', 'failed', 'parked') AND r.kind <> r.state
              OR r.state = 'flight' AND (r.from_failures AND r.kind = 'none' OR NOT r.from_failures AND r.kind <> 'none')
              OR r.state IN ('new', 'acked', 'skipped', 'discarded') AND r.kind <> 'none' THEN
            PERFORM fail('event', r.position::text, 'should be', r.state, 'in es_failures it is', r.kind);
        ELSIF r.kind <> 'none' AND (r.attempts, r.its, r.of) IS DISTINCT FROM (r.deliveries, r.partition, r.stream) THEN
            PERFORM fail('event', r.position::text, r.kind, 'was delivered', r.deliveries::text, 'times, attempts', r.attempts::text);
        END IF;
    END LOOP;
    -- What each consumer has in flight.
    FOR r IN
        SELECT s.*, p.tokens, p.uptos, p.stream AS of, p.acked_token AS acked, h.partition AS has, h.consumer AS holder, h.tokens AS have, h.uptos AS to,
               h.from_failures, m.checkpoint, m.acked_token,
               (SELECT count(*) FROM model e WHERE e.partition = s.partition AND e.state = 'flight') AS flight,
               (SELECT count(*) FROM model e WHERE e.partition = s.partition AND e.state IN ('waiting', 'failed', 'parked', 'flight')
                   AND EXISTS (SELECT FROM es_failures f WHERE f.position = e.position)
                   AND EXISTS (SELECT FROM es_failures f WHERE f.stream = e.stream AND f.position <= e.position
                                  AND f.message IS NOT NULL AND f.retry_at IS NULL)) AS behind
          FROM es_subscription_status s
          JOIN es_partitions p ON p.subscription = s.subscription AND p.partition = s.partition
          JOIN parts m ON m.partition = s.partition
          LEFT JOIN held h ON h.partition = s.partition
    LOOP
        IF (r.lease_left IS NULL) <> (r.has IS NULL) THEN
            PERFORM fail('partition', r.partition::text, 'is in flight:', (r.lease_left IS NOT NULL)::text, 'events:', r.flight::text);
        ELSIF r.has IS NULL AND (r.flight <> 0 OR r.consumer IS NOT NULL OR r.tokens <> '{}' OR r.uptos <> '{}' OR r.of IS NOT NULL) THEN
            PERFORM fail('partition', r.partition::text, 'is free, but something is in flight');
        ELSIF r.has IS NOT NULL AND ((r.tokens, r.consumer) IS DISTINCT FROM (r.have, r.holder) OR (r.of IS NOT NULL) <> r.from_failures) THEN
            PERFORM fail('partition', r.partition::text, 'has tokens', r.tokens::text, 'should have', r.have::text, 'consumer', r.consumer);
        ELSIF r.in_flight <> r.flight THEN
            PERFORM fail('partition', r.partition::text, 'in_flight', r.in_flight::text, 'in flight', r.flight::text);
        ELSIF r.flight > c.max_in_flight THEN
            PERFORM fail('partition', r.partition::text, 'more than max_in_flight', r.flight::text);
        ELSIF r.has IS NOT NULL AND r.flight = 0 AND NOT r.from_failures THEN
            PERFORM fail('partition', r.partition::text, 'is in flight without anything');
        ELSIF r.parked <> r.behind THEN
            PERFORM fail('partition', r.partition::text, 'parked', r.parked::text, 'should be', r.behind::text);
        ELSIF r.position < r.checkpoint THEN
            PERFORM fail('partition', r.partition::text, 'its checkpoint went back from', r.checkpoint::text, 'to', r.position::text);
        ELSIF r.acked <> coalesce(r.acked_token, 0) THEN
            PERFORM fail('partition', r.partition::text, 'acked_token');
        END IF;
    END LOOP;
    UPDATE parts m SET checkpoint = p.position FROM es_partitions p WHERE p.partition = m.partition AND m.checkpoint <> p.position;
    -- What is below the checkpoint is settled, or in es_failures.
    FOR r IN SELECT m.* FROM model m JOIN parts p USING (partition) LEFT JOIN held h USING (partition)
              WHERE m.position <= p.checkpoint AND (m.state = 'new' OR m.state = 'flight' AND NOT h.from_failures)
    LOOP
        PERFORM fail('event', r.position::text, r.state, 'is below the checkpoint');
    END LOOP;
END $$;

--
-- Steps
--
CREATE FUNCTION do_append() RETURNS void LANGUAGE plpgsql AS $$
DECLARE s text;
BEGIN
    FOR i IN 0 .. dice(4) LOOP
        s := CASE WHEN dice(8) = 0 THEN 'noise-' ELSE 'a-' END || dice(20);
        PERFORM es_append_batch(s, 'any', array_fill('x'::text, ARRAY[n]), array_fill('{}'::jsonb, ARRAY[n])) FROM (SELECT 1 + dice(3)) AS t(n);
    END LOOP;
    INSERT INTO model (position, stream, partition)
    SELECT e.position, e.stream, es_partition(e.stream, (SELECT partitions FROM config)) FROM es_events e
     WHERE e.position > coalesce((SELECT max(m.position) FROM model m), 0) AND e.stream LIKE 'a-%';
    RAISE DEBUG 'append: %', (SELECT string_agg(m.stream || '@' || m.position, ' ' ORDER BY m.position) FROM model m WHERE m.state = 'new' AND m.deliveries = 0);
    PERFORM note('appends');
END $$;

-- Ends what a partition has in flight with the tokens after the first so many.
CREATE FUNCTION expire(of int, kept int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE h held; m model;
BEGIN
    SELECT * INTO h FROM held WHERE partition = of;
    IF h.from_failures THEN
        -- The first of them has failed, and if it was alone that may be the end; those behind it wait.
        SELECT * INTO m FROM model WHERE partition = of AND state = 'flight' ORDER BY position LIMIT 1;
        UPDATE model SET state = CASE WHEN position = m.position THEN
                   CASE WHEN deliveries >= (SELECT max_attempts FROM config) AND position = h.uptos[1] THEN 'parked' ELSE 'failed' END ELSE 'waiting' END
         WHERE partition = of AND state = 'flight';
    ELSE
        -- Was it the only one that was still in flight?
        UPDATE model SET state = 'new', alone = (SELECT count(*) = 1 FROM model e WHERE e.partition = of AND e.state = 'flight')
         WHERE partition = of AND state = 'flight' AND token <> ALL (h.tokens[1:kept]);
    END IF;
    IF kept = 0 THEN
        DELETE FROM held WHERE partition = of;
    ELSE
        UPDATE held SET tokens = tokens[1:kept], uptos = uptos[1:kept] WHERE partition = of;
    END IF;
    PERFORM note('leases expired');
END $$;

CREATE FUNCTION do_poll(poller text, many int, after bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    c config; r record; first record; h held; code text; place int; expected int; has_expired boolean := false; from_failures boolean;
    mine int[] := ARRAY(SELECT partition FROM held WHERE consumer = poller);
    before int;
BEGIN
    SELECT * INTO c FROM config;
    IF after IS NOT NULL THEN
        SELECT * INTO h FROM held WHERE partition = (SELECT partition FROM delivered WHERE token = after);
        place := array_position(h.tokens, after);
        IF place IS NULL THEN
            code := code_of(format('SELECT es_poll(%L, %L, %s, after_token => %s)', 'random', poller, many, after));
            IF code IS DISTINCT FROM 'ES006' THEN
                PERFORM fail('after a void token', code);
            END IF;
            PERFORM note('void polls');
            RETURN;
        END IF;
    END IF;
    DELETE FROM got;
    INSERT INTO got
    SELECT p.ordinality, p.token, p.partition, p.attempt, p.position, p.version, p.stream,
           (p.version, p.recorded_at, p.occurred_at, p.id, p.stream, p.type, p.data, p.metadata)
           IS NOT DISTINCT FROM (e.version, e.recorded_at, e.occurred_at, e.id, e.stream, e.type, e.data, e.metadata)
      FROM es_poll('random', poller, many, after_token => after) WITH ORDINALITY p LEFT JOIN es_events e ON e.position = p.position;
    SELECT count(*) AS n, min(token) AS token, min(partition) AS partition, min(attempt) AS least, max(position) AS upto,
           count(DISTINCT (token, partition)) AS kinds, bool_and(same) AS same INTO first FROM got;
    IF first.n > 0 AND (first.kinds <> 1 OR NOT first.same) THEN
        PERFORM fail('a delivery of one token and partition with rows of the log');
    ELSIF first.n > least(many, c.max_in_flight) THEN
        PERFORM fail('more than asked for');
    ELSIF EXISTS (SELECT FROM delivered WHERE partition = first.partition AND token >= first.token) THEN
        PERFORM fail('a token is not greater than those before');
    END IF;

    RAISE DEBUG 'poll % max_count % after %: partition % token % events %', poller, many, after, first.partition, first.token,
        (SELECT string_agg(format('%s@%s#%s', g.stream, g.position, g.attempt), ' ' ORDER BY g.n) FROM got g);

    -- What this poll has expired.
    IF after IS NOT NULL THEN
        IF first.n > 0 AND first.partition <> h.partition THEN
            PERFORM fail('polling ahead in another partition');
        END IF;
        IF NOT h.from_failures AND place < cardinality(h.tokens)
           AND (SELECT tokens[place + 1] IS DISTINCT FROM h.tokens[place + 1] FROM es_partitions WHERE partition = h.partition) THEN
            PERFORM expire(h.partition, place);
            has_expired := true;
        END IF;
    ELSE
        FOR r IN SELECT held.*, p.tokens AS now FROM held JOIN es_partitions p USING (partition) WHERE p.tokens <> held.tokens LOOP
            IF NOT (r.expired OR coalesce(r.consumer = poller, false)) THEN
                PERFORM fail('taken from', r.consumer);
            END IF;
            PERFORM expire(r.partition, 0);
            has_expired := true;
        END LOOP;
    END IF;

    -- What it has parked: what waits for another of its stream (also for a later
    -- one, if its lease expired when that had failed), or expired alone too often.
    FOR r IN SELECT m.*, f.message, f.retry_at FROM model m JOIN es_failures f ON f.position = m.position
              WHERE m.state = 'new' ORDER BY m.position LOOP
        IF r.message IS NULL THEN
            IF NOT EXISTS (SELECT FROM es_failures f WHERE f.stream = r.stream AND f.position <> r.position) THEN
                PERFORM fail('event', r.position::text, 'was parked, its stream is not');
            END IF;
            UPDATE model SET state = 'waiting' WHERE position = r.position;
            PERFORM note('parked behind others');
        ELSE
            IF r.retry_at IS NOT NULL OR NOT r.alone OR r.deliveries < c.max_attempts OR after IS NOT NULL THEN
                PERFORM fail('event', r.position::text, 'was parked after', r.deliveries::text, 'deliveries, alone', r.alone::text);
            END IF;
            UPDATE model SET state = 'parked' WHERE position = r.position;
            PERFORM note('parked as expired');
        END IF;
    END LOOP;

    -- A consumer that has something in flight gets that.
    IF after IS NULL AND first.n > 0 AND first.partition <> ALL (mine)
       AND EXISTS (SELECT FROM model m WHERE m.partition = ANY (mine) AND state = 'new') THEN
        PERFORM fail(poller, 'has', mine::text, 'in flight and got', first.partition::text);
    END IF;

    from_failures := EXISTS (SELECT FROM got JOIN es_failures USING (position));
    FOR r IN SELECT g.*, m.state, m.deliveries, m.stream AS of, m.partition AS its, f.retry_at, f.message, f.id
               FROM got g LEFT JOIN model m USING (position) LEFT JOIN es_failures f USING (position) ORDER BY g.n LOOP
        IF r.its IS DISTINCT FROM r.partition OR r.of <> r.stream THEN
            PERFORM fail('event', r.position::text, 'is not of this partition or subscription');
        ELSIF from_failures AND r.id IS NULL OR NOT from_failures AND r.state <> 'new' OR from_failures AND r.state NOT IN ('waiting', 'failed') THEN
            PERFORM fail('event', r.position::text, 'was delivered though it is', r.state);
        ELSIF from_failures AND r.state = 'failed' AND (r.retry_at > clock_timestamp() OR first.n > 1) THEN
            PERFORM fail('event', r.position::text, 'was delivered too early, or with others', first.n::text);
        ELSIF r.attempt <> r.deliveries + 1 THEN
            PERFORM fail('event', r.position::text, 'was delivered', r.deliveries::text, 'times before, attempt', r.attempt::text);
        ELSIF EXISTS (SELECT FROM got g WHERE g.n > r.n AND g.position <= r.position) THEN
            PERFORM fail('the delivery is not in order');
        END IF;
        -- All earlier ones of its stream are settled, or in flight before it.
        IF EXISTS (SELECT FROM model m WHERE m.stream = r.stream AND m.position < r.position
                      AND m.state NOT IN ('acked', 'skipped', 'discarded')
                      AND NOT (m.state = 'flight' AND after IS NOT NULL AND m.partition = first.partition)
                      AND m.position NOT IN (SELECT g.position FROM got g)) THEN
            PERFORM fail('event', r.position::text, 'overtook another of stream', r.stream);
        END IF;
    END LOOP;
    -- The more often its lease has expired, the fewer at once.
    IF NOT from_failures AND first.n > greatest(many >> least(first.least - 1, 30), 1)
       OR NOT from_failures AND first.n > 1 AND first.least > 1 AND first.least >= c.max_attempts THEN
        PERFORM fail(first.n::text, 'events at attempt', first.least::text, 'of at most', many::text);
    END IF;

    IF first.n > 0 THEN
        UPDATE model m SET state = 'flight', deliveries = m.deliveries + 1, token = first.token
          FROM got g WHERE g.position = m.position;
        INSERT INTO delivered VALUES (first.token, first.partition);
        IF after IS NULL THEN
            INSERT INTO held VALUES (first.partition, poller, false, ARRAY[first.token], ARRAY[first.upto], from_failures);
        ELSE
            UPDATE held SET consumer = poller, expired = false, tokens = tokens || first.token, uptos = uptos || first.upto WHERE partition = h.partition;
        END IF;
        PERFORM note(CASE WHEN from_failures THEN 'deliveries of parked streams' WHEN after IS NOT NULL THEN 'deliveries ahead' ELSE 'deliveries' END),
                note('events delivered', first.n), note('redelivered', (SELECT count(*) FROM got WHERE attempt > 1));
        RETURN;
    END IF;

    -- There was nothing to deliver.
    PERFORM note('empty');
    IF after IS NOT NULL THEN
        SELECT count(*) INTO before FROM model WHERE partition = h.partition AND state = 'flight';
        IF NOT h.from_failures AND before < c.max_in_flight
           -- One that has expired is delivered alone.
           AND NOT EXISTS (SELECT FROM model m JOIN parts p USING (partition)
                            WHERE m.partition = h.partition AND m.position > p.checkpoint AND m.deliveries > (m.state = 'flight')::int)
           AND EXISTS (SELECT FROM model WHERE partition = h.partition AND state = 'new') THEN
            PERFORM fail('nothing more, but there is something in partition', h.partition::text);
        END IF;
        RETURN;
    END IF;
    FOR r IN SELECT m.position, m.state FROM model m WHERE m.state = 'new' AND m.partition NOT IN (SELECT partition FROM held)
             UNION ALL
             SELECT f.position, 'due' FROM es_failures f JOIN es_partitions p USING (partition)
              WHERE f.partition NOT IN (SELECT partition FROM held) AND (f.retry_at <= clock_timestamp() OR f.message IS NULL)
                AND f.position <= p.position
                AND NOT EXISTS (SELECT FROM es_failures g WHERE g.stream = f.stream AND g.position < f.position)
    LOOP
        PERFORM fail('nothing was delivered, though event', r.position::text, 'is', r.state);
    END LOOP;
END $$;

-- Nothing of a partition is in flight any more.
CREATE FUNCTION finish(of int) RETURNS void LANGUAGE sql AS $$
    UPDATE parts SET acked_token = (SELECT tokens[cardinality(tokens)] FROM held WHERE partition = of) WHERE partition = of;
    DELETE FROM held WHERE partition = of;
$$;

-- If anything is, its lease begins anew.
CREATE FUNCTION settle(of int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM model WHERE partition = of AND state = 'flight') THEN
        UPDATE held SET expired = false WHERE partition = of;
    ELSE
        PERFORM finish(of);
    END IF;
END $$;

CREATE FUNCTION do_ack(shown bigint, upto bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    of int := (SELECT partition FROM delivered WHERE token = shown);
    h held; place int; last bigint; result bigint; code text; done int := 0;
BEGIN
    SELECT * INTO h FROM held WHERE partition = of;
    place := array_position(h.tokens, shown);
    IF place IS NULL AND shown IS DISTINCT FROM (SELECT acked_token FROM parts WHERE partition = of) THEN
        code := code_of(format('SELECT es_ack(%L, %s, %L)', 'random', shown, upto));
        IF code IS DISTINCT FROM 'ES006' THEN
            PERFORM fail('acknowledged by a void token', code);
        END IF;
        PERFORM note('void acks');
        RETURN;
    END IF;
    result := es_ack('random', shown, upto);
    RAISE DEBUG 'ack % of partition % up to %: %', shown, of, upto, result;
    IF result IS DISTINCT FROM (SELECT position FROM es_partitions WHERE partition = of) THEN
        PERFORM fail('es_ack returned another position than the checkpoint');
    END IF;
    IF place IS NULL THEN
        PERFORM note('repeated acks');
        RETURN;
    END IF;
    last := coalesce(upto, h.uptos[place]);
    UPDATE model SET state = 'acked' WHERE partition = of AND state = 'flight' AND position <= last;
    IF NOT h.from_failures AND last < h.uptos[cardinality(h.uptos)] THEN
        SELECT count(*) INTO done FROM unnest(h.uptos) u WHERE u <= last;
        UPDATE held SET tokens = tokens[done + 1:], uptos = uptos[done + 1:] WHERE partition = of;
        UPDATE parts SET acked_token = coalesce(h.tokens[done], acked_token) WHERE partition = of;
        IF result < last THEN
            PERFORM fail('es_ack up to', last::text, 'left the checkpoint at', result::text);
        END IF;
    END IF;
    PERFORM settle(of), note(CASE WHEN upto IS NULL THEN 'acks' ELSE 'acks of a part' END);
END $$;

CREATE FUNCTION do_nack(e model, action text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE h held; shown bigint; result text; expected text := action;
BEGIN
    SELECT * INTO h FROM held WHERE partition = e.partition;
    -- Any token of a delivery that is not before the event's will do.
    shown := CASE WHEN dice(3) = 0 THEN h.tokens[cardinality(h.tokens)] ELSE e.token END;
    IF action = 'retry' AND e.deliveries >= (SELECT max_attempts FROM config) THEN
        expected := 'park';
    END IF;
    result := es_nack('random', shown, e.position, 'no', action);
    RAISE DEBUG 'nack % of partition % event %@% %: %', shown, e.partition, e.stream, e.position, action, result;
    IF result IS DISTINCT FROM expected THEN
        PERFORM fail('event', e.position::text, action, 'after', e.deliveries::text, 'returned', result);
    END IF;
    UPDATE es_failures SET retry_at = 'infinity' WHERE retry_at > clock_timestamp();
    IF expected = 'skip' THEN
        UPDATE model SET state = 'skipped' WHERE position = e.position;
    ELSE
        UPDATE model SET state = CASE WHEN position > e.position THEN 'waiting' WHEN expected = 'park' THEN 'parked' ELSE 'failed' END
         WHERE partition = e.partition AND stream = e.stream AND state = 'flight' AND position >= e.position;
        IF h.from_failures THEN
            UPDATE held SET uptos = ARRAY[e.position - 1] WHERE partition = e.partition;
        END IF;
    END IF;
    PERFORM settle(e.partition), note('nacks: ' || result);
    -- The call can be repeated.
    IF dice(4) = 0 AND NOT h.from_failures AND (EXISTS (SELECT FROM held WHERE shown = ANY (tokens))
                                        OR shown = (SELECT acked_token FROM parts WHERE partition = e.partition)) THEN
        PERFORM check_all();
        result := es_nack('random', shown, e.position, 'no', action);
        IF result NOT IN (action, expected) THEN
            PERFORM fail('repeated nack returned', result);
        END IF;
    END IF;
END $$;

CREATE FUNCTION do_retry(f es_failures) RETURNS void LANGUAGE plpgsql AS $$
DECLARE n bigint := es_retry(f.id);
BEGIN
    RAISE DEBUG 'retry %@%: %', f.stream, f.position, n;
    IF n <> (SELECT count(*) FROM es_failures WHERE stream = f.stream) THEN
        PERFORM fail('es_retry returned', n::text);
    END IF;
    UPDATE model SET state = 'failed' WHERE stream = f.stream AND state = 'parked';
    PERFORM note('es_retry');
END $$;

CREATE FUNCTION do_discard(f es_failures) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE DEBUG 'discard %@%', f.stream, f.position;
    PERFORM es_discard(f.id);
    UPDATE model SET state = 'discarded' WHERE position = f.position;
    PERFORM note('es_discard');
END $$;

CREATE FUNCTION do_seek(target bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE DEBUG 'seek %', target;
    PERFORM es_seek('random', target);
    DELETE FROM held;
    UPDATE model m SET state = 'new', deliveries = 0, token = NULL, alone = NULL WHERE m.position > target;
    -- What is jumped over is skipped, but for what has failed.
    UPDATE model m SET state = coalesce((SELECT CASE WHEN f.message IS NULL THEN 'waiting' WHEN f.retry_at IS NULL THEN 'parked' ELSE 'failed' END
                                           FROM es_failures f WHERE f.position = m.position), 'skipped')
     WHERE m.position <= target AND m.state IN ('new', 'flight');
    UPDATE parts SET checkpoint = target;
    PERFORM note('seeks');
END $$;

CREATE FUNCTION step() RETURNS void LANGUAGE plpgsql AS $$
DECLARE d int := dice(1000); h held; e model; f es_failures; t bigint; poller text;
BEGIN
    IF d < 150 THEN
        PERFORM do_append();
    ELSIF d < 400 THEN
        poller := (ARRAY['one', 'two', 'three', NULL])[1 + dice(4)];
        PERFORM do_poll(poller, 1 + dice(CASE WHEN dice(2) = 0 THEN 3 ELSE 15 END), NULL);
    ELSIF d < 900 THEN
        SELECT * INTO h FROM held ORDER BY partition OFFSET dice((SELECT count(*)::int FROM held)) LIMIT 1;
        IF h.partition IS NULL THEN
            RETURN;
        END IF;
        SELECT * INTO e FROM model WHERE state = 'flight' AND partition = h.partition ORDER BY position
        OFFSET dice((SELECT count(*)::int FROM model WHERE state = 'flight' AND partition = h.partition)) LIMIT 1;
        t := h.tokens[1 + dice(cardinality(h.tokens))];
        CASE
        WHEN d < 500 THEN
            PERFORM do_poll(CASE WHEN dice(10) > 0 THEN h.consumer ELSE 'three' END, 1 + dice(8),
                            CASE WHEN dice(2) = 0 THEN t ELSE h.tokens[cardinality(h.tokens)] END);
        WHEN d < 650 THEN
            PERFORM do_ack(t, NULL);
        WHEN d < 700 AND e IS NOT NULL THEN
            PERFORM do_ack(e.token, e.position - dice(2));
        WHEN d < 780 AND e IS NOT NULL THEN
            PERFORM do_nack(e, (ARRAY['retry', 'retry', 'park', 'skip'])[1 + dice(4)]);
        WHEN d < 850 THEN
            UPDATE es_partitions SET leased_until = now() - interval '1 s' WHERE partition = h.partition;
            UPDATE held SET expired = true WHERE partition = h.partition;
            RAISE DEBUG 'lease of partition % ends', h.partition;
            PERFORM note('leases ended');
        ELSE
            SELECT token INTO t FROM delivered ORDER BY token OFFSET dice((SELECT count(*)::int FROM delivered)) LIMIT 1;
            IF dice(2) = 0 THEN
                PERFORM do_ack(t, NULL);
            ELSE
                PERFORM do_poll(h.consumer, 5, t);
            END IF;
        END CASE;
    ELSIF d < 995 THEN
        SELECT * INTO f FROM es_failures ORDER BY position OFFSET dice((SELECT count(*)::int FROM es_failures)) LIMIT 1;
        IF f.id IS NULL THEN
            RETURN;
        END IF;
        IF d < 945 THEN
            UPDATE es_failures SET retry_at = now() - interval '1 s' WHERE stream = f.stream AND retry_at = 'infinity';
            UPDATE es_partitions SET due_at = now() - interval '1 s' WHERE partition = f.partition AND due_at IS NOT NULL;
            RAISE DEBUG 'due %', f.stream;
        ELSIF d < 975 THEN
            PERFORM do_retry(f);
        ELSE
            PERFORM do_discard(f);
        END IF;
    ELSE
        PERFORM do_seek(first + dice(range + 1)) FROM (SELECT min(m.position) AS first, max(m.position)::int - min(m.position)::int AS range FROM model m) m;
    END IF;
END $$;

CREATE PROCEDURE run(seed float8, steps int, partitions int, max_attempts int, max_in_flight int) LANGUAGE plpgsql AS $$
DECLARE missing bigint;
BEGIN
    PERFORM setseed(seed);
    DELETE FROM model; DELETE FROM held; DELETE FROM parts; DELETE FROM delivered; DELETE FROM config;
    INSERT INTO config VALUES (max_attempts, max_in_flight, partitions);
    INSERT INTO parts SELECT generate_series(0, partitions - 1);
    PERFORM es_create_subscription('random', category => 'a', partitions => partitions, lease => '1 day',
                                   max_attempts => max_attempts, max_in_flight => max_in_flight, start_position => NULL);
    INSERT INTO model (position, stream, partition, state) SELECT coalesce(max(position), 0), 'none-1', 0, 'acked' FROM es_events;
    UPDATE parts SET checkpoint = p.position FROM es_partitions p WHERE p.partition = parts.partition;
    COMMIT;
    FOR i IN 1 .. steps LOOP
        BEGIN
            PERFORM step();
            PERFORM check_all();
            IF dice(20) = 0 THEN
                RAISE DEBUG 'rolled back';
                RAISE EXCEPTION USING ERRCODE = '00A00';
            END IF;
        EXCEPTION WHEN SQLSTATE '00A00' THEN
            PERFORM note('steps rolled back');
        WHEN OTHERS THEN
            RAISE EXCEPTION 'seed %, step %: % %', seed, i, SQLSTATE, SQLERRM;
        END;
        COMMIT;
    END LOOP;

    -- Everything to its end.
    UPDATE es_partitions SET leased_until = now() - interval '1 s' WHERE leased_until IS NOT NULL;
    UPDATE held SET expired = true;
    COMMIT;
    FOR i IN 1 .. 100000 LOOP
        BEGIN
            PERFORM es_retry(f.id) FROM es_failures f WHERE NOT EXISTS (SELECT FROM es_failures g WHERE g.stream = f.stream AND g.position < f.position);
            UPDATE model SET state = 'failed' WHERE state = 'parked';
            PERFORM do_poll(NULL, 1000, NULL), check_all();
            EXIT WHEN NOT EXISTS (SELECT FROM got);
            PERFORM do_ack(token, NULL), check_all() FROM (SELECT max(token) AS token FROM got) g;
        EXCEPTION WHEN OTHERS THEN
            RAISE EXCEPTION 'seed %, drain %: % %', seed, i, SQLSTATE, SQLERRM;
        END;
        COMMIT;
    END LOOP;
    SELECT count(*) INTO missing FROM model WHERE state NOT IN ('acked', 'skipped', 'discarded');
    IF missing > 0 OR EXISTS (SELECT FROM es_failures) OR EXISTS (SELECT FROM held)
       OR EXISTS (SELECT FROM es_partitions WHERE position <> es_horizon()) THEN
        RAISE EXCEPTION 'seed %: % events are left, % failures', seed, missing, (SELECT count(*) FROM es_failures);
    END IF;
    PERFORM note('events', (SELECT count(*) - 1 FROM model));
    PERFORM es_drop_subscription('random');
    COMMIT;
END $$;

CALL run(0.1, 800, 3, 3, 12);
CALL run(0.2, 500, 1, 1, 5);
CALL run(0.3, 500, 3, 5, 100);
CALL run(0.4, 300, 2, 2, 1);
CALL run(0.5, 500, 9, 3, 12);

-- Did everything happen?
SELECT what FROM unnest(ARRAY['acks', 'acks of a part', 'appends', 'deliveries', 'deliveries ahead', 'deliveries of parked streams',
       'empty', 'es_discard', 'es_retry', 'leases ended', 'leases expired', 'nacks: park', 'nacks: retry', 'nacks: skip', 'parked as expired',
       'parked behind others', 'redelivered', 'repeated acks', 'seeks', 'steps rolled back', 'void acks', 'void polls']) AS what
 WHERE what NOT IN (SELECT c.what FROM counts c);
SELECT n > 1000 AS enough FROM counts WHERE what = 'events delivered';

DROP PROCEDURE run;
DROP FUNCTION check_all, code_of, dice, do_ack, do_append, do_discard, do_nack, do_poll, do_retry, do_seek, expire, fail, finish, note, settle, step;
DROP TABLE model, held, parts, delivered, counts, config, got;
DROP EXTENSION eventstore;
