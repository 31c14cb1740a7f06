-- Who may do what before anything is granted, and what single grants give.
BEGIN;
SELECT plan(157);

CREATE TEMP VIEW members AS
SELECT classid, objid
  FROM pg_depend
 WHERE deptype = 'e'
   AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'eventstore');

--
-- As it is created
--
SELECT is_empty(
    $$ SELECT c.oid::regclass, a.grantee::regrole, a.privilege_type
         FROM members m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid,
              aclexplode(c.relacl) a
        WHERE a.grantee <> c.relowner $$,
    'nobody but the owner has any right on a table, view or sequence');
SELECT is_empty(
    $$ SELECT attname FROM pg_attribute
        WHERE attrelid IN (SELECT objid FROM members WHERE classid = 'pg_class'::regclass) AND attacl IS NOT NULL $$,
    'nor on a column');

-- A role that may call a trigger's function may fire it from a view of its own,
-- with rows that are not those of es_import.
SELECT bag_eq(
    $$ SELECT p.oid::regprocedure::text
         FROM members m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid
        WHERE NOT EXISTS (
              SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
               WHERE a.grantee = 0) $$,
    $$ VALUES ('es_append(text,es_expected_version,text,jsonb,jsonb,uuid,timestamp with time zone,text[],bytea)'),
              ('es_append_batch(text,es_expected_version,jsonb)'), ('es_append_if(jsonb,jsonb,bigint)'),
              ('es_append_batch(text,es_expected_version,text[],jsonb[],jsonb[],uuid[],timestamp with time zone[],jsonb[],bytea[])'),
              ('es_index_attribute(text,text)'), ('es_index_type(text)'),
              ('es_rewrite(uuid,jsonb,jsonb,bigint)'),
              ('es_delete_stream(text,es_expected_version,boolean,jsonb)'), ('es_truncate_stream(text,bigint,jsonb)'), ('es_removals_changed()'),
              ('es_set_retention(text,interval,bigint,interval)'), ('es_run_retention(text,boolean,boolean)'),
              ('es_remove_foreign_streams(bigint,boolean,boolean)'),
              ('es_start_worker()'),
              ('es_stats()'),
              ('es_health()'),
              ('es_definitions()'), ('es_definitions_baseline()'), ('es_definitions_arrive(es_definitions)'), ('es_definitions_close()'),
              ('es_definitions_replay()'), ('es_definitions_altered()'), ('es_finish_restore(boolean)'), ('es_reset()'), ('es_promote()'), ('es_published_horizon_applied()'),
              ('es_source_positions(jsonb,text[],text[],bigint,bigint,bigint)'),
              ('es_health_external(text)'),
              ('es_health_path(text)'),
              ('es_health_grant(oid,text,oid[],text,text,text)'),
              ('es_health_settings(text,text[],text,text)'),
              ('es_health_reach(oid,text,oid)'),
              ('es_health_types()'),
              ('es_health_log()'),
              ('es_health_personal(interval)'), ('es_health_key_file()'), ('es_health_other_key_files()'), ('es_health_has_key(text)'),
              ('es_health_horizon(interval)'),
              ('es_health_projections(interval)'),
              ('es_health_subscriptions(interval)'),
              ('es_health_inbox()'), ('es_health_retention(interval)'), ('es_health_replica(interval)'),
              ('es_horizon_holders()'),
              ('es_inbox_stats()'),
              ('es_stats_reset()'),
              ('es_import_row()'),
              ('es_import_flush()'),
              ('es_events_complete()'),
              ('es_events_accept()'), ('es_set_slots(int4multirange)'), ('es_events_refuse()'), ('es_events_tag()'), ('es_reindex_tags()'),
              ('es_guard_drop()'),
              ('es_create_projection(text,es_function,text,regnamespace,regclass,regclass[],es_categories,text[],text,bigint,bigint,text,bigint,interval,jsonb)'),
              ('es_alter_projection(text,text,bigint,text,bigint,interval,es_function,text,regnamespace,es_categories,text[],bigint,boolean,boolean,jsonb,boolean)'),
              ('es_drop_projection(text)'),
              ('es_pause_projection(text)'), ('es_rename_projection(text,text)'), ('es_rename_subscription(text,text)'),
              ('es_alter_subscription(text,es_categories,text[],interval,bigint,bigint,boolean,boolean,jsonb,boolean)'),
              ('es_resume_projection(text)'),
              ('es_rebuild_projection(text,boolean)'), ('es_compact_stream(text,es_function,bigint,jsonb,jsonb,boolean)'), ('es_archive_stream(text,jsonb)'), ('es_archive(text,interval,bigint)'), ('es_unarchive_stream(text)'),
              ('es_run_projections(text,bigint)'),
              ('es_work(boolean)'),
              ('es_wait(text,bigint,interval)'),
              ('es_receive(text,text,text,es_function,jsonb,bigint,bigint,text)'),
              ('es_create_subscription(text,es_categories,text[],bigint,bigint,interval,bigint,bigint,jsonb)'),
              ('es_drop_subscription(text)'),
              ('es_seek(text,bigint)'),
              ('es_poll(text,text,bigint,interval,bigint,bigint)'),
              ('es_ack(text,bigint,bigint)'),
              ('es_nack(text,bigint,bigint,text,text)'),
              ('es_define_event_type(text,text[],text[],jsonb,bigint,text,text,text[],text)'),
              ('es_define_personal_attributes(text,text[],text,text)'), ('es_sees_personal_data()'), ('es_personal_hash(text,text)'),
              ('es_rotate_keys(bigint)'), ('es_subject_keys_changed()'),
              ('es_erase(text,text,timestamp with time zone)'), ('es_erase_subject(text,text)'), ('es_erasure_report(text)'),
              ('es_replay_erasure(text,timestamp with time zone,text)'),
              ('es_drop_event_type(text,text)'),
              ('es_describe_event_type(text,text)'),
              ('es_define_upcaster(text,bigint,es_function,text)'),
              ('es_event_types_changed()'),
              ('es_retry(bigint)'),
              ('es_snapshot(text,es_function,jsonb)'),
              ('es_reducer(regnamespace)'),
              ('es_execute(text,es_function,jsonb,es_function,jsonb,es_expected_version,jsonb)'),
              ('es_decide(jsonb,es_function,jsonb,es_function,jsonb,jsonb)'),
              ('es_test_decider(es_function,es_function,jsonb,jsonb,jsonb,text)'),
              ('es_discard(bigint)'),
              ('es_skip_event(text,bigint,text)'),
              ('es_unskip_event(text,bigint)'),
              ('es_grant(regrole,text)'),
              ('es_revoke(regrole,text)'),
              ('es_projection_sync()'),
              ('es_projection_restore()') $$,
    'PUBLIC may not call the functions that write, wait, start processes, tell of types, definitions or counters or are of triggers, and may call all others');

