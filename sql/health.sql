-- What needs a human, for the view es_health.  Each function finds the problems of one
-- subject.  Only the owner may execute them: es_health() in C runs them as the
-- owner of the log, and shows a caller what it may see.
--
-- Rules for all: the log is read by an index and a limit, never scanned, and failures
-- are counted up to a hundred.  Arguments have exactly the types of pg_catalog's
-- functions and operators (test/pgtap/security-create.sql).  Names are printed with
-- their schemas, as es_health() runs with pg_catalog alone in the search_path.
--
-- A remedy may be run without much thought, so no role must be able to place one.  Code
-- is proposed instead of other code only if its owner could act as the role that will
-- run it anyway, and a GRANT only if the error was not raised by code of users.

-- Returns true if the cause of an error lies outside of the event or message
-- (src/failure/failure.c).  A cancel is that of a handler that did not end.
CREATE FUNCTION es_health_external(sqlstate text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (pg_catalog.substr(sqlstate, 1, 2) IN ('08', '3D', '3F', '40', '42', '53', '57', '58') AND sqlstate <> '57014') OR sqlstate IN ('55P03', '55006');

-- The schemas of a search_path that is kept, in which a mark stands for that of the
-- extension (src/base/run_as.c).  The mark is made of two parts, as the server would
-- replace it here.
CREATE FUNCTION es_health_path(path text)
    RETURNS TABLE (n bigint, schema text) LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT m.ordinality,
           CASE WHEN m.part[2] = '@' || 'extschema@' THEN
                    (SELECT e.nspname::text FROM pg_class c JOIN pg_namespace e ON e.oid = c.relnamespace WHERE c.oid = 'es_events'::regclass::oid)
                ELSE coalesce(pg_catalog.replace(m.part[1], '""', '"'), pg_catalog.lower(m.part[2])) END
      FROM pg_catalog.regexp_matches(path, '"((?:[^"]|"")+)"|([^",[:space:]]+)', 'g') WITH ORDINALITY m (part, ordinality);
END;

-- The statement that grants what a role lacks, by the error that it got: "permission
-- denied for table x", or a name that is not found because its schema is closed to the
-- role.  The object is one of the tables, else the first of this name in the path,
-- else the only one.  On a table these are the privileges that the words of the
-- statement ask for, which the context has or the query is; else all.  Null: unknown, or
-- nothing is lacking any more.
CREATE FUNCTION es_health_grant(
    role oid, path text, tables oid[], message text, context text, query text,
    OUT remedy text, OUT remedy_by text)
    LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    WITH said AS MATERIALIZED (
        SELECT pg_catalog.regexp_match(message,
                   '^permission denied for (table|view|materialized view|foreign table|sequence|schema|function|procedure) (?:[^"(]*\.)?"?([^"(.]+)') AS part,
               pg_catalog.regexp_match(message, 'does not exist') IS NOT NULL AS missing,
               pg_catalog.regexp_match(context, '^[^\n]* at RAISE(\n|$)') IS NOT NULL AS raised,
               coalesce((pg_catalog.regexp_match(context, 'SQL statement "(.*?)"(?:\n|$)'))[1], query) AS statement,
               (SELECT r.rolname FROM pg_roles r WHERE r.oid = role) AS rolname),
    element AS MATERIALIZED (
        SELECT s.n, e.oid, e.nspname, e.nspowner
          FROM said
         CROSS JOIN LATERAL es_health_path(path) s
          JOIN pg_namespace e ON e.nspname = s.schema),
    relation AS (
        SELECT c.oid, c.relnamespace, c.relowner AS owner, CASE WHEN c.relkind = 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind,
               (SELECT pg_catalog.array_agg(v.verb)
                  FROM pg_catalog.unnest(CASE WHEN c.relkind = 'S' THEN '{USAGE}'::text[]
                                              ELSE '{SELECT,INSERT,UPDATE,DELETE}'::text[] END) v (verb)
                 WHERE (c.relkind = 'S' OR said.statement IS NULL
                        OR pg_catalog.regexp_match(said.statement, '\m' || CASE WHEN v.verb = 'SELECT' THEN '(select|where|conflict|returning)' ELSE v.verb END || '\M', 'i') IS NOT NULL)
                   AND NOT CASE WHEN c.relkind = 'S' THEN pg_catalog.has_sequence_privilege(role, c.oid, v.verb)
                                ELSE pg_catalog.has_table_privilege(role, c.oid, v.verb) END) AS lacks
          FROM said
          JOIN pg_class c ON c.relname = said.part[2] AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')),
    candidate AS (
        SELECT r.owner,
               CASE WHEN r.oid = ANY (tables) THEN 0::bigint ELSE coalesce(e.n, 1000::bigint) END AS rank,
               pg_catalog.format('GRANT %s ON %s %s TO %I', pg_catalog.array_to_string(r.lacks, ', '), r.kind, r.oid::regclass, said.rolname) AS statement
          FROM said
         CROSS JOIN relation r
          LEFT JOIN element e ON e.oid = r.relnamespace
         WHERE said.part[1] NOT IN ('schema', 'function', 'procedure') AND r.lacks IS NOT NULL
        UNION ALL
        SELECT s.nspowner, 0, pg_catalog.format('GRANT USAGE ON SCHEMA %I TO %I', s.nspname, said.rolname)
          FROM said
          JOIN pg_namespace s ON s.nspname = said.part[2]
         WHERE said.part[1] = 'schema' AND NOT pg_catalog.has_schema_privilege(role, s.oid, 'USAGE')
        UNION ALL
        SELECT p.proowner, coalesce(e.n, 1000::bigint),
               pg_catalog.format('GRANT EXECUTE ON ROUTINE %s TO %I', p.oid::regprocedure, said.rolname)
          FROM said
          JOIN pg_proc p ON p.proname = said.part[2]
          LEFT JOIN element e ON e.oid = p.pronamespace
         WHERE said.part[1] IN ('function', 'procedure') AND NOT pg_catalog.has_function_privilege(role, p.oid, 'EXECUTE')
        UNION ALL
        SELECT e.nspowner, e.n, pg_catalog.format('GRANT USAGE ON SCHEMA %I TO %I', e.nspname, said.rolname)
          FROM said
         CROSS JOIN element e
         WHERE said.part IS NULL AND said.missing AND NOT pg_catalog.has_schema_privilege(role, e.oid, 'USAGE')),
    ranked AS (
        SELECT c.owner, c.statement, c.rank, count(*) OVER (PARTITION BY c.rank) AS as_many
          FROM candidate c
         ORDER BY c.rank LIMIT 1)
    SELECT r.statement, pg_catalog.pg_get_userbyid(r.owner)::text FROM ranked r CROSS JOIN said WHERE r.as_many = 1 AND NOT said.raised;
END;

-- What an append, a rewrite or a reader of the log refuses, and what would let events be
-- changed.
CREATE FUNCTION es_health_log()
    RETURNS TABLE (urgency int, problem text, object text, since timestamptz, message text, remedy text, remedy_by text, owner oid)
    LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
    WITH log AS MATERIALIZED (
        SELECT c.oid, c.oid::regclass::text AS name, pg_catalog.pg_get_userbyid(c.relowner)::text AS owner,
               n.nspname, c.relreplident, c.relnamespace
          FROM pg_class c
          JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = 'es_events'::regclass::oid),
    key (columns, numbers, is_primary) AS (
        VALUES ('position', '{1}', true), ('id', '{6}', false), ('stream, version', '{7,2}', false)),
    guard (tab, name, definition) AS (
        VALUES ('es_events'::regclass::oid, 'es_events_complete', 'BEFORE INSERT ON %s FOR EACH ROW EXECUTE FUNCTION %I.es_events_complete()'),
               ('es_events'::regclass::oid, 'es_events_refuse', 'BEFORE UPDATE OR DELETE OR TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION %I.es_events_refuse()'),
               ('es_events'::regclass::oid, 'es_events_refuse_row', 'BEFORE UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION %I.es_events_refuse()'),
               ('es_events'::regclass::oid, 'es_events_tag', 'AFTER INSERT ON %s FOR EACH ROW WHEN (new.tags IS NOT NULL) EXECUTE FUNCTION %I.es_events_tag()'),
               ('es_projections'::regclass::oid, 'es_projection_restore', 'AFTER INSERT ON %s FOR EACH ROW EXECUTE FUNCTION %I.es_projection_restore()')),
    last AS MATERIALIZED (
        SELECT s.last_value - CASE WHEN s.is_called THEN 0 ELSE 1 END AS drawn,
               coalesce((SELECT max(e.position) FROM es_events e), 0) AS stored
          FROM es_position s),
    sequence AS (
        SELECT q.seqrelid, q.seqrelid::regclass::text AS name, q.seqincrement, q.seqcache, q.seqcycle, q.seqmax,
               pg_catalog.pg_get_userbyid(c.relowner)::text AS owner
          FROM pg_sequence q
          JOIN pg_class c ON c.oid = q.seqrelid
         WHERE q.seqrelid = 'es_position'::regclass::oid),
    index AS (
        SELECT i.indexrelid, i.indexrelid::regclass::text AS name, c.relname,
               i.indisvalid AND i.indnkeyatts = 2 AND i.indpred IS NULL AND a.amname = 'btree'
               AND i.indoption::text = '0 0' AND i.indkey[1] = 1
               AND pg_catalog.pg_get_indexdef(i.indexrelid, 1, false) = pg_catalog.format('%I.es_category(stream)', log.nspname) AS right,
               i.indisvalid
          FROM log
          JOIN pg_index i ON i.indrelid = log.oid
          JOIN pg_class c ON c.oid = i.indexrelid AND c.relname = 'es_events_category_position_idx'
          JOIN pg_am a ON a.oid = c.relam)
    SELECT 1, 'restore_unfinished', pg_catalog.format('table %s', log.name), NULL::timestamptz,
           'Appends, projections, and reads by roles other than the owner are refused. What the dumped database had added to its tables, such as row security, is not restored yet.',
           pg_catalog.format('SELECT * FROM %I.es_finish_restore()', log.nspname), log.owner, NULL::oid
      FROM log
      JOIN pg_policy p ON p.polrelid = log.oid AND p.polname = 'es_closed'::name
    UNION ALL
    SELECT 1, 'append_refused', pg_catalog.format('trigger %I', t.tgname), NULL::timestamptz,
           pg_catalog.format('Appends are refused: trigger "%s" of %s could change or skip an event that has its position. A CHECK constraint or an AFTER trigger may refuse it.',
                             t.tgname, log.name),
           pg_catalog.format('ALTER TABLE %s DISABLE TRIGGER %I', log.name, t.tgname), log.owner, NULL::oid
      FROM log
      JOIN pg_trigger t ON t.tgrelid = log.oid
     WHERE t.tgtype & 7::smallint = 7 AND t.tgenabled IN ('O', 'A')
       AND t.tgname NOT IN ('es_events_complete', 'es_events_refuse_row', 'es_events_accept')
    UNION ALL
    SELECT 1, 'append_refused', pg_catalog.format('rule %I', r.rulename), NULL,
           pg_catalog.format('Appends are refused: an append is not a statement that rule "%s" of %s could rewrite. Use an AFTER trigger.',
                             r.rulename, log.name),
           pg_catalog.format('ALTER TABLE %s DISABLE RULE %I', log.name, r.rulename), log.owner, NULL
      FROM log
      JOIN pg_rewrite r ON r.ev_class = log.oid
     WHERE r.ev_type = '3' AND r.ev_enabled IN ('O', 'A')
    UNION ALL
    SELECT 1, 'append_refused', pg_catalog.format('table %s', h.inhrelid::regclass), NULL,
           pg_catalog.format('Appends are refused: the rows of %s, which inherits from %s, would be events to some readers and not to others.',
                             h.inhrelid::regclass, log.name),
           pg_catalog.format('ALTER TABLE %s NO INHERIT %s', h.inhrelid::regclass, log.name),
           pg_catalog.pg_get_userbyid(c.relowner)::text, NULL
      FROM log
      JOIN pg_inherits h ON h.inhparent = log.oid
      JOIN pg_class c ON c.oid = h.inhrelid
    UNION ALL
    SELECT 1, 'append_refused', pg_catalog.format('column %s.next_xid', log.name), NULL,
           'Appends are refused: the column was dropped or given another type. The horizon needs it as it was. Restore the log from a dump.',
           NULL, log.owner, NULL
      FROM log
      JOIN pg_attribute a ON a.attrelid = log.oid AND a.attnum = 3
     WHERE a.attisdropped OR a.atttypid <> 'xid8'::regtype::oid
    UNION ALL
    SELECT 1, 'index_missing', pg_catalog.format('constraint on %s(%s)', log.name, k.columns), NULL,
           pg_catalog.format('Appends are refused: %s has no valid constraint on (%s) that is not deferrable.', log.name, k.columns),
           CASE WHEN invalid.name IS NOT NULL THEN pg_catalog.format('REINDEX INDEX %s', invalid.name)
                WHEN k.is_primary THEN
                    pg_catalog.format('ALTER TABLE %s %sADD PRIMARY KEY (position)', log.name,
                        (SELECT pg_catalog.format('DROP CONSTRAINT %I, ', c.conname) FROM pg_constraint c
                          WHERE c.conrelid = log.oid AND c.contype = 'p'))
                ELSE pg_catalog.format('ALTER TABLE %s ADD UNIQUE (%s)', log.name, k.columns) END,
           log.owner, NULL
      FROM log
     CROSS JOIN key k
      LEFT JOIN LATERAL (
         SELECT bool_or(i.indisvalid) AS valid, max(i.indexrelid::regclass::text) FILTER (WHERE NOT i.indisvalid) AS name
           FROM pg_constraint c
           JOIN pg_index i ON i.indexrelid = c.conindid
          WHERE c.conrelid = log.oid AND c.conkey::text = k.numbers AND NOT c.condeferrable
            AND (c.contype = 'p' OR (c.contype = 'u' AND NOT k.is_primary))) invalid ON true
     WHERE invalid.valid IS NOT TRUE
    UNION ALL
    SELECT 3, 'index_missing', 'index es_events_category_position_idx', NULL,
           CASE WHEN i.indexrelid IS NULL THEN 'The index is missing.' WHEN i.indisvalid THEN 'An index of this name has another definition.' ELSE 'The index is not valid.' END
           || ' Without it readers of a category walk the whole log.',
           CASE WHEN i.indexrelid IS NULL THEN
                    pg_catalog.format('CREATE INDEX CONCURRENTLY es_events_category_position_idx ON %s (%I.es_category(stream), position)', log.name, log.nspname)
                WHEN i.indisvalid THEN pg_catalog.format('ALTER INDEX %s RENAME TO %I', i.name, 'es_events_category_position_idx_' || i.indexrelid::text)
                ELSE pg_catalog.format('REINDEX INDEX CONCURRENTLY %s', i.name) END,
           log.owner, NULL
      FROM log
      LEFT JOIN index i ON true
     WHERE i.right IS NOT TRUE
    UNION ALL
    SELECT 1, 'guard_missing', pg_catalog.format('trigger %s', g.name), NULL,
           CASE WHEN t.oid IS NULL THEN pg_catalog.format('The trigger of %s is missing.', g.tab::regclass)
                ELSE pg_catalog.format('The trigger of %s does not fire in every session.', g.tab::regclass) END
           || CASE g.name WHEN 'es_events_complete' THEN ' Rows that come by INSERT and COPY are not made safe for readers.'
                          WHEN 'es_events_tag' THEN ' Events that come by INSERT and COPY are not found by their tags; es_reindex_tags() remedies that.'
                          WHEN 'es_projection_restore' THEN ' A restore would leave sync projections without their triggers.'
                          ELSE ' Events could be changed and removed.' END,
           CASE WHEN t.oid IS NULL THEN
                    'CREATE TRIGGER ' || g.name || ' ' || pg_catalog.format(g.definition, g.tab::regclass, log.nspname)
                ELSE pg_catalog.format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', g.tab::regclass, g.name) END,
           log.owner, NULL
      FROM log
     CROSS JOIN guard g
      LEFT JOIN pg_trigger t ON t.tgrelid = g.tab AND t.tgname = g.name
     WHERE t.tgenabled IS DISTINCT FROM 'A'
    UNION ALL
    SELECT 1, 'guard_missing', pg_catalog.format('trigger %I of %s', t.tgname, t.tgrelid::regclass), NULL,
           'The trigger does not fire in every session. Sessions would check events by definitions that have changed.',
           pg_catalog.format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', t.tgrelid::regclass, t.tgname), log.owner, NULL
      FROM log
     CROSS JOIN pg_trigger t
     WHERE t.tgrelid IN ('es_event_types'::regclass::oid, 'es_upcasters'::regclass::oid)
       AND t.tgname = 'es_event_types_changed' AND t.tgenabled <> 'A'
    UNION ALL
    SELECT 1, 'append_refused', pg_catalog.format('sequence %s', q.name), NULL,
           pg_catalog.format('Appends are refused: INCREMENT %s CACHE %s %s does not produce positions in ascending order.',
                             q.seqincrement, q.seqcache, CASE WHEN q.seqcycle THEN 'CYCLE' ELSE 'NO CYCLE' END),
           pg_catalog.format('ALTER SEQUENCE %s INCREMENT 1 CACHE 1 NO CYCLE', q.name), q.owner, NULL
      FROM sequence q
     WHERE q.seqincrement <> 1 OR q.seqcache <> 1 OR q.seqcycle
    UNION ALL
    SELECT 1, 'sequence_ends', pg_catalog.format('sequence %s', q.name), NULL,
           pg_catalog.format('It is at %s and ends at %s. Appends beyond that are refused.', l.drawn, q.seqmax),
           pg_catalog.format('ALTER SEQUENCE %s NO MAXVALUE', q.name), q.owner, NULL
      FROM sequence q
     CROSS JOIN last l
     WHERE q.seqmax < 9223372036854775807 AND q.seqmax - l.drawn < 1000000
    UNION ALL
    SELECT 3, 'sequence_behind', pg_catalog.format('sequence %s', q.name), NULL,
           pg_catalog.format('It is at %s, and the log ends at %s. The next append raises it. Until then positions at the end are refused as beyond the log.',
                             l.drawn, l.stored),
           pg_catalog.format('SELECT setval(%L, greatest(last_value, %s)) FROM %s', q.name, l.stored, q.name), q.owner, NULL
      FROM sequence q
     CROSS JOIN last l
     WHERE l.drawn < l.stored
    UNION ALL
    SELECT 2, 'log_unlogged', pg_catalog.format('table %s', c.oid::regclass), NULL,
           'The table is UNLOGGED. A crash of the server empties it, and standbys do not have it.',
           pg_catalog.format('ALTER TABLE %s SET LOGGED', c.oid::regclass), pg_catalog.pg_get_userbyid(c.relowner)::text, NULL
      FROM log
      JOIN pg_class c ON c.relnamespace = log.relnamespace
     WHERE c.relpersistence = 'u'
       AND c.oid IN ('es_events'::regclass::oid, 'es_projections'::regclass::oid, 'es_failures'::regclass::oid, 'es_subscriptions'::regclass::oid,
                     'es_partitions'::regclass::oid, 'es_inbox'::regclass::oid)
    UNION ALL
    SELECT 3, 'replica_identity', pg_catalog.format('table %s', log.name), NULL,
           pg_catalog.format('Publication "%s" publishes updates, and the table has no replica identity. es_rewrite() fails.', min(b.pubname::text)),
           pg_catalog.format('ALTER TABLE %s REPLICA IDENTITY DEFAULT', log.name), log.owner, NULL
      FROM log
      JOIN pg_publication_tables b ON b.schemaname = log.nspname AND b.tablename = 'es_events'
      JOIN pg_publication u ON u.pubname = b.pubname
     WHERE u.pubupdate
       AND (log.relreplident = 'n'
            OR (log.relreplident = 'i' AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = log.oid AND i.indisreplident AND i.indisvalid)))
     GROUP BY log.name, log.owner;
END;

-- Transactions that have been open for longer than the delay: those that hold the
-- horizon, and prepared ones that have locked a table of the extension.
CREATE FUNCTION es_health_horizon(delay interval)
    RETURNS TABLE (urgency int, problem text, object text, since timestamptz, message text, remedy text, remedy_by text, owner oid)
    LANGUAGE sql VOLATILE PARALLEL RESTRICTED
BEGIN ATOMIC
    WITH horizon AS MATERIALIZED (
        SELECT x.horizon,
               (SELECT e.recorded_at FROM es_events e WHERE e.position > x.horizon ORDER BY e.position LIMIT 1) AS held_since,
               (SELECT count(*) FROM (SELECT FROM es_events e WHERE e.position > x.horizon ORDER BY e.position LIMIT 101) w) AS waiting
          FROM (SELECT es_horizon() AS horizon OFFSET 0) x),
    said AS MATERIALIZED (
        SELECT h.held_since,
               CASE WHEN h.waiting = 0 THEN pg_catalog.format('Events appended after it will wait above position %s.', h.horizon)
                    ELSE pg_catalog.format('%s above position %s, the first since %s.',
                                           CASE WHEN h.waiting > 100 THEN 'More than 100 events wait' WHEN h.waiting = 1 THEN '1 event waits' ELSE h.waiting::text || ' events wait' END,
                                           h.horizon, h.held_since) END AS waiting
          FROM horizon h),
    holder AS MATERIALIZED (
        SELECT o.* FROM es_horizon_holders() o WHERE NOT pg_catalog.pg_is_in_recovery()),
    locker AS (
        SELECT p.gid, p.prepared, p.owner, pg_catalog.string_agg(DISTINCT l.relation::regclass::text, ', ') AS tables
          FROM pg_prepared_xacts p
          JOIN pg_locks x ON x.transactionid = p.transaction AND x.locktype = 'transactionid' AND x.pid IS NULL
          JOIN pg_locks l ON l.virtualtransaction = x.virtualtransaction AND l.pid IS NULL AND l.locktype = 'relation'
                         AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = pg_catalog.current_database())
                         AND l.mode = 'RowExclusiveLock'
         WHERE p.database = pg_catalog.current_database() AND p.prepared < pg_catalog.clock_timestamp() - delay
           AND l.relation IN ('es_projections'::regclass::oid, 'es_failures'::regclass::oid, 'es_partitions'::regclass::oid, 'es_subscriptions'::regclass::oid,
                              'es_inbox'::regclass::oid)
         GROUP BY p.gid, p.prepared, p.owner)
    SELECT 2, CASE WHEN o.gid IS NULL THEN 'horizon_held' ELSE 'transaction_prepared' END,
           CASE WHEN o.gid IS NULL THEN pg_catalog.format('session %s', o.pid) ELSE pg_catalog.format('prepared transaction %L', o.gid) END,
           o.since,
           CASE WHEN o.gid IS NULL THEN
                    pg_catalog.format('The transaction has appended%s and is still open: application "%s", %s. ',
                                      coalesce(' to ' || pg_catalog.array_to_string(o.streams, ', '), ''), o.application_name, o.state)
                ELSE pg_catalog.format('The transaction has appended%s and is neither committed nor rolled back. COMMIT PREPARED %L would keep what it has appended. ',
                                       coalesce(' to ' || pg_catalog.array_to_string(o.streams, ', '), ''), o.gid) END
           || s.waiting,
           o.remedy, o.username, NULL::oid
      FROM holder o
     CROSS JOIN said s
     WHERE o.since < pg_catalog.clock_timestamp() - delay AND o.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
    UNION ALL
    SELECT 2, 'transaction_prepared', pg_catalog.format('prepared transaction %L', l.gid), l.prepared,
           pg_catalog.format('The transaction has locks on %s and is neither committed nor rolled back. COMMIT PREPARED %L would keep what it has done.', l.tables, l.gid),
           pg_catalog.format('ROLLBACK PREPARED %L', l.gid), l.owner::text, NULL
      FROM locker l
     WHERE NOT EXISTS (SELECT FROM holder o WHERE o.gid = l.gid)
    UNION ALL
    SELECT 2, 'horizon_held', 'the primary', s.held_since,
           s.waiting || ' They wait for an append that is open on the primary. Read es_health there.', NULL, NULL, NULL
      FROM said s
     WHERE pg_catalog.pg_is_in_recovery() AND s.held_since < pg_catalog.clock_timestamp() - delay;
