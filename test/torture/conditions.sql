-- The protocol of appends with tags and conditions in SQL: what test/torture/decisions.py
-- judges to see that it can judge. A step is left out, or comes in another place, as the
-- setting race.fault says; with none of them nothing may be found.
--
-- Advisory locks stand for those of the extension, the metadata for the column of tags.
-- Rows are stored before a condition without tags is checked: nobody sees them before.
SET client_min_messages = warning;
CREATE SCHEMA race;

CREATE FUNCTION race.fault(name text) RETURNS boolean LANGUAGE sql STABLE
    RETURN coalesce(current_setting('race.fault', true), '') = name;

-- Queries

CREATE FUNCTION race.item_matches(item jsonb, type text, tags jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE
    RETURN (NOT item ? 'types' OR item->'types' ? type) AND (NOT item ? 'tags' OR tags @> (item->'tags'));

CREATE FUNCTION race.matches(query jsonb, type text, metadata jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE
    RETURN EXISTS (SELECT FROM jsonb_array_elements(query) AS item
                    WHERE race.item_matches(item, type, coalesce(metadata->'tags', '[]')));

CREATE FUNCTION race.has_untagged(query jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE
    RETURN EXISTS (SELECT FROM jsonb_array_elements(query) AS item WHERE NOT item ? 'tags');

-- Locks

CREATE FUNCTION race.key(tag text) RETURNS bigint LANGUAGE sql IMMUTABLE RETURN hashtextextended('tag ' || tag, 0);

-- One tag of each item.
CREATE FUNCTION race.tags_to_share(query jsonb) RETURNS text[] LANGUAGE sql STABLE
    RETURN ARRAY(SELECT item.value->'tags'->>0 FROM jsonb_array_elements(query) WITH ORDINALITY AS item
                  WHERE item.value ? 'tags' AND NOT race.fault('no lock') AND (item.ordinality = 1 OR NOT race.fault('one lock too few')));

CREATE FUNCTION race.lock_tags(exclusive text[], shared text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE lock record;
BEGIN
    FOR lock IN SELECT key, bool_or(own) AS own FROM (SELECT race.key(t) AS key, true AS own FROM unnest(exclusive) AS t
                    UNION ALL SELECT race.key(t), false FROM unnest(shared) AS t) AS wanted GROUP BY key ORDER BY key LOOP
        IF lock.own THEN
            PERFORM pg_advisory_xact_lock(lock.key);
        ELSE
            PERFORM pg_advisory_xact_lock_shared(lock.key);
        END IF;
    END LOOP;
END $$;

-- The locks of a write: its tags, or the whole log if there are too many; and then the log.
CREATE FUNCTION race.lock_write(tags text[], query jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF cardinality(tags) > 1000 OR race.fault('whole log') AND race.has_untagged(query) THEN
        LOCK TABLE public.es_events IN SHARE ROW EXCLUSIVE MODE;
    ELSE
        PERFORM race.lock_tags(tags, race.tags_to_share(query));
        IF race.has_untagged(query) THEN
            PERFORM pg_advisory_xact_lock(0);
        END IF;
        IF NOT race.fault('log late') THEN
            LOCK TABLE public.es_events IN ROW EXCLUSIVE MODE;
        END IF;
    END IF;
END $$;

-- The ids of the transactions that have the lock on the log. While one is being prepared its locks are not all in one place.
CREATE VIEW race.appender_ids AS
    WITH locks AS MATERIALIZED (SELECT * FROM pg_locks),
         holders AS (SELECT virtualtransaction, pid FROM locks
                      WHERE relation = 'public.es_events'::regclass AND granted AND mode LIKE '%RowExclusiveLock')
    SELECT transactionid AS id FROM locks AS l
     WHERE locktype = 'transactionid' AND mode = 'ExclusiveLock' AND granted AND pid IS DISTINCT FROM pg_backend_pid()
       AND (pid IS NULL OR EXISTS (SELECT FROM holders AS h WHERE h.virtualtransaction = l.virtualtransaction OR h.pid IS NULL));

-- Waits for them, until they end or release the lock.
CREATE FUNCTION race.wait_for_appenders() RETURNS void LANGUAGE plpgsql AS $$
DECLARE ids xid[]; began timestamptz := clock_timestamp();
BEGIN
    IF race.fault('no waiting') THEN
        RETURN;
    END IF;
    ids := ARRAY(SELECT id FROM race.appender_ids);
    WHILE EXISTS (SELECT FROM race.appender_ids WHERE id = ANY (ids)) LOOP
        IF clock_timestamp() > began + interval '3 seconds' THEN
            RAISE EXCEPTION 'waits too long' USING ERRCODE = '40P01';
        END IF;
        PERFORM pg_sleep(0.001);
    END LOOP;
END $$;

-- Reading

CREATE FUNCTION race.es_query(query jsonb, after_position bigint DEFAULT 0)
    RETURNS TABLE ("position" bigint, type text, data jsonb, metadata jsonb) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE keys bigint[]; horizon bigint := 9223372036854775807;
BEGIN
    IF race.fault('no barrier') THEN
        NULL;
    ELSIF race.has_untagged(query) THEN
        horizon := 0;
    ELSE
        keys := ARRAY(SELECT DISTINCT race.key(item->'tags'->>-1) FROM jsonb_array_elements(query) AS item ORDER BY 1);
        FOR i IN 1 .. cardinality(keys) LOOP
            PERFORM pg_advisory_lock_shared(keys[i]);
        END LOOP;
        FOR i IN 1 .. cardinality(keys) LOOP
            PERFORM pg_advisory_unlock_shared(keys[i]);
        END LOOP;
    END IF;
    RETURN QUERY SELECT e.position, e.type, e.data, e.metadata FROM public.es_events AS e
        WHERE e.position > after_position AND (horizon > 0 OR e.position <= (SELECT public.es_horizon()))
          AND race.matches(query, e.type, e.metadata) ORDER BY e.position;
END $$;

-- Writing

CREATE FUNCTION race.tags_of(events jsonb) RETURNS text[] LANGUAGE sql IMMUTABLE
    RETURN ARRAY(SELECT DISTINCT tag FROM jsonb_array_elements(events) AS e, jsonb_array_elements_text(coalesce(e->'tags', '[]')) AS tag);

-- Stores events; the names of streams are as in es_append_if.
CREATE FUNCTION race.store(events jsonb, OUT first_position bigint, OUT "position" bigint) LANGUAGE plpgsql AS $$
DECLARE event jsonb; stored bigint;
BEGIN
    FOR event IN SELECT jsonb_array_elements(events) LOOP
        stored := (public.es_append(coalesce(event->>'stream', 'event-' || (event->'tags'->>0)), 'any', event->>'type', event->'data',
                                    jsonb_build_object('tags', coalesce(event->'tags', '[]')))).position;
        first_position := coalesce(first_position, stored);
    END LOOP;
    store.position := stored;
END $$;

CREATE FUNCTION race.check_condition(query jsonb, after_position bigint, below bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE matched bigint;
BEGIN
    SELECT e.position INTO matched FROM public.es_events AS e
     WHERE e.position > after_position AND e.position < below AND race.matches(query, e.type, e.metadata) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'condition failed at position %', matched USING ERRCODE = 'ES007';
    END IF;
END $$;

CREATE FUNCTION race.es_append_if(events jsonb, query jsonb, after_position bigint DEFAULT 0, OUT first_position bigint, OUT "position" bigint)
    LANGUAGE plpgsql AS $$
BEGIN
    IF race.fault('snapshot first') THEN
        PERFORM race.check_condition(query, after_position, 9223372036854775807);
    END IF;
    PERFORM race.lock_write(race.tags_of(events), query);
    IF NOT race.has_untagged(query) AND NOT race.fault('snapshot first') THEN
        PERFORM race.check_condition(query, after_position, 9223372036854775807);
    END IF;
    SELECT s.first_position, s.position INTO first_position, es_append_if.position FROM race.store(events) AS s;
    IF race.has_untagged(query) THEN
        PERFORM race.wait_for_appenders();
        PERFORM race.check_condition(query, after_position, first_position);
    END IF;
END $$;

CREATE FUNCTION race.es_append(stream text, expected es_expected_version, type text, data jsonb DEFAULT '{}', metadata jsonb DEFAULT NULL,
        id uuid DEFAULT NULL, occurred_at timestamptz DEFAULT NULL, tags text[] DEFAULT NULL, OUT version bigint, OUT "position" bigint)
    LANGUAGE plpgsql AS $$
#variable_conflict use_variable
BEGIN
    PERFORM race.lock_write(coalesce(tags, '{}'), '[]');
    SELECT a.version, a.position INTO version, position FROM public.es_append(stream, expected, type, data,
        jsonb_build_object('tags', coalesce(tags, '{}')), id, occurred_at) AS a;
END $$;

CREATE FUNCTION race.es_append_batch(stream text, expected es_expected_version, events jsonb, OUT version bigint, OUT "position" bigint)
    LANGUAGE plpgsql AS $$
#variable_conflict use_variable
BEGIN
    PERFORM race.lock_write(race.tags_of(events), '[]');
    SELECT a.version, a.position INTO version, position FROM public.es_append_batch(stream, expected,
        (SELECT jsonb_agg(e - 'tags' || jsonb_build_object('metadata', jsonb_build_object('tags', e->'tags'))) FROM jsonb_array_elements(events) AS e)) AS a;
END $$;

-- Decides on how many events match. What the events share with others is locked in a second round if it is taken.
CREATE FUNCTION race.es_decide(query jsonb, decider text, command jsonb, reducer text, OUT version bigint, OUT "position" bigint,
        OUT state jsonb, OUT events int) LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    locked text[] := ARRAY(SELECT DISTINCT tag FROM jsonb_array_elements(query) AS item, jsonb_array_elements_text(coalesce(item->'tags', '[]')) AS tag);
    further text[]; decided jsonb; upto bigint; first bigint; again boolean := true; round int := 0;
BEGIN
    WHILE again LOOP
        round := round + 1;
        BEGIN
            PERFORM race.lock_write(locked, CASE WHEN race.has_untagged(query) THEN '[{}]' ELSE '[]' END::jsonb);
            upto := 9223372036854775807;
            IF race.has_untagged(query) THEN
                upto := (SELECT last_value FROM public.es_position);
                PERFORM race.wait_for_appenders();
            END IF;
            IF round = 1 OR NOT race.fault('decided before') THEN
                state := (SELECT jsonb_build_object('n', count(*)) FROM public.es_events AS e
                           WHERE e.position <= upto AND race.matches(query, e.type, e.metadata));
            END IF;
            EXECUTE format('SELECT %s($1, $2)', decider) INTO decided USING state, command;
            further := ARRAY(SELECT tag FROM unnest(race.tags_of(decided)) AS tag WHERE tag <> ALL (locked));
            locked := locked || further;
            IF EXISTS (SELECT FROM unnest(further) AS tag WHERE NOT pg_try_advisory_xact_lock(race.key(tag))) THEN
                RAISE EXCEPTION 'again' USING ERRCODE = 'RC001';
            END IF;
            IF race.fault('log late') THEN
                LOCK TABLE public.es_events IN ROW EXCLUSIVE MODE;
            END IF;
            SELECT s.first_position, s.position INTO first, position FROM race.store(decided) AS s;
            events := jsonb_array_length(decided);
            IF race.has_untagged(query) THEN
                PERFORM race.wait_for_appenders();
                BEGIN
                    PERFORM race.check_condition(query, upto, first);
                EXCEPTION WHEN SQLSTATE 'ES007' THEN
                    RAISE EXCEPTION 'again' USING ERRCODE = 'RC001';
                END;
            END IF;
            again := false;
        EXCEPTION WHEN SQLSTATE 'RC001' THEN
            NULL;
        END;
    END LOOP;
END $$;
