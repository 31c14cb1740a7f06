-- Projections and subscriptions of streams that are deleted, truncated, compacted and archived: what their
-- handlers get, rebuilds, and positions within what was removed.
SET client_min_messages = warning;
CREATE EXTENSION eventstore;
SET client_min_messages = notice;

-- Balances: a handler that takes the notices, one function for each type, one for the others.
CREATE TABLE balance (account text PRIMARY KEY, amount bigint);
CREATE SCHEMA handlers;
CREATE FUNCTION handlers.on_paid(event es_recorded_event) RETURNS void LANGUAGE sql AS $$
    INSERT INTO balance AS b VALUES (event.stream, (event.data->>'amount')::bigint)
        ON CONFLICT (account) DO UPDATE SET amount = b.amount + excluded.amount
$$;
CREATE FUNCTION handlers.on_es_stream_deleted(event es_recorded_event) RETURNS void LANGUAGE sql AS $$
    DELETE FROM balance WHERE account = event.stream
$$;
CREATE FUNCTION handlers.on_es_compacted(event es_recorded_event) RETURNS void LANGUAGE sql AS $$
    INSERT INTO balance VALUES (event.stream, (event.data->'state'->>'amount')::bigint)
        ON CONFLICT (account) DO UPDATE SET amount = excluded.amount
