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

CREATE FUNCTION es_expected_version_from_int2(smallint) RETURNS es_expected_version
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION es_expected_version_from_int4(integer) RETURNS es_expected_version
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION es_expected_version_from_int8(bigint) RETURNS es_expected_version
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION es_expected_version_from_bpchar(character) RETURNS es_expected_version
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

-- Every type that a driver sends for a version is accepted. numeric is not, as the
-- server does not take it for a bigint either.
CREATE CAST (smallint AS es_expected_version)
    WITH FUNCTION es_expected_version_from_int2(smallint) AS IMPLICIT;
CREATE CAST (integer AS es_expected_version)
    WITH FUNCTION es_expected_version_from_int4(integer) AS IMPLICIT;
CREATE CAST (bigint AS es_expected_version)
    WITH FUNCTION es_expected_version_from_int8(bigint) AS IMPLICIT;
CREATE CAST (text AS es_expected_version) WITH INOUT AS IMPLICIT;
CREATE CAST (varchar AS es_expected_version) WITH INOUT AS IMPLICIT;
CREATE CAST (name AS es_expected_version) WITH INOUT AS IMPLICIT;
CREATE CAST (character AS es_expected_version)
    WITH FUNCTION es_expected_version_from_bpchar(character) AS IMPLICIT;
CREATE CAST (es_expected_version AS text) WITH INOUT AS IMPLICIT;

-- No operator of the type is called =. Text and numbers are both cast to it, and so
-- text = integer, a mistake that is refused, would be a comparison of expected
-- versions, in each statement of the database. The cast to text gives the type
-- text's = and <>; DISTINCT, GROUP BY, ORDER BY and indexes use these.
CREATE FUNCTION es_expected_version_lt(es_expected_version, es_expected_version) RETURNS boolean
    AS 'int8lt' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
CREATE FUNCTION es_expected_version_le(es_expected_version, es_expected_version) RETURNS boolean
    AS 'int8le' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
CREATE FUNCTION es_expected_version_eq(es_expected_version, es_expected_version) RETURNS boolean
    AS 'int8eq' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
CREATE FUNCTION es_expected_version_ne(es_expected_version, es_expected_version) RETURNS boolean
    AS 'int8ne' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
CREATE FUNCTION es_expected_version_ge(es_expected_version, es_expected_version) RETURNS boolean
    AS 'int8ge' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
CREATE FUNCTION es_expected_version_gt(es_expected_version, es_expected_version) RETURNS boolean
    AS 'int8gt' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
CREATE FUNCTION es_expected_version_cmp(es_expected_version, es_expected_version) RETURNS integer
    AS 'btint8cmp' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
CREATE FUNCTION es_expected_version_hash(es_expected_version) RETURNS integer
    AS 'hashint8' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
CREATE FUNCTION es_expected_version_hash_extended(es_expected_version, bigint) RETURNS bigint
    AS 'hashint8extended' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;

CREATE OPERATOR *< (
    LEFTARG = es_expected_version, RIGHTARG = es_expected_version,
    FUNCTION = es_expected_version_lt, COMMUTATOR = *>, NEGATOR = *>=,
    RESTRICT = scalarltsel, JOIN = scalarltjoinsel
);
CREATE OPERATOR *<= (
    LEFTARG = es_expected_version, RIGHTARG = es_expected_version,
    FUNCTION = es_expected_version_le, COMMUTATOR = *>=, NEGATOR = *>,
    RESTRICT = scalarlesel, JOIN = scalarlejoinsel
);
CREATE OPERATOR *= (
    LEFTARG = es_expected_version, RIGHTARG = es_expected_version,
    FUNCTION = es_expected_version_eq, COMMUTATOR = *=, NEGATOR = *<>,
    RESTRICT = eqsel, JOIN = eqjoinsel, HASHES, MERGES
);
CREATE OPERATOR *<> (
    LEFTARG = es_expected_version, RIGHTARG = es_expected_version,
    FUNCTION = es_expected_version_ne, COMMUTATOR = *<>, NEGATOR = *=,
    RESTRICT = neqsel, JOIN = neqjoinsel
);
CREATE OPERATOR *>= (
    LEFTARG = es_expected_version, RIGHTARG = es_expected_version,
    FUNCTION = es_expected_version_ge, COMMUTATOR = *<=, NEGATOR = *<,
    RESTRICT = scalargesel, JOIN = scalargejoinsel
);
CREATE OPERATOR *> (
    LEFTARG = es_expected_version, RIGHTARG = es_expected_version,
    FUNCTION = es_expected_version_gt, COMMUTATOR = *<, NEGATOR = *<=,
    RESTRICT = scalargtsel, JOIN = scalargtjoinsel
);