--
-- A role without rights
--
CREATE ROLE es_test_nobody;
CREATE SCHEMA es_test AUTHORIZATION es_test_nobody;
SELECT es_append('account-1', 'none', 'opened', id => '00000000-0000-0000-0000-000000000001');

SET LOCAL ROLE es_test_nobody;
SELECT throws_ok($$ SELECT es_append('account-1', 'any', 'x') $$, '42501', NULL, 'nobody: es_append');
SELECT throws_ok($$ SELECT es_append_batch('account-1', 'any', '[]') $$, '42501', NULL, 'nobody: es_append_batch of objects');
SELECT throws_ok($$ SELECT es_append_batch('account-1', 'any', '{}', '{}') $$, '42501', NULL, 'nobody: es_append_batch of arrays');
SELECT throws_ok($$ INSERT INTO es_import (stream, type) VALUES ('account-1', 'x') $$, '42501', NULL, 'nobody: es_import');
SELECT throws_ok($$ INSERT INTO es_import_log (position, version, recorded_at, stream, type) VALUES (1000, 1, now(), 'account-1', 'x') $$, '42501', NULL, 'nobody: es_import_log');
SELECT throws_ok($$ INSERT INTO es_events SELECT * FROM es_events $$, '42501', NULL, 'nobody: INSERT');
SELECT throws_ok('UPDATE es_events SET type = type', '42501', NULL, 'nobody: UPDATE');
SELECT throws_ok('DELETE FROM es_events', '42501', NULL, 'nobody: DELETE');
SELECT throws_ok('TRUNCATE es_events', '42501', NULL, 'nobody: TRUNCATE');
SELECT throws_ok($$ SELECT nextval('es_position') $$, '42501', NULL, 'nobody: nextval');
SELECT throws_ok('SELECT last_value FROM es_position', '42501', NULL, 'nobody: the sequence''s value');
SELECT throws_ok('SELECT * FROM es_read()', '42501', NULL, 'nobody: es_read');
SELECT throws_ok($$ SELECT es_stream_version('account-1') $$, '42501', NULL, 'nobody: es_stream_version');
SELECT throws_ok($$ SELECT es_index_attribute('t', 'a') $$, '42501', NULL, 'nobody: es_index_attribute');
SELECT throws_ok($$ SELECT es_index_type('t') $$, '42501', NULL, 'nobody: es_index_type');
SELECT throws_ok($$ SELECT * FROM es_read(0, 1, '[{}]') $$, '42501', NULL, 'nobody: es_read with a query');
SELECT throws_ok($$ SELECT es_matching_positions('[{}]', 0, 1) $$, '42501', NULL, 'nobody: es_matching_positions');
SELECT is(es_by_query(2, '[{}]', '{1,2}'), true, 'nobody: es_by_query');
SELECT is(es_attribute('{"a": 1}', 'a'), '1', 'nobody: es_attribute');
SELECT is(es_by_index('a', 'b'), false, 'nobody: es_by_index');
SELECT is(es_by_version(1, 1, 2), false, 'nobody: es_by_version');
SELECT throws_ok($$ SELECT es_rewrite('00000000-0000-0000-0000-000000000001', '{}') $$, '42501', NULL, 'nobody: es_rewrite');
SELECT throws_ok($$ SELECT es_delete_stream('account-1', 'any') $$, '42501', NULL, 'nobody: es_delete_stream');
SELECT throws_ok($$ SELECT es_truncate_stream('account-1', 2) $$, '42501', NULL, 'nobody: es_truncate_stream');
SELECT throws_ok('SELECT * FROM es_removals', '42501', NULL, 'nobody: es_removals');
SELECT throws_ok($$ SELECT es_compact_stream('account-1', 'es_merge') $$, '42501', NULL, 'nobody: es_compact_stream');
SELECT throws_ok($$ SELECT es_archive_stream('account-1') $$, '42501', NULL, 'nobody: es_archive_stream');
SELECT throws_ok($$ SELECT es_archive('account', '1 day') $$, '42501', NULL, 'nobody: es_archive');
SELECT throws_ok($$ SELECT es_unarchive_stream('account-1') $$, '42501', NULL, 'nobody: es_unarchive_stream');
SELECT throws_ok($$ SELECT * FROM es_load_archived('account-1') $$, '42501', NULL, 'nobody: es_load_archived');
SELECT throws_ok('SELECT * FROM es_archived_events', '42501', NULL, 'nobody: es_archived_events');
SELECT throws_ok('SELECT * FROM es_all_events', '42501', NULL, 'nobody: es_all_events');
SELECT throws_ok($$ SELECT es_set_retention('account', max_count => 1) $$, '42501', NULL, 'nobody: es_set_retention');
SELECT throws_ok('SELECT * FROM es_run_retention()', '42501', NULL, 'nobody: es_run_retention');
SELECT throws_ok('SELECT * FROM es_remove_foreign_streams()', '42501', NULL, 'nobody: es_remove_foreign_streams');
SELECT throws_ok('SELECT * FROM es_retention', '42501', NULL, 'nobody: es_retention');
SELECT throws_ok('SELECT * FROM es_retention_status', '42501', NULL, 'nobody: es_retention_status');
SELECT throws_ok('SELECT * FROM es_removed_ids', '42501', NULL, 'nobody: es_removed_ids');
SELECT is(es_kept_after('account-1', 1), 1::bigint, 'nobody: es_kept_after');
SELECT throws_ok('SELECT es_start_worker()', '42501', NULL, 'nobody: es_start_worker');
SELECT throws_ok('SELECT * FROM es_stats', '42501', NULL, 'nobody: es_stats');
SELECT throws_ok('SELECT * FROM es_stats()', '42501', NULL, 'nobody: the function of es_stats');
SELECT throws_ok('SELECT * FROM es_inbox_stats', '42501', NULL, 'nobody: es_inbox_stats');
SELECT throws_ok('SELECT es_stats_reset()', '42501', NULL, 'nobody: es_stats_reset');
SELECT throws_ok('SELECT * FROM es_notified', '42501', NULL, 'nobody: es_notified');
SELECT throws_ok('SELECT * FROM es_rewrites', '42501', NULL, 'nobody: es_rewrites');
SELECT throws_ok('SELECT * FROM es_tags', '42501', NULL, 'nobody: es_tags');
SELECT throws_ok($$ SELECT es_append_if('[{}]', '[{}]') $$, '42501', NULL, 'nobody: es_append_if');
SELECT throws_ok($$ SELECT es_query('[{}]') $$, '42501', NULL, 'nobody: es_query');
SELECT throws_ok('SELECT es_reindex_tags()', '42501', NULL, 'nobody: es_reindex_tags');
SELECT throws_ok($$ SELECT es_set_slots('{}') $$, '42501', NULL, 'nobody: es_set_slots');
SELECT is(es_slots(), NULL, 'nobody: es_slots');
SELECT throws_ok('SELECT * FROM es_incarnations', '42501', NULL, 'nobody: es_incarnations');
SELECT throws_ok('SELECT * FROM es_incarnation_entries', '42501', NULL, 'nobody: es_incarnation_entries');
SELECT throws_ok('SELECT * FROM es_identity', '42501', NULL, 'nobody: es_identity');
SELECT throws_ok('SELECT * FROM es_user_definitions', '42501', NULL, 'nobody: es_user_definitions');
SELECT throws_ok('SELECT es_finish_restore()', '42501', NULL, 'nobody: es_finish_restore');
SELECT throws_ok('SELECT es_reset()', '42501', NULL, 'nobody: es_reset');
SELECT throws_ok('SELECT es_promote()', '42501', NULL, 'nobody: es_promote');
SELECT throws_ok('SELECT * FROM es_published_horizon', '42501', NULL, 'nobody: es_published_horizon');

