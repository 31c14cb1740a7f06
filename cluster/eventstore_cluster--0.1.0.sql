\echo Use "CREATE EXTENSION eventstore_cluster" to load this file. \quit

-- The router has no events of its own: an append that is not routed by mistake is refused (ES009).
DO $$
BEGIN
    IF EXISTS (SELECT FROM es_events) THEN
        RAISE object_not_in_prerequisite_state USING
            MESSAGE = 'the store of a router must be empty',
            DETAIL = 'This database has events, which nobody could append to any more.',
            HINT = 'Create the router in a database of its own.';
    END IF;
    -- In a restore the slots come with the other definitions of the store, which is closed meanwhile.
    IF NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = 'es_events'::regclass AND polname = 'es_closed') THEN
        PERFORM es_set_slots('{}');
    END IF;
END $$;

CREATE TABLE es_shards (
    shard           integer         PRIMARY KEY CHECK (shard >= 0),
    slots           int4multirange  NOT NULL CHECK (slots <> '{}' AND slots <@ '{[0,1024)}'),
    connection      text            NOT NULL UNIQUE,
    parent          integer         REFERENCES es_shards,
    split_position  bigint          CHECK (split_position >= 0),
    CHECK ((parent IS NULL) = (split_position IS NULL))
);
GRANT SELECT ON es_shards TO PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('es_shards', '');

COMMENT ON TABLE es_shards IS 'the map: which shard has which slots; a row for each shard';
COMMENT ON COLUMN es_shards.shard IS 'number of the shard, from 0';
COMMENT ON COLUMN es_shards.slots IS 'slots of streams that it has';
COMMENT ON COLUMN es_shards.connection IS 'how libpq reaches it, without user and password';
COMMENT ON COLUMN es_shards.parent IS 'shard that it was split from; null: none';
COMMENT ON COLUMN es_shards.split_position IS 'last position of the parent that it has, too';

-- PL/Proxy adds a user to the string, so that it cannot be a URI.
CREATE FUNCTION es_check_connection(connection text) RETURNS void LANGUAGE plpgsql IMMUTABLE
AS $$
BEGIN
    IF connection IS NULL OR connection ~ '://' OR connection ~* '(^|\s)(user|password)\s*=' THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'a connection must be keywords and values of libpq, without user and password',
            DETAIL = 'Everybody can read the map.',
            HINT = 'Pass a string such as ''host=shard0 dbname=store''. A user mapping of the server es_cluster has user and password.';
    END IF;
END $$;

-- PL/Proxy reads the map from a foreign server with an option for each slot. It is no part of the extension, so that
-- it is dumped with its user mappings.
CREATE FUNCTION es_apply_map() RETURNS void LANGUAGE plpgsql
    SET search_path = @extschema@, pg_catalog, pg_temp
AS $$
DECLARE
    _wrong text;
    _options text;
    _exists boolean := EXISTS (SELECT FROM pg_foreign_server WHERE srvname = 'es_cluster');
BEGIN
    SELECT string_agg(format('slot %s: %s shards', slot, shards), ', ' ORDER BY slot)
      INTO _wrong
      FROM (SELECT slot, count(s.shard) AS shards
              FROM generate_series(0, 1023) slot
              LEFT JOIN es_shards s ON slot <@ s.slots
             GROUP BY slot
            HAVING count(s.shard) <> 1
             ORDER BY slot
             LIMIT 5) wrong;
    IF _wrong IS NOT NULL THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'each slot must be of exactly one shard',
            DETAIL = format('Wrong are %s.', _wrong),
            HINT = 'Together the slots of all shards are {[0,1024)}.';
    END IF;
    SELECT string_agg(format('%s p%s %L', CASE WHEN _exists THEN 'SET' END, slot, s.connection), ', ' ORDER BY slot)
      INTO _options
      FROM generate_series(0, 1023) slot
      JOIN es_shards s ON slot <@ s.slots;
    IF _exists THEN
        EXECUTE format('ALTER SERVER es_cluster OPTIONS (%s)', _options);
        RETURN;
    END IF;
    EXECUTE format('CREATE SERVER es_cluster FOREIGN DATA WRAPPER plproxy OPTIONS (%s)', _options);
    CREATE USER MAPPING FOR PUBLIC SERVER es_cluster;
    GRANT USAGE ON FOREIGN SERVER es_cluster TO PUBLIC;
END $$;

CREATE FUNCTION es_create_shards(connections text[], slots int4multirange[] DEFAULT NULL) RETURNS integer
    LANGUAGE plpgsql SET search_path = @extschema@, pg_catalog, pg_temp
AS $$
DECLARE
    _count integer := coalesce(cardinality(connections), 0);
