-- es_create_projection: the four kinds, what is refused, what is stored.
CREATE EXTENSION eventstore;
CREATE TABLE seen (position bigint PRIMARY KEY, stream text);
CREATE FUNCTION note(event es_recorded_event) RETURNS void LANGUAGE sql
    AS 'INSERT INTO seen VALUES (event.position, event.stream)';
CREATE SCHEMA on_event;
CREATE FUNCTION on_event.on_opened(event es_recorded_event) RETURNS void LANGUAGE sql
    AS 'INSERT INTO seen VALUES (event.position, event.stream)';
CREATE MATERIALIZED VIEW types AS SELECT type, count(*) FROM es_events GROUP BY type;

--
-- The four kinds
--
SELECT es_append_batch('account-1', 'none', '[{"type": "opened"}, {"type": "deposited"}]');
SELECT es_create_projection('by handler', handler => 'note(es_recorded_event)');
SELECT es_create_projection('by query', query => 'INSERT INTO seen SELECT position, stream FROM new_events', start_position => NULL);
SELECT es_create_projection('by schema', handler_schema => 'on_event', start_position => 1);
SELECT es_create_projection('by view', refresh => 'types');
SET search_path = on_event, "$user", pg_temp, "Odd, name", public;
SELECT es_create_projection('all', 'note(es_recorded_event)', NULL, NULL, NULL, '{seen,types_n}', 'account', '{opened,"de,posited"}',
    'sync', 1, 7, 'park', 3, '1 day 2 hours');
CREATE TABLE public.types_n (n bigint);
SELECT es_create_projection('all', 'note(es_recorded_event)', NULL, NULL, NULL, '{seen,types_n}', 'account', '{opened,"de,posited"}',
    'sync', 1, 7, 'park', 3, '1 day 2 hours');
SET search_path = pg_temp;
SELECT public.es_create_projection('nowhere', handler_schema => 'on_event');
RESET search_path;
\x
SELECT name, owner = current_user AS owner, search_path, handler, query, handler_schema, refresh, tables,
       categories, types, mode, start_position, batch_size, on_failure, max_attempts, min_interval,
       created_at <= clock_timestamp() AS created, state, position, history, handled
  FROM es_projections ORDER BY name;
\x
SELECT tgname FROM pg_trigger WHERE tgrelid = 'es_events'::regclass AND NOT tgisinternal ORDER BY tgname;
SELECT es_drop_projection(name) FROM es_projections ORDER BY name;
SELECT count(*) FROM es_projections;
SELECT count(*) FROM pg_trigger WHERE tgfoid = 'es_projection_sync'::regproc;
SELECT * FROM seen;
DROP TABLE types_n;

--
-- What is refused
--
-- Exactly one kind.
SELECT es_create_projection('p');
SELECT es_create_projection('p', 'note(es_recorded_event)', query => 'SELECT 1');
SELECT es_create_projection('p', 'note(es_recorded_event)', 'SELECT 1', 'on_event', 'types');

