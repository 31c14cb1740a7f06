-- Every function with its names and defaults, which callers write, and its
-- marks, which the planner trusts; the types es_expected_version, es_function, es_role, es_categories and es_ack_event.
BEGIN;
SELECT plan(23);
-- Defaults that are intervals are shown in it.
SET LOCAL intervalstyle = postgres;

CREATE TEMP VIEW members AS
SELECT p.*
  FROM pg_depend d
  JOIN pg_proc p ON p.oid = d.objid
 WHERE d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
   AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'eventstore');

--
-- Signatures
--
SELECT bag_eq(
    $$ SELECT proname::text, pg_get_function_arguments(oid), pg_get_function_result(oid)
         FROM members
        WHERE prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype) AND proname !~ '^es_(expected_version|function|role|categories|definitions)_' $$,
    $$ VALUES
    ('es_append',
     'stream text, expected es_expected_version, type text, data jsonb DEFAULT ''{}''::jsonb,'
     ' metadata jsonb DEFAULT NULL::jsonb, id uuid DEFAULT NULL::uuid,'
     ' occurred_at timestamp with time zone DEFAULT NULL::timestamp with time zone, tags text[] DEFAULT NULL::text[], body bytea DEFAULT NULL::bytea', 'es_appended'),
    ('es_append_batch', 'stream text, expected es_expected_version, events jsonb', 'es_appended'),
    ('es_append_batch',
     'stream text, expected es_expected_version, types text[], data jsonb[],'
     ' metadata jsonb[] DEFAULT NULL::jsonb[], ids uuid[] DEFAULT NULL::uuid[],'
     ' occurred_at timestamp with time zone[] DEFAULT NULL::timestamp with time zone[], tags jsonb[] DEFAULT NULL::jsonb[], bodies bytea[] DEFAULT NULL::bytea[]', 'es_appended'),
    ('es_load',
     'stream text, after_version bigint DEFAULT 0, max_count bigint DEFAULT NULL::bigint',
     'SETOF es_recorded_event'),
    ('es_load_backward',
     'stream text, before_version bigint DEFAULT NULL::bigint, max_count bigint DEFAULT NULL::bigint',
     'SETOF es_recorded_event'),
    ('es_read',
     'after_position bigint DEFAULT 0, max_count bigint DEFAULT NULL::bigint, query jsonb DEFAULT NULL::jsonb', 'SETOF es_recorded_event'),
    ('es_matching_positions', 'query jsonb, after_position bigint, max_count bigint', 'bigint[]'),
    ('es_read_category',
     'category text, after_position bigint DEFAULT 0, max_count bigint DEFAULT NULL::bigint,'
     ' types text[] DEFAULT NULL::text[]', 'SETOF es_recorded_event'),
    ('es_stream_version', 'stream text', 'bigint'),
    ('es_last_event', 'stream text, type text DEFAULT NULL::text', 'SETOF es_recorded_event'),
    ('es_event', 'id uuid', 'SETOF es_recorded_event'),
    ('es_recorded_event', 'event es_events', 'es_recorded_event'),
    ('es_attribute', 'data jsonb, attribute text', 'jsonb'),
    ('es_index_attribute', 'type text, attribute text', 'regclass'),
    ('es_index_type', 'type text', 'regclass'),
    ('es_rewrite', 'id uuid, data jsonb, metadata jsonb DEFAULT NULL::jsonb, schema_version bigint DEFAULT NULL::bigint', 'bigint'),
    ('es_delete_stream', 'stream text, expected es_expected_version, tombstone boolean DEFAULT false, metadata jsonb DEFAULT NULL::jsonb, OUT version bigint, OUT "position" bigint, OUT removed bigint', 'record'),
    ('es_truncate_stream', 'stream text, before_version bigint, metadata jsonb DEFAULT NULL::jsonb', 'bigint'),
    ('es_set_retention', 'category text, max_age interval DEFAULT NULL::interval, max_count bigint DEFAULT NULL::bigint, max_lag interval DEFAULT NULL::interval', 'void'),
    ('es_remove_foreign_streams',
     'after_position bigint DEFAULT 0, dry_run boolean DEFAULT false, force boolean DEFAULT false, OUT streams bigint,'
     ' OUT events bigint, OUT "position" bigint, OUT held_by text, OUT more boolean', 'record'),
    ('es_run_retention',
     'category text DEFAULT NULL::text, dry_run boolean DEFAULT false, force boolean DEFAULT false, OUT category text, OUT streams bigint,'
     ' OUT events bigint, OUT held_by text, OUT held_since timestamp with time zone, OUT more boolean', 'SETOF record'),
    ('es_kept_after', 'stream text, after_version bigint', 'bigint'),
    ('es_compact_stream',
     'stream text, reducer es_function, upto_version bigint DEFAULT NULL::bigint, initial jsonb DEFAULT ''{}''::jsonb, metadata jsonb DEFAULT NULL::jsonb,'
     ' adopt boolean DEFAULT false, OUT version bigint, OUT "position" bigint, OUT removed bigint', 'record'),
    ('es_archive_stream', 'stream text, metadata jsonb DEFAULT NULL::jsonb, OUT version bigint, OUT "position" bigint, OUT archived bigint', 'record'),
    ('es_archive', 'category text, older_than interval, max_streams bigint DEFAULT NULL::bigint', 'bigint'),
    ('es_unarchive_stream', 'stream text', 'bigint'),
    ('es_load_archived', 'stream text, after_version bigint DEFAULT 0, max_count bigint DEFAULT NULL::bigint', 'SETOF es_recorded_event'),
    ('es_kept_after_support', 'internal', 'internal'),
    ('es_horizon', '', 'bigint'),
    ('es_set_slots', 'slots int4multirange', 'integer'),
    ('es_slots', '', 'int4multirange'),
    ('es_call', 'call text, arguments bytea', 'SETOF bytea'),
    ('es_store_id', '', 'uuid'),
    ('es_promote', 'OUT incarnation uuid, OUT "position" bigint', 'record'),
    ('es_incarnation', '', 'uuid'),
    ('es_position_valid', 'incarnation uuid, "position" bigint', 'boolean'),
    ('es_closed', '', 'boolean'),
    ('es_definitions', '', 'TABLE(rank integer, kind text, tab text, name text, statement text)'),
    ('es_finish_restore',
     'discard boolean DEFAULT false, OUT kind text, OUT table_name text, OUT name text, OUT result text, OUT message text,'
     ' OUT statement text', 'SETOF record'),
    ('es_import_fires', '', 'boolean'),
    ('es_category', 'stream text', 'text'),
    ('es_channel', 'category text', 'text'),
    ('es_start_worker', '', 'integer'),
    ('es_stats',
     'OUT category text, OUT appends bigint, OUT events bigint, OUT bytes bigint, OUT conflicts bigint, OUT retries bigint,'
     ' OUT duplicates bigint, OUT lock_waits bigint, OUT lock_wait_time double precision,'
     ' OUT stats_reset timestamp with time zone', 'SETOF record'),
    ('es_health',
     'OUT urgency integer, OUT problem text, OUT object text, OUT since timestamp with time zone, OUT message text, OUT remedy text,'
     ' OUT remedy_by text', 'SETOF record'),
    ('es_projection_lag',
     'OUT name text, OUT "position" bigint, OUT horizon bigint, OUT horizon_held_since timestamp with time zone,'
     ' OUT lag_events bigint, OUT lag_is_estimate boolean, OUT lag_since timestamp with time zone', 'SETOF record'),
    ('es_subscription_lag',
     'OUT subscription text, OUT partition integer, OUT horizon bigint, OUT horizon_held_since timestamp with time zone,'
     ' OUT lag_events bigint, OUT lag_is_estimate boolean, OUT lag_since timestamp with time zone', 'SETOF record'),
    ('es_source_positions',
     'query jsonb, categories text[], types text[], after_position bigint, upto_position bigint, max_count bigint', 'bigint[]'),
    ('es_health_external', 'sqlstate text', 'boolean'),
    ('es_health_path', 'path text', 'TABLE(n bigint, schema text)'),
    ('es_health_grant', 'role oid, path text, tables oid[], message text, context text, query text, OUT remedy text, OUT remedy_by text', 'record'),
    ('es_health_settings', 'path text, settings text[], gone text, instead text', 'text'),
    ('es_health_reach', 'role oid, schema text, function oid, OUT lacks text, OUT remedy text, OUT remedy_by text', 'record'),
    ('es_health_types', '', 'TABLE(urgency integer, problem text, object text, since timestamp with time zone, message text, remedy text, remedy_by text, owner oid)'),
    ('es_health_log', '', 'TABLE(urgency integer, problem text, object text, since timestamp with time zone, message text, remedy text, remedy_by text, owner oid)'),
    ('es_health_personal', 'delay interval', 'TABLE(urgency integer, problem text, object text, since timestamp with time zone, message text, remedy text, remedy_by text, owner oid)'),
    ('es_health_key_file', 'OUT fingerprint text, OUT problem text', 'record'),
    ('es_health_other_key_files', 'OUT path text, OUT problem text', 'SETOF record'),
    ('es_health_has_key', 'fingerprint text', 'boolean'),
    ('es_health_horizon', 'delay interval', 'TABLE(urgency integer, problem text, object text, since timestamp with time zone, message text, remedy text, remedy_by text, owner oid)'),
    ('es_health_projections', 'delay interval', 'TABLE(urgency integer, problem text, object text, since timestamp with time zone, message text, remedy text, remedy_by text, owner oid)'),
    ('es_health_subscriptions', 'delay interval', 'TABLE(urgency integer, problem text, object text, since timestamp with time zone, message text, remedy text, remedy_by text, owner oid)'),
    ('es_health_retention', 'delay interval', 'TABLE(urgency integer, problem text, object text, since timestamp with time zone, message text, remedy text, remedy_by text, owner oid)'),
    ('es_health_replica', 'delay interval', 'TABLE(urgency integer, problem text, object text, since timestamp with time zone, message text, remedy text, remedy_by text, owner oid)'),
    ('es_health_inbox', '', 'TABLE(urgency integer, problem text, object text, since timestamp with time zone, message text, remedy text, remedy_by text, owner oid)'),
    ('es_horizon_holders',
     'OUT pid integer, OUT gid text, OUT since timestamp with time zone, OUT username text, OUT application_name text,'
     ' OUT client_addr text, OUT state text, OUT streams text[], OUT remedy text', 'SETOF record'),
    ('es_inbox_stats',
     'OUT topic text, OUT group_id text, OUT acknowledged bigint, OUT skipped bigint, OUT failed bigint,'
     ' OUT duplicates bigint, OUT errors bigint, OUT stats_reset timestamp with time zone', 'SETOF record'),
    ('es_stats_reset', '', 'void'),
    ('es_reset', '', 'void'),
    ('es_uuid7', '', 'uuid'),
    ('es_uuid5', 'namespace uuid, name text', 'uuid'),
    ('es_digest_string', 'data jsonb, keys text[]', 'text'),
    ('es_digest', 'type text, data jsonb, keys text[]', 'uuid'),
    ('es_create_projection',
     'name text, handler es_function DEFAULT NULL::es_function, query text DEFAULT NULL::text,'
     ' handler_schema regnamespace DEFAULT NULL::regnamespace, refresh regclass DEFAULT NULL::regclass,'
     ' tables regclass[] DEFAULT ''{}''::regclass[], category es_categories DEFAULT NULL::es_categories,'
     ' types text[] DEFAULT NULL::text[], mode text DEFAULT ''async''::text, start_position bigint DEFAULT 0,'
     ' batch_size bigint DEFAULT 1000, on_failure text DEFAULT ''stop''::text, max_attempts bigint DEFAULT 5,'
     ' min_interval interval DEFAULT ''00:00:01''::interval, event_query jsonb DEFAULT NULL::jsonb', 'void'),
    ('es_alter_projection',
     'name text, mode text DEFAULT NULL::text, batch_size bigint DEFAULT NULL::bigint,'
     ' on_failure text DEFAULT NULL::text, max_attempts bigint DEFAULT NULL::bigint,'
     ' min_interval interval DEFAULT NULL::interval, handler es_function DEFAULT NULL::es_function,'
     ' query text DEFAULT NULL::text, handler_schema regnamespace DEFAULT NULL::regnamespace,'
     ' category es_categories DEFAULT NULL::es_categories, types text[] DEFAULT NULL::text[],'
     ' start_position bigint DEFAULT NULL::bigint, all_categories boolean DEFAULT false,'
     ' all_types boolean DEFAULT false, event_query jsonb DEFAULT NULL::jsonb, any_event boolean DEFAULT false', 'void'),
    ('es_drop_projection', 'name text', 'void'),
    ('es_pause_projection', 'name text', 'void'),
    ('es_rename_projection', 'name text, new_name text', 'void'),
    ('es_resume_projection', 'name text', 'void'),
    ('es_rebuild_projection', 'name text, archived boolean DEFAULT false', 'bigint'),
    ('es_append_if', 'events jsonb, query jsonb, after_position bigint DEFAULT 0, OUT first_position bigint, OUT "position" bigint', 'record'),
    ('es_query', 'query jsonb, after_position bigint DEFAULT 0, max_count bigint DEFAULT NULL::bigint, backward boolean DEFAULT false, before_position bigint DEFAULT NULL::bigint', 'SETOF es_recorded_event'),
    ('es_reindex_tags', 'OUT added bigint, OUT removed bigint', 'record'),
    ('es_run_projections', 'name text DEFAULT NULL::text, max_batches bigint DEFAULT NULL::bigint', 'bigint'),
    ('es_work', 'IN stop_when_idle boolean DEFAULT true', NULL),
    ('es_wait',
     'projection text, "position" bigint, timeout interval DEFAULT ''00:00:05''::interval', 'boolean'),
    ('es_replaying', '', 'boolean'),
    ('es_failures',
     'projection text DEFAULT NULL::text, stream text DEFAULT NULL::text, type text DEFAULT NULL::text,'
     ' max_count bigint DEFAULT 20, skip bigint DEFAULT 0, subscription text DEFAULT NULL::text,'
     ' topic text DEFAULT NULL::text, group_id text DEFAULT NULL::text', 'SETOF es_failures'),
    ('es_checksum', 'payload text', 'text'),
    ('es_receive',
     'topic text, group_id text, payload text, handler es_function, metadata jsonb DEFAULT ''{}''::jsonb,'
     ' max_retries bigint DEFAULT NULL::bigint, retry_count bigint DEFAULT 0,'
     ' message_id text DEFAULT NULL::text', 'text'),
    ('es_inbox',
     'entity_id text DEFAULT NULL::text, topic text DEFAULT NULL::text, group_id text DEFAULT NULL::text,'
     ' event_type text DEFAULT NULL::text, max_count bigint DEFAULT 20, skip bigint DEFAULT 0', 'SETOF es_inbox'),
    ('es_create_subscription',
     'name text, category es_categories DEFAULT NULL::es_categories, types text[] DEFAULT NULL::text[],'
     ' start_position bigint DEFAULT 0,'
     ' partitions bigint DEFAULT 1, lease interval DEFAULT ''00:00:30''::interval, max_attempts bigint DEFAULT 10,'
     ' max_in_flight bigint DEFAULT 1000, query jsonb DEFAULT NULL::jsonb', 'void'),
    ('es_drop_subscription', 'name text', 'void'),
    ('es_rename_subscription', 'name text, new_name text', 'void'),
    ('es_alter_subscription',
     'name text, category es_categories DEFAULT NULL::es_categories, types text[] DEFAULT NULL::text[],'
     ' lease interval DEFAULT NULL::interval, max_attempts bigint DEFAULT NULL::bigint,'
     ' max_in_flight bigint DEFAULT NULL::bigint, all_categories boolean DEFAULT false, all_types boolean DEFAULT false,'
     ' query jsonb DEFAULT NULL::jsonb, any_event boolean DEFAULT false', 'void'),
    ('es_seek', 'subscription text, "position" bigint', 'void'),
    ('es_poll',
     'subscription text, consumer text DEFAULT NULL::text, max_count bigint DEFAULT 100,'
     ' wait interval DEFAULT ''00:00:00''::interval, after_token bigint DEFAULT NULL::bigint, max_bytes bigint DEFAULT 8388608,'
     ' OUT token bigint, OUT partition integer, OUT attempt integer, OUT "position" bigint, OUT version bigint,'
     ' OUT recorded_at timestamp with time zone, OUT occurred_at timestamp with time zone, OUT id uuid,'
     ' OUT stream text, OUT type text, OUT data jsonb, OUT metadata jsonb, OUT tags text[], OUT body bytea', 'SETOF record'),
    ('es_ack', 'subscription text, token bigint, upto_position bigint DEFAULT NULL::bigint', 'bigint'),
    ('es_nack',
     'subscription text, token bigint, "position" bigint, reason text, action text DEFAULT ''retry''::text', 'text'),
    ('es_partition', 'stream text, partitions bigint', 'integer'),
    ('es_define_event_type',
     'type text, required text[] DEFAULT ''{}''::text[], composite_key text[] DEFAULT NULL::text[],'
     ' attributes jsonb DEFAULT NULL::jsonb, schema_version bigint DEFAULT 1, description text DEFAULT NULL::text, category text DEFAULT NULL::text,'
     ' personal text[] DEFAULT NULL::text[], subject text DEFAULT NULL::text', 'void'),
    ('es_define_personal_attributes', 'type text, attributes text[], subject text DEFAULT NULL::text, category text DEFAULT NULL::text', 'void'),
    ('es_sees_personal_data', '', 'boolean'),
    ('es_personal_hash', 'subject text, value text', 'text'),
    ('es_rotate_keys', 'max_keys bigint DEFAULT 1000', 'bigint'),
    ('es_erase', 'subject text, reason text, erased_at timestamp with time zone', 'timestamp with time zone'),
    ('es_erase_subject', 'subject text, reason text DEFAULT NULL::text', 'TABLE(place text, name text, detail text)'),
    ('es_erasure_report', 'subject text', 'TABLE(place text, name text, detail text)'),
    ('es_replay_erasure', 'subject text, erased_at timestamp with time zone, reason text DEFAULT NULL::text', 'timestamp with time zone'),
    ('es_drop_event_type', 'type text, category text DEFAULT NULL::text', 'void'),
    ('es_describe_event_type',
     'INOUT type text, INOUT category text DEFAULT NULL::text, OUT required text[], OUT composite_key text[], OUT attributes jsonb, OUT schema_version integer,'
     ' OUT description text, OUT upcasters jsonb, OUT personal jsonb', 'record'),
    ('es_define_upcaster', 'type text, from_version bigint, upcaster es_function, category text DEFAULT NULL::text', 'void'),
    ('es_upcast', 'event es_recorded_event', 'es_recorded_event'),
    ('es_grant', 'role regrole, kind text', 'void'),
    ('es_revoke', 'role regrole, kind text', 'void'),
    ('es_upcast_data', '"position" bigint, id uuid, stream text, type text, data jsonb, metadata jsonb', 'jsonb'),
    ('es_upcast_metadata', '"position" bigint, id uuid, stream text, type text, data jsonb, metadata jsonb', 'jsonb'),
    ('es_by_index', 'value text, wanted text', 'boolean'),
    ('es_append_support', 'internal', 'internal'),
    ('es_by_index_support', 'internal', 'internal'),
    ('es_by_query', '"position" bigint, query jsonb, positions bigint[]', 'boolean'),
    ('es_by_query_support', 'internal', 'internal'),
    ('es_by_version', 'version bigint, after bigint, upto bigint', 'boolean'),
    ('es_upcast_support', 'internal', 'internal'),
    ('es_retry', 'failure_id bigint', 'bigint'),
    ('es_state',
     'stream text, reducer es_function, initial jsonb DEFAULT ''{}''::jsonb, at_version bigint DEFAULT NULL::bigint,'
     ' at_time timestamp with time zone DEFAULT NULL::timestamp with time zone, by_time text DEFAULT ''recorded''::text,'
     ' OUT state jsonb, OUT version bigint', 'record'),
    ('es_history', 'stream text, reducer es_function, initial jsonb DEFAULT ''{}''::jsonb',
     'TABLE(version bigint, recorded_at timestamp with time zone, type text, state jsonb)'),
    ('es_snapshot', 'stream text, reducer es_function, initial jsonb DEFAULT ''{}''::jsonb', 'bigint'),
    ('es_merge', 'state jsonb, event es_recorded_event', 'jsonb'),
    ('es_last', 'state jsonb, event es_recorded_event', 'jsonb'),
    ('es_reducer', 'schema regnamespace', 'regprocedure'),
    ('es_execute',
     'stream text, decider es_function, command jsonb, reducer es_function, metadata jsonb DEFAULT NULL::jsonb,'
     ' expected es_expected_version DEFAULT ''any''::es_expected_version, initial jsonb DEFAULT ''{}''::jsonb,'
     ' OUT version bigint, OUT "position" bigint, OUT state jsonb, OUT events integer', 'record'),
    ('es_decide',
     'query jsonb, decider es_function, command jsonb, reducer es_function, metadata jsonb DEFAULT NULL::jsonb,'
     ' initial jsonb DEFAULT ''{}''::jsonb, OUT first_position bigint, OUT "position" bigint, OUT state jsonb, OUT events integer', 'record'),
    ('es_test_decider',
     'reducer es_function, decider es_function, given jsonb, command jsonb, initial jsonb DEFAULT ''{}''::jsonb,'
     ' stream text DEFAULT ''test-1''::text, OUT events jsonb, OUT state jsonb, OUT error text, OUT sqlstate text', 'record'),
    ('es_skip_event', 'projection text, "position" bigint, reason text DEFAULT NULL::text', 'void'),
    ('es_unskip_event', 'projection text, "position" bigint', 'void'),
    ('es_discard', 'failure_id bigint', 'void') $$,
    'functions, arguments and results');

