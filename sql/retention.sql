-- Removal of events, and rules for it (doc/internals/retention.md).

CREATE FUNCTION es_delete_stream(
    stream text, expected es_expected_version, tombstone boolean DEFAULT false, metadata jsonb DEFAULT NULL,
    OUT version bigint, OUT "position" bigint, OUT removed bigint) RETURNS record
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
CREATE FUNCTION es_truncate_stream(stream text, before_version bigint, metadata jsonb DEFAULT NULL) RETURNS bigint
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE EXECUTE ON FUNCTION es_delete_stream(text, es_expected_version, boolean, jsonb),
    es_truncate_stream(text, bigint, jsonb) FROM PUBLIC;

COMMENT ON FUNCTION es_delete_stream(text, es_expected_version, boolean, jsonb) IS
    'removes all events of a stream and appends es_stream_deleted; returns its version and position, and how many events were removed';
COMMENT ON FUNCTION es_truncate_stream(text, bigint, jsonb) IS
    'removes the events of a stream before a version, but not the last one; returns how many';

-- The archive: events that were moved out of the log. It has no index on ids, which would take a tenth of
-- it: a retry is known by es_removed_ids. next_xid is null.
CREATE TABLE es_archived_events (
    position    bigint      NOT NULL PRIMARY KEY,
    version     bigint      NOT NULL,
    next_xid    xid8,
    recorded_at timestamptz NOT NULL,
    occurred_at timestamptz,
    id          uuid        NOT NULL,
    stream      text COLLATE "C" NOT NULL,
    type        text COLLATE "C" NOT NULL,
    data        jsonb       NOT NULL,
    metadata    jsonb,
    tags        text[] COLLATE "C",
    body        bytea,
    UNIQUE (stream, version)
) WITH (autovacuum_freeze_min_age = 0, autovacuum_vacuum_insert_scale_factor = 0,
        autovacuum_vacuum_insert_threshold = 50000);
-- es_erase_subject finds the events of a person by it.
CREATE INDEX es_archived_events_tags_idx ON es_archived_events USING gin (tags) WHERE tags IS NOT NULL;
SELECT pg_catalog.pg_extension_config_dump('es_archived_events', '');

CREATE FUNCTION es_archive_stream(
    stream text, metadata jsonb DEFAULT NULL,
    OUT version bigint, OUT "position" bigint, OUT archived bigint) RETURNS record
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
CREATE FUNCTION es_archive(category text, older_than interval, max_streams bigint DEFAULT NULL) RETURNS bigint
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
CREATE FUNCTION es_unarchive_stream(stream text) RETURNS bigint
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE EXECUTE ON FUNCTION es_archive_stream(text, jsonb), es_archive(text, interval, bigint),
    es_unarchive_stream(text) FROM PUBLIC;

-- As es_load, but that versions may have gaps here.
CREATE FUNCTION es_load_archived(stream text, after_version bigint DEFAULT 0, max_count bigint DEFAULT NULL)
    RETURNS SETOF es_recorded_event LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
    SELECT e.position, e.version, e.recorded_at, e.occurred_at, e.id, e.stream, e.type,
           es_upcast_data(e.position, e.id, e.stream, e.type, e.data, e.metadata) AS data,
           es_upcast_metadata(e.position, e.id, e.stream, e.type, e.data, e.metadata) AS metadata,
           e.tags, e.body
      FROM es_archived_events e
     WHERE e.stream = es_load_archived.stream
       AND es_by_index(e.stream, es_load_archived.stream)
       AND es_by_version(e.version, greatest(after_version, 0),
               CASE WHEN max_count > 0 THEN
                   coalesce((SELECT l.version
                               FROM es_archived_events l
                              WHERE l.stream = es_load_archived.stream
                                AND es_by_index(l.stream, es_load_archived.stream)
                                AND l.version > greatest(after_version, 0)
                              ORDER BY l.version
                             OFFSET max_count - 1 LIMIT 1), 9223372036854775807)
               WHEN max_count <= 0 THEN 0
               ELSE 9223372036854775807 END)
     ORDER BY e.version;
END;

