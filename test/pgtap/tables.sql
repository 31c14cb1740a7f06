-- The log: its table, sequence and import view, column by column. Whoever
-- changes one of them changes what users' queries, dumps and tools rely on.
BEGIN;
SELECT plan(66);

--
-- Columns
--
SELECT bag_eq(
    $$ SELECT a.attnum::int, a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull
         FROM pg_attribute a
        WHERE a.attrelid = 'es_events'::regclass AND a.attnum > 0 $$,
    $$ VALUES (1,  'position',    'bigint',                   true),
              (2,  'version',     'bigint',                   true),
              (3,  'next_xid',       'xid8',                     true),
              (4,  'recorded_at', 'timestamp with time zone', true),
              (5,  'occurred_at', 'timestamp with time zone', false),
              (6,  'id',          'uuid',                     true),
              (7,  'stream',      'text',                     true),
              (8,  'type',        'text',                     true),
              (9,  'data',        'jsonb',                    true),
              (10, 'metadata',    'jsonb',                    false),
              (11, 'tags',        'text[]',                   false),
              (12, 'body',        'bytea',                    false) $$,
    'es_events has these columns, none dropped, none more');

-- What readers, handlers, reducers and consumers get.
SELECT bag_eq(
    $$ SELECT a.attnum::int, a.attname::text, format_type(a.atttypid, a.atttypmod), nullif(a.attcollation, 0)::regcollation::text
         FROM pg_attribute a
        WHERE a.attrelid = 'es_recorded_event'::regclass AND a.attnum > 0 $$,
    $$ VALUES (1, 'position',    'bigint',                   NULL),
              (2, 'version',     'bigint',                   NULL),
              (3, 'recorded_at', 'timestamp with time zone', NULL),
              (4, 'occurred_at', 'timestamp with time zone', NULL),
              (5, 'id',          'uuid',                     NULL),
              (6, 'stream',      'text',                     '"C"'),
              (7, 'type',        'text',                     '"C"'),
              (8, 'data',        'jsonb',                    NULL),
              (9, 'metadata',    'jsonb',                    NULL),
              (10, 'tags',       'text[]',                   '"C"'),
              (11, 'body',       'bytea',                    NULL) $$,
    'es_recorded_event has these columns in this order');

