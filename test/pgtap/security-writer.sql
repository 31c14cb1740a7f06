-- What neither a writer, nor a role that is reader, writer and operator, can do:
-- read what it may not, append around the version check, touch what belongs to
-- another role, run code as another role.
SET client_min_messages = warning;
SELECT plan(115);

CREATE ROLE es_test_writer;
CREATE ROLE es_test_all;
CREATE ROLE es_test_victim;
CREATE SCHEMA es_test_own AUTHORIZATION es_test_all;
CREATE SCHEMA es_test AUTHORIZATION es_test_victim;
GRANT USAGE ON SCHEMA es_test_own, es_test TO PUBLIC;
SELECT es_grant('es_test_writer', 'writer'), es_grant('es_test_victim', 'operator'), es_grant('es_test_victim', 'writer');
SELECT es_grant('es_test_all', kind) FROM unnest('{reader,writer,operator}'::text[]) kind;
SELECT es_append_batch('account-1', 'none', '{opened,deposited}', '{"{\"k\": 1, \"u\": \"a\"}","{\"k\": 2, \"u\": \"b\"}"}', ids => '{00000000-0000-0000-0000-0000000000a1,00000000-0000-0000-0000-0000000000a2}');
CREATE TEMP VIEW members AS
SELECT classid, objid
  FROM pg_depend
 WHERE deptype = 'e'
   AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'eventstore');

