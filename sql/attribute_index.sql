CREATE FUNCTION es_attribute(data jsonb, attribute text) RETURNS jsonb
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION es_index_attribute(type text, attribute text) RETURNS regclass
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE EXECUTE ON FUNCTION es_index_attribute(text, text) FROM PUBLIC;

COMMENT ON FUNCTION es_attribute(jsonb, text) IS
    'value of an attribute of data, as indexes have it: null if there is none, or if it has more than 2048 bytes';
COMMENT ON FUNCTION es_index_attribute(text, text) IS
    'makes the index that finds events of a type by an attribute of their data, and returns it; no append goes on meanwhile';