SELECT bag_eq(
    $$ SELECT a.attnum::int, a.attname::text, format_type(a.atttypid, a.atttypmod),
              pg_get_expr(d.adbin, d.adrelid)
         FROM pg_attribute a
         LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = 'es_import'::regclass AND a.attnum > 0 $$,
    $$ VALUES (1, 'stream',      'es_import_stream',         'NULL::text'),
              (2, 'type',        'text',                     NULL),
              (3, 'data',        'jsonb',                    '''{}''::jsonb'),
              (4, 'metadata',    'jsonb',                    NULL),
              (5, 'id',          'uuid',                     NULL),
              (6, 'occurred_at', 'timestamp with time zone', NULL),
              (7, 'tags',        'text[]',                   NULL),
              (8, 'body',        'bytea',                    NULL) $$,
    'es_import has these columns and defaults');

SELECT is_empty(
    $$ SELECT adnum FROM pg_attrdef WHERE adrelid = 'es_events'::regclass $$,
    'es_events has no default: every value is given by an append');

-- The order of names must not depend on the database's locale, nor on the
-- version of a library.
SELECT bag_eq(
    $$ SELECT a.attrelid::regclass::text, a.attname::text, c.collname::text
         FROM pg_attribute a
         JOIN pg_collation c ON c.oid = a.attcollation
        WHERE a.attrelid IN ('es_events'::regclass, 'es_import'::regclass, 'es_import_log'::regclass) AND a.attnum > 0 $$,
    $$ VALUES ('es_events', 'stream', 'C'), ('es_events', 'type', 'C'), ('es_events', 'tags', 'C'), ('es_import', 'tags', 'C'),
              ('es_import', 'stream', 'C'), ('es_import', 'type', 'C'),
              ('es_import_log', 'stream', 'C'), ('es_import_log', 'type', 'C'), ('es_import_log', 'tags', 'C') $$,
    'names are compared by their bytes');

--
-- Constraints and indexes
--
SELECT bag_eq(
    $$ SELECT conname::text, pg_get_constraintdef(oid), convalidated, condeferrable
         FROM pg_constraint
        WHERE conrelid = 'es_events'::regclass AND contype <> 'n' $$,
    $$ VALUES ('es_events_pkey',               'PRIMARY KEY ("position")', true, false),
              ('es_events_id_key',             'UNIQUE (id)',              true, false),
              ('es_events_stream_version_key', 'UNIQUE (stream, version)', true, false) $$,
    'es_events has these constraints');

SELECT bag_eq(
    $$ SELECT i.indexrelid::regclass::text, i.indisunique, i.indisvalid,
              substring(pg_get_indexdef(i.indexrelid) FROM 'USING .*')
         FROM pg_index i WHERE i.indrelid = 'es_events'::regclass $$,
    $$ VALUES ('es_events_pkey',                  true,  true, 'USING btree ("position") WITH (fillfactor=''98'')'),
              ('es_events_id_key',                true,  true, 'USING btree (id) WITH (fillfactor=''98'')'),
              ('es_events_stream_version_key',    true,  true, 'USING btree (stream, version)'),
              ('es_events_category_position_idx', false, true, 'USING btree (es_category(stream), "position") WITH (fillfactor=''98'')') $$,
    'es_events has these indexes and no more: each costs every append');

--
-- Triggers
--
SELECT bag_eq(
    $$ SELECT pg_get_triggerdef(oid, true)
         FROM pg_trigger
        WHERE tgrelid IN ('es_events'::regclass, 'es_import'::regclass, 'es_import_log'::regclass) AND NOT tgisinternal $$,
    $$ VALUES ('CREATE TRIGGER es_events_refuse BEFORE DELETE OR UPDATE OR TRUNCATE ON es_events'
               ' FOR EACH STATEMENT EXECUTE FUNCTION es_events_refuse()'),
              ('CREATE TRIGGER es_events_refuse_row BEFORE DELETE OR UPDATE ON es_events'
               ' FOR EACH ROW EXECUTE FUNCTION es_events_refuse()'),
              ('CREATE TRIGGER es_events_complete BEFORE INSERT ON es_events'
               ' FOR EACH ROW EXECUTE FUNCTION es_events_complete()'),
              ('CREATE TRIGGER es_events_tag AFTER INSERT ON es_events'
               ' FOR EACH ROW WHEN (new.tags IS NOT NULL) EXECUTE FUNCTION es_events_tag()'),
              ('CREATE TRIGGER es_import_row INSTEAD OF INSERT ON es_import'
               ' FOR EACH ROW EXECUTE FUNCTION es_import_row()'),
              ('CREATE TRIGGER es_import_row INSTEAD OF INSERT ON es_import_log'
               ' FOR EACH ROW EXECUTE FUNCTION es_import_row()'),
              ('CREATE TRIGGER es_import_flush AFTER INSERT ON es_import_log'
               ' FOR EACH STATEMENT EXECUTE FUNCTION es_import_flush()'),
              ('CREATE TRIGGER es_import_flush AFTER INSERT ON es_import'
               ' FOR EACH STATEMENT EXECUTE FUNCTION es_import_flush()') $$,
    'the tables have these triggers');

SELECT is_empty(
    $$ SELECT tgname FROM pg_trigger
        WHERE tgrelid = 'es_events'::regclass AND NOT tgisinternal AND tgenabled <> 'A' $$,
    'those of es_events fire always');

-- Sessions keep what is in these tables until the trigger tells them.
SELECT bag_eq(
    $$ SELECT pg_get_triggerdef(oid, true), tgenabled::text
         FROM pg_trigger
        WHERE tgrelid IN ('es_event_types'::regclass, 'es_upcasters'::regclass, 'es_personal_attributes'::regclass, 'es_subject_keys'::regclass,
                          'es_erasures'::regclass) AND NOT tgisinternal $$,
    $$ VALUES ('CREATE TRIGGER es_event_types_changed AFTER INSERT OR DELETE OR UPDATE OR TRUNCATE ON es_event_types'
               ' FOR EACH STATEMENT EXECUTE FUNCTION es_event_types_changed()', 'A'),
              ('CREATE TRIGGER es_event_types_changed AFTER INSERT OR DELETE OR UPDATE OR TRUNCATE ON es_upcasters'
               ' FOR EACH STATEMENT EXECUTE FUNCTION es_event_types_changed()', 'A'),
              ('CREATE TRIGGER es_event_types_changed AFTER INSERT OR DELETE OR UPDATE OR TRUNCATE ON es_personal_attributes'
               ' FOR EACH STATEMENT EXECUTE FUNCTION es_event_types_changed()', 'A'),
              ('CREATE TRIGGER es_event_types_changed_row AFTER INSERT OR DELETE OR UPDATE ON es_personal_attributes'
               ' FOR EACH ROW EXECUTE FUNCTION es_event_types_changed()', 'A'),
              ('CREATE TRIGGER es_subject_keys_changed AFTER INSERT OR DELETE OR UPDATE ON es_subject_keys'
               ' FOR EACH ROW EXECUTE FUNCTION es_subject_keys_changed()', 'A') $$,
    'the tables of types, upcasters, personal attributes and keys have these triggers, which fire always');

SELECT bag_eq(
    $$ SELECT a.attrelid::regclass::text, a.attnum::int, a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull
         FROM pg_attribute a
        WHERE a.attrelid IN ('es_event_types'::regclass, 'es_upcasters'::regclass, 'es_personal_attributes'::regclass, 'es_subject_keys'::regclass,
                              'es_erasures'::regclass) AND a.attnum > 0 $$,
    $$ VALUES ('es_event_types', 1, 'type',           'text',                     true),
              ('es_event_types', 2, 'required',       'text[]',                   true),
              ('es_event_types', 3, 'composite_key',  'text[]',                   false),
              ('es_event_types', 4, 'attributes',     'jsonb',                    false),
              ('es_event_types', 5, 'schema_version', 'integer',                  true),
              ('es_event_types', 6, 'description',    'text',                     false),
              ('es_event_types', 7, 'category',       'text',                     false),
              ('es_event_types', 8, 'defined_at',     'timestamp with time zone', true),
              ('es_upcasters',   1, 'type',           'text',                     true),
              ('es_upcasters',   2, 'from_version',   'integer',                  true),
              ('es_upcasters',   3, 'upcaster',       'text',                     true),
              ('es_upcasters',   4, 'owner',          'es_role',                  true),
              ('es_upcasters',   5, 'search_path',    'text',                     true),
              ('es_upcasters',   6, 'settings',       'text[]',                   true),
              ('es_upcasters',   7, 'category',       'text',                     false),
              ('es_upcasters',   8, 'defined_at',     'timestamp with time zone', true),
              ('es_personal_attributes', 1, 'type',       'text',                     true),
              ('es_personal_attributes', 2, 'category',   'text',                     false),
              ('es_personal_attributes', 3, 'subject',    'text',                     false),
              ('es_personal_attributes', 4, 'attributes', 'text[]',                   true),
              ('es_personal_attributes', 5, 'defined_at', 'timestamp with time zone', true),
              ('es_subject_keys', 1, 'subject',            'text',                     true),
              ('es_subject_keys', 2, 'key',                'bytea',                    false),
              ('es_subject_keys', 3, 'key_encryption_key', 'text',                     false),
              ('es_subject_keys', 4, 'created_at',         'timestamp with time zone', true),
              ('es_subject_keys', 5, 'erased_at',          'timestamp with time zone', false),
              ('es_erasures', 1, 'subject',   'text',                     true),
              ('es_erasures', 2, 'erased_at', 'timestamp with time zone', true),
              ('es_erasures', 3, 'reason',    'text',                     false),
              ('es_erasures', 4, 'erased_by', 'name',                     true) $$,
    'the tables of types, upcasters, personal attributes, keys and erasures have these columns');
SELECT throws_ok($$ INSERT INTO es_event_types VALUES ('t', '{}', NULL, NULL, 0) $$, '23514', NULL,
    'schema versions count from 1');
SELECT throws_ok($$ INSERT INTO es_upcasters VALUES ('t', 0, 'f(jsonb)', 'me', 'public') $$, '23514', NULL,
    'those that upcasters begin with, too');
SELECT bag_eq(
    $$ SELECT a.attrelid::regclass::text, a.attname::text
         FROM pg_attribute a
         JOIN pg_collation c ON c.oid = a.attcollation AND c.collname = 'C'
        WHERE a.attrelid IN ('es_personal_attributes'::regclass, 'es_subject_keys'::regclass, 'es_erasures'::regclass) AND a.attnum > 0 $$,
    $$ VALUES ('es_personal_attributes', 'type'), ('es_personal_attributes', 'category'), ('es_personal_attributes', 'subject'),
              ('es_personal_attributes', 'attributes'), ('es_subject_keys', 'subject'), ('es_subject_keys', 'key_encryption_key'),
              ('es_erasures', 'subject'), ('es_erasures', 'erased_by') $$,
    'names of types, attributes and persons are compared by their bytes');
SELECT bag_eq(
    $$ SELECT i.indexrelid::regclass::text, i.indisunique, substring(pg_get_indexdef(i.indexrelid) FROM 'USING .*')
         FROM pg_index i WHERE i.indrelid = 'es_subject_keys'::regclass $$,
    $$ VALUES ('es_subject_keys_pkey', true, 'USING btree (subject)'),
              ('es_subject_keys_key_encryption_key_idx', false, 'USING btree (key_encryption_key) WHERE (key_encryption_key IS NOT NULL)') $$,
    'keys are found by their subject and by what wraps them');
SELECT throws_ok($$ INSERT INTO es_subject_keys (subject) VALUES ('s') $$, '23514', NULL, 'a key is there or was erased');
SELECT throws_ok($$ INSERT INTO es_subject_keys (subject, key, key_encryption_key, erased_at) VALUES ('s', '', '', now()) $$, '23514', NULL,
    'and not both');
SELECT throws_ok($$ INSERT INTO es_subject_keys (subject, key) VALUES ('s', '') $$, '23514', NULL, 'a key is wrapped by another one');

SET LOCAL session_replication_role = replica;
SELECT throws_ok('DELETE FROM es_events', '55000', NULL, 'also in a session that replicates');
SET LOCAL session_replication_role = origin;

--
-- What they are
--
SELECT bag_eq(
    $$ SELECT c.relname::text, c.relkind::text, c.relpersistence::text, m.amname::text,
              c.relrowsecurity, c.reloptions
         FROM pg_depend d
         JOIN pg_class c ON c.oid = d.objid
         LEFT JOIN pg_am m ON m.oid = c.relam
        WHERE d.classid = 'pg_class'::regclass AND d.deptype = 'e'
          AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'eventstore') $$,
    $$ VALUES ('es_events',            'r', 'p', 'heap', false,
               '{autovacuum_freeze_min_age=0,autovacuum_vacuum_insert_scale_factor=0,autovacuum_vacuum_insert_threshold=50000,autovacuum_vacuum_scale_factor=0.1}'::text[]),
              ('es_tags',              'r', 'p', 'heap', false,
               '{autovacuum_freeze_min_age=0,autovacuum_vacuum_insert_scale_factor=0,autovacuum_vacuum_insert_threshold=50000}'::text[]),
              ('es_rewrites',          'r', 'p', 'heap', false, NULL),
              ('es_removals',          'r', 'p', 'heap', false, '{vacuum_truncate=false}'),
              ('es_removals_id_seq',   'S', 'p', NULL,   false, NULL),
              ('es_all_events',        'v', 'p', NULL,   false, '{security_invoker=true}'),
              ('es_archived_events',   'r', 'p', 'heap', false,
               '{autovacuum_freeze_min_age=0,autovacuum_vacuum_insert_scale_factor=0,autovacuum_vacuum_insert_threshold=50000}'),
              ('es_retention',         'r', 'p', 'heap', false, '{fillfactor=50}'),
              ('es_retention_status',  'v', 'p', NULL,   false, '{security_barrier=true}'),
              ('es_removed_ids',       'r', 'p', 'heap', false, NULL),
              ('es_identity',          'r', 'p', 'heap', false, NULL),
              ('es_incarnation_entries', 'r', 'p', 'heap', false, NULL),
              ('es_incarnations',      'v', 'p', NULL,   false, NULL),
              ('es_notified',          'r', 'p', 'heap', false, NULL),
              ('es_user_definitions',  'r', 'p', 'heap', false, NULL),
              ('es_published_horizon',           'r', 'p', 'heap', false, NULL),
              ('es_event_types',       'r', 'p', 'heap', false, NULL),
              ('es_upcasters',         'r', 'p', 'heap', false, NULL),
              ('es_personal_attributes', 'r', 'p', 'heap', false, NULL),
              ('es_subject_keys',      'r', 'p', 'heap', false, NULL),
              ('es_erasures',          'r', 'p', 'heap', false, NULL),
              ('es_erasure_places',    'v', 'p', NULL,   false, NULL),
              ('es_import',            'v', 'p', NULL,   false, NULL),
              ('es_import_log',        'v', 'p', NULL,   false, NULL),
              ('es_privileges',        'v', 'p', NULL,   false, NULL),
              ('es_position',          'S', 'p', NULL,   false, NULL),
              ('es_projections',       'r', 'p', 'heap', false, '{fillfactor=50}'),
              ('es_failures',          'r', 'p', 'heap', false, NULL),
              ('es_failures_id_seq',   'S', 'p', NULL,   false, NULL),
              ('es_skipped_events',    'r', 'p', 'heap', false, NULL),
              ('es_subscriptions',     'r', 'p', 'heap', false, NULL),
              ('es_partitions',        'r', 'p', 'heap', false, '{fillfactor=50}'),
              ('es_health', 'v', 'p', NULL, false, NULL),
              ('es_horizon_holders', 'v', 'p', NULL, false, NULL),
              ('es_visible_failures', 'v', 'p', NULL, false, '{security_barrier=true}'),
              ('es_visible_skipped_events', 'v', 'p', NULL, false, '{security_barrier=true}'),
              ('es_subscription_status', 'v', 'p', NULL, false, '{security_barrier=true}'),
              ('es_inbox',             'r', 'p', 'heap', false, '{fillfactor=95}'),
              ('es_inbox_id_seq',      'S', 'p', NULL,   false, NULL),
              ('es_snapshots',         'r', 'p', 'heap', true,  NULL),
              ('es_snapshots_id_seq',  'S', 'p', NULL,   false, NULL),
              ('es_stats',             'v', 'p', NULL,   false, NULL),
              ('es_inbox_stats',       'v', 'p', NULL,   false, NULL),
              ('es_projection_status', 'v', 'p', NULL,   false, '{security_barrier=true}') $$,
    'these are all relations, none of them unlogged');
SELECT throws_ok('INSERT INTO es_notified (one, position) VALUES (false, 1)', '23514', NULL,
    'es_notified has one row');

SELECT is_empty('SELECT * FROM es_import', 'es_import is empty to read');

-- CACHE 1: positions are drawn in the order in which they are given out.
SELECT results_eq(
    $$ SELECT format_type(seqtypid, NULL), seqstart, seqincrement, seqmin, seqmax, seqcycle, seqcache
         FROM pg_sequence WHERE seqrelid = 'es_position'::regclass $$,
    $$ VALUES ('bigint', 1::bigint, 1::bigint, 1::bigint, 9223372036854775807, false, 1::bigint) $$,
    'es_position counts from 1 by 1, without a cache');

-- A sequence that a column owned would be dropped, and dumped, with it.
SELECT is_empty(
    $$ SELECT refobjid::regclass FROM pg_depend
        WHERE classid = 'pg_class'::regclass AND objid = 'es_position'::regclass
          AND deptype IN ('a', 'i') $$,
    'es_position belongs to no column');

--
-- Projections
--
SELECT bag_eq(
    $$ SELECT a.attnum::int, a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull,
              pg_get_expr(d.adbin, d.adrelid)
         FROM pg_attribute a
         LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = 'es_projections'::regclass AND a.attnum > 0 $$,
    $$ VALUES (1,  'name',           'text',                     true,  NULL),
              (2,  'owner',          'es_role',                  true,  NULL),
              (3,  'search_path',    'text',                     true,  NULL),
              (4,  'settings',       'text[]',                   true,  '''{}''::text[]'),
              (5,  'handler',        'text',                     false, NULL),
              (6,  'query',          'text',                     false, NULL),
              (7,  'handler_schema', 'text',                     false, NULL),
              (8,  'refresh',        'regclass',                 false, NULL),
              (9,  'tables',         'regclass[]',               true,  NULL),
              (10, 'categories',     'text[]',                   false, NULL),
              (11, 'types',          'text[]',                   false, NULL),
              (12, 'event_query',    'jsonb',                    false, NULL),
              (13, 'mode',           'text',                     true,  NULL),
              (14, 'start_position', 'bigint',                   true,  NULL),
              (15, 'batch_size',     'integer',                  true,  NULL),
              (16, 'on_failure',     'text',                     true,  NULL),
              (17, 'max_attempts',   'integer',                  true,  NULL),
              (18, 'min_interval',   'interval',                 true,  NULL),
              (19, 'created_at',     'timestamp with time zone', true,  'clock_timestamp()'),
              (20, 'state',          'text',                     true,  '''running''::text'),
              (21, 'position',       'bigint',                   true,  NULL),
              (22, 'history',        'bigint',                   true,  NULL),
              (23, 'handled',        'bigint',                   true,  '0'),
              (24, 'rate',           'double precision',         false, NULL),
              (25, 'ran_at',         'timestamp with time zone', false, NULL),
              (26, 'refreshed_at',   'timestamp with time zone', false, NULL),
              (27, 'attempts',       'integer',                  true,  '0'),
              (28, 'attempts_used',  'integer',                  true,  '0'),
              (29, 'next_attempt',   'timestamp with time zone', false, NULL),
              (30, 'failing_since',  'timestamp with time zone', false, NULL),
              (31, 'failed_position', 'bigint',                  false, NULL),
              (32, 'batch_limit',    'integer',                  false, NULL),
              (33, 'suspect_upto',   'bigint',                   false, NULL),
              (34, 'sqlstate',       'text',                     false, NULL),
              (35, 'message',        'text',                     false, NULL),
              (36, 'detail',         'text',                     false, NULL),
              (37, 'context',        'text',                     false, NULL),
              (38, 'paused_at',      'timestamp with time zone', false, NULL) $$,
    'es_projections has these columns');

SELECT bag_eq(
    $$ SELECT a.attnum::int, a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull,
              a.attidentity::text, pg_get_expr(d.adbin, d.adrelid)
         FROM pg_attribute a
         LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = 'es_failures'::regclass AND a.attnum > 0 $$,
    $$ VALUES (1,  'id',              'bigint',                   true,  'a', NULL),
              (2,  'projection',      'text',                     false, '',  NULL),
              (3,  'subscription',    'text',                     false, '',  NULL),
              (4,  'partition',       'integer',                  false, '',  NULL),
              (5,  'topic',           'text',                     false, '',  NULL),
              (6,  'group_id',        'text',                     false, '',  NULL),
              (7,  'event_id',        'uuid',                     false, '',  NULL),
              (8,  'position',        'bigint',                   false, '',  NULL),
              (9,  'stream',          'text',                     false, '',  NULL),
              (10, 'version',         'bigint',                   false, '',  NULL),
              (11, 'type',            'text',                     false, '',  NULL),
              (12, 'message_id',      'text',                     false, '',  NULL),
              (13, 'checksum',        'text',                     false, '',  NULL),
              (14, 'payload',         'text',                     false, '',  NULL),
              (15, 'metadata',        'jsonb',                    false, '',  NULL),
              (16, 'handler',         'text',                     false, '',  NULL),
              (17, 'receiver',        'es_role',                  false, '',  NULL),
              (18, 'search_path',     'text',                     false, '',  NULL),
              (19, 'sqlstate',        'text',                     false, '',  NULL),
              (20, 'message',         'text',                     false, '',  NULL),
              (21, 'detail',          'text',                     false, '',  NULL),
              (22, 'context',         'text',                     false, '',  NULL),
              (23, 'attempts',        'integer',                  true,  '',  NULL),
              (24, 'retry_at',        'timestamp with time zone', false, '',  NULL),
              (25, 'first_failed_at', 'timestamp with time zone', true,  '',  NULL),
              (26, 'last_failed_at',  'timestamp with time zone', true,  '',  NULL) $$,
    'es_failures has these columns');

SELECT bag_eq(
    $$ SELECT a.attnum::int, a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull,
              a.attidentity::text, pg_get_expr(d.adbin, d.adrelid)
         FROM pg_attribute a
         LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = 'es_inbox'::regclass AND a.attnum > 0 $$,
    $$ VALUES (1,  'id',              'bigint',                   true,  'a', NULL),
              (2,  'topic',           'text',                     true,  '',  NULL),
              (3,  'group_id',        'text',                     true,  '',  NULL),
              (4,  'entity_id',       'text',                     false, '',  NULL),
              (5,  'event_time',      'timestamp with time zone', false, '',  NULL),
              (6,  'event_type',      'text',                     false, '',  NULL),
              (7,  'event_version',   'text',                     false, '',  NULL),
              (8,  'message_id',      'text',                     false, '',  NULL),
              (9,  'checksum',        'text',                     true,  '',  NULL),
              (10, 'payload',         'text',                     false, '',  NULL),
              (11, 'metadata',        'jsonb',                    true,  '',  '''{}''::jsonb'),
              (12, 'position',        'bigint',                   false, '',  NULL),
              (13, 'received_at',     'timestamp with time zone', false, '',  'clock_timestamp()') $$,
    'es_inbox has these columns');

SELECT bag_eq(
    $$ SELECT a.attnum::int, a.attname::text, format_type(a.atttypid, a.atttypmod)
         FROM pg_attribute a
        WHERE a.attrelid = 'es_projection_status'::regclass AND a.attnum > 0 $$,
    $$ VALUES (1,  'name',              'text'),
              (2,  'mode',              'text'),
              (3,  'state',             'text'),
              (4,  'position',          'bigint'),
              (5,  'horizon',           'bigint'),
              (6,  'lag_events',        'bigint'),
              (7,  'lag_seconds',       'numeric'),
              (8,  'lag_is_estimate',   'boolean'),
              (9,  'handled',           'bigint'),
              (10, 'events_per_second', 'double precision'),
              (11, 'rebuild_percent',   'numeric'),
              (12, 'rebuild_time_left', 'interval'),
              (13, 'sqlstate',          'text'),
              (14, 'last_error',        'text'),
              (15, 'error_detail',      'text'),
              (16, 'error_context',     'text'),
              (17, 'attempts',          'integer'),
              (18, 'next_attempt',      'timestamp with time zone'),
              (19, 'failing_since',     'timestamp with time zone'),
              (20, 'failed_position',   'bigint'),
              (21, 'failed_stream',     'text'),
              (22, 'failed_version',    'bigint'),
              (23, 'failed_type',       'text'),
              (24, 'failed_event_id',   'uuid'),
              (25, 'parked',            'bigint'),
              (26, 'horizon_held_since', 'timestamp with time zone') $$,
    'es_projection_status has these columns');

SELECT bag_eq(
    $$ SELECT a.attrelid::regclass::text, a.attname::text
         FROM pg_attribute a
         JOIN pg_collation c ON c.oid = a.attcollation AND c.collname = 'C'
        WHERE a.attrelid IN ('es_projections'::regclass, 'es_failures'::regclass, 'es_inbox'::regclass) AND a.attnum > 0 $$,
    $$ VALUES ('es_projections', 'name'), ('es_projections', 'categories'), ('es_projections', 'types'),
              ('es_failures', 'projection'), ('es_failures', 'subscription'), ('es_failures', 'topic'), ('es_failures', 'group_id'),
              ('es_failures', 'stream'), ('es_failures', 'type'), ('es_failures', 'message_id'), ('es_failures', 'checksum'),
              ('es_inbox', 'topic'), ('es_inbox', 'group_id'), ('es_inbox', 'message_id'), ('es_inbox', 'checksum') $$,
    'their names are compared by their bytes, too');

SELECT bag_eq(
    $$ SELECT conrelid::regclass::text, contype::text, count(*)::int
         FROM pg_constraint
        WHERE conrelid IN ('es_projections'::regclass, 'es_failures'::regclass, 'es_inbox'::regclass) AND contype NOT IN ('c', 'n')
        GROUP BY 1, 2 $$,
    $$ VALUES ('es_projections', 'p', 1), ('es_failures', 'p', 1), ('es_failures', 'u', 3),
              ('es_inbox', 'p', 1), ('es_inbox', 'u', 1) $$,
    'they have these keys');

-- What a runner relies on, also when somebody edits a row.
SELECT es_create_projection('p', query => 'SELECT 1');
SELECT throws_ok(format('UPDATE es_projections SET %s', wrong), '23514', NULL, 'refused: ' || wrong)
  FROM unnest(ARRAY['batch_size = 0', 'batch_size = -1', 'max_attempts = 0', 'mode = ''other''', 'state = ''other''',
                    'on_failure = ''other''', 'query = NULL', 'refresh = ''es_events''']) wrong;
SELECT es_drop_projection('p');

SELECT bag_eq(
    $$ SELECT i.indexrelid::regclass::text, i.indisunique,
              substring(pg_get_indexdef(i.indexrelid) FROM 'USING .*')
         FROM pg_index i WHERE i.indrelid IN ('es_projections'::regclass, 'es_failures'::regclass, 'es_inbox'::regclass) $$,
    $$ VALUES ('es_projections_pkey',                 true,  'USING btree (name)'),
              ('es_failures_pkey',                    true,  'USING btree (id)'),
              ('es_failures_projection_position_key', true,  'USING btree (projection, "position")'),
              ('es_failures_subscription_position_key', true, 'USING btree (subscription, "position")'),
              ('es_failures_topic_group_id_checksum_key', true, 'USING btree (topic, group_id, checksum)'),
              ('es_failures_projection_stream_idx',   false, 'USING btree (projection, stream, "position")'),
              ('es_failures_subscription_stream_idx', false, 'USING btree (subscription, stream, "position")'),
              ('es_failures_stream_idx',              false, 'USING btree (stream, "position") WHERE (stream IS NOT NULL)'),
              ('es_failures_projection_retry_idx',    false, 'USING btree (projection, retry_at) WHERE (retry_at IS NOT NULL)'),
              ('es_failures_retry_idx',               false, 'USING btree (subscription, partition, retry_at)'),
              ('es_failures_parked_idx',              false, 'USING btree (projection, subscription, topic, group_id, id) WHERE ((retry_at IS NULL) AND (message IS NOT NULL))'),
              ('es_inbox_pkey',                       true,  'USING btree (id)'),
              ('es_inbox_topic_group_id_checksum_key', true, 'USING btree (topic, group_id, checksum)') $$,
    'they have these indexes');

SELECT bag_eq(
    $$ SELECT pg_get_triggerdef(oid, true), tgenabled::text
         FROM pg_trigger
        WHERE tgrelid IN ('es_projections'::regclass, 'es_failures'::regclass, 'es_inbox'::regclass) AND NOT tgisinternal $$,
    $$ VALUES ('CREATE TRIGGER es_projection_restore AFTER INSERT ON es_projections'
               ' FOR EACH ROW EXECUTE FUNCTION es_projection_restore()', 'A') $$,
    'a projection that is restored gets its trigger, always');

SELECT is_empty('SELECT * FROM es_projections', 'no projection comes with the extension');
SELECT is_empty('SELECT * FROM es_failures', 'nor a failure');
SELECT is_empty('SELECT * FROM es_inbox', 'nor a message');

--
-- Subscriptions
--
SELECT bag_eq(
    $$ SELECT a.attnum::int, a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull,
              pg_get_expr(d.adbin, d.adrelid)
         FROM pg_attribute a
         LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = 'es_subscriptions'::regclass AND a.attnum > 0 $$,
    $$ VALUES (1,  'name',           'text',                     true,  NULL),
              (2,  'owner',          'es_role',                  true,  NULL),
              (3,  'categories',     'text[]',                   false, NULL),
              (4,  'types',          'text[]',                   false, NULL),
              (5,  'query',          'jsonb',                    false, NULL),
              (6,  'start_position', 'bigint',                   true,  NULL),
              (7,  'partitions',     'integer',                  true,  NULL),
              (8,  'lease',          'interval',                 true,  NULL),
              (9,  'max_attempts',   'integer',                  true,  NULL),
              (10, 'max_in_flight',  'integer',                  true,  NULL),
              (11, 'created_at',     'timestamp with time zone', true,  'clock_timestamp()') $$,
    'es_subscriptions has these columns');

SELECT bag_eq(
    $$ SELECT a.attnum::int, a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull,
              pg_get_expr(d.adbin, d.adrelid)
         FROM pg_attribute a
         LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = 'es_partitions'::regclass AND a.attnum > 0 $$,
    $$ VALUES (1,  'subscription', 'text',                     true,  NULL),
              (2,  'partition',    'integer',                  true,  NULL),
              (3,  'position',     'bigint',                   true,  NULL),
              (4,  'reached',      'bigint',                   true,  NULL),
              (5,  'delivered_at', 'timestamp with time zone', false, NULL),
              (6,  'leased_until', 'timestamp with time zone', false, NULL),
              (7,  'due_at',       'timestamp with time zone', false, NULL),
              (8,  'token',        'bigint',                   true,  '0'),
              (9,  'acked_token',  'bigint',                   true,  '0'),
              (10, 'consumer',     'text',                     false, NULL),
              (11, 'tokens',       'bigint[]',                 true,  '''{}''::bigint[]'),
              (12, 'uptos',        'bigint[]',                 true,  '''{}''::bigint[]'),
              (13, 'counts',       'bigint[]',                 true,  '''{}''::bigint[]'),
              (14, 'stream',       'text',                     false, NULL),
              (15, 'has_failures', 'boolean',                  true,  'false'),
              (16, 'settled',      'bigint[]',                 true,  '''{}''::bigint[]'),
              (17, 'expired_upto',    'bigint[]',                 true,  '''{}''::bigint[]'),
              (18, 'expired_times',   'bigint[]',                 true,  '''{}''::bigint[]'),
              (19, 'earlier_upto',    'bigint',                   false, NULL),
              (20, 'earlier_categories', 'text[]',                false, NULL),
              (21, 'earlier_types',   'text[]',                   false, NULL),
              (22, 'earlier_query',   'jsonb',                    false, NULL) $$,
    'es_partitions has these columns');

SELECT bag_eq(
    $$ SELECT a.attnum::int, a.attname::text, format_type(a.atttypid, a.atttypmod)
         FROM pg_attribute a
        WHERE a.attrelid = 'es_subscription_status'::regclass AND a.attnum > 0 $$,
    $$ VALUES (1,  'subscription',      'text'),
              (2,  'partition',         'integer'),
              (3,  'consumer',          'text'),
              (4,  'lease_left',        'interval'),
              (5,  'position',          'bigint'),
              (6,  'horizon',           'bigint'),
              (7,  'lag_events',        'bigint'),
              (8,  'lag_seconds',       'numeric'),
              (9,  'lag_is_estimate',   'boolean'),
              (10, 'in_flight',         'bigint'),
              (11, 'parked',            'bigint'),
              (12, 'oldest_parked_age', 'interval'),
              (13, 'horizon_held_since', 'timestamp with time zone') $$,
    'es_subscription_status has these columns');

SELECT bag_eq(
    $$ SELECT a.attrelid::regclass::text, a.attname::text
         FROM pg_attribute a
         JOIN pg_collation c ON c.oid = a.attcollation AND c.collname = 'C'
        WHERE a.attrelid IN ('es_subscriptions'::regclass, 'es_partitions'::regclass) AND a.attnum > 0 $$,
    $$ VALUES ('es_subscriptions', 'name'), ('es_subscriptions', 'categories'), ('es_subscriptions', 'types'),
              ('es_partitions', 'subscription'), ('es_partitions', 'stream'), ('es_partitions', 'earlier_categories'), ('es_partitions', 'earlier_types') $$,
    'names of subscriptions, streams and types are compared by their bytes');

-- An index on what changes with each delivery would keep updates from staying
-- on their page.
SELECT bag_eq(
    $$ SELECT i.indexrelid::regclass::text, i.indisunique,
              substring(pg_get_indexdef(i.indexrelid) FROM 'USING .*')
         FROM pg_index i WHERE i.indrelid IN ('es_subscriptions'::regclass, 'es_partitions'::regclass) $$,
    $$ VALUES ('es_subscriptions_pkey', true, 'USING btree (name)'),
              ('es_partitions_pkey',    true, 'USING btree (subscription, partition)') $$,
    'they have these indexes and no more');
SELECT is_empty(
    $$ SELECT tgname FROM pg_trigger
        WHERE tgrelid IN ('es_subscriptions'::regclass, 'es_partitions'::regclass) AND NOT tgisinternal $$,
    'and no trigger');

-- What a delivery relies on, also when somebody edits a row.
SELECT es_create_subscription('s');
SELECT throws_ok(format('UPDATE es_subscriptions SET %s', wrong), '23514', NULL, 'refused: ' || wrong)
  FROM unnest(ARRAY['start_position = -1', 'partitions = 0', 'partitions = 1025', 'lease = ''0''', 'lease = ''-1 s''', 'max_attempts = 0',
                    'max_attempts = 1001', 'max_in_flight = 0', 'max_in_flight = 1000001']) wrong;
SELECT es_drop_subscription('s');
SELECT is_empty('SELECT name FROM es_subscriptions UNION ALL SELECT subscription FROM es_partitions', 'no subscription comes with the extension');

--
-- Snapshots
--
SELECT bag_eq(
    $$ SELECT a.attnum::int, a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity::text,
              pg_get_expr(d.adbin, d.adrelid)
         FROM pg_attribute a
         LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = 'es_snapshots'::regclass AND a.attnum > 0 $$,
    $$ VALUES (1, 'id',          'bigint',                   true,  'a', NULL),
              (2, 'stream',      'text',                     true,  '',  NULL),
              (3, 'reducer',     'text',                     true,  '',  NULL),
              (4, 'version',     'bigint',                   true,  '',  NULL),
              (5, 'taken_by',    'es_role',                  true,  '',  NULL),
              (6, 'fingerprint', 'bigint',                   true,  '',  NULL),
              (7, 'initial',     'bigint',                   true,  '',  NULL),
              (8, 'recorded_at', 'timestamp with time zone', true,  '',  NULL),
              (9, 'state',       'jsonb',                    false, '',  NULL),
              (10, 'taken_at',   'timestamp with time zone', true,  '',  'clock_timestamp()'),
              (11, 'of_tag',     'boolean',                  true,  '',  'false'),
              (12, 'personal',   'boolean',                  true,  '',  'false') $$,
    'es_snapshots has these columns');
SELECT bag_eq(
    $$ SELECT polname::text, polcmd::text, polpermissive, polroles::text, pg_get_expr(polqual, polrelid) AS qual, pg_get_expr(polwithcheck, polrelid) AS with_check
         FROM pg_policy WHERE polrelid = 'es_snapshots'::regclass $$,
    $$ VALUES ('es_personal_delete', 'd', true, '{0}', 'true', NULL), ('es_personal', 'r', true, '{0}', '((NOT personal) OR has_function_privilege((''es_sees_personal_data()''::regprocedure)::oid, ''EXECUTE''::text))', NULL) $$,
    'it has this policy, which hides states that have personal attributes');
SELECT bag_eq(
    $$ SELECT a.attname::text
         FROM pg_attribute a
         JOIN pg_collation c ON c.oid = a.attcollation AND c.collname = 'C'
        WHERE a.attrelid = 'es_snapshots'::regclass AND a.attnum > 0 $$,
    $$ VALUES ('stream'), ('reducer') $$,
    'its names are compared by their bytes');
-- Another unique index would make two who keep the same state wait for each other.
SELECT bag_eq(
    $$ SELECT i.indexrelid::regclass::text, i.indisunique,
              substring(pg_get_indexdef(i.indexrelid) FROM 'USING .*')
         FROM pg_index i WHERE i.indrelid = 'es_snapshots'::regclass $$,
    $$ VALUES ('es_snapshots_pkey',                       true,  'USING btree (id)'),
              ('es_snapshots_stream_reducer_version_idx', false, 'USING btree (stream, reducer, version)') $$,
    'it has these indexes, of which only the id is unique');
SELECT is_empty($$ SELECT tgname FROM pg_trigger WHERE tgrelid = 'es_snapshots'::regclass AND NOT tgisinternal $$, 'and no trigger');
SELECT throws_ok($$ INSERT INTO es_snapshots (stream, reducer, version, taken_by, fingerprint, initial, recorded_at) VALUES ('a', 'r', 0, 'x', 1, 0, now()) $$, '23514', NULL,
    'refused: version = 0, which is the initial state');
SELECT is_empty('SELECT * FROM es_snapshots', 'no snapshot comes with the extension');

SELECT * FROM finish();
ROLLBACK;
