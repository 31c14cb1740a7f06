-- The events that all stores are filled with, and in which order. The first
-- 30,000 are 2 streams of 10,000 events and 100 of 100, to be read; the others
-- are streams of 10, of which 100 grow at a time.
CREATE OR REPLACE FUNCTION pg_temp.plan(first bigint, last bigint)
    RETURNS TABLE (i bigint, stream text, version bigint, data jsonb, metadata jsonb) LANGUAGE sql AS $$
SELECT i,
       CASE WHEN i <= 20000 THEN 'account-long' || i % 2
            WHEN i <= 30000 THEN 'account-short' || i % 100
            ELSE 'account-' || (i - 1) / 1000 * 100 + i % 100 END,
       CASE WHEN i <= 20000 THEN (i - 1) / 2
            WHEN i <= 30000 THEN (i - 20001) / 100
            ELSE (i - 1) % 1000 / 100 END + 1,
       jsonb_build_object('amount', i, 'note', repeat('x', 150)),
       '{"user": "Ann"}'::jsonb
  FROM generate_series(first, last) AS i
$$;

-- In transactions of so many events.
CREATE OR REPLACE FUNCTION pg_temp.chunks(first bigint, last bigint)
    RETURNS TABLE (first bigint, last bigint) LANGUAGE sql AS $$
SELECT i, least(i + 99999, last) FROM generate_series(first, last, 100000) AS i
$$;
