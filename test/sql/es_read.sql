-- The read functions: results, limits, and that they are index scans to which an
-- outer LIMIT or WHERE applies.
CREATE EXTENSION eventstore;
SELECT version FROM es_append_batch('account-1', 'none', (SELECT jsonb_agg(jsonb_build_object('type', CASE WHEN n % 2 = 0 THEN 'even' ELSE 'odd' END, 'data', n) ORDER BY n) FROM generate_series(1, 9) n));
SELECT version FROM es_append_batch('order-1', 'none', '[{"type": "placed"}, {"type": "paid"}]');
SELECT version FROM es_append('account-2', 'none', 'odd', '1', NULL, '00000000-0000-7000-8000-000000000001');

-- es_load(stream, after_version, max_count)
SELECT array_agg(version), array_agg(data) FROM es_load('account-1');
SELECT array_agg(version) FROM es_load('account-1', 7);
SELECT array_agg(version) FROM es_load('account-1', 3, 2);
SELECT array_agg(version) FROM es_load('account-1', max_count => 3);
SELECT array_agg(version) FROM es_load('account-1', 7, 100);
SELECT array_agg(version) FROM es_load('account-1', -5, 2);
SELECT array_agg(version) FROM es_load('account-1', NULL, NULL);
SELECT array_agg(version) FROM es_load('account-1', 7, 9223372036854775807);
SELECT count(*) FROM es_load('account-1', 9);
SELECT count(*) FROM es_load('account-1', 9223372036854775807, 9223372036854775807);
SELECT count(*) FROM es_load('account-1', -9223372036854775808, -1);
SELECT count(*) FROM es_load('account-1', 0, 0);
SELECT count(*) FROM es_load('account');
SELECT count(*) FROM es_load(NULL);

-- es_load_backward(stream, before_version, max_count)
SELECT array_agg(version) FROM es_load_backward('account-1');
SELECT array_agg(version) FROM es_load_backward('account-1', 4);
SELECT array_agg(version) FROM es_load_backward('account-1', 4, 2);
SELECT array_agg(version) FROM es_load_backward('account-1', max_count => 2);
SELECT array_agg(version) FROM es_load_backward('account-1', 1000, 2);
SELECT array_agg(version) FROM es_load_backward('account-1', 2, 9223372036854775807);
SELECT count(*) FROM es_load_backward('account-1', 1);
SELECT count(*) FROM es_load_backward('account-1', -9223372036854775808, 9223372036854775807);
SELECT count(*) FROM es_load_backward('account-1', NULL, 0);
SELECT count(*) FROM es_load_backward('account-1', NULL, -9223372036854775808);
SELECT count(*) FROM es_load_backward('nobody', NULL, 5);

-- es_read(after_position, max_count)
SELECT array_agg(position) FROM es_read();
SELECT array_agg(position) FROM es_read(10);
SELECT array_agg(position) FROM es_read(2, 3);
SELECT array_agg(position) FROM es_read(10, 100);
SELECT array_agg(position) FROM es_read(NULL, 2);
SELECT array_agg(position) FROM es_read(-1, 2);
SELECT count(*) FROM es_read(0, 0);
SELECT count(*) FROM es_read(0, -1);
SELECT count(*) FROM es_read(9223372036854775807, 9223372036854775807);

-- es_read_category(category, after_position, max_count, types)
SELECT array_agg(stream || '@' || version) FROM es_read_category('order');
SELECT array_agg(position) FROM es_read_category('account', 7, 3);
SELECT array_agg(position) FROM es_read_category('account', 0, 2, '{even}');
SELECT array_agg(position) FROM es_read_category('account', types => '{even,odd}');
SELECT count(*) FROM es_read_category('account', types => '{}');
SELECT count(*) FROM es_read_category('account-1');
SELECT count(*) FROM es_read_category(NULL);

