-- What all the scripts here share: they include this file, and then say how the tables of one store are read.
--
--     psql -f examples/import/message-db.sql DATABASE     once, as the owner of both stores
--     CALL old_store.copy();                              all that is there; the old store goes on meanwhile
--     CALL old_store.catch_up();                          what has come since, until little is left
--     CALL old_store.switch();                            keeps the old writers out, takes the rest, makes subscriptions
--     SELECT * FROM old_store.compare();                  both stores, event by event
--
-- A script makes, in the schema old_store:
--
--     events       a view: position, version, recorded_at, occurred_at, stream, type, data, metadata, id, tags, body.
--                  version is null where the store has none. Only the order of versions counts: a stream whose versions
--                  have gaps gets new ones.
--     consumers    a view: name, category, position. A consumer of all categories has null.
--     tables       rows: the tables that the old writers insert into.
--     stable_position()   the position up to which no event can come any more. This file has one for any store whose
--                  positions come from a sequence: it waits for the transactions that write now.
--
-- Each batch is a transaction that also writes in old_store.progress how far it has come. So a run that ended goes on
-- where it was. Positions must be those of an eventstore that has no events above them.

\set ON_ERROR_STOP on
\set QUIET on

-- The functions below find eventstore's objects in its schema, as they are made with this search_path.
SELECT format('%I, pg_catalog, pg_temp', n.nspname) AS search_path
  FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace WHERE e.extname = 'eventstore' \gset
\if :{?search_path}
\else
DO $$ BEGIN RAISE EXCEPTION 'eventstore is not in this database' USING HINT = 'CREATE EXTENSION eventstore.'; END $$;
\endif
-- The script that includes this file ends the transaction.
BEGIN;
SET LOCAL client_min_messages = warning;
SET LOCAL search_path = :search_path;
SET LOCAL check_function_bodies = off;   -- the views are made later

CREATE SCHEMA IF NOT EXISTS old_store;
CREATE TABLE IF NOT EXISTS old_store.progress (
    only_one    boolean     PRIMARY KEY DEFAULT true CHECK (only_one),
    position    bigint      NOT NULL DEFAULT 0,   -- all events up to it are here
    events      bigint      NOT NULL DEFAULT 0,   -- so many
    started_at  timestamptz NOT NULL DEFAULT now(),
    switched_at timestamptz
);
INSERT INTO old_store.progress DEFAULT VALUES ON CONFLICT DO NOTHING;
DROP VIEW IF EXISTS old_store.consumers, old_store.events CASCADE;
DROP TABLE IF EXISTS old_store.tables CASCADE;
CREATE TABLE old_store.tables (name regclass PRIMARY KEY);

