-- What es_grant grants: doc/operate/security.md, es_privileges and the catalogs say the
-- same, for every object of the extension; what es_revoke takes away.
BEGIN;
SELECT plan(121);

CREATE ROLE es_test_reader;
CREATE ROLE es_test_writer;
CREATE ROLE es_test_operator;
CREATE ROLE es_test_retention;
CREATE ROLE es_test_personal;
CREATE ROLE "es test ""R'";
CREATE ROLE es_test_nobody;
CREATE ROLE es_test_granted IN ROLE es_test_reader;

CREATE TEMP VIEW members AS
SELECT classid, objid
  FROM pg_depend
 WHERE deptype = 'e'
   AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'eventstore');

-- Every object that can have privileges, with those it has. From version 17 on
-- the types of rows and arrays are members, too, which have those of their tables.
CREATE TEMP VIEW acls AS
SELECT CASE c.relkind WHEN 'S' THEN 'sequence' WHEN 'v' THEN 'view' ELSE 'table' END AS type,
       c.relname AS name, c.relowner AS owner,
       coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner)) AS acl
  FROM members m
  JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid
 WHERE c.relkind <> 'c'
UNION ALL
SELECT 'function', p.proname, p.proowner, coalesce(p.proacl, acldefault('f', p.proowner))
  FROM members m
  JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid
UNION ALL
SELECT 'type', t.typname, t.typowner, coalesce(t.typacl, acldefault('T', t.typowner))
  FROM members m
  JOIN pg_type t ON m.classid = 'pg_type'::regclass AND t.oid = m.objid
 WHERE t.typelem = 0 AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind <> 'c');

CREATE FUNCTION pg_temp.given(acl aclitem[], role oid) RETURNS text LANGUAGE sql AS $$
    SELECT coalesce(string_agg(privilege_type, ', ' ORDER BY privilege_type DESC), '') FROM aclexplode(acl) WHERE grantee = role $$;
-- One row of the table in doc/operate/security.md for each; functions of one name share it.
-- Retention has a table of its own, since it has little, and so has the kind that sees personal attributes.
CREATE TEMP VIEW doc_rows AS
SELECT DISTINCT format('| %s `%s` | %s | %s | %s | %s |', type, name,
           pg_temp.given(acl, to_regrole('es_test_reader')), pg_temp.given(acl, to_regrole('es_test_writer')),
           pg_temp.given(acl, to_regrole('es_test_operator')), pg_temp.given(acl, 0)) AS line
  FROM acls
UNION
SELECT format('| %s `%s` | %s |', type, name, given)
  FROM acls, pg_temp.given(acl, to_regrole('es_test_retention')) given
 WHERE given <> ''
UNION
SELECT format('| %s `%s` | %s |', type, name, given)
  FROM acls, pg_temp.given(acl, to_regrole('es_test_personal')) given
 WHERE given <> '';
CREATE TEMP VIEW grants AS
SELECT a.type, a.name, e.grantee, e.privilege_type, e.is_grantable
  FROM acls a, aclexplode(a.acl) e
 WHERE e.grantee NOT IN (0, a.owner);
CREATE FUNCTION pg_temp.all_of(role regrole) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT type || ' ' || name || ' ' || privilege_type FROM grants WHERE grantee = role
    UNION SELECT 'schema ' || privilege_type FROM pg_namespace n, aclexplode(n.nspacl)
     WHERE n.oid = (SELECT extnamespace FROM pg_extension WHERE extname = 'eventstore') AND grantee = role $$;

--
-- One table, three times
--
SELECT is_empty('SELECT * FROM grants', 'before es_grant no role has anything');
SELECT lives_ok($$ SELECT es_grant('es_test_reader', 'reader') $$, 'a reader');
SELECT lives_ok($$ SELECT es_grant('es_test_writer', 'writer') $$, 'a writer');
SELECT lives_ok($$ SELECT es_grant('es_test_operator', 'operator') $$, 'an operator');
SELECT lives_ok($$ SELECT es_grant('es_test_retention', 'retention') $$, 'retention');
SELECT lives_ok($$ SELECT es_grant('es_test_personal', 'personal') $$, 'a role that sees personal attributes');
\set doc `cat doc/operate/security.md`
CREATE TEMP TABLE documented AS
SELECT line FROM regexp_split_to_table(:'doc', '\n') line
 WHERE line ~ '^\| (table|view|sequence|function|type) `es_';
