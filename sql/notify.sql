CREATE FUNCTION es_channel(category text) RETURNS text
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION es_channel(text) IS
    'channel to LISTEN on for appends to a category: es_events:category, a hash of it where that is too long';

-- Not dumped: in another cluster nobody has been told of anything. A row is
-- made by the first worker.
CREATE TABLE es_notified (
    one      bool   PRIMARY KEY DEFAULT true CHECK (one),
    position bigint NOT NULL
);

COMMENT ON TABLE es_notified IS 'up to which position workers have announced events to listeners, some seconds ago at most';
COMMENT ON COLUMN es_notified.one IS 'true: there is one row';
COMMENT ON COLUMN es_notified.position IS 'position of an event; none above it was left out';
