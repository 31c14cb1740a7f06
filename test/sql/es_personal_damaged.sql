-- Ciphertexts that were moved to another event, type, stream, person or version, cut, or changed, by
-- somebody who can change rows: they are "damaged", and never opened. So are keys.
CREATE EXTENSION eventstore;
\set SHOW_CONTEXT never
CREATE FUNCTION code_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ': ' || SQLERRM;
END $$;
CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT '[]'::jsonb $$;
SELECT es_define_event_type('named', personal => '{name}'), es_define_event_type('called', personal => '{name}'),
       es_define_event_type('wrote', personal => '{name}', subject => 'who');
SELECT es_append('a-1', 'none', 'named', '{"name": "Ann"}'), es_append('a-1', 1, 'named', '{"name": "Anna"}'), es_append('a-1', 2, 'called', '{"name": "Anne"}'),
       es_append('b-1', 'none', 'named', '{"name": "Ann"}'), es_append('a-2', 'none', 'named', '{"name": "Bob"}'), es_append('c-1', 'none', 'wrote', '{"who": 1, "name": "Ann"}');
SELECT stream, version, data, metadata FROM es_read();

-- Nobody changes rows, or brings a ciphertext along.
SELECT code_of('UPDATE es_events SET metadata = metadata');
SELECT code_of($$INSERT INTO es_import (stream, type, data, metadata) SELECT 'a-9', type, data, metadata FROM es_events WHERE position = 1$$);
SELECT code_of($$INSERT INTO es_import_log (position, version, recorded_at, stream, type, data, metadata, id) SELECT 100, 1, now(), 'a-9', type, data, metadata, gen_random_uuid() FROM es_events WHERE position = 1$$);
SET session_replication_role = replica;
SELECT code_of('UPDATE es_events SET metadata = metadata');
RESET session_replication_role;

-- What a function that opens events says of one that was changed by hand. It is what all read functions call.
CREATE VIEW sealed AS SELECT e.*, e.metadata->'$personal'->>'1' AS text FROM es_events e;
CREATE FUNCTION opened(e es_events, id uuid DEFAULT NULL, stream text DEFAULT NULL, type text DEFAULT NULL, metadata jsonb DEFAULT NULL) RETURNS text LANGUAGE sql
    RETURN (SELECT concat_ws(' ', es_upcast_data(1, coalesce(opened.id, e.id), coalesce(opened.stream, e.stream), coalesce(opened.type, e.type), e.data, coalesce(opened.metadata, e.metadata))->>'name',
                             es_upcast_metadata(1, coalesce(opened.id, e.id), coalesce(opened.stream, e.stream), coalesce(opened.type, e.type), e.data, coalesce(opened.metadata, e.metadata))));
CREATE FUNCTION with_text(subject text, text jsonb) RETURNS jsonb LANGUAGE sql RETURN jsonb_build_object('$personal', jsonb_build_object(subject, text));
SELECT opened(e) FROM es_events e WHERE position = 1;
SELECT opened(e, id => (SELECT id FROM es_events WHERE position = 2)) AS of_another_event,
       opened(e, stream => 'b-1') AS of_another_stream,
       opened(e, type => 'called') AS of_another_type,
       opened(e, metadata => e.metadata || '{"schema_version": 2}') AS of_another_version
  FROM es_events e WHERE position = 1;
SELECT opened(e, metadata => with_text('2', to_jsonb(s.text))) AS of_another_person,
       opened(e, metadata => with_text('3', to_jsonb(s.text))) AS of_nobody,
       opened(e, metadata => (SELECT o.metadata FROM es_events o WHERE o.position = 2)) AS the_text_of_another_event,
       opened(e, metadata => (SELECT o.metadata FROM es_events o WHERE o.position = 5)) AS and_of_another_person
  FROM es_events e JOIN sealed s USING (position) WHERE position = 1;
-- Each bit of it: the format, the nonce, the ciphertext, the tag.
SELECT count(*) AS bits, count(*) FILTER (WHERE opened(e, metadata => with_text('1', to_jsonb(encode(set_bit(decode(s.text, 'base64'), b, 1 - get_bit(decode(s.text, 'base64'), b)), 'base64')))) = '{"$personal": {"1": "damaged"}}') AS damaged
  FROM es_events e JOIN sealed s USING (position), generate_series(0, 8 * length(decode(s.text, 'base64')) - 1) b WHERE position = 1;
-- Cut, at each length, as bytes and as base64; longer; what is no base64.
SELECT DISTINCT opened(e, metadata => with_text('1', to_jsonb(encode(substr(decode(s.text, 'base64'), 1, n), 'base64'))))
  FROM es_events e JOIN sealed s USING (position), generate_series(0, length(decode(s.text, 'base64')) - 1) n WHERE position = 1;
SELECT DISTINCT opened(e, metadata => with_text('1', to_jsonb(left(s.text, n)))), opened(e, metadata => with_text('1', to_jsonb(right(s.text, n))))
  FROM es_events e JOIN sealed s USING (position), generate_series(0, length(s.text) - 1) n WHERE position = 1;
