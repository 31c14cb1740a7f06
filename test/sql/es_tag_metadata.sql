-- eventstore.tag_metadata: tags that new events get from their metadata, in every form of
-- append, and what that means for limits, retries, conditions and queries.
CREATE EXTENSION eventstore;
SET TimeZone = 'UTC';
CREATE VIEW events AS SELECT stream, version, type, tags, metadata FROM es_events;
CREATE FUNCTION refused(statement text) RETURNS TABLE (code text, message text, detail text, hint text, context text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    code := 'none';
    RETURN NEXT;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
        hint = PG_EXCEPTION_HINT, context = PG_EXCEPTION_CONTEXT;
    context := regexp_replace(context, '\nSQL statement.*|^SQL statement.*|PL/pgSQL.*', '');
    RETURN NEXT;
END $$;

--
-- The setting
--
SELECT version FROM es_append('n-1', 'none', 'a', '{}', '{"correlation_id": "c1"}');
SELECT tags FROM events WHERE stream = 'n-1';
SET eventstore.tag_metadata = 'a,,b';
SET eventstore.tag_metadata = 'a, ""';
SET eventstore.tag_metadata = 'a b';
SELECT s.what, r.code, r.detail
  FROM (VALUES ('65 keys', (SELECT string_agg('k' || n, ',') FROM generate_series(1, 65) n)),
               ('254 bytes', repeat('ä', 127)),
               ('253 bytes', repeat('ä', 126) || 'x'),
               ('64 keys', (SELECT string_agg('k' || n, ',') FROM generate_series(1, 64) n)),
               ('quoted', '"a, b", ": c", "with ""quotes"""'),
               ('spaces', '  ')) AS s (what, value),
       refused(format('SELECT set_config(''eventstore.tag_metadata'', %L, false)', s.value)) AS r;
SELECT version FROM es_append('n-1', 1, 'a', '{}', '{"a": 1}');

-- It is of the database, for every session, until it is taken back
SELECT current_database() AS db \gset
ALTER DATABASE :"db" SET eventstore.tag_metadata = 'correlation_id, causation_id';
\c -
SET TimeZone = 'UTC';
SELECT version FROM es_append('n-2', 'none', 'a', '{}', '{"correlation_id": "c1", "causation_id": 7, "user": "u1"}');
SHOW eventstore.tag_metadata;
SET eventstore.tag_metadata = 'user';
SELECT version FROM es_append('n-2', 1, 'a', '{}', '{"correlation_id": "c1", "user": "u1"}');
BEGIN;
SET LOCAL eventstore.tag_metadata = '';
SELECT version FROM es_append('n-2', 2, 'a', '{}', '{"correlation_id": "c1", "user": "u1"}');
ROLLBACK;
SELECT version FROM es_append('n-2', 2, 'a', '{}', '{"correlation_id": "c1", "user": "u1"}');
RESET eventstore.tag_metadata;
SELECT version FROM es_append('n-2', 3, 'a', '{}', '{"correlation_id": "c1", "user": "u1"}');
SELECT version, tags FROM events WHERE stream = 'n-2' ORDER BY version;
ALTER DATABASE :"db" RESET eventstore.tag_metadata;

-- Superusers set it
CREATE ROLE es_test_writer;
SELECT es_grant('es_test_writer', 'writer');
SET ROLE es_test_writer;
SET eventstore.tag_metadata = 'user';
SELECT version FROM es_append('n-3', 'none', 'a', '{}', '{"correlation_id": "c3"}');
RESET ROLE;
-- also in a session that has not loaded the library yet
\c -
SET TimeZone = 'UTC';
SET ROLE es_test_writer;
SET eventstore.tag_metadata = 'user';
SELECT version FROM es_append('n-3', 1, 'a', '{}', '{"user": "u3"}');
RESET ROLE;
SELECT version, tags FROM events WHERE stream = 'n-3' ORDER BY version;

--
-- Forms of append
--
SET eventstore.tag_metadata = 'correlation_id, n';
SELECT version FROM es_append('t-1', 'none', 'a', '{}', '{"correlation_id": "c1", "n": 1.50}', tags => '{x,correlation_id:c1,a}');
SELECT version FROM es_append('t-1', 1, 'a', '{}', NULL, tags => '{x}');
SELECT version FROM es_append('t-1', 2, 'a', '{}', 'null');
SELECT version FROM es_append('t-1', 3, 'a', '{}', '{"correlation_id": null, "n": true}');
SELECT version FROM es_append('t-1', 4, 'a', '{}', '{"correlation_id": "", "n": {"n": 1}}');
SELECT version FROM es_append('t-1', 5, 'a', '{}', '{"correlation_id": ["c1"], "N": 1}');
SELECT version FROM es_append('t-1', 6, 'a', '{}', '{"correlation_id": " a:b,\"\n𝄞", "n": -1e3}');
SELECT version FROM es_append_batch('t-2', 'none', '[{"type": "a", "tags": ["z"], "metadata": {"correlation_id": "c2"}},
    {"type": "a"}, {"type": "a", "metadata": {"n": 0}}]');
SELECT version FROM es_append_batch('t-3', 'none', '{a,a,a}', '{"{}","{}","{}"}',
    ARRAY['{"correlation_id": "c3"}', NULL, '{"n": 3}']::jsonb[], tags => ARRAY['["z"]', '["z"]', NULL]::jsonb[]);
INSERT INTO es_import (stream, type, metadata, tags) VALUES ('t-4', 'a', '{"correlation_id": "c4"}', '{z}'), ('t-4', 'a', NULL, NULL), ('t-5', 'a', '{"n": 5}', NULL);
COPY es_import (stream, type, metadata) FROM STDIN;
t-5	a	{"correlation_id": "c5"}
\.
CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql
    RETURN '[{"type": "decided", "tags": ["z"]}, {"type": "decided", "metadata": {"n": 2, "correlation_id": "own"}}]'::jsonb;
SELECT version, events FROM es_execute('t-6', 'decide', '{"correlation_id": "of the command"}', 'es_merge');
SELECT version, events FROM es_execute('t-6', 'decide', '{}', 'es_merge', '{"correlation_id": "of the call"}');
CREATE FUNCTION decide_query(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql
    RETURN jsonb_build_array(jsonb_build_object('type', 'decided', 'stream', 't-11', 'data', state));
SELECT events, state FROM es_decide('[{"tags": ["correlation_id:c11"]}]', 'decide_query', '{"correlation_id": "c11"}', 'es_merge', initial => '{"a": 1}');
SELECT events, state FROM es_decide('[{"tags": ["correlation_id:c11"]}]', 'decide_query', '{}', 'es_merge', '{"correlation_id": "c12"}');
CREATE FUNCTION on_message(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql
    RETURN ROW('e', NULL, 'received', NULL, 't-7', 'none', '{z}')::es_ack_event;
SELECT es_receive('topic', 'group', '{}', 'on_message', '{"correlation_id": "c7"}');
SELECT first_position > 0 FROM es_append_if('[{"type": "a", "tags": ["z"], "metadata": {"correlation_id": "c8"}},
    {"type": "a", "stream": "t-8", "metadata": {"correlation_id": "c8"}}]', '[{"tags": ["correlation_id:c8"]}]');
SELECT stream, version, tags FROM events WHERE stream ~ '^(t-|event-)' ORDER BY stream, version;
-- no tag of metadata names a stream
SELECT * FROM refused($$ SELECT es_append_if('[{"type": "a", "metadata": {"correlation_id": "c9"}}]', '[{"tags": ["c9"]}]') $$);
-- entries are those of the tags
SELECT * FROM es_reindex_tags();

-- The schema version that a type gives is metadata, too
SET eventstore.tag_metadata = 'schema_version';
CREATE FUNCTION v2(data jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE RETURN data;
SELECT es_define_upcaster('v', 1, 'v2');
SELECT es_define_event_type('v', '{a}', schema_version => 2);
SELECT version FROM es_append('t-9', 'none', 'v', '{"a": 1}');
SELECT tags, metadata FROM events WHERE stream = 't-9';
SET eventstore.tag_metadata = 'correlation_id, n';

-- Rows that come otherwise keep what they have
INSERT INTO es_events (position, version, recorded_at, occurred_at, id, stream, type, data, metadata, tags)
    VALUES (nextval('es_position'), 1, now(), now(), es_uuid7(), 't-10', 'a', '{}', '{"correlation_id": "c10"}', '{z}');
SELECT tags FROM events WHERE stream = 't-10';

-- also with metadata that are no object
INSERT INTO es_events (position, version, recorded_at, occurred_at, id, stream, type, data, metadata, tags)
    SELECT nextval('es_position'), n, now(), now(), es_uuid5('6ba7b817-9dad-41d1-80b4-00c04fd430c8', n::text), 't-12', 'a', '{}', m, '{z}'
      FROM (VALUES (1, '["z"]'::jsonb), (2, '"z"'), (3, '[]'), (4, '[["a", "b"], {"z": "y"}, 7]')) AS v (n, m);
SELECT r.code, r.detail FROM generate_series(1, 4) AS n, refused(format($$ SELECT es_append('t-12', 'any', 'a', '{}', id => %L, tags => '{z:y}') $$,
    es_uuid5('6ba7b817-9dad-41d1-80b4-00c04fd430c8', n::text))) AS r;

-- and so do events whose metadata is rewritten
SELECT es_rewrite(id, '{}', '{"correlation_id": "other"}') > 0 FROM es_events WHERE stream = 't-2' AND version = 1;
SELECT tags FROM events WHERE stream = 't-2' AND version = 1;

--
-- Queries and conditions
--
SELECT stream, version FROM es_query('[{"tags": ["correlation_id:c8"]}]');
SELECT code FROM refused($$ SELECT es_append_if('[{"type": "a", "stream": "q-1", "metadata": {"correlation_id": "c8"}}]', '[{"tags": ["correlation_id:c8"]}]') $$);
-- their locks are taken, with those of other tags
BEGIN;
SELECT version FROM es_append('q-1', 'none', 'a', '{}', '{"correlation_id": "c1", "n": 1}', tags => '{x}');
SELECT objsubid, mode, count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() GROUP BY 1, 2 ORDER BY 1, 2;
ROLLBACK;

--
-- Limits
--
SELECT s.what, r.*
  FROM (VALUES ('long', $$ es_append('x-1', 'any', 'a', '{}', jsonb_build_object('correlation_id', repeat('ä', 121))) $$),
               ('long in a batch', $$ es_append_batch('x-1', 'any', jsonb_build_array('{"type": "a"}'::jsonb,
                    jsonb_build_object('type', 'a', 'metadata', jsonb_build_object('n', repeat('9', 300))))) $$),
               ('65 tags', $$ es_append('x-1', 'any', 'a', '{}', '{"n": 1}', tags => (SELECT array_agg(n::text) FROM generate_series(1, 64) n)) $$),
               ('64 tags', $$ es_append('x-2', 'any', 'a', '{}', '{"n": 1}', tags => (SELECT array_agg('n:' || n) FROM generate_series(1, 64) n)) $$),
               ('255 bytes', $$ es_append('x-3', 'any', 'a', '{}', jsonb_build_object('correlation_id', repeat('ä', 120))) $$)) AS s (what, call),
       refused('SELECT ' || s.call) AS r;
SELECT r.* FROM refused($$ INSERT INTO es_import (stream, type, metadata) VALUES ('x-1', 'a', '{}'), ('x-1', 'a', jsonb_build_object('n', repeat('9', 300))) $$) AS r;
SELECT stream, cardinality(tags), octet_length(tags[1]) FROM events WHERE stream LIKE 'x-%' ORDER BY stream;

--
-- Retries: tags that metadata makes do not count, whatever the setting is
--
CREATE FUNCTION again(setting text, tags text[], metadata jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('eventstore.tag_metadata', setting, true);
    RETURN (SELECT a.version FROM es_append('r-1', 'any', 'a', '{}', metadata, '6ba7b810-9dad-41d1-80b4-00c04fd430c8', tags => again.tags) AS a);
EXCEPTION WHEN SQLSTATE 'ES002' THEN
    RETURN 'ES002';
END $$;
CREATE TABLE attempts (n int, what text, setting text, tags text[], metadata jsonb);
INSERT INTO attempts VALUES
    (1, 'the same', 'id', '{x}', '{"id": "1", "k": "v"}'), (2, 'setting taken back', '', '{x}', '{"id": "1", "k": "v"}'),
    (3, 'other setting', 'k, id', '{x}', '{"id": "1", "k": "v"}'), (4, 'other id', 'id', '{x}', '{"id": "2", "k": "v"}'),
    (5, 'no metadata', 'id', '{x}', NULL), (6, 'read back', '', '{id:1,x}', NULL), (7, 'a tag too few', 'id', '{}', '{"id": "1"}'),
    (8, 'a tag more', 'id', '{x,y}', '{"id": "1"}'), (9, 'another tag', 'id', '{y}', '{"id": "1"}'),
    (10, 'a tag like a key', 'id', '{x,id:2}', '{"id": "1"}'), (11, 'tag of another key', 'id', '{x,"other:1"}', '{"id": "1"}');
SELECT again('id', '{x}', '{"id": "1", "k": "v"}');
SELECT n, what, again(setting, tags, metadata) FROM attempts ORDER BY n;
SELECT version, tags FROM events WHERE stream = 'r-1';
-- the first time without the setting
CREATE FUNCTION fresh(setting text, tags text[], metadata jsonb) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('eventstore.tag_metadata', setting, true);
    RETURN (SELECT a.version FROM es_append('r-2', 'any', 'a', '{}', metadata, '6ba7b811-9dad-41d1-80b4-00c04fd430c8', tags => fresh.tags) AS a);
END $$;
SELECT fresh('', '{x}', '{"a:b": "c:d", "n": 1.0}');
SELECT fresh('"a:b", n', '{x}', '{"a:b": "c:d", "n": 1.0}');
SELECT fresh('"a:b", n', '{x}', '{"a:b": "e", "n": 2}');
SELECT tags FROM events WHERE stream = 'r-2';
\set SHOW_CONTEXT never
SELECT fresh('', NULL, NULL);
\set SHOW_CONTEXT errors
-- batches, imports, conditional appends and commands
SET eventstore.tag_metadata = '';
CREATE FUNCTION batch(metadata jsonb) RETURNS bigint LANGUAGE sql AS $$
    SELECT version FROM es_append_batch('r-3', 'any', jsonb_build_array(
        jsonb_build_object('type', 'a', 'id', '6ba7b812-9dad-41d1-80b4-00c04fd430c8', 'metadata', metadata),
        jsonb_build_object('type', 'b', 'metadata', metadata))) $$;
CREATE FUNCTION row_of(metadata jsonb) RETURNS void LANGUAGE sql AS $$
    INSERT INTO es_import (stream, type, id, metadata) VALUES ('r-4', 'a', '6ba7b813-9dad-41d1-80b4-00c04fd430c8', metadata),
        ('r-4', 'a', '6ba7b813-9dad-41d1-80b4-00c04fd430c8', metadata || '{"n": 9}') $$;
CREATE FUNCTION whole(metadata jsonb) RETURNS boolean LANGUAGE sql AS $$
    SELECT first_position > 0 FROM es_append_if(jsonb_build_array(
        jsonb_build_object('type', 'a', 'id', '6ba7b814-9dad-41d1-80b4-00c04fd430c8', 'metadata', metadata, 'tags', '["r5"]'::jsonb)),
        '[{"tags": ["r5"]}]') $$;
SELECT batch('{"n": 1}'), row_of('{"n": 1}'), whole('{"n": 1}');
SET eventstore.tag_metadata = 'n';
SELECT batch('{"n": 1}'), row_of('{"n": 1}'), whole('{"n": 1}');
SELECT batch('{"n": 2}'), row_of('{"n": 2}'), whole('{"n": 2}');
SELECT version, events FROM es_execute('r-6', 'decide', '{}', 'es_merge', '{"command_id": "6ba7b815-9dad-41d1-80b4-00c04fd430c8"}');
SET eventstore.tag_metadata = 'n, command_id';
SELECT version, events FROM es_execute('r-6', 'decide', '{}', 'es_merge', '{"command_id": "6ba7b815-9dad-41d1-80b4-00c04fd430c8"}');
SELECT version, events FROM es_execute('r-6', 'decide', '{}', 'es_merge', '{"command_id": "6ba7b816-9dad-41d1-80b4-00c04fd430c8"}');
SELECT stream, version, tags FROM events WHERE stream ~ '^r-[3-6]' OR stream = 'event-r5' ORDER BY stream, version;

DROP FUNCTION decide, decide_query, on_message, again, fresh, batch, row_of, whole, v2, refused;
DROP TABLE attempts;
DROP VIEW events;
SELECT es_revoke('es_test_writer', 'writer');
DROP EXTENSION eventstore;
DROP ROLE es_test_writer;
