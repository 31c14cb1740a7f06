-- Stores the events up to :last of the plan in plan.sql, and the courses that are offered.
-- One transaction needs no WAL at wal_level = minimal.
\ir plan.sql
BEGIN;
TRUNCATE serializable_events;
ALTER TABLE serializable_events DROP CONSTRAINT serializable_events_pkey;
DROP INDEX serializable_tags;
INSERT INTO serializable_events (type, data, tags)
SELECT 'enrolled', '{"by": "web"}', ARRAY[course, student] FROM pg_temp.plan(1, :last);
INSERT INTO serializable_events (type, data, tags)
SELECT 'offered', '{"seats": 100000}', ARRAY[course] FROM pg_temp.offers();
ALTER TABLE serializable_events ADD PRIMARY KEY (position);
CREATE INDEX serializable_tags ON serializable_events USING gin (tags) WITH (fastupdate = off);
COMMIT;
