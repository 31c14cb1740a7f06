-- Folds and commands of roles that are not superusers: with whose rights events are
-- read and reducers run, whose snapshots are used, and that other objects with our
-- names are not taken for ours.
SET client_min_messages = warning;
SELECT plan(43);

CREATE ROLE es_test_developer;
CREATE ROLE es_test_reader;
CREATE ROLE es_test_stranger;
CREATE ROLE es_test_user;
CREATE SCHEMA es_test AUTHORIZATION es_test_developer;
GRANT USAGE ON SCHEMA es_test TO PUBLIC;
SELECT es_append_batch('account-1', 'none', array_fill('deposited'::text, ARRAY[10]), array_fill('{"amount": 1}'::jsonb, ARRAY[10]));
-- Each snapshot gets the name of its role as the state.
CREATE FUNCTION pg_temp.mark() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$
    WITH m AS (UPDATE public.es_snapshots SET state = to_jsonb(taken_by::text) RETURNING 1) SELECT count(*) FROM m $$;
CREATE FUNCTION pg_temp.clear() RETURNS void LANGUAGE sql SECURITY DEFINER AS 'DELETE FROM public.es_snapshots';
CREATE FUNCTION pg_temp.takers() RETURNS name[] LANGUAGE sql SECURITY DEFINER AS 'SELECT array_agg(taken_by ORDER BY taken_by) FROM public.es_snapshots';
SET eventstore.snapshot_every = 5;