SELECT bag_eq('SELECT line FROM documented', 'SELECT line FROM doc_rows',
    'doc/operate/security.md has what the catalogs have, for every object of the extension');
SELECT is_empty(
    $$ SELECT pg_describe_object(classid, objid, 0) FROM members
        WHERE classid NOT IN ('pg_class'::regclass, 'pg_proc'::regclass, 'pg_type'::regclass)
          AND classid NOT IN ('pg_cast'::regclass, 'pg_operator'::regclass, 'pg_opclass'::regclass, 'pg_opfamily'::regclass, 'pg_event_trigger'::regclass) $$,
    'there is no object of another kind that could have privileges');
SELECT bag_eq(
    $$ SELECT CASE kind WHEN 'reader' THEN 'es_test_reader' WHEN 'writer' THEN 'es_test_writer' WHEN 'retention' THEN 'es_test_retention' WHEN 'personal' THEN 'es_test_personal' ELSE 'es_test_operator' END || ' ' ||
              CASE type WHEN 'TABLE' THEN (SELECT relname FROM pg_class WHERE oid = object::regclass)
                        ELSE (SELECT proname FROM pg_proc WHERE oid = object::regprocedure) END || ' ' || privilege
         FROM es_privileges WHERE type <> 'SCHEMA' $$,
    $$ SELECT grantee::regrole || ' ' || name || ' ' || privilege_type FROM grants $$,
    'and es_privileges has it');
SELECT bag_eq(
    $$ SELECT DISTINCT type, privilege, kind FROM es_privileges WHERE type = 'SCHEMA' $$,
    $$ VALUES ('SCHEMA', 'USAGE', 'reader'), ('SCHEMA', 'USAGE', 'writer'), ('SCHEMA', 'USAGE', 'operator'), ('SCHEMA', 'USAGE', 'retention'), ('SCHEMA', 'USAGE', 'personal') $$,
    'the schema is for all');
SELECT is_empty('SELECT * FROM grants WHERE is_grantable', 'no role can pass anything on');
SELECT is_empty(
    $$ SELECT * FROM acls a, aclexplode(a.acl) e
        WHERE e.grantee = 0 AND (a.type IN ('table', 'view', 'sequence') OR e.privilege_type NOT IN ('EXECUTE', 'USAGE')) $$,
    'PUBLIC has no right on a table, view or sequence');
-- es_state saves what it has folded, as the caller, and only for the caller and the owner of the reducer. es_call calls
-- what the caller may call.
SELECT bag_eq(
    $$ SELECT p.oid::regprocedure::text
         FROM members m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid
        WHERE p.provolatile = 'v' AND 'internal'::regtype <> ALL (p.proargtypes) AND has_function_privilege('es_test_nobody', p.oid, 'EXECUTE') $$,
    $$ VALUES ('es_uuid7()'), ('es_call(text,bytea)'), ('es_query(jsonb,bigint,bigint,boolean,bigint)'), ('es_state(text,es_function,jsonb,bigint,timestamp with time zone,text)') $$,
    'of the functions that could write PUBLIC may call none but es_state, which writes its cache only, es_query, which takes a snapshot, and es_call, which calls another one');
SELECT is_empty(
    $$ SELECT p.oid::regprocedure
         FROM members m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid
        WHERE p.prorettype = 'trigger'::regtype AND has_function_privilege('es_test_operator', p.oid, 'EXECUTE') $$,
    'no role may put our triggers on a table of its own');
SELECT is_empty(
    $$ SELECT p.oid::regprocedure
         FROM members m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid
        WHERE p.prosecdef $$,
    'no function is SECURITY DEFINER');

--
-- Again, revoke, and what is left
--
CREATE TEMP TABLE reader AS SELECT pg_temp.all_of('es_test_reader') AS what;
CREATE TEMP TABLE writer AS SELECT pg_temp.all_of('es_test_writer') AS what;
CREATE TEMP TABLE operator AS SELECT pg_temp.all_of('es_test_operator') AS what;
CREATE TEMP TABLE retention AS SELECT pg_temp.all_of('es_test_retention') AS what;
SELECT lives_ok($$ SELECT es_grant('es_test_reader', 'reader') $$, 'again');
SELECT bag_eq($$ SELECT pg_temp.all_of('es_test_reader') $$, 'SELECT what FROM reader', 'which changes nothing');
SELECT is_empty('SELECT what FROM reader EXCEPT SELECT what FROM operator', 'an operator can do all that a reader can');
SELECT isnt_empty('SELECT what FROM writer EXCEPT SELECT what FROM operator', 'a writer can do what an operator cannot');

