-- es_index_type: an index on the positions of the events of a type, which queries by types use.
SET client_min_messages = warning;
CREATE EXTENSION eventstore;
ALTER TABLE es_events SET (autovacuum_enabled = off);

--
-- The index
--
SELECT es_index_type('placed'), es_index_type('placed') AS again;
SELECT pg_get_indexdef('es_events_type_placed_idx'::regclass);
-- one for each type, of at most 63 bytes; none is that of an attribute, or of the extension
SELECT n, es_index_type(type), octet_length((SELECT relname FROM pg_class WHERE oid = es_index_type(type))) AS bytes
  FROM (VALUES (1, 'category_position'), (2, 'Odd "type" \ it''s'), (3, 'a__b'), (4, 'a_'), (5, 'Größe'), (6, repeat('t', 43)), (7, repeat('t', 44)), (8, repeat('t', 45)),
               (9, repeat('t', 255)), (10, repeat('é', 127)), (11, 'key'), (12, 'A'), (13, 'a')) AS v (n, type)
 ORDER BY n;
SELECT count(DISTINCT indexrelid), bool_and(indisvalid) AS valid FROM pg_index WHERE indrelid = 'es_events'::regclass AND indpred IS NOT NULL;
SET standard_conforming_strings = off;
SET escape_string_warning = off;
SELECT es_index_type('Odd "type" \\ it''s');
RESET standard_conforming_strings;
RESET escape_string_warning;
-- another relation has the name, the definition differs, or the index is invalid
CREATE SEQUENCE es_events_type_z_idx;
SELECT es_index_type('z');
DROP SEQUENCE es_events_type_z_idx;
CREATE INDEX es_events_type_z_idx ON es_events (position DESC) WHERE type = 'z';
SELECT es_index_type('z');
DROP INDEX es_events_type_z_idx;
SELECT es_index_type('z');
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'es_events_type_z_idx'::regclass;
SELECT es_index_type('z');
DROP INDEX es_events_type_z_idx;
-- made by hand
CREATE INDEX es_events_type_z_idx ON es_events (position) WHERE type = 'z';
SELECT es_index_type('z');

--
-- What is refused, and who may
--
SELECT es_index_type(NULL);
SELECT es_index_type('');
SELECT es_index_type(repeat('t', 256));
BEGIN READ ONLY;
SELECT es_index_type('placed');
ROLLBACK;
CREATE ROLE regress_es_indexer;
SET ROLE regress_es_indexer;
SELECT es_index_type('mine');
RESET ROLE;
SELECT es_grant('regress_es_indexer', 'operator');
SET ROLE regress_es_indexer;
SELECT es_index_type('mine');
RESET ROLE;
SELECT relowner = (SELECT relowner FROM pg_class WHERE oid = 'es_events'::regclass) AS the_logs FROM pg_class WHERE relname = 'es_events_type_mine_idx';
BEGIN;
SELECT es_index_type('gone');
ROLLBACK;
SELECT to_regclass('es_events_type_gone_idx') IS NULL AS gone;
CREATE FUNCTION index_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM es_index_type('inside'); RETURN NULL; END $$;
CREATE TRIGGER index_it AFTER INSERT ON es_events FOR EACH ROW EXECUTE FUNCTION index_it();
\set VERBOSITY terse
SELECT es_append('a-1', 'any', 'a');
\set VERBOSITY default
DROP TRIGGER index_it ON es_events;
DO $$
DECLARE i regclass;
BEGIN
    FOR i IN SELECT indexrelid FROM pg_index WHERE indrelid = 'es_events'::regclass AND indpred IS NOT NULL LOOP
        EXECUTE format('DROP INDEX %s', i);
    END LOOP;
END $$;

--
-- Queries by types find the same with every set of indexes
--
INSERT INTO es_import (stream, type, tags)
SELECT 's-' || n % 9, CASE WHEN n % 5000 = 7 THEN 'rare' WHEN n % 700 = 3 THEN 'seldom' WHEN n <= 100 THEN 'early' WHEN n > 29900 THEN 'late' WHEN n % 3 = 0 THEN 'third' ELSE 'often' END,
       CASE WHEN n % 400 = 3 THEN '{t}'::text[] END
  FROM generate_series(1, 30000) AS n;
CREATE TABLE queries AS
SELECT query::jsonb FROM unnest(ARRAY['[{"types": ["rare"]}]', '[{"types": ["rare", "seldom"]}]', '[{"types": ["early", "late"]}]', '[{"types": ["third"]}]', '[{"types": ["rare", "no"]}]', '[{"types": ["rare", "rare"]}]',
    '[{"types": ["no"]}]', '[{"types": ["rare"]}, {"types": ["seldom", "early"]}]', '[{"types": ["rare"]}, {"tags": ["t"]}]', '[{"types": ["third", "seldom"], "tags": ["t"]}, {"types": ["rare"]}]',
    '[{"types": ["late"]}, {"types": ["late"]}]']) AS query;
CREATE FUNCTION matches(query jsonb, e es_events) RETURNS boolean LANGUAGE sql AS $$
    SELECT EXISTS (SELECT FROM jsonb_array_elements(query) AS i
                    WHERE (NOT i ? 'types' OR i->'types' ? e.type)
                      AND (NOT i ? 'tags' OR coalesce(to_jsonb(e.tags), '[]') @> (i->'tags'))) $$;
