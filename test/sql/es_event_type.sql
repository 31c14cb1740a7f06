-- Types of events that are defined: what is checked, which ids are made, when
-- a definition applies.
CREATE EXTENSION eventstore;

-- No type is defined: anything is appended.
SELECT version FROM es_append('free-1', 'none', 'free', '[1, 2]', '{"schema_version": "x"}');

--
-- Ids from a composite key (the same vectors as in ids.sql)
--
SELECT es_define_event_type('ate', composite_key => '{location, employee_name, employee_action}', description => 'somebody ate something');
SELECT * FROM es_append('garden-1', 'any', 'ate', '{"location": "gardens", "employee_name": "Markus", "employee_action": "ate grapes"}');
SELECT id = es_digest('ate', data, '{location, employee_name, employee_action}') AS by_digest, id
  FROM es_load('garden-1');
-- Storing the key again returns the first event, whatever the rest of the data, and whatever is expected.
SELECT * FROM es_append('garden-1', 'none', 'ate', '{"location": "gardens", "employee_name": "Markus", "employee_action": "ate grapes", "more": 1}');
SELECT es_stream_version('garden-1');
-- The same string, another event: ids do not collide.
SELECT version FROM es_append('garden-1', 1, 'ate', '{"location": "x:employee_name=y", "employee_name": "z", "employee_action": "a"}');
SELECT version FROM es_append('garden-1', 2, 'ate', '{"location": "x", "employee_name": "y:employee_name=z", "employee_action": "a"}');
-- Without a key the id is random; the caller's id takes precedence over the key.
SELECT es_define_event_type('seen');
SELECT version FROM es_append('garden-1', 3, 'seen', '{"location": "x"}'), generate_series(1, 2);
SELECT version FROM es_append('garden-1', 3, 'seen', '{"location": "x"}');
SELECT version FROM es_append('garden-1', 4, 'seen', '{"location": "x"}');
SELECT count(DISTINCT id), bool_and(substr(id::text, 15, 1) = '7') AS version_7 FROM es_load('garden-1', 3);
SELECT version FROM es_append('garden-2', 'any', 'ate', '{"location": "l", "employee_name": "n", "employee_action": "a"}', id => '00000000-0000-0000-0000-000000000001');
SELECT version, id FROM es_load('garden-2');
-- In another stream the same key is another event's id.
SELECT es_append('garden-3', 'any', 'ate', '{"location": "gardens", "employee_name": "Markus", "employee_action": "ate grapes"}');
-- Batches of objects and of arrays; those with an id, too.
SELECT * FROM es_append_batch('garden-4', 'none', '[{"type": "ate", "data": {"location": 1, "employee_name": true, "employee_action": "a"}}, {"type": "seen"},
    {"type": "ate", "data": {"location": 2, "employee_name": true, "employee_action": "a"}}]');
SELECT * FROM es_append_batch('garden-4', 'none', '[{"type": "ate", "data": {"location": 1, "employee_name": true, "employee_action": "a"}}, {"type": "seen"},
    {"type": "ate", "data": {"location": 2, "employee_name": true, "employee_action": "a"}}]');
SELECT * FROM es_append_batch('garden-5', 'none', '{ate, ate}', ARRAY['{"location": 3, "employee_name": 1, "employee_action": 1}', '{"location": 4, "employee_name": 1, "employee_action": 1}']::jsonb[]);
SELECT * FROM es_append_batch('garden-5', 'none', '{ate, ate}', ARRAY['{"location": 3, "employee_name": 1, "employee_action": 1}', '{"location": 4, "employee_name": 1, "employee_action": 1}']::jsonb[]);
SELECT es_append_batch('garden-5', 'any', '{ate, ate}', ARRAY['{"location": 5, "employee_name": 1, "employee_action": 1}', '{"location": 5, "employee_name": 1, "employee_action": 1}']::jsonb[]);
SELECT es_append_batch('garden-5', 'any', '{ate, ate}', ARRAY['{"location": 4, "employee_name": 1, "employee_action": 1}', '{"location": 6, "employee_name": 1, "employee_action": 1}']::jsonb[]);
-- An import skips what is stored, and what it has twice.
INSERT INTO es_import (stream, type, data) SELECT 'garden-6', 'ate', jsonb_build_object('location', i / 2, 'employee_name', 'n', 'employee_action', 'a') FROM generate_series(0, 5) i;
INSERT INTO es_import (stream, type, data) SELECT 'garden-6', 'ate', jsonb_build_object('location', i, 'employee_name', 'n', 'employee_action', 'a') FROM generate_series(0, 3) i;
SELECT array_agg(data->>'location' ORDER BY version) FROM es_load('garden-6');
-- Without the whole key there is no id.
SELECT es_append('garden-7', 'any', 'ate', '{"location": null, "employee_name": {"first": "Ann"}}');
SELECT es_append('garden-7', 'any', 'ate', '{"location": null, "employee_name": ["Ann"]}', id => '00000000-0000-0000-0000-000000000002');
SELECT es_append_batch('garden-7', 'any', '[{"type": "seen"}, {"type": "ate", "data": {"location": 1, "employee_action": 1}}, {"type": "ate"}]');