END;

-- What gives a definition the search_path and the settings again that it has, as the
-- beginning of a list of what is selected.  A schema of the path that is gone is
-- replaced.  Settings that only a superuser may set are left out.
CREATE FUNCTION es_health_settings(path text, settings text[], gone text, instead text)
    RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN (
    SELECT pg_catalog.string_agg(pg_catalog.format('set_config(%L, %L, true), ', v.name, v.value), '' ORDER BY v.name)
      FROM (SELECT 'search_path' AS name,
                   (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(CASE WHEN s.schema = gone THEN instead ELSE s.schema END), ', ' ORDER BY s.n)
                      FROM es_health_path(path) s) AS value
            UNION ALL
            SELECT g.name, pg_catalog.substr(u.setting, pg_catalog.length(g.name) + 2)
              FROM pg_catalog.unnest(settings) u (setting)
              JOIN pg_settings g ON g.name = pg_catalog.split_part(u.setting, '=', 1) AND g.context = 'user') v);

-- The statement that lets a role call a function that has moved to a schema.  Null:
-- nothing is lacking.
CREATE FUNCTION es_health_reach(role oid, schema text, function oid, OUT lacks text, OUT remedy text, OUT remedy_by text)
    LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT pg_catalog.format('%s on %s %s', x.verb, pg_catalog.lower(x.kind), x.name),
           pg_catalog.format('GRANT %s ON %s %s TO %I', x.verb, x.kind, x.name, r.rolname), pg_catalog.pg_get_userbyid(x.owner)::text
      FROM (SELECT 1 AS n, 'USAGE' AS verb, 'SCHEMA' AS kind, pg_catalog.quote_ident(n.nspname::text) AS name, n.nspowner AS owner
              FROM pg_namespace n
             WHERE n.nspname = schema AND NOT pg_catalog.has_schema_privilege(role, n.oid, 'USAGE')
            UNION ALL
            SELECT 2, 'EXECUTE', 'FUNCTION', p.oid::regprocedure::text, p.proowner
              FROM pg_proc p
             WHERE p.oid = function AND NOT pg_catalog.has_function_privilege(role, p.oid, 'EXECUTE')) x
     CROSS JOIN pg_roles r
     WHERE r.oid = role
     ORDER BY x.n LIMIT 1;