SET ROLE es_test_victim;
CREATE TABLE es_test.seen (position bigint);
CREATE FUNCTION es_test.note(event es_recorded_event) RETURNS void LANGUAGE sql AS 'INSERT INTO es_test.seen VALUES (event.position)';
CREATE FUNCTION es_test.fail(event es_recorded_event) RETURNS void LANGUAGE sql AS 'SELECT 1 / (event.position - event.position)';
CREATE FUNCTION es_test.decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql RETURN '[]'::jsonb;
CREATE FUNCTION es_test.hidden(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql RETURN state;
REVOKE EXECUTE ON FUNCTION es_test.hidden FROM PUBLIC;
SELECT es_create_projection('victims', 'es_test.note(es_recorded_event)', tables => '{es_test.seen}', start_position => 0);
SELECT es_create_projection('failing', 'es_test.fail(es_recorded_event)', on_failure => 'park', max_attempts => 1, start_position => 0);
SELECT es_run_projections();
SELECT es_create_subscription('victims', lease => '1 h');
SELECT count(*) FROM es_poll('victims', 'me');
RESET ROLE;
CREATE FUNCTION pg_temp.token() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT token FROM public.es_partitions WHERE subscription = ''victims''';
CREATE FUNCTION pg_temp.failure() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT min(id) FROM public.es_failures';

--
-- A writer
--
SET ROLE es_test_writer;
SELECT is((es_append('account-1', 2, 'closed')).version, 3::bigint, 'a writer appends');
SELECT lives_ok($$ INSERT INTO es_import (stream, type) VALUES ('order-1', 'placed') $$, 'and imports');
SELECT throws_ok(q, '42501', NULL, 'a writer does not: ' || q) FROM unnest(ARRAY[
    'SELECT * FROM es_events', 'SELECT count(*) FROM es_events', 'SELECT 1 FROM es_load(''account-1'')', 'SELECT * FROM es_load_backward(''account-1'')', 'SELECT * FROM es_read()',
    'SELECT * FROM es_read_category(''account'')', 'SELECT es_stream_version(''account-1'')', 'SELECT es_last_event(''account-1'')',
    'SELECT es_event(''00000000-0000-0000-0000-0000000000a1'')', 'SELECT es_state(''account-1'', ''es_last(jsonb, es_recorded_event)'')',
    'SELECT es_history(''account-1'', ''es_last(jsonb, es_recorded_event)'')', 'SELECT es_execute(''account-1'', ''es_test.decide(jsonb, jsonb)'', ''{}'', ''es_last(jsonb, es_recorded_event)'')',
    'SELECT es_poll(''victims'')', 'SELECT es_snapshot(''account-1'', ''es_last(jsonb, es_recorded_event)'')', 'SELECT * FROM es_import', 'SELECT * FROM es_inbox()',
    'SELECT * FROM es_failures', 'SELECT * FROM es_projection_status', 'SELECT last_value FROM es_position',
    'INSERT INTO es_import (stream, type) VALUES (''a'', ''x'') RETURNING *', 'SELECT es_create_projection(''p'', query => ''SELECT 1'')',
    'SELECT es_define_upcaster(''opened'', 1, NULL)', 'SELECT es_define_event_type(''opened'')', 'SELECT es_start_worker()',
    'SELECT es_define_personal_attributes(''opened'', ''{k}'')', 'SELECT es_sees_personal_data()', 'SELECT es_rotate_keys()', 'SELECT es_erase_subject(''1'')', 'SELECT * FROM es_subject_keys']) q;

--
-- A role that is all three: around the version check
--
SET ROLE es_test_all;
SELECT throws_ok(q, '42501', NULL, 'no role does: ' || q) FROM unnest(ARRAY[
    'INSERT INTO es_events SELECT * FROM es_events', 'INSERT INTO es_events DEFAULT VALUES', 'INSERT INTO es_events SELECT * FROM es_events ON CONFLICT DO NOTHING',
    'UPDATE es_events SET version = 7', 'DELETE FROM es_events', 'TRUNCATE es_events', 'SELECT nextval(''es_position'')', 'SELECT setval(''es_position'', 1)',
    'MERGE INTO es_events e USING es_events o ON e.position = o.position WHEN MATCHED THEN DELETE',
    'SELECT * FROM es_events FOR UPDATE', 'LOCK TABLE es_events IN SHARE MODE', 'SET session_replication_role = replica', 'SET eventstore.strict_types = on',
    'ALTER TABLE es_events DISABLE TRIGGER ALL', 'ALTER TABLE es_events DISABLE ROW LEVEL SECURITY', 'CREATE RULE r AS ON INSERT TO es_import DO INSTEAD NOTHING',
    'CREATE POLICY p ON es_events USING (true)', 'CREATE INDEX ON es_events (data)', 'CREATE STATISTICS es_test_own.s ON type, stream FROM es_events',
    'ALTER SEQUENCE es_position RESTART', 'CREATE TABLE es_test_own.child () INHERITS (es_events)', 'CREATE TABLE es_test_own.refers (p bigint REFERENCES es_events)',
    'CREATE TRIGGER t AFTER INSERT ON es_events FOR EACH ROW EXECUTE FUNCTION es_events_refuse()', 'UPDATE es_import SET type = ''x''', 'DELETE FROM es_import',
    'INSERT INTO es_snapshots (stream, reducer, version, taken_by, fingerprint, initial, recorded_at) VALUES (''a'', ''r'', 1, ''x'', 1, 1, now())',
    'UPDATE es_snapshots SET state = ''1''', 'UPDATE es_projections SET owner = ''x''', 'UPDATE es_upcasters SET owner = ''x''', 'UPDATE es_failures SET receiver = ''x''',
    'INSERT INTO es_event_types VALUES (1)', 'DELETE FROM es_personal_attributes', 'UPDATE es_subject_keys SET key = NULL', 'DELETE FROM es_erasures',
    'SELECT es_erase_subject(''1'')', 'SELECT es_sees_personal_data()', 'UPDATE es_partitions SET position = 0', 'UPDATE es_inbox SET position = 0', 'UPDATE es_subscriptions SET owner = ''x''',
    'ALTER EXTENSION eventstore DROP TABLE es_events', 'DROP EXTENSION eventstore', 'ALTER FUNCTION es_append_batch(text, es_expected_version, jsonb) RENAME TO x']) q;
SELECT throws_ok(v.q, v.code, NULL, v.q) FROM (VALUES
    ('42703', 'INSERT INTO es_import (stream, type, version) VALUES (''account-1'', ''x'', 1)'),
    ('22003', 'SELECT es_append(''account-1'', -3, ''x'')'),
    ('ES001', 'SELECT es_append(''account-1'', 1, ''x'')'),
    ('ES001', 'SELECT es_append(''account-1'', ''none'', ''x'')'),
    ('ES001', 'SELECT es_append_batch(''account-1'', 7, ''[]'')'),
    ('ES001', 'SELECT es_execute(''account-1'', ''es_test.decide(jsonb, jsonb)'', ''{}'', ''es_last(jsonb, es_recorded_event)'', expected => 1)')) v (code, q);
