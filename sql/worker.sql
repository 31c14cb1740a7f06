CREATE FUNCTION es_start_worker() RETURNS integer
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
REVOKE EXECUTE ON FUNCTION es_start_worker() FROM PUBLIC;

COMMENT ON FUNCTION es_start_worker() IS
    'starts a worker for this database; returns its process id';
