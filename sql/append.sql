CREATE FUNCTION es_append(
    stream text, expected es_expected_version, type text, data jsonb DEFAULT '{}',
    metadata jsonb DEFAULT NULL, id uuid DEFAULT NULL, occurred_at timestamptz DEFAULT NULL,
    OUT version bigint, OUT "position" bigint)
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION es_append_batch(
    stream text, expected es_expected_version, events jsonb,
    OUT version bigint, OUT "position" bigint)
    AS 'MODULE_PATHNAME', 'es_append_batch_jsonb' LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION es_append_batch(
    stream text, expected es_expected_version, types text[], data jsonb[],
    metadata jsonb[] DEFAULT NULL, ids uuid[] DEFAULT NULL,
    OUT version bigint, OUT "position" bigint)
    AS 'MODULE_PATHNAME', 'es_append_batch_arrays' LANGUAGE C VOLATILE PARALLEL UNSAFE;

REVOKE EXECUTE ON FUNCTION es_append(text, es_expected_version, text, jsonb, jsonb, uuid, timestamptz) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION es_append_batch(text, es_expected_version, jsonb) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION es_append_batch(text, es_expected_version, text[], jsonb[], jsonb[], uuid[]) FROM PUBLIC;

COMMENT ON FUNCTION es_append(text, es_expected_version, text, jsonb, jsonb, uuid, timestamptz) IS
    'appends one event to a stream that is at the expected version';
COMMENT ON FUNCTION es_append_batch(text, es_expected_version, jsonb) IS
    'appends an array of objects with type, data, metadata, id, occurred_at to a stream, all or none';
COMMENT ON FUNCTION es_append_batch(text, es_expected_version, text[], jsonb[], jsonb[], uuid[]) IS
    'appends events given as one array a column to a stream, all or none';