SELECT throws_ok($$ SELECT es_create_projection('p', query => 'SELECT 1') $$, '42501', NULL, 'nobody: es_create_projection');
SELECT throws_ok($$ SELECT es_alter_projection('p') $$, '42501', NULL, 'nobody: es_alter_projection');
SELECT throws_ok($$ SELECT es_drop_projection('p') $$, '42501', NULL, 'nobody: es_drop_projection');
SELECT throws_ok($$ SELECT es_pause_projection('p') $$, '42501', NULL, 'nobody: es_pause_projection');
SELECT throws_ok($$ SELECT es_rename_projection('p', 'q') $$, '42501', NULL, 'nobody: es_rename_projection');
SELECT throws_ok($$ SELECT es_rename_subscription('s', 't') $$, '42501', NULL, 'nobody: es_rename_subscription');
SELECT throws_ok($$ SELECT es_alter_subscription('s') $$, '42501', NULL, 'nobody: es_alter_subscription');
SELECT throws_ok($$ SELECT es_resume_projection('p') $$, '42501', NULL, 'nobody: es_resume_projection');
SELECT throws_ok($$ SELECT es_rebuild_projection('p') $$, '42501', NULL, 'nobody: es_rebuild_projection');
SELECT throws_ok($$ SELECT es_run_projections() $$, '42501', NULL, 'nobody: es_run_projections');
SELECT throws_ok($$ CALL es_work() $$, '42501', NULL, 'nobody: es_work');
SELECT throws_ok($$ SELECT es_wait('p', 1) $$, '42501', NULL, 'nobody: es_wait');
SELECT throws_ok($$ SELECT es_create_subscription('s') $$, '42501', NULL, 'nobody: es_create_subscription');
SELECT throws_ok($$ SELECT es_drop_subscription('s') $$, '42501', NULL, 'nobody: es_drop_subscription');
SELECT throws_ok($$ SELECT es_seek('s', 0) $$, '42501', NULL, 'nobody: es_seek');
SELECT throws_ok($$ SELECT es_poll('s') $$, '42501', NULL, 'nobody: es_poll');
SELECT throws_ok($$ SELECT es_ack('s', 1) $$, '42501', NULL, 'nobody: es_ack');
SELECT throws_ok($$ SELECT es_nack('s', 1, 1, 'no') $$, '42501', NULL, 'nobody: es_nack');
SELECT throws_ok('SELECT * FROM es_subscriptions', '42501', NULL, 'nobody: the table of subscriptions');
SELECT throws_ok('SELECT * FROM es_partitions', '42501', NULL, 'nobody: the table of partitions');
SELECT throws_ok('SELECT * FROM es_subscription_status', '42501', NULL, 'nobody: the status of subscriptions');
SELECT is(es_partition('account-1', 1), 0, 'nobody: es_partition');
SELECT throws_ok($$ SELECT es_retry(1) $$, '42501', NULL, 'nobody: es_retry');
SELECT throws_ok($$ SELECT es_discard(1) $$, '42501', NULL, 'nobody: es_discard');
SELECT throws_ok($$ SELECT es_skip_event('p', 1) $$, '42501', NULL, 'nobody: es_skip_event');
SELECT throws_ok($$ SELECT es_unskip_event('p', 1) $$, '42501', NULL, 'nobody: es_unskip_event');
SELECT throws_ok('SELECT * FROM es_skipped_events', '42501', NULL, 'nobody: the table of skipped events');
SELECT throws_ok($$ SELECT es_receive('t', 'g', 'p', 'es_category(text)') $$, '42501', NULL, 'nobody: es_receive');
SELECT throws_ok($$ SELECT es_define_event_type('t') $$, '42501', NULL, 'nobody: es_define_event_type');
SELECT throws_ok($$ SELECT es_drop_event_type('t') $$, '42501', NULL, 'nobody: es_drop_event_type');
SELECT throws_ok($$ SELECT es_describe_event_type('t') $$, '42501', NULL, 'nobody: es_describe_event_type');
SELECT throws_ok($$ SELECT es_define_upcaster('t', 1, NULL) $$, '42501', NULL, 'nobody: es_define_upcaster');
SELECT throws_ok('SELECT * FROM es_event_types', '42501', NULL, 'nobody: the table of types');
SELECT throws_ok('SELECT * FROM es_upcasters', '42501', NULL, 'nobody: the table of upcasters');
SELECT throws_ok($$ SELECT es_define_personal_attributes('t', '{a}') $$, '42501', NULL, 'nobody: es_define_personal_attributes');
SELECT throws_ok('SELECT es_sees_personal_data()', '42501', NULL, 'nobody: es_sees_personal_data');
SELECT throws_ok($$ SELECT es_personal_hash('s', 'v') $$, '42501', NULL, 'nobody: es_personal_hash');
SELECT throws_ok('SELECT es_rotate_keys()', '42501', NULL, 'nobody: es_rotate_keys');
SELECT throws_ok($$ SELECT es_erase('s', NULL, NULL) $$, '42501', NULL, 'nobody: es_erase');
SELECT throws_ok($$ SELECT es_erase_subject('s') $$, '42501', NULL, 'nobody: es_erase_subject');
SELECT throws_ok($$ SELECT es_erasure_report('s') $$, '42501', NULL, 'nobody: es_erasure_report');
SELECT throws_ok($$ SELECT es_replay_erasure('s', now()) $$, '42501', NULL, 'nobody: es_replay_erasure');
SELECT throws_ok('SELECT * FROM es_personal_attributes', '42501', NULL, 'nobody: the table of personal attributes');
SELECT throws_ok('SELECT * FROM es_subject_keys', '42501', NULL, 'nobody: the table of keys');
SELECT throws_ok('SELECT * FROM es_erasures', '42501', NULL, 'nobody: the table of erasures');
SELECT throws_ok('SELECT * FROM es_erasure_places', '42501', NULL, 'nobody: es_erasure_places');
SELECT throws_ok('SET eventstore.strict_types = on', '42501', NULL, 'nobody: the setting that makes types a must');
SELECT throws_ok('SET eventstore.tag_metadata = a', '42501', NULL, 'nobody: the setting that makes tags');
SELECT throws_ok('SELECT * FROM es_inbox()', '42501', NULL, 'nobody: es_inbox');
SELECT throws_ok('INSERT INTO es_inbox (topic, group_id, checksum, payload) VALUES (1, 1, 1, 1)', '42501', NULL, 'nobody: a message');
SELECT throws_ok($$ SELECT setval('es_inbox_id_seq', 1) $$, '42501', NULL, 'nobody: the sequence of messages');
SELECT isnt(es_checksum(''), NULL, 'nobody: es_checksum');
SELECT throws_ok('SELECT * FROM es_failures()', '42501', NULL, 'nobody: es_failures');
SELECT throws_ok('SELECT * FROM es_projections', '42501', NULL, 'nobody: the table of projections');
SELECT throws_ok('SELECT * FROM es_projection_status', '42501', NULL, 'nobody: the status of projections');
SELECT throws_ok($$ SELECT setval('es_failures_id_seq', 1) $$, '42501', NULL, 'nobody: the sequence of failures');
SELECT is(es_replaying(), false, 'nobody: es_replaying');
SELECT throws_ok($$ SELECT es_state('account-1', 'es_merge(jsonb, es_recorded_event)') $$, '42501', NULL, 'nobody: es_state');
SELECT throws_ok($$ SELECT es_history('account-1', 'es_merge(jsonb, es_recorded_event)') $$, '42501', NULL, 'nobody: es_history');
SELECT throws_ok($$ SELECT es_snapshot('account-1', 'es_merge(jsonb, es_recorded_event)') $$, '42501', NULL, 'nobody: es_snapshot');
SELECT throws_ok($$ SELECT es_reducer('es_test') $$, '42501', NULL, 'nobody: es_reducer');
SELECT throws_ok($$ SELECT es_execute('account-1', 'jsonb_concat(jsonb, jsonb)', '[]', 'es_merge(jsonb, es_recorded_event)') $$, '42501', NULL, 'nobody: es_execute');
SELECT throws_ok($$ SELECT es_decide('[{}]', 'jsonb_concat(jsonb, jsonb)', '[]', 'es_merge(jsonb, es_recorded_event)') $$, '42501', NULL, 'nobody: es_decide');
SELECT throws_ok($$ SELECT es_test_decider('es_merge(jsonb, es_recorded_event)', 'jsonb_concat(jsonb, jsonb)', '[]', '[]') $$, '42501', NULL, 'nobody: es_test_decider');
SELECT throws_ok('SELECT * FROM es_snapshots', '42501', NULL, 'nobody: the table of snapshots');
SELECT throws_ok($$ INSERT INTO es_snapshots (stream, reducer, version, taken_by, fingerprint, recorded_at) VALUES ('a', 'r', 1, 'x', 1, now()) $$, '42501', NULL, 'nobody: a snapshot');
SELECT throws_ok($$ SELECT setval('es_snapshots_id_seq', 1) $$, '42501', NULL, 'nobody: the sequence of snapshots');

