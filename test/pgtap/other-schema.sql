-- The extension works from a schema that is not in search_path, and is not led
-- astray by objects of its names in one that is.
BEGIN;
SELECT plan(101);

DROP EXTENSION eventstore;
CREATE SCHEMA es2;
CREATE EXTENSION eventstore SCHEMA es2;
SET LOCAL search_path = public;

CREATE TABLE es_events (position bigint, stream text);
CREATE TYPE es_recorded_event AS (position bigint, data jsonb);
CREATE SEQUENCE es_position START 1000;
CREATE FUNCTION es_horizon() RETURNS bigint LANGUAGE sql AS 'SELECT 0::bigint';
CREATE FUNCTION es_category(text) RETURNS text LANGUAGE sql AS 'SELECT ''wrong''';

SELECT results_eq(
    $$ SELECT * FROM es2.es_append('account-1', 'none', 'opened', '{"n": 1}',
           id => '00000000-0000-0000-0000-000000000001') $$,
    'VALUES (1::bigint, 1::bigint)', 'es_append');
SELECT results_eq(
    $$ SELECT * FROM es2.es_append_batch('account-1', 1, '[{"type": "deposited"}]') $$,
    'VALUES (2::bigint, 2::bigint)', 'es_append_batch of objects, and the cast');
SELECT results_eq(
    $$ SELECT * FROM es2.es_append_batch('account-1', 'exists', '{deposited}', '{"{}"}') $$,
    'VALUES (3::bigint, 3::bigint)', 'es_append_batch of arrays');
SELECT lives_ok(
    $$ INSERT INTO es2.es_import (stream, type) VALUES ('order-1', 'placed') $$, 'es_import');
SELECT throws_ok($$ SELECT es2.es_append('account-1', 1, 'x') $$, 'ES001', NULL, 'a wrong version');
SELECT throws_ok('DELETE FROM es2.es_events', '55000', NULL, 'the trigger');

SELECT results_eq('SELECT version FROM es2.es_load(''account-1'')',
    'VALUES (1::bigint), (2), (3)', 'es_load');
SELECT results_eq('SELECT version FROM es2.es_load_backward(''account-1'', max_count => 2)',
    'VALUES (3::bigint), (2)', 'es_load_backward');
SELECT results_eq('SELECT position FROM es2.es_read(0)',
    'VALUES (1::bigint), (2), (3), (4)', 'es_read');
SELECT results_eq('SELECT position FROM es2.es_read_category(''order'')',
    'VALUES (4::bigint)', 'es_read_category');
