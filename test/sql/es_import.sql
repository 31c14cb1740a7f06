-- es_import: INSERT and COPY append in order.
CREATE EXTENSION eventstore;

INSERT INTO es_import (stream, type) VALUES ('a-1', 'x'), ('b-1', 'x'), ('a-1', 'y');
INSERT INTO es_import VALUES ('a-1', 'z', '{"n": 1}', '{"m": 2}', '00000000-0000-7000-8000-000000000001', '2020-01-01 00:00Z');
COPY es_import (stream, type, data) FROM stdin;
c-1	x	{"n": 2}
a-1	x	[]
\.
INSERT INTO es_import (stream, type, data) SELECT 'many-' || i % 7, 't', to_jsonb(i) FROM generate_series(1, 3500) i;
SELECT position, version, stream, type, data, metadata, occurred_at AT TIME ZONE 'UTC' AS occurred_at FROM es_read(0, 6);
SELECT stream, count(*), max(version), bool_and(version = data::text::int / 7 + (stream <> 'many-0')::int) AS in_order
  FROM es_read_category('many') GROUP BY stream ORDER BY stream;
SELECT count(*) FROM es_import;

-- A row whose id is stored in its stream, or came before, is a retry.
INSERT INTO es_import (stream, type, data, id) VALUES
    ('a-1', 'z', '{"n": 1.0}', '00000000-0000-7000-8000-000000000001'),
    ('r-1', 'p', '{}', '00000000-0000-7000-8000-000000000011'),
    ('r-1', 'q', '{}', '00000000-0000-7000-8000-000000000012'),
    ('r-1', 'p', '{}', '00000000-0000-7000-8000-000000000011');
INSERT INTO es_import (stream, type, id) VALUES
    ('r-1', 'p', '00000000-0000-7000-8000-000000000011'),
    ('r-1', 'r', '00000000-0000-7000-8000-000000000013');
SELECT version, type FROM es_load('r-1');
SELECT es_stream_version('a-1');

-- How many were left out is said once, whatever the number of chunks; the number of a row is the statement's.
INSERT INTO es_import (stream, type, id) SELECT 'r-4', 'p', ('00000000-0000-7000-8000-' || to_char(i, 'FM000000000000'))::uuid FROM generate_series(1000, 1009) i;
INSERT INTO es_import (stream, type, id) SELECT 'r-4', 'p', ('00000000-0000-7000-8000-' || to_char(i, 'FM000000000000'))::uuid FROM generate_series(1005, 4004) i;
SELECT count(*) FROM es_load('r-4');
COPY es_import (stream, type, id) FROM stdin;
r-4	p	00000000-0000-7000-8000-000000001000
r-4	p	00000000-0000-7000-8000-000000009000
r-4	p	00000000-0000-7000-8000-000000001001
\.
-- Nested statements count their own rows.
CREATE FUNCTION import_twice(i int) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO es_import (stream, type, id) VALUES ('r-5', 'n', ('00000000-0000-7000-8000-00000000500' || i)::uuid), ('r-5', 'n', ('00000000-0000-7000-8000-00000000500' || i)::uuid);
    RETURN 'r-6';
END $$;
INSERT INTO es_import (stream, type, id) SELECT import_twice(i), 'n', '00000000-0000-7000-8000-000000006000' FROM generate_series(1, 3) i;
DROP FUNCTION import_twice;

