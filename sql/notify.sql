CREATE FUNCTION es_channel(category text) RETURNS text
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION es_channel(text) IS
    'returns the channel to LISTEN on for events of a category: es_events:category, or a hash of it where that is too long';

-- Not dumped: in another cluster no listener has been notified. The first worker
-- inserts the row.
CREATE TABLE es_notified (
    one      bool   PRIMARY KEY DEFAULT true CHECK (one),
    position bigint NOT NULL
);

COMMENT ON TABLE es_notified IS 'position up to which workers have notified listeners, at most some seconds behind';
COMMENT ON COLUMN es_notified.one IS 'true: there is one row';
COMMENT ON COLUMN es_notified.position IS 'position of an event; listeners were notified of all up to it';