END;

-- Projections that do not go on, one problem for each, and their parked events.
CREATE FUNCTION es_health_projections(delay interval)
    RETURNS TABLE (urgency int, problem text, object text, since timestamptz, message text, remedy text, remedy_by text, owner oid)
    LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
    WITH log AS MATERIALIZED (
        SELECT c.oid, c.oid::regclass::text AS name, pg_catalog.pg_get_userbyid(c.relowner)::text AS owner,
               n.oid AS schema, n.nspname,
               (SELECT t.oid FROM pg_type t WHERE t.typname = 'es_recorded_event' AND t.typnamespace = n.oid) AS event
          FROM pg_class c
          JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = 'es_events'::regclass::oid),
    projection AS MATERIALIZED (
        SELECT p.*, p.owner::oid AS role, p.owner::text AS role_name,
               es_health_external(p.sqlstate) AS is_external,
               CASE WHEN p.handler IS NOT NULL THEN 'handler' WHEN p.query IS NOT NULL THEN 'query' ELSE 'handler_schema' END AS kind,
               CASE WHEN p.handler IS NOT NULL THEN pg_catalog.parse_ident(p.handler) ELSE ARRAY[p.handler_schema] END AS code,
               pg_catalog.format('projection %I', p.name) AS object,
               CASE WHEN p.failed_position IS NOT NULL THEN
                   coalesce((SELECT pg_catalog.format('at the event at position %s (version %s of stream "%s", type "%s", id %s)',
                                                      e.position, e.version, e.stream, e.type, e.id)
                               FROM es_events e WHERE e.position = p.failed_position),
                            pg_catalog.format('at position %s', p.failed_position)) END AS event
          FROM es_projections p),
    -- the schema of the code, the function, and where else there is one like it
    handler AS (
        SELECT p.name, n.oid AS schema, f.oid AS function, f.proowner, n.nspowner, o.schemas,
               n.oid IS NULL OR (p.handler IS NOT NULL AND f.oid IS NULL) AS is_gone,
               CASE WHEN p.handler IS NOT NULL THEN o.functions END AS functions
          FROM projection p
         CROSS JOIN log
          LEFT JOIN pg_namespace n ON n.nspname = p.code[1]
          LEFT JOIN pg_proc f ON p.handler IS NOT NULL AND f.pronamespace = n.oid AND f.proname = p.code[2]
                             AND f.pronargs = 1 AND f.proargtypes[0] = log.event
         CROSS JOIN LATERAL (
             SELECT pg_catalog.array_agg(DISTINCT m.nspname::text) AS schemas, pg_catalog.array_agg(g.oid) AS functions
               FROM pg_proc g
               JOIN pg_namespace m ON m.oid = g.pronamespace
              WHERE (n.oid IS NULL OR (p.handler IS NOT NULL AND f.oid IS NULL))
                AND g.pronargs = 1 AND g.proargtypes[0] = log.event AND g.prorettype = 'void'::regtype::oid
                AND pg_catalog.pg_has_role(g.proowner, p.role, 'USAGE') AND (p.handler IS NOT NULL OR pg_catalog.pg_has_role(m.nspowner, p.role, 'USAGE'))
                AND CASE WHEN p.handler IS NOT NULL THEN g.proname = p.code[2]
                         ELSE pg_catalog.starts_with(g.proname::text, 'on_')
                              AND NOT EXISTS (SELECT FROM es_projections q WHERE q.handler_schema = m.nspname::text) END) o
         WHERE p.handler IS NOT NULL OR p.handler_schema IS NOT NULL),
    -- a schema of the search_path that is gone, and the only one that has what is missing
    moved AS (
        SELECT p.name, g.gone, g.instead
          FROM projection p
         CROSS JOIN LATERAL (
             -- the server prints the name as it is, without quotes of its own
             SELECT (pg_catalog.regexp_match(p.message, '^relation "(.+)" does not exist$'))[1] AS name) m
         CROSS JOIN LATERAL (
             SELECT min(s.schema) AS gone, (SELECT min(n.nspname::text) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                                             WHERE c.relname = m.name::name AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
                                               AND pg_catalog.pg_has_role(n.nspowner, p.role, 'USAGE')
                                            HAVING count(*) = 1) AS instead
               FROM es_health_path(p.search_path) s
              WHERE NOT EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = s.schema) AND s.schema <> '$user'
             HAVING count(*) = 1) g
         WHERE p.sqlstate = '42P01' AND g.instead IS NOT NULL),
    problem AS (
        SELECT p.name, 0 AS n, 4 AS urgency, 'role_missing' AS problem, p.created_at AS since,
               pg_catalog.format('Its owner, %s, does not exist any more. It cannot run. Its tables stay when it is dropped; create it again as their new owner, with start_position => %s.',
                                 p.role_name,
                                 -- a sync one has no checkpoint: it has handled all that there is
                                 CASE WHEN p.mode = 'sync' AND p.state = 'running' THEN coalesce((SELECT max(e.position) FROM es_events e), 0)
                                      ELSE p.position END) AS message,
               pg_catalog.format('SELECT %I.es_drop_projection(%L)', log.nspname, p.name) AS remedy, log.owner AS remedy_by
          FROM projection p
         CROSS JOIN log
         WHERE p.role = 0::oid
        UNION ALL
        SELECT p.name, 1, 4, 'right_missing', p.failing_since,
               pg_catalog.format('Its code was in "%s". Schema "%s" has one like it. The projection''s owner, "%s", lacks %s.', p.code[1], h.schemas[1], p.role_name, r.lacks),
               r.remedy, r.remedy_by
          FROM handler h
          JOIN projection p ON p.name = h.name
         CROSS JOIN LATERAL es_health_reach(p.role, h.schemas[1], h.functions[1]) r
         WHERE h.is_gone AND pg_catalog.cardinality(h.schemas) = 1 AND r.remedy IS NOT NULL
        UNION ALL
        SELECT p.name, 2, 4, 'code_missing', p.failing_since,
               CASE WHEN p.handler IS NOT NULL THEN pg_catalog.format('Its handler %s(%I.es_recorded_event) does not exist. ', p.handler, log.nspname)
                    ELSE pg_catalog.format('Its handler_schema "%s" does not exist. ', p.handler_schema) END
               || CASE WHEN pg_catalog.cardinality(h.schemas) = 1 THEN pg_catalog.format('Schema "%s" has one like it.', h.schemas[1])
                       ELSE 'Create it again, or give the projection another by es_alter_projection().' END,
               CASE WHEN pg_catalog.cardinality(h.schemas) = 1 THEN
                   pg_catalog.format('SELECT %s%I.es_alter_projection(%L, %s => %L)',
                       es_health_settings(p.search_path, p.settings, CASE WHEN h.schema IS NULL THEN p.code[1] END, h.schemas[1]),
                       log.nspname, p.name, p.kind,
                       CASE WHEN p.handler IS NOT NULL THEN pg_catalog.format('%I.%I', h.schemas[1], p.code[2]) ELSE pg_catalog.quote_ident(h.schemas[1]) END) END,
               p.role_name
          FROM handler h
          JOIN projection p ON p.name = h.name
         CROSS JOIN log
         WHERE h.is_gone
        UNION ALL
        SELECT p.name, 3, 4, 'right_missing', p.failing_since,
               pg_catalog.format('Its owner "%s" lacks %s. It cannot run.', p.role_name, r.lacks),
               r.remedy, pg_catalog.pg_get_userbyid(r.by)::text
          FROM projection p
         CROSS JOIN log
          LEFT JOIN handler h ON h.name = p.name
          JOIN LATERAL (
             SELECT pg_catalog.format('SELECT on %s', log.name) AS lacks, pg_catalog.format('GRANT SELECT ON %s TO %I', log.name, p.role_name) AS remedy,
                    (SELECT c.relowner FROM pg_class c WHERE c.oid = log.oid) AS by
              WHERE NOT pg_catalog.has_table_privilege(p.role, log.oid, 'SELECT')
             UNION ALL
             SELECT pg_catalog.format('USAGE on schema %s', h.schema::regnamespace), pg_catalog.format('GRANT USAGE ON SCHEMA %s TO %I', h.schema::regnamespace, p.role_name), h.nspowner
              WHERE NOT pg_catalog.has_schema_privilege(p.role, h.schema, 'USAGE')
             UNION ALL
             SELECT pg_catalog.format('EXECUTE on function %s', h.function::regprocedure), pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO %I', h.function::regprocedure, p.role_name), h.proowner
              WHERE NOT pg_catalog.has_function_privilege(p.role, h.function, 'EXECUTE')
             UNION ALL
             -- what a sync projection fails with is known to the appenders alone
             SELECT pg_catalog.format('%s on %s', l.lacks, t.tab), pg_catalog.format('GRANT %s ON TABLE %s TO %I', l.lacks, t.tab, p.role_name),
                    (SELECT c.relowner FROM pg_class c WHERE c.oid = t.tab::oid)
               FROM pg_catalog.unnest(p.tables) t (tab)
              CROSS JOIN LATERAL (
                  SELECT pg_catalog.string_agg(v.verb, ', ') AS lacks
                    FROM pg_catalog.unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) v (verb)
                   WHERE NOT pg_catalog.has_table_privilege(p.role, t.tab::oid, v.verb)) l
              WHERE p.mode = 'sync' AND p.state = 'running' AND l.lacks IS NOT NULL
             LIMIT 1) r ON true
         WHERE p.role <> 0::oid
        UNION ALL
        SELECT p.name, 4, 4, 'right_missing', p.failing_since,
               pg_catalog.format('It waits %s: %s', coalesce(p.event, 'at a batch'), p.message), g.remedy, g.remedy_by
          FROM projection p
         CROSS JOIN LATERAL es_health_grant(p.role, p.search_path, (SELECT pg_catalog.array_agg(t.tab::oid) FROM pg_catalog.unnest(p.tables) t (tab)), p.message, p.context, p.query) g
         WHERE p.sqlstate IN ('42501', '42P01', '42883', '42704', '3F000') AND g.remedy IS NOT NULL
        UNION ALL
        SELECT p.name, 5, 4, 'code_missing', p.failing_since,
               pg_catalog.format('It waits %s: %s. Schema "%s" of its search_path does not exist; "%s" has it.', coalesce(p.event, 'at a batch'), p.message, m.gone, m.instead),
               pg_catalog.format('SELECT %s%I.es_alter_projection(%L, %s => %L)', es_health_settings(p.search_path, p.settings, m.gone, m.instead),
                                 log.nspname, p.name, p.kind, coalesce(p.handler, p.query, pg_catalog.quote_ident(p.handler_schema))),
               p.role_name
          FROM moved m
         CROSS JOIN log
          JOIN projection p ON p.name = m.name
         WHERE p.refresh IS NULL
        UNION ALL
        SELECT p.name, 6, 4, CASE WHEN p.sqlstate = '42501' THEN 'right_missing' ELSE 'code_missing' END, p.failing_since,
               pg_catalog.format('It waits %s: %s. ', coalesce(p.event, 'at a batch'), p.message)
               || CASE WHEN p.sqlstate = '42501' THEN pg_catalog.format('Grant "%s" the privilege, or let it own the object. It then goes on by itself.', p.role_name)
                       ELSE 'Create what is missing or rename it back, or give the projection other code by es_alter_projection(). It then goes on by itself.' END,
               pg_catalog.format('SELECT %I.es_resume_projection(%L)', log.nspname, p.name), NULL
          FROM projection p
         CROSS JOIN log
         WHERE p.mode = 'async' AND p.state <> 'paused' AND (pg_catalog.starts_with(p.sqlstate, '42') OR p.sqlstate IN ('3F000', '3D000'))
        UNION ALL
        SELECT p.name, 7, 5, 'projection_waits', p.failing_since,
               pg_catalog.format('It has waited for %s %s: %s. ', CASE WHEN p.attempts = 1 THEN '1 attempt' ELSE p.attempts::text || ' attempts' END, coalesce(p.event, 'at a batch'), p.message)
               || 'The cause lies outside of the event. It goes on by itself when that is gone.',
               pg_catalog.format('SELECT %I.es_resume_projection(%L)', log.nspname, p.name), NULL
          FROM projection p
         CROSS JOIN log
         WHERE p.mode = 'async' AND p.state <> 'paused' AND p.is_external
           AND (p.attempts >= 3 OR p.failing_since < pg_catalog.clock_timestamp() - delay)
        UNION ALL
        SELECT p.name, 8, 5, CASE WHEN p.state = 'failed' THEN 'projection_failed' ELSE 'projection_retries' END, p.failing_since,
               pg_catalog.format('%s failed %s: %s. ', CASE WHEN p.attempts = 1 THEN '1 attempt has' ELSE p.attempts::text || ' attempts have' END, coalesce(p.event, 'at a batch'), p.message)
               || CASE WHEN p.failed_position IS NULL THEN 'Fix the cause. It tries again by itself.'
                       ELSE 'Fix the handler, or skip the event. It tries again by itself.' END,
               CASE WHEN p.failed_position IS NULL THEN pg_catalog.format('SELECT %I.es_resume_projection(%L)', log.nspname, p.name)
                    ELSE pg_catalog.format('SELECT %I.es_skip_event(%L, %s, %L)', log.nspname, p.name, p.failed_position,
                                           pg_catalog.format('%s: %s', p.sqlstate, pg_catalog."left"(p.message, 200))) END,
               NULL
          FROM projection p
         CROSS JOIN log
         WHERE p.mode = 'async' AND p.message IS NOT NULL AND NOT p.is_external
           AND (p.state = 'failed' OR (p.state = 'running' AND p.failing_since < pg_catalog.clock_timestamp() - delay))
        UNION ALL
        SELECT p.name, 9, 4, 'trigger_missing', NULL,
               'It is sync, and its trigger on the log is missing or disabled. It has missed what was appended since.',
               pg_catalog.format('SELECT %1$I.es_rebuild_projection(%2$L), %1$I.es_pause_projection(%2$L), %1$I.es_resume_projection(%2$L)', log.nspname, p.name), NULL
          FROM projection p
         CROSS JOIN log
         WHERE p.mode = 'sync' AND p.state = 'running'
           AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = log.oid AND t.tgname::text = p.name AND t.tgenabled = 'A')
        UNION ALL
        SELECT p.name, 10, 8, 'projection_paused', p.paused_at,
               'es_pause_projection() was called. It gets no events until it is resumed.',
               pg_catalog.format('SELECT %I.es_resume_projection(%L)', log.nspname, p.name), NULL
          FROM projection p
         CROSS JOIN log
         WHERE p.state = 'paused'),
    first AS (
        SELECT DISTINCT ON (q.name) q.* FROM problem q ORDER BY q.name, q.n)
    SELECT CASE WHEN p.mode = 'sync' AND p.state = 'running' AND f.n <= 3 THEN 1 ELSE f.urgency END, f.problem, p.object, f.since,
           f.message || CASE WHEN p.mode = 'sync' AND p.state = 'running' AND f.n <= 3 THEN ' It is sync: appends that it wants fail.' ELSE '' END,
           f.remedy, f.remedy_by, p.role
      FROM first f
      JOIN projection p ON p.name = f.name
    UNION ALL
    SELECT 6, 'event_parked', p.object, f.first_failed_at,
           pg_catalog.format('%s parked for good, the first at position %s (version %s of stream "%s", type "%s", id %s): %s. ',
                             CASE WHEN c.many > 100 THEN 'More than 100 events are' WHEN c.many = 1 THEN '1 event is' ELSE c.many::text || ' events are' END,
                             f.position, f.version, f.stream, f.type, f.event_id, f.message)
           || CASE WHEN f.attempts > p.max_attempts THEN 'It has failed again. Fix the handler and use es_retry(), or discard it.'
                   ELSE 'Fix the cause, and retry it. Later events of the stream wait behind it.' END,
           CASE WHEN f.attempts > p.max_attempts THEN pg_catalog.format('SELECT %I.es_discard(%s)', log.nspname, f.id)
                ELSE pg_catalog.format('SELECT %I.es_retry(%s)', log.nspname, f.id) END,
           NULL, p.role
      FROM projection p
     CROSS JOIN log
     CROSS JOIN LATERAL (
         SELECT x.* FROM es_failures x
          WHERE x.projection = p.name AND x.subscription IS NULL AND x.topic IS NULL AND x.group_id IS NULL
            AND x.retry_at IS NULL AND x.message IS NOT NULL
          ORDER BY x.projection, x.subscription, x.topic, x.group_id, x.id LIMIT 1) f
     CROSS JOIN LATERAL (
         SELECT count(*) AS many
           FROM (SELECT FROM es_failures x
                  WHERE x.projection = p.name AND x.retry_at IS NULL AND x.message IS NOT NULL LIMIT 101) y) c
    UNION ALL
    SELECT 3, 'worker_missing', pg_catalog.format('database %I', pg_catalog.current_database()), min(w.since),
           pg_catalog.format('No worker serves the database. Async projections that are behind: %s%s. Set eventstore.databases and preload the library to have workers always.',
                             pg_catalog.array_to_string((pg_catalog.array_agg(w.name ORDER BY w.name))[1:10], ', '),
                             CASE WHEN count(*) > 10 THEN pg_catalog.format(' and %s more', count(*) - 10) END),
           min(pg_catalog.format('SELECT %I.es_start_worker()', w.nspname)), NULL, NULL
      FROM (SELECT p.name, log.nspname, greatest(b.recorded_at, p.created_at) AS since
              FROM projection p
             CROSS JOIN log
             CROSS JOIN (SELECT es_horizon() AS horizon OFFSET 0) h
             CROSS JOIN LATERAL (
                 SELECT e.recorded_at FROM es_events e WHERE e.position > p.position AND e.position <= h.horizon ORDER BY e.position LIMIT 1) b
             WHERE p.mode = 'async' AND p.state <> 'paused' AND NOT pg_catalog.pg_is_in_recovery()
               AND coalesce(p.ran_at, p.created_at) < pg_catalog.clock_timestamp() - delay
               AND coalesce(p.next_attempt, p.created_at) < pg_catalog.clock_timestamp() - delay
               AND b.recorded_at < pg_catalog.clock_timestamp() - delay) w
     WHERE NOT EXISTS (SELECT FROM pg_stat_activity a
                        WHERE a.backend_type = 'eventstore worker' AND a.datname = pg_catalog.current_database())
    HAVING count(*) > 0;