CREATE TABLE expected AS
SELECT query, after, (SELECT array_agg(position ORDER BY position) FROM es_events AS e WHERE position > after AND matches(query, e)) AS positions
  FROM queries, unnest('{0, 13, 15000, 29950, 30001}'::bigint[]) AS after;
CREATE FUNCTION wrong() RETURNS TABLE (query jsonb, after bigint) LANGUAGE sql AS $$
    SELECT x.query, x.after FROM expected AS x
     WHERE x.positions IS DISTINCT FROM (SELECT array_agg(e.position) FROM es_query(x.query, x.after) AS e)
        OR x.positions IS DISTINCT FROM (SELECT array_agg(e.position) FROM es_read(x.after, query => x.query) AS e)
        OR (SELECT array_agg(p ORDER BY p DESC) FROM unnest(x.positions) AS p) IS DISTINCT FROM (SELECT array_agg(e.position) FROM es_query(x.query, x.after, backward => true) AS e)
        OR x.positions[1:3] IS DISTINCT FROM coalesce((SELECT array_agg(e.position) FROM es_read(x.after, 3, x.query) AS e), x.positions[1:3]) $$;
SELECT count(*), count(positions) AS some FROM expected;
SELECT * FROM wrong();
SELECT es_index_type('rare');
SELECT * FROM wrong();
SELECT es_index_type(type) FROM unnest('{seldom,early,no}'::text[]) AS type;
SELECT * FROM wrong();
SELECT es_index_type(type) FROM unnest('{late,third,often}'::text[]) AS type;
SELECT * FROM wrong();
VACUUM ANALYZE es_events, es_tags;
SELECT * FROM wrong();

--
-- They are used
--
CREATE FUNCTION pages(query text, warm boolean DEFAULT true) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE line text; total bigint;
BEGIN
    IF warm THEN
        EXECUTE query;
    END IF;
    FOR line IN EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF, SUMMARY OFF) ' || query LOOP
        total := coalesce(total, (SELECT sum(n[1]::bigint) FROM regexp_matches(substring(line FROM 'Buffers: shared (.*)'), '(?:hit|read)=(\d+)', 'g') AS n));
    END LOOP;
    RETURN total;
END $$;
SELECT query, pages(format('SELECT * FROM es_query(%L)', query)) < 300 AS few, pages(format('SELECT * FROM es_query(%L, max_count => 1, backward => true)', query)) < 30 AS last_in_few
  FROM (VALUES ('[{"types": ["rare"]}]'), ('[{"types": ["rare", "no"]}]'), ('[{"types": ["rare"]}, {"types": ["no"]}]'), ('[{"tags": ["t"], "types": ["seldom"]}]')) AS q (query);
-- the last event is looked up, and not the one before it, which is far
SELECT es_append('s-1', 'any', 'twice') IS NOT NULL AS appended FROM generate_series(1, 2);
SELECT pages($$ SELECT * FROM es_query('[{"types": ["early"]}]', max_count => 1, backward => true) $$) < 30 AS with_index,
       pages($$ SELECT * FROM es_query('[{"types": ["twice"]}]', max_count => 1, backward => true) $$) < 30 AS at_the_end,
       pages($$ SELECT * FROM es_query('[{"types": ["twice"]}]', max_count => 3, backward => true) $$) > 300 AS and_all;
DROP INDEX es_events_type_rare_idx;
SELECT pages($$ SELECT * FROM es_query('[{"types": ["rare"]}]') $$) > 300 AS all_of_the_log;
-- by its definition: one by hand, whatever else it has
CREATE INDEX mine ON es_events (position) INCLUDE (stream) WHERE 'rare' = type;
SELECT pages($$ SELECT * FROM es_query('[{"types": ["rare"]}]') $$) > 300 AS written_in_another_way;
DROP INDEX mine;
CREATE INDEX mine ON es_events (position) INCLUDE (stream) WHERE type = 'rare';
SELECT pages($$ SELECT * FROM es_query('[{"types": ["rare"]}]') $$) < 60 AS mine;
SELECT * FROM wrong();
-- not others: of another order, on other columns, of fewer events, on another column's value, invalid
DROP INDEX mine;
CREATE INDEX descending ON es_events (position DESC) WHERE type = 'rare';
CREATE INDEX versions ON es_events (version) WHERE type = 'rare';
CREATE INDEX two ON es_events (position, version) WHERE type = 'rare';
CREATE INDEX fewer ON es_events (position) WHERE type = 'rare' AND position > 10000;
CREATE INDEX of_stream ON es_events (position) WHERE stream = 'rare';
CREATE INDEX others ON es_events (position) WHERE type <> 'rare';
CREATE INDEX hashed ON es_events USING hash (position) WHERE type = 'rare';
CREATE INDEX invalid ON es_events (position) WHERE type = 'rare';
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'invalid'::regclass;
SELECT pages($$ SELECT * FROM es_query('[{"types": ["rare"]}]') $$) > 300 AS all_of_the_log;
SELECT * FROM wrong();
DROP INDEX descending, versions, two, fewer, of_stream, others, hashed, invalid;

-- A condition without tags looks at the index, too.
SELECT es_index_type('rare');
SELECT pages($$ SELECT es_append_if('[{"type": "rare", "stream": "s-1"}]', '[{"types": ["rare"]}]', 25008) $$, false) < 300 AS few;

DROP EXTENSION eventstore CASCADE;
DROP TABLE queries, expected;
DROP FUNCTION pages, wrong, index_it;
DROP OWNED BY regress_es_indexer;
DROP ROLE regress_es_indexer;
