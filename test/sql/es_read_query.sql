-- es_read with a query of types and tags: what it finds, in which statements, by which indexes.
SET client_min_messages = warning;
CREATE EXTENSION eventstore;
ALTER TABLE es_events SET (autovacuum_enabled = off);
ALTER TABLE es_tags SET (autovacuum_enabled = off);

--
-- What it finds
--
SELECT version FROM es_append_batch('e-1', 'none', '[
    {"type": "defined", "tags": ["course:c1"]}, {"type": "defined", "tags": ["course:c2"]},
    {"type": "registered", "tags": ["student:s1"]}, {"type": "subscribed", "data": {"n": 4}, "tags": ["course:c1", "student:s1"]},
    {"type": "subscribed", "tags": ["course:c2", "student:s1"]}, {"type": "noted", "metadata": {"why": "x"}},
    {"type": "subscribed", "tags": ["course:c1", "student:s2"]}, {"type": "closed", "tags": ["course:c1"]}]');
CREATE FUNCTION found(after bigint, max_count bigint, query jsonb) RETURNS text STABLE LANGUAGE sql AS $$
    SELECT coalesce(string_agg(position::text, ' '), 'none') FROM es_read(after, max_count, query) $$;
SELECT q.query, found(0, NULL, q.query::jsonb), found(3, NULL, q.query::jsonb) AS after_3, found(0, 2, q.query::jsonb) AS two, found(3, 1, q.query::jsonb) AS one_after_3
  FROM (VALUES ('[{}]'), ('[{"tags": ["course:c1"]}]'), ('[{"tags": ["student:s1", "course:c1"]}]'), ('[{"types": ["subscribed"]}]'), ('[{"types": ["subscribed", "noted"]}]'),
               ('[{"types": ["defined", "closed"], "tags": ["course:c1"]}]'), ('[{"tags": ["course:c2"]}, {"tags": ["student:s2"]}]'), ('[{"tags": ["course:c1"]}, {"types": ["subscribed"]}]'),
               ('[{"tags": ["course:c1", "course:c2"]}]'), ('[{"tags": ["nobody"]}]'), ('[{"types": ["nothing"]}]'), (NULL)) AS q (query);
SELECT found(NULL, NULL, '[{"tags": ["course:c1"]}]') AS from_null, found(-5, NULL, '[{"tags": ["course:c1"]}]') AS from_below, found(0, 0, '[{}]') AS zero, found(0, -1, '[{}]') AS negative,
       found(9223372036854775807, NULL, '[{}]') AS beyond, found(0, 9223372036854775807, '[{"types": ["noted"]}]') AS most;
SELECT position, version, stream, type, data, metadata, tags FROM es_read(3, 3, '[{"types": ["subscribed", "noted"]}]');
-- as es_query does, for every query of two items
INSERT INTO es_import (stream, type, tags)
SELECT 'r-' || n % 5, 't' || n * 7 % 4, (SELECT array_agg('g' || g) FROM generate_series(0, 5) AS g WHERE (n * 2654435761 >> (g + 3)) & 1 = 1)
  FROM generate_series(1, 600) AS n;
CREATE TABLE items AS
SELECT jsonb_strip_nulls(jsonb_build_object('types', t.types, 'tags', g.tags)) AS item
  FROM (VALUES (NULL::jsonb), ('["t1"]'), ('["t0", "t2"]'), ('["no"]')) AS t (types),
       (VALUES (NULL::jsonb), ('["g0"]'), ('["g1", "g2"]'), ('["g3", "g4", "g5"]'), ('["g0", "no"]')) AS g (tags);
CREATE FUNCTION compared() RETURNS TABLE (queries bigint, wrong bigint, wrong_pages bigint) LANGUAGE sql AS $$
    SELECT count(*), count(*) FILTER (WHERE found IS DISTINCT FROM expected), count(*) FILTER (WHERE page IS DISTINCT FROM expected[1:7] AND expected IS NOT NULL)
      FROM (SELECT (SELECT array_agg(position) FROM es_read(20, query => jsonb_build_array(a.item, b.item))) AS found,
                   (SELECT array_agg(position) FROM es_read(20, 7, jsonb_build_array(a.item, b.item))) AS page,
                   (SELECT array_agg(position) FROM es_query(jsonb_build_array(a.item, b.item), 20)) AS expected
              FROM items AS a, items AS b WHERE a.item <= b.item) AS q $$;
