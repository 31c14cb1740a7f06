-- An event as readers, handlers, reducers and consumers get it. The table
-- es_events may have other columns, in another order.
CREATE TYPE es_recorded_event AS (
    position    bigint,
    version     bigint,
    recorded_at timestamptz,
    occurred_at timestamptz,
    id          uuid,
    stream      text COLLATE "C",
    type        text COLLATE "C",
    data        jsonb,
    metadata    jsonb,
    tags        text[] COLLATE "C",
    body        bytea
);

-- Lets a row of es_events serve as an event. The function is not in SQL, as a parsed
-- body that names columns of a row would keep es_events from getting others.
CREATE FUNCTION es_recorded_event(event es_events) RETURNS es_recorded_event
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE CAST (es_events AS es_recorded_event) WITH FUNCTION es_recorded_event(es_events) AS IMPLICIT;

-- Events of earlier schema versions are upcast. While no upcaster is defined the
-- planner replaces calls of these functions by their argument. Their cost keeps
-- them above a sort and a limit.
CREATE FUNCTION es_upcast_support(internal) RETURNS internal
    AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
CREATE FUNCTION es_upcast(event es_recorded_event) RETURNS es_recorded_event
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED
    COST 100 SUPPORT es_upcast_support;
CREATE FUNCTION es_upcast_data("position" bigint, id uuid, stream text, type text, data jsonb, metadata jsonb) RETURNS jsonb
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL RESTRICTED
    COST 100 SUPPORT es_upcast_support;
CREATE FUNCTION es_upcast_metadata("position" bigint, id uuid, stream text, type text, data jsonb, metadata jsonb) RETURNS jsonb
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL RESTRICTED
    COST 100 SUPPORT es_upcast_support;

-- Reads are plain SQL with the caller's rights, such that the planner inlines
-- them: no SECURITY DEFINER, no SET, not STRICT.  There is no LIMIT either, since
-- an outer WHERE could not be moved below it: max_count becomes a bound.
-- Versions have no gaps from the first that is kept, so that for a stream it is a sum.  For the log it is the
-- position of the last event to be read, NULL (no bound) if there are fewer.
-- greatest() and least() ignore nulls.

-- Makes the planner walk the right index (src/read/by_index.c).
CREATE FUNCTION es_by_index_support(internal) RETURNS internal
    AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
CREATE FUNCTION es_by_index(value text, wanted text) RETURNS boolean
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE
    COST 4000 SUPPORT es_by_index_support;
-- Leaves out what excludes no version, as an index scan compares it for each event.
CREATE FUNCTION es_by_version(version bigint, after bigint, upto bigint) RETURNS boolean
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE
    SUPPORT es_by_index_support;

-- Where versions begin in a stream: after this one, or, if events were removed from it, not before
-- the first that is kept.  While nothing was removed from the store the planner replaces it by its argument.
CREATE FUNCTION es_kept_after_support(internal) RETURNS internal
    AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
CREATE FUNCTION es_kept_after(stream text, after_version bigint) RETURNS bigint
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT PARALLEL SAFE SUPPORT es_kept_after_support;

CREATE FUNCTION es_load(stream text, after_version bigint DEFAULT 0, max_count bigint DEFAULT NULL)
    RETURNS SETOF es_recorded_event LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
    SELECT e.position, e.version, e.recorded_at, e.occurred_at, e.id, e.stream, e.type,
           es_upcast_data(e.position, e.id, e.stream, e.type, e.data, e.metadata) AS data,
           es_upcast_metadata(e.position, e.id, e.stream, e.type, e.data, e.metadata) AS metadata,
           e.tags, e.body
      FROM es_events e
     WHERE e.stream = es_load.stream
       AND es_by_index(e.stream, es_load.stream)
       AND es_by_version(e.version, greatest(after_version, 0),
               CASE WHEN max_count IS NULL THEN 9223372036854775807
               ELSE es_kept_after(es_load.stream, greatest(after_version, 0))
                    + least(max_count, 9223372036854775807 - es_kept_after(es_load.stream, greatest(after_version, 0))) END)
     ORDER BY e.version;