END;

-- Upcasters that cannot be called, so that no event of their type can be read.
CREATE FUNCTION es_health_types()
    RETURNS TABLE (urgency int, problem text, object text, since timestamptz, message text, remedy text, remedy_by text, owner oid)
    LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
    WITH log AS MATERIALIZED (
        SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = 'es_events'::regclass::oid),
    upcaster AS (
        SELECT u.*, u.owner::oid AS role, u.owner::text AS role_name, pg_catalog.to_regprocedure(u.upcaster)::oid AS function,
               n.oid AS schema_oid, n.nspowner, pg_catalog.parse_ident(u.upcaster, false) AS code,
               pg_catalog.format('upcaster of type %L from version %s%s', u.type, u.from_version, ' in category ' || u.category) AS object
          FROM es_upcasters u
          LEFT JOIN pg_proc p ON p.oid = pg_catalog.to_regprocedure(u.upcaster)::oid
          LEFT JOIN pg_namespace n ON n.oid = p.pronamespace),
    elsewhere AS (
        SELECT u.type, u.category, u.from_version, pg_catalog.array_agg(m.nspname::text) AS schemas, pg_catalog.array_agg(g.oid) AS functions
          FROM upcaster u
          JOIN pg_proc g ON g.proname = u.code[2] AND g.pronargs = 1 AND g.proargtypes[0] = 'jsonb'::regtype::oid AND g.prorettype = 'jsonb'::regtype::oid
          JOIN pg_namespace m ON m.oid = g.pronamespace
         WHERE u.function IS NULL AND pg_catalog.pg_has_role(g.proowner, u.role, 'USAGE')
         GROUP BY u.type, u.category, u.from_version),
    cure AS (
        SELECT u.*, e.schemas, r.lacks, r.remedy, r.remedy_by,
               CASE WHEN u.function IS NOT NULL THEN u.upcaster
                    WHEN pg_catalog.cardinality(e.schemas) = 1 THEN pg_catalog.format('%I.%I', e.schemas[1], u.code[2]) END AS name,
               CASE WHEN NOT EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = u.code[1]) THEN u.code[1] END AS gone
          FROM upcaster u
          LEFT JOIN elsewhere e ON e.type = u.type AND e.category IS NOT DISTINCT FROM u.category AND e.from_version = u.from_version
          LEFT JOIN LATERAL es_health_reach(u.role, e.schemas[1], e.functions[1]) r ON pg_catalog.cardinality(e.schemas) = 1)
    SELECT 3, CASE WHEN u.function IS NULL THEN 'code_missing' ELSE 'role_missing' END, u.object, NULL::timestamptz,
           CASE WHEN u.function IS NULL THEN pg_catalog.format('The function %s does not exist. ', u.upcaster)
                ELSE pg_catalog.format('Its owner, %s, does not exist any more. It runs as the role that defines it anew. ', u.role_name) END
           || CASE WHEN u.name IS NULL THEN 'Create it again, or give another by es_define_upcaster(). '
                   WHEN u.function IS NULL THEN pg_catalog.format('Schema "%s" has one like it. ', u.schemas[1]) ELSE '' END
           || 'Events of the type and version cannot be read.',
           CASE WHEN u.name IS NOT NULL THEN
               pg_catalog.format('SELECT %s%I.es_define_upcaster(%L, %s, %L%s)', es_health_settings(u.search_path, u.settings, u.gone, u.schemas[1]),
                                 log.nspname, u.type, u.from_version, u.name, CASE WHEN u.category IS NOT NULL THEN pg_catalog.format(', %L', u.category) END) END,
           CASE WHEN u.role <> 0::oid THEN u.role_name
                ELSE (SELECT pg_catalog.pg_get_userbyid(p.proowner)::text FROM pg_proc p WHERE p.oid = u.function) END, u.role
      FROM cure u
     CROSS JOIN log
     WHERE (u.function IS NULL OR u.role = 0::oid) AND u.remedy IS NULL
    UNION ALL
    SELECT 3, 'right_missing', u.object, NULL,
           pg_catalog.format('The function %s does not exist. Schema "%s" has one like it. The upcaster''s owner, %s, lacks %s. Events of the type and version cannot be read.',
                             u.upcaster, u.schemas[1], u.role_name, u.lacks),
           u.remedy, u.remedy_by, u.role
      FROM cure u
     WHERE u.remedy IS NOT NULL
    UNION ALL
    SELECT 3, 'right_missing', u.object, NULL,
           pg_catalog.format('Its owner, %s, lacks %s. Events of the type and version cannot be read.', u.role_name, r.lacks),
           r.remedy, pg_catalog.pg_get_userbyid(r.by)::text, u.role
      FROM upcaster u
     CROSS JOIN LATERAL (
         SELECT pg_catalog.format('USAGE on schema %s', u.schema_oid::regnamespace) AS lacks,
                pg_catalog.format('GRANT USAGE ON SCHEMA %s TO %I', u.schema_oid::regnamespace, u.role_name) AS remedy, u.nspowner AS by
          WHERE NOT pg_catalog.has_schema_privilege(u.role, u.schema_oid, 'USAGE')
         UNION ALL
         SELECT pg_catalog.format('EXECUTE on function %s', u.function::regprocedure),
                pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO %I', u.function::regprocedure, u.role_name),
                (SELECT p.proowner FROM pg_proc p WHERE p.oid = u.function)
          WHERE NOT pg_catalog.has_function_privilege(u.role, u.function, 'EXECUTE')
         LIMIT 1) r
     WHERE u.role <> 0::oid AND u.function IS NOT NULL;
