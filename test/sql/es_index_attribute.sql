-- Indexes by attribute: the statements of doc/guide/query.md, that each uses its
-- index, and finds the same as without it; and that no index makes an append
-- fail.
CREATE EXTENSION eventstore;
CREATE FUNCTION set_indexes(used boolean) RETURNS void LANGUAGE sql AS $$
    SELECT set_config(name, CASE WHEN (name = 'enable_seqscan') = used THEN 'off' ELSE 'on' END, true)
      FROM unnest('{enable_seqscan,enable_indexscan,enable_indexonlyscan,enable_bitmapscan}'::text[]) name $$;

-- The indexes that a query uses where it can, (all) without a condition on them;
-- what it finds, if that is not much; and whether it is the same without indexes.
CREATE FUNCTION try(query text, OUT index text, OUT result text, OUT same boolean) LANGUAGE plpgsql AS $$
DECLARE line text; condition boolean := false; without text;
BEGIN
    PERFORM set_indexes(true);
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
        index := concat_ws(', ', nullif(index, ''), substring(line FROM 'Scan (?:Backward )?(?:using|on) "?(\w*_(?:idx|at|city|substring))'));
        condition := condition OR line ~ 'Index Cond';
    END LOOP;
    index := CASE WHEN index = '' THEN 'none' WHEN condition THEN index ELSE index || ' (all)' END;
    EXECUTE format('SELECT string_agg(q::text, '' '' ORDER BY q::text) FROM (%s) q', query) INTO result;
    PERFORM set_indexes(false);
    EXECUTE format('SELECT string_agg(q::text, '' '' ORDER BY q::text) FROM (%s) q', query) INTO without;
    same := result IS NOT DISTINCT FROM without;
    result := CASE WHEN length(result) > 200 THEN 'many' ELSE result END;
END $$;

SELECT es_append_batch('person-1', 'none', $$[
    {"type": "ate", "data": {"who": "Markus", "grams": 50, "tags": ["fruit", "red"], "place": {"city": "Zürich"}}},
    {"type": "ate", "data": {"who": "Ann", "grams": 9, "tags": ["fruit"]}},
    {"type": "ate", "data": {"who": "markus", "grams": 10, "tags": []}},
    {"type": "ate", "data": {"who": "Élodie", "grams": 10.0, "tags": [5, "red"]}},
    {"type": "ate", "data": {"who": "Mar%", "grams": -1e30, "tags": {"colour": "red"}}},
    {"type": "ate", "data": {"who": "Zoë", "grams": "50", "tags": "red"}},
    {"type": "ate", "data": {"who": "", "grams": true, "tags": 5}},
    {"type": "ate", "data": {"who": 7, "grams": {"x": 1}, "tags": ["Red"]}},
    {"type": "ate", "data": {"who": null, "grams": null, "tags": null}},
    {"type": "ate", "data": {"who": ["Markus"], "grams": [], "tags": [["red"]]}},
    {"type": "ate", "data": {}},
    {"type": "ate", "data": "Markus"},
    {"type": "ate", "data": ["who", "Markus"]},
    {"type": "drank", "data": {"who": "Markus", "grams": 50, "tags": ["red"]}}]$$);
-- enough that each index is worth it
INSERT INTO es_import (stream, type, data)
SELECT 'fill-' || i % 100, CASE WHEN i % 2 = 0 THEN 'ate' ELSE 'drank' END,
       jsonb_build_object('who', 'name' || i, 'grams', 1000 + i, 'tags', ARRAY['tag' || i, 'tag' || i / 100])
  FROM generate_series(1, 20000) i;

-- The type is defined for the indexes only: other values came before, and come after.
SELECT es_define_event_type('ate', attributes => '{"who": "s", "grams": "n", "tags": "array"}');
SELECT es_index_attribute('ate', 'who');
SELECT es_index_attribute('ate', 'grams');
SELECT es_index_attribute('ate', 'tags');
CREATE VIEW ate WITH (security_invoker) AS
SELECT position, stream, version, recorded_at, occurred_at, data,
       left(data->>'who', 500) COLLATE "C" AS who,      -- a text
       es_attribute(data, 'grams') AS grams,            -- a number, a boolean or anything, as jsonb
       data->'tags' AS tags                             -- an array or an object
  FROM es_events
 WHERE type = 'ate';
