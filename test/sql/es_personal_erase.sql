-- es_erase_subject: what becomes unreadable, what is deleted with it, what is reported; es_replay_erasure.
CREATE EXTENSION eventstore;
\set SHOW_CONTEXT never
SET eventstore.snapshot_every = 2;
CREATE FUNCTION code_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    detail text;
BEGIN
    EXECUTE statement;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
    RETURN concat_ws(E'\n', SQLSTATE || ': ' || SQLERRM, regexp_replace(detail, 'erased at .*?\. ', 'erased at (a time). '));
END $$;
SELECT es_define_event_type('registered', personal => '{name}');
SELECT es_define_event_type('sent', personal => '{from}', subject => 'sender');
SELECT es_define_personal_attributes('sent', '{to}', 'recipient');

--
-- What is refused
--
SELECT code_of('SELECT es_erase_subject(NULL)');
SELECT code_of($$SELECT es_erase_subject('')$$);
SELECT code_of($$SELECT es_erase_subject(repeat('x', 245))$$);
SELECT code_of($$SELECT es_replay_erasure('1', 'infinity')$$);
SELECT code_of($$SELECT es_replay_erasure(NULL, '2026-01-01')$$);
BEGIN READ ONLY;
SELECT code_of($$SELECT es_erase_subject('1')$$);
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT 1;
SELECT code_of($$SELECT es_erase_subject('1')$$);
ROLLBACK;
CREATE ROLE regress_es_reader;
SELECT es_grant('regress_es_reader', k) FROM unnest('{reader,writer,operator,personal}'::text[]) k;
SET ROLE regress_es_reader;
SELECT code_of($$SELECT es_erase_subject('1')$$), code_of($$SELECT es_erasure_report('1')$$), code_of($$SELECT es_erase('1', NULL, NULL)$$);
RESET ROLE;
SELECT count(*) FROM es_subject_keys;

--
-- One of two persons
--
SELECT es_append('person-1', 'none', 'registered', '{"name": "Ann"}') IS NOT NULL AS a,
       es_append('person-2', 'none', 'registered', '{"name": "Bob"}') IS NOT NULL AS b,
       es_append('letter-1', 'none', 'sent', '{"sender": 1, "from": "Ann", "recipient": 2, "to": "Bob"}') IS NOT NULL AS c,
       es_append('letter-2', 'none', 'sent', '{"sender": 2, "from": "Bob"}', tags => '{t}') IS NOT NULL AS d,
       es_append('letter-1', 1, 'noted', '{}', tags => '{es_subject:1}') IS NOT NULL AS e,
       es_append('archived-1', 'none', 'sent', '{"sender": 1, "from": "Ann"}') IS NOT NULL AS f,
       es_append('letter-5', 'none', 'sent', '{"sender": 1, "from": "Ann", "fails": true}') IS NOT NULL AS g;
