-- Snapshots: when they are saved, by whom, and that they are used. A forged state in
-- es_snapshots shows whether it is used.
CREATE EXTENSION eventstore;
SET eventstore.snapshot_every = 5;
SET timezone = 'UTC';

CREATE FUNCTION code_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END $$;
-- Appends a number of events to a stream.
CREATE FUNCTION more(stream text, n int) RETURNS bigint LANGUAGE sql AS $$
    SELECT version FROM es_append_batch(stream, 'any', array_fill('x'::text, ARRAY[n]), array_fill('{}'::jsonb, ARRAY[n]))
$$;
-- Forges the snapshots of a stream, so that a fold that begins with one shows it.
CREATE FUNCTION poison(of text) RETURNS bigint LANGUAGE sql AS $$
    WITH p AS (UPDATE es_snapshots SET state = to_jsonb('saved ' || version) WHERE stream = of RETURNING 1) SELECT count(*) FROM p
$$;
CREATE FUNCTION saved(of text) RETURNS bigint[] LANGUAGE sql AS $$ SELECT array_agg(version ORDER BY version, id) FROM es_snapshots WHERE stream = of $$;
-- A state that says where the fold began and how many events it has folded.
CREATE FUNCTION trace(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb((state #>> '{}') || '+') $$;
CREATE FUNCTION now_is(of text, at_version bigint DEFAULT NULL, at_time timestamptz DEFAULT NULL, by_time text DEFAULT 'recorded') RETURNS jsonb LANGUAGE sql AS $$
    SELECT state FROM es_state(of, 'trace'::regproc, '""', at_version, at_time, by_time)
$$;

--
-- When
--
SHOW eventstore.snapshot_every;
SELECT more('a-1', 4), now_is('a-1'), saved('a-1');
SELECT more('a-1', 1);
SELECT now_is('a-1'), now_is('a-1');
SELECT id > 0 AS id, stream, reducer, version, taken_by = current_user AS taken_by, recorded_at = (SELECT max(recorded_at) FROM es_load('a-1')) AS recorded_at, state, taken_at <= clock_timestamp() AS taken_at
  FROM es_snapshots;
SELECT more('a-1', 4);
SELECT now_is('a-1'), now_is('a-1'), now_is('a-1');
SELECT saved('a-1');
SELECT more('a-1', 2);
SELECT now_is('a-1');
SELECT saved('a-1');
-- At a version, too; folds by occurred_at and es_history save nothing.
SELECT more('a-2', 20);
SELECT count(*) FROM es_history('a-2', 'trace'::regproc, '""');
SELECT now_is('a-2', by_time => 'occurred'), saved('a-2');
SELECT now_is('a-2', 4);
SELECT saved('a-2');
SELECT now_is('a-2', 7);
SELECT saved('a-2');
SELECT now_is('a-2', 11), now_is('a-2', 12);
SELECT saved('a-2');
-- Never; nor too early.
SET eventstore.snapshot_every = 0;
SELECT now_is('a-2'), saved('a-2');
SET eventstore.snapshot_every = 9;
SELECT now_is('a-2'), saved('a-2');
SET eventstore.snapshot_every = 8;
SELECT now_is('a-2');
SELECT saved('a-2');
SET eventstore.snapshot_every = -1;
SET eventstore.snapshot_every = 5;
-- At once; not twice.
SELECT more('a-3', 2);
SELECT es_snapshot('a-3', 'trace'::regproc, '""'), saved('a-3');
SELECT es_snapshot('a-3', 'trace'::regproc, '""'), saved('a-3');
SELECT es_snapshot('nobody', 'trace'::regproc, '""'), saved('nobody');
-- After a command.
CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT jsonb_agg('{"type": "x"}'::jsonb) FROM generate_series(1, command::int) $$;
SELECT version, state FROM es_execute('a-4', 'decide'::regproc, '4', 'es_last'::regproc);
SELECT saved('a-4');
SELECT version, state FROM es_execute('a-4', 'decide'::regproc, '1', 'es_last'::regproc);
SELECT saved('a-4');
SELECT poison('a-4');
SELECT version, state FROM es_execute('a-4', 'decide'::regproc, '1', 'es_merge'::regproc);
CREATE FUNCTION refuse(state jsonb, command jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RAISE 'state %', state; END $$;
SELECT es_execute('a-4', 'refuse'::regproc, '1', 'es_last'::regproc);
SELECT state FROM es_state('a-4', 'es_last'::regproc, at_version => 5);

--
-- Which one is used: the nearest before
--
SELECT poison('a-2'), saved('a-2');
SELECT v, now_is('a-2', v) FROM unnest(ARRAY[0, 6, 7, 8, 11, 12, 13, 19, 20, 21]) v ORDER BY v;
SELECT now_is('a-2', 15, by_time => 'occurred');
SELECT array_agg(DISTINCT left(state #>> '{}', 4)) FROM es_history('a-2', 'trace'::regproc, '""');
-- Deleted: all is as before.
DELETE FROM es_snapshots WHERE stream = 'a-2' AND version = 12;
SELECT now_is('a-2', 13);
TRUNCATE es_snapshots;
SELECT now_is('a-2', 13), now_is('a-2');
-- The state of a deleted aggregate is saved as well.
CREATE FUNCTION gone(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb';
SELECT state IS NULL AS gone, version FROM es_state('a-2', 'gone'::regproc);
SELECT version, state IS NULL AS gone FROM es_snapshots WHERE reducer LIKE '%gone%';
SELECT poison('a-2') > 0 AS poisoned;
SELECT state, version FROM es_state('a-2', 'gone'::regproc);
-- A huge state.
CREATE FUNCTION huge(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb((SELECT string_agg(md5(event.version || ' ' || i), '') FROM generate_series(1, 10000) i)) $$;
SELECT es_snapshot('a-2', 'huge'::regproc);
SELECT s.state = k.state AS same, length(s.state #>> '{}') FROM es_state('a-2', 'huge'::regproc) s, es_snapshots k WHERE k.reducer LIKE '%huge%';

-- At a time: not one with an event that was recorded later, wherever it is.
CREATE FUNCTION put(stream text, version bigint, recorded_at timestamptz) RETURNS void LANGUAGE sql AS $$
    INSERT INTO es_events (position, version, next_xid, recorded_at, id, stream, type, data) VALUES (nextval('es_position'), version, '1', recorded_at, es_uuid7(), stream, 'put', '{}')
$$;
SELECT count(put('t-1', n, '2020-01-01'::timestamptz + d * interval '1 day')) AS put FROM unnest(ARRAY[0, 1, 2, 9, 3, 4, 5, 10]) WITH ORDINALITY AS x (d, n);
SELECT now_is('t-1', 5);
SELECT es_snapshot('t-1', 'trace'::regproc, '""');
SELECT version, recorded_at FROM es_snapshots WHERE stream = 't-1' ORDER BY version;
SET eventstore.snapshot_every = 3;
SELECT now_is('t-1', 3);
SET eventstore.snapshot_every = 0;
SELECT poison('t-1');
SELECT t, now_is('t-1', at_time => t), now_is('t-1', 6, t) FROM unnest(ARRAY['2020-01-02', '2020-01-03', '2020-01-05', '2020-01-09', '2020-01-10', '2020-01-11']::timestamptz[]) t ORDER BY t;
SET eventstore.snapshot_every = 5;

--
-- Another reducer
--
TRUNCATE es_snapshots;
SELECT now_is('a-2');
SELECT poison('a-2');
-- The same definition is the same reducer.
CREATE OR REPLACE FUNCTION trace(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb((state #>> '{}') || '+') $$;
SELECT now_is('a-2');
-- In a transaction that is rolled back, in a savepoint.
BEGIN;
CREATE OR REPLACE FUNCTION trace(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb((state #>> '{}') || '-') $$;
SELECT now_is('a-2');
SELECT now_is('a-2'), saved('a-2');
ROLLBACK;
SELECT now_is('a-2');
BEGIN;
SAVEPOINT a;
CREATE OR REPLACE FUNCTION trace(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb((state #>> '{}') || '-') $$;
SELECT now_is('a-2');
ROLLBACK TO a;
SELECT now_is('a-2');
COMMIT;
CREATE OR REPLACE FUNCTION trace(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb((state #>> '{}') || '-') $$;
SELECT now_is('a-2', 4), saved('a-2');
SELECT now_is('a-2');
-- Snapshots of its earlier definition are deleted.
SELECT count(*), count(DISTINCT fingerprint) FROM es_snapshots WHERE stream = 'a-2';
SELECT poison('a-2');
-- Other properties of a function are part of it.
ALTER FUNCTION trace STRICT;
SELECT now_is('a-2') <> '"saved 20"' AS folded;
SELECT poison('a-2');
ALTER FUNCTION trace SET search_path = pg_catalog;
SELECT now_is('a-2') <> '"saved 20"' AS folded;
SELECT poison('a-2');
ALTER FUNCTION trace CALLED ON NULL INPUT;
ALTER FUNCTION trace RESET ALL;
SELECT now_is('a-2') <> '"saved 20"' AS folded;
SELECT poison('a-2');
SELECT now_is('a-2');
-- Another name, and back.
ALTER FUNCTION trace RENAME TO trace_two;
SELECT state <> '"saved 20"' AS folded FROM es_state('a-2', 'trace_two'::regproc, '""');
ALTER FUNCTION trace_two RENAME TO trace;
SELECT now_is('a-2');
-- Another initial state.
SELECT state FROM es_state('a-2', 'trace'::regproc, '"i"');
SELECT state FROM es_state('a-2', 'trace'::regproc, NULL);
SELECT state FROM es_state('a-2', 'trace'::regproc);
SELECT state FROM es_state('a-2', 'trace'::regproc, '""');
-- A forged fingerprint is of no use.
UPDATE es_snapshots SET fingerprint = fingerprint + 1, state = '"forged"' WHERE stream = 'a-2';
SELECT state <> '"forged"' AS folded FROM es_state('a-2', 'trace'::regproc, '""');
-- What the reducer calls is not looked at.
TRUNCATE es_snapshots;
CREATE FUNCTION inner_one() RETURNS jsonb LANGUAGE sql AS $$ SELECT '"one"'::jsonb $$;
CREATE FUNCTION outer_one(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS 'SELECT inner_one()';
SELECT state FROM es_state('a-2', 'outer_one'::regproc);
CREATE OR REPLACE FUNCTION inner_one() RETURNS jsonb LANGUAGE sql AS $$ SELECT '"two"'::jsonb $$;
SELECT state FROM es_state('a-2', 'outer_one'::regproc);
DELETE FROM es_snapshots;
SELECT state FROM es_state('a-2', 'outer_one'::regproc);

-- The functions of a schema are part of its reducer.
CREATE SCHEMA app;
CREATE FUNCTION app.apply_x(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT '"one"'::jsonb $$;
CREATE FUNCTION app_is() RETURNS jsonb LANGUAGE sql AS $$ SELECT state FROM es_state('a-2', es_reducer('app')) $$;
SELECT app_is();
SELECT poison('a-2') > 0 AS poisoned;
SELECT app_is();
CREATE OR REPLACE FUNCTION app.apply_x(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT '"two"'::jsonb $$;
SELECT app_is();
SELECT poison('a-2') > 0 AS poisoned;
CREATE FUNCTION app.apply_y(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT '"y"'::jsonb $$;
SELECT app_is();
SELECT poison('a-2') > 0 AS poisoned;
DROP FUNCTION app.apply_y;
SELECT app_is();
SELECT poison('a-2') > 0 AS poisoned;
-- What it does not call.
CREATE FUNCTION app.other(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT '"y"'::jsonb $$;
CREATE FUNCTION app.apply_x(state jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT '"y"'::jsonb $$;
CREATE FUNCTION public.apply_x(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT '"y"'::jsonb $$;
SELECT app_is();
ALTER SCHEMA app RENAME TO app_two;
SELECT state FROM es_state('a-2', es_reducer('app_two'));
ALTER SCHEMA app_two RENAME TO app;
-- Another one takes the name.
SELECT poison('a-2') > 0 AS poisoned;
ALTER FUNCTION app.apply_x(jsonb, jsonb) RENAME TO apply_z;
SELECT app_is();
ALTER FUNCTION app.apply_z(jsonb, jsonb) RENAME TO apply_x;

--
-- Whose
--
CREATE ROLE regress_es_dev;
CREATE ROLE regress_es_ann;
CREATE ROLE regress_es_bob;
GRANT SELECT ON es_events TO regress_es_dev, regress_es_ann, regress_es_bob;
GRANT EXECUTE ON FUNCTION es_snapshot(text, es_function, jsonb) TO regress_es_ann;
ALTER FUNCTION trace OWNER TO regress_es_dev;
-- The snapshots that the role uses; each has the name of its role as the state.
CREATE FUNCTION seen_by(role text) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE state jsonb;
BEGIN
    SET LOCAL eventstore.snapshot_every = 0;
    EXECUTE format('SET LOCAL ROLE %I', role);
    state := now_is('a-2');
    RESET ROLE;
    RETURN state;
END $$;
CREATE FUNCTION seen() RETURNS TABLE (role text, sees jsonb) LANGUAGE sql AS $$
    SELECT r, CASE WHEN seen_by(r) = to_jsonb(repeat('-', 20)) THEN '"all folded"' ELSE seen_by(r) END
      FROM unnest(ARRAY[current_user::text, 'regress_es_dev', 'regress_es_ann', 'regress_es_bob']) r
$$;
TRUNCATE es_snapshots;
SET ROLE regress_es_ann;
SELECT now_is('a-2');
SELECT count(*) FROM es_snapshots;
DELETE FROM es_snapshots;
RESET ROLE;
SELECT taken_by, version FROM es_snapshots;
UPDATE es_snapshots SET state = to_jsonb(taken_by);
SELECT regexp_replace(role, '^(?!regress).*', 'owner') AS role, sees FROM seen();
SET ROLE regress_es_dev;
SELECT es_state('a-2', 'trace'::regproc, '""') IS NOT NULL AS dev;
RESET ROLE;
DELETE FROM es_snapshots WHERE taken_by = 'regress_es_ann';
UPDATE es_snapshots SET state = to_jsonb(taken_by);
SELECT regexp_replace(role, '^(?!regress).*', 'owner') AS role, sees FROM seen();
TRUNCATE es_snapshots;
SELECT now_is('a-2') IS NOT NULL AS owner;
UPDATE es_snapshots SET state = '"owner"';
SELECT regexp_replace(role, '^(?!regress).*', 'owner') AS role, sees FROM seen();
-- As a member of the role that is trusted: it is the role itself that counts.
TRUNCATE es_snapshots;
GRANT regress_es_dev TO regress_es_bob;
SET ROLE regress_es_bob;
SELECT now_is('a-2') IS NOT NULL AS bob;
RESET ROLE;
UPDATE es_snapshots SET state = to_jsonb(taken_by);
SELECT regexp_replace(role, '^(?!regress).*', 'owner') AS role, sees FROM seen();
-- A SECURITY DEFINER function saves as its owner.
TRUNCATE es_snapshots;
ALTER FUNCTION now_is OWNER TO regress_es_dev;
ALTER FUNCTION now_is SECURITY DEFINER;
SET ROLE regress_es_bob;
SELECT now_is('a-2') IS NOT NULL AS bob;
RESET ROLE;
SELECT DISTINCT taken_by FROM es_snapshots;
ALTER FUNCTION now_is SECURITY INVOKER;
-- A role that has another name is the same one, and who has its name now is not.
TRUNCATE es_snapshots;
SET ROLE regress_es_ann;
SELECT now_is('a-2') IS NOT NULL AS ann;
RESET ROLE;
ALTER ROLE regress_es_ann RENAME TO regress_es_other;
ALTER ROLE regress_es_bob RENAME TO regress_es_ann;
UPDATE es_snapshots SET state = to_jsonb(taken_by);
SELECT seen_by('regress_es_other') AS renamed, seen_by('regress_es_ann') <> '"regress_es_other"' AS folded;
ALTER ROLE regress_es_ann RENAME TO regress_es_bob;
ALTER ROLE regress_es_other RENAME TO regress_es_ann;
-- A role that was dropped.
UPDATE es_snapshots SET taken_by = 'regress_es_gone', state = '"gone"';
SELECT regexp_replace(role, '^(?!regress).*', 'owner') AS role, sees FROM seen();
TRUNCATE es_snapshots;

--
-- Row security and privileges
--
\set SHOW_CONTEXT never
REVOKE regress_es_dev FROM regress_es_bob;
CREATE POLICY odd_ones ON es_events TO regress_es_bob USING (version % 2 = 1);
CREATE POLICY everything ON es_events TO regress_es_ann USING (true);
ALTER TABLE es_events ENABLE ROW LEVEL SECURITY;
SELECT now_is('a-2') IS NOT NULL AS owner;
UPDATE es_snapshots SET state = '"owner"';
SET ROLE regress_es_bob;
SELECT state, version FROM es_state('a-2', 'trace'::regproc, '""');
SELECT state, version FROM es_state('a-2', 'trace'::regproc, '""', at_version => 4);
SELECT state, version FROM es_state('a-2', 'trace'::regproc, '""', by_time => 'occurred');
SELECT array_agg(version) FROM es_history('a-2', 'trace'::regproc, '""');
SET row_security = off;
SELECT now_is('a-2');
RESET row_security;
RESET ROLE;
GRANT EXECUTE ON FUNCTION es_snapshot(text, es_function, jsonb) TO regress_es_bob;
SET ROLE regress_es_bob;
SELECT es_snapshot('a-2', 'trace'::regproc, '""');
RESET ROLE;
SET ROLE regress_es_ann;
SELECT now_is('a-2');
SELECT code_of($$ SELECT es_snapshot('a-2', 'trace'::regproc, '""') $$);
RESET ROLE;
SELECT count(*) FROM es_snapshots;
DROP POLICY odd_ones ON es_events;
SET ROLE regress_es_bob;
SELECT state, version FROM es_state('a-2', 'trace'::regproc, '""');
RESET ROLE;
ALTER TABLE es_events DISABLE ROW LEVEL SECURITY;
SET ROLE regress_es_ann;
SELECT now_is('a-2');
RESET ROLE;
-- Columns: all of them are needed, and then it is as with row security.
REVOKE SELECT ON es_events FROM regress_es_ann, regress_es_bob;
GRANT SELECT (position, version, next_xid, recorded_at, occurred_at, id, stream, type, data, metadata, tags, body) ON es_events TO regress_es_ann;
GRANT SELECT (version, recorded_at, stream, type, data) ON es_events TO regress_es_bob;
SET ROLE regress_es_ann;
SELECT now_is('a-2'), now_is('a-2', by_time => 'occurred');
SELECT code_of($$ SELECT es_snapshot('a-2', 'trace'::regproc, '""') $$);
SET ROLE regress_es_bob;
SELECT now_is('a-2');
RESET ROLE;
REVOKE SELECT (version, recorded_at, stream, type, data) ON es_events FROM regress_es_bob;
SET ROLE regress_es_bob;
SELECT now_is('a-2');
SELECT now_is('nobody');
SELECT now_is('a-2', by_time => 'occurred');
SELECT count(*) FROM es_history('a-2', 'trace'::regproc, '""');
SELECT es_snapshot('a-2', 'trace'::regproc, '""');
RESET ROLE;
SELECT count(*) FROM es_snapshots;
ALTER FUNCTION trace OWNER TO current_user;
ALTER FUNCTION now_is OWNER TO current_user;
DROP OWNED BY regress_es_dev, regress_es_ann, regress_es_bob;
DROP ROLE regress_es_dev, regress_es_ann, regress_es_bob;

--
-- Transactions
--
\set SHOW_CONTEXT errors
TRUNCATE es_snapshots;
BEGIN TRANSACTION READ ONLY;
SELECT now_is('a-2');
SELECT es_snapshot('a-2', 'trace'::regproc, '""');
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT now_is('a-2');
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT now_is('a-2');
SELECT version FROM es_execute('a-5', 'decide'::regproc, '10', 'es_last'::regproc);
COMMIT;
SELECT count(*) FROM es_snapshots;
BEGIN;
SELECT now_is('a-2');
SELECT saved('a-2');
ROLLBACK;
SELECT count(*) FROM es_snapshots;
BEGIN;
SAVEPOINT a;
SELECT more('a-6', 6);
SELECT now_is('a-6');
SELECT saved('a-6');
ROLLBACK TO a;
SELECT now_is('a-6'), saved('a-6');
SELECT more('a-6', 1);
SELECT now_is('a-6');
COMMIT;
SELECT now_is('a-6'), saved('a-6');
-- They are used where none is saved.
SELECT now_is('a-2') IS NOT NULL AS saved, poison('a-2');
SELECT poison('a-2');
BEGIN TRANSACTION READ ONLY;
SELECT now_is('a-2');
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT now_is('a-2');
-- On request one is saved also here.
SELECT more('a-2', 1);
SELECT es_snapshot('a-2', 'trace'::regproc, '""'), saved('a-2');
COMMIT;
SELECT saved('a-2');
-- A statement does not see what it has appended itself, nor a snapshot of that.
BEGIN;
SELECT version AS executed, (es_state('a-7', 'es_merge'::regproc)).version AS seen, (es_state('a-7', 'es_merge'::regproc)).version AS again
  FROM es_execute('a-7', 'decide'::regproc, '7', 'es_merge'::regproc);
SELECT saved('a-7');
SELECT version FROM es_state('a-7', 'es_merge'::regproc);
COMMIT;
-- In a function, in a cursor, many in a statement.
DO $$ BEGIN PERFORM more('a-8', 6); PERFORM now_is('a-8'); PERFORM more('a-8', 6); PERFORM now_is('a-8'); END $$;
SELECT saved('a-8');
CREATE FUNCTION stable_one(of text) RETURNS jsonb STABLE LANGUAGE plpgsql AS 'BEGIN RETURN now_is(of); END';
SELECT more('a-9', 6);
SELECT stable_one('a-9');
BEGIN;
DECLARE c CURSOR FOR SELECT n, (es_state('a-10', 'trace'::regproc, '""')).* FROM generate_series(1, 4) n;
SELECT more('a-10', 6);
FETCH 1 FROM c;
SELECT now_is('a-10');
SELECT saved('a-10');
FETCH 1 FROM c;
SAVEPOINT a;
SELECT poison('a-10');
FETCH 1 FROM c;
ROLLBACK TO a;
FETCH 1 FROM c;
CLOSE c;
DECLARE c CURSOR FOR SELECT n, (es_state('a-10', 'trace'::regproc, '""')).* FROM generate_series(1, 3) n;
FETCH 1 FROM c;
DELETE FROM es_snapshots;
FETCH 1 FROM c;
SELECT now_is('a-10');
COMMIT;
SELECT saved('a-10');
SELECT count(*) FROM generate_series(1, 100) n, more('many-' || n, 5);
SELECT count(DISTINCT now_is('many-' || n)) FROM generate_series(1, 100) n;
SELECT count(*) FROM es_snapshots WHERE stream LIKE 'many-%';
SELECT poison('many-7');
SELECT count(*) FROM generate_series(1, 100) n WHERE now_is('many-' || n) <> '"+++++"' AND n <> 7;
PREPARE p AS SELECT now_is($1);
EXECUTE p('many-7');
DELETE FROM es_snapshots WHERE stream = 'many-7';
EXECUTE p('many-7');

--
-- Old ones are thinned out
--
TRUNCATE es_snapshots;
CREATE PROCEDURE grow(steps int) LANGUAGE plpgsql AS $$
DECLARE most bigint := 0; n bigint;
BEGIN
    SET LOCAL eventstore.snapshot_every = 200;
    FOR i IN 1 .. steps LOOP
        PERFORM more('long-1', 250);
        PERFORM es_state('long-1', 'es_last'::regproc);
        SELECT count(*) INTO n FROM es_snapshots WHERE stream = 'long-1';
        most := greatest(most, n);
    END LOOP;
    RAISE INFO 'at most % snapshots of % events', CASE WHEN most < 40 THEN 'some dozens of' ELSE most::text END, es_stream_version('long-1');
END $$;
CALL grow(400);
SELECT count(*) BETWEEN 15 AND 40 AS some FROM es_snapshots;
-- A fold at any version begins near it: not further away than half as far as the
-- version is from the end, or two steps.
SELECT version, before FROM (SELECT version, lag(version, 1, 0::bigint) OVER (ORDER BY version) AS before FROM es_snapshots) s
 WHERE version - before > greatest((100000 - before) / 2, 500);
-- The last 20 steps have more of them than the first 200.
SELECT count(*) FILTER (WHERE version > 95000) > count(*) FILTER (WHERE version <= 50000) AS more FROM es_snapshots;
-- Only those of the same role and reducer.
SELECT count(DISTINCT (stream, reducer, taken_by)) FROM es_snapshots;
DELETE FROM es_snapshots WHERE version % 500 = 0;
SELECT state, version FROM es_state('long-1', 'es_last'::regproc, at_version => 77777);
TRUNCATE es_snapshots;
SELECT state, version FROM es_state('long-1', 'es_last'::regproc);
SELECT saved('long-1');

--
-- The longest names
--
CREATE FUNCTION random_name(bytes int, seed text) RETURNS text LANGUAGE sql AS $$ SELECT left(string_agg(translate(encode(sha512((seed || i)::bytea), 'base64'), E'\n', ''), ''), bytes) FROM generate_series(1, 30) i $$;
SELECT format('CREATE SCHEMA %I', repeat('"', 63)) \gexec
SELECT format('CREATE FUNCTION %I.%I(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS $x$ SELECT to_jsonb(event.version) $x$', repeat('"', 63), repeat('"', 63)) \gexec
SELECT more('c-' || random_name(2046, 'a'), 6);
SELECT s.* FROM pg_proc p, es_state('c-' || random_name(2046, 'a'), p.oid) s WHERE proname = repeat('"', 63);
SELECT length(stream), length(reducer), version FROM es_snapshots WHERE length(stream) > 2000;
SELECT poison('c-' || random_name(2046, 'a'));
SELECT s.* FROM pg_proc p, es_state('c-' || random_name(2046, 'a'), p.oid) s WHERE proname = repeat('"', 63);

SET client_min_messages = warning;
DROP EXTENSION eventstore CASCADE;
DROP SCHEMA app CASCADE;
SELECT format('DROP SCHEMA %I', repeat('"', 63)) \gexec
DROP FUNCTION code_of, more, poison, saved, put, decide, refuse, now_is, app_is, inner_one, apply_x, seen, seen_by, stable_one, random_name;
DROP PROCEDURE grow;