VACUUM ANALYZE es_events;

-- The operators.
SELECT * FROM try($$ SELECT position FROM ate WHERE who = 'Markus' $$);
SELECT * FROM try($$ SELECT position FROM ate WHERE grams = '50' $$);
SELECT * FROM try($$ SELECT position FROM ate WHERE grams = '10' $$);
SELECT * FROM try($$ SELECT position FROM ate WHERE who <> 'Markus' $$);
SELECT * FROM try($$ SELECT position FROM ate WHERE who IS DISTINCT FROM 'Markus' $$);
SELECT * FROM try($$ SELECT position FROM ate WHERE grams <> '50' $$);
SELECT * FROM try($$ SELECT position FROM ate WHERE who IN ('Ann', 'Markus') $$);
SELECT * FROM try($$ SELECT position FROM ate WHERE grams IN ('9', '10') $$);
SELECT * FROM try($$ SELECT position FROM ate WHERE who < 'Markus' $$);
SELECT * FROM try($$ SELECT position FROM ate WHERE who <= 'Markus' $$);
SELECT * FROM try($$ SELECT position FROM ate WHERE who > 'Markus' $$);
SELECT * FROM try($$ SELECT position FROM ate WHERE who >= 'Markus' $$);
SELECT * FROM try($$ SELECT position FROM ate WHERE grams <= '10' AND jsonb_typeof(grams) = 'number' $$);
SELECT * FROM try($$ SELECT position FROM ate WHERE grams < '10' AND jsonb_typeof(grams) = 'number' $$);
SELECT * FROM try($$ SELECT position FROM ate WHERE grams > '9' AND jsonb_typeof(grams) = 'number' $$);
SELECT * FROM try($$ SELECT position FROM ate WHERE grams >= '9' AND jsonb_typeof(grams) = 'number' $$);
SELECT * FROM try($$ SELECT position FROM ate WHERE grams > to_jsonb('9'::numeric) $$);
SELECT * FROM try($$ SELECT position FROM ate WHERE grams <= '10' $$);
SELECT * FROM try($$ SELECT position FROM ate WHERE who LIKE 'Mar%' $$);
SELECT * FROM try($$ SELECT position FROM ate WHERE who ^@ 'Mar' $$);
SELECT * FROM try($$ SELECT position FROM ate WHERE who LIKE 'Mar\%%' $$);
SELECT * FROM try($$ SELECT position FROM ate WHERE who ^@ 'Mar%' $$);
SELECT * FROM try($$ SELECT position FROM ate WHERE who ^@ 'É' $$);
SELECT * FROM try($$ SELECT position FROM ate WHERE tags ? 'red' $$);
SELECT * FROM try($$ SELECT position FROM ate WHERE tags @> '"red"' $$);
SELECT * FROM try($$ SELECT position FROM ate WHERE tags @> '["red", "fruit"]' $$);
SELECT * FROM try($$ SELECT position FROM ate WHERE tags @> '5' $$);
SELECT * FROM try($$ SELECT position FROM ate WHERE tags @> '{"colour": "red"}' $$);
SELECT * FROM try($$ SELECT position FROM ate WHERE NOT tags ? 'red' $$);
SELECT * FROM try($$ SELECT position FROM ate WHERE who NOT LIKE '%rku%' $$);
SELECT * FROM try($$ SELECT position FROM ate WHERE who IS NULL $$);
SELECT * FROM try($$ SELECT position FROM ate WHERE grams IS NULL $$);
SELECT * FROM try($$ SELECT position FROM ate WHERE grams = 'null' $$);
SELECT * FROM try($$ SELECT count(*) FROM ate WHERE who = 'Markus' $$);
SELECT * FROM try($$ SELECT position, who, grams FROM ate WHERE who = 'Markus' $$);
-- Without statistics the planner may take the log's own index, with them not.
CREATE STATISTICS ate_who ON (left(data->>'who', 500) COLLATE "C") FROM es_events;
ANALYZE es_events;
SELECT * FROM try($$
SELECT position, who FROM ate
 WHERE who = 'Markus' AND position > 0 AND position <= (SELECT es_horizon())
 ORDER BY position
$$);