END;

CREATE FUNCTION es_load_backward(stream text, before_version bigint DEFAULT NULL, max_count bigint DEFAULT NULL)
    RETURNS SETOF es_recorded_event LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
    SELECT e.position, e.version, e.recorded_at, e.occurred_at, e.id, e.stream, e.type,
           es_upcast_data(e.position, e.id, e.stream, e.type, e.data, e.metadata) AS data,
           es_upcast_metadata(e.position, e.id, e.stream, e.type, e.data, e.metadata) AS metadata,
           e.tags, e.body
      FROM es_events e
     WHERE e.stream = es_load_backward.stream
       AND es_by_index(e.stream, es_load_backward.stream)
       AND es_by_version(e.version,
               CASE WHEN max_count IS NULL THEN 0
               ELSE (SELECT l.version
                       FROM es_events l
                      WHERE l.stream = es_load_backward.stream
                        AND l.version < coalesce(before_version, 9223372036854775807)
                      ORDER BY l.version DESC
                      LIMIT 1)
                    - greatest(max_count, 0) END,
               CASE WHEN before_version IS NULL THEN 9223372036854775807
               ELSE greatest(before_version, 1) - 1 END)
     ORDER BY e.version DESC;
END;

-- With a query, the positions of the events that match (src/read/query_positions.c).
CREATE FUNCTION es_by_query_support(internal) RETURNS internal
    AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
CREATE FUNCTION es_by_query("position" bigint, query jsonb, positions bigint[]) RETURNS boolean
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE LEAKPROOF PARALLEL SAFE
    COST 4000 SUPPORT es_by_query_support;
CREATE FUNCTION es_matching_positions(query jsonb, after_position bigint, max_count bigint) RETURNS bigint[]
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL RESTRICTED COST 1000;

CREATE FUNCTION es_read(after_position bigint DEFAULT 0, max_count bigint DEFAULT NULL, query jsonb DEFAULT NULL)
    RETURNS SETOF es_recorded_event LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
    SELECT e.position, e.version, e.recorded_at, e.occurred_at, e.id, e.stream, e.type,
           es_upcast_data(e.position, e.id, e.stream, e.type, e.data, e.metadata) AS data,
           es_upcast_metadata(e.position, e.id, e.stream, e.type, e.data, e.metadata) AS metadata,
           e.tags, e.body
      FROM es_events e
     WHERE es_by_query(e.position, query, (SELECT es_matching_positions(query, after_position, max_count)))
       AND e.position > greatest(after_position, 0)
       AND e.position <= least(
               CASE WHEN query IS NULL THEN (SELECT es_horizon()) ELSE 9223372036854775807 END,
               CASE WHEN query IS NOT NULL THEN NULL
               WHEN max_count > 0 THEN
                   (SELECT l.position
                      FROM es_events l
                     WHERE l.position > greatest(after_position, 0)
                     ORDER BY l.position
                    OFFSET max_count - 1 LIMIT 1)
               WHEN max_count <= 0 THEN 0 END)
     ORDER BY e.position;
END;