BEGIN
    LOCK TABLE es_shards;
    IF EXISTS (SELECT FROM es_shards) THEN
        RAISE object_not_in_prerequisite_state USING
            MESSAGE = 'the router has shards',
            DETAIL = format('There are %s.', (SELECT count(*) FROM es_shards)),
            HINT = 'es_split_shard() adds one.';
    ELSIF _count NOT BETWEEN 1 AND 1024 OR slots IS NOT NULL AND cardinality(slots) <> _count THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'there must be 1 to 1024 connections, and slots for each if any are given',
            DETAIL = format('There are %s connections and %s slots.', _count, coalesce(cardinality(slots)::text, 'no')),
            HINT = 'Leave the slots out to give each shard an equal part.';
    END IF;
    PERFORM es_check_connection(c) FROM unnest(connections) c;
    INSERT INTO es_shards (shard, slots, connection)
    SELECT n - 1, coalesce(slots[n], int4multirange(int4range((n - 1) * 1024 / _count, n * 1024 / _count))), connections[n]
      FROM generate_series(1, _count) n;
    PERFORM es_apply_map();
    RETURN _count;
END $$;

CREATE FUNCTION es_split_shard(
    shard integer, new_shard integer, new_slots int4multirange, connection text, split_position bigint) RETURNS void
    LANGUAGE plpgsql SET search_path = @extschema@, pg_catalog, pg_temp
AS $$
DECLARE
    _slots int4multirange;
BEGIN
    LOCK TABLE es_shards;
    PERFORM es_check_connection(connection);
    SELECT s.slots INTO _slots FROM es_shards s WHERE s.shard = es_split_shard.shard;
    IF NOT FOUND THEN
        RAISE undefined_object USING
            MESSAGE = format('there is no shard %s', coalesce(shard::text, 'null')),
            DETAIL = 'The router''s map does not have it.',
            HINT = 'es_shards lists the shards.';
    ELSIF new_slots IS NULL OR new_slots = '{}' OR NOT new_slots <@ _slots OR new_slots = _slots OR split_position IS NULL THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('a new shard gets a part of the slots of shard %s, at a position', shard),
            DETAIL = format('These are %s. The new ones are %s, at position %s.', _slots,
                            coalesce(new_slots::text, 'null'), coalesce(split_position::text, 'null')),
            HINT = 'The position is the last one of the new shard before it was given slots.';
    END IF;
    UPDATE es_shards s SET slots = s.slots - new_slots WHERE s.shard = es_split_shard.shard;
    INSERT INTO es_shards VALUES (new_shard, new_slots, connection, shard, split_position);
    PERFORM es_apply_map();
END $$;

CREATE FUNCTION es_connect_shard(shard integer, connection text) RETURNS void
    LANGUAGE plpgsql SET search_path = @extschema@, pg_catalog, pg_temp
AS $$
BEGIN
    LOCK TABLE es_shards;
    PERFORM es_check_connection(connection);
    UPDATE es_shards s SET connection = es_connect_shard.connection WHERE s.shard = es_connect_shard.shard;
    IF NOT FOUND THEN
        RAISE undefined_object USING
            MESSAGE = format('there is no shard %s', coalesce(shard::text, 'null')),
            DETAIL = 'The router''s map does not have it.',
            HINT = 'es_shards lists the shards.';
    END IF;
    PERFORM es_apply_map();
END $$;

REVOKE EXECUTE ON FUNCTION es_apply_map(), es_create_shards(text[], int4multirange[]),
    es_split_shard(integer, integer, int4multirange, text, bigint), es_connect_shard(integer, text) FROM PUBLIC;

COMMENT ON FUNCTION es_check_connection(text) IS 'part of the map: refuses a connection that PL/Proxy cannot use, or that tells a password';
COMMENT ON FUNCTION es_apply_map() IS 'part of the map: checks it, and lets PL/Proxy have it';
COMMENT ON FUNCTION es_create_shards(text[], int4multirange[]) IS
    'makes the map: shards from 0 on, by their connections and slots; returns how many';
COMMENT ON FUNCTION es_split_shard(integer, integer, int4multirange, text, bigint) IS
    'adds a shard to the map, which takes a part of the slots of another one';
COMMENT ON FUNCTION es_connect_shard(integer, text) IS 'changes how a shard is reached';

-- Everything that one shard carries out goes through it (src/cluster/route.c). It is called with a slot.
CREATE FUNCTION es_send(_slot integer, _call text, _arguments bytea) RETURNS SETOF bytea LANGUAGE plproxy
AS $$
    CLUSTER 'es_cluster';
    RUN ON _slot;
    SELECT es_call(_call, _arguments);
$$;
REVOKE EXECUTE ON FUNCTION es_send(integer, text, bytea) FROM PUBLIC;
COMMENT ON FUNCTION es_send(integer, text, bytea) IS 'part of each routed function: carries a call to the shard of a slot';

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

