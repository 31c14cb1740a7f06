-- es_health: keys of persons that no key file opens, and what keeps sessions from using keys that are
-- gone.  Key files that cannot be used, and rotation: t/154_personal_health.pl.
SET client_min_messages = error;
CREATE SCHEMA es;
CREATE EXTENSION eventstore SCHEMA es;
SET search_path = public, es;
SET eventstore.health_delay = 0;
CREATE ROLE es_health_reader;
CREATE ROLE es_health_monitor IN ROLE pg_read_all_stats;
SELECT es_grant('es_health_reader', 'reader');
GRANT USAGE ON SCHEMA es TO es_health_monitor;
GRANT SELECT ON es_health TO es_health_monitor;
GRANT EXECUTE ON FUNCTION es_health() TO es_health_monitor;
CREATE VIEW found AS SELECT urgency, problem, object, message, remedy FROM es_health WHERE problem <> 'worker_missing' ORDER BY urgency, problem, es_health.object;
GRANT SELECT ON found TO es_health_reader;
\x
SELECT * FROM found;
SELECT es_define_event_type('registered', personal => '{name}');
SELECT count(es_append('person-' || n, 'none', 'registered', '{"name": "Ann"}')) FROM generate_series(1, 3) n;
SELECT * FROM found;

--
-- Keys that no file opens: one, some, many
--
UPDATE es_subject_keys SET key_encryption_key = '00000000000000aa' WHERE subject = '1';
UPDATE es_subject_keys SET key_encryption_key = 'ffffffffffffffff' WHERE subject IN ('2', '3');
SELECT * FROM found;
-- a role that may not see failures sees none of it; one that watches the server does
SET ROLE es_health_reader;
SELECT * FROM es_health;
SET ROLE es_health_monitor;
SELECT problem, object, since, remedy_by FROM es_health WHERE problem <> 'worker_missing';
SELECT * FROM es_subject_keys;
RESET ROLE;
-- a person who was erased needs no file
SELECT count(*) > 0 AS erased FROM es_erase_subject('1');
SELECT object, message FROM found;
-- without a definition, too
SELECT es_define_event_type('registered', personal => '{}');
SELECT urgency, object FROM found;
SELECT count(*) > 0 AS erased FROM es_erase_subject('2') a, es_erase_subject('3') b;
SELECT * FROM found;
-- Many keys are counted to a hundred, and none is read that is not counted, however rare the other
-- key-encryption key is.
INSERT INTO es_subject_keys (subject, key, key_encryption_key)
    SELECT 's' || n, '', CASE WHEN n > 19990 THEN 'ffffffffffffffff' ELSE '00000000000000aa' END FROM generate_series(1, 20000) n;
ANALYZE es_subject_keys;
BEGIN;
SELECT object, split_part(message, ' wrapped', 1) AS keys FROM found;
SELECT seq_tup_read, idx_tup_fetch < 500 AS few FROM pg_stat_xact_user_tables WHERE relid = 'es_subject_keys'::regclass;
COMMIT;
DELETE FROM es_subject_keys WHERE key IS NOT NULL;
SELECT * FROM found;
-- A hundred key-encryption keys are looked at.
INSERT INTO es_subject_keys (subject, key, key_encryption_key) SELECT n, '', 'f' || n FROM generate_series(1001, 1200) n;
SELECT count(*) FROM found;
DELETE FROM es_subject_keys WHERE key IS NOT NULL;

--
-- What tells sessions of keys and definitions that have changed
--
ALTER TABLE es_subject_keys DISABLE TRIGGER es_subject_keys_changed;
ALTER TABLE es_personal_attributes ENABLE REPLICA TRIGGER es_event_types_changed;
ALTER TABLE es_personal_attributes DISABLE TRIGGER es_event_types_changed_row;
SELECT * FROM found;
SELECT remedy FROM found \gexec
SELECT * FROM found;
DROP TRIGGER es_subject_keys_changed ON es_subject_keys;
SELECT * FROM found;
SELECT remedy FROM found \gexec
SELECT object, remedy FROM found;
SELECT remedy FROM found \gexec
SELECT * FROM found;
-- and what a crash would empty
ALTER TABLE es_erasures SET UNLOGGED;
ALTER TABLE es_personal_attributes SET UNLOGGED;
ALTER TABLE es_subject_keys SET UNLOGGED;
SELECT * FROM found;
SELECT remedy FROM found \gexec
SELECT * FROM found;
\x
DROP VIEW found;
DROP EXTENSION eventstore;
REVOKE ALL ON SCHEMA es FROM es_health_reader, es_health_monitor;
DROP SCHEMA es;
DROP ROLE es_health_reader, es_health_monitor;
