-- es_alter_projection: new code, another filter, another start.
SET client_min_messages = warning;
CREATE EXTENSION eventstore;
SET client_min_messages = notice;
CREATE TABLE seen (position bigint PRIMARY KEY, by text, zone text);
CREATE FUNCTION one(event es_recorded_event) RETURNS void LANGUAGE sql
    AS $$ INSERT INTO seen VALUES (event.position, 'one', current_setting('TimeZone')) $$;
CREATE FUNCTION two(event es_recorded_event) RETURNS void LANGUAGE plpgsql
    AS $$ BEGIN INSERT INTO seen VALUES (event.position, 'two', current_setting('TimeZone')); END $$;
CREATE SCHEMA by_type;
CREATE FUNCTION by_type.on_a(event es_recorded_event) RETURNS void LANGUAGE sql
    AS $$ INSERT INTO seen VALUES (event.position, 'on_a', current_setting('TimeZone')) $$;
CREATE MATERIALIZED VIEW types AS SELECT DISTINCT type FROM es_events;
CREATE VIEW definition AS
    SELECT name, handler, query IS NOT NULL AS query, handler_schema, categories, types, start_position, position, state, attempts, message
      FROM es_projections ORDER BY name;
SELECT count(es_append('order-1', 'any', t)) FROM unnest('{a,b,a}'::text[]) t;
SET timezone = 'UTC';
SELECT es_create_projection('p', 'one', tables => '{seen}', category => 'order');
-- Nothing is handled so far: there is nothing to say.
SELECT es_alter_projection('p', query => 'INSERT INTO seen SELECT position, ''query'', current_setting(''TimeZone'') FROM new_events');
SELECT * FROM definition;
SELECT es_run_projections('p');

-- Each kind takes the place of the other, with the settings and the path of the session, for what comes.
SET timezone = 'Asia/Tokyo';
SET search_path = by_type, public;
SELECT es_alter_projection('p', handler => 'two');
SELECT search_path, settings FROM es_projections WHERE NOT 'TimeZone=Asia/Tokyo' = ANY (settings) OR search_path <> 'by_type, @extschema@';
RESET search_path;
SET timezone = 'UTC';
SELECT count(es_append('order-1', 'any', t)) FROM unnest('{a,b}'::text[]) t;
SELECT es_run_projections('p');
SELECT es_alter_projection('p', handler_schema => 'by_type', types => '{a}');
SELECT count(es_append('order-1', 'any', t)) FROM unnest('{a,b}'::text[]) t;
SELECT es_run_projections('p');
SELECT es_alter_projection('p', query => 'INSERT INTO seen SELECT position, ''again'', '''' FROM new_events', category => 'invoice', all_types => true);
SELECT es_append('order-1', 'any', 'a'), es_append('invoice-1', 'any', 'b');
SELECT es_run_projections('p');
SELECT es_alter_projection('p', all_categories => true);
SELECT es_append('order-1', 'any', 'a'), es_append('other-1', 'any', 'b');
SELECT es_run_projections('p');
SELECT * FROM seen ORDER BY position;
SELECT * FROM definition;

-- Another start is that of the next rebuild, which says so.
SELECT es_alter_projection('p', start_position => 4);
SELECT * FROM definition;
SET client_min_messages = warning;
SELECT es_rebuild_projection('p');
SET client_min_messages = notice;
SELECT array_agg(position ORDER BY position), array_agg(DISTINCT by) FROM seen;
-- New code and its rebuild in one transaction.
BEGIN;
SELECT es_alter_projection('p', handler => 'two', start_position => 0);
SET client_min_messages = warning;
SELECT es_rebuild_projection('p');
COMMIT;
SELECT array_agg(position ORDER BY position), array_agg(DISTINCT by) FROM seen;
SELECT es_alter_projection('p', start_position => 9);
SET client_min_messages = notice;
SELECT es_rebuild_projection('p');

-- A failed projection goes on, with a clean slate.
CREATE FUNCTION bad(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'it is bad'; END $$;
SELECT es_create_projection('bad', 'bad', max_attempts => 1, batch_size => 1);
SET client_min_messages = error;
SELECT es_run_projections('bad');
SET client_min_messages = notice;
SELECT state, attempts, attempts_used, failed_position, message FROM es_projections WHERE name = 'bad';
SELECT es_alter_projection('bad', batch_size => 2);
SELECT state, attempts, attempts_used, failed_position, message FROM es_projections WHERE name = 'bad';
SELECT es_alter_projection('bad', query => 'SELECT FROM new_events');
SELECT state, attempts, attempts_used, failed_position, message FROM es_projections WHERE name = 'bad';
SELECT es_run_projections('bad');
SELECT position = (SELECT max(position) FROM es_events) AS goes_on FROM es_projections WHERE name = 'bad';
-- One that has failed and was made sync begins to be.
SELECT es_alter_projection('bad', handler => 'bad');
SELECT es_append('order-2', 'any', 'a');
SET client_min_messages = error;
SELECT es_run_projections('bad');
SET client_min_messages = notice;
SELECT es_alter_projection('bad', mode => 'sync');
SELECT mode, state FROM es_projections WHERE name = 'bad';
SELECT es_alter_projection('bad', query => 'INSERT INTO seen SELECT position * 1000, ''bad'', '''' FROM new_events');
SELECT mode, state FROM es_projections WHERE name = 'bad';
SELECT count(es_append('order-2', 'any', 'a'));
SELECT position / 1000 = (SELECT max(position) FROM es_events) AS sync FROM seen WHERE by = 'bad' ORDER BY position DESC LIMIT 1;

