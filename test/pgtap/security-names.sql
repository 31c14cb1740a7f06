-- Every function, called with a search_path in which another role's objects
-- come before pg_catalog's and ours: operators, functions, types, tables of
-- the same names and arguments. Each of the functions notes that it was called,
-- none of which may run. What is called here is named with its schema.
SET client_min_messages = warning;
SELECT plan(9);

CREATE ROLE es_test_attacker;
CREATE ROLE es_test_user;
SELECT es_grant('es_test_user', 'writer'), es_grant('es_test_user', 'operator'), es_grant('es_test_user', 'retention'), es_grant('es_test_user', 'personal');
CREATE SCHEMA es_test AUTHORIZATION es_test_user;
CREATE SCHEMA es_test_super;
CREATE SCHEMA es_test_evil AUTHORIZATION es_test_attacker;
GRANT USAGE ON SCHEMA es_test_evil TO PUBLIC;
CREATE TABLE es_test_evil.called (by name, what text);
GRANT INSERT ON es_test_evil.called TO PUBLIC;

CREATE TEMP TABLE types AS
SELECT unnest('{bool,int2,int4,int8,numeric,float8,text,name,oid,regclass,regproc,regprocedure,regrole,regnamespace,timestamptz,timestamp,interval,jsonb,json,uuid,xid8,
    _int8,_text,_int4,_jsonb,_uuid,_aclitem,"\"char\"",bytea,void,es_expected_version,es_function,es_role,es_categories,es_events,es_recorded_event}'::regtype[])::oid AS type;
GRANT SELECT ON types TO PUBLIC;
CREATE TEMP TABLE members AS
SELECT p.oid, p.proname::text
  FROM pg_depend d
  JOIN pg_proc p ON p.oid = d.objid
 WHERE d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
   AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'eventstore');
GRANT SELECT ON members TO PUBLIC;

--
-- The attacker's objects
--
SET ROLE es_test_attacker;
SET check_function_bodies = off;
CREATE FUNCTION pg_temp.trap(name text, arguments text, result text) RETURNS text LANGUAGE sql AS $$
    SELECT format('CREATE FUNCTION es_test_evil.%I(%s) RETURNS %s LANGUAGE sql AS %L', name, arguments, result,
                  format('INSERT INTO es_test_evil.called VALUES (current_user, %L); SELECT NULL::%s', name || ' ' || arguments, result)) $$;
DO $$
DECLARE o record;
BEGIN
    FOR o IN SELECT oprname, format_type(nullif(oprleft, 0), NULL) AS l, format_type(oprright, NULL) AS r, format_type(oprresult, NULL) AS result,
                    'op_' || oid AS f
               FROM pg_operator
              WHERE oprresult IN (SELECT type FROM types) AND oprright IN (SELECT type FROM types)
                AND (oprleft = 0 OR oprleft IN (SELECT type FROM types))
    LOOP
        EXECUTE pg_temp.trap(o.f, concat_ws(', ', o.l, o.r), o.result);
        EXECUTE format('CREATE OPERATOR es_test_evil.%s (%s RIGHTARG = %s, FUNCTION = es_test_evil.%s)', o.oprname, 'LEFTARG = ' || o.l || ',', o.r, o.f);
    END LOOP;
    -- aggregates, too, as functions; of ours those of the same arguments
    FOR o IN SELECT DISTINCT ON (p.proname, p.proargtypes) p.proname, format_type(p.prorettype, NULL) AS result,
                    (SELECT coalesce(string_agg(format_type(a, NULL), ', ' ORDER BY nr), '')
                       FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY u (a, nr)) AS arguments
               FROM pg_proc p
              WHERE (p.pronamespace = 'pg_catalog'::regnamespace OR p.oid IN (SELECT m.oid FROM members m))
                AND p.prorettype IN (SELECT type FROM types)
                AND NOT EXISTS (SELECT FROM unnest(p.proargtypes::oid[]) a WHERE a = 'void'::regtype OR a NOT IN (SELECT type FROM types))
    LOOP
        EXECUTE pg_temp.trap(o.proname, o.arguments, o.result);
    END LOOP;
    FOR o IN SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname LIKE 'es\_%' AND relkind IN ('r', 'v', 'S')
    LOOP
        EXECUTE format('CREATE TABLE es_test_evil.%I (name text, wrong int)', o.relname);
    END LOOP;
    FOR o IN SELECT typname FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace AND oid IN (SELECT type FROM types) AND typtype = 'b'
    LOOP
        EXECUTE format('CREATE TYPE es_test_evil.%I AS (wrong boolean)', o.typname);
    END LOOP;
