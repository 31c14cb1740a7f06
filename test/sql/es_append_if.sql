-- es_query and es_append_if: queries by types and tags, and appends under the condition
-- that nothing came since.
CREATE EXTENSION eventstore;
SET TimeZone = 'UTC';

--
-- What matches
--
SELECT version FROM es_append_batch('e-1', 'none', '[
    {"type": "defined", "tags": ["course:c1"]}, {"type": "defined", "tags": ["course:c2"]},
    {"type": "registered", "tags": ["student:s1"]}, {"type": "subscribed", "tags": ["course:c1", "student:s1"]},
    {"type": "subscribed", "tags": ["course:c2", "student:s1"]}, {"type": "noted"},
    {"type": "subscribed", "tags": ["course:c1", "student:s2"]}, {"type": "closed", "tags": ["course:c1"]}]');
CREATE FUNCTION found(query jsonb, after bigint DEFAULT 0, max_count bigint DEFAULT NULL, backward boolean DEFAULT false, before bigint DEFAULT NULL)
    RETURNS text LANGUAGE sql AS $$ SELECT coalesce(string_agg(position::text, ' '), 'none') FROM es_query(query, after, max_count, backward, before) $$;
SELECT q.query, found(q.query::jsonb), found(q.query::jsonb, 3) AS after_3, found(q.query::jsonb, 0, 2) AS two,
       found(q.query::jsonb, backward => true) AS backward, found(q.query::jsonb, 0, 1, true, 7) AS last_before_7
  FROM (VALUES ('[{}]'), ('[{"tags": ["course:c1"]}]'), ('[{"tags": ["student:s1", "course:c1"]}]'), ('[{"types": ["subscribed"]}]'),
               ('[{"types": ["subscribed", "noted"]}]'), ('[{"types": ["defined", "closed"], "tags": ["course:c1"]}]'),
               ('[{"tags": ["course:c2"]}, {"tags": ["student:s2"]}]'), ('[{"tags": ["course:c1"]}, {"types": ["subscribed"]}]'),
               ('[{"tags": ["course:c1"]}, {"tags": ["course:c1"]}]'), ('[{"tags": ["course:c1", "course:c2"]}]'), ('[{"tags": ["nobody"]}]'),
               ('[{"types": ["nothing"]}]'), ('[{"tags": ["course:c1", "nobody"]}, {"types": ["noted"]}]'),
               ('[{"tags": ["course:c1", "course:c1"]}]'), ('[{"tags": ["course:c"]}]'), ('[{"tags": ["COURSE:C1"]}]')) AS q (query);
-- the same for every query of two items: as SQL finds it
CREATE FUNCTION matches(query jsonb, e es_events) RETURNS boolean LANGUAGE sql AS $$
    SELECT EXISTS (SELECT FROM jsonb_array_elements(query) AS i
                    WHERE (NOT i ? 'types' OR i->'types' ? e.type)
                      AND (NOT i ? 'tags' OR coalesce(to_jsonb(e.tags), '[]') @> (i->'tags'))) $$;
INSERT INTO es_import (stream, type, tags)
SELECT 'r-' || n % 5, 't' || n * 7 % 4, (SELECT array_agg('g' || g) FROM generate_series(0, 5) AS g WHERE (n * 2654435761 >> (g + 3)) & 1 = 1)
  FROM generate_series(1, 600) AS n;
CREATE TABLE items AS
SELECT jsonb_strip_nulls(jsonb_build_object('types', t.types, 'tags', g.tags)) AS item
  FROM (VALUES (NULL::jsonb), ('["t1"]'), ('["t0", "t2"]'), ('["no"]')) AS t (types),
       (VALUES (NULL::jsonb), ('["g0"]'), ('["g1", "g2"]'), ('["g3", "g4", "g5"]'), ('["g0", "no"]')) AS g (tags);
SELECT count(*), count(*) FILTER (WHERE q.found IS DISTINCT FROM q.expected) AS wrong,
       count(*) FILTER (WHERE q.back IS DISTINCT FROM (SELECT array_agg(p ORDER BY p DESC) FROM unnest(q.expected) AS p)) AS wrong_backward
  FROM (SELECT (SELECT array_agg(position) FROM es_query(jsonb_build_array(a.item, b.item), 20)) AS found,
               (SELECT array_agg(position) FROM es_query(jsonb_build_array(a.item, b.item), 20, backward => true)) AS back,
               (SELECT array_agg(position ORDER BY position) FROM es_events AS e WHERE position > 20 AND matches(jsonb_build_array(a.item, b.item), e)) AS expected
          FROM items AS a, items AS b) AS q;