SELECT lives_ok($$ SELECT es_grant('es_test_reader', 'writer') $$, 'a reader that becomes a writer');
SELECT bag_eq($$ SELECT pg_temp.all_of('es_test_reader') $$, 'SELECT what FROM reader UNION SELECT what FROM writer', 'has both');
SELECT lives_ok($$ SELECT es_revoke('es_test_reader', 'writer') $$, 'and is none any more');
SELECT bag_eq($$ SELECT pg_temp.all_of('es_test_reader') $$, 'SELECT what FROM reader', 'is a reader');
SELECT es_grant('es_test_reader', 'writer'), es_revoke('es_test_reader', 'reader');
SELECT bag_eq($$ SELECT pg_temp.all_of('es_test_reader') $$, 'SELECT what FROM writer', 'or is a writer if it is reading that is taken away');
SELECT es_revoke('es_test_reader', 'writer');
SELECT is_empty($$ SELECT pg_temp.all_of('es_test_reader') $$, 'nothing is left in the end');
SELECT lives_ok($$ SELECT es_revoke('es_test_reader', 'writer') $$, 'what is revoked can be revoked again');
SELECT lives_ok($$ SELECT es_revoke('es_test_nobody', 'operator') $$, 'as can what was never granted');
SELECT is_empty($$ SELECT pg_temp.all_of('es_test_nobody') $$, 'and still has nothing');

SELECT es_grant('es_test_operator', 'reader'), es_revoke('es_test_operator', 'operator');
SELECT is_empty($$ SELECT pg_temp.all_of('es_test_operator') $$, 'a revoked operator does not read either, as no grant is remembered');
SELECT es_grant('es_test_operator', 'operator'), es_grant('es_test_operator', 'writer'), es_revoke('es_test_operator', 'operator');
SELECT bag_eq($$ SELECT pg_temp.all_of('es_test_operator') $$, 'SELECT what FROM writer', 'but it still writes');
SELECT es_grant('es_test_operator', 'operator'), es_revoke('es_test_operator', 'writer');
SELECT bag_eq($$ SELECT pg_temp.all_of('es_test_operator') $$, 'SELECT what FROM operator', 'and the other way round');
SELECT es_revoke('es_test_operator', 'reader');
SELECT is(has_table_privilege('es_test_operator', 'es_events', 'SELECT'), false, 'a revoked reader does not read, operator or not');

-- Nothing but retention removes events, and what it shares with others stays with them.
SELECT is_empty($$ SELECT grantee::regrole, name FROM grants
                    WHERE name IN ('es_delete_stream', 'es_truncate_stream', 'es_compact_stream', 'es_archive_stream', 'es_archive',
                                   'es_unarchive_stream', 'es_set_retention', 'es_run_retention', 'es_remove_foreign_streams',
                                   'es_erase', 'es_erase_subject', 'es_replay_erasure')
                      AND grantee <> 'es_test_retention'::regrole $$, 'no reader, writer or operator removes events');
SELECT es_grant('es_test_retention', 'operator'), es_revoke('es_test_retention', 'operator');
SELECT bag_eq($$ SELECT pg_temp.all_of('es_test_retention') $$, 'SELECT what FROM retention', 'retention that was an operator is retention');
SELECT es_grant('es_test_retention', 'operator'), es_revoke('es_test_retention', 'retention');
SELECT bag_eq($$ SELECT pg_temp.all_of('es_test_retention') $$, 'SELECT what FROM operator', 'or is an operator if it is retention that is taken away');
SELECT es_grant('es_test_retention', 'retention'), es_revoke('es_test_retention', 'reader');
SELECT bag_eq($$ SELECT pg_temp.all_of('es_test_retention') $$,
    'SELECT what FROM operator WHERE what NOT IN (SELECT what FROM reader) UNION SELECT what FROM retention', 'a revoked reader keeps what retention needs');
