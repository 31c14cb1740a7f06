-- Projections of a role that is no superuser: what it needs to make and run
-- them, whose rights its handlers have, and that they get nobody else's.
-- Not in one transaction: a rebuild needs one of its own.
SET client_min_messages = warning;
SELECT plan(55);

CREATE ROLE es_test_owner;
CREATE ROLE es_test_writer;
CREATE ROLE es_test_runner;
CREATE SCHEMA es_test AUTHORIZATION es_test_owner;
SELECT es_append('account-1', 'none', 'opened');

CREATE TABLE secret (n int);
CREATE FUNCTION pg_temp.detail_of(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE detail text;
BEGIN
    EXECUTE query;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
    RETURN detail;
END $$;

--
-- What the owner needs
--
SET ROLE es_test_owner;
CREATE TABLE es_test.seen (position bigint, who text, PRIMARY KEY (position));
CREATE FUNCTION es_test.note(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO es_test.seen VALUES (event.position, current_user);
END $$;
CREATE FUNCTION es_test.note_here(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO seen VALUES (event.position, current_user);
END $$;
RESET ROLE;
GRANT EXECUTE ON FUNCTION es_create_projection, es_alter_projection, es_drop_projection, es_pause_projection,
    es_resume_projection, es_rebuild_projection, es_run_projections, es_wait, es_retry, es_discard TO es_test_owner;
SET ROLE es_test_owner;
SELECT throws_ok($$ SELECT es_create_projection('p', 'es_test.note(es_recorded_event)') $$,
    '42501', NULL, 'without SELECT on es_events there is no projection');
RESET ROLE;
GRANT SELECT ON es_events TO es_test_owner;
SET ROLE es_test_owner;
SET search_path = es_test, public;
SELECT lives_ok($$ SELECT es_create_projection('p', 'es_test.note_here(es_recorded_event)', tables => '{es_test.seen}') $$,
    'with it the owner creates one');
SELECT is(es_rebuild_projection('p'), 1::bigint, 'rebuilds it');
SELECT is((SELECT who FROM es_test.seen), 'es_test_owner', 'as itself');
SELECT is(es_run_projections(), 0::bigint, 'runs it');
SELECT is(es_wait('p', 1, '0'), true, 'waits for it');
SELECT lives_ok($$ SELECT es_pause_projection('p'), es_resume_projection('p') $$, 'pauses and resumes it');
SELECT lives_ok($$ SELECT es_alter_projection('p', mode => 'sync') $$, 'makes it sync');
SELECT throws_ok($$ SELECT es_append('account-1', 'any', 'x') $$, '42501', NULL, 'but does not append');
SELECT throws_ok('SELECT * FROM es_projections', '42501', NULL, 'and does not see the table of projections');
SELECT throws_ok('SELECT * FROM es_failures()', '42501', NULL, 'nor failures');
SELECT throws_ok($$ CREATE TRIGGER t AFTER INSERT ON es_events FOR EACH STATEMENT EXECUTE FUNCTION es_projection_sync('p') $$,
    '42501', NULL, 'nor makes a trigger by hand');
RESET ROLE;
RESET search_path;
GRANT SELECT ON es_projections, es_failures, es_visible_failures, es_projection_status TO es_test_runner;
SET ROLE es_test_runner;
SELECT is((SELECT mode FROM es_projection_status WHERE name = 'p'), 'sync', 'SELECT on the status is enough to see it');
SELECT is((SELECT count(*) FROM es_failures()), 0::bigint, 'SELECT on es_failures and its view is enough to list failures');
RESET ROLE;

--
-- Whose rights a handler has: the owner's, whoever appends or runs
--
GRANT EXECUTE ON FUNCTION es_append(text, es_expected_version, text, jsonb, jsonb, uuid, timestamptz, text[], bytea) TO es_test_writer;
GRANT EXECUTE ON FUNCTION es_run_projections TO es_test_runner;
SET ROLE es_test_writer;
SELECT lives_ok($$ SELECT es_append('account-1', 1, 'deposited') $$, 'a writer without any right on the read model appends');
RESET ROLE;
SELECT is((SELECT string_agg(who, ' ' ORDER BY position) FROM es_test.seen), 'es_test_owner es_test_owner', 'a sync handler runs as its owner');
SELECT lives_ok($$ SELECT es_append('account-1', 2, 'deposited') $$, 'a superuser appends');
SELECT is((SELECT string_agg(DISTINCT who, ' ') FROM es_test.seen), 'es_test_owner', 'the handler still runs as its owner');
SELECT es_alter_projection('p', mode => 'async');
SELECT es_append('account-1', 3, 'deposited');
SET ROLE es_test_runner;
SELECT is(es_run_projections(), 1::bigint, 'a runner without any right on the read model runs it');
SELECT throws_ok($$ SELECT es_drop_projection('p') $$, '42501', NULL, 'and does not drop it');
RESET ROLE;
SELECT is((SELECT string_agg(DISTINCT who, ' ') FROM es_test.seen), 'es_test_owner', 'a runner''s batch runs as the owner');
SELECT is((SELECT count(*) FROM es_test.seen), 4::bigint, 'all events are there');
SET ROLE es_test_owner;
SET search_path = es_test, public;
CREATE TABLE es_test.rebuilt (position bigint, who text DEFAULT current_user);
SELECT es_create_projection('r', query => 'INSERT INTO rebuilt (position) SELECT position FROM new_events', tables => '{es_test.rebuilt}');
RESET ROLE;
RESET search_path;
SELECT is(es_rebuild_projection('r'), 4::bigint, 'a superuser rebuilds it');
SELECT is((SELECT string_agg(DISTINCT who, ' ') FROM es_test.rebuilt), 'es_test_owner', 'as its owner');
SELECT es_drop_projection('r');
SELECT is(current_user::text, session_user::text, 'afterwards the caller is the role that it was');
SELECT es_drop_projection('p');

--
-- Events that the owner may not see do not reach it
--
ALTER TABLE es_events ENABLE ROW LEVEL SECURITY;
CREATE POLICY visible ON es_events FOR SELECT TO es_test_owner USING (type <> 'deposited');
SET ROLE es_test_owner;
SELECT es_create_projection('p', 'es_test.note(es_recorded_event)', start_position => 0);
SELECT throws_ok($$ SELECT es_alter_projection('p', mode => 'sync') $$, '0A000', NULL,
    'a trigger is given all events: sync is refused under row security');
RESET ROLE;
DELETE FROM es_test.seen;
SELECT is(es_run_projections(), 1::bigint, 'row security holds for the owner, also when a superuser runs it');
SELECT is((SELECT count(*) FROM es_test.seen), 1::bigint, 'it has what it may see');
DROP POLICY visible ON es_events;
ALTER TABLE es_events DISABLE ROW LEVEL SECURITY;
SELECT es_drop_projection('p');

--
-- A handler cannot get at the privileges of the role that runs it
--
-- Each of these is the handler's statement three times: when a superuser runs it,
-- appends, and rebuilds.
SET ROLE es_test_owner;
CREATE TABLE es_test.statement (statement text);
CREATE TABLE es_test.deferred (n int);
CREATE TABLE es_test.model (n int PRIMARY KEY);
CREATE FUNCTION es_test.escalate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_user <> 'es_test_owner' THEN
        RAISE EXCEPTION 'escalated to %', current_user USING ERRCODE = 'XX999';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER later AFTER INSERT ON es_test.deferred DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION es_test.escalate();
CREATE FUNCTION es_test.run(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE (SELECT statement FROM es_test.statement);
END $$;
SELECT es_create_projection('run', 'es_test.run(es_recorded_event)', tables => '{es_test.model}', max_attempts => 1, batch_size => 1);
RESET ROLE;

-- The codes of the errors that the statement ends with in the three.
CREATE FUNCTION pg_temp.codes(tried text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE result text; code text;
BEGIN
    DELETE FROM es_test.statement;
    INSERT INTO es_test.statement VALUES (tried);
    PERFORM es_resume_projection('run'), es_run_projections('run', 1);
    SELECT coalesce(sqlstate, 'none') INTO result FROM es_projections WHERE name = 'run';
    BEGIN
        PERFORM es_rebuild_projection('run');
        SET CONSTRAINTS ALL IMMEDIATE;
        code := 'none';
    EXCEPTION WHEN OTHERS THEN
        code := SQLSTATE;
    END;
    result := result || ' ' || code;
    BEGIN
        PERFORM es_drop_projection(name) FROM es_projections WHERE name = 'sync';
        SET LOCAL ROLE es_test_owner;
        PERFORM es_create_projection('sync', 'es_test.run(es_recorded_event)', mode => 'sync', start_position => NULL);
        RESET ROLE;
        PERFORM es_append('account-9', 'any', 'x');
        SET CONSTRAINTS ALL IMMEDIATE;
        code := 'none';
    EXCEPTION WHEN OTHERS THEN
        code := SQLSTATE;
    END;
    RETURN result || ' ' || code;
END $$;
SELECT is(pg_temp.codes('SET ROLE es_test_writer'), '42501 42501 42501', 'no SET ROLE');
SELECT is(pg_temp.codes('RESET ROLE'), '42501 42501 42501', 'no RESET ROLE');
SELECT is(pg_temp.codes('SET SESSION AUTHORIZATION DEFAULT'), '42501 42501 42501', 'no SET SESSION AUTHORIZATION DEFAULT');
SELECT is(pg_temp.codes('RESET SESSION AUTHORIZATION'), '42501 42501 42501', 'no RESET SESSION AUTHORIZATION');
SELECT is(pg_temp.codes($$ SELECT set_config('role', 'none', false) $$), '42501 42501 42501', 'no set_config of the role');
SELECT is(pg_temp.codes('CREATE TEMP TABLE t (n int)'), '42501 42501 42501', 'no temporary table');
SELECT is(pg_temp.codes('CREATE TABLE pg_temp.t (n int)'), '42501 42501 42501', 'nor by its schema');
SELECT is(pg_temp.codes('INSERT INTO es_test.deferred VALUES (1)'), '42501 42501 42501', 'no deferred trigger');
SELECT is(pg_temp.codes('DECLARE c CURSOR WITH HOLD FOR SELECT 1'), '42501 42501 42501', 'no cursor that outlives the transaction');
SELECT is(pg_temp.codes('PREPARE s AS SELECT 1'), '42501 42501 42501', 'no prepared statement');
SELECT is(pg_temp.codes('LISTEN x'), '42501 42501 42501', 'no LISTEN');
SELECT is(pg_temp.codes('SELECT * FROM secret'), '42501 42501 42501', 'no table of the caller');
SELECT is(pg_temp.codes('ALTER ROLE es_test_owner SUPERUSER'), '42501 42501 42501', 'no rights by itself');
SELECT is(pg_temp.codes($$ UPDATE es_projections SET owner = 10 $$), '42501 42501 42501', 'no change of the projections');
SELECT is(pg_temp.codes($$ SELECT es_append('account-1', 'any', 'x') $$), '42501 42501 42501', 'no append that it has no right to');
SELECT is(pg_temp.codes('SET session_replication_role = replica'), '42501 42501 42501', 'no setting of superusers');
SELECT is(pg_temp.codes('DELETE FROM es_test.deferred'), 'none none none', 'what it may do it does');
SELECT is(pg_temp.codes($$ SELECT set_config('search_path', 'es_test', false), set_config('work_mem', '99kB', false) $$), 'none none none', 'it may set what anybody may');
SELECT isnt(current_setting('work_mem'), '99kB', 'which is put back');
SELECT isnt(current_setting('search_path'), 'es_test', 'as the search_path is');

SELECT es_drop_projection('sync'), es_drop_projection('run');

-- A trigger on the read model: rows that a rebuild writes must not fire it later as
-- the role that rebuilds.
SET ROLE es_test_owner;
CREATE TABLE es_test.guarded (position bigint PRIMARY KEY);
CREATE CONSTRAINT TRIGGER later AFTER INSERT ON es_test.guarded DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION es_test.escalate();
CREATE FUNCTION es_test.guard(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO guarded VALUES (event.position);
END $$;
SET search_path = es_test, public;
SELECT es_create_projection('guarded', 'es_test.guard(es_recorded_event)', tables => '{es_test.guarded}');
RESET ROLE;
RESET search_path;
CREATE FUNCTION pg_temp.rebuild_guarded() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM es_rebuild_projection('guarded');
    SET CONSTRAINTS ALL IMMEDIATE;
    RETURN 'done';
EXCEPTION WHEN insufficient_privilege THEN
    RETURN 'refused';
WHEN OTHERS THEN
    RETURN SQLERRM;
END $$;
SELECT matches(pg_temp.rebuild_guarded(), 'done|refused', 'a deferred trigger of the read model does not run as the role that rebuilds');
SET ROLE es_test_owner;
SELECT is(pg_temp.rebuild_guarded(), 'done', 'the owner''s own rebuild fires it');
RESET ROLE;
SELECT es_drop_projection('guarded');

-- A role cannot have a superuser refill a table that it does not own.
SET ROLE es_test_owner;
SELECT throws_ok($$ SELECT es_create_projection('t', 'es_test.note(es_recorded_event)', tables => '{secret}') $$, '42501', NULL, 'no table of another as read model');
CREATE TABLE es_test.given (position bigint);
SELECT lives_ok($$ SELECT es_create_projection('given', query => 'INSERT INTO es_test.given SELECT position FROM new_events', tables => '{es_test.given}') $$,
    'a table of its own');
RESET ROLE;
ALTER TABLE es_test.given OWNER TO es_test_writer;
SELECT throws_ok($$ SELECT es_rebuild_projection('given') $$, '42501', NULL, 'which it has given away is not refilled');
SELECT es_drop_projection('given');

-- A projection whose owner has lost the right to read does not keep others from running.
SET ROLE es_test_owner;
SET search_path = es_test, public;
DELETE FROM es_test.seen;
SELECT es_create_projection('lost', 'es_test.note(es_recorded_event)');
RESET ROLE;
RESET search_path;
CREATE TABLE counted (n bigint);
SELECT es_create_projection('other', query => 'INSERT INTO counted SELECT count(*) FROM new_events');
REVOKE SELECT ON es_events FROM es_test_owner;
SELECT lives_ok('SELECT es_run_projections()', 'a projection whose owner may not read the log any more stops no other');
SELECT ok((SELECT sum(n) > 0 FROM counted), 'the other has run');

SELECT * FROM finish();
DROP TABLE secret, counted;
DROP EXTENSION eventstore CASCADE;
DROP SCHEMA es_test CASCADE;
DROP ROLE es_test_owner, es_test_writer, es_test_runner;
CREATE EXTENSION eventstore;
