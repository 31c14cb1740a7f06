-- Positions of appends lie above every row of es_events, however the row came.
\set VERBOSITY terse
CREATE EXTENSION eventstore;
CREATE FUNCTION lp_row(at bigint, stream text, version bigint DEFAULT 1) RETURNS es_events LANGUAGE sql AS
    $$SELECT ROW($1, $3, '3', now(), NULL, es_uuid7(), $2, 'came', '{}', NULL, NULL, NULL)::es_events$$;
CREATE FUNCTION lp_decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
    $$SELECT '[{"type": "decided"}]'::jsonb$$;

-- A dump of the table alone: its first position was rolled back.
\copy es_events FROM PROGRAM 'printf "2\\t1\\t9\\t2026-01-01 00:00:00+00\\t\\\\N\\t00000000-0000-0000-0000-000000000002\\tlp-1\\topened\\t{}\\t\\\\N\\t\\\\N\\t\\\\N\\n"'
SELECT es_create_subscription('lp');
SELECT "position", token FROM es_poll('lp') \gset
SELECT :position AS read;
SELECT es_ack('lp', :'token');
SELECT * FROM es_append('lp-2', 'none', 'lost');
SELECT "position", type FROM es_poll('lp');

-- Each way to append, after rows that came by INSERT. What is raised stays so when the rows do not.
INSERT INTO es_events SELECT (lp_row(10, 'lp-3')).*;
SELECT version, "position" FROM es_append_batch('lp-2', 1, '[{"type": "a"}, {"type": "b"}]');
BEGIN;
INSERT INTO es_events SELECT (lp_row(20, 'lp-4')).*;
ROLLBACK;
INSERT INTO es_import (stream, type) VALUES ('lp-2', 'c'), ('lp-5', 'd');
BEGIN;
SAVEPOINT before;
INSERT INTO es_events SELECT (lp_row(30, 'lp-4')).*;
ROLLBACK TO before;
SELECT "position" FROM es_execute('lp-6', 'lp_decide', '{}', 'es_merge');
COMMIT;
-- A row below raises nothing, nor does one of a role without rights on the sequence.
INSERT INTO es_events SELECT (lp_row(15, 'lp-7')).*;
CREATE ROLE regress_lp_loader;
GRANT INSERT ON es_events TO regress_lp_loader;
SET ROLE regress_lp_loader;
INSERT INTO es_events VALUES (40, 1, '3', now(), NULL, '00000000-0000-0000-0000-000000000040', 'lp-8', 'came', '{}', NULL);
RESET ROLE;
SELECT "position" FROM es_append('lp-2', 'any', 'e');

-- Where no trigger fires the append finds out.
ALTER TABLE es_events DISABLE TRIGGER es_events_complete;
INSERT INTO es_events SELECT (lp_row(50, 'lp-9')).*;
SELECT version, "position" FROM es_append('lp-2', 'any', 'f');
INSERT INTO es_events SELECT (lp_row(60, 'lp-10')).*;
SELECT version, "position" FROM es_append_batch('lp-2', 'any', '[{"type": "g"}, {"type": "h"}]');
INSERT INTO es_events SELECT (lp_row(70, 'lp-11')).*;
ALTER TABLE es_events ENABLE ALWAYS TRIGGER es_events_complete;
INSERT INTO es_import (stream, type) VALUES ('lp-2', 'i');
SET session_replication_role = replica;
INSERT INTO es_events SELECT (lp_row(80, 'lp-12')).*;
RESET session_replication_role;
SELECT last_value FROM es_position;
-- The sequence is set back.
SELECT setval('es_position', 3);
SELECT "position" FROM es_append('lp-2', 'any', 'j');
SELECT setval('es_position', 1, false);
SELECT "position" FROM es_append_batch('lp-2', 'any', '[{"type": "k"}, {"type": "l"}]');
ALTER SEQUENCE es_position RESTART;
SELECT "position" FROM es_append('lp-2', 'any', 'm');
ALTER SEQUENCE es_position MINVALUE -5 RESTART -5;
SELECT "position" FROM es_append('lp-2', 'any', 'n');
ALTER SEQUENCE es_position MINVALUE 1;
SELECT count(*) AS unordered FROM
    (SELECT "position" <= lag("position") OVER (ORDER BY version) AS wrong FROM es_events WHERE stream = 'lp-2') s WHERE wrong;