-- One event, one number.
SELECT es_stream_version('account-1'), es_stream_version('nobody'), es_stream_version(NULL);
SELECT version, type FROM es_last_event('account-1');
SELECT version, type FROM es_last_event('account-1', 'even');
SELECT version, type FROM es_last_event('account-1', 'none');
SELECT version, type FROM es_last_event('nobody');
SELECT stream, version FROM es_event('00000000-0000-7000-8000-000000000001');
SELECT stream, version FROM es_event('00000000-0000-7000-8000-000000000002');
-- No row in the select list either; a subquery gives null. Both are inlined.
SELECT (es_last_event('account-1')).type, (es_last_event('account-1')).version;
SELECT (es_last_event('nobody')).version;
SELECT coalesce((SELECT version FROM es_last_event('nobody')), 0) AS version;
SELECT s AS stream, e.version FROM unnest('{account-1,nobody}'::text[]) AS s, es_last_event(s) AS e;
SELECT s AS stream, e.version FROM unnest('{account-1,nobody}'::text[]) AS s LEFT JOIN es_last_event(s) AS e ON true;
CREATE FUNCTION is_inlined(query text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE plan json;
BEGIN
    EXECUTE 'EXPLAIN (FORMAT JSON) ' || query INTO plan;
    RETURN plan::text ~ 'es_events' AND plan::text !~ 'Function Scan';
END $$;
SELECT is_inlined('SELECT data FROM es_event(''00000000-0000-7000-8000-000000000002'')'), is_inlined('SELECT version FROM es_last_event(''nobody'')');
DROP FUNCTION is_inlined;
SELECT es_category('account-1'), es_category('account'), es_category('a-b-c'), es_category('-x'), es_category(''), es_category(NULL);

-- Plans, on a log that is worth an index.
INSERT INTO es_import (stream, type) SELECT c || '-' || i, 't' || i % 3 FROM generate_series(1, 2000) i, unnest(ARRAY['p', 'q', 'r', 's', 't']) c;
INSERT INTO es_import (stream, type) SELECT 'long-1', 't' FROM generate_series(1, 3000);
INSERT INTO es_import (stream, type) SELECT 'big-' || i % 1000, 't' FROM generate_series(1, 20000) i;
VACUUM ANALYZE es_events;
-- How an index is used is a matter of cost, not of how a query is written; and
-- versions of the server name the horizon, computed once, in different ways.
SET enable_bitmapscan = off;
SET random_page_cost = 1.1;
CREATE FUNCTION plan(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
        CONTINUE WHEN line ~ '^ *(InitPlan|->  Result)';
        RETURN NEXT regexp_replace(line, '\$[0-9]|\(InitPlan [0-9]\).col1', '?', 'g');
    END LOOP;
END $$;
SELECT plan($$ SELECT * FROM es_load('long-1') $$);
SELECT plan($$ SELECT * FROM es_load('long-1', 5, 10) $$);
SELECT plan($$ SELECT * FROM es_load('long-1') WHERE type = 't' LIMIT 3 $$);
SELECT plan($$ SELECT * FROM es_load('long-1') WHERE version = 7 $$);
SELECT plan($$ SELECT * FROM es_load('long-1') WHERE id = '00000000-0000-7000-8000-000000000001' $$);
SELECT plan($$ SELECT * FROM es_load_backward('long-1') $$);
SELECT plan($$ SELECT * FROM es_load_backward('long-1', 10) WHERE type = 't' LIMIT 3 $$);
SELECT plan($$ SELECT * FROM es_load_backward('long-1', max_count => 3) $$);
SELECT plan($$ SELECT * FROM es_load_backward('long-1') WHERE id = '00000000-0000-7000-8000-000000000001' $$);
SELECT plan($$ SELECT * FROM es_read(100) $$);
SELECT plan($$ SELECT * FROM es_read(100, 10) $$);
SELECT plan($$ SELECT * FROM es_read(100) WHERE type = 't' LIMIT 10 $$);
SELECT plan($$ SELECT * FROM es_read() WHERE id = '00000000-0000-7000-8000-000000000001' $$);
SELECT plan($$ SELECT * FROM es_read_category('order') $$);
SELECT plan($$ SELECT * FROM es_read_category('order', 5, 10, '{paid}') $$);
SELECT plan($$ SELECT * FROM es_read_category('order') WHERE type = 'x' LIMIT 10 $$);
SELECT plan($$ SELECT * FROM es_read_category('big') WHERE id = '00000000-0000-7000-8000-000000000001' $$);
-- An outer LIMIT stops the scan, and is not only applied to its result.
CREATE FUNCTION rows_scanned(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) ' || query LOOP
        IF line ~ 'Scan.*es_events e ' THEN
            RETURN substring(line FROM 'rows=[0-9]+');
        END IF;
    END LOOP;
END $$;
SELECT rows_scanned('SELECT * FROM es_load(''long-1'') LIMIT 3'), rows_scanned('SELECT * FROM es_load_backward(''long-1'') LIMIT 3'),
       rows_scanned('SELECT * FROM es_read() LIMIT 3'), rows_scanned('SELECT * FROM es_read_category(''long'') LIMIT 3');

-- The functions of one event are not inlined, but they use the indexes.
CREATE FUNCTION scans_of(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE before bigint[]; used text;
BEGIN
    before := array_agg(pg_stat_get_xact_numscans(i)) FROM log_and_indexes() i;
    EXECUTE query;
    SELECT string_agg(i::regclass::text, ', ') INTO used
      FROM (SELECT i, n, pg_stat_get_xact_numscans(i) AS scans FROM log_and_indexes() WITH ORDINALITY l(i, n)) s
     WHERE scans > before[n];
    RETURN used;
END $$;
CREATE FUNCTION log_and_indexes() RETURNS SETOF oid LANGUAGE sql AS $$
    SELECT 'es_events'::regclass::oid UNION ALL
    SELECT indexrelid FROM pg_index WHERE indrelid = 'es_events'::regclass $$;
SELECT scans_of('SELECT es_stream_version(''long-1'')') AS es_stream_version,
       scans_of('SELECT es_last_event(''long-1'')') AS es_last_event,
       scans_of('SELECT es_last_event(''long-1'', ''t'')') AS es_last_event_of_type,
       scans_of('SELECT es_event(''00000000-0000-7000-8000-000000000001'')') AS es_event,
       scans_of('SELECT count(*) FROM es_events') AS all_events;

DROP FUNCTION plan, rows_scanned, scans_of, log_and_indexes;
DROP EXTENSION eventstore;