-- A substring, an attribute of an attribute, times.
SET client_min_messages = warning;
CREATE EXTENSION pg_trgm;
RESET client_min_messages;
CREATE INDEX ate_who_substring ON es_events USING gin ((data->>'who') gin_trgm_ops) WHERE type = 'ate';
SELECT * FROM try($$ SELECT position FROM ate WHERE data->>'who' LIKE '%rku%' $$);
CREATE INDEX ate_city ON es_events (left(data#>>'{place,city}', 500) COLLATE "C") WHERE type = 'ate';
SELECT * FROM try($$ SELECT position FROM es_events WHERE type = 'ate' AND left(data#>>'{place,city}', 500) COLLATE "C" = 'Zürich' $$);
CREATE INDEX es_events_recorded_at ON es_events USING brin (recorded_at);
CREATE INDEX es_events_occurred_at ON es_events (occurred_at) WHERE occurred_at IS NOT NULL;
SELECT version FROM es_append('person-2', 'none', 'ate', occurred_at => '2026-01-31 23:59:59+00');
SET timezone = 'UTC';
SELECT index, same FROM try($$ SELECT position FROM es_events WHERE recorded_at >= '2026-01-01' AND recorded_at < '2026-02-01' $$);
SELECT * FROM try($$ SELECT position FROM es_events WHERE occurred_at >= '2026-01-01' AND occurred_at < '2026-02-01' $$);
RESET timezone;

-- By hand, while appends go on.
DROP INDEX es_events_ate__who_idx, es_events_ate__grams_idx, es_events_ate__tags_idx;
CREATE INDEX CONCURRENTLY es_events_ate__who_idx ON es_events (left(data->>'who', 500) COLLATE "C") WHERE type = 'ate';
CREATE INDEX CONCURRENTLY es_events_ate__grams_idx ON es_events (es_attribute(data, 'grams')) WHERE type = 'ate';
CREATE INDEX CONCURRENTLY es_events_ate__tags_idx ON es_events USING gin ((data->'tags')) WHERE type = 'ate';
SELECT n, es_index_attribute('ate', a) = ('es_events_ate__' || a || '_idx')::regclass AS same
  FROM unnest('{who, grams, tags}'::text[]) WITH ORDINALITY u(a, n);

-- No index makes an append fail. (The definition would.)
SELECT es_drop_event_type('ate');
CREATE FUNCTION noise(bytes int) RETURNS text LANGUAGE sql AS $$
    SELECT left(string_agg(md5(n::text), ''), bytes) FROM generate_series(1, bytes / 32 + 1) n $$;
CREATE TABLE wild (what text, value jsonb);
INSERT INTO wild VALUES ('3 kB', to_jsonb(noise(3000))), ('1 MB', to_jsonb(noise(1000000))),
    ('500 characters', to_jsonb((SELECT string_agg(chr(65536 + (n * 7919) % 60000), '') FROM generate_series(1, 500) n))),
    ('2000 characters', to_jsonb((SELECT string_agg(chr(65536 + (n * 7919) % 60000), '') FROM generate_series(1, 2000) n))),
    ('10000 digits', (SELECT string_agg((n * 7919 % 9973)::text, '')::jsonb FROM generate_series(1, 2600) n)),
    ('an array', (SELECT jsonb_agg(md5(n::text)) FROM generate_series(1, 5000) n)),
    ('nested', (repeat('[', 500) || repeat(']', 500))::jsonb),
    ('an object', (SELECT jsonb_object_agg(noise(100 + n % 500) || n, n) FROM generate_series(1, 1000) n));
SELECT what, (es_append('wild-1', 'any', 'ate', jsonb_build_object('who', value, 'grams', value, 'tags', value))).version FROM wild;
-- The longest that is found by its value: 2,048 bytes.
SELECT n, es_attribute(jsonb_build_object('a', repeat('x', n)), 'a') IS NULL AS "null" FROM unnest('{2036, 2037}'::int[]) n;
SELECT es_attribute('{"a": {"b": 1}}', 'a'), es_attribute('{"a": null}', 'a'), es_attribute('{"a": 1}', 'b') IS NULL AS none,
       es_attribute('["a"]', 'a') IS NULL AS of_array, es_attribute('"a"', 'a') IS NULL AS of_scalar, es_attribute('{"": 1}', '');
-- An attribute's first 500 characters decide.
SELECT count(*) FILTER (WHERE who = noise(500)) AS cut, count(*) FILTER (WHERE who = noise(3000)) AS whole FROM ate;
DROP INDEX es_events_ate__who_idx, es_events_ate__grams_idx, es_events_ate__tags_idx;
SELECT es_define_event_type('ate', attributes => '{"who": "s", "grams": "n", "tags": "array"}');
SELECT n, es_index_attribute('ate', a) FROM unnest('{who, grams, tags}'::text[]) WITH ORDINALITY u(a, n);

-- The planner takes an index by itself, where it is worth it.
VACUUM ANALYZE es_events;
CREATE FUNCTION index_of(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE line text; used text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
        used := coalesce(used, substring(line FROM 'Index (?:Only )?Scan (?:Backward )?(?:using|on) (\w+)'));
    END LOOP;
    RETURN used;
END $$;
SELECT index_of($$ SELECT * FROM ate WHERE who = 'name500' $$), index_of($$ SELECT * FROM ate WHERE who IN ('name500', 'name502') $$),
       index_of($$ SELECT * FROM ate WHERE who LIKE 'name50%' $$), index_of($$ SELECT * FROM ate WHERE who ^@ 'name500' $$);
SELECT index_of($$ SELECT * FROM ate WHERE who > 'name5000' AND who < 'name5010' $$), index_of($$ SELECT * FROM ate WHERE grams = '1500' $$),
       index_of($$ SELECT * FROM ate WHERE grams BETWEEN '1500' AND '1600' $$), index_of($$ SELECT * FROM ate WHERE grams > '20900' AND jsonb_typeof(grams) = 'number' $$);
SELECT index_of($$ SELECT * FROM ate WHERE tags ? 'tag50' $$), index_of($$ SELECT * FROM ate WHERE tags @> '["tag50"]' $$),
       index_of($$ SELECT * FROM ate WHERE who = 'name500' ORDER BY position LIMIT 1 $$);
SELECT count(*), min(grams::int), max(grams::int) FROM ate WHERE grams BETWEEN '1500' AND '1600';
SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = 'es_events'::regclass AND indpred IS NOT NULL ORDER BY 1;

-- The indexes for each kind of attribute.
UPDATE es_event_types SET attributes = '{"a": "string", "b": "number", "c": "b", "d": "boolean", "e": "any", "f": "object", "g": "uuid", "h": "timestamptz",
    "i": "integer", "j": "numeric", "k": "text[]", "l": "jsonb", "m": "Timestamp With Time Zone", "n": "character varying(20)", "o": "no_such_type", "p": null, "q": "es_events"}';
SELECT attribute, attributes->>attribute AS declared, substring(pg_get_indexdef(es_index_attribute('ate', attribute)) FROM 'USING (.*) WHERE') AS index
  FROM es_event_types, regexp_split_to_table('abcdefghijklmnopqr', '') attribute;

-- Names: one for each type and attribute, of at most 63 bytes.
SELECT es_index_attribute(type, attribute), octet_length((SELECT relname FROM pg_class WHERE oid = es_index_attribute(type, attribute))) AS bytes
  FROM (VALUES (1, 'a', 'b__c'), (2, 'a__b', 'c'), (3, 'a_', 'b'), (4, 'a', '_b'), (5, 'a_b', 'c'), (6, 'a', 'b_c'), (7, 'A', 'B'),
               (8, 'it''s "q" \ $$', '''"\ x'), (9, 'Größe', 'größer'), (10, repeat('t', 255), repeat('a', 255)), (11, repeat('t', 255), repeat('a', 254)),
               (12, repeat('é', 127), 'a'), (13, 'a' || repeat('é', 127), 'a'), (14, repeat('t', 25), repeat('a', 22)), (15, repeat('t', 25), repeat('a', 23))) v(n, type, attribute)
 ORDER BY n;
SELECT es_append('names-1', 'none', 'it''s "q" \ $$', '{"''\"\\ x": 3}');
SELECT * FROM try($q$ SELECT version FROM es_events WHERE type = 'it''s "q" \ $$' AND es_attribute(data, '''"\ x') = '3' $q$);
SET standard_conforming_strings = off;
SET escape_string_warning = off;
SELECT es_index_attribute('it''s "q" \\ $$', '''"\\ x');
RESET standard_conforming_strings;
RESET escape_string_warning;

-- Another relation has the name, the definition differs, or the index is invalid.
CREATE SEQUENCE es_events_z__a_idx;
SELECT es_index_attribute('z', 'a');
DROP SEQUENCE es_events_z__a_idx;
CREATE INDEX es_events_z__a_idx ON es_events ((data->'a')) WHERE type = 'z';
SELECT es_index_attribute('z', 'a');
DROP INDEX es_events_z__a_idx;
CREATE TABLE other (data jsonb, type text);
CREATE INDEX es_events_z__a_idx ON other (es_attribute(data, 'a')) WHERE type = 'z';
SELECT es_index_attribute('z', 'a');
DROP TABLE other;
SELECT es_index_attribute('z', 'a');
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'es_events_z__a_idx'::regclass;
SELECT es_index_attribute('z', 'a');
UPDATE es_event_types SET type = 'z', attributes = '{"a": "s"}';
SELECT es_index_attribute('z', 'a');

-- Refused.
SELECT es_index_attribute(NULL, 'a');
SELECT es_index_attribute('a', NULL);
SELECT es_index_attribute('', 'a');
SELECT es_index_attribute('a', '');
SELECT es_index_attribute(repeat('t', 256), 'a');
SELECT es_index_attribute('a', repeat('a', 256));
BEGIN READ ONLY;
SELECT es_index_attribute('ate', 'who');
ROLLBACK;

-- It runs as the owner of the log, for roles with EXECUTE.
CREATE ROLE es_test_indexer;
SET ROLE es_test_indexer;
SELECT es_index_attribute('ate', 'mine');
RESET ROLE;
GRANT EXECUTE ON FUNCTION es_index_attribute TO es_test_indexer;
SET ROLE es_test_indexer;
SELECT es_index_attribute('ate', 'mine');
RESET ROLE;
SELECT relowner = (SELECT relowner FROM pg_class WHERE relname = 'es_events') AS the_logs FROM pg_class WHERE relname = 'es_events_ate__mine_idx';

-- A rollback removes it; from a trigger of es_events it is refused.
BEGIN;
SELECT es_index_attribute('ate', 'gone');
ROLLBACK;
SELECT to_regclass('es_events_ate__gone_idx') IS NULL AS gone;
CREATE FUNCTION index_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM es_index_attribute('ate', 'inside'); RETURN NULL; END $$;
CREATE TRIGGER index_it AFTER INSERT ON es_events FOR EACH ROW EXECUTE FUNCTION index_it();
\set VERBOSITY terse
SELECT es_append('person-1', 'any', 'ate');
\set VERBOSITY default

DROP VIEW ate;
DROP EXTENSION pg_trgm CASCADE;
DROP EXTENSION eventstore;
DROP ROLE es_test_indexer;
DROP TABLE wild;
DROP FUNCTION set_indexes, try, index_of, noise, index_it;