-- A view of its own on the import appends as the import does; one with the import's triggers cannot be made.
CREATE VIEW es_test_own.imports AS SELECT stream, type, data, metadata, id, occurred_at FROM es_import;
SELECT lives_ok($$ INSERT INTO es_test_own.imports (stream, type, data) VALUES ('account-1', 'imported', '{}') $$, 'a view on the import');
SELECT is(es_stream_version('account-1'), 4::bigint, 'appends at the next version');
CREATE VIEW es_test_own.other AS SELECT stream, type, data, metadata, id, occurred_at FROM es_events;
SELECT throws_ok($$ CREATE TRIGGER t INSTEAD OF INSERT ON es_test_own.other FOR EACH ROW EXECUTE FUNCTION es_import_row() $$, '42501', NULL, 'its trigger is for no other view');
SELECT throws_ok($$ INSERT INTO es_test_own.other (stream, type) VALUES ('a', 'x') $$, '42501', NULL, 'nor does one on the log take rows');
RESET ROLE;
SELECT results_eq('SELECT version FROM es_events WHERE stream = ''account-1'' ORDER BY 1', 'VALUES (1::bigint), (2), (3), (4)', 'the stream is whole');

--
-- What is another's
--
SET ROLE es_test_all;
SELECT throws_ok(q, '42501', NULL, 'no stranger does: ' || q) FROM unnest(ARRAY[
    'SELECT es_alter_projection(''victims'', batch_size => 1)',
    'SELECT es_drop_projection(''victims'')',
    'SELECT es_poll(''victims'', ''me'')', 'SELECT es_ack(''victims'', pg_temp.token())', 'SELECT es_nack(''victims'', pg_temp.token(), 1, ''x'')',
    'SELECT es_drop_subscription(''victims'')',
    'SELECT es_create_projection(''p'', query => ''SELECT 1'', tables => ''{es_test.seen}'')',
    'SELECT es_state(''account-1'', ''es_test.hidden(jsonb, es_recorded_event)'')', 'SELECT es_reducer(''es_test'')']) q;
SELECT throws_ok($$ SELECT es_create_projection('victims', query => 'SELECT 1') $$, '42710', NULL, 'nor takes its name');
SELECT throws_ok($$ SELECT es_create_subscription('victims') $$, '42710', NULL, 'or that of a subscription');
-- Names of the log's own triggers: no sync projection takes their place, or ends them.
SELECT throws_ok(format('SELECT es_create_projection(%L, query => %L, mode => %L, start_position => NULL)', t, 'SELECT 1 FROM new_events', 'sync'), '42710', NULL, t || ' is no projection')
  FROM unnest('{es_events_refuse,es_events_refuse_row,es_events_complete,es_events_tag}'::text[]) t;
RESET ROLE;
SELECT bag_eq($$ SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = 'es_events'::regclass AND NOT tgisinternal $$,
    $$ VALUES ('es_events_complete'::name, 'A'::"char"), ('es_events_refuse', 'A'), ('es_events_refuse_row', 'A'), ('es_events_tag', 'A') $$, 'the log''s triggers are as they were');

