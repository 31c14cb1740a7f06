-- Messages whose handlers fail: raised for a retry, or recorded in es_failures;
-- es_retry, es_discard.
CREATE EXTENSION eventstore;
CREATE TABLE handled (what text);
CREATE TABLE mended (what text);
-- Fails until the payload is fixed; then skips it, or acknowledges it.
CREATE FUNCTION on_message(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO handled VALUES (payload);
    IF payload NOT IN (SELECT what FROM mended) THEN
        RAISE EXCEPTION '% is bad', payload USING ERRCODE = 'BAD01', DETAIL = 'By nature.', HINT = 'Mend it.';
    END IF;
    RETURN CASE WHEN payload NOT LIKE 'skip%' THEN ROW(payload, NULL, 'came', NULL, metadata->>'stream', NULL, NULL)::es_ack_event END;
END $$;
CREATE FUNCTION receive(payload text, retry_count int, max_retries int DEFAULT 3, metadata jsonb DEFAULT '{}') RETURNS text LANGUAGE sql
    AS $$ SELECT es_receive('topic', 'group', payload, 'on_message(text, jsonb)', metadata, max_retries, retry_count) $$;
CREATE VIEW counts AS
SELECT (SELECT count(*) FROM es_inbox) AS inbox, (SELECT count(*) FROM es_failures) AS failures, (SELECT count(*) FROM handled) AS handled;

--
-- Raised at retry count 0, 1, 2; recorded at 3
--
SELECT receive('a', 0);
SELECT receive('a', 1);
SELECT receive('a', 2);
SELECT * FROM counts;
SELECT receive('a', 3, metadata => '{"stream": "a-1"}');
SELECT * FROM counts;
\x
SELECT id, projection, subscription, partition, topic, group_id, event_id, position, stream, type, checksum = es_checksum('a') AS checksum, payload,
       metadata, handler, receiver = current_user AS receiver, search_path, sqlstate, message, detail, context, attempts, retry_at,
       first_failed_at > clock_timestamp() - interval '1 hour' AS first_failed_at, last_failed_at = first_failed_at AS last_failed_at
  FROM es_failures;
\x
-- The same one is recorded once, with what is known now.
SELECT receive('a', 3, metadata => '{"again": true}'), receive('a', 2147483647);
SELECT id, metadata, attempts, last_failed_at > first_failed_at AS later FROM es_failures;
SELECT * FROM counts;
-- Unset: always raised; 0: never.
SELECT receive('b', 0, NULL);
SELECT receive('b', 2147483647, NULL);
SELECT receive('b', 0, 0), receive('c', 2147483647, 2147483647), receive('c', 2147483647, 2147483647);
SELECT receive('c', 2147483646, 2147483647);
SELECT payload, attempts FROM es_failures ORDER BY id;
SELECT es_retry(id) FROM es_failures WHERE payload = 'c';
SELECT attempts FROM es_failures WHERE payload = 'c';
-- Another topic or group fails by itself.
SELECT es_receive('other', 'group', 'a', 'on_message(text, jsonb)', max_retries => 0),
       es_receive('topic', 'other', 'a', 'on_message(text, jsonb)', max_retries => 0);
SELECT count(*) FROM es_failures;

--
-- Listed, counted, deleted
--
SELECT topic, group_id, payload FROM es_failures();
SELECT topic, group_id, payload FROM es_failures(topic => 'topic', group_id => 'group', max_count => 2, skip => 1);
SELECT count(*) FROM es_failures(topic => 'topic', max_count => NULL);
SELECT es_discard(id) FROM es_failures(topic => 'other');
SELECT es_discard(id) FROM es_failures(group_id => 'other');
SELECT count(*) FROM es_failures();
SELECT max(id) AS gone FROM es_failures \gset
SELECT es_discard(:gone);
SELECT es_discard(:gone);
SELECT es_retry(:gone);

--
-- What succeeds later is no failure any more
--
SELECT receive('d', 3), receive('skip d', 3);
INSERT INTO mended VALUES ('d'), ('skip d');
SELECT * FROM counts;
SELECT receive('d', 4), receive('skip d', 0), receive('d', 3);
SELECT * FROM counts;

--
-- es_retry: acknowledged: event + 1, failure - 1; skipped: failure - 1; error: as they were
--
TRUNCATE es_inbox, es_failures, handled, mended;
SELECT receive('ack', 3, metadata => '{"stream": "a-1"}'), receive('skip', 3), receive('error', 3);
SELECT * FROM counts;
SELECT id AS ack FROM es_failures WHERE payload = 'ack' \gset
SELECT id AS skip FROM es_failures WHERE payload = 'skip' \gset
SELECT id AS error FROM es_failures WHERE payload = 'error' \gset
INSERT INTO mended VALUES ('ack'), ('skip');
SELECT es_retry(:ack);
SELECT * FROM counts;
SELECT es_retry(:skip);
SELECT * FROM counts;
SELECT es_retry(:error);
SELECT * FROM counts;
SELECT id = :error AS same, attempts, sqlstate, message, detail, context FROM es_failures;
SELECT entity_id, payload, i.metadata, stream, e.type, e.position = i.position AS position FROM es_inbox i LEFT JOIN es_events e USING (position);
SELECT es_retry(:ack);
-- Within a transaction that is rolled back, it is as it was.
INSERT INTO mended VALUES ('error');
BEGIN;
SELECT es_retry(:error);
SELECT * FROM counts;
ROLLBACK;
SELECT * FROM counts;
-- Handled meanwhile, by a row that was inserted by hand: it is no failure any more.
INSERT INTO es_inbox (topic, group_id, checksum, payload) VALUES ('topic', 'group', es_checksum('error'), 'error');
SELECT es_retry(:error);
SELECT * FROM counts;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT receive('rr', 3);
SELECT es_retry(id) FROM es_failures;
INSERT INTO mended VALUES ('rr');
SELECT es_retry(id) FROM es_failures;
ROLLBACK;
SELECT receive('ro', 3);
BEGIN READ ONLY;
SELECT es_retry(id) FROM es_failures;
ROLLBACK;
BEGIN READ ONLY;
SELECT es_discard(id) FROM es_failures;
ROLLBACK;

--
-- What is a failure: whatever goes wrong from the call of the handler on
--
TRUNCATE es_failures;
INSERT INTO mended VALUES ('bad stream');
SELECT receive('bad stream', 3, 3, '{"stream": ""}');
CREATE FUNCTION commits(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql AS $$ BEGIN COMMIT; RETURN NULL; END $$;
CREATE FUNCTION rolls_back(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql AS $$ BEGIN ROLLBACK; RETURN NULL; END $$;
CREATE FUNCTION cancels(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql AS $$ BEGIN RAISE query_canceled; END $$;
CREATE FUNCTION no_end(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql AS $$ BEGIN END $$;
CREATE FUNCTION wrong_row(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql AS $$ BEGIN RETURN ROW(1, 2); END $$;
CREATE FUNCTION broken_sql(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql AS $$ BEGIN SELECT nonsense; END $$;
CREATE FUNCTION deletes(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM es_inbox WHERE es_inbox.checksum = es_checksum(deletes.payload);
    RETURN ROW('x', NULL, NULL, NULL, NULL, NULL, NULL)::es_ack_event;
END $$;
CREATE FUNCTION drops_extension(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql AS $$ BEGIN DROP EXTENSION eventstore CASCADE; RETURN NULL; END $$;
CREATE FUNCTION drops_inbox(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql AS $$
BEGIN
    ALTER EXTENSION eventstore DROP FUNCTION es_inbox(text, text, text, text, bigint, bigint);
    ALTER EXTENSION eventstore DROP TABLE es_inbox;
    DROP TABLE es_inbox CASCADE;
    RETURN NULL;
END $$;
CREATE FUNCTION drops_log(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql AS $$
BEGIN
    ALTER EXTENSION eventstore DROP TABLE es_events;
    DROP TABLE es_events CASCADE;
    RETURN NULL;
END $$;
CREATE FUNCTION drops_itself(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql AS $$ BEGIN DROP FUNCTION drops_itself; RETURN NULL; END $$;
CREATE FUNCTION becomes(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql AS $$ BEGIN SET LOCAL ROLE pg_read_all_data; RAISE 'as %', current_user; END $$;
CREATE FUNCTION endless(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql AS $$
BEGIN
    PERFORM es_receive('endless', '', (payload::int + 1)::text, 'endless(text, jsonb)');
    RETURN NULL;
END $$;
SET client_min_messages = warning;
SELECT handler, es_receive('wrong', handler, '1', handler::regprocedure, max_retries => 0)
  FROM unnest('{commits,rolls_back,cancels,no_end,wrong_row,broken_sql,deletes,drops_extension,drops_inbox,drops_log,becomes,endless}'::text[]) name,
       LATERAL (SELECT name || '(text, jsonb)') x(handler);
RESET client_min_messages;
SELECT split_part(group_id, '(', 1) AS handler, sqlstate, message FROM es_failures WHERE topic = 'wrong' ORDER BY id;
SELECT payload, sqlstate, message FROM es_failures WHERE topic <> 'wrong' ORDER BY id;
SELECT count(*) FROM es_inbox WHERE topic = 'wrong';
-- A handler that was dropped before the retry: an error of its own.
SELECT es_receive('wrong', '', 'gone', 'drops_itself(text, jsonb)', max_retries => 0);
CREATE FUNCTION gone(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql AS $$ BEGIN RAISE 'is here'; END $$;
SELECT es_receive('gone', '', 'gone', 'gone(text, jsonb)', max_retries => 0);
DROP FUNCTION gone;
SELECT es_retry(id) FROM es_failures(topic => 'gone');
CREATE FUNCTION gone(payload text, metadata jsonb) RETURNS int LANGUAGE sql AS 'SELECT 1';
SELECT es_retry(id) FROM es_failures(topic => 'gone');
SELECT handler, sqlstate, message, attempts FROM es_failures(topic => 'gone');
-- A cancel is none: it ends the call.
CREATE FUNCTION sleeps(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(600); END $$;
\set VERBOSITY terse
SET statement_timeout = '200ms';
SELECT es_receive('sleeps', '', 'x', 'sleeps(text, jsonb)', max_retries => 0);
RESET statement_timeout;
\set VERBOSITY default
SELECT count(*) FROM es_failures(topic => 'sleeps');
-- Deferred constraints are checked at the commit, when it is too late for a failure.
CREATE TABLE once (what text UNIQUE DEFERRABLE INITIALLY DEFERRED);
INSERT INTO once VALUES ('twice');
CREATE FUNCTION inserts(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql AS $$
    INSERT INTO once VALUES (payload); SELECT NULL::es_ack_event $$;
SELECT es_receive('deferred', '', 'twice', 'inserts(text, jsonb)', max_retries => 0);
SELECT count(*) FROM es_failures(topic => 'deferred');

-- STRICT, SECURITY DEFINER, with settings of its own, STABLE.
CREATE FUNCTION definer(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql STRICT STABLE SECURITY DEFINER SET search_path = pg_catalog, public
    AS $$ SELECT current_setting('search_path'), NULL::timestamptz, payload, NULL::text, NULL::text, NULL, NULL::text[] $$;
SELECT es_receive('definer', '', 'x', 'definer(text, jsonb)', max_retries => 0);
SELECT entity_id, event_type FROM es_inbox WHERE topic = 'definer';
-- Names that are hard to quote.
CREATE SCHEMA "It's; a ""schema""";
CREATE FUNCTION "It's; a ""schema"""."a, (b)"(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
SELECT es_receive($q$'; DROP TABLE "x"; --$q$, E'\n\t\\"''', E'it''s "quoted" \\ $1 @extschema@', $q$"It's; a ""schema"""."a, (b)"(text, jsonb)$q$, '{"''": "\""}', 0);
SELECT topic, group_id, payload, metadata, handler, message FROM es_failures() LIMIT 1;
CREATE OR REPLACE FUNCTION "It's; a ""schema"""."a, (b)"(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql
    AS $$ SELECT payload, NULL::timestamptz, 't', NULL::text, 'raw-1', NULL, NULL::text[] $$;
SELECT es_retry(id) FROM es_failures(max_count => 1);
SELECT i.entity_id, e.data FROM es_inbox i JOIN es_events e USING (position) WHERE stream = 'raw-1';

--
-- Whose rights, which names
--
TRUNCATE es_failures, es_inbox;
CREATE ROLE regress_es_receiver;
CREATE ROLE regress_es_operator;
CREATE SCHEMA "Inbox, one" AUTHORIZATION regress_es_receiver;
GRANT CREATE ON SCHEMA public TO regress_es_receiver;
GRANT EXECUTE ON FUNCTION es_receive TO regress_es_receiver;
GRANT EXECUTE ON FUNCTION es_retry, es_discard TO regress_es_operator, regress_es_receiver;
SET ROLE regress_es_receiver;
SET search_path = pg_temp, "Inbox, one", public;
CREATE TABLE "Inbox, one".notes (note text);
CREATE FUNCTION "Inbox, one".take(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO notes SELECT format('%s as %s with %s', payload, current_user, current_setting('search_path'));
    IF payload = 'bad' AND (SELECT count(*) FROM notes) < 3 THEN
        RAISE 'not yet';
    END IF;
    RETURN ROW(payload, NULL, 'taken', NULL, 'notes-1', NULL, NULL)::es_ack_event;
END $$;
-- EXECUTE on es_receive is all that is needed, for the log, too.
SELECT es_receive('t', 'g', 'good', 'take(text, jsonb)'), es_receive('t', 'g', 'bad', 'take(text, jsonb)', max_retries => 0);
SELECT es_append('notes-1', 'any', 't');
SELECT * FROM es_inbox();
SELECT * FROM es_inbox;
SELECT * FROM es_failures();
INSERT INTO es_inbox (topic, group_id, checksum, payload) VALUES ('t', 'g', 'c', 'p');
RESET ROLE;
RESET search_path;
SELECT topic, payload, receiver, handler, search_path FROM es_failures;
SELECT id AS bad FROM es_failures \gset
SELECT stream, type, data FROM es_events WHERE stream = 'notes-1';
-- Others neither retry nor discard it.
SET ROLE regress_es_operator;
SELECT es_retry(:bad);
SELECT es_discard(:bad);
RESET ROLE;
-- A role that has the receiver's rights does, as the receiver, with its search_path.
GRANT regress_es_receiver TO regress_es_operator;
SET ROLE regress_es_operator;
CREATE TEMP TABLE notes (note text);
SELECT es_retry(:bad);
SELECT current_user, current_setting('search_path');
RESET ROLE;
INSERT INTO "Inbox, one".notes VALUES ('enough');
SELECT es_retry(:bad);
SELECT * FROM "Inbox, one".notes;
SELECT * FROM pg_temp.notes;
SELECT count(*) FROM es_failures;
-- Not even by what the handler does as the operator, or leaves for later.
SET ROLE regress_es_receiver;
CREATE FUNCTION "Inbox, one".attack() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN ALTER ROLE regress_es_receiver SUPERUSER; RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER attack AFTER INSERT ON "Inbox, one".notes DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION "Inbox, one".attack();
CREATE FUNCTION "Inbox, one".later(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql AS $$
BEGIN
    IF metadata ? 'fail' AND current_setting('app.receives', true) = 'yes' THEN
        RAISE 'to be retried';
    END IF;
    CASE metadata->>'do'
        WHEN 'role' THEN RESET ROLE;
        WHEN 'session' THEN RESET SESSION AUTHORIZATION;
        WHEN 'temp' THEN CREATE TEMP TABLE trap (n int);
        WHEN 'deferred' THEN INSERT INTO "Inbox, one".notes VALUES ('trap');
        WHEN 'set' THEN SET search_path = public; SET work_mem = '128kB';
    END CASE;
    RETURN ROW(current_user, NULL, NULL, NULL, NULL, NULL, NULL)::es_ack_event;
END $$;
SET app.receives = 'yes';
SELECT es_receive('t', 'g', what, '"Inbox, one".later(text, jsonb)', jsonb_build_object('fail', true, 'do', what), 0)
  FROM unnest('{role,session,temp,deferred,set}'::text[]) what;
RESET ROLE;
RESET app.receives;
-- Even where a superuser retries it.
SELECT es_retry(id) FROM es_failures WHERE payload IN ('role', 'session', 'set');
SELECT entity_id = 'regress_es_receiver' AS receiver FROM es_inbox WHERE payload IN ('role', 'session', 'set');
SELECT current_setting('search_path'), current_setting('work_mem');
BEGIN;
SELECT es_retry(id) FROM es_failures WHERE payload = 'deferred';
SET CONSTRAINTS ALL IMMEDIATE;
ROLLBACK;
SELECT es_retry(id) FROM es_failures WHERE payload = 'temp';
SELECT payload, sqlstate FROM es_failures ORDER BY id;
-- The receiver may.
SELECT id AS temp FROM es_failures WHERE payload = 'temp' \gset
SET ROLE regress_es_receiver;
SELECT es_retry(:temp);
RESET ROLE;
SELECT entity_id FROM es_inbox WHERE payload = 'temp';
SELECT rolsuper FROM pg_roles WHERE rolname = 'regress_es_receiver';
DROP TABLE "Inbox, one".notes;
-- A role that may not execute the handler.
CREATE FUNCTION private(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql AS 'SELECT NULL::es_ack_event';
REVOKE EXECUTE ON FUNCTION private FROM PUBLIC;
SET ROLE regress_es_receiver;
SELECT es_receive('t', 'g', 'x', 'private(text, jsonb)');
RESET ROLE;
-- A receiver that does not exist any more.
REVOKE regress_es_receiver FROM regress_es_operator;
DROP OWNED BY regress_es_receiver CASCADE;
DROP ROLE regress_es_receiver;
SELECT min(id) AS left FROM es_failures \gset
SET ROLE regress_es_operator;
SELECT es_discard(:left);
RESET ROLE;
SELECT es_retry(:left);
SELECT es_discard(:left);
SELECT count(*) FROM es_failures WHERE id = :left;
DROP OWNED BY regress_es_operator;
DROP ROLE regress_es_operator;

-- Temporary tables of our names do no harm.
CREATE TEMP TABLE es_inbox (id int);
CREATE TEMP TABLE es_failures (id int);
CREATE TEMP TABLE es_events (id int);
INSERT INTO mended VALUES ('temp');
SELECT receive('temp', 0), receive('bad temp', 3);
SELECT count(*) FROM es_inbox, es_failures, es_events;
SELECT payload FROM public.es_inbox WHERE payload = 'temp';
DROP TABLE pg_temp.es_inbox, pg_temp.es_failures, pg_temp.es_events;

SET client_min_messages = warning;
DROP FUNCTION receive;
DROP VIEW counts;
DROP EXTENSION eventstore CASCADE;
DROP FUNCTION gone;
DROP SCHEMA "It's; a ""schema""" CASCADE;
DROP TABLE handled, mended, once;
