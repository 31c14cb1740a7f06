-- Subscriptions and projections with a query of types and tags: each gets what the same query finds in plain SQL.
SET client_min_messages = warning;
CREATE EXTENSION eventstore;
ALTER TABLE es_events SET (autovacuum_enabled = off);
CREATE ROLE es_query_sources_limited;
GRANT CREATE ON SCHEMA public TO es_query_sources_limited;
SELECT es_grant('es_query_sources_limited', 'operator');

-- 120 events: of three categories and types, of no, one or more tags.
CREATE FUNCTION append(numbers int[]) RETURNS bigint LANGUAGE sql AS $$
    SELECT count(es_append(format('%s-%s', substr('abc', 1 + n % 3, 1), n % 7), 'any', substr('XYZ', 1 + n % 5 % 3, 1),
                           jsonb_build_object('n', n),
                           tags => CASE WHEN n % 4 > 0 THEN ARRAY['course:' || n % 5, 'student:' || n % 4] || CASE WHEN n % 50 = 1 THEN '{rare}'::text[] END END))
      FROM unnest(numbers) n
$$;
CREATE FUNCTION numbers(first int, last int) RETURNS int[] LANGUAGE sql AS 'SELECT array_agg(n) FROM generate_series(first, last) n';
SELECT append(numbers(1, 60));

CREATE TABLE filters (name text, categories text[], types text[], query jsonb);
INSERT INTO filters VALUES
    ('one tag', NULL, NULL, '[{"tags": ["course:1"]}]'),
    ('two tags', NULL, NULL, '[{"tags": ["student:2", "course:1"]}]'),
    ('tag and types', NULL, NULL, '[{"tags": ["course:1"], "types": ["Y", "Z"]}]'),
    ('several items', NULL, NULL, '[{"tags": ["course:1", "student:1"]}, {"types": ["Y"], "tags": ["course:2"]}, {"tags": ["course:1"]}]'),
    ('types only', NULL, NULL, '[{"types": ["Y", "Z"]}]'),
    ('tag or type', NULL, NULL, '[{"tags": ["rare"]}, {"types": ["Z"]}]'),
    ('every event', NULL, NULL, '[{}]'),
    ('nothing', NULL, NULL, '[{"tags": ["nobody"]}, {"tags": ["course:1", "nobody"]}]'),
    ('category', '{a}', NULL, '[{"tags": ["course:1"]}]'),
    ('category and types', '{a,b}', '{X,Y}', '[{"types": ["Y", "Z"], "tags": ["student:1"]}, {"tags": ["rare"]}]'),
    ('category, type or tag', '{b}', '{Y,Z}', '[{"types": ["Y"]}, {"tags": ["student:1"]}]');
-- What a query is, in plain SQL.
CREATE FUNCTION wants(f filters, e es_events) RETURNS boolean LANGUAGE sql AS $$
    SELECT (f.categories IS NULL OR split_part(e.stream, '-', 1) = ANY (f.categories))
       AND (f.types IS NULL OR e.type = ANY (f.types))
       AND (f.query IS NULL OR (
            SELECT bool_or((i->'types' IS NULL OR i->'types' ? e.type)
                           AND NOT EXISTS (SELECT FROM jsonb_array_elements_text(i->'tags') t WHERE t <> ALL (coalesce(e.tags, '{}'))))
              FROM jsonb_array_elements(f.query) i))
$$;
-- The limited role does not see two streams.
CREATE POLICY visible ON es_events FOR SELECT TO es_query_sources_limited USING (stream NOT IN ('a-1', 'b-2'));

