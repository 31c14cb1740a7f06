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
    'What an append expects of its stream: any, none, exists, or the version of its last event';
COMMENT ON FUNCTION es_expected_version_in(cstring) IS 'I/O';
COMMENT ON FUNCTION es_expected_version_out(es_expected_version) IS 'I/O';
COMMENT ON FUNCTION es_expected_version_recv(internal) IS
    'I/O: an int8, a version, 0 for none, -1 for any, -2 for exists';
COMMENT ON FUNCTION es_expected_version_send(es_expected_version) IS 'I/O';
COMMENT ON FUNCTION es_expected_version_from_int4(integer) IS
    'a version as an expected version, 0 is none';
COMMENT ON FUNCTION es_expected_version_from_int8(bigint) IS
    'a version as an expected version, 0 is none';
COMMENT ON FUNCTION es_expected_version_eq(es_expected_version, es_expected_version) IS
    'implementation of = operator';
COMMENT ON FUNCTION es_expected_version_ne(es_expected_version, es_expected_version) IS
    'implementation of <> operator';
COMMENT ON OPERATOR =(es_expected_version, es_expected_version) IS 'equal';
COMMENT ON OPERATOR <>(es_expected_version, es_expected_version) IS 'not equal';
