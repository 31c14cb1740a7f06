CREATE FUNCTION es_rewrite(id uuid, data jsonb, metadata jsonb DEFAULT NULL) RETURNS bigint
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE EXECUTE ON FUNCTION es_rewrite(uuid, jsonb, jsonb) FROM PUBLIC;

COMMENT ON FUNCTION es_rewrite(uuid, jsonb, jsonb) IS
    'gives an event other data, and other metadata if it is not null; everything else stays; returns its position';