END $$;
RESET check_function_bodies;
RESET ROLE;
SELECT cmp_ok((SELECT count(*) FROM pg_proc WHERE pronamespace = 'es_test_evil'::regnamespace), '>', 1500::bigint, 'there are functions that note their calls');
SET search_path = es_test_evil, pg_catalog, public;
SELECT lower('x'), 1 + 1;
RESET search_path;
SELECT is((SELECT count(*) FROM es_test_evil.called), 2::bigint, 'they are called where names are found by the search_path');
DELETE FROM es_test_evil.called;

--
-- What is called: as a superuser, and as a writer and operator. :user, :schema
-- and :nr are its own.
--
CREATE FUNCTION pg_temp.prepare(schema text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TABLE %1$I.seen (position bigint PRIMARY KEY)', schema);
    EXECUTE format('CREATE MATERIALIZED VIEW %1$I.view AS SELECT 1 AS one', schema);
    EXECUTE format('CREATE FUNCTION %1$I.note(event es_recorded_event) RETURNS void LANGUAGE sql SET search_path = %1$I AS ''INSERT INTO seen VALUES (event.position)''', schema);
    EXECUTE format('CREATE FUNCTION %1$I.fail(event es_recorded_event) RETURNS void LANGUAGE sql BEGIN ATOMIC SELECT 1 / (event.position - event.position); END', schema);
    EXECUTE format('CREATE FUNCTION %1$I.apply_opened(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql RETURN data', schema);
    EXECUTE format('CREATE FUNCTION %1$I.decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql RETURN ''[{"type": "decided"}]''::jsonb', schema);
    EXECUTE format('CREATE FUNCTION %1$I.decide_of(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql RETURN ''[{"type": "decided", "stream": "decided", "tags": ["all"]}]''::jsonb', schema);
    EXECUTE format('CREATE FUNCTION %1$I.up(data jsonb) RETURNS jsonb LANGUAGE sql RETURN data', schema);
    EXECUTE format('CREATE FUNCTION %1$I.receive(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql RETURN ROW((1 / length(payload))::text, now(), ''came'', NULL, ''message-1'', NULL, NULL)::es_ack_event', schema);
END $$;
CREATE TABLE calls (nr int GENERATED ALWAYS AS IDENTITY, call text);
INSERT INTO calls (call) SELECT line FROM regexp_split_to_table($calls$
SELECT public.es_define_event_type('opened', '{n}', '{n,at}', '{"n": "integer", "at": "timestamptz"}', 2, 'what')
SELECT public.es_append('account-:user', 'none', 'opened', '{"n": :nr, "at": "2020-01-01"}', '{"a": 1}', occurred_at => '2020-01-01')
SELECT public.es_append('account-:user', 'exists', 'opened', '{"n": :nr, "at": "2020-01-01"}')
SELECT public.es_append_batch('account-:user', 1, '[{"type": "opened", "data": {"n": 1:nr, "at": "2020-01-01"}, "occurred_at": "2020-01-01T00:00:00Z"}]')
SELECT public.es_append_batch('account-:user', 'any', '{deposited}', '{"{\"amount\": 1}"}', '{"{}"}', '{00000000-0000-0000-0000-0000000000:nr}')
INSERT INTO public.es_import (stream, type) VALUES ('account-:user', 'closed')
SELECT public.es_rewrite('00000000-0000-0000-0000-0000000000:nr', '{"n": 3}', '{"b": 2}')
SELECT public.es_append('gone-:user', 'any', 'came', tags => '{gone}'), public.es_append('shorter-:user', 'any', 'came'), public.es_append('shorter-:user', 'any', 'came')
SELECT public.es_delete_stream('gone-:user', 'any'), public.es_truncate_stream('shorter-:user', 2), public.es_kept_after('shorter-:user', 0)
SELECT public.es_append('archived-:user', 'any', 'came'), public.es_append('compacted-:user', 'any', 'came')
SELECT public.es_archive_stream('archived-:user'), public.es_archive('nothing', '1 day')
SELECT * FROM public.es_load_archived('archived-:user', 0, 1)
SELECT public.es_unarchive_stream('archived-:user')
SELECT public.es_compact_stream('compacted-:user', 'public.es_merge'::pg_catalog.text)
SELECT public.es_set_retention('shorter', '1 hour', 1, '1 day'), (SELECT pg_catalog.count(*) FROM public.es_run_retention('shorter')), (SELECT pg_catalog.count(*) FROM public.es_retention_status)
SELECT public.es_define_upcaster('opened', 1, ':schema.up(pg_catalog.jsonb)')
SELECT (public.es_describe_event_type('opened')).*
SELECT * FROM public.es_load('account-:user', 1, 2)
SELECT * FROM public.es_load_backward('account-:user', 3, 1)
SELECT * FROM public.es_read(0, 10)
SELECT * FROM public.es_read(0, 10, '[{"tags": ["all"]}, {"types": ["opened"]}]')
SELECT public.es_matching_positions('[{"tags": ["all"]}, {"types": ["opened"]}]', 0, 10), public.es_by_query(1, '[{}]', '{1}'), public.es_index_type('opened')
SELECT * FROM public.es_read_category('account', 0, 10, '{opened}')
SELECT public.es_append_if('[{"type": "noted", "tags": ["user::user", "all"], "stream": "note-:user"}]', '[{"tags": ["none:nr"]}, {"types": ["nothing"]}]')
SELECT * FROM public.es_query('[{"tags": ["all"]}, {"types": ["opened"]}]', 0, 10)
SELECT public.es_reindex_tags()
SELECT public.es_set_slots('{[0,1024)}'), public.es_slots()
SELECT (public.es_remove_foreign_streams()).*
SELECT public.es_call('es_load(stream)', '\x0000000b6163636f756e742d3a757365')
SELECT public.es_stream_version('account-:user')
SELECT public.es_last_event('account-:user', 'opened')
SELECT public.es_event('00000000-0000-0000-0000-0000000000:nr')
SELECT public.es_upcast(e), public.es_recorded_event(e) FROM public.es_events e
SELECT public.es_upcast_data(e.position, e.id, e.stream, e.type, e.data, e.metadata), public.es_upcast_metadata(e.position, e.id, e.stream, e.type, e.data, e.metadata) FROM public.es_events e
SELECT public.es_horizon()
SELECT public.es_store_id(), public.es_incarnation(), public.es_position_valid(public.es_incarnation(), 1)
SELECT * FROM public.es_finish_restore()
DO $call$ BEGIN PERFORM public.es_promote(); EXCEPTION WHEN object_not_in_prerequisite_state OR insufficient_privilege THEN NULL; END $call$
SELECT public.es_by_index('a', 'b'), public.es_by_version(1, 0, 2), public.es_category('a-1'), public.es_channel('a'), public.es_partition('a-1', 7), public.es_uuid7(), public.es_checksum('a'), public.es_replaying(), public.es_import_fires()
SELECT public.es_uuid5('00000000-0000-0000-0000-000000000001', 'a'), public.es_digest_string('{"a": 1}', '{a}'), public.es_digest('t', '{"a": 1}', '{a}')
SELECT public.es_attribute('{"a": 1}', 'a'), public.es_index_attribute('opened', 'at:nr'), public.es_index_attribute('opened', 'n')
SELECT public.es_merge('{}', e), public.es_last('{}', e) FROM public.es_events e WHERE e.type OPERATOR(pg_catalog.=) 'opened'
SELECT public.es_state('account-:user', 'public.es_merge(pg_catalog.jsonb, public.es_recorded_event)'), public.es_state('account-:user', 'public.es_merge'), public.es_state('account-:user', 'public.es_merge'::pg_catalog.text)
SELECT public.es_state('account-:user', 'public.es_merge(pg_catalog.jsonb, public.es_recorded_event)', at_time => 'infinity', by_time => 'occurred')
SELECT public.es_history('account-:user', 'public.es_last(pg_catalog.jsonb, public.es_recorded_event)'), public.es_history('account-:user', 'public.es_last'::pg_catalog.regproc)
SELECT public.es_snapshot('account-:user', 'public.es_merge(pg_catalog.jsonb, public.es_recorded_event)')
SELECT public.es_reducer(':schema')
SELECT public.es_state('account-:user', ':schema.es_reduce(pg_catalog.jsonb, public.es_recorded_event)')
SELECT public.es_execute('account-:user', ':schema.decide(pg_catalog.jsonb, pg_catalog.jsonb)', '{"correlation_id": "x"}', 'public.es_merge(pg_catalog.jsonb, public.es_recorded_event)', '{"command_id": "00000000-0000-0000-0000-0000000001:nr"}')
SELECT public.es_execute('account-:user', ':schema.decide(pg_catalog.jsonb, pg_catalog.jsonb)', '{"correlation_id": "x"}', 'public.es_merge(pg_catalog.jsonb, public.es_recorded_event)', '{"command_id": "00000000-0000-0000-0000-0000000001:nr"}')
SELECT public.es_decide('[{"tags": ["user::user"]}]', ':schema.decide_of(pg_catalog.jsonb, pg_catalog.jsonb)', '{"correlation_id": "x"}', 'public.es_merge(pg_catalog.jsonb, public.es_recorded_event)', '{"command_id": "00000000-0000-0000-0000-0000000002:nr"}')
SELECT public.es_test_decider('public.es_merge(pg_catalog.jsonb, public.es_recorded_event)', ':schema.decide(pg_catalog.jsonb, pg_catalog.jsonb)', '[{"type": "given", "data": {"n": 1}}]', '{"correlation_id": "x"}')
SELECT public.es_receive('t', ':user', 'p', ':schema.receive(pg_catalog.text, pg_catalog.jsonb)', '{"a": 1}')
SELECT public.es_receive('t', ':user', '', ':schema.receive(pg_catalog.text, pg_catalog.jsonb)', max_retries => 0)
SELECT * FROM public.es_inbox('e', 't', 'g', 'came')
SELECT public.es_retry(f.id) FROM public.es_failures(topic => 't', group_id => ':user') f
SELECT public.es_discard(f.id) FROM public.es_failures(topic => 't', group_id => ':user') f
SELECT public.es_create_projection('async:nr', ':schema.note(public.es_recorded_event)', tables => '{:schema.seen}', category => 'account', types => '{opened,decided}', batch_size => 2)
SELECT public.es_create_projection('view:nr', refresh => ':schema.view')
SELECT public.es_create_projection('fail:nr', ':schema.fail(public.es_recorded_event)', on_failure => 'park', max_attempts => 1, category => 'account')
SELECT public.es_run_projections(), public.es_run_projections('fail:nr', 3)
SELECT public.es_wait('async:nr', 1, '10ms')
SELECT public.es_retry(f.id), public.es_discard(f.id) FROM (SELECT f.id FROM public.es_failures('fail:nr', 'account-:user', NULL, 1, 0) f OFFSET 0) f
SELECT public.es_skip_event('fail:nr', e.position, 'why'), public.es_unskip_event('fail:nr', e.position) FROM public.es_read_category('account', 0, 1) e
SELECT public.es_pause_projection('fail:nr'), public.es_drop_projection('fail:nr')
SELECT public.es_alter_projection('async:nr', 'sync', 10, 'stop', 2, '1s', event_query => '[{"types": ["opened", "decided"]}, {"tags": ["all"]}]')
SELECT public.es_append('account-:user', 'any', 'opened', '{"n": :nr, "at": "2021-01-01"}')
SELECT public.es_rebuild_projection('async:nr')
SELECT public.es_rename_projection('async:nr', 'other:nr')
SELECT public.es_rename_projection('other:nr', 'async:nr')
SELECT public.es_pause_projection('async:nr'), public.es_resume_projection('async:nr')
SELECT * FROM public.es_projection_status
SELECT public.es_drop_projection('async:nr'), public.es_drop_projection('view:nr')
SELECT public.es_create_subscription('sub:nr', 'account', '{opened,decided}', 0, 1, '1h', 3, 100)
SELECT public.es_nack('sub:nr', p.token, p.position, 'why', 'park') FROM public.es_poll('sub:nr', 'me', 1, '10ms') p
SELECT public.es_retry(f.id) FROM public.es_failures(subscription => 'sub:nr') f
SELECT public.es_ack('sub:nr', p.token, NULL) FROM (SELECT p.token FROM public.es_poll('sub:nr', 'me', 10, '0', NULL) p LIMIT 1) p
SELECT * FROM public.es_subscription_status
SELECT public.es_alter_subscription('sub:nr', '{account,order}', '{opened,decided}', '1h', 3, 100, query => '[{"types": ["opened", "decided"]}, {"tags": ["all"]}]')
SELECT public.es_rename_subscription('sub:nr', 'subs:nr'), public.es_rename_subscription('subs:nr', 'sub:nr')
SELECT public.es_seek('sub:nr', 0), public.es_drop_subscription('sub:nr')
SELECT public.es_drop_event_type('opened')
SELECT public.es_define_event_type('joined', personal => '{name}'), public.es_define_personal_attributes('joined', '{by_name}', 'by')
SELECT public.es_append('person-:user', 'none', 'joined', '{"name": "Ann", "by": "b:nr", "by_name": "Ben"}')
SELECT public.es_personal_hash(':user', 'Ann'), public.es_rotate_keys(10), public.es_sees_personal_data()
SELECT e.data OPERATOR(pg_catalog.->>) 'name' FROM public.es_load('person-:user') e
SELECT * FROM public.es_erase_subject(':user', 'why')
SELECT * FROM public.es_erasure_report(':user'), public.es_erasure_places
SELECT public.es_replay_erasure('b:nr', '2026-01-01Z'), public.es_erase('c:nr', NULL, NULL)
SELECT public.es_define_event_type('joined', personal => '{}')
SELECT 1::public.es_expected_version OPERATOR(public.*=) 2::pg_catalog.int8::public.es_expected_version, 'any'::public.es_expected_version OPERATOR(public.*<>) 'none'
SELECT * FROM public.es_privileges
SELECT * FROM public.es_stats(), public.es_inbox_stats()
SELECT pg_catalog.count(*) FROM public.es_horizon_holders(), public.es_horizon_holders AS v
SELECT pg_catalog.count(*) FROM public.es_projection_lag(), public.es_subscription_lag()
SELECT pg_catalog.count(*) FROM public.es_health(), public.es_health AS v
SELECT public.es_stats_reset(), (SELECT pg_catalog.count(*) FROM public.es_stats), (SELECT pg_catalog.count(*) FROM public.es_inbox_stats)
$calls$, '\n') line
 WHERE line <> '';
-- For the superuser only
INSERT INTO calls (call) SELECT line FROM regexp_split_to_table($calls$
SELECT public.es_grant('es_test_user', 'reader'), public.es_revoke('es_test_user', 'reader'), public.es_grant('es_test_user', 'operator')
SELECT public.es_source_positions('[{"types": ["opened"]}, {"tags": ["all"]}]', '{account}', '{opened}', 0, 9, 1)
SELECT 0 FROM public.es_start_worker() w, LATERAL pg_catalog.pg_terminate_backend(w)
$calls$, '\n') line
 WHERE line <> '';
GRANT SELECT ON calls TO PUBLIC;

-- With names of each user's own
CREATE FUNCTION pg_temp.filled(call text, who text, nr int) RETURNS text LANGUAGE sql AS $$
    SELECT replace(replace(replace(call, ':user', who), ':schema', CASE nr WHEN 11 THEN 'es_test_super' ELSE 'es_test' END), ':nr', nr::text) $$;
CREATE TEMP TABLE superusers_calls AS SELECT nr, pg_temp.filled(call, 'super', 11) AS call FROM calls;
CREATE TEMP TABLE users_calls AS SELECT nr, pg_temp.filled(call, 'user', 12) AS call FROM calls WHERE call !~ 'es_(grant|start_worker|source_positions|finish_restore|set_slots)';
GRANT SELECT ON users_calls TO PUBLIC;
SELECT pg_temp.prepare('es_test_super');
SET ROLE es_test_user;
SELECT pg_temp.prepare('es_test');
RESET ROLE;
CREATE TABLE done (who name, nr int);
GRANT INSERT ON done TO PUBLIC;
CREATE TEMP TABLE es_events (name text);
CREATE TEMP TABLE es_projections (name text);
CREATE TEMP TABLE es_snapshots (name text);
CREATE TEMP TABLE es_failures (name text);
CREATE TEMP TABLE es_skipped_events (name text);
CREATE TEMP TABLE es_inbox (name text);
CREATE TEMP TABLE es_subscriptions (name text);
CREATE TEMP TABLE es_partitions (name text);
CREATE TEMP TABLE es_event_types (name text);
CREATE TEMP TABLE es_upcasters (name text);
CREATE TEMP TABLE es_personal_attributes (name text);
CREATE TEMP TABLE es_subject_keys (name text);
CREATE TEMP TABLE es_erasures (name text);
CREATE TEMP TABLE es_erasure_places (name text);
CREATE TEMP TABLE es_privileges (name text);
CREATE TEMP TABLE pg_class (relname text);
CREATE TEMP TABLE pg_index (relname text);
CREATE TEMP TABLE pg_constraint (relname text);
CREATE TEMP TABLE pg_attribute (relname text);
CREATE TEMP TABLE pg_locks (relname text);

SET search_path = pg_temp, es_test_evil, pg_catalog, public;
SET eventstore.snapshot_every = 1;
DO $$
DECLARE c pg_catalog.record;
BEGIN
    FOR c IN SELECT s.nr, s.call FROM pg_temp.superusers_calls s ORDER BY s.nr LOOP
        EXECUTE c.call;
        INSERT INTO public.done VALUES (current_user, c.nr);
        COMMIT;
    END LOOP;
END $$;
CALL public.es_work(); -- it commits, so that it is not called in a block
SET ROLE es_test_user;
DO $$
DECLARE c pg_catalog.record;
BEGIN
    FOR c IN SELECT s.nr, s.call FROM pg_temp.users_calls s ORDER BY s.nr LOOP
        EXECUTE c.call;
        INSERT INTO public.done VALUES (current_user, c.nr);
        COMMIT;
    END LOOP;
END $$;
CALL public.es_work();
RESET ROLE;
RESET search_path;
SELECT is((SELECT count(*) FROM done WHERE who <> 'es_test_user'), (SELECT count(*) FROM superusers_calls), 'a superuser has called all of it');
SELECT is((SELECT count(*) FROM done WHERE who = 'es_test_user'), (SELECT count(*) FROM users_calls), 'and so has a writer and operator');
SELECT is_empty('SELECT by, what, count(*) FROM es_test_evil.called GROUP BY 1, 2', 'nothing of the attacker''s was called');
SELECT is((SELECT count(*) FROM public.es_events WHERE stream LIKE 'account-%'), 12::bigint, 'and the events are where they belong');
SELECT is_empty(
    $$ SELECT members.proname FROM members, pg_catalog.pg_proc p
        WHERE p.oid = members.oid AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
          AND members.proname !~ '^es_expected_version_|^es_function_|^es_health_|^es_role_|^es_categories_|^es_definitions|^es_append_support$|^es_kept_after_support$|^es_upcast_support$|^es_by_index_support$|^es_by_query_support$|^es_closed$'
          AND members.proname NOT IN ('es_work', 'es_reset')    -- no part of a transaction that goes on; not in a database like this
          AND NOT EXISTS (SELECT FROM calls WHERE call ~ ('public\.' || members.proname || '\(')) $$,
    'every function is among those that are called here');

--
-- How SQL is written: bodies that are parsed when they are made
--
SELECT is_empty(
    $$ SELECT p.oid::regprocedure
         FROM members m
         JOIN pg_catalog.pg_proc p ON p.oid = m.oid
         JOIN pg_language l ON l.oid = p.prolang
        WHERE l.lanname NOT IN ('c', 'internal') AND NOT (l.lanname = 'sql' AND p.prosqlbody IS NOT NULL) $$,
    'every function is in C, or SQL whose names were looked up when it was made');
SELECT is_empty(
    $$ SELECT p.oid::regprocedure FROM members m JOIN pg_catalog.pg_proc p ON p.oid = m.oid WHERE p.proconfig IS NOT NULL $$,
    'none has settings of its own, which would keep it from being inlined');

SELECT * FROM finish();
DROP TABLE calls, done;
DROP TABLE pg_temp.es_events, pg_temp.es_projections, pg_temp.es_snapshots, pg_temp.es_failures, pg_temp.es_skipped_events, pg_temp.es_inbox, pg_temp.es_subscriptions,
    pg_temp.es_partitions, pg_temp.es_event_types, pg_temp.es_upcasters, pg_temp.es_personal_attributes, pg_temp.es_subject_keys, pg_temp.es_erasures, pg_temp.es_erasure_places, pg_temp.es_privileges;
DROP TABLE pg_temp.pg_class, pg_temp.pg_index, pg_temp.pg_constraint, pg_temp.pg_attribute, pg_temp.pg_locks;
DROP EXTENSION eventstore CASCADE;
DROP SCHEMA es_test, es_test_super, es_test_evil CASCADE;
DROP OWNED BY es_test_attacker, es_test_user;
DROP ROLE es_test_attacker, es_test_user;
CREATE EXTENSION eventstore;
