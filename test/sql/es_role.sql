-- The type es_role: owners and receivers, through renames, drops and new roles.
CREATE EXTENSION eventstore;
SET client_min_messages = warning;
CREATE ROLE regress_es_ann;
CREATE ROLE "regress_es Bob's";
CREATE TABLE roles (n int, role es_role);
INSERT INTO roles VALUES (1, 'regress_es_ann'), (2, 'regress_es Bob''s'), (3, 'regress_es_nobody'),
    (4, 'regress_es_ann'::regrole), (5, 'regress_es_ann'::regrole::oid), (6, 'regress_es_ann'::name), (7, 'regress_es_ann'::text), (8, NULL);
SELECT n, role, role::oid = (SELECT oid FROM pg_roles WHERE rolname = role) AS found, role::oid = 0 AS missing FROM roles ORDER BY n;
SELECT role, count(*), array_agg(n ORDER BY n) FROM roles GROUP BY role ORDER BY role;
SELECT DISTINCT role FROM roles ORDER BY role DESC NULLS LAST;
-- It compares with names and texts, as the text that it prints.
SELECT n FROM roles WHERE role = 'regress_es_ann' ORDER BY n;
SELECT n FROM roles WHERE role = 'regress_es_ann'::name AND role = 'regress_es_ann'::text AND role::name <> current_user ORDER BY n;
SELECT n, role < 'regress_es_ann' AS lt, role <= 'regress_es_ann' AS le, role > 'regress_es_ann' AS gt, role >= 'regress_es_ann' AS ge, role <> 'regress_es_ann' AS ne
  FROM roles WHERE n < 4 ORDER BY n;
SELECT a.n, b.n FROM roles a JOIN roles b USING (role) WHERE a.n = 1 ORDER BY 2;
SELECT 'role ' || role, length(role), to_jsonb(r), row_to_json(r) FROM roles r WHERE n = 2;
SELECT role::text FROM roles WHERE n = 3;
-- Wrong ones
INSERT INTO roles VALUES (9, 0::oid);
INSERT INTO roles VALUES (9, 9::oid);
SELECT 'x'::es_role = 1;
-- Names that are no role's
INSERT INTO roles VALUES (9, ''), (10, ' (dropped)'), (11, repeat('x', 70));
SELECT n, role, role::oid FROM roles WHERE n > 8 ORDER BY n;
DELETE FROM roles WHERE n > 8;

-- A renamed role is the same one. Who gets the old name is another.
ALTER ROLE regress_es_ann RENAME TO regress_es_anna;
CREATE ROLE regress_es_ann;
SELECT n, role, role::oid = 'regress_es_anna'::regrole AS anna FROM roles WHERE n IN (1, 4) ORDER BY n;
SELECT n FROM roles WHERE role = 'regress_es_ann';
-- A dropped role is nobody, whoever gets its name.
DROP ROLE regress_es_anna;
SELECT n, role, role::oid FROM roles WHERE n IN (1, 4) ORDER BY n;
CREATE ROLE regress_es_anna;
SELECT n, role, role::oid FROM roles WHERE n IN (1, 4) ORDER BY n;
DROP ROLE regress_es_ann;
SELECT n, role FROM roles WHERE n IN (1, 4) ORDER BY n;
-- A name that no role had is that of the role that gets it.
CREATE ROLE regress_es_nobody;
SELECT n, role, role::oid = 'regress_es_nobody'::regrole AS found FROM roles WHERE n = 3;
SELECT count(*) FROM roles WHERE role = 'regress_es_nobody';

-- A dump, as text and binary, keeps all of that.
SELECT current_setting('data_directory') || '/es_role' AS file \gset
COPY roles TO STDOUT;
COPY roles TO :'file';
CREATE TABLE copied (LIKE roles);
COPY copied FROM :'file';
SELECT n, role, role::oid = 0 AS missing FROM copied ORDER BY n;
SELECT count(*) FROM roles JOIN copied USING (n) WHERE roles.role::text <> copied.role::text;
COPY roles TO :'file' (FORMAT binary);
TRUNCATE copied;
COPY copied FROM :'file' (FORMAT binary);
SELECT count(*) FROM roles JOIN copied USING (n) WHERE roles.role::text = copied.role::text;
COPY (SELECT '') TO :'file';
SELECT role FROM copied EXCEPT SELECT role FROM copied WHERE n = 1 ORDER BY 1;
DROP TABLE roles, copied;