END;

-- Subscriptions whose consumers do not come, do not finish, or have parked events.
CREATE FUNCTION es_health_subscriptions(delay interval)
    RETURNS TABLE (urgency int, problem text, object text, since timestamptz, message text, remedy text, remedy_by text, owner oid)
    LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
    WITH log AS MATERIALIZED (
        SELECT c.oid, c.oid::regclass::text AS name, pg_catalog.pg_get_userbyid(c.relowner)::text AS owner, n.nspname
          FROM pg_class c
          JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = 'es_events'::regclass::oid),
    subscription AS MATERIALIZED (
        SELECT s.*, s.owner::oid AS role, s.owner::text AS role_name, pg_catalog.format('subscription %I', s.name) AS object
          FROM es_subscriptions s),
    -- where the partition that no consumer works on and that is furthest behind goes on
    idle AS (
        SELECT p.subscription, p.partition, p.delivered_at,
               CASE WHEN p.leased_until IS NULL THEN greatest(p.position, p.reached) ELSE p.position END AS position
          FROM es_partitions p
         WHERE coalesce(p.leased_until, p.delivered_at, '-infinity') < pg_catalog.clock_timestamp() - delay),
    waiting AS (
        SELECT s.name, e.position, e.version, e.recorded_at, e.stream, e.type, e.id, i.delivered_at
          FROM subscription s
         CROSS JOIN (SELECT es_horizon() AS horizon OFFSET 0) h
         CROSS JOIN LATERAL (SELECT min(i.position) AS position FROM idle i WHERE i.subscription = s.name) f
         CROSS JOIN LATERAL (
             SELECT w.*
               FROM (SELECT * FROM (SELECT x.position, x.version, x.recorded_at, x.stream, x.type, x.id, x.data FROM es_events x
                                     WHERE s.categories IS NULL AND s.query IS NULL AND x.position > f.position AND x.position <= h.horizon
                                     ORDER BY x.position LIMIT 100) a
                     UNION ALL
                     SELECT x.* FROM pg_catalog.unnest(s.categories) AS k (category)
                      CROSS JOIN LATERAL (
                          SELECT x.position, x.version, x.recorded_at, x.stream, x.type, x.id, x.data FROM es_events x
                           WHERE s.query IS NULL AND es_category(x.stream) = k.category AND es_by_index(es_category(x.stream), k.category)
                             AND x.position > f.position AND x.position <= h.horizon
                           ORDER BY x.position LIMIT 100) x
                     UNION ALL
                     SELECT x.position, x.version, x.recorded_at, x.stream, x.type, x.id, x.data
                       FROM pg_catalog.unnest(es_source_positions(s.query, s.categories, s.types, f.position, h.horizon, 100)) k (position)
                       JOIN es_events x ON x.position = k.position) w
              WHERE s.types IS NULL OR w.type = ANY (s.types)
                 OR w.type IN ('es_stream_deleted', 'es_compacted', 'es_stream_archived') AND w.data -> 'types'::text ?| s.types) e
          JOIN idle i ON i.subscription = s.name AND i.partition = es_partition(e.stream, s.partitions::bigint) AND i.position < e.position
         WHERE s.role <> 0::oid AND pg_catalog.has_table_privilege(s.role, 'es_events'::regclass::oid, 'SELECT')
           AND s.created_at < pg_catalog.clock_timestamp() - delay AND e.recorded_at < pg_catalog.clock_timestamp() - delay)
    SELECT 4, 'role_missing', s.object, s.created_at,
           pg_catalog.format('Its owner, %s, does not exist any more. It delivers nothing.', s.role_name),
           pg_catalog.format('SELECT %I.es_drop_subscription(%L)', log.nspname, s.name), log.owner, s.role
      FROM subscription s
     CROSS JOIN log
     WHERE s.role = 0::oid
    UNION ALL
    SELECT 4, 'right_missing', s.object, NULL,
           pg_catalog.format('Its owner "%s" may not read the log. It delivers nothing.', s.role_name),
           pg_catalog.format('GRANT SELECT ON %s TO %I', log.name, s.role_name), log.owner, s.role
      FROM subscription s
     CROSS JOIN log
     WHERE s.role <> 0::oid AND NOT pg_catalog.has_table_privilege(s.role, log.oid, 'SELECT')
    UNION ALL
    SELECT 6, 'event_parked', s.object, f.first_failed_at,
           pg_catalog.format('%s parked for good, the first at position %s (version %s of stream "%s", type "%s", id %s): %s. ',
                             CASE WHEN c.many > 100 THEN 'More than 100 events are' WHEN c.many = 1 THEN '1 event is' ELSE c.many::text || ' events are' END,
                             f.position, f.version, f.stream, f.type, f.event_id, f.message)
           || CASE WHEN f.attempts > s.max_attempts THEN 'It has failed again. Fix the consumer and use es_retry(), or discard it.'
                   ELSE 'Fix the cause, and retry it. Later events of the stream wait behind it.' END,
           CASE WHEN f.attempts > s.max_attempts THEN pg_catalog.format('SELECT %I.es_discard(%s)', log.nspname, f.id)
                ELSE pg_catalog.format('SELECT %I.es_retry(%s)', log.nspname, f.id) END,
           NULL, s.role
      FROM subscription s
     CROSS JOIN log
     CROSS JOIN LATERAL (
         SELECT x.* FROM es_failures x
          WHERE x.projection IS NULL AND x.subscription = s.name AND x.topic IS NULL AND x.group_id IS NULL
            AND x.retry_at IS NULL AND x.message IS NOT NULL
          ORDER BY x.projection, x.subscription, x.topic, x.group_id, x.id LIMIT 1) f
     CROSS JOIN LATERAL (
         SELECT count(*) AS many
           FROM (SELECT FROM es_failures x
                  WHERE x.projection IS NULL AND x.subscription = s.name AND x.retry_at IS NULL AND x.message IS NOT NULL LIMIT 101) y) c
    UNION ALL
    SELECT 7, 'lease_expires', s.object, p.delivered_at,
           pg_catalog.format('Events after position %s of partition %s were delivered, and their lease expired %s times. The consumer dies at one of them, or the lease of %s is too short: es_alter_subscription() gives it a longer one.',
                             p.position, p.partition, p.expired, s.lease),
           NULL, s.role_name, s.role
      FROM subscription s
     CROSS JOIN log
     CROSS JOIN LATERAL (
         SELECT p.partition, p.position, p.delivered_at, max(t.times) AS expired
           FROM es_partitions p
          CROSS JOIN LATERAL pg_catalog.unnest(p.expired_times) t (times)
          WHERE p.subscription = s.name
          GROUP BY p.partition, p.position, p.delivered_at
         HAVING max(t.times) >= 3
          ORDER BY max(t.times) DESC LIMIT 1) p
    UNION ALL
    SELECT 7, 'consumer_missing', s.object, coalesce(greatest(w.delivered_at, w.recorded_at, s.created_at), s.created_at),
           pg_catalog.format('No consumer polls, and the event at position %s (version %s of stream "%s", type "%s", id %s) waits. Start one, skip what waits by es_seek(), or drop the subscription.',
                             w.position, w.version, w.stream, w.type, w.id),
           NULL, s.role_name, s.role
      FROM subscription s
      JOIN (SELECT DISTINCT ON (w.name) w.* FROM waiting w ORDER BY w.name, w.position) w ON w.name = s.name;