$$;
-- The same in one function.
CREATE TABLE balance_sync (LIKE balance INCLUDING ALL);
CREATE FUNCTION handle(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    CASE event.type
        WHEN 'es_stream_deleted' THEN DELETE FROM balance_sync WHERE account = event.stream;
        WHEN 'es_compacted' THEN
            INSERT INTO balance_sync VALUES (event.stream, (event.data->'state'->>'amount')::bigint)
                ON CONFLICT (account) DO UPDATE SET amount = excluded.amount;
        ELSE
            INSERT INTO balance_sync AS b VALUES (event.stream, (event.data->>'amount')::bigint)
                ON CONFLICT (account) DO UPDATE SET amount = b.amount + excluded.amount;
    END CASE;
END $$;
-- A query, which marks what is gone; and a view.
CREATE TABLE balance_query (account text PRIMARY KEY, amount bigint, closed boolean, anew boolean);
CREATE MATERIALIZED VIEW balance_view AS SELECT stream, sum((data->>'amount')::bigint)::bigint AS amount FROM es_events WHERE type = 'paid' GROUP BY stream;
-- One that knows nothing of notices.
CREATE TABLE naive (account text PRIMARY KEY, amount bigint);
CREATE SCHEMA naive_handlers;
CREATE FUNCTION naive_handlers.on_paid(event es_recorded_event) RETURNS void LANGUAGE sql AS $$
    INSERT INTO naive AS b VALUES (event.stream, (event.data->>'amount')::bigint)
        ON CONFLICT (account) DO UPDATE SET amount = b.amount + excluded.amount
$$;
SELECT es_create_projection('balance', handler_schema => 'handlers', tables => '{balance}', category => 'account', types => '{paid}'),
       es_create_projection('sync', 'handle(es_recorded_event)', tables => '{balance_sync}', category => 'account', types => '{paid}', mode => 'sync'),
       es_create_projection('query', query => $$
           INSERT INTO balance_query AS b
           SELECT stream, coalesce(sum((data->>'amount')::bigint) FILTER (WHERE position > coalesce(deleted, 0)), 0),
                  coalesce(max(position) = max(deleted), false), max(deleted) IS NOT NULL
             FROM (SELECT *, max(position) FILTER (WHERE type = 'es_stream_deleted') OVER (PARTITION BY stream) AS deleted FROM new_events) e GROUP BY stream
               ON CONFLICT (account) DO UPDATE SET amount = excluded.amount + CASE WHEN excluded.anew THEN 0 ELSE b.amount END, closed = excluded.closed $$,
           tables => '{balance_query}', category => 'account', types => '{paid}'),
       es_create_projection('view', refresh => 'balance_view', types => '{paid}', min_interval => '0'),
       es_create_projection('naive', handler_schema => 'naive_handlers', tables => '{naive}', category => 'account', types => '{paid}');
CREATE FUNCTION pay(account text, VARIADIC amounts int[]) RETURNS bigint LANGUAGE sql AS $$
    SELECT max((es_append(account, 'any', 'paid', jsonb_build_object('amount', a))).version) FROM unnest(amounts) a
$$;
CREATE FUNCTION total(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_build_object('amount', coalesce((state->>'amount')::bigint, 0) + (event.data->>'amount')::bigint)
$$;
CREATE VIEW models AS
    SELECT 'balance' AS model, b.* FROM balance b UNION ALL SELECT 'sync', * FROM balance_sync UNION ALL
    SELECT 'query', account, amount FROM balance_query WHERE NOT closed UNION ALL SELECT 'view', * FROM balance_view UNION ALL SELECT 'naive', * FROM naive;
CREATE VIEW by_account AS
    SELECT account, string_agg(model || ' ' || amount, ', ' ORDER BY model) AS amounts FROM models GROUP BY account ORDER BY account;
-- A rebuild of all gives the same rows, or others.
CREATE FUNCTION rebuilt() RETURNS TABLE (what text, model text, account text, amount bigint) LANGUAGE plpgsql AS $$
BEGIN
    CREATE TEMPORARY TABLE before AS TABLE models;
    SET LOCAL client_min_messages = warning;
    PERFORM es_rebuild_projection(name) FROM es_projections;
    RETURN QUERY (SELECT 'was', * FROM before EXCEPT SELECT 'was', * FROM models) UNION ALL (SELECT 'is', * FROM models EXCEPT SELECT 'is', * FROM before) ORDER BY 2, 3, 1;
    DROP TABLE before;
END $$;

SELECT pay('account-1', 1, 2, 3), pay('account-2', 10, 20), pay('account-3', 100, 200, 300), pay('account-4', 1000, 2000), pay('other-1', 5);
SELECT es_run_projections();
TABLE by_account;
SELECT * FROM rebuilt();
-- Nothing was removed, and a rebuild says nothing of it.
SELECT es_rebuild_projection('balance');

-- Deleted: the row goes, at once or with the next run. A rebuild gives the same.
SELECT version, removed FROM es_delete_stream('account-1', 3);
TABLE by_account;
SELECT es_run_projections();
TABLE by_account;
SELECT * FROM rebuilt();
SELECT es_rebuild_projection('balance');
SELECT pay('account-1', 7);
SELECT es_run_projections();
TABLE by_account;
SELECT * FROM rebuilt();

-- Compacted: what has passed the events hears nothing of it. A rebuild gives the same if the handler takes
-- the state, and loses what was compacted if it does not.
SELECT version, removed FROM es_compact_stream('account-3', 'total(jsonb, es_recorded_event)', 2);
SELECT es_run_projections();
TABLE by_account;
SELECT * FROM rebuilt();
SELECT es_rebuild_projection('naive');
-- One that is behind gets it in the place of the events.
SELECT pay('account-5', 1, 2, 3), (es_compact_stream('account-5', 'total(jsonb, es_recorded_event)')).removed;
SELECT es_run_projections();
SELECT * FROM by_account WHERE account = 'account-5';

-- Truncated: the rows stay, until a rebuild. It says so.
SELECT es_truncate_stream('account-4', 2);
SELECT es_run_projections();
SELECT * FROM by_account WHERE account = 'account-4';
SELECT es_rebuild_projection('balance');
SELECT * FROM by_account WHERE account = 'account-4';
-- Only the removals after start_position and of its categories are counted, and of archived events those
-- that did not come back.
SELECT es_create_projection('late', handler_schema => 'naive_handlers', tables => '{naive}', category => 'other', start_position => 5);
SELECT es_rebuild_projection('late');
SELECT pay('other-2', 1, 2), archived FROM es_archive_stream('other-1');
SELECT es_rebuild_projection('late');
SELECT es_unarchive_stream('other-1');
SELECT es_rebuild_projection('late');
SELECT es_alter_projection('late', start_position => max(position)) FROM es_events;
SELECT archived FROM es_archive_stream('other-2');
SELECT es_rebuild_projection('late');
SELECT count(es_drop_projection(name)) FROM es_projections;

--
-- Positions within what was removed
--
CREATE FUNCTION seen(name text, ack boolean DEFAULT true) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
    last bigint;
BEGIN
    SELECT string_agg(concat_ws(' ', p.stream, p.version, CASE WHEN p.type LIKE 'es\_%' THEN p.type END), ', ' ORDER BY p.position), max(p.token)
      INTO result, last FROM es_poll(name, 'me', 3) p;
    IF ack AND last IS NOT NULL THEN
        PERFORM es_ack(name, last);
    END IF;
    RETURN result;
END $$;
CREATE TABLE got (stream text, version bigint);
SELECT position AS start FROM es_append('c-0', 'none', 'x') \gset
SELECT count(es_append('c-' || n % 3, 'any', 'x')) FROM generate_series(1, 12) n;
-- A subscription and a projection stop in the middle of what is removed then; one has events in flight.
SELECT es_create_subscription('middle', category => 'c', start_position => :start, lease => '1 h'),
       es_create_subscription('in flight', category => 'c', start_position => :start, lease => '1 h'),
       es_create_subscription('nothing', category => 'c', types => '{y}', start_position => :start),
       es_create_projection('middle', query => 'INSERT INTO got SELECT stream, version FROM new_events', category => 'c', batch_size => 3, start_position => :start);
SELECT seen('middle'), seen('in flight', false), es_run_projections('middle', 1);
SELECT removed FROM es_delete_stream('c-1', 'any') UNION ALL SELECT es_truncate_stream('c-2', 4);
CREATE VIEW lags AS
    SELECT subscription AS name, lag_events, lag_is_estimate, in_flight FROM es_subscription_status UNION ALL SELECT name || ' (projection)', lag_events, lag_is_estimate, NULL FROM es_projection_status;
SELECT * FROM lags ORDER BY name;
SELECT seen('middle'), seen('middle'), seen('middle');
-- Redelivered: those in flight that are there, and what follows.
SELECT seen('in flight'), seen('in flight'), seen('in flight');
SELECT seen('nothing');
SELECT es_run_projections('middle');
SELECT string_agg(stream || ' ' || version, ', ' ORDER BY stream, version) FROM got;
SELECT * FROM lags ORDER BY name;
-- es_seek into a removed range, from both sides of it; and to where an event was that is not there.
SELECT es_seek('middle', :start + 2);
SELECT lag_events FROM lags WHERE name = 'middle';
SELECT seen('middle'), seen('middle'), seen('middle');
SELECT es_seek('middle', (SELECT max(position) - 1 FROM es_events));
SELECT seen('middle');
-- es_wait for the position of an event that was removed, before and after it was passed; and when it is the last.
SELECT es_wait('middle', :start + 1, '0'), es_wait('middle', (SELECT max(position) FROM es_events), '0');
SELECT position AS last FROM es_append_batch('c-4', 'none', '[{"type": "x"}, {"type": "x"}, {"type": "x"}]') \gset
SELECT es_wait('middle', :last - 1, '0');
SELECT removed FROM es_delete_stream('c-4', 'any');
SELECT es_horizon() >= :last AS horizon_stays;
SELECT es_wait('middle', :last - 1, '0');
SELECT lag_events FROM lags WHERE name = 'middle (projection)';
SELECT es_run_projections('middle');
SELECT es_wait('middle', :last - 1, '0'), es_wait('middle', (SELECT max(position) FROM es_events), '0');
-- Acknowledged up to a position that was removed.
SELECT position AS last FROM es_append_batch('c-5', 'none', '[{"type": "x"}, {"type": "x"}, {"type": "x"}]') \gset
SELECT seen('middle'), seen('middle', false);
SELECT removed FROM es_delete_stream('c-5', 'any');
SELECT es_ack('middle', token, :last - 1) = :last - 1 AS acked FROM es_partitions WHERE subscription = 'middle';
SELECT seen('middle'), seen('middle');
SELECT lag_events, in_flight FROM lags WHERE name = 'middle';

--
-- Compacted while it waits
--
-- The failed event is gone. What stands for it was of a type that the subscription had not wanted, and was
-- passed: it takes the place, since the subscription has not handled what it stands for.
SELECT es_create_subscription('compacted', category => 'd', types => '{bad}', lease => '1 h');
CREATE FUNCTION bad_count(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_build_object('bad', coalesce((state->>'bad')::int, 0) + (event.type = 'bad')::int)
$$;
SELECT version FROM es_append_batch('d-1', 'none', '[{"type": "bad"}, {"type": "good"}, {"type": "bad"}, {"type": "good"}]');
SELECT es_nack('compacted', token, position, 'no', 'park') FROM es_poll('compacted', 'me', 1);
SELECT seen('compacted');
SELECT version, removed FROM es_compact_stream('d-1', 'bad_count(jsonb, es_recorded_event)');
SELECT es_retry(id) FROM es_failures WHERE message IS NOT NULL;
SELECT stream, version, type, message FROM es_failures ORDER BY position;
SELECT seen('compacted'), seen('compacted');
-- The one that is parked becomes the compacted one itself.
SELECT version FROM es_append_batch('d-2', 'none', '[{"type": "good"}, {"type": "bad"}, {"type": "bad"}]');
SELECT es_nack('compacted', token, position, 'no', 'park') FROM es_poll('compacted', 'me', 1);
SELECT seen('compacted');
SELECT version, removed FROM es_compact_stream('d-2', 'bad_count(jsonb, es_recorded_event)', 2);
SELECT es_retry(id) FROM es_failures WHERE message IS NOT NULL;
SELECT seen('compacted'), seen('compacted'), seen('compacted');
SELECT count(*) FROM es_failures;
-- A projection.
CREATE FUNCTION fail(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF event.type = 'bad' THEN
        RAISE EXCEPTION 'bad';
    END IF;
    INSERT INTO got VALUES (event.type, event.version);
END $$;
TRUNCATE got;
SELECT es_create_projection('compacted', 'fail(es_recorded_event)', category => 'd', types => '{bad}', on_failure => 'park', max_attempts => 1, start_position => NULL);
SELECT version FROM es_append_batch('d-3', 'none', '[{"type": "bad"}, {"type": "good"}]');
SET client_min_messages = error;
SELECT es_run_projections('compacted');
SET client_min_messages = notice;
SELECT version, removed FROM es_compact_stream('d-3', 'bad_count(jsonb, es_recorded_event)');
SELECT es_retry(id) FROM es_failures;
TABLE got;
SELECT count(*) FROM es_failures;

--
-- What a session knows of partitions is older than a compaction, and than events that came back
--
SELECT es_create_subscription('many', category => 'e', types => '{x}', partitions => 16, lease => '1 h');
SELECT count(es_append('e-' || n % 40, 'any', CASE WHEN n <= 40 THEN 'x' ELSE 'y' END)) FROM generate_series(1, 80) n;
-- One poll reads over all of it.
SELECT count(*) FROM es_poll('many', 'a', 1000);
SELECT count((es_compact_stream('e-' || n, 'bad_count(jsonb, es_recorded_event)')).removed) FROM generate_series(0, 9) n;
SELECT count((es_archive_stream('e-' || n)).archived) FROM generate_series(10, 19) n;
CREATE TABLE delivered (position bigint, consumer text);
CREATE FUNCTION drain(first int, last int) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN first .. last LOOP
        INSERT INTO delivered SELECT p.position, i::text FROM es_poll('many', 'c' || i) p;
    END LOOP;
    RETURN (SELECT count(*) FROM delivered);
END $$;
-- Each of the consumers has a partition.
SELECT drain(1, 16) > 0 AS drained;
UPDATE es_partitions SET leased_until = now() - interval '1 s' WHERE consumer = 'a';
SELECT drain(1, 16) > 0 AS drained;
SELECT e.type, count(DISTINCT e.position) AS there, count(DISTINCT d.position) AS delivered FROM es_events e LEFT JOIN delivered d USING (position)
 WHERE e.stream LIKE 'e-%' AND (e.type = 'x' OR e.type LIKE 'es\_%') GROUP BY e.type ORDER BY e.type;
SELECT es_seek('many', 0);
SELECT count(*) > 0 AS polled FROM es_poll('many', 'a', 1000);
SELECT sum(es_unarchive_stream('e-' || n)) FROM generate_series(10, 19) n;
TRUNCATE delivered;
SELECT drain(1, 16) > 0 AS drained;
UPDATE es_partitions SET leased_until = now() - interval '1 s' WHERE consumer = 'a';
SELECT drain(1, 16) > 0 AS drained;
SELECT e.type, count(DISTINCT e.position) AS there, count(DISTINCT d.position) AS delivered FROM es_events e LEFT JOIN delivered d USING (position)
 WHERE e.stream LIKE 'e-%' AND (e.type = 'x' OR e.type LIKE 'es\_%') GROUP BY e.type ORDER BY e.type;

SELECT count(es_drop_subscription(name)) FROM es_subscriptions;
SELECT count(es_drop_projection(name)) FROM es_projections;
SET client_min_messages = warning;
DROP EXTENSION eventstore CASCADE;
DROP SCHEMA handlers, naive_handlers CASCADE;
DROP FUNCTION IF EXISTS pay, rebuilt, total, handle, seen, bad_count, fail, drain;
DROP VIEW IF EXISTS by_account, models;
DROP TABLE balance, balance_sync, balance_query, naive, got, delivered;