SELECT bag_eq(
    $$ SELECT oid::regprocedure::text FROM members WHERE prorettype IN ('trigger'::regtype, 'event_trigger'::regtype) $$,
    $$ VALUES ('es_events_complete()'), ('es_events_accept()'), ('es_events_refuse()'), ('es_events_tag()'), ('es_guard_drop()'), ('es_import_row()'), ('es_import_flush()'),
              ('es_projection_sync()'), ('es_projection_restore()'), ('es_event_types_changed()'), ('es_subject_keys_changed()'), ('es_removals_changed()'), ('es_published_horizon_applied()'),
              ('es_definitions_replay()'), ('es_definitions_altered()') $$,
    'functions of triggers');

SELECT bag_eq(
    $$ SELECT oid::regprocedure::text FROM members WHERE prokind <> 'f' $$,
    $$ VALUES ('es_work(boolean)') $$,
    'es_work is a procedure: it commits');

-- Drivers send bigint, which is not cast to a smaller type by itself.
SELECT is_empty(
    $$ SELECT oid::regprocedure FROM members
        WHERE proargtypes::oid[] && '{smallint,integer,real,numeric,varchar,bpchar,json,timestamp,date}'::regtype[]::oid[]
          AND proname NOT IN ('es_expected_version_from_int2', 'es_expected_version_from_int4', 'es_expected_version_from_bpchar',
                               'es_categories_from_bpchar') $$,
    'no argument is of a type that a driver may not send');

