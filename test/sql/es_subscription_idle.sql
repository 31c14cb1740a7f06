-- A poll of many partitions writes those that it delivers from, and few of those that have nothing to deliver.
CREATE EXTENSION eventstore;
SET client_min_messages = warning;
CREATE FUNCTION append(n int, stream text) RETURNS bigint LANGUAGE sql AS $$
    SELECT count(es_append(append.stream, 'any', 'x')) FROM generate_series(1, n) $$;
-- How many partitions a poll writes, and how many events it delivers; acknowledges these.
CREATE PROCEDURE poll(name text, OUT events bigint, OUT written bigint, max_count int DEFAULT 1000) LANGUAGE plpgsql AS $$
DECLARE t bigint;
BEGIN
    SELECT count(*), max(token) INTO events, t FROM es_poll(name, 'c', max_count);
    SELECT count(*) INTO written FROM es_partitions WHERE subscription = name AND xmin = pg_current_xact_id_if_assigned()::xid;
    IF t IS NOT NULL THEN PERFORM es_ack(name, t); END IF;
    COMMIT;
END $$;
SELECT es_create_subscription('many', partitions => 200);
SELECT append(1, 'a-1');
-- the first one that is tried has nothing, and is written, if it is not that of the stream
CALL poll('many', NULL, NULL);
SELECT append(1, 'a-1'), append(1, 'b-1'), append(1, 'c-1');
DO $$
DECLARE
    events bigint;
    written bigint;
    all_events bigint := 0;
    all_written bigint := 0;
BEGIN
    FOR i IN 1..5 LOOP
        CALL poll('many', events, written);
        all_events := all_events + events;
        all_written := all_written + written;
    END LOOP;
    RAISE WARNING 'delivered %, few partitions were written: %', all_events, all_written < 15;
END $$;
SELECT count(*) AS behind FROM es_partitions WHERE subscription = 'many' AND reached = 0 HAVING count(*) > 180;
-- Nothing is missed by another session, which does not know which are idle.
\c
SET client_min_messages = warning;
SELECT append(1, 'a-1'), append(1, 'd-1'), append(1, 'e-1');
DO $$
DECLARE
    events bigint;
    written bigint;
    all_events bigint := 0;
BEGIN
    FOR i IN 1..6 LOOP
        CALL poll('many', events, written);
        all_events := all_events + events;
    END LOOP;
    RAISE WARNING 'delivered %', all_events;
END $$;
-- Idle ones are written before they are far behind, a few at a time.
INSERT INTO es_import (stream, type) SELECT 'a-1', 'x' FROM generate_series(1, 10000);
DO $$
DECLARE
    events bigint;
    written bigint;
    all_events bigint := 0;
    most bigint := 0;
BEGIN
    FOR i IN 1..30 LOOP
        CALL poll('many', events, written);
        all_events := all_events + events;
        most := greatest(most, written);
    END LOOP;
    RAISE WARNING 'delivered %, at most 34 partitions were written at once: %', all_events, most <= 34;
END $$;
SELECT count(*) AS far_behind FROM es_partitions WHERE subscription = 'many' AND reached < es_horizon() - 4096;
-- es_seek goes back: what was known is forgotten.
SELECT es_seek('many', 0);
DO $$
DECLARE
    events bigint;
    written bigint;
    all_events bigint := 0;
BEGIN
    FOR i IN 1..30 LOOP
        CALL poll('many', events, written);
        all_events := all_events + events;
    END LOOP;
    RAISE WARNING 'delivered % of %', all_events, (SELECT count(*) FROM es_events);
END $$;
DROP PROCEDURE poll;
DROP FUNCTION append;
DROP EXTENSION eventstore;
