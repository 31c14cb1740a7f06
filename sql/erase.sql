-- Erasing a person: the key is destroyed, and what may still be readable elsewhere is reported.
CREATE FUNCTION es_erase(subject text, reason text, erased_at timestamptz) RETURNS timestamptz
    AS 'MODULE_PATHNAME', 'es_erase_subject' LANGUAGE C VOLATILE PARALLEL UNSAFE;

-- A view, since it shows names of projections and slots to a role that may erase and not look at these.
CREATE VIEW es_erasure_places AS
    SELECT 'read model' AS place, p.name,
           'its projection may have read personal attributes; rows about the person are the program''s to delete' AS detail
      FROM es_projections p
     UNION ALL
    SELECT 'log', 'es_events', 'attributes that were stored before their type was defined as personal, until es_rewrite encrypts them'
     UNION ALL
    SELECT 'message', 'es_failures', 'payloads of messages that failed'
     UNION ALL
    SELECT 'server log', 'log_destination', 'what handlers and reducers have raised, and statements, as far as they are logged'
     UNION ALL
    SELECT 'statistics', t.relid::text, 'samples of values until ANALYZE, and in free space until VACUUM FULL pg_statistic'
      FROM (SELECT DISTINCT u.relid FROM es_projections p CROSS JOIN LATERAL pg_catalog.unnest(p.tables) u (relid)) t
     UNION ALL
    SELECT 'wrapped key', 'es_subject_keys', 'the old row, in the free space of its page until VACUUM FULL es_subject_keys; with it and the key file, what was stored before can be opened'
     UNION ALL
    SELECT 'deleted rows', 'es_snapshots, es_failures, es_projections',
           'states and errors that were deleted, in the free space of pages until VACUUM FULL'
     UNION ALL
    SELECT 'WAL', 'pg_wal', 'the wrapped key, and states and errors with plaintext, until the segments are recycled'
     UNION ALL
    SELECT 'replication slot', s.slot_name::text, 'keeps WAL from ' || coalesce(s.restart_lsn::text, 'nowhere')
      FROM pg_catalog.pg_replication_slots s
     UNION ALL
    SELECT 'standby', coalesce(r.application_name, r.pid::text), 'reads the wrapped key until it has replayed the erasure'
      FROM pg_catalog.pg_stat_replication r
     UNION ALL
    SELECT 'archive', 'archive_command', 'archived WAL and base backups have the wrapped key; destroy them, or rotate keys and destroy the old key file'
     WHERE pg_catalog.current_setting('archive_mode') <> 'off'
     UNION ALL
    SELECT 'backup', 'dumps and base backups', 'those from before the erasure have the wrapped key; replay erasures after a restore';

CREATE FUNCTION es_erasure_report(subject text)
    RETURNS TABLE (place text, name text, detail text)
    LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
    SELECT p.place, p.name, p.detail FROM es_erasure_places p;
END;

CREATE FUNCTION es_erase_subject(subject text, reason text DEFAULT NULL)
    RETURNS TABLE (place text, name text, detail text)
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
BEGIN ATOMIC
    SELECT es_erase(subject, reason, NULL);
    SELECT * FROM es_erasure_report(subject);
END;
CREATE FUNCTION es_replay_erasure(subject text, erased_at timestamptz, reason text DEFAULT NULL) RETURNS timestamptz
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
RETURN es_erase(subject, reason, erased_at);

REVOKE EXECUTE ON FUNCTION es_erase(text, text, timestamptz), es_erase_subject(text, text), es_erasure_report(text),
    es_replay_erasure(text, timestamptz, text) FROM PUBLIC;

COMMENT ON VIEW es_erasure_places IS 'where what events said of persons who were erased may still be readable';
COMMENT ON COLUMN es_erasure_places.place IS 'kind of place';
COMMENT ON COLUMN es_erasure_places.name IS 'its name';
COMMENT ON COLUMN es_erasure_places.detail IS 'what is there, and what ends it';
COMMENT ON FUNCTION es_erase(text, text, timestamptz) IS 'part of es_erase_subject: destroys the key; returns when it was destroyed';
COMMENT ON FUNCTION es_erase_subject(text, text) IS
    'makes what events say of a person unreadable, by destroying the key; returns where it may still be readable';
COMMENT ON FUNCTION es_erasure_report(text) IS 'returns where what events said of a person may still be readable';
COMMENT ON FUNCTION es_replay_erasure(text, timestamptz, text) IS
    'erases a person again, after a restore of a backup that is older than the erasure';
