-- es_health: each kind of trouble is made, found, mended by the statement of its first row as
-- it stands, and gone.  Troubles that take time, sessions or a server: t/092_health.pl.
SET client_min_messages = error;
CREATE SCHEMA es;
CREATE EXTENSION eventstore SCHEMA es;
SET search_path = public, es;
SET eventstore.health_delay = 0;
SET eventstore.max_retry_pause = '1ms';
CREATE ROLE es_health_shop;
CREATE ROLE es_health_app;
CREATE ROLE es_health_other;
SELECT es_grant('es_health_shop', 'operator'), es_grant('es_health_app', 'writer'), es_grant('es_health_app', 'reader'), es_grant('es_health_other', 'reader');

-- What changes from run to run is left out; workers are not the subject here.
CREATE FUNCTION plain(what text) RETURNS text IMMUTABLE LANGUAGE sql
RETURN regexp_replace(regexp_replace(regexp_replace(regexp_replace(what, 'id [-0-9a-f]{36}', 'id ...', 'g'), '_idx_\d+', '_idx_...', 'g'),
                                     '\d+ attempts?( has| have)?', 'some attempts'),
                      'set_config\(''(?!search_path|TimeZone)[^)]*\), ', '', 'g');
CREATE VIEW found AS
    SELECT urgency, problem, object, plain(message) AS message, plain(remedy) AS remedy,
           CASE WHEN remedy_by LIKE 'es_health%' THEN remedy_by WHEN remedy_by IS NOT NULL THEN 'superuser' END AS by
      FROM es_health WHERE problem <> 'worker_missing' ORDER BY urgency, problem, es_health.object;
GRANT SELECT ON found TO PUBLIC;
-- The first remedy, to be run as the role that it names.
CREATE FUNCTION mend() RETURNS text LANGUAGE plpgsql AS $$
DECLARE first es_health;
BEGIN
    SELECT * INTO first FROM es_health WHERE problem <> 'worker_missing' AND remedy IS NOT NULL LIMIT 1;
    IF first.remedy_by IS NOT NULL THEN
        EXECUTE format('SET LOCAL ROLE %I', first.remedy_by);
    END IF;
    EXECUTE first.remedy;
    RESET ROLE;
    RETURN first.problem || ' of ' || first.object;
END $$;
-- The problems that are left, when the remedies were run until none was.
CREATE PROCEDURE mend_all() LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. 50 LOOP
        EXIT WHEN NOT EXISTS (SELECT FROM found WHERE remedy IS NOT NULL);
        PERFORM mend();
        COMMIT;
        PERFORM pg_sleep(0.002);
        BEGIN
            PERFORM es_run_projections();
        EXCEPTION WHEN object_not_in_prerequisite_state THEN
            NULL;               -- while the log has no primary key
        END;
    END LOOP;
END $$;

SELECT * FROM found;

