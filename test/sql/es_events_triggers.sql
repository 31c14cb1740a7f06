-- Triggers of the owner on es_events: which of them refuse an append, and what they may do.
\set VERBOSITY terse
CREATE EXTENSION eventstore;
CREATE FUNCTION lt_skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE FUNCTION lt_all() RETURNS TABLE (way text, result text) LANGUAGE plpgsql AS $$
DECLARE
    call text;
BEGIN
    FOREACH call IN ARRAY ARRAY[
        $c$ SELECT es_append('lt-1', 'any', 'a') $c$,
        $c$ SELECT es_append_batch('lt-1', 'any', '[{"type": "b"}, {"type": "c"}]') $c$,
        $c$ INSERT INTO es_import (stream, type) VALUES ('lt-1', 'd') $c$,
        $c$ SELECT es_rewrite(id, '{"n": 1}') FROM es_last_event('lt-0') $c$] LOOP
        way = (regexp_match(call, 'es_\w+'))[1];
        result = 'honoured';
        BEGIN
            EXECUTE call;
        EXCEPTION WHEN OTHERS THEN
            result = SQLSTATE || ' ' || SQLERRM;
        END;
        RETURN NEXT;
    END LOOP;
END $$;
SELECT version FROM es_append('lt-0', 'none', 'first');

-- A BEFORE row trigger refuses what it is for, if it would fire.
CREATE TRIGGER lt_skip BEFORE INSERT ON es_events FOR EACH ROW EXECUTE FUNCTION lt_skip();
SELECT * FROM lt_all();
ALTER TABLE es_events DISABLE TRIGGER lt_skip;
SELECT * FROM lt_all();
ALTER TABLE es_events ENABLE REPLICA TRIGGER lt_skip;
SELECT * FROM lt_all();
SET session_replication_role = replica;
SELECT * FROM lt_all() WHERE way <> 'es_import';
SET session_replication_role = local;
SELECT * FROM lt_all();
RESET session_replication_role;
ALTER TABLE es_events ENABLE TRIGGER lt_skip;
SELECT * FROM lt_all();
SET session_replication_role = replica;
SELECT * FROM lt_all() WHERE way <> 'es_import';
RESET session_replication_role;
ALTER TABLE es_events ENABLE ALWAYS TRIGGER lt_skip;
SET session_replication_role = replica;
SELECT * FROM lt_all() WHERE way <> 'es_import';
RESET session_replication_role;
DROP TRIGGER lt_skip ON es_events;
-- With a condition it might fire for an event.
CREATE TRIGGER lt_skip BEFORE INSERT OR UPDATE ON es_events FOR EACH ROW WHEN (NEW.type = 'never') EXECUTE FUNCTION lt_skip();
SELECT * FROM lt_all();
ALTER TABLE es_events DISABLE TRIGGER USER;
ALTER TABLE es_events ENABLE ALWAYS TRIGGER es_events_complete, ENABLE ALWAYS TRIGGER es_events_refuse, ENABLE ALWAYS TRIGGER es_events_refuse_row, ENABLE ALWAYS TRIGGER es_events_tag;
SELECT * FROM lt_all();
DROP TRIGGER lt_skip ON es_events;
-- A rewrite sets data and metadata.
CREATE TRIGGER lt_skip BEFORE UPDATE OF stream, type ON es_events FOR EACH ROW EXECUTE FUNCTION lt_skip();
SELECT * FROM lt_all();
DROP TRIGGER lt_skip ON es_events;
CREATE TRIGGER lt_skip BEFORE UPDATE OF metadata ON es_events FOR EACH ROW EXECUTE FUNCTION lt_skip();
SELECT * FROM lt_all();
ALTER TABLE es_events DISABLE TRIGGER lt_skip;
SELECT * FROM lt_all();
DROP TRIGGER lt_skip ON es_events;
-- So has one on DELETE, and so have statement triggers.
CREATE TRIGGER lt_skip BEFORE DELETE ON es_events FOR EACH ROW EXECUTE FUNCTION lt_skip();
CREATE TRIGGER lt_skip2 BEFORE INSERT OR UPDATE ON es_events FOR EACH STATEMENT EXECUTE FUNCTION lt_skip();
SELECT * FROM lt_all();
DROP TRIGGER lt_skip ON es_events;
DROP TRIGGER lt_skip2 ON es_events;

-- AFTER triggers see all rows of the call, and may append, also to the same stream.
CREATE TABLE lt_seen (number int GENERATED ALWAYS AS IDENTITY, what text);
CREATE FUNCTION lt_see() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    seen text = '';
BEGIN
    IF TG_LEVEL = 'ROW' THEN
        seen = NEW.version || ' of ' || (SELECT count(*) FROM es_events WHERE stream = NEW.stream);
    ELSIF TG_WHEN = 'AFTER' THEN
        seen = (SELECT string_agg(version::text, ',' ORDER BY version) FROM new_events);
    END IF;
    INSERT INTO lt_seen (what) VALUES (concat_ws(' ', TG_WHEN, TG_LEVEL, seen));
    RETURN NULL;