-- Refused as a whole.
SELECT count(*) AS before FROM es_events \gset
INSERT INTO es_import (stream, type, data, id) VALUES ('r-2', 'a', '{}', NULL), ('r-1', 'p', '{"n": 1}', '00000000-0000-7000-8000-000000000011');
INSERT INTO es_import (stream, type, data, id) VALUES ('r-2', 'a', '{}', NULL), ('r-1', 'pp', '{}', '00000000-0000-7000-8000-000000000011');
INSERT INTO es_import (stream, type, data, id) VALUES ('r-2', 'a', '{"n": 1}', '00000000-0000-7000-8000-000000000031'), ('r-2', 'a', '{"n": 2}', '00000000-0000-7000-8000-000000000031');
INSERT INTO es_import (stream, type, data, id) SELECT 'r-2', 'a', '{}', CASE WHEN i = 1500 THEN '00000000-0000-7000-8000-000000000011'::uuid END FROM generate_series(1, 2500) i;
INSERT INTO es_import (stream, type, id) VALUES ('r-2', 'a', '00000000-0000-0000-0000-000000000000');
INSERT INTO es_import (stream, type, occurred_at) VALUES ('r-2', 'a', now()), ('r-2', 'a', 'infinity');
INSERT INTO es_import (stream, type) VALUES ('r-2', 'a'), ('es_r-2', 'a');
INSERT INTO es_import (stream, type) VALUES ('r-2', 'a'), ('r-2', 'es_a');
INSERT INTO es_import (stream, type, id) VALUES ('r-2', 'a', NULL), ('r-2', 'b', '00000000-0000-7000-8000-000000000011');
INSERT INTO es_import (stream, type, id) VALUES
    ('r-2', 'a', '00000000-0000-7000-8000-000000000021'), ('r-3', 'a', '00000000-0000-7000-8000-000000000021');
INSERT INTO es_import (stream, type) VALUES ('r-2', 'a'), (NULL, 'a');
INSERT INTO es_import (stream) VALUES ('r-2');
INSERT INTO es_import (stream, type, data) VALUES ('r-2', 'a', NULL);
INSERT INTO es_import (stream, type) VALUES ('', 'a');
INSERT INTO es_import (stream, type) VALUES (repeat('s', 2049), 'a');
INSERT INTO es_import (stream, type) VALUES ('r-2', '');
INSERT INTO es_import (stream, type, metadata) VALUES ('r-2', 'a', '1');
\set SHOW_CONTEXT always
COPY es_import (stream, type) FROM stdin;
r-2	a
r-2	
\.
COPY es_import (stream, type, id) FROM stdin;
r-2	a	no uuid
\.
\set SHOW_CONTEXT errors
UPDATE es_import SET type = 'x';
DELETE FROM es_import;
INSERT INTO es_import (stream, type) VALUES ('r-2', 'a') ON CONFLICT (stream) DO NOTHING;
SELECT es_import_row();
SELECT es_import_flush();
-- Nor can the triggers be used for a relation of one's own.
CREATE VIEW es_copy AS SELECT * FROM es_import;
CREATE TRIGGER es_copy INSTEAD OF INSERT ON es_copy FOR EACH ROW EXECUTE FUNCTION es_import_row();
INSERT INTO es_copy (stream, type) VALUES ('r-2', 'a');
DROP VIEW es_copy;
SELECT count(*) - :before AS stored FROM es_events;

-- In one transaction with other appends, and in order with them.
BEGIN;
SELECT version FROM es_append('m-1', 'none', 'a');
INSERT INTO es_import (stream, type) VALUES ('m-1', 'b'), ('m-1', 'c');
SELECT version FROM es_append('m-1', 3, 'd');
SAVEPOINT s;
INSERT INTO es_import (stream, type) VALUES ('m-1', 'no');
ROLLBACK TO s;
INSERT INTO es_import (stream, type) VALUES ('m-1', 'e') RETURNING stream, type, data;
COMMIT;
SELECT version, type FROM es_load('m-1');

-- Statements that nest: the inner ones append first; one that is caught
-- leaves nothing, and takes nothing of the outer one along.
CREATE FUNCTION nested(n int) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO es_import (stream, type) VALUES ('n-1', 'inner ' || n);
    IF n = 2 THEN
        RAISE EXCEPTION 'caught';
    END IF;
    RETURN 'outer ' || n;
EXCEPTION WHEN OTHERS THEN
    RETURN 'outer of the caught ' || n;