--
-- The log
--
\x
CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
CREATE TRIGGER "Change" BEFORE INSERT ON es_events FOR EACH ROW EXECUTE FUNCTION change();
CREATE RULE also AS ON INSERT TO es_events DO ALSO SELECT 1;
CREATE TABLE child () INHERITS (es_events);
ALTER SEQUENCE es_position CACHE 10 MAXVALUE 1000;
ALTER TABLE es_events DROP CONSTRAINT es_events_id_key, DROP CONSTRAINT es_events_stream_version_key;
ALTER TABLE es_events DROP CONSTRAINT es_events_pkey, ADD PRIMARY KEY (position) DEFERRABLE;
ALTER TABLE es_events DISABLE TRIGGER es_events_refuse;
ALTER TABLE es_events ENABLE REPLICA TRIGGER es_events_refuse_row;
DROP TRIGGER es_events_complete ON es_events;
ALTER TABLE es_projections DISABLE TRIGGER es_projection_restore;
ALTER TABLE es_upcasters DISABLE TRIGGER es_event_types_changed;
INSERT INTO es_events VALUES (7, 1, '1', now(), NULL, es_uuid7(), 'seven-1', 't', '{}', NULL);
SELECT * FROM found;
CALL mend_all();
SELECT * FROM found;
SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = 'es_events'::regclass ORDER BY 1;
SELECT position FROM es_append('eight-1', 'none', 't');
-- no statement gives a column its type again
BEGIN;
ALTER TABLE es_events DROP COLUMN next_xid;
SELECT urgency, problem, object, message, remedy FROM found WHERE problem = 'append_refused';
ROLLBACK;
-- the index on the category: of another definition, missing, not valid
DROP INDEX es_events_category_position_idx;
CREATE INDEX es_events_category_position_idx ON es_events (type);
SELECT * FROM found;
SELECT mend();
SELECT * FROM found;
SELECT remedy FROM es_health LIMIT 1 \gexec
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'es_events_category_position_idx'::regclass;
SELECT * FROM found;
SELECT remedy FROM es_health LIMIT 1 \gexec
SELECT * FROM found;
-- what a crash would empty
ALTER TABLE es_inbox SET UNLOGGED;
SELECT * FROM found;
SELECT mend();
-- what logical replication needs
ALTER TABLE es_events REPLICA IDENTITY NOTHING;
SELECT * FROM found;
SET client_min_messages = error;
CREATE PUBLICATION es_health_pub FOR TABLE es_events;
SELECT * FROM found;
SELECT mend();
DROP PUBLICATION es_health_pub;
SELECT * FROM found;