-- Reads of all shards. The vector of positions has an entry for each shard: {"0": 17, "1": 5}. Each shard is asked for
-- events of the slots that it has in this map, whatever slots it knows itself: see doc/internals/cluster.md.

-- The vector with an entry for each shard. A shard that was split from another one has all that this one had to the
-- split, so that a reader goes on where it was in the parent, or at the split.
CREATE FUNCTION es_vector(positions jsonb) RETURNS TABLE (shard integer, slots int4multirange, "position" bigint)
    LANGUAGE plpgsql VOLATILE SET search_path = @extschema@, pg_catalog, pg_temp
AS $$
DECLARE
    _unknown text;
BEGIN
    IF positions IS NULL OR jsonb_typeof(positions) <> 'object' THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'positions must be an object with a position for each shard',
            DETAIL = format('The argument is %s.', coalesce(jsonb_typeof(positions), 'null')),
            HINT = 'Begin with {}, and pass what came with the last event that was handled.';
    END IF;
    SELECT string_agg(k.key, ', ') INTO _unknown
      FROM jsonb_each(positions) k
     WHERE NOT EXISTS (SELECT FROM es_shards s WHERE s.shard::text = k.key);
    IF _unknown IS NOT NULL THEN
        RAISE object_not_in_prerequisite_state USING
            MESSAGE = 'the map is older than the positions',
            DETAIL = format('It has no shard %s.', _unknown),
            HINT = 'Give this router the map of the one that the positions are from.';
    END IF;
    SELECT string_agg(k.key || ': ' || k.value, ', ') INTO _unknown
      FROM jsonb_each(positions) k
     WHERE CASE WHEN jsonb_typeof(k.value) = 'number'
                THEN k.value::numeric NOT BETWEEN 0 AND 9223372036854775807 OR k.value::numeric <> trunc(k.value::numeric)
                ELSE true END;
    IF _unknown IS NOT NULL THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'each position must be a whole number from 0',
            DETAIL = format('Wrong are %s.', _unknown),
            HINT = 'Begin with {}, and pass what came with the last event that was handled.';
    END IF;
    RETURN QUERY
    WITH RECURSIVE v AS (
        SELECT s.shard, s.slots, coalesce((positions -> s.shard::text)::bigint, 0) AS position
          FROM es_shards s
         WHERE s.parent IS NULL
        UNION ALL
        SELECT s.shard, s.slots, coalesce((positions -> s.shard::text)::bigint, least(v.position, s.split_position))
          FROM es_shards s
          JOIN v ON s.parent = v.shard)
    SELECT v.shard, v.slots, v.position FROM v ORDER BY v.shard;
END $$;

CREATE TYPE es_shard_event AS (
    shard integer, "position" bigint, version bigint, recorded_at timestamptz, occurred_at timestamptz, id uuid,
    stream text, type text, data jsonb, metadata jsonb, tags text[], body bytea, positions jsonb);
COMMENT ON TYPE es_shard_event IS 'an event, as an es_recorded_event, with its shard and the positions to go on from';
COMMENT ON COLUMN es_shard_event.shard IS 'number of the shard';
COMMENT ON COLUMN es_shard_event.positions IS 'position for each shard; a read from there goes on behind the event';

-- What PL/Proxy sends, with the elements that are of the shard.
CREATE FUNCTION es_read_shards(_slot integer[], _shard integer[], _after bigint[], _slots text[], _count bigint)
    RETURNS SETOF es_shard_event LANGUAGE plproxy
AS $$
    CLUSTER 'es_cluster';
    SPLIT _slot, _shard, _after, _slots;
    RUN ON _slot;
    SELECT (_shard)[1] AS shard, e.position, e.version, e.recorded_at, e.occurred_at, e.id, e.stream, e.type,
           e.data, e.metadata, e.tags, e.body, NULL::jsonb AS positions
      FROM es_read((_after)[1]) e
     WHERE es_partition(e.stream, 1024) <@ (_slots)[1]::int4multirange
     ORDER BY e.position
     LIMIT _count;
$$;

CREATE FUNCTION es_read_category_shards(
    _category text, _types text[], _slot integer[], _shard integer[], _after bigint[], _slots text[], _count bigint)
    RETURNS SETOF es_shard_event LANGUAGE plproxy
AS $$
    CLUSTER 'es_cluster';
    SPLIT _slot, _shard, _after, _slots;
    RUN ON _slot;
    SELECT (_shard)[1] AS shard, e.position, e.version, e.recorded_at, e.occurred_at, e.id, e.stream, e.type,
           e.data, e.metadata, e.tags, e.body, NULL::jsonb AS positions
      FROM es_read_category(_category, (_after)[1], NULL, _types) e
     WHERE es_partition(e.stream, 1024) <@ (_slots)[1]::int4multirange
     ORDER BY e.position
     LIMIT _count;
