-- The functions of eventstore that one shard carries out. Those that have a stream or a query keep their arguments.
-- The others get one in front that says where they go. What does not write is stable, and may be in a transaction block.
DO $$
DECLARE
    _routed record;
BEGIN
    FOR _routed IN
        SELECT p.oid, p.proname, w.argument, w.volatility, pg_get_function_arguments(p.oid) AS arguments,
               pg_get_function_result(p.oid) AS result, pg_get_function_identity_arguments(p.oid) AS identity,
               p.prorettype, obj_description(p.oid, 'pg_proc') AS comment
          FROM (VALUES
                ('es_append', NULL, 'VOLATILE'),
                ('es_append_batch', NULL, 'VOLATILE'),
                ('es_execute', NULL, 'VOLATILE'),
                ('es_load', NULL, 'STABLE'),
                ('es_load_backward', NULL, 'STABLE'),
                ('es_state', NULL, 'STABLE'),
                ('es_history', NULL, 'STABLE'),
                ('es_stream_version', NULL, 'STABLE'),
                ('es_last_event', NULL, 'STABLE'),
                ('es_append_if', NULL, 'VOLATILE'),
                ('es_decide', NULL, 'VOLATILE'),
                ('es_query', NULL, 'STABLE'),
                ('es_receive', 'routing_stream text', 'VOLATILE'),
                ('es_create_subscription', 'shard integer', 'VOLATILE'),
                ('es_alter_subscription', 'shard integer', 'VOLATILE'),
                ('es_rename_subscription', 'shard integer', 'VOLATILE'),
                ('es_drop_subscription', 'shard integer', 'VOLATILE'),
                ('es_seek', 'shard integer', 'VOLATILE'),
                ('es_poll', 'shard integer', 'VOLATILE'),
                ('es_ack', 'shard integer', 'VOLATILE'),
                ('es_nack', 'shard integer', 'VOLATILE'),
                ('es_horizon', 'shard integer', 'STABLE')) w (name, argument, volatility)
          JOIN pg_proc p ON p.proname = w.name
          JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
          JOIN pg_extension x ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = x.oid
         WHERE x.extname = 'eventstore'
    LOOP
        EXECUTE format(
            'CREATE FUNCTION @extschema@.%I(%s) RETURNS %s AS ''$libdir/eventstore'', ''es_route'' LANGUAGE C %s PARALLEL UNSAFE',
            _routed.proname, concat_ws(', ', _routed.argument, nullif(_routed.arguments, '')), _routed.result, _routed.volatility);
        EXECUTE format('COMMENT ON FUNCTION @extschema@.%I(%s) IS %L', _routed.proname,
                       concat_ws(', ', _routed.argument, nullif(_routed.identity, '')),
                       _routed.comment || CASE WHEN _routed.argument = 'shard integer' THEN ' (of a shard)'
                                               WHEN _routed.argument IS NOT NULL THEN ' (on the shard of a stream)'
                                               ELSE ' (on its shard)' END);
    END LOOP;
END $$;