--
-- Violations
--
SELECT es_define_event_type('all', '{s, n}', attributes => '{"s": "string", "n": "number", "b": "boolean", "i": "integer", "o": "object", "a": "array", "x": "any",
    "u": "uuid", "t": "timestamptz", "d": "date", "v": "interval", "m": "numeric", "p": "inet", "e": "text", "int": "int4"}');
SELECT version FROM es_append('all-1', 'none', 'all', '{"s": "", "n": -1.5e3, "b": false, "i": 5.0, "o": {}, "a": [], "x": [null],
    "u": "00000000-0000-0000-0000-000000000001", "t": "2026-01-01T00:00:00Z", "d": "2026-01-01", "v": "P1D", "m": "1.5", "p": "::1", "e": true, "int": 7, "other": 1}');
-- Null is allowed for an attribute that is not required.
SELECT version FROM es_append('all-1', 1, 'all', '{"s": "a", "n": 1, "b": null, "i": null, "o": null, "u": null, "t": null}');
-- All is listed.
SELECT es_append('all-1', 2, 'all', '{"s": 1, "b": "true", "i": 1.5, "o": [], "a": {}, "u": "x", "t": "noon", "d": "2026-02-30", "v": {}, "m": "1,5", "p": [1], "int": 1.5}');
SELECT es_append('all-1', 2, 'all', '{"s": true, "n": "1", "b": 0, "i": "1", "o": "{}", "a": null, "int": 3000000000}');
SELECT es_append('all-1', 2, 'all', '{"s": null, "n": null, "x": null}');
SELECT es_append('all-1', 2, 'all', '[{"s": "", "n": 1}]'), 1;
SELECT es_append('all-1', 2, 'all', '"s"');
-- What is expected comes first.
SELECT es_append('all-1', 7, 'all', '{}');
-- A batch names its events; nothing of it is stored.
SELECT es_append_batch('all-2', 'none', '[{"type": "all", "data": {"s": "", "n": 1}}, {"type": "free"}, {"type": "all", "data": {"n": 1}},
    {"type": "all", "data": 1}, {"type": "all", "data": {"s": "", "n": 1, "u": "no", "t": "2026-01-01"}}, {"type": "all", "data": {"s": "", "n": 1, "t": "no"}}]');
SELECT es_append_batch('all-2', 'none', '{all, free}', '{"{\"s\": 1}", "[]"}');
SELECT es_stream_version('all-2');
-- At most 100 lines.
SELECT es_append_batch('all-2', 'none', (SELECT jsonb_agg('{"type": "all", "data": {"s": "", "n": 1, "u": "no"}}'::jsonb) FROM generate_series(1, 2)));
CREATE FUNCTION detail_of(query text) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE detail text;
BEGIN
    EXECUTE query;
    RETURN NULL;
EXCEPTION WHEN SQLSTATE 'ES004' THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
    RETURN string_to_array(detail, E'\n');
END $$;
SELECT d[1], d[99:] FROM detail_of($$ SELECT es_append_batch('all-2', 'none', (SELECT jsonb_agg('{"type": "all"}'::jsonb) FROM generate_series(1, 60))) $$) d;
SELECT d[1], d[100:] FROM detail_of($$ SELECT es_append_batch('all-2', 'none', (SELECT jsonb_agg('{"type": "all"}'::jsonb) FROM generate_series(1, 50))) $$) d;
-- Values of many events are tried together; those that are wrong are found wherever they are.
SELECT unnest(detail_of($$ SELECT es_append_batch('all-2', 'none', (SELECT jsonb_agg(jsonb_build_object('type', 'all', 'data', jsonb_build_object('s', '', 'n', 1,
    'd', CASE WHEN i IN (2, 1000, 1001, 2500) THEN 'no' ELSE '2026-01-01' END)) ORDER BY i) FROM generate_series(1, 2500) i)) $$));