CREATE VIEW es_all_events WITH (security_invoker) AS
    SELECT e.position, e.version, e.recorded_at, e.occurred_at, e.id, e.stream, e.type, e.data, e.metadata, e.tags, e.body,
           false AS archived
      FROM es_events e
     UNION ALL
    SELECT a.position, a.version, a.recorded_at, a.occurred_at, a.id, a.stream, a.type, a.data, a.metadata, a.tags, a.body,
           true AS archived
      FROM es_archived_events a;

COMMENT ON TABLE es_archived_events IS 'events that es_archive_stream and es_archive have moved out of the log, as they were there';
COMMENT ON COLUMN es_archived_events.position IS 'number that the event had in the log';
COMMENT ON COLUMN es_archived_events.version IS 'number in the stream';
COMMENT ON COLUMN es_archived_events.next_xid IS 'null: an event gets one of this cluster when it comes back to the log';
COMMENT ON COLUMN es_archived_events.recorded_at IS 'when the event was appended';
COMMENT ON COLUMN es_archived_events.occurred_at IS 'when it happened, if the caller gave it';
COMMENT ON COLUMN es_archived_events.id IS 'unique id';
COMMENT ON COLUMN es_archived_events.stream IS 'stream''s name, category-id';
COMMENT ON COLUMN es_archived_events.type IS 'name of what happened';
COMMENT ON COLUMN es_archived_events.data IS 'content of the event, as of the schema version with which it is stored';
COMMENT ON COLUMN es_archived_events.metadata IS 'an object with facts about the event: correlation, causation, user';
COMMENT ON COLUMN es_archived_events.tags IS 'names of what the event is about, sorted and distinct; null: none';
COMMENT ON COLUMN es_archived_events.body IS 'bytes that are not JSON; null: none';
COMMENT ON FUNCTION es_archive_stream(text, jsonb) IS
    'moves all events of a stream to the archive and appends es_stream_archived; returns its version and position, and how many events were moved';
COMMENT ON FUNCTION es_archive(text, interval, bigint) IS
    'archives streams of a category whose last event is older than an interval; returns how many';
COMMENT ON FUNCTION es_unarchive_stream(text) IS
    'moves the events of a stream back from the archive, to the places that they had; returns how many';
COMMENT ON FUNCTION es_load_archived(text, bigint, bigint) IS
    'returns the events of a stream that are in the archive, in version order, after a version';
COMMENT ON VIEW es_all_events IS 'the events of the log and of the archive, as they are stored';
COMMENT ON COLUMN es_all_events.position IS 'number in the log';
COMMENT ON COLUMN es_all_events.version IS 'number in the stream';
COMMENT ON COLUMN es_all_events.recorded_at IS 'when the event was appended';
COMMENT ON COLUMN es_all_events.occurred_at IS 'when it happened, if the caller gave it';
COMMENT ON COLUMN es_all_events.id IS 'unique id';
COMMENT ON COLUMN es_all_events.stream IS 'stream''s name, category-id';
COMMENT ON COLUMN es_all_events.type IS 'name of what happened';
COMMENT ON COLUMN es_all_events.data IS 'content of the event';
COMMENT ON COLUMN es_all_events.metadata IS 'an object with facts about the event';
COMMENT ON COLUMN es_all_events.tags IS 'names of what the event is about; null: none';
COMMENT ON COLUMN es_all_events.body IS 'bytes that are not JSON; null: none';
COMMENT ON COLUMN es_all_events.archived IS 'whether the event is in the archive';
CREATE FUNCTION es_compact_stream(
    stream text, reducer es_function, upto_version bigint DEFAULT NULL, initial jsonb DEFAULT '{}',
    metadata jsonb DEFAULT NULL, adopt boolean DEFAULT false,
    OUT version bigint, OUT "position" bigint, OUT removed bigint) RETURNS record
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE EXECUTE ON FUNCTION es_compact_stream(text, es_function, bigint, jsonb, jsonb, boolean) FROM PUBLIC;

COMMENT ON FUNCTION es_compact_stream(text, es_function, bigint, jsonb, jsonb, boolean) IS
    'replaces the events of a stream up to a version by one, es_compacted, with the state that they fold to; returns its version and position, and how many events were replaced';
