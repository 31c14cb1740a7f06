-- Keeps writers of the category out, to the end of the transaction: they share this lock.
CREATE FUNCTION acquire_lock(stream_name varchar) RETURNS bigint
    LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    _category varchar := @extschema@.category(acquire_lock.stream_name);
    _hash bigint := @extschema@.hash_64(_category);
BEGIN
    PERFORM pg_advisory_xact_lock(_hash);
    IF current_setting('message_store.debug_write', true) = 'on'
        OR current_setting('message_store.debug', true) = 'on'
    THEN
        RAISE NOTICE '» acquire_lock';
        RAISE NOTICE 'stream_name: %', acquire_lock.stream_name;
        RAISE NOTICE '_category: %', _category;
        RAISE NOTICE '_category_name_hash: %', _hash;
    END IF;
    RETURN _hash;
END $$;

CREATE FUNCTION stream_version(stream_name varchar) RETURNS bigint
    LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN (SELECT p FROM @extschema@.last_position(stream_version.stream_name) p);
END $$;

-- In C, so that errors are message-db's without a subtransaction.
CREATE FUNCTION write_message(
    id varchar, stream_name varchar, "type" varchar, data jsonb, metadata jsonb DEFAULT NULL,
    expected_version bigint DEFAULT NULL) RETURNS bigint
    AS '$libdir/eventstore', 'es_append_message' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE EXECUTE ON FUNCTION write_message(varchar, varchar, varchar, jsonb, jsonb, bigint) FROM PUBLIC;

-- A row that is inserted into the view. What message-db's table would take and a log cannot is an error.
CREATE FUNCTION messages_check(message messages) RETURNS void
    LANGUAGE plpgsql STABLE AS $$
DECLARE
    _last bigint := (SELECT p FROM @extschema@.last_position(message.stream_name::varchar) p);
    _column text := CASE WHEN message.position IS NULL THEN 'position' WHEN message.time IS NULL THEN 'time'
        WHEN message.stream_name IS NULL THEN 'stream_name' WHEN message.type IS NULL THEN 'type'
        WHEN message.id IS NULL THEN 'id' END;
BEGIN
    IF _column IS NOT NULL THEN
        RAISE not_null_violation USING
            MESSAGE = format('null value in column "%s" of relation "messages" violates not-null constraint', _column),
            DETAIL = format('The value of %s is null.', _column),
            HINT = 'Only data and metadata may be null.',
            SCHEMA = 'message_store', TABLE = 'messages', COLUMN = _column;
    ELSIF message.global_position IS NOT NULL THEN
        RAISE feature_not_supported USING
            MESSAGE = 'a message cannot be inserted at a global position',
            DETAIL = format('The global position is %s; the store gives each message its own.',
                            message.global_position),
            HINT = 'Leave the column global_position out.';
    ELSIF message.position > coalesce(_last, -1) + 1 OR message.position < 0 THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('a message cannot be inserted at position %s of stream "%s"',
                             message.position, message.stream_name),
            DETAIL = format('The next position is %s; positions have no gaps.', coalesce(_last, -1) + 1),
            HINT = 'Insert messages in the order of their positions, from 0.';
    ELSIF message.position <= _last THEN
        RAISE unique_violation USING
            MESSAGE = 'duplicate key value violates unique constraint "messages_stream"',
            DETAIL = format('Key (stream_name, "position")=(%s, %s) already exists.',
                            message.stream_name, message.position),
            HINT = format('The last position is %s.', _last),
            SCHEMA = 'message_store', TABLE = 'messages', CONSTRAINT = 'messages_stream';
    ELSIF EXISTS (SELECT FROM @extschema@.messages m WHERE m.id = message.id) THEN
        RAISE unique_violation USING
            MESSAGE = 'duplicate key value violates unique constraint "messages_id"',
            DETAIL = format('Key (id)=(%s) already exists.', message.id),
            HINT = 'The message may be stored already.',
            SCHEMA = 'message_store', TABLE = 'messages', CONSTRAINT = 'messages_id';
    END IF;
END $$;

-- A time that is not that of the transaction is kept as the time at which the event occurred.
CREATE FUNCTION messages_append(message messages) RETURNS bigint
    LANGUAGE sql VOLATILE
BEGIN ATOMIC
    SELECT (es_append(message.stream_name, message.position, message.type, coalesce(message.data, 'null'),
            message.metadata, message.id, nullif(message.time AT TIME ZONE 'utc', now()))).position;
END;

CREATE FUNCTION messages_insert() RETURNS trigger
    LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.stream_name IS NOT NULL THEN
        PERFORM @extschema@.acquire_lock(NEW.stream_name::varchar);
    END IF;
    PERFORM @extschema@.messages_check(NEW);
    NEW.global_position := @extschema@.messages_append(NEW);
    RETURN NEW;
END $$;
CREATE TRIGGER messages_insert INSTEAD OF INSERT ON messages
    FOR EACH ROW EXECUTE FUNCTION messages_insert();

COMMENT ON FUNCTION acquire_lock(varchar) IS
    'locks the category of a stream to the end of the transaction; returns the hash of its name';
COMMENT ON FUNCTION stream_version(varchar) IS 'position of the last message of a stream; null: there is none';
COMMENT ON FUNCTION write_message(varchar, varchar, varchar, jsonb, jsonb, bigint) IS
    'appends a message to a stream; returns its position';
COMMENT ON FUNCTION messages_check(messages) IS 'part of messages_insert: refuses what cannot be stored';
COMMENT ON FUNCTION messages_append(messages) IS 'part of messages_insert: appends, and returns the global position';
COMMENT ON FUNCTION messages_insert() IS 'trigger of messages: appends a row';