SELECT * FROM compared();

--
-- In any statement
--
CREATE VIEW subscribed AS SELECT position, stream, tags FROM es_read(query => '[{"types": ["subscribed"]}]');
SELECT position, tags FROM subscribed WHERE tags @> '{student:s1}' ORDER BY position DESC;
SELECT count(*), min(position) FROM es_read(0, query => '[{"tags": ["g0"]}]') WHERE type = 't1' AND position > 100;
SELECT q.tag, e.position FROM unnest('{course:c1,course:c2,no}'::text[]) AS q (tag) LEFT JOIN LATERAL es_read(0, 1, jsonb_build_array(jsonb_build_object('tags', jsonb_build_array(q.tag)))) AS e ON true;
SELECT (es_read(0, 2, '[{"tags": ["course:c1"]}]')).position;
SELECT (es_read(0, 2)).position;
SELECT (SELECT max(position) FROM es_read(0, 3, '[{"tags": ["course:c1"]}]')) AS third;
WITH e AS (SELECT * FROM es_read(0, 3, '[{"tags": ["course:c1"]}]')) SELECT array_agg(position) FROM e;
CREATE TABLE kept AS SELECT position, type FROM es_read(0, query => '[{"tags": ["course:c2"]}]');
UPDATE kept AS k SET type = 'was ' || e.type FROM es_read(0, query => '[{"tags": ["course:c2"]}]') AS e WHERE e.position = k.position RETURNING k.*;
DELETE FROM kept WHERE position IN (SELECT position FROM es_read(0, 1, '[{"tags": ["course:c2"]}]')) RETURNING *;
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT position FROM es_read(0, query => '[{"tags": ["course:c1"]}]');
FETCH 2 FROM c;
SELECT es_append('e-2', 'none', 'late', tags => '{course:c1}') IS NOT NULL AS appended;
FETCH ALL FROM c;
FETCH BACKWARD 1 FROM c;
SELECT count(*) FROM es_read(8, query => '[{"tags": ["course:c1"]}]');
ROLLBACK;
BEGIN READ ONLY;
SELECT count(*) FROM es_read(0, query => '[{"tags": ["course:c1"]}]');
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT count(*) FROM es_read(0, query => '[{"tags": ["course:c1"]}]');
COMMIT;
-- a null is no query, however it comes
SELECT count(*) = (SELECT count(*) FROM es_events) AS every_event FROM es_read(query => NULL);
PREPARE r (bigint, bigint, jsonb) AS SELECT count(*), min(position), max(position) FROM es_read($1, $2, $3);
SET plan_cache_mode = force_generic_plan;
EXECUTE r (0, NULL, NULL);
EXECUTE r (5, 10, NULL);
EXECUTE r (0, 0, NULL);
EXECUTE r (5, 10, '[{"tags": ["g0"]}]');
SET plan_cache_mode = force_custom_plan;
EXECUTE r (0, NULL, NULL);
EXECUTE r (5, 10, NULL);
EXECUTE r (0, 0, NULL);
EXECUTE r (5, 10, '[{"tags": ["g0"]}]');
RESET plan_cache_mode;

--
-- Rights
--
CREATE ROLE regress_es_reads;
GRANT SELECT ON items TO regress_es_reads;
SET ROLE regress_es_reads;
SELECT * FROM es_read(0, 1, '[{}]');
SELECT es_matching_positions('[{}]', 0, 1);
RESET ROLE;
SELECT es_grant('regress_es_reads', 'reader');
SET ROLE regress_es_reads;
SELECT found(0, NULL, '[{"tags": ["course:c1"]}]');
RESET ROLE;
ALTER TABLE es_events ENABLE ROW LEVEL SECURITY;
CREATE POLICY odd ON es_events FOR SELECT TO regress_es_reads USING (position % 2 = 1 AND type <> 'subscribed');
SET ROLE regress_es_reads;
SELECT found(0, NULL, '[{"tags": ["course:c1"]}]') AS every, found(0, 1, '[{"tags": ["course:c1"]}]') AS one, found(0, 3, '[{"types": ["defined", "registered", "noted", "t1"]}]') AS three, found(0, NULL, '[{"types": ["subscribed"]}]') AS hidden;
SELECT es_matching_positions('[{"tags": ["course:c1"]}]', 0, NULL), es_matching_positions('[{"types": ["subscribed"]}]', 0, NULL) AS hidden, es_matching_positions('[{"types": ["defined", "t1"]}]', 0, 3) AS three;
SELECT * FROM compared();
RESET ROLE;
-- the owner of a view reads by the rights of its reader, as es_read does
GRANT SELECT ON subscribed TO regress_es_reads;
SET ROLE regress_es_reads;
SELECT count(*) FROM subscribed;
RESET ROLE;