SELECT es_revoke('es_test_retention', 'operator'), es_revoke('es_test_retention', 'retention');
SELECT is_empty($$ SELECT pg_temp.all_of('es_test_retention') $$, 'nothing is left of it');

-- Seeing personal attributes is a privilege beside the others, and none of them has it.
SELECT is_empty($$ SELECT grantee::regrole FROM grants WHERE name = 'es_sees_personal_data' AND grantee <> 'es_test_personal'::regrole $$, 'no other kind sees personal attributes');
SELECT es_grant('es_test_personal', 'reader'), es_revoke('es_test_personal', 'personal');
SELECT bag_eq($$ SELECT pg_temp.all_of('es_test_personal') $$, 'SELECT what FROM reader', 'a reader that sees them no more is a reader');
SELECT es_grant('es_test_personal', 'personal'), es_revoke('es_test_personal', 'reader');
SELECT bag_eq($$ SELECT pg_temp.all_of('es_test_personal') $$, $$ VALUES ('schema USAGE'), ('function es_sees_personal_data EXECUTE') $$, 'and the other way round');
SELECT es_revoke('es_test_personal', 'personal');
SELECT is_empty($$ SELECT pg_temp.all_of('es_test_personal') $$, 'nothing is left of that either');

-- A part of a kind is not the kind: what was granted by hand does not hold back anything.
GRANT SELECT ON es_events TO es_test_granted;
SELECT es_grant('es_test_granted', 'writer'), es_revoke('es_test_granted', 'writer');
SELECT bag_eq($$ SELECT pg_temp.all_of('es_test_granted') $$, $$ VALUES ('table es_events SELECT') $$,
    'what was granted by hand stays, and holds back nothing else');

--
-- Names of roles
--
SELECT lives_ok($$ SELECT es_grant('"es test ""R''"', 'reader') $$, 'a role whose name must be quoted');
SELECT bag_eq($$ SELECT pg_temp.all_of('"es test ""R''"') $$, 'SELECT what FROM reader', 'has it all');
SELECT lives_ok($$ SELECT es_revoke(oid, 'reader') FROM pg_roles WHERE rolname = 'es test "R''' $$, 'also by its oid');
SELECT throws_ok($$ SELECT es_grant('es_test_none', 'reader') $$, '42704', NULL, 'a role that is not there');
SELECT throws_ok($$ SELECT es_grant('public', 'reader') $$, '42704', NULL, 'PUBLIC is no role');
SELECT throws_ok($$ SELECT es_grant(0::regrole, 'reader') $$, '42704', NULL, 'nor is an oid of none');
SELECT throws_ok($$ SELECT es_revoke(0::regrole, 'reader') $$, '42704', NULL, 'also to revoke');
SELECT throws_ok($$ SELECT es_grant('es_test_reader', 'owner') $$, '22023', 'kind must be ''reader'', ''writer'', ''operator'', ''retention'' or ''personal''', 'a kind that is none');
SELECT throws_ok($$ SELECT es_grant('es_test_reader', NULL) $$, '22004', NULL, 'a kind that is null');
SELECT throws_ok($$ SELECT es_revoke(NULL, 'reader') $$, '22004', NULL, 'a role that is null');
SELECT throws_ok(format('SELECT es_revoke(%L, %L)', relowner::regrole, 'reader'), '0LP01', NULL, 'nothing is revoked from the owner')
  FROM pg_class WHERE oid = 'es_events'::regclass;

--
-- Which role may grant
--
GRANT EXECUTE ON FUNCTION es_grant, es_revoke TO es_test_operator;
SELECT es_grant('es_test_operator', 'operator');
SET LOCAL ROLE es_test_operator;
SELECT throws_ok($$ SELECT es_grant('es_test_operator', 'writer') $$, '42501', 'must be owner of eventstore to grant or revoke', 'a role that may call it but is not the owner grants nothing');
SELECT throws_ok($$ SELECT es_revoke('es_test_writer', 'writer') $$, '42501', NULL, 'nor revokes');
RESET ROLE;
SELECT bag_eq($$ SELECT what FROM pg_temp.all_of('es_test_operator') what WHERE what NOT LIKE '%es_grant%' AND what NOT LIKE '%es_revoke%' $$,
    'SELECT what FROM operator', 'nothing was granted');