END;

-- Messages of the inbox that failed, one problem for each topic and group, of at most a
-- hundred.
CREATE FUNCTION es_health_inbox()
    RETURNS TABLE (urgency int, problem text, object text, since timestamptz, message text, remedy text, remedy_by text, owner oid)
    LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
    WITH RECURSIVE failure AS (
        (SELECT f.id, f.topic, f.group_id, 1 AS n
           FROM es_failures f
          WHERE f.projection IS NULL AND f.subscription IS NULL AND f.topic IS NOT NULL AND f.retry_at IS NULL AND f.message IS NOT NULL
          ORDER BY f.projection, f.subscription, f.topic, f.group_id, f.id LIMIT 1)
        UNION ALL
        SELECT g.id, g.topic, g.group_id, b.n + 1
          FROM failure b
         CROSS JOIN LATERAL (
             SELECT f.id, f.topic, f.group_id
               FROM es_failures f
              WHERE f.projection IS NULL AND f.subscription IS NULL AND (f.topic, f.group_id) > (b.topic, b.group_id)
                AND f.retry_at IS NULL AND f.message IS NOT NULL
              ORDER BY f.projection, f.subscription, f.topic, f.group_id, f.id LIMIT 1) g
         WHERE b.n < 100),
    log AS MATERIALIZED (
        SELECT n.oid AS schema, n.nspname,
               (SELECT t.oid FROM pg_type t WHERE t.typname = 'es_ack_event' AND t.typnamespace = n.oid) AS ack
          FROM pg_class c
          JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = 'es_events'::regclass::oid),
    found AS (
        SELECT f.*, f.receiver::oid AS role, f.receiver::text AS role_name, log.nspname,
               es_health_external(f.sqlstate) AS is_external,
               pg_catalog.to_regprocedure(f.handler) IS NULL AS is_gone,
               coalesce(r.remedy, g.remedy) AS grant_remedy, coalesce(r.remedy_by, g.remedy_by) AS grant_by, r.lacks, h.code[1] AS schema, h.code[2] AS function, o.schemas,
               (SELECT count(*) FROM (SELECT FROM es_failures x
                                       WHERE x.projection IS NULL AND x.subscription IS NULL AND x.topic = f.topic AND x.group_id = f.group_id
                                         AND x.retry_at IS NULL AND x.message IS NOT NULL LIMIT 101) y) AS many
          FROM failure b
         CROSS JOIN log
          JOIN es_failures f ON f.id = b.id
         CROSS JOIN LATERAL (SELECT pg_catalog.parse_ident(f.handler, false) AS code) h
         CROSS JOIN LATERAL (
             SELECT pg_catalog.array_agg(m.nspname::text) AS schemas, pg_catalog.array_agg(g.oid) AS functions
               FROM pg_proc g
               JOIN pg_namespace m ON m.oid = g.pronamespace
              WHERE pg_catalog.to_regprocedure(f.handler) IS NULL AND g.proname = h.code[2] AND g.prorettype = log.ack
                AND g.pronargs = 2 AND g.proargtypes[0] = 'text'::regtype::oid AND g.proargtypes[1] = 'jsonb'::regtype::oid
                AND (pg_catalog.pg_has_role(g.proowner, f.receiver::oid, 'USAGE')
                     OR pg_catalog.has_table_privilege(g.proowner, 'es_failures'::regclass::oid, 'SELECT'))) o
          LEFT JOIN LATERAL es_health_grant(f.receiver::oid, f.search_path, '{}'::oid[], f.message, f.context, NULL) g
                 ON f.sqlstate IN ('42501', '42P01', '42883', '42704', '3F000')
          LEFT JOIN LATERAL es_health_reach(f.receiver::oid, o.schemas[1], o.functions[1]) r ON pg_catalog.cardinality(o.schemas) = 1),
    said AS (
        SELECT f.*,
               CASE WHEN f.role = 0::oid THEN 'role' WHEN f.is_gone AND f.lacks IS NULL THEN 'code' WHEN f.grant_remedy IS NOT NULL THEN 'right'
                    WHEN f.is_external THEN 'cause' WHEN f.last_failed_at > f.first_failed_at THEN 'again' ELSE 'once' END AS why
          FROM found f)
    SELECT 6, CASE f.why WHEN 'code' THEN 'code_missing' WHEN 'right' THEN 'right_missing' ELSE 'message_failed' END,
           pg_catalog.format('topic %L, group %L', f.topic, f.group_id), f.first_failed_at,
           pg_catalog.format('%s, the first %safter %s: %s. ',
                             CASE WHEN f.many > 100 THEN 'More than 100 messages have failed' WHEN f.many = 1 THEN '1 message has failed'
                                  ELSE f.many::text || ' messages have failed' END,
                             'with id "' || f.message_id || '" ', CASE WHEN f.attempts = 1 THEN '1 attempt' ELSE f.attempts::text || ' attempts' END, f.message)
           || CASE f.why
                  WHEN 'role' THEN pg_catalog.format('Its receiver, %s, does not exist any more. Receive it again, or discard it.', f.role_name)
                  WHEN 'code' THEN pg_catalog.format('Its handler %s does not exist. ', f.handler)
                      || CASE WHEN pg_catalog.cardinality(f.schemas) = 1 THEN pg_catalog.format('Schema "%s" has one like it, by which it can be received again.', f.schemas[1])
                              ELSE pg_catalog.format('Create it again and use es_retry(%s), or discard it.', f.id) END
                  WHEN 'right' THEN pg_catalog.format('Its receiver, %s, lacks %s. ', f.role_name, coalesce(f.lacks, 'the privilege'))
                      || CASE WHEN f.lacks IS NULL THEN 'Then call es_retry() for it.' ELSE pg_catalog.format('Its handler %s has moved there.', f.handler) END
                  WHEN 'cause' THEN pg_catalog.format('The cause lies outside of the message. When it is gone, retry it by handler %s.', f.handler)
                  WHEN 'again' THEN pg_catalog.format('It has failed again. Fix handler %s and use es_retry(%s), or discard it.', f.handler, f.id)
                  ELSE pg_catalog.format('Fix the cause, and retry it by handler %s.', f.handler) END,
           CASE WHEN f.why = 'code' AND pg_catalog.cardinality(f.schemas) = 1 THEN
                    pg_catalog.format('SELECT %1$s%2$I.es_receive(f.topic, f.group_id, f.payload, %3$L, f.metadata, 0, f.attempts, f.message_id)'
                                      || ' FROM %2$I.es_visible_failures f WHERE f.id = %4$s',
                        es_health_settings(f.search_path, '{}'::text[],
                                           CASE WHEN NOT EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = f.schema) THEN f.schema END, f.schemas[1]),
                        f.nspname, pg_catalog.format('%I.%I', f.schemas[1], f.function), f.id)
                WHEN f.why = 'code' THEN NULL
                WHEN f.why = 'right' THEN f.grant_remedy
                WHEN f.why IN ('role', 'again') THEN pg_catalog.format('SELECT %I.es_discard(%s)', f.nspname, f.id)
                ELSE pg_catalog.format('SELECT %I.es_retry(%s)', f.nspname, f.id) END,
           CASE f.why WHEN 'code' THEN f.role_name WHEN 'right' THEN f.grant_by END, f.role
      FROM said f;
