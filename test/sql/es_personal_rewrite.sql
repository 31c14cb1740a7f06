-- es_rewrite of an event with personal attributes: with its schema version; and where no key opens what is stored.
CREATE EXTENSION eventstore;
\set SHOW_CONTEXT never
CREATE FUNCTION code_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ': ' || SQLERRM;
END $$;
CREATE FUNCTION rewrite(n int, data jsonb, metadata jsonb DEFAULT NULL, version int DEFAULT NULL) RETURNS text LANGUAGE sql AS $$
    SELECT coalesce(code_of(format('SELECT es_rewrite(id, %L, %L, %L) FROM es_events WHERE stream = %L', data, metadata, version, 'person-' || n)), 'rewritten') $$;
CREATE VIEW seen AS SELECT stream, data, metadata FROM es_read() WHERE type NOT LIKE 'es\_%';
SELECT es_define_event_type('named', personal => '{name,mail}');
SELECT es_append('person-1', 'none', 'named', '{"name": "Ann", "mail": "a@x"}', '{"user": 1}') IS NOT NULL AS appended;

-- With the version, the stored metadata stay.
SELECT rewrite(1, '{"name": "Anna", "mail": "a@x"}', version => 1);
SELECT * FROM seen;
SELECT rewrite(1, '{"mail": "a@x"}', version => 1);
SELECT * FROM seen;
SELECT rewrite(1, '{"plan": "gold"}', version => 1);
SELECT * FROM seen;
SELECT metadata FROM es_events;
SELECT rewrite(1, '{"name": "Ann"}', version => 2);

-- An event that readers get upcast needs it.
CREATE FUNCTION mail_of(data jsonb) RETURNS jsonb LANGUAGE sql RETURN data - 'mail' || jsonb_build_object('address', data->'mail');
SELECT es_append('person-2', 'none', 'named', '{"name": "Bob", "mail": "b@x"}') IS NOT NULL AS appended;
SELECT es_define_event_type('named', schema_version => 2, personal => '{name,address}');
SELECT es_define_upcaster('named', 1, 'mail_of');
SELECT rewrite(2, '{"name": "Rob", "address": "r@x"}');
SELECT rewrite(2, '{"name": "Rob", "mail": "r@x"}', version => 1);
SELECT rewrite(2, '{"name": "Rob", "address": "r@x"}', version => 2);
SELECT * FROM seen WHERE stream = 'person-2';
SELECT data, metadata - '$personal' AS metadata, metadata ? '$personal' AS sealed FROM es_events WHERE stream = 'person-2';

-- Where the key cannot be unwrapped, nulls do not take the place of what is encrypted.
SELECT es_define_event_type('sent', personal => '{sender}', subject => 'from');
SELECT es_define_personal_attributes('sent', '{recipient}', subject => 'to');
SELECT es_append('person-3', 'none', 'sent', '{"from": 3, "sender": "Cid", "to": 4, "recipient": "Dan"}') IS NOT NULL AS appended;
BEGIN;
UPDATE es_subject_keys SET key_encryption_key = 'ffffffffffffffff' WHERE subject IN ('2', '3');
SELECT * FROM seen WHERE stream IN ('person-2', 'person-3');
SELECT rewrite(2, '{"name": null, "address": null, "plan": "gold"}', version => 2);
SELECT rewrite(2, '{"name": "Bob", "address": null}', version => 2);
SELECT rewrite(3, '{"from": 3, "sender": null, "to": 4, "recipient": "Dana"}');
SELECT rewrite(3, '{"from": 3, "sender": "Cid", "to": 4, "recipient": "Dana"}');
ROLLBACK;
-- Nor do they take the place of what is damaged.
BEGIN;
UPDATE es_subject_keys SET key = k.key, key_encryption_key = k.key_encryption_key FROM es_subject_keys k WHERE es_subject_keys.subject = '3' AND k.subject = '4';
SELECT data, metadata FROM seen WHERE stream = 'person-3';
SELECT rewrite(3, '{"from": 3, "to": 4, "recipient": "Dana"}');
ROLLBACK;
-- What was erased is null for everybody, and may be null.
SELECT count(*) > 0 AS erased FROM es_erase_subject('3');
SELECT rewrite(3, '{"from": 3, "sender": null, "to": 4, "recipient": "Dana"}');
SELECT data, metadata FROM seen WHERE stream = 'person-3';

-- An event that was stored before its type was defined so, and one that is about another person now.
SELECT es_append('person-5', 'none', 'called', '{"name": "Eve", "plan": "gold"}', tags => '{vip}') IS NOT NULL AS appended,
       es_append('person-6', 'none', 'called', '{"name": "Fay"}') IS NOT NULL AS another;
SELECT es_define_event_type('called', personal => '{name}', subject => 'who');
SELECT es_define_event_type('called', personal => '{}', subject => 'who'), es_define_event_type('called', personal => '{name}');
SELECT data, metadata, tags FROM es_events WHERE stream = 'person-5';
SELECT rewrite(5, data) FROM es_load('person-5');
SELECT data, metadata ? '$personal' AS sealed, tags FROM es_events WHERE stream = 'person-5';
SELECT stream, data FROM es_query('[{"tags": ["es_subject:5"]}]');
SELECT stream, data FROM es_query('[{"tags": ["vip"], "types": ["called"]}]');
SELECT added, removed FROM es_reindex_tags();
SELECT rewrite(5, '{"name": "Eva"}');
SELECT data, metadata, tags FROM es_load('person-5');
SELECT count(*) > 0 AS erased FROM es_erase_subject('5');
SELECT data, metadata FROM es_load('person-5');
SELECT rewrite(3, '{"from": 7, "sender": "Gus", "to": 4, "recipient": "Dana"}');
SELECT data, tags FROM es_load('person-3');
SELECT rewrite(6, '{"name": "Fay"}');
SELECT count(*) > 0 AS erased FROM es_erase_subject('8');
SELECT rewrite(3, '{"from": 8, "sender": "Hal"}');
SELECT tags FROM es_load('person-3');
SELECT count(*) FROM es_tags WHERE tag = 'es_subject:8' AND type <> 'es_subject_erased';

DROP VIEW seen;
DROP FUNCTION code_of, rewrite, mail_of;
DROP EXTENSION eventstore;
