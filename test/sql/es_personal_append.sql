-- Events with personal attributes, appended in every way: what is stored, what is refused, what a
-- retry is compared with. No value of a personal attribute is in an error.
CREATE EXTENSION eventstore;
\set SHOW_CONTEXT never
-- What is stored: data, and the subjects whose attributes are encrypted.
CREATE VIEW stored AS
    SELECT e.position, e.stream, e.type, e.data, ARRAY(SELECT jsonb_object_keys(e.metadata->'$personal')) AS sealed,
           nullif(e.metadata - '$personal', '{}') AS metadata, e.tags
      FROM es_events e;
CREATE VIEW seen AS SELECT position, stream, type, data, metadata, tags FROM es_read();
CREATE FUNCTION code_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    message text; detail text; hint text; context text;
BEGIN
    EXECUTE statement;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT, context = PG_EXCEPTION_CONTEXT;
    RETURN concat_ws(E'\n', SQLSTATE || ': ' || message, regexp_replace(detail, 'erased at .*?\. ', 'erased at (a time). '),
                     CASE WHEN concat(message, detail, hint, regexp_replace(context, 'SQL statement ".*"\nPL/pgSQL', '')) ~ 'secret' THEN 'It shows a value.' END);
END $$;
SELECT es_define_event_type('registered', attributes => '{"name": "string", "born": "date", "plan": "string"}', personal => '{name,born}');
SELECT es_define_event_type('sent', personal => '{from}', subject => 'sender');
SELECT es_define_personal_attributes('sent', '{to}', 'recipient');
SELECT es_define_personal_attributes('sent', '{about}');

--
-- Each way to append
--
SELECT es_append('person-1', 'none', 'registered', '{"name": "Ann", "born": "2000-01-01", "plan": "gold"}');
SELECT es_append_batch('person-2', 'none', '[{"type": "registered", "data": {"name": "Bob", "plan": "gold"}, "metadata": {"user": 1}, "tags": ["x"]}, {"type": "moved", "data": {"name": "Bonn"}}]');
SELECT es_append_batch('person-2', 2, '{registered,moved}', '{"{\"name\": \"Bea\"}","{\"name\": 1}"}', tags => '{null,null}');
SELECT es_append_if('[{"stream": "person-3", "type": "registered", "data": {"name": "Cid"}, "tags": ["es_subject:3"]}, {"stream": "person-4", "type": "registered", "data": {"name": "Dan"}}]', '[{"types": ["none"]}]');
INSERT INTO es_import (stream, type, data) VALUES ('person-5', 'registered', '{"name": "Eve"}'), ('person-6', 'registered', '{"name": "Fay"}'), ('person-5', 'registered', '{"born": "1999-12-31"}');
COPY es_import (stream, type, data) FROM stdin;
person-7	registered	{"name": "Gus"}
\.
INSERT INTO es_import_log (position, version, recorded_at, stream, type, data, metadata, id, tags)
VALUES (20, 1, '2026-01-01', 'person-8', 'registered', '{"name": "Hal"}', NULL, '00000000-0000-7000-8000-000000000008', NULL),
       (22, 1, '2026-01-01', 'person-9', 'registered', '{"name": "Ida"}', '{"user": 2}', '00000000-0000-7000-8000-000000000009', '{es_subject:9,x}');
CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT jsonb_build_array(command || jsonb_build_object('data', command->'data' || jsonb_build_object('after', state))) $$;
SELECT version, state, events FROM es_execute('person-10', 'decide', '{"type": "registered", "data": {"name": "Jon"}}', 'es_merge');
SELECT version, state, events FROM es_execute('person-10', 'decide', '{"type": "registered", "data": {"name": "Joe"}}', 'es_merge');
SELECT state, events FROM es_decide('[{"tags": ["es_subject:10"]}]', 'decide', '{"stream": "person-11", "type": "registered", "data": {"name": "Kim"}}', 'es_merge');
CREATE FUNCTION on_message(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql AS
    $$ SELECT ('12', now(), 'registered', '1', 'person-12', 'any', NULL)::es_ack_event $$;
SELECT es_receive('topic', 'group', '{"name": "Lea"}', 'on_message');
SELECT * FROM stored ORDER BY position;
SELECT * FROM seen ORDER BY position;
SELECT subject, length(key), key_encryption_key, erased_at FROM es_subject_keys ORDER BY length(subject), subject;
-- Two texts of one value are different, and each key is.
SELECT count(DISTINCT metadata->'$personal'->>'1') FROM es_events WHERE stream = 'person-1'
UNION ALL SELECT count(DISTINCT key) FROM es_subject_keys;
-- Every read function
CREATE FUNCTION reads(stream text) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT format('es_load %s', data) FROM es_load(stream) UNION ALL
    SELECT format('es_load_backward %s', data) FROM es_load_backward(stream) UNION ALL
    SELECT format('es_last_event %s', data) FROM es_last_event(stream) UNION ALL
    SELECT format('es_event %s', data) FROM es_event((SELECT e.id FROM es_events e WHERE e.stream = reads.stream LIMIT 1)) UNION ALL
    SELECT format('es_read %s', e.data) FROM es_read() e WHERE e.stream = reads.stream UNION ALL
    SELECT format('es_read_category %s', e.data) FROM es_read_category('person') e WHERE e.stream = reads.stream UNION ALL
    SELECT format('es_query %s', data) FROM es_query(jsonb_build_array(jsonb_build_object('tags', ARRAY['es_subject:1']))) UNION ALL
    SELECT format('es_upcast %s', (es_upcast(e)).data) FROM es_load(stream) e UNION ALL
    SELECT format('es_state %s', state) FROM es_state(stream, 'es_merge') UNION ALL
    SELECT format('es_history %s', state) FROM es_history(stream, 'es_merge')
$$;
SELECT reads('person-1');

--
-- Several subjects, and one by two definitions
--
SELECT es_append('letter-1', 'any', 'sent', '{"sender": "s1", "from": "Ann", "recipient": 7, "to": "Bob", "about": "Cid", "n": 1}');
SELECT es_append('letter-2', 'any', 'sent', '{"sender": "2", "from": "Ann", "recipient": 2, "to": "Ann, too", "about": ["Ann", {"x": null}]}');
SELECT es_append('letter-3', 'any', 'sent', '{"recipient": -1.50, "to": {"name": "Bob"}, "sender": null, "from": null}');
SELECT es_append('letter-4', 'any', 'sent', '{"from": null, "to": null, "sender": true}');
SELECT es_append('letter-5', 'any', 'sent', '{"recipient": "", "n": [1]}');
SELECT es_append('letter-6', 'any', 'sent', '[1, {"from": "not an object"}]');
SELECT data, sealed, tags FROM stored WHERE type = 'sent' ORDER BY position;
SELECT data, metadata FROM seen WHERE type = 'sent' ORDER BY position;
-- No subject, or one that cannot be.
SELECT code_of($$SELECT es_append('letter-7', 'any', 'sent', '{"from": "secret"}')$$);
SELECT code_of($$SELECT es_append('letter-7', 'any', 'sent', '{"sender": null, "from": "secret"}')$$);
SELECT code_of($$SELECT es_append('letter-7', 'any', 'sent', '{"sender": true, "from": "secret"}')$$);
SELECT code_of($$SELECT es_append('letter-7', 'any', 'sent', '{"sender": ["secret"], "from": "secret"}')$$);
SELECT code_of($$SELECT es_append('letter-7', 'any', 'sent', '{"sender": {"x": 1}, "from": "secret"}')$$);
SELECT code_of($$SELECT es_append('letter-7', 'any', 'sent', '{"sender": "", "from": "secret"}')$$);
SELECT code_of($$SELECT es_append('letter-7', 'any', 'sent', jsonb_build_object('sender', repeat('x', 245), 'from', 'secret'))$$);
SELECT code_of($$SELECT es_append('letter', 'any', 'sent', '{"about": "secret"}')$$);
SELECT code_of($$SELECT es_append('letter-', 'any', 'sent', '{"about": "secret"}')$$);
SELECT code_of($$INSERT INTO es_import (stream, type, data) VALUES ('letter-7', 'other', '{}'), ('letter-7', 'sent', '{"from": "secret"}')$$);
SELECT code_of($$SELECT es_append('person-1', 'any', 'registered', '{"name": "secret"}', tags => ARRAY(SELECT 't' || i FROM generate_series(1, 64) i))$$);
-- Numbers that are equal are one person; so deep that reading it would take too much of the stack.
SELECT es_append('letter-6', 'any', 'sent', '{"sender": 17, "from": "Ann"}') IS NOT NULL AS a,
       es_append('letter-6', 'any', 'sent', '{"sender": 17.00, "from": "Ann"}') IS NOT NULL AS b,
       es_append('letter-6', 'any', 'sent', '{"sender": 1.7e1, "from": "Ann"}') IS NOT NULL AS c;
SELECT DISTINCT tags FROM es_load('letter-6');
SELECT code_of(format($$SELECT es_append('letter-7', 'any', 'sent', '{"sender": 1, "from": %s1%s}')$$, repeat('[', 1001), repeat(']', 1001)));
SELECT es_append('letter-6', 'any', 'sent', format('{"sender": 1, "from": %s1%s}', repeat('[{"a": ', 500), repeat('}]', 500))::jsonb) IS NOT NULL AS deep;
SELECT md5((data->'from')::text) = md5(repeat('[{"a": ', 500) || '1' || repeat('}]', 500)) AS same FROM es_last_event('letter-6');
SELECT es_append('letter-8', 'any', 'sent', jsonb_build_object('sender', repeat('x', 244), 'from', 'Ann')) IS NOT NULL AS longest,
       es_append('letter-a-b-c', 'any', 'sent', '{"about": "Bob"}') IS NOT NULL AS dashes;
SELECT data->>'from' AS "from", data->>'about' AS about, length(tags[1]) AS length, right(tags[1], 6) FROM es_read() ORDER BY position DESC LIMIT 2;
-- Types are checked, and errors do not show what is personal. What is not is shown.
SELECT code_of($$SELECT es_append('person-1', 'any', 'registered', '{"born": "secret"}')$$);
SELECT code_of($$SELECT es_append('person-1', 'any', 'registered', '{"name": ["secret"]}')$$);
SELECT code_of($$SELECT es_append('person-1', 'any', 'registered', '{"name": 17, "plan": 17, "born": "1-secret"}')$$);
-- Metadata of the caller's own.
SELECT code_of($$SELECT es_append('person-1', 'any', 'registered', '{}', '{"$personal": {"1": "secret"}}')$$);
SELECT code_of($$SELECT es_append('other-1', 'any', 'other', '{}', '{"$personal": null}')$$);
SELECT code_of($$SELECT es_append_batch('other-1', 'any', '[{"type": "x", "metadata": {"$personal": 1}}]')$$);
SELECT code_of($$INSERT INTO es_import (stream, type, metadata) SELECT stream, type, metadata FROM es_events WHERE stream = 'person-1'$$);
SELECT code_of($$INSERT INTO es_import_log (position, version, recorded_at, stream, type, metadata, id) SELECT 10000, 1, now(), 'other-1', type, metadata, gen_random_uuid() FROM es_events WHERE stream = 'person-1'$$);
SELECT code_of($$SELECT es_rewrite(id, '{}', metadata) FROM es_events WHERE stream = 'person-1'$$);
SELECT code_of($$SELECT es_execute('person-1', 'decide', '{"type": "x", "data": {}, "metadata": {"$personal": {}}}', 'es_merge')$$);
SELECT count(*) FROM es_events WHERE stream LIKE 'other%';
-- Long values
SELECT es_append('person-20', 'any', 'registered', jsonb_build_object('name', repeat('Ann ', 100000)));
SELECT length(data->>'name') FROM es_load('person-20');

--
-- Earlier schema versions
--
CREATE FUNCTION up(data jsonb) RETURNS jsonb LANGUAGE sql AS
    $$ SELECT data - 'n' || jsonb_strip_nulls(jsonb_build_object('name', data->'n')) $$;
SELECT es_append('old-1', 'any', 'named', '{"n": "before", "x": 0}');
SELECT es_define_event_type('named', schema_version => 2, personal => '{name}'), es_define_upcaster('named', 1, 'up');
SELECT es_append('old-1', 'any', 'named', '{"n": "Ann", "x": 1}', '{"user": 1, "schema_version": 1}', '00000000-0000-7000-8000-000000000101');
SELECT es_append('old-1', 'any', 'named', '{"name": "Bob", "x": 2}', '{"schema_version": 2}');
SELECT es_append('old-1', 'any', 'named', '{"x": 3}');
SELECT data, sealed, metadata FROM stored WHERE stream = 'old-1' ORDER BY position;
SELECT data, metadata FROM es_load('old-1');
-- A retry of it, as it came then.
SELECT version FROM es_append('old-1', 1, 'named', '{"n": "Ann", "x": 1}', '{"user": 1, "schema_version": 1}', '00000000-0000-7000-8000-000000000101');
SELECT version FROM es_append('old-1', 1, 'named', '{"name": "Ann", "x": 1}', '{"schema_version": 2}', '00000000-0000-7000-8000-000000000101');
SELECT code_of($$SELECT version FROM es_append('old-1', 1, 'named', '{"n": "secret", "x": 1}', '{"schema_version": 1}', '00000000-0000-7000-8000-000000000101')$$);
-- What is sealed is upcast later.
CREATE FUNCTION up2(data jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT data - 'name' || jsonb_build_object('called', data->'name') $$;
SELECT es_define_event_type('named', schema_version => 3, personal => '{}'), es_define_event_type('named', schema_version => 3, personal => '{called}'), es_define_upcaster('named', 2, 'up2');
SELECT data, metadata FROM es_load('old-1');
-- Attributes of the log before the definition: they stay as they were.
SELECT data, sealed FROM stored WHERE stream = 'old-1' AND data ? 'n';
-- Versions that nothing brings to the current one, or that are not known.
SELECT es_define_event_type('later', schema_version => 2, personal => '{name}');
SELECT code_of($$SELECT es_append('old-2', 'any', 'later', '{"n": "secret"}', '{"schema_version": 1}')$$);
SELECT code_of($$SELECT es_append('old-2', 'any', 'later', '{"name": "secret"}', '{"schema_version": 3}')$$);
SELECT code_of($$SELECT es_append('old-2', 'any', 'later', '{"name": "secret"}', '{"schema_version": "x"}')$$);
SELECT code_of($$INSERT INTO es_import_log (position, version, recorded_at, stream, type, data, id) VALUES (1000, 1, now(), 'old-2', 'later', '{"n": "secret"}', gen_random_uuid())$$);
SELECT es_append('old-2', 'any', 'later', '{"name": "Ann"}', '{"schema_version": null}') IS NOT NULL AS current;
SELECT data, sealed, metadata FROM stored WHERE stream = 'old-2';

--
-- Retries
--
CREATE FUNCTION again(data jsonb, stream text DEFAULT 'person-30') RETURNS text LANGUAGE sql AS $$
    SELECT coalesce(code_of(format('SELECT es_append(%L, 0, %L, %L, NULL, %L)', stream, 'registered', data, '00000000-0000-7000-8000-000000000030')), 'same') $$;
SELECT again('{"name": "Ann", "plan": "gold"}');
SELECT again('{"name": "Ann", "plan": "gold"}');
SELECT again('{"name": "secret", "plan": "gold"}');
SELECT again('{"name": "Ann", "plan": "tin"}');
SELECT again('{"plan": "gold"}'), again('{"name": null, "plan": "gold"}');
-- A writer that does not see personal attributes is not told in which attributes a guess differs.
CREATE ROLE regress_es_guesses;
SELECT es_grant('regress_es_guesses', 'reader'), es_grant('regress_es_guesses', 'writer');
SET ROLE regress_es_guesses;
SELECT again('{"name": "guess", "plan": "gold"}'), again('{"name": "Ann", "plan": "tin"}'), again('{"name": "Ann", "plan": "gold"}');
RESET ROLE;
SELECT es_revoke('regress_es_guesses', 'reader'), es_revoke('regress_es_guesses', 'writer');
DROP ROLE regress_es_guesses;
SELECT again('{"name": "Ann", "plan": "gold"}', 'person-31');
SELECT version FROM es_append_batch('person-30', 'none', '[{"type": "registered", "data": {"name": "Ann", "plan": "gold"}, "id": "00000000-0000-7000-8000-000000000030"}]');
SELECT count(*) FROM es_load('person-30');
-- The types' definition was given up meanwhile, or is another one.
BEGIN;
SELECT es_define_event_type('registered', personal => '{}');
SELECT again('{"name": "Ann", "plan": "gold"}');
SELECT es_append('person-30', 1, 'registered', '{"name": "plain"}');
SELECT data, sealed, tags FROM stored WHERE stream = 'person-30' ORDER BY position;
SELECT data FROM es_load('person-30');
ROLLBACK;
-- After the erasure the id and the place decide, and nothing else is stored.
SELECT count(*) > 0 AS reported FROM es_erase_subject('30');
SELECT again('{"name": "Ann", "plan": "gold"}');
SELECT again('{"name": "secret", "plan": "tin"}');
SELECT again('{"name": "Ann"}', 'person-31');
SELECT code_of($$SELECT es_append('person-30', 1, 'registered', '{"name": "secret"}')$$);
SELECT code_of($$SELECT es_append_batch('person-30', 1, '[{"type": "registered", "data": {"plan": "tin"}}, {"type": "registered", "data": {"name": "secret"}}]')$$);
SELECT code_of($$INSERT INTO es_import (stream, type, data) VALUES ('letter-9', 'sent', '{"sender": 30, "from": "secret"}')$$);
SELECT code_of($$SELECT es_personal_hash('30', 'secret')$$);
-- What is not personal of it can be.
SELECT es_append('person-30', 1, 'registered', '{"plan": "tin"}') IS NOT NULL AS appended;
SELECT version, data, metadata, tags FROM es_load('person-30');
SELECT type, data, tags FROM es_query('[{"tags": ["es_subject:30"], "types": ["es_subject_erased"]}]');

--
-- es_personal_hash
--
SELECT es_personal_hash('1', 'x') AS hash \gset
SELECT length(:'hash'), es_personal_hash('1', 'x') = :'hash' AS same, es_personal_hash('1', 'y') = :'hash' AS other_value,
       es_personal_hash('2', 'x') = :'hash' AS other_subject, length(es_personal_hash('1', '')) AS empty;
SELECT es_personal_hash(NULL, 'x');
SELECT es_personal_hash('1', NULL);
SELECT es_personal_hash('', 'x');
BEGIN;
SELECT length(es_personal_hash('40', 'x'));
SELECT count(*) FROM es_subject_keys WHERE subject = '40';
ROLLBACK;
SELECT count(*) FROM es_subject_keys WHERE subject = '40';

-- A key that was made in a transaction that was rolled back is no key.
BEGIN;
SELECT es_append('person-41', 'any', 'registered', '{"name": "Ann"}') IS NOT NULL AS appended;
SELECT data FROM es_load('person-41');
SAVEPOINT s;
SELECT es_append('person-42', 'any', 'registered', '{"name": "Bob"}') IS NOT NULL AS appended;
SELECT data FROM es_load('person-42');
ROLLBACK TO s;
SELECT es_append('person-42', 'any', 'registered', '{"name": "Cid"}') IS NOT NULL AS appended;
SELECT data FROM es_load('person-42');
ROLLBACK;
SELECT es_append('person-41', 'any', 'registered', '{"name": "Dan"}') IS NOT NULL AS appended;
SELECT data FROM es_load('person-41');

DROP FUNCTION code_of, up, up2, again, decide, on_message, reads;
DROP VIEW stored, seen;
DROP EXTENSION eventstore;