END;

-- Rules that fail, that are held or late, and consumers that a rule has left behind.  What a
-- projection or subscription has not read is not to be lost by a remedy.  So the one for
-- a rule that is held lets a paused projection go on, and there is none for others.
CREATE FUNCTION es_health_retention(delay interval)
    RETURNS TABLE (urgency int, problem text, object text, since timestamptz, message text, remedy text, remedy_by text, owner oid)
    LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
    WITH log AS MATERIALIZED (
        SELECT pg_catalog.pg_get_userbyid(c.relowner)::text AS owner, n.nspname,
               pg_catalog.current_setting('eventstore.retention_rate')::bigint AS rate
          FROM pg_class c
          JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = 'es_events'::regclass::oid),
    rule AS MATERIALIZED (
        SELECT r.*, pg_catalog.format('retention of %I', r.category) AS object FROM es_retention r),
    -- since when an event has been due that the rule could have looked at
    late AS (
        SELECT r.category, least(a.since, n.since) AS since
          FROM rule r
          LEFT JOIN LATERAL (
              SELECT e.recorded_at + r.max_age AS since FROM es_events e
               WHERE r.max_age IS NOT NULL AND es_category(e.stream) = r.category
                 AND es_by_index(es_category(e.stream), r.category) AND e.position > r.aged_position
               ORDER BY e.position LIMIT 1) a ON true
          LEFT JOIN LATERAL (
              SELECT e.recorded_at AS since FROM es_events e
               WHERE r.max_count IS NOT NULL AND es_category(e.stream) = r.category
                 AND es_by_index(es_category(e.stream), r.category) AND e.position > r.seen_position
               ORDER BY e.position LIMIT 1) n ON true
         WHERE r.held_by IS NULL AND r.message IS NULL)
    SELECT 5, 'retention_failed', r.object, r.failing_since,
           pg_catalog.format('It removes nothing: %s%s (%s attempts)', r.message, ': ' || r.detail, r.attempts),
           pg_catalog.format('SELECT * FROM %I.es_run_retention(%L)', log.nspname, r.category), log.owner, NULL::oid
      FROM rule r
     CROSS JOIN log
     WHERE r.message IS NOT NULL
    UNION ALL
    SELECT 7, 'retention_held', r.object, r.held_since,
           pg_catalog.format('Events after position %s are due, and %s has not read them. Let it go on or drop it; max_lag bounds how long it holds the rule.',
                             r.held_position, r.held_by),
           CASE WHEN p.state = 'paused' THEN pg_catalog.format('SELECT %I.es_resume_projection(%L)', log.nspname, p.name) END,
           CASE WHEN p.state = 'paused' THEN p.owner::text END, NULL
      FROM rule r
     CROSS JOIN log
      LEFT JOIN es_projections p ON r.held_by = 'projection ' || p.name
     WHERE r.held_by IS NOT NULL AND r.held_by <> 'horizon'
       AND r.held_since < pg_catalog.clock_timestamp() - least(coalesce(r.max_lag, '1 day'), '1 day')
    UNION ALL
    SELECT 7, 'retention_left_behind', r.object, NULL,
           pg_catalog.format('Events are removed that %s has not read, as its oldest unread event is older than max_lag. Let it catch up, or drop it.',
                             pg_catalog.array_to_string(r.left_behind, ', ')),
           NULL, NULL, NULL
      FROM rule r
     WHERE pg_catalog.cardinality(r.left_behind) > 0
    UNION ALL
    SELECT 8, 'retention_late', r.object, l.since,
           CASE WHEN log.rate = 0 THEN 'Events are due, and eventstore.retention_rate is 0, so that workers remove none. Reload the configuration after the change.'
                WHEN r.ran_at > pg_catalog.clock_timestamp() - interval '10 minutes' THEN
                    pg_catalog.format('Workers do not keep up with what is due, at %s events a second. Reload the configuration after the change.', log.rate)
                ELSE 'Events are due, and no worker runs the rule.' END,
           CASE WHEN log.rate = 0 THEN 'ALTER SYSTEM RESET eventstore.retention_rate'
                WHEN r.ran_at > pg_catalog.clock_timestamp() - interval '10 minutes' THEN
                    pg_catalog.format('ALTER SYSTEM SET eventstore.retention_rate = %s', least(log.rate * 2, 1000000))
                ELSE pg_catalog.format('SELECT %I.es_start_worker()', log.nspname) END,
           CASE WHEN log.rate = 0 OR r.ran_at > pg_catalog.clock_timestamp() - interval '10 minutes' THEN
                    (SELECT pg_catalog.min(s.rolname::text) FROM pg_roles s WHERE s.rolsuper) END, NULL
      FROM rule r
      JOIN late l ON l.category = r.category
     CROSS JOIN log
     WHERE l.since < pg_catalog.clock_timestamp() - greatest(delay, '1 hour')
       AND r.set_at < pg_catalog.clock_timestamp() - greatest(delay, '1 hour');
