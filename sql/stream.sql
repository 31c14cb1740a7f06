CREATE FUNCTION es_category(stream text) RETURNS text
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION es_category(text) IS
    'category of a stream: what stands before the first - in its name, the whole name without one';
CREATE FUNCTION es_partition(stream text, partitions int) RETURNS int
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION es_partition(text, int) IS
    'partition of a stream, from 0, where streams are divided into so many';
