-- A notice of a removal passes each filter that an event passed for which it stands: of reads, subscriptions
-- and projections, compared with plain SQL.
SET client_min_messages = warning;
CREATE EXTENSION eventstore;
ALTER TABLE es_events SET (autovacuum_enabled = off);
CREATE ROLE es_removal_filters_limited;
GRANT CREATE ON SCHEMA public TO es_removal_filters_limited;
SELECT es_grant('es_removal_filters_limited', 'operator');

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
    ('all', NULL, NULL, NULL),
    ('a type', NULL, '{X}', NULL),
    ('types', NULL, '{X,nothing,Z}', NULL),
    ('no type', NULL, '{nothing}', NULL),
    ('a notice', NULL, '{es_stream_deleted}', NULL),
    ('category, type', '{a}', '{Y}', NULL),
    ('categories, type', '{b,c}', '{Z}', NULL),
    ('one tag', NULL, NULL, '[{"tags": ["course:1"]}]'),
    ('two tags', NULL, NULL, '[{"tags": ["student:2", "course:1"]}]'),
    ('tag and types', NULL, NULL, '[{"tags": ["course:1"], "types": ["Y", "Z"]}]'),
    ('tag and no type', NULL, NULL, '[{"tags": ["course:1"], "types": ["nothing"]}]'),
    ('several items', NULL, NULL, '[{"tags": ["course:1", "student:1"]}, {"types": ["Y"], "tags": ["course:2"]}, {"tags": ["course:1"]}]'),
    ('types only', NULL, NULL, '[{"types": ["Y", "Z"]}]'),
    ('tag or type', NULL, NULL, '[{"tags": ["rare"]}, {"types": ["Z"]}]'),
    ('every event', NULL, NULL, '[{}]'),
    ('category and types', '{a,b}', '{X,Y}', '[{"types": ["Y", "Z"], "tags": ["student:1"]}, {"tags": ["rare"]}]'),
    ('category, type or tag', '{b}', '{Y,Z}', '[{"types": ["Y"]}, {"tags": ["student:1"]}]');
-- What a filter is, in plain SQL: the types that an event has, or stands for.
CREATE FUNCTION types_of(e es_events) RETURNS text[] LANGUAGE sql AS $$
    SELECT e.type || CASE WHEN e.type LIKE 'es\_%' THEN ARRAY(SELECT jsonb_array_elements_text(e.data->'types')) ELSE '{}' END
$$;
CREATE FUNCTION wants(f filters, e es_events) RETURNS boolean LANGUAGE sql AS $$
    SELECT (f.categories IS NULL OR split_part(e.stream, '-', 1) = ANY (f.categories))
       AND (f.types IS NULL OR public.types_of(e) && f.types)
       AND (f.query IS NULL OR (
            SELECT bool_or((i->'types' IS NULL OR public.types_of(e) && ARRAY(SELECT jsonb_array_elements_text(i->'types')))
                           AND NOT EXISTS (SELECT FROM jsonb_array_elements_text(i->'tags') t WHERE t <> ALL (coalesce(e.tags, '{}'))))
              FROM jsonb_array_elements(f.query) i))
$$;
-- The limited role does not see two streams.
CREATE POLICY visible ON es_events FOR SELECT TO es_removal_filters_limited USING (stream NOT IN ('a-2', 'b-2'));