-- Drivers send untyped parameters: two functions of one name must differ in
-- how many arguments they take.
SELECT is_empty(
    $$ SELECT a.oid::regprocedure, b.oid::regprocedure
         FROM members a JOIN members b ON a.proname = b.proname AND a.oid < b.oid
        WHERE a.pronargs - a.pronargdefaults <= b.pronargs
          AND b.pronargs - b.pronargdefaults <= a.pronargs $$,
    'no two functions are told apart by the types of their arguments');

SELECT results_eq(
    $$ SELECT name, format_type(type, NULL)
         FROM members, unnest(proargnames, proallargtypes, proargmodes) WITH ORDINALITY AS a (name, type, mode, n)
        WHERE proname = 'es_poll' AND mode = 'o' AND n > 9 ORDER BY n $$,
    $$ SELECT attname::text, format_type(atttypid, NULL)
         FROM pg_attribute WHERE attrelid = 'es_recorded_event'::regclass AND attnum > 0 ORDER BY attnum $$,
    'es_poll returns token, partition, attempt, and the columns of es_recorded_event');

--
-- Marks: language, volatility, parallel, strict
--
SELECT bag_eq(
    $$ SELECT DISTINCT p.proname::text, l.lanname::text, p.provolatile::text, p.proparallel::text,
              p.proisstrict
         FROM members p JOIN pg_language l ON l.oid = p.prolang
        WHERE p.proname !~ '^es_(expected_version|function|role|categories|definitions)_' $$,
    $$ VALUES ('es_append',         'c',   'v', 'u', false),
              ('es_append_batch',   'c',   'v', 'u', false),
              ('es_append_if',      'c',   'v', 'u', false),
              ('es_query',          'c',   'v', 'u', false),
              ('es_import_fires',   'c',   's', 's', false),
              ('es_closed',         'c',   's', 's', false),
              ('es_definitions',    'sql', 's', 's', false),
              ('es_finish_restore', 'c',   'v', 'u', false),
              ('es_reset',          'c',   'v', 'u', false),
              ('es_promote',        'c',   'v', 'u', false),
              ('es_published_horizon_applied', 'c', 'v', 'u', false),
              ('es_import_row',     'c',   'v', 'u', false),
              ('es_import_flush',   'c',   'v', 'u', false),
              ('es_events_complete',   'c',   'v', 'u', false),
              ('es_events_accept',  'c',   'v', 'u', false),
              ('es_set_slots',      'c',   'v', 'u', false),
              ('es_slots',          'c',   's', 's', true),
              ('es_call',           'c',   'v', 'u', false),
              ('es_events_refuse',  'c',   'v', 'u', false),
              ('es_events_tag',     'c',   'v', 'u', false),
              ('es_reindex_tags',   'c',   'v', 'u', false),
              ('es_guard_drop',     'c',   'v', 'u', false),
              ('es_load',           'sql', 's', 'r', false),
              ('es_load_backward',  'sql', 's', 'r', false),
              ('es_read',           'sql', 's', 'r', false),
              ('es_matching_positions', 'c', 's', 'r', false),
              ('es_read_category',  'sql', 's', 'r', false),
              ('es_stream_version', 'sql', 's', 's', false),
              ('es_last_event',     'sql', 's', 'r', false),
              ('es_event',          'sql', 's', 'r', false),
              ('es_recorded_event', 'c',   'i', 's', true),
              ('es_attribute',      'c',   'i', 's', true),
              ('es_index_attribute', 'c',  'v', 'u', false),
              ('es_index_type',     'c',   'v', 'u', false),
              ('es_rewrite',        'c',   'v', 'u', false),
              ('es_delete_stream',  'c',   'v', 'u', false),
              ('es_truncate_stream', 'c',  'v', 'u', false),
              ('es_removals_changed', 'c', 'v', 'u', false),
              ('es_set_retention',  'c',   'v', 'u', false),
              ('es_remove_foreign_streams', 'c', 'v', 'u', false),
              ('es_run_retention',  'c',   'v', 'u', false),
              ('es_kept_after',     'c',   's', 's', true),
              ('es_compact_stream', 'c',   'v', 'u', false),
              ('es_archive_stream', 'c',   'v', 'u', false),
              ('es_archive',        'c',   'v', 'u', false),
              ('es_unarchive_stream', 'c', 'v', 'u', false),
              ('es_load_archived',  'sql', 's', 'r', false),
              ('es_kept_after_support', 'c', 'v', 'u', true),
              ('es_horizon',        'c',   's', 'r', true),
              ('es_store_id',       'c',   's', 's', true),
              ('es_incarnation',    'c',   's', 's', true),
              ('es_position_valid', 'c',   's', 's', false),
              ('es_category',       'c',   'i', 's', true),
              ('es_channel',        'c',   'i', 's', true),
              ('es_start_worker',   'c',   'v', 'u', true),
              ('es_stats',          'c',   'v', 's', true),
              ('es_health',         'c',   'v', 'u', true),
              ('es_projection_lag', 'c',   's', 'r', false),
              ('es_subscription_lag', 'c', 's', 'r', false),
              ('es_source_positions', 'c', 's', 'r', false),
              ('es_health_external', 'sql', 'i', 's', false),
              ('es_health_path',    'sql', 's', 's', false),
              ('es_health_grant',   'sql', 's', 's', false),
              ('es_health_settings', 'sql', 's', 's', false),
              ('es_health_reach',   'sql', 's', 's', false),
              ('es_health_types',   'sql', 's', 'r', false),
              ('es_health_log',     'sql', 's', 'r', false),
              ('es_health_personal', 'sql', 'v', 'u', false),
              ('es_health_key_file', 'c',  'v', 'u', false),
              ('es_health_other_key_files', 'c', 'v', 'u', false),
              ('es_health_has_key', 'c',   'v', 'u', true),
              ('es_health_horizon', 'sql', 'v', 'r', false),
              ('es_health_projections', 'sql', 's', 'r', false),
              ('es_health_subscriptions', 'sql', 's', 'r', false),
              ('es_health_inbox',   'sql', 's', 'r', false),
              ('es_health_retention', 'sql', 's', 'r', false),
              ('es_health_replica', 'sql', 's', 'r', false),
              ('es_horizon_holders', 'c', 'v', 'r', true),
              ('es_inbox_stats',    'c',   'v', 's', true),
              ('es_stats_reset',    'c',   'v', 'u', true),
              ('es_uuid7',          'c',   'v', 'r', true),
              ('es_uuid5',          'c',   'i', 's', true),
              ('es_digest_string',  'c',   'i', 's', true),
              ('es_digest',         'c',   'i', 's', true),
              ('es_create_projection',  'c',   'v', 'u', false),
              ('es_alter_projection',   'c',   'v', 'u', false),
              ('es_drop_projection',    'c',   'v', 'u', false),
              ('es_pause_projection',   'c',   'v', 'u', false),
              ('es_rename_projection',  'c',   'v', 'u', false),
              ('es_resume_projection',  'c',   'v', 'u', false),
              ('es_rebuild_projection', 'c',   'v', 'u', false),
              ('es_run_projections',    'c',   'v', 'u', false),
              ('es_work',               'c',   'v', 'u', false),
              ('es_wait',               'c',   'v', 'u', false),
              ('es_replaying',          'c',   's', 'r', true),
              ('es_failures',           'sql', 's', 's', false),
              ('es_checksum',           'c',   'i', 's', true),
              ('es_receive',            'c',   'v', 'u', false),
              ('es_inbox',              'sql', 's', 's', false),
              ('es_retry',              'c',   'v', 'u', false),
              ('es_discard',            'c',   'v', 'u', false),
              ('es_skip_event',         'c',   'v', 'u', false),
              ('es_unskip_event',       'c',   'v', 'u', false),
              ('es_create_subscription', 'c',  'v', 'u', false),
              ('es_drop_subscription',  'c',   'v', 'u', false),
              ('es_alter_subscription', 'c',   'v', 'u', false),
              ('es_rename_subscription', 'c',  'v', 'u', false),
              ('es_seek',               'c',   'v', 'u', false),
              ('es_poll',               'c',   'v', 'u', false),
              ('es_ack',                'c',   'v', 'u', false),
              ('es_nack',               'c',   'v', 'u', false),
              ('es_partition',          'c',   'i', 's', true),
              ('es_define_event_type',  'c',   'v', 'u', false),
              ('es_drop_event_type',    'c',   'v', 'u', false),
              ('es_define_personal_attributes', 'c', 'v', 'u', false),
              ('es_sees_personal_data', 'c',   's', 's', false),
              ('es_personal_hash',      'c',   'v', 'u', false),
              ('es_rotate_keys',        'c',   'v', 'u', false),
              ('es_subject_keys_changed', 'c', 'v', 'u', false),
              ('es_erase',              'c',   'v', 'u', false),
              ('es_erase_subject',      'sql', 'v', 'u', false),
              ('es_erasure_report',     'sql', 's', 'r', false),
              ('es_replay_erasure',     'sql', 'v', 'u', false),
              ('es_describe_event_type', 'c',  's', 'u', false),
              ('es_define_upcaster',    'c',   'v', 'u', false),
              ('es_upcast',             'c',   's', 'r', true),
              ('es_grant',              'c',   'v', 'u', false),
              ('es_revoke',             'c',   'v', 'u', false),
              ('es_upcast_data',        'c',   's', 'r', false),
              ('es_upcast_metadata',    'c',   's', 'r', false),
              ('es_by_index',           'c',   'i', 's', true),
              ('es_append_support',     'c',   'v', 'u', true),
              ('es_by_index_support',   'c',   'v', 'u', true),
              ('es_by_query',           'c',   'i', 's', false),
              ('es_by_query_support',   'c',   'v', 'u', true),
              ('es_by_version',         'c',   'i', 's', true),
              ('es_upcast_support',     'c',   'v', 'u', true),
              ('es_event_types_changed', 'c',  'v', 'u', false),
              ('es_state',              'c',   'v', 'u', false),
              ('es_history',            'c',   's', 'u', false),
              ('es_snapshot',           'c',   'v', 'u', false),
              ('es_merge',              'c',   'i', 's', false),
              ('es_last',               'c',   'i', 's', false),
              ('es_reducer',            'c',   'v', 'u', false),
              ('es_execute',            'c',   'v', 'u', false),
              ('es_decide',             'c',   'v', 'u', false),
              ('es_test_decider',       'c',   'v', 'u', false),
              ('es_projection_sync',    'c',   'v', 'u', false),
              ('es_projection_restore', 'c',   'v', 'u', false) $$,
    'language, volatility, parallel safety and strictness');