--
-- What the owners own, through a rename, a drop and a new role of the name
--
CREATE SCHEMA regress_es_nobody AUTHORIZATION regress_es_nobody;
SELECT es_grant('regress_es_nobody', 'reader'), es_grant('regress_es_nobody', 'writer'), es_grant('regress_es_nobody', 'operator');
GRANT SELECT ON es_failures TO regress_es_nobody;
CREATE ROLE regress_es_other;
SELECT es_grant('regress_es_other', 'reader'), es_grant('regress_es_other', 'writer');
GRANT EXECUTE ON FUNCTION es_pause_projection, es_drop_projection TO regress_es_other;
SET ROLE regress_es_nobody;
SET search_path = "$user", public;
CREATE TABLE seen (position bigint, who text);
CREATE FUNCTION see(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN INSERT INTO seen VALUES (event.position, current_user); END $$;
CREATE FUNCTION up(data jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RETURN data || jsonb_build_object('by', current_user); END $$;
CREATE FUNCTION handle(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM seen WHERE who = 'ready') THEN
        RAISE 'not ready';
    END IF;
    RETURN jsonb_populate_record(NULL::es_ack_event, jsonb_build_object('stream', 'message-1', 'event_type', current_user::text, 'entity_id', '1'));
END $$;
SELECT es_create_projection('by_sync', handler => 'see', category => 'role', mode => 'sync', tables => '{seen}');
SELECT es_create_projection('by_run', query => 'INSERT INTO seen SELECT position, ''run as '' || current_user FROM new_events', category => 'role');
SELECT es_create_subscription('consumer', category => 'role', lease => '1 hour');
SELECT es_define_event_type('up', schema_version => 2), es_define_upcaster('up', 1, 'up');
SELECT es_receive('t', 'g', 'p', 'handle', max_retries => 0);
RESET ROLE;
-- "$user" is kept as the schema that it was, and the extension's schema by a mark.
SELECT name, owner, search_path FROM es_projections ORDER BY name;
SELECT owner, search_path FROM es_upcasters;
SELECT name, owner FROM es_subscriptions;
SELECT receiver, search_path FROM es_failures;

ALTER ROLE regress_es_nobody RENAME TO regress_es_ann;
SELECT version FROM es_append('role-1', 'any', 'up', '{}', metadata => '{"schema_version": 1}');
SELECT es_run_projections();
SELECT data FROM es_load('role-1');
SET ROLE regress_es_ann;
SELECT es_pause_projection('by_run'), es_resume_projection('by_run'), es_alter_projection('by_run', batch_size => 5);
SELECT data, partition FROM es_poll('consumer', 'me');
INSERT INTO regress_es_nobody.seen VALUES (0, 'ready');
SELECT es_retry(id) FROM es_failures();
SELECT type FROM es_load('message-1');
SELECT name FROM es_projection_status ORDER BY name;
SELECT es_receive('t', 'g', 'q', 'regress_es_nobody.handle', max_retries => 0);
DELETE FROM regress_es_nobody.seen WHERE who = 'ready';
SELECT es_receive('t', 'g', 's', 'regress_es_nobody.handle', max_retries => 0);
SELECT who, count(*) FROM regress_es_nobody.seen GROUP BY who ORDER BY who;
RESET ROLE;

-- The old name, and later the new one, are those of another role.
ALTER ROLE regress_es_other RENAME TO regress_es_nobody;
SET ROLE regress_es_nobody;
SELECT es_pause_projection('by_run');
SELECT es_poll('consumer', 'me');
SELECT count(*) FROM es_projection_status;
SELECT count(*) FROM es_failures();
RESET ROLE;
REASSIGN OWNED BY regress_es_ann TO CURRENT_USER;
DROP OWNED BY regress_es_ann;
DROP ROLE regress_es_ann;
ALTER ROLE regress_es_nobody RENAME TO regress_es_ann;
SET ROLE regress_es_ann;
SELECT es_pause_projection('by_run');
SELECT es_drop_projection('by_run');
SELECT es_poll('consumer', 'me');
SELECT count(*) FROM es_projection_status;
SELECT count(*) FROM es_subscription_status;
SELECT count(*) FROM es_failures();
RESET ROLE;
SELECT version FROM es_append('role-1', 'any', 'up', '{}', metadata => '{"schema_version": 1}');
SELECT data FROM es_load('role-1');
SELECT es_drop_event_type('up');
SELECT version FROM es_append('role-1', 'any', 'up');
SELECT es_pause_projection('by_sync');
SELECT version FROM es_append('role-1', 'any', 'up');
SELECT es_poll('consumer', 'me');
SELECT es_retry(id) FROM es_failures;
SELECT es_run_projections();
SELECT name, owner, sqlstate, message, detail FROM es_projections ORDER BY name;
SELECT name, owner FROM es_subscriptions;
SELECT receiver FROM es_failures;

-- A role that may change the tables makes another role the owner.
UPDATE es_projections SET owner = CURRENT_USER WHERE name = 'by_run';
SELECT es_resume_projection('by_run');
SELECT es_drop_projection('by_sync'), es_drop_projection('by_run'), es_drop_subscription('consumer');
SELECT es_discard(id) FROM es_failures;
DROP SCHEMA regress_es_nobody CASCADE;
DROP OWNED BY regress_es_ann, regress_es_anna, "regress_es Bob's";
DROP ROLE regress_es_ann, regress_es_anna, "regress_es Bob's";

DROP EXTENSION eventstore CASCADE;
