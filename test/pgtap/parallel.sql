-- The parallel marks, by running what is marked safe in workers and what is marked
-- restricted in the leader of a parallel query. A wrong mark is an error there, or
-- another result than without workers.
BEGIN;
SELECT plan(5);

CREATE TEMP TABLE members AS
SELECT p.oid, p.proname::text AS name, p.proparallel::text AS parallel, p.prorettype
  FROM pg_depend d
  JOIN pg_proc p ON p.oid = d.objid
 WHERE d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
   AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'eventstore')
   AND p.prorettype NOT IN ('trigger'::regtype, 'internal'::regtype, 'cstring'::regtype)
   AND 'internal'::regtype::oid <> ALL (p.proargtypes::oid[]) AND 'cstring'::regtype::oid <> ALL (p.proargtypes::oid[]);

-- How each is called. n is a column of the table that is read in parallel: it makes the
-- workers evaluate the call.
CREATE TEMP TABLE calls (name text, call text, why text);
INSERT INTO calls VALUES
    -- what computes its result from its arguments
    ('es_attribute', 'es_attribute(jsonb_build_object(''a'', n), ''a'')', 'computes'),
    ('es_by_index', 'es_by_index(n::text, ''C'')', 'computes'),
    ('es_by_query', 'es_by_query(n, ''[{}]'', ARRAY[n, 3])', 'computes'),
    ('es_by_version', 'es_by_version(n, 1, 5)', 'computes'),
    ('es_category', 'es_category(''a-'' || n)', 'computes'),
    ('es_channel', 'es_channel(''a'' || n)', 'computes'),
    ('es_checksum', 'es_checksum(n::text)', 'computes'),
    ('es_digest', 'es_digest(''t'', jsonb_build_object(''a'', n), ''{a}'')', 'computes'),
    ('es_digest_string', 'es_digest_string(jsonb_build_object(''a'', n), ''{a}'')', 'computes'),
    ('es_last', 'es_last(jsonb_build_object(''a'', n), NULL)', 'computes'),
    ('es_merge', 'es_merge(jsonb_build_object(''a'', n), NULL)', 'computes'),
    ('es_partition', 'es_partition(''a-'' || n, 7)', 'computes'),
    ('es_recorded_event', '(SELECT es_recorded_event(e) FROM es_events e WHERE e.position = n)::text', 'computes'),
    ('es_uuid5', 'es_uuid5(''6ba7b812-9dad-11d1-80b4-00c04fd430c8'', n::text)', 'computes'),
    -- what reads tables, as the caller
    ('es_failures', '(SELECT count(*) FROM es_failures(stream => n::text))', 'reads'),
    ('es_import_fires', 'es_import_fires() AND n > 0', 'reads'),
    ('es_sees_personal_data', 'es_sees_personal_data() AND n > 0', 'reads'),
    ('es_kept_after', 'es_kept_after(''account-'' || n, n)', 'reads'),
    ('es_load_archived', '(SELECT count(data) FROM es_load_archived(''a-1''))', 'upcasts'),
    ('es_closed', 'es_closed() AND n > 0', 'reads'),
    ('es_definitions', '(SELECT count(*) FROM es_definitions() d WHERE d.rank > n)', 'reads'),
    ('es_inbox', '(SELECT count(*) FROM es_inbox(topic => n::text))', 'reads'),
    ('es_stream_version', 'es_stream_version(''a-'' || n)', 'reads'),
    -- what reads shared memory
    ('es_stats', '(SELECT count(*) FROM es_stats() s WHERE s.appends > n * 1000)', 'reads shared memory'),
    ('es_inbox_stats', '(SELECT count(*) FROM es_inbox_stats() s WHERE s.topic = n::text)', 'reads shared memory'),
    -- what calls code of users, or knows of the session
    ('es_event', '(SELECT data FROM es_event((SELECT id FROM es_events WHERE position = 1)))', 'upcasts'),
    ('es_last_event', '(SELECT data FROM es_last_event(''a-1''))', 'upcasts'),
    ('es_load', '(SELECT count(data) FROM es_load(''a-1''))', 'upcasts'),
    ('es_load_backward', '(SELECT count(data) FROM es_load_backward(''a-1''))', 'upcasts'),
    ('es_read', '(SELECT count(data) FROM es_read(0))', 'upcasts'),
    ('es_read_category', '(SELECT count(data) FROM es_read_category(''a'', 0))', 'upcasts'),
    ('es_upcast', '(SELECT (es_upcast(e)).data FROM es_events e WHERE position = 1)', 'upcasts'),
    ('es_upcast_data', '(SELECT es_upcast_data(position, id, stream, type, data, metadata) FROM es_events WHERE position = 1)', 'upcasts'),
    ('es_upcast_metadata', '(SELECT es_upcast_metadata(position, id, stream, type, data, metadata) FROM es_events WHERE position = 1)', 'upcasts'),
    ('es_horizon', 'es_horizon()', 'caches in the session'),
    ('es_matching_positions', 'cardinality(es_matching_positions(''[{}]'', 0, 5))', 'searches the horizon'),
    ('es_slots', 'es_slots() IS NULL AND n > 0', 'reads'),
    ('es_store_id', 'es_store_id() IS NOT NULL', 'reads'),
    ('es_incarnation', 'es_incarnation() IS NOT NULL', 'reads'),
    ('es_position_valid', 'es_position_valid(es_store_id(), n)', 'reads'),
    ('es_horizon_holders', '(SELECT count(*) FROM es_horizon_holders())', 'runs as the owner'),
    ('es_projection_lag', '(SELECT count(*) FROM es_projection_lag())', 'runs as the owner'),
    ('es_subscription_lag', '(SELECT count(*) FROM es_subscription_lag())', 'runs as the owner'),
    ('es_source_positions', 'es_source_positions(''[{}]'', NULL, NULL, 0, 100, 1)', 'reads by SQL where rights are limited'),
    ('es_replaying', 'es_replaying()', 'is about the session'),
    ('es_erasure_report', '(SELECT count(*) FROM es_erasure_report(''s''))', 'reads about other processes'),
    ('es_uuid7', 'es_uuid7() IS NOT NULL', 'is about the session');

