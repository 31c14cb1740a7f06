-- Stores the events from :first to :last of the plan in plan.sql, and the courses from :offered on.
\ir plan.sql
SELECT coalesce(max(position), 0) AS before FROM lock_events \gset
ALTER TABLE lock_events DROP CONSTRAINT lock_events_pkey;
ALTER TABLE lock_tags DROP CONSTRAINT lock_tags_pkey;
INSERT INTO lock_events (type, data, tags)
SELECT 'enrolled', '{"by": "web"}', ARRAY[course, student] FROM pg_temp.plan(:first, :last);
INSERT INTO lock_events (type, data, tags)
SELECT 'offered', '{"seats": 100000}', ARRAY[course] FROM pg_temp.offers(:offered);
INSERT INTO lock_tags SELECT tag, position FROM lock_events, unnest(tags) AS tag WHERE position > :before;
ALTER TABLE lock_events ADD PRIMARY KEY (position);
ALTER TABLE lock_tags ADD PRIMARY KEY (tag, position);