--
-- Code of this role that others call: it runs as this role, and gets no further.
-- Each function notes what it has tried.
--
SET ROLE es_test_all;
CREATE TABLE es_test_own.ran (what text, who name, said text);
GRANT INSERT ON es_test_own.ran TO PUBLIC;
CREATE TABLE es_test_own.later (n int);
CREATE TABLE es_test_own.model (n int);
CREATE FUNCTION es_test_own.deferred() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO es_test_own.ran VALUES ('deferred', current_user, 'did run');
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER later AFTER INSERT ON es_test_own.later DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION es_test_own.deferred();
CREATE FUNCTION es_test_own.spy(what text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE try text;
BEGIN
    FOREACH try IN ARRAY ARRAY['RESET ROLE', 'SET ROLE postgres', 'SET ROLE es_test_victim', 'RESET SESSION AUTHORIZATION', 'SET SESSION AUTHORIZATION DEFAULT',
        'SELECT set_config(''role'', ''none'', false)', 'ALTER ROLE es_test_all SUPERUSER', 'SELECT * FROM pg_authid', 'CREATE TEMP TABLE es_events (n int)',
        'CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (es_test_own.spied() = 1)', 'CREATE TYPE pg_temp.jsonb AS (n int)', 'CREATE TYPE pg_temp.jsonb AS ENUM (''a'')',
        'CREATE TYPE pg_temp.jsonb AS RANGE (SUBTYPE = int4)', 'CREATE TEMP VIEW es_projections AS SELECT 1', 'INSERT INTO es_test_own.later VALUES (1)', 'PREPARE es_test AS SELECT 1', 'LISTEN es_test',
        'DECLARE c CURSOR WITH HOLD FOR SELECT 1', 'INSERT INTO es_test.seen VALUES (1)', 'UPDATE es_events SET type = type', 'SET session_replication_role = replica']
    LOOP
        BEGIN
            EXECUTE try;
            INSERT INTO es_test_own.ran VALUES (what, current_user, 'did ' || try);
        EXCEPTION WHEN OTHERS THEN
            INSERT INTO es_test_own.ran VALUES (what, current_user, SQLSTATE);
        END;
    END LOOP;
    PERFORM set_config('search_path', 'es_test_own', false), set_config('work_mem', '99kB', false), set_config('eventstore.snapshot_every', '77', false);
END $$;
CREATE FUNCTION es_test_own.up(data jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    PERFORM es_test_own.spy('upcaster');
    RETURN data;
END $$;
CREATE FUNCTION es_test_own.handle(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM es_test_own.spy('handler'); END $$;
CREATE FUNCTION es_test_own.on_synced(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM es_test_own.spy('sync handler'); END $$;
CREATE FUNCTION es_test_own.receive(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM es_test_own.ran WHERE what = 'received') THEN
        RAISE 'not yet';
    END IF;
    PERFORM es_test_own.spy('receiver');
    RETURN NULL;
END $$;
CREATE FUNCTION es_test_own.spied() RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM es_test_own.spy('view'); RETURN 1; END $$;
CREATE MATERIALIZED VIEW es_test_own.view AS SELECT es_test_own.spied() AS one WITH NO DATA;
SELECT es_create_projection('handled', 'es_test_own.handle(es_recorded_event)', tables => '{es_test_own.model}', start_position => 0, batch_size => 1);
SELECT es_create_projection('queried', query => 'SELECT es_test_own.spy(''query'') FROM new_events', start_position => 0);
SELECT es_create_projection('viewed', refresh => 'es_test_own.view', start_position => 0);
SELECT es_create_projection('synced', handler_schema => 'es_test_own', types => '{synced}', mode => 'sync', start_position => NULL);
SELECT es_receive('t', 'g', 'fail', 'es_test_own.receive(text, jsonb)', max_retries => 0);
INSERT INTO es_test_own.ran VALUES ('received', current_user, 'ready');
SELECT es_define_upcaster('opened', 1, 'es_test_own.up(jsonb)');
RESET ROLE;

-- A superuser, and then another user, do what leads there.
CREATE TEMP TABLE has_pg_temp (n int);
CREATE FUNCTION pg_temp.use_all() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM * FROM es_load('account-1');
    PERFORM * FROM es_read();
    PERFORM es_upcast(e) FROM es_events e WHERE type = 'opened';
    PERFORM es_state('account-1', 'es_merge(jsonb, es_recorded_event)');
    PERFORM * FROM es_history('account-1', 'es_merge(jsonb, es_recorded_event)');
    PERFORM es_execute('account-1', 'es_test.decide(jsonb, jsonb)', '{}', 'es_merge(jsonb, es_recorded_event)');
    PERFORM es_append('account-1', 'any', 'synced');
    PERFORM es_run_projections();
END $$;
SET eventstore.snapshot_every = 0;
SELECT pg_temp.use_all();
SELECT es_create_subscription('mine');
SELECT count(*) FROM es_poll('mine');
SELECT es_retry(id) FROM es_failures WHERE topic IS NOT NULL;
SELECT es_rebuild_projection('handled');
SELECT is(current_setting('work_mem') <> '99kB' AND current_setting('search_path') !~ 'es_test_own' AND current_setting('eventstore.snapshot_every') = '0', true, 'no setting of the role was left to the superuser');
SET ROLE es_test_victim;
SELECT pg_temp.use_all();
RESET ROLE;
SELECT bag_eq('SELECT DISTINCT what FROM es_test_own.ran', $$ VALUES ('received'), ('upcaster'), ('handler'), ('query'), ('sync handler'), ('receiver'), ('view') $$, 'all of its code has run');
SELECT is_empty($$ SELECT DISTINCT * FROM es_test_own.ran WHERE who <> 'es_test_all' $$, 'each time as the role itself');
SELECT is_empty($$ SELECT DISTINCT * FROM es_test_own.ran WHERE said LIKE 'did %' $$, 'and nothing that it tried was done');
SELECT is((SELECT rolsuper FROM pg_roles WHERE rolname = 'es_test_all'), false, 'it is no superuser');
SELECT is_empty($$ SELECT * FROM pg_class WHERE relname = 'es_events' AND relnamespace <> 'public'::regnamespace $$, 'nothing named like ours was left');

-- As itself it may do anything with its own session.
SELECT es_drop_event_type('opened');

-- A snapshot that it has saved serves it alone, for a reducer of another role.
SET ROLE es_test_all;
SELECT es_snapshot('account-1', 'es_last(jsonb, es_recorded_event)');
RESET ROLE;
UPDATE es_snapshots SET state = '"other"';
SELECT isnt((es_state('account-1', 'es_last(jsonb, es_recorded_event)')).state, '"other"', 'no other role uses a snapshot that it has saved');
SET ROLE es_test_all;
SELECT is((es_state('account-1', 'es_last(jsonb, es_recorded_event)')).state, '"other"', 'but the role does');
SELECT es_drop_projection(name) FROM es_projections WHERE owner = 'es_test_all';
RESET ROLE;

-- A rebuild: its code on its tables does not get past triggers of others. The rows
-- of its table exchange what must be unique, and foreign keys act on them.
CREATE TABLE es_test.victim (n int);
CREATE TABLE es_test.audit (n int);
CREATE FUNCTION es_test.audit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN INSERT INTO es_test.audit VALUES (new.n); RETURN new; END $$;
CREATE TRIGGER audit BEFORE INSERT ON es_test.victim FOR EACH ROW EXECUTE FUNCTION es_test.audit();
GRANT INSERT ON es_test.victim TO es_test_all;
SET ROLE es_test_all;
SET search_path = es_test_own, public;
DROP TABLE model;
CREATE TABLE model (k text PRIMARY KEY, u text UNIQUE);
CREATE TABLE child (k text REFERENCES model ON DELETE CASCADE);
CREATE FUNCTION write() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO es_test.victim VALUES (1); RETURN NULL; END $$;
CREATE FUNCTION fill(event es_recorded_event) RETURNS void LANGUAGE sql AS $$ INSERT INTO model SELECT event.data->>'k', event.data->>'u' WHERE event.data ? 'u' $$;
SELECT es_create_projection('model', 'fill(es_recorded_event)', tables => '{model}', start_position => 0);
SELECT es_run_projections('model');
INSERT INTO child SELECT k FROM model;
UPDATE model SET u = 'c' WHERE k = '1';
UPDATE model SET u = 'a' WHERE k = '2';
UPDATE model SET u = 'b' WHERE k = '1';
CREATE TRIGGER write AFTER INSERT OR UPDATE ON model FOR EACH ROW EXECUTE FUNCTION write();
ALTER TABLE model ENABLE ALWAYS TRIGGER write;
SELECT cmp_ok(es_rebuild_projection('model'), '>', 0::bigint, 'a rebuild of rows that have exchanged their keys');
SELECT bag_eq('SELECT k, u FROM model', $$ VALUES ('1', 'a'), ('2', 'b') $$, 'makes them as they should be');
SELECT is((SELECT count(*) FROM child), 2::bigint, 'and foreign keys have deleted nothing');
RESET ROLE;
RESET search_path;
SELECT isnt_empty('SELECT * FROM es_test.victim', 'its trigger has written to another role''s table');
SELECT is((SELECT count(*) FROM es_test.audit), (SELECT count(*) FROM es_test.victim), 'whose own trigger was not passed by');

--
-- No right that none of the kinds should have
--
SELECT is_empty($$ SELECT c.oid::regclass, p FROM members JOIN pg_class c ON classid = 'pg_class'::regclass AND c.oid = objid, unnest('{UPDATE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) p
    WHERE CASE WHEN c.relkind IN ('r', 'v') THEN has_table_privilege('es_test_all', c.oid, p) END $$, 'only the owner changes tables');
SELECT is_empty($$ SELECT c.oid::regclass FROM members JOIN pg_class c ON classid = 'pg_class'::regclass AND c.oid = objid
    WHERE CASE c.relkind WHEN 'S' THEN has_sequence_privilege('es_test_all', c.oid, 'USAGE, UPDATE') END $$, 'nor a sequence');

SELECT * FROM finish();
DROP EXTENSION eventstore CASCADE;
DROP SCHEMA es_test, es_test_own CASCADE;
DROP OWNED BY es_test_all, es_test_writer, es_test_victim;
DROP ROLE es_test_all, es_test_writer, es_test_victim;
CREATE EXTENSION eventstore;
