-- A failure is an event, of a projection or a subscription, or a message of the
-- inbox.
CREATE TABLE es_failures (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    projection      text COLLATE "C",
    subscription    text COLLATE "C",
    partition       int,
    topic           text COLLATE "C",
    group_id        text COLLATE "C",
    event_id        uuid,
    position        bigint,
    stream          text COLLATE "C",
    version         bigint,
    type            text COLLATE "C",
    message_id      text COLLATE "C",
    checksum        text COLLATE "C",
    payload         text,
    metadata        jsonb,
    handler         text,
    receiver        es_role,
    search_path     text,
    sqlstate        text,
    message         text,
    detail          text,
    context         text,
    attempts        int         NOT NULL,
    retry_at        timestamptz,
    first_failed_at timestamptz NOT NULL,
    last_failed_at  timestamptz NOT NULL,
    UNIQUE (projection, position),
    UNIQUE (subscription, position),
    UNIQUE (topic, group_id, checksum),
    CHECK (pg_catalog.num_nonnulls(projection, subscription, topic) = 1),
    CHECK ((topic IS NULL AND pg_catalog.num_nonnulls(event_id, position, stream, version, type) = 5
            AND pg_catalog.num_nonnulls(group_id, message_id, checksum, payload, metadata, handler, receiver, search_path) = 0)
           OR (topic IS NOT NULL AND pg_catalog.num_nulls(event_id, position, stream, version, type) = 5
               AND pg_catalog.num_nulls(group_id, checksum, metadata, handler, receiver, search_path) = 0)),
    CHECK ((subscription IS NULL) = (partition IS NULL))
);
CREATE INDEX es_failures_projection_stream_idx ON es_failures (projection, stream, position);
CREATE INDEX es_failures_subscription_stream_idx ON es_failures (subscription, stream, position);
CREATE INDEX es_failures_projection_retry_idx ON es_failures (projection, retry_at) WHERE retry_at IS NOT NULL;
CREATE INDEX es_failures_stream_idx ON es_failures (stream, position) WHERE stream IS NOT NULL;
CREATE INDEX es_failures_retry_idx ON es_failures (subscription, partition, retry_at);
-- es_health finds the first of what is parked for good among those that wait.
CREATE INDEX es_failures_parked_idx ON es_failures (projection, subscription, topic, group_id, id)
    WHERE retry_at IS NULL AND message IS NOT NULL;

-- Statistics would keep values that an erasure deletes.
ALTER TABLE es_failures ALTER payload SET STATISTICS 0, ALTER message SET STATISTICS 0, ALTER detail SET STATISTICS 0, ALTER context SET STATISTICS 0;
SELECT pg_catalog.pg_extension_config_dump('es_failures', '');
SELECT pg_catalog.pg_extension_config_dump('es_failures_id_seq', '');

CREATE FUNCTION es_retry(failure_id bigint)
    RETURNS bigint AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
CREATE FUNCTION es_discard(failure_id bigint)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE EXECUTE ON FUNCTION es_retry(bigint), es_discard(bigint) FROM PUBLIC;

-- Events that a projection leaves out for good.
CREATE TABLE es_skipped_events (
    projection text COLLATE "C" NOT NULL,
    position   bigint           NOT NULL,
    event_id   uuid             NOT NULL,
    stream     text COLLATE "C" NOT NULL,
    type       text COLLATE "C" NOT NULL,
    reason     text,
    skipped_by name             NOT NULL,
    skipped_at timestamptz      NOT NULL,
    PRIMARY KEY (projection, position)
);

SELECT pg_catalog.pg_extension_config_dump('es_skipped_events', '');

CREATE FUNCTION es_skip_event(projection text, "position" bigint, reason text DEFAULT NULL)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
CREATE FUNCTION es_unskip_event(projection text, "position" bigint)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE EXECUTE ON FUNCTION es_skip_event(text, bigint, text), es_unskip_event(text, bigint) FROM PUBLIC;

