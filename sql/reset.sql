-- Emptying the store between tests (doc/internals/reset.md).
CREATE FUNCTION es_reset() RETURNS void
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE EXECUTE ON FUNCTION es_reset() FROM PUBLIC;

COMMENT ON FUNCTION es_reset() IS
    'empties the log and all that was made from it, and keeps definitions; only in a database with eventstore.test_mode';
