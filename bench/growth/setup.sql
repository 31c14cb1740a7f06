-- The objects that the measurements of growth need beside the log.
CREATE EXTENSION eventstore;

-- The machine alone: a table of the same columns and indexes, emptied before each
-- measurement.
\ir ../raw_events.sql

-- The same for reads: 100 streams of 100 events, as the log has them.
CREATE TABLE read_events (LIKE raw_events INCLUDING DEFAULTS, PRIMARY KEY (stream, version));
INSERT INTO read_events (version, stream, type, data, metadata)
SELECT i / 100 + 1, 'short-' || i % 100, 'deposited', jsonb_build_object('amount', i, 'note', repeat('x', 150)), '{"user": "Ann"}'
  FROM generate_series(0, 9999) AS i;
VACUUM ANALYZE read_events;

-- How far the plan of fill.sql has been stored.
CREATE TABLE planned (last bigint NOT NULL);
INSERT INTO planned VALUES (0);
-- The last position that VACUUM has seen.
CREATE TABLE vacuumed (last bigint NOT NULL);
INSERT INTO vacuumed VALUES (0);

CREATE TABLE counted (category text PRIMARY KEY, n bigint NOT NULL);
CREATE TABLE counted_behind (LIKE counted INCLUDING ALL);

-- A projection and a subscription that stay behind: status views count their lag.
SELECT es_create_projection('behind', tables => '{counted_behind}', query =>
    'INSERT INTO counted_behind SELECT es_category(stream), count(*) FROM new_events GROUP BY 1
     ON CONFLICT (category) DO UPDATE SET n = counted_behind.n + excluded.n');
SELECT es_pause_projection('behind');
SELECT es_create_subscription('behind', partitions => 16);
SELECT es_create_subscription('delivered');
SELECT es_create_subscription('idle');
