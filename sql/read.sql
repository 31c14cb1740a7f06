-- Reads are plain SQL with the caller's rights, in the form that the planner
-- inlines: no SECURITY DEFINER, no SET, not STRICT.  Nor is there a LIMIT,
-- which would keep an outer WHERE outside: max_count is turned into a bound.
-- Versions have no gaps, so there it is a sum; in the log it is the position
-- of the last event that is wanted, NULL (no bound) if there are fewer.
-- greatest() and least() pass over nulls.
--
-- Events come as they would be written today. While no upcaster is defined the
-- planner drops both functions, see event_type.sql.

CREATE FUNCTION es_load(stream text, after_version bigint DEFAULT 0, max_count bigint DEFAULT NULL)
    RETURNS SETOF es_events LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
    SELECT e.position, e.version, e.next_xid, e.recorded_at, e.occurred_at, e.id, e.stream, e.type,
           es_upcast_data(e.position, e.type, e.data, e.metadata) AS data,
           es_upcast_metadata(e.position, e.type, e.data, e.metadata) AS metadata
      FROM es_events e
     WHERE e.stream = es_load.stream
       AND e.version > greatest(after_version, 0)
       AND e.version <= greatest(after_version, 0)
                        + least(max_count, 9223372036854775807 - greatest(after_version, 0))
     ORDER BY e.version;
END;

CREATE FUNCTION es_load_backward(stream text, before_version bigint DEFAULT NULL, max_count bigint DEFAULT NULL)
    RETURNS SETOF es_events LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
    SELECT e.position, e.version, e.next_xid, e.recorded_at, e.occurred_at, e.id, e.stream, e.type,
           es_upcast_data(e.position, e.type, e.data, e.metadata) AS data,
           es_upcast_metadata(e.position, e.type, e.data, e.metadata) AS metadata
      FROM es_events e
     WHERE e.stream = es_load_backward.stream
       AND e.version < coalesce(before_version, 9223372036854775807)
       AND e.version > CASE WHEN max_count IS NULL THEN 0
                       ELSE (SELECT l.version
                               FROM es_events l
                              WHERE l.stream = es_load_backward.stream
                                AND l.version < coalesce(before_version, 9223372036854775807)
                              ORDER BY l.version DESC
                              LIMIT 1)
                            - greatest(max_count, 0) END
     ORDER BY e.version DESC;
END;

CREATE FUNCTION es_read(after_position bigint DEFAULT 0, max_count bigint DEFAULT NULL)
    RETURNS SETOF es_events LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
    SELECT e.position, e.version, e.next_xid, e.recorded_at, e.occurred_at, e.id, e.stream, e.type,
           es_upcast_data(e.position, e.type, e.data, e.metadata) AS data,
           es_upcast_metadata(e.position, e.type, e.data, e.metadata) AS metadata
      FROM es_events e
     WHERE e.position > greatest(after_position, 0)
       AND e.position <= least(
               (SELECT es_horizon()),
               CASE WHEN max_count > 0 THEN
                   (SELECT l.position
                      FROM es_events l
                     WHERE l.position > greatest(after_position, 0)
                     ORDER BY l.position
                    OFFSET max_count - 1 LIMIT 1)
               WHEN max_count <= 0 THEN 0 END)
     ORDER BY e.position;
END;

CREATE FUNCTION es_read_category(category text, after_position bigint DEFAULT 0,
                                 max_count bigint DEFAULT NULL, types text[] DEFAULT NULL)
    RETURNS SETOF es_events LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
    SELECT e.position, e.version, e.next_xid, e.recorded_at, e.occurred_at, e.id, e.stream, e.type,
           es_upcast_data(e.position, e.type, e.data, e.metadata) AS data,
           es_upcast_metadata(e.position, e.type, e.data, e.metadata) AS metadata
      FROM es_events e
     WHERE es_category(e.stream) = category
       AND (types IS NULL OR e.type = ANY (types))
       AND e.position > greatest(after_position, 0)
       AND e.position <= least(
               (SELECT es_horizon()),
               CASE WHEN max_count > 0 THEN
                   (SELECT l.position
                      FROM es_events l
                     WHERE es_category(l.stream) = category
                       AND (types IS NULL OR l.type = ANY (types))
                       AND l.position > greatest(after_position, 0)
                     ORDER BY l.position
                    OFFSET max_count - 1 LIMIT 1)
               WHEN max_count <= 0 THEN 0 END)
     ORDER BY e.position;
END;

CREATE FUNCTION es_stream_version(stream text) RETURNS bigint
    LANGUAGE sql STABLE PARALLEL SAFE
RETURN coalesce((SELECT max(e.version) FROM es_events e WHERE e.stream = es_stream_version.stream), 0);

CREATE FUNCTION es_last_event(stream text, type text DEFAULT NULL) RETURNS es_events
    LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
    SELECT e.position, e.version, e.next_xid, e.recorded_at, e.occurred_at, e.id, e.stream, e.type,
           es_upcast_data(e.position, e.type, e.data, e.metadata) AS data,
           es_upcast_metadata(e.position, e.type, e.data, e.metadata) AS metadata
      FROM es_events e
     WHERE e.stream = es_last_event.stream
       AND (es_last_event.type IS NULL OR e.type = es_last_event.type)
     ORDER BY e.version DESC
     LIMIT 1;
END;

CREATE FUNCTION es_event(id uuid) RETURNS es_events
    LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
    SELECT e.position, e.version, e.next_xid, e.recorded_at, e.occurred_at, e.id, e.stream, e.type,
           es_upcast_data(e.position, e.type, e.data, e.metadata) AS data,
           es_upcast_metadata(e.position, e.type, e.data, e.metadata) AS metadata
      FROM es_events e
     WHERE e.id = es_event.id;
END;

COMMENT ON FUNCTION es_load(text, bigint, bigint) IS
    'events of a stream in version order, after a version, at most so many';
COMMENT ON FUNCTION es_load_backward(text, bigint, bigint) IS
    'events of a stream from the last one backward, before a version, at most so many';
COMMENT ON FUNCTION es_read(bigint, bigint) IS
    'events of the log in position order up to the horizon, after a position, at most so many';
COMMENT ON FUNCTION es_read_category(text, bigint, bigint, text[]) IS
    'events of a category in position order up to the horizon, after a position, at most so many, of these types';
COMMENT ON FUNCTION es_stream_version(text) IS
    'version of a stream: that of its last event, 0 for no such stream';
COMMENT ON FUNCTION es_last_event(text, text) IS
    'last event of a stream, or the last of a type; null if there is none';
COMMENT ON FUNCTION es_event(uuid) IS
    'event with this id; null if there is none';
