-- es_reset: what it refuses, what it empties, and what it keeps
SET client_min_messages = warning;
CREATE EXTENSION eventstore;
\set VERBOSITY verbose
\set SHOW_CONTEXT never
CREATE FUNCTION said(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    message text;
    detail text;
    hint text;
BEGIN
    EXECUTE call;
    RETURN 'nothing';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN regexp_replace(replace(concat_ws(E'\n', SQLSTATE || ' ' || message, detail, hint), current_database(), 'DATABASE'),
                          '\d{15,}', 'TOKEN');
END $$;
\pset format unaligned
\pset tuples_only on
SELECT current_database() AS database, current_user AS superuser,
       format('dbname=%s options=''-c eventstore.test_mode=on''', current_database()) AS with_option \gset

-- the database must be one for tests; a value of the session or of a role does not make it one
SELECT said('SELECT es_reset()');
SET eventstore.test_mode = on;
SELECT said('SELECT es_reset()');
ALTER ROLE :"superuser" SET eventstore.test_mode = on;
\c
SELECT said('SELECT es_reset()');
ALTER ROLE :"superuser" RESET eventstore.test_mode;
\c :"with_option"
SHOW eventstore.test_mode;
SELECT said('SELECT es_reset()');
ALTER DATABASE :"database" SET eventstore.test_mode = on;
\c -reuse-previous=off :"database"
SET eventstore.test_mode = off;
SELECT said('SELECT es_reset()');
RESET eventstore.test_mode;
SELECT said('SELECT es_reset()');
CREATE ROLE regress_es_tester;
SET ROLE regress_es_tester;
SELECT said('SET eventstore.test_mode = on');
SELECT said('SELECT es_reset()');
RESET ROLE;

-- a store that is read only, a transaction with a snapshot of its own, a handler
SET client_min_messages = warning;
BEGIN READ ONLY;
SELECT said('SELECT es_reset()');
COMMIT;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT said('SELECT es_reset()');
COMMIT;
CREATE FUNCTION resets(event es_recorded_event) RETURNS void LANGUAGE sql AS 'SELECT es_reset()';
SELECT es_create_projection('resets', 'resets');
SELECT es_append('a-1', 'none', 'x');
SELECT es_run_projections('resets');
SELECT message FROM es_projections WHERE name = 'resets';
SELECT es_drop_projection('resets');

-- after an append of the same transaction; not if that was rolled back
BEGIN;
SELECT es_append('a-1', 1, 'x');
SELECT said('SELECT es_reset()');
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT es_append('a-1', 1, 'x');
ROLLBACK TO s;
SELECT es_reset();
SELECT count(*) FROM es_events;
ROLLBACK;
SELECT count(*) FROM es_events;

SET client_min_messages = error;
-- a published store: the log, another way to it
CREATE PUBLICATION regress_es_log FOR TABLE es_events;
SELECT said('SELECT es_reset()');
DROP PUBLICATION regress_es_log;
CREATE PUBLICATION regress_es_all FOR ALL TABLES;
SELECT said('SELECT es_reset()');
DROP PUBLICATION regress_es_all;
CREATE PUBLICATION regress_es_schema FOR TABLES IN SCHEMA public;
SELECT said('SELECT es_reset()');
DROP PUBLICATION regress_es_schema;
CREATE PUBLICATION regress_es_other FOR TABLE es_event_types;
SELECT es_reset();
DROP PUBLICATION regress_es_other;
SET client_min_messages = warning;

-- a closed store
CREATE POLICY es_closed ON es_events AS RESTRICTIVE USING (es_closed());
ALTER TABLE es_events ENABLE ROW LEVEL SECURITY;
SELECT said('SELECT es_reset()');
ALTER TABLE es_events DISABLE ROW LEVEL SECURITY;
DROP POLICY es_closed ON es_events;

-- a read model that another table refers to
CREATE TABLE model (stream text PRIMARY KEY, events bigint NOT NULL, nr bigint GENERATED ALWAYS AS IDENTITY);
CREATE TABLE refers (stream text REFERENCES model);
SELECT es_create_projection('model', tables => '{model}', query => $$
    INSERT INTO model (stream, events) SELECT stream, count(*) FROM new_events GROUP BY 1
    ON CONFLICT (stream) DO UPDATE SET events = model.events + excluded.events $$);
SELECT es_append('a-1', 'none', 'x');
SELECT said('SELECT es_reset()');
DROP TABLE refers;

-- The same work twice has the same answers, with the same positions, versions, ids of rows and
-- failures, whatever this session remembers of the first time.
CREATE TABLE at_once (position bigint);
SELECT es_create_projection('at_once', mode => 'sync', tables => '{at_once}', query => 'INSERT INTO at_once SELECT position FROM new_events');
CREATE MATERIALIZED VIEW streams AS SELECT count(DISTINCT stream) AS streams FROM es_events;
SELECT es_create_projection('streams', refresh => 'streams');
SELECT es_create_subscription('late', 'a', start_position => NULL, partitions => 9);
SELECT es_set_retention('b', max_count => 1);
SELECT es_define_event_type('opened', composite_key => '{name}', attributes => '{"name": "string"}');
SELECT es_define_event_type('joined', personal => '{name}');
CREATE FUNCTION on_payment(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql AS $$
    SELECT payload, NULL::timestamptz, 'paid', 'v1', 'payment-' || payload, NULL, '{payment}'::text[] $$;
CREATE PROCEDURE work() LANGUAGE plpgsql AS $$
BEGIN
    PERFORM es_append('a-' || n % 11, 'any', 'x', tags => CASE WHEN n % 11 <> 3 THEN ARRAY['n:' || n] END) FROM generate_series(1, 300) n;
    PERFORM es_append('b-1', 'any', 'y') FROM generate_series(1, 5);
    PERFORM es_append('c-1', 'none', 'opened', '{"name": "Ann"}');
    PERFORM es_append('person-' || n, 'none', 'joined', '{"name": "Ann"}') FROM generate_series(1, 2) n;
    PERFORM es_erase_subject('2');
    PERFORM es_state('a-1', 'es_merge'), es_snapshot('a-1', 'es_merge');
    PERFORM es_receive('payments', 'shop', n::text, 'on_payment(text, jsonb)') FROM generate_series(1, 3) n;
    PERFORM es_run_projections();
    PERFORM es_nack('late', d.token, d.position, 'no', 'park') FROM (SELECT * FROM es_poll('late', 'ann', 500) LIMIT 1) d;
    PERFORM es_ack('late', max(token)) FROM es_poll('late', 'ann', 500) HAVING count(*) > 0;
    PERFORM es_run_retention(force => true);
    PERFORM es_delete_stream('a-2', 'any'), es_truncate_stream('a-3', 5), es_compact_stream('a-4', 'es_merge');
    PERFORM es_archive_stream('a-5');
    PERFORM es_skip_event('model', 7);
    PERFORM es_run_projections();
END $$;
CREATE TABLE answers (run int, name text, answer text);
CREATE PROCEDURE answer(run int) LANGUAGE sql AS $$
    INSERT INTO answers
    SELECT run, 'log', string_agg(format('%s %s %s %s %s', position, version, stream, type, tags), '; ' ORDER BY position) FROM es_events
    UNION ALL SELECT run, 'horizon', es_horizon()::text
    UNION ALL SELECT run, 'load', string_agg(e.version || ' ' || e.type, ', ') FROM es_load('a-3') e
    UNION ALL SELECT run, 'deleted', string_agg(e.version || ' ' || e.type, ', ') FROM es_load('a-2') e
    UNION ALL SELECT run, 'query', string_agg(e.position::text, ', ') FROM es_query('[{"tags": ["n:7"]}]') e
    UNION ALL SELECT run, 'state', (es_state('a-1', 'es_merge')).version::text
    UNION ALL SELECT run, 'model', string_agg(m::text, ', ' ORDER BY nr) FROM model m
    UNION ALL SELECT run, 'at_once', count(*)::text FROM at_once
    UNION ALL SELECT run, 'streams', streams::text FROM streams
    UNION ALL SELECT run, 'projections', string_agg(format('%s %s %s %s', name, state, position, handled), ', ' ORDER BY name) FROM es_projections
    UNION ALL SELECT run, 'partitions', string_agg(format('%s %s %s', partition, position, reached), ', ' ORDER BY partition) FROM es_partitions
    UNION ALL SELECT run, 'failures', string_agg(format('%s %s %s', id, position, stream), ', ' ORDER BY id) FROM es_failures
    UNION ALL SELECT run, 'inbox', string_agg(format('%s %s', id, position), ', ' ORDER BY id) FROM es_inbox
    UNION ALL SELECT run, 'removals', string_agg(format('%s %s %s %s', id, action, stream, position), ', ' ORDER BY id) FROM es_removals
    UNION ALL SELECT run, 'persons', string_agg(e.data::text, ', ') FROM es_read_category('person') e
    UNION ALL SELECT run, 'keys', string_agg(format('%s %s', subject, key IS NOT NULL), ', ' ORDER BY subject) FROM es_subject_keys
    UNION ALL SELECT run, 'erasures', string_agg(subject, ', ') FROM es_erasures
    UNION ALL SELECT run, 'removed ids', count(*)::text FROM es_removed_ids
    UNION ALL SELECT run, 'archive', count(*)::text FROM es_archived_events
    UNION ALL SELECT run, 'snapshots', string_agg(format('%s %s %s', id, stream, version), ', ' ORDER BY id) FROM es_snapshots
    UNION ALL SELECT run, 'retention', string_agg(format('%s %s %s', category, removed, seen_position), ', ') FROM es_retention $$;
SELECT es_reset();
CALL work();
CALL answer(1);
SELECT es_incarnation() AS incarnation, max(token) AS token FROM es_partitions \gset
SELECT es_reset();

-- what is there now, and what is not
SELECT es_append('a-1', 'none', 'x');
SELECT es_reset();
SELECT count(*), es_horizon() FROM es_events;
SELECT count(*) FROM es_load('a-1');
SELECT (es_state('a-1', 'es_merge')).version;
SELECT count(*) FROM es_poll('late', 'ann');
SELECT count(*) FROM model;
SELECT count(*) FROM at_once;
SELECT streams FROM streams;
SELECT name, state, position, start_position, handled FROM es_projections ORDER BY name;
SELECT count(*), max(position), max(token), count(leased_until) FROM es_partitions;
SELECT category, max_count, removed FROM es_retention;
SELECT type FROM es_event_types ORDER BY type;
SELECT type, attributes FROM es_personal_attributes;
SELECT count(*) FROM es_subject_keys;
SELECT count(*) FROM es_erasures;
-- a position and a token from before are void
SELECT number, position, reason FROM es_incarnations;
SELECT es_position_valid(:'incarnation', 1), es_position_valid(es_incarnation(), 0), es_store_id() = es_incarnation() AS same;
SELECT said(format('SELECT es_ack(''late'', %s)', :token));

CALL work();
CALL answer(2);
SELECT name, one.answer IS NOT DISTINCT FROM two.answer AS same, length(one.answer) > 0 AS has
  FROM answers one JOIN answers two USING (name) WHERE one.run = 1 AND two.run = 2 ORDER BY name;
SELECT answer FROM answers WHERE name IN ('removals', 'failures', 'inbox') AND run = 2 ORDER BY name;

-- the same in one transaction with the reset, and one that is rolled back
BEGIN;
SELECT es_reset();
CALL work();
CALL answer(3);
COMMIT;
SELECT count(*) FROM answers one JOIN answers two USING (name) WHERE one.run = 1 AND two.run = 3 AND one.answer IS DISTINCT FROM two.answer;
SELECT count(*), max(position) FROM es_events \gset before_
BEGIN;
SELECT es_reset();
SELECT es_append('a-1', 'none', 'x');
ROLLBACK;
SELECT count(*) = :before_count, max(position) = :before_max FROM es_events;
SELECT (es_append('d-1', 'none', 'x')).position > :before_max;
SELECT count(*) FROM es_load('a-1');
-- twice in a transaction, with nothing between
BEGIN;
SELECT es_reset();
SELECT es_reset();
COMMIT;
SELECT count(*) FROM es_events;

-- a role that may execute it
GRANT EXECUTE ON FUNCTION es_reset() TO regress_es_tester;
SELECT es_append('a-1', 'none', 'x');
SET ROLE regress_es_tester;
SELECT es_reset();
RESET ROLE;
SELECT count(*) FROM es_events;
-- it does nothing with the rights of the log's owner but that: a read model's trigger has those of its owner
CREATE ROLE regress_es_modeller;
SELECT es_grant('regress_es_modeller', 'reader');
CREATE SCHEMA modelled AUTHORIZATION regress_es_modeller;
SELECT es_grant('regress_es_modeller', 'operator');
SET ROLE regress_es_modeller;
CREATE TABLE modelled.rows (position bigint);
CREATE TABLE modelled.who (name text);
CREATE FUNCTION modelled.tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO modelled.who VALUES (current_user); RETURN NULL; END $$;
CREATE TRIGGER tell BEFORE TRUNCATE ON modelled.rows FOR EACH STATEMENT EXECUTE FUNCTION modelled.tell();
SELECT es_create_projection('modelled', tables => '{modelled.rows}', query => 'INSERT INTO modelled.rows SELECT position FROM new_events');
RESET ROLE;
SELECT es_append('a-1', 'none', 'x');
SELECT es_run_projections('modelled');
SET ROLE regress_es_tester;
SELECT es_reset();
RESET ROLE;
SELECT name FROM modelled.who;
SELECT count(*) FROM modelled.rows;

-- nothing was ever appended: no incarnation begins
DROP EXTENSION eventstore CASCADE;
CREATE EXTENSION eventstore;
SELECT es_reset();
SELECT count(*) FROM es_incarnation_entries;

ALTER DATABASE :"database" RESET eventstore.test_mode;
DROP SCHEMA modelled CASCADE;
DROP FUNCTION said;
DROP PROCEDURE work, answer;
DROP TABLE model, at_once, answers;
DROP EXTENSION eventstore;
DROP OWNED BY regress_es_modeller;
DROP ROLE regress_es_tester, regress_es_modeller;