CREATE OPERATOR CLASS es_expected_version_ops DEFAULT FOR TYPE es_expected_version USING btree AS
    OPERATOR 1 *<, OPERATOR 2 *<=, OPERATOR 3 *=, OPERATOR 4 *>=, OPERATOR 5 *>,
    FUNCTION 1 es_expected_version_cmp(es_expected_version, es_expected_version);
CREATE OPERATOR CLASS es_expected_version_ops DEFAULT FOR TYPE es_expected_version USING hash AS
    OPERATOR 1 *=,
    FUNCTION 1 es_expected_version_hash(es_expected_version),
    FUNCTION 2 es_expected_version_hash_extended(es_expected_version, bigint);

COMMENT ON TYPE es_expected_version IS
    'what an append expects of its stream: any, none, exists, or the version of its last event';
COMMENT ON FUNCTION es_expected_version_in(cstring) IS 'I/O';
COMMENT ON FUNCTION es_expected_version_out(es_expected_version) IS 'I/O';
COMMENT ON FUNCTION es_expected_version_recv(internal) IS
    'I/O: an int8, a version, 0 for none, -1 for any, -2 for exists';
COMMENT ON FUNCTION es_expected_version_send(es_expected_version) IS 'I/O';
COMMENT ON FUNCTION es_expected_version_from_int2(smallint) IS
    'a version as an expected version; 0 is none';
COMMENT ON FUNCTION es_expected_version_from_int4(integer) IS
    'a version as an expected version; 0 is none';
COMMENT ON FUNCTION es_expected_version_from_int8(bigint) IS
    'a version as an expected version; 0 is none';
COMMENT ON FUNCTION es_expected_version_from_bpchar(character) IS
    'a word or a version as an expected version, without trailing blanks';
COMMENT ON FUNCTION es_expected_version_lt(es_expected_version, es_expected_version) IS
    'implementation of *< operator';
COMMENT ON FUNCTION es_expected_version_le(es_expected_version, es_expected_version) IS
    'implementation of *<= operator';
COMMENT ON FUNCTION es_expected_version_eq(es_expected_version, es_expected_version) IS
    'implementation of *= operator';
COMMENT ON FUNCTION es_expected_version_ne(es_expected_version, es_expected_version) IS
    'implementation of *<> operator';
COMMENT ON FUNCTION es_expected_version_ge(es_expected_version, es_expected_version) IS
    'implementation of *>= operator';
COMMENT ON FUNCTION es_expected_version_gt(es_expected_version, es_expected_version) IS
    'implementation of *> operator';
COMMENT ON FUNCTION es_expected_version_cmp(es_expected_version, es_expected_version) IS 'less-equal-greater';
COMMENT ON FUNCTION es_expected_version_hash(es_expected_version) IS 'hash';
COMMENT ON FUNCTION es_expected_version_hash_extended(es_expected_version, bigint) IS 'hash';
COMMENT ON OPERATOR *<(es_expected_version, es_expected_version) IS 'less than, in the order exists, any, none, versions';
COMMENT ON OPERATOR *<=(es_expected_version, es_expected_version) IS 'less than or equal, in the order exists, any, none, versions';
COMMENT ON OPERATOR *=(es_expected_version, es_expected_version) IS 'equal, in the order exists, any, none, versions';
COMMENT ON OPERATOR *<>(es_expected_version, es_expected_version) IS 'not equal, in the order exists, any, none, versions';
COMMENT ON OPERATOR *>=(es_expected_version, es_expected_version) IS 'greater than or equal, in the order exists, any, none, versions';
COMMENT ON OPERATOR *>(es_expected_version, es_expected_version) IS 'greater than, in the order exists, any, none, versions';
COMMENT ON OPERATOR FAMILY es_expected_version_ops USING btree IS
    'the order, and equality, of expected versions';
COMMENT ON OPERATOR CLASS es_expected_version_ops USING btree IS
    'the order, and equality, of expected versions';
COMMENT ON OPERATOR FAMILY es_expected_version_ops USING hash IS
    'equality of expected versions';