-- The position is compared as the result of a SELECT, so that it changes no estimate: a statement
-- that names a large category would otherwise be planned anew for each page, which takes as long
-- as reading it.
CREATE FUNCTION es_read_category(category text, after_position bigint DEFAULT 0,
                                 max_count bigint DEFAULT NULL, types text[] DEFAULT NULL)
    RETURNS SETOF es_recorded_event LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
    SELECT e.position, e.version, e.recorded_at, e.occurred_at, e.id, e.stream, e.type,
           es_upcast_data(e.position, e.id, e.stream, e.type, e.data, e.metadata) AS data,
           es_upcast_metadata(e.position, e.id, e.stream, e.type, e.data, e.metadata) AS metadata,
           e.tags, e.body
      FROM es_events e
     WHERE es_category(e.stream) = category
       AND es_by_index(es_category(e.stream), category)
       AND (types IS NULL OR e.type = ANY (types)
            OR e.type IN ('es_stream_deleted', 'es_compacted', 'es_stream_archived') AND e.data -> 'types'::text ?| types)
       AND e.position > (SELECT greatest(after_position, 0))
       AND e.position <= least(
               (SELECT es_horizon()),
               CASE WHEN max_count > 0 THEN
                   (SELECT l.position
                      FROM es_events l
                     WHERE es_category(l.stream) = category
                       AND es_by_index(es_category(l.stream), category)
                       AND (types IS NULL OR l.type = ANY (types)
                            OR l.type IN ('es_stream_deleted', 'es_compacted', 'es_stream_archived')
                               AND l.data -> 'types'::text ?| types)
                       AND l.position > (SELECT greatest(after_position, 0))
                     ORDER BY l.position
                    OFFSET max_count - 1 LIMIT 1)
               WHEN max_count <= 0 THEN 0 END)
     ORDER BY e.position;
END;

-- In C, with a snapshot that is taken after the call has waited for appends.
CREATE FUNCTION es_query(query jsonb, after_position bigint DEFAULT 0, max_count bigint DEFAULT NULL,
                         backward boolean DEFAULT false, before_position bigint DEFAULT NULL)
    RETURNS SETOF es_recorded_event
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 100;

COMMENT ON FUNCTION es_query(jsonb, bigint, bigint, boolean, bigint) IS
    'returns the events that match a query, in position order; no event with a lower position comes later';

-- For statements of the extension, as its owner: which events a query finds must not be
-- asked by others without a check of rights.
CREATE FUNCTION es_source_positions(
    query jsonb, categories text[], types text[], after_position bigint, upto_position bigint, max_count bigint)
    RETURNS bigint[] AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL RESTRICTED;
REVOKE EXECUTE ON FUNCTION es_source_positions(jsonb, text[], text[], bigint, bigint, bigint) FROM PUBLIC;

COMMENT ON FUNCTION es_source_positions(jsonb, text[], text[], bigint, bigint, bigint) IS
    'part of es_health and of projections: positions of the next events that match a query';

CREATE FUNCTION es_stream_version(stream text) RETURNS bigint
    LANGUAGE sql STABLE PARALLEL SAFE
RETURN coalesce((SELECT max(e.version) FROM es_events e WHERE e.stream = es_stream_version.stream), 0);

-- These return no row for an event that does not exist, rather than one of nulls. They
-- are inlined as well.
CREATE FUNCTION es_last_event(stream text, type text DEFAULT NULL) RETURNS SETOF es_recorded_event
    LANGUAGE sql STABLE PARALLEL RESTRICTED ROWS 1
BEGIN ATOMIC
    SELECT e.position, e.version, e.recorded_at, e.occurred_at, e.id, e.stream, e.type,
           es_upcast_data(e.position, e.id, e.stream, e.type, e.data, e.metadata) AS data,
           es_upcast_metadata(e.position, e.id, e.stream, e.type, e.data, e.metadata) AS metadata,
           e.tags, e.body
      FROM es_events e
     WHERE e.stream = es_last_event.stream
       AND (es_last_event.type IS NULL OR e.type = es_last_event.type)
     ORDER BY e.version DESC
     LIMIT 1;
END;

CREATE FUNCTION es_event(id uuid) RETURNS SETOF es_recorded_event
    LANGUAGE sql STABLE PARALLEL RESTRICTED ROWS 1
BEGIN ATOMIC
    SELECT e.position, e.version, e.recorded_at, e.occurred_at, e.id, e.stream, e.type,
           es_upcast_data(e.position, e.id, e.stream, e.type, e.data, e.metadata) AS data,
           es_upcast_metadata(e.position, e.id, e.stream, e.type, e.data, e.metadata) AS metadata,
           e.tags, e.body
      FROM es_events e
     WHERE e.id = es_event.id;
END;