--
-- Conditions
--
CREATE FUNCTION append_if(events jsonb, query jsonb, after bigint DEFAULT 0) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    code text; message text; detail text; hint text;
    result record;
BEGIN
    SELECT * INTO result FROM es_append_if(events, query, after);
    RETURN (SELECT string_agg(format('%s %s %s', e.stream, e.version, e.type), ', ' ORDER BY e.position) FROM es_events AS e
             WHERE e.position BETWEEN result.first_position AND result.position);
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN format('%s: %s. %s %s', code, message, regexp_replace(detail, '(position )\d{2,}', '\1N', 'g'), hint);
END $$;
SELECT append_if('[{"type": "defined", "tags": ["course:c9"]}]', '[{"types": ["defined"], "tags": ["course:c9"]}]');
SELECT append_if('[{"type": "defined", "tags": ["course:c9"]}]', '[{"types": ["defined"], "tags": ["course:c9"]}]');
SELECT append_if('[{"type": "defined", "tags": ["course:c1"]}]', '[{"tags": ["course:c1"]}]');
SELECT append_if('[{"type": "defined", "tags": ["course:c1"]}]', '[{"tags": ["course:c1"]}]', 7);
SELECT append_if('[{"type": "reopened", "tags": ["course:c1"]}]', '[{"tags": ["course:c1"]}]', 8);
SELECT append_if('[{"type": "reopened", "tags": ["course:c1"]}]', '[{"tags": ["course:c1"]}]', 8);
-- several streams, and versions
SELECT append_if('[{"type": "a", "tags": ["z", "y"]}, {"type": "b", "stream": "s-1", "expected_version": "none"}, {"type": "c", "stream": "s-2"}, {"type": "d", "stream": "s-1"}]',
                 '[{"tags": ["y"]}]');
SELECT append_if('[{"type": "b", "stream": "s-1", "expected_version": 2}, {"type": "b", "stream": "s-2", "expected_version": 7}]', '[{"tags": ["unheard"]}]');
SELECT append_if('[{"type": "b", "stream": "s-1", "expected_version": 2}, {"type": "b", "stream": "s-2", "expected_version": 1}]', '[{"tags": ["unheard"]}]');
-- without tags: the last invoice number
SELECT append_if('[{"type": "invoiced", "stream": "invoice-1", "data": {"number": 1}}]', '[{"types": ["invoiced"]}]');
SELECT append_if('[{"type": "invoiced", "stream": "invoice-2", "data": {"number": 1}}]', '[{"types": ["invoiced"]}]');
SELECT append_if('[{"type": "invoiced", "stream": "invoice-2", "data": {"number": 2}}]', '[{"types": ["invoiced"]}]', position)
  FROM es_query('[{"types": ["invoiced"]}]', max_count => 1, backward => true);
