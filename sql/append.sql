CREATE TYPE es_expected_version;

CREATE FUNCTION es_expected_version_in(cstring) RETURNS es_expected_version
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION es_expected_version_out(es_expected_version) RETURNS cstring
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION es_expected_version_recv(internal) RETURNS es_expected_version
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION es_expected_version_send(es_expected_version) RETURNS bytea
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE TYPE es_expected_version (
    INPUT = es_expected_version_in,
    OUTPUT = es_expected_version_out,
    RECEIVE = es_expected_version_recv,
    SEND = es_expected_version_send,
    LIKE = bigint
);

CREATE FUNCTION es_expected_version_from_int4(integer) RETURNS es_expected_version
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION es_expected_version_from_int8(bigint) RETURNS es_expected_version
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE CAST (integer AS es_expected_version)
    WITH FUNCTION es_expected_version_from_int4(integer) AS IMPLICIT;
CREATE CAST (bigint AS es_expected_version)
    WITH FUNCTION es_expected_version_from_int8(bigint) AS IMPLICIT;

CREATE FUNCTION es_expected_version_eq(es_expected_version, es_expected_version) RETURNS boolean
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
CREATE FUNCTION es_expected_version_ne(es_expected_version, es_expected_version) RETURNS boolean
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;

CREATE OPERATOR = (
    LEFTARG = es_expected_version, RIGHTARG = es_expected_version,
    FUNCTION = es_expected_version_eq, COMMUTATOR = =, NEGATOR = <>,
    RESTRICT = eqsel, JOIN = eqjoinsel
);
CREATE OPERATOR <> (
    LEFTARG = es_expected_version, RIGHTARG = es_expected_version,
    FUNCTION = es_expected_version_ne, COMMUTATOR = <>, NEGATOR = =,
    RESTRICT = neqsel, JOIN = neqjoinsel
);

COMMENT ON TYPE es_expected_version IS
    'what an append expects of its stream: any, none, exists, or the version of its last event';
COMMENT ON FUNCTION es_expected_version_in(cstring) IS 'I/O';
COMMENT ON FUNCTION es_expected_version_out(es_expected_version) IS 'I/O';
COMMENT ON FUNCTION es_expected_version_recv(internal) IS
    'I/O: an int8, a version, 0 for none, -1 for any, -2 for exists';
COMMENT ON FUNCTION es_expected_version_send(es_expected_version) IS 'I/O';
COMMENT ON FUNCTION es_expected_version_from_int4(integer) IS
    'a version as an expected version; 0 is none';
COMMENT ON FUNCTION es_expected_version_from_int8(bigint) IS
    'a version as an expected version; 0 is none';
COMMENT ON FUNCTION es_expected_version_eq(es_expected_version, es_expected_version) IS
    'implementation of = operator';
COMMENT ON FUNCTION es_expected_version_ne(es_expected_version, es_expected_version) IS
    'implementation of <> operator';
COMMENT ON OPERATOR =(es_expected_version, es_expected_version) IS 'equal';
COMMENT ON OPERATOR <>(es_expected_version, es_expected_version) IS 'not equal';

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
    'appends one event to a stream at the expected version; returns its version and position';
COMMENT ON FUNCTION es_append_batch(text, es_expected_version, jsonb) IS
    'appends an array of objects with type, data, metadata, id and occurred_at to a stream, all or none; returns version and position of the last one';
COMMENT ON FUNCTION es_append_batch(text, es_expected_version, text[], jsonb[], jsonb[], uuid[]) IS
    'appends events, given as an array for each attribute, to a stream, all or none; returns version and position of the last one';

CREATE VIEW es_import AS
    SELECT stream, type, data, metadata, id, occurred_at FROM es_events WHERE false;
ALTER VIEW es_import ALTER COLUMN data SET DEFAULT '{}';

CREATE FUNCTION es_import_row() RETURNS trigger AS 'MODULE_PATHNAME' LANGUAGE C;
CREATE FUNCTION es_import_flush() RETURNS trigger AS 'MODULE_PATHNAME' LANGUAGE C;
REVOKE EXECUTE ON FUNCTION es_import_row(), es_import_flush() FROM PUBLIC;
CREATE TRIGGER es_import_row INSTEAD OF INSERT ON es_import
    FOR EACH ROW EXECUTE FUNCTION es_import_row();
CREATE TRIGGER es_import_flush AFTER INSERT ON es_import
    FOR EACH STATEMENT EXECUTE FUNCTION es_import_flush();

COMMENT ON VIEW es_import IS
    'INSERT or COPY into it appends the rows in order, each with expected version any; a SELECT returns no row';
COMMENT ON FUNCTION es_import_row() IS 'trigger of es_import: checks a row and adds it to the chunk';
COMMENT ON FUNCTION es_import_flush() IS 'trigger of es_import: appends the rows of a statement';