-- A sync projection: the next append has the new code, also in a session that has appended before.
SELECT es_alter_projection('p', query => 'INSERT INTO seen SELECT position, ''sync'', '''' FROM new_events', mode => 'sync', types => '{a}');
SELECT es_append('order-3', 'any', 'a');
SELECT es_alter_projection('p', handler => 'two', types => '{b}');
SELECT es_append('order-3', 'any', 'a'), es_append('order-3', 'any', 'b');
SELECT l.type, s.by FROM es_load('order-3') l LEFT JOIN seen s USING (position) ORDER BY l.version;
-- To async with other code in one call.
SELECT es_alter_projection('p', query => 'INSERT INTO seen SELECT position, ''async'', '''' FROM new_events', mode => 'async', all_types => true);
SELECT es_append('order-3', 'any', 'b');
SELECT es_run_projections('p');
SELECT l.type, s.by FROM es_load('order-3') l LEFT JOIN seen s USING (position) ORDER BY l.version;

-- Parked events stay, and are tried by the new code, whatever the new filter.
SELECT es_create_projection('parks', 'bad', on_failure => 'park', max_attempts => 1, category => 'order', types => '{b}', start_position => (SELECT max(position) - 1 FROM es_events));
SET client_min_messages = error;
SELECT es_run_projections('parks');
SET client_min_messages = notice;
SELECT es_alter_projection('parks', query => 'INSERT INTO seen SELECT -position, ''retry'', '''' FROM new_events', category => 'nothing', types => '{c}');
SELECT es_retry(id) FROM es_failures WHERE projection = 'parks';
SELECT count(*) FROM es_failures WHERE projection = 'parks';
SELECT count(*) FROM seen WHERE by = 'retry';

-- What is refused, and leaves everything as it was.
SELECT * FROM definition;
SELECT es_create_projection('v', refresh => 'types');
SELECT es_alter_projection('p', handler => 'two', query => 'SELECT FROM new_events');
SELECT es_alter_projection('p', handler => 'nothing');
SELECT es_alter_projection('p', handler => 'lower(text)');
SELECT es_alter_projection('p', query => 'no query');
SELECT es_alter_projection('p', query => 'SELECT 1; SELECT 2');
SELECT es_alter_projection('p', query => 'SELECT FROM nothing');
SELECT es_alter_projection('p', handler_schema => 'nothing');
SELECT es_alter_projection('p', category => 'order-1');
SELECT es_alter_projection('p', category => '{order,order-1}');
SELECT es_alter_projection('p', types => '{}');
SELECT es_alter_projection('p', types => '{NULL}');
SELECT es_alter_projection('p', category => 'order', all_categories => true);
SELECT es_alter_projection('p', types => '{a}', all_types => true);
SELECT es_alter_projection('p', start_position => -1);
SELECT es_alter_projection('p', start_position => 1000000);
SELECT es_alter_projection('v', query => 'SELECT FROM new_events');
SELECT es_alter_projection('v', on_failure => 'park', category => 'order');
SELECT es_alter_projection('p', query => 'SELECT 1');
SELECT * FROM definition WHERE name <> 'p';
-- The filter of a view is another one.
SELECT es_alter_projection('v', category => 'order', types => '{a}');
SELECT categories, types FROM es_projections WHERE name = 'v';

-- The owner's rights count, whoever alters it.
CREATE ROLE regress_es_owner;
GRANT SELECT ON es_events TO regress_es_owner;
GRANT EXECUTE ON FUNCTION es_create_projection, es_alter_projection, es_run_projections TO regress_es_owner;
CREATE FUNCTION secret(event es_recorded_event) RETURNS void LANGUAGE sql AS '';
REVOKE EXECUTE ON FUNCTION secret FROM PUBLIC;
SET ROLE regress_es_owner;
SELECT es_create_projection('mine', 'one');
RESET ROLE;
SELECT es_alter_projection('mine', handler => 'secret');
SELECT es_alter_projection('mine', query => 'SELECT FROM new_events, seen');
SET ROLE regress_es_owner;
SELECT es_alter_projection('p', handler => 'one');
SELECT es_alter_projection('mine', handler => 'two');
RESET ROLE;
DROP OWNED BY regress_es_owner;
DROP ROLE regress_es_owner;
DROP EXTENSION eventstore CASCADE;
DROP TABLE seen;
DROP SCHEMA by_type;