-- A long value is not repeated at length.
SELECT length(d[1]) < 300 AS short FROM detail_of($$ SELECT es_append('all-2', 'none', 'all', jsonb_build_object('s', '', 'n', 1, 'u', repeat('ö', 10000))) $$) d;
-- An import.
INSERT INTO es_import (stream, type, data) VALUES ('all-3', 'free', '1'), ('all-4', 'all', '{"s": ""}'), ('all-5', 'all', '{"n": 1, "s": "", "u": 5}');
INSERT INTO es_import (stream, type, data) VALUES ('all-4', 'all', '{"s": ""}');
SELECT count(*) FROM es_read_category('all') WHERE stream <> 'all-1';
-- None of them has drawn a position.
SELECT count(*) = max(position) AS no_gaps FROM es_events;

-- A type's name is quoted in messages.
SELECT es_define_event_type('it''s', '{a}');
SELECT es_append('all-2', 'none', 'it''s', '{}');
SELECT es_drop_event_type('it''s');

--
-- Schema versions
--
SELECT es_define_event_type('named', '{name}', schema_version => 2);
SELECT version FROM es_append('v-1', 'none', 'named', '{"name": 1}');
SELECT version FROM es_append('v-1', 'any', 'named', '{"name": 1}', '{"user": "ann"}');
SELECT version FROM es_append('v-1', 'any', 'named', '{"name": 1}', '{"schema_version": null}');
SELECT version FROM es_append('v-1', 'any', 'named', '{"name": 1}', '{"schema_version": 2}');
SELECT version FROM es_append('v-1', 'any', 'named', '{"name": 1}', '{"schema_version": 1}');
SELECT version FROM es_append('v-1', 'any', 'free', '{"name": 1}');
SELECT version, metadata FROM es_load('v-1');
SELECT es_append('v-1', 'any', 'named', '{"name": 1}', '{"schema_version": 3}');
SELECT es_append('v-1', 'any', 'named', '{"name": 1}', '{"schema_version": 0}');
SELECT es_append('v-1', 'any', 'named', '{"name": 1}', '{"schema_version": 1.5}');
SELECT es_append('v-1', 'any', 'named', '{"name": 1}', '{"schema_version": 1e100}');
SELECT es_append('v-1', 'any', 'named', '{}', '{"schema_version": "1"}');
SELECT es_append('v-1', 'any', 'named', '{}', '{"schema_version": [1]}');

--
-- When a definition applies
--
-- A retry returns its first result however the type is defined by then.
SELECT version FROM es_append('w-1', 'none', 'w', '{"a": 1}', id => '00000000-0000-0000-0000-00000000000a');
SELECT es_define_event_type('w', '{b}');
SELECT version FROM es_append('w-1', 'none', 'w', '{"a": 1}', id => '00000000-0000-0000-0000-00000000000a');
SELECT es_append('w-1', 1, 'w', '{"a": 1}');
INSERT INTO es_import (stream, type, data, id) VALUES ('w-1', 'w', '{"a": 1}', '00000000-0000-0000-0000-00000000000a');
-- It is replaced as a whole.
SELECT es_define_event_type('w', composite_key => '{a}', attributes => '{"a": "n"}', schema_version => 3, description => 'x');
SELECT * FROM es_describe_event_type('w');
SELECT es_define_event_type('w', '{c}');
SELECT * FROM es_describe_event_type('w');
-- In a transaction, a savepoint, and when they are rolled back.
BEGIN;
SELECT es_define_event_type('w', '{d}');
SAVEPOINT s;
SELECT es_append('w-1', 1, 'w', '{"c": 1}');
ROLLBACK TO s;
SELECT es_define_event_type('w', '{e}');
SELECT version FROM es_append('w-1', 1, 'w', '{"e": 1}');
ROLLBACK TO s;
SELECT es_append('w-1', 1, 'w', '{"e": 1}');
ROLLBACK;
SELECT es_append('w-1', 1, 'w', '{"d": 1}');
SELECT version FROM es_append('w-1', 1, 'w', '{"c": 1}');
DO $$ BEGIN
    PERFORM es_define_event_type('w', '{f}');
    RAISE 'no';
EXCEPTION WHEN raise_exception THEN
    PERFORM es_append('w-1', 2, 'w', '{"c": 1}');
