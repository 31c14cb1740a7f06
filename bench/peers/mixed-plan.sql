-- The events of the log with categories of every kind, as in bench/growth/fill.sql: half of all are
-- of the category huge, 1 % of each of 50 others, one in 5,000 of rare; the first 1,000 of early.
-- The last 1,000 of a size are of the category late with this size, and come from pg_temp.late().
CREATE OR REPLACE FUNCTION pg_temp.plan(first bigint, last bigint)
    RETURNS TABLE (i bigint, stream text, version bigint, type text, data jsonb, metadata jsonb) LANGUAGE sql AS $$
SELECT i,
       CASE WHEN i <= 1000 THEN 'early-' || i % 10
            WHEN i % 5000 = 0 THEN 'rare-1'
            WHEN i % 100 < 50 THEN 'huge-' || (i - 1) / 1000 * 100 + i % 100
            ELSE 'c' || i % 100 || '-' || (i - 1) / 1000 * 100 + i % 100 END,
       CASE WHEN i <= 1000 THEN (i - 1) / 10
            WHEN i % 5000 = 0 THEN i / 5000 - 1
            ELSE (i - 1) % 1000 / 100 END + 1,
       'deposited', jsonb_build_object('amount', i, 'note', repeat('x', 150)), '{"user": "Ann"}'::jsonb
  FROM generate_series(first, last) AS i
$$;

CREATE OR REPLACE FUNCTION pg_temp.late(size bigint)
    RETURNS TABLE (i bigint, stream text, version bigint, type text, data jsonb, metadata jsonb) LANGUAGE sql AS $$
SELECT i, 'late' || size || '-' || i % 10, (i - 1) / 10 + 1, 'deposited',
       jsonb_build_object('amount', i, 'note', repeat('x', 150)), '{"user": "Ann"}'::jsonb
  FROM generate_series(1, 1000) AS i
$$;

-- What is missing, in transactions of so many events.
CREATE OR REPLACE FUNCTION pg_temp.sources(first bigint, last bigint)
    RETURNS TABLE (source text) LANGUAGE sql AS $$
SELECT format('pg_temp.plan(%s, %s)', i, least(i + 99999, last)) FROM generate_series(first, last, 100000) AS i
UNION ALL SELECT format('pg_temp.late(%s)', last)
$$;