-- The consumers of each filter, and what each of them has got.
CREATE TABLE consumers (name text, filter text, kind text, limited boolean, start_position bigint);
CREATE TABLE delivered (consumer text, position bigint);
GRANT ALL ON consumers, delivered, filters TO es_query_sources_limited;
CREATE FUNCTION create_consumers(after bigint, suffix text, limited boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    f filters;
    c text;
BEGIN
    FOR f IN SELECT * FROM filters LOOP
        c := f.name || ' 1' || suffix;
        PERFORM es_create_subscription(c, f.categories, f.types, after, query => f.query);
        INSERT INTO consumers VALUES (c, f.name, 'subscription', limited, after);
        c := f.name || ' 16' || suffix;
        PERFORM es_create_subscription(c, f.categories, f.types, after, 16, query => f.query);
        INSERT INTO consumers VALUES (c, f.name, 'subscription', limited, after);
        c := f.name || ' async' || suffix;
        EXECUTE format('CREATE TABLE %I (position bigint)', c);
        PERFORM es_create_projection(c, query => format('INSERT INTO %I SELECT position FROM new_events', c), tables => ARRAY[quote_ident(c)::regclass],
                                     category => f.categories, types => f.types, start_position => after, batch_size => 7, event_query => f.query);
        INSERT INTO consumers VALUES (c, f.name, 'projection', limited, after);
        CONTINUE WHEN limited;
        c := f.name || ' sync' || suffix;
        EXECUTE format('CREATE TABLE %I (position bigint)', c);
        PERFORM es_create_projection(c, query => format('INSERT INTO %I SELECT position FROM new_events', c), tables => ARRAY[quote_ident(c)::regclass], mode => 'sync',
                                     category => f.categories, types => f.types, start_position => after, event_query => f.query);
        INSERT INTO consumers VALUES (c, f.name, 'projection', limited, after);
    END LOOP;
END $$;
SELECT create_consumers(0, '', false);
SELECT create_consumers(40, ' from 40', false);
-- Events of one append, some of which a sync projection wants; events that come otherwise.
SELECT append(numbers(61, 100));
SELECT position FROM es_append_batch('a-9', 'none', '[{"type": "X", "tags": ["course:1"]}, {"type": "Y"}, {"type": "Z", "tags": ["course:2", "rare", "student:1"]}]');
INSERT INTO es_import (stream, type, tags) VALUES ('b-9', 'Y', '{course:1,student:2}'), ('c-9', 'X', NULL), ('b-9', 'Z', '{student:1}');
SELECT append(numbers(101, 114));
-- Row security holds for what the limited role owns.
ALTER TABLE es_events ENABLE ROW LEVEL SECURITY;
SET ROLE es_query_sources_limited;
SELECT create_consumers(0, ' of limited', true);
RESET ROLE;

-- How far each is behind: counted.
CREATE VIEW wanted AS
    SELECT c.name, c.filter, c.kind, e.position, e.stream
      FROM consumers c JOIN filters f ON f.name = c.filter JOIN es_events e ON wants(f, e)
     WHERE e.position > c.start_position AND (NOT c.limited OR e.stream NOT IN ('a-1', 'b-2'));
SELECT c.filter, count(w.position) FROM consumers c LEFT JOIN wanted w ON w.name = c.name WHERE c.name = c.filter || ' 1' GROUP BY c.filter ORDER BY c.filter;
CREATE VIEW lags AS
    SELECT subscription AS name, sum(lag_events) AS lag_events, bool_or(lag_is_estimate) AS is_estimate, max(lag_seconds) > 0 AS has_age FROM es_subscription_status GROUP BY subscription
    UNION ALL SELECT name, lag_events, lag_is_estimate, lag_seconds > 0 FROM es_projection_status;
-- All but those of the limited role, whose lag counts what is hidden from it, as that of any other.
SELECT c.name, l.* FROM consumers c JOIN lags l USING (name)
 WHERE NOT c.limited AND NOT (c.name ~ ' sync')
   AND (l.lag_events <> (SELECT count(*) FROM wanted w WHERE w.name = c.name) OR l.is_estimate OR l.has_age <> (l.lag_events > 0));
-- A sync one is never behind.
SELECT count(*) FROM lags WHERE lag_events > 0 AND name ~ ' sync';

-- What each gets.
CREATE PROCEDURE drain() LANGUAGE plpgsql AS $$
DECLARE
    c consumers;
    got int;
BEGIN
    FOR c IN SELECT * FROM consumers WHERE kind = 'subscription' LOOP
        LOOP
            WITH polled AS MATERIALIZED (SELECT * FROM es_poll(c.name, 'c', 5)),
                 noted AS (INSERT INTO delivered SELECT c.name, position FROM polled RETURNING 1),
                 acked AS (SELECT es_ack(c.name, max(token)) FROM polled HAVING count(*) > 0)
            SELECT count(*) INTO got FROM noted, acked;
            EXIT WHEN got = 0;
        END LOOP;
    END LOOP;
    PERFORM es_run_projections();
END $$;
CREATE FUNCTION got() RETURNS TABLE (name text, "position" bigint) LANGUAGE plpgsql AS $$
DECLARE
    c consumers;
BEGIN
    RETURN QUERY SELECT * FROM delivered;
    FOR c IN SELECT * FROM consumers WHERE kind = 'projection' LOOP
        RETURN QUERY EXECUTE format('SELECT %L::text, position FROM %I', c.name, c.name);
    END LOOP;
END $$;
-- Each exactly once.
CREATE VIEW differences AS
    (SELECT 'missing' AS what, name, position FROM wanted EXCEPT ALL SELECT 'missing', * FROM got())
    UNION ALL
    (SELECT 'too many', * FROM got() EXCEPT ALL SELECT 'too many', name, position FROM wanted);
CALL drain();
SELECT what, count(*) FROM differences GROUP BY what;
SELECT count(*), count(DISTINCT position) FROM got();
SELECT count(*) FROM lags WHERE lag_events > 0 AND name !~ 'limited';
-- All have passed what they do not want.
SELECT count(*) FROM es_projections WHERE position < es_horizon() AND mode = 'async';
SELECT es_wait('nothing async', (SELECT max(position) FROM es_events), '0');
SELECT append(numbers(115, 120));
SELECT es_wait('one tag async', (SELECT max(position) FROM es_events), '0');
CALL drain();
SELECT es_wait('one tag async', (SELECT max(position) FROM es_events), '0');
SELECT what, count(*) FROM differences GROUP BY what;
-- A second time, from the beginning: what a session knows of the partitions holds for the query.
TRUNCATE delivered;
SELECT count(es_seek(name, start_position)) FROM consumers WHERE kind = 'subscription';
CALL drain();
SELECT what, count(*) FROM differences GROUP BY what;
-- A third time, with indexes on types: then events of types are looked up as well.
CREATE INDEX ON es_events (position) WHERE type = 'Y';
CREATE INDEX ON es_events (position) WHERE type = 'Z';
TRUNCATE delivered;
SELECT count(es_seek(name, start_position)) FROM consumers WHERE kind = 'subscription';
SELECT c.name, l.* FROM consumers c JOIN lags l USING (name)
 WHERE NOT c.limited AND c.kind = 'subscription'
   AND (l.lag_events <> (SELECT count(*) FROM wanted w WHERE w.name = c.name) OR l.is_estimate OR l.has_age <> (l.lag_events > 0));
CALL drain();
SELECT what, count(*) FROM differences GROUP BY what;
-- Rebuilt, sync ones too.
SELECT count(es_rebuild_projection(name)) FROM consumers WHERE kind = 'projection' AND NOT limited;
SELECT what, count(*) FROM differences GROUP BY what;
-- A change of the mode goes on where it was.
SELECT count(es_alter_projection(name, mode => CASE mode WHEN 'sync' THEN 'async' ELSE 'sync' END)) FROM es_projections JOIN consumers USING (name) WHERE NOT limited;
SELECT append(numbers(121, 140));
CALL drain();
SELECT what, count(*) FROM differences GROUP BY what;

-- Views are refreshed for what they want.
CREATE MATERIALIZED VIEW all_events AS SELECT count(*) AS events FROM es_events;
SELECT es_create_projection('refresh', refresh => 'all_events', min_interval => '0', event_query => '[{"tags": ["refresh"]}]');
SELECT es_run_projections('refresh');
SELECT events = (SELECT count(*) FROM es_events) AS is_refreshed FROM all_events;
SELECT count(*) FROM es_append('a-1', 'any', 'X', tags => '{other}');
SELECT es_run_projections('refresh');
SELECT events = (SELECT count(*) FROM es_events) AS is_refreshed FROM all_events;
SELECT count(es_append('a-1', 'any', 'X', tags => '{refresh}')) FROM generate_series(1, 2);
SELECT es_run_projections('refresh');
SELECT events = (SELECT count(*) FROM es_events) AS is_refreshed FROM all_events;
SELECT lag_events FROM es_projection_status WHERE name = 'refresh';

-- es_health finds those that nobody polls, by what they want.
SELECT count(*) FROM es_health_subscriptions('-1 h') WHERE problem = 'consumer_missing';
SELECT count(*) FROM es_append('a-1', 'any', 'Y', tags => '{course:2}');
SELECT DISTINCT regexp_replace(object, '^subscription "(.*?) (1|16).*$', '\1') AS filter FROM es_health_subscriptions('-1 h') WHERE problem = 'consumer_missing' ORDER BY 1;
CALL drain();

SELECT count(es_drop_subscription(name)) FROM consumers WHERE kind = 'subscription';
SELECT count(es_drop_projection(name)) FROM consumers WHERE kind = 'projection';
SELECT es_drop_projection('refresh');

-- Another query, while events are in flight: they keep theirs.
CREATE FUNCTION poll(name text, count int DEFAULT 100, after bigint DEFAULT NULL) RETURNS text LANGUAGE sql AS
    $$ SELECT string_agg((data->>'n') || CASE WHEN attempt > 1 THEN '!' ELSE '' END, ' ' ORDER BY position) FROM es_poll(name, 'c', count, after_token => after) $$;
CREATE FUNCTION token(name text) RETURNS bigint LANGUAGE sql AS
    $$ SELECT tokens[cardinality(tokens)] FROM es_partitions WHERE subscription = name $$;
SELECT es_create_subscription('s', start_position => NULL, lease => '1 h', query => '[{"tags": ["s:1"]}]');
SELECT count(es_append('s-' || n, 'any', 'X', jsonb_build_object('n', n), tags => ARRAY['s:' || n % 3, 'all'])) FROM generate_series(1, 9) n;
SELECT poll('s', 2);
SELECT es_alter_subscription('s', query => '[{"tags": ["s:2"]}]');
SELECT earlier_query, earlier_upto IS NOT NULL AS has_earlier FROM es_partitions;
SELECT lag_events, in_flight FROM es_subscription_status;
-- Redelivered by the query before; what follows is by the new one.
SELECT poll('s');
SELECT poll('s', 1, token('s'));
SELECT es_alter_subscription('s', query => '[{}]');
-- One of them fails, and is delivered again, whatever the query is by now.
SELECT es_nack('s', token('s'), (SELECT position FROM es_events WHERE stream = 's-5'), 'why', 'park');
SELECT es_ack('s', token('s')) > 0 AS acked;
SELECT es_alter_subscription('s', query => '[{"tags": ["s:0"]}]');
SELECT earlier_query FROM es_partitions;
SELECT es_retry(id) FROM es_failures;
SELECT poll('s');
SELECT es_ack('s', token('s')) > 0 AS acked;
SELECT poll('s');
SELECT es_alter_subscription('s', any_event => true, types => '{X}');
SELECT es_append('s-10', 'any', 'X', '{"n": 10}');
SELECT poll('s');
SELECT query, types FROM es_subscriptions;
SELECT es_rename_subscription('s', 't');
SELECT es_alter_subscription('t', query => '[{"types": ["Y"]}]');
SELECT query, types FROM es_subscriptions;
SELECT es_drop_subscription('t');

-- The same for projections: from the checkpoint on, and all of it after a rebuild.
CREATE TABLE model (n int);
SELECT es_create_projection('p', query => 'INSERT INTO model SELECT (data->>''n'')::int FROM new_events', tables => '{model}', category => 's', event_query => '[{"tags": ["s:1"]}]');
SELECT es_run_projections();
SELECT array_agg(n ORDER BY n) FROM model;
SELECT es_alter_projection('p', event_query => '[{"tags": ["s:2"]}]');
SELECT count(es_append('s-' || n, 'any', 'X', jsonb_build_object('n', n), tags => ARRAY['s:' || n % 3, 'all'])) FROM generate_series(11, 14) n;
SELECT es_run_projections();
SELECT array_agg(n ORDER BY n) FROM model;
SELECT es_rebuild_projection('p');
SELECT array_agg(n ORDER BY n) FROM model;
SELECT es_alter_projection('p', mode => 'sync');
SELECT es_alter_projection('p', event_query => '[{"tags": ["s:0"]}]');
SELECT count(es_append('s-' || n, 'any', 'X', jsonb_build_object('n', n), tags => ARRAY['s:' || n % 3, 'all'])) FROM generate_series(15, 17) n;
SELECT array_agg(n ORDER BY n) FROM model;
SELECT es_skip_event('p', position) FROM es_events WHERE stream = 's-16';
SELECT es_alter_projection('p', any_event => true);
SELECT event_query FROM es_projections;
SELECT count(es_append('s-' || n, 'any', 'X', jsonb_build_object('n', n))) FROM generate_series(18, 19) n;
SELECT array_agg(n ORDER BY n) FROM model;
SELECT es_drop_projection('p');
-- A parked event is retried, whatever the query is by now.
CREATE TABLE broken ();
CREATE FUNCTION handle(e es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF e.data->>'n' = '4' AND to_regclass('broken') IS NOT NULL THEN
        RAISE 'broken';
    END IF;
    INSERT INTO model VALUES ((e.data->>'n')::int);
END $$;
TRUNCATE model;
SELECT es_create_projection('p', 'handle', tables => '{model}', on_failure => 'park', max_attempts => 1, event_query => '[{"tags": ["s:1"]}]');
SELECT es_run_projections();
SELECT array_agg(n ORDER BY n) FROM model;
SELECT es_alter_projection('p', event_query => '[{"tags": ["s:2"]}]');
DROP TABLE broken;
SELECT es_retry(id) FROM es_failures;
SELECT array_agg(n ORDER BY n) FROM model;
SELECT es_drop_projection('p');

-- What is refused, and stores nothing.
SELECT es_create_subscription('s', query => '[]');
SELECT es_create_subscription('s', query => '{"tags": ["a"]}');
SELECT es_create_subscription('s', query => 'null');
SELECT es_create_subscription('s', query => '[{"tags": ["a"]}, {"tag": "a"}]');
SELECT es_create_projection('p', 'handle', event_query => '[{"tags": []}]');
SELECT es_create_projection('p', 'handle', event_query => '"SELECT"');
SET eventstore.strict_types = on;
SELECT es_create_subscription('s', query => '[{"types": ["undefined"]}]');
SELECT es_create_projection('p', 'handle', event_query => '[{"tags": ["a"]}, {"tags": ["a"], "types": ["undefined"]}]');
RESET eventstore.strict_types;
SELECT es_create_subscription('s');
SELECT es_create_projection('p', 'handle');
SELECT es_alter_subscription('s', query => '[1]');
SELECT es_alter_subscription('s', query => '[{}]', any_event => true);
SELECT es_alter_projection('p', event_query => '[{"types": [1]}]');
SELECT es_alter_projection('p', event_query => '[{}]', any_event => true);
SELECT query FROM es_subscriptions UNION ALL SELECT event_query FROM es_projections;
SELECT es_drop_subscription('s'), es_drop_projection('p');
-- A part of other functions, which asks no rights: for nobody else.
SELECT cardinality(es_source_positions('[{"tags": ["all"]}]', '{s}', '{X}', 0, es_horizon(), 3)), es_source_positions(NULL, NULL, NULL, 0, 9, 1), es_source_positions('[{}]', NULL, NULL, 2, 9, 3);

-- A rare tag behind very many other events: few pages are read, however it is asked for.
SELECT es_create_projection('rare', query => 'INSERT INTO model SELECT count(*) FROM new_events', event_query => '[{"tags": ["late", "all"]}, {"tags": ["later"]}]', start_position => NULL);
SELECT es_create_projection('pair', query => 'SELECT FROM new_events', event_query => '[{"tags": ["even", "third"]}]', start_position => NULL);
SELECT es_create_subscription('rare', query => '[{"tags": ["late", "all"]}, {"tags": ["later"]}]', start_position => NULL);
SELECT es_create_subscription('rare in 16', partitions => 16, query => '[{"tags": ["late", "all"]}, {"tags": ["later"]}]', start_position => NULL);
INSERT INTO es_import (stream, type, tags)
SELECT 'many-' || n % 100, 'T', CASE WHEN n % 6 = 0 THEN '{even,third}'::text[] WHEN n % 2 = 0 THEN '{even}' WHEN n % 3 = 0 THEN '{third}' END FROM generate_series(1, 100000) n;
SELECT count(es_append('late-' || n, 'any', 'T', tags => ARRAY[CASE WHEN n < 3 THEN 'late' ELSE 'later' END, 'all'])) FROM generate_series(1, 5) n;
VACUUM es_events, es_tags;
CREATE FUNCTION pages(statement text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    plan json;
BEGIN
    EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, FORMAT json, TIMING off, SUMMARY off) ' || statement INTO plan;
    RETURN (plan->0->'Plan'->>'Shared Hit Blocks')::int + (plan->0->'Plan'->>'Shared Read Blocks')::int;
END $$;
-- Once before, as the first call of a session reads the catalogs. Each is rolled back, and does the same again.
CREATE FUNCTION pages_of(statement text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    count int;
BEGIN
    FOR i IN 1 .. 2 LOOP
        BEGIN
            count := pages(statement);
            RAISE 'undone' USING errcode = 'ZZ001';
        EXCEPTION WHEN SQLSTATE 'ZZ001' THEN
        END;
    END LOOP;
    RETURN count;
END $$;
SELECT pg_relation_size('es_events') / 8192 > 1000 AS is_large;
SELECT p < 400 AS few, CASE WHEN p >= 400 THEN p END AS pages FROM pages_of('SELECT es_run_projections(''rare'')') p;
SELECT p < 400 AS few, CASE WHEN p >= 400 THEN p END AS pages FROM pages_of('SELECT es_poll(''rare'')') p;
SELECT p < 400 AS few, CASE WHEN p >= 400 THEN p END AS pages FROM pages_of('SELECT es_poll(''rare in 16'')') p;
SELECT p < 400 AS few, CASE WHEN p >= 400 THEN p END AS pages FROM pages_of('SELECT es_source_positions(''[{"tags": ["late"]}]'', NULL, NULL, 0, es_horizon(), 9)') p;
-- Without tags all of the log is read, as for types.
SELECT p > 1000 AS many, CASE WHEN p <= 1000 THEN p END AS pages FROM pages_of('SELECT es_source_positions(''[{"types": ["none"]}]'', NULL, NULL, 0, es_horizon(), 9)') p;
-- With an index on the type not.
CREATE INDEX ON es_events (position) WHERE type = 'none';
SELECT p < 400 AS few, CASE WHEN p >= 400 THEN p END AS pages FROM pages_of('SELECT es_source_positions(''[{"types": ["none"]}, {"types": ["T"], "tags": ["late"]}]'', NULL, NULL, 0, es_horizon(), 9)') p;
-- Nor what lies above the horizon: events with the same tag, of an import that is open.
BEGIN;
INSERT INTO es_import (stream, type, tags) SELECT 'open-1', 'T', '{late,all}' FROM generate_series(1, 5000);
PREPARE TRANSACTION 'es_query_sources';
SELECT p < 400 AS few, CASE WHEN p >= 400 THEN p END AS pages FROM pages_of('SELECT es_run_projections(''rare'')') p;
SELECT p < 400 AS few, CASE WHEN p >= 400 THEN p END AS pages FROM pages_of('SELECT es_poll(''rare'')') p;
ROLLBACK PREPARED 'es_query_sources';
-- How far they are behind is exact where few have the tags, and an estimate elsewhere: within a third.
SELECT name, lag_events, lag_is_estimate FROM es_projection_status WHERE name = 'rare';
SELECT subscription, sum(lag_events), bool_or(lag_is_estimate) FROM es_subscription_status GROUP BY 1 ORDER BY 1;
SELECT name, lag_is_estimate, abs(lag_events - 16666) < 16666 / 3 AS is_near, lag_seconds > 0 AS has_age FROM es_projection_status WHERE name = 'pair';
SELECT count(*) FROM es_poll('rare');
SELECT count(*) FROM es_poll('rare in 16', max_count => 3);
SELECT es_run_projections('rare');
SELECT es_run_projections('pair');
SELECT lag_events FROM es_projection_status;

DROP EXTENSION eventstore CASCADE;
DO $$
DECLARE
    c text;
BEGIN
    FOR c IN SELECT name FROM consumers WHERE kind = 'projection' LOOP
        EXECUTE format('DROP TABLE %I', c);
    END LOOP;
END $$;
DROP TABLE filters, consumers, delivered, model CASCADE;
DROP FUNCTION append, numbers, create_consumers, got, poll, token, pages, pages_of;
DROP PROCEDURE drain;
DROP OWNED BY es_query_sources_limited;
DROP ROLE es_query_sources_limited;
