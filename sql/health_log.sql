-- What needs a human, for the view es_health: the log, its horizon, and what a logical replica needs.

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
               ('es_projections'::regclass::oid, 'es_projection_restore', 'AFTER INSERT ON %s FOR EACH ROW EXECUTE FUNCTION %I.es_projection_restore()'),
               ('es_subject_keys'::regclass::oid, 'es_subject_keys_changed', 'AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION %I.es_subject_keys_changed()')),
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
                          WHEN 'es_subject_keys_changed' THEN ' Sessions could go on to read what was encrypted with a key that was destroyed.'
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
     WHERE t.tgrelid IN ('es_event_types'::regclass::oid, 'es_upcasters'::regclass::oid, 'es_personal_attributes'::regclass::oid)
       AND t.tgname IN ('es_event_types_changed', 'es_event_types_changed_row') AND t.tgenabled <> 'A'
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
                     'es_partitions'::regclass::oid, 'es_inbox'::regclass::oid, 'es_personal_attributes'::regclass::oid, 'es_subject_keys'::regclass::oid,
                     'es_erasures'::regclass::oid)
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

REVOKE EXECUTE ON FUNCTION es_health_log(), es_health_horizon(interval), es_health_replica(interval) FROM PUBLIC;

COMMENT ON FUNCTION es_health_log() IS 'part of es_health: the log';
COMMENT ON FUNCTION es_health_horizon(interval) IS 'part of es_health: open transactions';
COMMENT ON FUNCTION es_health_replica(interval) IS 'part of es_health: what a logical replica needs';