$$;

-- The events of the shards, in the order of each, and the vector behind each event. The lock on the map, which is held
-- to the end of the transaction, keeps it as PL/Proxy has it; each statement sees what was committed before. Shards take turns by the time at
-- which events were recorded, so that none is kept waiting by max_count.
CREATE FUNCTION es_read_merged(category text, types text[], positions jsonb, max_count bigint)
    RETURNS SETOF es_shard_event LANGUAGE plpgsql VOLATILE SET search_path = @extschema@, pg_catalog, pg_temp
AS $$
DECLARE
    _slot integer[];
    _shard integer[];
    _after bigint[];
    _slots text[];
    _vector jsonb;
    _event es_shard_event;
BEGIN
    IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
        RAISE active_sql_transaction USING
            MESSAGE = 'shards must be read at isolation level READ COMMITTED',
            DETAIL = 'The transaction has one snapshot, in which the map may be older than the connections.',
            HINT = 'Begin a transaction of this isolation level.';
    ELSIF max_count < 0 THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'max_count must not be negative',
            DETAIL = format('It is %s.', max_count),
            HINT = 'Null returns all events.';
    END IF;
    SELECT array_agg(lower(v.slots)), array_agg(v.shard), array_agg(v.position), array_agg(v.slots::text),
           jsonb_object_agg(v.shard, v.position)
      INTO _slot, _shard, _after, _slots, _vector
      FROM es_vector(es_read_merged.positions) v;
    FOR _event IN
        SELECT r.shard, r.position, r.version, r.recorded_at, r.occurred_at, r.id, r.stream, r.type, r.data, r.metadata,
               r.tags, r.body, r.positions
          FROM (SELECT e.*, max(e.recorded_at) OVER (PARTITION BY e.shard ORDER BY e.position) AS turn
                  FROM (SELECT * FROM es_read_shards(_slot, _shard, _after, _slots, max_count) WHERE category IS NULL
                        UNION ALL
                        SELECT * FROM es_read_category_shards(category, types, _slot, _shard, _after, _slots, max_count)
                         WHERE category IS NOT NULL) e) r
         ORDER BY r.turn, r.shard, r.position
         LIMIT max_count
    LOOP
        _vector := _vector || jsonb_build_object(_event.shard, _event.position);
        _event.positions := _vector;
        RETURN NEXT _event;
    END LOOP;
END $$;

CREATE FUNCTION es_read(positions jsonb DEFAULT '{}', max_count bigint DEFAULT NULL) RETURNS SETOF es_shard_event
    LANGUAGE sql VOLATILE
BEGIN ATOMIC
    SELECT * FROM es_read_merged(NULL, NULL, positions, max_count);
END;

CREATE FUNCTION es_read_category(
    category text, positions jsonb DEFAULT '{}', max_count bigint DEFAULT NULL, types text[] DEFAULT NULL)
    RETURNS SETOF es_shard_event LANGUAGE plpgsql VOLATILE SET search_path = @extschema@, pg_catalog, pg_temp
AS $$
BEGIN
    IF category IS NULL THEN
        RAISE null_value_not_allowed USING
            MESSAGE = 'category must not be null',
            DETAIL = 'The argument is null.',
            HINT = 'es_read() reads all categories.';
    END IF;
    RETURN QUERY SELECT * FROM es_read_merged(category, types, positions, max_count);
END $$;

CREATE FUNCTION es_positions() RETURNS jsonb LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT jsonb_object_agg(s.shard, es_horizon(s.shard)) FROM es_shards s;
END;

COMMENT ON FUNCTION es_vector(jsonb) IS 'part of reads: the shards, their slots, and where a read goes on in each';
COMMENT ON FUNCTION es_read_shards(integer[], integer[], bigint[], text[], bigint) IS 'part of es_read: events of the shards';
COMMENT ON FUNCTION es_read_category_shards(text, text[], integer[], integer[], bigint[], text[], bigint) IS
    'part of es_read_category: events of the shards';
COMMENT ON FUNCTION es_read_merged(text, text[], jsonb, bigint) IS 'part of es_read and es_read_category: merges the shards';
COMMENT ON FUNCTION es_read(jsonb, bigint) IS
    'returns the events of all shards, of each in position order up to its horizon, after a position for each';
COMMENT ON FUNCTION es_read_category(text, jsonb, bigint, text[]) IS
    'returns the events of a category of all shards, of each in position order up to its horizon, after a position for each';
COMMENT ON FUNCTION es_positions() IS 'returns the horizon of each shard: from there a reader gets what comes from now on';

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