-- While no upcaster is defined, plans are those of the table.
SELECT bag_eq(
    $$ SELECT proname::text, prosupport::text, procost::int FROM members WHERE prosupport <> 0 $$,
    $$ VALUES ('es_append',          'es_append_support', 1),
              ('es_append_batch',    'es_append_support', 1),
              ('es_upcast',          'es_upcast_support', 100),
              ('es_upcast_data',     'es_upcast_support', 100),
              ('es_upcast_metadata', 'es_upcast_support', 100),
              ('es_by_index',        'es_by_index_support', 4000),
              ('es_by_query',        'es_by_query_support', 4000),
              ('es_kept_after',      'es_kept_after_support', 1),
              ('es_by_version',      'es_by_index_support', 1) $$,
    'the planner is told when upcasting is nothing, what is expensive, and which arguments can be left out');

-- A read must inline, and an append runs with the rights that were granted.
SELECT is_empty(
    $$ SELECT oid::regprocedure FROM members WHERE prosecdef $$,
    'no function is SECURITY DEFINER');
SELECT is_empty(
    $$ SELECT oid::regprocedure FROM members WHERE proconfig IS NOT NULL $$,
    'no function sets a parameter');

-- BEGIN ATOMIC and RETURN are parsed once; a body that is a text would be
-- read with the caller's search_path.
SELECT is_empty(
    $$ SELECT p.oid::regprocedure
         FROM members p JOIN pg_language l ON l.oid = p.prolang
        WHERE l.lanname = 'sql' AND p.prosqlbody IS NULL $$,
    'no function''s body is a text');

