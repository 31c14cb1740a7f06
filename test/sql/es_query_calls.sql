-- es_query and es_append_if where they may be called: views, functions, cursors, parallel
-- queries, subtransactions, isolation levels of one snapshot.
CREATE EXTENSION eventstore;
SELECT version FROM es_append_batch('q-1', 'none', '[{"type": "a", "tags": ["x"]}, {"type": "b", "tags": ["x", "y"]}, {"type": "a", "tags": ["y"]}, {"type": "c"}]');

-- A view, also one that joins and aggregates; with conditions and a limit of its own
CREATE VIEW of_x AS SELECT version, type, tags FROM es_query('[{"tags": ["x"]}]');
SELECT * FROM of_x WHERE type = 'b';
SELECT * FROM of_x ORDER BY version DESC LIMIT 1;
SELECT a.version, b.version FROM of_x AS a JOIN of_x AS b ON a.version < b.version;
SELECT q.query, e.version FROM (VALUES ('[{"tags": ["y"]}]'::jsonb), ('[{"types": ["c"]}]')) AS q (query), es_query(q.query) AS e ORDER BY 1, 2;
SELECT (es_query('[{"tags": ["y"]}]')).version;

-- Functions: of each volatility it sees what was committed and what the transaction has appended
CREATE FUNCTION count_x_stable() RETURNS bigint LANGUAGE sql STABLE AS $$ SELECT count(*) FROM es_query('[{"tags": ["x"]}]') $$;
CREATE FUNCTION count_x() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT count(*) FROM es_query('[{"tags": ["x"]}]')); END $$;
BEGIN;
SELECT version FROM es_append('q-2', 'none', 'a', tags => '{x}');
SELECT count_x_stable(), count_x();
ROLLBACK;
SELECT count_x_stable(), count_x();

-- A parallel query does not run it in a worker
SET min_parallel_table_scan_size = 0;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SELECT proparallel, provolatile FROM pg_proc WHERE proname IN ('es_query', 'es_append_if') ORDER BY proname;
SELECT count(*) FROM es_query('[{"tags": ["x"]}]') AS q JOIN es_events AS e USING (position);
RESET min_parallel_table_scan_size;
RESET parallel_setup_cost;
RESET parallel_tuple_cost;

-- Cursors have what there was when they were opened
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT version, type FROM es_query('[{"tags": ["x"]}, {"types": ["c"]}]');
FETCH 2 FROM c;
SELECT version FROM es_append('q-2', 'none', 'a', tags => '{x}');
FETCH ALL FROM c;
FETCH BACKWARD 2 FROM c;
ROLLBACK;
BEGIN;
DECLARE held CURSOR WITH HOLD FOR SELECT version FROM es_query('[{"tags": ["x"]}]');
COMMIT;
FETCH ALL FROM held;
CLOSE held;
PREPARE kept(jsonb, bigint) AS SELECT version FROM es_query($1, $2);
EXECUTE kept('[{"tags": ["x"]}]', 0);
EXECUTE kept('[{"tags": ["x"]}]', 1);
EXECUTE kept('[{"tag": ["x"]}]', 1);
EXECUTE kept('[{"tags": ["y"]}]', 0);
DEALLOCATE kept;

-- PL/pgSQL: what a block that fails has appended is gone, and its condition with it
DO $$
DECLARE
    outcome text[];
    event es_recorded_event;
BEGIN
    BEGIN
        PERFORM es_append_if('[{"type": "u", "tags": ["user:ann"]}]', '[{"tags": ["user:ann"]}]');
        PERFORM es_append_if('[{"type": "u", "tags": ["user:ann"]}]', '[{"tags": ["user:ann"]}]');
    EXCEPTION WHEN SQLSTATE 'ES007' THEN
        outcome := outcome || 'both refused'::text;
    END;
    PERFORM es_append_if('[{"type": "u", "tags": ["user:ann"]}]', '[{"tags": ["user:ann"]}]');
    FOR event IN SELECT * FROM es_query('[{"tags": ["user:ann"]}]') LOOP
        outcome := outcome || format('%s %s', event.stream, event.version);
        -- the loop goes over what there was
        PERFORM es_append_if('[{"type": "u", "tags": ["user:ann"]}]', '[{"tags": ["user:ann"]}]', event.position);
    END LOOP;
    RAISE NOTICE '%', outcome;
END $$;
SELECT stream, version FROM es_query('[{"tags": ["user:ann"]}]');

-- Levels of one snapshot: queries end at the horizon, conditions see all that is committed
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count_x(), count_x_stable();
SELECT position > 0 AS appended FROM es_append_if('[{"type": "a", "tags": ["x"]}]', '[{"tags": ["nobody"]}]');
SELECT count_x(), count_x_stable();
SELECT es_append_if('[{"type": "a", "tags": ["z"]}]', '[{"tags": ["x"]}]', 3);
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT count_x();
SELECT position > 0 AS appended FROM es_append_if('[{"type": "a", "tags": ["z"]}]', '[{"tags": ["z"]}, {"types": ["z"]}]');
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE;
SELECT count_x();
SELECT es_append_if('[{"type": "a", "tags": ["z"]}]', '[{"tags": ["z"]}]');
ROLLBACK;