END;

-- A logical replica that does not get what it needs to read: both tables by one subscription
-- that runs, and a horizon that moves.
CREATE FUNCTION es_health_replica(delay interval)
    RETURNS TABLE (urgency int, problem text, object text, since timestamptz, message text, remedy text, remedy_by text, owner oid)
    LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
    WITH brings AS MATERIALIZED (
        SELECT s.oid, pg_catalog.format('subscription %I', s.subname) AS object, s.subname, s.subenabled,
               pg_catalog.pg_get_userbyid(s.subowner)::text AS owner, r.srsubstate,
               (SELECT h.srsubstate FROM pg_subscription_rel h
                 WHERE h.srsubid = s.oid AND h.srrelid = 'es_published_horizon'::regclass::oid) AS horizon_state,
               count(*) OVER () AS as_many
          FROM pg_subscription_rel r
          JOIN pg_subscription s ON s.oid = r.srsubid
         WHERE r.srrelid = 'es_events'::regclass::oid),
    waits AS MATERIALIZED (
        SELECT x.horizon, (SELECT e.recorded_at FROM es_events e WHERE e.position > x.horizon ORDER BY e.position LIMIT 1) AS since
          FROM (SELECT es_horizon() AS horizon WHERE EXISTS (SELECT FROM brings) OFFSET 0) x)
    SELECT 3, 'replica_subscription', b.object, NULL::timestamptz,
           CASE WHEN b.as_many > 1 THEN 'More than one subscription brings es_events, so no event is read. Keep one of them, which also brings es_published_horizon.'
                ELSE 'It brings es_events and not es_published_horizon, so no event is read. Add the table to the publication, then ALTER SUBSCRIPTION ... REFRESH PUBLICATION.' END,
           NULL::text, NULL::text, NULL::oid
      FROM brings b
     WHERE b.horizon_state IS NULL OR b.as_many > 1
    UNION ALL
    SELECT 3, 'replica_disabled', b.object, NULL, 'It is disabled, so no event arrives. The server''s log says why, if an error has disabled it.',
           pg_catalog.format('ALTER SUBSCRIPTION %I ENABLE', b.subname), b.owner, NULL
      FROM brings b
     WHERE NOT b.subenabled
    UNION ALL
    SELECT 3, 'replica_waits', b.object, w.since,
           pg_catalog.format('Events above position %s have arrived, and the horizon of the publisher has not. The publisher needs a worker; es_health there says what holds its horizon.',
                             w.horizon),
           NULL, NULL, NULL
      FROM brings b
     CROSS JOIN waits w
     WHERE b.as_many = 1 AND b.subenabled AND b.srsubstate = 'r' AND b.horizon_state = 'r'
       AND w.since < pg_catalog.clock_timestamp() - delay;
END;

REVOKE EXECUTE ON FUNCTION
    es_health_external(text), es_health_path(text), es_health_grant(oid, text, oid[], text, text, text), es_health_log(), es_health_horizon(interval),
    es_health_settings(text, text[], text, text), es_health_reach(oid, text, oid), es_health_projections(interval), es_health_types(),
    es_health_subscriptions(interval), es_health_inbox(), es_health_retention(interval),
    es_health_replica(interval) FROM PUBLIC;

-- In C: a reader may look, but may not execute the functions above.
CREATE FUNCTION es_health(
    OUT urgency int, OUT problem text, OUT object text, OUT since timestamptz, OUT message text, OUT remedy text, OUT remedy_by text)
    RETURNS SETOF record AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE ROWS 10;
REVOKE EXECUTE ON FUNCTION es_health() FROM PUBLIC;

CREATE VIEW es_health AS
    SELECT * FROM es_health() h ORDER BY h.urgency, h.since, h.problem, h.object;

COMMENT ON FUNCTION es_health_external(text) IS 'part of es_health: whether an error''s cause lies outside of the event';
COMMENT ON FUNCTION es_health_path(text) IS 'part of es_health: the schemas of a search_path';
COMMENT ON FUNCTION es_health_grant(oid, text, oid[], text, text, text) IS 'part of es_health: the GRANT that an error asks for';
COMMENT ON FUNCTION es_health_log() IS 'part of es_health: the log';
COMMENT ON FUNCTION es_health_horizon(interval) IS 'part of es_health: open transactions';
COMMENT ON FUNCTION es_health_settings(text, text[], text, text) IS 'part of es_health: the search_path and settings of a definition';
COMMENT ON FUNCTION es_health_reach(oid, text, oid) IS 'part of es_health: the GRANT that code which has moved needs';
COMMENT ON FUNCTION es_health_types() IS 'part of es_health: upcasters';
COMMENT ON FUNCTION es_health_projections(interval) IS 'part of es_health: projections';
COMMENT ON FUNCTION es_health_subscriptions(interval) IS 'part of es_health: subscriptions';
COMMENT ON FUNCTION es_health_inbox() IS 'part of es_health: the inbox';
COMMENT ON FUNCTION es_health_retention(interval) IS 'part of es_health: rules of retention';
COMMENT ON FUNCTION es_health_replica(interval) IS 'part of es_health: what a logical replica needs';
COMMENT ON FUNCTION es_health() IS 'rows of the view es_health';
COMMENT ON VIEW es_health IS 'what needs a human, the most urgent first, and the statement that remedies it; empty when all is well';
COMMENT ON COLUMN es_health.urgency IS '1: the most urgent';
COMMENT ON COLUMN es_health.problem IS 'what kind of problem it is, a fixed word';
COMMENT ON COLUMN es_health.object IS 'what has it';
COMMENT ON COLUMN es_health.since IS 'since when, as far as known';
COMMENT ON COLUMN es_health.message IS 'what is wrong, where, and what can be done';
COMMENT ON COLUMN es_health.remedy IS 'statement that remedies it; null: no statement does, the message says what to do';
COMMENT ON COLUMN es_health.remedy_by IS 'role that must run it; null: any operator';
