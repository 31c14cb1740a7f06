-- What a shard says of itself.
CREATE FUNCTION es_shard_state(_slot integer, OUT store uuid, OUT slots text, OUT is_standby boolean, OUT eventstore text)
    LANGUAGE plproxy
AS $$
    CLUSTER 'es_cluster';
    RUN ON _slot;
    SELECT es_incarnation() AS store, es_slots()::text AS slots, pg_is_in_recovery() AS is_standby,
           (SELECT extversion FROM pg_extension WHERE extname = 'eventstore') AS eventstore;
$$;

CREATE FUNCTION es_check_shards() RETURNS TABLE (shard integer, slots int4multirange, problem text)
    LANGUAGE plpgsql VOLATILE SET search_path = @extschema@, pg_catalog, pg_temp
AS $$
DECLARE
    _map es_shards;
    _state record;
    _stores uuid[] := '{}';
BEGIN
    FOR _map IN SELECT * FROM es_shards s ORDER BY s.shard LOOP
        shard := _map.shard;
        slots := _map.slots;
        BEGIN
            _state := es_shard_state(lower(_map.slots));
            problem := CASE
                WHEN _state.is_standby THEN 'it is a standby'
                WHEN _state.store = ANY (_stores) THEN 'it is the same store as another shard'
                WHEN _state.slots IS NULL THEN 'it knows no slots, and takes every stream'
                WHEN _state.slots::int4multirange <> _map.slots THEN format('it has the slots %s', _state.slots) END;
            _stores := _stores || _state.store;
        EXCEPTION WHEN OTHERS THEN
            problem := SQLERRM;
        END;
        RETURN NEXT;
    END LOOP;
END $$;

-- The status of subscriptions on all shards, with the columns that it has on one.
DO $$
DECLARE
    _columns text;
    _names text;
BEGIN
    SELECT string_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum),
           string_agg(format('s.%I', a.attname), ', ' ORDER BY a.attnum)
      INTO _columns, _names
      FROM pg_attribute a
     WHERE a.attrelid = 'es_subscription_status'::regclass AND a.attnum > 0 AND NOT a.attisdropped;
    EXECUTE format('CREATE TYPE @extschema@.es_shard_subscription AS (shard integer, %s)', _columns);
    EXECUTE format($f$
        CREATE FUNCTION @extschema@.es_subscription_status_of(_slot integer[], _shard integer[])
            RETURNS SETOF @extschema@.es_shard_subscription LANGUAGE plproxy
        AS $p$
            CLUSTER 'es_cluster';
            SPLIT _slot, _shard;
            RUN ON _slot;
            SELECT (_shard)[1] AS shard, %s FROM es_subscription_status s;
        $p$ $f$, _names);
END $$;
CREATE VIEW @extschema@.es_subscription_status AS
    SELECT s.*
      FROM (SELECT array_agg(lower(m.slots)) AS slot, array_agg(m.shard) AS shard FROM @extschema@.es_shards m) m
     CROSS JOIN LATERAL @extschema@.es_subscription_status_of(m.slot, m.shard) s;
GRANT SELECT ON @extschema@.es_subscription_status TO PUBLIC;

COMMENT ON FUNCTION es_shard_state(integer) IS 'part of es_check_shards: what a shard says of itself';
COMMENT ON FUNCTION es_check_shards() IS 'compares the map with the shards; returns a row for each, with what is wrong';
COMMENT ON TYPE es_shard_subscription IS 'a row of es_subscription_status';
COMMENT ON FUNCTION es_subscription_status_of(integer[], integer[]) IS 'part of es_subscription_status: the rows of the shards';
COMMENT ON VIEW @extschema@.es_subscription_status IS 'the status of subscriptions on all shards, as each shard has it';
