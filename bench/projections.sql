-- The objects of the benchmark of projections, in a database of its own. Its log
-- does not change, and has 200,000 events in 10,000 streams.
CREATE EXTENSION eventstore;

INSERT INTO es_import (stream, type, data)
SELECT 'account-' || lpad((i % 10000)::text, 8, '0'), 'deposited', jsonb_build_object('amount', i, 'note', repeat('x', 150))
  FROM generate_series(1, 200000) i;
VACUUM (ANALYZE) es_events;

CREATE TABLE copied (position bigint PRIMARY KEY, stream text, amount int);
CREATE TABLE counted (stream text PRIMARY KEY, n bigint, amount bigint);

-- Handlers, and loops that do the same. The last 100,000 events are enough for them.
CREATE FUNCTION copy_event(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO copied VALUES (event.position, event.stream, (event.data->>'amount')::int);
END $$;
CREATE FUNCTION count_event(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO counted VALUES (event.stream, 1, (event.data->>'amount')::int)
    ON CONFLICT (stream) DO UPDATE SET n = counted.n + 1, amount = counted.amount + excluded.amount;
END $$;
CREATE PROCEDURE copy_loop() LANGUAGE plpgsql AS $$
DECLARE
    event es_recorded_event;
BEGIN
    FOR event IN SELECT * FROM es_read(100000) LOOP
        INSERT INTO copied VALUES (event.position, event.stream, (event.data->>'amount')::int);
    END LOOP;
END $$;
CREATE PROCEDURE copy_calls() LANGUAGE plpgsql AS $$
DECLARE
    event es_recorded_event;
BEGIN
    FOR event IN SELECT * FROM es_read(100000) LOOP
        PERFORM copy_event(event);
    END LOOP;
END $$;
CREATE PROCEDURE count_loop() LANGUAGE plpgsql AS $$
DECLARE
    event es_recorded_event;
BEGIN
    FOR event IN SELECT * FROM es_read(100000) LOOP
        INSERT INTO counted VALUES (event.stream, 1, (event.data->>'amount')::int)
        ON CONFLICT (stream) DO UPDATE SET n = counted.n + 1, amount = counted.amount + excluded.amount;
    END LOOP;
END $$;
