-- Without a condition in SQL a read is a statement whose plan is kept. -1 as the size of a batch is no limit.

-- Whether a condition may be used; an error if not.
CREATE FUNCTION check_condition() RETURNS void
    LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF coalesce(current_setting('message_store.sql_condition', true), 'off') = 'off' THEN
        RAISE 'Retrieval with SQL condition is not activated';
    END IF;
END $$;

CREATE FUNCTION get_stream_messages(
    stream_name varchar, "position" bigint DEFAULT 0, batch_size bigint DEFAULT 1000, condition varchar DEFAULT NULL)
    RETURNS SETOF message LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    _position bigint := coalesce(get_stream_messages.position, 0);
    _batch_size bigint := coalesce(get_stream_messages.batch_size, 1000);
    _limit bigint := nullif(_batch_size, -1);
    _command text := 'SELECT id::varchar, stream_name::varchar, type::varchar, position, global_position, data::varchar,
        metadata::varchar, time FROM (SELECT global_position, position, time, stream_name, type,
            nullif(data, ''null'') AS data, metadata, id FROM @extschema@.stream_messages($1, $2)) AS messages WHERE true AND (' ||
        get_stream_messages.condition || ')
        ORDER BY position LIMIT $3';
BEGIN
    IF @extschema@.is_category(get_stream_messages.stream_name) THEN
        RAISE 'Must be a stream name: %', get_stream_messages.stream_name;
    END IF;
    IF _command IS NOT NULL THEN
        PERFORM @extschema@.check_condition();
    END IF;
    IF current_setting('message_store.debug_get', true) = 'on'
        OR current_setting('message_store.debug', true) = 'on'
    THEN
        RAISE NOTICE '» get_stream_messages';
        RAISE NOTICE 'stream_name ($1): %', get_stream_messages.stream_name;
        RAISE NOTICE 'position ($2): %', _position;
        RAISE NOTICE 'batch_size ($3): %', _batch_size;
        RAISE NOTICE 'condition ($4): %', get_stream_messages.condition;
        RAISE NOTICE 'Generated Command: %', coalesce(_command, 'stream_messages($1, $2)');
    END IF;
    IF _command IS NOT NULL THEN
        RETURN QUERY EXECUTE _command USING get_stream_messages.stream_name, _position, _limit;
    ELSE
        RETURN QUERY
            SELECT m.id::varchar, m.stream_name::varchar, m.type::varchar, m.position, m.global_position,
                   nullif(m.data::varchar, 'null')::varchar, m.metadata::varchar, m.time
              FROM @extschema@.stream_messages(get_stream_messages.stream_name, _position) m
             LIMIT _limit;
    END IF;
END $$;

-- Refuses members that are in no group.
CREATE FUNCTION check_consumer_group(consumer_group_member bigint, consumer_group_size bigint) RETURNS void
    LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    _problem text := CASE
        WHEN (consumer_group_member IS NULL) <> (consumer_group_size IS NULL)
            THEN 'Consumer group member and size must be specified'
        WHEN consumer_group_size < 1 THEN 'Consumer group size must not be less than 1'
        WHEN consumer_group_member < 0 THEN 'Consumer group member must not be less than 0'
        WHEN consumer_group_member >= consumer_group_size
            THEN 'Consumer group member must be less than the group size' END;
BEGIN
    IF _problem IS NOT NULL THEN
        RAISE '% (Consumer Group Member: %, Consumer Group Size: %)',
            _problem, consumer_group_member, consumer_group_size;
    END IF;
END $$;

CREATE FUNCTION get_category_messages(
    category varchar, "position" bigint DEFAULT 1, batch_size bigint DEFAULT 1000, correlation varchar DEFAULT NULL,
    consumer_group_member bigint DEFAULT NULL, consumer_group_size bigint DEFAULT NULL, condition varchar DEFAULT NULL)
    RETURNS SETOF message LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    _position bigint := coalesce(get_category_messages.position, 1);
    _batch_size bigint := coalesce(get_category_messages.batch_size, 1000);
    _limit bigint := nullif(_batch_size, -1);
    _size smallint;
    _command text;
BEGIN
    IF NOT @extschema@.is_category(get_category_messages.category) THEN
        RAISE 'Must be a category: %', get_category_messages.category;
    END IF;
    IF strpos(get_category_messages.correlation, '-') > 0 THEN
        RAISE 'Correlation must be a category (Correlation: %)', get_category_messages.correlation;
    END IF;
    IF get_category_messages.consumer_group_member IS NOT NULL
        OR get_category_messages.consumer_group_size IS NOT NULL
    THEN
        PERFORM @extschema@.check_consumer_group(get_category_messages.consumer_group_member,
                                                 get_category_messages.consumer_group_size);
    END IF;
    IF get_category_messages.condition IS NOT NULL THEN
        PERFORM @extschema@.check_condition();
    END IF;
    IF get_category_messages.condition IS NOT NULL THEN
        _command := concat('SELECT id::varchar, stream_name::varchar, type::varchar, position, global_position,
            data::varchar, metadata::varchar, time FROM (SELECT global_position, position, time, stream_name, type,
            nullif(data, ''null'') AS data, metadata, id FROM @extschema@.category_messages($1, $2)) AS messages
            WHERE true',
            CASE WHEN get_category_messages.correlation IS NOT NULL
                THEN ' AND @extschema@.category((metadata->>''correlationStreamName'')::varchar) = $4' END,
            CASE WHEN get_category_messages.consumer_group_size IS NOT NULL
                THEN ' AND mod(@ @extschema@.hash_64(@extschema@.cardinal_id(stream_name::varchar)), $6) = $5' END,
            ' AND (', get_category_messages.condition, ')
            ORDER BY global_position LIMIT $3');
    END IF;
    IF current_setting('message_store.debug_get', true) = 'on'
        OR current_setting('message_store.debug', true) = 'on'
    THEN
        RAISE NOTICE '» get_category_messages';
        RAISE NOTICE 'category ($1): %', get_category_messages.category;
        RAISE NOTICE 'position ($2): %', _position;
        RAISE NOTICE 'batch_size ($3): %', _batch_size;
        RAISE NOTICE 'correlation ($4): %', get_category_messages.correlation;
        RAISE NOTICE 'consumer_group_member ($5): %', get_category_messages.consumer_group_member;
        RAISE NOTICE 'consumer_group_size ($6): %', get_category_messages.consumer_group_size;
        RAISE NOTICE 'condition: %', get_category_messages.condition;
        RAISE NOTICE 'Generated Command: %', coalesce(_command, 'category_messages($1, $2)');
    END IF;
    -- message-db compares by this type, and refuses sizes that it has not
    _size := get_category_messages.consumer_group_size;
    IF _command IS NOT NULL THEN
        RETURN QUERY EXECUTE _command USING get_category_messages.category, _position, _limit,
            get_category_messages.correlation, get_category_messages.consumer_group_member, _size;
    ELSIF get_category_messages.correlation IS NOT NULL OR _size IS NOT NULL THEN
        RETURN QUERY
            SELECT m.id::varchar, m.stream_name::varchar, m.type::varchar, m.position, m.global_position,
                   nullif(m.data::varchar, 'null')::varchar, m.metadata::varchar, m.time
              FROM @extschema@.category_messages(get_category_messages.category, _position) m
             WHERE (get_category_messages.correlation IS NULL
                    OR split_part(m.metadata ->> 'correlationStreamName', '-', 1) = get_category_messages.correlation)
               AND (_size IS NULL
                    OR mod(@ @extschema@.hash_64(@extschema@.cardinal_id(m.stream_name::varchar)), _size)
                       = get_category_messages.consumer_group_member)
             ORDER BY m.global_position
             LIMIT _limit;
    ELSE
        RETURN QUERY
            SELECT m.id::varchar, m.stream_name::varchar, m.type::varchar, m.position, m.global_position,
                   nullif(m.data::varchar, 'null')::varchar, m.metadata::varchar, m.time
              FROM @extschema@.category_messages(get_category_messages.category, _position) m
             LIMIT _limit;
    END IF;
END $$;

CREATE FUNCTION get_last_stream_message(stream_name varchar, type varchar DEFAULT NULL)
    RETURNS SETOF message LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    IF current_setting('message_store.debug_get', true) = 'on'
        OR current_setting('message_store.debug', true) = 'on'
    THEN
        RAISE NOTICE '» get_last_message';
        RAISE NOTICE 'stream_name ($1): %', get_last_stream_message.stream_name;
        RAISE NOTICE 'type ($2): %', get_last_stream_message.type;
        RAISE NOTICE 'Generated Command: %', 'last_message($1, $2)';
    END IF;
    RETURN QUERY
        SELECT m.id::varchar, m.stream_name::varchar, m.type::varchar, m.position, m.global_position,
               nullif(m.data::varchar, 'null')::varchar, m.metadata::varchar, m.time
          FROM @extschema@.last_message(get_last_stream_message.stream_name, get_last_stream_message.type) m;
END $$;

COMMENT ON FUNCTION check_condition() IS 'part of the reads: an error unless message_store.sql_condition is on';
COMMENT ON FUNCTION check_consumer_group(bigint, bigint) IS
    'part of get_category_messages: refuses members of no group';
COMMENT ON FUNCTION get_stream_messages(varchar, bigint, bigint, varchar) IS
    'returns the messages of a stream from a position on, in order';
COMMENT ON FUNCTION get_category_messages(varchar, bigint, bigint, varchar, bigint, bigint, varchar) IS
    'returns the messages of a category from a global position on, in order, up to the horizon';
COMMENT ON FUNCTION get_last_stream_message(varchar, varchar) IS
    'returns the last message of a stream, or its last of a type';