--
-- es_expected_version
--
SELECT results_eq(
    $$ SELECT typtype::text, typlen::int, typbyval, typalign::text, typcategory::text,
              typinput::text, typoutput::text, typreceive::text, typsend::text
         FROM pg_type WHERE oid = 'es_expected_version'::regtype $$,
    $$ SELECT 'b', 8, typbyval, 'd', 'U', 'es_expected_version_in', 'es_expected_version_out',
              'es_expected_version_recv', 'es_expected_version_send'
         FROM pg_type WHERE oid = 'bigint'::regtype $$,
    'es_expected_version is an int8 inside');

SELECT bag_eq(
    $$ SELECT format_type(castsource, NULL) AS source, format_type(casttarget, NULL) AS target, castmethod::text,
              castfunc::regprocedure::text, castcontext::text
         FROM pg_cast
        WHERE casttarget = 'es_expected_version'::regtype
           OR castsource = 'es_expected_version'::regtype $$,
    $$ VALUES ('smallint', 'es_expected_version', 'f', 'es_expected_version_from_int2(smallint)', 'i'),
              ('integer', 'es_expected_version', 'f', 'es_expected_version_from_int4(integer)', 'i'),
              ('bigint', 'es_expected_version', 'f', 'es_expected_version_from_int8(bigint)', 'i'),
              ('character', 'es_expected_version', 'f', 'es_expected_version_from_bpchar(character)', 'i'),
              ('text', 'es_expected_version', 'i', '-', 'i'), ('character varying', 'es_expected_version', 'i', '-', 'i'),
              ('name', 'es_expected_version', 'i', '-', 'i'), ('es_expected_version', 'text', 'i', '-', 'i') $$,
    'integers and texts become an expected version by themselves, nothing else does');