SELECT data->'number' AS number FROM es_query('[{"types": ["invoiced"]}]', max_count => 1, backward => true);
SELECT append_if('[{"type": "last", "stream": "last-1"}]', '[{}]', (SELECT max(position) FROM es_events));
SELECT append_if('[{"type": "last", "stream": "last-1"}]', '[{}]', (SELECT max(position) - 1 FROM es_events));
SELECT append_if('[{"type": "last", "stream": "last-1"}]', '[{"tags": ["unheard"]}, {"types": ["last"]}]', 0);
-- many matches
SELECT append_if('[{"type": "a", "tags": ["g0"]}]', '[{"types": ["t0", "t1", "t2", "t3"]}, {}]');
-- of an item's tags the one is locked whose last event is the oldest
SELECT version FROM es_append('quiet-1', 'none', 'x', tags => '{tag:a,tag:z}');
SELECT version FROM es_append('quiet-1', 1, 'x', tags => '{tag:a}');
BEGIN;
SELECT version FROM es_append('quiet-1', 2, 'x', tags => '{tag:z}');
SELECT objid AS quiet FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND objsubid = 4 \gset
ROLLBACK;
BEGIN;
SELECT append_if('[{"type": "x", "stream": "quiet-2"}]', '[{"types": ["y"], "tags": ["tag:a", "tag:z"]}]');
SELECT mode, objid = :quiet AS of_the_quiet_tag FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND objsubid = 4;
ROLLBACK;
-- twice in one transaction: its own events count
BEGIN;
SELECT append_if('[{"type": "u", "tags": ["user:ann"]}]', '[{"tags": ["user:ann"]}]');
SELECT append_if('[{"type": "u", "tags": ["user:ann"]}]', '[{"tags": ["user:ann"]}]');
SAVEPOINT s;
SELECT append_if('[{"type": "u", "tags": ["user:bob"]}]', '[{"types": ["bob"]}]');
ROLLBACK TO s;
SELECT append_if('[{"type": "u", "tags": ["user:bob"]}]', '[{"tags": ["user:bob"]}]');
COMMIT;
SELECT count(*) FROM es_query('[{"tags": ["user:ann"]}, {"tags": ["user:bob"]}]');
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT found('[{"tags": ["user:ann"]}]') <> 'none' AS found;
SELECT append_if('[{"type": "u", "tags": ["user:eve"]}]', '[{"tags": ["user:eve"]}]');
COMMIT;

--
-- Retries
--
SELECT append_if('[{"type": "a", "id": "00000000-0000-4000-8000-000000000001", "tags": ["once"]}, {"type": "a", "stream": "once-2", "id": "00000000-0000-4000-8000-000000000002"}]', '[{"tags": ["once"]}]');
SELECT append_if('[{"type": "a", "id": "00000000-0000-4000-8000-000000000001", "tags": ["once"]}, {"type": "a", "stream": "once-2", "id": "00000000-0000-4000-8000-000000000002"}]', '[{"tags": ["once"]}]');
SELECT append_if('[{"type": "a", "id": "00000000-0000-4000-8000-000000000001", "tags": ["once"]}, {"type": "a", "stream": "once-3", "id": "00000000-0000-4000-8000-000000000003"}]', '[{"tags": ["twice"]}]');
SELECT append_if('[{"type": "a", "id": "00000000-0000-4000-8000-000000000001", "tags": ["once"]}, {"type": "a", "stream": "once-3"}]', '[{"tags": ["twice"]}]');
SELECT append_if('[{"type": "a", "id": "00000000-0000-4000-8000-000000000001", "tags": ["other"], "stream": "event-once"}]', '[{"tags": ["twice"]}]');
SELECT append_if('[{"type": "a", "id": "00000000-0000-4000-8000-000000000004", "stream": "i-1"}, {"type": "a", "id": "00000000-0000-4000-8000-000000000004", "stream": "i-2"}]', '[{"tags": ["twice"]}]');
SELECT count(*) FROM es_query('[{"tags": ["once"]}]');

--
-- What is refused
--
SELECT s.query, append_if('[{"type": "x", "stream": "x-1"}]', s.query::jsonb) AS said
  FROM (VALUES ('[]'), ('{}'), ('null'), ('1'), ('[1]'), ('[null]'), ('[[]]'), ('[{"tag": ["a"]}]'), ('[{"types": "a"}]'), ('[{"types": []}]'), ('[{"tags": []}]'),
               ('[{"tags": null}]'), ('[{"tags": [1]}]'), ('[{"tags": [null]}]'), ('[{"tags": [""]}]'), ('[{"types": [""]}]'), ('[{}, {"tags": ["a", ""]}]'),
               (format('[{"tags": ["%s"]}]', repeat('x', 256))), (format('[{"types": ["%s"]}]', repeat('x', 256)))) AS s (query)
 WHERE length(s.query) < 300;
