-- Several categories: the type es_categories, and reading them in the order of positions.
SET client_min_messages = warning;
CREATE EXTENSION eventstore;

--
-- The type: a name, or an array of names
--
SELECT 'order'::es_categories, '{order,product}'::es_categories, ''::es_categories, '{}'::es_categories, '{"a b",NULL}'::es_categories, ' {a}'::es_categories;
SELECT '{a,b'::es_categories;
PREPARE texts(text) AS SELECT $1::es_categories;
EXECUTE texts('order');
EXECUTE texts('{order,product}');
SELECT 'a'::varchar::es_categories, 'a'::name::es_categories, 'a'::char(3)::es_categories, '{b}'::char(5)::es_categories, '{a,b}'::varchar[]::es_categories, ARRAY['{a,b}']::es_categories,
       '{a,b}'::es_categories::text[];
SELECT es_categories_send('{a,b}') = array_send('{a,b}'::text[]);

--
-- What is refused, in the same words by all functions
--
CREATE FUNCTION refused(categories es_categories) RETURNS TABLE (function text, error text) LANGUAGE plpgsql AS $$
DECLARE
    d text;
BEGIN
    FOR function IN SELECT unnest('{es_create_projection,es_alter_projection,es_create_subscription}'::text[]) LOOP
        BEGIN
            IF function = 'es_create_projection' THEN
                PERFORM es_create_projection('new', query => 'SELECT FROM new_events', category => categories);
            ELSIF function = 'es_alter_projection' THEN
                PERFORM es_alter_projection('p', category => categories);
            ELSE
                PERFORM es_create_subscription('new', category => categories);
            END IF;
            error := 'none';
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS d = PG_EXCEPTION_DETAIL;
            error := format('%s %s: %s', SQLSTATE, SQLERRM, d);
        END;
        RETURN NEXT;
    END LOOP;
END $$;
SELECT es_create_projection('p', query => 'SELECT FROM new_events');
SELECT c, array_agg(r.function ORDER BY r.function), r.error
  FROM unnest('{order-1,"{order,order-1}","{}","{NULL}","{a,b,a}","{{a},{b}}"}'::text[]) AS c, refused(c) AS r GROUP BY c, r.error ORDER BY c;
SELECT array_agg(r.function ORDER BY r.function), r.error FROM (SELECT array_agg(n::text) AS c FROM generate_series(1, 65) AS n) AS c, refused(c) AS r GROUP BY r.error;
SELECT es_drop_projection('p');

--
-- Reading: one large category, some small ones, one without events
--
SELECT setseed(0.5);
CREATE TABLE streams AS
SELECT n, CASE WHEN n % 500 = 7 THEN 'rare-' || n % 3 WHEN n % 700 = 9 THEN 'other-1' WHEN n % 91 = 4 THEN '-empty' WHEN n % 50 = 3 THEN 'some' ELSE 'huge-' || n % 10 END AS stream,
       CASE WHEN random() < 0.3 THEN 'a' ELSE 'b' END AS type
  FROM generate_series(1, 4000) AS n;
SELECT count(es_append(stream, 'any', type)) FROM (SELECT * FROM streams ORDER BY n) AS s;
ANALYZE es_events;
CREATE TABLE seen (name text, position bigint, n bigserial);
CREATE TABLE filters (name text, categories text[], types text[]);
INSERT INTO filters VALUES
    ('all', NULL, NULL), ('one', '{rare}', NULL), ('two', '{rare,huge}', NULL), ('many', '{none,some,other,rare,""}', NULL), ('empty', '{""}', NULL),
    ('types', '{rare,some,huge}', '{a}'), ('nothing', '{none,nobody}', NULL), ('typeless', '{rare,huge}', '{c}');
CREATE FUNCTION wanted(name text) RETURNS bigint[] LANGUAGE sql RETURN
    (SELECT array_agg(e.position ORDER BY e.position) FROM es_events AS e, filters AS f
      WHERE f.name = wanted.name AND (f.categories IS NULL OR es_category(e.stream) = ANY (f.categories)) AND (f.types IS NULL OR e.type = ANY (f.types)));
-- Projections, in batches of 37; what none wants is passed over.
SELECT count(es_create_projection(name, query => format('INSERT INTO seen SELECT %L, position FROM new_events ORDER BY position', name),
                                  category => categories, types => types, batch_size => 37)) FROM filters;
SELECT p.name, p.lag_events = coalesce(cardinality(wanted(p.name)), 0) AS lag_is_right, p.lag_seconds > 0 AS lags FROM es_projection_status AS p ORDER BY name;
SELECT es_run_projections();
SELECT f.name, array_agg(s.position ORDER BY s.n) FILTER (WHERE s.n > 0) IS NOT DISTINCT FROM wanted(f.name) AS right FROM filters AS f LEFT JOIN seen AS s USING (name) GROUP BY f.name ORDER BY name;
SELECT min(position) = es_horizon() AS all_are_there, sum(lag_events) AS lag FROM es_projection_status;
-- A view counts what it has not seen.
CREATE MATERIALIZED VIEW types AS SELECT DISTINCT type FROM es_events;
SELECT es_create_projection('view', refresh => 'types', category => '{rare,some}');
SELECT es_run_projections('view') = count(*) FROM es_events WHERE es_category(stream) IN ('rare', 'some');
-- Subscriptions, with one partition and with three.
TRUNCATE seen;
SELECT count(es_create_subscription(name || p, categories, types, partitions => p)) FROM filters, unnest('{1,3}'::int[]) AS p;
SELECT f.name, p, sum(s.lag_events) = coalesce(cardinality(wanted(f.name)), 0) AS lag_is_right
  FROM filters AS f, unnest('{1,3}'::int[]) AS p, es_subscription_status AS s WHERE s.subscription = f.name || p GROUP BY f.name, p ORDER BY 1, 2;
