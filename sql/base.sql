CREATE FUNCTION es_uuid7() RETURNS uuid
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
CREATE FUNCTION es_uuid5(namespace uuid, name text) RETURNS uuid
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION es_uuid7() IS
    'new UUID of version 7, greater than the one before in the same session';
COMMENT ON FUNCTION es_uuid5(uuid, text) IS
    'UUID of version 5: a digest of a name in a namespace';
