-- Stores the events up to :last of the plan in plan.sql, and the courses that are offered.
\ir plan.sql
-- In transactions of so many events.
SELECT format('INSERT INTO es_import (stream, type, data, tags)
    SELECT ''event-'' || course, ''enrolled'', ''{"by": "web"}'', ARRAY[course, student] FROM pg_temp.plan(%s, %s)',
              i, least(i + 99999, :last))
  FROM generate_series(1, :last, 100000) AS i \gexec
INSERT INTO es_import (stream, type, data, tags)
SELECT 'event-' || course, 'offered', '{"seats": 100000}', ARRAY[course] FROM pg_temp.offers();