--
-- es_categories
--
SELECT results_eq(
    $$ SELECT typtype::text, typlen::int, typbyval, typalign::text, typstorage::text, typcategory::text, typcollation, typelem,
              typinput::text, typoutput::text, typreceive::text, typsend::text
         FROM pg_type WHERE oid = 'es_categories'::regtype $$,
    $$ SELECT 'b', typlen::int, typbyval, typalign::text, typstorage::text, 'U', 0::oid, 0::oid, 'es_categories_in', 'es_categories_out',
              'es_categories_recv', 'es_categories_send'
         FROM pg_type WHERE oid = 'text[]'::regtype $$,
    'es_categories is an array of text inside');

SELECT bag_eq(
    $$ SELECT format_type(castsource, NULL) AS s, format_type(casttarget, NULL) AS t, castmethod::text, castcontext::text
         FROM pg_cast
        WHERE casttarget = 'es_categories'::regtype
           OR castsource = 'es_categories'::regtype $$,
    $$ VALUES ('text', 'es_categories', 'i', 'i'), ('character varying', 'es_categories', 'i', 'i'), ('name', 'es_categories', 'i', 'i'),
              ('character', 'es_categories', 'f', 'i'), ('character varying[]', 'es_categories', 'i', 'i'),
              ('text[]', 'es_categories', 'f', 'i'), ('es_categories', 'text[]', 'f', 'a') $$,
    'texts and arrays of them become categories by themselves, nothing else does');