CREATE FUNCTION follow(name text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    t bigint;
BEGIN
    LOOP
        INSERT INTO seen SELECT name, position FROM es_poll(name, max_count => 41) AS p;
        SELECT max(token) INTO t FROM es_partitions WHERE subscription = name AND leased_until IS NOT NULL;
        EXIT WHEN t IS NULL;
        PERFORM es_ack(name, t);
    END LOOP;
END $$;
SELECT count(follow(name || p)) FROM filters, unnest('{1,3}'::int[]) AS p;
SELECT f.name, array_agg(s.position ORDER BY s.n) FILTER (WHERE s.name = f.name || 1) IS NOT DISTINCT FROM wanted(f.name) AS one,
       array_agg(s.position ORDER BY s.position) FILTER (WHERE s.name = f.name || 3) IS NOT DISTINCT FROM wanted(f.name) AS three
  FROM filters AS f LEFT JOIN seen AS s ON s.name IN (f.name || 1, f.name || 3) GROUP BY f.name ORDER BY f.name;
-- A sync projection.
TRUNCATE seen;
SELECT es_create_projection('sync', mode => 'sync', query => 'INSERT INTO seen SELECT type, position FROM new_events', category => '{rare,"",some}', start_position => NULL);
SELECT count(es_append(s, 'any', s)) FROM unnest('{rare-1,rar-1,some,-x,huge-1,somewhat-1}'::text[]) AS s;
SELECT name FROM seen ORDER BY n;
SELECT es_drop_projection('sync');

-- A reader from whom row security hides events reads by SQL.
CREATE ROLE regress_es_reader;
SELECT es_grant('regress_es_reader', 'reader');
ALTER TABLE es_events ENABLE ROW LEVEL SECURITY;
CREATE POLICY half ON es_events FOR SELECT TO regress_es_reader USING (version % 2 = 0);
SET ROLE regress_es_reader;
SELECT es_create_subscription('half1', category => '{rare,some,none}', start_position => 100);
SELECT es_create_subscription('half2', category => 'rare', start_position => 100);
SELECT array_agg(position) FROM es_poll('half1', max_count => 7);
SELECT array_agg(position) FROM es_poll('half2', max_count => 7);
RESET ROLE;
SELECT array_agg(position) FROM (SELECT position FROM es_events WHERE version % 2 = 0 AND position > 100 AND es_category(stream) IN ('rare', 'some') ORDER BY position LIMIT 7) AS e;
SELECT array_agg(position) FROM (SELECT position FROM es_events WHERE version % 2 = 0 AND position > 100 AND es_category(stream) = 'rare' ORDER BY position LIMIT 7) AS e;
DROP POLICY half ON es_events;
ALTER TABLE es_events DISABLE ROW LEVEL SECURITY;

--
-- A rare category beside a large one costs little: pages that are looked at
--
-- of the log and its indexes; catalogs are read again whenever autovacuum has changed them.
CREATE FUNCTION fetched() RETURNS bigint LANGUAGE sql AS $$
    SELECT sum(pg_stat_get_xact_blocks_fetched(oid)) FROM (
        SELECT 'es_events'::regclass::oid UNION ALL SELECT indexrelid FROM pg_index WHERE indrelid = 'es_events'::regclass) AS r (oid) $$;
CREATE FUNCTION pages(statement text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    before bigint := fetched();
BEGIN
    EXECUTE statement;
    RETURN fetched() - before;
END $$;
SELECT count(es_append_batch('huge-1', 'any', (SELECT jsonb_agg('{"type": "b"}'::jsonb) FROM generate_series(1, 1000)))) FROM generate_series(1, 30);
SELECT es_append('rare-1', 'any', 'a') IS NOT NULL AS is_there;
ANALYZE es_events;
SELECT relpages > 300 AS is_large FROM pg_class WHERE oid = 'es_events'::regclass;
SELECT pages('SELECT count(data) FROM es_events') > 300 AS counts;
-- The claim of a projection, a batch, a delivery, and the status, of one and of several categories.
SELECT es_create_projection('few', query => 'SELECT FROM new_events', category => '{none,rare,other,some}', start_position => 4000);
SELECT es_create_projection('single', query => 'SELECT FROM new_events', category => 'rare', start_position => 4000);
SELECT es_create_subscription('few', category => '{none,rare,other,some}', start_position => 4000);
SELECT count(es_drop_projection(name)) FROM filters;
SELECT es_drop_projection('view'), count(es_drop_subscription(name || p)) FROM filters, unnest('{1,3}'::int[]) AS p;
SELECT count(es_drop_subscription('half' || p)) FROM unnest('{1,2}'::int[]) AS p;
SELECT pages('SELECT * FROM es_projection_status') < 300, pages('SELECT * FROM es_subscription_status') < 300;
SELECT name, lag_events FROM es_projection_status ORDER BY name;
SELECT subscription, lag_events FROM es_subscription_status;
SELECT pages($$ SELECT * FROM es_poll('few') $$) < 300;
SELECT pages($$ SELECT es_run_projections('few') $$) < 300, pages($$ SELECT es_run_projections('single') $$) < 300;
SELECT name, lag_events, position = es_horizon() AS is_there FROM es_projection_status ORDER BY name;

SELECT es_revoke('regress_es_reader', 'reader');
DROP EXTENSION eventstore CASCADE;
DROP ROLE regress_es_reader;
DROP TABLE seen, streams, filters;
DROP FUNCTION follow, pages, fetched;