-- A log of which readers see something.
SELECT count(es_append('a-' || n % 10, 'any', 'x', jsonb_build_object('n', n))) FROM generate_series(1, 100) n;
CREATE FUNCTION es_test_up(data jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RETURN data || '{"up": true}'; END $$;
SELECT es_define_event_type('x', schema_version => 2), es_define_upcaster('x', 1, 'es_test_up');
CREATE TABLE es_test_big (n bigint);
INSERT INTO es_test_big SELECT n % 100 + 1 FROM generate_series(1, 500) n;
ANALYZE es_test_big;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET max_parallel_workers_per_gather = 2;

-- The call in workers: a sum over what each row gives; or in the leader, above them.
CREATE FUNCTION pg_temp.query_of(parallel text, call text) RETURNS text LANGUAGE sql AS $$
    SELECT CASE parallel WHEN 's' THEN format('SELECT sum(hashtext((%s)::text)) FROM es_test_big', call)
                         ELSE format('SELECT count(*)::text || coalesce((%s)::text, ''null'') FROM es_test_big', call) END $$;
CREATE FUNCTION pg_temp.explained(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE line text; lines text := '';
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (VERBOSE, COSTS OFF) ' || query LOOP
        lines := lines || line || E'\n';
    END LOOP;
    RETURN lines;
END $$;
CREATE FUNCTION pg_temp.result_of(query text, workers int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE result text;
BEGIN
    PERFORM set_config('max_parallel_workers_per_gather', workers::text, true);
    EXECUTE query INTO result;
    RETURN result;
EXCEPTION WHEN OTHERS THEN
    RETURN sqlerrm;
END $$;

CREATE TEMP TABLE run AS
SELECT m.name, m.parallel, c.call, c.why, pg_temp.query_of(m.parallel, c.call) AS query
  FROM members m JOIN calls c USING (name);

SELECT is_empty(
    $$ SELECT m.name FROM members m
        WHERE m.parallel <> 'u' AND m.name NOT IN (SELECT c.name FROM calls c)
          AND m.name !~ '^es_(categories|definitions|expected_version|function|role|health)_' $$,
    'each function that is not unsafe is called here');
SELECT is_empty(
    $$ SELECT r.name, pg_temp.explained(r.query) FROM run r WHERE pg_temp.explained(r.query) !~ 'Gather' $$,
    'all are parallel queries');
SELECT is_empty(
    $$ SELECT r.name, pg_temp.result_of(r.query, 0) AS serial, pg_temp.result_of(r.query, 2) AS parallel FROM run r
        WHERE pg_temp.result_of(r.query, 0) IS DISTINCT FROM pg_temp.result_of(r.query, 2) $$,
    'their results are those of queries without workers');
SELECT is_empty(
    $$ SELECT r.name, r.parallel, r.why FROM run r
        WHERE r.parallel <> CASE WHEN r.why IN ('computes', 'reads', 'reads shared memory') THEN 's' ELSE 'r' END $$,
    'what computes or reads is safe, what is about the session or calls code of users is restricted');
SELECT is_empty(
    $$ SELECT m.name FROM members m JOIN pg_proc p USING (oid)
        WHERE m.parallel = 'u' AND p.provolatile <> 'v' AND m.name NOT IN ('es_history', 'es_describe_event_type') $$,
    'what is unsafe changes something, or runs statements of its own in a session of its owner');

SELECT * FROM finish();
ROLLBACK;