COMMENT ON OPERATOR CLASS es_expected_version_ops USING hash IS
    'equality of expected versions';

-- The result of an append. A plan knows a type with a name, while each execution of a
-- statement would build the description of OUT arguments again.
CREATE TYPE es_appended AS (version bigint, "position" bigint);

COMMENT ON TYPE es_appended IS 'version and position of the last event that was appended';
COMMENT ON COLUMN es_appended.version IS 'number of the event in its stream';
COMMENT ON COLUMN es_appended."position" IS 'number of the event in the log; null if there was no event to append';

-- Each argument of a call takes time in every execution of a plan, even a null that is a
-- default. The planner leaves out those at the end.
CREATE FUNCTION es_append_support(internal) RETURNS internal
    AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
COMMENT ON FUNCTION es_append_support(internal) IS
    'planner support: leaves out nulls at the end of an append''s arguments';

CREATE FUNCTION es_append(
    stream text, expected es_expected_version, type text, data jsonb DEFAULT '{}',
    metadata jsonb DEFAULT NULL, id uuid DEFAULT NULL, occurred_at timestamptz DEFAULT NULL,
    tags text[] DEFAULT NULL, body bytea DEFAULT NULL)
    RETURNS es_appended
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE SUPPORT es_append_support;

CREATE FUNCTION es_append_batch(
    stream text, expected es_expected_version, events jsonb)
    RETURNS es_appended
    AS 'MODULE_PATHNAME', 'es_append_batch_jsonb' LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION es_append_batch(
    stream text, expected es_expected_version, types text[], data jsonb[],
    metadata jsonb[] DEFAULT NULL, ids uuid[] DEFAULT NULL, occurred_at timestamptz[] DEFAULT NULL,
    tags jsonb[] DEFAULT NULL, bodies bytea[] DEFAULT NULL)
    RETURNS es_appended
    AS 'MODULE_PATHNAME', 'es_append_batch_arrays' LANGUAGE C VOLATILE PARALLEL UNSAFE
    SUPPORT es_append_support;

REVOKE EXECUTE ON FUNCTION es_append(text, es_expected_version, text, jsonb, jsonb, uuid, timestamptz, text[], bytea) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION es_append_batch(text, es_expected_version, jsonb) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION es_append_batch(text, es_expected_version, text[], jsonb[], jsonb[], uuid[], timestamptz[], jsonb[], bytea[]) FROM PUBLIC;

COMMENT ON FUNCTION es_append(text, es_expected_version, text, jsonb, jsonb, uuid, timestamptz, text[], bytea) IS
    'appends one event to a stream at the expected version; returns its version and position';
COMMENT ON FUNCTION es_append_batch(text, es_expected_version, jsonb) IS
    'appends a JSON array of events to a stream, all or none; returns version and position of the last one';
COMMENT ON FUNCTION es_append_batch(text, es_expected_version, text[], jsonb[], jsonb[], uuid[], timestamptz[], jsonb[], bytea[]) IS
    'appends events, given as an array for each attribute, to a stream, all or none; returns version and position of the last one';

CREATE FUNCTION es_append_if(events jsonb, query jsonb, after_position bigint DEFAULT 0,
                             OUT first_position bigint, OUT "position" bigint) RETURNS record
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE EXECUTE ON FUNCTION es_append_if(jsonb, jsonb, bigint) FROM PUBLIC;

COMMENT ON FUNCTION es_append_if(jsonb, jsonb, bigint) IS
    'appends events, all or none, if no event after a position matches the query; returns the first and the last position';

-- A view's triggers cannot be ENABLE ALWAYS. If session_replication_role is replica, the
-- view would take rows and store none. The constraint of a type is always checked for
-- each row.
CREATE FUNCTION es_import_fires() RETURNS boolean
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL SAFE;
CREATE DOMAIN es_import_stream AS text COLLATE "C" CONSTRAINT es_import_fires CHECK (es_import_fires());

CREATE VIEW es_import AS
    SELECT stream::es_import_stream AS stream, type, data, metadata, id, occurred_at, tags, body FROM es_events WHERE false;
ALTER VIEW es_import ALTER COLUMN data SET DEFAULT '{}';
-- COPY checks the type of a column that the file has not only if the column has a default
ALTER VIEW es_import ALTER COLUMN stream SET DEFAULT NULL;