SELECT append_if('[{"type": "x", "stream": "x-1"}]', (SELECT jsonb_agg('{}'::jsonb) FROM generate_series(1, 65)));
SELECT append_if('[{"type": "x", "stream": "x-1"}]', jsonb_build_array(jsonb_build_object('tags', (SELECT jsonb_agg(n::text) FROM generate_series(1, 65) AS n))));
SELECT append_if(e.events::jsonb, '[{"tags": ["none"]}]') AS said
  FROM (VALUES ('[]'), ('{}'), ('[{"type": "x"}]'), ('[{"type": "x", "stream": ""}]'), ('[{"type": "x", "stream": "es_x-1"}]'), ('[{"type": "es_x", "tags": ["a"]}]'),
               ('[{"type": "x", "stream": 1}]'), ('[{"type": "x", "tags": ["a"], "expected_version": 1.5}]'), ('[{"type": "x", "tags": ["a"], "expected_version": -1}]'),
               ('[{"type": "x", "tags": ["a"], "expected_version": "x"}]'), ('[{"type": "x", "tags": ["a"], "expected_version": []}]'), ('[{"tags": ["a"]}]')) AS e (events);
SELECT append_if((SELECT jsonb_agg('{"type": "x", "tags": ["a"]}'::jsonb) FROM generate_series(1, 1001)), '[{"tags": ["none"]}]');
SELECT append_if('[{"type": "x", "tags": ["x"]}]', '[{"tags": ["x"]}]', a.after) AS said FROM (VALUES (-1), (1000000), (NULL)) AS a (after);
SELECT append_if(NULL, '[{}]'), append_if('[{"type": "x", "tags": ["x"]}]', NULL);
SELECT * FROM es_query('[{}]', -1);
SELECT * FROM es_query('[{}]', 1000000);
SELECT * FROM es_query('[{}]', 0, -1);
SELECT * FROM es_query('[{}]', 0, 1, true, 0);
SELECT * FROM es_query('[{}]', 0, 0);
SELECT * FROM es_query(NULL);
SELECT * FROM es_query('[{}]', NULL);
BEGIN READ ONLY;
SELECT found('[{"tags": ["course:c2"]}]'), found('[{"types": ["noted"]}]');
SELECT es_append_if('[{"type": "x", "tags": ["x"]}]', '[{"tags": ["x"]}]');
ROLLBACK;
SELECT found('[{"types": ["x"]}, {"tags": ["x"]}]');

--
-- Rights
--
CREATE ROLE regress_es_if;
GRANT EXECUTE ON FUNCTION found, append_if TO regress_es_if;
SELECT es_grant('regress_es_if', 'writer');
SET ROLE regress_es_if;
SELECT * FROM es_query('[{}]');
SELECT es_append_if('[{"type": "x", "tags": ["x"]}]', '[{"tags": ["x"]}]');
RESET ROLE;
SELECT es_grant('regress_es_if', 'reader');
SET ROLE regress_es_if;
SELECT append_if('[{"type": "x", "tags": ["x"]}]', '[{"tags": ["x"]}]');
RESET ROLE;
ALTER TABLE es_events ENABLE ROW LEVEL SECURITY;
CREATE POLICY odd ON es_events FOR SELECT TO regress_es_if USING (position % 2 = 1);
SET ROLE regress_es_if;
SELECT found('[{"tags": ["course:c1"]}]'), found('[{"tags": ["course:c1"]}]', 0, 1), found('[{"tags": ["course:c1"]}]', 0, 2, true), found('[{}]', 0, 3), found('[{}]', 0, 3, true, 9);
SELECT count(*), count(*) FILTER (WHERE position % 2 = 0) AS hidden FROM es_query('[{}]');
SELECT es_append_if('[{"type": "x", "tags": ["x"]}]', '[{"tags": ["x"]}]', 1);
RESET ROLE;
DROP POLICY odd ON es_events;
ALTER TABLE es_events DISABLE ROW LEVEL SECURITY;
SELECT es_revoke('regress_es_if', kind) FROM unnest('{reader,writer}'::text[]) AS kind;
REVOKE EXECUTE ON FUNCTION found, append_if FROM regress_es_if;
DROP ROLE regress_es_if;

-- Upcast like every event
CREATE FUNCTION up(data jsonb) RETURNS jsonb LANGUAGE sql RETURN data || '{"up": true}';
SELECT es_define_upcaster('noted', 1, 'up(jsonb)');
SELECT data, metadata FROM es_query('[{"types": ["noted"]}]');
DROP FUNCTION found, matches, append_if;
DROP TABLE items;
DROP EXTENSION eventstore;
DROP FUNCTION up;
