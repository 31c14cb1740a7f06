-- The table with which the benchmark compares. It has the same columns and indexes,
-- and is filled by INSERT and COPY.
CREATE EXTENSION eventstore;

\ir raw_events.sql

-- 200,000 events in 10,000 streams.
INSERT INTO es_import (stream, type, data)
SELECT 'account-' || lpad((i % 10000)::text, 8, '0'), 'deposited', jsonb_build_object('amount', i, 'note', repeat('x', 150))
  FROM generate_series(1, 200000) i;
-- 100 streams of 1,000 events to load.
INSERT INTO es_import (stream, type, data)
SELECT 'long-' || s, 'deposited', jsonb_build_object('amount', i, 'note', repeat('x', 150))
  FROM generate_series(1, 1000) i, generate_series(1, 100) s;
-- The table for comparison begins with the same events.
INSERT INTO raw_events (version, stream, type, data)
SELECT version, stream, type, data FROM es_events ORDER BY position;
VACUUM (ANALYZE) es_events;
VACUUM (ANALYZE) raw_events;

-- The work of a statement trigger in plpgsql, or of a sync projection.
CREATE TABLE counted (stream text PRIMARY KEY, n bigint, amount bigint);
CREATE FUNCTION count_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO counted SELECT stream, count(*), sum((data->>'amount')::int) FROM new_events GROUP BY stream
    ON CONFLICT (stream) DO UPDATE SET n = counted.n + excluded.n, amount = counted.amount + excluded.amount;
    RETURN NULL;
END $$;
