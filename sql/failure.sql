CREATE TABLE es_failures (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    projection      text COLLATE "C" NOT NULL,
    event_id        uuid        NOT NULL,
    position        bigint      NOT NULL,
    stream          text COLLATE "C" NOT NULL,
    type            text COLLATE "C" NOT NULL,
    sqlstate        text,
    message         text,
    detail          text,
    context         text,
    attempts        int         NOT NULL,
    first_failed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_failed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (projection, position)
);
CREATE INDEX es_failures_stream_idx ON es_failures (projection, stream, position);

SELECT pg_catalog.pg_extension_config_dump('es_failures', '');
SELECT pg_catalog.pg_extension_config_dump('es_failures_id_seq', '');

CREATE FUNCTION es_failures(projection text DEFAULT NULL, stream text DEFAULT NULL, type text DEFAULT NULL,
                            max_count bigint DEFAULT 20, skip bigint DEFAULT 0)
    RETURNS SETOF es_failures LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT f.*
      FROM es_failures f
     WHERE (es_failures.projection IS NULL OR f.projection = es_failures.projection)
       AND (es_failures.stream IS NULL OR f.stream = es_failures.stream)
       AND (es_failures.type IS NULL OR f.type = es_failures.type)
     ORDER BY f.last_failed_at DESC, f.id DESC
     LIMIT max_count OFFSET skip;
END;

CREATE FUNCTION es_retry(failure_id bigint)
    RETURNS bigint AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
CREATE FUNCTION es_discard(failure_id bigint)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
REVOKE EXECUTE ON FUNCTION es_retry(bigint), es_discard(bigint) FROM PUBLIC;

COMMENT ON SEQUENCE es_failures_id_seq IS 'ids of failures';
COMMENT ON TABLE es_failures IS 'events that a projection could not handle, and those of the same stream that wait behind them';
COMMENT ON COLUMN es_failures.id IS 'what es_retry and es_discard take';
COMMENT ON COLUMN es_failures.projection IS 'the projection that failed';
COMMENT ON COLUMN es_failures.event_id IS 'the event''s id';
COMMENT ON COLUMN es_failures.position IS 'the event''s place in the log';
COMMENT ON COLUMN es_failures.stream IS 'the event''s stream';
COMMENT ON COLUMN es_failures.type IS 'the event''s type';
COMMENT ON COLUMN es_failures.sqlstate IS 'the last error''s code; null: the event only waits behind an earlier one of its stream';
COMMENT ON COLUMN es_failures.message IS 'the last error''s message';
COMMENT ON COLUMN es_failures.detail IS 'the last error''s detail';
COMMENT ON COLUMN es_failures.context IS 'where the last error was raised';
COMMENT ON COLUMN es_failures.attempts IS 'how often the event was tried';
COMMENT ON COLUMN es_failures.first_failed_at IS 'when it was set aside';
COMMENT ON COLUMN es_failures.last_failed_at IS 'when it was tried last';
COMMENT ON FUNCTION es_failures(text, text, text, bigint, bigint) IS
    'failures of a projection, a stream or a type, the newest first, at most so many after skipping some';
COMMENT ON FUNCTION es_retry(bigint) IS
    'tries the parked events of a failure''s stream again, in order; returns how many were handled';
COMMENT ON FUNCTION es_discard(bigint) IS
    'gives an event up; those that only waited behind it are handled';
