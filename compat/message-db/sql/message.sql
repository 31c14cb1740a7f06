CREATE TYPE message AS (
    id varchar, stream_name varchar, type varchar, "position" bigint, global_position bigint,
    data varchar, metadata varchar, "time" timestamp);

-- The log as message-db's table. JSON's null stands for data that is null, which the log has not.
CREATE VIEW messages WITH (security_invoker = true) AS
    SELECT e.position AS global_position, e.version - 1 AS "position",
           coalesce(e.occurred_at, e.recorded_at) AT TIME ZONE INTERVAL '0' AS "time", e.stream AS stream_name, e.type,
           nullif(es_upcast_data(e.position, e.id, e.stream, e.type, e.data, e.metadata), 'null') AS data,
           es_upcast_metadata(e.position, e.id, e.stream, e.type, e.data, e.metadata) AS metadata, e.id
      FROM es_events e;
ALTER VIEW messages ALTER COLUMN "time" SET DEFAULT now() AT TIME ZONE 'utc';
ALTER VIEW messages ALTER COLUMN id SET DEFAULT gen_random_uuid();

-- Reads as rows of the view, but that null data is JSON's null. The planner inlines them, and finds their names now.
-- Where a text is made of the data, it is faster to look for null in the text.
CREATE FUNCTION stream_messages(stream_name varchar, "position" bigint) RETURNS SETOF messages
    LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
    SELECT e.position, e.version - 1, coalesce(e.occurred_at, e.recorded_at) AT TIME ZONE INTERVAL '0',
           e.stream, e.type, e.data, e.metadata, e.id
      FROM es_load(stream_name, stream_messages."position") e;
END;

CREATE FUNCTION category_messages(category varchar, "position" bigint) RETURNS SETOF messages
    LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
    SELECT e.position, e.version - 1, coalesce(e.occurred_at, e.recorded_at) AT TIME ZONE INTERVAL '0',
           e.stream, e.type, e.data, e.metadata, e.id
      FROM es_read_category(category, greatest(category_messages."position", 1) - 1) e;
END;

CREATE FUNCTION last_message(stream_name varchar, type varchar) RETURNS SETOF messages
    LANGUAGE sql STABLE PARALLEL RESTRICTED ROWS 1
BEGIN ATOMIC
    SELECT e.position, e.version - 1, coalesce(e.occurred_at, e.recorded_at) AT TIME ZONE INTERVAL '0',
           e.stream, e.type, e.data, e.metadata, e.id
      FROM es_last_event(stream_name, type) e;
END;

CREATE FUNCTION last_position(stream_name varchar) RETURNS SETOF bigint
    LANGUAGE sql STABLE PARALLEL SAFE ROWS 1
BEGIN ATOMIC
    SELECT e.version - 1 FROM es_events e WHERE e.stream = stream_name ORDER BY e.version DESC LIMIT 1;
END;

COMMENT ON TYPE message IS 'a message as the functions return it';
COMMENT ON VIEW messages IS 'the messages; INSERT appends one at its position';
COMMENT ON FUNCTION stream_messages(varchar, bigint) IS 'part of get_stream_messages: the messages from a position on';
COMMENT ON FUNCTION category_messages(varchar, bigint) IS
    'part of get_category_messages: the messages from a global position on, up to the horizon';
COMMENT ON FUNCTION last_message(varchar, varchar) IS 'part of get_last_stream_message';
COMMENT ON FUNCTION last_position(varchar) IS 'part of stream_version';