CREATE FUNCTION es_import_row() RETURNS trigger AS 'MODULE_PATHNAME' LANGUAGE C;
CREATE FUNCTION es_import_flush() RETURNS trigger AS 'MODULE_PATHNAME' LANGUAGE C;
REVOKE EXECUTE ON FUNCTION es_import_row(), es_import_flush() FROM PUBLIC;
CREATE TRIGGER es_import_row INSTEAD OF INSERT ON es_import
    FOR EACH ROW EXECUTE FUNCTION es_import_row();
CREATE TRIGGER es_import_flush AFTER INSERT ON es_import
    FOR EACH STATEMENT EXECUTE FUNCTION es_import_flush();

CREATE VIEW es_import_log AS
    SELECT position, version, recorded_at, stream::es_import_stream AS stream, type, data, metadata, id, occurred_at, tags, body
      FROM es_events WHERE false;
ALTER VIEW es_import_log ALTER COLUMN data SET DEFAULT '{}';
ALTER VIEW es_import_log ALTER COLUMN stream SET DEFAULT NULL;
CREATE TRIGGER es_import_row INSTEAD OF INSERT ON es_import_log
    FOR EACH ROW EXECUTE FUNCTION es_import_row();
CREATE TRIGGER es_import_flush AFTER INSERT ON es_import_log
    FOR EACH STATEMENT EXECUTE FUNCTION es_import_flush();

COMMENT ON VIEW es_import_log IS
    'INSERT or COPY into it stores events with the positions, versions and times that they have elsewhere; a SELECT returns no row';
COMMENT ON COLUMN es_import_log.position IS 'position, above those before it and all that is stored';
COMMENT ON COLUMN es_import_log.version IS 'version, one above that of the event before it in the stream';
COMMENT ON COLUMN es_import_log.recorded_at IS 'when it was recorded there';
COMMENT ON COLUMN es_import_log.stream IS 'stream''s name';
COMMENT ON COLUMN es_import_log.type IS 'name of what happened';
COMMENT ON COLUMN es_import_log.data IS 'content of the event; {} by default';
COMMENT ON COLUMN es_import_log.metadata IS 'an object with facts about the event; null: none';
COMMENT ON COLUMN es_import_log.id IS 'its id; null: a UUID of version 7';
COMMENT ON COLUMN es_import_log.occurred_at IS 'when it happened, if that is known; null: not';
COMMENT ON COLUMN es_import_log.tags IS 'names of what the event is about; null: none';
COMMENT ON COLUMN es_import_log.body IS 'bytes that are not JSON; null: none';

COMMENT ON VIEW es_import IS
    'INSERT or COPY into it appends the rows in order, each with expected version any; a SELECT returns no row';
COMMENT ON COLUMN es_import.stream IS 'stream''s name';
COMMENT ON COLUMN es_import.type IS 'name of what happened';
COMMENT ON COLUMN es_import.data IS 'content of the event; {} by default';
COMMENT ON COLUMN es_import.metadata IS 'an object with facts about the event; null: none';
COMMENT ON COLUMN es_import.id IS 'its id; null: that of its composite key, or a UUID of version 7';
COMMENT ON COLUMN es_import.occurred_at IS 'when it happened, if that is known; null: not';
COMMENT ON COLUMN es_import.tags IS 'names of what the event is about; null: none';
COMMENT ON COLUMN es_import.body IS 'bytes that are not JSON; null: none';
COMMENT ON DOMAIN es_import_stream IS 'name of a stream in es_import, where its triggers fire';
COMMENT ON FUNCTION es_import_fires() IS
    'returns true where rows of es_import are appended, or raises an error';
COMMENT ON FUNCTION es_import_row() IS 'trigger of es_import: checks a row and adds it to the chunk';
COMMENT ON FUNCTION es_import_flush() IS 'trigger of es_import: appends the rows of a statement';

CREATE FUNCTION es_rewrite(id uuid, data jsonb, metadata jsonb DEFAULT NULL, schema_version bigint DEFAULT NULL)
    RETURNS bigint AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE EXECUTE ON FUNCTION es_rewrite(uuid, jsonb, jsonb, bigint) FROM PUBLIC;

COMMENT ON FUNCTION es_rewrite(uuid, jsonb, jsonb, bigint) IS
    'replaces the data of an event, and its metadata unless null; returns its position';