END $$;
INSERT INTO es_import (stream, type) SELECT 'n-1', nested(n) FROM generate_series(1, 3) n;
SELECT version, type FROM es_load('n-1');
-- A statement that fails in the middle is caught, the next one goes on.
DO $$
BEGIN
    BEGIN
        INSERT INTO es_import (stream, type) SELECT 'n-2', nullif(n, 1500)::text FROM generate_series(1, 2000) n;
    EXCEPTION WHEN null_value_not_allowed THEN
        RAISE NOTICE 'caught';
    END;
    INSERT INTO es_import (stream, type) VALUES ('n-2', 'next');
END $$;
SELECT version, type FROM es_load('n-2');
WITH one AS (INSERT INTO es_import (stream, type) VALUES ('n-3', 'one') RETURNING 1),
     two AS (INSERT INTO es_import (stream, type) VALUES ('n-3', 'two') RETURNING 1)
SELECT (SELECT count(*) FROM one) + (SELECT count(*) FROM two) AS rows;
SELECT count(*) FROM es_load('n-3');

-- More streams than locks, in one transaction, and on after a rollback that
-- releases the lock on the log.
BEGIN;
INSERT INTO es_import (stream, type) SELECT 'w-' || i, 't' FROM generate_series(1, 990) i;
SAVEPOINT s;
INSERT INTO es_import (stream, type) SELECT 'w-' || i, 't' FROM generate_series(1, 3000) i;
SELECT mode FROM pg_locks WHERE relation = 'es_events'::regclass AND pid = pg_backend_pid() ORDER BY mode;
ROLLBACK TO s;
SELECT mode FROM pg_locks WHERE relation = 'es_events'::regclass AND pid = pg_backend_pid() ORDER BY mode;
INSERT INTO es_import (stream, type) SELECT 'w-' || i, 't' FROM generate_series(1, 3000) i;
SELECT count(*) < 1010 AS bounded FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid();
COMMIT;
SELECT count(*), max(version) FROM es_read_category('w');
-- A lock that is held already counts once, and the locks are counted before any is taken.
CREATE VIEW my_locks AS
    SELECT count(*) FILTER (WHERE locktype = 'advisory') AS streams,
           count(*) FILTER (WHERE relation = 'es_events'::regclass AND mode = 'ShareRowExclusiveLock') AS log
      FROM pg_locks WHERE pid = pg_backend_pid();
BEGIN;
INSERT INTO es_import (stream, type) SELECT 'x-' || i, 't' FROM generate_series(1, 1000) i;
INSERT INTO es_import (stream, type) SELECT 'x-' || i, 't' FROM generate_series(1, 1000) i;
SELECT version FROM es_append('x-1', 2, 't');
SELECT * FROM my_locks;
INSERT INTO es_import (stream, type) SELECT 'y-' || i, 't' FROM generate_series(1, 10) i;
SELECT * FROM my_locks;
COMMIT;
DROP VIEW my_locks;

-- Where the view's triggers do not fire a row is refused, in every form. Nothing makes
-- them fire there, and nothing else keeps them from firing.
SELECT count(*) AS before FROM es_events \gset
PREPARE import(text, text) AS INSERT INTO es_import (stream, type) VALUES ($1, $2);
SET session_replication_role = replica;
INSERT INTO es_import (stream, type) VALUES ('z-1', 't');
\set VERBOSITY terse
INSERT INTO es_import (type) VALUES ('t');
INSERT INTO es_import (stream, type) SELECT 'z-1', 't' FROM generate_series(1, 2);
EXECUTE import('z-1', 't');
COPY es_import (stream, type) FROM STDIN;
z-1	t
\.
COPY es_import (type) FROM STDIN;
t
\.
SELECT count(*) - :before AS stored FROM es_events;
SELECT version FROM es_append('z-1', 'none', 't');
SET session_replication_role = local;
EXECUTE import('z-1', 't');
RESET session_replication_role;
EXECUTE import('z-1', 't');
SELECT count(*) - :before AS stored FROM es_events;
ALTER VIEW es_import DISABLE TRIGGER ALL;
ALTER TABLE es_import ENABLE ALWAYS TRIGGER es_import_row;
\set VERBOSITY default

DROP FUNCTION nested;
DROP EXTENSION eventstore;
