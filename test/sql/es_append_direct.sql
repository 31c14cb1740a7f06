-- Appends to a log as the extension made it go without the executor. Whatever the owner
-- adds to it in the meantime is honoured by the next append, in the same session.
CREATE EXTENSION eventstore;

-- Appends by each form, and says what the indexes do not have of it.
CREATE FUNCTION appended(name text) RETURNS TABLE (missing text) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM es_append(name || '-1', 'any', 'one', jsonb_build_object('long', repeat(md5(name), 500)));
    PERFORM es_append_batch(name || '-1', 'any', '[{"type": "two"}, {"type": "three"}]');
    INSERT INTO es_import (stream, type) SELECT name || '-' || i % 3, 'four' FROM generate_series(1, 30) i;
    SET LOCAL enable_seqscan = off;
    SET LOCAL enable_bitmapscan = off;
    RETURN QUERY SELECT format('%s %s', e.stream, e.version) FROM (SELECT * FROM es_events OFFSET 0) e
      WHERE NOT EXISTS (SELECT FROM es_events WHERE position = e.position AND stream || '' = e.stream)
         OR NOT EXISTS (SELECT FROM es_events WHERE id = e.id AND position + 0 = e.position)
         OR NOT EXISTS (SELECT FROM es_events WHERE stream = e.stream AND version = e.version AND position + 0 = e.position)
         OR NOT EXISTS (SELECT FROM es_events WHERE es_category(stream) = es_category(e.stream) AND position = e.position);
END $$;
SELECT * FROM appended('ordinary');
SELECT count(*), max(position) FROM es_events;

-- An index more, in the middle of a transaction, one less, another one in its place.
BEGIN;
SELECT * FROM appended('begun');
CREATE INDEX more ON es_events (type);
SELECT * FROM appended('more');
SET LOCAL enable_seqscan = off;
SELECT count(*) FROM es_events WHERE type = 'two';
ROLLBACK;
SELECT * FROM appended('without');
CREATE INDEX more ON es_events (type) WHERE version > 1;
DROP INDEX es_events_category_position_idx;
SELECT * FROM appended('other');
BEGIN;
SET LOCAL enable_seqscan = off;
SELECT count(*) FROM es_events WHERE type = 'three' AND version > 1;
COMMIT;
DROP INDEX more;
SELECT * FROM appended('three');
CREATE INDEX again ON es_events (es_category(stream), position);
SELECT * FROM appended('again');
REINDEX INDEX CONCURRENTLY again;
REINDEX INDEX CONCURRENTLY es_events_pkey;
SELECT * FROM appended('reindexed');
-- The indexes of types, which need no executor, and indexes that are nearly such.
SELECT es_index_type('two') IS NOT NULL AS two, es_index_type('four') IS NOT NULL AS four;
SELECT * FROM appended('types');
CREATE INDEX three ON es_events (position DESC) WHERE type = 'three';
CREATE INDEX not_two ON es_events (position) WHERE type <> 'two';
SELECT * FROM appended('nearly');
DROP INDEX three, not_two;
CREATE UNIQUE INDEX three ON es_events (position) WHERE type = 'three';
SELECT * FROM appended('types');
BEGIN;
SET LOCAL enable_seqscan = off;
SET LOCAL enable_bitmapscan = off;
SELECT t.type, (SELECT count(*) FROM es_read(query => jsonb_build_array(jsonb_build_object('types', ARRAY[t.type])))) = count(*) AS all_of_them
  FROM (SELECT type FROM es_events OFFSET 0) AS t GROUP BY t.type ORDER BY t.type;
-- and none of another type: the type is not looked at again
SELECT count(*) FILTER (WHERE type = 'two') = (SELECT count(*) FROM es_events WHERE type = 'two' AND position > 0) AS two,
       count(*) FILTER (WHERE type = 'three') = (SELECT count(*) FROM es_events WHERE type = 'three' AND position > 0) AS three
  FROM (SELECT type FROM es_events OFFSET 0) AS t;
COMMIT;
SELECT c.relname = 'three' AS three, i.indisvalid, pg_relation_size(c.oid) > 8192 AS has_entries
  FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid WHERE i.indrelid = 'es_events'::regclass AND indpred IS NOT NULL ORDER BY 1;
