-- Stores the events from :first to :last of the plan, and then the late ones of the
-- size :size, which no smaller size has.
--
-- Half of the events are of the category huge, 1 % of each of 50 others; all in
-- streams of 10, of which 100 grow at a time. One event in 5,000 is of the category
-- and type rare. The first 1,000 are of the category early, the next 10,000 streams
-- of 100.
CREATE OR REPLACE FUNCTION pg_temp.plan(first bigint, last bigint)
    RETURNS TABLE (i bigint, stream text, type text) LANGUAGE sql AS $$
SELECT i,
       CASE WHEN i <= 1000 THEN 'early-' || i % 10
            WHEN i <= 11000 THEN 'short-' || i % 100
            WHEN i % 5000 = 0 THEN 'rare-1'
            WHEN i % 100 < 50 THEN 'huge-' || (i - 1) / 1000 * 100 + i % 100
            ELSE 'c' || i % 100 || '-' || (i - 1) / 1000 * 100 + i % 100 END,
       CASE WHEN i % 5000 = 0 AND i > 11000 THEN 'rare' ELSE 'deposited' END
  FROM generate_series(first, last) AS i
$$;

-- In transactions of so many events.
SELECT format($q$INSERT INTO es_import (stream, type, data, metadata)
    SELECT stream, type, jsonb_build_object('amount', i, 'note', repeat('x', 150)), '{"user": "Ann"}'
      FROM pg_temp.plan(%s, %s) ORDER BY i$q$, i, least(i + 99999, :last))
  FROM generate_series(:first, :last, 100000) AS i \gexec
UPDATE planned SET last = :last;
INSERT INTO es_import (stream, type, data, metadata)
SELECT 'late' || :size || '-' || i % 10, CASE WHEN i = 1000 THEN 'late' || :size ELSE 'deposited' END,
       jsonb_build_object('amount', i, 'note', repeat('x', 150)), '{"user": "Ann"}'
  FROM generate_series(1, 1000) AS i;