END $$;
SELECT es_stream_version('w-1');
-- By direct SQL, also as a restore does it.
UPDATE es_event_types SET required = '{g}' WHERE type = 'w';
SELECT es_append('w-1', 3, 'w', '{"c": 1}');
SET session_replication_role = replica;
UPDATE es_event_types SET required = '{h}' WHERE type = 'w';
SELECT es_append('w-1', 3, 'w', '{"g": 1}');
RESET session_replication_role;
UPDATE es_event_types SET attributes = '{"h": "no such kind", "i": 5}' WHERE type = 'w';
SELECT es_append('w-1', 3, 'w', '{"h": 1, "i": 1}');
UPDATE es_event_types SET attributes = '[]', composite_key = '{NULL}', required = '{NULL,h}' WHERE type = 'w';
SELECT es_append('w-1', 3, 'w', '{}', id => es_uuid7());
BEGIN;
TRUNCATE es_event_types;
SELECT version FROM es_append('w-1', 3, 'w', '[]');
ROLLBACK;
SELECT es_append('w-1', 3, 'w', '{}', id => es_uuid7());
SELECT es_drop_event_type('w');
SELECT version FROM es_append('w-1', 3, 'w', '[]');
SELECT es_drop_event_type('w');
-- What messages append is checked, too.
CREATE FUNCTION on_message(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql
    AS $$ SELECT 'e', NULL::timestamptz, 'all', NULL, 'all-9', NULL, NULL::text[] $$;
SELECT es_receive('t', 'g', '{"s": 1}', 'on_message(text, jsonb)');
SELECT es_receive('t', 'g', '{"s": 1}', 'on_message(text, jsonb)', max_retries => 0);
SELECT sqlstate, detail FROM es_failures();
SELECT es_receive('t', 'g', '{"s": "", "n": 1}', 'on_message(text, jsonb)');

--
-- Types that must be defined
--
SET eventstore.strict_types = on;
SELECT es_append('free-1', 'any', 'free');
SELECT es_append_batch('free-1', 'any', '[{"type": "seen"}, {"type": "free"}, {"type": "all"}]');
INSERT INTO es_import (stream, type) VALUES ('free-1', 'free');
SELECT version FROM es_append('free-1', 1, 'seen');
-- Of a defined type or not, a retry is one.
SELECT version FROM es_append('w-1', 'none', 'w', '{"a": 1}', id => '00000000-0000-0000-0000-00000000000a');
-- Also when there is no definition at all.
BEGIN;
TRUNCATE es_event_types;
SELECT es_append('free-1', 'any', 'seen');
ROLLBACK;
-- Nobody waits for types that no event can be of.
SELECT es_create_subscription('strict', types => '{free}');
SELECT es_create_projection('strict', query => 'SELECT 1 FROM new_events', types => '{free}');
SELECT es_create_subscription('strict', types => '{all,es_stream_deleted}'), es_drop_subscription('strict');
RESET eventstore.strict_types;
SELECT version FROM es_append('free-1', 2, 'free');

--
-- Definitions that are refused
--
SELECT es_define_event_type(NULL);
SELECT es_define_event_type('');
SELECT es_define_event_type(repeat('x', 256));
SELECT es_define_event_type('r', NULL);
SELECT es_define_event_type('r', '{a, NULL}');
SELECT es_define_event_type('r', '{""}');
SELECT es_define_event_type('r', '{{a},{b}}');
SELECT es_define_event_type('r', composite_key => '{}');
SELECT es_define_event_type('r', composite_key => '{a, NULL}');
SELECT es_define_event_type('r', composite_key => '{a, b, a}');
SELECT es_define_event_type('r', composite_key => '{a, ""}');
SELECT es_define_event_type('r', composite_key => '{{a},{b}}');
SELECT es_define_event_type('r', composite_key => '{a, recorded_at}');
SELECT es_define_event_type('r', composite_key => ARRAY[k]) FROM unnest('{created_at, inserted_at, stored_at, appended_at}'::text[]) k;
SELECT es_define_event_type('r', attributes => '[]');
SELECT es_define_event_type('r', attributes => '1');
SELECT es_define_event_type('r', attributes => '{"a": "nothing", "b": 1, "c": {"d": "n"}, "e": "_int4", "f": "jsonb", "g": "anyelement", "h": "pg_class", "i": "int4range", "": "n", "k": "es_events"}');
SELECT es_define_event_type('r', attributes => jsonb_build_object('a', repeat('x', 100)));
SELECT es_define_event_type('r', schema_version => 0);
SELECT es_define_event_type('r', schema_version => NULL);
SELECT es_describe_event_type('r');
SELECT es_describe_event_type(NULL);
SELECT es_drop_event_type('r');
SELECT es_drop_event_type(NULL);
BEGIN READ ONLY;
SAVEPOINT s;
SELECT es_define_event_type('r');
ROLLBACK TO s;
SELECT es_drop_event_type('seen');
ROLLBACK TO s;
SELECT type, description FROM es_describe_event_type('ate');
ROLLBACK;
SELECT type FROM es_event_types ORDER BY type;

-- When the extension is created again, nothing is defined.
DROP FUNCTION detail_of, on_message(text, jsonb);
DROP EXTENSION eventstore;
CREATE EXTENSION eventstore;
SELECT version FROM es_append('all-1', 'none', 'all');
DROP EXTENSION eventstore;