END $$;
CREATE FUNCTION lt_answer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM es_append(NEW.stream, NEW.version, 'answered', jsonb_build_object('to', NEW.version));
    RETURN NULL;
END $$;
CREATE TRIGGER lt_1 BEFORE INSERT ON es_events FOR EACH STATEMENT EXECUTE FUNCTION lt_see();
CREATE TRIGGER lt_2 AFTER INSERT ON es_events FOR EACH ROW EXECUTE FUNCTION lt_see();
CREATE TRIGGER lt_3 AFTER INSERT ON es_events REFERENCING NEW TABLE AS new_events FOR EACH STATEMENT EXECUTE FUNCTION lt_see();
CREATE TRIGGER lt_4 AFTER INSERT ON es_events FOR EACH ROW WHEN (NEW.type = 'asked') EXECUTE FUNCTION lt_answer();
SELECT version FROM es_append('lt-2', 'none', 'asked');
SELECT version, type, data FROM es_load('lt-2');
SELECT version FROM es_append('lt-2', 2, 'said');
SELECT version FROM es_append_batch('lt-2', 3, '[{"type": "said"}, {"type": "asked"}]');
INSERT INTO es_import (stream, type) VALUES ('lt-3', 'asked'), ('lt-3', 'said');
INSERT INTO es_import (stream, type) VALUES ('lt-3', 'said'), ('lt-3', 'asked');
SELECT version, type, data FROM es_load('lt-3');
SELECT what FROM lt_seen ORDER BY number;
-- One whose expectation is wrong refuses the call.
SELECT version FROM es_append_batch('lt-2', 'any', '[{"type": "asked"}, {"type": "said"}]');
SELECT es_stream_version('lt-2');
DROP TRIGGER lt_1 ON es_events;
DROP TRIGGER lt_2 ON es_events;
DROP TRIGGER lt_3 ON es_events;
DROP TRIGGER lt_4 ON es_events;

-- A constraint trigger appends at commit; its own appends fire it again.
CREATE FUNCTION lt_count() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.version < 4 THEN
        PERFORM es_append(NEW.stream, 'any', 'counted');
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER lt_count AFTER INSERT ON es_events DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION lt_count();
BEGIN;
SELECT version FROM es_append('lt-4', 'none', 'begun');
SELECT es_stream_version('lt-4');
COMMIT;
SELECT version, type FROM es_load('lt-4');
BEGIN;
SELECT version FROM es_append('lt-5', 'none', 'begun');
SET CONSTRAINTS ALL IMMEDIATE;
SELECT es_stream_version('lt-5');
COMMIT;
DROP TRIGGER lt_count ON es_events;

-- Triggers of an append that are disabled do not fire.
CREATE TRIGGER lt_2 AFTER INSERT ON es_events FOR EACH ROW EXECUTE FUNCTION lt_see();
TRUNCATE lt_seen;
ALTER TABLE es_events DISABLE TRIGGER lt_2;
SELECT version FROM es_append('lt-6', 'none', 'a');
ALTER TABLE es_events ENABLE TRIGGER lt_2;
SET session_replication_role = replica;
SELECT version FROM es_append('lt-6', 1, 'a');
RESET session_replication_role;
ALTER TABLE es_events ENABLE REPLICA TRIGGER lt_2;
SELECT version FROM es_append('lt-6', 2, 'a');
SELECT count(*) FROM lt_seen;
-- A sync projection has its events in every role.
CREATE TABLE lt_counted (stream text PRIMARY KEY, n int);
SELECT es_create_projection('lt_counted', category => 'lt', mode => 'sync', tables => '{lt_counted}', start_position => NULL, query =>
    'INSERT INTO lt_counted SELECT stream, count(*) FROM new_events GROUP BY 1 ON CONFLICT (stream) DO UPDATE SET n = lt_counted.n + excluded.n');
SET session_replication_role = replica;
SELECT version FROM es_append('lt-6', 3, 'a');
RESET session_replication_role;
TABLE lt_counted;

-- Positions ascend with versions, whoever appended in between.
SELECT count(*) AS wrong FROM (SELECT version <> row_number() OVER w OR "position" < lag("position") OVER w AS wrong
  FROM es_events WINDOW w AS (PARTITION BY stream ORDER BY version)) e WHERE wrong;
-- Those of ours on tables fire in every role.
SELECT tgrelid::regclass, tgname FROM pg_trigger t JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = t.tgrelid AND d.deptype = 'e'
 WHERE NOT tgisinternal AND tgenabled <> 'A' AND tgname LIKE 'es\_%' ORDER BY 2, 1;
DROP EXTENSION eventstore;
DROP TABLE lt_seen, lt_counted;
DROP FUNCTION lt_skip, lt_all, lt_see, lt_answer, lt_count;