-- The rest with its code, so that a client can tell.
CREATE FUNCTION refused(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE message text; detail text; hint text;
BEGIN
    EXECUTE 'SELECT es_create_projection(' || call || ')';
    RAISE SQLSTATE '00A00';     -- undoes it
EXCEPTION WHEN SQLSTATE '00A00' THEN
    RETURN 'accepted';
WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN concat_ws(E'\n       ', SQLSTATE || ': ' || message, nullif(detail, ''), nullif(hint, ''));
END $$;
\pset format unaligned
\pset tuples_only on

-- Names: 1 to 63 bytes.
SELECT refused($$ NULL, 'note(es_recorded_event)' $$);
SELECT refused($$ '', 'note(es_recorded_event)' $$);
SELECT refused($$ repeat('n', 64), 'note(es_recorded_event)' $$);
SELECT refused($$ repeat('ä', 32), 'note(es_recorded_event)' $$);
SELECT es_create_projection(repeat('ä', 31) || 'x', 'note(es_recorded_event)', mode => 'sync');
SELECT refused($$ repeat('ä', 31) || 'x', 'note(es_recorded_event)' $$);
SELECT es_drop_projection(repeat('ä', 31) || 'x');

-- Handlers.
CREATE FUNCTION no_event() RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION two_events(a es_recorded_event, b es_recorded_event) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION with_default(a es_recorded_event, b int DEFAULT 0) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION other_row(a seen) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION a_position(a bigint) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION many_events(a es_recorded_event[]) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION variadic_events(VARIADIC a es_recorded_event[]) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION returns_int(a es_recorded_event) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION returns_set(a es_recorded_event) RETURNS SETOF void LANGUAGE sql AS '';
CREATE FUNCTION out_argument(a es_recorded_event, OUT b int) LANGUAGE sql AS 'SELECT 1';
CREATE PROCEDURE proc(a es_recorded_event) LANGUAGE sql AS '';
CREATE FUNCTION add_event(sum int, a es_recorded_event) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE AGGREGATE agg(es_recorded_event) (SFUNC = add_event, STYPE = int);
SELECT refused($$ 'p', 'no_event()' $$);
SELECT refused($$ 'p', 'two_events(es_recorded_event, es_recorded_event)' $$);
SELECT refused($$ 'p', 'with_default(es_recorded_event, int)' $$);
SELECT refused($$ 'p', 'other_row(seen)' $$);
SELECT refused($$ 'p', 'a_position(bigint)' $$);
SELECT refused($$ 'p', 'many_events(es_recorded_event[])' $$);
SELECT refused($$ 'p', 'variadic_events(es_recorded_event[])' $$);
SELECT refused($$ 'p', 'returns_int(es_recorded_event)' $$);
SELECT refused($$ 'p', 'returns_set(es_recorded_event)' $$);
SELECT refused($$ 'p', 'out_argument(es_recorded_event)' $$);
SELECT refused($$ 'p', 'proc(es_recorded_event)' $$);
SELECT refused($$ 'p', 'agg(es_recorded_event)' $$);
SELECT refused($$ 'p', 'nowhere(es_recorded_event)' $$);
SELECT refused($$ 'p', 1::oid $$);
SELECT refused($$ 'p', 0::oid $$);

-- Queries.
SELECT refused($$ 'p', query => '' $$);
SELECT refused($$ 'p', query => '-- nothing' $$);
SELECT refused($$ 'p', query => 'nonsense' $$);
SELECT refused($$ 'p', query => 'SELECT (' $$);
SELECT refused($$ 'p', query => 'SELECT 1; SELECT 2' $$);
SELECT refused($$ 'p', query => 'CREATE TABLE x (n int)' $$);
SELECT refused($$ 'p', query => 'TRUNCATE seen' $$);
SELECT refused($$ 'p', query => 'CALL proc(NULL)' $$);
SELECT refused($$ 'p', query => 'DO ''BEGIN END''' $$);
SELECT refused($$ 'p', query => 'COMMIT' $$);
SELECT refused($$ 'p', query => 'NOTIFY x' $$);
SELECT refused($$ 'p', query => 'COPY seen FROM STDIN' $$);
SELECT refused($$ 'p', query => 'EXPLAIN SELECT 1' $$);
SELECT left(refused($$ 'p', query => 'SELECT 1 INTO x' $$), 5);
SELECT refused($$ 'p', query => 'CREATE TABLE x AS SELECT 1' $$);
SELECT refused($$ 'p', query => 'INSERT INTO seen SELECT nonsense, stream FROM new_events' $$);
SELECT refused($$ 'p', query => 'INSERT INTO nowhere SELECT position FROM new_events' $$);
SELECT refused($$ 'p', query => 'INSERT INTO seen SELECT stream, position FROM new_events' $$);
SELECT refused($$ 'p', query => 'INSERT INTO seen SELECT $1, $2' $$);
SELECT refused($$ 'p', query => 'INSERT INTO new_events SELECT * FROM new_events' $$);
SELECT refused($$ 'p', query => 'SELECT 1/0' $$);
-- What plans: also by WITH, VALUES, DELETE, MERGE.
SELECT refused($$ 'p1', query => 'WITH e AS (SELECT * FROM new_events) INSERT INTO seen SELECT position, stream FROM e;' $$);
SELECT refused($$ 'p2', query => 'DELETE FROM seen USING new_events e WHERE e.position = seen.position' $$);
SELECT refused($$ 'p3', query => 'MERGE INTO seen s USING new_events e ON s.position = e.position WHEN NOT MATCHED THEN INSERT VALUES (e.position, e.stream)' $$);
SELECT refused($$ 'p4', query => 'UPDATE seen SET stream = e.stream FROM new_events e WHERE e.position = seen.position' $$);
SELECT refused($$ 'p5', query => 'VALUES (1)' $$);

-- Schemas.
SELECT refused($$ 'p', handler_schema => 'nowhere' $$);
CREATE SCHEMA bad_handlers;
CREATE FUNCTION bad_handlers.on_wrong(es_recorded_event) RETURNS int LANGUAGE sql RETURN 1;
SELECT refused($$ 'p', handler_schema => 'bad_handlers' $$);
DROP FUNCTION bad_handlers.on_wrong(es_recorded_event);
CREATE FUNCTION bad_handlers.other(es_recorded_event) RETURNS int LANGUAGE sql RETURN 1;
CREATE FUNCTION bad_handlers.on_wrong(int) RETURNS int LANGUAGE sql RETURN 1;
SELECT refused($$ 'p', handler_schema => 'bad_handlers' $$);
SET client_min_messages = warning;
DROP SCHEMA bad_handlers CASCADE;
RESET client_min_messages;
SELECT refused($$ 'p', handler_schema => 1::oid $$);
SELECT refused($$ 'p', handler_schema => 0::oid $$);

-- Views to refresh.
CREATE VIEW a_view AS SELECT 1 AS n;
CREATE SEQUENCE a_sequence;
SELECT refused($$ 'p', refresh => 'seen' $$);
SELECT refused($$ 'p', refresh => 'a_view' $$);
SELECT refused($$ 'p', refresh => 'es_events' $$);
SELECT refused($$ 'p', refresh => 'nowhere' $$);
SELECT refused($$ 'p', refresh => 1::oid $$);
SELECT refused($$ 'p', refresh => 0::oid $$);
SELECT refused($$ 'p', refresh => 'types', mode => 'sync' $$);
SELECT refused($$ 'p', refresh => 'types', on_failure => 'park' $$);

-- Tables.
CREATE SCHEMA other;
CREATE TABLE other.seen ();
CREATE FOREIGN DATA WRAPPER regress_es_wrapper;
CREATE SERVER regress_es_server FOREIGN DATA WRAPPER regress_es_wrapper;
CREATE FOREIGN TABLE a_foreign_table (n int) SERVER regress_es_server;
CREATE TEMP TABLE a_temp_table (n int);
SELECT refused($$ 'p', 'note(es_recorded_event)', tables => NULL $$);
SELECT refused($$ 'p', 'note(es_recorded_event)', tables => '{NULL}' $$);
SELECT refused($$ 'p', 'note(es_recorded_event)', tables => '{1}' $$);
SELECT refused($$ 'p', 'note(es_recorded_event)', tables => '{nowhere}' $$);
SELECT refused($$ 'p', 'note(es_recorded_event)', tables => '{a_view}' $$);
SELECT refused($$ 'p', 'note(es_recorded_event)', tables => '{types}' $$);
SELECT refused($$ 'p', 'note(es_recorded_event)', tables => '{a_sequence}' $$);
SELECT refused($$ 'p', 'note(es_recorded_event)', tables => '{seen_pkey}' $$);
SELECT refused($$ 'p', 'note(es_recorded_event)', tables => '{a_foreign_table}' $$);
SELECT refused($$ 'p', 'note(es_recorded_event)', tables => '{es_import}' $$);
SELECT refused($$ 'p', 'note(es_recorded_event)', tables => '{es_events}' $$);
SELECT refused($$ 'p', 'note(es_recorded_event)', tables => '{es_projections}' $$) <> 'accepted';
SELECT refused($$ 'p', 'note(es_recorded_event)', tables => '{es_failures}' $$) <> 'accepted';
SELECT refused($$ 'p', 'note(es_recorded_event)', tables => '{a_temp_table}' $$) <> 'accepted';
SELECT refused($$ 'p', 'note(es_recorded_event)', tables => '{seen,seen}' $$);
SELECT refused($$ 'p', 'note(es_recorded_event)', tables => '{seen,other.seen}' $$);
SELECT refused($$ 'p', 'note(es_recorded_event)', tables => '{{seen},{other.seen}}' $$);
DROP TABLE a_temp_table;

-- Words and numbers.
SELECT refused($$ 'p', 'note(es_recorded_event)', mode => NULL $$);
SELECT refused($$ 'p', 'note(es_recorded_event)', mode => 'Sync' $$);
SELECT refused($$ 'p', 'note(es_recorded_event)', mode => '' $$);
SELECT refused($$ 'p', 'note(es_recorded_event)', on_failure => NULL $$);
SELECT refused($$ 'p', 'note(es_recorded_event)', on_failure => 'ignore' $$);
SELECT refused($$ 'p', 'note(es_recorded_event)', batch_size => NULL $$);
SELECT refused($$ 'p', 'note(es_recorded_event)', batch_size => 0 $$);
SELECT refused($$ 'p', 'note(es_recorded_event)', batch_size => 1000001 $$);
SELECT refused($$ 'p', 'note(es_recorded_event)', max_attempts => NULL $$);
SELECT refused($$ 'p', 'note(es_recorded_event)', max_attempts => 0 $$);
SELECT refused($$ 'p', 'note(es_recorded_event)', max_attempts => 1001 $$);
SELECT refused($$ 'p', 'note(es_recorded_event)', start_position => -1 $$);
SELECT refused($$ 'p', 'note(es_recorded_event)', min_interval => NULL $$);
SELECT refused($$ 'p', 'note(es_recorded_event)', min_interval => '-1 s' $$);
SELECT refused($$ 'p', 'note(es_recorded_event)', min_interval => '-1 day 25 hours' $$);
SELECT refused($$ 'p', 'note(es_recorded_event)', min_interval => '-1 month' $$);

-- Filters.
SELECT refused($$ 'p', 'note(es_recorded_event)', types => '{a,NULL}' $$);
SELECT refused($$ 'p', 'note(es_recorded_event)', types => '{{a,b},{c,d}}' $$);
SELECT refused($$ 'p', 'note(es_recorded_event)', types => '{""}' $$);
SELECT refused($$ 'p', 'note(es_recorded_event)', types => ARRAY[repeat('t', 256)] $$);

-- None of them left anything, and what is just within the limits is accepted.
SELECT count(*) FROM es_projections;
SELECT count(*) FROM pg_trigger WHERE tgfoid = 'es_projection_sync'::regproc;
SELECT refused($$ 'p1', 'note(es_recorded_event)', types => ARRAY[repeat('t', 255)], batch_size => 1000000, max_attempts => 1000,
                  start_position => 0, min_interval => '0' $$);
SELECT refused($$ 'p2', 'note(es_recorded_event)', start_position => 9223372036854775807 $$);
SELECT refused($$ 'p2', 'note(es_recorded_event)', types => '{}' $$);
SELECT refused($$ 'p2', 'note(es_recorded_event)', category => 'order-1' $$);
SELECT refused(format('%L, %L, category => %L', 'p2', 'note(es_recorded_event)', repeat('x', 2049)));
SELECT refused($$ 'p2', 'note(es_recorded_event)', types => '{x}', batch_size => 1, max_attempts => 1, category => '' $$);

-- A projection that is sync has a trigger of its name, which may be taken.
SELECT refused($$ 'es_events_refuse', 'note(es_recorded_event)', mode => 'sync', start_position => NULL $$);
SELECT refused($$ 'es_events_refuse', 'note(es_recorded_event)' $$);
SELECT count(*) FROM pg_trigger WHERE tgname = 'es_events_refuse';

-- In a transaction that reads with one snapshot, or must not write.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT refused($$ 'p', 'note(es_recorded_event)', mode => 'sync' $$);
COMMIT;
BEGIN READ ONLY;
SELECT refused($$ 'p', 'note(es_recorded_event)' $$);
COMMIT;

-- The log catches up before a projection is sync: what the handler refuses,
-- fails; and leaves nothing.
CREATE FUNCTION refuse(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'not %', event.type USING ERRCODE = '22012', DETAIL = 'no detail', HINT = 'no hint';
END $$;
SELECT refused($$ 'p', 'refuse(es_recorded_event)', mode => 'sync' $$);
SELECT count(*) FROM es_projections;
SELECT count(*) FROM pg_trigger WHERE tgfoid = 'es_projection_sync'::regproc;

--
-- Names of projections that do not exist, or are null
--
SELECT es_drop_projection('nowhere');
SELECT es_pause_projection('nowhere');
SELECT es_resume_projection('nowhere');
SELECT es_alter_projection('nowhere', 'sync');
SELECT es_rebuild_projection('nowhere');
SELECT es_run_projections('nowhere');
SELECT es_wait('nowhere', 0);
SELECT es_alter_projection(NULL, 'sync');
SELECT es_drop_projection(NULL);
SELECT es_pause_projection(NULL);
SELECT es_resume_projection(NULL);
SELECT es_rebuild_projection(NULL);

--
-- es_alter_projection
--
SELECT es_create_projection('p', 'note(es_recorded_event)');
SELECT es_create_projection('v', refresh => 'types');
SELECT es_alter_projection('p', mode => 'neither');
SELECT es_alter_projection('p', batch_size => 0);
SELECT es_alter_projection('p', batch_size => 1000001);
SELECT es_alter_projection('p', on_failure => 'neither');
SELECT es_alter_projection('p', max_attempts => 0);
SELECT es_alter_projection('p', max_attempts => 1001);
SELECT es_alter_projection('p', min_interval => '-1 s');
SELECT es_alter_projection('v', on_failure => 'park');
SELECT es_alter_projection('v', mode => 'sync');
-- All or nothing.
SELECT es_alter_projection('v', mode => 'sync', batch_size => 5);
SELECT mode, batch_size, on_failure, max_attempts, min_interval FROM es_projections;
SELECT es_alter_projection('p', batch_size => 5);
SELECT es_alter_projection('p', on_failure => 'park', max_attempts => 7);
SELECT es_alter_projection('p', min_interval => '0');
SELECT es_alter_projection('p');
SELECT mode, batch_size, on_failure, max_attempts, min_interval FROM es_projections ORDER BY name;
SELECT es_drop_projection('p'), es_drop_projection('v');

--
-- Whose things
--
CREATE ROLE regress_es_owner;
CREATE ROLE regress_es_other;
CREATE SCHEMA app AUTHORIZATION regress_es_owner;
GRANT EXECUTE ON FUNCTION es_create_projection, es_drop_projection, es_pause_projection, es_resume_projection,
    es_alter_projection, es_rebuild_projection, es_run_projections, es_retry, es_discard TO regress_es_owner, regress_es_other;
SET ROLE regress_es_owner;
CREATE TABLE app.mine (n bigint);
CREATE MATERIALIZED VIEW app.my_view AS SELECT 1 AS n;
CREATE FUNCTION app.mine(event es_recorded_event) RETURNS void LANGUAGE sql AS '';
SELECT refused($$ 'p', 'app.mine(es_recorded_event)' $$);
RESET ROLE;
GRANT SELECT ON es_events TO regress_es_owner;
REVOKE EXECUTE ON FUNCTION refuse FROM PUBLIC;
SET ROLE regress_es_owner;
SELECT refused($$ 'p', 'app.mine(es_recorded_event)', tables => '{seen}' $$);
SELECT refused($$ 'p', refresh => 'types' $$);
SELECT refused($$ 'p', 'refuse(es_recorded_event)' $$);
SELECT es_create_projection('p', 'app.mine(es_recorded_event)', tables => '{app.mine}');
SELECT es_create_projection('v', refresh => 'app.my_view');
SELECT es_create_projection('s', 'app.mine(es_recorded_event)', mode => 'sync');
RESET ROLE;
SELECT name, owner, mode FROM es_projections ORDER BY name;
-- Nobody else touches them, but a superuser.
SET ROLE regress_es_other;
SELECT es_drop_projection('p');
SELECT es_pause_projection('p');
SELECT es_resume_projection('p');
SELECT es_alter_projection('p', batch_size => 1);
SELECT es_rebuild_projection('p');
RESET ROLE;
SELECT es_pause_projection('p'), es_resume_projection('p');
-- A member of the owner's role may.
GRANT regress_es_owner TO regress_es_other;
SET ROLE regress_es_other;
SELECT es_drop_projection('p'), es_drop_projection('v'), es_drop_projection('s');
RESET ROLE;
SELECT count(*) FROM es_projections;
\pset format aligned
\pset tuples_only off

-- DROP EXTENSION takes the triggers of projections with it.
SELECT es_create_projection('p', 'note(es_recorded_event)', mode => 'sync', start_position => NULL);
SET client_min_messages = warning;
DROP MATERIALIZED VIEW types;
DROP EXTENSION eventstore CASCADE;
DROP SCHEMA app, on_event, other CASCADE;
DROP ROLE regress_es_owner, regress_es_other;
DROP FOREIGN DATA WRAPPER regress_es_wrapper CASCADE;
DROP SEQUENCE a_sequence;
DROP VIEW a_view;
DROP TABLE seen CASCADE;
DROP FUNCTION refused, no_event, a_position;
