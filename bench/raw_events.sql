-- A table of the same columns and indexes as the log, for comparison.
CREATE SEQUENCE raw_position CACHE 1;
CREATE TABLE raw_events (
    position    bigint      NOT NULL DEFAULT nextval('raw_position') PRIMARY KEY,
    version     bigint      NOT NULL,
    next_xid    xid8        NOT NULL DEFAULT '3',
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    occurred_at timestamptz,
    id          uuid        NOT NULL DEFAULT es_uuid7() UNIQUE,
    stream      text COLLATE "C" NOT NULL,
    type        text COLLATE "C" NOT NULL,
    data        jsonb       NOT NULL,
    metadata    jsonb,
    UNIQUE (stream, version)
);
CREATE INDEX ON raw_events (es_category(stream), position);
