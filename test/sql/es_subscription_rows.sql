-- es_poll delivers events as they are stored, whatever the rows look like, and all of them.
CREATE EXTENSION eventstore;
SET client_min_messages = warning;

-- Compares what a new subscription delivers with es_read(), batch by batch.
CREATE FUNCTION compare(name text, partitions int, category text DEFAULT NULL)
    RETURNS TABLE (delivered bigint, differ bigint, missing bigint) LANGUAGE plpgsql AS $$
BEGIN
    CREATE TEMP TABLE got (t bigint, p int, a int, "position" bigint, version bigint, recorded_at timestamptz, occurred_at timestamptz,
                           id uuid, stream text, type text, data jsonb, metadata jsonb, tags text[], body bytea);
    PERFORM es_create_subscription(name, partitions => compare.partitions, category => compare.category);
    LOOP
        INSERT INTO got SELECT * FROM es_poll(name, 'c', 100);
        EXIT WHEN NOT FOUND;
        PERFORM es_ack(name, (SELECT max(t) FROM got WHERE g.p = got.p)) FROM (SELECT p FROM got ORDER BY t DESC LIMIT 1) g;
    END LOOP;
    RETURN QUERY
        SELECT count(g.t),
               count(*) FILTER (WHERE (g."position", g.version, g.recorded_at, g.occurred_at, g.id, g.stream, g.type, g.data, g.metadata)
                                IS DISTINCT FROM (e.position, e.version, e.recorded_at, e.occurred_at, e.id, e.stream, e.type, e.data, e.metadata)
                                OR g.p <> es_partition(e.stream, compare.partitions) OR g.a <> 1),
               count(*) FILTER (WHERE g.t IS NULL)
          FROM es_read() e FULL JOIN got g USING ("position")
         WHERE compare.category IS NULL OR e.stream LIKE compare.category || '-%';
    DROP TABLE got;
    PERFORM es_drop_subscription(name);
END $$;

-- With and without occurred_at and metadata, names of all lengths, large and compressed data.
SELECT count(*) FROM generate_series(1, 300) i,
    es_append('a-' || repeat('x', i % 200), 'any', repeat('t', 1 + i % 90), jsonb_build_object('i', i, 'x', repeat('y', i * 7)),
              CASE WHEN i % 3 = 0 THEN jsonb_build_object('m', repeat('z', i)) END,
              occurred_at => CASE WHEN i % 2 = 0 THEN timestamptz '2026-01-01 00:00:00Z' + make_interval(secs => i) END);
SELECT count(*) FROM generate_series(1, 5) i,
    es_append('b-' || i, 'any', 'large', (SELECT jsonb_agg(es_uuid7()) FROM generate_series(1, 3000)),
              CASE WHEN i % 2 = 0 THEN jsonb_build_object('m', (SELECT jsonb_agg(es_uuid7()) FROM generate_series(1, 3000))) END);
SELECT * FROM compare('s', 1);
SELECT * FROM compare('s', 3);
SELECT * FROM compare('s', 16);
SELECT * FROM compare('s', 1, 'b');

-- Rows that were rolled back lie between, and more than one leaf of the index.
BEGIN;
SELECT count(*) FROM generate_series(1, 500) i, es_append('a-1', 'any', 'lost', jsonb_build_object('i', i));
ROLLBACK;
INSERT INTO es_import (stream, type, data)
SELECT 'c-' || i % 50, 'imported', jsonb_build_object('i', i) FROM generate_series(1, 6000) i;
SELECT * FROM compare('s', 1);
SELECT * FROM compare('s', 4);
SELECT * FROM compare('s', 4, 'c');

-- A row that was written again.
SELECT count(*) FROM es_load('a-x', 0, 1) e, es_rewrite(e.id, jsonb_build_object('again', true));
SELECT * FROM compare('s', 4);

-- Columns of the owner's own: rows from before have fewer.
ALTER TABLE es_events ADD COLUMN tenant text, ADD COLUMN seen int DEFAULT 7;
SELECT count(*) FROM generate_series(1, 50) i,
    es_append('d-' || i % 7, 'any', 'added', jsonb_build_object('i', i), occurred_at => CASE WHEN i % 2 = 0 THEN timestamptz '2026-01-01 00:00:00Z' END);
SELECT * FROM compare('s', 1);
SELECT * FROM compare('s', 3);
ALTER TABLE es_events DROP COLUMN tenant;
SELECT count(*) FROM generate_series(1, 50) i, es_append('e-' || i % 7, 'any', 'dropped', jsonb_build_object('i', i));
SELECT * FROM compare('s', 3);

-- At most max_bytes of data and metadata, but one event.
SELECT es_create_subscription('bytes', category => 'b');
SELECT count(*), max(attempt) FROM es_poll('bytes', 'c', 100, max_bytes => 1);
SELECT count(*), max(attempt) FROM es_poll('bytes', 'c', 100, max_bytes => 300000);
SELECT count(*), max(attempt) FROM es_poll('bytes', 'c', 100, max_bytes => 100000000);
DROP FUNCTION compare;
DROP EXTENSION eventstore;
