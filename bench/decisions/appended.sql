-- A log of 200,000 events, in which appends and queries are measured: 20,000 students have 10
-- events each, and one tag has half of all events. 5,000 courses are offered.
CREATE EXTENSION eventstore;

INSERT INTO es_import (stream, type, data, tags)
SELECT 'event-student:' || 2 * (i % 20000), 'deposited', jsonb_build_object('amount', i, 'note', repeat('x', 150)),
       ARRAY['student:' || 2 * (i % 20000)] || CASE WHEN i / 20000 % 2 = 0 THEN ARRAY['year:2026'] ELSE '{}' END
  FROM generate_series(0, 199999) AS i;
INSERT INTO es_import (stream, type, data, tags)
SELECT 'event-course:' || i, 'offered', '{"seats": 100000}', ARRAY['course:' || i] FROM generate_series(1, 9999, 2) AS i;
VACUUM (ANALYZE);

-- How many of the sessions of this name wait for a lock, over so many seconds. A wait to make a
-- table larger is not counted, which any two inserts can have.
CREATE FUNCTION sample_waits(name text, seconds float8, OUT waiting bigint, OUT samples bigint) LANGUAGE plpgsql AS $$
DECLARE
    until timestamptz := clock_timestamp() + make_interval(secs => seconds);
    found record;
BEGIN
    waiting := 0;
    samples := 0;
    WHILE clock_timestamp() < until LOOP
        PERFORM pg_stat_clear_snapshot();
        SELECT count(*) FILTER (WHERE wait_event_type = 'Lock' AND wait_event <> 'extend') AS waiting, count(*) AS samples
          INTO found FROM pg_stat_activity WHERE application_name = name AND pid <> pg_backend_pid();
        waiting := waiting + found.waiting;
        samples := samples + found.samples;
        PERFORM pg_sleep(0.02);
    END LOOP;
END $$;
