-- Stores the events from :first to :last of the plan in plan.sql, and the courses from :offered on.
\ir plan.sql
SELECT coalesce(max(position), 0) AS before FROM advisory_events \gset
ALTER TABLE advisory_events DROP CONSTRAINT advisory_events_pkey;
ALTER TABLE advisory_tags DROP CONSTRAINT advisory_tags_pkey;
INSERT INTO advisory_events (type, data, tags)
SELECT 'enrolled', '{"by": "web"}', ARRAY[course, student] FROM pg_temp.plan(:first, :last);
INSERT INTO advisory_events (type, data, tags)
SELECT 'offered', '{"seats": 100000}', ARRAY[course] FROM pg_temp.offers(:offered);
INSERT INTO advisory_tags SELECT tag, type, position FROM advisory_events, unnest(tags) AS tag WHERE position > :before;
ALTER TABLE advisory_events ADD PRIMARY KEY (position);
ALTER TABLE advisory_tags ADD PRIMARY KEY (tag, type, position);