--
-- es_function
--
SELECT results_eq(
    $$ SELECT typtype::text, typlen::int, typbyval, typalign::text, typstorage::text, typcategory::text, typcollation,
              typinput::text, typoutput::text, typreceive::text, typsend::text
         FROM pg_type WHERE oid = 'es_function'::regtype $$,
    $$ SELECT 'b', typlen::int, typbyval, typalign::text, typstorage::text, 'U', 0::oid, 'es_function_in', 'es_function_out',
              'es_function_recv', 'es_function_send'
         FROM pg_type WHERE oid = 'text'::regtype $$,
    'es_function is a text inside');

SELECT bag_eq(
    $$ SELECT format_type(castsource, NULL), castmethod::text, castfunc::regprocedure::text, castcontext::text
         FROM pg_cast
        WHERE casttarget = 'es_function'::regtype
           OR castsource = 'es_function'::regtype $$,
    $$ VALUES ('text', 'b', '-', 'i'), ('character varying', 'b', '-', 'i'), ('name', 'i', '-', 'i'), ('character', 'i', '-', 'i'),
              ('oid', 'f', 'es_function_from_oid(oid)', 'i'),
              ('regproc', 'f', 'es_function_from_regproc(regproc)', 'i'),
              ('regprocedure', 'f', 'es_function_from_regprocedure(regprocedure)', 'i') $$,
    'text, oid, regproc and regprocedure become a function by themselves, nothing else does');