SET LOCAL ROLE es_test_nobody;
SELECT throws_ok($$ SELECT es_grant('es_test_nobody', 'reader') $$, '42501', NULL, 'no privilege: es_grant');
SELECT throws_ok($$ SELECT es_revoke('es_test_writer', 'writer') $$, '42501', NULL, 'no privilege: es_revoke');
SELECT throws_ok('SELECT * FROM es_privileges', '42501', NULL, 'no privilege: es_privileges');
RESET ROLE;

--
-- Where PUBLIC may call nothing, each kind has all it needs
--
DO $$
DECLARE f regprocedure;
BEGIN
    FOR f IN SELECT objid FROM members WHERE classid = 'pg_proc'::regclass LOOP
        EXECUTE format('REVOKE EXECUTE ON ROUTINE %s FROM PUBLIC', f);
    END LOOP;
END $$;
SELECT es_grant('es_test_reader', 'reader'), es_grant('es_test_writer', 'writer'), es_grant('es_test_retention', 'retention'),
       es_grant('es_test_personal', 'personal'), es_grant('es_test_personal', 'reader'), es_index_attribute('opened', 'n'), es_index_type('opened');
CREATE TABLE seen (position bigint);
ALTER TABLE seen OWNER TO es_test_operator;
CREATE FUNCTION note(event es_recorded_event) RETURNS void LANGUAGE sql AS 'INSERT INTO seen VALUES (event.position)';
CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql RETURN '[{"type": "decided"}]'::jsonb;
CREATE FUNCTION receive(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql RETURN ROW('e', NULL, 'came', NULL, 'message-1', NULL, NULL)::es_ack_event;
CREATE FUNCTION up(data jsonb) RETURNS jsonb LANGUAGE sql RETURN data;
SET LOCAL ROLE es_test_operator;
SELECT lives_ok(q, 'an operator: ' || q) FROM unnest(ARRAY[
    'SELECT es_define_event_type(''opened'', ''{n}'', ''{n}'')', 'SELECT es_define_upcaster(''opened'', 1, ''up(jsonb)'')',
    'SELECT es_define_event_type(''joined'', personal => ''{name}''), es_define_personal_attributes(''joined'', ''{by_name}'', ''by'')',
    'SELECT es_create_projection(''p'', ''note(es_recorded_event)'', tables => ''{seen}'', mode => ''sync'')']) q;
SET LOCAL ROLE es_test_writer;
SELECT lives_ok(q, 'a writer: ' || q) FROM unnest(ARRAY[
    'SELECT es_append(''account-1'', 0, ''opened'', ''{"n": 1}'')', 'SELECT es_append_batch(''account-1'', 1::bigint, ''[{"type": "x"}]'')',
    'SELECT es_append_batch(''account-1'', ''exists'', ''{x}'', ''{"{}"}'')', 'INSERT INTO es_import (stream, type) VALUES (''account-1'', ''x'')',
    'SELECT es_append(''person-1'', 0, ''joined'', ''{"name": "Ann"}'', tags => ARRAY[es_personal_hash(''1'', ''Ann'')])',
    'SELECT es_receive(''t'', ''g'', ''p'', ''receive(text, jsonb)'')', 'SELECT es_wait(''p'', 1)', 'SELECT es_describe_event_type(''opened'')',
    'SELECT es_uuid7(), es_digest(''t'', ''{"n": 1}'', ''{n}''), es_channel(es_category(''a-1''))']) q;
SELECT throws_ok($$ SELECT es_execute('account-1', 'decide(jsonb, jsonb)', '{}', 'es_merge(jsonb, es_recorded_event)') $$, '42501', NULL, 'a writer does not execute commands without reading');
RESET ROLE;
SELECT es_grant('es_test_writer', 'reader');
SET LOCAL ROLE es_test_writer;
SELECT lives_ok($$ SELECT es_execute('account-1', 'decide(jsonb, jsonb)', '{}', 'es_merge(jsonb, es_recorded_event)') $$, 'and does if it reads');
SET LOCAL ROLE es_test_reader;
SELECT lives_ok(q, 'a reader: ' || q) FROM unnest(ARRAY[
    'SELECT * FROM es_load(''account-1'')', 'SELECT * FROM es_load_backward(''account-1'')', 'SELECT * FROM es_read()', 'SELECT * FROM es_read(0, 1, ''[{}]'')', 'SELECT * FROM es_read_category(''account'')',
    'SELECT es_stream_version(''account-1''), es_last_event(''account-1''), es_event(es_uuid7())', 'SELECT es_state(''account-1'', ''es_merge(jsonb, es_recorded_event)'')',
    'SELECT es_history(''account-1'', ''es_last(jsonb, es_recorded_event)'')', 'SELECT es_upcast(e) FROM es_events e', 'SELECT es_create_subscription(''s'')',
    'SELECT es_ack(''s'', token) FROM es_poll(''s'') LIMIT 1', 'SELECT es_seek(''s'', 0), es_drop_subscription(''s'')', 'SELECT * FROM es_event_types']) q;
SELECT throws_ok($$ SELECT es_append('account-1', 'any', 'x') $$, '42501', NULL, 'it does not append');
SELECT is((SELECT data FROM es_load('person-1')), '{"name": null}', 'it does not see personal attributes');
SET LOCAL ROLE es_test_personal;
SELECT is((SELECT data FROM es_load('person-1')), '{"name": "Ann"}', 'and does if it is granted that');
SET LOCAL ROLE es_test_operator;
SELECT lives_ok(q, 'an operator: ' || q) FROM unnest(ARRAY[
    'SELECT * FROM es_projection_status', 'SELECT * FROM es_subscription_status', 'SELECT * FROM es_failures()', 'SELECT * FROM es_inbox()',
    'SELECT es_alter_projection(''p'', ''async'')', 'SELECT es_run_projections()', 'SELECT es_pause_projection(''p''), es_resume_projection(''p''), es_drop_projection(''p'')',
    'SELECT es_snapshot(''account-1'', ''es_merge(jsonb, es_recorded_event)'')', 'SELECT es_rewrite(id, ''{"n": 2}'', schema_version => 2) FROM es_events WHERE version = 1 AND stream = ''account-1''',
    'SELECT es_index_attribute(''opened'', ''m'')', 'SELECT es_index_type(''noted'')', 'SELECT es_drop_event_type(''opened'')', 'DELETE FROM es_snapshots WHERE true', 'DELETE FROM es_inbox WHERE id > 0',
    'SELECT * FROM es_privileges', 'SELECT es_rotate_keys()', 'SELECT * FROM es_personal_attributes, es_subject_keys, es_erasures, es_erasure_places']) q;
SELECT throws_ok($$ SELECT es_append('account-1', 'any', 'x') $$, '42501', NULL, 'it does not append');
SET LOCAL ROLE es_test_retention;
SELECT lives_ok(q, 'retention: ' || q) FROM unnest(ARRAY[
    'SELECT es_set_retention(''account'', max_count => 1)', 'SELECT * FROM es_run_retention()', 'SELECT * FROM es_retention_status, es_retention',
    'SELECT es_truncate_stream(''account-1'', 2)', 'SELECT es_delete_stream(''account-1'', ''any'')', 'SELECT * FROM es_removals, es_removed_ids',
    'SELECT es_erase_subject(''1'', ''asked for''), es_erasure_report(''1'')', 'SELECT es_replay_erasure(''2'', now())', 'SELECT * FROM es_erasures, es_erasure_places']) q;
SELECT throws_ok($$ SELECT * FROM es_load('account-1') $$, '42501', NULL, 'it does not read');
RESET ROLE;

--
-- The example of doc/operate/security.md: a role that appends to one category only
--
SELECT substring(:'doc' FROM 'CREATE FUNCTION es_accounts_only.*EXECUTE FUNCTION es_accounts_only\(\);') AS example \gset
:example
CREATE ROLE accounting;
SELECT es_grant('accounting', 'writer');
SET LOCAL ROLE accounting;
SELECT lives_ok($$ SELECT es_append('account-1', 'any', 'x') $$, 'its own category');
SELECT throws_ok($$ SELECT es_append('order-1', 'any', 'x') $$, '42501', 'accounting does not append to order-1', 'not another');
SELECT throws_ok($$ INSERT INTO es_import (stream, type) VALUES ('order-1', 'x') $$, '42501', NULL, 'not by an import either');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
