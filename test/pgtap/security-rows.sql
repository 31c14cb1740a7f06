-- Row security by category on es_events: what is hidden from a role stays hidden
-- in every way of reading, in errors, in plans, in what is kept.
SET client_min_messages = warning;
SELECT plan(55);

CREATE ROLE es_test_account;
CREATE ROLE es_test_order;
CREATE ROLE es_test_owner;
CREATE SCHEMA es_test;
GRANT USAGE, CREATE ON SCHEMA es_test TO PUBLIC;
SELECT es_grant(r, k) FROM unnest('{es_test_account,es_test_order}'::regrole[]) r, unnest('{reader,writer,operator}'::text[]) k;
-- What reading and writing gives; failures and states are for operators.
SELECT es_revoke('es_test_order', 'operator'), es_grant('es_test_order', 'reader');

-- Rows of two categories, the other one's has "hidden" in everything.
SELECT es_append_batch('account-1', 'none', '{opened,deposited,closed}', '{"{\"n\": 1}","{\"n\": 2}","{\"n\": 3}"}');
SELECT es_append_batch('order-hidden', 'none', '{hiddenA,hiddenB,hiddenC}', '{"{\"hidden\": 1}","{\"hidden\": 2}","{\"hidden\": 3}"}', '{"{\"hidden\": 1}","{\"hidden\": 1}","{\"hidden\": 1}"}',
    '{00000000-0000-0000-0000-0000000000a1,00000000-0000-0000-0000-0000000000a2,00000000-0000-0000-0000-0000000000a3}');
SELECT es_append('account-1', 'any', 'reopened', '{"n": 4}');
ALTER TABLE es_events ENABLE ROW LEVEL SECURITY;
CREATE POLICY accounts ON es_events FOR SELECT TO es_test_account USING (es_category(stream) = 'account');
CREATE POLICY orders ON es_events FOR SELECT TO es_test_order USING (es_category(stream) = 'order');

