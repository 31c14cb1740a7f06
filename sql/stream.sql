CREATE FUNCTION es_category(stream text) RETURNS text
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION es_category(text) IS
    'category of a stream: what stands before the first - in its name, the whole name without one';