CREATE TABLE es_test.fake_log (n int);
SELECT throws_ok(
    $$ CREATE TRIGGER fake AFTER INSERT ON es_test.fake_log REFERENCING NEW TABLE AS new_events
           FOR EACH STATEMENT EXECUTE FUNCTION es_projection_sync('p') $$,
    '42501', NULL, 'nobody: a table that fires a projection');

CREATE VIEW es_test.fake AS
SELECT ''::text AS stream, ''::text AS type, '{}'::jsonb AS data, NULL::jsonb AS metadata,
       NULL::uuid AS id, NULL::timestamptz AS occurred_at;
SELECT throws_ok(
    $$ CREATE TRIGGER row INSTEAD OF INSERT ON es_test.fake
           FOR EACH ROW EXECUTE FUNCTION es_import_row() $$,
    '42501', NULL, 'nobody: a view that imports');
RESET ROLE;

--
-- A role with EXECUTE on es_append and nothing else
--
CREATE ROLE es_test_writer;
GRANT EXECUTE ON FUNCTION es_append(text, es_expected_version, text, jsonb, jsonb, uuid, timestamptz, text[], bytea)
    TO es_test_writer;

SET LOCAL ROLE es_test_writer;
SELECT is((es_append('account-1', 1, 'deposited')).version, 2::bigint, 'writer: appends');
SELECT is((es_append('account-1', 'any', 'opened', id => '00000000-0000-0000-0000-000000000001')).version,
    1::bigint, 'writer: is told of a retry');