-- All that a query answers, as text, or its error with all that belongs to it.
CREATE FUNCTION pg_temp.answer(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE result text; detail text; hint text; context text;
BEGIN
    EXECUTE format('SELECT string_agg(t::text, '' '') FROM (%s) t', query) INTO result;
    RETURN coalesce(result, 'nothing');
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT, context = PG_EXCEPTION_CONTEXT;
    RETURN format('%s %s %s %s', SQLSTATE, SQLERRM, detail, hint) || ' ' || split_part(context, 'SQL statement', 1);
END $$;
-- The function reads what it is given into a table, and is cheap, so that it would come first.
CREATE TABLE es_test.leaked (what text);
GRANT INSERT ON es_test.leaked TO PUBLIC;
CREATE FUNCTION es_test.leak(what text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$
BEGIN
    INSERT INTO es_test.leaked VALUES (what);
    RETURN true;
END $$;

--
-- Every way of reading: the query, and what of the other category must be there when its reader asks
--
CREATE TEMP TABLE ways (nr int GENERATED ALWAYS AS IDENTITY, function text, query text);
INSERT INTO ways (function, query) VALUES
    ('es_events',       'SELECT * FROM es_events'),
    ('es_load',         'SELECT * FROM es_load(''order-hidden'')'),
    ('es_load_backward', 'SELECT * FROM es_load_backward(''order-hidden'', max_count => 2)'),
    ('es_read',         'SELECT * FROM es_read()'),
    ('es_read',         'SELECT * FROM es_read(0, 100)'),
    ('es_read',         'SELECT * FROM es_read(0, 100, ''[{"types": ["hiddenA", "hiddenB"]}, {"tags": ["hidden"]}]'')'),
    ('es_query',        'SELECT * FROM es_query(''[{"types": ["hiddenA", "hiddenB"]}, {"tags": ["hidden"]}]'')'),
    ('es_read_category', 'SELECT * FROM es_read_category(''order'', 0, 100, ''{hiddenA,hiddenB}'')'),
    ('es_last_event',   'SELECT es_last_event(''order-hidden'')'),
    ('es_event',        'SELECT es_event(''00000000-0000-0000-0000-0000000000a1'')'),
    ('es_state',        'SELECT es_state(''order-hidden'', ''es_merge(jsonb, es_recorded_event)'')'),
    ('es_state',        'SELECT es_state(''order-hidden'', ''es_merge(jsonb, es_recorded_event)'', at_time => ''infinity'', by_time => ''occurred'')'),
    ('es_history',      'SELECT * FROM es_history(''order-hidden'', ''es_last(jsonb, es_recorded_event)'')'),
    ('es_execute',      'SELECT es_execute(''order-hidden'', ''es_test.decide(jsonb, jsonb)'', ''{}'', ''es_merge(jsonb, es_recorded_event)'')'),
    ('es_upcast',       'SELECT es_upcast(e) FROM es_events e'),
    ('es_poll',         'SELECT * FROM es_poll(current_user || ''1'')'),
    ('es_poll',         'SELECT * FROM es_poll(current_user || ''2'')');
CREATE FUNCTION es_test.decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql RETURN '[]'::jsonb;
GRANT SELECT ON ways TO PUBLIC;
SET ROLE es_test_order;
SELECT es_create_subscription('es_test_order1'), es_create_subscription('es_test_order2', category => 'order');
SELECT is_empty($$ SELECT nr, function, pg_temp.answer(query) FROM ways WHERE pg_temp.answer(query) !~ 'hidden' AND function <> 'es_poll' $$, 'a role that may read it gets all of it');
SELECT is_empty($$ SELECT nr, function FROM ways WHERE function = 'es_poll' AND pg_temp.answer(query) !~ 'hidden' $$, 'by es_poll, too');
SET ROLE es_test_account;
SELECT es_create_subscription('es_test_account1'), es_create_subscription('es_test_account2', category => 'order');
SELECT is_empty($$ SELECT nr, function, pg_temp.answer(query) FROM ways WHERE pg_temp.answer(query) ~ '"hidden": |hidden[ABC]' $$, 'a role that may not gets nothing');
SELECT is(pg_temp.answer('SELECT stream, count(*) FROM es_read() GROUP BY 1'), '(account-1,4)', 'and it gets its own');
SELECT is(es_stream_version('order-hidden'), 0::bigint, 'a hidden stream has no version');
SELECT is((es_state('order-hidden', 'es_merge(jsonb, es_recorded_event)')).state, '{}', 'and the state that it began with');
SELECT is((es_state('account-1', 'es_merge(jsonb, es_recorded_event)')).state, '{"n": 4}', 'its own stream has its state');
SELECT throws_ok($$ SELECT es_execute('order-hidden', 'es_test.decide(jsonb, jsonb)', '{}', 'es_merge(jsonb, es_recorded_event)') $$, '42501', NULL, 'on a hidden stream nothing is decided');
SELECT throws_ok($$ SELECT es_decide('[{"tags": ["any"]}]', 'es_test.decide(jsonb, jsonb)', '{}', 'es_merge(jsonb, es_recorded_event)') $$, '42501', NULL, 'nor by a query, which could find hidden events');

-- The same session, the same statements, another role
PREPARE load AS SELECT count(*) FROM es_load('order-hidden');
PREPARE state AS SELECT version FROM es_state('order-hidden', 'es_last(jsonb, es_recorded_event)');
SELECT results_eq('EXECUTE load', 'VALUES (0::bigint)', 'a prepared statement finds nothing for one');
SELECT results_eq('EXECUTE state', 'VALUES (0::bigint)', 'nor does es_state');
SET ROLE es_test_order;
SELECT results_eq('EXECUTE load', 'VALUES (3::bigint)', 'and all for the other');
SELECT results_eq('EXECUTE state', 'VALUES (3::bigint)', 'as es_state does');
SET ROLE es_test_account;
SELECT results_eq('EXECUTE load', 'VALUES (0::bigint)', 'and nothing for the first again');
SELECT results_eq('EXECUTE state', 'VALUES (0::bigint)', 'in es_state, too');
DEALLOCATE ALL;

--
-- Functions in a condition, which get to see no hidden row
--
SELECT is_empty($$ SELECT q FROM (VALUES
    ('SELECT FROM es_events e WHERE es_test.leak(e::text)'),
    ('SELECT FROM es_load(''order-hidden'') e WHERE es_test.leak(e.data::text)'),
    ('SELECT FROM es_load_backward(''order-hidden'') e WHERE es_test.leak(e.data::text)'),
    ('SELECT FROM es_read() e WHERE es_test.leak(e.data::text)'),
    ('SELECT FROM es_read_category(''order'') e WHERE es_test.leak(e.data::text)'),
    ('SELECT FROM es_history(''order-hidden'', ''es_last(jsonb, es_recorded_event)'') e WHERE es_test.leak(e.state::text)'),
    ('SELECT FROM es_poll(''es_test_account1'') e WHERE es_test.leak(e.data::text)'),
    ('SELECT es_test.leak(e.data::text) FROM es_events e')) v (q) WHERE pg_temp.answer(q) ~ 'hidden' $$, 'conditions see nothing');
RESET ROLE;
SELECT is_empty($$ SELECT * FROM es_test.leaked WHERE what ~ 'hidden' $$, 'a cheap function in a condition is given no hidden row');
SELECT isnt_empty('SELECT * FROM es_test.leaked', 'but it is given others');
SET ROLE es_test_account;
SELECT is_empty($$ SELECT * FROM pg_stats WHERE tablename = 'es_events' AND (most_common_vals::text ~ 'hidden' OR histogram_bounds::text ~ 'hidden') $$, 'statistics of columns are not shown');
RESET ROLE;
ANALYZE es_events;
SET ROLE es_test_account;
SELECT is_empty($$ SELECT attname FROM pg_stats WHERE tablename = 'es_events' $$, 'also when there are some');

--
-- Snapshots: states of a role that sees more
--
RESET ROLE;
SELECT es_snapshot('order-hidden', 'es_merge(jsonb, es_recorded_event)'), es_snapshot('account-1', 'es_merge(jsonb, es_recorded_event)');
UPDATE es_snapshots SET state = '{"hidden": 7}';
SET ROLE es_test_account;
SELECT is((es_state('order-hidden', 'es_merge(jsonb, es_recorded_event)')).state, '{}', 'a snapshot that the owner has saved is not used');
SELECT is((es_state('account-1', 'es_merge(jsonb, es_recorded_event)')).state, '{"n": 4}', 'nor that of a stream that the role sees');
SET eventstore.snapshot_every = 1;
SELECT es_state('account-1', 'es_last(jsonb, es_recorded_event)');
SELECT throws_ok($$ SELECT es_snapshot('account-1', 'es_merge(jsonb, es_recorded_event)') $$, '42501', NULL, 'it saves none at will');
RESET ROLE;
SELECT is((SELECT count(*) FROM es_snapshots), 2::bigint, 'and none by reading');
SELECT is((es_state('order-hidden', 'es_merge(jsonb, es_recorded_event)')).state, '{"hidden": 7}', 'the owner uses its own');
DELETE FROM es_snapshots;

--
-- What an append reveals
--
SET ROLE es_test_account;
SELECT alike(pg_temp.answer($$ SELECT es_append('account-2', 'any', 'x', id => '00000000-0000-0000-0000-0000000000a1') $$), 'ES002 %The id is stored in another stream.%', 'of an id that is stored: that it is');
SELECT unalike(pg_temp.answer($$ SELECT es_append('account-2', 'any', 'x', id => '00000000-0000-0000-0000-0000000000a1') $$), '%hidden%', 'not where');
SELECT unalike(pg_temp.answer($$ SELECT es_append_batch('account-2', 'any', '{x,y}', '{"{}","{}"}', ids => '{00000000-0000-0000-0000-0000000000a1,00000000-0000-0000-0000-0000000000b1}') $$), '%hidden%', 'nor in a batch');
SELECT is(pg_temp.answer($$ SELECT es_append('order-hidden', 0, 'x') $$) ~ 'ES001 .* actual version is 3\.', true, 'of a stream: its version');
SELECT unalike(pg_temp.answer($$ SELECT es_append('order-hidden', 0, 'x') $$), '%hidden[ABC]%', 'not what is in it');
CREATE FUNCTION pg_temp.import(id uuid) RETURNS text LANGUAGE plpgsql AS $$
DECLARE detail text;
BEGIN
    INSERT INTO es_import (stream, type, id) VALUES ('account-2', 'x', id);
    RETURN 'stored';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
    RETURN SQLSTATE || ' ' || detail;
END $$;
SELECT is(pg_temp.import('00000000-0000-0000-0000-0000000000a1'), 'ES002 The id is stored in another stream.', 'an import reveals no more');
SELECT throws_ok($$ INSERT INTO es_import (stream, type) VALUES ('account-2', 'x') RETURNING * $$, '42501', NULL, 'and gives nothing back');
SELECT throws_ok('SELECT * FROM es_import', '42501', NULL, 'and is not to be read');

--
-- Projections and retries: with their owner's rights, whoever runs them
--
CREATE TABLE es_test.seen (position bigint, type text);
CREATE FUNCTION es_test.note(event es_recorded_event) RETURNS void LANGUAGE sql AS 'INSERT INTO es_test.seen VALUES (event.position, event.type)';
CREATE FUNCTION es_test.fail(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused %', event.type; END $$;
SELECT es_create_projection('note', 'es_test.note(es_recorded_event)', start_position => 0);
SELECT es_create_projection('query', query => 'INSERT INTO es_test.seen SELECT position, type FROM new_events', start_position => 0);
RESET ROLE;
SELECT cmp_ok(es_run_projections(), '>', 0::bigint, 'a superuser runs them');
SELECT is_empty($$ SELECT * FROM es_test.seen WHERE type ~ 'hidden' $$, 'and they get nothing that is hidden from their owner');
SELECT is((SELECT count(DISTINCT position) FROM es_test.seen), 4::bigint, 'but all that is not');
SET ROLE es_test_account;
SELECT throws_ok($$ SELECT es_alter_projection('note', 'sync') $$, '0A000', NULL, 'it has no sync one');
SELECT throws_ok($$ SELECT es_create_projection('sync', 'es_test.note(es_recorded_event)', mode => 'sync') $$, '0A000', NULL, 'not from the beginning either');
SELECT es_drop_projection('query');
-- A setting by which a query fails that row security would shorten is for
-- the caller's own queries: another's projection does not fail by it.
SELECT es_create_projection('kept', 'es_test.note(es_recorded_event)', start_position => 0);
RESET ROLE;
SET row_security = off;
SELECT cmp_ok(es_run_projections('kept'), '>', 0::bigint, 'row_security = off stops no projection of another role');
SET ROLE es_test_account;
SELECT throws_ok('SELECT * FROM es_read()', '42501', NULL, 'but one''s own queries');
SELECT throws_ok($$ SELECT es_history('account-1', 'es_last(jsonb, es_recorded_event)') $$, '42501', NULL, 'and folds');
RESET row_security;
SELECT es_drop_projection('kept');
SELECT es_create_projection('fail', 'es_test.fail(es_recorded_event)', on_failure => 'park', max_attempts => 1, start_position => 0);
SELECT es_run_projections('fail');
RESET ROLE;
SELECT bag_eq('SELECT DISTINCT stream FROM es_failures', $$ VALUES ('account-1') $$, 'its failures are of its own events');
ALTER POLICY accounts ON es_events USING (es_category(stream) = 'account' AND type <> 'opened');
SET ROLE es_test_account;
SELECT throws_ok($$ SELECT es_retry(id) FROM (SELECT min(id) AS id FROM es_failures()) f $$, '42501', NULL, 'what has become hidden is not retried');
SELECT is(pg_temp.answer('SELECT count(*) FROM es_load(''account-1'')'), '(3)', 'nor read');
RESET ROLE;
ALTER POLICY accounts ON es_events USING (es_category(stream) = 'account');
SELECT es_drop_projection('fail'), es_drop_projection('note');

-- es_wait says that another role's projection has failed, but not why
GRANT SELECT ON es_events TO es_test_owner;
SELECT es_grant('es_test_owner', 'operator');
CREATE POLICY everything ON es_events FOR SELECT TO es_test_owner USING (true);
SET ROLE es_test_owner;
SELECT es_create_projection('owned', 'es_test.fail(es_recorded_event)', max_attempts => 1, category => 'order', start_position => 0);
SELECT es_run_projections('owned', 20);
SELECT alike(pg_temp.answer($$ SELECT es_wait('owned', 5, '0') $$), 'ES005 %refused hiddenA%', 'its owner gets the error');
SET ROLE es_test_order;
SELECT alike(pg_temp.answer($$ SELECT es_wait('owned', 5, '0') $$), 'ES005 %', 'a role that only reads learns that it has failed');
SELECT unalike(pg_temp.answer($$ SELECT es_wait('owned', 5, '0') $$), '%refused%', 'not with what message');
SELECT is((SELECT count(*) FROM es_failures()), 0::bigint, 'it sees no failures of others');
SELECT throws_ok('SELECT * FROM es_projections', '42501', NULL, 'as are projections');
RESET ROLE;
SELECT es_drop_projection('owned');

--
-- Columns: a role that may read some of them
--
CREATE ROLE es_test_columns;
GRANT SELECT (stream, type, version) ON es_events TO es_test_columns;
CREATE POLICY columns ON es_events FOR SELECT TO es_test_columns USING (true);
SET ROLE es_test_columns;
SELECT is((SELECT count(type) FROM es_events WHERE stream = 'account-1'), 4::bigint, 'it reads these columns');
SELECT is_empty($$ SELECT nr, pg_temp.answer(query) FROM ways WHERE pg_temp.answer(query) !~ '^42501' $$, 'and by no function more than that');
RESET ROLE;

--
-- FORCE: the owner, too; superusers see everything
--
SELECT is((SELECT count(*) FROM es_read()), 7::bigint, 'a superuser sees all');
ALTER TABLE es_events FORCE ROW LEVEL SECURITY;
SELECT is((es_state('order-hidden', 'es_last(jsonb, es_recorded_event)')).version, 3::bigint, 'also with FORCE');
SELECT is((es_append('account-1', 4, 'x')).version, 5::bigint, 'appending goes on');

--
-- Every function that reads is one of those
--
SELECT is_empty(
    $$ SELECT p.oid::regprocedure
         FROM pg_depend d
         JOIN pg_proc p ON p.oid = d.objid
        WHERE d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
          AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'eventstore')
          AND p.proname NOT IN (SELECT function FROM ways)
          AND p.proname NOT IN (
              -- reads no event of the log
              'es_test_decider',
              -- read events, and were asked by themselves above
              'es_stream_version', 'es_snapshot', 'es_append', 'es_append_batch', 'es_append_if', 'es_decide', 'es_import_fires', 'es_import_row', 'es_import_flush', 'es_wait', 'es_retry',
              'es_create_projection', 'es_alter_projection', 'es_run_projections',
              -- read what a projection or subscription reads, in the same way
              'es_work', 'es_rebuild_projection', 'es_resume_projection', 'es_discard', 'es_skip_event', 'es_unskip_event', 'es_nack', 'es_ack', 'es_projection_sync',
              -- return positions only
              'es_horizon', 'es_matching_positions', 'es_incarnation', 'es_position_valid', 'es_store_id', 'es_create_subscription', 'es_seek', 'es_projection_restore', 'es_pause_projection', 'es_drop_projection', 'es_drop_subscription', 'es_rename_projection',
              'es_rename_subscription', 'es_alter_subscription',
              -- write, and return nothing: es_rewrite is given an id, es_receive a message
              'es_rewrite', 'es_set_slots', 'es_events_accept', 'es_delete_stream', 'es_truncate_stream', 'es_removals_changed', 'es_compact_stream', 'es_archive_stream', 'es_archive', 'es_unarchive_stream', 'es_set_retention', 'es_run_retention', 'es_remove_foreign_streams', 'es_receive', 'es_index_attribute', 'es_index_type', 'es_events_complete', 'es_events_refuse', 'es_events_tag', 'es_reindex_tags', 'es_reset', 'es_guard_drop', 'es_event_types_changed',
              -- the archive, for which no kind but operators has a privilege, and which may have policies of its own
              'es_load_archived',
              -- other tables, for operators, or for definitions
              'es_failures', 'es_inbox', 'es_define_event_type', 'es_drop_event_type', 'es_describe_event_type', 'es_define_upcaster', 'es_grant', 'es_revoke',
              'es_stats', 'es_inbox_stats', 'es_stats_reset', 'es_horizon_holders',
              -- calls another one, as the caller
              'es_call',
              -- of definitions alone
              'es_closed', 'es_slots', 'es_definitions', 'es_finish_restore', 'es_promote', 'es_published_horizon_applied', 'es_define_personal_attributes', 'es_sees_personal_data',
              -- of keys of persons; for retention, which is told of no event that is erased
              'es_personal_hash', 'es_rotate_keys', 'es_subject_keys_changed', 'es_erase', 'es_erase_subject', 'es_erasure_report', 'es_replay_erasure',
              -- for operators and owners: names the events that their projections and subscriptions wait at; its parts are for nobody
              'es_projection_lag', 'es_subscription_lag', 'es_source_positions',
              'es_health', 'es_health_external', 'es_health_path', 'es_health_grant', 'es_health_settings', 'es_health_reach', 'es_health_types', 'es_health_log', 'es_health_horizon', 'es_health_projections',
              'es_health_subscriptions', 'es_health_inbox', 'es_health_retention', 'es_health_replica', 'es_health_personal', 'es_health_key_file', 'es_health_other_key_files', 'es_health_has_key',
              -- of what they are given
              'es_category', 'es_append_support', 'es_by_index', 'es_by_index_support', 'es_by_query', 'es_by_query_support', 'es_kept_after', 'es_kept_after_support', 'es_by_version', 'es_partition', 'es_recorded_event', 'es_channel', 'es_checksum', 'es_attribute', 'es_merge', 'es_last', 'es_reducer', 'es_replaying', 'es_uuid5', 'es_uuid7',
              'es_digest', 'es_digest_string', 'es_start_worker', 'es_upcast_data', 'es_upcast_metadata', 'es_upcast_support')
          AND p.proname !~ '^es_(expected_version|function|role|categories|definitions)_' $$,
    'every function that reads events was called here');

SELECT * FROM finish();
DROP EXTENSION eventstore CASCADE;
DROP SCHEMA es_test CASCADE;
DROP OWNED BY es_test_account, es_test_order, es_test_owner, es_test_columns;
DROP ROLE es_test_account, es_test_order, es_test_owner, es_test_columns;
CREATE EXTENSION eventstore;