--
-- Projections
--
CREATE SCHEMA model AUTHORIZATION es_health_shop;
CREATE SCHEMA handlers AUTHORIZATION es_health_shop;
CREATE SCHEMA "Old" AUTHORIZATION es_health_shop;
SET ROLE es_health_shop;
SET search_path = model, es;
SET timezone = 'Asia/Tokyo';
CREATE TABLE seen (projection text, position bigint, n int);
CREATE FUNCTION handle(e es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN INSERT INTO seen VALUES (es_category(e.stream), e.position, 10 / (e.data->>'n')::int); END $$;
CREATE FUNCTION handlers.on_t(e es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM model.handle(e); END $$;
SELECT es_create_projection('stops', 'handle', tables => '{seen}', category => 'stops', max_attempts => 1, start_position => 8),
       es_create_projection('It parks', 'handle', category => 'parks', max_attempts => 1, on_failure => 'park', start_position => 8),
       es_create_projection('queries', query => 'INSERT INTO seen SELECT ''queries'', position, 10 / (data->>''n'')::int FROM new_events', category => 'queries', start_position => 8),
       es_create_projection('by_type', handler_schema => 'handlers', category => 'by_type', start_position => 8);
RESET ROLE;
RESET timezone;
SET search_path = public, es;
CREATE PROCEDURE append(n int) LANGUAGE sql AS $$
    SELECT es_append(c || '-1', 'any', 't', jsonb_build_object('n', n)) FROM unnest('{stops,parks,queries,by_type}'::text[]) c $$;
CREATE VIEW handled AS SELECT projection, count(*) FROM model.seen GROUP BY 1 ORDER BY 1;

-- events that fail.  One attempt each: es_work() goes on while a pause of 1 ms is over.
SET eventstore.max_retry_pause = '1h';
CALL append(1);
CALL append(0);
CALL append(1);
CALL es_work();
SELECT * FROM found;
SELECT mend();
CALL es_work();
SELECT * FROM found;
SET eventstore.max_retry_pause = '1ms';
CALL mend_all();
SELECT * FROM found;
SELECT * FROM handled;
SELECT projection, position, reason FROM es_skipped_events ORDER BY position;

-- a privilege on a table, on all of it at once, and on a schema by which names are found
REVOKE INSERT ON model.seen FROM es_health_shop;
CALL append(1);
CALL es_work();
SELECT * FROM found;
CALL mend_all();
SELECT * FROM found;
REVOKE ALL ON model.seen FROM es_health_shop;
CALL append(1);
CALL es_work();
SELECT DISTINCT problem, remedy, by FROM found;
CALL mend_all();
SELECT * FROM found;
REVOKE USAGE ON SCHEMA model FROM es_health_shop;
CALL append(1);
CALL es_work();
SELECT DISTINCT problem, remedy, by FROM found;
CALL mend_all();
REVOKE EXECUTE ON FUNCTION model.handle FROM es_health_shop, PUBLIC;
REVOKE SELECT ON es_events FROM es_health_shop;
SELECT object, problem, message, remedy, by FROM found;
CALL mend_all();
SELECT * FROM found;
SELECT * FROM handled;

-- a schema is renamed: that of a handler, of a handler_schema, of a search_path
ALTER SCHEMA model RENAME TO read;
ALTER SCHEMA handlers RENAME TO "by Type";
CREATE OR REPLACE VIEW handled AS SELECT projection, count(*) FROM read.seen GROUP BY 1 ORDER BY 1;
CREATE OR REPLACE FUNCTION "by Type".on_t(e es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM read.handle(e); END $$;
CALL append(1);
CALL es_work();
SELECT * FROM found;
CALL mend_all();
SELECT * FROM found;
SELECT * FROM handled;
SELECT name, handler, handler_schema, search_path, settings[1] FROM es_projections ORDER BY name;

-- code has moved to where its owner may not call it
CREATE SCHEMA closed;
ALTER FUNCTION read.handle SET SCHEMA closed;
SELECT object, problem, message, remedy, by FROM found;
SELECT mend();
SELECT object, problem FROM found;
REVOKE EXECUTE ON FUNCTION closed.handle FROM PUBLIC, es_health_shop;
ALTER FUNCTION closed.handle OWNER TO CURRENT_USER;
SELECT object, problem, message, remedy, by FROM found;
CALL mend_all();
SELECT * FROM found;
SELECT name, handler FROM es_projections WHERE handler IS NOT NULL ORDER BY name;
ALTER FUNCTION closed.handle OWNER TO es_health_shop;
ALTER FUNCTION closed.handle SET SCHEMA read;
CALL mend_all();
ALTER SCHEMA "by Type" RENAME TO types;
REVOKE USAGE ON SCHEMA types FROM es_health_shop;
SELECT object, problem, message, remedy, by FROM found;
CALL mend_all();
ALTER SCHEMA types RENAME TO "by Type";
CALL mend_all();
SELECT * FROM found;

-- two schemas have one like it: no statement is sure
CREATE FUNCTION public.handle(e es_recorded_event) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION "Old".handle(e es_recorded_event) RETURNS void LANGUAGE sql AS '';
ALTER FUNCTION read.handle RENAME TO handle_it;
SELECT object, problem, message, remedy, by FROM found;
ALTER FUNCTION read.handle_it RENAME TO handle;
DROP FUNCTION public.handle, "Old".handle;
-- nor is one that another role has put there, whose code would run as the owner
CREATE SCHEMA trap AUTHORIZATION es_health_other;
SET ROLE es_health_other;
CREATE FUNCTION trap.handle(e es.es_recorded_event) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION trap.deny() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE insufficient_privilege USING MESSAGE = 'permission denied for table paid'; END $$;
RESET ROLE;
ALTER FUNCTION read.handle RENAME TO handle_it;
SELECT object, problem, remedy FROM found;
ALTER FUNCTION read.handle_it RENAME TO handle;

-- a table and a column that are gone
ALTER TABLE read.seen RENAME COLUMN n TO number;
ALTER TABLE read.seen RENAME TO looked_at;
CALL append(1);
CALL es_work();
SELECT object, problem, message, remedy, by FROM found WHERE object = 'projection stops';
ALTER TABLE read.looked_at RENAME TO seen;
CALL mend_all();
-- one whose name no identifier without quotes has, with its schema
SET ROLE es_health_shop;
SET search_path = "Old", es;
CREATE TABLE "It is "" here" (n int);
SELECT es_create_projection('quoted', query => 'INSERT INTO "It is "" here" SELECT 1 FROM new_events', category => 'quoted', start_position => 8);
RESET ROLE;
SET search_path = public, es;
ALTER TABLE "Old"."It is "" here" RENAME TO "is it?";
SELECT version FROM es_append('quoted-1', 'none', 't');
CALL es_work();
SELECT object, problem, message, remedy, by FROM found;
ALTER TABLE "Old"."is it?" RENAME TO "It is "" here";
ALTER SCHEMA "Old" RENAME TO "New";
SELECT es_resume_projection('quoted');
CALL es_work();
SELECT object, problem, message, remedy, by FROM found;
CALL mend_all();
SELECT * FROM found;
SELECT count(*) FROM "New"."It is "" here";
SELECT es_drop_projection('quoted');
DROP TABLE "New"."It is "" here";
ALTER SCHEMA "New" RENAME TO "Old";
ALTER TABLE read.seen RENAME COLUMN number TO n;
CALL mend_all();
SELECT * FROM found;

-- a cause outside of the event, such as a full disk
CREATE OR REPLACE FUNCTION read.handle(e es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE disk_full USING MESSAGE = 'the disk is full'; END $$;
SELECT es_append('stops-1', 'any', 't', '{"n": 1}') IS NOT NULL;
CALL es_work();
SELECT * FROM found;
CREATE PROCEDURE try_again() LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. 3 LOOP
        PERFORM pg_sleep(0.005);
        PERFORM es_run_projections();
        COMMIT;
    END LOOP;
END $$;
CALL try_again();
SELECT urgency, problem, object, message, remedy FROM found;
CREATE OR REPLACE FUNCTION read.handle(e es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN INSERT INTO seen VALUES (es_category(e.stream), e.position, 10 / (e.data->>'n')::int); END $$;
SELECT mend();
CALL es_work();
SELECT * FROM found;

-- what is paused
SELECT es_pause_projection('stops');
SELECT paused_at AS paused FROM es_projections WHERE name = 'stops' \gset
SELECT es_pause_projection('stops');
SELECT *, (SELECT since = :'paused' FROM es_health WHERE problem = 'projection_paused') AS since_the_first FROM found;
SELECT mend();
SELECT paused_at IS NULL AS goes_on FROM es_projections WHERE name = 'stops';
SELECT * FROM found;

-- a sync projection without its trigger
GRANT ALL ON read.seen TO es_health_shop;
SELECT es_alter_projection('stops', mode => 'sync');
SELECT * FROM found;
ALTER TABLE es_events DISABLE TRIGGER stops;
CALL append(1);
SELECT * FROM found;
CALL mend_all();
SELECT * FROM found;
DROP TRIGGER stops ON es_events;
CALL append(1);
SELECT problem, remedy FROM found;
CALL mend_all();
SELECT * FROM found;
CALL append(1);
SELECT * FROM handled;
-- or without a privilege, or its handler
REVOKE INSERT, UPDATE ON read.seen FROM es_health_shop;
SELECT * FROM found;
CALL mend_all();
ALTER SCHEMA read RENAME TO reads;
SELECT urgency, problem, object, message, remedy FROM found WHERE object = 'projection stops';
CALL mend_all();
ALTER SCHEMA reads RENAME TO read;
CALL mend_all();
CALL append(1);
SELECT * FROM found;
SELECT es_alter_projection('stops', mode => 'async');

-- a message of another session's settings that no GRANT is known for
SELECT es_health_grant('es_health_shop'::regrole, 'read', '{}', 'permission denied for table nothing', NULL, NULL),
       es_health_grant('es_health_shop'::regrole, 'read', '{}', 'must be owner of table seen', NULL, NULL),
       es_health_grant('es_health_shop'::regrole, 'read', '{}', NULL, NULL, NULL);
-- an error that code has raised does not ask for a privilege
CREATE TABLE payroll ();
SELECT (es_health_grant('es_health_other'::regrole, 'trap', '{}', 'permission denied for table payroll', context, NULL)).remedy AS raised,
       (es_health_grant('es_health_other'::regrole, 'trap', '{}', 'permission denied for table payroll', 'SQL statement "DELETE FROM payroll"', NULL)).remedy AS real
  FROM (VALUES (E'PL/pgSQL function trap.deny() line 1 at RAISE\nSQL statement "SELECT trap.deny()"')) AS c (context);

--
-- Upcasters
--
CREATE SCHEMA up AUTHORIZATION es_health_shop;
SET ROLE es_health_shop;
SET search_path = up, es;
CREATE FUNCTION up(data jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT data || '{"up": 1}' $$;
SELECT es_define_event_type('of old', schema_version => 2), es_define_upcaster('of old', 1, 'up'),
       es_define_event_type('of old', schema_version => 2, category => 'it''s'), es_define_upcaster('of old', 1, 'up', 'it''s');
RESET ROLE;
SET search_path = public, es;
SELECT es_append('old-1', 'none', 'of old', '{}', '{"schema_version": 1}') IS NOT NULL;
REVOKE EXECUTE ON FUNCTION up.up FROM PUBLIC, es_health_shop;
SELECT * FROM found;
CALL mend_all();
REVOKE USAGE ON SCHEMA up FROM es_health_shop;
SELECT DISTINCT problem, message, remedy, by FROM found;
CALL mend_all();
SELECT data FROM es_load('old-1');
ALTER SCHEMA up RENAME TO "Up";
SELECT * FROM found;
CALL mend_all();
SELECT * FROM found;
SELECT data FROM es_load('old-1');
SELECT upcaster, owner, search_path, category FROM es_upcasters ORDER BY 4;
REVOKE USAGE ON SCHEMA closed FROM es_health_shop;
ALTER FUNCTION "Up".up SET SCHEMA closed;
SELECT * FROM found;
CALL mend_all();
SELECT * FROM found;
SELECT data FROM es_load('old-1');
ALTER FUNCTION closed.up SET SCHEMA "Up";
CALL mend_all();
ALTER FUNCTION "Up".up RENAME TO down;
SELECT DISTINCT problem, message, remedy FROM found;
ALTER FUNCTION "Up".down RENAME TO up;
CREATE ROLE es_health_gone;
UPDATE es_upcasters SET owner = 'es_health_gone';
DROP ROLE es_health_gone;
SELECT * FROM found;
CALL mend_all();
SELECT * FROM found;
SELECT data FROM es_load('old-1');

--
-- Subscriptions
--
SELECT es_create_subscription('mails', category => 'stops', partitions => 2, lease => '1 ms', max_attempts => 2, start_position => 8),
       es_create_subscription('rare', types => '{rare}', start_position => 8);
SELECT object, problem, regexp_replace(message, 'position \d+', 'position ...') AS message, remedy, by FROM found;
SELECT count(*) FROM (SELECT es_ack('mails', max(token)) FROM es_poll('mails', 'c') HAVING count(*) > 0) AS acknowledged;
SELECT * FROM found;
-- the consumer comes, and parks an event
SELECT es_append('stops-1', 'any', 't', '{"n": 1}') IS NOT NULL;
SELECT es_nack('mails', token, position, 'out of paper', 'park') FROM es_poll('mails', 'c');
CALL es_work();
SELECT object, problem, regexp_replace(message, 'position \d+', 'position ...') AS message, regexp_replace(remedy, '\d+', '...') AS remedy, by FROM found;
SELECT mend();
SELECT es_nack('mails', token, position, 'still out of paper') FROM es_poll('mails', 'c');
SELECT object, problem, regexp_replace(message, 'position \d+', 'position ...') AS message, regexp_replace(remedy, '\d+', '...') AS remedy, by FROM found;
SELECT mend();
SELECT count(*) FROM es_poll('mails', 'c');
SELECT * FROM found;
-- the consumer dies again and again
SELECT es_drop_subscription('mails'), es_create_subscription('mails', category => 'stops', lease => '1 ms', start_position => 8);
DO $$
BEGIN
    FOR i IN 1 .. 5 LOOP
        PERFORM count(*) FROM es_poll('mails', 'c', 100);
        PERFORM pg_sleep(0.005);
    END LOOP;
END $$;
SELECT object, problem, regexp_replace(message, 'position \d+', 'position ...') AS message, remedy, by FROM found WHERE problem <> 'consumer_missing';
DO $$
BEGIN
    FOR i IN 1 .. 20 LOOP
        PERFORM es_ack('mails', max(token)) FROM es_poll('mails', 'c') HAVING count(*) > 0;
    END LOOP;
END $$;
SELECT * FROM found;
SELECT es_drop_subscription('mails'), es_drop_subscription('rare');

--
-- The inbox
--
CREATE TABLE paid (what text);
GRANT INSERT ON paid TO es_health_app;
CREATE FUNCTION on_payment(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO paid VALUES (payload);
    IF payload = 'bad' THEN RAISE 'a bad payment'; END IF;
    RETURN ROW(payload, NULL, NULL, NULL, NULL, NULL, NULL)::es_ack_event;
END $$;
SET ROLE es_health_app;
SELECT es_receive('payments', 'web', 'bad', 'on_payment', max_retries => 0, message_id => 'm1');
SELECT es_receive('payments', 'it''s', 'bad', 'on_payment', max_retries => 0);
RESET ROLE;
REVOKE INSERT ON paid FROM es_health_app;
SET ROLE es_health_app;
SELECT es_receive('payments', 'web', 'good', 'on_payment', max_retries => 0, message_id => 'm2');
SELECT es_receive('refunds', 'web', 'good', 'on_payment', max_retries => 0, message_id => 'm2');
RESET ROLE;
SELECT object, problem, message, remedy, by FROM found;
CALL mend_all();
SELECT * FROM found;
-- a message whose handler has moved is received again by the new one
CREATE SCHEMA web;
CREATE SCHEMA hook;
GRANT USAGE ON SCHEMA web, hook TO es_health_app;
ALTER FUNCTION on_payment SET SCHEMA web;
SET ROLE es_health_app;
SET search_path = web, public, es;
SELECT es_receive('moved', 'web', 'bad', 'web.on_payment', max_retries => 0);
RESET ROLE;
SET search_path = public, es;
ALTER SCHEMA web RENAME TO "the Web";
SELECT object, problem, message, remedy, by FROM found;
CREATE OR REPLACE FUNCTION "the Web".on_payment(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO paid VALUES (payload || ' is good');
    RETURN ROW(payload, NULL, NULL, NULL, NULL, NULL, NULL)::es_ack_event;
END $$;
CALL mend_all();
SELECT * FROM found;
-- and if its receiver may not call it there
REVOKE INSERT ON paid FROM es_health_app;
SET ROLE es_health_app;
SELECT es_receive('closed', 'web', 'late', '"the Web".on_payment', max_retries => 0);
RESET ROLE;
GRANT INSERT ON paid TO es_health_app;
ALTER FUNCTION "the Web".on_payment SET SCHEMA closed;
SELECT object, problem, message, remedy, by FROM found;
CALL mend_all();
SELECT * FROM found;
ALTER FUNCTION closed.on_payment SET SCHEMA "the Web";
-- one that nothing handles any more, and one whose cause lies outside of it
SET ROLE es_health_app;
SELECT es_receive('gone', 'web', '1', '"the Web".on_payment', max_retries => 0);
RESET ROLE;
REVOKE INSERT ON paid FROM es_health_app;
SET ROLE es_health_app;
SELECT es_receive('gone', 'web', '2', '"the Web".on_payment', max_retries => 0);
RESET ROLE;
ALTER TABLE paid RENAME TO paid_once;
SELECT mend();
SELECT object, problem, message, remedy, by FROM found;
ALTER FUNCTION "the Web".on_payment RENAME TO on_anything;
SELECT object, problem, message, remedy, by FROM found;
ALTER FUNCTION "the Web".on_anything RENAME TO on_payment;
ALTER TABLE paid_once RENAME TO paid;
SELECT mend();
CALL mend_all();
SELECT * FROM found;
SELECT what FROM paid;
SELECT message_id FROM es_inbox ORDER BY 1;

--
-- Who sees what: operators all, owners theirs, others nothing
--
SELECT es_pause_projection('stops');
SET ROLE es_health_other;
SELECT object FROM es_health;
SET ROLE es_health_shop;
SELECT object, problem FROM found;
RESET ROLE;
SELECT es_revoke('es_health_other', 'reader');
SET ROLE es_health_other;
SELECT object FROM es_health;
SELECT * FROM es_health_log();
RESET ROLE;
GRANT pg_read_all_stats TO es_health_other;
GRANT USAGE ON SCHEMA es TO es_health_other;
GRANT SELECT ON es_health TO es_health_other;
GRANT EXECUTE ON FUNCTION es_health() TO es_health_other;
SET ROLE es_health_other;
SELECT object, problem FROM es_health WHERE problem <> 'worker_missing';
RESET ROLE;
SELECT es_create_subscription('theirs', category => 'stops', start_position => 8);
ALTER TABLE es_events DISABLE TRIGGER es_events_refuse;
UPDATE es_subscriptions SET owner = 'es_health_app';
SET ROLE es_health_app;
SELECT object, problem FROM es_health;
RESET ROLE;
CALL mend_all();
SELECT es_drop_subscription('theirs');

-- who was dropped
SELECT es_create_subscription('orphan', category => 'stops', start_position => 8);
CREATE ROLE es_health_gone;
SELECT es_create_projection('synced', query => 'SELECT FROM new_events', category => 'synced', mode => 'sync');
SELECT version FROM es_append('synced-1', 'none', 't');
UPDATE es_subscriptions SET owner = 'es_health_gone';
UPDATE es_projections SET owner = 'es_health_gone' WHERE name IN ('queries', 'synced');
DROP ROLE es_health_gone;
SELECT object, problem, message, remedy, by FROM found;
CALL mend_all();
SELECT * FROM found;

--
-- Workers
--
SELECT es_append('parks-1', 'any', 't', '{"n": 1}') IS NOT NULL;
SELECT urgency, problem, object = 'database ' || quote_ident(current_database()) AS this, message, remedy, remedy_by FROM es_health;
SELECT remedy AS start FROM es_health WHERE problem = 'worker_missing' \gset
:start \gset worker_
CREATE PROCEDURE wait_until_well() LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. 3000 LOOP
        EXIT WHEN NOT EXISTS (SELECT FROM es_health);
        COMMIT;
        PERFORM pg_sleep(0.01);
    END LOOP;
END $$;
CALL wait_until_well();
SELECT * FROM es_health;
SELECT pg_terminate_backend(:worker_es_start_worker, 60000);

-- a look that fails is a row, too
UPDATE es_projections SET handler = 'a.b.c.d..' WHERE name = 'stops';
SELECT object, problem, message, remedy FROM found;

DROP EXTENSION eventstore CASCADE;
DROP OWNED BY es_health_shop, es_health_app, es_health_other CASCADE;
DROP SCHEMA es CASCADE;
DROP SCHEMA "the Web", hook, closed CASCADE;
DROP TABLE child, paid, payroll;
DROP ROUTINE IF EXISTS plain, mend, mend_all, change, append, on_payment, public.handle, try_again, wait_until_well;
DROP ROLE es_health_shop, es_health_app, es_health_other;