--
-- es_role
--
SELECT results_eq(
    $$ SELECT typtype::text, typlen::int, typbyval, typalign::text, typcategory::text, typcollation,
              typinput::text, typoutput::text, typreceive::text, typsend::text
         FROM pg_type WHERE oid = 'es_role'::regtype $$,
    $$ VALUES ('b', 68, false, 'i', 'S', 0::oid, 'es_role_in', 'es_role_out', 'es_role_recv', 'es_role_send') $$,
    'es_role is an oid and a name inside');

SELECT bag_eq(
    $$ SELECT format_type(castsource, NULL), format_type(casttarget, NULL) AS target, castmethod::text, castfunc::regprocedure::text,
              castcontext::text
         FROM pg_cast
        WHERE casttarget = 'es_role'::regtype
           OR castsource = 'es_role'::regtype $$,
    $$ VALUES ('oid', 'es_role', 'f', 'es_role_from_oid(oid)', 'a'), ('regrole', 'es_role', 'f', 'es_role_from_regrole(regrole)', 'a'),
              ('name', 'es_role', 'i', '-', 'a'), ('text', 'es_role', 'i', '-', 'a'), ('es_role', 'oid', 'f', 'es_role_to_oid(es_role)', 'a'),
              ('es_role', 'name', 'i', '-', 'i'), ('es_role', 'text', 'i', '-', 'i') $$,
    'a role becomes a name or a text by itself, nothing becomes a role but in an assignment');

SELECT bag_eq(
    $$ SELECT DISTINCT p.provolatile::text, p.proparallel::text, p.proisstrict
         FROM members p WHERE p.proname LIKE 'es\_role\_%' $$,
    $$ VALUES ('s', 's', true) $$,
    'its functions look roles up');

--
-- es_recorded_event
--
SELECT bag_eq(
    $$ SELECT castsource::regtype::text, casttarget::regtype::text AS target, castfunc::regprocedure::text, castcontext::text
         FROM pg_cast
        WHERE casttarget = 'es_recorded_event'::regtype
           OR castsource = 'es_recorded_event'::regtype $$,
    $$ VALUES ('es_events', 'es_recorded_event', 'es_recorded_event(es_events)', 'i') $$,
    'a row of es_events becomes an event by itself');

SELECT bag_eq(
    $$ SELECT oprname::text, oprcode::text, oprcom::regoperator::text, oprnegate::regoperator::text
         FROM pg_operator
        WHERE oprleft = 'es_expected_version'::regtype
           OR oprright = 'es_expected_version'::regtype $$,
    $$ SELECT o, 'es_expected_version_' || f, c || '(es_expected_version,es_expected_version)' AS commutator,
              n || '(es_expected_version,es_expected_version)' AS negator
         FROM (VALUES ('*=', 'eq', '*=', '*<>'), ('*<>', 'ne', '*<>', '*='), ('*<', 'lt', '*>', '*>='),
                      ('*<=', 'le', '*>=', '*>'), ('*>=', 'ge', '*<=', '*<'), ('*>', 'gt', '*<', '*<=')) AS t (o, f, c, n) $$,
    'its operators, none of which is called =: text = integer would be one of them');

SELECT bag_eq(
    $$ SELECT a.attnum::int, a.attname::text, format_type(a.atttypid, a.atttypmod)
         FROM pg_attribute a
        WHERE a.attrelid = 'es_ack_event'::regclass AND a.attnum > 0 $$,
    $$ VALUES (1, 'entity_id', 'text'), (2, 'event_time', 'timestamp with time zone'), (3, 'event_type', 'text'),
              (4, 'event_version', 'text'), (5, 'stream', 'text'), (6, 'expected', 'es_expected_version'), (7, 'tags', 'text[]') $$,
    'es_ack_event has these fields');

SELECT * FROM finish();
ROLLBACK;
