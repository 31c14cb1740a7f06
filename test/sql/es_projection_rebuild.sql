-- es_rebuild_projection: the read model is made anew from the log; what hangs
-- on its tables stays.
CREATE EXTENSION eventstore;
SET client_min_messages = warning;
SELECT es_append_batch('account-' || i, 'none', '[{"type": "opened"}, {"type": "deposited", "data": {"amount": 5}}, {"type": "deposited", "data": {"amount": 7}}]') IS NOT NULL AS appended
  FROM generate_series(1, 5) i;

--
-- Tables of a handler, async: rows that are wrong, missing, or too many
--
CREATE TABLE balance (stream text PRIMARY KEY, amount int NOT NULL, note json);
CREATE TABLE movement (position bigint PRIMARY KEY, stream text, amount int);
CREATE FUNCTION move(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO balance VALUES (event.stream, coalesce((event.data->>'amount')::int, 0), '{"a" : 1}')
        ON CONFLICT (stream) DO UPDATE SET amount = balance.amount + excluded.amount;
    IF event.type <> 'opened' THEN
        INSERT INTO movement VALUES (event.position, event.stream, (event.data->>'amount')::int);
    END IF;
END $$;
CREATE VIEW correct AS
SELECT (SELECT count(*) FROM balance b
          FULL JOIN (SELECT stream, sum(coalesce((data->>'amount')::int, 0)) AS amount FROM es_events WHERE es_category(stream) = 'account' GROUP BY stream) e USING (stream)
         WHERE b.amount IS DISTINCT FROM e.amount) AS wrong_balances,
       (SELECT count(*) FROM movement m
          FULL JOIN (SELECT position, stream, (data->>'amount')::int AS amount FROM es_events WHERE es_category(stream) = 'account' AND type <> 'opened') e USING (position, stream, amount)
         WHERE m.position IS NULL OR e.position IS NULL) AS wrong_movements,
       (SELECT count(*) FROM balance) AS balances, (SELECT count(*) FROM movement) AS movements;
CREATE FUNCTION spoil() RETURNS void LANGUAGE sql AS $$
    DELETE FROM balance WHERE stream = 'account-1';
    UPDATE balance SET amount = 99 WHERE stream = 'account-2';
    INSERT INTO balance VALUES ('account-0', 1);
    UPDATE movement SET amount = 99 WHERE position % 3 = 0;
    DELETE FROM movement WHERE position = 2;
    INSERT INTO movement VALUES (0, 'account-0', 1);
$$;
SELECT es_create_projection('p', 'move(es_recorded_event)', tables => '{balance,movement}', category => 'account', batch_size => 4);
SELECT es_run_projections();
SELECT * FROM correct;
SELECT spoil();
SELECT * FROM correct;
SET client_min_messages = notice;
SELECT es_rebuild_projection('p');
SET client_min_messages = warning;
SELECT * FROM correct;
SELECT state, lag_events, attempts, rebuild_percent, rebuild_time_left FROM es_projection_status;
-- Again in the session, with the same plans; rows that are right are left alone.
CREATE TEMP TABLE rows_before AS SELECT ctid AS row, stream FROM balance;
SELECT spoil();
SELECT es_rebuild_projection('p');
SELECT * FROM correct;
SELECT count(*) FROM balance b JOIN rows_before r ON r.row = b.ctid AND r.stream = b.stream;
SELECT es_append('account-1', 'any', 'deposited', '{"amount": 1}') IS NOT NULL AS appended;
SELECT es_run_projections();
SELECT * FROM correct;
SELECT es_rebuild_projection('p'), es_run_projections();
SELECT * FROM correct;
SELECT count(*) FROM pg_class WHERE relname IN ('balance', 'movement');
-- Nothing is locked any more, nothing of it is left in the session.
SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory';
SELECT es_replaying(), current_setting('search_path'), current_setting('row_security');
-- What has not been run yet is not run twice.
SELECT es_append('account-2', 'any', 'deposited', '{"amount": 1}') IS NOT NULL AS appended;
SELECT es_rebuild_projection('p'), es_run_projections();
SELECT * FROM correct;
-- In a transaction with other work, and undone.
BEGIN;
SELECT es_append('account-3', 'any', 'deposited', '{"amount": 1}') IS NOT NULL AS appended;
SELECT es_rebuild_projection('p');
SELECT * FROM correct;
SELECT es_append('account-3', 'any', 'deposited', '{"amount": 1}') IS NOT NULL AS appended;
SELECT es_run_projections();
SELECT * FROM correct;
COMMIT;
SELECT * FROM correct;
SELECT spoil();
BEGIN;
SELECT es_rebuild_projection('p');
ROLLBACK;
SELECT * FROM correct;
SELECT es_rebuild_projection('p');
SELECT * FROM correct;
-- Sync.
SELECT es_alter_projection('p', mode => 'sync');
SELECT spoil();
SELECT es_rebuild_projection('p');
SELECT * FROM correct;
SELECT es_append('account-4', 'any', 'deposited', '{"amount": 1}') IS NOT NULL AS appended;
SELECT * FROM correct;
BEGIN;
SELECT es_append('account-5', 'any', 'opened') IS NOT NULL AS appended;
ROLLBACK;
SELECT es_rebuild_projection('p');
SELECT * FROM correct;

--
-- A handler that was wrong is corrected
--
CREATE OR REPLACE FUNCTION move(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO balance VALUES (event.stream, coalesce((event.data->>'amount')::int, 0) * 2)
        ON CONFLICT (stream) DO UPDATE SET amount = balance.amount + excluded.amount;
END $$;
SELECT es_rebuild_projection('p');
SELECT * FROM correct;
CREATE OR REPLACE FUNCTION move(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO balance VALUES (event.stream, coalesce((event.data->>'amount')::int, 0))
        ON CONFLICT (stream) DO UPDATE SET amount = balance.amount + excluded.amount;
    IF event.type <> 'opened' THEN
        INSERT INTO movement VALUES (event.position, event.stream, (event.data->>'amount')::int);
    END IF;
END $$;
SELECT es_rebuild_projection('p');
SELECT * FROM correct;
-- One that fails leaves the rows as they were.
CREATE OR REPLACE FUNCTION move(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM balance;
    IF event.position = 7 THEN
        RAISE EXCEPTION 'not this one';
    END IF;
END $$;
\set SHOW_CONTEXT never
SELECT es_rebuild_projection('p');
\set SHOW_CONTEXT errors
SELECT * FROM correct;
SELECT count(*) FROM pg_class WHERE relname IN ('balance', 'movement');
SELECT es_drop_projection('p');

--
-- A handler that does not find the new tables is refused
--
CREATE FUNCTION to_schema(event es_recorded_event) RETURNS void LANGUAGE sql AS $$
    INSERT INTO public.balance VALUES (event.stream || ' again', 0) ON CONFLICT DO NOTHING
$$;
CREATE FUNCTION to_atomic(event es_recorded_event) RETURNS void LANGUAGE sql
BEGIN ATOMIC
    INSERT INTO balance VALUES ((event).stream || ' again', 0) ON CONFLICT DO NOTHING;
END;
CREATE FUNCTION to_path(event es_recorded_event) RETURNS void LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO balance VALUES (event.stream || ' again', 0) ON CONFLICT DO NOTHING;
END $$;
CREATE FUNCTION to_truncate(event es_recorded_event) RETURNS void LANGUAGE sql AS 'TRUNCATE public.balance';
SELECT es_create_projection(name, format('%s(es_recorded_event)', name)::regprocedure, tables => '{balance}', start_position => 3)
  FROM unnest('{to_schema,to_atomic,to_path,to_truncate}'::text[]) name;
SELECT es_create_projection('to_query', query => 'DELETE FROM public.balance', tables => '{balance}');
SELECT es_rebuild_projection('to_schema');
SELECT es_rebuild_projection('to_atomic');
SELECT es_rebuild_projection('to_query');
\set VERBOSITY sqlstate
SELECT es_rebuild_projection('to_path');
SELECT es_rebuild_projection('to_truncate');
\set VERBOSITY default
SELECT * FROM correct;
SELECT es_drop_projection(name) FROM es_projections;

--
-- What hangs on the tables stays
--
CREATE TABLE parent (id bigint PRIMARY KEY, name text UNIQUE, dropped int, upper_name text GENERATED ALWAYS AS (upper(name)) STORED);
CREATE TABLE child (parent bigint REFERENCES parent, n int, PRIMARY KEY (parent, n));
CREATE TABLE foreign_row (parent bigint REFERENCES parent ON DELETE CASCADE, name text REFERENCES parent (name) ON UPDATE CASCADE ON DELETE CASCADE, what text);
ALTER TABLE parent DROP COLUMN dropped;
ALTER TABLE parent ADD COLUMN added text DEFAULT 'added';
CREATE INDEX parent_lower ON parent (lower(name));
CREATE VIEW names AS SELECT name, upper_name FROM parent;
CREATE ROLE regress_es_reader;
GRANT SELECT ON parent TO regress_es_reader;
GRANT UPDATE (name) ON parent TO regress_es_reader;
COMMENT ON TABLE parent IS 'stays';
CREATE FUNCTION family(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF event.version = 1 THEN
        INSERT INTO parent VALUES (split_part(event.stream, '-', 2)::bigint, event.data->>'name');
    ELSE
        INSERT INTO child VALUES (split_part(event.stream, '-', 2)::bigint, event.version);
        UPDATE parent SET name = event.data->>'name' WHERE id = split_part(event.stream, '-', 2)::bigint AND event.data ? 'name';
    END IF;
END $$;
SELECT es_append('family-' || i, 'none', 'named', jsonb_build_object('name', 'name ' || i)) IS NOT NULL AS appended FROM generate_series(1, 3) i;
SELECT es_append('family-' || i % 3 + 1, 'any', 'grew') IS NOT NULL AS appended FROM generate_series(1, 5) i;
SELECT es_create_projection('parent first', 'family(es_recorded_event)', tables => '{parent,child}', category => 'family');
SELECT es_run_projections();
SELECT es_create_projection('child first', 'family(es_recorded_event)', tables => '{child,parent}', category => 'family', mode => 'sync', start_position => NULL);
UPDATE es_projections SET start_position = 0 WHERE name = 'child first';
INSERT INTO foreign_row SELECT id, name, 'keep' FROM parent;
CREATE TEMP TABLE before AS
SELECT c.oid, c.relname, c.relacl::text, c.relnatts, obj_description(c.oid) AS comment,
       (SELECT string_agg(indexrelid::text || pg_get_indexdef(indexrelid), ', ' ORDER BY indexrelid) FROM pg_index WHERE indrelid = c.oid) AS indexes,
       (SELECT string_agg(oid::text || pg_get_constraintdef(oid), ', ' ORDER BY oid) FROM pg_constraint WHERE c.oid IN (conrelid, confrelid)) AS constraints,
       (SELECT string_agg(attname || coalesce(attacl::text, ''), ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = c.oid) AS columns
  FROM pg_class c WHERE c.oid IN ('parent'::regclass, 'child'::regclass);
CREATE VIEW family AS SELECT p.*, (SELECT string_agg(n::text, ' ' ORDER BY n) FROM child WHERE parent = p.id) AS children,
    (SELECT string_agg(what || ' ' || f.name, ', ') FROM foreign_row f WHERE f.parent = p.id) AS foreign_rows FROM parent p;
CREATE FUNCTION spoil_family() RETURNS void LANGUAGE sql AS $$
    DELETE FROM child WHERE n = 2;
    INSERT INTO parent VALUES (4, 'name 4');
    INSERT INTO child VALUES (4, 1), (1, 7);
    UPDATE parent SET name = 'wrong', added = NULL WHERE id = 2;
    DELETE FROM foreign_row WHERE parent = 3;
    DELETE FROM child WHERE parent = 3;
    DELETE FROM parent WHERE id = 3;
$$;
SELECT * FROM family ORDER BY id;
SELECT spoil_family();
SELECT * FROM family ORDER BY id;
SELECT es_rebuild_projection('parent first');
SELECT * FROM family ORDER BY id;
SELECT spoil_family();
SELECT es_rebuild_projection('child first');
SELECT * FROM family ORDER BY id;
SELECT * FROM names ORDER BY name;
SELECT count(*) AS same FROM before b
  JOIN (SELECT c.oid, c.relname, c.relacl::text, c.relnatts, obj_description(c.oid) AS comment,
               (SELECT string_agg(indexrelid::text || pg_get_indexdef(indexrelid), ', ' ORDER BY indexrelid) FROM pg_index WHERE indrelid = c.oid) AS indexes,
               (SELECT string_agg(oid::text || pg_get_constraintdef(oid), ', ' ORDER BY oid) FROM pg_constraint WHERE c.oid IN (conrelid, confrelid)) AS constraints,
               (SELECT string_agg(attname || coalesce(attacl::text, ''), ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = c.oid) AS columns
          FROM pg_class c) a USING (oid, relname, relacl, relnatts, comment, indexes, constraints, columns) WHERE b.relname = 'parent';
-- Rows that others refer to may exchange values that are unique.
UPDATE foreign_row SET name = NULL;
UPDATE parent SET name = 'between' WHERE id = 1;
UPDATE parent SET name = 'name 1' WHERE id = 2;
UPDATE parent SET name = 'name 2' WHERE id = 1;
SELECT id, name, (SELECT count(*) FROM foreign_row WHERE parent = id) AS foreign_rows FROM parent ORDER BY id;
SELECT es_rebuild_projection('parent first');
SELECT id, name, (SELECT count(*) FROM foreign_row WHERE parent = id) AS foreign_rows FROM parent ORDER BY id;
SELECT es_drop_projection(name) FROM es_projections;

-- Rows of one table exchange unique values.
CREATE TABLE place (id int PRIMARY KEY, place int UNIQUE);
SELECT es_append('place-' || i, 'none', 'placed', to_jsonb(i)) IS NOT NULL AS appended FROM generate_series(1, 4) i;
SELECT es_create_projection('place', query => $$ INSERT INTO place SELECT split_part(stream, '-', 2)::int, data::text::int FROM new_events $$,
    tables => '{place}', category => 'place', mode => 'sync');
UPDATE place SET place = -place;
UPDATE place SET place = 5 + place;
SELECT string_agg(id || ' ' || place, ', ' ORDER BY id) FROM place;
SELECT es_rebuild_projection('place');
SELECT string_agg(id || ' ' || place, ', ' ORDER BY id) FROM place;
SELECT es_drop_projection('place');

-- Rows that refer to others of their table.
CREATE TABLE tree (id int PRIMARY KEY, parent int REFERENCES tree);
SELECT es_create_projection('tree', query => $$ INSERT INTO tree SELECT split_part(stream, '-', 2)::int, nullif(data::text::int - 1, 0) FROM new_events $$,
    tables => '{tree}', category => 'place', mode => 'sync');
UPDATE tree SET parent = 4 WHERE id = 2;
DELETE FROM tree WHERE id = 3 AND NOT EXISTS (SELECT FROM tree WHERE parent = 3);
INSERT INTO tree VALUES (7, NULL), (6, 7);
UPDATE tree SET parent = 6 WHERE id = 1;
SELECT es_rebuild_projection('tree');
SELECT string_agg(id || ' ' || coalesce(parent, 0), ', ' ORDER BY id) FROM tree;
SELECT es_drop_projection('tree');

-- One that is referred to without having a primary key.
CREATE TABLE keyless (name text NOT NULL UNIQUE, n int);
CREATE TABLE foreign_name (name text REFERENCES keyless (name) ON DELETE CASCADE);
SELECT es_create_projection('keyless', query => 'INSERT INTO keyless SELECT stream, version FROM new_events', tables => '{keyless}', category => 'place', mode => 'sync');
INSERT INTO foreign_name SELECT name FROM keyless;
UPDATE keyless SET n = 7 WHERE name = 'place-2';
DO $$
BEGIN
    PERFORM es_rebuild_projection('keyless');
EXCEPTION WHEN OTHERS THEN  -- refused is well, too
    UPDATE keyless SET n = 1;
END $$;
SELECT k.name, n, f.name IS NOT NULL AS referred FROM keyless k LEFT JOIN foreign_name f USING (name) ORDER BY name;
SELECT es_drop_projection('keyless');

--
-- Kinds of tables
--
-- Without a primary key; with identity columns; of odd names; partitioned; with
-- constraints that have names, and that are deferred.
CREATE SCHEMA "Odd schema";
CREATE TABLE "Odd schema"."Odd ""table""" ("Odd column" text, "select" int);
CREATE TABLE counted (n int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, m int GENERATED BY DEFAULT AS IDENTITY, what text);
CREATE TABLE parts (position bigint, what text, PRIMARY KEY (position)) PARTITION BY RANGE (position);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (33);
CREATE TABLE parts_2 PARTITION OF parts DEFAULT;
CREATE TABLE named (what text CONSTRAINT my_key PRIMARY KEY, n int CONSTRAINT positive CHECK (n > 0), CONSTRAINT one_n UNIQUE (n) DEFERRABLE INITIALLY DEFERRED);
CREATE FUNCTION kinds(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO "Odd ""table""" VALUES (event.type, event.version), (event.type, event.version);
    INSERT INTO counted (what) VALUES (event.type);
    INSERT INTO parts VALUES (event.position, event.type);
    INSERT INTO named VALUES (event.stream, event.position) ON CONFLICT ON CONSTRAINT my_key DO UPDATE SET n = excluded.n;
END $$;
SET search_path = "Odd schema", public;
SELECT es_create_projection('kinds', 'kinds(es_recorded_event)', category => 'place',
    tables => ARRAY['"Odd schema"."Odd ""table"""', 'counted', 'parts', 'named']::regclass[]);
RESET search_path;
SELECT es_run_projections();
CREATE VIEW kinds AS
SELECT (SELECT string_agg("Odd column" || ' ' || "select", ', ') FROM "Odd schema"."Odd ""table""") AS odd,
       (SELECT string_agg(n || ' ' || m || ' ' || what, ', ' ORDER BY n) FROM counted) AS counted,
       (SELECT string_agg(tableoid::regclass || ' ' || what, ', ' ORDER BY position) FROM parts) AS parts,
       (SELECT string_agg(what, ', ' ORDER BY n) FROM named) AS named;
\x
SELECT * FROM kinds;
DELETE FROM "Odd schema"."Odd ""table""" WHERE ctid = '(0,1)';
UPDATE counted SET what = 'wrong' WHERE n = 2;
DELETE FROM counted WHERE n = 3;
DELETE FROM parts_1;
UPDATE parts SET what = 'wrong' WHERE position > 32;
UPDATE named SET n = n + 1;
SELECT * FROM kinds;
SELECT es_rebuild_projection('kinds');
SELECT * FROM kinds;
SELECT es_append('place-1', 'any', 'moved') IS NOT NULL AS appended;
SELECT es_run_projections();
SELECT * FROM kinds;
ALTER TABLE parts ADD COLUMN extra text NOT NULL DEFAULT 'extra';
SELECT es_rebuild_projection('kinds');
\x
SELECT count(*), count(DISTINCT extra) FROM parts;
SELECT es_drop_projection('kinds');

--
-- History, states, failures
--
CREATE TABLE past (position bigint PRIMARY KEY, what text);
CREATE TABLE fixed (what text);
CREATE FUNCTION note(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO past VALUES (event.position - (SELECT base FROM origin), event.type || ' ' || es_replaying());
    IF event.data ? 'bad' AND event.data->>'bad' NOT IN (SELECT what FROM fixed) THEN
        RAISE EXCEPTION '% is bad', event.data->>'bad';
    END IF;
END $$;
CREATE TABLE origin AS SELECT es_horizon() AS base;
CREATE FUNCTION look() RETURNS text LANGUAGE sql AS $$ SELECT string_agg(position || ' ' || what, ', ' ORDER BY position) FROM past $$;
SELECT es_append('s-1', 'any', 'before') IS NOT NULL AS appended, es_append('s-1', 'any', 'old') IS NOT NULL AS appended;
SELECT es_create_projection('p', 'note(es_recorded_event)', tables => '{past}', start_position => base + 1, max_attempts => 1) FROM origin;
SELECT es_append('s-1', 'any', 'new') IS NOT NULL AS appended;
SELECT es_run_projections(), look();
SELECT es_rebuild_projection('p'), look();
SELECT es_append('s-1', 'any', 'newer') IS NOT NULL AS appended;
SELECT es_run_projections(), look();
-- One that is paused stays so, and has handled all that the rebuild saw.
SELECT es_pause_projection('p');
SELECT es_append('s-1', 'any', 'newest') IS NOT NULL AS appended;
SELECT es_rebuild_projection('p'), look();
SELECT state, lag_events FROM es_projection_status;
SELECT es_resume_projection('p'), es_run_projections();
-- One that has failed runs again when the rebuild succeeds.
SELECT es_append('s-2', 'any', 'x', '{"bad": "s-2"}', id => '00000000-0000-0000-0000-000000000001') IS NOT NULL AS appended,
       es_append('s-2', 'any', 'y') IS NOT NULL AS appended;
SELECT es_run_projections();
SELECT state, last_error, attempts FROM es_projection_status;
SELECT es_rebuild_projection('p');
SELECT state, last_error, attempts, look() FROM es_projection_status;
INSERT INTO fixed VALUES ('s-2');
SELECT es_rebuild_projection('p');
SELECT state, last_error, attempts, lag_events, look() FROM es_projection_status;
TRUNCATE fixed;
-- park: what fails in the rebuild is parked, what has failed before is forgotten.
SELECT es_alter_projection('p', on_failure => 'park');
SELECT es_append('s-3', 'any', 'x', '{"bad": "s-3"}') IS NOT NULL AS appended, es_append('s-3', 'any', 'y') IS NOT NULL AS appended,
       es_append('s-4', 'any', 'z') IS NOT NULL AS appended;
SELECT es_run_projections();
SELECT stream, type, sqlstate, message FROM es_failures() ORDER BY position;
SELECT es_rebuild_projection('p'), look();
SELECT stream, type, sqlstate, message, attempts FROM es_failures() ORDER BY position;
SELECT state, lag_events, parked FROM es_projection_status;
INSERT INTO fixed VALUES ('s-2');
SELECT es_rebuild_projection('p'), look();
SELECT stream, type, sqlstate, message FROM es_failures() ORDER BY position;
INSERT INTO fixed VALUES ('s-3');
SELECT es_retry(min(id)), look() FROM es_failures();
SELECT es_rebuild_projection('p'), look();
SELECT count(*) FROM es_failures();
-- A sync one has nowhere to park: the rebuild fails.
TRUNCATE fixed;
SELECT es_alter_projection('p', mode => 'sync');
\set VERBOSITY terse
SELECT es_rebuild_projection('p');
SELECT look();
SELECT mode, state FROM es_projections;
INSERT INTO fixed VALUES ('s-2'), ('s-3');
SELECT es_rebuild_projection('p'), look();
-- An empty log of its category, and a table that has been emptied.
SELECT es_create_projection('nothing', 'note(es_recorded_event)', tables => '{past}', category => 'nothing');
SELECT es_rebuild_projection('nothing'), look();
SELECT es_drop_projection('nothing');
SELECT es_rebuild_projection('p'), look();

--
-- What is refused
--
\set VERBOSITY default
BEGIN;
UPDATE past SET what = what WHERE false;
SELECT es_rebuild_projection('p');
ROLLBACK;
BEGIN;
DELETE FROM past;
SAVEPOINT s;
\set VERBOSITY sqlstate
SELECT es_rebuild_projection('p');
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT es_rebuild_projection('p');
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT es_rebuild_projection('p');
ROLLBACK;
BEGIN READ ONLY;
SELECT es_rebuild_projection('p');
ROLLBACK;
-- Reading it first, or having locked it by FOR SHARE in an aborted part, is well.
BEGIN;
SELECT count(*) > 0 FROM past;
SAVEPOINT s;
DELETE FROM past;
ROLLBACK TO s;
SELECT es_rebuild_projection('p') > 0;
COMMIT;
-- A temporary table that has the name.
CREATE TEMP TABLE past (n int);
SELECT es_rebuild_projection('p');
DROP TABLE pg_temp.past;
\set VERBOSITY default
SELECT es_create_projection('no tables', 'note(es_recorded_event)');
SELECT es_rebuild_projection('no tables');
SELECT es_drop_projection('no tables');
CREATE TABLE short_lived (n int);
CREATE FUNCTION ignore(event es_recorded_event) RETURNS void LANGUAGE sql AS '';
SELECT es_create_projection('short', 'ignore(es_recorded_event)', tables => '{short_lived}');
DROP TABLE short_lived;
SELECT count(*) FROM es_projections WHERE name = 'short';
\set VERBOSITY sqlstate
SELECT es_rebuild_projection('short');
\set VERBOSITY default
SELECT es_drop_projection('short');

--
-- A materialized view is refreshed
--
CREATE MATERIALIZED VIEW streams AS SELECT stream, count(*) AS n FROM es_events GROUP BY stream WITH NO DATA;
SELECT es_create_projection('view', refresh => 'streams', min_interval => '1 day');
SELECT es_rebuild_projection('view');
SELECT count(*) > 0 AS filled FROM streams;
SELECT refreshed_at IS NOT NULL FROM es_projections WHERE name = 'view';

DROP VIEW correct, family, kinds, names;
DROP MATERIALIZED VIEW streams;
DROP TABLE balance, movement, parent, child, foreign_row, place, tree, keyless, foreign_name, counted, parts, named, past, origin, fixed CASCADE;
DROP EXTENSION eventstore CASCADE;
DROP SCHEMA "Odd schema" CASCADE;
DROP FUNCTION spoil, spoil_family, look;
DROP ROLE regress_es_reader;
