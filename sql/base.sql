CREATE FUNCTION es_uuid7() RETURNS uuid
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
CREATE FUNCTION es_uuid5(namespace uuid, name text) RETURNS uuid
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION es_uuid7() IS
    'returns a new UUID of version 7, greater than the one before in the session';
COMMENT ON FUNCTION es_uuid5(uuid, text) IS
    'returns the UUID of version 5 of a name in a namespace';

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

-- A role that owns something: its oid inside, its present name outside. So a role may
-- be renamed, and dumps have names. Nothing becomes one by itself, except in an
-- assignment.
CREATE TYPE es_role;

CREATE FUNCTION es_role_in(cstring) RETURNS es_role
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT PARALLEL SAFE;
CREATE FUNCTION es_role_out(es_role) RETURNS cstring
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT PARALLEL SAFE;
CREATE FUNCTION es_role_recv(internal) RETURNS es_role
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT PARALLEL SAFE;
CREATE FUNCTION es_role_send(es_role) RETURNS bytea
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT PARALLEL SAFE;

CREATE TYPE es_role (
    INPUT = es_role_in,
    OUTPUT = es_role_out,
    RECEIVE = es_role_recv,
    SEND = es_role_send,
    INTERNALLENGTH = 68,
    ALIGNMENT = int4,
    CATEGORY = 'S'
);

CREATE FUNCTION es_role_from_oid(oid) RETURNS es_role
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT PARALLEL SAFE;
CREATE FUNCTION es_role_from_regrole(regrole) RETURNS es_role
    AS 'MODULE_PATHNAME', 'es_role_from_oid' LANGUAGE C STABLE STRICT PARALLEL SAFE;
CREATE FUNCTION es_role_to_oid(es_role) RETURNS oid
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT PARALLEL SAFE;

CREATE CAST (oid AS es_role) WITH FUNCTION es_role_from_oid(oid) AS ASSIGNMENT;
CREATE CAST (regrole AS es_role) WITH FUNCTION es_role_from_regrole(regrole) AS ASSIGNMENT;
CREATE CAST (name AS es_role) WITH INOUT AS ASSIGNMENT;
CREATE CAST (text AS es_role) WITH INOUT AS ASSIGNMENT;
CREATE CAST (es_role AS oid) WITH FUNCTION es_role_to_oid(es_role) AS ASSIGNMENT;
CREATE CAST (es_role AS name) WITH INOUT AS IMPLICIT;
CREATE CAST (es_role AS text) WITH INOUT AS IMPLICIT;

CREATE FUNCTION es_role_lt(es_role, es_role) RETURNS boolean
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT PARALLEL SAFE;
CREATE FUNCTION es_role_le(es_role, es_role) RETURNS boolean
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT PARALLEL SAFE;
CREATE FUNCTION es_role_eq(es_role, es_role) RETURNS boolean
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT PARALLEL SAFE;
CREATE FUNCTION es_role_ne(es_role, es_role) RETURNS boolean
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT PARALLEL SAFE;
CREATE FUNCTION es_role_ge(es_role, es_role) RETURNS boolean
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT PARALLEL SAFE;
CREATE FUNCTION es_role_gt(es_role, es_role) RETURNS boolean
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT PARALLEL SAFE;
CREATE FUNCTION es_role_cmp(es_role, es_role) RETURNS integer
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT PARALLEL SAFE;

CREATE OPERATOR < (
    LEFTARG = es_role, RIGHTARG = es_role,
    FUNCTION = es_role_lt, COMMUTATOR = >, NEGATOR = >=,
    RESTRICT = scalarltsel, JOIN = scalarltjoinsel
);
CREATE OPERATOR <= (
    LEFTARG = es_role, RIGHTARG = es_role,
    FUNCTION = es_role_le, COMMUTATOR = >=, NEGATOR = >,
    RESTRICT = scalarlesel, JOIN = scalarlejoinsel
);
CREATE OPERATOR = (
    LEFTARG = es_role, RIGHTARG = es_role,
    FUNCTION = es_role_eq, COMMUTATOR = =, NEGATOR = <>,
    RESTRICT = eqsel, JOIN = eqjoinsel, MERGES
);
CREATE OPERATOR <> (
    LEFTARG = es_role, RIGHTARG = es_role,
    FUNCTION = es_role_ne, COMMUTATOR = <>, NEGATOR = =,
    RESTRICT = neqsel, JOIN = neqjoinsel
);
CREATE OPERATOR >= (
    LEFTARG = es_role, RIGHTARG = es_role,
    FUNCTION = es_role_ge, COMMUTATOR = <=, NEGATOR = <,
    RESTRICT = scalargesel, JOIN = scalargejoinsel
);
CREATE OPERATOR > (
    LEFTARG = es_role, RIGHTARG = es_role,
    FUNCTION = es_role_gt, COMMUTATOR = <, NEGATOR = <=,
    RESTRICT = scalargtsel, JOIN = scalargtjoinsel
);

CREATE OPERATOR CLASS es_role_ops DEFAULT FOR TYPE es_role USING btree AS
    OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >,
    FUNCTION 1 es_role_cmp(es_role, es_role);

COMMENT ON TYPE es_role IS
    'a role that owns something, by its oid: prints its present name, or "name (dropped)"; reads a name';
COMMENT ON FUNCTION es_role_in(cstring) IS 'I/O';
COMMENT ON FUNCTION es_role_out(es_role) IS 'I/O';
COMMENT ON FUNCTION es_role_recv(internal) IS 'I/O';
COMMENT ON FUNCTION es_role_send(es_role) IS 'I/O';
COMMENT ON FUNCTION es_role_from_oid(oid) IS 'a role by its oid';
COMMENT ON FUNCTION es_role_from_regrole(regrole) IS 'a role by its oid';
COMMENT ON FUNCTION es_role_to_oid(es_role) IS 'oid of a role; 0 if it does not exist';
COMMENT ON FUNCTION es_role_lt(es_role, es_role) IS 'implementation of < operator';
COMMENT ON FUNCTION es_role_le(es_role, es_role) IS 'implementation of <= operator';
COMMENT ON FUNCTION es_role_eq(es_role, es_role) IS 'implementation of = operator';
COMMENT ON FUNCTION es_role_ne(es_role, es_role) IS 'implementation of <> operator';
COMMENT ON FUNCTION es_role_ge(es_role, es_role) IS 'implementation of >= operator';
COMMENT ON FUNCTION es_role_gt(es_role, es_role) IS 'implementation of > operator';
COMMENT ON FUNCTION es_role_cmp(es_role, es_role) IS 'less-equal-greater';
COMMENT ON OPERATOR <(es_role, es_role) IS 'less than, by present names';
COMMENT ON OPERATOR <=(es_role, es_role) IS 'less than or equal, by present names';
COMMENT ON OPERATOR =(es_role, es_role) IS 'equal, by present names';
COMMENT ON OPERATOR <>(es_role, es_role) IS 'not equal, by present names';
COMMENT ON OPERATOR >=(es_role, es_role) IS 'greater than or equal, by present names';
COMMENT ON OPERATOR >(es_role, es_role) IS 'greater than, by present names';
COMMENT ON OPERATOR FAMILY es_role_ops USING btree IS 'roles in the order of their names';
COMMENT ON OPERATOR CLASS es_role_ops USING btree IS 'roles in the order of their names';
