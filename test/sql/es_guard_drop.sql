-- A log with events is not dropped by the way: DROP EXTENSION, DROP SCHEMA and DROP OWNED are
-- refused in a session that has not loaded the library before, unless eventstore.allow_drop
-- is on.
SET client_min_messages = warning;
SET eventstore.allow_drop = off;
-- an empty log goes, with whatever else there is
CREATE EXTENSION eventstore;
SELECT es_create_subscription('s');
DROP EXTENSION eventstore;
CREATE SCHEMA es_guarded;
CREATE EXTENSION eventstore SCHEMA es_guarded;
DROP SCHEMA es_guarded CASCADE;

CREATE SCHEMA es_guarded;
CREATE EXTENSION eventstore SCHEMA es_guarded;
BEGIN;
SELECT version FROM es_guarded.es_append('a-1', 'none', 'x');
ROLLBACK;
-- what was rolled back is no event; what is not committed is one
BEGIN;
DROP EXTENSION eventstore;
ROLLBACK;
BEGIN;
SELECT version FROM es_guarded.es_append('a-1', 'none', 'x');
DROP EXTENSION eventstore;
ROLLBACK;
SELECT version FROM es_guarded.es_append('a-1', 'none', 'x');

-- each statement, in a session of its own
\c
SET client_min_messages = warning;
SET eventstore.allow_drop = off;
DROP EXTENSION eventstore;
\c
SET client_min_messages = warning;
SET eventstore.allow_drop = off;
\set VERBOSITY sqlstate
DROP EXTENSION IF EXISTS eventstore CASCADE;
\set VERBOSITY default
\c
SET client_min_messages = warning;
SET eventstore.allow_drop = off;
DROP SCHEMA es_guarded;
DROP SCHEMA es_guarded CASCADE;
\c
SET client_min_messages = warning;
SET eventstore.allow_drop = off;
CREATE EXTENSION IF NOT EXISTS plpgsql;
DROP EXTENSION plpgsql, eventstore;
-- by one that replicates
SET session_replication_role = replica;
DROP EXTENSION eventstore;
RESET session_replication_role;
-- members alone are the server's to refuse
DROP TABLE es_guarded.es_events;
DROP EVENT TRIGGER es_guard_drop;

-- other things with these names, and other statements, are nobody's business
CREATE TEMP TABLE es_events (n int);
INSERT INTO es_events VALUES (1);
DROP TABLE es_events;
CREATE SCHEMA es_other CREATE TABLE es_events (position bigint);
INSERT INTO es_other.es_events VALUES (1);
DROP SCHEMA es_other CASCADE;
SELECT es_guarded.es_guard_drop();

-- who asks for it
SELECT count(*) FROM es_guarded.es_events;
BEGIN;
SET LOCAL eventstore.allow_drop = on;
DROP EXTENSION eventstore;
ROLLBACK;
SELECT count(*) FROM es_guarded.es_events;
DROP EXTENSION eventstore;
\c
SET client_min_messages = warning;
SET eventstore.allow_drop = on;
DROP SCHEMA es_guarded CASCADE;
SELECT count(*) FROM pg_event_trigger WHERE evtname = 'es_guard_drop';

-- the owner of all of it
CREATE ROLE es_guarded_owner SUPERUSER;
CREATE SCHEMA es_mine AUTHORIZATION es_guarded_owner;
SET ROLE es_guarded_owner;
CREATE EXTENSION eventstore SCHEMA es_mine;
SELECT version FROM es_mine.es_append('a-1', 'none', 'x');
RESET ROLE;
\c
SET client_min_messages = warning;
SET eventstore.allow_drop = off;
DROP OWNED BY es_guarded_owner CASCADE;
SET eventstore.allow_drop = on;
DROP OWNED BY es_guarded_owner CASCADE;
SELECT count(*) FROM pg_extension WHERE extname = 'eventstore';
DROP ROLE es_guarded_owner;