-- JSON that is no query, and what has to be said twice
CREATE FUNCTION refused(query jsonb, after bigint DEFAULT 0) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    message text; detail text; hint text; context text;
BEGIN
    PERFORM * FROM es_query(query, after);
    RETURN 'is a query';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT, context = PG_EXCEPTION_CONTEXT;
    RETURN concat_ws(' | ', sqlstate, message, detail, hint, (regexp_match(context, 'item \d+ of the query'))[1]);
END $$;
SELECT left(q.query::text, 60) AS query, refused(q.query)
  FROM (VALUES ('{}'::jsonb), ('null'), ('"x"'), ('[]'), ('[null]'), ('["x"]'), ('[[]]'), ('[{}, 1]'), ('[{"tag": ["a"]}]'), ('[{"": []}]'), ('[{"Tags": ["a"]}]'),
               ('[{"tags": null}]'), ('[{"types": null}]'), ('[{"tags": "a"}]'), ('[{"tags": {}}]'), ('[{"tags": []}]'), ('[{"types": []}]'),
               ('[{"tags": ["a", null]}]'), ('[{"types": ["a", null]}]'), ('[{"tags": ["a", 1]}]'), ('[{"tags": [["a"]]}]'), ('[{"tags": [""]}]'), ('[{"types": ["a", ""]}]'),
               (jsonb_build_array(jsonb_build_object('tags', ARRAY[repeat('ä', 128)]))), (jsonb_build_array(jsonb_build_object('types', ARRAY[repeat('ä', 128)]))),
               ((SELECT jsonb_agg('{}'::jsonb) FROM generate_series(1, 65))),
               (jsonb_build_array(jsonb_build_object('tags', (SELECT jsonb_agg(n::text) FROM generate_series(1, 65) AS n)))),
               ((repeat('[', 1000) || repeat(']', 1000))::jsonb), (('[{"tags": ' || repeat('[', 1000) || repeat(']', 1000) || '}]')::jsonb),
               -- these are: the limits, repetitions, any character
               ((SELECT jsonb_agg('{"tags": ["a"]}'::jsonb) FROM generate_series(1, 64))),
               (jsonb_build_array(jsonb_build_object('tags', (SELECT jsonb_agg(n::text) FROM generate_series(1, 64) AS n)))),
               (jsonb_build_array(jsonb_build_object('tags', (SELECT jsonb_agg('a'::text) FROM generate_series(1, 100000))))),
               (jsonb_build_array(jsonb_build_object('types', (SELECT jsonb_agg(n::text) FROM generate_series(1, 100000) AS n)))),
               ('[{"types": ["a", "a"], "tags": ["x", "x"]}, {"types": ["a"], "tags": ["x"]}]'), ('[{"tags": ["%"], "types": ["_"]}]'),
               (jsonb_build_array(jsonb_build_object('tags', ARRAY[E'\\', '''', '"', '{}', E'\n', E'\x01', '𝄞', 'NULL', '; DROP TABLE es_events', repeat('x', 255)])))) AS q (query);
SELECT type, count(*) FROM es_query(jsonb_build_array(jsonb_build_object('types', (SELECT jsonb_agg(n::text) FROM generate_series(1, 1000) AS n) || '["c", "a", "a"]'))) GROUP BY 1 ORDER BY 1;
SELECT q.after, refused('[{}]', q.after) FROM (VALUES (-1), (9223372036854775807), (NULL)) AS q (after);
SELECT refused(NULL);
SELECT * FROM es_query('[{}]', before_position => 0);
SELECT * FROM es_query('[{}]', max_count => -1);
SELECT count(*) FROM es_query('[{}]', max_count => 9223372036854775807, before_position => 9223372036854775807);
SELECT count(*) FROM es_query('[{}]', after_position => 3, before_position => 2);
SELECT count(*) FROM es_query('[{}]', backward => NULL);
-- tags are compared byte by byte
SELECT version FROM es_append('any-1', 'none', 'a', tags => ARRAY['a%', 'a_', 'a\', 'A', 'á', E'a\u0301', E'a\tb', '"']);
SELECT t.tag, (SELECT count(*) FROM es_query(jsonb_build_array(jsonb_build_object('tags', ARRAY[t.tag]))))
  FROM unnest(ARRAY['a%', 'a_', 'a\', 'A', 'á', E'a\u0301', 'ab', 'a', '%', E'a\tb', 'a b', '"', E'\\"']) AS t (tag);

DROP FUNCTION count_x, count_x_stable, refused;
DROP VIEW of_x;
DROP EXTENSION eventstore;
