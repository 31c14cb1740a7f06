CREATE SEQUENCE es_position AS bigint CACHE 1;

CREATE TABLE es_events (
    position    bigint      NOT NULL PRIMARY KEY,
    version     bigint      NOT NULL,
    fence       xid8        NOT NULL,
    recorded_at timestamptz NOT NULL,
    occurred_at timestamptz,
    id          uuid        NOT NULL UNIQUE,
    stream      text COLLATE "C" NOT NULL,
    type        text COLLATE "C" NOT NULL,
    data        jsonb       NOT NULL,
    metadata    jsonb,
    UNIQUE (stream, version)
);
CREATE INDEX es_events_category_position_idx ON es_events (es_category(stream), position);

SELECT pg_catalog.pg_extension_config_dump('es_events', '');
SELECT pg_catalog.pg_extension_config_dump('es_position', '');

-- A row that is not appended but inserted, from a dump say, brings a fence of
-- another cluster.
CREATE FUNCTION es_events_fence() RETURNS trigger
    AS 'MODULE_PATHNAME' LANGUAGE C;
REVOKE EXECUTE ON FUNCTION es_events_fence() FROM PUBLIC;
CREATE TRIGGER es_events_fence BEFORE INSERT ON es_events
    FOR EACH ROW EXECUTE FUNCTION es_events_fence();
ALTER TABLE es_events ENABLE ALWAYS TRIGGER es_events_fence;

-- The log is only appended to.
CREATE FUNCTION es_events_refuse() RETURNS trigger
    AS 'MODULE_PATHNAME' LANGUAGE C;
REVOKE EXECUTE ON FUNCTION es_events_refuse() FROM PUBLIC;
CREATE TRIGGER es_events_refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON es_events
    FOR EACH STATEMENT EXECUTE FUNCTION es_events_refuse();
ALTER TABLE es_events ENABLE ALWAYS TRIGGER es_events_refuse;

COMMENT ON SEQUENCE es_position IS 'positions of events in the log; CACHE must stay 1';
COMMENT ON TABLE es_events IS 'the log: every event, in one table; written by es_append, es_append_batch and es_import';
COMMENT ON COLUMN es_events.position IS 'place in the log; ascending, with gaps where appends were rolled back';
COMMENT ON COLUMN es_events.version IS 'place in the stream, from 1 without gaps';
COMMENT ON COLUMN es_events.fence IS 'next transaction id at a moment after the position was drawn; es_horizon() needs it';
COMMENT ON COLUMN es_events.recorded_at IS 'when the event was appended';
COMMENT ON COLUMN es_events.occurred_at IS 'when it happened, if the caller knows better';
COMMENT ON COLUMN es_events.id IS 'unique id: the caller''s, or a UUID of version 7';
COMMENT ON COLUMN es_events.stream IS 'stream''s name, category-id, of at most 2048 bytes';
COMMENT ON COLUMN es_events.type IS 'what happened, a name of at most 255 bytes';
COMMENT ON COLUMN es_events.data IS 'what belongs to it';
COMMENT ON COLUMN es_events.metadata IS 'what is known about it, an object: correlation, causation, user';
COMMENT ON FUNCTION es_events_fence() IS 'trigger: gives a row that is inserted, not appended, a fence of this cluster';
COMMENT ON FUNCTION es_events_refuse() IS 'trigger: refuses to change or remove events';