COMMENT ON TYPE es_recorded_event IS 'an event of the log, as the functions that read return it, and as handlers and reducers get it';
COMMENT ON COLUMN es_recorded_event.position IS 'place in the log; ascending, with gaps where appends were rolled back';
COMMENT ON COLUMN es_recorded_event.version IS 'place in the stream, from 1 without gaps';
COMMENT ON COLUMN es_recorded_event.recorded_at IS 'when the event was appended';
COMMENT ON COLUMN es_recorded_event.occurred_at IS 'when it happened, if the caller gave it';
COMMENT ON COLUMN es_recorded_event.id IS 'unique id';
COMMENT ON COLUMN es_recorded_event.stream IS 'stream''s name, category-id';
COMMENT ON COLUMN es_recorded_event.type IS 'what happened';
COMMENT ON COLUMN es_recorded_event.data IS 'data, as of the current schema version of its type';
COMMENT ON COLUMN es_recorded_event.metadata IS 'an object: correlation, causation, user, schema_version';
COMMENT ON COLUMN es_recorded_event.tags IS 'names of what the event is about, sorted and distinct; null: none';
COMMENT ON COLUMN es_recorded_event.body IS 'bytes that are not JSON; null: none';
COMMENT ON FUNCTION es_recorded_event(es_events) IS
    'returns a row of es_events as an event, as it is stored';
COMMENT ON CAST (es_events AS es_recorded_event) IS 'row of es_events as an event, as it is stored';
COMMENT ON FUNCTION es_by_index_support(internal) IS
    'planner support: makes conditions of indexes of es_by_index and es_by_version';
COMMENT ON FUNCTION es_by_index(text, text) IS
    'whether two texts are the same bytes; costly, so that the planner walks an index on the first';
COMMENT ON FUNCTION es_by_version(bigint, bigint, bigint) IS
    'whether a version lies between two bounds; the planner leaves out what is always true';
COMMENT ON FUNCTION es_kept_after_support(internal) IS 'planner support: drops calls of es_kept_after while nothing was removed';
COMMENT ON FUNCTION es_kept_after(text, bigint) IS
    'returns a version, or the one before the first that is kept of the stream if that is higher';
COMMENT ON FUNCTION es_upcast_support(internal) IS 'planner support: drops calls of es_upcast while no upcaster is defined';
COMMENT ON FUNCTION es_upcast(es_recorded_event) IS
    'returns an event as of the current schema version of its type';
COMMENT ON FUNCTION es_upcast_data(bigint, uuid, text, text, jsonb, jsonb) IS 'data of an event as of the current schema version of its type';
COMMENT ON FUNCTION es_upcast_metadata(bigint, uuid, text, text, jsonb, jsonb) IS
    'metadata of an event, with the current schema version of its type as schema_version';
COMMENT ON FUNCTION es_load(text, bigint, bigint) IS
    'returns the events of a stream in version order, after a version';
COMMENT ON FUNCTION es_load_backward(text, bigint, bigint) IS
    'returns the events of a stream in reverse version order, before a version';
COMMENT ON FUNCTION es_by_query_support(internal) IS
    'planner support: makes a condition of the index on positions of es_by_query';
COMMENT ON FUNCTION es_by_query(bigint, jsonb, bigint[]) IS
    'whether a query is null or a position is one of those that match it';
COMMENT ON FUNCTION es_matching_positions(jsonb, bigint, bigint) IS
    'returns positions up to the horizon of events that match a query and are not hidden';
COMMENT ON FUNCTION es_read(bigint, bigint, jsonb) IS
    'returns the events of the log, or those that match a query, in position order up to the horizon, after a position';
COMMENT ON FUNCTION es_read_category(text, bigint, bigint, text[]) IS
    'returns the events of a category, of these types, in position order up to the horizon, after a position';
COMMENT ON FUNCTION es_stream_version(text) IS
    'returns the version of the last event of a stream; 0 if there is no such stream';
COMMENT ON FUNCTION es_last_event(text, text) IS
    'returns the last event of a stream, or its last event of a type; no row if there is none';
COMMENT ON FUNCTION es_event(uuid) IS
    'returns the event with this id; no row if there is none';
