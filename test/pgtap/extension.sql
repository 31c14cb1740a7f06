-- The extension as a whole: its members, their comments, what pg_dump takes.
BEGIN;
SELECT plan(9);

CREATE TEMP VIEW members AS
SELECT classid, objid, pg_describe_object(classid, objid, 0) AS name
  FROM pg_depend
 WHERE deptype = 'e'
   AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'eventstore');

SELECT ok(NOT extrelocatable, 'it cannot be moved to another schema')
  FROM pg_extension WHERE extname = 'eventstore';
SELECT throws_ok('ALTER EXTENSION eventstore SET SCHEMA pg_temp', '0A000', NULL,
    'nor is it by force');

-- Without the marks pg_dump would leave users' events out; a row that the
-- extension itself brought would be restored twice.
SELECT bag_eq(
    $$ SELECT unnest(extconfig)::regclass::text AS name, unnest(extcondition) AS condition
         FROM pg_extension WHERE extname = 'eventstore' $$,
    $$ VALUES ('es_events', ''), ('es_position', ''), ('es_incarnation_entries', ''), ('es_rewrites', ''), ('es_removals', ''), ('es_removals_id_seq', ''), ('es_removed_ids', ''), ('es_archived_events', ''), ('es_retention', ''), ('es_projections', ''),
              ('es_subscriptions', ''), ('es_partitions', ''), ('es_event_types', ''), ('es_upcasters', ''), ('es_personal_attributes', ''), ('es_subject_keys', ''), ('es_erasures', ''),
              ('es_failures', ''), ('es_failures_id_seq', ''), ('es_skipped_events', ''), ('es_inbox', ''), ('es_inbox_id_seq', ''), ('es_user_definitions', '') $$,
    'pg_dump takes all events, rewrites, removals, types, personal attributes, keys, erasures, projections, failures, skipped events, messages, definitions and the sequences');
-- es_notified is no user's data: what was announced here was not announced to
-- who listens elsewhere. Nor is es_published_horizon: another cluster decides anew.
-- Snapshots are a cache, and es_tags is made of the events. es_identity says that a restored log is another copy.
SELECT results_eq(
    $$ SELECT c.oid::regclass::text
         FROM members m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid
        WHERE c.relkind IN ('r', 'p', 'S')
          AND c.oid <> ALL ((SELECT extconfig FROM pg_extension WHERE extname = 'eventstore')::oid[])
        ORDER BY c.relname $$,
    $$ VALUES ('es_identity'), ('es_notified'), ('es_published_horizon'), ('es_snapshots'), ('es_snapshots_id_seq'), ('es_tags') $$,
    'it takes every table and sequence but es_identity, es_published_horizon, es_notified, es_snapshots and es_tags');

--
-- Comments
--
-- From version 17 on the types of rows and arrays are members, too.
SELECT is_empty(
    $$ SELECT name FROM members
        WHERE classid <> 'pg_cast'::regclass
          AND NOT (classid = 'pg_type'::regclass
                   AND EXISTS (SELECT FROM pg_type t
                                WHERE t.oid = objid AND (t.typrelid <> 0 OR t.typelem <> 0)))
          AND coalesce(obj_description(objid, classid::regclass::name), '') = '' $$,
    'every object has a comment');
SELECT is_empty(
    $$ SELECT attrelid::regclass, attname FROM pg_attribute
        WHERE attrelid IN ('es_events'::regclass, 'es_projections'::regclass, 'es_failures'::regclass, 'es_skipped_events'::regclass,
                           'es_projection_status'::regclass, 'es_health'::regclass, 'es_subscriptions'::regclass, 'es_partitions'::regclass,
                           'es_subscription_status'::regclass, 'es_inbox'::regclass, 'es_ack_event'::regclass, 'es_recorded_event'::regclass,
                           'es_event_types'::regclass, 'es_upcasters'::regclass, 'es_personal_attributes'::regclass, 'es_subject_keys'::regclass, 'es_erasures'::regclass, 'es_erasure_places'::regclass, 'es_snapshots'::regclass, 'es_user_definitions'::regclass,
                           'es_identity'::regclass, 'es_incarnation_entries'::regclass, 'es_incarnations'::regclass, 'es_stats'::regclass, 'es_inbox_stats'::regclass, 'es_privileges'::regclass)
          AND attnum > 0 AND NOT attisdropped
          AND coalesce(col_description(attrelid, attnum), '') = '' $$,
    'every column of the tables, of the status and of the types has a comment');
SELECT isnt(obj_description(oid, 'pg_extension'), NULL, 'the extension has a comment')
  FROM pg_extension WHERE extname = 'eventstore';

--
-- Names
--
SELECT is_empty(
    $$ SELECT name FROM members
        WHERE classid IN ('pg_class'::regclass, 'pg_proc'::regclass, 'pg_type'::regclass)
          AND split_part(name, ' ', 2) NOT LIKE 'es\_%' $$,
    'every name begins with es_');
SELECT is_empty(
    $$ SELECT m.name
         FROM members m, pg_identify_object(m.classid, m.objid, 0) i
        WHERE i.schema IS DISTINCT FROM
              (SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'eventstore')
          AND m.classid NOT IN ('pg_cast'::regclass, 'pg_event_trigger'::regclass) $$,
    'all are in the schema of the extension');

SELECT * FROM finish();
ROLLBACK;
