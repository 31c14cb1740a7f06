-- es_receive inserts the row of a message first, so that a transaction that
-- receives it at the same moment waits at the unique key. It fills in what the
-- handler returns afterwards. That update must touch no index. So no index has
-- these columns, which would cost every message more than a rare listing gains,
-- and a page keeps some free space. At 90 or less a page would be left before the
-- dead rows on it are pruned.
CREATE TABLE es_inbox (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic         text COLLATE "C" NOT NULL,
    group_id      text COLLATE "C" NOT NULL,
    entity_id     text,
    event_time    timestamptz,
    event_type    text,
    event_version text,
    message_id    text COLLATE "C",
    checksum      text COLLATE "C" NOT NULL,
    payload       text,
    metadata      jsonb       NOT NULL DEFAULT '{}',
    position      bigint,
    received_at   timestamptz DEFAULT clock_timestamp(),
    UNIQUE (topic, group_id, checksum)
) WITH (fillfactor = 95);

-- Statistics would keep values that an erasure deletes.
ALTER TABLE es_inbox ALTER payload SET STATISTICS 0;
SELECT pg_catalog.pg_extension_config_dump('es_inbox', '');
SELECT pg_catalog.pg_extension_config_dump('es_inbox_id_seq', '');

CREATE TYPE es_ack_event AS (
    entity_id     text,
    event_time    timestamptz,
    event_type    text,
    event_version text,
    stream        text,
    expected      es_expected_version,
    tags          text[]
);

-- In C: SQL has no immutable function that makes JSON of a text.
CREATE FUNCTION es_checksum(payload text)
    RETURNS text AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION es_receive(
    topic text, group_id text, payload text, handler es_function,
    metadata jsonb DEFAULT '{}', max_retries bigint DEFAULT NULL, retry_count bigint DEFAULT 0,
    message_id text DEFAULT NULL)
    RETURNS text AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE EXECUTE ON FUNCTION es_receive(text, text, text, es_function, jsonb, bigint, bigint, text) FROM PUBLIC;

CREATE FUNCTION es_inbox(entity_id text DEFAULT NULL, topic text DEFAULT NULL, group_id text DEFAULT NULL,
                         event_type text DEFAULT NULL, max_count bigint DEFAULT 20, skip bigint DEFAULT 0)
    RETURNS SETOF es_inbox LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT i.*
      FROM es_inbox i
     WHERE (es_inbox.entity_id IS NULL OR i.entity_id = es_inbox.entity_id)
       AND (es_inbox.topic IS NULL OR i.topic = es_inbox.topic)
       AND (es_inbox.group_id IS NULL OR i.group_id = es_inbox.group_id)
       AND (es_inbox.event_type IS NULL OR i.event_type = es_inbox.event_type)
     ORDER BY i.event_time DESC NULLS LAST, i.received_at DESC NULLS LAST, i.id DESC
     LIMIT max_count OFFSET skip;
END;

COMMENT ON SEQUENCE es_inbox_id_seq IS 'ids of messages; with gaps';
COMMENT ON TABLE es_inbox IS 'messages that were received from outside and acknowledged, each once; es_receive writes it';
COMMENT ON COLUMN es_inbox.id IS 'number of the message';
COMMENT ON COLUMN es_inbox.topic IS 'where it came from, of at most 1024 bytes';
COMMENT ON COLUMN es_inbox.group_id IS 'for which group of receivers it was received, of at most 1024 bytes';
COMMENT ON COLUMN es_inbox.entity_id IS 'what it is about, as its handler returned';
COMMENT ON COLUMN es_inbox.event_time IS 'when it happened, as its handler returned';
COMMENT ON COLUMN es_inbox.event_type IS 'what happened, as its handler returned';
COMMENT ON COLUMN es_inbox.event_version IS 'version of the message''s format, as its handler returned';
COMMENT ON COLUMN es_inbox.message_id IS 'its id, if it was received with one, of at most 1024 bytes';
COMMENT ON COLUMN es_inbox.checksum IS 'what it is known by: es_checksum of the payload, or a checksum of the message_id';
COMMENT ON COLUMN es_inbox.payload IS 'the message as it was received; null: it had none, or its event has it encrypted';
COMMENT ON COLUMN es_inbox.metadata IS 'what is known about it, an object';
COMMENT ON COLUMN es_inbox.position IS 'position of the event that was appended for it; null: none was';
COMMENT ON COLUMN es_inbox.received_at IS 'when it was received, or retried with success';
COMMENT ON TYPE es_ack_event IS 'what a handler of es_receive returns to acknowledge a message';
COMMENT ON COLUMN es_ack_event.entity_id IS 'what the message is about';
COMMENT ON COLUMN es_ack_event.event_time IS 'when it happened';
COMMENT ON COLUMN es_ack_event.event_type IS 'what happened';
COMMENT ON COLUMN es_ack_event.event_version IS 'version of the message''s format';
COMMENT ON COLUMN es_ack_event.stream IS 'stream to which the message is appended as an event; null: none';
COMMENT ON COLUMN es_ack_event.expected IS 'version that the stream is expected at; null: any';
COMMENT ON COLUMN es_ack_event.tags IS 'tags of that event; null: none';
COMMENT ON FUNCTION es_checksum(text) IS
    'returns the MD5 of a text as a JSON string, by which a message without an id is known';
COMMENT ON FUNCTION es_receive(text, text, text, es_function, jsonb, bigint, bigint, text) IS
    'hands a message to its handler, once; returns acknowledged, skipped, duplicate or failed';
COMMENT ON FUNCTION es_inbox(text, text, text, text, bigint, bigint) IS
    'lists messages of an entity, a topic, a group or a type, the newest first';