--
-- Folding needs SELECT on es_events and EXECUTE on the reducer, no more
--
GRANT SELECT ON es_events TO es_test_reader, es_test_stranger, es_test_developer;
SET ROLE es_test_developer;
CREATE FUNCTION es_test.who(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(current_user || ' ' || event.version) $$;
CREATE FUNCTION es_test.hidden(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS 'SELECT state';
REVOKE EXECUTE ON FUNCTION es_test.hidden FROM PUBLIC;
SET ROLE es_test_reader;
SELECT is((SELECT state FROM es_state('account-1', 'es_test.who(jsonb, es_recorded_event)')), '"es_test_reader 10"', 'a reducer runs as the caller');
SELECT is((SELECT state FROM es_history('account-1', 'es_test.who(jsonb, es_recorded_event)') WHERE version = 2), '"es_test_reader 2"', 'also for es_history');
SELECT throws_ok($$ SELECT es_state('account-1', 'es_test.hidden(jsonb, es_recorded_event)') $$, '42501', NULL, 'a function that the caller may not execute is refused');
SELECT throws_ok($$ SELECT es_state('nobody', 'es_test.hidden(jsonb, es_recorded_event)') $$, '42501', NULL, 'also without any event');
SELECT throws_ok($$ SELECT es_history('account-1', 'es_test.hidden(jsonb, es_recorded_event)') $$, '42501', NULL, 'and by es_history');
SELECT throws_ok('SELECT * FROM es_snapshots', '42501', NULL, 'a reader does not see snapshots');
SELECT throws_ok('DELETE FROM es_snapshots', '42501', NULL, 'nor deletes them');
SELECT throws_ok($$ INSERT INTO es_snapshots (stream, reducer, version, taken_by, fingerprint, recorded_at) VALUES ('account-1', 'r', 1, 'es_test_developer', 1, now()) $$,
    '42501', NULL, 'nor inserts any');
SELECT throws_ok($$ SELECT es_snapshot('account-1', 'es_test.who(jsonb, es_recorded_event)') $$, '42501', NULL, 'nor saves one at will');
RESET ROLE;
SELECT is(pg_temp.takers(), '{es_test_reader}', 'a snapshot was saved all the same');

--
-- Whose snapshot is used
--
SELECT is(pg_temp.mark(), 1::bigint, 'it is marked');
SET ROLE es_test_reader;
SELECT is((SELECT state FROM es_state('account-1', 'es_test.who(jsonb, es_recorded_event)')), '"es_test_reader"', 'the reader uses it');
SET ROLE es_test_stranger;
SELECT is((SELECT state FROM es_state('account-1', 'es_test.who(jsonb, es_recorded_event)')), '"es_test_stranger 10"', 'another role does not');
SET ROLE es_test_developer;
SELECT is((SELECT state FROM es_state('account-1', 'es_test.who(jsonb, es_recorded_event)')), '"es_test_developer 10"', 'nor does the reducer''s owner');
RESET ROLE;
SELECT is(pg_temp.takers(), '{es_test_developer,es_test_reader,es_test_stranger}', 'each role has saved its own');
SELECT is(pg_temp.mark(), 3::bigint, 'they are marked');
DELETE FROM es_snapshots WHERE taken_by <> 'es_test_developer';
SET ROLE es_test_stranger;
SELECT is((SELECT state FROM es_state('account-1', 'es_test.who(jsonb, es_recorded_event)')), '"es_test_developer"', 'that of the reducer''s owner is used by all');
RESET ROLE;
-- The owner of a reducer can also change it, which makes earlier snapshots stale.
ALTER FUNCTION es_test.who OWNER TO es_test_user;
SET ROLE es_test_stranger;
SELECT is((SELECT state FROM es_state('account-1', 'es_test.who(jsonb, es_recorded_event)')), '"es_test_stranger 10"', 'but not after another role owns the reducer');
RESET ROLE;
ALTER FUNCTION es_test.who OWNER TO es_test_developer;
-- Two functions of one name, of which search_path finds one, are two reducers.
DELETE FROM es_snapshots;
CREATE SCHEMA es_test_two AUTHORIZATION es_test_stranger;
GRANT USAGE ON SCHEMA es_test_two TO PUBLIC;
SET ROLE es_test_stranger;
CREATE FUNCTION es_test_two.who(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(current_user || ' ' || event.version) $$;
SELECT isnt((SELECT state FROM es_state('account-1', 'es_test_two.who(jsonb, es_recorded_event)')), NULL, 'one of the same name and words in another schema');
RESET ROLE;
SELECT is(pg_temp.mark(), 1::bigint, 'has saved its snapshot');
SET ROLE es_test_reader;
SET search_path = es_test, public;
SELECT is((SELECT state FROM es_state('account-1', 'who(jsonb, es_recorded_event)')), '"es_test_reader 10"', 'which is not that of the other');
RESET search_path;
RESET ROLE;

--
-- es_snapshot
--
GRANT EXECUTE ON FUNCTION es_snapshot TO es_test_reader, es_test_user;
SELECT pg_temp.clear();
SET eventstore.snapshot_every = 0;
SET ROLE es_test_reader;
SELECT is(es_snapshot('account-1', 'es_merge(jsonb, es_recorded_event)'), 10::bigint, 'with EXECUTE a role saves one');
SET ROLE es_test_user;
SELECT throws_ok($$ SELECT es_snapshot('account-1', 'es_merge(jsonb, es_recorded_event)') $$, '42501', NULL, 'a role that may not read events does not');
SELECT throws_ok($$ SELECT es_state('account-1', 'es_merge(jsonb, es_recorded_event)') $$, '42501', NULL, 'nor gets the state of one');
RESET ROLE;
SELECT is(pg_temp.takers(), '{es_test_reader}', 'there is one');

--
-- Commands: EXECUTE on es_execute, SELECT, and nothing else
--
GRANT EXECUTE ON FUNCTION es_execute TO es_test_user;
GRANT SELECT ON es_events TO es_test_user;
CREATE FUNCTION es_test.decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS
    $$ SELECT jsonb_build_array(jsonb_build_object('type', 'done', 'data', jsonb_build_object('by', current_user))) $$;
CREATE FUNCTION es_test.hidden_decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT command';
REVOKE EXECUTE ON FUNCTION es_test.hidden_decide FROM PUBLIC;
SET ROLE es_test_user;
SELECT is((SELECT state FROM es_execute('order-1', 'es_test.decide(jsonb, jsonb)', '{}', 'es_merge(jsonb, es_recorded_event)')), '{"by": "es_test_user"}', 'a decider runs as the caller');
SELECT throws_ok($$ SELECT es_execute('order-1', 'es_test.hidden_decide(jsonb, jsonb)', '[]', 'es_merge(jsonb, es_recorded_event)') $$, '42501', NULL, 'a function that the caller may not execute is refused');
SELECT throws_ok($$ SELECT es_execute('order-1', 'es_test.decide(jsonb, jsonb)', '{}', 'es_test.hidden(jsonb, es_recorded_event)') $$, '42501', NULL, 'and so is a reducer');
SELECT throws_ok($$ SELECT es_append('order-1', 'any', 'x') $$, '42501', NULL, 'that role may not call es_append');
RESET ROLE;
REVOKE SELECT ON es_events FROM es_test_user;
SET ROLE es_test_user;
SELECT throws_ok($$ SELECT es_execute('order-1', 'es_test.decide(jsonb, jsonb)', '{}', 'es_merge(jsonb, es_recorded_event)') $$, '42501', NULL, 'without SELECT it decides nothing');
SELECT throws_ok($$ SELECT es_execute('order-9', 'es_test.decide(jsonb, jsonb)', '{}', 'es_merge(jsonb, es_recorded_event)') $$, '42501', NULL, 'also on a stream that is new');
RESET ROLE;
SELECT is(es_stream_version('order-1'), 1::bigint, 'one event was appended');

--
-- es_reducer
--
GRANT EXECUTE ON FUNCTION es_reducer TO es_test_developer, es_test_user;
SET ROLE es_test_user;
SELECT throws_ok($$ SELECT es_reducer('es_test') $$, '42501', NULL, 'a role that may not create in the schema creates no reducer there');
SET ROLE es_test_developer;
CREATE FUNCTION es_test.apply_deposited(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(current_user) $$;
SELECT is(es_reducer('es_test')::text, 'es_test.es_reduce(jsonb,es_recorded_event)', 'a role that may, does');
RESET ROLE;
SELECT is((SELECT proowner::regrole::text FROM pg_proc WHERE oid = 'es_test.es_reduce'::regproc), 'es_test_developer', 'it is the owner');
SELECT is((SELECT prosecdef FROM pg_proc WHERE oid = 'es_test.es_reduce'::regproc), false, 'and runs as the caller');
SET ROLE es_test_user;
SELECT is(es_reducer('es_test')::text, 'es_test.es_reduce(jsonb,es_recorded_event)', 'a role that may not create it finds it');
SET ROLE es_test_reader;
SELECT is((SELECT state FROM es_state('account-1', 'es_test.es_reduce(jsonb, es_recorded_event)')), '"es_test_reader"', 'its functions run as the caller');
RESET ROLE;
REVOKE EXECUTE ON FUNCTION es_test.apply_deposited FROM PUBLIC;
SET ROLE es_test_reader;
SELECT throws_ok($$ SELECT es_state('account-1', 'es_test.es_reduce(jsonb, es_recorded_event)') $$, '42501', NULL, 'the caller must be allowed to execute them');
SET ROLE es_test_developer;
SELECT lives_ok('DROP FUNCTION es_test.es_reduce', 'its owner may drop it');
RESET ROLE;

--
-- Other objects with our names
--
CREATE TEMP TABLE es_snapshots (id bigint GENERATED ALWAYS AS IDENTITY, stream text, reducer text, version bigint, taken_by name, fingerprint bigint, recorded_at timestamptz, state jsonb);
CREATE TEMP TABLE es_events (position bigint, stream text);
SELECT public.es_append_batch('account-2', 'none', array_fill('deposited'::text, ARRAY[3]), array_fill('{"amount": 2}'::jsonb, ARRAY[3]));
SELECT is((SELECT state FROM public.es_state('account-2', 'es_merge(jsonb, public.es_recorded_event)')), '{"amount": 2}', 'another table es_events is not read');
SELECT is(public.es_snapshot('account-2', 'es_merge(jsonb, public.es_recorded_event)'), 3::bigint, 'a snapshot is saved');
SELECT is_empty('SELECT * FROM pg_temp.es_snapshots', 'not in another table of the name');
DROP TABLE pg_temp.es_snapshots, pg_temp.es_events;

SELECT * FROM finish();
DROP EXTENSION eventstore CASCADE;
DROP SCHEMA es_test, es_test_two CASCADE;
DROP OWNED BY es_test_developer, es_test_reader, es_test_stranger, es_test_user;
DROP ROLE es_test_developer, es_test_reader, es_test_stranger, es_test_user;
CREATE EXTENSION eventstore;