SELECT format('DROP INDEX %s', i.indexrelid::regclass) FROM pg_index AS i WHERE i.indrelid = 'es_events'::regclass AND indpred IS NOT NULL ORDER BY 1 \gexec
-- It has a column more in the same key, or is unique.
DROP INDEX again;
CREATE INDEX again ON es_events (es_category(stream), position) INCLUDE (type);
SELECT * FROM appended('include');
DROP INDEX again;
CREATE INDEX again ON es_events (es_category(stream), position) WHERE type <> 'two';
SELECT * FROM appended('partial');
BEGIN;
SET LOCAL enable_seqscan = off;
SELECT type, count(*) FROM es_events WHERE es_category(stream) = 'partial' AND position > 0 AND type <> 'two' GROUP BY type ORDER BY type;
COMMIT;
DROP INDEX again;
CREATE UNIQUE INDEX es_events_category_position_idx ON es_events (es_category(stream), position DESC);
SELECT * FROM appended('unique');
DROP INDEX es_events_category_position_idx;
CREATE UNIQUE INDEX es_events_category_position_idx ON es_events (es_category(stream), position);
SELECT * FROM appended('unique');
ALTER TABLE es_events DROP CONSTRAINT es_events_id_key, ADD CONSTRAINT es_events_id_key UNIQUE (id) INCLUDE (type, occurred_at);
SELECT * FROM appended('included');
BEGIN;
SET LOCAL enable_seqscan = off;
SELECT type, count(occurred_at), count(*) FROM es_events WHERE id IN (SELECT id FROM es_events WHERE stream = 'included-1') GROUP BY type ORDER BY type;
COMMIT;
ALTER TABLE es_events DROP CONSTRAINT es_events_id_key, ADD CONSTRAINT es_events_id_key UNIQUE (id);

-- What is violated is said by the constraint's own error.
SELECT es_append('same-1', 'any', 'x', id => '00000000-0000-4000-8000-000000000001');
INSERT INTO es_events SELECT position + 1, 1, next_xid, recorded_at, occurred_at, gen_random_uuid(), 'direct-1', type, data FROM es_events ORDER BY position DESC LIMIT 1;
SELECT version FROM es_append('direct-1', 1, 'x');

-- Constraints and columns.
\set VERBOSITY terse
ALTER TABLE es_events ADD CONSTRAINT no_refused CHECK (type <> 'refused');
SELECT es_append('check-1', 'any', 'refused');
ALTER TABLE es_events DROP CONSTRAINT no_refused;
SELECT version FROM es_append('check-1', 'any', 'refused');
ALTER TABLE es_events ADD CONSTRAINT occurred CHECK (occurred_at IS NOT NULL) NOT VALID;
SELECT es_append('check-1', 'any', 'x');
ALTER TABLE es_events DROP CONSTRAINT occurred;
BEGIN;
ALTER TABLE es_events DISABLE TRIGGER USER;
DELETE FROM es_events;
ALTER TABLE es_events ALTER COLUMN occurred_at SET NOT NULL;
SAVEPOINT s;
SELECT es_append('null-1', 'any', 'x');
ROLLBACK TO s;
SELECT version FROM es_append('null-1', 'any', 'x', occurred_at => '2026-01-01Z');
DELETE FROM es_events;
ALTER TABLE es_events ALTER COLUMN occurred_at DROP NOT NULL, ALTER COLUMN metadata SET NOT NULL;
SAVEPOINT s;
SELECT es_append('null-1', 'any', 'x');
ROLLBACK;
-- Triggers.
CREATE FUNCTION say() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE '% % %', TG_WHEN, TG_LEVEL, TG_NAME; RETURN NULL; END $$;
CREATE TRIGGER by_row AFTER INSERT ON es_events FOR EACH ROW EXECUTE FUNCTION say();
SELECT version FROM es_append('trigger-1', 'any', 'x');
DROP TRIGGER by_row ON es_events;
CREATE TRIGGER by_statement AFTER INSERT ON es_events EXECUTE FUNCTION say();
SELECT version FROM es_append('trigger-1', 'any', 'x');
ALTER TABLE es_events DISABLE TRIGGER by_statement;
SELECT version FROM es_append('trigger-1', 'any', 'x');
ALTER TABLE es_events ENABLE TRIGGER by_statement;
SELECT version FROM es_append('trigger-1', 'any', 'x');
DROP TRIGGER by_statement ON es_events;
SELECT version FROM es_append('trigger-1', 'any', 'x');

-- A partition has a constraint that is none of its own.
CREATE TABLE all_events (LIKE es_events) PARTITION BY LIST (type);
ALTER TABLE all_events ATTACH PARTITION es_events DEFAULT;
CREATE TABLE own_events PARTITION OF all_events FOR VALUES IN ('own');
SELECT es_append('partition-1', 'any', 'own');
ALTER TABLE all_events DETACH PARTITION es_events;
SELECT version FROM es_append('partition-1', 'any', 'own');

-- A column. What is dropped stays a column of the table.
ALTER TABLE es_events ADD COLUMN number int DEFAULT 7;
SELECT version FROM es_append('column-1', 'any', 'x');
SELECT number FROM es_events WHERE stream = 'column-1';
ALTER TABLE es_events DROP COLUMN number;
SELECT version FROM es_append('column-1', 'any', 'x');

-- The table has another name for a while.
BEGIN;
ALTER TABLE es_events RENAME TO other_events;
SAVEPOINT s;
SELECT es_append('name-1', 'any', 'x');
ROLLBACK;
SELECT version FROM es_append('name-1', 'any', 'x');
SELECT * FROM appended('renamed');
DROP EXTENSION eventstore CASCADE;
-- Made again, it has other oids.
CREATE EXTENSION eventstore;
SELECT * FROM es_append('again-1', 'none', 'x');
DROP EXTENSION eventstore;
DROP FUNCTION appended, say;
DROP TABLE all_events;