SELECT DISTINCT opened(e, metadata => with_text('1', to_jsonb(v)))
  FROM es_events e JOIN sealed s USING (position),
       LATERAL (VALUES (s.text || s.text), (s.text || 'AAAA'), ('AAAA' || s.text), ('####'), ('===='), ('A==='), (repeat('A', 100)), (repeat('=', 100)), ('hidden'), ('erased'), (repeat('AQ', 1000)), (translate(s.text, '+/', '-_') || '    ')) x (v) WHERE position = 1;
SELECT opened(e, metadata => with_text('1', v::jsonb)) FROM es_events e, unnest('{1,null,true,[],"{}","[\"x\"]"}'::text[]) v WHERE position = 1;
-- Metadata that is none of ours is shown as it is, and opens nothing.
SELECT opened(e, metadata => jsonb_build_object('$personal', v::jsonb)) FROM es_events e, unnest('{1,null,[],"{}","\"x\""}'::text[]) v WHERE position = 1;
-- A name that is longer than any person's.
SELECT opened(e, metadata => with_text(repeat('x', 248), '"AQ=="')) ~ 'damaged' AS damaged FROM es_events e WHERE position = 1;

--
-- Keys
--
CREATE TABLE kept AS TABLE es_subject_keys;
CREATE FUNCTION with_key(changed bytea, fingerprint text DEFAULT NULL) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
    UPDATE es_subject_keys SET key = changed, key_encryption_key = coalesce(fingerprint, key_encryption_key) WHERE subject = '1';
    RETURN QUERY SELECT concat_ws(' ', e.data->>'name', e.metadata) FROM es_load('a-1', max_count => 1) e;
    RETURN NEXT code_of($s$SELECT es_append('a-1', 'any', 'named', '{"name": "Ann"}')$s$);
    UPDATE es_subject_keys k SET key = kept.key, key_encryption_key = kept.key_encryption_key FROM kept WHERE k.subject = '1' AND kept.subject = '1';
END $$;
SELECT with_key((SELECT key FROM kept WHERE subject = '2'));
SELECT with_key('\x'), with_key('\x00'), with_key(substr(key, 1, 59)), with_key(key || '\x00') FROM kept WHERE subject = '1';
SELECT count(*) AS answers, count(*) FILTER (WHERE w IN ('{"$personal": {"1": "damaged"}}', '55000: the key of subject "1" cannot be used')) AS damaged
  FROM kept, generate_series(0, 8 * 60 - 1, 7) b, LATERAL with_key(set_bit(key, b, 1 - get_bit(key, b))) w WHERE subject = '1';
SELECT with_key(key, '0123456789abcdef') FROM kept WHERE subject = '1';
SELECT with_key(key, '') FROM kept WHERE subject = '1';
-- A row that is gone.
BEGIN;
DELETE FROM es_subject_keys WHERE subject = '1';
SELECT data, metadata FROM es_load('a-1', max_count => 1);
SELECT code_of($$SELECT es_execute('a-1', 'decide', '{}', 'es_merge')$$);
ROLLBACK;
SELECT data, metadata FROM es_load('a-1', max_count => 1);
-- A damaged event stops decisions, not reads.
BEGIN;
UPDATE es_subject_keys SET key = (SELECT key FROM kept WHERE subject = '2') WHERE subject = '1';
SELECT stream, version, data, metadata FROM es_read();
SELECT code_of($$SELECT es_execute('a-1', 'decide', '{}', 'es_merge')$$);
SELECT code_of($$SELECT es_snapshot('a-1', 'es_merge')$$);
SELECT code_of($$SELECT es_rotate_keys()$$);
SELECT state FROM es_state('a-2', 'es_merge');
ROLLBACK;
SELECT es_rotate_keys();
-- It stops a projection whose owner would see it, by a handler and by a query: a null would stay in what it has made.
CREATE TABLE names (name text);
CREATE FUNCTION keep(e es_recorded_event) RETURNS void LANGUAGE sql AS $$ INSERT INTO names VALUES (e.data->>'name') $$;
SELECT es_create_projection('by_handler', 'keep', on_failure => 'stop', max_attempts => 1),
       es_create_projection('by_query', query => $$INSERT INTO names SELECT data->>'name' FROM new_events$$, on_failure => 'stop', max_attempts => 1);
UPDATE es_subject_keys SET key = (SELECT key FROM kept WHERE subject = '2') WHERE subject = '1';
SET client_min_messages = error;
CALL es_work();
RESET client_min_messages;
SELECT name, state, position, last_error, error_detail, failed_position FROM es_projection_status ORDER BY name;
SELECT * FROM names;
UPDATE es_subject_keys k SET key = kept.key, key_encryption_key = kept.key_encryption_key FROM kept WHERE k.subject = '1' AND kept.subject = '1';
SELECT es_resume_projection(name) FROM es_projection_status;
CALL es_work();
SELECT count(*), count(name) FROM names;

SELECT es_drop_projection(name) FROM es_projection_status;
DROP TABLE kept, names;
DROP VIEW sealed;
DROP FUNCTION code_of, decide, keep, opened, with_text, with_key;
DROP EXTENSION eventstore;