SELECT archived FROM es_archive_stream('archived-1');
-- States, failures and messages
SELECT count(es_append(s, 'any', 'x')) FROM unnest('{person-1,person-2,letter-1,letter-2}'::text[]) s, generate_series(1, 3);
SELECT es_snapshot(s, 'es_merge') IS NOT NULL AS saved FROM unnest('{person-1,person-2,letter-1,letter-2}'::text[]) s;
CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT '[]'::jsonb $$;
SELECT events FROM es_decide('[{"tags": ["es_subject:1"]}]', 'decide', '{}', 'es_merge');
SELECT stream, state FROM es_snapshots ORDER BY stream;
CREATE FUNCTION fails(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'cannot greet %', coalesce(event.data->>'name', event.data->>'from') USING DETAIL = event.data; END $$;
SELECT es_create_projection('fails', 'fails(es_recorded_event)', event_query => '[{"types": ["registered"]}, {"types": ["sent"], "tags": ["es_subject:1"]}]', on_failure => 'park', max_attempts => 1);
SET client_min_messages = error;
CALL es_work();
RESET client_min_messages;
SELECT archived FROM es_archive_stream('letter-5');
SELECT stream, message, detail FROM es_failures ORDER BY position;
CREATE FUNCTION on_message(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql AS
    $$ SELECT ('1', now(), 'registered', '1', 'person-' || (payload::jsonb->>'id'), 'any', NULL)::es_ack_event $$;
SELECT es_receive('topic', 'group', '{"id": 1, "name": "Ann"}', 'on_message');
SELECT es_receive('topic', 'group', '{"id": 2, "name": "Bob"}', 'on_message');
-- The inbox has the payload only if no event has it encrypted; a message that fails is kept.
CREATE FUNCTION on_note(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql AS
    $$ SELECT ('1', now(), 'noted', '1', payload::jsonb->>'stream', CASE WHEN payload ~ 'stream' THEN 'any' END, NULL)::es_ack_event $$;
SELECT es_receive('topic', 'group', '{"id": 3, "stream": "note-1"}', 'on_note');
SELECT es_receive('topic', 'group', '{"id": 4}', 'on_note');
CREATE FUNCTION on_failure(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql AS
    $$ SELECT ('1', now(), 'registered', '1', 'person-' || (payload::jsonb->>'id'), CASE WHEN payload ~ 'again' THEN 'none' ELSE 'any' END, NULL)::es_ack_event $$;
SET client_min_messages = error;
SELECT es_receive('topic', 'group', '{"id": 2, "name": "Bob", "n": "again"}', 'on_failure', max_retries => 0);
RESET client_min_messages;
SELECT topic, payload FROM es_failures WHERE topic IS NOT NULL;
CREATE OR REPLACE FUNCTION on_failure(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql AS
    $$ SELECT ('1', now(), 'registered', '1', 'person-' || (payload::jsonb->>'id'), 'any', NULL)::es_ack_event $$;
SELECT es_retry(id) FROM es_failures WHERE topic IS NOT NULL;
SELECT count(*) FROM es_failures WHERE topic IS NOT NULL;
-- An event that is stored already is encrypted all the same.
SELECT es_define_event_type('keyed', composite_key => '{k}', personal => '{name}');
CREATE FUNCTION on_keyed(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql AS
    $$ SELECT ('1', now(), 'keyed', '1', 'person-2', NULL, NULL)::es_ack_event $$;
SELECT es_receive('topic', 'group', '{"k": 1, "name": "Bob"}', 'on_keyed', message_id => m) FROM unnest('{m1,m2}'::text[]) m;
SELECT payload, position IS NOT NULL AS appended FROM es_inbox ORDER BY id;
-- A projection that stopped says why.
SELECT es_create_projection('stops', 'fails(es_recorded_event)', event_query => '[{"types": ["sent"], "tags": ["es_subject:1"]}]', on_failure => 'stop', max_attempts => 1);
SET client_min_messages = error;
CALL es_work();
RESET client_min_messages;
SELECT last_error, error_detail, failed_position FROM es_projection_status WHERE name = 'stops';
-- What a session has cached, a portal, and an erasure that is rolled back.
SELECT data FROM es_load('person-1', max_count => 1);
BEGIN;
DECLARE c CURSOR FOR SELECT data, metadata FROM es_load('person-1');
FETCH c;
SELECT count(*) > 3 AS reported FROM es_erase_subject('1', 'asked for');
SELECT data, metadata FROM es_load('person-1', max_count => 1);
SELECT code_of($$SELECT es_append('person-1', 'any', 'registered', '{"name": "Ann"}')$$);
ROLLBACK;
SELECT data FROM es_load('person-1', max_count => 1);
SELECT count(*) FROM es_snapshots;
SELECT count(*) FROM es_erasures;
-- The cursor opens what is erased no more.
BEGIN;
DECLARE c CURSOR FOR SELECT data, metadata FROM es_load('person-1') WHERE type = 'registered';
FETCH c;
SELECT place, name FROM es_erase_subject('1', 'asked for') ORDER BY place COLLATE "C", name COLLATE "C";
FETCH c;
COMMIT;
SELECT stream, data, metadata, tags FROM es_read() WHERE type <> 'x' ORDER BY position;
SELECT data, metadata FROM es_load_archived('archived-1');
SELECT subject, key, key_encryption_key, erased_at IS NOT NULL AS erased FROM es_subject_keys WHERE subject = '1';
SELECT subject, reason, erased_by = current_user AS me, erased_at = (SELECT k.erased_at FROM es_subject_keys k WHERE k.subject = e.subject) AS then FROM es_erasures e;
SELECT stream, state FROM es_snapshots ORDER BY stream;
SELECT stream, message, detail FROM es_failures ORDER BY position;
SELECT last_error, error_detail, failed_position FROM es_projection_status WHERE name = 'stops';
SELECT payload FROM es_inbox ORDER BY id;
SELECT state FROM es_state('person-1', 'es_merge');
-- What is folded now is saved again, and commands go on.
SELECT es_snapshot('person-1', 'es_merge') IS NOT NULL AS saved;
SELECT events, state FROM es_execute('letter-1', 'decide', '{}', 'es_merge');
SELECT code_of($$SELECT es_append('letter-3', 'any', 'sent', '{"sender": 1, "from": "Ann"}')$$);
SELECT code_of($$SELECT es_rewrite(id, '{"name": "Ann"}') FROM es_load('person-1', max_count => 1)$$);
SELECT es_append('letter-3', 'any', 'sent', '{"sender": 2, "from": "Bob", "recipient": 1}') IS NOT NULL AS of_the_other;
-- What is written of an erased person without what was personal.
SELECT es_rewrite(id, data || '{"n": 1}') IS NOT NULL AS rewritten FROM es_load('letter-1', max_count => 1);
SELECT data, metadata FROM es_load('letter-1', max_count => 1);

--
-- Again, unknown persons, and replays
--
SELECT count(*) FROM es_query('[{"types": ["es_subject_erased"]}]');
SELECT count(*) > 3 AS reported FROM es_erase_subject('1', 'another reason');
SELECT count(*), min(reason) FROM es_erasures;
SELECT count(*) FROM es_query('[{"types": ["es_subject_erased"]}]');
SELECT count(*) > 3 AS reported FROM es_erase_subject('of nobody');
SELECT code_of($$SELECT es_append('person-of nobody', 'any', 'registered', '{"name": "Ann"}')$$);
SELECT es_replay_erasure('2', '2026-01-02 03:04:05+00', 'replayed') = '2026-01-02 03:04:05+00' AS then;
SELECT es_replay_erasure('2', '2026-02-02 03:04:05+00', 'again') = '2026-01-02 03:04:05+00' AS stays;
SELECT subject, reason FROM es_erasures ORDER BY subject;
SELECT type, data, tags FROM es_query('[{"types": ["es_subject_erased"]}]') ORDER BY position;
SELECT data, metadata FROM es_load('letter-1', max_count => 1);
-- Its stream does not name the person, and nobody appends to it.
SELECT count(*) FROM es_events WHERE type = 'es_subject_erased' AND stream ~ '^es_subject-[0-9a-f-]{36}$';
SELECT code_of($$SELECT es_append((SELECT stream FROM es_events WHERE type = 'es_subject_erased' LIMIT 1), 'any', 'es_subject_erased')$$);
-- All that it takes is the privilege.
CREATE ROLE regress_es_retention;
SELECT es_grant('regress_es_retention', 'retention');
SET ROLE regress_es_retention;
SELECT count(*) > 3 AS reported FROM es_erase_subject('3');
SELECT count(*) > 3 AS reported FROM es_erasure_report('3');
SELECT es_replay_erasure('4', '2026-01-02 03:04:05+00') IS NOT NULL AS replayed;
SELECT subject, erased_by FROM es_erasures WHERE subject IN ('3', '4') ORDER BY subject;
RESET ROLE;

SELECT es_drop_projection(p) FROM unnest('{fails,stops}'::text[]) p;
SELECT es_revoke(r, k) FROM unnest('{regress_es_reader,regress_es_retention}'::regrole[]) r, unnest('{reader,writer,operator,retention,personal}'::text[]) k;
DROP FUNCTION code_of, decide, fails, on_failure, on_keyed, on_message, on_note;
DROP EXTENSION eventstore;
DROP ROLE regress_es_reader, regress_es_retention;