SELECT is(es2.es_stream_version('account-1'), 3::bigint, 'es_stream_version');
SELECT is((es2.es_last_event('account-1')).version, 3::bigint, 'es_last_event');
SELECT is((es2.es_event('00000000-0000-0000-0000-000000000001')).type, 'opened', 'es_event');
SELECT is(es2.es_horizon(), 4::bigint, 'es_horizon');
SELECT is(es2.es_category('account-1'), 'account', 'es_category');
SELECT is(es2.es_channel('account'), 'es_events:account', 'es_channel');
SELECT lives_ok('SELECT * FROM es2.es_stats, es2.es_inbox_stats', 'es_stats, es_inbox_stats');
SELECT lives_ok('SELECT es2.es_stats_reset()', 'es_stats_reset');
SELECT throws_ok('SELECT es2.es_reset()', '55000', 'the store is not in test mode, and cannot be emptied', 'es_reset');
SELECT is(es2.es_by_index('a', 'a'), true, 'es_by_index');
SELECT is(es2.es_by_version(2, 1, 2), true, 'es_by_version');
SELECT is(es2.es_set_slots('{[0,1024)}'), 1024, 'es_set_slots');
SELECT is((SELECT events FROM es2.es_remove_foreign_streams()), 0::bigint, 'es_remove_foreign_streams');
SELECT is(es2.es_slots(), '{[0,1024)}', 'es_slots');
SELECT is(es2.es_set_slots(NULL), 1024, 'es_set_slots of all');
SELECT is(es2.es_call('es_stream_version(stream)', '\x000000096163636f756e742d30'), '\x520001000000080000000000000000', 'es_call');
SELECT is(es2.es_kept_after('account-1', 1), 1::bigint, 'es_kept_after');
SELECT is(es2.es_by_query(2, '[{}]', '{1}'), false, 'es_by_query');
SELECT is(es2.es_matching_positions('[{"types": ["opened"]}]', 0, NULL), '{1}', 'es_matching_positions');
SELECT results_eq('SELECT position FROM es2.es_read(0, query => ''[{"types": ["opened"]}]'')', 'VALUES (1::bigint)', 'es_read with a query');
SELECT is(es2.es_attribute('{"a": 1}', 'a'), '1', 'es_attribute');
SELECT is(es2.es_index_attribute('opened', 'a')::text, 'es2.es_events_opened__a_idx', 'es_index_attribute');
SELECT is(es2.es_index_attribute('opened', 'a')::text, 'es2.es_events_opened__a_idx', 'it is found again');
SELECT is(es2.es_index_type('opened')::text, 'es2.es_events_type_opened_idx', 'es_index_type');
SELECT is(es2.es_rewrite('00000000-0000-0000-0000-000000000001', '{"n": 1}'), 1::bigint, 'es_rewrite');
SELECT lives_ok($$ SELECT es2.es_append('gone-1', 'any', 'came', tags => '{gone}'), es2.es_append('shorter-1', 'any', 'came'), es2.es_append('shorter-1', 'any', 'came') $$, 'streams to remove');
SELECT is((es2.es_delete_stream('gone-1', 'any')).removed, 1::bigint, 'es_delete_stream');
SELECT is(es2.es_truncate_stream('shorter-1', 2), 1::bigint, 'es_truncate_stream');
SELECT lives_ok($$ SELECT es2.es_set_retention('shorter', '1 hour', 1, '1 day') $$, 'es_set_retention');
SELECT is((SELECT events FROM es2.es_run_retention()), 0::bigint, 'es_run_retention');
SELECT is((SELECT removed FROM es2.es_retention_status), 0::bigint, 'es_retention_status');
SELECT isnt(es2.es_uuid7(), NULL, 'es_uuid7');
SELECT isnt(es2.es_uuid5('00000000-0000-0000-0000-000000000001', 'a'), NULL, 'es_uuid5');
SELECT is(es2.es_digest_string('{"a": 1}', '{a}'), 'a=1', 'es_digest_string');
SELECT isnt(es2.es_digest('opened', '{"a": 1}', '{a}'), NULL, 'es_digest');
SELECT ok('any'::es2.es_expected_version OPERATOR(es2.*<>) 1, 'es_expected_version');