SELECT throws_ok($$ SELECT es_append('account-1', 1, 'x') $$, 'ES001', NULL, 'writer: is told of a wrong version');
SELECT throws_ok($$ SELECT es_append('account-2', 'any', 'x', id => '00000000-0000-0000-0000-000000000001') $$,
    'ES002', NULL, 'writer: is told of a duplicate');
CREATE FUNCTION pg_temp.detail_of(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE detail text;
BEGIN
    EXECUTE query;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
    RETURN detail;
END $$;
SELECT is(pg_temp.detail_of($$ SELECT es_append('account-2', 'any', 'x', id => '00000000-0000-0000-0000-000000000001') $$),
    'The id is stored in another stream.', 'writer: is not told where');
SELECT throws_ok('SELECT * FROM es_events', '42501', NULL, 'writer: does not read the table');
SELECT throws_ok($$ SELECT * FROM es_load('account-1') $$, '42501', NULL, 'writer: does not load');
SELECT throws_ok('SELECT * FROM es_read()', '42501', NULL, 'writer: does not read');
SELECT throws_ok($$ SELECT es_append_batch('account-1', 'any', '[]') $$, '42501', NULL, 'writer: appends no batch');
SELECT throws_ok($$ INSERT INTO es_import (stream, type) VALUES ('account-1', 'x') $$, '42501', NULL, 'writer: imports nothing');
SELECT throws_ok($$ SELECT setval('es_position', 1) $$, '42501', NULL, 'writer: does not set the sequence');
RESET ROLE;

--
-- A role with EXECUTE on es_receive and nothing else
--
CREATE ROLE es_test_receiver;
CREATE FUNCTION es_test.on_message(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql
    RETURN (payload, NULL, 'came', NULL, CASE WHEN 1 / length(payload) = 1 THEN 'message-1' END, NULL, NULL)::es_ack_event;
CREATE FUNCTION es_test.hidden(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql RETURN NULL::es_ack_event;
REVOKE EXECUTE ON FUNCTION es_test.hidden FROM PUBLIC;
GRANT USAGE ON SCHEMA es_test TO es_test_receiver;
GRANT EXECUTE ON FUNCTION es_receive TO es_test_receiver;

SET LOCAL ROLE es_test_receiver;
SELECT is(es_receive('t', 'g', 'p', 'es_test.on_message(text, jsonb)'), 'acknowledged', 'receiver: receives, and appends');
SELECT is(es_receive('t', 'g', 'p', 'es_test.on_message(text, jsonb)'), 'duplicate', 'receiver: is told of a duplicate');
SELECT is(es_receive('t', 'g', '', 'es_test.on_message(text, jsonb)', max_retries => 0), 'failed', 'receiver: leaves a failure');
SELECT throws_ok($$ SELECT es_receive('t', 'g', 'x', 'es_test.hidden(text, jsonb)') $$, '42501', NULL, 'receiver: calls no function that is not for it');
SELECT throws_ok('SELECT * FROM es_inbox', '42501', NULL, 'receiver: does not read messages');
SELECT throws_ok('SELECT * FROM es_failures', '42501', NULL, 'receiver: does not read failures');
SELECT throws_ok($$ SELECT es_append('message-1', 'any', 'x') $$, '42501', NULL, 'receiver: does not append by itself');
SELECT throws_ok('SELECT es_retry(1)', '42501', NULL, 'receiver: does not retry');
RESET ROLE;

--
-- A role with SELECT on es_events and nothing else
--
CREATE ROLE es_test_reader;
GRANT SELECT ON es_events TO es_test_reader;

SET LOCAL ROLE es_test_reader;
SELECT is(count(*), 2::bigint, 'reader: reads') FROM es_read(es_horizon() - 2);
SELECT is(count(*), 2::bigint, 'reader: loads') FROM es_load('account-1');
SELECT is(es_stream_version('account-1'), 2::bigint, 'reader: asks for a version');
SELECT throws_ok($$ SELECT es_append('account-1', 'any', 'x') $$, '42501', NULL, 'reader: does not append');
RESET ROLE;

--
-- A role with INSERT on es_import and nothing else
--
CREATE ROLE es_test_importer;
GRANT INSERT ON es_import TO es_test_importer;

SET LOCAL ROLE es_test_importer;
SELECT lives_ok($$ INSERT INTO es_import (stream, type) VALUES ('account-1', 'x') $$, 'importer: imports');
SELECT throws_ok($$ SELECT es_append('account-1', 'any', 'x') $$, '42501', NULL, 'importer: does not append');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
