CREATE FUNCTION es_uuid7() RETURNS uuid
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
CREATE FUNCTION es_uuid5(namespace uuid, name text) RETURNS uuid
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION es_uuid7() IS
    'a new UUID of version 7, greater than the one before in the session';
COMMENT ON FUNCTION es_uuid5(uuid, text) IS
    'the UUID of version 5 of a name in a namespace';

-- A function as an argument: text inside, which the called function resolves, as
-- it knows the needed signature.
CREATE TYPE es_function;

CREATE FUNCTION es_function_in(cstring) RETURNS es_function
    AS 'textin' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION es_function_out(es_function) RETURNS cstring
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT PARALLEL SAFE;
CREATE FUNCTION es_function_recv(internal) RETURNS es_function
    AS 'textrecv' LANGUAGE internal STABLE STRICT PARALLEL SAFE;
CREATE FUNCTION es_function_send(es_function) RETURNS bytea
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT PARALLEL SAFE;

CREATE TYPE es_function (
    INPUT = es_function_in,
    OUTPUT = es_function_out,
    RECEIVE = es_function_recv,
    SEND = es_function_send,
    LIKE = text
);

CREATE FUNCTION es_function_from_oid(oid) RETURNS es_function
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION es_function_from_regproc(regproc) RETURNS es_function
    AS 'MODULE_PATHNAME', 'es_function_from_oid' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION es_function_from_regprocedure(regprocedure) RETURNS es_function
    AS 'MODULE_PATHNAME', 'es_function_from_oid' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE CAST (text AS es_function) WITHOUT FUNCTION AS IMPLICIT;
CREATE CAST (varchar AS es_function) WITHOUT FUNCTION AS IMPLICIT;
CREATE CAST (name AS es_function) WITH INOUT AS IMPLICIT;
CREATE CAST (character AS es_function) WITH INOUT AS IMPLICIT;
CREATE CAST (oid AS es_function)
    WITH FUNCTION es_function_from_oid(oid) AS IMPLICIT;
CREATE CAST (regproc AS es_function)
    WITH FUNCTION es_function_from_regproc(regproc) AS IMPLICIT;
CREATE CAST (regprocedure AS es_function)
    WITH FUNCTION es_function_from_regprocedure(regprocedure) AS IMPLICIT;

COMMENT ON TYPE es_function IS
    'a function as an argument: its name, with or without argument types, or a regproc, regprocedure or oid; not for columns';
COMMENT ON FUNCTION es_function_in(cstring) IS 'I/O';
COMMENT ON FUNCTION es_function_out(es_function) IS 'I/O';
COMMENT ON FUNCTION es_function_recv(internal) IS 'I/O';
COMMENT ON FUNCTION es_function_send(es_function) IS 'I/O';
COMMENT ON FUNCTION es_function_from_oid(oid) IS 'a function by its oid';
COMMENT ON FUNCTION es_function_from_regproc(regproc) IS 'a function by its oid';
COMMENT ON FUNCTION es_function_from_regprocedure(regprocedure) IS 'a function by its oid';
