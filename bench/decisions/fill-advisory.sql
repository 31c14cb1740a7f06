-- Stores the events up to :last of the plan in plan.sql, and the courses that are offered.
-- One transaction needs no WAL at wal_level = minimal.
\ir plan.sql
BEGIN;
TRUNCATE advisory_events, advisory_tags;
ALTER TABLE advisory_events DROP CONSTRAINT advisory_events_pkey;
ALTER TABLE advisory_tags DROP CONSTRAINT advisory_tags_pkey;
INSERT INTO advisory_events (type, data, tags)
SELECT 'enrolled', '{"by": "web"}', ARRAY[course, student] FROM pg_temp.plan(1, :last);
INSERT INTO advisory_events (type, data, tags)
SELECT 'offered', '{"seats": 100000}', ARRAY[course] FROM pg_temp.offers();
INSERT INTO advisory_tags SELECT tag, type, position FROM advisory_events, unnest(tags) AS tag;
ALTER TABLE advisory_events ADD PRIMARY KEY (position);
ALTER TABLE advisory_tags ADD PRIMARY KEY (tag, type, position);
COMMIT;