CREATE TABLE es_event_types (type text);
CREATE TABLE es_upcasters (type text);
CREATE FUNCTION es_upcast_data(bigint, uuid, text, text, jsonb, jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb';
CREATE FUNCTION up(data jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT data || ''{"up": true}''';
SELECT lives_ok($$ SELECT es2.es_define_event_type('typed', '{n}', schema_version => 2) $$, 'es_define_event_type');
SELECT throws_ok($$ SELECT es2.es_append('typed-1', 'none', 'typed') $$, 'ES004', NULL, 'an event that is checked');
SELECT lives_ok($$ SELECT es2.es_define_upcaster('opened', 1, 'up(jsonb)') $$, 'es_define_upcaster');
SELECT is((es2.es_describe_event_type('opened')).upcasters, '{"1": "public.up(pg_catalog.jsonb)"}', 'es_describe_event_type');
SELECT is(data, '{"n": 1, "up": true}', 'an event that is upcast') FROM es2.es_load('account-1', 0, 1);
SELECT is((es2.es_upcast(e)).data, '{"n": 1, "up": true}', 'es_upcast') FROM es2.es_events e WHERE position = 1;

CREATE TABLE es_personal_attributes (type text);
CREATE TABLE es_subject_keys (subject text);
CREATE TABLE es_erasures (subject text);
CREATE VIEW es_erasure_places AS SELECT 1 AS one;
CREATE FUNCTION es_sees_personal_data() RETURNS boolean LANGUAGE sql AS 'SELECT false';
SELECT lives_ok($$ SELECT es2.es_define_event_type('joined', personal => '{name}') $$, 'es_define_event_type with personal attributes');
SELECT lives_ok($$ SELECT es2.es_define_personal_attributes('joined', '{by_name}', 'by') $$, 'es_define_personal_attributes');
SELECT lives_ok($$ SELECT es2.es_append('person-1', 'none', 'joined', '{"name": "Ann", "by": "2", "by_name": "Ben"}') $$, 'an event with personal attributes');
SELECT is((SELECT data FROM es2.es_events WHERE stream = 'person-1'), '{"name": null, "by": "2", "by_name": null}', 'which are encrypted');
SELECT is((SELECT data FROM es2.es_load('person-1')), '{"name": "Ann", "by": "2", "by_name": "Ben"}', 'and opened');
SELECT ok(es2.es_sees_personal_data(), 'es_sees_personal_data');
SELECT is(length(es2.es_personal_hash('1', 'Ann')), 64, 'es_personal_hash');
SELECT is(es2.es_rotate_keys(), 0::bigint, 'es_rotate_keys');
SELECT isnt_empty($$ SELECT * FROM es2.es_erase_subject('1') UNION ALL SELECT * FROM es2.es_erasure_report('1') $$, 'es_erase_subject, es_erasure_report');
SELECT isnt(es2.es_replay_erasure('2', '2026-01-01Z', 'why'), NULL, 'es_replay_erasure');
SELECT is((SELECT string_agg(subject || ' ' || (key IS NULL), ', ' ORDER BY subject) FROM es2.es_subject_keys JOIN es2.es_erasures USING (subject)),
    '1 true, 2 true', 'which destroy keys');
SELECT lives_ok($$ SELECT es2.es_drop_event_type(t) FROM unnest('{typed,opened}'::text[]) t $$, 'es_drop_event_type');

CREATE TABLE seen (position bigint, stream text);
CREATE FUNCTION note(event es2.es_recorded_event) RETURNS void LANGUAGE sql AS 'INSERT INTO seen VALUES (event.position, event.stream)';
CREATE TABLE es_projections (name text);
CREATE TABLE es_failures (name text);
SELECT lives_ok($$ SELECT es2.es_create_projection('p', 'note(es2.es_recorded_event)', category => 'account') $$,
    'es_create_projection');
SELECT is(es2.es_run_projections(), 3::bigint, 'es_run_projections');
SELECT lives_ok($$ SELECT es2.es_alter_projection('p', mode => 'sync') $$, 'es_alter_projection');
SELECT results_eq($$ SELECT version FROM es2.es_append('account-1', 3, 'closed') $$, 'VALUES (4::bigint)',
    'an append with a sync projection');
SELECT is((SELECT count(*) FROM seen), 4::bigint, 'whose handler was called');
SELECT is((SELECT name || ' ' || mode || ' ' || lag_events FROM es2.es_projection_status), 'p sync 0',
    'es_projection_status');
SELECT lives_ok($$ SELECT es2.es_drop_projection('p') $$, 'es_drop_projection');

CREATE TABLE es_inbox (name text);
CREATE TYPE es_ack_event AS (name text);
CREATE FUNCTION on_message(payload text, metadata jsonb) RETURNS es2.es_ack_event LANGUAGE sql
    RETURN ROW(1 / length(payload), NULL, 'came', NULL, 'message-1', NULL, NULL)::es2.es_ack_event;
SELECT is(es2.es_receive('t', 'g', 'p', 'on_message(text, jsonb)'), 'acknowledged', 'es_receive');
SELECT is(es2.es_receive('t', 'g', '', 'on_message(text, jsonb)', max_retries => 0), 'failed', 'es_receive of what fails');
SELECT is((SELECT payload FROM es2.es_inbox()), 'p', 'es_inbox');
SELECT is(es2.es_stream_version('message-1'), 1::bigint, 'a message that is appended');

CREATE TABLE es_subscriptions (name text);
CREATE TABLE es_partitions (name text);
SELECT lives_ok($$ SELECT es2.es_create_subscription('s', category => 'account', lease => '1 h') $$, 'es_create_subscription');
SELECT results_eq($$ SELECT position FROM es2.es_poll('s', max_count => 2) $$, 'VALUES (1::bigint), (2)', 'es_poll');
SELECT is(es2.es_nack('s', token, 1, 'no', 'park'), 'park', 'es_nack') FROM es2.es_partitions;
SELECT results_eq($$ SELECT position, attempts FROM es2.es_failures(subscription => 's') ORDER BY position $$,
    'VALUES (1::bigint, 1), (2, 1)', 'es_failures');
SELECT is(es2.es_retry(id), 2::bigint, 'es_retry') FROM es2.es_failures() WHERE position = 1;
SELECT results_eq($$ SELECT position, attempt FROM es2.es_poll('s') $$, 'VALUES (1::bigint, 2)', 'es_poll of what had failed');
SELECT is(es2.es_ack('s', token), 2::bigint, 'es_ack') FROM es2.es_partitions;
SELECT lives_ok($$ SELECT es2.es_discard(id) FROM es2.es_failures() WHERE subscription = 's' $$, 'es_discard');
SELECT is((SELECT lag_events FROM es2.es_subscription_status), 2::bigint, 'es_subscription_status');
SELECT is(es2.es_partition('account-1', 1), 0, 'es_partition');
SELECT lives_ok($$ SELECT es2.es_seek('s', NULL) $$, 'es_seek');
SELECT lives_ok($$ SELECT es2.es_drop_subscription('s') $$, 'es_drop_subscription');

CREATE TABLE es_snapshots (stream text, reducer text, version bigint, state jsonb);
CREATE FUNCTION es_merge(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS $$ SELECT '"wrong"'::jsonb $$;
CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT '[{"type": "t", "data": {"n": 2}}]'::jsonb $$;
SELECT results_eq($$ SELECT state FROM es2.es_state('account-1', 'es2.es_merge(jsonb, es2.es_recorded_event)') $$, $$ VALUES ('{"n": 1}'::jsonb) $$, 'es_state');
SELECT throws_ok($$ SELECT es2.es_state('account-1', 'es_merge(jsonb, es_recorded_event)') $$, '42P13', NULL, 'a reducer of events of another table');
SELECT is((SELECT count(*) FROM es2.es_history('account-1', 'es2.es_last(jsonb, es2.es_recorded_event)')), 4::bigint, 'es_history');
SELECT is(es2.es_snapshot('account-1', 'es2.es_merge(jsonb, es2.es_recorded_event)'), 4::bigint, 'es_snapshot');
UPDATE es2.es_snapshots SET state = '{"kept": 1}';
SELECT results_eq($$ SELECT state FROM es2.es_state('account-1', 'es2.es_merge(jsonb, es2.es_recorded_event)', at_version => 4) $$, $$ VALUES ('{"kept": 1}'::jsonb) $$, 'and it is used');
SELECT results_eq($$ SELECT version, state FROM es2.es_execute('order-2', 'decide(jsonb, jsonb)', '{}', 'es2.es_merge(jsonb, es2.es_recorded_event)') $$,
    $$ VALUES (1::bigint, '{"n": 2}'::jsonb) $$, 'es_execute');
CREATE SCHEMA of_reducer;
CREATE FUNCTION of_reducer.apply_t(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT '"t"'::jsonb $$;
SELECT results_eq($$ SELECT state FROM es2.es_state('order-2', es2.es_reducer('of_reducer')) $$, $$ VALUES ('"t"'::jsonb) $$, 'es_reducer');

CREATE TABLE es_privileges (type text, object text, privilege text, kind text, acl aclitem[]);
INSERT INTO es_privileges VALUES ('TABLE', 'pg_catalog.pg_authid', 'SELECT', 'reader');
CREATE ROLE es_test_reader;
SELECT lives_ok($$ SELECT es2.es_grant('es_test_reader', 'reader') $$, 'es_grant');
SELECT is(has_schema_privilege('es_test_reader', 'es2', 'USAGE') AND NOT has_table_privilege('es_test_reader', 'pg_authid', 'SELECT'), true,
    'which goes by the right table');
SELECT lives_ok($$ SELECT es2.es_revoke('es_test_reader', 'reader') $$, 'es_revoke');

SELECT is_empty('SELECT * FROM public.es_snapshots', 'nothing went into another table of snapshots');
SELECT is_empty('SELECT * FROM public.es_events', 'nothing went into another table of the name');

-- a name of the schema that no statement may take for anything else
ALTER SCHEMA es2 RENAME TO "o'ne \ ""two--";
SELECT lives_ok($$ SELECT * FROM "o'ne \ ""two--".es_horizon_holders() $$, 'es_horizon_holders');
SELECT is_empty($$ SELECT message FROM "o'ne \ ""two--".es_health WHERE problem = 'health_unknown' $$, 'each look of es_health');

SELECT * FROM finish();
ROLLBACK;