-- Bytes that are JSON in UTF-8 as JSON; null for other bytes, and for what JSON cannot hold here.
CREATE OR REPLACE FUNCTION old_store.as_json(bytes bytea) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN convert_from(bytes, 'UTF8')::jsonb;
EXCEPTION WHEN data_exception OR character_not_in_repertoire THEN
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION old_store.as_json(value jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT value';
CREATE OR REPLACE FUNCTION old_store.as_json(value json) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT value::jsonb';

-- Bytes that are not JSON, for the event's body.
CREATE OR REPLACE FUNCTION old_store.as_body(bytes bytea) RETURNS bytea LANGUAGE sql IMMUTABLE AS
    'SELECT CASE WHEN old_store.as_json(bytes) IS NULL THEN bytes END';
CREATE OR REPLACE FUNCTION old_store.as_body(value jsonb) RETURNS bytea LANGUAGE sql IMMUTABLE AS 'SELECT NULL::bytea';
CREATE OR REPLACE FUNCTION old_store.as_body(value json) RETURNS bytea LANGUAGE sql IMMUTABLE AS 'SELECT NULL::bytea';

-- Metadata of a store that allows any JSON there.
CREATE OR REPLACE FUNCTION old_store.as_metadata(metadata jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN jsonb_typeof(metadata) = 'object' THEN metadata
                WHEN jsonb_typeof(metadata) <> 'null' THEN jsonb_build_object('metadata', metadata) END
$$;

-- The id of an event whose id is no UUID, or that has none: always the same for the same text.
CREATE OR REPLACE FUNCTION old_store.as_id(id text) RETURNS uuid LANGUAGE sql IMMUTABLE
    RETURN CASE WHEN id ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' THEN id::uuid
                ELSE es_uuid5('6ba7b812-9dad-11d1-80b4-00c04fd430c8', id) END;

-- Waits for the transactions that have written to the tables of the old store, or may have.
CREATE OR REPLACE FUNCTION old_store.wait_for_writers() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    writers text[];
    waiting text;
    said_at timestamptz := clock_timestamp();
BEGIN
    SELECT array_agg(virtualtransaction) INTO writers FROM old_store.open_writers;
    LOOP
        SELECT string_agg(coalesce(pid::text, 'a prepared transaction'), ', ') INTO waiting
          FROM old_store.open_writers WHERE virtualtransaction = ANY (writers);
        EXIT WHEN waiting IS NULL;
        IF clock_timestamp() > said_at + interval '5 seconds' THEN
            RAISE INFO 'waiting for transactions that write to the old store, of processes: %', waiting;
            said_at := clock_timestamp();
        END IF;
        PERFORM pg_sleep(0.01);
    END LOOP;
END $$;

CREATE OR REPLACE VIEW old_store.open_writers AS
    SELECT DISTINCT l.virtualtransaction, l.pid
      FROM old_store.tables AS t
     CROSS JOIN LATERAL (SELECT relid FROM pg_partition_tree(t.name) UNION SELECT t.name) AS part (relation)
      JOIN pg_locks AS l USING (relation)
     WHERE l.locktype = 'relation' AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock');

-- An insert locks its table before it draws a position. So a position below the last one that is not to be seen now
-- belongs to one of the transactions that hold such a lock now, or to none.
CREATE OR REPLACE FUNCTION old_store.stable_position() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    last bigint;
BEGIN
    SELECT position INTO last FROM old_store.events ORDER BY position DESC LIMIT 1;
    PERFORM old_store.wait_for_writers();
    RETURN coalesce(last, 0);
END $$;

-- How many events came too late, below those that were copied, above a position.
CREATE OR REPLACE FUNCTION old_store.late_events(above bigint DEFAULT 0) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    upto bigint := (SELECT position FROM old_store.progress);
BEGIN
    RETURN (SELECT count(*) FROM old_store.events WHERE position > above AND position <= upto)
         - (SELECT count(*) FROM es_events WHERE position > above AND position <= upto);
END $$;
CREATE OR REPLACE PROCEDURE old_store.refuse_late_events(above bigint DEFAULT 0) LANGUAGE plpgsql AS $$
DECLARE
    late bigint := old_store.late_events(above);
BEGIN
    IF late <> 0 THEN
        RAISE EXCEPTION '% events of the old store were written below those that had been copied', late
            USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = 'The store is not switched.',
                  HINT = 'Drop the extension and the schema old_store, and copy again, with the old writers stopped.';
    END IF;
END $$;

-- Imports up to so many events after those that are here, and returns how many.
CREATE OR REPLACE FUNCTION old_store.import_batch(upto bigint, rows bigint) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    done old_store.progress;
    number bigint;
    last_stored bigint;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'events are imported at the isolation level READ COMMITTED'
            USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = 'A snapshot of the transaction would hide new events.',
                  HINT = 'SET default_transaction_isolation = ''read committed''.';
    END IF;
    SELECT * INTO STRICT done FROM old_store.progress FOR UPDATE;
    IF done.switched_at IS NOT NULL THEN
        RAISE EXCEPTION 'the old store was left at %', done.switched_at
            USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = 'Events have come here since, or may have.';
    END IF;
    WITH batch AS MATERIALIZED (
        SELECT * FROM old_store.events WHERE position > done.position AND position <= upto ORDER BY position LIMIT rows
    ),
    last AS MATERIALIZED (
        SELECT stream, es_stream_version(stream) AS version FROM (SELECT DISTINCT stream FROM batch) AS streams
    ),
    stored AS (
        INSERT INTO es_import_log
               (position, version, recorded_at, stream, type, data, metadata, id, occurred_at, tags, body)
        SELECT b.position, last.version + row_number() OVER (PARTITION BY b.stream ORDER BY b.position),
               b.recorded_at, b.stream, b.type, b.data, b.metadata, b.id, b.occurred_at, b.tags, b.body
          FROM batch AS b JOIN last USING (stream) ORDER BY b.position
        RETURNING position
    )
    SELECT count(*), max(position) INTO number, last_stored FROM stored;
    IF number = rows OR upto = 9223372036854775807 THEN
        upto := last_stored;
    END IF;
    UPDATE old_store.progress SET position = greatest(upto, position), events = events + number;
    RETURN number;
END $$;

-- Imports all events up to a position, and says each second how far it has come.
CREATE OR REPLACE PROCEDURE old_store.copy_to(upto bigint, batch bigint) LANGUAGE plpgsql AS $$
DECLARE
    total bigint := (SELECT count(*) FROM old_store.events
                      WHERE position > (SELECT position FROM old_store.progress) AND position <= upto);
    done bigint := 0;
    number bigint;
    began timestamptz := clock_timestamp();
    said_at timestamptz := began;
    seconds numeric;
BEGIN
    COMMIT;
    LOOP
        number := old_store.import_batch(upto, batch);
        COMMIT;
        done := done + number;
        seconds := greatest(extract(epoch FROM clock_timestamp() - began), 0.001);
        IF number < batch OR clock_timestamp() > said_at + interval '1 second' THEN
            RAISE INFO '% of % events, % a second, % left', done, total, round(done / seconds),
                make_interval(secs => round(greatest(total - done, 0) * seconds / greatest(done, 1)));
            said_at := clock_timestamp();
        END IF;
        EXIT WHEN number < batch;
    END LOOP;
END $$;

CREATE OR REPLACE PROCEDURE old_store.copy(batch bigint DEFAULT 10000) LANGUAGE plpgsql AS $$
BEGIN
    IF coalesce(batch < 1, true) THEN
        RAISE EXCEPTION 'batch must be positive' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    CALL old_store.copy_to(old_store.stable_position(), batch);
END $$;

-- Copies again until a pass brings few events, and for so long.
CREATE OR REPLACE PROCEDURE old_store.catch_up(
    duration interval DEFAULT '0', few bigint DEFAULT 1000, batch bigint DEFAULT 10000) LANGUAGE plpgsql AS $$
DECLARE
    until timestamptz := clock_timestamp() + duration;
    before bigint;
    after bigint;
BEGIN
    LOOP
        SELECT events INTO before FROM old_store.progress;
        CALL old_store.copy(batch);
        SELECT events INTO after FROM old_store.progress;
        COMMIT;
        EXIT WHEN after - before <= few AND clock_timestamp() >= until;
        IF after - before <= few THEN
            PERFORM pg_sleep(1);
        END IF;
    END LOOP;
END $$;

-- What an insert into the old store is answered from the switch on.
CREATE OR REPLACE FUNCTION old_store.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the events of % are in eventstore now', TG_RELID::regclass
        USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = 'What is written here would not be seen.',
              HINT = 'Append by es_append().';
END $$;

-- Subscriptions that go on where the old consumers are.
CREATE OR REPLACE FUNCTION old_store.create_subscriptions(consumers jsonb) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    consumer record;
BEGIN
    FOR consumer IN
        SELECT name, category, least(c.position, p.position) AS start_position
          FROM jsonb_to_recordset(consumers) AS c (name text, category text, position bigint)
         CROSS JOIN old_store.progress AS p
    LOOP
        PERFORM es_create_subscription(consumer.name, category => consumer.category,
                                       start_position => consumer.start_position);
        RAISE INFO 'subscription "%" goes on after position %', consumer.name, consumer.start_position;
    END LOOP;
END $$;

-- From the first lock to the commit no write to the old store is possible. What takes long is done before. The lock
-- waits for the transactions that write now; lock_timeout limits how long others wait behind a switch that fails.
CREATE OR REPLACE PROCEDURE old_store.switch(
    consumers boolean DEFAULT true, lock_timeout interval DEFAULT '10 seconds') LANGUAGE plpgsql AS $$
DECLARE
    subscriptions jsonb := '[]';
    copied bigint;
    writes_to regclass;
    began timestamptz;
    number bigint;
BEGIN
    CALL old_store.catch_up();
    CALL old_store.refuse_late_events();
    IF consumers THEN
        SELECT coalesce(jsonb_agg(c ORDER BY name), '[]') INTO subscriptions FROM old_store.consumers AS c;
    END IF;
    CALL old_store.catch_up();
    SELECT position INTO copied FROM old_store.progress;
    PERFORM set_config('lock_timeout', round(extract(epoch FROM lock_timeout) * 1000)::text, true);
    began := clock_timestamp();
    FOR writes_to IN SELECT name FROM old_store.tables ORDER BY name LOOP
        EXECUTE format('LOCK TABLE %s IN EXCLUSIVE MODE', writes_to);
    END LOOP;
    number := old_store.import_batch(9223372036854775807, 9223372036854775807);
    CALL old_store.refuse_late_events(copied - 10000);
    FOR writes_to IN SELECT name FROM old_store.tables LOOP
        EXECUTE format('CREATE TRIGGER old_store_refuse BEFORE INSERT ON %s
                        FOR EACH ROW EXECUTE FUNCTION old_store.refuse()', writes_to);
    END LOOP;
    PERFORM old_store.create_subscriptions(subscriptions);
    UPDATE old_store.progress SET switched_at = clock_timestamp();
    COMMIT;
    RAISE INFO 'switched: % last events; no write was possible for % s', number,
        round(extract(epoch FROM clock_timestamp() - began), 3);
END $$;

-- Counts what differs between the two stores, up to the last event that was copied. A stream whose old versions have
-- gaps or are not given is counted in "renumbered", which is no fault.
CREATE OR REPLACE FUNCTION old_store.compare(
    OUT what text, OUT old bigint, OUT new bigint, OUT differ bigint, OUT good boolean) RETURNS SETOF record
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    WITH old AS (
        SELECT *, row_number() OVER (PARTITION BY stream ORDER BY position) AS place
          FROM old_store.events WHERE position <= (SELECT position FROM old_store.progress)
    ),
    new AS (
        SELECT * FROM es_events WHERE position <= (SELECT position FROM old_store.progress)
    ),
    folds AS (
        SELECT count(o.fold) AS old, count(n.fold) AS new, count(*) FILTER (WHERE o.fold IS DISTINCT FROM n.fold) AS differ
          FROM (SELECT stream, md5(string_agg(md5(concat_ws(' ', type, data, metadata)), '' ORDER BY position)) AS fold
                  FROM old GROUP BY stream) AS o
          FULL JOIN (SELECT stream, md5(string_agg(md5(concat_ws(' ', type, data, metadata)), '' ORDER BY version)) AS fold
                       FROM new GROUP BY stream) AS n USING (stream)
    ),
    events AS (
        SELECT count(o.position) AS old, count(n.position) AS new,
               count(*) FILTER (WHERE o.position IS NULL OR n.position IS NULL) AS events,
               count(*) FILTER (WHERE o.id <> n.id) AS ids,
               count(*) FILTER (WHERE o.stream <> n.stream) AS streams,
               count(*) FILTER (WHERE o.type <> n.type) AS types,
               count(*) FILTER (WHERE o.data IS DISTINCT FROM n.data) AS data,
               count(*) FILTER (WHERE o.metadata IS DISTINCT FROM n.metadata) AS metadata,
               count(*) FILTER (WHERE o.body IS DISTINCT FROM n.body) AS bodies,
               count(*) FILTER (WHERE (o.recorded_at, o.occurred_at) IS DISTINCT FROM (n.recorded_at, n.occurred_at)) AS times,
               count(*) FILTER (WHERE o.place <> n.version) AS versions,
               count(*) FILTER (WHERE o.version IS DISTINCT FROM n.version) AS renumbered
          FROM old AS o FULL JOIN new AS n USING (position)
    )
    SELECT r.what, r.old, r.new, r.differ, r.differ = 0 OR r.what = 'renumbered'
      FROM events AS e CROSS JOIN folds AS f CROSS JOIN LATERAL (VALUES
           ('events', e.old, e.new, e.events), ('ids', e.old, e.new, e.ids), ('streams', e.old, e.new, e.streams),
           ('types', e.old, e.new, e.types), ('data', e.old, e.new, e.data), ('metadata', e.old, e.new, e.metadata),
           ('bodies', e.old, e.new, e.bodies), ('times', e.old, e.new, e.times), ('versions', e.old, e.new, e.versions),
           ('renumbered', e.old, e.new, e.renumbered), ('folds', f.old, f.new, f.differ)) AS r (what, old, new, differ)
$$;

-- What eventstore would refuse, to be found before the copy. The view "events" of a store can be changed to rename it.
CREATE OR REPLACE FUNCTION old_store.problems(OUT problem text, OUT "position" bigint, OUT name text)
RETURNS SETOF record LANGUAGE sql STABLE AS $$
    SELECT 'a stream''s name must not be empty, begin with es_, or have more than 2048 bytes', position, stream
      FROM old_store.events WHERE stream ~ '^(es_|$)' OR octet_length(stream) > 2048 OR stream IS NULL
     UNION ALL
    SELECT 'a type must not be empty, begin with es_, or have more than 255 bytes', position, type
      FROM old_store.events WHERE type ~ '^(es_|$)' OR octet_length(type) > 255 OR type IS NULL
     UNION ALL
    SELECT 'an id must not be nil', position, id::text
      FROM old_store.events
     WHERE id IN ('00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff')
     UNION ALL
    SELECT 'an id must not come twice', max(position), id::text FROM old_store.events GROUP BY id HAVING count(*) > 1
     UNION ALL
    SELECT 'a position must be positive', min(position), NULL FROM old_store.events HAVING min(position) < 1
     UNION ALL
    SELECT 'a consumer''s name must have 1 to 63 bytes', c.position, c.name
      FROM old_store.consumers AS c WHERE octet_length(c.name) NOT BETWEEN 1 AND 63
     ORDER BY 2
$$;
