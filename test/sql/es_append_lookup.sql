-- The last version of a stream, which each append looks up in the index: names of every
-- kind, streams that fill pages, entries whose rows are gone or were never committed.
CREATE EXTENSION eventstore;

-- The streams of which the index says another version than the rows do.
CREATE FUNCTION wrong_versions(names text[]) RETURNS TABLE (stream text, stored bigint, appended bigint) LANGUAGE plpgsql AS $$
DECLARE
    name text;
BEGIN
    SET LOCAL enable_indexscan = off;
    SET LOCAL enable_bitmapscan = off;
    SET LOCAL enable_indexonlyscan = off;
    CREATE TEMPORARY TABLE last_versions ON COMMIT DROP AS
        SELECT n AS name, coalesce(max(e.version), 0) AS version FROM unnest(names) n LEFT JOIN es_events e ON e.stream = n COLLATE "C" GROUP BY n;
    FOR stream, stored IN SELECT l.name, l.version FROM last_versions l LOOP
        SELECT a.version - 1 INTO appended FROM es_append(stream, 'any', 'added') a;
        IF appended <> stored THEN RETURN NEXT; END IF;
    END LOOP;
END $$;

-- Names that are the beginning of others, that are not ASCII, that differ in their last
-- byte, and that are so long that the index has them compressed.
CREATE TABLE names AS
    SELECT name, row_number() OVER (ORDER BY md5(name)) AS n
      FROM (SELECT format(f, i) AS name
              FROM unnest('{s%s,s-%s,s-1%s,s-%1$s-%1$s,ß-%s,Z%s}'::text[]) f, generate_series(1, 400) i
            UNION SELECT repeat('long', 150) || i FROM generate_series(1, 40) i
            UNION SELECT repeat('long', k) FROM generate_series(1, 500) k
            UNION SELECT string_agg(md5(i::text || k::text), '') FROM generate_series(1, 64) k, generate_series(1, 5) i GROUP BY i) x;
SELECT count(*), max(octet_length(name)) FROM names;
INSERT INTO es_import (stream, type) SELECT name, 'first' FROM names WHERE n % 2 = 0 ORDER BY n;
SELECT * FROM wrong_versions(ARRAY(SELECT name FROM names));
SELECT * FROM wrong_versions(ARRAY(SELECT name FROM names));

-- Streams that fill pages of the index, between others.
INSERT INTO es_import (stream, type) SELECT 'page-' || i, 'filled' FROM generate_series(1, 300) v, generate_series(1, 60) i;
SELECT * FROM wrong_versions(ARRAY(SELECT 'page-' || i FROM generate_series(1, 61) i));

-- Events that were rolled back leave entries.
BEGIN;
SELECT max((es_append('page-7', 'any', 'lost')).version) FROM generate_series(1, 500);
SELECT max((es_append('new-1', 'any', 'lost')).version) FROM generate_series(1, 500);
SAVEPOINT s;
SELECT version FROM es_append('page-8', 'any', 'lost');
ROLLBACK TO s;
SELECT version FROM es_append('page-8', 'any', 'kept');
ROLLBACK;
SELECT * FROM wrong_versions('{page-7,page-8,new-1}');
-- Events of the transaction itself count at once, in every isolation level.
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT version FROM es_append('page-8', 302, 'added');
SAVEPOINT s;
SELECT version FROM es_append('page-8', 303, 'lost');
ROLLBACK TO s;
SELECT version FROM es_append('page-8', 303, 'added');
COMMIT;

-- Rows that are deleted: at first their entries are there, later only the separators of
-- pages that name the streams.
ALTER TABLE es_events DISABLE TRIGGER es_events_refuse;
ALTER TABLE es_events DISABLE TRIGGER es_events_refuse_row;
DELETE FROM es_events WHERE stream ~ '^page-\d*[13579]$' AND version > 10;
SELECT * FROM wrong_versions('{page-1,page-3,page-25}');
DELETE FROM es_events WHERE stream ~ '^page-\d*[13579]$' AND version > 10;
VACUUM es_events;
SELECT * FROM wrong_versions(ARRAY(SELECT 'page-' || i FROM generate_series(1, 60) i));
DELETE FROM es_events WHERE stream ~ '^page-\d*[1357]$';
VACUUM es_events;
SELECT * FROM wrong_versions(ARRAY(SELECT 'page-' || i FROM generate_series(1, 60) i));
ALTER TABLE es_events ENABLE ALWAYS TRIGGER es_events_refuse;
ALTER TABLE es_events ENABLE ALWAYS TRIGGER es_events_refuse_row;

-- A rewritten row is elsewhere, before and after VACUUM.
SELECT count(es_rewrite(id, '{"name": "gone"}')) FROM es_events WHERE stream ~ '^page-\d*0$' AND version > 290;
SELECT * FROM wrong_versions(ARRAY(SELECT 'page-' || i FROM generate_series(10, 60, 10) i));
SELECT count(es_rewrite(id, '{"name": "gone"}')) FROM es_events WHERE stream ~ '^page-\d*0$' AND version = 302;
VACUUM es_events;
SELECT * FROM wrong_versions(ARRAY(SELECT 'page-' || i FROM generate_series(10, 60, 10) i));

-- The index made anew, with rows on pages that are known to be visible to all.
REINDEX TABLE es_events;
SELECT * FROM wrong_versions(ARRAY(SELECT 'page-' || i FROM generate_series(1, 60) i) || ARRAY(SELECT name FROM names WHERE n < 500));
DROP EXTENSION eventstore CASCADE;
DROP FUNCTION wrong_versions;
DROP TABLE names;
