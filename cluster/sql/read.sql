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
EXCEPTION WHEN internal_error THEN
    -- errors of PL/Proxy have no SQLSTATE by which a program would know that it can repeat the read
    RAISE connection_failure USING
        MESSAGE = SQLERRM,
        DETAIL = 'One of the shards did not answer.',
        HINT = 'Repeat the read from the same positions.';
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