COMMENT ON TABLE es_skipped_events IS 'events that projections leave out, by es_skip_event';
COMMENT ON COLUMN es_skipped_events.projection IS 'the projection';
COMMENT ON COLUMN es_skipped_events.position IS 'the event''s position';
COMMENT ON COLUMN es_skipped_events.event_id IS 'the event''s id';
COMMENT ON COLUMN es_skipped_events.stream IS 'the event''s stream';
COMMENT ON COLUMN es_skipped_events.type IS 'the event''s type';
COMMENT ON COLUMN es_skipped_events.reason IS 'why, as the caller gave it';
COMMENT ON COLUMN es_skipped_events.skipped_by IS 'role that called es_skip_event';
COMMENT ON COLUMN es_skipped_events.skipped_at IS 'when it was called';
COMMENT ON FUNCTION es_skip_event(text, bigint, text) IS
    'lets a projection leave out the event at a position, now and in every rebuild';
COMMENT ON FUNCTION es_unskip_event(text, bigint) IS
    'ends es_skip_event: the projection gets the event if it is still ahead, otherwise in a rebuild';
COMMENT ON SEQUENCE es_failures_id_seq IS 'ids of failures';
COMMENT ON TABLE es_failures IS 'failures: events of projections and subscriptions that could not be handled, events of the same streams that wait behind them, and messages of the inbox';
COMMENT ON COLUMN es_failures.id IS 'its id, for es_retry and es_discard';
COMMENT ON COLUMN es_failures.projection IS 'the projection that failed';
COMMENT ON COLUMN es_failures.subscription IS 'the subscription whose consumers failed';
COMMENT ON COLUMN es_failures.partition IS 'the event''s partition in the subscription';
COMMENT ON COLUMN es_failures.topic IS 'the message''s topic';
COMMENT ON COLUMN es_failures.group_id IS 'the message''s group';
COMMENT ON COLUMN es_failures.event_id IS 'the event''s id';
COMMENT ON COLUMN es_failures.position IS 'the event''s position';
COMMENT ON COLUMN es_failures.stream IS 'the event''s stream';
COMMENT ON COLUMN es_failures.version IS 'the event''s version';
COMMENT ON COLUMN es_failures.type IS 'the event''s type';
COMMENT ON COLUMN es_failures.message_id IS 'the message''s id, if it was received with one';
COMMENT ON COLUMN es_failures.checksum IS 'the message''s checksum, by which it is known';
COMMENT ON COLUMN es_failures.payload IS 'the message as it was received; null: it had none';
COMMENT ON COLUMN es_failures.metadata IS 'the message''s metadata';
COMMENT ON COLUMN es_failures.handler IS 'the function that failed to handle it';
COMMENT ON COLUMN es_failures.receiver IS 'role that received the message, with whose privileges the handler runs';
COMMENT ON COLUMN es_failures.search_path IS 'the handler''s search_path: the one in force when the message was received';
COMMENT ON COLUMN es_failures.sqlstate IS 'the last error''s code; null: a consumer gave a reason of its own';
COMMENT ON COLUMN es_failures.message IS 'the last error''s message; null: the event only waits behind an earlier one of its stream';
COMMENT ON COLUMN es_failures.detail IS 'the last error''s detail';
COMMENT ON COLUMN es_failures.context IS 'where the last error was raised';
COMMENT ON COLUMN es_failures.attempts IS 'how often it was tried';
COMMENT ON COLUMN es_failures.retry_at IS 'when it is tried or delivered again; null: it is parked, or waits behind another';
COMMENT ON COLUMN es_failures.first_failed_at IS 'when it was parked';
COMMENT ON COLUMN es_failures.last_failed_at IS 'when it was last tried';
COMMENT ON FUNCTION es_retry(bigint) IS
    'retries a failure: the parked events of its stream in order, or the message; returns how many were handled or will be delivered';
COMMENT ON FUNCTION es_discard(bigint) IS
    'discards a failure; events that only waited behind it go on';
