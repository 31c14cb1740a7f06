-- Plans of the read functions hold for every distribution of events: each read walks
-- the one index that has its events in order, whatever the planner knows.
SET client_min_messages = warning;
CREATE EXTENSION eventstore;
ALTER TABLE es_events SET (autovacuum_enabled = off);

-- The indexes that are walked, and what else a plan does that it should not.
CREATE FUNCTION walks(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    line text;
    found text[] := '{}';
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
        found := found || coalesce(substring(line from '(?:->  )?Index Scan (?:Backward )?using es_events_(\w+)'),
                                   substring(line from '(Bitmap \w+|Seq|Sort|Parallel|Function Scan)'));
    END LOOP;
    RETURN (SELECT string_agg(DISTINCT f, ', ') FROM unnest(found) AS f WHERE f IS NOT NULL);
END $$;

CREATE FUNCTION reads() RETURNS TABLE (query text, index text) LANGUAGE sql AS $$
    SELECT format(r.read, c, a, t, s), r.index
      FROM (VALUES ('es_read_category(%1$L, %2$s, 10, %3$s)', 'category_position_idx'),
                   ('es_read_category(%1$L, %2$s, NULL, %3$s) LIMIT 10', 'category_position_idx'),
                   ('es_read_category(%1$L, %2$s, NULL, %3$s) WHERE position < 100000 ORDER BY position LIMIT 10', 'category_position_idx'),
                   ('es_read(%2$s) LIMIT 10', 'pkey'),
                   ('es_load(%4$L)', 'stream_version_key'),
                   ('es_load(%4$L, 1, 10)', 'stream_version_key'),
                   ('es_load(%4$L, 1) LIMIT 10', 'stream_version_key'),
                   ('es_load_backward(%4$L)', 'stream_version_key'),
                   ('es_load_backward(%4$L, NULL, 10)', 'stream_version_key')) AS r (read, index),
           unnest('{early,huge,late,rare,new,absent}'::text[]) AS c,
           unnest('{0,11000}'::bigint[]) AS a,
           unnest('{"NULL","''{t1}''","''{none}''"}'::text[]) AS t,
           unnest('{huge-1,rare-1,new-1,absent-1}'::text[]) AS s
$$;

-- Those that walk something else.
CREATE FUNCTION others() RETURNS TABLE (query text, walks text) LANGUAGE sql AS $$
    SELECT r.query, w.walks
      FROM (SELECT DISTINCT query, index FROM reads()) AS r,
           LATERAL (SELECT walks('SELECT * FROM ' || r.query) AS walks) AS w
     WHERE w.walks IS DISTINCT FROM r.index
     ORDER BY 1
$$;

INSERT INTO es_import (stream, type) SELECT 'early-' || i % 7, 't' || i % 3 FROM generate_series(1, 2000) AS i;
INSERT INTO es_import (stream, type) SELECT 'huge-' || i % 50, 't' || i % 3 FROM generate_series(1, 8000) AS i;
INSERT INTO es_import (stream, type) SELECT 'late-' || i % 7, 't' || i % 3 FROM generate_series(1, 2000) AS i;
INSERT INTO es_import (stream, type) SELECT 'rare-1', 't1' FROM generate_series(1, 3) AS i;
SELECT count(DISTINCT query) > 100 AS many, count(DISTINCT index) FROM reads();

-- Without statistics.
SELECT * FROM others();
-- The planner may sort the ten events; it may not sort all to find them.
CREATE FUNCTION most_rows(query text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    line text;
    most bigint := 0;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) ' || query LOOP
        most := greatest(most, substring(line from 'rows=(\d+)')::bigint);
    END LOOP;
    RETURN most;
END $$;
SELECT most_rows('SELECT * FROM es_read(0, 10)'), most_rows('SELECT * FROM es_read(11000, 10)');
-- With them.
ANALYZE es_events;
SELECT * FROM others();
-- With statistics that know nothing of what came later, which is most of the log.
INSERT INTO es_import (stream, type) SELECT 'new-' || i % 7, 't' || i % 3 FROM generate_series(1, 20000) AS i;
SELECT * FROM others();
ANALYZE es_events;
SELECT * FROM others();

-- The position changes no estimate, so that a large category which the statement names is
-- not planned anew for each page.
PREPARE page (bigint) AS SELECT * FROM es_read_category('huge', $1, 100);
DO $$
BEGIN
    FOR i IN 1 .. 10 LOOP
        EXECUTE format('EXECUTE page(%s)', i * 100);
    END LOOP;
END $$;
SELECT generic_plans > 0 AS planned_once FROM pg_prepared_statements WHERE name = 'page';
DEALLOCATE page;

-- A plan for any parameters.
SET plan_cache_mode = force_generic_plan;
PREPARE category (text, bigint, bigint, text[]) AS SELECT * FROM es_read_category($1, $2, $3, $4);
PREPARE log (bigint, bigint) AS SELECT * FROM es_read($1, $2);
PREPARE load (text, bigint, bigint) AS SELECT * FROM es_load($1, $2, $3);
PREPARE backward (text, bigint, bigint) AS SELECT * FROM es_load_backward($1, $2, $3);
SELECT walks('EXECUTE category(''huge'', 0, 10, NULL)'), walks('EXECUTE log(0, 10)'),
       walks('EXECUTE load(''huge-1'', 0, NULL)'), walks('EXECUTE backward(''huge-1'', NULL, 10)');
RESET plan_cache_mode;

-- A join, of categories or of streams.
SELECT walks('SELECT * FROM unnest(''{huge,rare}''::text[]) AS c, LATERAL es_read_category(c, 0, 10)'),
       walks('SELECT * FROM unnest(''{huge-1,rare-1}''::text[]) AS s, LATERAL es_load(s, 0, 10)');

-- A role that sees some of the rows.
CREATE ROLE regress_es_some;
SELECT es_grant('regress_es_some', 'reader');
ALTER TABLE es_events ENABLE ROW LEVEL SECURITY;
CREATE POLICY most ON es_events TO regress_es_some USING (stream <> 'huge-1');
GRANT EXECUTE ON FUNCTION reads(), others(), walks(text) TO regress_es_some;
SET ROLE regress_es_some;
SELECT * FROM others();
SELECT count(*), bool_and(stream <> 'huge-1') FROM es_read_category('huge', 0, 10);
RESET ROLE;

-- The condition says what the other one says.
SELECT es_by_index('a', 'a'), es_by_index('a', 'b'), es_by_index('a', 'ab'), es_by_index('', ''), es_by_index(NULL, 'a');
SELECT count(*) FROM es_events WHERE es_by_index(type, 't1') AND position <= 9;

-- So does that on the version, whatever the bounds are and however they are given.
SELECT es_by_version(1, 0, 1), es_by_version(1, 1, 2), es_by_version(3, 1, 2), es_by_version(0, 0, 9), es_by_version(NULL, 0, 1);
CREATE FUNCTION bounded() RETURNS TABLE (plans text, reads bigint, wrong bigint) LANGUAGE plpgsql AS $$
DECLARE
    forward bigint[];
    backward bigint[];
    r record;
BEGIN
    plans := current_setting('plan_cache_mode');
    reads := 0;
    wrong := 0;
    FOR r IN SELECT a.n AS bound, m.n AS most,
                    ARRAY(SELECT v FROM generate_series(1, 3::bigint) v WHERE v > coalesce(a.n, 0) ORDER BY v LIMIT CASE WHEN m.n IS NOT NULL THEN greatest(m.n, 0) END) AS forward,
                    ARRAY(SELECT v FROM generate_series(1, 3::bigint) v WHERE v < a.n OR a.n IS NULL ORDER BY v DESC LIMIT CASE WHEN m.n IS NOT NULL THEN greatest(m.n, 0) END) AS backward
               FROM unnest('{NULL,-9223372036854775808,-1,0,1,2,3,4,9223372036854775807}'::bigint[]) a (n),
                    unnest('{NULL,-1,0,1,2,4,9223372036854775807}'::bigint[]) m (n) LOOP
        -- As parameters, and as constants.
        SELECT array_agg(version) INTO forward FROM es_load('rare-1', r.bound, r.most);
        SELECT array_agg(version) INTO backward FROM es_load_backward('rare-1', r.bound, r.most);
        wrong := wrong + (coalesce(forward, '{}') <> r.forward)::int + (coalesce(backward, '{}') <> r.backward)::int;
        EXECUTE format('SELECT array_agg(version) FROM es_load(''rare-1'', %L, %L)', r.bound, r.most) INTO forward;
        EXECUTE format('SELECT array_agg(version) FROM es_load_backward(''rare-1'', %L, %L)', r.bound, r.most) INTO backward;
        wrong := wrong + (coalesce(forward, '{}') <> r.forward)::int + (coalesce(backward, '{}') <> r.backward)::int;
        reads := reads + 4;
    END LOOP;
    RETURN NEXT;
END $$;
SELECT * FROM bounded();
SET plan_cache_mode = force_generic_plan;
SELECT * FROM bounded();
SET plan_cache_mode = force_custom_plan;
SELECT * FROM bounded();
RESET plan_cache_mode;

DROP EXTENSION eventstore CASCADE;
DROP FUNCTION bounded, reads, others, walks, most_rows;
DROP OWNED BY regress_es_some;
DROP ROLE regress_es_some;
