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
