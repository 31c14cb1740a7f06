CREATE FUNCTION es_uuid7() RETURNS uuid
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION es_uuid7() IS
    'new UUID of version 7, greater than the one before in the same session';
