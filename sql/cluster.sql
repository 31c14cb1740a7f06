-- A store is a shard without anything else than this. A router (the extension eventstore_cluster) calls it.
CREATE FUNCTION es_call(call text, arguments bytea) RETURNS SETOF bytea
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1;
COMMENT ON FUNCTION es_call(text, bytea) IS
    'calls a function of the store for a router; returns its rows, or its error';
