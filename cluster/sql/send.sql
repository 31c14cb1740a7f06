-- Everything that one shard carries out goes through it (src/cluster/route.c). It is called with a slot.
CREATE FUNCTION es_send(_slot integer, _call text, _arguments bytea) RETURNS SETOF bytea LANGUAGE plproxy
AS $$
    CLUSTER 'es_cluster';
    RUN ON _slot;
    SELECT es_call(_call, _arguments);
$$;
REVOKE EXECUTE ON FUNCTION es_send(integer, text, bytea) FROM PUBLIC;
COMMENT ON FUNCTION es_send(integer, text, bytea) IS 'part of each routed function: carries a call to the shard of a slot';