-- A log whose last page of positions is found again after it was split and built anew.
SELECT "position" FROM es_append_batch('lp-13', 'none', (SELECT array_agg('t'::text) FROM generate_series(1, 3000)),
                                       (SELECT array_agg('{}'::jsonb) FROM generate_series(1, 3000))) \gset
SELECT setval('es_position', 3) AS back \gset
SELECT a."position" - :position AS above FROM es_append('lp-2', 'any', 'o') a;
REINDEX INDEX es_events_pkey;
SELECT setval('es_position', 3) AS back \gset
SELECT a."position" - :position AS above FROM es_append('lp-2', 'any', 'p') a;
-- What would break the order of positions is refused, until it is repaired.
\set VERBOSITY default
ALTER SEQUENCE es_position CACHE 10;
SELECT "position" FROM es_append('lp-14', 'any', 'r');
\set VERBOSITY terse
ALTER SEQUENCE es_position CACHE 1 CYCLE;
SELECT "position" FROM es_append('lp-14', 'any', 'r');
ALTER SEQUENCE es_position NO CYCLE INCREMENT 2;
INSERT INTO es_import (stream, type) VALUES ('lp-14', 'r');
ALTER SEQUENCE es_position INCREMENT -1;
SELECT "position" FROM es_append_batch('lp-14', 'any', '[{"type": "r"}]');
BEGIN;
ALTER SEQUENCE es_position INCREMENT 1;
SELECT "position" FROM es_append('lp-14', 'any', 'r');
ROLLBACK;
SELECT "position" FROM es_append('lp-14', 'any', 'r');
ALTER SEQUENCE es_position INCREMENT 1 CACHE 1 NO CYCLE;
SELECT "position" FROM es_append('lp-14', 'any', 'r');

-- The end of the positions.
\set VERBOSITY default
INSERT INTO es_events SELECT (lp_row(9223372036854775807, 'lp-15')).*;
ALTER SEQUENCE es_position MAXVALUE 5000;
INSERT INTO es_events SELECT (lp_row(5000, 'lp-15')).*;
\set VERBOSITY terse
INSERT INTO es_events SELECT (lp_row(4999, 'lp-15')).*;
SELECT "position" FROM es_append('lp-14', 'any', 's');
SELECT "position" FROM es_append('lp-14', 'any', 't');
ALTER SEQUENCE es_position NO MAXVALUE;
SELECT "position" FROM es_append('lp-14', 'any', 't');
-- Rows that are not from a log.
\set VERBOSITY default
INSERT INTO es_events (stream, type) VALUES ('lp-16', 't');
\copy es_events (stream, type) FROM PROGRAM 'printf "lp-16\\tt\\n"'
INSERT INTO es_events (position, stream, type) VALUES (6000, 'lp-16', 't');
INSERT INTO es_events SELECT (lp_row(0, 'lp-16')).*;
INSERT INTO es_events SELECT (lp_row(6000, 'lp-16', 0)).*;
\set VERBOSITY terse
SELECT last_value = (SELECT max("position") FROM es_events) AS raised FROM es_position;
-- Where no trigger refuses the last of all positions the append does.
ALTER TABLE es_events DISABLE TRIGGER es_events_complete;
INSERT INTO es_events SELECT (lp_row(9223372036854775807, 'lp-15', 2)).*;
SELECT "position" FROM es_append('lp-14', 'any', 'u');

DROP FUNCTION lp_row;
DROP EXTENSION eventstore;
DROP FUNCTION lp_decide;
DROP ROLE regress_lp_loader;
