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
