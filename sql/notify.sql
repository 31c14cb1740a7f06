CREATE FUNCTION es_channel(category text) RETURNS text
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION es_channel(text) IS
    'channel to LISTEN on for appends to a category: es_events:category, a hash of it where that is too long';