--
-- Plans and pages
--
CREATE FUNCTION plan(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$ BEGIN RETURN QUERY EXECUTE 'EXPLAIN (COSTS OFF) ' || query; END $$;
-- without a query nothing of it is in the plan
SELECT count(*) FILTER (WHERE p ~ 'match|ANY|CASE') AS of_a_query FROM plan('SELECT * FROM es_read(5, 10)') AS p;
-- with one it is a condition of the index on positions, also where it may be null
SELECT bool_or(p ~ 'Index Scan using es_events_pkey on es_events e') AS of_the_key, bool_or(p ~ 'Index Cond: .*"position" = ANY') AS by_condition, bool_or(p ~ 'Sort|Filter') AS sorts
  FROM plan($$ SELECT * FROM es_read(5, 10, '[{"tags": ["g0"]}]') $$) AS p;
SET plan_cache_mode = force_generic_plan;
SELECT bool_or(p ~ 'Index Cond: .*"position" = ANY') AS by_condition FROM plan('EXECUTE r (5, 10, NULL)') AS p;
RESET plan_cache_mode;
DEALLOCATE r;

-- tags and types that many, few, early and late events have
INSERT INTO es_import (stream, type, tags)
SELECT 'h-' || n % 50, CASE WHEN n % 9000 = 11 THEN 'seldom' ELSE 'often' END,
       '{all}'::text[] || CASE WHEN n % 2 = 0 THEN '{half}'::text[] END || CASE WHEN n % 5000 = 0 THEN '{rare}'::text[] END
       || CASE WHEN n <= 1000 THEN '{early}'::text[] END || CASE WHEN n > 29000 THEN '{late}'::text[] END
  FROM generate_series(1, 30000) AS n;
SELECT es_index_type('seldom');
CREATE FUNCTION pages(query text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE line text; total bigint; used boolean := false;
BEGIN
    EXECUTE query;
    FOR line IN EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF, SUMMARY OFF) ' || query LOOP
        total := coalesce(total, (SELECT sum(n[1]::bigint) FROM regexp_matches(substring(line FROM 'Buffers: shared (.*)'), '(?:hit|read)=(\d+)', 'g') AS n));
        used := used OR line ~ 'Index Scan using es_events_pkey|Bitmap Index Scan on es_events_pkey';
    END LOOP;
    RETURN CASE WHEN used THEN total ELSE -1 END;
END $$;
CREATE TABLE reads AS
SELECT * FROM (VALUES ('0, 10, ''[{"tags": ["rare"]}]''', 200), ('0, NULL, ''[{"tags": ["rare"]}]''', 200), ('0, 10, ''[{"tags": ["all"]}]''', 200), ('0, 10, ''[{"tags": ["late"]}]''', 200),
    ('20000, 10, ''[{"tags": ["early"]}]''', 100), ('20000, 10, ''[{"tags": ["all"]}]''', 200), ('0, 10, ''[{"tags": ["no"]}]''', 100), ('0, 10, ''[{"tags": ["rare", "half"]}]''', 300),
    ('0, NULL, ''[{"tags": ["all", "half", "rare"]}]''', 400), ('0, 10, ''[{"tags": ["early", "late"]}]''', 100), ('0, NULL, ''[{"tags": ["all", "no"]}]''', 100),
    ('0, 10, ''[{"tags": ["rare"]}, {"tags": ["late"]}]''', 300), ('0, NULL, ''[{"types": ["seldom"]}]''', 200), ('0, 10, ''[{"types": ["seldom"], "tags": ["late"]}]''', 1500),
    ('0, NULL, ''[{"types": ["seldom"]}, {"tags": ["rare"]}]''', 300), ('0, 10, ''[{"types": ["often"], "tags": ["all"]}]''', 200), ('25000, 10, ''[{}]''', 200)) AS r (arguments, most);
CREATE FUNCTION too_many() RETURNS TABLE (arguments text, pages bigint) LANGUAGE sql AS $$
    SELECT r.arguments, p.pages FROM reads AS r, LATERAL (SELECT pages(format('SELECT * FROM es_read(%s)', r.arguments)) AS pages) AS p WHERE p.pages NOT BETWEEN 1 AND r.most $$;
SELECT count(*) FROM reads;
-- without statistics, with them, and with those of an earlier log
SELECT * FROM too_many();
VACUUM ANALYZE es_events, es_tags;
SELECT * FROM too_many();
INSERT INTO es_import (stream, type, tags) SELECT 'l-' || n % 50, 'often', '{all,most}'::text[] FROM generate_series(1, 30000) AS n;
SELECT * FROM too_many();
SELECT pages($$ SELECT * FROM es_read(0, 10, '[{"tags": ["most", "half"]}]') $$) < 100 AS few, pages($$ SELECT * FROM es_read(31000, 10, '[{"tags": ["most"]}]') $$) < 200 AS page;
-- the entries of a tag are read from the index alone once they are vacuumed
SELECT pages($$ SELECT cardinality(es_matching_positions('[{"tags": ["half"]}]', 0, NULL)) FROM es_read(0, 1, '[{"tags": ["rare"]}]') $$) < 400 AS of_the_index;
-- for any query
SET plan_cache_mode = force_generic_plan;
PREPARE r (bigint, bigint, jsonb) AS SELECT * FROM es_read($1, $2, $3);
SELECT pages($$ EXECUTE r (0, 10, '[{"tags": ["rare"]}]') $$) < 200 AS rare, pages($$ EXECUTE r (0, 10, '[{"tags": ["most", "half"]}]') $$) < 100 AS none, pages($$ EXECUTE r (0, 10, NULL) $$) < 200 AS first_ten;
RESET plan_cache_mode;
-- under row security
GRANT SELECT ON reads TO regress_es_reads;
SET ROLE regress_es_reads;
SELECT count(*), count(*) FILTER (WHERE position % 2 = 0) AS hidden FROM es_read(0, 1500, '[{}]');
SELECT count(*), count(*) FILTER (WHERE position % 2 = 0) AS hidden FROM es_query('[{}]', 0, 1500);
SELECT array_agg(position ORDER BY position) = (SELECT array_agg(position ORDER BY position) FROM es_read() WHERE 'half' = ANY (tags)) AS same FROM es_read(query => '[{"tags": ["half"]}]');
-- nearly all are hidden
SELECT pages($$ SELECT * FROM es_read(0, 10, '[{"tags": ["late"]}]') $$) < 1000 AS few;
RESET ROLE;

--
-- What is refused
--
SELECT * FROM es_read(0, 1, '[]');
SELECT * FROM es_read(0, 1, '{}');
SELECT * FROM es_read(0, 1, 'null');
SELECT * FROM es_read(0, 1, '[{"tag": ["a"]}]');
SELECT * FROM es_read(0, 1, '[{"types": ["a"]}, {"tags": [""]}]');
SELECT * FROM es_read(0, 1, (SELECT jsonb_agg('{}'::jsonb) FROM generate_series(1, 65)));
-- the part that the planner replaces
SELECT es_by_query(1, NULL, NULL), es_by_query(1, '[{}]', '{1,2}'), es_by_query(3, '[{}]', '{1,2}'), es_by_query(1, '[{}]', '{}'), es_by_query(NULL, '[{}]', '{1}'), es_by_query(1, '[{}]', NULL);
SELECT v.position, es_by_query(v.position, v.query::jsonb, v.positions) FROM (VALUES (1::bigint, NULL, '{}'::bigint[]), (1, '[{}]', '{3,1}'), (2, '[{}]', '{3,NULL}'), (NULL, '[{}]', '{3}')) AS v (position, query, positions);

DROP EXTENSION eventstore CASCADE;
DROP TABLE items, reads, kept;
DROP FUNCTION found, plan, pages, too_many, compared;
DROP OWNED BY regress_es_reads;
DROP ROLE regress_es_reads;
