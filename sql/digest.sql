CREATE FUNCTION es_uuid5(namespace uuid, name text) RETURNS uuid
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION es_digest_string(data jsonb, keys text[]) RETURNS text
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION es_digest(type text, data jsonb, keys text[]) RETURNS uuid
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION es_uuid5(uuid, text) IS
    'UUID of version 5: a digest of a name in a namespace';
COMMENT ON FUNCTION es_digest_string(jsonb, text[]) IS
    'composite key of an event as text: name=value of each key in order, joined by :';
COMMENT ON FUNCTION es_digest(text, jsonb, text[]) IS
    'id of an event from its type and its composite key: the UUID of version 5, in the OID namespace, of type : es_digest_string';
