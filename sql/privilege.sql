-- What each kind of user needs, in one place. es_grant and es_revoke use it,
-- doc/operate/security.md shows it, and a test compares both with the catalogs. Functions
-- that PUBLIC may call are here as well, for databases where PUBLIC may not.
CREATE VIEW es_privileges AS
    WITH needed (name, privilege, kinds) AS (VALUES
        ('es_events',               'SELECT', '{reader,operator}'::text[]),
        ('es_event_types',          'SELECT', '{reader,writer,operator}'),
        ('es_health',               'SELECT', '{reader,operator}'),
        ('es_horizon_holders',      'SELECT', '{operator}'),
        ('es_identity',             'SELECT', '{operator}'),
        ('es_import',               'INSERT', '{writer}'),
        ('es_incarnation_entries',  'SELECT', '{operator}'),
        ('es_incarnations',         'SELECT', '{reader,operator}'),
        ('es_erasure_places',       'SELECT', '{operator,retention}'),
        ('es_erasures',             'SELECT', '{operator,retention}'),
        ('es_failures',             'SELECT', '{operator}'),
        ('es_failures_id_seq',      'SELECT', '{operator}'),
        ('es_inbox',                'SELECT', '{operator}'),
        ('es_inbox',                'DELETE', '{operator}'),
        ('es_inbox_id_seq',         'SELECT', '{operator}'),
        ('es_inbox_stats',          'SELECT', '{operator}'),
        ('es_notified',             'SELECT', '{operator}'),
        ('es_partitions',           'SELECT', '{operator}'),
        ('es_personal_attributes',  'SELECT', '{reader,writer,operator}'),
        ('es_position',             'SELECT', '{operator}'),
        ('es_privileges',           'SELECT', '{operator}'),
        ('es_projection_status',    'SELECT', '{reader,operator}'),
        ('es_projections',          'SELECT', '{operator}'),
        ('es_published_horizon',    'SELECT', '{operator}'),
        ('es_all_events',           'SELECT', '{operator}'),
        ('es_archived_events',      'SELECT', '{operator}'),
        ('es_removals',             'SELECT', '{operator,retention}'),
        ('es_removals_id_seq',      'SELECT', '{operator}'),
        ('es_removed_ids',          'SELECT', '{operator,retention}'),
        ('es_retention',            'SELECT', '{operator,retention}'),
        ('es_retention_status',     'SELECT', '{operator,retention}'),
        ('es_rewrites',             'SELECT', '{operator}'),
        ('es_skipped_events',       'SELECT', '{operator}'),
        ('es_snapshots',            'SELECT', '{operator}'),
        ('es_snapshots',            'DELETE', '{operator}'),
        ('es_snapshots_id_seq',     'SELECT', '{operator}'),
        ('es_stats',                'SELECT', '{operator}'),
        ('es_subscription_status',  'SELECT', '{reader,operator}'),
        ('es_subject_keys',         'SELECT', '{operator}'),
        ('es_subscriptions',        'SELECT', '{operator}'),
        ('es_upcasters',            'SELECT', '{operator}'),
        ('es_user_definitions',     'SELECT', '{operator}'),
        ('es_visible_failures',     'SELECT', '{reader,writer,operator}'),
        ('es_visible_skipped_events', 'SELECT', '{reader,operator}'),

        ('es_attribute',            'EXECUTE', '{reader,writer,operator}'),
        ('es_categories_from_bpchar', 'EXECUTE', '{reader,writer,operator}'),
        ('es_categories_from_texts', 'EXECUTE', '{reader,writer,operator}'),
        ('es_categories_in',        'EXECUTE', '{reader,writer,operator}'),
        ('es_categories_out',       'EXECUTE', '{reader,writer,operator}'),
        ('es_categories_recv',      'EXECUTE', '{reader,writer,operator}'),
        ('es_categories_send',      'EXECUTE', '{reader,writer,operator}'),
        ('es_categories_texts',     'EXECUTE', '{reader,writer,operator}'),
        ('es_category',             'EXECUTE', '{reader,writer,operator,retention}'),
        ('es_channel',              'EXECUTE', '{reader,writer,operator}'),
        ('es_closed',               'EXECUTE', '{reader,writer,operator}'),
        ('es_definitions_in',       'EXECUTE', '{reader,writer,operator}'),
        ('es_definitions_out',      'EXECUTE', '{reader,writer,operator}'),
        ('es_call',                 'EXECUTE', '{reader,writer,operator}'),
        ('es_checksum',             'EXECUTE', '{reader,writer,operator}'),
        ('es_describe_event_type',  'EXECUTE', '{reader,writer,operator}'),
        ('es_digest',               'EXECUTE', '{reader,writer,operator}'),
        ('es_digest_string',        'EXECUTE', '{reader,writer,operator}'),
        ('es_expected_version_cmp',  'EXECUTE', '{reader,writer,operator}'),
        ('es_expected_version_eq',   'EXECUTE', '{reader,writer,operator}'),
        ('es_expected_version_from_bpchar', 'EXECUTE', '{reader,writer,operator,retention}'),
        ('es_expected_version_from_int2', 'EXECUTE', '{reader,writer,operator,retention}'),
        ('es_expected_version_from_int4', 'EXECUTE', '{reader,writer,operator,retention}'),
        ('es_expected_version_from_int8', 'EXECUTE', '{reader,writer,operator,retention}'),
        ('es_expected_version_ge',   'EXECUTE', '{reader,writer,operator}'),
        ('es_expected_version_gt',   'EXECUTE', '{reader,writer,operator}'),
        ('es_expected_version_hash', 'EXECUTE', '{reader,writer,operator}'),
        ('es_expected_version_hash_extended', 'EXECUTE', '{reader,writer,operator}'),
        ('es_expected_version_in',   'EXECUTE', '{reader,writer,operator,retention}'),
        ('es_expected_version_le',   'EXECUTE', '{reader,writer,operator}'),
        ('es_expected_version_lt',   'EXECUTE', '{reader,writer,operator}'),
        ('es_expected_version_ne',   'EXECUTE', '{reader,writer,operator}'),
        ('es_expected_version_out',  'EXECUTE', '{reader,writer,operator}'),
        ('es_expected_version_recv', 'EXECUTE', '{reader,writer,operator}'),
        ('es_expected_version_send', 'EXECUTE', '{reader,writer,operator}'),
        ('es_function_from_oid',    'EXECUTE', '{reader,writer,operator,retention}'),
        ('es_function_from_regproc', 'EXECUTE', '{reader,writer,operator,retention}'),
        ('es_append_support',       'EXECUTE', '{reader,writer,operator}'),
        ('es_by_index',             'EXECUTE', '{reader,writer,operator}'),
        ('es_by_index_support',     'EXECUTE', '{reader,writer,operator}'),
        ('es_by_query',             'EXECUTE', '{reader,writer,operator}'),
        ('es_by_query_support',     'EXECUTE', '{reader,writer,operator}'),
        ('es_kept_after',           'EXECUTE', '{reader,writer,operator}'),
        ('es_kept_after_support',   'EXECUTE', '{reader,writer,operator}'),
        ('es_by_version',           'EXECUTE', '{reader,writer,operator}'),
        ('es_function_from_regprocedure', 'EXECUTE', '{reader,writer,operator,retention}'),
        ('es_function_in',          'EXECUTE', '{reader,writer,operator,retention}'),
        ('es_function_out',         'EXECUTE', '{reader,writer,operator}'),
        ('es_function_recv',        'EXECUTE', '{reader,writer,operator}'),
        ('es_function_send',        'EXECUTE', '{reader,writer,operator}'),
        ('es_horizon',              'EXECUTE', '{reader,writer,operator}'),
        ('es_import_fires',         'EXECUTE', '{reader,writer,operator}'),
        ('es_incarnation',          'EXECUTE', '{reader,writer,operator}'),
        ('es_last',                 'EXECUTE', '{reader,writer,operator}'),
        ('es_merge',                'EXECUTE', '{reader,writer,operator}'),
        ('es_partition',            'EXECUTE', '{reader,writer,operator}'),
        ('es_position_valid',       'EXECUTE', '{reader,writer,operator}'),
        ('es_recorded_event',       'EXECUTE', '{reader,writer,operator}'),
        ('es_reducer',              'EXECUTE', '{reader,writer,operator}'),
        ('es_replaying',            'EXECUTE', '{reader,writer,operator}'),
        ('es_role_cmp',            'EXECUTE', '{reader,writer,operator}'),
        ('es_role_eq',             'EXECUTE', '{reader,writer,operator}'),
        ('es_role_from_oid',       'EXECUTE', '{reader,writer,operator}'),
        ('es_role_from_regrole',   'EXECUTE', '{reader,writer,operator}'),
        ('es_role_ge',             'EXECUTE', '{reader,writer,operator}'),
        ('es_role_gt',             'EXECUTE', '{reader,writer,operator}'),
        ('es_role_in',             'EXECUTE', '{reader,writer,operator}'),
        ('es_role_le',             'EXECUTE', '{reader,writer,operator}'),
        ('es_role_lt',             'EXECUTE', '{reader,writer,operator}'),
        ('es_role_ne',             'EXECUTE', '{reader,writer,operator}'),
        ('es_role_out',            'EXECUTE', '{reader,writer,operator}'),
        ('es_role_recv',           'EXECUTE', '{reader,writer,operator}'),
        ('es_role_send',           'EXECUTE', '{reader,writer,operator}'),
        ('es_role_to_oid',         'EXECUTE', '{reader,writer,operator}'),
        ('es_slots',                'EXECUTE', '{reader,writer,operator}'),
        ('es_store_id',             'EXECUTE', '{reader,writer,operator}'),
        ('es_upcast_support',       'EXECUTE', '{reader,writer,operator}'),
        ('es_uuid5',                'EXECUTE', '{reader,writer,operator}'),
        ('es_uuid7',                'EXECUTE', '{reader,writer,operator}'),
        ('es_wait',                 'EXECUTE', '{reader,writer,operator}'),

        ('es_append',               'EXECUTE', '{writer}'),
        ('es_append_batch',         'EXECUTE', '{writer}'),
        ('es_append_if',            'EXECUTE', '{writer}'),
        ('es_execute',              'EXECUTE', '{writer}'),
        ('es_test_decider',         'EXECUTE', '{writer}'),
        ('es_decide',               'EXECUTE', '{writer}'),
        ('es_receive',              'EXECUTE', '{writer}'),
        ('es_personal_hash',        'EXECUTE', '{writer}'),

        ('es_sees_personal_data',   'EXECUTE', '{personal}'),

        ('es_ack',                  'EXECUTE', '{reader,operator}'),
        ('es_create_subscription',  'EXECUTE', '{reader,operator}'),
        ('es_alter_subscription',   'EXECUTE', '{reader,operator}'),
        ('es_drop_subscription',    'EXECUTE', '{reader,operator}'),
        ('es_rename_subscription',  'EXECUTE', '{reader,operator}'),
        ('es_event',                'EXECUTE', '{reader,operator}'),
        ('es_history',              'EXECUTE', '{reader,operator}'),
        ('es_last_event',           'EXECUTE', '{reader,operator}'),
        ('es_load',                 'EXECUTE', '{reader,operator}'),
        ('es_load_backward',        'EXECUTE', '{reader,operator}'),
        ('es_matching_positions',   'EXECUTE', '{reader,operator}'),
        ('es_nack',                 'EXECUTE', '{reader,operator}'),
        ('es_poll',                 'EXECUTE', '{reader,operator}'),
        ('es_query',                'EXECUTE', '{reader,operator}'),
        ('es_read',                 'EXECUTE', '{reader,operator}'),
        ('es_read_category',        'EXECUTE', '{reader,operator}'),
        ('es_seek',                 'EXECUTE', '{reader,operator}'),
        ('es_state',                'EXECUTE', '{reader,operator}'),
        ('es_stream_version',       'EXECUTE', '{reader,operator}'),
        ('es_upcast',               'EXECUTE', '{reader,operator}'),
        ('es_upcast_data',          'EXECUTE', '{reader,operator}'),
        ('es_upcast_metadata',      'EXECUTE', '{reader,operator}'),

        ('es_alter_projection',     'EXECUTE', '{operator}'),
        ('es_create_projection',    'EXECUTE', '{operator}'),
        ('es_define_event_type',    'EXECUTE', '{operator}'),
        ('es_define_personal_attributes', 'EXECUTE', '{operator}'),
        ('es_define_upcaster',      'EXECUTE', '{operator}'),
        ('es_discard',              'EXECUTE', '{operator}'),
        ('es_drop_event_type',      'EXECUTE', '{operator}'),
        ('es_drop_projection',      'EXECUTE', '{operator}'),
        ('es_failures',             'EXECUTE', '{reader,writer,operator}'),
        ('es_health',               'EXECUTE', '{reader,operator}'),
        ('es_projection_lag',       'EXECUTE', '{reader,operator}'),
        ('es_subscription_lag',     'EXECUTE', '{reader,operator}'),
        ('es_horizon_holders',      'EXECUTE', '{operator}'),
        ('es_inbox',                'EXECUTE', '{operator}'),
        ('es_inbox_stats',          'EXECUTE', '{operator}'),
        ('es_index_attribute',      'EXECUTE', '{operator}'),
        ('es_index_type',           'EXECUTE', '{operator}'),
        ('es_pause_projection',     'EXECUTE', '{operator}'),
        ('es_rename_projection',    'EXECUTE', '{operator}'),
        ('es_rebuild_projection',   'EXECUTE', '{operator}'),
        ('es_reindex_tags',         'EXECUTE', '{operator}'),
        ('es_resume_projection',    'EXECUTE', '{operator}'),
        ('es_rotate_keys',          'EXECUTE', '{operator}'),
        ('es_retry',                'EXECUTE', '{operator}'),
        ('es_rewrite',              'EXECUTE', '{operator}'),
        ('es_run_projections',      'EXECUTE', '{operator}'),
        ('es_skip_event',           'EXECUTE', '{operator}'),
        ('es_snapshot',             'EXECUTE', '{operator}'),
        ('es_start_worker',         'EXECUTE', '{operator}'),
        ('es_stats',                'EXECUTE', '{operator}'),
        ('es_stats_reset',          'EXECUTE', '{operator}'),
        ('es_unskip_event',         'EXECUTE', '{operator}'),
        ('es_work',                 'EXECUTE', '{operator}'),

        ('es_archive',              'EXECUTE', '{retention}'),
        ('es_archive_stream',       'EXECUTE', '{retention}'),
        ('es_compact_stream',       'EXECUTE', '{retention}'),
        ('es_delete_stream',        'EXECUTE', '{retention}'),
        ('es_erase',                'EXECUTE', '{retention}'),
        ('es_erase_subject',        'EXECUTE', '{retention}'),
        ('es_erasure_report',       'EXECUTE', '{retention}'),
        ('es_remove_foreign_streams', 'EXECUTE', '{retention}'),
        ('es_replay_erasure',       'EXECUTE', '{retention}'),
        ('es_run_retention',        'EXECUTE', '{retention}'),
        ('es_set_retention',        'EXECUTE', '{retention}'),
        ('es_truncate_stream',      'EXECUTE', '{retention}'),
        ('es_unarchive_stream',     'EXECUTE', '{retention}')),
    member AS (
        SELECT d.classid, d.objid
          FROM pg_extension x
          JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass::oid AND d.refobjid = x.oid AND d.deptype = 'e'
         WHERE x.extname = 'eventstore'),
    object (name, type, classid, objid, acl) AS (
        SELECT c.relname, 'TABLE', m.classid, m.objid, c.relacl
          FROM member m
          JOIN pg_class c ON m.classid = 'pg_class'::regclass::oid AND c.oid = m.objid
        UNION ALL
        SELECT p.proname, 'ROUTINE', m.classid, m.objid, p.proacl
          FROM member m
          JOIN pg_proc p ON m.classid = 'pg_proc'::regclass::oid AND p.oid = m.objid)
    SELECT o.type, i.identity AS object, k.kind, n.privilege, o.acl
      FROM needed n
      JOIN object o ON o.name = n.name::name AND (o.type = 'TABLE') = (n.privilege <> 'EXECUTE')
     CROSS JOIN LATERAL pg_catalog.unnest(n.kinds) k (kind)
     CROSS JOIN LATERAL pg_catalog.pg_identify_object(o.classid, o.objid, 0) i
    UNION ALL
    SELECT 'SCHEMA', pg_catalog.quote_ident(s.nspname), k.kind, 'USAGE', s.nspacl
      FROM pg_extension x
      JOIN pg_namespace s ON s.oid = x.extnamespace
     CROSS JOIN (VALUES ('reader'), ('writer'), ('operator'), ('retention'), ('personal')) k (kind)
     WHERE x.extname = 'eventstore';

CREATE FUNCTION es_grant(role regrole, kind text) RETURNS void
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
CREATE FUNCTION es_revoke(role regrole, kind text) RETURNS void
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE EXECUTE ON FUNCTION es_grant(regrole, text), es_revoke(regrole, text) FROM PUBLIC;

COMMENT ON VIEW es_privileges IS 'what es_grant grants to each kind of user';
COMMENT ON COLUMN es_privileges.type IS 'TABLE, ROUTINE or SCHEMA, as in GRANT';
COMMENT ON COLUMN es_privileges.object IS 'name of the object, as in GRANT';
COMMENT ON COLUMN es_privileges.kind IS 'reader, writer, operator, retention or personal';
COMMENT ON COLUMN es_privileges.privilege IS 'the privilege that the kind needs';
COMMENT ON COLUMN es_privileges.acl IS 'privileges on the object now; null: only its owner and, for functions, PUBLIC have any';
COMMENT ON FUNCTION es_grant(regrole, text) IS
    'grants a role what a reader, a writer, an operator or retention needs, or to see personal attributes';
COMMENT ON FUNCTION es_revoke(regrole, text) IS
    'revokes from a role what a reader, a writer, an operator or retention needs, or to see personal attributes';
