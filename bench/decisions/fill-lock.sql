-- Stores the events up to :last of the plan in plan.sql, and the courses that are offered.
-- One transaction needs no WAL at wal_level = minimal.
\ir plan.sql
BEGIN;
TRUNCATE lock_events, lock_tags;
ALTER TABLE lock_events DROP CONSTRAINT lock_events_pkey;
ALTER TABLE lock_tags DROP CONSTRAINT lock_tags_pkey;
INSERT INTO lock_events (type, data, tags)
SELECT 'enrolled', '{"by": "web"}', ARRAY[course, student] FROM pg_temp.plan(1, :last);
INSERT INTO lock_events (type, data, tags)
SELECT 'offered', '{"seats": 100000}', ARRAY[course] FROM pg_temp.offers();
INSERT INTO lock_tags SELECT tag, position FROM lock_events, unnest(tags) AS tag;
ALTER TABLE lock_events ADD PRIMARY KEY (position);
ALTER TABLE lock_tags ADD PRIMARY KEY (tag, position);
COMMIT;