-- The consumers of each filter, and what each of them has got.
CREATE TABLE consumers (name text, filter text, kind text, limited boolean, start_position bigint);
CREATE TABLE delivered (consumer text, position bigint);
GRANT ALL ON consumers, delivered, filters TO es_removal_filters_limited;
CREATE FUNCTION create_consumers(after bigint, suffix text, limited boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    f filters;
    c text;
    mode text;
BEGIN
    FOR f IN SELECT * FROM filters LOOP
        FOREACH c IN ARRAY '{1,16}'::text[] LOOP
            CONTINUE WHEN limited AND c = '16';
            INSERT INTO consumers VALUES (f.name || ' ' || c || suffix, f.name, 'subscription', limited, after);
            PERFORM es_create_subscription(f.name || ' ' || c || suffix, f.categories, f.types, after, c::int, query => f.query);
        END LOOP;
        FOREACH mode IN ARRAY '{async,sync}'::text[] LOOP
            CONTINUE WHEN limited AND mode = 'sync';
            c := f.name || ' ' || mode || suffix;
            EXECUTE format('CREATE TABLE %I (position bigint)', c);
            PERFORM es_create_projection(c, query => format('INSERT INTO %I SELECT position FROM new_events', c),
                                         tables => ARRAY[quote_ident(c)::regclass], mode => mode, category => f.categories, types => f.types,
                                         start_position => after, batch_size => 7, event_query => f.query);
            INSERT INTO consumers VALUES (c, f.name, 'projection', limited, after);
        END LOOP;
    END LOOP;
END $$;
SELECT create_consumers(0, '', false);
SELECT append(numbers(61, 100));
-- Sync projections get the notices in the append, others later.
CREATE FUNCTION delete_streams(VARIADIC streams text[]) RETURNS bigint LANGUAGE sql AS $$
    SELECT sum(d.removed)::bigint FROM unnest(streams) AS s (name) CROSS JOIN LATERAL es_delete_stream(s.name, 'any') d
$$;
SELECT delete_streams('a-1', 'a-2', 'b-3', 'c-4', 'b-5');
SELECT count(*), count(DISTINCT data->'types'), count(tags) FROM es_events WHERE type = 'es_stream_deleted';
ALTER TABLE es_events ENABLE ROW LEVEL SECURITY;
SET ROLE es_removal_filters_limited;
SELECT create_consumers(0, ' of limited', true);
RESET ROLE;
SELECT append(numbers(101, 114));

-- Reads.
SELECT f.name FROM filters f
 WHERE query IS NULL AND cardinality(categories) = 1
   AND ARRAY(SELECT r.position FROM es_read_category(categories[1], types => types) r) <> ARRAY(SELECT e.position FROM es_events e WHERE wants(f, e) ORDER BY 1);
SELECT type, data->'types' AS types FROM es_read_category('b', 50, 2, '{Z}');
SELECT position > 50 AS after_50, type FROM es_read_category('b', 80, 2, '{X,Z}');
SELECT count(*) FROM es_read_category('a', types => '{nothing}');
CREATE FUNCTION read_by_queries() RETURNS TABLE (filter text, how text) LANGUAGE sql AS $$
    WITH wanted AS (SELECT f.*, ARRAY(SELECT e.position FROM es_events e WHERE wants(f, e) ORDER BY 1) AS positions FROM filters f WHERE query IS NOT NULL AND categories IS NULL)
    SELECT name, 'es_read' FROM wanted WHERE ARRAY(SELECT r.position FROM es_read(query => wanted.query) r) <> positions
    UNION ALL
    SELECT name, 'es_query' FROM wanted WHERE ARRAY(SELECT r.position FROM es_query(wanted.query) r) <> positions
$$;
SELECT * FROM read_by_queries();

-- How far each is behind: counted.
CREATE MATERIALIZED VIEW matching AS SELECT f.name AS filter, e.position, e.stream, e.type FROM filters f JOIN es_events e ON wants(f, e);
CREATE VIEW wanted AS
    SELECT c.name, c.filter, c.kind, e.position, e.stream, e.type
      FROM consumers c JOIN matching e USING (filter)
     WHERE e.position > c.start_position AND (NOT c.limited OR e.stream NOT IN ('a-2', 'b-2'));
SELECT c.filter, count(w.position) AS wanted, count(w.position) FILTER (WHERE w.type = 'es_stream_deleted') AS notices
  FROM consumers c LEFT JOIN wanted w ON w.name = c.name WHERE c.name = c.filter || ' 1' GROUP BY c.filter ORDER BY c.filter;
CREATE VIEW lags AS
    SELECT subscription AS name, sum(lag_events) AS lag_events, bool_or(lag_is_estimate) AS is_estimate FROM es_subscription_status GROUP BY subscription
    UNION ALL SELECT name, lag_events, lag_is_estimate FROM es_projection_status;
CREATE VIEW wrong_lags AS
    SELECT l.* FROM consumers c JOIN lags l USING (name)
     WHERE NOT c.limited AND NOT (c.name ~ ' sync')
       AND (l.lag_events <> (SELECT count(*) FROM wanted w WHERE w.name = c.name) OR l.is_estimate);
TABLE wrong_lags;

-- What each gets: exactly what is there, once; a sync one has got removed events as well.
CREATE PROCEDURE drain() LANGUAGE plpgsql AS $$
DECLARE
    c consumers;
    got int;
BEGIN
    FOR c IN SELECT * FROM consumers WHERE kind = 'subscription' LOOP
        LOOP
            WITH polled AS MATERIALIZED (SELECT * FROM es_poll(c.name, 'c', 12)),
                 noted AS (INSERT INTO delivered SELECT c.name, position FROM polled RETURNING 1),
                 acked AS (SELECT es_ack(c.name, max(token)) FROM polled HAVING count(*) > 0)
            SELECT count(*) INTO got FROM noted, acked;
            EXIT WHEN got = 0;
        END LOOP;
    END LOOP;
    PERFORM es_run_projections();
    REFRESH MATERIALIZED VIEW matching;
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
CREATE VIEW differences AS
    (SELECT 'missing' AS what, name, position FROM wanted EXCEPT ALL SELECT 'missing', * FROM got())
    UNION ALL
    (SELECT CASE WHEN EXISTS (SELECT FROM es_events e WHERE e.position = g.position) THEN 'too many'
                 WHEN g.name ~ ' sync' THEN 'removed' ELSE 'removed, but not sync' END, g.*
       FROM got() g
     EXCEPT ALL SELECT 'too many', name, position FROM wanted);
CALL drain();
SELECT what, count(*) > 0 AS some FROM differences GROUP BY what;
SELECT count(*) FROM lags WHERE lag_events > 0 AND name !~ 'limited';

-- Events that were delivered are removed later: only the notices come. Then again from the beginning, since
-- what a session knows of the partitions must hold for what was removed meanwhile.
SELECT append(numbers(115, 120));
CALL drain();
SELECT delete_streams('a-3', 'b-6', 'c-4', 'c-6');
CALL drain();
SELECT what, count(*) > 0 AS some FROM differences GROUP BY what ORDER BY what;
TRUNCATE delivered;
SELECT count(es_seek(name, start_position)) FROM consumers WHERE kind = 'subscription';
CALL drain();
SELECT what, count(*) > 0 AS some FROM differences WHERE name !~ 'async' GROUP BY what ORDER BY what;

-- A third time, with indexes on types: then events of types are looked up as well.
SELECT count(es_index_type(t)) FROM unnest('{Y,Z}'::text[]) t;
SELECT delete_streams('b-0', 'c-2');
SELECT * FROM read_by_queries();
TRUNCATE delivered;
SELECT count(es_seek(name, start_position)) FROM consumers WHERE kind = 'subscription';
REFRESH MATERIALIZED VIEW matching;
SELECT * FROM wrong_lags WHERE name !~ 'async';
CALL drain();
SELECT what, count(*) > 0 AS some FROM differences WHERE name !~ 'async' GROUP BY what ORDER BY what;
-- A rebuild gets what is there.
SELECT count(es_rebuild_projection(name)) FROM consumers WHERE kind = 'projection' AND NOT limited;
SELECT what, count(*) > 0 AS some FROM differences WHERE name !~ 'limited' GROUP BY what;

-- es_health finds those that nobody polls, by the notice that they want.
SELECT count(*) FROM es_health_subscriptions('-1 h') WHERE problem = 'consumer_missing';
SELECT append(numbers(121, 140));
CALL drain();
SELECT delete_streams('c-1');
SELECT DISTINCT regexp_replace(object, '^subscription "(.*?) (1|16).*$', '\1') AS filter
  FROM es_health_subscriptions('-1 h') WHERE problem = 'consumer_missing' ORDER BY 1;
REFRESH MATERIALIZED VIEW matching;
SELECT DISTINCT filter FROM wanted WHERE kind = 'subscription' AND type = 'es_stream_deleted' AND stream = 'c-1' ORDER BY 1;

-- A filter may name a notice's type, also where all types must be defined; a definition may not.
SET eventstore.strict_types = on;
SELECT es_create_subscription('notices', types => '{es_stream_deleted,es_compacted,es_stream_archived}');
SELECT es_define_event_type('es_stream_deleted');
SELECT removed > 0 AS removed FROM es_delete_stream('a-0', 'any');
SELECT count(*) > 0 AS delivered FROM es_poll('notices', 'c');
RESET eventstore.strict_types;

SELECT count(es_drop_subscription(name)) > 0 AS dropped FROM es_subscriptions;
SELECT count(es_drop_projection(name)) > 0 AS dropped FROM es_projections;
DROP EXTENSION eventstore CASCADE;
SET client_min_messages = error;
DO $$
DECLARE
    c consumers;
BEGIN
    FOR c IN SELECT * FROM consumers WHERE kind = 'projection' LOOP
        EXECUTE format('DROP TABLE %I', c.name);
    END LOOP;
END $$;
DROP TABLE consumers, delivered, filters CASCADE;
DROP FUNCTION IF EXISTS append, numbers, create_consumers, delete_streams, read_by_queries, got;
DROP PROCEDURE drain;
DROP OWNED BY es_removal_filters_limited;
DROP ROLE es_removal_filters_limited;
